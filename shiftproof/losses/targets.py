"""Prediction and label brought to common terms, before a loss compares them."""

from __future__ import annotations

from dataclasses import dataclass

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
    """

    log_p: Tensor
    target: Tensor
    counted: Tensor | None
    classes: Tensor | None

    @property
    def p(self) -> Tensor:
        """(B, K, V) probabilities, 0 where the voxel or the class does not count."""
        p = self.log_p.exp()
        if self.classes is not None:
            p = p * self.classes[:, :, None]
        return p if self.counted is None else p * self.counted

    @property
    def voxels(self) -> Tensor:
        """(B,) voxels that count."""
        if self.counted is None:
            return self.log_p.new_full(self.log_p.shape[:1], self.log_p.shape[2])
        return self.counted.sum((1, 2))


def compare(logits: Tensor, label: Tensor, ignore: Tensor | None = None, annotated: Tensor | None = None) -> Terms:
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
        label: (B, *space) class indices, or float (B, K, *space) soft labels.
        ignore: (B, *space) bool, voxels that the label says nothing of, whatever its value there.
        annotated: (B, K) bool, classes that the sample's site annotates; the background, index 0,
            is taken as one of them.

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
    target = label.flatten(2).to(log_p.dtype) if soft else _one_hot(label.flatten(1)[:, None], log_p, known)

    classes = None
    # The usual case costs a look where looking is free; on other devices it would stall the queue.
    if annotated is not None and not (annotated.device.type == "cpu" and annotated.all()):
        log_p, target, classes = _merged(log_p, target, annotated)
    counted = None if known is None else known.to(log_p.dtype)
    return Terms(log_p, target if counted is None else target * counted, counted, classes)


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
