"""What a validation batch is asked after a step that was only tried: the outer loss of a meta-gradient."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from .. import losses
from ..data.samples import Samples
from ..errors import OptionError
from ..losses.precision import precise
from ..names import choose
from ..tasks.classification import SERVES, Classification
from ..tasks.multi_label import MultiLabelSegmentation
from ..tasks.segmentation import over_levels
from ..tasks.task import Prediction, Task

OUTER = ("task", "ce", "dice", "ce+dice", "ramp")

SMOOTHING = 1e-5
"""Voxels above and below of Dice: a structure that is absent from label and prediction scores 1."""


class Joint(Protocol):
    """What is needed of a step: means over the samples of all processes."""

    def mean(self, x: Tensor) -> Tensor: ...


class OuterLoss:
    """A scalar of a prediction and its labels.

    "task": the loss that is trained. The others read the finest level of deep supervision alone. "ce": cross-entropy,
    binary where structures overlap or several findings are asked for, CORN for classes in order. "dice": 1 - soft Dice
    of the structures without the background, its sums over all samples of the batch (the negated form of the source has
    the same gradient). "ce+dice": both. "ramp": from cross-entropy at the start of the run to Dice at its end,
    (1 - t) ce + t dice.

    Args:
        name: One of `OUTER`; None takes "ce+dice" of a segmentation and "task" of whole images.
        task: What is predicted.

    Raises:
        OptionError: If the task has no such loss.
    """

    def __init__(self, name: str | None, task: Task) -> None:
        segments = task.name == "segmentation"
        self.name = choose(name or ("ce+dice" if segments else "task"), OUTER, "outer loss")
        if self.name not in ("task", "ce") and not segments:
            raise OptionError(
                f'the outer loss "{name}" has a Dice of structures, which {task.name} has not; use "task"'
            )
        if self.name == "ce" and task.name == "regression":
            raise OptionError('the outer loss "ce" is of classes, which regression has not; use "task"')
        self.task = task
        serves, named = "segmentation", "ce"
        if isinstance(task, MultiLabelSegmentation):
            serves, named = "multi-label segmentation", "bce"
        elif isinstance(task, Classification):
            serves, named = SERVES[task.kind]
        self.criterion = losses.get(named, serves)

    def __call__(self, prediction: Prediction, samples: Samples, step: Joint, progress: float, number: int) -> Tensor:
        """A scalar, of this process's samples where it is a mean of them, of the joint batch where it is a Dice.

        Args:
            prediction, samples: What is compared.
            step: For sums over processes.
            progress: Of the run, from 0 to 1.
            number: Samples in the joint batch.
        """
        if self.name == "task":
            return self.task.loss(prediction, samples).mean()
        ramp = self.name == "ramp"
        parts = []
        if self.name != "dice":
            parts.append((1 - progress if ramp else 1.0) * self.cross_entropy(prediction, samples))
        if self.name != "ce":
            parts.append((progress if ramp else 1.0) * self.dice(prediction, samples, step, number))
        return torch.stack(parts).sum()

    def cross_entropy(self, prediction: Prediction, samples: Samples) -> Tensor:
        annotated = samples.extra.get("annotated")
        if isinstance(self.task, Classification):
            known = {"annotated": annotated} if self.task.kind == "multi-label" else {}
            assert samples.label is not None  # samples of training subjects
            return self.criterion(prediction, samples.label, **known).mean()

        def at(logits: Tensor, label: Tensor, ignore: Tensor | None, *_: Tensor | None) -> Tensor:
            return self.criterion(logits, self._inside(label), ignore=ignore, annotated=self._structures(annotated))

        return over_levels(self.task.scores(prediction), samples, at).mean()

    def dice(self, prediction: Prediction, samples: Samples, step: Joint, number: int) -> Tensor:
        """1 - mean over structures of (2 sum(p y) + s) / (sum(p) + sum(y) + s), the sums over the joint batch."""
        annotated, overlapping = samples.extra.get("annotated"), isinstance(self.task, MultiLabelSegmentation)

        def at(logits: Tensor, label: Tensor, ignore: Tensor | None, *_: Tensor | None) -> Tensor:
            p = self.task.probabilities(logits).flatten(2)
            y = precise(self._inside(label) if overlapping else one_hot(label, logits.shape[1])).flatten(2).to(p.dtype)
            counted = torch.ones_like(p[:, :1]) if ignore is None else (~ignore.flatten(1)[:, None]).to(p.dtype)
            known = self._structures(annotated)
            counted = counted.expand_as(p) if known is None else counted * known[:, :, None]
            sums = torch.stack([2 * (p * y * counted).sum(2), ((p + y) * counted).sum(2)])  # (2, B, K)
            both, sizes = number * step.mean(sums.mean(1)[:, 0 if overlapping else 1 :])
            return (1 - ((both + SMOOTHING) / (sizes + SMOOTHING)).mean()).expand(len(p))

        return over_levels(self.task.scores(prediction), samples, at).mean()

    def _inside(self, label: Tensor) -> Tensor:
        return self.task.inside(label) if isinstance(self.task, MultiLabelSegmentation) else label

    def _structures(self, annotated: Tensor | None) -> Tensor | None:
        """(B, K): of overlapping structures the background has no channel."""
        overlapping = isinstance(self.task, MultiLabelSegmentation)
        return annotated[:, 1:] if annotated is not None and overlapping else annotated


def one_hot(label: Tensor, classes: int) -> Tensor:
    """Class indices (B, *space) as (B, K, *space); soft labels as they are."""
    if label.is_floating_point():
        return label
    return F.one_hot(label, classes).movedim(-1, 1)
