"""Several values a subject, several sites: against published examples, closed forms and enumeration."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from shiftproof.errors import OptionError
from shiftproof.statistics import clustered, design_effect, icc, interval
from shiftproof.statistics.clusters import corrected_ends, two_stage

# Six subjects, four ratings each: Shrout and Fleiss 1979, table 2; their ICC(1,1) is .17.
RATINGS = np.array([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7.0]])


def lesions(subjects: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    whose = np.repeat(np.arange(subjects), random.integers(1, 9, subjects))
    return random.normal(size=subjects)[whose] + random.normal(size=len(whose)), whose


def test_a_subject_counts_once_however_many_lesions_it_has():
    values, whose = [0.2] * 30 + [0.6, 0.8, 1.0], [0] * 30 + [1, 2, 3]
    found = clustered(values, subjects=whose)
    known = interval([0.2, 0.6, 0.8, 1.0])
    assert (found.mean, found.low, found.high) == pytest.approx((known.mean, known.low, known.high))
    assert found.n == 4


@pytest.mark.parametrize("method", ["t", "bca", "percentile", "bootstrap-t"])
def test_the_interval_over_subjects_is_that_of_their_means(method):
    values, whose = lesions(30)
    means = pd.Series(values).groupby(whose).mean()
    assert clustered(values, subjects=whose, method=method, resamples=300) == interval(
        means, method=method, resamples=300
    )


def test_order_of_lines_and_names_of_subjects_do_not_matter():
    values, whose = lesions(12)
    shuffled = np.random.default_rng(1).permutation(len(values))
    names = np.array([f"subject {w:02d}" for w in whose])
    found = clustered(values[shuffled], subjects=names[shuffled])
    assert found.low == pytest.approx(clustered(values, subjects=whose).low)


def test_over_sites_it_is_a_t_interval_of_site_means():
    scores = {"A": [0.9, 0.8, 0.7], "B": [0.6, 0.5], "C": [0.9, 0.95, 1.0, 0.85]}
    values, sites = zip(*[(v, s) for s, own in scores.items() for v in own], strict=True)
    found = clustered(values, subjects=range(9), sites=sites)
    means = [np.mean(own) for own in scores.values()]
    assert found.n == 3
    assert (found.low, found.high) == pytest.approx(stats.t.interval(0.95, 2, np.mean(means), stats.sem(means)))


def test_a_subjects_scans_are_averaged_before_its_site_is():
    values = [0.1, 0.1, 0.1, 0.9, 0.4, 0.8]
    found = clustered(values, subjects=[1, 1, 1, 2, 3, 4], sites=["A"] * 4 + ["B"] * 2)
    assert found.mean == pytest.approx((0.5 + 0.6) / 2)


def test_the_same_subject_number_at_two_sites_is_two_subjects():
    found = clustered([0.0, 1.0, 0.2, 0.4], subjects=[1, 2, 1, 2], sites=["A", "A", "B", "B"])
    assert found.mean == pytest.approx((0.5 + 0.3) / 2)


def test_two_stage_bootstrap_equals_enumeration():
    """Two sites of two subjects: every draw of sites, then of subjects within each drawn site."""
    groups = [np.array([0.1, 0.5]), np.array([0.6, 0.9])]
    all_means = []
    for drawn in itertools.product(range(2), repeat=2):
        for inner in itertools.product(itertools.product(range(2), repeat=2), repeat=2):
            all_means.append(np.mean([groups[g][list(i)].mean() for g, i in zip(drawn, inner, strict=True)]))
    low, high = two_stage(groups, level=0.8, method="percentile", resamples=40_000, seed=0)
    expected = np.quantile(all_means, [0.1, 0.9], method="inverted_cdf")
    assert (low, high) == pytest.approx(tuple(expected), abs=0.01)


def test_two_stage_bootstrap_counts_the_spread_of_sites_and_of_their_subjects():
    random = np.random.default_rng(3)
    groups = [random.normal(random.normal(), 0.5, size=n) for n in (4, 6, 8, 5, 7)]
    ends = np.array([two_stage(groups, level=0.683, method="percentile", resamples=20_000, seed=s) for s in (1, 2)])
    means = np.array([g.mean() for g in groups])
    variance = (means.var() + np.mean([g.var() / len(g) for g in groups])) / len(groups)
    assert np.ptp(ends, axis=1) / 2 == pytest.approx(np.sqrt(variance), rel=0.05)


def test_corrected_ends_are_those_that_scipy_takes():
    """One subject a site: the second stage does nothing, and BCa over sites is BCa over subjects."""
    values = np.random.default_rng(4).beta(8, 1.5, size=40)
    found = clustered(values, subjects=range(40), sites=range(40), method="bca", resamples=20_000)
    known = interval(values, method="bca", resamples=20_000, seed=1)
    assert (found.low, found.high) == pytest.approx((known.low, known.high), abs=2e-3)
    plain = clustered(values, subjects=range(40), sites=range(40), method="percentile", resamples=20_000)
    assert found.low < plain.low - 2e-3  # left-skewed values: BCa reaches farther down


def test_without_bias_and_skew_the_ends_stay():
    found, ends = np.linspace(-3, 3, 1001), np.array([0.025, 0.975])
    assert corrected_ends(found, np.array([-1.0, 0, 1]), ends) == pytest.approx(ends)


def test_equal_seeds_give_equal_two_stage_bootstraps():
    values, whose = lesions(24)
    draw = [clustered(values, subjects=whose, sites=whose % 6, method="bca", resamples=500, seed=s) for s in (1, 1, 2)]
    assert draw[0] == draw[1] != draw[2]


def test_one_site_says_nothing_of_others():
    found = clustered([0.7, 0.8, 0.9], subjects=[1, 2, 3], sites=["A"] * 3)
    assert found.mean == pytest.approx(0.8)
    assert not found.known
    assert "fewer than 2 sites" in found.method


@pytest.mark.parametrize("method", ["auto", "bca"])
def test_equal_values_of_several_sites_have_an_interval_of_width_zero(method):
    found = clustered([0.3] * 8, subjects=range(8), sites=[0, 0, 1, 1, 2, 2, 3, 3], method=method)
    assert found.low == pytest.approx(0.3)
    assert found.high == pytest.approx(0.3)


def test_missing_values_are_left_out_and_do_not_count_as_subjects():
    found = clustered([0.5, math.nan, 0.7, math.nan], subjects=[1, 1, 2, 3])
    assert found == interval([0.5, 0.7])
    assert clustered([0.5, 0.6, 0.7], subjects=["x", None, "y"]) == interval([0.5, 0.7])
    assert clustered([math.nan], subjects=[1]).n == 0
    assert clustered([math.nan], subjects=[1], sites=["A"]).n == 0


def test_ends_stay_where_a_score_can_lie():
    found = clustered([0.2, 1.0, 0.9], subjects=range(3), sites=range(3), within=(0, 1))
    assert (found.low, found.high) == (0, 1)


def test_wrong_columns_and_settings_are_named():
    with pytest.raises(OptionError, match="got 3 values, 2 subjects"):
        clustered([1, 2, 3], subjects=[1, 2])
    with pytest.raises(OptionError, match="'bayes', expected one of"):
        clustered([1, 2, 3], subjects=[1, 2, 3], sites=[1, 2, 3], method="bayes")
    with pytest.raises(OptionError, match="between 0 and 1, got 95"):
        clustered([1, 2, 3], subjects=[1, 2, 3], sites=[1, 2, 3], method="bca", level=95)


def test_icc_of_the_published_ratings():
    assert round(icc(RATINGS.ravel(), np.repeat(np.arange(6), 4)), 2) == 0.17


def test_icc_of_unequal_numbers_equals_the_analysis_of_variance():
    values, whose = lesions(15, seed=5)
    groups = [values[whose == s] for s in range(15)]
    f = stats.f_oneway(*groups).statistic
    sizes = np.array([len(g) for g in groups])
    size = (sizes.sum() - (sizes**2).sum() / sizes.sum()) / 14
    assert icc(values, whose) == pytest.approx((f - 1) / (f + size - 1))


def test_values_that_are_one_subjects_alone_correlate_fully():
    assert icc([1, 1, 2, 2, 3, 3], [1, 1, 2, 2, 3, 3]) == pytest.approx(1)


@pytest.mark.parametrize("whose", [[1, 2, 3], [1, 1, 1]])
def test_icc_needs_several_values_of_several_subjects(whose):
    assert math.isnan(icc([0.1, 0.2, 0.3], whose))


def test_icc_of_values_without_spread_is_unknown():
    assert math.isnan(icc([0.5] * 4, [1, 1, 2, 2]))


def test_twenty_slices_are_worth_three():
    assert design_effect(20, 0.3) == pytest.approx(6.7)
    assert round(20 / design_effect(20, 0.3)) == 3


def test_design_effect_is_the_variance_of_a_mean_that_hangs_together():
    """Var of the mean of all values with unit variance and correlation 0.4 within subjects, over that of as many."""
    sizes = [1, 3, 8]
    whose = np.repeat(range(3), sizes)
    covariance = np.where(whose[:, None] == whose, 0.4, 0) + 0.6 * np.eye(12)
    assert design_effect(sizes, 0.4) == pytest.approx(covariance.mean() * 12)


@pytest.mark.slow
def test_lesions_that_are_taken_for_subjects_cover_too_rarely():
    random, covered = np.random.default_rng(6), []
    for _ in range(1000):
        whose = np.repeat(np.arange(15), 6)
        values = random.normal(size=15)[whose] + random.normal(size=90)
        covered.append((0.0 in interval(values, method="t"), 0.0 in clustered(values, subjects=whose)))
    naive, held = np.mean(covered, axis=0)
    assert naive < 0.8
    assert held == pytest.approx(0.95, abs=0.025)
