"""P-values of differences, one a subject: by flipping signs, by ranks, by counts, by the t distribution."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from ..errors import OptionError
from .intervals import RESAMPLES, constant, finite

Zeros = Literal["drop", "pratt"]

EXACT_FLIPS = 20  # non-zero differences up to which all 2^n signs are enumerated
EXACT_RANKS = 500  # above, the normal approximation is right to three digits


def sign_flip_p(difference: ArrayLike, *, resamples: int = RESAMPLES, seed: int = 0) -> float:
    """P of the mean if each subject's difference could as well have had the other sign.

    All 2^n signs up to 20 differences other than 0, else `resamples` draws with the observed
    one counted among them, so that no drawn p is ever 0. NaN is left out, here and in the tests below.
    """
    difference = finite(difference)
    if not len(difference):
        return math.nan
    moved = difference[difference != 0]  # the sign of a zero changes nothing
    observed = abs(moved.sum())
    # A sum that equals the observed one in exact arithmetic must count whatever its rounding.
    least = observed - 1e-9 * np.abs(moved).sum()
    if len(moved) <= EXACT_FLIPS:
        # Sums of each half, every one of which meets every one of the other half.
        first, second = (signed_sums(half) for half in np.array_split(moved, 2))
        second = np.sort(second)
        above = len(second) - np.searchsorted(second, least - first, side="left")
        below = np.searchsorted(second, -least - first, side="right")
        extreme = int((above + below).sum()) if least > 0 else len(first) * len(second)
        return extreme / (len(first) * len(second))
    random = np.random.default_rng(seed)
    extreme, left = 0, resamples
    while left:  # in blocks, so that memory does not grow with the cohort
        block = min(left, max(1, 4_000_000 // len(moved)))
        signs = random.integers(0, 2, (block, len(moved)), dtype=np.int8) * 2 - 1
        extreme += int((np.abs(signs @ moved) >= least).sum())
        left -= block
    return (1 + extreme) / (1 + resamples)


def signed_sums(values: np.ndarray) -> np.ndarray:
    """(2^n,) sums of the values under every choice of their signs."""
    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate([sums + value, sums - value])
    return sums


def signed_rank_p(difference: ArrayLike, *, zeros: Zeros = "drop") -> float:
    """P of the Wilcoxon signed-rank test: mid-ranks for ties, zeros dropped before or, after Pratt, after ranking.

    Exact with ties up to 500 differences (the distribution of the ranks that are there, not of
    1 to n), above by the normal approximation with its tie correction.

    J. W. Pratt, "Remarks on Zeros and Ties in the Wilcoxon Signed Rank Procedures", JASA 54 (1959).
    """
    check_zeros(zeros)
    difference = finite(difference)
    if not len(difference):
        return math.nan
    ranked = difference if zeros == "pratt" else difference[difference != 0]
    moved, ranks = ranked[ranked != 0], stats.rankdata(np.abs(ranked))[ranked != 0]
    n, positive = len(moved), float(ranks[moved > 0].sum())
    if n == 0:
        return 1.0
    if n > EXACT_RANKS:
        z = (positive - ranks.sum() / 2) / math.sqrt(float((ranks**2).sum()) / 4)
        return float(2 * stats.norm.sf(abs(z)))
    doubled = np.rint(2 * np.sort(ranks)).astype(int)  # mid-ranks are halves: twice them are whole
    probability = rank_sums(tuple(doubled.tolist()))
    at = round(2 * positive)
    return float(min(1.0, 2 * min(probability[: at + 1].sum(), probability[at:].sum())))


@lru_cache(maxsize=64)
def rank_sums(ranks: tuple[int, ...]) -> np.ndarray:
    """Probability of each sum, 0 to that of all, if each rank is in it or not with equal chance.

    Kept, since all comparisons of so many subjects without ties have the same.
    """
    probability = np.zeros(sum(ranks) + 1)
    probability[0], reach = 1.0, 0  # the largest sum so far
    for rank in ranks:
        without = probability[: reach + 1] / 2
        reach += rank
        probability[: reach - rank + 1] = without
        probability[rank : reach + 1] += without
    probability.flags.writeable = False
    return probability


def sign_p(difference: ArrayLike) -> float:
    """P of the sign test: how often wins and losses would be at least this unequal."""
    difference = finite(difference)
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


def check_zeros(zeros: str) -> None:
    if zeros not in get_args(Zeros):
        raise OptionError(f"unknown way with zeros {zeros!r}, expected one of {', '.join(get_args(Zeros))}")
