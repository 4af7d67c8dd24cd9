"""Losses of one class a sample, (B,), from logits (B, K).

The label is class indices (B,), or float (B, K) probabilities of the classes; a row of zeros says nothing, and has
loss 0. Below, p is the softmax, y the label.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import LabelError, OptionError
from .margins import Demands, errors, indicator, of_softmax
from .precision import precise


def cross_entropy(
    logits: Tensor, label: Tensor, *, label_smoothing: float = 0.0, class_weights: Sequence[float] | None = None
) -> Tensor:
    """- sum over classes of w_c y_c log p_c.

    Args:
        label_smoothing: Share s of the label that is spread over all classes, y (1 - s) + s / K: at 0 the true class
            is all, towards 1 nothing is told.
        class_weights: One number a class. They scale a sample's loss; the batch's mean is not divided by their sum.
    """
    if not 0 <= label_smoothing < 1:
        raise OptionError(f"label_smoothing is a share from 0 to below 1, got {label_smoothing}")
    log_p = precise(logits).log_softmax(1)
    target = as_probabilities(label, log_p)
    if label_smoothing:  # what says nothing stays silent
        target = target * (1 - label_smoothing) + label_smoothing / log_p.shape[1] * target.sum(1, keepdim=True)
    return expected(-log_p, target, class_weights)


def focal(logits: Tensor, label: Tensor, *, gamma: float = 2.0, class_weights: Sequence[float] | None = None) -> Tensor:
    """- sum over classes of w_c y_c (1 - p_c)^gamma log p_c.

    Paper: T.-Y. Lin et al., "Focal loss for dense object detection", ICCV 2017, https://arxiv.org/abs/1708.02002; here
    over a softmax.

    Args:
        gamma: How much well-classified samples are discounted; 0 is cross-entropy.
        class_weights: One number a class; alpha in the paper.
    """
    log_p = precise(logits).log_softmax(1)
    return expected(-discounted(log_p, log_p, gamma), as_probabilities(label, log_p), class_weights)


def large_margin(
    logits: Tensor,
    label: Tensor,
    *,
    margin: float = 0.2,
    asymmetric: bool = True,
    rare: Sequence[int] | None = None,
    eps: float = 0.0,
) -> Tensor:
    """- sum over classes of y_c log q_c, q = softmax(z - m a y), a = r, or 1 if symmetric; see `margins`.

    Args:
        margin: m; 0.2 to 2 is sensible.
        asymmetric: Whether only rare classes have a margin.
        rare: Classes with r = 1; must be given if asymmetric, since no class is a background.
        eps: Added inside the logarithm.
    """
    return margin_focal(logits, label, margin=margin, gamma=0.0, asymmetric=asymmetric, rare=rare, eps=eps)


def rare_focal(
    logits: Tensor,
    label: Tensor,
    *,
    gamma: float = 2.0,
    asymmetric: bool = True,
    rare: Sequence[int] | None = None,
    eps: float = 0.0,
) -> Tensor:
    """- sum over classes of f_c y_c log p_c, f = (1 - p)^gamma, but 1 for rare classes; see `margins`.

    Args:
        gamma: 2 to 6 is sensible.
        asymmetric: Whether rare classes keep f = 1; if not, this is `focal`.
        rare: Classes with f = 1; must be given if asymmetric.
        eps: Added inside the logarithm and to 1 - p.
    """
    return margin_focal(logits, label, margin=0.0, gamma=gamma, asymmetric=asymmetric, rare=rare, eps=eps)


def margin_focal(
    logits: Tensor,
    label: Tensor,
    *,
    margin: float = 0.2,
    gamma: float = 2.0,
    asymmetric: bool = True,
    rare: Sequence[int] | None = None,
    eps: float = 0.0,
) -> Tensor:
    """- sum over classes of f_c y_c log q_c: `large_margin` and `rare_focal` in one.

    Args:
        margin: As in `large_margin`.
        gamma: As in `rare_focal`.
        asymmetric: Of both.
        rare: Of both; must be given if asymmetric.
        eps: Of both.

    Raises:
        OptionError: If asymmetric and no class is named.
    """
    if asymmetric and rare is None:
        raise OptionError(
            'an asymmetric loss of a classification asks which classes are rare: add rare = ["NAME"] to loss_options, '
            "or asymmetric = false"
        )
    log_p = precise(logits).log_softmax(1)
    target = as_probabilities(label, log_p)
    demands = Demands(indicator(rare, log_p), margin, gamma, asymmetric, eps)
    log_q, factor = of_softmax(log_p[:, :, None], target[:, :, None], demands)
    return expected(-errors(log_q, factor, eps)[:, :, 0], target)


def expected(values: Tensor, target: Tensor, class_weights: Sequence[float] | None = None) -> Tensor:
    """Sum over classes of weight, label and value, (B, K) to (B,)."""
    products = target * values
    if class_weights is not None:
        products = products * weights_of(class_weights, products)
    return products.sum(1)


def discounted(log_p: Tensor, values: Tensor, gamma: float) -> Tensor:
    """`values` times (1 - p)^gamma.

    Raises:
        OptionError: If gamma is negative.
    """
    if gamma < 0:
        raise OptionError(f"gamma of the focal loss is at least 0 (which is cross-entropy), got {gamma}")
    if gamma == 0:
        return values
    # 1 - p without cancellation; off zero, where a power below 1 has no derivative.
    return (-torch.expm1(log_p)).clamp(min=1e-8) ** gamma * values


def weights_of(given: Sequence[float], like: Tensor) -> Tensor:
    """(K,) from an option.

    Raises:
        OptionError: If they are not one number a class.
    """
    if isinstance(given, str) or len(given) != like.shape[1]:
        raise OptionError(f"class weights are {like.shape[1]} numbers, one a class, got {given!r}")
    return torch.as_tensor(given, dtype=like.dtype, device=like.device)


def as_probabilities(label: Tensor, log_p: Tensor) -> Tensor:
    """Class indices (B,) or probabilities (B, K) as (B, K) of the type of `log_p`.

    Raises:
        LabelError: If they do not fit.
    """
    if label.is_floating_point() and label.shape == log_p.shape:
        return label.to(log_p.dtype)
    if label.is_floating_point() or label.shape != log_p.shape[:1]:
        raise LabelError(
            f"{log_p.shape[1]} classes of {len(log_p)} samples go with class indices (B,) or probabilities (B, K), "
            f"got {tuple(label.shape)} {label.dtype}"
        )
    # On other devices scatter itself asserts the range, and a look would stall the queue.
    if label.device.type == "cpu" and label.numel():
        low, high = (int(bound) for bound in label.aminmax())
        if low < 0 or high >= log_p.shape[1]:
            raise LabelError(
                f"class indices of {log_p.shape[1]} classes are 0 to {log_p.shape[1] - 1}, got {low} to {high}"
            )
    return torch.zeros_like(log_p, requires_grad=False).scatter_(1, label.long()[:, None], 1)
