"""What once came out wrong without a word: NaN in tests of differences, names that are missing, spreads of 0."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest

from shiftproof.statistics import (
    clustered,
    equivalence,
    icc,
    paired,
    sign_flip_p,
    sign_p,
    signed_rank_p,
    simulated_power_unpaired,
    subjects_for_half_width,
)


@pytest.mark.parametrize("test", [sign_flip_p, sign_p, signed_rank_p])
def test_a_missing_difference_is_left_out_of_its_test(test):
    there = [0.1, 0.2, 0.3, -0.05]
    assert test([math.nan, *there, math.nan]) == test(there)
    assert math.isnan(test([math.nan]))


def test_equal_differences_have_a_spread_of_exactly_0():
    found = paired([0.2, 0.3, 0.4], [0.1, 0.2, 0.3])
    assert found.sd == 0.0
    assert math.isnan(found.d_z)


def test_a_missing_name_among_text_is_no_subject_called_nan():
    found = clustered([1, 2, 5, 6, 9], subjects=["a", "a", "b", math.nan, math.nan])
    assert (found.n, found.mean) == (2, 3.25)
    assert paired([1, 2, 3], [0, 1, 1], subjects=["a", "b", math.nan]).n == 2


def test_a_value_of_nobody_does_not_move_the_intraclass_correlation():
    assert icc([1, 2, 5, 6, 100], ["a", "a", "b", "b", None]) == icc([1, 2, 5, 6], ["a", "a", "b", "b"])


def test_no_more_subjects_are_asked_for_than_are_allowed():
    assert subjects_for_half_width(0.001, 0.1, most=30_000) is None
    assert subjects_for_half_width(0.001, 0.1, most=40_000) == subjects_for_half_width(0.001, 0.1)


def test_draws_of_equal_scores_and_infinite_scores_do_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = simulated_power_unpaired([0.1, 0.2], [0.1, 0.3, 0.4], 2, shift=0.1, resamples=200)
        same = equivalence([math.inf, 1, 2, 2.1], [math.inf, 1, 2.1, 2], margin=1)
    assert np.isfinite(found.power)
    assert same.n == 3
