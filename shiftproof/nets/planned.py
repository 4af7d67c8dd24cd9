"""Which axes a network halves, and when it begins to look across slices: from patch and spacing, by nnU-Net's rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import OptionError

SMALLEST = 4
"""Voxels that an axis keeps when it is halved."""

COARSER = 2
"""Times the finest spacing, from which on an axis counts as coarse."""


def planned(
    dimensions: int, patch: Sequence[int], spacing_mm: Sequence[float | None], *, least: int = 2, most: int = 6
) -> dict[str, list[tuple[int, ...]]]:
    """Strides and kernels of an encoder and decoder for images of one spacing.

    From level to level, every axis is halved that would keep at least 4 voxels and whose spacing, as it is by
    then, is less than twice the finest of those; an axis that would be halved alone needs 12 voxels. A kernel
    has length 1 along an axis until its spacing has come below twice the finest, then 3; the coarsest level has
    3 everywhere. So thick slices are not pooled, nor mixed, before the voxels have become about isotropic.

    Paper: F. Isensee et al., "nnU-Net", Nature Methods 18 (2021), https://doi.org/10.1038/s41592-020-01008-z
    (network topology; the limit of 12 voxels is the published program's). Deviations: at most `most` levels
    (nnU-Net knows no limit); at least `least`, for which axes that nnU-Net would leave are halved, too.

    Args:
        dimensions: 2 or 3.
        patch: Voxels that the network sees, one number an axis.
        spacing_mm: Of a voxel; in 2D a further number is not read. None stands for an unknown one, which
            counts as the finest.
        least: Fewest levels.
        most: Most levels.

    Returns:
        {"strides": one extent from each level to the next, "kernels": one a level}.

    Raises:
        OptionError: If patch or spacing are not positive numbers by axis, or no number of levels is allowed.
    """
    size, spacing = _require_sound(dimensions, patch, spacing_mm, least, most)
    kernel = [1] * dimensions
    strides: list[tuple[int, ...]] = []
    kernels: list[tuple[int, ...]] = []
    while len(strides) < most - 1:
        halved = _halved(size, spacing)
        if not halved and len(strides) < least - 1:
            halved = _fine([axis for axis in range(dimensions) if size[axis] > 1], spacing)
        elif not halved:
            break
        kernel = _widened(kernel, spacing)
        kernels.append(tuple(kernel))
        strides.append(tuple(2 if axis in halved else 1 for axis in range(dimensions)))
        for axis in halved:
            size[axis] = -(-size[axis] // 2)
            spacing[axis] *= 2
    kernels.append((3,) * dimensions)
    return {"strides": strides, "kernels": kernels}


def planned_levels(
    dimensions: int,
    patch: Sequence[int],
    spacing_mm: Sequence[float | None],
    given: Mapping[str, Any],
    *,
    least: int,
    most: int,
) -> dict[str, Any]:
    """`planned` for those of "strides" and "kernels" that are not given or "auto".

    Strides of one's own come with kernels of 3: the rules hold for both together.
    """
    open_ = [name for name in ("strides", "kernels") if given.get(name) in (None, "auto")]
    if given.get("kernels") != "auto" and "strides" not in open_:
        return {}
    found = planned(dimensions, patch, spacing_mm, least=least, most=most)
    return {name: found[name] for name in open_}


def _halved(size: Sequence[int], spacing: Sequence[float]) -> list[int]:
    large = [axis for axis, extent in enumerate(size) if extent >= 2 * SMALLEST]
    halved = _fine(large, spacing)
    if len(halved) == 1 and size[halved[0]] < 3 * SMALLEST:
        return []
    return halved


def _fine(axes: Sequence[int], spacing: Sequence[float]) -> list[int]:
    finest = min((spacing[axis] for axis in axes), default=0.0)
    return [axis for axis in axes if spacing[axis] < COARSER * finest]


def _widened(kernel: Sequence[int], spacing: Sequence[float]) -> list[int]:
    """Once 3, a kernel stays so."""
    fine = _fine(range(len(spacing)), spacing)
    return [3 if axis in fine else extent for axis, extent in enumerate(kernel)]


def _require_sound(
    dimensions: int, patch: Sequence[int], spacing_mm: Sequence[float | None], least: int, most: int
) -> tuple[list[int], list[float]]:
    known = [s for s in spacing_mm[:dimensions] if s is not None]
    if dimensions not in (2, 3) or len(patch) != dimensions or min(patch) < 1:
        raise OptionError(f"a patch has 2 or 3 axes of at least 1 voxel, one a dimension, got {tuple(patch)}")
    if len(spacing_mm) < dimensions or any(not 0 < s < float("inf") for s in known):
        raise OptionError(f"spacing_mm has a positive number for each of {dimensions} axes, got {tuple(spacing_mm)}")
    if not 1 <= least <= most:
        raise OptionError(f"a network has at least 1 level, and no fewer at most than at least; got {least} to {most}")
    finest = min(known, default=1.0)
    return list(patch), [finest if s is None else float(s) for s in spacing_mm[:dimensions]]
