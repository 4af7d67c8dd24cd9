"""Scores of different subjects, against SciPy and enumeration."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from shiftproof.errors import OptionError
from shiftproof.statistics import paired, unpaired

A = np.array([912, 887, 934, 905, 861, 923, 848, 897, 915, 882, 930, 876, 902, 893, 918, 869, 926, 881, 909, 899.0])
B = np.array([905, 889, 921, 897, 866, 915, 829, 893, 912, 871, 929, 868, 905, 880, 911, 853, 921, 884, 898, 895.0])


def test_reference_data_without_its_pairs_shows_nothing():
    """What pairing buys: p = 0.425 instead of 0.0006 for the same scores."""
    found = unpaired(A, B)
    assert round(found.p, 3) == 0.425
    assert found.mean_difference == 6.25
    assert round(paired(A, B).p, 6) == 0.000620


def test_welch_equals_scipy():
    random = np.random.default_rng(0)
    a, b = random.normal(0.5, 1, size=13), random.normal(0, 3, size=8)
    expected = stats.ttest_ind(a, b, equal_var=False)
    low, high = expected.confidence_interval(0.9)
    found = unpaired(a, b, level=0.9)
    assert (found.p, found.low, found.high) == pytest.approx((expected.pvalue, low, high))
    assert (found.n_a, found.n_b) == (13, 8)
    assert found.d == pytest.approx((a.mean() - b.mean()) / np.sqrt((a.var(ddof=1) + b.var(ddof=1)) / 2))


def test_permutation_equals_enumeration():
    random = np.random.default_rng(1)
    a, b = random.normal(1, 1, size=5), random.normal(0, 2, size=4)
    everyone = np.concatenate([a, b])
    t = []
    for chosen in itertools.combinations(range(9), 5):
        others = [i for i in range(9) if i not in chosen]
        t.append(stats.ttest_ind(everyone[list(chosen)], everyone[others], equal_var=False).statistic)
    observed = stats.ttest_ind(a, b, equal_var=False).statistic
    above, below = np.mean(np.array(t) >= observed - 1e-12), np.mean(np.array(t) <= observed + 1e-12)
    assert unpaired(a, b, test="permutation").p == pytest.approx(min(1, 2 * min(above, below)))


def test_drawn_permutations_agree_with_welch_and_repeat():
    found = [unpaired(A, B, test="permutation", seed=s, resamples=4000).p for s in (1, 1, 2)]
    assert found[0] == found[1]
    assert found == pytest.approx([0.425] * 3, abs=0.04)


def test_missing_scores_are_left_out_on_their_own_side():
    found = unpaired([1.0, math.nan, 2.0, 4.0], [0.5, 0.7])
    assert (found.n_a, found.n_b) == (3, 2)
    assert found.p == unpaired([1.0, 2.0, 4.0], [0.5, 0.7]).p


@pytest.mark.parametrize("test", ["welch", "permutation"])
@pytest.mark.parametrize(
    ("a", "b", "words"),
    [
        ([0.8], [0.7, 0.6], "at least 2 subjects on each side, got 1 and 2"),
        ([], [], "got 0 and 0"),
        ([0.8, 0.8], [0.7, 0.7], "neither side varies"),
    ],
)
def test_what_cannot_be_tested_is_said(a, b, words, test):
    found = unpaired(a, b, test=test)
    assert words in found.reason
    assert math.isnan(found.p)


@pytest.mark.parametrize("test", ["welch", "permutation"])
def test_one_side_without_spread_is_tested_all_the_same(test):
    found = unpaired([0.8] * 6, [0.5, 0.6, 0.7, 0.55, 0.65, 0.62], test=test)
    assert found.reason == ""
    assert 0 < found.p < 0.05


def test_wrong_settings_are_named():
    with pytest.raises(OptionError, match="'wilcoxon', expected one of welch"):
        unpaired(A, B, test="wilcoxon")
    with pytest.raises(OptionError, match="between 0 and 1, got 95"):
        unpaired(A, B, level=95)


@pytest.mark.slow
def test_dealing_the_plain_difference_anew_would_claim_too_much():
    """Equal means, more spread on the smaller side: why the statistic is Welch's t."""
    random, claims = np.random.default_rng(2), []
    for _ in range(600):
        a, b = random.normal(0, 3, size=40), random.normal(0, 1, size=120)
        plain = stats.permutation_test((a, b), plain_difference, vectorized=True, n_resamples=299, rng=random).pvalue
        claims.append((plain < 0.05, unpaired(a, b, test="permutation", resamples=299).p < 0.05))
    plain, held = np.mean(claims, axis=0)
    assert plain > 0.15
    assert held == pytest.approx(0.05, abs=0.03)


def plain_difference(a: np.ndarray, b: np.ndarray, axis: int) -> np.ndarray:
    return a.mean(axis) - b.mean(axis)
