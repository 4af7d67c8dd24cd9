"""Entropies of probabilities, from their logarithms, in nats."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from ..losses.precision import precise


def of_classes(scores: Tensor) -> Tensor:
    """Of the softmax over axis 1; at most log K."""
    log_p = precise(scores).log_softmax(1)
    return -(log_p.exp() * log_p).sum(1)


def of_switches(logits: Tensor) -> Tensor:
    """Of independent sigmoids, summed over axis 1; at most K log 2."""
    z = precise(logits)
    # The sigmoid of -z rather than 1 - p: of a sure answer's two terms both are then exact.
    return -(z.sigmoid() * F.logsigmoid(z) + (-z).sigmoid() * F.logsigmoid(-z)).sum(1)
