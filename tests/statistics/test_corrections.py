"""Corrections against the documentation's example and statsmodels."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from shiftproof.errors import OptionError
from shiftproof.statistics import (
    CORRECTIONS,
    benjamini_hochberg,
    benjamini_yekutieli,
    bonferroni,
    correct,
    holm,
    hommel,
)

P = [0.001, 0.012, 0.03, 0.04, 0.2]


def test_documented_example():
    assert holm(P) == pytest.approx([0.005, 0.048, 0.09, 0.09, 0.2])
    assert benjamini_hochberg(P) == pytest.approx([0.005, 0.03, 0.05, 0.05, 0.2])
    assert bonferroni(P) == pytest.approx([0.005, 0.06, 0.15, 0.2, 1])


@pytest.mark.parametrize(("correct", "method"), [(holm, "holm"), (benjamini_hochberg, "fdr_bh")])
def test_corrections_equal_statsmodels(correct, method):
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    random = np.random.default_rng(0)
    for n in (1, 2, 7, 40):
        p = np.round(random.uniform(size=n) ** 2, 2)  # rounded, so that some tie
        assert correct(p) == pytest.approx(multitest.multipletests(p, method=method)[1])


def closed_simes(p: np.ndarray) -> np.ndarray:
    """Hommel's procedure as it is defined: the largest Simes p of all sets of tests that hold the one in question."""
    worst = np.zeros(len(p))
    for size in range(1, len(p) + 1):
        for chosen in itertools.combinations(range(len(p)), size):
            simes = min(size / rank * one for rank, one in enumerate(sorted(p[list(chosen)]), start=1))
            worst[list(chosen)] = np.maximum(worst[list(chosen)], simes)
    return worst


@pytest.mark.parametrize("seed", range(5))
def test_hommel_equals_its_closed_test(seed):
    p = np.random.default_rng(seed).uniform(size=7) ** 2
    assert hommel(p) == pytest.approx(closed_simes(p))


def test_hommel_claims_at_least_what_holm_does():
    random = np.random.default_rng(1)
    for _ in range(50):
        p = random.uniform(size=8) ** 2
        assert (hommel(p) <= holm(p) + 1e-12).all()


def test_benjamini_and_yekutieli_pay_the_harmonic_sum():
    assert benjamini_yekutieli(P) == pytest.approx(
        np.minimum(1, benjamini_hochberg(P) * (1 + 1 / 2 + 1 / 3 + 1 / 4 + 1 / 5))
    )


def test_corrections_have_names():
    for name, correction in CORRECTIONS.items():
        assert correct(P, name) == pytest.approx(correction(P))
    assert correct(P) == pytest.approx(holm(P))
    with pytest.raises(OptionError, match=r"'scheffe', expected one of holm, hommel"):
        correct(P, "scheffe")


EVERY = [holm, hommel, bonferroni, benjamini_hochberg, benjamini_yekutieli]


@pytest.mark.parametrize("correct", EVERY)
def test_a_test_that_could_not_be_made_is_not_counted(correct):
    found = correct([0.01, np.nan, 0.04])
    assert np.isnan(found[1])
    assert found[[0, 2]] == pytest.approx(correct([0.01, 0.04]))


@pytest.mark.parametrize("correct", EVERY)
def test_no_tests_need_no_correction(correct):
    assert len(correct([])) == 0
    assert correct([0.03])[0] == pytest.approx(0.03)
    assert np.isnan(correct([np.nan])).all()
