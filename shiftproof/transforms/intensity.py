"""Changes of intensity. Each takes images (B, C, *space) and parameters (B,) or (B, C); every channel is on its own.

Images are thought of as z-scored: 0 is a mean, not air. Half-precision images are computed in float32 and
come back as they were. All are differentiable by image and parameter. With `out`, which may be the image itself,
the result is written there, without a gradient: on a CPU, fresh memory costs more than the arithmetic.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

Operation = Callable[..., Tensor]


def in_float32(operation: Operation) -> Operation:
    """The operation with half-precision images widened before and narrowed after; statistics need the digits."""

    @functools.wraps(operation)
    def widened(image: Tensor, *arguments: Any, out: Tensor | None = None, **named: Any) -> Tensor:
        if image.dtype not in (torch.bfloat16, torch.float16):
            return operation(image, *arguments, out=out, **named)
        narrowed = operation(image.float(), *arguments, **named).to(image.dtype)
        return narrowed if out is None else out.copy_(narrowed)

    return widened


def spread(parameter: Tensor, image: Tensor) -> Tensor:
    """(B,) or (B, C) as a tensor that multiplies (B, C, *space)."""
    parameter = parameter.to(image.device, image.dtype, non_blocking=True)
    return parameter.reshape(*parameter.shape, *[1] * (image.ndim - parameter.ndim))


def space(image: Tensor) -> tuple[int, ...]:
    """The spatial axes of (B, C, *space)."""
    return tuple(range(2, image.ndim))


def lowest(image: Tensor) -> Tensor:
    """What stands for no signal, (B, C, 1...): 0, or the channel's minimum where z-scoring took it below."""
    return image.amin(space(image), keepdim=True).clamp_max(0)


@in_float32
def brightness(image: Tensor, factor: Tensor, *, out: Tensor | None = None) -> Tensor:
    """`factor * image`, as in nnU-Net. On z-scored images this acts around the mean."""
    return torch.mul(image, spread(factor, image), out=out)


@in_float32
def shift(image: Tensor, amount: Tensor, *, out: Tensor | None = None) -> Tensor:
    """`image + amount`; for z-scored images the amount is in standard deviations."""
    return torch.add(image, spread(amount, image), out=out)


@in_float32
def contrast(image: Tensor, factor: Tensor, *, out: Tensor | None = None) -> Tensor:
    """Distances from the channel's mean times `factor`, clipped to the range that the channel had."""
    axes, factor = space(image), spread(factor, image)
    low, high = image.amin(axes, keepdim=True), image.amax(axes, keepdim=True)
    rest = image.mean(axes, keepdim=True) * (1 - factor)
    stretched = torch.mul(image, factor, out=out).add_(rest)
    # Two comparisons are faster than a clamp to tensors.
    return torch.minimum(torch.maximum(stretched, low, out=out), high, out=out)


Kept = Literal["moments", "range"]


@in_float32
def gamma(image: Tensor, exponent: Tensor, *, keep: Kept = "moments", out: Tensor | None = None) -> Tensor:
    """The channel mapped to 0 to 1, raised to a power, and given back its mean and standard deviation or its range.

    A constant channel stays as it is.

    Args:
        image: (B, C, *space).
        exponent: (B,) or (B, C).
        keep: What the channel has as before: "moments", mean and standard deviation, or "range", its extremes.
        out: Where to write the result.
    """
    axes = space(image)
    low, high = image.amin(axes, keepdim=True), image.amax(axes, keepdim=True)
    mean = image.mean(axes, keepdim=True)
    centred = torch.sub(image, mean, out=out)
    scatter = torch.linalg.vector_norm(centred, dim=axes, keepdim=True)
    unit = torch.add(centred, mean - low, out=out).mul_(1 / (high - low).clamp_min(_TINY))
    # exp(log) is faster than pow, and with the floor its gradient stays finite at the darkest voxel.
    bent = unit.clamp_min_(torch.finfo(unit.dtype).tiny).log_().mul_(spread(exponent, image)).exp_()
    if keep == "range":
        return torch.mul(bent, high - low, out=out).add_(low)
    # nnU-Net restores the range and then the moments, which undoes the former: the moments do.
    bent = torch.sub(bent, bent.mean(axes, keepdim=True), out=out)
    floor = _TINY * math.sqrt(image[0, 0].numel())
    gain = scatter / torch.linalg.vector_norm(bent, dim=axes, keepdim=True).clamp_min(floor)
    return torch.mul(bent, gain, out=out).add_(mean)


@in_float32
def inverted_gamma(image: Tensor, exponent: Tensor, *, out: Tensor | None = None) -> Tensor:
    """`gamma` of the negative: bends the bright end where `gamma` bends the dark one."""
    return torch.neg(gamma(torch.neg(image, out=out), exponent, out=out), out=out)


_TINY = 1e-7
