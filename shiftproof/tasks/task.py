"""What is predicted. A task knows labels, losses and metrics; it knows nothing of domains or methods."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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

    Whatever takes a prediction takes its `scores`, too: means of scores over windows, views or members of an ensemble
    are predictions.

    Attributes:
        name: "segmentation", "classification" or "regression": what `Needs.tasks` names.
        outputs: Channels of the network's last layer.
        classes: Names of the classes, of a segmentation the background first; a regression has none.
        structures: What `measure` and the rows of results name: the structures of a segmentation, the classes of a
            classification, the column of a regression.
        spatial: Fields of `Samples` that move together under a spatial transform.
        default_loss: Name of the loss that is taken where none is chosen.
    """

    name: str
    outputs: int
    classes: list[str]
    structures: list[str]
    spatial: tuple[str, ...]
    default_loss: str

    def inputs(self, samples: Samples) -> tuple[Tensor, ...]:
        """What the network reads."""
        ...

    def loss(self, prediction: Prediction, samples: Samples) -> Tensor:
        """(B,), one value a sample."""
        ...

    def scores(self, prediction: Prediction) -> Tensor:
        """Logits, classes on axis 1: what windows, views and ensembles are averaged over.

        Of classes in order (B, K) log-probabilities, of a regression (B, 1) standardised values.
        """
        ...

    def probabilities(self, prediction: Prediction) -> Tensor:
        """(B, K, ...), of each class; they add up to 1 unless classes may occur together.

        Raises:
            MethodError: If the task has none.
        """
        ...

    def answer(self, prediction: Prediction) -> Tensor:
        """The prediction as a label: what is written, measured and used as a pseudo-label.

        Class indices (B, ...); bool (B, K, ...) of classes that may occur together; (B,) numbers in their unit.
        """
        ...

    def distance(self, prediction: Prediction, other: Prediction) -> Tensor:
        """(B,), how far two predictions for the same samples lie apart."""
        ...

    def entropy(self, prediction: Prediction) -> Tensor:
        """Of the probabilities in nats, for each voxel (B, *space) or sample (B,); differentiable.

        Raises:
            MethodError: If the task has no probabilities.
        """
        ...

    def measure(self, prediction: Prediction, samples: Samples) -> dict[str, Tensor]:
        """Fast scores for validation by structure, each (B,), larger is better, NaN where undefined."""
        ...

    def blank(self, space: Sequence[int]) -> tuple[Prediction, Samples]:
        """A prediction of zeros and one sample with a label, in this task's shapes: what options are tried on."""
        ...
