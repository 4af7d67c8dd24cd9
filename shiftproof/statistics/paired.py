"""Two scores of the same subjects: the difference, its interval and its tests."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from ..errors import OptionError
from .clusters import labels, table
from .intervals import RESAMPLES, constant, interval
from .signs import Zeros, check_zeros, sign_flip_p, sign_p, signed_rank_p, t_p

Test = Literal["auto", "permutation", "wilcoxon", "t", "sign"]

PAIRS_HELD = 2000  # differences up to which all their pairs are held at once, 32 MB


@dataclass(frozen=True)
class Comparison:
    """`a` minus `b`, subject by subject.

    `low` and `high` are the interval of the mean difference. `d_z` is the mean difference in
    units of its standard deviation, `small_sample_d_z` the same without its upward bias in
    small samples. `rank_biserial` lies between -1 and 1. NaN where a number does not exist; `reason`
    then says why in one line, and is empty where all is well.
    """

    n: int
    mean_difference: float
    low: float
    high: float
    sd: float
    d_z: float
    p: float
    test: str
    wins: int
    ties: int
    losses: int
    correlation: float
    hodges_lehmann: float
    rank_biserial: float
    median_difference: float
    interval: str
    reason: str = ""

    @property
    def small_sample_d_z(self) -> float:
        return self.d_z * (1 - 3 / (4 * (self.n - 1) - 1)) if self.n > 1 else math.nan

    @property
    def excludes_zero(self) -> bool:
        return self.low > 0 or self.high < 0


def paired(
    a: ArrayLike,
    b: ArrayLike,
    *,
    test: Test = "auto",
    subjects: ArrayLike | None = None,
    zeros: Zeros = "drop",
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Comparison:
    """Compare two scores of the same subjects, in the same order.

    A subject whose score is NaN in either is left out of both. Too few subjects, ties only and the
    like do not raise: the numbers that they leave open are NaN, and `reason` says so.

    Args:
        a: (N,) one score a subject, seeds already averaged.
        b: (N,) likewise.
        test: "auto" and "permutation" flip signs (exact up to 20 subjects); "wilcoxon" ranks
            them, "t" and "sign" are what they are called. All are two-sided.
        subjects: (N,) whose each pair of scores is, where a subject has several (lesions, slices, scans):
            they are averaged first, so that a subject's values change sign together and `n` counts subjects.
        zeros: What "wilcoxon" does with equal scores: "drop" leaves them out before ranking, "pratt" ranks
            them as well and then leaves their ranks out.
        level: Coverage of the interval of the mean difference.
        resamples: Of the sign flips and of the bootstrap, where they are drawn.
        seed: Of those draws.

    Raises:
        OptionError: For an unknown test or way with zeros, or scores of different length.
    """
    if test not in get_args(Test):
        raise OptionError(f"unknown test {test!r}, expected one of {', '.join(get_args(Test))}")
    check_zeros(zeros)
    first, second = np.asarray(a, dtype=float).ravel(), np.asarray(b, dtype=float).ravel()
    if len(first) != len(second):
        raise OptionError(f"a paired test needs both scores of each subject, got {len(first)} and {len(second)}")
    both = np.isfinite(first) & np.isfinite(second)
    first, second = first[both], second[both]
    if subjects is not None:
        first, second = (by_subject(s, labels(subjects), both) for s in (first, second))
    difference = tidy(first - second)
    n = len(difference)
    around = interval(difference, level=level, resamples=resamples, seed=seed)
    sd = spread(difference)
    if test == "auto":
        test = "permutation"
    p = {
        "permutation": lambda: sign_flip_p(difference, resamples=resamples, seed=seed),
        "wilcoxon": lambda: signed_rank_p(difference, zeros=zeros),
        "t": lambda: t_p(difference),
        "sign": lambda: sign_p(difference),
    }[test]()
    return Comparison(
        n=n,
        mean_difference=around.mean,
        low=around.low,
        high=around.high,
        sd=sd,
        d_z=around.mean / sd if sd > 0 else math.nan,
        p=p,
        test=test,
        wins=int((difference > 0).sum()),
        ties=int((difference == 0).sum()),
        losses=int((difference < 0).sum()),
        correlation=correlation(first, second),
        hodges_lehmann=hodges_lehmann(difference),
        rank_biserial=rank_biserial(difference),
        median_difference=float(np.median(difference)) if n else math.nan,
        interval=around.method,
        reason=reason(difference, len(both), test),
    )


def by_subject(scores: np.ndarray, subjects: np.ndarray, both: np.ndarray) -> np.ndarray:
    """(S,) mean of each subject's scores, where `both` says which of the lines have them."""
    if len(subjects) != len(both):
        raise OptionError(f"each pair of scores needs its subject, got {len(both)} pairs and {len(subjects)} subjects")
    return table(scores, subjects[both]).groupby("subject", sort=True)["value"].mean().to_numpy()


def reason(difference: np.ndarray, given: int, test: str) -> str:
    """What these differences cannot tell, in one line; empty where they tell all."""
    n = len(difference)
    if not n:
        return f"none of {given} subjects has both scores" if given else "there are no subjects"
    if n == 1:
        return "one subject has both scores: an interval and a test take at least 2"
    if not difference.any():
        return f"the scores of all {n} subjects tie: there is no difference to test"
    if constant(difference):
        return f"all {n} differences are {difference[0]:+.4g}: without spread " + (
            "a t-test has no p" if test == "t" else "the interval has no width"
        )
    return ""


def spread(difference: np.ndarray) -> float:
    """SD, exactly 0 for equal differences and not the rounding of their mean; NaN for fewer than two."""
    if len(difference) < 2:
        return math.nan
    return 0.0 if constant(difference) else float(difference.std(ddof=1))


def rank_biserial(difference: np.ndarray) -> float:
    """(T+ - T-) / (T+ + T-), matched pairs; NaN where no pair differs."""
    moved = difference[difference != 0]
    if not len(moved):
        return math.nan
    ranks = stats.rankdata(np.abs(moved))
    return float((ranks * np.sign(moved)).sum() / ranks.sum())


def hodges_lehmann(difference: np.ndarray) -> float:
    """Median of the means of all pairs, each subject with itself included."""
    if not len(difference):
        return math.nan
    if len(difference) > PAIRS_HELD:
        return hodges_lehmann_of_many(difference)
    first, second = np.triu_indices(len(difference))
    return float(np.median(difference[first] + difference[second]) / 2)


def hodges_lehmann_of_many(difference: np.ndarray) -> float:
    """The same by bisection on its value: pairs with a sum of at most 2 x are counted, not held."""
    ordered = np.sort(difference)
    n = len(ordered)
    pairs = n * (n + 1) // 2

    def at_most(middle: float) -> int:
        partners = np.searchsorted(ordered, 2 * middle - ordered, side="right")  # of each, itself perhaps among them
        return int(partners.sum() + (ordered <= middle).sum()) // 2

    def place(rank: int) -> float:
        low, high = float(ordered[0]), float(ordered[-1])
        while high - low > 1e-12 * max(1.0, abs(low), abs(high)):
            middle = (low + high) / 2
            low, high = (low, middle) if at_most(middle) >= rank else (middle, high)
        return high

    return (place((pairs + 1) // 2) + place(pairs // 2 + 1)) / 2


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's, NaN where either side is constant."""
    if len(a) < 3 or constant(a) or constant(b):
        return math.nan
    return float(np.corrcoef(a, b)[0, 1])


def tidy(difference: np.ndarray) -> np.ndarray:
    """Without the rounding of the subtraction, so that equal differences tie and equal scores give 0."""
    return np.round(difference, 12)
