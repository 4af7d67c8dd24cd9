"""Losses of classes that do not exclude each other, (B,), from logits (B, K).

The label is (B, K), 0 or 1 or between. `annotated` (B, K) says which classes are known of a sample; the others have no
term, whatever the label holds there. A sample's value is the mean over its annotated classes, 0 where there is none.
Below, p is the sigmoid, y the label.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

from ..errors import LabelError
from .classification import discounted, weights_of
from .precision import precise


def binary_cross_entropy(
    logits: Tensor, label: Tensor, *, annotated: Tensor | None = None, positive_weights: Sequence[float] | None = None
) -> Tensor:
    """- mean over classes of w_c y_c log p_c + (1 - y_c) log (1 - p_c).

    Args:
        positive_weights: One number a class, the weight of its presence; above 1 less is missed.
    """
    return _mean(logits, label, annotated, positive_weights, 0.0)


def focal(
    logits: Tensor,
    label: Tensor,
    *,
    annotated: Tensor | None = None,
    gamma: float = 2.0,
    positive_weights: Sequence[float] | None = None,
) -> Tensor:
    """- mean over classes of w_c y_c (1 - p_c)^gamma log p_c + (1 - y_c) p_c^gamma log (1 - p_c).

    Paper: T.-Y. Lin et al., "Focal loss for dense object detection", ICCV 2017, https://arxiv.org/abs/1708.02002.

    Args:
        gamma: How much well-classified classes are discounted; 0 is binary cross-entropy.
        positive_weights: One number a class; alpha / (1 - alpha) in the paper.
    """
    return _mean(logits, label, annotated, positive_weights, gamma)


def _mean(
    logits: Tensor, label: Tensor, annotated: Tensor | None, positive_weights: Sequence[float] | None, gamma: float
) -> Tensor:
    if label.shape != logits.shape:
        raise LabelError(
            f"logits {tuple(logits.shape)} of classes that do not exclude each other go with labels of the same shape, "
            f"0 or 1, got {tuple(label.shape)}"
        )
    z = precise(logits)
    y = label.to(z.dtype)
    if annotated is not None:
        y = y.masked_fill(~annotated, 0)  # nothing may come of what stands there, not even NaN times 0
    log_p, log_q = F.logsigmoid(z), F.logsigmoid(-z)
    present, absent = discounted(log_p, log_p, gamma), discounted(log_q, log_q, gamma)
    if positive_weights is not None:
        present = weights_of(positive_weights, z) * present
    error = -(y * present + (1 - y) * absent)
    if annotated is None:
        return error.mean(1)
    return (error * annotated).sum(1) / annotated.sum(1).clamp(min=1)
