"""One interpolation for everything that moves: grids of source positions, and fields read at them.

Positions are in voxels of the source, voxel `i` covering `i` +- 1/2. Matrices (B, D, D + 1) take a voxel's offset from
the centre of the output to an offset from the centre of the window in the source.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Padding = Literal["border", "zeros"]

CHUNK = 2**16
"""Voxels read at a time on a CPU in 3D: what is held for them fits a core's cache."""


@dataclass
class Grid:
    """Source positions of a batch of output voxels, as sums that are only carried out where they are needed.

    Args:
        terms: For each source axis one tensor per output axis: the first (rows,), the others (rows, n). A row is a
            sample and a place on the first output axis.
        displacement: (D, rows, *shape[1:]) added to the sums, or None.
        owner: (rows,) which sample a row is of.
        shape: Of the output.
    """

    terms: list[list[Tensor]]
    displacement: Tensor | None
    owner: Tensor
    shape: tuple[int, ...]

    def positions(self, rows: slice) -> list[Tensor]:
        """One tensor (rows, *shape[1:]) for each source axis."""
        found = []
        for axis, (total, *others) in enumerate(self.terms):
            total = total[rows]
            for term in others:
                part = term[rows]
                total = total.unsqueeze(-1) + part.view(len(part), *[1] * (total.ndim - 1), -1)
            if self.displacement is not None:
                total = total + self.displacement[axis, rows]
            found.append(total)
        return found


def grid(matrix: Tensor, shape: Sequence[int], centre: Sequence[float], displacement: Tensor | None = None) -> Grid:
    """Positions `centre + matrix (offset, 1) + displacement`.

    Args:
        matrix: (B, D, D + 1).
        shape: Of the output, D numbers.
        centre: Position in the source of the output's centre.
        displacement: (B, D, *shape) in source voxels, or None.
    """
    samples, dimensions = matrix.shape[:2]
    owner = torch.arange(samples, device=matrix.device).repeat_interleave(shape[0])
    offsets = [torch.arange(n, device=matrix.device, dtype=matrix.dtype) - (n - 1) / 2 for n in shape]
    terms = []
    for source in range(dimensions):
        along = [matrix[:, source, axis, None] * offset for axis, offset in enumerate(offsets)]  # each (B, n)
        first = along[0] + matrix[:, source, dimensions, None] + centre[source]
        terms.append([first.flatten(), *(term[owner] for term in along[1:])])
    if displacement is not None:
        displacement = displacement.transpose(0, 1).flatten(1, 2)
    return Grid(terms, displacement, owner, tuple(shape))


