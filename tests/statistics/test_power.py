"""Power against the documentation's tables, statsmodels and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from shiftproof.errors import OptionError
from shiftproof.statistics import (
    minimal_n,
    power,
    sd_of_difference,
    sign_p,
    signed_rank_p,
    smallest_detectable,
    subjects_needed,
    wilcoxon_subjects,
)


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


def test_documented_unpaired_row():
    assert round(power(0.1, 20, design="unpaired"), 3) == 0.061
    assert subjects_needed(0.01, 0.10, design="unpaired") == 1571
    assert subjects_needed(0.01, 0.10, power=0.9, design="unpaired") == 2103


def test_documented_row_of_a_variance_misread_as_sd():
    assert round(power(0.01 / math.sqrt(0.1), 20), 3) == 0.052


@pytest.mark.parametrize(("d", "n"), [(0.2, 15), (0.5, 30), (1.0, 8), (0.05, 400), (2.0, 2), (0.8, 26)])
@pytest.mark.parametrize("level", [0.05, 0.05 / 11])
def test_unpaired_power_equals_statsmodels(d, n, level):
    TTestIndPower = pytest.importorskip("statsmodels.stats.power").TTestIndPower
    assert power(d, n, level=level, design="unpaired") == pytest.approx(TTestIndPower().power(d, n, level), abs=1e-6)


@pytest.mark.parametrize("wanted", [0.5, 0.8, 0.9, 0.99])
@pytest.mark.parametrize("d", [0.1, 0.37, 0.9, 2.5])
def test_subjects_needed_equal_statsmodels(d, wanted):
    statsmodels = pytest.importorskip("statsmodels.stats.power")
    paired = statsmodels.TTestPower().solve_power(d, None, 0.05, wanted)
    unpaired = statsmodels.TTestIndPower().solve_power(d, None, 0.05, wanted)
    if paired > 2:  # below, statsmodels takes fractions of a subject
        assert subjects_needed(d, 1, power=wanted) == math.ceil(paired)
    if unpaired > 2:
        assert subjects_needed(d, 1, power=wanted, design="unpaired") == math.ceil(unpaired)


def test_unpaired_power_equals_simulation():
    random = np.random.default_rng(1)
    a, b = random.normal(0.8, 1, size=(4000, 20)), random.normal(0, 1, size=(4000, 20))
    found = (stats.ttest_ind(a, b, axis=1).pvalue < 0.05).mean()
    assert power(0.8, 20, design="unpaired") == pytest.approx(found, abs=0.025)


@pytest.mark.parametrize("n", [2, 3, 20, 1000, 100_000])
@pytest.mark.parametrize("level", [0.05, 1e-3, 1e-6])
def test_power_is_the_mean_of_normal_tails_over_the_sd_that_is_seen(n, level):
    """Another route, without a noncentral t: an average over quantiles of the chi-square; far tails included."""
    quantile = (np.arange(200_000) + 0.5) / 200_000
    bar = stats.t.ppf(1 - level / 2, n - 1) * np.sqrt(stats.chi2.ppf(quantile, n - 1) / (n - 1))
    for away in (0.5, 3.0, 10.0, 30.0, 60.0, 1000.0):
        expected = float(np.mean(stats.norm.sf(bar - away) + stats.norm.cdf(-bar - away)))
        assert power(away / math.sqrt(n), n, level=level) == pytest.approx(expected, abs=2e-5)


def test_power_rises_with_effect_and_subjects_without_a_gap():
    for design in ("paired", "unpaired"):
        over_effect = [power(d, 12, design=design) for d in np.linspace(0, 30, 400)]
        over_n = [power(0.2, n, design=design) for n in range(2, 3000, 7)]
        for found in (over_effect, over_n):
            assert np.isfinite(found).all()
            assert (np.diff(found) > -1e-12).all()
            assert max(found) <= 1


@pytest.mark.parametrize("design", ["paired", "unpaired"])
@pytest.mark.parametrize("wanted", [0.06, 0.5, 0.8, 0.95])
def test_needed_subjects_are_the_fewest_of_a_brute_force_search(design, wanted):
    for d in (0.15, 0.4, 1.1, 3.0, 20.0):
        n = next(n for n in range(2, 5000) if power(d, n, design=design) >= wanted)
        assert subjects_needed(d, 1, power=wanted, design=design) == n


def test_needed_subjects_end_at_the_most():
    n = subjects_needed(0.01, 0.1)
    assert subjects_needed(0.01, 0.1, most=n) == n
    assert subjects_needed(0.01, 0.1, most=n - 1) is None


def test_smallest_detectable_unpaired_has_the_wanted_power():
    found = smallest_detectable(0.2, 15, power=0.9, level=0.01, design="unpaired")
    assert power(found / 0.2, 15, level=0.01, design="unpaired") == pytest.approx(0.9)
    assert smallest_detectable(1, 15, power=0.05) == 0  # what chance finds as often


def test_sd_of_differences_is_that_of_drawn_pairs():
    cov = [[0.04, 0.7 * 0.2 * 0.5], [0.7 * 0.2 * 0.5, 0.25]]
    drawn = np.random.default_rng(0).multivariate_normal([0, 0], cov, size=200_000)
    assert sd_of_difference(0.2, 0.7, 0.5) == pytest.approx(float(np.std(drawn[:, 0] - drawn[:, 1])), rel=0.01)
    assert sd_of_difference(0.1, 0.5) == pytest.approx(0.1)
    assert sd_of_difference(0.1, 1) == 0
    assert sd_of_difference(0.1, -1) == pytest.approx(0.2)
    with pytest.raises(OptionError, match="correlation lies between"):
        sd_of_difference(0.1, 1.01)


def test_rank_tests_take_a_third_of_pi_as_many():
    assert wilcoxon_subjects(787) == 825


@pytest.mark.parametrize("comparisons", [1, 3, 11])
def test_the_fewest_subjects_of_an_exact_test_are_the_first_whose_best_p_is_low_enough(comparisons):
    n = minimal_n(comparisons=comparisons)
    for p in (signed_rank_p, sign_p):
        assert comparisons * p(np.arange(1.0, n + 1)) < 0.05 <= comparisons * p(np.arange(1.0, n))
    groups = minimal_n(comparisons=comparisons, design="unpaired")

    def best(n: int) -> float:
        return float(stats.mannwhitneyu(np.arange(n), np.arange(n) + 100, method="exact").pvalue)

    assert comparisons * best(groups) < 0.05 <= comparisons * best(groups - 1)


def test_an_unknown_design_is_named():
    with pytest.raises(OptionError, match="crossover.*paired, unpaired"):
        power(0.5, 20, design="crossover")
    with pytest.raises(OptionError, match="level lies between"):
        minimal_n(0)
