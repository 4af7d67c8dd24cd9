"""Power against the documentation's tables, statsmodels and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from shiftproof.statistics import power, smallest_detectable, subjects_needed


@pytest.mark.parametrize(
    ("correlation", "at_20", "for_80", "for_90"),
    [(0.5, 0.071, 787, 1053), (0.8, 0.103, 316, 423), (0.9, 0.158, 159, 213), (0.95, 0.269, 81, 108),
     (0.99, 0.851, 18, 24), (0.0, 0.060, 1572, 2104)],
)  # fmt: skip
def test_documented_table_of_power(correlation, at_20, for_80, for_90):
    sd = 0.10 * math.sqrt(2 * (1 - correlation))
    assert round(power(0.01 / sd, 20), 3) == at_20
    assert subjects_needed(0.01, sd) == for_80
    assert subjects_needed(0.01, sd, power=0.9) == for_90


def test_documented_variance_misread_as_sd():
    assert subjects_needed(0.01, math.sqrt(0.1)) == 7851


@pytest.mark.parametrize(
    ("n", "d_z"),
    [(10, 0.996), (20, 0.660), (30, 0.529), (50, 0.404), (100, 0.283), (200, 0.199), (500, 0.126), (1000, 0.089)],
)
def test_documented_smallest_detectable_effects(n, d_z):
    assert round(smallest_detectable(1.0, n), 3) == d_z


def test_smallest_detectable_difference_scales_with_the_sd():
    assert smallest_detectable(0.03, 20) == pytest.approx(0.03 * smallest_detectable(1.0, 20))
    assert smallest_detectable(0.0, 20) == 0


def test_power_equals_statsmodels():
    TTestPower = pytest.importorskip("statsmodels.stats.power").TTestPower
    for d_z, n in [(0.2, 15), (0.5, 30), (1.0, 8), (0.05, 400)]:
        assert power(d_z, n) == pytest.approx(TTestPower().power(d_z, n, 0.05), abs=1e-6)


def test_power_equals_simulation():
    random = np.random.default_rng(0)
    p = stats.ttest_1samp(random.normal(0.6, 1, size=(4000, 16)), 0, axis=1).pvalue
    assert power(0.6, 16) == pytest.approx((p < 0.05).mean(), abs=0.025)


def test_power_of_no_effect_is_the_level():
    assert power(0.0, 12) == pytest.approx(0.05)


@pytest.mark.parametrize(("d_z", "n"), [(50, 1000), (3, 100_000), (-5, 5000)])
def test_huge_effects_have_power_one_where_tails_are_nan(d_z, n):
    assert power(d_z, n) == 1.0


def test_needed_subjects_are_the_fewest():
    n = subjects_needed(0.3, 1.0)
    assert power(0.3, n) >= 0.8 > power(0.3, n - 1)


def test_what_cannot_be_known_is_not_a_number():
    assert math.isnan(smallest_detectable(0.1, 1))
    assert math.isnan(smallest_detectable(math.nan, 20))
    assert math.isnan(power(0.5, 1))
    assert subjects_needed(0.0, 0.1) is None
    assert subjects_needed(math.nan, 0.1) is None
    assert subjects_needed(1e-9, 0.1) is None  # more than ten million
    assert subjects_needed(0.1, 0.0) == 2


def test_two_subjects_detect_only_the_enormous():
    assert power(smallest_detectable(1.0, 2), 2) == pytest.approx(0.8)
