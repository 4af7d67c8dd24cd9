"""Operations that leave hardly anything of an image: what a policy that learns must learn to leave out.

Conventions as in `intensity.py`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .fields import noise
from .intensity import in_float32, spread


@in_float32
def constant(image: Tensor, value: Tensor, *, out: Tensor | None = None) -> Tensor:
    """The same value at every voxel."""
    return torch.add(torch.zeros_like(image), spread(value, image), out=out)


@in_float32
def static(image: Tensor, seed: Tensor, *, out: Tensor | None = None) -> Tensor:
    """Standard normal noise and no image."""
    field = noise(seed, tuple(image.shape[seed.ndim :]), image.device).to(image.dtype)
    return field if out is None else out.copy_(field)


@in_float32
def scramble(image: Tensor, seed: Tensor, *, out: Tensor | None = None) -> Tensor:
    """The voxels of each channel in random order: its histogram and nothing else; a label keeps its place."""
    order = noise(seed, tuple(image.shape[seed.ndim :]), image.device).flatten(seed.ndim).argsort(-1)
    while order.ndim < 3:
        order = order.unsqueeze(1)
    mixed = image.flatten(2).gather(-1, order.expand(*image.shape[:2], -1)).view_as(image)
    return mixed if out is None else out.copy_(mixed)


@in_float32
def ramp(image: Tensor, axis: Tensor, *, out: Tensor | None = None) -> Tensor:
    """Rising evenly along the spatial axis of this number, with mean 0 and variance 1."""
    total = torch.zeros_like(image)
    for number, size in enumerate(image.shape[2:]):
        slope = torch.linspace(-math.sqrt(3), math.sqrt(3), size, device=image.device, dtype=image.dtype)
        along = slope.view(-1, *[1] * (image.ndim - 3 - number))
        total = total + spread((axis == number).to(image.dtype), image) * along
    return total if out is None else out.copy_(total)
