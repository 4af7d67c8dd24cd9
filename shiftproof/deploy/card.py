"""From a study to the card of a delivered model: the held-out results of its recipe."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.plan import SEGMENTATION
from ..errors import RunError
from ..files import read_rows, write_text
from .card_text import card, metrics_of
from .model import CARD, add_information, read_description

if TYPE_CHECKING:
    import pandas as pd

    from ..statistics import Interval

__all__ = ["card", "held_out_results", "rows_of_study", "write_card"]

LARGEST = {"dice": 1.0, "surface dice": 1.0, "correct": 1.0, "brier": 2.0}
"""Where a mean can lie, from 0 on; other metrics have no upper end."""

KEPT = ("name", "domain_column", "held_out", "seeds", "cohort_hash", "tolerance_mm", "command", "versions")


def write_card(model: Path, *, study: Path, row: str, selection: Mapping[str, Any]) -> Path:
    """Adds a study's held-out results to `model.json` and writes `card.md` beside it.

    Args:
        model: The model folder.
        study: Folder of the study whose row this model is.
        row: The row's name.
        selection: "rule": why this row; "scores": what the rule compared, by row.

    Returns:
        The card.

    Raises:
        ModelError: If there is no model.
        RunError: If the study holds no results of the row.
    """
    try:
        facts = json.loads((study / "study.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{study} is not a study: its study.json cannot be read ({error})") from error
    plan = read_description(model)["plan"]
    add_information(
        model,
        {
            "study": {key: facts.get(key) for key in KEPT},
            "row": row,
            "selection": dict(selection),
            "held_out": held_out_results(rows_of_study(study, row), plan["target"], plan["classes"]),
        },
    )
    path = Path(model) / CARD
    write_text(path, card(read_description(model)))
    return path


def rows_of_study(study: Path, row: str) -> pd.DataFrame:
    """Tidy results of one row of a study, all held-out domains and seeds together.

    Raises:
        RunError: If there are none.
    """
    import pandas as pd

    tables = []
    for path in sorted(study.glob("cells/*/*/*/cell.json")):
        facts = json.loads(path.read_text(encoding="utf-8"))
        if facts.get("row") == row and facts.get("status") == "done":
            tables.append(read_rows(path.parent / "rows.csv"))
    if not tables:
        raise RunError(f'{study} has no results of "{row}"; run the study again to finish its cells')
    return pd.concat(tables, ignore_index=True)


def held_out_results(
    rows: pd.DataFrame, target: Mapping[str, Any] = SEGMENTATION, classes: Sequence[str] = ()
) -> dict[str, Any]:
    """Means over subjects with 95 % intervals, by held-out domain and over all; seeds are averaged first.

    Args:
        rows: Tidy results of one recipe.
        target: What is predicted, as its plan says it.
        classes: In their order; structures are listed so.
    """
    metrics = list(metrics_of(target))
    by_domain = {str(name): _results(some, metrics, classes) for name, some in rows.groupby("held_out", sort=True)}
    known = {d: found[metrics[0]]["mean"] for d, found in by_domain.items() if found[metrics[0]]["mean"] is not None}
    worst = max if target.get("task") == "regression" else min
    return {
        "all": _results(rows, metrics, classes),
        "by_domain": by_domain,
        "worst_domain": worst(known, key=lambda d: known[d]) if known else None,
        "seeds": sorted({int(s) for s in rows["seed"]}),
    }


def _results(rows: pd.DataFrame, metrics: Sequence[str], classes: Sequence[str]) -> dict[str, Any]:
    from ..statistics import interval, per_subject

    def measured(metric: str, structure: str | None = None) -> dict[str, Any]:
        values = per_subject(rows, metric, structure=structure)["value"].to_numpy()
        return _plain(interval(values, within=(0.0, LARGEST.get(metric, math.inf))))

    def order(name: str) -> int:
        return list(classes).index(name) if name in classes else len(classes)

    counted = rows[rows["metric"] == metrics[0]]["status"].value_counts().sort_index()
    return {
        **{metric: measured(metric) for metric in metrics},
        "structures": {str(s): measured(metrics[0], s) for s in sorted(rows["structure"].drop_duplicates(), key=order)},
        "status": {str(status): int(n) for status, n in counted.items()},
        "subjects": int(rows["subject"].nunique()),
    }


def _plain(found: Interval) -> dict[str, Any]:
    """As JSON has it: what is unknown is null."""
    numbers = {"mean": found.mean, "low": found.low, "high": found.high}
    known = {name: value if math.isfinite(value) else None for name, value in numbers.items()}
    return {**known, "n": found.n, "method": found.method}
