"""One interpolation for everything that moves: grids of source positions, and fields read at them.

Positions are in voxels of the source, counted from its border: voxel `i` covers `i` to `i + 1`. Matrices are
(B, D, D + 1) and take a voxel's offset from the centre of the output to an offset from a centre in the source.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Padding = Literal["border", "zeros"]

CHUNK = 2**16
"""Voxels read at a time on a CPU in 3D, so that what is held for them stays in the cache."""


@dataclass
class Grid:
    """Source positions of output voxels, as sums that are carried out where they are needed.

    Args:
        terms: For each output axis what its voxels add to the position, (D, B, n).
        displacement: (D, B, *shape) added to the sums, or None.
    """

    terms: list[Tensor]
    displacement: Tensor | None

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(term.shape[-1] for term in self.terms)

    def positions(self, rows: slice) -> Tensor:
        """(D, B, rows, *shape[1:]); rows are places on the first output axis."""
        first, *others = self.terms
        total = first[:, :, rows]
        for term in others:
            total = total.unsqueeze(-1) + term.view(*term.shape[:2], *[1] * (total.ndim - 2), -1)
        return total if self.displacement is None else total + self.displacement[:, :, rows]


def grid(matrix: Tensor, shape: Sequence[int], centre: Sequence[float], displacement: Tensor | None = None) -> Grid:
    """Positions `centre + matrix (offset, 1) + displacement`.

    Args:
        matrix: (B, D, D + 1).
        shape: Of the output, D numbers.
        centre: Position in the source of the output's centre.
        displacement: (B, D, *shape) in source voxels, or None.
    """
    *columns, shift = matrix.permute(2, 1, 0).unsqueeze(-1).unbind(0)  # each (D, B, 1)
    terms = [c * (torch.arange(n).to(c) - (n - 1) / 2) for c, n in zip(columns, shape, strict=True)]
    terms[0] = terms[0] + (shift + shift.new_tensor(centre).view(-1, 1, 1))
    return Grid(terms, None if displacement is None else displacement.transpose(0, 1))


def read_(
    results: Sequence[Tensor], places: Sequence[int], fields: Sequence[Tensor], at: Grid, padding: Padding
) -> Tensor:
    """Writes fields of one geometry, all read at the same positions, to some places of batches.

    Args:
        results: (N, C, *shape), written to.
        places: B samples of the results.
        fields: (B, C, *source). Floating ones are interpolated linearly, others take the nearest voxel.
        at: Where.
        padding: Beyond the border, the edge's values or zeros (linear interpolation fades into the zeros
            within a voxel's width).

    Returns:
        Which positions lie in no voxel of the source, (B, *shape).
    """
    first, shape = fields[0], at.shape
    sizes = tuple(first.shape[2:])
    kind = at.terms[0].dtype  # positions and weights are not for half precision
    sources = [f.to(kind) if f.is_floating_point() else f for f in fields]
    step = shape[0]
    # On a CPU, PyTorch samples 2D grids in vector code, but 3D grids voxel by voxel.
    in_slabs = first.device.type == "cpu" and len(sizes) == 3
    if in_slabs:
        sources = [_slabs(s, padding) if s.is_floating_point() else s for s in sources]
        step = max(1, CHUNK // (len(first) * math.prod(shape[1:])))

    outside = first.new_empty((len(first), *shape), dtype=torch.bool)
    for start in range(0, shape[0], step):
        rows = slice(start, start + step)
        positions = at.positions(rows)
        index, outside[:, rows] = _voxels(positions, sizes)
        linear = _in_slabs(positions, sizes, padding) if in_slabs else _at_once(positions, sizes, padding)
        for source, result in zip(sources, results, strict=True):
            for channel in range(source.shape[1]):
                if source.is_floating_point():
                    values = linear(source[:, channel])
                else:
                    values = source[:, channel].flatten().index_select(0, index).view(positions.shape[1:])
                    if padding == "zeros":
                        values = values.masked_fill_(outside[:, rows], 0)
                for place, value in zip(places, values, strict=True):  # slices: faster than an index
                    result[place, channel, rows] = value
    return outside


def _voxels(positions: Tensor, sizes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Flat index into the batch of the nearest voxel, and which positions lie in none, (B, rows, *shape[1:])."""
    voxels, samples = math.prod(sizes), positions.shape[1]
    # The index is summed in floating numbers, which is faster than in integers, as far as their digits reach.
    index = torch.zeros_like(positions[0], dtype=positions.dtype if voxels < 2**24 else torch.float64)
    missed = torch.zeros_like(positions[0])
    for axis, (position, size) in enumerate(zip(positions.detach(), sizes, strict=True), start=1):
        whole = position.floor()
        inside = whole.clamp(0, size - 1)
        index.add_(inside, alpha=math.prod(sizes[axis:]))
        missed.add_(whole.sub_(inside).abs_())
    # Only 0 stays 0 as a byte; a comparison would take several times as long.
    beyond = missed.clamp_max_(1).to(torch.uint8).view(torch.bool)
    kind = torch.int32 if samples * voxels < 2**31 else torch.int64  # the narrow one is faster
    index = index.to(kind).view(samples, -1)
    return index.add_(torch.arange(samples).to(index)[:, None] * voxels).flatten(), beyond


