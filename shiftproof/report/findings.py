"""A study in numbers: means, differences, tests, gaps, selection. The page and `--json` print this."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..metrics.rules import tolerance_words
from ..statistics import interval, per_subject, per_training
from ..statistics.worst import worst_domain
from .comparing import closed, compared, drops, leader, power_of
from .halving import halving
from .limits import caveats
from .notes import notes
from .numbers import scale
from .phrases import primary, remedies
from .ranking import mixed_model, ranking
from .reading import read_results
from .results import Cell, Results
from .roles import bound_of, measured_on, plain_of, reference_of, selected, setting, upper_bound
from .spread import spread, unseen_loss
from .trainings import fallen, trainings_of
from .words import evidence, headline


def summary(folder: Path) -> dict[str, Any]:
    """All numbers of the folder of a study or an evaluation, as JSON has them: NaN is None.

    Raises:
        RunError: If the folder holds neither.
    """
    return plain(summarise(read_results(Path(folder))))


def summarise(results: Results) -> dict[str, Any]:
    """As `summary`, of results that are already read, with NaN where a number does not exist.

    The unit is the subject: scores are averaged over structures, scans and seeds before any
    interval or test.
    """
    values = scores_of(results, results.primary)
    recipes = [dict(r, role=r.get("role") or "row") for r in results.recipes]
    references = results.facts.get("references") or {}
    wide = values.pivot_table(index=["held_out", "subject"], columns="row", values="value")
    margin = declared_margin(results.facts)
    trainings = trainings_of(single_trainings(results), results.cells) if results.kind == "study" else None
    comparisons = compared(wide, recipes, references, scale(results.primary), margin, trainings)
    chosen, validation = selected(results, recipes)
    measured = measured_on(references, chosen, wide)
    found: dict[str, Any] = {
        "kind": results.kind,
        "name": str(results.facts.get("name") or (results.root.name if results.root else "evaluation")),
        "domain_word": results.domain_word,
        "domains": results.domains,
        "held_out": results.held_out,
        "task": str((results.facts.get("task") or {}).get("task", "segmentation")),
        "seeds": results.seeds,
        "structures": results.structures,
        "primary": primary_facts(results.primary),
        "margin": margin,
        "tolerance_mm": results.facts.get("tolerance_mm"),
        "tolerance": tolerance(results.facts.get("tolerance_mm")),
        "selection": results.facts.get("selection"),
        "seen_domains": [str(d) for d in results.facts.get("seen_domains") or []],
        "unscored": results.facts.get("failures") or [],
        "missing_counts_as_missed": results.facts.get("missing") == "missed",
        "transforms": {r["name"]: r.get("transforms") for r in recipes},
        "subjects": {
            "all": int(values["subject"].nunique()),
            "by domain": {d: int(values[values["held_out"] == d]["subject"].nunique()) for d in results.held_out},
            "in several domains": int((values.groupby("subject")["held_out"].nunique() > 1).sum()),
        },
        "rows": [row_summary(results, values, wide, recipe, references, comparisons, validation) for recipe in recipes],
        "comparisons": comparisons,
        "selected": chosen,
        "source_only": plain_of(measured, references) if measured else references.get("source-only"),
        "target_supervised": upper_bound(references, chosen, wide),
        "bounded": bool(references.get("target-supervised")),
        "cells": cell_counts(results.cells),
        "halving": halving(results.root),
        "fallen": fallen(trainings, scale(results.primary)) if trainings else [],
    }
    found["leader"], found["winner"] = leader(found)
    found["drops"] = drops(wide, found)
    found["power"] = power_of(remedies(found) or primary(found))
    order = ranking(values, found)
    found["ranking"] = order.as_found() if order else None
    own = oriented(results.rows, results.primary)
    found["mixed"] = mixed_model(own[own["metric"] == results.primary], found)
    found["notes"] = [*noted(results), *notes(results.rows, wide, found)]
    found["headline"] = headline(found)
    found["evidence"] = evidence(found)
    found["answer"] = [found["headline"], *(f"{e['about']}: {e['text']}" for e in found["evidence"])]
    found["caveats"] = caveats(found)
    return found


def declared_margin(facts: dict[str, Any]) -> float:
    """The smallest difference that matters, in the unit of the primary metric; 0 where none was declared."""
    value = facts.get("margin")
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0.0
    return float(value) if math.isfinite(value) and value > 0 else 0.0


def tolerance(value: Any) -> str | None:
    """Of the surface Dice, in words: one for all structures, or by structure."""
    return None if value is None else tolerance_words(value)


def noted(results: Results) -> list[str]:
    """What scoring had to say of the labels, such as structures too small for their Dice."""
    lines = list(results.facts.get("notes") or [])
    by_domain = {c.held_out: c.notes for c in results.cells if c.notes}  # labels are the same for every row and seed
    return lines + [f"{results.domain_word} {domain}: {line}" for domain, own in by_domain.items() for line in own]


def primary_facts(metric: str) -> dict[str, Any]:
    of = scale(metric)
    return {
        "metric": metric,
        "title": of.title,
        "unit": of.unit,
        "digits": of.digits,
        "higher_is_better": of.higher_is_better,
    }


def row_summary(
    results: Results,
    values: pd.DataFrame,
    wide: pd.DataFrame,
    recipe: dict[str, Any],
    references: dict[str, Any],
    comparisons: list[dict[str, Any]],
    validation: dict[str, float],
) -> dict[str, Any]:
    name, metric = recipe["name"], scale(results.primary)
    own = values[values["row"] == name]
    means = {
        d: dataclasses.asdict(interval(own[own["held_out"] == d]["value"], within=metric.within))
        for d in results.held_out
    }
    scored = [d for d in results.held_out if means[d]["n"]]
    worst = worst_domain(
        own.set_index(["held_out", "subject"])["value"],
        higher_is_better=metric.higher_is_better,
        within=metric.within,
    )
    by_subject = own.groupby("subject")["value"].mean()
    reference = reference_of(recipe, references)
    plain_row, best_row = plain_of(name, references), bound_of(name, references)
    return {
        "row": name,
        "method": recipe.get("method"),
        "role": recipe["role"],
        "setting": setting(recipe, references),
        "transforms": recipe.get("transforms"),
        "domains": means,
        "overall": dataclasses.asdict(interval(by_subject, within=metric.within)),
        "spread": spread(by_subject, metric),
        "covers": scored,
        "worst": dataclasses.asdict(worst) if scored else None,
        "reference": reference,
        "difference": next(
            (c for c in comparisons if c["family"] == "primary" and (c["a"], c["b"]) == (name, reference)),
            None,
        ),
        "gap_closed": closed(wide, name, plain_row, best_row, metric.higher_is_better),
        "failures": failures(results.rows, name, results.primary),
        "seed_sd": seed_sd(results.rows, name, results.primary),
        "unseen": unseen_loss(results, recipe, means),
        "validation": validation.get(name, math.nan),
        "seconds": float(np.nansum([c.seconds for c in results.cells if c.row == name])),
        "cells": cell_counts([c for c in results.cells if c.row == name]),
    }


def scores_of(results: Results, metric: str) -> pd.DataFrame:
    """`per_subject` of the study's rows: over structures, or over scans where a scan has one label."""
    return per_subject(oriented(results.rows, metric), metric, by_structure=results.segments)


