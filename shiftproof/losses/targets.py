"""Prediction and label brought to common terms, before a loss compares them.

Two ways in which a label says nothing of a voxel:

- *ignored*: the voxel does not exist for the loss; it is in no sum and in no N.
- *silent*: it counts in the N of every mean over voxels (cross-entropy, focal, margin), where its error is 0, and is
  in no sum of an overlap (Dice, Tversky, F-beta). Asymmetric mixup needs it, so that a batch with many ambiguous voxels
  does not shout with the few that are left.

How a loss, and through `Samples.extra["silent"]` a task, is told so:

- softmax (classes exclude each other): `silent` (B, *space) bool beside class indices or soft labels; or soft labels
  (B, K, *space) whose sum over classes is 0 there, which needs no `silent`.
- sigmoid (structures may overlap): `silent` (B, K, *space) bool, for each structure by itself, since 0 means "not
  inside" here. A task is then given floats (B, K, *space) by structure as its label, not shares of parts.
- classification: `extra["silent"]` (B,) bool, of several findings (B, K) bool. They count with error 0 in means over
  the batch, and over findings. A row of zeros is silent for cross-entropy, focal and margins, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from ..errors import LabelError


@dataclass(frozen=True)
class Terms:
    """What a segmentation loss sums over; space is flattened to V voxels.

    Args:
        log_p: (B, K, V) log-probabilities, at least float32; without meaning for a class that has no term.
        target: (B, K, V) label as probabilities; 0 where the voxel or the class does not count.
        counted: (B, 1, V), 1 where the voxel counts, 0 where it is ignored; None: all count.
        classes: (B, K), 1 where the class has a term of its own, 0 where the sample's site does
            not annotate it; None: all have.
        told: (B, 1, V), or (B, K, V) where structures may overlap, 0 where the label is silent; None: nowhere.
    """

    log_p: Tensor
    target: Tensor
    counted: Tensor | None
    classes: Tensor | None
    told: Tensor | None = None

    @property
    def p(self) -> Tensor:
        """(B, K, V) probabilities as overlaps sum them."""
        return self.within(self.log_p.exp())

    def within(self, values: Tensor) -> Tensor:
        """(B, K, V) values, 0 where the voxel or the class does not count or the label is silent."""
        if self.classes is not None:
            values = values * self.classes[:, :, None]
        if self.told is not None:
            values = values * self.told
        return values if self.counted is None else values * self.counted

    @property
    def compared(self) -> Tensor:
        """(B, K), whether an overlap has a voxel to sum over."""
        seen = [part for part in (self.counted, self.told) if part is not None]
        some = reduce(torch.mul, seen).sum(2) > 0 if seen else self.log_p.new_ones(len(self.log_p), 1, dtype=torch.bool)
        if self.classes is not None:
            some = some & (self.classes > 0)
        return some.expand(self.log_p.shape[:2])

    @property
    def voxels(self) -> Tensor:
        """(B,) voxels that count."""
        if self.counted is None:
            return self.log_p.new_full(self.log_p.shape[:1], self.log_p.shape[2])
        return self.counted.sum((1, 2))


def compare(
    logits: Tensor,
    label: Tensor,
    ignore: Tensor | None = None,
    annotated: Tensor | None = None,
    silent: Tensor | None = None,
) -> Terms:
    """The terms of a loss.

    A structure that a site does not annotate hides in what that site calls background. Such a
    sample is therefore compared on fewer classes: the background's probability is the sum over
    background and all unannotated classes (log-sum-exp of their logits), and the unannotated
    classes have no term of their own. Every loss of the result depends on that sum only, so that
    nothing moves probability between the background and a class that nobody looked for.

    Paper: G. Shi et al., "Marginal loss and exclusion loss for partially supervised multi-organ
    segmentation", Medical Image Analysis 70 (2021), https://arxiv.org/abs/2007.03868. The
    exclusion loss is not here.

    Args:
        logits: (B, K, *space), any float type; computed in float32 or better.
        label: (B, *space) class indices, or float (B, K, *space) soft labels; silent where they add up to 0.
        ignore: (B, *space) bool, voxels that the label says nothing of, whatever its value there.
        annotated: (B, K) bool, classes that the sample's site annotates; the background, index 0,
            is taken as one of them.
        silent: (B, *space) bool, as above; whatever the label is there.

    Raises:
        LabelError: If label and logits do not fit, or a voxel that counts has no class.
    """
    soft = label.is_floating_point()
    if label.shape != (logits.shape if soft else logits.shape[:1] + logits.shape[2:]):
        raise LabelError(
            f"logits {tuple(logits.shape)} go with class indices (B, *space) or soft labels (B, K, *space), "
            f"got {tuple(label.shape)} {label.dtype}"
        )
    log_p = logits.flatten(2).to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(1)
    known = None if ignore is None else ~ignore.bool().flatten(1)[:, None]  # (B, 1, V)
    told = None if silent is None else ~silent.bool().flatten(1)[:, None]
    if soft:
        target = label.flatten(2).to(log_p.dtype)
        told = _both(target.sum(1, keepdim=True) > 0, told)
    else:
        target = _one_hot(label.flatten(1)[:, None], log_p, _both(known, told))
    target = target if told is None else target * told

    classes = None
    # The usual case costs a look where looking is free; on other devices it would stall the queue.
    if annotated is not None and not (annotated.device.type == "cpu" and annotated.all()):
        log_p, target, classes = _merged(log_p, target, annotated)
    counted = None if known is None else known.to(log_p.dtype)
    target = target if counted is None else target * counted
    return Terms(log_p, target, counted, classes, None if told is None else told.to(log_p.dtype))


def _both(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    """True where both are; None is true everywhere."""
    if one is None or other is None:
        return other if one is None else one
    return one & other


def _merged(log_p: Tensor, target: Tensor, annotated: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Unannotated classes taken into the background."""
    background = torch.arange(annotated.shape[1], device=annotated.device) == 0
    joined = (~annotated | background)[:, :, None]  # (B, K, 1): what the label calls background
    log_background = log_p.masked_fill(~joined, -torch.inf).logsumexp(1, keepdim=True)
    log_p = torch.cat([log_background, log_p[:, 1:]], 1)
    target = torch.cat([(target * joined).sum(1, keepdim=True), target[:, 1:] * ~joined[:, 1:]], 1)
    return log_p, target, (annotated | background).to(log_p.dtype)


def _one_hot(label: Tensor, log_p: Tensor, known: Tensor | None) -> Tensor:
    """(B, 1, V) class indices as (B, K, V) zeros and ones."""
    index = label.long() if known is None else label.long().masked_fill(~known, 0)
    # On other devices scatter itself asserts the range.
    if index.device.type == "cpu" and index.numel():
        low, high = (int(bound) for bound in index.aminmax())
        classes = log_p.shape[1]
        if low < 0 or high >= classes:
            raise LabelError(
                f"class indices of {classes} classes are 0 to {classes - 1}, got {low} to {high}; "
                "voxels without a class belong into `ignore`"
            )
    return torch.zeros_like(log_p, requires_grad=False).scatter_(1, index, 1)
