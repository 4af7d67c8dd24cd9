"""Many methods on the same subjects: Friedman's test, and which pairs may be called apart after it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from scipy import stats

from ..errors import OptionError
from .corrections import holm
from .paired import signed_rank_p, tidy
from .tables import complete_cases, ranked


@dataclass(frozen=True)
class Friedman:
    """Whether methods rank alike over subjects.

    `chi2` and `p` are Friedman's, `f` and `f_p` Iman and Davenport's, which hold their level better
    where methods or subjects are few. `mean_ranks` has the best first; 1 is best. Where `reason`
    is not empty there is no test, and its numbers are NaN. `note` says what was left out.
    """

    chi2: float
    p: float
    f: float
    f_p: float
    mean_ranks: dict[str, float]
    n: int
    k: int
    reason: str = ""
    note: str = ""


@dataclass(frozen=True)
class CriticalDifference:
    """Which pairs of methods can be told apart.

    `cd` is the difference of mean ranks from which on two are (NaN where pairs are tested one by one),
    `p` that of each pair, corrected for all pairs, both ways round. `groups` are the largest sets in which
    no two can be told apart, each with the best rank first; who stands in no group differs from all others.
    """

    cd: float
    p: dict[str, dict[str, float]]
    groups: list[list[str]]
    mean_ranks: dict[str, float]
    n: int
    level: float
    test: str
    reason: str = ""
    note: str = ""


@dataclass(frozen=True)
class Pairs(CriticalDifference):
    """As `CriticalDifference`, from a test of each pair.

    `pairs` has a line a pair: `a`, `b`, `difference` (mean of a - b), `p` and `p_corrected`.
    """

    pairs: list[dict[str, str | float]] = field(default_factory=list)


def friedman(wide: pd.DataFrame, *, higher_is_better: bool = True, ties: bool = True) -> Friedman:
    """Friedman's test on the subjects that every method has scored.

    Paper: M. Friedman, "The Use of Ranks to Avoid the Assumption of Normality Implicit in the Analysis of
    Variance", JASA 32 (1937); R. Iman, J. Davenport, "Approximations of the critical region of the Friedman
    statistic", Communications in Statistics A9 (1980); J. Demšar, "Statistical Comparisons of Classifiers over
    Multiple Data Sets", JMLR 7 (2006).

    Args:
        wide: Scores; the index' last level is the subject, a column a method, NaN where missing.
        higher_is_better: False for distances.
        ties: Whether the statistic is corrected for equal scores, as most software does; Demšar's paper does not.

    Raises:
        OptionError: For a column that is no number, or two of the same name.
    """
    scores, note = complete_cases(wide)
    n, k = scores.shape
    ranks = ranked(scores.to_numpy(), higher_is_better)
    means = ordered(dict(zip(scores.columns, ranks.mean(0).tolist(), strict=True))) if n else {}

    def without(reason: str) -> Friedman:
        return Friedman(math.nan, math.nan, math.nan, math.nan, means, n, k, reason, note)

    if k < 3:
        return without(f"Friedman's test compares 3 or more methods, got {k}")
    if n < 2:
        return without(f"Friedman's test takes at least 2 subjects that all methods have scored, there {are(n)}")
    within = float(((ranks - (k + 1) / 2) ** 2).sum()) / (k - 1)  # n k (k + 1) / 12 without ties
    if within < 1e-9:
        return without("all methods score the same for each subject")
    spread = n * float(((ranks.mean(0) - (k + 1) / 2) ** 2).sum())
    chi2 = n * spread / (within if ties else n * k * (k + 1) / 12)
    f, f_p = iman_davenport(chi2, ranks)
    return Friedman(chi2, float(stats.chi2.sf(chi2, k - 1)), f, f_p, means, n, k, note=note)


def iman_davenport(chi2: float, ranks: np.ndarray) -> tuple[float, float]:
    """F and its p.

    Where all subjects agree, F is infinite and its p would be 0: the chance of that agreement takes its place,
    one over the number of orders to the power of n - 1.
    """
    n, k = ranks.shape
    rest = n * (k - 1) - chi2
    if rest > 1e-9 * n * k:
        f = (n - 1) * chi2 / rest
        return f, float(stats.f.sf(f, k - 1, (k - 1) * (n - 1)))
    tied = np.unique(ranks[0], return_counts=True)[1]
    orders = math.lgamma(k + 1) - sum(math.lgamma(t + 1) for t in tied)  # logarithm
    return math.inf, math.exp(-(n - 1) * orders)


def nemenyi(mean_ranks: dict[str, float], n: int, level: float = 0.05) -> CriticalDifference:
    """Nemenyi's test of all pairs: apart where mean ranks differ by `q_a √(k(k+1)/(6n))` or more.

    Paper: P. Nemenyi, "Distribution-free Multiple Comparisons", PhD thesis, Princeton (1963), as in Demšar (2006).

    Args:
        mean_ranks: Of `friedman`.
        n: Subjects that they are a mean over.
        level: Chance of any false claim among all pairs.

    Raises:
        OptionError: For a level outside 0 to 1.
    """
    if not 0 < level < 1:
        raise OptionError(f"the level of a test lies between 0 and 1, got {level}")
    means, k = ordered(mean_ranks), len(mean_ranks)
    if k < 2 or n < 2:
        reason = f"a critical difference takes 2 methods and 2 subjects, got {k} and {n}"
        return CriticalDifference(math.nan, {}, [], means, n, level, "Nemenyi", reason)
    error = math.sqrt(k * (k + 1) / (12 * n))
    cd = float(stats.studentized_range.ppf(1 - level, k, math.inf)) * error
    at = np.array(list(means.values()))
    p = np.clip(stats.studentized_range.sf(np.abs(at[:, None] - at) / error, k, math.inf), 0, 1)
    np.fill_diagonal(p, 1.0)
    groups = inseparable(list(means), p > level)
    return CriticalDifference(cd, nested(list(means), p), groups, means, n, level, "Nemenyi")


def wilcoxon_holm(wide: pd.DataFrame, *, higher_is_better: bool = True, level: float = 0.05) -> Pairs:
    """Wilcoxon's signed-rank test of all pairs, corrected by Holm's rule, on the subjects that all methods have scored.

    Unlike Nemenyi's it asks of a pair only what the pair's own scores say, whatever other methods were looked at
    (A. Benavoli, G. Corani, F. Mangili, "Should We Really Use Post-Hoc Tests Based on Mean-Ranks?", JMLR 17, 2016).

    Args:
        wide: As for `friedman`.
        higher_is_better: False for distances.
        level: Chance of any false claim among all pairs.

    Raises:
        OptionError: As `friedman`.
    """
    scores, note = complete_cases(wide)
    n, k = scores.shape
    ranks = ranked(scores.to_numpy(), higher_is_better)
    means = ordered(dict(zip(scores.columns, ranks.mean(0).tolist(), strict=True))) if n else {}
    if k < 2 or n < 2:
        reason = f"a test of all pairs takes 2 methods and 2 subjects with all scores, got {k} and {n}"
        return Pairs(math.nan, {}, [], means, n, level, "Wilcoxon, Holm", reason, note)
    names = list(means)
    sides = [(i, j) for i in range(k) for j in range(i + 1, k)]
    differences = [tidy(scores[names[i]].to_numpy() - scores[names[j]].to_numpy()) for i, j in sides]
    raw = [signed_rank_p(d) for d in differences]
    corrected = holm(raw)
    p = np.ones((k, k))
    pairs: list[dict[str, str | float]] = []
    for (i, j), d, own, both in zip(sides, differences, raw, corrected, strict=True):
        p[i, j] = p[j, i] = both
        pairs.append(
            {"a": names[i], "b": names[j], "difference": float(d.mean()), "p": own, "p_corrected": float(both)}
        )
    if len(sides) * 2.0 ** (1 - n) > level:  # the smallest p there is, times the number of pairs
        note = "; ".join(t for t in (note, f"{n} subjects can tell no pair of {len(sides)} apart") if t)
    groups = inseparable(names, p > level)
    return Pairs(math.nan, nested(names, p), groups, means, n, level, "Wilcoxon, Holm", "", note, pairs)


def inseparable(names: list[str], alike: np.ndarray) -> list[list[str]]:
    """The largest sets of two or more in which all pairs are alike, (K, K) of bools, by their first member.

    These are the maximal cliques of the graph of `alike`; tests of pairs need not follow the order of mean ranks,
    so that a set may pass over a method.

    Paper: C. Bron, J. Kerbosch, "Algorithm 457: finding all cliques of an undirected graph", CACM 16 (1973).
    """
    near = [set(np.flatnonzero(line)) - {i} for i, line in enumerate(alike)]
    found: list[list[int]] = []

    def grow(clique: list[int], open_: set[int], done: set[int]) -> None:
        if not open_ and not done:
            found.append(sorted(clique))
            return
        pivot = max(open_ | done, key=lambda v: len(near[v] & open_))
        for v in sorted(open_ - near[pivot]):
            grow([*clique, v], open_ & near[v], done & near[v])
            open_, done = open_ - {v}, done | {v}

    grow([], set(range(len(names))), set())
    return [[names[i] for i in clique] for clique in sorted(found) if len(clique) > 1]


def ordered(mean_ranks: dict[str, float]) -> dict[str, float]:
    """Best first; who ranks alike stays in the given order."""
    return dict(sorted(mean_ranks.items(), key=lambda item: item[1]))


def nested(names: list[str], p: np.ndarray) -> dict[str, dict[str, float]]:
    return {a: {b: float(p[i, j]) for j, b in enumerate(names)} for i, a in enumerate(names)}


def are(n: int) -> str:
    return f"{'is' if n == 1 else 'are'} {n}"
