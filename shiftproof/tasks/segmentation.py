"""Segmentation: a class for every voxel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .. import losses
from ..data.samples import Samples
from ..errors import LabelError
from .task import Prediction


class Segmentation:
    """Multi-class segmentation in 2D or 3D.

    A prediction is the logits (B, K, *space), or with deep supervision a dict of "scores" at full resolution and
    "scores 1", "scores 2", ... at coarser ones; level i weighs `2**-i`, and the weights add up to 1.

    Args:
        classes: Names, background first.
        loss: Name of a loss in `shiftproof.losses`.
        options: Its options.
    """

    name = "segmentation"
    spatial: tuple[str, ...] = ("image", "label", "ignore")

    def __init__(
        self, classes: Sequence[str], *, loss: str = "dice+ce", options: Mapping[str, Any] | None = None
    ) -> None:
        if len(classes) < 2:
            raise LabelError(f"segmentation needs background and at least one structure, got {list(classes)}")
        self.classes = list(classes)
        self.outputs = len(self.classes)
        self.criterion = losses.get(loss, **(options or {}))

    def inputs(self, samples: Samples) -> tuple[Tensor, ...]:
        return (samples.image,)

    def loss(self, prediction: Prediction, samples: Samples) -> Tensor:
        if samples.label is None:
            raise LabelError("the loss of unlabelled samples was asked for; only source samples have labels")
        levels = list(prediction.values()) if isinstance(prediction, dict) else [prediction]
        total, weights = torch.zeros((), device=samples.image.device), 0.0
        for i, logits in enumerate(levels):
            label, ignore = shrunk(samples.label, samples.extra.get("ignore"), logits.shape[2:])
            value = self.criterion(logits, label, ignore=ignore, annotated=samples.extra.get("annotated"))
            total, weights = total + 2.0**-i * value, weights + 2.0**-i
        return total / weights

    def scores(self, prediction: Prediction) -> Tensor:
        return prediction["scores"] if isinstance(prediction, dict) else prediction

    def answer(self, prediction: Prediction) -> Tensor:
        return self.scores(prediction).argmax(1)

    def distance(self, prediction: Prediction, other: Prediction) -> Tensor:
        """Mean squared difference of the probabilities, over classes and space."""
        difference = self.scores(prediction).softmax(1) - self.scores(other).softmax(1)
        return difference.square().flatten(1).mean(1)

    def measure(self, prediction: Prediction, samples: Samples) -> dict[str, Tensor]:
        """Dice of each structure, (B,); NaN where it is absent from label and answer, or not annotated."""
        assert samples.label is not None
        answer, label = self.answer(prediction), samples.label
        counted = torch.ones_like(label, dtype=torch.bool)
        if "ignore" in samples.extra:
            counted = ~samples.extra["ignore"]
        found: dict[str, Tensor] = {}
        for k, name in enumerate(self.classes[1:], start=1):
            a, b = (answer == k) & counted, (label == k) & counted
            both, either = (a & b).flatten(1).sum(1), a.flatten(1).sum(1) + b.flatten(1).sum(1)
            dice = torch.where(either > 0, 2 * both / either.clamp(min=1), torch.nan)
            if "annotated" in samples.extra:
                dice = dice.masked_fill(~samples.extra["annotated"][:, k], torch.nan)
            found[name] = dice
        return found


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
