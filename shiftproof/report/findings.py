"""A study in numbers: means, differences, tests, gaps, selection. The page and `--json` print this."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..statistics import (
    Comparison,
    Interval,
    gap_closed,
    holm,
    interval,
    paired,
    per_subject,
    smallest_detectable,
    subjects_needed,
)
from .numbers import scale
from .results import Cell, Results, read_results
from .words import caveats, evidence, headline

LEVEL = 0.05


def summary(folder: Path) -> dict[str, Any]:
    """All numbers of the folder of a study or an evaluation, as JSON has them: NaN is None.

    Raises:
        RunError: If the folder holds neither.
    """
    return plain(summarise(read_results(Path(folder))))


def summarise(results: Results) -> dict[str, Any]:
    """As `summary`, of results that are already read, with NaN where a number does not exist.

    The unit is the subject: scores are averaged over structures, scans and seeds before any
    interval or test. Two families of tests are corrected by Holm's rule, each by its own number:
    "primary", what the study asks (labels from the domain against source-only, and each row
    against ERM with its own transforms), and "between rows", all pairs of rows, which only serves
    to say whether the row with the highest mean is a winner.
    """
    values = per_subject(oriented(results.rows, results.primary), results.primary)
    recipes = [dict(r, role=r.get("role") or "row") for r in results.recipes]
    references = results.facts.get("references") or {}
    wide = values.pivot_table(index=["held_out", "subject"], columns="row", values="value")
    comparisons = compared(wide, recipes, references, results)
    chosen, validation = selected(results, recipes)
    found: dict[str, Any] = {
        "kind": results.kind,
        "name": str(results.facts.get("name") or (results.root.name if results.root else "evaluation")),
        "domain_word": results.domain_word,
        "domains": results.domains,
        "held_out": results.held_out,
        "seeds": results.seeds,
        "structures": results.structures,
        "primary": {"metric": results.primary, **dataclasses.asdict(scale(results.primary))},
        "tolerance_mm": results.facts.get("tolerance_mm"),
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
        "rows": [
            row_summary(results, values, wide, recipe, references, comparisons, validation) for recipe in recipes
        ],
        "comparisons": comparisons,
        "selected": chosen,
        "source_only": references.get("source-only"),
        "target_supervised": upper_bound(references, chosen, wide),
        "cells": cell_counts(results.cells),
    }
    found["leader"], found["winner"] = leader(found)
    found["drops"] = drops(wide, found)
    found["headline"] = headline(found)
    found["evidence"] = evidence(found)
    found["answer"] = [found["headline"], *(f"{e['about']}: {e['text']}" for e in found["evidence"])]
    found["caveats"] = caveats(found)
    return found


def row_summary(
    results: Results,
    values: pd.DataFrame,
    wide: pd.DataFrame,
    recipe: dict[str, Any],
    references: dict[str, Any],
    comparisons: list[dict[str, Any]],
    validation: dict[str, float],
) -> dict[str, Any]:
    name, higher = recipe["name"], scale(results.primary).higher_is_better
    own = values[values["row"] == name]
    means = {d: dataclasses.asdict(interval(own[own["held_out"] == d]["value"])) for d in results.held_out}
    scored = {d: m["mean"] for d, m in means.items() if m["n"]}
    worst = (min if higher else max)(scored, key=lambda d: scored[d]) if scored else None
    reference = reference_of(recipe, references)
    plain_row, best_row = references.get("source-only"), bound_of(name, references)
    return {
        "row": name,
        "method": recipe.get("method"),
        "role": recipe["role"],
        "setting": setting(recipe, references),
        "transforms": recipe.get("transforms"),
        "domains": means,
        "overall": dataclasses.asdict(interval(own.groupby("subject")["value"].mean())),
        "covers": sorted(scored, key=results.held_out.index),
        "worst": {"domain": worst, "mean": scored[worst]} if worst is not None else None,
        "reference": reference,
        "difference": next(
            (c for c in comparisons if c["family"] == "primary" and (c["a"], c["b"]) == (name, reference)), None
        ),
        "gap_closed": closed(wide, name, plain_row, best_row, higher),
        "failures": failures(results.rows, name, results.primary),
        "seed_sd": seed_sd(results.rows, name, results.primary),
        "validation": validation.get(name, math.nan),
        "seconds": float(np.nansum([c.seconds for c in results.cells if c.row == name])),
        "cells": cell_counts([c for c in results.cells if c.row == name]),
    }


def oriented(rows: pd.DataFrame, metric: str) -> pd.DataFrame:
    """A signed error counts by its size: +2 ml and -2 ml must not average to a perfect 0."""
    return rows.assign(value=rows["value"].abs()) if scale(metric).signed else rows


def setting(recipe: dict[str, Any], references: dict[str, Any]) -> str:
    """What the row may know of the domain that it is scored on."""
    if recipe["role"] == "target-supervised":
        return "reference: labels from the target"
    if recipe["name"] == references.get("source-only"):
        return "reference: source-only"
    if recipe.get("target"):
        return "adaptation: unlabelled target images"
    if recipe.get("test_time"):
        return "adaptation at prediction"
    return "generalisation"


def reference_of(recipe: dict[str, Any], references: dict[str, Any]) -> str | None:
    """The row that this one is measured against: ERM with the same transforms, else source-only."""
    name, plain_row = recipe["name"], references.get("source-only")
    pooled = (references.get("pooled") or {}).get(name)
    if recipe["role"] != "target-supervised" and pooled and pooled != name:
        return pooled
    return plain_row if plain_row != name else None


def bound_of(name: str, references: dict[str, Any]) -> str | None:
    """The target-supervised row with this one's transforms; a pooled reference has that of its row."""
    bounds, pooled = references.get("target-supervised") or {}, references.get("pooled") or {}
    return next((bounds[row] for row in [name, *(r for r, p in pooled.items() if p == name)] if row in bounds), None)


