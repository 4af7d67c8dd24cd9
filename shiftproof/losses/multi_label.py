"""Losses of classes that do not exclude each other, (B,), from logits (B, K).

The label is (B, K), 0 or 1 or between. `annotated` (B, K) says which classes are known of a sample; the others have no
term, whatever the label holds there. A sample's value is the mean over its annotated classes, 0 where there is none.
A class that is `silent` (B, K) has error 0, whatever the label holds, but counts in that mean (`targets`).
Below, p is the sigmoid, y the label.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

from ..errors import LabelError
from .classification import discounted, weights_of
from .margins import Demands, errors, indicator, of_sigmoid
from .precision import precise


def binary_cross_entropy(
    logits: Tensor,
    label: Tensor,
    *,
    annotated: Tensor | None = None,
    silent: Tensor | None = None,
    positive_weights: Sequence[float] | None = None,
) -> Tensor:
    """- mean over classes of w_c y_c log p_c + (1 - y_c) log (1 - p_c).

    Args:
        positive_weights: One number a class, the weight of its presence; above 1 less is missed.
    """
    return _binary(logits, label, annotated, silent, positive_weights, 0.0)


def focal(
    logits: Tensor,
    label: Tensor,
    *,
    annotated: Tensor | None = None,
    silent: Tensor | None = None,
    gamma: float = 2.0,
    positive_weights: Sequence[float] | None = None,
) -> Tensor:
    """- mean over classes of w_c y_c (1 - p_c)^gamma log p_c + (1 - y_c) p_c^gamma log (1 - p_c).

    Paper: T.-Y. Lin et al., "Focal loss for dense object detection", ICCV 2017, https://arxiv.org/abs/1708.02002.

    Args:
        gamma: How much well-classified classes are discounted; 0 is binary cross-entropy.
        positive_weights: One number a class; alpha / (1 - alpha) in the paper.
    """
    return _binary(logits, label, annotated, silent, positive_weights, gamma)


def large_margin(
    logits: Tensor,
    label: Tensor,
    *,
    annotated: Tensor | None = None,
    silent: Tensor | None = None,
    margin: float = 0.2,
    asymmetric: bool = True,
    rare: Sequence[int] | None = None,
    eps: float = 0.0,
) -> Tensor:
    """- mean over classes of y log q + (1 - y) log (1 - q), q = sigmoid(z - m y); see `margins`.

    Args:
        margin: m; 0.2 to 2 is sensible.
        asymmetric: Whether only the presence of rare classes has a margin; if not, z - m y + m (1 - y) of all.
        rare: Rare classes; None all, since a finding is rarer than its absence.
        eps: Added inside the logarithms.
    """
    return margin_focal(
        logits,
        label,
        annotated=annotated,
        silent=silent,
        margin=margin,
        gamma=0.0,
        asymmetric=asymmetric,
        rare=rare,
        eps=eps,
    )


def rare_focal(
    logits: Tensor,
    label: Tensor,
    *,
    annotated: Tensor | None = None,
    silent: Tensor | None = None,
    gamma: float = 2.0,
    asymmetric: bool = True,
    rare: Sequence[int] | None = None,
    eps: float = 0.0,
) -> Tensor:
    """- mean over classes of f y log p + (1 - y) p^gamma log (1 - p), f = 1 if rare, else (1 - p)^gamma.

    Args:
        gamma: 2 to 6 is sensible.
        asymmetric: Whether the presence of rare classes keeps f = 1; if not, this is `focal`.
        rare: Classes with f = 1; None all.
        eps: Added inside the logarithms and to the probabilities that are raised to gamma.
    """
    return margin_focal(
        logits,
        label,
        annotated=annotated,
        silent=silent,
        margin=0.0,
        gamma=gamma,
        asymmetric=asymmetric,
        rare=rare,
        eps=eps,
    )


def margin_focal(
    logits: Tensor,
    label: Tensor,
    *,
    annotated: Tensor | None = None,
    silent: Tensor | None = None,
    margin: float = 0.2,
    gamma: float = 2.0,
    asymmetric: bool = True,
    rare: Sequence[int] | None = None,
    eps: float = 0.0,
) -> Tensor:
    """`large_margin` and `rare_focal` in one.

    Args:
        margin: As in `large_margin`.
        gamma: As in `rare_focal`.
        asymmetric: Of both.
        rare: Of both.
        eps: Of both.
    """
    z, y = _known(logits, label, annotated, silent)
    demands = Demands(indicator(rare, z), margin, gamma, asymmetric, eps)
    log_q, log_rest, inside, outside = of_sigmoid(z[:, :, None], y[:, :, None], demands)
    present, absent = errors(log_q, inside, eps)[:, :, 0], errors(log_rest, outside, eps)[:, :, 0]
    return _mean(-(y * present + (1 - y) * absent), annotated, silent)


def _binary(
    logits: Tensor,
    label: Tensor,
    annotated: Tensor | None,
    silent: Tensor | None,
    positive_weights: Sequence[float] | None,
    gamma: float,
) -> Tensor:
    z, y = _known(logits, label, annotated, silent)
    log_p, log_q = F.logsigmoid(z), F.logsigmoid(-z)
    present, absent = discounted(log_p, log_p, gamma), discounted(log_q, log_q, gamma)
    if positive_weights is not None:
        present = weights_of(positive_weights, z) * present
    return _mean(-(y * present + (1 - y) * absent), annotated, silent)


def _known(logits: Tensor, label: Tensor, annotated: Tensor | None, silent: Tensor | None) -> tuple[Tensor, Tensor]:
    """Precise logits, and the label with 0 where it says nothing."""
    if label.shape != logits.shape:
        raise LabelError(
            f"logits {tuple(logits.shape)} of classes that do not exclude each other go with labels of the same shape, "
            f"0 or 1, got {tuple(label.shape)}"
        )
    z = precise(logits)
    y = label.to(z.dtype)
    # Nothing may come of what stands there, not even NaN times 0.
    y = y if annotated is None else y.masked_fill(~annotated, 0)
    return z, y if silent is None else y.masked_fill(silent, 0)


def _mean(error: Tensor, annotated: Tensor | None, silent: Tensor | None) -> Tensor:
    """(B, K) to (B,)."""
    error = error if silent is None else error * ~silent
    if annotated is None:
        return error.mean(1)
    return (error * annotated).sum(1) / annotated.sum(1).clamp(min=1)
