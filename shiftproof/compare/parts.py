"""One file or folder as result rows: a study's, an evaluation's, or those of any table of subject, method and value."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..errors import OptionError, RunError
from ..names import choose
from ..report.numbers import count, listed, scale
from ..report.reading import read_facts
from ..report.results import Results
from .columns import BETTER_HIGHER, BETTER_LOWER, Columns, guessed, normal
from .texts import read_text_table, shortened

MISSING = {"", "nan", "na", "n/a", "#n/a", "null", "none", "-", ".", "missing", "failed", "fail"}
ROWS = ["row", "held_out", "domain", "subject", "seed", "structure", "metric", "value"]
UNNAMED = ("value", "score", "result", "metric value", "measurement")  # say nothing of which metric it is
ALIKE = {"dsc": "dice", "dice score": "dice", "dice coefficient": "dice", "hd95": "hd95 mm", "assd": "assd mm"}


@dataclass(frozen=True)
class Part:
    """One file or folder, as result rows."""

    name: str
    rows: pd.DataFrame  # ROWS
    metric: str
    by_structure: bool = True
    own_names: bool = True  # whether it says which method is which; else it is one method, called by its file
    domain_word: str = ""
    notes: list[str] = field(default_factory=list)
    ours: bool = False  # NaN then stands for what is rightly absent


def some(names: Sequence[str], most: int = 6) -> str:
    names = list(dict.fromkeys(names))
    return listed(names) if len(names) <= most else f"{', '.join(names[:most])} and {len(names) - most} more"


# Ours ---------------------------------------------------------------------------------------------


def from_results(results: Results, name: str, metric: str | None) -> Part:
    """Rows of a study or an evaluation.

    References that were trained with labels of the held-out domain are left out: they are no rivals.
    """
    if results.rows.empty:
        raise RunError(f"{results.root} has no scores yet; run the study to its end")
    wanted = metric or results.primary
    choose(wanted, results.metrics, "metric")
    rows, notes = without_bounds(results.rows, results.facts)
    order = {r["name"]: i for i, r in enumerate(results.recipes)}
    rows = rows.sort_values("row", key=lambda names: names.map(order), kind="stable")
    lacking = [c for c in results.cells if c.status != "done" and c.row not in bounds_of(results.facts)]
    if lacking:
        notes.append(f"{count(len(lacking), 'cell')} of {name} without results: {some([c.row for c in lacking])}")
    task = (results.facts.get("task") or {}).get("task", "segmentation")
    return Part(
        name, rows[rows["metric"] == wanted][ROWS], wanted, task == "segmentation",
        own_names=results.kind == "study", domain_word=results.domain_word, notes=notes, ours=True,
    )  # fmt: skip


def bounds_of(facts: dict[str, Any]) -> list[str]:
    """References that know labels of the held-out domain."""
    return [str(r["name"]) for r in facts.get("rows", []) if r.get("role") == "target-supervised"]


def without_bounds(rows: pd.DataFrame, facts: dict[str, Any]) -> tuple[pd.DataFrame, list[str]]:
    bounds = bounds_of(facts)
    left_out = [name for name in rows["row"].drop_duplicates() if name in bounds]
    if not left_out:
        return rows, []
    what = "was trained" if len(left_out) == 1 else "were trained"
    word = facts.get("domain_column") or "domain"
    return rows[~rows["row"].isin(bounds)], [f"{some(left_out)} {what} with labels of the held-out {word}: left out"]


def facts_beside(path: Path) -> dict[str, Any]:
    """What the study or evaluation that wrote a rows.csv says of it."""
    for name in ("study.json", "evaluation.json"):
        if (path.parent / name).exists():
            return read_facts(path.parent / name)
    return {}


# Any table ----------------------------------------------------------------------------------------


def from_table(path: Path, name: str, metric: str | None, columns: Mapping[str, str] | None) -> Part:
    table, notes = read_text_table(path)
    numeric = [str(c) for c in table if is_numeric(table[c])]
    found = guessed(list(table.columns), numeric, metric=metric, given=columns, where=path.name)
    if not found.method and not found.methods:
        found = dataclasses.replace(found, method=likely_method(table, found, numeric))
    if found.words and not columns:
        notes.append(f"{path.name}: columns taken as {found.words}")
    facts = facts_beside(path) if path.name == "rows.csv" else {}
    if found.methods:
        for method in found.methods:  # slips are named by column and line while these are still there
            numbers_of(table, method, path, [])
        rest = [str(c) for c in table if c and c not in taken_by(found)]
        empty = [c for c in rest if table[c].str.lower().isin(MISSING).all()]
        notes += [f"{path.name}: no score in {some(empty)}: left out"] if empty else []
        table = table.melt(
            id_vars=[c for c in table if c not in found.methods], var_name=" method", value_name=" value"
        )
        notes.append(f"{path.name}: a column a method ({some(found.methods)})")
        found = Columns(**{**vars(found), "method": " method", "value": " value", "methods": []})
    if found.metric:
        table, measured = of_metric(table, found.metric, metric or facts.get("primary"), path, notes)
    else:
        if metric and named(found.value) and not same_metric(found.value, metric):
            raise OptionError(f'{path.name} has no metric "{metric}"; its values stand in column "{found.value}"')
        measured = metric or named(found.value)
        if found.others:
            others = listed([f'"{o}"' for o in found.others])
            notes.append(f'{path.name}: compared by "{found.value}"; --metric chooses another of {others}')
    rows = pd.DataFrame(
        {
            "row": column(table, found.method, name),
            "held_out": column(table, found.domain),
            "domain": column(table, found.domain),
            "subject": table[found.subject],
            "seed": column(table, found.seed),
            "structure": column(table, found.structure),
            "metric": "",
            "value": numbers_of(table, found.value, path, notes),
        }
    )
    rows, left_out = without_bounds(without_names(rows, found, path, notes), facts)
    notes += left_out
    if measured and scale(measured).signed:
        rows["value"] = rows["value"].abs()  # +2 ml and -2 ml must not average to a perfect 0
    whole = str((facts.get("task") or {}).get("task", "segmentation")) != "segmentation"
    return Part(
        name, rows, measured, by_structure=bool(found.structure) and not whole, own_names=bool(found.method),
        domain_word=str(facts.get("domain_column") or ("" if "held" in found.domain else found.domain)), notes=notes,
        ours=bool(facts),
    )  # fmt: skip


def taken_by(found: Columns) -> list[str]:
    """Columns that have a meaning."""
    return [found.subject, found.value, found.metric, found.structure, found.domain, found.seed, *found.methods]


def likely_method(table: pd.DataFrame, found: Columns, numeric: Sequence[str]) -> str:
    """The one text column that tells a subject's lines apart, where subjects have several; "" if there is none."""
    keys = [found.subject, *(c for c in (found.metric, found.structure, found.domain, found.seed) if c)]
    if not table.duplicated(keys).any():
        return ""
    free = [str(c) for c in table if c not in [*taken_by(found), *numeric] and 1 < table[c].nunique() < len(table)]
    apart = [c for c in free if not table.duplicated([*keys, c]).any()]
    return apart[0] if len(apart) == 1 else ""


