"""Power without assuming normality: differences that were seen are drawn again, tested again."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, stats

from ..errors import OptionError
from .intervals import constant, finite
from .paired import signed_rank_p, tidy

SimulatedTest = Literal["t", "permutation", "wilcoxon", "sign"]

STUDIES = 2000
FLIPS = 999  # of the signs, where not all are tried
ALL_FLIPS = 10  # subjects up to which all signs are tried
EXACT_RANKS = 50  # subjects up to which ranks are exact, above they are normal: as right, and fast


@dataclass(frozen=True)
class SimulatedPower:
    """Share of drawn studies that find the difference; `low` and `high` are what the number of draws leaves open.

    `how` says how the wanted difference came into the subjects that were drawn from. Where `reason` is not empty
    there is no such number.
    """

    power: float
    low: float
    high: float
    n: int
    difference: float
    test: str
    studies: int
    how: str
    reason: str = ""


def simulated_power(
    differences: ArrayLike,
    n: int,
    *,
    shift: float | None = None,
    test: SimulatedTest = "t",
    level: float = 0.05,
    resamples: int = STUDIES,
    seed: int = 0,
) -> SimulatedPower:
    """Power of a paired test on n subjects whose differences are distributed as the observed ones.

    Observed differences are moved so that their mean is `shift`. Where some are exactly 0 that would turn all ties
    into small wins, so there they are kept and drawn with unequal chances instead (exponential tilting: the
    distribution nearest to the observed one whose mean is `shift`).

    Args:
        differences: (N,) one a subject, as observed in a pilot; NaN is left out.
        n: Subjects of each drawn study.
        shift: True mean difference to find; None for the one observed.
        test: Two-sided: "t", "permutation" (sign flips), "wilcoxon" (zeros dropped), "sign".
        level: Of the test.
        resamples: Studies to draw.
        seed: Of the draws.

    Raises:
        OptionError: For an unknown test.
    """
    if test not in get_args(SimulatedTest):
        raise OptionError(f"unknown test {test!r}, expected one of {', '.join(get_args(SimulatedTest))}")
    observed = tidy(finite(differences))
    mean = float(observed.mean()) if len(observed) else math.nan
    wanted = mean if shift is None else float(shift)
    lacking = unfit(observed, n)
    if lacking:
        return missing(n, wanted, test, lacking)
    how, chances = "observed differences", None
    if wanted != mean and (observed == 0).any():
        how, chances = "observed differences, drawn with unequal chances", tilted(observed, wanted)
        if chances is None:
            reason = f"differences from {observed.min():.3g} to {observed.max():.3g} cannot have the mean {wanted:.3g}"
            return missing(n, wanted, test, reason)
    elif wanted != mean:
        how, observed = "observed differences, moved", observed - mean + wanted
    random = np.random.default_rng(seed)
    finds = FINDERS[test](n, level, random)
    found = sum(int(finds(random.choice(observed, size=(block, n), p=chances)).sum()) for block in blocks(resamples, n))
    return counted(found, resamples, n, wanted, test, how)


def simulated_power_unpaired(
    a: ArrayLike,
    b: ArrayLike,
    n: int,
    *,
    shift: float | None = None,
    level: float = 0.05,
    resamples: int = STUDIES,
    seed: int = 0,
) -> SimulatedPower:
    """Power of Welch's t-test on two groups of n subjects whose scores are distributed as those observed.

    Args:
        a: (N,) scores of the first group.
        b: (M,) scores of other subjects.
        n: Subjects of each group of a drawn study.
        shift: True difference of the means, a minus b; None for the one observed.
        level: Of the two-sided test.
        resamples: Studies to draw.
        seed: Of the draws.
    """
    first, second = finite(a), finite(b)
    lacking = unfit(first, n) or unfit(second, n)
    observed = float(first.mean() - second.mean()) if len(first) and len(second) else math.nan
    wanted = observed if shift is None else float(shift)
    if lacking:
        return missing(n, wanted, "Welch's t", lacking)
    first = first - observed + wanted
    random = np.random.default_rng(seed)
    found = 0
    for block in blocks(resamples, 2 * n):
        sides = (random.choice(first, size=(block, n)), random.choice(second, size=(block, n)))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Precision loss", RuntimeWarning)  # a draw may well be of equal scores
            p = stats.ttest_ind(*sides, axis=1, equal_var=False).pvalue
        found += int((p <= level).sum())
    how = "observed scores" if wanted == observed else "observed scores, one group moved"
    return counted(found, resamples, n, wanted, "Welch's t", how)


def unfit(observed: np.ndarray, n: int) -> str:
    if len(observed) < 2:
        return (
            f"drawing needs at least 2 observed subjects, there {'is' if len(observed) == 1 else 'are'} {len(observed)}"
        )
    if n < 2:
        return f"a study needs at least 2 subjects, got {n}"
    return "all observed values are equal: they say nothing about spread" if constant(observed) else ""


def tilted(values: np.ndarray, mean: float) -> np.ndarray | None:
    """Chances proportional to exp(theta value) under which the values have this mean; None beyond their range."""
    if not values.min() < mean < values.max():
        return None
    scaled = (values - values.mean()) / values.std()

    def chances(theta: float) -> np.ndarray:
        weight = np.exp(theta * scaled - (theta * scaled).max())
        return weight / weight.sum()

    far = 1.0
    while not chances(-far) @ values < mean < chances(far) @ values:
        far *= 2
    return chances(float(optimize.brentq(lambda theta: chances(theta) @ values - mean, -far, far)))


def blocks(studies: int, n: int) -> Iterator[int]:
    """Studies at a time, so that memory does not grow with their size."""
    most = max(1, 2_000_000 // n)
    while studies:
        yield min(studies, most)
        studies -= min(studies, most)


Finder = Callable[[np.ndarray], np.ndarray]  # (studies, n) differences -> (studies,) whether found


def by_t(n: int, level: float, random: np.random.Generator) -> Finder:
    critical = float(stats.t.ppf(1 - level / 2, n - 1))

    def finds(drawn: np.ndarray) -> np.ndarray:
        error = drawn.std(axis=1, ddof=1) / math.sqrt(n)
        # Equal differences have no t; as in the test itself that is no finding.
        spread = np.ptp(drawn, axis=1) > 1e-12 * np.maximum(1, np.abs(drawn).max(axis=1))
        return spread & (np.abs(drawn.mean(axis=1)) > critical * error)

    return finds


def by_sign_flips(n: int, level: float, random: np.random.Generator) -> Finder:
    """The same flips for all studies: each of their p is valid, and it is one matrix product."""
    if n <= ALL_FLIPS:
        signs = 1.0 - 2.0 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
    else:
        signs = random.integers(0, 2, (FLIPS, n)) * 2.0 - 1.0

    def finds(drawn: np.ndarray) -> np.ndarray:
        least = np.abs(drawn.sum(axis=1)) - 1e-9 * np.abs(drawn).sum(axis=1)
        extreme = (np.abs(drawn @ signs.T) >= least[:, None]).sum(axis=1)
        p = extreme / len(signs) if n <= ALL_FLIPS else (1 + extreme) / (1 + len(signs))
        return p <= level

    return finds


def by_signed_ranks(n: int, level: float, random: np.random.Generator) -> Finder:
    def finds(drawn: np.ndarray) -> np.ndarray:
        drawn = tidy(drawn)
        if n <= EXACT_RANKS:
            return np.array([signed_rank_p(d) <= level for d in drawn])
        moved = drawn != 0
        ranks = stats.rankdata(np.where(moved, np.abs(drawn), 0), axis=1) - (~moved).sum(axis=1, keepdims=True)
        ranks = np.where(moved, ranks, 0)
        error = np.sqrt((ranks**2).sum(axis=1))
        z = (np.sign(drawn) * ranks).sum(axis=1) / np.where(error > 0, error, 1)
        return 2 * stats.norm.sf(np.abs(z)) <= level

    return finds


def by_signs(n: int, level: float, random: np.random.Generator) -> Finder:
    def finds(drawn: np.ndarray) -> np.ndarray:
        drawn = tidy(drawn)
        wins, losses = (drawn > 0).sum(axis=1), (drawn < 0).sum(axis=1)
        return 2 * stats.binom.cdf(np.minimum(wins, losses), wins + losses, 0.5) <= level

    return finds


FINDERS = {"t": by_t, "permutation": by_sign_flips, "wilcoxon": by_signed_ranks, "sign": by_signs}


def counted(found: int, studies: int, n: int, difference: float, test: str, how: str) -> SimulatedPower:
    """With the exact interval of a share."""
    around = stats.binomtest(found, studies).proportion_ci(0.95)
    return SimulatedPower(found / studies, float(around.low), float(around.high), n, difference, test, studies, how)


def missing(n: int, difference: float, test: str, reason: str) -> SimulatedPower:
    return SimulatedPower(math.nan, math.nan, math.nan, n, difference, test, 0, "", reason)
