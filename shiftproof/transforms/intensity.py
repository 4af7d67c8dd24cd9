"""Changes of intensity. Each takes images (B, C, *space) and parameters (B,) or (B, C); every channel is on its own.

Images are thought of as z-scored: 0 is a mean, not air. Half-precision images are computed in float32 and
come back as they were. All are differentiable by image and parameter.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Operation = Callable[..., Tensor]


def in_float32(operation: Operation) -> Operation:
    """The operation with half-precision images widened before and narrowed after; statistics need the digits."""

    @functools.wraps(operation)
    def widened(image: Tensor, *arguments: Any, **named: Any) -> Tensor:
        if image.dtype in (torch.bfloat16, torch.float16):
            return operation(image.float(), *arguments, **named).to(image.dtype)
        return operation(image, *arguments, **named)

    return widened


def spread(parameter: Tensor, image: Tensor) -> Tensor:
    """(B,) or (B, C) as a tensor that multiplies (B, C, *space)."""
    parameter = parameter.to(image.device, image.dtype)
    return parameter.reshape(*parameter.shape, *[1] * (image.ndim - parameter.ndim))


def space(image: Tensor) -> tuple[int, ...]:
    """The spatial axes of (B, C, *space)."""
    return tuple(range(2, image.ndim))


def lowest(image: Tensor) -> Tensor:
    """What stands for no signal, (B, C, 1...): 0, or the channel's minimum where z-scoring took it below."""
    return image.amin(space(image), keepdim=True).clamp_max(0)


@in_float32
def brightness(image: Tensor, factor: Tensor) -> Tensor:
    """`factor * image`, as in nnU-Net. On z-scored images this acts around the mean."""
    return image * spread(factor, image)


@in_float32
def shift(image: Tensor, amount: Tensor) -> Tensor:
    """`image + amount`; for z-scored images the amount is in standard deviations."""
    return image + spread(amount, image)


@in_float32
def contrast(image: Tensor, factor: Tensor) -> Tensor:
    """Distances from the channel's mean times `factor`, clipped to the range that the channel had."""
    axes, factor = space(image), spread(factor, image)
    stretched = image * factor + image.mean(axes, keepdim=True) * (1 - factor)
    low, high = image.amin(axes, keepdim=True), image.amax(axes, keepdim=True)
    return torch.minimum(torch.maximum(stretched, low), high)  # faster than a clamp to tensors


@in_float32
def gamma(image: Tensor, exponent: Tensor) -> Tensor:
    """The channel mapped to 0 to 1, raised to a power, and given back its mean and standard deviation.

    A constant channel stays as it is.
    """
    axes = space(image)
    low, high = image.amin(axes, keepdim=True), image.amax(axes, keepdim=True)
    unit = (image - low) * (1 / (high - low).clamp_min(_TINY))
    # exp(log) is faster than pow, and with the floor its gradient stays finite at the darkest voxel.
    bent = torch.exp(unit.clamp_min(torch.finfo(unit.dtype).tiny).log() * spread(exponent, image))
    # nnU-Net restores the range and then the moments, which undoes the former: the moments do.
    (mean, std), (bent_mean, bent_std) = _moments(image), _moments(bent)
    gain = std / bent_std.clamp_min(_TINY)
    return bent * gain + (mean - bent_mean * gain)


@in_float32
def inverted_gamma(image: Tensor, exponent: Tensor) -> Tensor:
    """`gamma` of the negative: bends the bright end where `gamma` bends the dark one."""
    return -gamma(-image, exponent)


_TINY = 1e-7


def _moments(image: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel, (B, C, 1...)."""
    axes = space(image)
    mean = image.mean(axes, keepdim=True)
    scatter = torch.linalg.vector_norm(image - mean, dim=axes, keepdim=True)
    return mean, scatter / math.sqrt(image[0, 0].numel())
