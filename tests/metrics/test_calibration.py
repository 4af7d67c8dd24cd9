"""Calibration against scikit-learn's curve, counting by hand, and predictors whose error is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.calibration import calibration_curve

from shiftproof.errors import LabelError, OptionError
from shiftproof.metrics.calibration import calibration_error, classwise_error, reliability, top_label_error


def drawn(seed=0, number=200):
    random = np.random.default_rng(seed)
    p = random.beta(0.8, 1.2, number)
    return p, (random.random(number) < p**1.5).astype(int)


@pytest.mark.parametrize(("equal", "strategy"), [("width", "uniform"), ("mass", "quantile")])
@pytest.mark.parametrize("bins", [1, 5, 10, 20])
def test_the_table_is_scikit_learns_curve(equal, strategy, bins):
    p, y = drawn()
    frequency, confidence = calibration_curve(y, p, n_bins=bins, strategy=strategy)

    table = [b for b in reliability(p, y, bins=bins, equal=equal) if b.number]

    np.testing.assert_allclose([b.frequency for b in table], frequency)
    np.testing.assert_allclose([b.confidence for b in table], confidence)
    assert sum(b.number for b in table) == 200


def test_bins_of_equal_mass_have_equal_mass():
    p, y = drawn(1, 120)
    assert [b.number for b in reliability(p, y, bins=8, equal="mass")] == [15] * 8


@pytest.mark.parametrize("equal", ["width", "mass"])
def test_the_error_is_the_mean_distance_counted_by_hand(equal):
    p, y = drawn(2, 90)
    if equal == "width":
        groups = [[i for i in range(90) if b / 10 < p[i] <= (b + 1) / 10] for b in range(10)]
    else:
        groups = np.array_split(np.argsort(p), 10)
    expected = sum(abs(sum(y[i] for i in g) - sum(p[i] for i in g)) for g in groups) / 90
    assert calibration_error(p, y, equal=equal) == pytest.approx(expected)


def test_equal_probabilities_stay_in_one_bin_whatever_the_order():
    p = np.array([0.2] * 7 + [0.6] * 3 + [0.9] * 2)
    y = np.array([1, 0, 0, 0, 1, 0, 0, 1, 1, 0, 1, 1])
    table = reliability(p, y, bins=4, equal="mass")
    assert [b.number for b in table] == [7, 3, 2]
    order = np.random.default_rng(0).permutation(12)
    assert calibration_error(p[order], y[order], bins=4, equal="mass") == pytest.approx(
        calibration_error(p, y, bins=4, equal="mass")
    )
    assert calibration_error(p, y, bins=4, equal="mass") == pytest.approx(
        (abs(2 - 1.4) + abs(2 - 1.8) + abs(2 - 1.8)) / 12
    )


def test_an_edge_belongs_to_the_bin_below_and_nothing_is_lost():
    table = reliability(np.array([0.0, 0.1, 0.5, 1.0]), np.array([0, 0, 1, 1]))
    assert [b.number for b in table] == [2, 0, 0, 0, 1, 0, 0, 0, 0, 1]
    assert [b.low for b in table] == pytest.approx([i / 10 for i in range(10)])
    assert math.isnan(table[1].confidence)


def test_errors_that_are_known():
    y = np.array([0, 1] * 50)
    assert calibration_error(np.full(100, 0.5), y) == 0
    assert calibration_error(np.full(100, 0.9), y) == pytest.approx(0.4)
    assert calibration_error(y.astype(float), y) == 0
    assert calibration_error(1.0 - y, y) == 1


def test_the_top_label_alone_and_every_class_differ():
    random = np.random.default_rng(3)
    p = random.dirichlet([1, 1, 1], 80)
    truth = random.integers(0, 3, 80)
    assert top_label_error(p, truth) == pytest.approx(calibration_error(p.max(1), p.argmax(1) == truth))
    each = [calibration_error(p[:, k], truth == k) for k in range(3)]
    assert classwise_error(p, truth) == pytest.approx(np.mean(each))

    unknown = np.eye(3)[truth]
    unknown[:, 1] = np.nan
    assert classwise_error(p, unknown) == pytest.approx(np.mean([each[0], each[2]]))


def test_no_subject_has_no_error():
    nothing = np.zeros(0)
    assert math.isnan(calibration_error(nothing, nothing))
    assert math.isnan(calibration_error(nothing, nothing, equal="mass"))
    assert math.isnan(top_label_error(np.zeros((0, 3)), np.zeros(0, int)))
    assert math.isnan(classwise_error(np.zeros((0, 3)), np.zeros(0, int)))


def test_what_has_no_calibration_is_refused():
    with pytest.raises(LabelError, match=r"got \(3,\) and \(2,\)"):
        calibration_error(np.zeros(3), np.zeros(2))
    with pytest.raises(LabelError, match="probabilities"):
        calibration_error(np.array([0.5, 1.5]), np.zeros(2))
    with pytest.raises(LabelError, match="not annotated"):
        calibration_error(np.array([0.5, 0.5]), np.array([0, np.nan]))
    with pytest.raises(OptionError, match="at least 1 bin"):
        calibration_error(np.zeros(2), np.zeros(2), bins=0)
    with pytest.raises(OptionError, match='"width" or "mass"'):
        calibration_error(np.zeros(2), np.zeros(2), equal="number")
