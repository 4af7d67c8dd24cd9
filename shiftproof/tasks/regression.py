"""Regression: a number for a whole image."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .. import losses
from ..data.samples import Samples
from ..errors import LabelError, MethodError
from ..losses.precision import precise
from .classification import single
from .segmentation import known
from .task import Prediction


class Regression:
    """A number for an image in 2D or 3D, such as an age.

    The network predicts (B, 1) standardised: (number - mean) / sd, with mean and sd of the training subjects, so that
    learning rates and losses do not depend on the unit. Labels and answers are in the unit.

    Args:
        column: Of the table; names the number.
        unit: Of the number, for tables; empty for a pure number.
        mean: Of the training subjects.
        sd: Of the training subjects.
        loss: "l1" (None), "mse" or "huber", in standard deviations.
        options: Its options.

    Raises:
        LabelError: If the standard deviation is not above 0.
    """

    name = "regression"
    spatial: tuple[str, ...] = ("image",)
    default_loss = "l1"
    outputs = 1

    def __init__(
        self,
        column: str,
        *,
        unit: str = "",
        mean: float = 0.0,
        sd: float = 1.0,
        loss: str | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        if not (math.isfinite(mean) and math.isfinite(sd) and sd > 0):
            raise LabelError(
                f'regression of "{column}" needs training subjects whose values differ, '
                f"got mean {mean:g} and standard deviation {sd:g}"
            )
        self.column = column
        self.unit = unit
        self.mean = float(mean)
        self.sd = float(sd)
        self.classes: list[str] = []
        self.structures = [column]
        self.criterion = losses.get(loss or self.default_loss, "regression", **(options or {}))

    def inputs(self, samples: Samples) -> tuple[Tensor, ...]:
        return (samples.image,)

    def loss(self, prediction: Prediction, samples: Samples) -> Tensor:
        label = known(samples)
        # On other devices a look would stall the queue; the trainer's check of the gradient is left.
        if label.device.type == "cpu" and not bool(torch.isfinite(label).all()):
            raise LabelError(f'"{self.column}" of a training sample is not a number; leave such subjects out')
        return self.criterion(single(prediction, 1), (precise(label) - self.mean) / self.sd)

    def scores(self, prediction: Prediction) -> Tensor:
        return single(prediction, 1)

    def probabilities(self, prediction: Prediction) -> Tensor:
        raise MethodError(
            f'regression of "{self.column}" has no probabilities; what needs them works with segmentation '
            "and classification"
        )

    def answer(self, prediction: Prediction) -> Tensor:
        return precise(single(prediction, 1)[:, 0]) * self.sd + self.mean

    def distance(self, prediction: Prediction, other: Prediction) -> Tensor:
        """Squared difference in standard deviations."""
        return (precise(single(prediction, 1)) - precise(single(other, 1)))[:, 0].square()

    def entropy(self, prediction: Prediction) -> Tensor:
        return self.probabilities(prediction)

    def measure(self, prediction: Prediction, samples: Samples) -> dict[str, Tensor]:
        """Minus the absolute error in the unit, (B,); NaN where the label is."""
        return {self.column: -(self.answer(prediction) - known(samples)).abs()}

    def blank(self, space: Sequence[int]) -> tuple[Prediction, Samples]:
        return torch.zeros(1, 1), Samples(torch.zeros(1, 1, *space), torch.full((1,), self.mean))
