"""The generalization gap: by how much the error on unseen subjects exceeds that on subjects that were trained on.

G = E_test - E_train. Where the unseen subjects are of another domain, held-back subjects of the training domains part
it: G = (E_validation - E_train) + (E_test - E_validation), what a sample too small costs and what the other domain
costs. An error is an error of subjects, never of pooled voxels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ..errors import OptionError
from .intervals import check_level, finite

GAP_RESAMPLES = 2000


@dataclass(frozen=True)
class GeneralizationGap:
    """Mean error of one side less that of another.

    Args:
        value: The gap; above 0 where the second side has the larger error.
        low, high: Percentile bootstrap over subjects; NaN where a side has fewer than 2.
        n_from, n_to: Subjects of both sides, of all parts together.
        error_from, error_to: Mean errors; the gap is their difference.
    """

    value: float
    low: float
    high: float
    n_from: int
    n_to: int
    error_from: float
    error_to: float


def generalization_gap(
    seen: Sequence[ArrayLike],
    unseen: Sequence[ArrayLike],
    *,
    level: float = 0.95,
    resamples: int = GAP_RESAMPLES,
    seed: int = 0,
) -> GeneralizationGap:
    """The gap between two sides, with an interval from a bootstrap that draws subjects of both independently.

    Args:
        seen: Errors of subjects, (N,) for each part (each held-out domain has networks of its own); NaN is left out.
        unseen: Errors of other subjects, (M,) for each part in the same order.
        level: Coverage.
        resamples: Of the bootstrap.
        seed: Of the bootstrap: equal errors give an equal interval.

    Returns:
        The mean over parts, each counting once; a part that lacks a side is left out.

    Raises:
        OptionError: If the two sides have not the same parts.
    """
    check_level(level)
    if len(seen) != len(unseen):
        raise OptionError(f"both sides of a gap have the same parts, got {len(seen)} and {len(unseen)}")
    pairs = [(finite(a), finite(b)) for a, b in zip(seen, unseen, strict=True)]
    pairs = [(a, b) for a, b in pairs if len(a) and len(b)]
    if not pairs:
        return GeneralizationGap(math.nan, math.nan, math.nan, 0, 0, math.nan, math.nan)
    before, after = (float(np.mean([side.mean() for side in sides])) for sides in zip(*pairs, strict=True))
    low = high = math.nan
    if min(len(side) for pair in pairs for side in pair) > 1:
        random = np.random.default_rng(seed)
        drawn = np.mean([_means(b, resamples, random) - _means(a, resamples, random) for a, b in pairs], axis=0)
        low, high = (float(q) for q in np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2]))
    sizes = [sum(len(side) for side in sides) for sides in zip(*pairs, strict=True)]
    return GeneralizationGap(after - before, low, high, sizes[0], sizes[1], before, after)


def _means(errors: np.ndarray, resamples: int, random: np.random.Generator) -> np.ndarray:
    """Of as many subjects drawn with replacement, (resamples,)."""
    n = len(errors)
    block = max(1, 4_000_000 // n)
    return np.concatenate(
        [
            errors[random.integers(n, size=(min(block, resamples - start), n))].mean(1)
            for start in range(0, resamples, block)
        ]
    )