Linear = Callable[[Tensor], Tensor]
"""Reads one channel of a source by linear interpolation, (B, rows, *shape[1:])."""


def _at_once(positions: Tensor, sizes: tuple[int, ...], padding: Padding) -> Linear:
    column = (-1, *[1] * (positions.ndim - 1))
    unit = positions * (2 / positions.new_tensor(sizes)).view(column) - 1  # -1 to 1 across the source
    lattice = unit.flip(0).movedim(0, -1)  # grid_sample wants the last axis first

    def linear(channel: Tensor) -> Tensor:
        values = F.grid_sample(channel.unsqueeze(1), lattice, padding_mode=padding, align_corners=False)
        return values.squeeze(1)

    return linear


def _slabs(field: Tensor, padding: Padding) -> Tensor:
    """(B, C, 2, (X - 1) * Y, Z): a volume's slabs under each other as a picture, and their next neighbours likewise.

    To interpolate in 3D is to interpolate both pictures in 2D and then between them. A view, nothing is copied.
    """
    if padding == "zeros":
        field = F.pad(field, (1, 1) * 3)
    if field.shape[2] == 1:
        field = field.repeat_interleave(2, 2)
    batch, channels, x, y, z = field.shape
    strides = (channels * x * y * z, x * y * z, y * z, z, 1)
    return field.contiguous().as_strided((batch, channels, 2, (x - 1) * y, z), strides)


def _in_slabs(positions: Tensor, sizes: tuple[int, ...], padding: Padding) -> Linear:
    """For channels of `_slabs`. Rows are counted through all slabs: in float32, to a thousandth of a voxel in 128^3."""
    if padding == "zeros":
        positions, sizes = positions + 1, tuple(n + 2 for n in sizes)
    slabs, width, depth = max(sizes[0] - 1, 1), sizes[1], sizes[2]
    x, y, z = positions
    centre = (x - 0.5).clamp_(0, sizes[0] - 1)
    slab = centre.detach().floor().clamp_(max=slabs - 1)
    within = centre.sub_(slab)
    row = y.clamp(0.5, width - 0.5).add_(slab, alpha=width)  # kept within its slab
    planes = torch.stack([z, row], 1)
    planes = planes.mul_(planes.new_tensor([2 / depth, 2 / (slabs * width)]).view(2, 1, 1, 1)).sub_(1)
    # Of the lattice, the last axis is the slow one in memory: grid_sample has vector code for that order.
    lattice = planes.flatten(3).permute(0, 2, 3, 1)

    def linear(channel: Tensor) -> Tensor:
        values = F.grid_sample(channel, lattice, padding_mode="border", align_corners=False)
        here, next_ = values.view(len(values), 2, *within.shape[1:]).unbind(1)
        return torch.lerp(here, next_, within)

    return linear