def column(table: pd.DataFrame, name: str, otherwise: str = "") -> pd.Series:
    return table[name] if name else pd.Series(otherwise, index=table.index, dtype=object)


def named(value_column: str) -> str:
    """The metric that a column's name tells, in our name for it; "" for "value" and the like."""
    told = normal(value_column)
    return "" if told in UNNAMED else ALIKE.get(told, told if told in BETTER_HIGHER + BETTER_LOWER else "")


def same_metric(column_name: str, metric: str) -> bool:
    return normal(column_name) == normal(metric) or named(column_name) == ALIKE.get(normal(metric), metric)


def of_metric(
    table: pd.DataFrame, where: str, wanted: str | None, path: Path, notes: list[str]
) -> tuple[pd.DataFrame, str]:
    """The lines of one metric, where a column names several."""
    there = list(dict.fromkeys(table[where]))
    if wanted is None and len(there) > 1:
        usual = [m for m in there if ALIKE.get(normal(m), normal(m)) in ("dice", "correct", "accuracy")]
        if not usual:
            raise OptionError(
                f"{path.name} has {count(len(there), 'metric')} ({some(there)}); choose one with --metric"
            )
        wanted = usual[0]
        notes.append(f"{path.name}: compared by {wanted}; --metric chooses another of {some(there)}")
    wanted = there[0] if wanted is None else choose(wanted, there, "metric")
    return table[table[where] == wanted], wanted


def is_numeric(cells: pd.Series) -> bool:
    """Whether what is there are numbers, but for slips that `numbers_of` names; a column without any is none."""
    there = cells[~cells.str.lower().isin(MISSING)]
    return len(there) > 0 and bool(pd.to_numeric(there, errors="coerce").notna().mean() > 0.5)


def numbers_of(table: pd.DataFrame, name: str, path: Path, notes: list[str]) -> pd.Series:
    """Values as numbers; NaN where none is given.

    Raises:
        RunError: For text that is neither a number nor a usual word for "missing".
    """
    text = table[name]
    there = ~text.str.lower().isin(MISSING)
    values = pd.to_numeric(text.where(there), errors="coerce").astype(float)
    wrong = text[there & values.isna()]
    if len(wrong):
        raise RunError(
            f'{path}: column "{name}" has {shortened(str(wrong.iloc[0]))} in line {int(wrong.index[0]) + 1} below the '  # type: ignore[call-overload]
            f"header ({count(len(wrong), 'such cell')}), expected numbers; leave a cell empty where a score is missing"
        )
    endless = int(np.isinf(values).sum())
    if endless:
        notes.append(
            f"{path.name}: {count(endless, 'infinite value')} taken as missing; a failure needs a finite score"
        )
    return values.where(~np.isinf(values))


def without_names(rows: pd.DataFrame, found: Columns, path: Path, notes: list[str]) -> pd.DataFrame:
    """Without the lines that name no subject or no method."""
    nameless = (rows["subject"] == "") | (rows["row"] == "")
    if nameless.all():
        raise RunError(f'{path}: column "{found.subject}" is empty, expected the subject of each line')
    if nameless.any():
        notes.append(f"{path.name}: {count(int(nameless.sum()), 'line')} without subject or method left out")
    return rows[~nameless]
