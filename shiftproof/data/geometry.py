"""Where a case's array lies in the file it came from, and the way back."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import SimpleITK as sitk

from ..errors import GeometryError
from .images import image_of, is_picture, mark_picture
from .resample import resample_label

_AXIS = {letter: axis for axis, pair in enumerate(("LR", "PA", "SI")) for letter in pair}

ORIENTATIONS = frozenset(
    "".join(letters) for axes in itertools.permutations(("LR", "PA", "SI")) for letters in itertools.product(*axes)
)
"""The 48 ways in which three axes can point."""


def orientation_of(image: sitk.Image) -> str:
    """Three letters: where each axis of the image points to, at least roughly (L, P, S, R, A, I)."""
    return sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(image.GetDirection())


def turns(source: str, target: str) -> tuple[tuple[int, int, int], tuple[bool, bool, bool]]:
    """(order of the axes, which of them to flip afterwards) that takes one orientation to another."""
    order = tuple(next(i for i, s in enumerate(source) if _AXIS[s] == _AXIS[t]) for t in target)
    return order, tuple(source[i] != t for i, t in zip(order, target, strict=True))  # type: ignore[return-value]


def turned(array: np.ndarray, source: str, target: str) -> np.ndarray:
    """An (X, Y, Z) array with its axes in another orientation: a view, no value changes."""
    if source == target:
        return array
    order, flips = turns(source, target)
    return array.transpose(order)[tuple(slice(None, None, -1 if flip else None) for flip in flips)]


@dataclass(frozen=True)
class Geometry:
    """How a file's voxels became a case's array: turned, cropped, resampled.

    Args:
        size, spacing_mm, origin_mm: The file's grid, its world axes towards L, P and S.
        direction: Of its axes, a matrix row by row.
        source: The file's orientation; "" where axes stay as they are (pictures).
        target: Orientation of the case.
        start: First voxel of the crop box, in the turned grid.
        cropped: Voxels of the crop box.
        shape: Voxels of the case, after resampling.
        picture: Whether the file has two axes.
    """

    size: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    origin_mm: tuple[float, float, float]
    direction: tuple[float, ...]
    source: str
    target: str
    start: tuple[int, int, int]
    cropped: tuple[int, int, int]
    shape: tuple[int, int, int]
    picture: bool = False

    @classmethod
    def of(cls, image: sitk.Image, target: str = "") -> Geometry:
        """The grid of `image` turned to `target`, or as it is for "", neither cropped nor resampled."""
        source = orientation_of(image) if target else ""
        size = image.GetSize()
        turned_size = tuple(size[i] for i in turns(source, target)[0]) if target else size
        return cls(
            size=size,
            spacing_mm=image.GetSpacing(),
            origin_mm=image.GetOrigin(),
            direction=image.GetDirection(),
            source=source,
            target=target,
            start=(0, 0, 0),
            cropped=turned_size,
            shape=turned_size,
            picture=is_picture(image),
        )

    @property
    def turned_size(self) -> tuple[int, int, int]:
        """Voxels of the whole file in the case's orientation."""
        return self._turned(self.size)

    @property
    def turned_spacing_mm(self) -> tuple[float, float, float]:
        """The file's voxel size in the case's orientation."""
        return self._turned(self.spacing_mm)

    @property
    def case_spacing_mm(self) -> tuple[float, float, float]:
        """Voxel size of the case: the box keeps its edges, so it can differ a little from the plan's."""
        sizes = zip(self.turned_spacing_mm, self.cropped, self.shape, strict=True)
        return tuple(s * n / m for s, n, m in sizes)  # type: ignore[return-value]

    @property
    def box(self) -> tuple[slice, slice, slice]:
        """The crop box in the turned grid."""
        return tuple(slice(s, s + n) for s, n in zip(self.start, self.cropped, strict=True))  # type: ignore[return-value]

    def forward(self, array: np.ndarray) -> np.ndarray:
        """A file's array (X, Y, Z), turned and cropped: a view on the cropped grid."""
        return self._turn(array, self.source, self.target)[self.box]

    def place(self, label: np.ndarray) -> sitk.Image:
        """The file's grid with `label` in it.

        Args:
            label: (X, Y, Z) on the cropped grid, any number type; it becomes 0 outside of the box.

        Raises:
            GeometryError: If the shape is not that of the cropped grid.
        """
        if label.shape != self.cropped:
            raise GeometryError(f"expected an array on the cropped grid {self.cropped}, got {label.shape}")
        whole = np.zeros(self.turned_size, label.dtype)
        whole[self.box] = label
        image = image_of(self._turn(whole, self.target, self.source))
        image.SetSpacing(self.spacing_mm)
        image.SetOrigin(self.origin_mm)
        image.SetDirection(self.direction)
        if self.picture:
            mark_picture(image)
        return image

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Geometry:
        tuples: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**tuples)

    def _turned(self, values: tuple) -> tuple:
        return tuple(values[i] for i in turns(self.source, self.target)[0]) if self.target else values

    def _turn(self, array: np.ndarray, source: str, target: str) -> np.ndarray:
        return turned(array, source, target) if self.target else array


def restore_labels(label: np.ndarray, geometry: Geometry) -> sitk.Image:
    """A label on a case's grid (X, Y, Z), in its file's geometry; exact where nothing was resampled."""
    return geometry.place(resample_label(label, geometry.cropped))