def upper_bound(references: dict[str, Any], chosen: str | None, wide: pd.DataFrame) -> str | None:
    """The target-supervised row of the headline: the selected row's, else the first with scores."""
    bounds = references.get("target-supervised") or {}
    named = [bound_of(chosen, references) if chosen else None, *bounds.values()]
    return next((b for b in named if b in wide), None)


def compared(
    wide: pd.DataFrame, recipes: list[dict[str, Any]], references: dict[str, Any], results: Results
) -> list[dict[str, Any]]:
    """Both families of comparisons, corrected; rows without scores are not compared."""
    higher = scale(results.primary).higher_is_better
    primary = [(r["name"], reference_of(r, references)) for r in recipes]
    primary = [(a, b) for a, b in primary if a in wide and b in wide]
    rows = [r["name"] for r in recipes if r["role"] != "target-supervised" and r["name"] in wide]
    pairs = [(a, b) for i, a in enumerate(rows) for b in rows[i + 1 :]]
    if not primary:  # nothing was declared as a reference: all pairs are the question
        primary, pairs = pairs, []
    found = []
    for family, members in (("primary", primary), ("between rows", pairs)):
        tested = [(a, b, paired(*shared(wide, a, b))) for a, b in members]
        corrected = holm([c.p for _, _, c in tested])
        for (a, b, c), p in zip(tested, corrected, strict=True):
            found.append(
                {
                    "a": a,
                    "b": b,
                    "family": family,
                    "family_size": len(members),
                    **dataclasses.asdict(c),
                    "p_corrected": float(p),
                    "verdict": verdict(c, float(p), higher),
                    "detectable": smallest_detectable(c.sd, c.n),
                    "needed": subjects_needed(c.mean_difference, c.sd),
                }
            )
    return found


def shared(wide: pd.DataFrame, *rows: str) -> list[pd.Series]:
    """Scores of the subjects that all these rows have, in the same domains, one a subject."""
    both = wide[list(rows)].dropna().groupby("subject").mean()
    return [both[r] for r in rows]


def verdict(c: Comparison, p_corrected: float, higher_is_better: bool) -> str:
    """A difference is claimed only if its corrected p and its interval both say so."""
    if not math.isfinite(p_corrected) or not math.isfinite(c.low):
        return "not tested"
    if p_corrected < LEVEL and c.excludes_zero:
        return "better" if (c.mean_difference > 0) == higher_is_better else "worse"
    return "no reliable difference"


