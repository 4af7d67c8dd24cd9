"""Counts of values on a grid of 64 bins an axis around 0, as wide as the next power of two; what lies beyond counts at
the edge."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

BINS = 64
FINEST = 2.0**-6
WITHIN = 0.999
"""Share of the values that a grid must reach."""

Counts = dict[str, Any]
"""Counts as JSON has them: `step`, the width of a bin, the bins that are not empty and how many each holds, as text of
numbers with spaces between them: a list has a line for each."""


def step_for(values: ArrayLike) -> float:
    """The smallest width of bins that reaches all but a thousandth of the values."""
    sizes = np.abs(np.asarray(values, dtype=float)).ravel()
    if not sizes.size:
        return FINEST
    reach = float(np.quantile(sizes, WITHIN))
    return max(FINEST, 2.0 ** math.ceil(math.log2(reach / (BINS / 2)))) if reach > 0 else FINEST


def counted(axes: Sequence[ArrayLike], step: float) -> Counts:
    """Counts over as many axes as there are arrays (N,)."""
    places = [_places(values, step) for values in axes]
    flat = np.ravel_multi_index(places, (BINS,) * len(places)) if places[0].size else np.zeros(0, int)
    bins, numbers = np.unique(flat, return_counts=True)
    return {"step": step, "axes": len(places), "bins": _text(bins), "counts": _text(numbers)}


def unpacked(table: Mapping[str, Any]) -> NDArray[np.float64]:
    """(64,) or (64, 64) counts."""
    shape = (BINS,) * int(table["axes"])
    dense = np.zeros(math.prod(shape))
    dense[[int(n) for n in table["bins"].split()]] = [int(n) for n in table["counts"].split()]
    return dense.reshape(shape)


def edges(step: float) -> NDArray[np.float64]:
    """(65,) where bins begin and end."""
    return np.asarray((np.arange(BINS + 1) - BINS // 2) * step, dtype=np.float64)


def level_of(density: NDArray[np.float64], share: float) -> float:
    """The largest level above which a density has at least this share of its mass: a contour of the densest part."""
    ordered = np.sort(density.ravel())[::-1]
    total = ordered.sum()
    place = int(np.searchsorted(np.cumsum(ordered), share * total))
    return float(ordered[min(place, len(ordered) - 1)])


def _text(numbers: NDArray[np.integer]) -> str:
    return " ".join(map(str, numbers.tolist()))


def _places(values: ArrayLike, step: float) -> NDArray[np.intp]:
    places = np.floor(np.asarray(values, dtype=float) / step) + BINS // 2
    return np.clip(places, 0, BINS - 1).astype(np.intp)
