"""Width of intervals by the number of subjects, and how well a pilot knows a spread."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from shiftproof.errors import OptionError
from shiftproof.statistics import (
    half_width,
    interval,
    spread_interval,
    subjects_for_half_width,
    subjects_needed,
)


@pytest.mark.parametrize(("n", "half"), [(20, 0.047), (50, 0.028), (100, 0.020), (200, 0.014)])
def test_documented_half_widths(n, half):
    assert round(half_width(0.10, n), 3) == half


def test_half_width_is_that_of_the_interval():
    values = np.random.default_rng(0).normal(size=17)
    around = interval(values, method="t", level=0.9)
    assert half_width(values.std(ddof=1), 17, level=0.9) == pytest.approx(around.high - around.mean)


def test_unpaired_half_width_is_that_of_scipys_t_test():
    random = np.random.default_rng(0)
    a, b = random.normal(size=15), random.normal(size=15)
    pooled = math.sqrt((a.var(ddof=1) + b.var(ddof=1)) / 2)
    around = stats.ttest_ind(a, b).confidence_interval(0.95)
    assert half_width(pooled, 15, design="unpaired") == pytest.approx((around.high - around.low) / 2)


@pytest.mark.parametrize(("sd", "by_z", "by_t"), [(0.03, 139, 141), (0.10, 1537, 1540)])
def test_subjects_for_a_total_width_of_a_hundredth(sd, by_z, by_t):
    """The documented 139 and 1537 are by the normal quantile; t's is wider, and takes a few more."""
    assert math.ceil((stats.norm.ppf(0.975) * sd / 0.005) ** 2) == by_z
    found = subjects_for_half_width(0.005, sd)
    assert found == by_t
    assert half_width(sd, found) <= 0.005 < half_width(sd, found - 1)


def test_a_width_that_no_number_gives_has_none():
    assert subjects_for_half_width(0, 0.1) is None
    assert subjects_for_half_width(1e-9, 0.1) is None
    assert subjects_for_half_width(math.nan, 0.1) is None
    assert subjects_for_half_width(100, 0.1) == 2


def test_the_interval_of_a_spread_covers_as_often_as_it_says():
    random = np.random.default_rng(0)
    seen = random.normal(0, 0.3, size=(4000, 12)).std(axis=1, ddof=1)
    found = [spread_interval(float(s), 11) for s in seen]
    assert np.mean([f.low <= 0.3 <= f.high for f in found]) == pytest.approx(0.95, abs=0.012)
    assert np.mean([f.safe >= 0.3 for f in found]) == pytest.approx(0.8, abs=0.02)


def test_counting_with_the_safe_spread_reaches_the_power_in_four_of_five_pilots():
    random = np.random.default_rng(1)
    enough = subjects_needed(0.4, 1.0)
    seen = random.normal(0, 1, size=(400, 15)).std(axis=1, ddof=1)
    plain = np.mean([subjects_needed(0.4, float(s)) >= enough for s in seen])
    safe = np.mean([subjects_needed(0.4, spread_interval(float(s), 14).safe) >= enough for s in seen])
    assert plain < 0.6
    assert safe == pytest.approx(0.8, abs=0.06)


def test_a_spread_without_freedom_has_no_interval():
    assert math.isnan(spread_interval(0.3, 0).high)
    with pytest.raises(OptionError, match="coverage"):
        spread_interval(0.3, 10, level=1)
    assert math.isnan(half_width(0.1, 1))
