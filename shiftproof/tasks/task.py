"""What is predicted. A task knows labels, losses and metrics; it knows nothing of domains or methods."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from torch import Tensor

if TYPE_CHECKING:
    from ..data.samples import Samples

Prediction = Tensor | dict[str, Tensor]
"""What a network gives: one tensor (B, ...) or several by name; their meaning is the task's affair."""

Predict = Callable[["Samples"], Prediction]
"""What evaluation, reports and deployment are given."""


class Task(Protocol):
    """What is predicted.

    Attributes:
        name: "segmentation", ...: what `Needs.tasks` names.
        outputs: Channels of the network's last layer.
        classes: Names of the classes, background first.
        spatial: Fields of `Samples` that move together under a spatial transform.
    """

    name: str
    outputs: int
    classes: list[str]
    spatial: tuple[str, ...]

    def inputs(self, samples: Samples) -> tuple[Tensor, ...]:
        """What the network reads."""
        ...

    def loss(self, prediction: Prediction, samples: Samples) -> Tensor:
        """(B,), one value a sample."""
        ...

    def scores(self, prediction: Prediction) -> Tensor:
        """Logits, classes on axis 1: what `distance` compares and windows are averaged over."""
        ...

    def answer(self, prediction: Prediction) -> Tensor:
        """The prediction as a label: what is written, measured and used as a pseudo-label."""
        ...

    def distance(self, prediction: Prediction, other: Prediction) -> Tensor:
        """(B,), how far two predictions for the same samples lie apart."""
        ...

    def measure(self, prediction: Prediction, samples: Samples) -> dict[str, Tensor]:
        """Fast scores for validation by name, each (B,), larger is better, NaN where undefined."""
        ...
