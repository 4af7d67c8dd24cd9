"""A row by itself: how its subjects scatter, and what it loses between domains that it saw and those it did not."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pandas as pd

from ..statistics import interval
from .numbers import Scale
from .results import Results

Found = dict[str, Any]

VALIDATED = {"dice", "correct"}
"""Metrics that validation on training domains measures, too: only of these there is a difference to give."""

FEWEST = 3  # domains from which on an interval over them says anything: of two it is some 13 times their distance


def spread(values: pd.Series, metric: Scale) -> Found:
    """SD, median, quartiles and the bad end of one value a subject.

    "tail" is the 5th percentile, or the 95th of a metric that is better when smaller; "worst" the worst subject.
    """
    own = np.asarray(values, dtype=float)
    own = own[np.isfinite(own)]
    if not len(own):
        return {"n": 0, **dict.fromkeys(("sd", "median", "lower", "upper", "tail", "worst"), math.nan)}
    lower, median, upper, tail = np.percentile(own, [25, 50, 75, 5 if metric.higher_is_better else 95])
    return {
        "n": len(own),
        "sd": float(own.std(ddof=1)) if len(own) > 1 else math.nan,
        "median": float(median),
        "lower": float(lower),
        "upper": float(upper),
        "tail": float(tail),
        "worst": float(own.min() if metric.higher_is_better else own.max()),
    }


def unseen_loss(results: Results, row: Found, means: dict[str, Found]) -> Found | None:
    """Score on held-back subjects of the training domains minus that at the held-out domain.

    The unit is the domain: of each held-out one a difference, and a t interval over them where there are three. None
    for the reference that trains on the held-out domain, and for metrics that validation does not measure.
    """
    if row["role"] == "target-supervised" or results.primary not in VALIDATED:
        return None
    seen: dict[str, list[float]] = {}
    for cell in results.cells:
        value = cell.validation.get("mean")
        if cell.row == row["name"] and cell.status == "done" and isinstance(value, float):
            seen.setdefault(cell.held_out, []).append(value)
    inside = {d: float(np.mean(v)) for d, v in seen.items() if math.isfinite(means[d]["mean"])}
    lost = {d: v - float(means[d]["mean"]) for d, v in inside.items()}
    if not lost:
        return None
    around = interval(list(lost.values()), method="t", within=(-1, 1))
    if around.n < FEWEST:
        around = dataclasses.replace(around, low=math.nan, high=math.nan, method=f"none: fewer than {FEWEST} domains")
    return {"seen": float(np.mean(list(inside.values()))), "by domain": lost, **dataclasses.asdict(around)}
