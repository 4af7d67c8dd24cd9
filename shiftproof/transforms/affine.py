"""Affine maps of a patch: (B, D, D + 1) from an offset from a centre, in voxels, to another."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

DEGREES = math.pi / 180


def rotation(angles: Tensor) -> Tensor:
    """Rotations (B, D, D) by degrees.

    Args:
        angles: (B, 1) in 2D: from the first axis towards the second. (B, 3) in 3D: about the first, second
            and third axis, each from the axis that follows it cyclically towards the next; the third acts
            first.
    """
    turn, twice, rest = (constant.to(angles) for constant in _TURNS[angles.shape[1]])
    radians = (angles * DEGREES)[..., None, None]
    # Rodrigues' formula, for all axes at once.
    each = rest + radians.sin() * turn + (1 - radians.cos()) * twice
    total, *others = each.unbind(1)
    for other in others:
        total = total @ other
    return total


def _turns(planes: Sequence[tuple[int, int]], dimensions: int) -> tuple[Tensor, Tensor, Tensor]:
    """The beginning of a turn in each plane (planes, D, D), its square, and the identity."""
    turn = torch.zeros(len(planes), dimensions, dimensions, dtype=torch.float64)
    for i, (a, b) in enumerate(planes):
        turn[i, b, a], turn[i, a, b] = 1, -1
    return turn, turn @ turn, torch.eye(dimensions, dtype=torch.float64)


_TURNS = {1: _turns([(0, 1)], 2), 3: _turns([(1, 2), (2, 0), (0, 1)], 3)}


def placement(
    angles: Tensor,
    scale: Tensor,
    translation: Tensor,
    mirror: Tensor,
    spacing: Sequence[float] | None = None,
) -> Tensor:
    """Where a voxel's content goes: (B, D, D + 1) from an offset from the centre to the new offset, in voxels.

    Args:
        angles: Degrees, as `rotation` takes them. They turn space in mm, if `spacing` is given.
        scale: (B, D) magnification along the axes of the original; acts before the rotation.
        translation: (B, D) voxels; acts after the rotation.
        mirror: (B, D) bool, axes that are reversed in the end.
        spacing: mm of a voxel along each axis.
    """
    turned = rotation(angles)
    if spacing is not None:
        mm = torch.tensor(spacing, dtype=turned.dtype, device=turned.device)
        turned = turned * mm / mm[:, None]
    sign = 1 - 2 * mirror.to(turned.dtype)
    return torch.cat([turned * scale[:, None, :], translation[..., None]], -1) * sign[..., None]


def inverted(matrix: Tensor) -> Tensor:
    """The affine map (B, D, D + 1) the other way round."""
    linear, offset = matrix[..., :-1], matrix[..., -1:]
    back = torch.linalg.inv(linear)
    return torch.cat([back, -back @ offset], -1)
