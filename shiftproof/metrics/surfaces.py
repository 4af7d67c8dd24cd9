"""Surfaces of structures on a voxel grid, and the distances between two of them in mm."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import GeometryError

Mask = NDArray[np.bool_]
Distances = tuple[NDArray[np.float64], NDArray[np.float64]]


@dataclass(frozen=True)
class Grid:
    """Where voxels lie.

    Args:
        shape: Of the whole image.
        spacing_mm: By axis.

    Raises:
        GeometryError: If the spacing is not a positive number by axis.
    """

    shape: tuple[int, ...]
    spacing_mm: tuple[float, ...]

    def __post_init__(self) -> None:
        axes = len(self.shape)
        if len(self.spacing_mm) != axes or not all(math.isfinite(s) and s > 0 for s in self.spacing_mm):
            raise GeometryError(f"spacing in mm is a positive number for each of {axes} axes, got {self.spacing_mm}")

    @property
    def axes(self) -> list[int]:
        """Axes along which voxels have neighbours: a slice (X, Y, 1) has no third."""
        return [axis for axis, extent in enumerate(self.shape) if extent > 1]

    @property
    def diagonal_mm(self) -> float:
        """From corner to corner of the image; in its plane for a single slice."""
        return math.hypot(*(self.shape[axis] * self.spacing_mm[axis] for axis in self.axes))

    @property
    def voxel_ml(self) -> float:
        """NaN for a grid of two axes: an area is no volume."""
        return math.prod(self.spacing_mm) / 1000 if len(self.shape) == 3 else math.nan


def border(structure: Mask, axes: Sequence[int], ignored: Mask | None = None) -> Mask:
    """Voxels of the structure with a face neighbour outside it along one of `axes`.

    The edge of the array counts as outside, ignored voxels do not.
    """
    inside = structure.copy()
    solid = structure if ignored is None else structure | ignored
    for axis in axes:
        voxels, neighbours = np.moveaxis(inside, axis, 0), np.moveaxis(solid, axis, 0)
        voxels[1:] &= neighbours[:-1]
        voxels[:-1] &= neighbours[1:]
        voxels[[0, -1]] = False
    return structure & ~inside


def distances(prediction: Mask, label: Mask, spacing_mm: Sequence[float]) -> Distances:
    """From each border voxel of the prediction to the nearest of the label, and back.

    Of borders, as `border` gives them. A tree of points rather than a distance transform: exact as
    well, and its cost grows with the surface, not with the volume. Both empty without a voxel on
    one side: there is no distance.
    """
    from scipy.spatial import cKDTree

    if not prediction.any() or not label.any():
        return np.empty(0), np.empty(0)
    spacing = np.asarray(spacing_mm)
    common = prediction & label  # at distance 0: not worth a search
    zeros = np.zeros(np.count_nonzero(common))

    def directed(start: Mask, end: Mask) -> NDArray[np.float64]:
        apart = np.argwhere(start & ~common)
        if not len(apart):
            return zeros
        tree = cKDTree(np.argwhere(end) * spacing, balanced_tree=False, compact_nodes=False)
        return np.concatenate([zeros, tree.query(apart * spacing)[0]])

    return directed(prediction, label), directed(label, prediction)


def surface_dice(found: Distances, tolerance_mm: float) -> float:
    """Share of all border voxels within the tolerance of the other side's border."""
    every = np.concatenate(found)
    # A distance that equals the tolerance must not fail by the rounding of spacing times steps.
    return float((every <= tolerance_mm * (1 + 1e-9)).mean()) if len(every) else math.nan


def hd95(found: Distances) -> float:
    """The larger of the directed 95th percentiles, linearly interpolated."""
    return max(float(np.percentile(d, 95)) for d in found) if len(found[0]) else math.nan


def assd(found: Distances) -> float:
    """Mean over the distances of both directions together."""
    every = np.concatenate(found)
    return float(every.mean()) if len(every) else math.nan


def masd(found: Distances) -> float:
    """Mean of the two directed mean distances: each side counts as much, however many voxels its border has."""
    return sum(float(d.mean()) for d in found) / 2 if len(found[0]) else math.nan


def band(structure: Mask, edge: Mask, width_mm: float, spacing_mm: Sequence[float]) -> Mask:
    """Voxels of the structure whose centre is within the width of that of a border voxel; the border at least."""
    from scipy.ndimage import minimum_filter
    from scipy.spatial import cKDTree

    spacing = np.asarray(spacing_mm)
    # A border voxel has a neighbour outside: where none is within the width and one voxel more, along every axis, the
    # border is too far, and the deep inside of an organ needs no search.
    box = [2 * int(min(width_mm / s + 1e-6 + 1, n)) + 1 for s, n in zip(spacing, structure.shape, strict=True)]
    deep = minimum_filter(structure, size=box, mode="constant", cval=0)
    inside = np.argwhere(structure & ~edge & ~deep)
    found = edge.copy()
    if len(inside) and edge.any():
        tree = cKDTree(np.argwhere(edge) * spacing, balanced_tree=False, compact_nodes=False)
        # Beyond the bound the search ends early; the bound itself is not within it.
        away = tree.query(inside * spacing, distance_upper_bound=width_mm * (1 + 1e-6) + 1e-12)[0]
        found[tuple(inside[away <= width_mm * (1 + 1e-9)].T)] = True
    return found
