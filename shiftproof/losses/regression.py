"""Losses of a number a sample, (B,), from predictions (B, 1) and labels (B,), both in standard deviations."""

from __future__ import annotations

from torch import Tensor

from ..errors import LabelError, OptionError
from .precision import precise


def absolute_error(prediction: Tensor, label: Tensor) -> Tensor:
    """|prediction - label|: aims at the median."""
    return _difference(prediction, label).abs()


def squared_error(prediction: Tensor, label: Tensor) -> Tensor:
    """(prediction - label)^2: aims at the mean, and is led by outliers."""
    return _difference(prediction, label).square()


def huber(prediction: Tensor, label: Tensor, *, delta: float = 1.0) -> Tensor:
    """Half the square up to `delta`, delta (|difference| - delta / 2) beyond.

    Paper: P. J. Huber, "Robust Estimation of a Location Parameter", Annals of Mathematical Statistics 35 (1964),
    https://doi.org/10.1214/aoms/1177703732.

    Args:
        delta: Where the square turns into a line, in standard deviations of the training labels.
    """
    if not delta > 0:
        raise OptionError(f"delta of the Huber loss is above 0, got {delta}")
    distance = _difference(prediction, label).abs()
    near = distance.clamp(max=delta)
    return near * (distance - near / 2)


def _difference(prediction: Tensor, label: Tensor) -> Tensor:
    """(B,)"""
    if prediction.dim() != 2 or prediction.shape[1] != 1 or label.shape != prediction.shape[:1]:
        raise LabelError(
            f"predictions (B, 1) go with numbers (B,), got {tuple(prediction.shape)} and {tuple(label.shape)}"
        )
    return precise(prediction[:, 0]) - precise(label)
