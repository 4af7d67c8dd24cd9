"""A layer that is the identity forwards and turns the gradient around backwards."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _Reversal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return features.view_as(features)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return -ctx.strength * gradients[0], None


def reverse_gradient(features: Tensor, strength: float = 1.0) -> Tensor:
    """`features`, unchanged; its gradient is multiplied by `-strength`.

    Source: Y. Ganin et al., "Domain-Adversarial Training of Neural Networks", JMLR 17 (2016), section 5.
    """
    return _Reversal.apply(features, strength)  # type: ignore[no-any-return]
