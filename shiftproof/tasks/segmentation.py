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
from ..losses.rare import with_indices
from .entropies import of_classes
from .task import Prediction


class Segmentation:
    """Multi-class segmentation in 2D or 3D.

    A prediction is the logits (B, K, *space), or with deep supervision a dict of "scores" at full resolution and
    "scores 1", "scores 2", ... at coarser ones, of which the loss is a weighted mean (`level_weights`). A network of
    valid convolutions gives less than it reads: then the loss is that of the middle of the label.

    Args:
        classes: Names, background first.
        loss: Name of a loss in `shiftproof.losses`; None takes "dice+ce".
        options: Its options; `rare` by names of classes.
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
        chosen = with_indices(options, self.classes)
        self.criterion = losses.get(loss or self.default_loss, "segmentation", **chosen)

    def inputs(self, samples: Samples) -> tuple[Tensor, ...]:
        return (samples.image,)

    def loss(self, prediction: Prediction, samples: Samples) -> Tensor:
        annotated = samples.extra.get("annotated")

        def at(logits: Tensor, label: Tensor, ignore: Tensor | None, silent: Tensor | None) -> Tensor:
            return self.criterion(logits, label, ignore=ignore, annotated=annotated, silent=silent)

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


At = Callable[[Tensor, Tensor, Tensor | None, Tensor | None], Tensor]
"""The loss (B,) of logits, label, ignored and silent voxels on one grid."""


def over_levels(prediction: Prediction, samples: Samples, at: At) -> Tensor:
    """`at`, (B,), over the levels of deep supervision, weighed by `level_weights`.

    Where the finest level is smaller than the label, as of valid convolutions, the label's middle is compared.
    """
    levels = list(prediction.values()) if isinstance(prediction, dict) else [prediction]
    space = levels[0].shape[2:]
    label, extra = central(known(samples), space), samples.extra
    ignore, silent = (central(extra[name], space) if name in extra else None for name in ("ignore", "silent"))
    total = torch.zeros((), device=samples.image.device)
    for logits, weight in zip(levels, level_weights(len(levels)), strict=True):
        if weight:
            total = total + weight * at(logits, *shrunk(label, ignore, silent, logits.shape[2:]))
    return total


def level_weights(levels: int) -> list[float]:
    """nnU-Net's weights of deep supervision, finest first: halved from level to level, the coarsest 0, sum 1.

    Deviation: of two levels the second keeps its half; otherwise there would be no deep supervision.
    """
    halves = [2.0**-i for i in range(levels)]
    if levels > 2:
        halves[-1] = 0.0
    return [weight / sum(halves) for weight in halves]


def overlap(answer: Tensor, label: Tensor) -> Tensor:
    """Dice of two structures (B, *space) bool, (B,); NaN where both are empty."""
    both, either = (answer & label).flatten(1).sum(1), answer.flatten(1).sum(1) + label.flatten(1).sum(1)
    return torch.where(either > 0, 2 * both / either.clamp(min=1), torch.nan)


def central(voxels: Tensor, space: Sequence[int]) -> Tensor:
    """The middle of (B, ..., *space); an axis that is not larger stays, of an odd rest the upper voxel goes."""
    first = voxels.dim() - len(space)
    for axis, size in enumerate(space, start=first):
        if voxels.shape[axis] > size:
            voxels = voxels.narrow(axis, (voxels.shape[axis] - size) // 2, size)
    return voxels


def shrunk(
    label: Tensor, ignore: Tensor | None, silent: Tensor | None, space: Sequence[int]
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Label, ignored and silent voxels on a coarser grid.

    Class indices with what goes with them by the nearest voxel; soft labels by averaging the voxels that are not
    silent, so that a coarse voxel is silent if all in it are.
    """
    size, soft = tuple(space), label.is_floating_point()
    if label.shape[2 if soft else 1 :] == size:
        return label, ignore, silent
    if ignore is not None:
        ignore = _nearest(ignore, size).bool()
    if not soft:
        return _nearest(label, size).long(), ignore, None if silent is None else _nearest(silent, size).bool()
    by_class = silent is not None and silent.dim() == label.dim()
    told = torch.ones_like(label) if by_class else (label.sum(1, keepdim=True) > 0).to(label.dtype)
    if silent is not None:
        told = told * ~(silent if by_class else silent[:, None])
    share = F.interpolate(told, size, mode="area")
    label = F.interpolate(label * told, size, mode="area") / share.clamp(min=1e-6)
    if silent is not None:
        silent = share == 0 if by_class else share[:, 0] == 0
    return label, ignore, silent


def _nearest(voxels: Tensor, size: tuple[int, ...]) -> Tensor:
    """(B, *space) or (B, K, *space) at the nearest voxels, float64."""
    bare = voxels.dim() == len(size) + 1
    found = F.interpolate(voxels[:, None].double() if bare else voxels.double(), size, mode="nearest-exact")
    return found[:, 0] if bare else found
