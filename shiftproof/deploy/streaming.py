"""From scores on the preprocessed grid to labels on the image's own, a slice at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def upsampled(slabs: Iterator[tuple[int, Tensor]], size: Sequence[int], depth: int) -> Iterator[tuple[int, Tensor]]:
    """Scores resampled linearly to another grid over the same box, slice by slice of the last axis.

    Equal to `torch.nn.functional.interpolate(..., mode="trilinear", align_corners=False)` on the whole
    volume, while only two slices are held: a slice of the result lies between two neighbours.

    Args:
        slabs: First slice and scores (K, X, Y, n), without gaps and in order.
        size: New size (x, y, z).
        depth: Slices that the slabs have together, Z.

    Yields:
        Slice and scores (K, x, y).
    """
    below, above, weights = neighbours(depth, size[2])
    held: dict[int, Tensor] = {}
    needed = set(below) | set(above)
    z = 0
    for i, plane in _planes(slabs):
        if i in needed:
            held[i] = _resized(plane, size[:2])
        while z < size[2] and above[z] <= i:
            low, high = held[below[z]], held[above[z]]
            yield z, low if weights[z] == 0 else torch.lerp(low, high, weights[z])
            z += 1
        held = {j: kept for j, kept in held.items() if z < size[2] and j >= below[z]}


def neighbours(depth: int, target: int) -> tuple[list[int], list[int], list[float]]:
    """For each of `target` slices the two of `depth` that it lies between, and the weight of the upper one.

    Voxel centres lie half a voxel inside the box that both grids fill.
    """
    centres = [max((z + 0.5) * depth / target - 0.5, 0.0) for z in range(target)]
    below = [min(int(c), depth - 1) for c in centres]
    above = [min(b + 1, depth - 1) for b in below]
    weights = [c - b if a > b else 0.0 for c, b, a in zip(centres, below, above, strict=True)]
    # Where a slice is hit, its neighbour need not be waited for.
    above = [b if w == 0 else a for b, a, w in zip(below, above, weights, strict=True)]
    return below, above, weights


def _planes(slabs: Iterator[tuple[int, Tensor]]) -> Iterator[tuple[int, Tensor]]:
    for first, slab in slabs:
        for j in range(slab.shape[-1]):
            yield first + j, slab[..., j]


def _resized(plane: Tensor, size: Sequence[int]) -> Tensor:
    if tuple(plane.shape[1:]) == tuple(size):
        return plane.contiguous()
    return F.interpolate(plane[None].contiguous(), size=tuple(size), mode="bilinear", align_corners=False)[0]
