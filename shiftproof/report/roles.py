"""Which row is measured against which, what each may know, and which one the training domains select."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from .results import Cell, Results

SOURCE_ONLY = "reference: source-only"

Recipe = dict[str, Any]
References = dict[str, Any]
"""As in study.json: "source-only" is a row's name; "plain", "pooled", "target-supervised" name one by row."""


def plain_of(name: str, references: References) -> str | None:
    """The source-only run of a row's own network and loss; a pooled reference or an upper bound has that of its row."""
    plain, pooled, bounds = (references.get(key) or {} for key in ("plain", "pooled", "target-supervised"))
    named = [name, *(r for side in (pooled, bounds) for r, reference in side.items() if reference == name)]
    return next((plain[row] for row in named if row in plain), references.get("source-only"))


def setting(recipe: Recipe, references: References) -> str:
    """What the row may know of the domain that it is scored on."""
    if recipe["role"] == "target-supervised":
        return "reference: labels from the target"
    if recipe["name"] in (references.get("source-only"), *(references.get("plain") or {}).values()):
        return SOURCE_ONLY
    if recipe.get("target"):
        return "adaptation: unlabelled target images"
    if recipe.get("test_time"):
        return "adaptation at prediction"
    return "generalisation"


def reference_of(recipe: Recipe, references: References) -> str | None:
    """The row that this one is measured against: ERM with the same transforms, else source-only."""
    name, plain_row = recipe["name"], plain_of(recipe["name"], references)
    pooled = (references.get("pooled") or {}).get(name)
    if recipe["role"] != "target-supervised" and pooled and pooled != name:
        return pooled
    return plain_row if plain_row != name else None


def bound_of(name: str, references: References) -> str | None:
    """The target-supervised row with this one's transforms; a pooled reference has that of its row."""
    bounds, pooled = references.get("target-supervised") or {}, references.get("pooled") or {}
    return next((bounds[row] for row in [name, *(r for r, p in pooled.items() if p == name)] if row in bounds), None)


def measured_on(references: References, chosen: str | None, wide: pd.DataFrame) -> str | None:
    """The row whose references tell what an unseen domain costs: the selected one, else the first that has a bound."""
    bounds = references.get("target-supervised") or {}
    return next((r for r in [chosen, *bounds] if r and bound_of(r, references) in wide), chosen)


def upper_bound(references: References, chosen: str | None, wide: pd.DataFrame) -> str | None:
    """The target-supervised row of the headline: of the row that it is measured on."""
    row = measured_on(references, chosen, wide)
    bound = bound_of(row, references) if row else None
    return bound if bound in wide else None


def selected(results: Results, recipes: list[Recipe]) -> tuple[str | None, dict[str, float]]:
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
