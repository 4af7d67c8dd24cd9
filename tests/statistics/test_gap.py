"""Gap closed: its value, its interval and when it is not given."""

from __future__ import annotations

import math

import numpy as np
import pytest

from shiftproof.errors import OptionError
from shiftproof.statistics import gap_closed


def scores(n: int = 40, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Method, source-only, target-supervised: the method goes half the way."""
    random = np.random.default_rng(seed)
    subject = random.normal(0, 0.05, n)
    return tuple(level + subject + random.normal(0, 0.03, n) for level in (0.70, 0.60, 0.80))


def test_value_is_the_ratio_of_mean_differences():
    method, plain, best = scores()
    found = gap_closed(method, plain, best)
    assert found.value == pytest.approx((method - plain).mean() / (best - plain).mean())
    assert found.printable
    assert found.low < found.value < found.high
    assert found.n == 40


def test_references_close_none_and_all_of_the_gap():
    _, plain, best = scores()
    nothing, everything = gap_closed(plain, plain, best), gap_closed(best, plain, best)
    assert (nothing.value, nothing.low, nothing.high) == (0, 0, 0)
    assert (everything.value, everything.low, everything.high) == pytest.approx((1, 1, 1))


def test_interval_covers_the_truth_as_often_as_it_says():
    covered = []
    for seed in range(150):
        found = gap_closed(*scores(25, seed), level=0.9, resamples=400)
        covered.append(found.low <= 0.5 <= found.high)
    assert np.mean(covered) == pytest.approx(0.9, abs=0.08)


def test_interval_agrees_with_the_delta_method():
    method, plain, best = scores(400)
    found = gap_closed(method, plain, best)
    residual = (method - plain) - found.value * (best - plain)
    error = residual.std(ddof=1) / math.sqrt(400) / (best - plain).mean()
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.08)


def test_not_given_where_the_gap_may_be_zero():
    random = np.random.default_rng(1)
    plain = random.normal(0.7, 0.05, 12)
    found = gap_closed(plain + 0.1, plain, plain + random.normal(0, 0.05, 12))
    assert not found.printable
    assert math.isnan(found.value)
    assert "may be 0" in found.reason


def test_not_given_where_labels_made_it_worse():
    method, plain, best = scores()
    found = gap_closed(method, best, plain)
    assert "no better" in found.reason


def test_distances_that_fall_close_the_gap():
    method, plain, best = scores()
    found = gap_closed(1 - method, 1 - plain, 1 - best, higher_is_better=False)
    assert found.value == pytest.approx(gap_closed(method, plain, best).value)


@pytest.mark.parametrize("n", [0, 1])
def test_not_given_for_too_few_subjects(n):
    found = gap_closed([0.7] * n, [0.6] * n, [0.8] * n)
    assert f"are {n}" in found.reason or f"is {n}" in found.reason


def test_subjects_that_one_of_the_three_lacks_are_left_out():
    method, plain, best = scores()
    method[0], best[1] = np.nan, np.nan
    found = gap_closed(method, plain, best)
    assert found.n == 38
    assert found.value == gap_closed(method[2:], plain[2:], best[2:]).value


def test_scores_of_unequal_length_are_named():
    with pytest.raises(OptionError, match="got 2, 2, 3"):
        gap_closed([1, 2], [1, 2], [1, 2, 3])
