"""Intervals for the mean, and for the median, over subjects."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from ..errors import OptionError

IntervalMethod = Literal["auto", "t", "bca", "percentile", "bootstrap-t"]

RESAMPLES = 9999
BOOTSTRAP_FROM = 50  # subjects; below, the t interval covers better on left-skewed scores such as Dice
BOOTSTRAP_TO = 5000  # above, the two agree, and BCa's leaving-out of each subject in turn takes minutes


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
        method: "auto" is the t interval below 50 subjects and the BCa bootstrap from there to 5000. "bootstrap-t"
            covers better where a few scores lie far off (failures) and subjects are few, and is wider.
        within: Where the mean can lie, (0, 1) for Dice: an interval that reaches beyond ends there, which
            costs no coverage.
        resamples: Of the bootstrap.
        seed: Of the bootstrap: equal values give an equal interval.

    Raises:
        OptionError: For an unknown method, or a level outside 0 to 1.
    """
    if method not in get_args(IntervalMethod):
        raise OptionError(f"unknown interval {method!r}, expected one of {', '.join(get_args(IntervalMethod))}")
    check_level(level)
    values = finite(values)
    n = len(values)
    if n < 2:
        return Interval(float(values[0]) if n else math.nan, math.nan, math.nan, n, "none: fewer than 2 subjects")
    mean = float(values.mean())
    if method == "auto":
        method = "bca" if BOOTSTRAP_FROM <= n <= BOOTSTRAP_TO else "t"
    if constant(values):
        return Interval(mean, mean, mean, n, method)
    if method == "t":
        half = float(stats.t.ppf((1 + level) / 2, n - 1)) * float(values.std(ddof=1)) / math.sqrt(n)
        low, high = mean - half, mean + half
    elif method == "bootstrap-t":
        low, high = bootstrap_t(values, level=level, resamples=resamples, seed=seed)
    else:
        low, high = bootstrap((values,), np.mean, level=level, method=method, resamples=resamples, seed=seed)
    return Interval(mean, max(low, within[0]), min(high, within[1]), n, method)


@dataclass(frozen=True)
class MedianInterval:
    """A median over subjects between two of the observed values.

    `coverage` is what these two values have in truth: at least the level asked for, since order
    statistics come in whole ranks. Where `reason` is not empty there is no interval.
    """

    median: float
    low: float
    high: float
    n: int
    coverage: float
    reason: str = ""

    @property
    def known(self) -> bool:
        return not self.reason


def median_interval(values: ArrayLike, *, level: float = 0.95) -> MedianInterval:
    """Median and its interval by order statistics, which asks nothing of the distribution.

    The k-th smallest and the k-th largest value, with the largest k at which a Binomial(n, 1/2) keeps
    at least `level` between them. A bootstrap of the median sees only a few distinct values and can be
    badly wrong. At 95 % it takes 6 subjects.

    Args:
        values: One value a subject; NaN is left out.
        level: Least coverage.

    Raises:
        OptionError: For a level outside 0 to 1.
    """
    check_level(level)
    ordered = np.sort(finite(values))
    n = len(ordered)
    if not n:
        return MedianInterval(math.nan, math.nan, math.nan, 0, math.nan, "no subject has a value")
    median = float(np.median(ordered))
    outside = stats.binom.cdf(np.arange((n + 1) // 2), n, 0.5)  # [k - 1]: that fewer than k values lie below the median
    ranks = int((outside <= (1 - level) / 2 + 1e-12).sum())
    if not ranks:
        fewest = math.ceil(1 - math.log2(1 - level))
        reason = f"{n} subject{'s' * (n != 1)} cannot hold the median at {level:.4g}; it takes {fewest}"
        return MedianInterval(median, math.nan, math.nan, n, math.nan, reason)
    coverage = float(1 - 2 * outside[ranks - 1])
    return MedianInterval(median, float(ordered[ranks - 1]), float(ordered[n - ranks]), n, coverage)


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


def bootstrap_t(values: np.ndarray, *, level: float, resamples: int, seed: int) -> tuple[float, float]:
    """Low and high of the mean by the bootstrap's own distribution of t, which is as skewed as the values.

    A resample of one value over and over has an infinite t; with fewer than some 5 subjects there are so many
    of these that an end is infinite. P. Hall, "Theoretical Comparison of Bootstrap Confidence Intervals", Annals
    of Statistics 16 (1988).
    """
    random, n = np.random.default_rng(seed), len(values)
    centred, found = values - values.mean(), np.empty(resamples)
    block = max(1, 4_000_000 // n)
    for start in range(0, resamples, block):
        drawn = centred[random.integers(n, size=(min(block, resamples - start), n))]
        error = drawn.std(1, ddof=1) / math.sqrt(n)
        error[np.ptp(drawn, axis=1) == 0] = 0  # not the rounding of a mean of equal values
        with np.errstate(divide="ignore"):
            found[start : start + block] = drawn.mean(1) / error
    tail = (1 - level) / 2
    lower, upper = np.quantile(found, tail, method="lower"), np.quantile(found, 1 - tail, method="higher")
    mean, error = float(values.mean()), float(values.std(ddof=1)) / math.sqrt(n)
    return mean - float(upper) * error, mean - float(lower) * error


def check_level(level: float) -> None:
    """Raises OptionError for what is no coverage."""
    if not 0 < level < 1:
        raise OptionError(f"the level of an interval lies between 0 and 1, got {level}")


def finite(values: ArrayLike) -> np.ndarray:
    """(N,) float64 without NaN and infinities."""
    values = np.asarray(values, dtype=float).ravel()
    return values[np.isfinite(values)]


def constant(values: np.ndarray) -> bool:
    """Whether values differ by no more than rounding does."""
    return bool(np.ptp(values) <= 1e-12 * max(1.0, float(np.abs(values).max())))
