"""Two scores of the same subjects: the difference, its interval and its tests."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from ..errors import OptionError
from .intervals import RESAMPLES, constant, interval

Test = Literal["auto", "permutation", "wilcoxon", "t", "sign"]

EXACT_FLIPS = 20  # non-zero differences up to which all 2^n signs are enumerated
EXACT_RANKS = 500  # above, the normal approximation is right to three digits


@dataclass(frozen=True)
class Comparison:
    """`a` minus `b`, subject by subject.

    `low` and `high` are the interval of the mean difference. `d_z` is the mean difference in
    units of its standard deviation, `small_sample_d_z` the same without its upward bias in
    small samples. `rank_biserial` lies between -1 and 1. NaN where a number does not exist.
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
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Comparison:
    """Compare two scores of the same subjects, in the same order.

    A subject whose score is NaN in either is left out of both.

    Args:
        a: (N,) one score a subject, seeds already averaged.
        b: (N,) likewise.
        test: "auto" and "permutation" flip signs (exact up to 20 subjects); "wilcoxon" ranks
            without the zeros, "t" and "sign" are what they are called. All are two-sided.
        level: Coverage of the interval of the mean difference.
        resamples: Of the sign flips and of the bootstrap, where they are drawn.
        seed: Of those draws.

    Raises:
        OptionError: For an unknown test, or scores of different length.
    """
    if test not in get_args(Test):
        raise OptionError(f"unknown test {test!r}, expected one of {', '.join(get_args(Test))}")
    first, second = np.asarray(a, dtype=float).ravel(), np.asarray(b, dtype=float).ravel()
    if len(first) != len(second):
        raise OptionError(f"a paired test needs both scores of each subject, got {len(first)} and {len(second)}")
    both = np.isfinite(first) & np.isfinite(second)
    first, second = first[both], second[both]
    difference = tidy(first - second)
    n = len(difference)
    around = interval(difference, level=level, resamples=resamples, seed=seed)
    sd = float(difference.std(ddof=1)) if n > 1 else math.nan
    if test == "auto":
        test = "permutation"
    p = {
        "permutation": lambda: sign_flip_p(difference, resamples=resamples, seed=seed),
        "wilcoxon": lambda: signed_rank_p(difference),
        "t": lambda: t_p(difference),
        "sign": lambda: sign_p(difference),
    }[test]()
    return Comparison(
        n=n,
        mean_difference=around.mean,
        low=around.low,
        high=around.high,
        sd=sd,
        d_z=around.mean / sd if n > 1 and not constant(difference) else math.nan,
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
    )


def sign_flip_p(difference: ArrayLike, *, resamples: int = RESAMPLES, seed: int = 0) -> float:
    """P of the mean if each subject's difference could as well have had the other sign.

    All 2^n signs up to 20 differences other than 0, else `resamples` draws with the observed
    one counted among them, so that no drawn p is ever 0.
    """
    difference = np.asarray(difference, dtype=float)
    if not len(difference):
        return math.nan
    moved = difference[difference != 0]  # the sign of a zero changes nothing
    observed = abs(moved.sum())
    # A sum that equals the observed one in exact arithmetic must count whatever its rounding.
    least = observed - 1e-9 * np.abs(moved).sum()
    if len(moved) <= EXACT_FLIPS:
        sums = np.zeros(1)
        for d in moved:
            sums = np.concatenate([sums + d, sums - d])
        return float((np.abs(sums) >= least).mean())
    random = np.random.default_rng(seed)
    extreme, left = 0, resamples
    while left:  # in blocks, so that memory does not grow with the cohort
        block = min(left, max(1, 4_000_000 // len(moved)))
        signs = random.integers(0, 2, (block, len(moved)), dtype=np.int8) * 2 - 1
        extreme += int((np.abs(signs @ moved) >= least).sum())
        left -= block
    return (1 + extreme) / (1 + resamples)


def signed_rank_p(difference: ArrayLike) -> float:
    """P of the Wilcoxon signed-rank test: zeros dropped, mid-ranks for ties.

    Exact with ties up to 500 differences (the distribution of the ranks that are there, not of
    1 to n), above by the normal approximation with its tie correction.
    """
    difference = np.asarray(difference, dtype=float)
    if not len(difference):
        return math.nan
    moved = difference[difference != 0]
    ranks = stats.rankdata(np.abs(moved))
    n, positive = len(moved), float(ranks[moved > 0].sum())
    if n == 0:
        return 1.0
    if n > EXACT_RANKS:
        z = (positive - ranks.sum() / 2) / math.sqrt(float((ranks**2).sum()) / 4)
        return float(2 * stats.norm.sf(abs(z)))
    doubled = np.rint(2 * ranks).astype(int)  # mid-ranks are halves: twice them are whole
    probability = np.zeros(doubled.sum() + 1)  # of each value of 2 T+
    probability[0] = 1.0
    for rank in doubled:
        shifted = np.zeros_like(probability)
        shifted[rank:] = probability[: len(probability) - rank]
        probability = (probability + shifted) / 2
    at = round(2 * positive)
    return float(min(1.0, 2 * min(probability[: at + 1].sum(), probability[at:].sum())))


def sign_p(difference: ArrayLike) -> float:
    """P of the sign test: how often wins and losses would be at least this unequal."""
    difference = np.asarray(difference, dtype=float)
    if not len(difference):
        return math.nan
    wins, losses = int((difference > 0).sum()), int((difference < 0).sum())
    return float(stats.binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0


def t_p(difference: np.ndarray) -> float:
    """P of the paired t-test; NaN for one subject or for differences without spread."""
    n = len(difference)
    if n < 2 or constant(difference):
        return math.nan
    t = difference.mean() / (difference.std(ddof=1) / math.sqrt(n))
    return float(2 * stats.t.sf(abs(t), n - 1))


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
    first, second = np.triu_indices(len(difference))
    return float(np.median(difference[first] + difference[second]) / 2)


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's, NaN where either side is constant."""
    if len(a) < 3 or constant(a) or constant(b):
        return math.nan
    return float(np.corrcoef(a, b)[0, 1])


def tidy(difference: np.ndarray) -> np.ndarray:
    """Without the rounding of the subtraction, so that equal differences tie and equal scores give 0."""
    return np.round(difference, 12)
