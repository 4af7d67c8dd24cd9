"""Two scores of different subjects."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from ..errors import OptionError
from .intervals import RESAMPLES, check_level, constant, finite

UnpairedTest = Literal["welch", "permutation"]


@dataclass(frozen=True)
class Unpaired:
    """Mean of `a` minus mean of `b`, with Welch's interval; NaN with a `reason` where a number does not exist.

    `d` is the difference in units of the root mean square of the two standard deviations.
    """

    n_a: int
    n_b: int
    mean_difference: float
    low: float
    high: float
    sd_a: float
    sd_b: float
    d: float
    p: float
    test: str
    reason: str = ""


def unpaired(
    a: ArrayLike,
    b: ArrayLike,
    *,
    test: UnpairedTest = "welch",
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Unpaired:
    """Compare scores of two cohorts that share no subject.

    Where both scores come from the same subjects use `paired`: the spread between subjects, here all in the
    error, then cancels.

    Args:
        a: (N,) one score a subject; NaN is left out.
        b: (M,) likewise, of others.
        test: "welch" allows for different variances; "permutation" deals the subjects anew to the two groups
            and takes Welch's t as statistic: exact for equal distributions and, with many subjects, right for
            equal means (A. Janssen, Statistics and Probability Letters 36, 1997); with some 10 subjects on the
            side that spreads more, it claims too much. All deals where there are no more than `resamples`.
            Both are two-sided.
        level: Coverage of the interval.
        resamples: Deals, where they are drawn.
        seed: Of those draws.

    Raises:
        OptionError: For an unknown test, or a level outside 0 to 1.
    """
    if test not in get_args(UnpairedTest):
        raise OptionError(f"unknown test {test!r}, expected one of {', '.join(get_args(UnpairedTest))}")
    check_level(level)
    first, second = finite(a), finite(b)
    found = described(first, second, test)
    if found.reason:
        return found
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Precision loss", RuntimeWarning)  # one side may well be constant
        welch = stats.ttest_ind(first, second, equal_var=False)
    low, high = welch.confidence_interval(level)
    p = float(welch.pvalue) if test == "welch" else dealt_p(first, second, resamples=resamples, seed=seed)
    d = found.mean_difference / math.sqrt((found.sd_a**2 + found.sd_b**2) / 2)
    return replace(found, low=float(low), high=float(high), d=d, p=p)


def described(a: np.ndarray, b: np.ndarray, test: str) -> Unpaired:
    """What is known before any test, and why there can be none."""
    reason = ""
    if min(len(a), len(b)) < 2:
        reason = f"it takes at least 2 subjects on each side, got {len(a)} and {len(b)}"
    elif constant(a) and constant(b):
        reason = "neither side varies: there is no spread to test against"
    return Unpaired(
        n_a=len(a),
        n_b=len(b),
        mean_difference=float(a.mean() - b.mean()) if len(a) and len(b) else math.nan,
        low=math.nan,
        high=math.nan,
        sd_a=float(a.std(ddof=1)) if len(a) > 1 else math.nan,
        sd_b=float(b.std(ddof=1)) if len(b) > 1 else math.nan,
        d=math.nan,
        p=math.nan,
        test=test,
        reason=reason,
    )


def dealt_p(a: np.ndarray, b: np.ndarray, *, resamples: int, seed: int) -> float:
    """P of Welch's t among its values when subjects are dealt anew to the two groups."""
    return float(
        stats.permutation_test(
            (a, b),
            welch_t,
            vectorized=True,
            n_resamples=resamples,
            batch=max(1, 4_000_000 // (len(a) + len(b))),
            rng=np.random.default_rng(seed),
        ).pvalue
    )


def welch_t(a: np.ndarray, b: np.ndarray, axis: int = -1) -> np.ndarray:
    """Difference of means over its standard error; infinite, or 0, for a deal that leaves no spread."""
    error = np.sqrt(a.var(axis, ddof=1) / a.shape[axis] + b.var(axis, ddof=1) / b.shape[axis])
    difference = a.mean(axis) - b.mean(axis)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.nan_to_num(difference / error, nan=0.0, posinf=np.inf, neginf=-np.inf)