def read(fields: Sequence[Tensor], at: Grid, padding: Padding = "border") -> tuple[list[Tensor], Tensor]:
    """Fields of one geometry, all read at the same positions.

    Args:
        fields: (B, C, *source). Floating ones are interpolated linearly, others take the nearest voxel.
        at: Where.
        padding: Beyond the border, the edge's values or zeros (linear interpolation fades into the zeros within a
            voxel's width).

    Returns:
        The fields on the output grid (B, C, *shape), and which positions lie in no voxel of the source (B, *shape).
    """
    samples, sizes = len(fields[0]), tuple(fields[0].shape[-len(at.shape) :])
    # On a CPU, PyTorch samples 2D grids in vector code, but 3D grids voxel by voxel, in one thread a sample. Gathering
    # the corners is more than twice as fast there, if it is done in parts that stay in the cache.
    gather = fields[0].device.type == "cpu" and len(sizes) == 3
    step = max(1, CHUNK // math.prod(at.shape[1:])) if gather else len(at.owner)
    kind = at.terms[0][0].dtype  # positions and weights are not for half precision
    readers = [_reader(f.to(kind) if f.is_floating_point() else f, padding, gather) for f in fields]

    parts = []  # for each part all fields, (C, rows, *shape[1:]), and what is beyond the border, (1, rows, *shape[1:])
    for start in range(0, len(at.owner), step):
        rows = slice(start, start + step)
        places = Places(at.positions(rows), at.owner[rows], sizes, samples)
        parts.append([*(reader(places) for reader in readers), places.voxel[1][None]])

    *values, beyond = (torch.cat(p, 1).unflatten(1, (samples, -1)) for p in zip(*parts, strict=True))
    results = [v.transpose(0, 1).contiguous().to(f.dtype) for v, f in zip(values, fields, strict=True)]
    return results, beyond[0]


class Places:
    """Some positions, and what readers of several fields need of them, found once.

    Args:
        positions: One (rows, *shape[1:]) for each axis of the source.
        owner: Sample of each row.
        sizes: Of the source.
        samples: In the whole batch.
    """

    def __init__(
        self, positions: list[Tensor], owner: Tensor, sizes: tuple[int, ...], samples: int
    ) -> None:
        self.positions = positions
        self.owner = owner
        self.sizes = sizes
        self.samples = samples

    @functools.cached_property
    def voxel(self) -> tuple[Tensor, Tensor]:
        """Flat index of the nearest voxel, and which positions lie in none, (rows, *shape[1:])."""
        inside, beyond = [], torch.zeros_like(self.positions[0], dtype=torch.bool)
        for position, size in zip(self.positions, self.sizes, strict=True):
            whole = position.detach().round()
            inside.append(whole.clamp(0, size - 1))
            beyond |= whole != inside[-1]
        return self._index(inside), beyond

    @functools.cached_property
    def cell(self) -> tuple[Tensor, list[Tensor]]:
        """Flat index of the lowest corner of the cell around each position, and the position within the cell."""
        low, within = [], []
        for position, size in zip(self.positions, self.sizes, strict=True):
            inside = position.clamp(0, size - 1)
            low.append(inside.detach().floor())
            within.append(inside.sub_(low[-1]).flatten())
        return self._index(low), within

    def _index(self, whole: list[Tensor]) -> Tensor:
        """Into (B * voxels,) from whole coordinates inside the source, which are used up.

        Summed up as floating numbers, which is faster than as integers and as exact as far as the digits reach.
        """
        voxels = math.prod(self.sizes)
        *others, index = whole
        if voxels >= 2**24:
            index = index.double()
        for coordinate, stride in zip(others, _strides(self.sizes), strict=False):
            index.add_(coordinate, alpha=stride)
        # Narrow where that suffices, for speed.
        kind = torch.int32 if self.samples * voxels < 2**31 else torch.int64
        first = (self.owner * voxels).to(kind).view(-1, *[1] * (index.ndim - 1))
        return index.to(kind).add_(first).flatten()


Reader = Callable[[Places], Tensor]
"""Values (C, rows, *shape[1:]) at places."""


def _reader(field: Tensor, padding: Padding, gather: bool) -> Reader:
    if not field.is_floating_point():
        return _nearest(field, padding)
    return _gathered(field, padding) if gather else _sampled(field, padding)


def _nearest(field: Tensor, padding: Padding) -> Reader:
    channels = [channel.flatten() for channel in field.unbind(1)]

    def read_at(places: Places) -> Tensor:
        index, beyond = places.voxel
        taken = torch.stack([channel.index_select(0, index) for channel in channels]).unflatten(1, beyond.shape)
        return taken.masked_fill_(beyond, 0) if padding == "zeros" else taken

    return read_at


def _sampled(field: Tensor, padding: Padding) -> Reader:
    def read_at(places: Places) -> Tensor:
        normalised = [(2 * p + 1) / n - 1 for p, n in zip(places.positions, places.sizes, strict=True)]
        lattice = torch.stack(normalised[::-1], -1).unflatten(0, (len(field), -1))  # last axis first, as torch has it
        values = F.grid_sample(field, lattice, padding_mode=padding, align_corners=False)
        return values.transpose(0, 1).flatten(1, 2)

    return read_at


def _gathered(field: Tensor, padding: Padding) -> Reader:
    margin = 1 if padding == "zeros" else 0
    field = F.pad(field, (margin,) * 2 * (field.ndim - 2))
    sizes = tuple(field.shape[2:])
    strides = _strides(sizes)
    # At the far border the upper corner has weight 0, but is read: past the end of the last sample, too.
    channels = [F.pad(channel.flatten(), (0, sum(strides))) for channel in field.unbind(1)]

    def read_at(places: Places) -> Tensor:
        if margin:
            places = Places([p + margin for p in places.positions], places.owner, sizes, places.samples)
        corner, within = places.cell
        values = [_interpolated(channel, corner, within, strides) for channel in channels]
        return torch.stack(values).unflatten(1, places.positions[0].shape)

    return read_at


def _interpolated(values: Tensor, corner: Tensor, within: list[Tensor], strides: list[int]) -> Tensor:
    """Linear along the first axis between what is linear along the others; corners differ by fixed strides."""
    if not strides:
        return values.index_select(0, corner)
    low = _interpolated(values, corner, within[1:], strides[1:])
    high = _interpolated(values[strides[0] :], corner, within[1:], strides[1:])
    return low.lerp_(high, within[0])


def _strides(sizes: Sequence[int]) -> list[int]:
    return [math.prod(sizes[axis + 1 :]) for axis in range(len(sizes))]
