"""How much findings of small studies overstate, against simulation, closed forms and the documented case."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from shiftproof.statistics import exaggeration, power


def test_documented_case_is_five_times_too_large_and_wrong_in_sign_one_time_in_eight():
    found = exaggeration(0.01, 0.10, 20)
    assert round(found.power, 3) == 0.071
    assert round(found.type_m, 1) == 5.1
    assert round(found.type_s, 2) == 0.12


@pytest.mark.parametrize(("d", "n", "level"), [(0.1, 20, 0.05), (0.3, 10, 0.05), (0.8, 4, 0.05), (0.4, 30, 0.005)])
def test_paired_errors_equal_those_of_drawn_studies(d, n, level):
    drawn = np.random.default_rng(n).normal(d, 1, size=(100_000, n))
    p = stats.ttest_1samp(drawn, 0, axis=1).pvalue
    seen = drawn.mean(axis=1)[p < level]
    found = exaggeration(d, 1, n, level=level)
    assert found.power == pytest.approx((p < level).mean(), abs=0.006)
    assert found.type_m == pytest.approx(np.abs(seen).mean() / d, rel=0.03)
    assert found.type_s == pytest.approx((seen < 0).mean(), abs=0.012)


def test_unpaired_errors_equal_those_of_drawn_studies():
    random = np.random.default_rng(0)
    a, b = random.normal(0.3, 1, size=(100_000, 12)), random.normal(0, 1, size=(100_000, 12))
    p = stats.ttest_ind(a, b, axis=1).pvalue
    seen = (a.mean(axis=1) - b.mean(axis=1))[p < 0.05]
    found = exaggeration(0.3, 1, 12, design="unpaired")
    assert found.type_m == pytest.approx(np.abs(seen).mean() / 0.3, rel=0.03)
    assert found.type_s == pytest.approx((seen < 0).mean(), abs=0.012)


def test_with_a_known_sd_it_is_the_truncated_normal():
    """With very many subjects s is 1, and z is a normal beyond +-1.96."""
    n, away = 1_000_000, 1.0
    found = exaggeration(away / math.sqrt(n), 1, n)
    bar = float(stats.norm.ppf(0.975))
    right, left = stats.norm.sf(bar - away), stats.norm.cdf(-bar - away)
    size = stats.norm.expect(lambda z: abs(z), loc=away, lb=bar) + stats.norm.expect(abs, loc=away, ub=-bar)
    assert found.type_m == pytest.approx(float(size / (right + left)) / away, rel=1e-4)
    assert found.type_s == pytest.approx(float(left / (right + left)), rel=1e-3)


def test_a_large_study_is_honest():
    found = exaggeration(0.5, 1, 500)
    assert found.type_m == pytest.approx(1, abs=1e-6)
    assert found.type_s < 1e-12


def test_findings_never_understate_and_their_sign_is_no_worse_than_a_coin():
    for d in (1e-6, 1e-3, 0.1, 1, 100):
        for n in (2, 3, 20, 10_000):
            found = exaggeration(d, 1, n)
            assert found.type_m > 1 - 1e-6
            assert 0 <= found.type_s <= 0.5 + 1e-9
            assert found.power == power(d, n)


def test_direction_and_unit_do_not_matter():
    assert exaggeration(-0.03, 0.1, 20) == exaggeration(0.03, 0.1, 20)
    assert exaggeration(30, 100, 20).type_m == pytest.approx(exaggeration(0.03, 0.1, 20).type_m)


@pytest.mark.parametrize(("difference", "sd", "n"), [(0, 1, 20), (0.1, 0, 20), (0.1, 1, 1), (math.nan, 1, 20)])
def test_what_has_no_truth_or_no_spread_has_no_exaggeration(difference, sd, n):
    found = exaggeration(difference, sd, n)
    assert math.isnan(found.type_m)
    assert math.isnan(found.type_s)
