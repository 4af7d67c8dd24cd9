"""Linear operations along one axis at a time, as matrices: blurring, resampling, splines, polynomials.

An axis of a patch has tens to hundreds of voxels. A full matrix product per axis is then faster, on CPU and GPU,
than a convolution with few taps or a gather, and serves all of these operations, each sample with its own matrix.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def along_axes(image: Tensor, matrices: Sequence[Tensor], *, out: Tensor | None = None) -> Tensor:
    """(B, C, *space) with each spatial axis multiplied by a matrix, (B, C, n_out, n_in) or (B, 1, n_out, n_in).

    `out` is contiguous, of the result's shape, and may be the image if there is more than one axis.
    """
    batch, channels, *space = image.shape
    rows = image.reshape(batch * channels, *space)
    for axis, matrix in enumerate(matrices, start=1):
        # The first axis is contracted and comes out last; after as many turns all are in place again, without
        # copies: the products read transposed operands.
        size, first = matrix.shape[-2:]
        matrix = matrix.expand(batch, channels, size, first).reshape(batch * channels, size, first)
        rest = rows.shape[2:]
        into = out.view(batch * channels, -1, size) if out is not None and axis == len(matrices) else None
        turned = rows.reshape(batch * channels, first, -1).transpose(1, 2)
        rows = torch.bmm(turned, matrix.transpose(1, 2), out=into).view(batch * channels, *rest, size)
    return rows.view(batch, channels, *rows.shape[1:])


Taps = tuple[Tensor, Tensor]
"""What each of n_out voxels is a sum of: indices and weights, both (..., n_out, taps)."""


def matrix(index: Tensor, weight: Tensor, size: int) -> Tensor:
    """(..., n_out, size) whose row `i` has `weight[i, t]` at column `index[i, t]`; equal columns add up."""
    return weight.new_zeros(*weight.shape[:-1], size).scatter_add_(-1, index, weight)


def after(second: Taps, first: Taps) -> Taps:
    """The taps of one operation after another; leading axes are the same."""
    (outer, outer_weight), (inner, inner_weight) = second, first
    count = inner.shape[-1]
    rows = outer.flatten(-2).unsqueeze(-1).expand(*outer.shape[:-2], -1, count)
    index, weight = inner.gather(-2, rows), inner_weight.gather(-2, rows)
    shape = (*outer.shape[:-1], outer.shape[-1] * count)
    return index.view(shape), (weight.view(*outer.shape, count) * outer_weight.unsqueeze(-1)).view(shape)


def gaussian(sigma: Tensor, size: int, *, truncate: float = 4.0) -> Tensor:
    """(*sigma.shape, size, size): blurring by a Gaussian of `sigma` voxels, cut off at `truncate` sigma.

    The edge value continues beyond the border. Sigma 0 is the identity.
    """
    radius = torch.floor(truncate * sigma + 0.5)  # (...)
    reach = int(radius.max())
    offset = torch.arange(-reach, reach + 1, device=sigma.device)
    weight = torch.exp(-0.5 * (offset / sigma.clamp_min(1e-6).unsqueeze(-1)) ** 2)
    weight = weight * (offset.abs() <= radius.unsqueeze(-1))
    weight = weight / weight.sum(-1, keepdim=True)  # (..., taps)
    index = (torch.arange(size, device=sigma.device)[:, None] + offset).clamp(0, size - 1)  # (size, taps)
    shape = (*sigma.shape, size, len(offset))
    return matrix(index.expand(shape), weight.unsqueeze(-2).expand(shape), size)


def nearest(position: Tensor, count: Tensor) -> Taps:
    """The source voxel that contains `position` (..., n_out), voxel `i` covering `i` +- 1/2.

    `count` (...) voxels of the source exist; positions beyond them take the last.
    """
    index = torch.minimum(torch.floor(position + 0.5).clamp_min(0), count.unsqueeze(-1) - 1)
    return index.long().unsqueeze(-1), torch.ones_like(position).unsqueeze(-1)


def linear(position: Tensor, count: Tensor) -> Taps:
    """As `nearest`, with linear interpolation; the edge value continues beyond the border."""
    position = torch.minimum(position.clamp_min(0), count.unsqueeze(-1) - 1)
    low = torch.floor(position)
    weight = position - low
    high = torch.minimum(low + 1, count.unsqueeze(-1) - 1)
    return torch.stack([low, high], -1).long(), torch.stack([1 - weight, weight], -1)


def cubic(position: Tensor, count: Tensor, *, sharpness: float = -0.75) -> Taps:
    """As `nearest`, with Keys' cubic convolution; `sharpness` is his `a`, -0.75 as in PyTorch and OpenCV."""
    low = torch.floor(position)
    fraction = position - low
    index, weight = [], []
    for offset in (-1, 0, 1, 2):
        distance = (fraction - offset).abs()
        inner = ((sharpness + 2) * distance - (sharpness + 3)) * distance**2 + 1
        outer = sharpness * (((distance - 5) * distance + 8) * distance - 4)
        weight.append(torch.where(distance <= 1, inner, outer))
        index.append(torch.minimum((low + offset).clamp_min(0), count.unsqueeze(-1) - 1).long())
    return torch.stack(index, -1), torch.stack(weight, -1)


def spline(points: int, size: int) -> Tensor:
    """(size, points): a uniform cubic B-spline of `points` >= 4 coefficients, evaluated at `size` voxels.

    Rows are non-negative and sum to 1. Coefficients lie `size / (points - 3)` voxels apart, one beyond either end.
    """
    position = 1 + (points - 3) * (torch.arange(size) + 0.5) / size
    low = torch.floor(position)
    t = position - low
    weight = torch.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3], -1)
    return matrix(low.long()[:, None] + torch.arange(-1, 3), weight / 6, points)


def legendre(degree: int, size: int) -> Tensor:
    """(size, degree + 1): Legendre polynomials at the voxels' centres, the axis running from -1 to 1."""
    position = (2 * torch.arange(size) + 1) / size - 1
    values = [torch.ones_like(position), position]
    for n in range(1, degree):
        values.append(((2 * n + 1) * position * values[n] - n * values[n - 1]) / (n + 1))
    return torch.stack(values[: degree + 1], -1)