def closed(
    wide: pd.DataFrame, row: str, plain_row: str | None, best_row: str | None, higher: bool
) -> dict[str, Any] | None:
    if not plain_row or not best_row or row in (plain_row, best_row):
        return None
    lacking = [r for r in (row, plain_row, best_row) if r not in wide]
    if lacking:
        reason = f"{lacking[0]} has no scores"
        return {"value": math.nan, "low": math.nan, "high": math.nan, "n": 0, "reason": reason}
    return dataclasses.asdict(gap_closed(*shared(wide, row, plain_row, best_row), higher_is_better=higher))


def drops(wide: pd.DataFrame, found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Target-supervised minus source-only in each held-out domain."""
    plain_row, best_row = found["source_only"], found["target_supervised"]
    if plain_row not in wide or best_row not in wide:
        return {}
    sides = wide[[best_row, plain_row]].dropna()
    here = sides.index.get_level_values("held_out")
    return {
        domain: dataclasses.asdict(interval(sides[here == domain][best_row] - sides[here == domain][plain_row]))
        for domain in found["held_out"]
        if domain in here
    }


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
    by_subject = own.groupby(["seed", "held_out", "subject"])["value"].mean()
    return float(by_subject.groupby("seed").mean().std(ddof=1))


def selected(results: Results, recipes: list[dict[str, Any]]) -> tuple[str | None, dict[str, float]]:
    """The row that training-domain validation prefers, and each row's mean of it over its cells.

    No candidates are the target-supervised reference, rows that saw images of the held-out domain
    (they cannot be trained again on all domains), rows that adapt while predicting (validation does
    not see what they do) and rows with a cell that is not done.
    """
    value: dict[str, float] = {}
    for recipe in recipes:
        cells = [c for c in results.cells if c.row == recipe["name"]]
        barred = recipe["role"] == "target-supervised" or recipe.get("target") or recipe.get("test_time")
        if cells and not barred and all(c.status == "done" for c in cells):
            value[recipe["name"]] = sum(rule_value(c) for c in cells) / len(cells)
    candidates = [name for name, v in value.items() if math.isfinite(v)]
    return max(candidates, key=lambda name: value[name], default=None), value


def rule_value(cell: Cell) -> float:
    """Mean score on held-back subjects of the training domains; larger is better."""
    value = cell.validation.get("mean", next(iter(cell.validation.values()), None))
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


def leader(found: dict[str, Any]) -> tuple[str | None, str | None]:
    """The row with the best mean, and the same again if it beats each other row."""
    rows = [r for r in found["rows"] if r["role"] != "target-supervised"]
    complete = [r for r in rows if r["covers"] == found["held_out"] and math.isfinite(r["overall"]["mean"])]
    if len(rows) < 2 or not complete:
        return None, None
    best = max if found["primary"]["higher_is_better"] else min
    first = best(complete, key=lambda r: r["overall"]["mean"])["row"]
    verdicts = [verdict_for(found, first, r["row"]) for r in rows if r["row"] != first]
    return first, first if all(v == "better" for v in verdicts) else None


def between(found: dict[str, Any], a: str, b: str) -> dict[str, Any] | None:
    """The comparison that decides between two rows: corrected for all pairs, for the leader was
    picked after looking."""
    pairs = [c for c in found["comparisons"] if {c["a"], c["b"]} == {a, b}]
    return next((c for c in pairs if c["family"] == "between rows"), pairs[0] if pairs else None)


def verdict_for(found: dict[str, Any], a: str, b: str) -> str:
    """Verdict on `a` against `b`, whichever of the two the comparison names first."""
    c = between(found, a, b)
    if c is None:
        return "not tested"
    turned = {"better": "worse", "worse": "better"}
    return c["verdict"] if c["a"] == a else turned.get(c["verdict"], c["verdict"])


def cell_counts(cells: list[Cell]) -> dict[str, int]:
    return {status: sum(c.status == status for c in cells) for status in ("done", "failed", "not run")}


def plain(value: Any) -> Any:
    """As JSON has it: no NaN, no NumPy scalars."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, Interval | Comparison):
        return plain(dataclasses.asdict(value))
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
