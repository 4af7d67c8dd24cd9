"""How much of the way from the plain network to the one that knew the site a method goes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ..errors import OptionError
from .intervals import RESAMPLES, bootstrap, constant, interval


@dataclass(frozen=True)
class GapClosed:
    """(method - source-only) / (target-supervised - source-only), of means over the same subjects.

    0 is no better than source-only, 1 as good as labels from the site; below 0 and above 1 are
    possible. Where `reason` is not empty there is no such number, and all three are NaN.
    """

    value: float
    low: float
    high: float
    n: int
    reason: str = ""

    @property
    def printable(self) -> bool:
        return not self.reason


def gap_closed(
    method: ArrayLike,
    source_only: ArrayLike,
    target_supervised: ArrayLike,
    *,
    higher_is_better: bool = True,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> GapClosed:
    """Gap closed with a BCa interval from a bootstrap over subjects that all three share.

    Args:
        method: (N,) one score a subject, seeds already averaged; NaN leaves the subject out.
        source_only: (N,) of the same subjects in the same order.
        target_supervised: (N,) likewise.
        higher_is_better: False for distances. The ratio is the same; what counts as a gap is not.
        level: Coverage, of the ratio and of the denominator that decides whether it is given.
        resamples: Of the bootstrap.
        seed: Of the bootstrap.

    Raises:
        OptionError: For scores of different length.
    """
    scores = [np.asarray(s, dtype=float).ravel() for s in (method, source_only, target_supervised)]
    if len({len(s) for s in scores}) > 1:
        raise OptionError(
            f"gap closed needs all three scores of each subject, got {', '.join(str(len(s)) for s in scores)}"
        )
    shared = np.isfinite(scores).all(axis=0)
    ours, plain, best = (s[shared] for s in scores)
    n = len(ours)

    gap = interval(best - plain, level=level, resamples=resamples, seed=seed)
    if n < 2:
        return missing(n, f"it takes at least 2 subjects scored by all three, there {'is' if n == 1 else 'are'} {n}")
    if 0 in gap:
        return missing(n, f"the gap itself ({gap.mean:+.3f}, {gap.low:+.3f} to {gap.high:+.3f}) may be 0")
    if (gap.mean > 0) != higher_is_better:
        return missing(n, "labels from the site gave no better result than source-only")

    value = float(ratio(ours, plain, best))
    if constant((ours - plain) * (best - plain).mean() - (best - plain) * (ours - plain).mean()):
        return GapClosed(value, value, value, n)  # every resample gives the same ratio
    low, high = bootstrap((ours, plain, best), ratio, level=level, method="bca", resamples=resamples, seed=seed)
    return GapClosed(value, low, high, n)


def ratio(method: np.ndarray, source_only: np.ndarray, target_supervised: np.ndarray, axis: int = -1) -> np.ndarray:
    plain = source_only.mean(axis)
    return (method.mean(axis) - plain) / (target_supervised.mean(axis) - plain)


def missing(n: int, reason: str) -> GapClosed:
    return GapClosed(math.nan, math.nan, math.nan, n, reason)
