"""The corrected resampled t-test: closed form, limits, and what it is for."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from shiftproof.errors import OptionError
from shiftproof.statistics import corrected_resampled_t

FOLDS = np.array([0.021, 0.013, -0.004, 0.030, 0.018, 0.009, 0.015, -0.002, 0.026, 0.011])


def test_it_is_the_formula_of_nadeau_and_bengio():
    """Ten folds of 100 subjects: 90 train, 10 test."""
    t = FOLDS.mean() / math.sqrt((1 / 10 + 10 / 90) * FOLDS.var(ddof=1))
    found = corrected_resampled_t(FOLDS, train=90, test=10)
    assert found.t == pytest.approx(t)
    assert found.p == pytest.approx(2 * stats.t.sf(t, 9))
    assert (found.df, found.k) == (9, 10)


def test_a_vanishing_test_set_gives_the_plain_t_test():
    plain = stats.ttest_1samp(FOLDS, 0)
    found = corrected_resampled_t(FOLDS, train=10**12, test=1)
    assert (found.t, found.p) == pytest.approx((plain.statistic, plain.pvalue))
    assert (found.low, found.high) == pytest.approx(tuple(plain.confidence_interval(0.95)))


def test_the_interval_excludes_zero_exactly_where_p_is_below_the_level():
    for shift in np.linspace(-0.02, 0.02, 21):
        found = corrected_resampled_t(FOLDS + shift, train=80, test=20, level=0.9)
        assert (found.low > 0 or found.high < 0) == (found.p < 0.1)


def test_repeating_the_same_folds_does_not_make_a_difference_certain():
    """Plainly, a hundred copies of ten folds would show anything; here the error cannot fall below its floor."""
    many = np.tile(FOLDS, 100)
    found = corrected_resampled_t(many, train=90, test=10)
    assert found.df == 999
    assert found.t < FOLDS.mean() / math.sqrt(10 / 90 * FOLDS.var())
    assert stats.ttest_1samp(many, 0).statistic > 5 * found.t


def test_a_fold_that_failed_is_left_out():
    holes = np.append(FOLDS, math.nan)
    assert corrected_resampled_t(holes, train=90, test=10) == corrected_resampled_t(FOLDS, train=90, test=10)


@pytest.mark.parametrize(
    ("differences", "words"),
    [
        ([0.1], "at least 2 folds, got 1"),
        ([], "got 0"),
        ([0.2] * 5, "all 5 differences are +0.2"),
        ([math.nan], "got 0"),
    ],
)
def test_what_cannot_be_tested_is_said(differences, words):
    found = corrected_resampled_t(differences, train=8, test=2)
    assert words in found.reason
    assert math.isnan(found.p)
    assert math.isnan(found.low)


@pytest.mark.parametrize("sizes", [{"train": 0, "test": 10}, {"train": 10, "test": 0}])
def test_sizes_without_meaning_are_named(sizes):
    with pytest.raises(OptionError, match=f"train {sizes['train']} and test {sizes['test']}"):
        corrected_resampled_t(FOLDS, **sizes)


@pytest.mark.slow
def test_random_splits_claim_too_much_unless_corrected():
    """Two equally good predictors of noise, compared on 15 random splits of the same 50 subjects."""
    random, claims = np.random.default_rng(0), []
    for _ in range(600):
        features, label = random.normal(size=(50, 2)), random.normal(size=50)
        differences = []
        for _ in range(15):
            order = random.permutation(50)
            train, test = order[:40], order[40:]
            errors = []
            for f in features.T:
                slope = np.polyfit(f[train], label[train], 1)
                errors.append(((np.polyval(slope, f[test]) - label[test]) ** 2).mean())
            differences.append(errors[0] - errors[1])
        corrected = corrected_resampled_t(differences, train=40, test=10).p
        claims.append((stats.ttest_1samp(differences, 0).pvalue < 0.05, corrected < 0.05))
    plain, held = np.mean(claims, axis=0)
    assert plain > 0.15
    assert held < 0.08
