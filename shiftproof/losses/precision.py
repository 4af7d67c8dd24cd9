"""The precision that losses are computed in."""

from __future__ import annotations

import torch
from torch import Tensor


def precise(values: Tensor) -> Tensor:
    """`values` in float32 or better: logarithms of bfloat16 probabilities have two digits."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
