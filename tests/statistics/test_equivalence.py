"""Equivalence and non-inferiority against statsmodels, and the words that they give."""

from __future__ import annotations

import math

import numpy as np
import pytest

from shiftproof.errors import OptionError
from shiftproof.statistics import equivalence, paired


def scores(shift: float = 0.0, n: int = 25, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    a = random.beta(9, 1.6, size=n)
    return a + shift, a + random.normal(0, 0.01, size=n)


@pytest.mark.parametrize(("shift", "margin"), [(0, 0.01), (0.004, 0.01), (-0.004, 0.006), (0.02, 0.01)])
def test_two_one_sided_tests_equal_statsmodels(shift, margin):
    weightstats = pytest.importorskip("statsmodels.stats.weightstats")
    a, b = scores(shift)
    p, lower, upper = weightstats.ttost_paired(a, b, -margin, margin)
    found = equivalence(a, b, margin=margin)
    assert (found.p, found.p_lower, found.p_upper) == pytest.approx((p, lower[1], upper[1]))
    assert found.verdict == ("equivalent" if p < 0.05 else "not shown")


@pytest.mark.parametrize("seed", range(8))
def test_equivalence_is_shown_exactly_where_the_90_percent_interval_lies_within_the_margin(seed):
    a, b = scores(0.003, n=12, seed=seed)
    found, known = equivalence(a, b, margin=0.007), paired(a, b, level=0.9)
    assert (found.low, found.high) == pytest.approx((known.low, known.high))
    assert found.shown == (found.low > -0.007 and found.high < 0.007)


def test_a_worse_score_is_not_inferior_within_a_wide_margin_only():
    a, b = scores(-0.01)
    assert equivalence(a, b, margin=0.02, kind="non-inferiority").verdict == "non-inferior"
    assert equivalence(a, b, margin=0.01, kind="non-inferiority").verdict == "not shown"


def test_a_much_better_score_is_not_inferior_and_not_equivalent():
    a, b = scores(0.1)
    assert equivalence(a, b, margin=0.01, kind="non-inferiority").shown
    assert not equivalence(a, b, margin=0.01).shown
    assert not equivalence(a, b, margin=0.01, kind="non-inferiority", higher_is_better=False).shown


def test_non_inferiority_of_distances_is_that_of_their_negatives():
    a, b = scores(0.004)
    distance = equivalence(a, b, margin=0.01, kind="non-inferiority", higher_is_better=False)
    assert distance.p == pytest.approx(equivalence(-a, -b, margin=0.01, kind="non-inferiority").p)


def test_not_significant_is_not_equal():
    """Few subjects that spread: neither a difference nor its absence is shown."""
    random = np.random.default_rng(1)
    a, b = random.normal(size=8), random.normal(size=8)
    assert paired(a, b, test="t").p > 0.05
    assert equivalence(a, b, margin=0.1).verdict == "not shown"


def test_false_claims_at_the_margin_are_as_rare_as_the_level():
    random = np.random.default_rng(2)
    claims = [
        equivalence(random.normal(0.5, 1, size=40), np.zeros(40), margin=0.5).shown for _ in range(1500)
    ]  # the true difference is the margin itself
    assert np.mean(claims) == pytest.approx(0.05, abs=0.02)


@pytest.mark.parametrize(
    ("a", "b", "words"),
    [
        ([0.8], [0.7], "at least 2 subjects with both scores, got 1"),
        ([0.8, math.nan], [math.nan, 0.7], "got 0"),
        ([0.8, 0.9, 0.7], [0.8, 0.9, 0.7], "all 3 differences are +0: there is no spread"),
        ([], [], "got 0"),
    ],
)
def test_what_cannot_be_tested_is_said(a, b, words):
    found = equivalence(a, b, margin=0.01)
    assert words in found.reason
    assert math.isnan(found.p)
    assert found.verdict == ""
    assert not found.shown


def test_a_subject_without_one_of_its_scores_is_left_out():
    a, b = scores()
    holes = a.copy()
    holes[4] = math.nan
    found = equivalence(holes, b, margin=0.01)
    assert found.n == 24
    assert found.p == equivalence(np.delete(a, 4), np.delete(b, 4), margin=0.01).p


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"margin": 0.0}, "larger than 0 that does not matter, got 0"),
        ({"margin": math.nan}, "got nan"),
        ({"margin": 0.1, "kind": "superiority"}, "'superiority', expected one of equivalence"),
        ({"margin": 0.1, "level": 0.95}, "between 0 and 0.5, got 0.95"),
    ],
)
def test_settings_without_meaning_are_named(wrong, words):
    with pytest.raises(OptionError, match=words):
        equivalence([1, 2, 3], [1, 2, 4], **wrong)


def test_scores_of_different_length_are_named():
    with pytest.raises(OptionError, match="got 3 and 2"):
        equivalence([1, 2, 3], [1, 2], margin=0.1)
