from __future__ import annotations

import numpy as np
import pytest

from shiftproof.errors import OptionError
from shiftproof.statistics.densities import BINS, FINEST, counted, edges, level_of, step_for, unpacked
from shiftproof.statistics.margins import crossing_fraction, margin_shift, signed_margins, switch_margins


def test_the_worked_example_of_two_classes():
    train = signed_margins([(-1, 3), (0, 4), (-2, 1)], 1)
    test = signed_margins([(0, 1), (1, 0.5), (-1, 2)], 1)
    assert train.tolist() == [4, 4, 3]
    assert test.tolist() == [1, -0.5, 3]
    found = margin_shift(train, test)
    assert found.shift == pytest.approx(2.5)
    assert found.normalised == pytest.approx(5.3033, abs=1e-4)
    assert found.crossing == pytest.approx(1 / 3)
    assert (found.median_train, found.median_test) == (4, 1)
    assert (found.n_train, found.n_test, found.crossing_train) == (3, 3, 0)


def test_a_margin_is_to_the_strongest_of_the_other_classes():
    random = np.random.default_rng(0)
    logits = random.normal(size=(50, 4))
    for true in range(4):
        others = [k for k in range(4) if k != true]
        expected = [row[true] - max(row[k] for k in others) for row in logits]
        assert signed_margins(logits, true) == pytest.approx(expected)


def test_a_constant_added_to_all_logits_changes_no_margin():
    logits = np.random.default_rng(1).normal(size=(20, 3))
    shifted = logits + np.random.default_rng(2).normal(size=(20, 1))
    assert signed_margins(shifted, 2) == pytest.approx(signed_margins(logits, 2))


def test_a_sigmoid_is_a_softmax_against_a_logit_of_zero():
    s = np.random.default_rng(3).normal(size=30)
    both = np.stack([np.zeros(30), s], 1)
    assert switch_margins(s, True) == pytest.approx(signed_margins(both, 1))
    assert switch_margins(s, False) == pytest.approx(signed_margins(both, 0))


def test_the_crossing_fraction_is_one_less_the_sensitivity_under_argmax():
    logits = np.random.default_rng(4).normal(size=(500, 3))
    missed = (logits.argmax(1) != 2).mean()
    assert crossing_fraction(signed_margins(logits, 2)) == pytest.approx(missed)
    assert crossing_fraction([0.0, 1.0]) == 0.5


def test_an_empty_side_has_no_numbers_and_equal_margins_no_normalised_shift():
    nobody = margin_shift([], [1.0])
    assert nobody.n_train == 0
    assert np.isnan([nobody.shift, nobody.normalised, nobody.crossing_train]).all()
    assert nobody.crossing == 0
    equal = margin_shift([2.0, 2.0], [1.0])
    assert equal.shift == 1
    assert np.isnan(equal.normalised)


@pytest.mark.parametrize(("logits", "true"), [(np.zeros((3, 1)), 0), (np.zeros(3), 0), (np.zeros((3, 2)), 2)])
def test_what_has_no_margin_is_refused(logits, true):
    with pytest.raises(OptionError, match="at least two classes"):
        signed_margins(logits, true)


def test_counts_on_the_grid_are_those_of_numpy():
    random = np.random.default_rng(5)
    x, y = random.normal(0, 3, 4000), random.normal(1, 2, 4000)
    step = step_for(np.concatenate([x, y]))
    assert np.log2(step) == round(np.log2(step))
    assert np.quantile(np.abs([*x, *y]), 0.999) <= BINS / 2 * step
    ends = edges(step)
    inside = (np.abs(x) < ends[-1]) & (np.abs(y) < ends[-1])
    expected, _, _ = np.histogram2d(x[inside], y[inside], bins=[ends, ends])
    assert np.array_equal(unpacked(counted([x[inside], y[inside]], step)), expected)
    assert unpacked(counted([x], step)).sum() == 4000  # what lies beyond is counted at the edge
    assert counted([np.array([])], step)["bins"] == ""
    assert step_for([]) == step_for([0.0]) == FINEST


def test_a_level_holds_the_share_of_the_mass():
    x = np.linspace(-4, 4, 200)
    density = np.exp(-(x[:, None] ** 2 + x[None] ** 2) / 2)
    for share in (0.5, 0.9):
        level = level_of(density, share)
        # Within the radius r lies 1 - exp(-r^2/2) of a Gaussian in the plane; at r its density is 1 - share.
        assert level == pytest.approx(1 - share, abs=0.01)
