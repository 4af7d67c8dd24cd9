"""Losses of a segmentation into structures that may overlap, (B,), from logits (B, K, *space), one a structure.

The label is (B, K, *space), 0 or 1 or between: whether the voxel belongs to the structure. `ignore` (B, *space) takes
voxels out of every sum, `annotated` (B, K) structures; a sample where nothing is left has loss 0 and gradient 0.
`silent` (B, K, *space) marks voxels without a target for a structure that stay in the mean's number (`targets`). Below,
p is the sigmoid, y the label. Background is where no structure is, and has no logit.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import LabelError
from .classification import discounted
from .overlaps import AbsentClass, Denominator, dice_of
from .precision import precise
from .targets import Terms


def binary_cross_entropy(
    logits: Tensor,
    label: Tensor,
    *,
    ignore: Tensor | None = None,
    annotated: Tensor | None = None,
    silent: Tensor | None = None,
    positive_weight: float = 1.0,
) -> Tensor:
    """- mean over voxels and structures of w y log p + (1 - y) log (1 - p).

    Args:
        positive_weight: Weight of voxels inside a structure (w).
    """
    return _mean(structure_terms(logits, label, ignore, annotated, silent), logits, positive_weight, 0.0)


def focal(
    logits: Tensor,
    label: Tensor,
    *,
    ignore: Tensor | None = None,
    annotated: Tensor | None = None,
    silent: Tensor | None = None,
    gamma: float = 2.0,
    positive_weight: float = 1.0,
) -> Tensor:
    """- mean over voxels and structures of w y (1 - p)^gamma log p + (1 - y) p^gamma log (1 - p).

    Paper: T.-Y. Lin et al., "Focal loss for dense object detection", ICCV 2017, https://arxiv.org/abs/1708.02002.

    Args:
        gamma: How much well-classified voxels are discounted; 0 is binary cross-entropy.
        positive_weight: Weight of voxels inside a structure; alpha / (1 - alpha) in the paper.
    """
    return _mean(structure_terms(logits, label, ignore, annotated, silent), logits, positive_weight, gamma)


def dice(
    logits: Tensor,
    label: Tensor,
    *,
    ignore: Tensor | None = None,
    annotated: Tensor | None = None,
    silent: Tensor | None = None,
    denominator: Denominator = "squared",
    absent_class: AbsentClass = "skip",
    batch: bool = False,
) -> Tensor:
    """1 - mean over structures of 2 sum(p y) / (sum(p^2) + sum(y^2) + 1e-7).

    Args:
        denominator: "squared", as above, or "linear", sum(p) + sum(y).
        absent_class: What a structure without a voxel in the label adds: "skip" leaves it out of the mean, "constant"
            adds 1 and no gradient, "smooth" adds 1 to numerator and denominator of every structure.
        batch: Take the sums over all samples and give each the same value.
    """
    return dice_of(structure_terms(logits, label, ignore, annotated, silent), denominator, absent_class, True, batch)


def dice_and_binary_cross_entropy(
    logits: Tensor,
    label: Tensor,
    *,
    ignore: Tensor | None = None,
    annotated: Tensor | None = None,
    silent: Tensor | None = None,
    dice_weight: float = 1.0,
    bce_weight: float = 1.0,
    denominator: Denominator = "squared",
    absent_class: AbsentClass = "skip",
    batch: bool = False,
    positive_weight: float = 1.0,
) -> Tensor:
    """Weighted sum of `dice` and `binary_cross_entropy`, with their options.

    Args:
        dice_weight: Weight of Dice.
        bce_weight: Weight of binary cross-entropy.
        denominator: Of Dice: "squared" or "linear".
        absent_class: Of Dice: "skip", "constant" or "smooth".
        batch: Whether Dice sums over the batch.
        positive_weight: Of binary cross-entropy: weight of voxels inside a structure.
    """
    terms = structure_terms(logits, label, ignore, annotated, silent)
    overlap = dice_of(terms, denominator, absent_class, True, batch)
    return dice_weight * overlap + bce_weight * _mean(terms, logits, positive_weight, 0.0)


def structure_terms(
    logits: Tensor, label: Tensor, ignore: Tensor | None, annotated: Tensor | None, silent: Tensor | None
) -> Terms:
    """As of a segmentation, but with log-sigmoids: no structure takes from another."""
    if label.shape != logits.shape or (annotated is not None and annotated.shape != logits.shape[:2]):
        raise LabelError(
            f"logits {tuple(logits.shape)} go with a label (B, K, *space) and annotated structures (B, K), "
            f"got {tuple(label.shape)} and {None if annotated is None else tuple(annotated.shape)}"
        )
    if silent is not None and silent.shape != logits.shape:
        raise LabelError(
            f"silent voxels of structures that may overlap are (B, K, *space), one mask a structure, here "
            f"{tuple(logits.shape)}, got {tuple(silent.shape)}"
        )
    z = precise(logits.flatten(2))
    counted = None if ignore is None else (~ignore.bool()).flatten(1)[:, None].to(z.dtype)
    classes = None if annotated is None else annotated.to(z.dtype)
    target = label.flatten(2).to(z.dtype)
    target = target if counted is None else target * counted
    target = target if classes is None else target * classes[:, :, None]
    told = None if silent is None else (~silent.bool()).flatten(2).to(z.dtype)
    target = target if told is None else target * told
    return Terms(F.logsigmoid(z), target, counted, classes, told)


def _mean(terms: Terms, logits: Tensor, positive_weight: float, gamma: float) -> Tensor:
    log_p, log_q = terms.log_p, F.logsigmoid(-precise(logits.flatten(2)))
    return mean_error(terms, discounted(log_p, log_p, gamma), discounted(log_q, log_q, gamma), positive_weight)


def mean_error(terms: Terms, present: Tensor, absent: Tensor, positive_weight: float = 1.0) -> Tensor:
    """- mean over voxels and structures of w y present + (1 - y) absent, (B, K, V) to (B,)."""
    # Where a voxel or structure does not count, the target is 0: the second term must be taken out by hand.
    error = positive_weight * terms.target * present + terms.within((1 - terms.target) * absent)
    structures = terms.target.shape[1] if terms.classes is None else terms.classes.sum(1)
    return -error.sum((1, 2)) / torch.clamp(terms.voxels * structures, min=1)
