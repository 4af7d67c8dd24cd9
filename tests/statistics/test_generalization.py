from __future__ import annotations

import numpy as np
import pytest

from shiftproof.errors import OptionError
from shiftproof.statistics.generalization import generalization_gap


def test_the_gap_is_the_difference_of_mean_errors():
    found = generalization_gap([[0.1, 0.3]], [[0.5, 0.6, 0.7]])
    assert found.value == pytest.approx(0.6 - 0.2)
    assert (found.n_from, found.n_to) == (2, 3)
    assert (found.error_from, found.error_to) == pytest.approx((0.2, 0.6))


def test_its_two_parts_add_up():
    random = np.random.default_rng(0)
    train, held_back, test = random.random(9), random.random(7), random.random(11)
    whole = generalization_gap([train], [test]).value
    parts = generalization_gap([train], [held_back]).value + generalization_gap([held_back], [test]).value
    assert whole == pytest.approx(parts)


def test_the_interval_is_that_of_independent_normal_means():
    """Against the closed form: the variances of both means add up, whatever the pairing of subjects."""
    random = np.random.default_rng(1)
    train, test = random.normal(0.2, 0.05, 400), random.normal(0.4, 0.1, 300)
    found = generalization_gap([train], [test], resamples=4000)
    half = 1.96 * np.sqrt(train.var() / 400 + test.var() / 300)
    assert found.low == pytest.approx(found.value - half, abs=0.1 * half)
    assert found.high == pytest.approx(found.value + half, abs=0.1 * half)


def test_parts_count_once_each_whatever_their_size():
    found = generalization_gap([[0.0] * 10, [0.0, 0.0]], [[0.2] * 10, [0.4, 0.4]])
    assert found.value == pytest.approx(0.3)
    assert (found.low, found.high) == pytest.approx((0.3, 0.3))


def test_nan_leaves_a_subject_out_and_an_empty_part_is_no_part():
    found = generalization_gap([[0.1, np.nan, 0.1], []], [[0.2, 0.2], [0.9]])
    assert found.value == pytest.approx(0.1)
    assert found.n_from == 2


def test_one_subject_on_a_side_has_no_interval():
    found = generalization_gap([[0.1]], [[0.2, 0.4]])
    assert found.value == pytest.approx(0.2)
    assert np.isnan([found.low, found.high]).all()
    assert np.isnan(generalization_gap([[]], [[0.1]]).value)


def test_equal_errors_give_an_equal_interval_and_another_seed_another_one():
    one, other = [[0.1, 0.5, 0.2]], [[0.6, 0.9, 0.4]]
    assert generalization_gap(one, other) == generalization_gap(one, other)
    assert generalization_gap(one, other, seed=1).low != generalization_gap(one, other, resamples=100, seed=2).low


def test_sides_of_different_parts_are_refused():
    with pytest.raises(OptionError, match="got 1 and 2"):
        generalization_gap([[0.1]], [[0.1], [0.2]])
