"""How wide an interval n subjects give, and how well a pilot knows a spread."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy import stats

from ..errors import OptionError
from .power import MOST, Design, freedom_of


def half_width(sd: float, n: int, *, level: float = 0.95, design: Design = "paired") -> float:
    """Half of the t interval of a mean difference: t SD / sqrt(n), or t SD sqrt(2 / n) of two groups of n.

    Args:
        sd: Of the subjects' differences (or of plain scores, for the interval of a mean); of the scores of
            either group where the design is unpaired.
        n: Subjects; of each group where the design is unpaired.
        level: Coverage.
        design: As in `power`.

    Returns:
        In the unit of `sd`; NaN for fewer than 2 subjects.
    """
    if n < 2 or not math.isfinite(sd):
        return math.nan
    error = sd / math.sqrt(n if design == "paired" else n / 2)
    return float(stats.t.ppf((1 + level) / 2, freedom_of(n, design))) * error


def subjects_for_half_width(
    half: float, sd: float, *, level: float = 0.95, design: Design = "paired", most: int = MOST
) -> int | None:
    """Fewest subjects whose t interval is expected to reach no further than `half` from the mean; None above `most`.

    Exact for an SD that is as planned; in half of the studies the SD seen is larger, and so is the interval.
    """
    if not (math.isfinite(half) and math.isfinite(sd)) or half <= 0:
        return None
    low, high = 1, 2
    while half_width(sd, high, level=level, design=design) > half:
        low, high = high, high * 2
        if low >= most:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        enough = half_width(sd, middle, level=level, design=design) <= half
        low, high = (low, middle) if enough else (middle, high)
    return high if high <= most else None


@dataclass(frozen=True)
class Spread:
    """A standard deviation and what is known about it; `safe` is its one-sided upper limit."""

    sd: float
    low: float
    high: float
    safe: float
    freedom: int


def spread_interval(sd: float, freedom: int, *, level: float = 0.95, safe: float = 0.8) -> Spread:
    """Interval of a standard deviation that was estimated with so many degrees of freedom, by the chi-square rule.

    It assumes values near normal; with heavy tails the truth is less certain than this says.

    Args:
        sd: Seen.
        freedom: n - 1 of the pairs, or the sum of n - 1 over groups.
        level: Coverage of `low` to `high`.
        safe: Coverage of the one-sided limit. Subjects counted with it reach the wanted power in that share of
            pilots, counted with `sd` itself in about half of them (R. H. Browne, "On the use of a pilot sample for
            sample size determination", Statistics in Medicine 14, 1995, doi:10.1002/sim.4780141709).

    Raises:
        OptionError: For a coverage outside 0 to 1.
    """
    if not (0 < level < 1 and 0 < safe < 1):
        raise OptionError(f"a coverage lies between 0 and 1, got {level} and {safe}")
    if freedom < 1 or not math.isfinite(sd):
        return Spread(sd, math.nan, math.nan, math.nan, freedom)

    def limit(quantile: float) -> float:
        return sd * math.sqrt(freedom / float(stats.chi2.ppf(quantile, freedom)))

    return Spread(sd, limit((1 + level) / 2), limit((1 - level) / 2), limit(1 - safe), freedom)
