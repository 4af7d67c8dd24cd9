"""One interpolation for everything that moves: grids of source positions, and fields read at them.

Positions are in voxels of the source, counted from its border: voxel `i` covers `i` to `i + 1`. Matrices are
(B, D, D + 1) and take a voxel's offset from the centre of the output to an offset from a centre in the source.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from . import pieces
from .places import put_, taken

Padding = Literal["border", "zeros"]


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

    def to(self, device: torch.device) -> Grid:
        """On a device, without waiting for it."""
        terms = [term.to(device, non_blocking=True) for term in self.terms]
        return Grid(terms, None if self.displacement is None else self.displacement.to(device))

    def positions(self) -> Tensor:
        """(D, B, *shape)."""
        total = self.terms[0]
        for term in self.terms[1:]:
            total = total.unsqueeze(-1) + term.view(*term.shape[:2], *[1] * (total.ndim - 2), -1)
        return total if self.displacement is None else total + self.displacement


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
        places: B of the N samples, ascending.
        fields: (N, C, *source). Floating ones are interpolated linearly, others take the nearest voxel.
        at: Where, for B samples.
        padding: Beyond the border, the edge's values or zeros (linear interpolation fades into the zeros
            within a voxel's width).

    Returns:
        Which positions lie in no voxel of the source, (B, *shape).
    """
    kind = at.terms[0].dtype  # positions and weights are not for half precision
    learned = any(t.requires_grad for t in (*at.terms, at.displacement) if t is not None)
    if fields[0].device.type != "cpu" or learned:
        some = [taken(f, places) for f in fields]
        return _read_at_once(results, places, [_in_kind(f, kind) for f in some], at.positions(), padding)
    outside = fields[0].new_zeros((len(places), *at.shape), dtype=torch.bool)
    corners = torch.stack([t[..., end] for t in at.terms for end in (0, -1)])
    ends = corners.view(len(at.terms), 2, -1, len(places)).movedim(-1, 0).tolist()
    for b, place in enumerate(places):
        terms = [term[:, b] for term in at.terms]
        bent = None if at.displacement is None else at.displacement[:, b]
        sources, into = [_in_kind(f[place], kind) for f in fields], [result[place] for result in results]
        pieces.read_(into, sources, terms, ends[b], bent, padding, outside[b])
    return outside


def _in_kind(field: Tensor, kind: torch.dtype) -> Tensor:
    return field.to(kind) if field.is_floating_point() else field


def _read_at_once(
    results: Sequence[Tensor], places: Sequence[int], sources: Sequence[Tensor], positions: Tensor, padding: Padding
) -> Tensor:
    sizes = tuple(sources[0].shape[2:])
    minus = positions.new_full((), -1.0)
    # -1 to 1 across the source; grid_sample wants the last axis first.
    units = [torch.add(minus, p, alpha=2 / n) for p, n in zip(positions, sizes, strict=True)]
    lattice = torch.stack(units[::-1], 1).movedim(1, -1)
    index, outside = _voxels(positions.detach(), sizes)
    for source, result in zip(sources, results, strict=True):
        if source.is_floating_point():
            values = F.grid_sample(source, lattice, padding_mode=padding, align_corners=False)
        else:
            channels = [c.flatten().index_select(0, index).view_as(outside) for c in source.unbind(1)]
            values = channels[0].unsqueeze(1) if len(channels) == 1 else torch.stack(channels, 1)
            if padding == "zeros":
                values = values.masked_fill_(outside.unsqueeze(1), 0)
        put_(result, places, values.to(result.dtype))
    return outside


def _voxels(positions: Tensor, sizes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Flat index into the batch of the nearest voxel, and which positions lie in none, (B, *shape)."""
    voxels, samples = math.prod(sizes), positions.shape[1]
    # The index is summed in floating numbers, which is faster than in integers, as far as their digits reach.
    wide = positions.dtype if voxels < 2**24 else torch.float64
    index = torch.zeros_like(positions[0], dtype=wide)
    missed = torch.zeros_like(positions[0])
    for position, size in zip(positions, sizes, strict=True):
        inside = position.clamp(0, pieces.below(size, position.dtype))
        away = position - inside
        missed.addcmul_(away, away)
        index.mul_(size).add_(inside.floor_())
    kind = torch.int32 if samples * voxels < 2**31 else torch.int64  # the narrow one is faster
    index = index.to(kind).view(samples, -1)
    index = index.add_(torch.arange(0, samples * voxels, voxels, dtype=kind, device=index.device)[:, None]).flatten()
    return index, missed.bool()
