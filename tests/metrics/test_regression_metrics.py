"""Figures of regression against scikit-learn, SciPy and statsmodels."""

from __future__ import annotations

import math

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats
from sklearn import metrics as reference

from shiftproof.errors import LabelError
from shiftproof.metrics import regression as ours
from shiftproof.metrics.regression import summary


def ages(seed=0, number=40):
    random = np.random.default_rng(seed)
    truth = random.uniform(20, 80, number)
    return 10 + 0.7 * truth + random.normal(0, 5, number), truth


@pytest.mark.parametrize("seed", range(3))
def test_a_summary_agrees_with_other_libraries(seed):
    prediction, truth = ages(seed)
    line = sm.OLS(truth, sm.add_constant(prediction)).fit()

    found = summary(prediction, truth, "years")

    expected = {
        "mae years": reference.mean_absolute_error(truth, prediction),
        "rmse years": reference.root_mean_squared_error(truth, prediction),
        "bias years": sum(p - t for p, t in zip(prediction, truth, strict=True)) / len(truth),
        "r2": reference.r2_score(truth, prediction),
        "pearson": stats.pearsonr(prediction, truth).statistic,
        "calibration slope": line.params[1],
        "calibration intercept years": line.params[0],
    }
    assert found == pytest.approx(expected)
    assert list(found) == list(expected)


def test_a_number_without_unit_has_names_without():
    assert set(summary(*ages())) == set(ours.LARGER_IS_BETTER)


def test_predictions_that_keep_near_the_mean_have_a_slope_above_1():
    truth = np.linspace(20, 80, 30)
    found = summary(50 + 0.5 * (truth - 50), truth)
    assert found["calibration slope"] == pytest.approx(2)
    assert found["calibration intercept"] == pytest.approx(-50)
    assert found["pearson"] == pytest.approx(1)


def test_perfect_predictions_are_perfect():
    _, truth = ages()
    values = list(summary(truth, truth).values())
    assert values == pytest.approx([0, 0, 0, 1, 1, 1, 0])


def test_what_divides_by_no_spread_is_undefined():
    prediction, truth = ages()
    constant = np.full(40, 5.0)
    flat = summary(constant, truth)
    assert math.isnan(flat["pearson"])
    assert math.isnan(flat["calibration slope"])
    assert math.isnan(flat["calibration intercept"])
    assert flat["r2"] < 0
    alike = summary(prediction, constant)
    assert math.isnan(alike["r2"])
    assert math.isnan(alike["pearson"])
    assert alike["calibration slope"] == 0
    alone = summary(prediction[:1], truth[:1])
    assert alone["mae"] == pytest.approx(abs(prediction[0] - truth[0]))
    assert math.isnan(alone["r2"])


def test_no_subject_leaves_everything_undefined():
    assert all(math.isnan(v) for v in summary(np.zeros(0), np.zeros(0), "mm").values())


def test_what_cannot_be_scored_is_refused():
    with pytest.raises(LabelError, match=r"got \(3,\) and \(2,\)"):
        summary(np.zeros(3), np.zeros(2))
    with pytest.raises(LabelError, match=r"got \(3, 1\)"):
        summary(np.zeros((3, 1)), np.zeros(3))
    with pytest.raises(LabelError, match="2 of 3 pairs"):
        summary(np.array([1, np.nan, 2]), np.array([1, 2, np.inf]))
