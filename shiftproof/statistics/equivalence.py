"""Whether two scores differ by less than a margin that was declared beforehand."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from ..errors import OptionError
from .intervals import constant
from .paired import tidy

Kind = Literal["equivalence", "non-inferiority"]


@dataclass(frozen=True)
class Equivalence:
    """Two one-sided t-tests of `a` minus `b` against a margin.

    `p_lower` is of "the difference is at most -margin", `p_upper` of "it is at least margin"; `p` is the
    larger one for equivalence, and for non-inferiority the one on the side where `a` would be worse.
    `low` to `high` holds the mean difference with confidence 1 - 2 level: equivalence is shown exactly
    where it lies within the margin. `verdict` is "equivalent", "non-inferior", "not shown", or empty
    where `reason` says that there is no test.
    """

    p: float
    p_lower: float
    p_upper: float
    low: float
    high: float
    margin: float
    n: int
    verdict: str
    reason: str = ""
    mean_difference: float = math.nan

    @property
    def shown(self) -> bool:
        return self.verdict in ("equivalent", "non-inferior")


def equivalence(
    a: ArrayLike,
    b: ArrayLike,
    *,
    margin: float,
    kind: Kind = "equivalence",
    higher_is_better: bool = True,
    level: float = 0.05,
) -> Equivalence:
    """Test whether `a` and `b` are equal within a margin, or `a` is no worse than `b` by more than it.

    A difference that is not significant is not thereby small: this is the test that says so. It assumes what
    the paired t-test does, a mean of differences that is nearly normal. The margin must be declared before
    the scores are seen.

    D. J. Schuirmann, "A Comparison of the Two One-Sided Tests Procedure and the Power Approach for Assessing
    the Equivalence of Average Bioavailability", J. Pharmacokinetics and Biopharmaceutics 15 (1987).

    Args:
        a: (N,) one score a subject; NaN in either leaves the subject out.
        b: (N,) of the same subjects in the same order.
        margin: Largest difference that does not matter, in the scores' unit.
        kind: "equivalence" (both sides) or "non-inferiority" of `a` (one side).
        higher_is_better: False for distances; decides the side for non-inferiority.
        level: Of each one-sided test.

    Raises:
        OptionError: For an unknown kind, a margin that is not above 0, a level outside 0 to 0.5, or scores
            of different length.
    """
    if kind not in get_args(Kind):
        raise OptionError(f"unknown kind {kind!r}, expected one of {', '.join(get_args(Kind))}")
    if not (margin > 0 and math.isfinite(margin)):
        raise OptionError(f"a margin is a difference larger than 0 that does not matter, got {margin}")
    if not 0 < level < 0.5:
        raise OptionError(f"the level of a one-sided test lies between 0 and 0.5, got {level}")
    first, second = np.asarray(a, dtype=float).ravel(), np.asarray(b, dtype=float).ravel()
    if len(first) != len(second):
        raise OptionError(f"equivalence needs both scores of each subject, got {len(first)} and {len(second)}")
    both = np.isfinite(first) & np.isfinite(second)
    difference = tidy(first[both] - second[both])
    n, mean = len(difference), float(difference.mean()) if len(difference) else math.nan
    if n < 2:
        return untested(margin, n, mean, f"it takes at least 2 subjects with both scores, got {n}")
    if constant(difference):
        return untested(margin, n, mean, f"all {n} differences are {mean:+.4g}: there is no spread to test against")

    error, freedom = float(difference.std(ddof=1)) / math.sqrt(n), n - 1
    p_lower = float(stats.t.sf((mean + margin) / error, freedom))
    p_upper = float(stats.t.cdf((mean - margin) / error, freedom))
    half = float(stats.t.ppf(1 - level, freedom)) * error
    if kind == "equivalence":
        p, shown = max(p_lower, p_upper), "equivalent"
    else:
        p, shown = p_lower if higher_is_better else p_upper, "non-inferior"
    verdict = shown if p < level else "not shown"
    return Equivalence(p, p_lower, p_upper, mean - half, mean + half, margin, n, verdict, mean_difference=mean)


def untested(margin: float, n: int, mean: float, reason: str) -> Equivalence:
    return Equivalence(math.nan, math.nan, math.nan, math.nan, math.nan, margin, n, "", reason, mean)
