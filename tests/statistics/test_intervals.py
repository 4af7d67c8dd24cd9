"""Intervals of a mean, against SciPy, closed forms and simulation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from shiftproof.errors import OptionError
from shiftproof.statistics import interval, median_interval

# Dice x 1000 of two methods on 20 cases; the numbers that come of them are in the documentation.
A = np.array([912, 887, 934, 905, 861, 923, 848, 897, 915, 882, 930, 876, 902, 893, 918, 869, 926, 881, 909, 899.0])
B = np.array([905, 889, 921, 897, 866, 915, 829, 893, 912, 871, 929, 868, 905, 880, 911, 853, 921, 884, 898, 895.0])


def test_t_interval_of_the_reference_data():
    found = interval(A - B)
    assert found.method == "t"
    assert (found.mean, found.n) == (6.25, 20)
    assert [round(found.low, 2), round(found.high, 2)] == [3.18, 9.32]


def test_bca_interval_of_the_reference_data():
    found = interval(A - B, method="bca")
    # Two other runs of 9999 resamples gave [3.45, 9.10]; an end moves by some 0.05 with the seed.
    assert found.low == pytest.approx(3.45, abs=0.1)
    assert found.high == pytest.approx(9.10, abs=0.1)


def test_t_interval_equals_scipy():
    values = np.random.default_rng(0).normal(size=13)
    low, high = stats.ttest_1samp(values, 0).confidence_interval(0.9)
    found = interval(values, level=0.9)
    assert (found.low, found.high) == pytest.approx((low, high))


def test_fifty_subjects_are_bootstrapped_and_49_are_not():
    values = np.random.default_rng(1).beta(8, 2, size=50)
    assert interval(values[:49]).method == "t"
    assert interval(values).method == "bca"
    assert interval(np.resize(values, 5001)).method == "t"


def test_bca_equals_its_definition():
    """Bias and acceleration written out, with the resamples that SciPy drew."""
    values, resamples = np.random.default_rng(2).beta(9, 1.5, size=60), 2000
    drawn = stats.bootstrap(
        (values,), np.mean, method="BCa", n_resamples=resamples, rng=np.random.default_rng(5)
    ).bootstrap_distribution
    bias = stats.norm.ppf((np.sum(drawn < values.mean()) + np.sum(drawn <= values.mean())) / (2 * resamples))
    left_out = (values.sum() - values) / (len(values) - 1)
    away = left_out.mean() - left_out
    acceleration = (away**3).sum() / (6 * (away**2).sum() ** 1.5)
    ends = bias + stats.norm.ppf([0.025, 0.975])
    shares = stats.norm.cdf(bias + ends / (1 - acceleration * ends))
    found = interval(values, method="bca", resamples=resamples, seed=5)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(drawn, shares)), abs=2e-4)


def test_equal_seeds_give_equal_bootstraps():
    values = np.random.default_rng(3).normal(size=70)
    assert interval(values, seed=4) == interval(values, seed=4)
    assert interval(values, seed=4) != interval(values, seed=5)


@pytest.mark.parametrize("values", [[0.7], [0.7, math.nan]])
def test_a_single_subject_has_a_mean_and_no_interval(values):
    found = interval(values)
    assert (found.mean, found.n) == (0.7, 1)
    assert not found.known
    assert "fewer than 2" in found.method


def test_no_subject_has_nothing():
    found = interval([math.nan])
    assert math.isnan(found.mean)
    assert found.n == 0


@pytest.mark.parametrize("n", [2, 20, 80])
def test_equal_values_have_an_interval_of_width_zero(n):
    found = interval(np.full(n, 0.1 + 0.2))
    assert found.low == found.mean == found.high


def test_missing_scores_are_left_out_and_not_counted():
    assert interval([1.0, math.nan, 3.0, 4.0]) == interval([1.0, 3.0, 4.0])


def test_interval_ends_where_the_score_does():
    values = [0.2, 0.99, 0.99]
    free, held = interval(values), interval(values, within=(0, 1))
    assert free.high > 1
    assert free.low < 0
    assert (held.low, held.high, held.mean) == (0, 1, free.mean)


def test_t_interval_covers_as_often_as_it_says():
    random = np.random.default_rng(0)
    covered = [0.0 in interval(random.normal(size=8), level=0.8) for _ in range(600)]
    assert np.mean(covered) == pytest.approx(0.8, abs=0.05)


@pytest.mark.parametrize("wrong", [{"method": "bayes"}, {"level": 95}])
def test_unknown_settings_are_named(wrong):
    with pytest.raises(OptionError, match=r"bayes.*expected|between 0 and 1, got 95"):
        interval([1, 2, 3], **wrong)


def test_bootstrap_t_equals_enumeration():
    """All 5^5 resamples of five values, and the t of each."""
    values = np.array([0.62, 0.88, 0.91, 0.79, 0.95])
    everything = values[np.array(list(itertools.product(range(5), repeat=5)))]
    with np.errstate(divide="ignore"):
        spread = np.where(np.ptp(everything, axis=1) > 0, everything.std(1, ddof=1), 0) / math.sqrt(5)
        t = (everything.mean(1) - values.mean()) / spread
    error = values.std(ddof=1) / math.sqrt(5)
    lower, upper = np.quantile(t, [0.1, 0.9], method="inverted_cdf")
    found = interval(values, level=0.8, method="bootstrap-t", resamples=60_000)
    assert found.low == pytest.approx(values.mean() - upper * error, rel=0.02)
    assert found.high == pytest.approx(values.mean() - lower * error, rel=0.02)


def test_bootstrap_t_reaches_farther_on_the_side_of_the_failures():
    values = np.append(np.random.default_rng(6).beta(9, 1.6, size=18), [0.1, 0.2])
    plain, skewed = interval(values, method="t"), interval(values, method="bootstrap-t")
    assert plain.low - skewed.low > 0.02
    assert skewed.mean == plain.mean


def test_bootstrap_t_of_two_subjects_has_no_ends():
    found = interval([0.5, 0.7], method="bootstrap-t")
    assert (found.low, found.high) == (-math.inf, math.inf)
    assert not found.known


def test_median_interval_equals_scipy():
    random = np.random.default_rng(7)
    for n in (6, 7, 20, 51, 200):
        values = random.beta(9, 1.6, size=n)
        expected = stats.quantile_test(values, p=0.5, q=0.5).confidence_interval(0.95)
        found = median_interval(values)
        assert (found.low, found.high) == (expected.low, expected.high)
        assert found.median == np.median(values)
        assert found.coverage >= 0.95


def test_median_interval_of_twenty_is_the_sixth_and_the_fifteenth():
    """Binomial(20, 1/2) lies from 6 to 14 with 0.9586: tables of the sign test print it."""
    found = median_interval(np.arange(1.0, 21))
    assert (found.low, found.high, found.n) == (6, 15, 20)
    assert round(found.coverage, 4) == 0.9586


def test_five_subjects_cannot_hold_a_median():
    found = median_interval([0.1, 0.2, 0.3, 0.4, 0.5])
    assert found.median == 0.3
    assert not found.known
    assert found.reason == "5 subjects cannot hold the median at 0.95; it takes 6"
    assert median_interval(range(6)).known


def test_a_median_of_nothing_and_of_ties():
    assert median_interval([math.nan]).reason == "no subject has a value"
    tied = median_interval([0.4] * 10)
    assert tied.low == tied.median == tied.high == 0.4


def test_median_interval_covers_skewed_scores():
    random = np.random.default_rng(8)
    truth = stats.beta.median(9, 1.6)
    found = [median_interval(random.beta(9, 1.6, size=15)) for _ in range(2000)]
    assert np.mean([f.low <= truth <= f.high for f in found]) == pytest.approx(found[0].coverage, abs=0.015)
