"""Intervals for the mean over subjects."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from ..errors import OptionError

IntervalMethod = Literal["auto", "t", "bca", "percentile"]

RESAMPLES = 9999
BOOTSTRAP_FROM = 50  # subjects; below, the t interval covers better on left-skewed scores such as Dice


@dataclass(frozen=True)
class Interval:
    """A mean over subjects and what is known about it.

    `low` and `high` are NaN where no interval exists; `method` then says why.
    """

    mean: float
    low: float
    high: float
    n: int
    method: str

    @property
    def known(self) -> bool:
        return math.isfinite(self.low) and math.isfinite(self.high)

    def __contains__(self, value: float) -> bool:
        return self.known and self.low <= value <= self.high


def interval(
    values: ArrayLike,
    *,
    level: float = 0.95,
    method: IntervalMethod = "auto",
    within: tuple[float, float] = (-math.inf, math.inf),
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Mean and two-sided interval over subjects, one value each.

    NaN (a subject without a score) is left out; `n` counts what remains. Equal values give
    an interval of width 0.

    Args:
        values: One value a subject.
        level: Coverage.
        method: "auto" is the t interval below 50 subjects and the BCa bootstrap from there on.
        within: Where the mean can lie, (0, 1) for Dice: an interval that reaches beyond ends there, which
            costs no coverage.
        resamples: Of the bootstrap.
        seed: Of the bootstrap: equal values give an equal interval.

    Raises:
        OptionError: For an unknown method, or a level outside 0 to 1.
    """
    if method not in get_args(IntervalMethod):
        raise OptionError(f"unknown interval {method!r}, expected one of {', '.join(get_args(IntervalMethod))}")
    if not 0 < level < 1:
        raise OptionError(f"the level of an interval lies between 0 and 1, got {level}")
    values = finite(values)
    n = len(values)
    if n < 2:
        return Interval(float(values[0]) if n else math.nan, math.nan, math.nan, n, "none: fewer than 2 subjects")
    mean = float(values.mean())
    if method == "auto":
        method = "t" if n < BOOTSTRAP_FROM else "bca"
    if constant(values):
        return Interval(mean, mean, mean, n, method)
    if method == "t":
        half = float(stats.t.ppf((1 + level) / 2, n - 1)) * float(values.std(ddof=1)) / math.sqrt(n)
        low, high = mean - half, mean + half
    else:
        low, high = bootstrap((values,), np.mean, level=level, method=method, resamples=resamples, seed=seed)
    return Interval(mean, max(low, within[0]), min(high, within[1]), n, method)


def bootstrap(
    samples: tuple[np.ndarray, ...],
    statistic: Callable[..., np.ndarray],
    *,
    level: float,
    method: str,
    resamples: int,
    seed: int,
) -> tuple[float, float]:
    """Low and high of a bootstrap over subjects that several samples share.

    `statistic` takes as many arrays as there are samples, and `axis`.
    """
    found = stats.bootstrap(
        samples,
        statistic,
        paired=len(samples) > 1,
        vectorized=True,
        confidence_level=level,
        n_resamples=resamples,
        method={"bca": "BCa", "percentile": "percentile"}[method],
        batch=max(1, 4_000_000 // len(samples[0])),  # bounds memory to some 32 MB whatever the cohort's size
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(found.low), float(found.high)


def finite(values: ArrayLike) -> np.ndarray:
    """(N,) float64 without NaN and infinities."""
    values = np.asarray(values, dtype=float).ravel()
    return values[np.isfinite(values)]


def constant(values: np.ndarray) -> bool:
    """Whether values differ by no more than rounding does."""
    return bool(np.ptp(values) <= 1e-12 * max(1.0, float(np.abs(values).max())))
