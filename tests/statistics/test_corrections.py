"""Corrections against the documentation's example and statsmodels."""

from __future__ import annotations

import numpy as np
import pytest

from shiftproof.statistics import benjamini_hochberg, holm

P = [0.001, 0.012, 0.03, 0.04, 0.2]


def test_documented_example():
    assert holm(P) == pytest.approx([0.005, 0.048, 0.09, 0.09, 0.2])
    assert benjamini_hochberg(P) == pytest.approx([0.005, 0.03, 0.05, 0.05, 0.2])


@pytest.mark.parametrize(("correct", "method"), [(holm, "holm"), (benjamini_hochberg, "fdr_bh")])
def test_corrections_equal_statsmodels(correct, method):
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    random = np.random.default_rng(0)
    for n in (1, 2, 7, 40):
        p = np.round(random.uniform(size=n) ** 2, 2)  # rounded, so that some tie
        assert correct(p) == pytest.approx(multitest.multipletests(p, method=method)[1])


@pytest.mark.parametrize("correct", [holm, benjamini_hochberg])
def test_a_test_that_could_not_be_made_is_not_counted(correct):
    found = correct([0.01, np.nan, 0.04])
    assert np.isnan(found[1])
    assert found[[0, 2]] == pytest.approx(correct([0.01, 0.04]))


@pytest.mark.parametrize("correct", [holm, benjamini_hochberg])
def test_no_tests_need_no_correction(correct):
    assert len(correct([])) == 0
    assert correct([0.03])[0] == 0.03
