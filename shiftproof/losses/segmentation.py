"""Losses of a segmentation, (B,): one value a sample, from its own voxels.

All read logits (B, K, *space) and a label, class indices (B, *space) or soft labels (B, K, *space).
`ignore` (B, *space) takes voxels out of every sum. `annotated` (B, K) says which classes the sample's
site annotates; the others are never taken as background (`targets.compare`). `silent` (B, *space)
marks voxels without a target that stay in N (`targets`). A sample without a voxel that counts has
loss 0 and gradient 0. Below, p is the softmax, y the label and N the number of
voxels of the sample that count.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from ..errors import OptionError
from .overlaps import AbsentClass, Denominator, dice_of, one_minus_overlap
from .targets import Terms, compare

ClassWeights = Sequence[float] | Literal["batch"] | None


def cross_entropy(
    logits: Tensor,
    label: Tensor,
    *,
    ignore: Tensor | None = None,
    annotated: Tensor | None = None,
    silent: Tensor | None = None,
    class_weights: ClassWeights = None,
    clip: float = 0.0,
) -> Tensor:
    """(1/N) sum over voxels and classes of -w_c y_c log p_c.

    Divided by the number of voxels, not by the sum of their weights as in `torch`'s weighted mean,
    which gives another balance with Dice.

    Args:
        class_weights: One number a class; or "batch": w_c = 1 - n_c / N with the voxels of class c
            and all voxels in the batch (of samples that annotate c), as SIFA, PnP-AdaNet and MS-Net.
        clip: Smallest p in the logarithm; those papers use 0.005. Above 0, voxels whose true class
            has less have no gradient: the worst errors are left to Dice. Hence off by default.
    """
    return _cross_entropy(compare(logits, label, ignore, annotated, silent), class_weights, clip)


def focal(
    logits: Tensor,
    label: Tensor,
    *,
    ignore: Tensor | None = None,
    annotated: Tensor | None = None,
    silent: Tensor | None = None,
    gamma: float = 2.0,
    class_weights: ClassWeights = None,
) -> Tensor:
    """(1/N) sum over voxels and classes of -w_c y_c (1 - p_c)^gamma log p_c.

    Paper: T.-Y. Lin et al., "Focal loss for dense object detection", ICCV 2017,
    https://arxiv.org/abs/1708.02002; here over a softmax.

    Args:
        gamma: How much well-classified voxels are discounted; 0 is cross-entropy.
        class_weights: As in `cross_entropy`; alpha in the paper.
    """
    if gamma < 0:
        raise OptionError(f"gamma of the focal loss is at least 0 (which is cross-entropy), got {gamma}")
    terms = compare(logits, label, ignore, annotated, silent)
    # 1 - p without cancellation; off zero, where a power below 1 has no derivative.
    rest = (-torch.expm1(terms.log_p)).clamp(min=1e-8)
    return mean_error(terms, rest**gamma * terms.log_p, class_weights)


def dice(
    logits: Tensor,
    label: Tensor,
    *,
    ignore: Tensor | None = None,
    annotated: Tensor | None = None,
    silent: Tensor | None = None,
    denominator: Denominator = "squared",
    absent_class: AbsentClass = "skip",
    background: bool = True,
    batch: bool = False,
) -> Tensor:
    """1 - mean over classes of 2 sum(p y) / (sum(p^2) + sum(y^2) + 1e-7).

    Paper: F. Milletari et al., "V-Net", 3DV 2016, https://arxiv.org/abs/1606.04797. For hard labels
    y^2 is y. The "negated" form of some papers, - mean(...), has the same gradient.

    Args:
        denominator: "squared", as above, has its minimum at p = y for soft labels too, and a bounded
            gradient where a class fills few voxels; hence the default. "linear" is sum(p) + sum(y),
            as in nnU-Net; it drives p towards 0 or 1, whatever a soft label says.
        absent_class: A class without a voxel in the label is left out of the mean with "skip":
            a perfect sample has loss 0 whatever it contains, so that values of different samples
            and domains can be compared, as group weights do. With "constant", the equation of
            SIFA, PnP-AdaNet and MS-Net, it adds 1 to the mean's sum and no gradient. "smooth" adds
            1 to numerator and denominator of every class, and a gradient that pushes its p to 0.
        background: Whether the background, class 0, is one of the classes of the mean.
        batch: Take the sums over all samples and give each the same value, as those papers do.
    """
    terms = compare(logits, label, ignore, annotated, silent)
    return dice_of(terms, denominator, absent_class, background, batch)


def dice_and_cross_entropy(
    logits: Tensor,
    label: Tensor,
    *,
    ignore: Tensor | None = None,
    annotated: Tensor | None = None,
    silent: Tensor | None = None,
    dice_weight: float = 1.0,
    ce_weight: float = 1.0,
    denominator: Denominator = "squared",
    absent_class: AbsentClass = "skip",
    background: bool = True,
    batch: bool = False,
    class_weights: ClassWeights = None,
    clip: float = 0.0,
) -> Tensor:
    """Weighted sum of `dice` and `cross_entropy`, with their options.

    Args:
        dice_weight: Weight of Dice.
        ce_weight: Weight of cross-entropy.
        denominator: Of Dice: "squared" or "linear".
        absent_class: Of Dice: "skip", "constant" or "smooth".
        background: Whether Dice includes the background.
        batch: Whether Dice sums over the batch.
        class_weights: Of cross-entropy: numbers, or "batch".
        clip: Of cross-entropy: smallest p in the logarithm.
    """
    terms = compare(logits, label, ignore, annotated, silent)
    overlap = dice_of(terms, denominator, absent_class, background, batch)
    return dice_weight * overlap + ce_weight * _cross_entropy(terms, class_weights, clip)


def tversky(
    logits: Tensor,
    label: Tensor,
    *,
    ignore: Tensor | None = None,
    annotated: Tensor | None = None,
    silent: Tensor | None = None,
    false_positives: float = 0.3,
    false_negatives: float = 0.7,
    absent_class: AbsentClass = "skip",
    background: bool = True,
    batch: bool = False,
) -> Tensor:
    """1 - mean over classes of t / (t + a sum(p (1 - y)) + b sum((1 - p) y)), t = sum(p y).

    Paper: S. S. M. Salehi et al., "Tversky loss function for image segmentation using 3D fully
    convolutional deep networks", MLMI 2017, https://arxiv.org/abs/1706.05721.

    Args:
        false_positives: a (alpha in the paper). With a = b = 0.5 this is `dice`, linear.
        false_negatives: b (beta in the paper); the larger, the less is missed.
        absent_class: As in `dice`.
        background: As in `dice`.
        batch: As in `dice`.
    """
    if false_positives < 0 or false_negatives < 0 or false_positives + false_negatives == 0:
        raise OptionError(
            "the Tversky loss weighs false positives and false negatives with numbers from 0 on, "
            f"not both 0, got {false_positives} and {false_negatives}"
        )
    terms = compare(logits, label, ignore, annotated, silent)
    p, y = terms.p, terms.target
    both = (p * y).sum(2)
    # Twice numerator and denominator: the scale of Dice, so that EPSILON and SMOOTHING mean the same.
    size = 2 * (both + false_positives * (p.sum(2) - both) + false_negatives * (y.sum(2) - both))
    return one_minus_overlap(terms, 2 * both, size, absent_class, background, batch)


def _cross_entropy(terms: Terms, class_weights: ClassWeights, clip: float) -> Tensor:
    if not 0 <= clip < 1:
        raise OptionError(f"clip of cross-entropy is a probability below 1, got {clip}")
    log_p = terms.log_p.clamp(min=math.log(clip)) if clip else terms.log_p
    return mean_error(terms, log_p, class_weights)


def mean_error(terms: Terms, value: Tensor, class_weights: ClassWeights = None) -> Tensor:
    """- sum of w y value / N, (B, K, V) to (B,)."""
    products = terms.target * value
    if class_weights is not None:
        products = products * _weights(terms, class_weights)[:, None]
    return -products.sum((1, 2)) / terms.voxels.clamp(min=1)


def _weights(terms: Terms, given: Sequence[float] | str) -> Tensor:
    """(K,)"""
    y = terms.target
    if given == "batch":
        seen = y.new_ones(y.shape[:2]) if terms.classes is None else terms.classes
        return 1 - y.detach().sum((0, 2)) / (terms.voxels[:, None] * seen).sum(0).clamp(min=1)
    if isinstance(given, str) or len(given) != y.shape[1]:
        raise OptionError(f"class_weights are {y.shape[1]} numbers, one a class, or 'batch', got {given!r}")
    return torch.as_tensor(given, dtype=y.dtype, device=y.device)
