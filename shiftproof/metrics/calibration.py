"""Whether probabilities mean what they say: of subjects told "80 %", 80 % should have it. From NumPy arrays.

Bins are (low, high], the first with its lower edge. Equal in "width", or in "mass": with as many subjects each, where
equal probabilities stay together, so that the order of subjects does not matter and ties make fewer bins. A table of
bins hides what happens within them; with few subjects the error is above 0 even for a perfect predictor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import LabelError, OptionError

Array = NDArray[Any]
Equal = Literal["width", "mass"]


@dataclass(frozen=True)
class Bin:
    """Subjects of like probability.

    Args:
        low: Its lower edge.
        high: Its upper edge.
        number: Of subjects.
        confidence: Their mean probability; NaN without a subject.
        frequency: The share of them that has it; NaN without a subject.
    """

    low: float
    high: float
    number: int
    confidence: float
    frequency: float


def reliability(confidence: Array, present: Array, *, bins: int = 10, equal: Equal = "width") -> list[Bin]:
    """The table behind a reliability diagram.

    Args:
        confidence: (N,) probabilities.
        present: (N,) 0 or 1, whether what they are of is so.
        bins: How many.
        equal: In "width" or in "mass".

    Raises:
        LabelError: If the arrays do not fit or hold what is no probability.
        OptionError: For no bin, or bins equal in something else.
    """
    p, y = np.asarray(confidence, np.float64), np.asarray(present, np.float64)
    if p.ndim != 1 or p.shape != y.shape or not (np.isfinite(p) & (p >= 0) & (p <= 1 + 1e-6)).all():
        raise LabelError(f"calibration takes (N,) probabilities and (N,) of 0 and 1, got {p.shape} and {y.shape}")
    if not np.isin(y, (0, 1)).all():
        raise LabelError("calibration compares probabilities with what is 0 or 1; leave out what is not annotated")
    edges = _edges(p, bins, equal)
    place = np.searchsorted(edges[1:-1], p, side="left")
    table = []
    for b, (low, high) in enumerate(pairwise(edges)):
        inside = place == b
        number = int(inside.sum())
        means = (float(p[inside].mean()), float(y[inside].mean())) if number else (math.nan, math.nan)
        table.append(Bin(float(low), float(high), number, *means))
    return table


def calibration_error(confidence: Array, present: Array, *, bins: int = 10, equal: Equal = "width") -> float:
    """Mean over subjects of the distance between probability and frequency of their bin (ECE); NaN without a subject.

    Paper: C. Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, https://arxiv.org/abs/1706.04599; with
    equal mass: J. Nixon et al., "Measuring Calibration in Deep Learning", CVPR workshops 2019,
    https://arxiv.org/abs/1904.01685.

    Args:
        confidence: (N,) probabilities.
        present: (N,) 0 or 1.
        bins: How many.
        equal: In "width" or in "mass".
    """
    table = [b for b in reliability(confidence, present, bins=bins, equal=equal) if b.number]
    total = sum(b.number for b in table)
    return sum(b.number * abs(b.frequency - b.confidence) for b in table) / total if total else math.nan


def top_label_error(probabilities: Array, truth: Array, *, bins: int = 10, equal: Equal = "width") -> float:
    """`calibration_error` of the most probable class, from (N, K) probabilities and (N,) class indices."""
    p, truth = np.asarray(probabilities), np.asarray(truth)
    if not len(p):
        return math.nan
    return calibration_error(p.max(1), p.argmax(1) == truth, bins=bins, equal=equal)


def classwise_error(probabilities: Array, truth: Array, *, bins: int = 10, equal: Equal = "width") -> float:
    """Mean over classes of the `calibration_error` of each against the rest.

    Paper: M. Kull et al., "Beyond temperature scaling", NeurIPS 2019, https://arxiv.org/abs/1910.12656.

    Args:
        probabilities: (N, K).
        truth: (N,) class indices, or (N, K) of 0 and 1, NaN where not annotated; a class without a subject is left out
            of the mean.
        bins: How many.
        equal: In "width" or in "mass".
    """
    p, truth = np.asarray(probabilities), np.asarray(truth)
    present = truth if truth.ndim == 2 else (truth[:, None] == np.arange(p.shape[1])).astype(float)
    errors = []
    for k in range(p.shape[1]):
        known = ~np.isnan(present[:, k].astype(float))
        if known.any():
            errors.append(calibration_error(p[known, k], present[known, k], bins=bins, equal=equal))
    return float(np.mean(errors)) if errors else math.nan


def _edges(p: Array, bins: int, equal: str) -> NDArray[np.float64]:
    if bins < 1 or equal not in ("width", "mass"):
        raise OptionError(f'calibration takes at least 1 bin, equal in "width" or "mass", got {bins} and {equal!r}')
    if equal == "width" or not len(p):
        return np.linspace(0, 1, bins + 1)
    # An inner edge is the last value of a bin: (low, high] then has its share of the subjects.
    last = np.ceil(np.arange(1, bins) * len(p) / bins).astype(int) - 1
    inner = np.unique(np.sort(p)[last])
    return np.concatenate([[0.0], inner[inner < p.max()], [1.0]])
