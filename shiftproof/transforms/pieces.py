"""Fields read at moved positions on a CPU, one sample after the other, by what is fast there.

A volume that is only scaled is one matrix product an axis. Anything else is read in pieces that stay in the cache,
and volumes as two pictures interpolated in 2D, for which PyTorch has vector code, and then between them. Sums are
carried out in place, since on a CPU fresh memory costs more than the arithmetic.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from . import separable

PIECE = 2**16
"""Voxels read at a time."""

SIDE = 192
"""Up to this many voxels along an axis, a matrix product an axis is faster than interpolation by voxels."""


def read_(
    results: Sequence[Tensor],
    sources: Sequence[Tensor],
    terms: Sequence[Tensor],
    ends: Sequence[Sequence[Sequence[float]]],
    displacement: Tensor | None,
    padding: str,
    outside: Tensor,
) -> None:
    """One sample of `resample.read_`, of D = 2 or 3 dimensions.

    Args:
        results: (C, *shape) each, written to.
        sources: (C, *source) each.
        terms: As of `resample.Grid`, (D, n) each, evenly spaced.
        ends: The first and the last of each, (D, 2, D).
        displacement: (D, *shape) or None.
        padding: "border" or "zeros".
        outside: (*shape), False; written to.
    """
    axes, sizes = range(len(terms)), sources[0].shape[1:]
    low = [sum(min(first[d], last[d]) for first, last in ends) for d in axes]
    high = [sum(max(first[d], last[d]) for first, last in ends) for d in axes]
    scaled = all(ends[j][0][d] == ends[j][1][d] for j in axes for d in axes if j != d)
    if scaled and len(terms) == 3 and displacement is None and padding == "border":
        near = [_near(a, b, n) for a, b, n in zip(low, high, sizes, strict=True)]
        if max(*outside.shape, *[s.stop - s.start for s in near]) <= SIDE:
            _scale_(results, sources, terms, near, outside)
            return
    # The corners tell of an affine map; their sums may be rounded otherwise, which is of no matter.
    inside = displacement is None and all(a >= 0 and b < n for a, b, n in zip(low, high, sizes, strict=True))
    _read_in_pieces_(results, sources, terms, displacement, padding, outside, inside)


def _near(low: float, high: float, size: int) -> slice:
    """The voxels along an axis that positions from `low` to `high` are interpolated between, and one more."""
    first, last = (min(max(math.floor(end), 0), size - 1) for end in (low - 1, high + 1))
    return slice(first, last + 1)


@functools.cache
def below(size: int, kind: torch.dtype) -> float:
    """The largest number below `size`."""
    wide = np.float64 if kind == torch.float64 else np.float32
    return float(np.nextafter(wide(size), wide(0)))


def _scale_(
    results: Sequence[Tensor],
    sources: Sequence[Tensor],
    terms: Sequence[Tensor],
    near: Sequence[slice],
    outside: Tensor,
) -> None:
    # Narrow kinds are faster.
    index, missed = torch.zeros((), dtype=_index_kind(sources[0].shape[1:])), torch.zeros((), dtype=torch.uint8)
    matrices = []
    for axis, (size, part) in enumerate(zip(sources[0].shape[1:], near, strict=True)):
        position = terms[axis][axis] + (terms[0][axis, 0] if axis else 0)
        nearest, count = position.floor(), part.stop - part.start
        known = nearest.clamp(0, size - 1)
        index = index.unsqueeze(-1) * size + known.to(index.dtype)
        missed = missed.unsqueeze(-1) | (nearest != known).to(torch.uint8)
        taps = separable.linear(position - (part.start + 0.5), torch.tensor(count))
        matrices.append(separable.matrix(*taps, count)[None, None])
    outside.view(torch.uint8).copy_(missed)
    for source, result in zip(sources, results, strict=True):
        if not source.is_floating_point():
            for channel, into in zip(source, result, strict=True):
                torch.index_select(channel.flatten(), 0, index.flatten(), out=into.view(-1))
            continue
        plain = source.dtype == result.dtype and not (torch.is_grad_enabled() and source.requires_grad)
        into = result.unsqueeze(0) if plain else None
        moved = separable.along_axes(source[(slice(None), *near)].unsqueeze(0), matrices, out=into)
        if not plain:
            result.copy_(moved[0])


def _read_in_pieces_(
    results: Sequence[Tensor],
    sources: Sequence[Tensor],
    terms: Sequence[Tensor],
    displacement: Tensor | None,
    padding: str,
    outside: Tensor,
    inside: bool,
) -> None:
    sizes, shape, d = tuple(sources[0].shape[1:]), tuple(outside.shape), len(terms)
    base = terms[0]
    if d == 3:
        base = base.unsqueeze(-1) + terms[1].unsqueeze(-2)  # (3, X, Y)
    last = terms[-1].view(d, *[1] * (d - 1), -1)
    pictures = [_pictures(s, padding) if s.is_floating_point() else s for s in sources]
    kept = torch.is_grad_enabled() and any(s.requires_grad for s in sources)
    cube = len(set(sizes)) == 1
    together = [(slice(0, d), sizes[0])] if cube else [(slice(axis, axis + 1), n) for axis, n in enumerate(sizes)]
    step = max(1, PIECE // math.prod(shape[1:]))
    room = base.new_empty(2 * d + 1, min(step, shape[0]), *shape[1:])
    whole = torch.empty_like(room[:d], dtype=_index_kind(sizes))
    for start in range(0, shape[0], step):
        rows = slice(start, min(start + step, shape[0]))
        if kept:  # a gradient needs what was interpolated with
            room = torch.empty_like(room)
        piece = room[:, : rows.stop - rows.start]
        position, known = piece[:d], piece[d : 2 * d]
        torch.add(base[:, rows].unsqueeze(-1), last, out=position)
        if displacement is not None:
            position.add_(displacement[:, rows])
        for some, size in together:
            torch.clamp(position[some], 0, below(size, base.dtype), out=known[some])
        padded = position + 1 if padding == "zeros" else known
        if not inside:
            outside[rows] = _missed(position, known)
        lattice, between = _lattice(padded, [n + 2 for n in sizes] if padding == "zeros" else sizes, piece)
        index = _index(whole[:, : rows.stop - rows.start].copy_(known), sizes)  # positive: cut is floor
        for source, result in zip(pictures, results, strict=True):
            for channel in range(len(source)):
                into = result[channel, rows]
                if source.is_floating_point():
                    _interpolate_(into, source[channel], lattice, between, kept)
                    continue
                torch.index_select(source[channel].flatten(), 0, index, out=into.view(-1))
                if padding == "zeros":
                    into.masked_fill_(outside[rows], 0)


def _pictures(field: Tensor, padding: str) -> Tensor:
    """(C, 1, X, Y) of a picture; of a volume (C, 2, (X - 1) * Y, Z): its slabs under each other, and those after them.

    A view, nothing is copied but for the padding.
    """
    if padding == "zeros":
        field = F.pad(field, (1, 1) * (field.ndim - 1))
    if field.ndim == 3:
        return field.unsqueeze(1)
    if field.shape[1] == 1:
        field = field.repeat_interleave(2, 1)
    channels, x, y, z = field.shape
    return field.contiguous().as_strided((channels, 2, (x - 1) * y, z), (x * y * z, y * z, z, 1))


def _lattice(position: Tensor, sizes: Sequence[int], room: Tensor) -> tuple[Tensor, Tensor | None]:
    """Where to read `_pictures`, (1, voxels, n, 2), and in 3D how far between them, (*shape).

    Rows are counted through all slabs: in float32, to a thousandth of a voxel in 128^3.

    Args:
        position: (D, *shape).
        sizes: Of the volume.
        room: (2 * D + 1, *shape); all are written over but places D to 2 * D.
    """
    planes, minus, between = room[:2], position.new_full((), -1.0), None
    row, height = position[-2], sizes[-2]
    if len(sizes) == 3:
        between, slab, slabs = room[2], room[6], max(sizes[0] - 1, 1)
        end = below(sizes[0] - 1, position.dtype) if sizes[0] > 1 else 0.0
        torch.sub(position[0], 0.5, out=between).clamp_(0, end)
        torch.floor(between, out=slab)
        between.sub_(slab)
        row = torch.clamp(row, 0.5, height - 0.5, out=planes[1]).add_(slab, alpha=height)  # kept within its slab
        height = height * slabs
    torch.add(minus, position[-1], alpha=2 / sizes[-1], out=planes[0])
    torch.add(minus, row, alpha=2 / height, out=planes[1])
    # Of the lattice, the last axis is the slow one in memory: grid_sample has vector code for that order.
    return planes.flatten(1, -2).permute(1, 2, 0).unsqueeze(0), between


def _interpolate_(into: Tensor, channel: Tensor, lattice: Tensor, between: Tensor | None, kept: bool) -> None:
    values = F.grid_sample(channel.unsqueeze(0), lattice, padding_mode="border", align_corners=False)
    if between is None:
        into.copy_(values[0, 0])
        return
    here, following = values.view(2, *between.shape)
    if kept or into.dtype != values.dtype:
        into.copy_(torch.lerp(here, following, between))
    else:
        torch.lerp(here, following, between, out=into)


def _missed(position: Tensor, known: Tensor) -> Tensor:
    """0 where a position lies in a voxel. `position` is written over."""
    missed, *others = position.sub_(known)
    missed.mul_(missed)
    for other in others:
        missed.addcmul_(other, other)
    return missed


def _index_kind(sizes: Sequence[int]) -> torch.dtype:
    return torch.int32 if math.prod(sizes) < 2**31 else torch.int64


def _index(whole: Tensor, sizes: Sequence[int]) -> Tensor:
    """Flat index of voxels (D, *shape), which are written over."""
    total, *others = whole
    for one, size in zip(others, sizes[1:], strict=True):
        total = torch.add(one, total, alpha=size, out=one)
    return total.flatten()
