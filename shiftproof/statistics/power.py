"""What a paired comparison of this size can see."""

from __future__ import annotations

import math

from scipy import optimize, stats


def power(d_z: float, n: int, *, level: float = 0.05) -> float:
    """Chance that a two-sided paired t-test on n subjects finds a mean difference of `d_z` SDs."""
    if n < 2 or not math.isfinite(d_z):
        return math.nan
    freedom, away = n - 1, abs(d_z) * math.sqrt(n)
    critical = stats.t.ppf(1 - level / 2, freedom)
    near = float(stats.nct.sf(critical, freedom, away))
    far = float(stats.nct.cdf(-critical, freedom, away))
    # Far from 0 both tails of the noncentral t come back as NaN: one is then 1, the other 0.
    near = 1.0 if math.isnan(near) and away > critical else near
    return min(1.0, near + (0.0 if math.isnan(far) else far))


def smallest_detectable(sd: float, n: int, *, power: float = 0.8, level: float = 0.05) -> float:
    """Smallest true mean difference that n subjects show with this power.

    Args:
        sd: Standard deviation of the subjects' differences.
        n: Subjects.
        power: Chance to find it.
        level: Of the two-sided paired t-test.

    Returns:
        In the unit of `sd`; NaN for fewer than 2 subjects or without an SD, 0 where nothing spreads.
    """
    if n < 2 or not math.isfinite(sd):
        return math.nan
    return sd * smallest_d_z(n, power, level)


def smallest_d_z(n: int, wanted: float, level: float) -> float:
    """Effect, in SDs of the difference, that n >= 2 subjects find with the wanted power."""
    high = 1.0
    while power(high, n, level=level) < wanted:  # 2 subjects need some 18 SDs
        high *= 2
    return float(optimize.brentq(lambda d: power(d, n, level=level) - wanted, 1e-9, high, xtol=1e-10))


def subjects_needed(
    difference: float, sd: float, *, power: float = 0.8, level: float = 0.05, most: int = 10_000_000
) -> int | None:
    """Fewest subjects that show this mean difference with this power; None above `most`."""
    if not (math.isfinite(difference) and math.isfinite(sd)) or difference == 0:
        return None
    if sd == 0:
        return 2
    return fewest(abs(difference) / sd, power, level, most)


def fewest(d_z: float, wanted: float, level: float, most: int) -> int | None:
    """Search on whole numbers: power rises with n."""
    low, high = 1, 2  # low is always too few
    while power(d_z, high, level=level) < wanted:
        low, high = high, high * 2
        if low >= most:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power(d_z, middle, level=level) >= wanted else (middle, high)
    return high
