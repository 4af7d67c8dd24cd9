"""How much a finding of a study that is too small overstates the truth."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from scipy import integrate, special, stats

from .power import Design, freedom_of, noncentrality
from .power import power as power_of


@dataclass(frozen=True)
class Exaggeration:
    """What becomes of a true difference in the studies that find it, that is, whose p is below the level.

    `type_m` is the mean of the estimate's size in them divided by the true size; 1 is honest.
    `type_s` is the share of them whose estimate has the wrong sign.
    """

    power: float
    type_m: float
    type_s: float


def exaggeration(
    difference: float, sd: float, n: int, *, level: float = 0.05, design: Design = "paired"
) -> Exaggeration:
    """Type-M and type-S error of a two-sided t-test, exact under normality, by integration.

    With z the mean difference in true standard errors, normal around lambda, and s the ratio of the SD seen to the
    true one, a finding is |z| > c = t_crit s. Given s, the chance and the mean of |z| of a finding are those of a
    normal tail; they are averaged over s, whose square is chi-square.

    Paper: A. Gelman and J. Carlin, "Beyond Power Calculations: Assessing Type S (Sign) and Type M (Magnitude)
    Errors", Perspectives on Psychological Science 9, 2014, https://doi.org/10.1177/1745691614551642. There it is
    simulated, with an estimate that is t-distributed around the truth; here the SD is estimated as in the test.

    Args:
        difference: True mean difference.
        sd: Of the subjects' differences; of the scores where the design is unpaired.
        n: Subjects; of each group where the design is unpaired.
        level: Of the test.
        design: As in `power`.

    Returns:
        NaN where there is no true difference, no spread or fewer than 2 subjects.
    """
    if n < 2 or not (math.isfinite(difference) and math.isfinite(sd)) or difference == 0 or sd <= 0:
        return Exaggeration(math.nan, math.nan, math.nan)
    freedom, away = freedom_of(n, design), noncentrality(difference / sd, n, design)
    critical = float(stats.t.ppf(1 - level / 2, freedom))

    def over_spreads(tail: Callable[[float], float]) -> float:
        """Mean over s by its quantile, where the integrand is smooth however narrow the distribution of s is."""

        def at(quantile: float) -> float:
            return tail(critical * math.sqrt(2 * special.gammaincinv(freedom / 2, quantile) / freedom))

        return float(integrate.quad(at, 0, 1, limit=200, epsabs=1e-13, epsrel=1e-9)[0])

    right = over_spreads(lambda c: special.ndtr(away - c))
    wrong = over_spreads(lambda c: special.ndtr(-away - c))
    size = over_spreads(lambda c: mean_size(c, away))
    found = right + wrong
    return Exaggeration(power_of(difference / sd, n, level=level, design=design), size / found / away, wrong / found)


def mean_size(c: float, away: float) -> float:
    """Mean of |z| where |z| > c and 0 elsewhere, z normal around `away`."""
    edges = (math.exp(-((c - away) ** 2) / 2) + math.exp(-((c + away) ** 2) / 2)) / math.sqrt(2 * math.pi)
    return float(edges + away * (special.ndtr(away - c) - special.ndtr(-away - c)))
