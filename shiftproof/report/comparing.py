"""Rows against rows: two families of paired comparisons, and what they allow to say."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pandas as pd

from ..statistics import Comparison, gap_closed, holm, interval, paired, smallest_detectable, subjects_needed
from .numbers import Scale
from .roles import Recipe, References, reference_of

LEVEL = 0.05

Found = dict[str, Any]


def compared(wide: pd.DataFrame, recipes: list[Recipe], references: References, metric: Scale) -> list[Found]:
    """Both families, each corrected by Holm's rule for its own number.

    "primary" is what the study asks: labels from the domain against source-only, and each row
    against ERM with its own transforms. "between rows" are all pairs of rows; it only serves to say
    whether the row with the best mean, picked after looking, is a winner.

    Args:
        wide: Scores; index held-out domain and subject, a column a row.
        recipes: In the study's order; without scores they are not compared.
        references: What they are compared with. Without any, all pairs are what is asked.
        metric: The primary one.
    """
    declared = [(str(r["name"]), str(reference_of(r, references))) for r in recipes]
    primary = [(a, b) for a, b in declared if a in wide and b in wide]
    rows = [r["name"] for r in recipes if r["role"] != "target-supervised" and r["name"] in wide]
    pairs = [(a, b) for i, a in enumerate(rows) for b in rows[i + 1 :]]
    if not primary:
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
                    "verdict": verdict(c, float(p), metric.higher_is_better),
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


def beyond_reach(c: Found) -> bool:
    """Whether not even the largest difference could be called reliable with so few subjects."""
    return c["n"] < 2 or (c["test"] == "permutation" and c["family_size"] * 2 / 2 ** c["n"] >= LEVEL)


def closed(wide: pd.DataFrame, row: str, plain_row: str | None, best_row: str | None, higher: bool) -> Found | None:
    if not plain_row or not best_row or row in (plain_row, best_row):
        return None
    lacking = [r for r in (row, plain_row, best_row) if r not in wide]
    if lacking:
        reason = f"{lacking[0]} has no scores"
        return {"value": math.nan, "low": math.nan, "high": math.nan, "n": 0, "reason": reason}
    return dataclasses.asdict(gap_closed(*shared(wide, row, plain_row, best_row), higher_is_better=higher))


def drops(wide: pd.DataFrame, found: Found) -> dict[str, Found]:
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


def leader(found: Found) -> tuple[str | None, str | None]:
    """The row with the best mean, and the same again if it beats each other row."""
    rows = [r for r in found["rows"] if r["role"] != "target-supervised"]
    complete = [r for r in rows if r["covers"] == found["held_out"] and math.isfinite(r["overall"]["mean"])]
    if len(rows) < 2 or not complete:
        return None, None
    best = max if found["primary"]["higher_is_better"] else min
    first = best(complete, key=lambda r: r["overall"]["mean"])["row"]
    against = rivalries(found, first)
    beaten = {c["b"] for c in against if c["verdict"] == "better"}
    return first, first if beaten >= {r["row"] for r in rows if r["row"] != first} else None


def rivalries(found: Found, name: str) -> list[Found]:
    """All comparisons of a row with the others, from its side."""
    families = {c["family"] for c in found["comparisons"]}
    family = "between rows" if "between rows" in families else "primary"
    pairs = [c for c in found["comparisons"] if c["family"] == family]
    return [c for c in pairs if c["a"] == name] + [mirrored(c) for c in pairs if c["b"] == name]


def mirrored(c: Found) -> Found:
    """The same comparison, seen from the other row; of its numbers only those that words are made of."""
    turned = {"better": "worse", "worse": "better"}
    return c | {
        "a": c["b"],
        "b": c["a"],
        "mean_difference": -c["mean_difference"],
        "low": -c["high"],
        "high": -c["low"],
        "verdict": turned.get(c["verdict"], c["verdict"]),
    }
