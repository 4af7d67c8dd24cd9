"""Recipes against trainings: Welch's test by other means, and why subjects alone are not enough."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from shiftproof.errors import OptionError
from shiftproof.statistics import detectable_over_trainings, over_trainings, sign_flip_p


def test_one_domain_is_welchs_test():
    random = np.random.default_rng(0)
    a, b = random.normal(0.8, 0.02, 5), random.normal(0.78, 0.01, 3)
    found, expected = over_trainings([a], [b]), stats.ttest_ind(a, b, equal_var=False)
    assert found.p == pytest.approx(expected.pvalue)
    assert found.freedom == pytest.approx(expected.df)
    interval = expected.confidence_interval()
    np.testing.assert_allclose([found.low, found.high], [interval.low, interval.high])
    assert found.sd == pytest.approx(math.sqrt(a.var(ddof=1) + b.var(ddof=1)))
    assert found.trainings == 3
    assert found.error == pytest.approx((a.mean() - b.mean()) / expected.statistic)


def test_shared_trainings_are_a_paired_test():
    a, b = np.array([0.80, 0.83, 0.78, 0.81]), np.array([0.79, 0.815, 0.775, 0.80])
    found = over_trainings([a], [b], together=True)
    assert found.p == pytest.approx(stats.ttest_rel(a, b).pvalue)
    assert found.freedom == pytest.approx(3)
    assert found.p < over_trainings([a], [b]).p


def test_domains_are_weighted_and_their_levels_do_not_count_as_spread():
    """Two domains at quite different levels: variance of a weighted sum, freedom after Satterthwaite, by hand."""
    a, b = np.array([[0.80, 0.82], [0.40, 0.43]]), np.array([[0.78, 0.79], [0.41, 0.40]])
    found = over_trainings(a, b, weights=[30, 10])
    assert found.mean == pytest.approx(0.75 * (0.81 - 0.785) + 0.25 * (0.415 - 0.405))
    parts = [0.75**2 * 0.0002 / 2, 0.25**2 * 0.00045 / 2, 0.75**2 * 0.00005 / 2, 0.25**2 * 0.00005 / 2]
    freedom = sum(parts) ** 2 / sum(p**2 for p in parts)
    assert found.freedom == pytest.approx(freedom)
    assert found.p == pytest.approx(2 * stats.t.sf(found.mean / math.sqrt(sum(parts)), freedom))


def test_the_detectable_difference_is_found_in_four_of_five_studies():
    """Drawn: two recipes of four trainings each, equal spread, so that the freedom is close to 6."""
    random = np.random.default_rng(2)
    a = random.normal(0, 0.01, 4)
    found = over_trainings([a], [a[::-1]])
    assert found.freedom == pytest.approx(6)
    shift = detectable_over_trainings(found)
    sd = a.std(ddof=1)
    first, second = random.normal(shift, sd, (20_000, 4)), random.normal(0, sd, (20_000, 4))
    seen = stats.ttest_ind(first, second, axis=1).pvalue < 0.05
    assert seen.mean() == pytest.approx(0.8, abs=0.015)
    assert math.isnan(detectable_over_trainings(over_trainings([[0.8]], [[0.7]])))


def test_one_training_each_says_so_and_keeps_the_difference():
    found = over_trainings([[0.8]], [[0.7]])
    assert found.mean == pytest.approx(0.1)
    assert math.isnan(found.p)
    assert found.reason.startswith("one training each")
    assert over_trainings([[0.8, 0.81]], [[0.7, math.nan]]).reason
    assert "no training" in over_trainings([[0.8, 0.81], [0.5, 0.5]], [[0.7, 0.7], [math.nan, math.nan]]).reason


def test_trainings_that_repeat_exactly_have_no_spread():
    assert over_trainings([[0.8, 0.8]], [[0.7, 0.7]]).p == 0
    assert over_trainings([[0.7, 0.7]], [[0.7, 0.7]]).p == 1


def test_tables_that_do_not_fit_are_refused():
    with pytest.raises(OptionError, match=r"\(2, 2\) and \(1, 2\)"):
        over_trainings(np.zeros((2, 2)), np.zeros((1, 2)))
    with pytest.raises(OptionError, match=r"\(1, 3\) and \(1, 2\)"):
        over_trainings(np.zeros((1, 3)), np.zeros((1, 2)), together=True)


def test_equal_recipes_are_told_apart_by_subjects_alone_and_not_by_both_tests():
    """Trainings of one recipe differ by 0.01 (SD); three of each, 24 subjects who spread by 0.01 besides."""
    random = np.random.default_rng(1)
    alone = both = 0
    for _ in range(400):
        seeds = random.normal(0, 0.01, (2, 3))
        scores = seeds[:, None] + random.normal(0, 0.01, (2, 24, 1)) + random.normal(0, 0.01, (2, 24, 3))
        difference = scores[0].mean(1) - scores[1].mean(1)
        p = sign_flip_p(difference, resamples=499)
        alone += p < 0.05
        both += max(p, over_trainings(scores[0].mean(0)[None], scores[1].mean(0)[None]).p) < 0.05
    assert alone > 0.2 * 400
    assert both < 0.075 * 400
