"""What a comparison of this size can see: exact power of t-tests, paired and unpaired."""

from __future__ import annotations

import math
from typing import Literal, get_args

from scipy import optimize, special, stats

from ..errors import OptionError

Design = Literal["paired", "unpaired"]
"""Both methods on the same subjects, or each on its own, equally many."""

MOST = 10_000_000  # subjects; more are no plan


def power(d_z: float, n: int, *, level: float = 0.05, design: Design = "paired") -> float:
    """Chance that a two-sided t-test on n subjects finds a mean difference of `d_z` SDs.

    Args:
        d_z: Mean difference in SDs: of the subjects' differences (paired), of the scores (unpaired).
        n: Subjects; of each of the two groups where the design is unpaired.
        level: Of the test.
        design: "paired", or "unpaired" for groups of equal size and spread.

    Returns:
        NaN for fewer than 2 subjects or an effect that is not finite.
    """
    if n < 2 or not math.isfinite(d_z):
        return math.nan
    freedom, away = freedom_of(n, design), noncentrality(d_z, n, design)
    critical = float(special.stdtrit(freedom, 1 - level / 2))
    near = float(stats.nct.sf(critical, freedom, away))
    far = float(stats.nct.cdf(-critical, freedom, away))
    # Far from 0 both tails of the noncentral t come back as NaN: one is then 1, the other 0.
    near = 1.0 if math.isnan(near) and away > critical else near
    return min(1.0, near + (0.0 if math.isnan(far) else far))


def freedom_of(n: int, design: Design) -> int:
    """Degrees of freedom of the t-test."""
    return n - 1 if checked(design) == "paired" else 2 * n - 2


def noncentrality(d_z: float, n: int, design: Design) -> float:
    """How many standard errors the mean difference is from 0; not negative."""
    return abs(d_z) * math.sqrt(n if checked(design) == "paired" else n / 2)


def checked(design: str) -> str:
    if design not in get_args(Design):
        raise OptionError(f"unknown design {design!r}, expected one of {', '.join(get_args(Design))}")
    return design


def smallest_detectable(
    sd: float, n: int, *, power: float = 0.8, level: float = 0.05, design: Design = "paired"
) -> float:
    """Smallest true mean difference that n subjects show with this power.

    Args:
        sd: Standard deviation of the subjects' differences; of the scores where the design is unpaired.
        n: Subjects; of each group where the design is unpaired.
        power: Chance to find it.
        level: Of the two-sided t-test.
        design: As in `power`.

    Returns:
        In the unit of `sd`; NaN for fewer than 2 subjects or without an SD, 0 where nothing spreads.
    """
    if n < 2 or not math.isfinite(sd):
        return math.nan
    return sd * smallest_d_z(n, power, level, design)


def smallest_d_z(n: int, wanted: float, level: float, design: Design = "paired") -> float:
    """Effect, in SDs of the difference, that n >= 2 subjects find with the wanted power; 0 where chance does."""
    if wanted <= level:
        return 0.0
    high = 1.0
    while power(high, n, level=level, design=design) < wanted:  # 2 subjects need some 18 SDs
        high *= 2
    return float(optimize.brentq(lambda d: power(d, n, level=level, design=design) - wanted, 0.0, high, xtol=1e-10))


def subjects_needed(
    difference: float,
    sd: float,
    *,
    power: float = 0.8,
    level: float = 0.05,
    most: int = MOST,
    design: Design = "paired",
) -> int | None:
    """Fewest subjects (of each group, if unpaired) that show this mean difference with this power; None above `most`.

    `sd` is that of the subjects' differences; of the scores where the design is unpaired.
    """
    if not (math.isfinite(difference) and math.isfinite(sd)) or difference == 0:
        return None
    if sd == 0:
        return 2
    return fewest(abs(difference) / sd, power, level, most, design)


def fewest(d_z: float, wanted: float, level: float, most: int, design: Design = "paired") -> int | None:
    """Search on whole numbers, where power rises with n, from the z-test's number on: a t-test takes a few more."""
    alone = (special.ndtri(1 - level / 2) + special.ndtri(max(wanted, level))) / d_z if d_z else math.inf
    guess = alone**2 * (1 if design == "paired" else 2)
    if guess > most:
        return None

    def enough(n: int) -> bool:
        return not power(d_z, n, level=level, design=design) < wanted

    low = 1 if guess < 2 or enough(int(guess)) else int(guess)  # too few
    step, high = 1, low + 1
    while not enough(high):
        low, step = high, 2 * step
        high += step
        if low >= most:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high if high <= most else None


def sd_of_difference(sd: float, correlation: float, other_sd: float | None = None) -> float:
    """SD of subjects' differences between two methods whose scores correlate so.

    Args:
        sd: Of the scores; of the first method's, where the other's is given.
        correlation: Of the two methods' scores over subjects.
        other_sd: Of the other method's scores; the same by default.

    Raises:
        OptionError: For a correlation beyond -1 to 1.
    """
    if not -1 <= correlation <= 1:
        raise OptionError(f"a correlation lies between -1 and 1, got {correlation}")
    other = sd if other_sd is None else other_sd
    return math.sqrt(max(0.0, (sd - other) ** 2 + 2 * (1 - correlation) * sd * other))


def wilcoxon_subjects(n: int) -> int:
    """Subjects that a rank test (Wilcoxon's of pairs, Mann-Whitney's of groups) takes where a t-test takes n.

    The ratio is pi / 3, the asymptotic one under normality; with heavy tails rank tests take fewer than this.
    """
    return math.ceil(n * math.pi / 3)


def minimal_n(level: float = 0.05, *, comparisons: int = 1, design: Design = "paired") -> int:
    """Fewest subjects (of each group, if unpaired) with which an exact test can give p < level at all.

    Of n subjects a sign-flip, signed-rank or sign test cannot give less than 2 / 2^n, of two groups of n a permutation
    or rank test no less than 2 / C(2n, n), however large the difference.

    Args:
        level: To stay below, after correction.
        comparisons: By which the smallest p is multiplied (Bonferroni, and Holm's first step).
        design: As in `power`.

    Raises:
        OptionError: For a level outside 0 to 1 or less than one comparison.
    """
    if not 0 < level < 1 or comparisons < 1:
        raise OptionError(f"a level lies between 0 and 1 and comparisons are at least 1, got {level} and {comparisons}")
    n = 1
    while comparisons * smallest_p(n, design) >= level:
        n += 1
    return n


def smallest_p(n: int, design: Design = "paired") -> float:
    """The least two-sided p that n subjects can give in an exact test."""
    if checked(design) == "paired":
        return min(1.0, 2.0 ** (1 - n))
    return min(1.0, 2 / float(special.comb(2 * n, n)))
