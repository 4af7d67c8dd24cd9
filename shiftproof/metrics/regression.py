"""How well a number is predicted: figures of a set of subjects, from NumPy arrays.

Both arrays are (N,), finite and in the number's unit; anything else is a `LabelError`. A figure that is not defined is
NaN: of no subjects, and what divides by the spread of values that do not differ. The *calibration line* is the least
squares line of the truth by the prediction, truth = intercept + slope * prediction: a slope of 1 and an intercept of 0
are right, a slope below 1 says that predictions are spread too far, above 1 that they keep too near the mean.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import LabelError

Array = NDArray[Any]

LARGER_IS_BETTER: dict[str, bool | None] = {
    "mae": False,
    "rmse": False,
    "bias": None,
    "r2": True,
    "pearson": True,
    "calibration slope": None,
    "calibration intercept": None,
}
"""The figures of `summary`, without their unit; None: neither, best at 0, the slope at 1."""

IN_UNIT = ("mae", "rmse", "bias", "calibration intercept")


def summary(prediction: Array, truth: Array, unit: str = "") -> dict[str, float]:
    """Every figure of a set of subjects, such as "mae years".

    Args:
        prediction: (N,).
        truth: (N,).
        unit: Of both; it is part of the names of the figures that have it.

    Raises:
        LabelError: If the arrays do not fit or a value is not finite.
    """
    slope, intercept = calibration_line(prediction, truth)
    values = {
        "mae": mae(prediction, truth),
        "rmse": rmse(prediction, truth),
        "bias": bias(prediction, truth),
        "r2": r2(prediction, truth),
        "pearson": pearson(prediction, truth),
        "calibration slope": slope,
        "calibration intercept": intercept,
    }
    return {f"{name} {unit}".strip() if name in IN_UNIT else name: value for name, value in values.items()}


def mae(prediction: Array, truth: Array) -> float:
    """Mean absolute error."""
    p, y = _pair(prediction, truth)
    return float(np.abs(p - y).mean()) if len(p) else math.nan


def rmse(prediction: Array, truth: Array) -> float:
    """Root of the mean squared error."""
    p, y = _pair(prediction, truth)
    return math.sqrt(np.square(p - y).mean()) if len(p) else math.nan


def bias(prediction: Array, truth: Array) -> float:
    """Mean of prediction minus truth."""
    p, y = _pair(prediction, truth)
    return float((p - y).mean()) if len(p) else math.nan


def r2(prediction: Array, truth: Array) -> float:
    """1 - squared error / squared spread of the truth: 0 for its mean as a constant prediction, negative below that."""
    p, y = _pair(prediction, truth)
    if not _spread(y):
        return math.nan
    return float(1 - np.square(p - y).sum() / np.square(y - y.mean()).sum())


def pearson(prediction: Array, truth: Array) -> float:
    """Linear correlation; blind to bias and scale."""
    p, y = _pair(prediction, truth)
    if not _spread(p) or not _spread(y):
        return math.nan
    a, b = p - p.mean(), y - y.mean()
    return float(np.clip(a @ b / math.sqrt((a @ a) * (b @ b)), -1, 1))


def calibration_line(prediction: Array, truth: Array) -> tuple[float, float]:
    """Slope and intercept, as above; NaN where the predictions do not differ."""
    p, y = _pair(prediction, truth)
    if not _spread(p):
        return math.nan, math.nan
    a = p - p.mean()
    slope = float(a @ (y - y.mean()) / (a @ a))
    return slope, float(y.mean() - slope * p.mean())


def _pair(prediction: Array, truth: Array) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    p, y = np.asarray(prediction, np.float64), np.asarray(truth, np.float64)
    if p.ndim != 1 or p.shape != y.shape:
        raise LabelError(f"regression is scored on predictions (N,) and truth (N,), got {p.shape} and {y.shape}")
    wrong = int((~np.isfinite(p) | ~np.isfinite(y)).sum())
    if wrong:
        raise LabelError(f"{wrong} of {len(p)} pairs of prediction and truth are not finite numbers; leave them out")
    return p, y


def _spread(values: Array) -> bool:
    """Whether there are two different values."""
    return len(values) > 0 and bool(values.min() < values.max())