def single_trainings(results: Results) -> pd.DataFrame:
    """As `scores_of` of the primary metric, by seed."""
    return per_training(oriented(results.rows, results.primary), results.primary, by_structure=results.segments)


def oriented(rows: pd.DataFrame, metric: str) -> pd.DataFrame:
    """A signed error counts by its size: +2 ml and -2 ml must not average to a perfect 0.

    What is infinite is no score.
    """
    value = rows["value"].where(np.isfinite(rows["value"]))
    return rows.assign(value=value.abs() if scale(metric).signed else value)


def failures(rows: pd.DataFrame, name: str, metric: str) -> dict[str, int]:
    """Structures by status, all seeds, each counted once whatever the number of metrics."""
    own = rows[(rows["row"] == name) & (rows["metric"] == metric)]
    counts = own["status"].value_counts()
    return {
        "scored": len(own),
        **{status: int(counts.get(status, 0)) for status in ("missed", "spurious", "both empty")},
    }


def seed_sd(rows: pd.DataFrame, name: str, metric: str) -> float:
    """Standard deviation over seeds of the mean over subjects; NaN for a single seed."""
    own = rows[(rows["row"] == name) & (rows["metric"] == metric)]
    own = own.pivot_table(index=["held_out", "subject"], columns="seed", values="value")
    # Only what all seeds have: a cell that failed must not pass for variation between seeds.
    return float(own.dropna().mean().std(ddof=1)) if own.shape[1] > 1 else math.nan


def cell_counts(cells: list[Cell]) -> dict[str, int]:
    return {status: sum(c.status == status for c in cells) for status in ("done", "failed", "not run")}


def plain(value: Any) -> Any:
    """As JSON has it: no NaN, no NumPy scalars."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
