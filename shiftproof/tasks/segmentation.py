"""Segmentation: a class for every voxel."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .. import losses
from ..data.samples import Samples
from ..errors import LabelError
from ..losses.precision import precise
from .entropies import of_classes
from .task import Prediction


class Segmentation:
    """Multi-class segmentation in 2D or 3D.

    A prediction is the logits (B, K, *space), or with deep supervision a dict of "scores" at full resolution and
    "scores 1", "scores 2", ... at coarser ones; level i weighs `2**-i`, and the weights add up to 1.

    Args:
        classes: Names, background first.
        loss: Name of a loss in `shiftproof.losses`; None takes "dice+ce".
        options: Its options.
    """

    name = "segmentation"
    spatial: tuple[str, ...] = ("image", "label", "ignore")
    default_loss = "dice+ce"

    def __init__(
        self, classes: Sequence[str], *, loss: str | None = None, options: Mapping[str, Any] | None = None
    ) -> None:
        if len(classes) < 2:
            raise LabelError(f"segmentation needs background and at least one structure, got {list(classes)}")
        self.classes = list(classes)
        self.structures = self.classes[1:]
        self.outputs = len(self.classes)
        self.criterion = losses.get(loss or self.default_loss, "segmentation", **(options or {}))

    def inputs(self, samples: Samples) -> tuple[Tensor, ...]:
        return (samples.image,)

    def loss(self, prediction: Prediction, samples: Samples) -> Tensor:
        annotated = samples.extra.get("annotated")

        def at(logits: Tensor, label: Tensor, ignore: Tensor | None) -> Tensor:
            return self.criterion(logits, label, ignore=ignore, annotated=annotated)

        return over_levels(prediction, samples, at)

    def scores(self, prediction: Prediction) -> Tensor:
        return finest(prediction)

    def probabilities(self, prediction: Prediction) -> Tensor:
        return precise(self.scores(prediction)).softmax(1)

    def answer(self, prediction: Prediction) -> Tensor:
        return self.scores(prediction).argmax(1)

    def distance(self, prediction: Prediction, other: Prediction) -> Tensor:
        """Mean squared difference of the probabilities, over classes and space."""
        difference = self.scores(prediction).softmax(1) - self.scores(other).softmax(1)
        return difference.square().flatten(1).mean(1)

    def entropy(self, prediction: Prediction) -> Tensor:
        return of_classes(self.scores(prediction))

    def measure(self, prediction: Prediction, samples: Samples) -> dict[str, Tensor]:
        """Dice of each structure, (B,); NaN where it is absent from label and answer, or not annotated."""
        label = known(samples)
        answer = self.answer(prediction)
        counted = torch.ones_like(label, dtype=torch.bool)
        if "ignore" in samples.extra:
            counted = ~samples.extra["ignore"]
        found: dict[str, Tensor] = {}
        for k, name in enumerate(self.structures, start=1):
            found[name] = overlap((answer == k) & counted, (label == k) & counted)
            if "annotated" in samples.extra:
                found[name] = found[name].masked_fill(~samples.extra["annotated"][:, k], torch.nan)
        return found

    def blank(self, space: Sequence[int]) -> tuple[Prediction, Samples]:
        image, label = torch.zeros(1, 1, *space), torch.zeros(1, *space, dtype=torch.long)
        return torch.zeros(1, self.outputs, *space), Samples(image, label)


def finest(prediction: Prediction) -> Tensor:
    """The scores at full resolution."""
    return prediction["scores"] if isinstance(prediction, dict) else prediction


def known(samples: Samples) -> Tensor:
    """The label.

    Raises:
        LabelError: If there is none.
    """
    if samples.label is None:
        raise LabelError("the loss or score of unlabelled samples was asked for; only source samples have labels")
    return samples.label


def over_levels(
    prediction: Prediction, samples: Samples, at: Callable[[Tensor, Tensor, Tensor | None], Tensor]
) -> Tensor:
    """`at(logits, label, ignore)`, (B,), over the levels of deep supervision; level i weighs `2**-i` of their sum."""
    whole = known(samples)
    levels = list(prediction.values()) if isinstance(prediction, dict) else [prediction]
    total, weights = torch.zeros((), device=samples.image.device), 0.0
    for i, logits in enumerate(levels):
        label, ignore = shrunk(whole, samples.extra.get("ignore"), logits.shape[2:])
        total, weights = total + 2.0**-i * at(logits, label, ignore), weights + 2.0**-i
    return total / weights


def overlap(answer: Tensor, label: Tensor) -> Tensor:
    """Dice of two structures (B, *space) bool, (B,); NaN where both are empty."""
    both, either = (answer & label).flatten(1).sum(1), answer.flatten(1).sum(1) + label.flatten(1).sum(1)
    return torch.where(either > 0, 2 * both / either.clamp(min=1), torch.nan)


def shrunk(label: Tensor, ignore: Tensor | None, space: Sequence[int]) -> tuple[Tensor, Tensor | None]:
    """Label and ignored voxels on a coarser grid: class indices by the nearest voxel, soft labels by averaging."""
    soft = label.is_floating_point()
    if label.shape[2 if soft else 1 :] == tuple(space):
        return label, ignore
    size = tuple(space)
    if soft:
        label = F.interpolate(label, size, mode="area")
    else:
        label = F.interpolate(label[:, None].double(), size, mode="nearest-exact")[:, 0].long()
    if ignore is not None:
        ignore = F.interpolate(ignore[:, None].float(), size, mode="nearest-exact")[:, 0].bool()
    return label, ignore
