"""From files to arrays as a plan says: turn, crop, resample, normalise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import SimpleITK as sitk

from ..errors import ImageError, PlanError
from .geometry import Geometry
from .images import array_of, is_picture, require_same_geometry
from .resample import resample_image, resample_label

if TYPE_CHECKING:
    from .plan import Plan

ANISOTROPIC = 3.0
"""Slices thicker than this many pixels: cubic interpolation across them would ring."""


@dataclass
class Preprocessed:
    """A scan as a network reads it.

    Args:
        image: (C, X, Y, Z) float32, normalised; 0 throughout in a channel that the scan lacks.
        label: (X, Y, Z) uint8 class indices, 255 where the label says nothing; None if there was none.
        geometry: The way back to the file's grid.
        present: (C,) bool, the channels that the scan has.
        intensity: By channel, of the values as stored outside of the background: mean, sd and percentiles.
    """

    image: np.ndarray
    label: np.ndarray | None
    geometry: Geometry
    present: np.ndarray
    intensity: dict[str, dict[str, float]]


def preprocess(images: Mapping[str, sitk.Image | None], label: sitk.Image | None, plan: Plan) -> Preprocessed:
    """One scan, as `plan` says.

    Args:
        images: File content by channel; None, or no entry, where the scan lacks the channel.
        label: Class indices (`LabelMap.encode`) on the images' grid, or None.
        plan: The plan.

    Raises:
        ImageError: If there is no channel at all, or one is constant.
        GeometryError: If channels or label do not share a grid.
        PlanError: If a channel is unknown to the plan, or a picture meets a plan for volumes.
    """
    unknown = sorted(set(images) - set(plan.channels))
    if unknown:
        raise PlanError(f'the plan has no channel "{unknown[0]}"; its channels are {", ".join(plan.channels)}')
    given = {c: image for c in plan.channels if (image := images.get(c)) is not None}
    if not given:
        raise ImageError(f"the scan has none of the channels {', '.join(plan.channels)}; at least one is needed")
    first, reference = next(iter(given.items()))
    for channel, image in given.items():
        require_same_geometry(reference, image, f"channels {first} and {channel}")
    if label is not None:
        require_same_geometry(reference, label, "image and label")
    _require_fitting(reference, plan)

    whole = Geometry.of(reference, plan.orientation)
    arrays = {c: whole.forward(array_of(image)).astype(np.float32) for c, image in given.items()}
    backgrounds = {c: background_of(array) for c, array in arrays.items()}
    box = content_box(arrays, backgrounds) if plan.crop == "background" else whole.box
    cropped = tuple(s.stop - s.start for s in box)
    geometry = replace(whole, start=tuple(s.start for s in box), cropped=cropped)
    geometry = replace(geometry, shape=resampled_shape(cropped, geometry.turned_spacing_mm, plan.spacing_mm))

    orders = _orders(geometry)
    result = np.zeros((len(plan.channels), *geometry.shape), np.float32)
    intensity = {}
    for channel, array in arrays.items():
        array = array[box]
        intensity[channel] = intensity_of(array, backgrounds[channel])
        if array.min() == array.max():
            raise ImageError(
                f"channel {channel} has the value {array.flat[0]:g} everywhere; export it again, or leave it out"
            )
        resampled = array if array.shape == geometry.shape else resample_image(array, geometry.shape, orders)
        result[plan.channels.index(channel)] = normalised(resampled, intensity[channel], plan.normalisation[channel])
    index = None if label is None else resample_label(geometry.forward(array_of(label)), geometry.shape)
    return Preprocessed(
        result,
        None if index is None else np.ascontiguousarray(index, dtype=np.uint8),
        geometry,
        np.array([c in given for c in plan.channels]),
        intensity,
    )


def background_of(array: np.ndarray) -> float | None:
    """The value around the content: the most frequent one on the border, if it is frequent there.

    None where the border is noise: then nothing is background by its value alone.
    """
    faces = [np.take(array, [0, -1], axis).ravel() for axis in range(array.ndim) if array.shape[axis] > 2]
    if not faces:
        return None
    values, counts = np.unique(np.concatenate(faces), return_counts=True)
    most = int(counts.argmax())
    return float(values[most]) if counts[most] >= 0.2 * counts.sum() else None


def content_box(
    arrays: Mapping[str, np.ndarray], backgrounds: Mapping[str, float | None]
) -> tuple[slice, slice, slice]:
    """The smallest box outside of which every channel is background; all of it if there is none."""
    shape = next(iter(arrays.values())).shape
    box = [(n, 0) for n in shape]
    for channel, array in arrays.items():
        background = backgrounds[channel]
        content = np.ones(shape, bool) if background is None else array != background
        for axis in range(3):
            others = tuple(a for a in range(3) if a != axis)
            where = np.flatnonzero(content.any(others))
            if len(where):
                box[axis] = (min(box[axis][0], int(where[0])), max(box[axis][1], int(where[-1]) + 1))
    if any(start >= stop for start, stop in box):
        box = [(0, n) for n in shape]
    return tuple(slice(*side) for side in box)  # type: ignore[return-value]


def resampled_shape(
    shape: Sequence[int], spacing_mm: Sequence[float], target_mm: Sequence[float | None]
) -> tuple[int, int, int]:
    """Voxels along each axis at the target spacing; axes without one, or already at it, stay as they are."""
    return tuple(  # type: ignore[return-value]
        n if t is None or abs(s - t) <= 1e-3 * t else max(1, round(n * s / t))
        for n, s, t in zip(shape, spacing_mm, target_mm, strict=True)
    )


def intensity_of(array: np.ndarray, background: float | None) -> dict[str, float]:
    """Mean, sd and percentiles of what is not background; of everything if that is constant."""
    values = array[array != background] if background is not None else array.ravel()
    if not len(values) or values.min() == values.max():
        values = array.ravel()
    # Sums of squares of 16-bit values do not fit into float32.
    summary = {"mean": float(values.mean(dtype=np.float64)), "sd": float(values.std(dtype=np.float64))}
    return summary | percentiles(values)


def percentiles(values: np.ndarray) -> dict[str, float]:
    """Percentiles 0.5, 50 and 99.5, from at most about 100 000 evenly spaced values."""
    few = values[:: max(1, len(values) // 100_000)]
    return {f"p{q:g}": float(v) for q, v in zip((0.5, 50, 99.5), np.percentile(few, (0.5, 50, 99.5)), strict=True)}


def normalised(array: np.ndarray, intensity: Mapping[str, float], rule: Mapping[str, Any]) -> np.ndarray:
    """Values as a plan's rule for the channel says.

    "zscore": by the scan's own mean and deviation outside of the background. "clip": by the training set's,
    after cutting at its percentiles; for units that mean the same in every scan, as CT has.
    """
    if rule["scheme"] == "clip":
        return (np.clip(array, rule["lower"], rule["upper"]) - rule["mean"]) / rule["sd"]
    return (array - intensity["mean"]) / intensity["sd"]


def _orders(geometry: Geometry) -> list[int]:
    spacing = geometry.turned_spacing_mm
    return [1 if s > ANISOTROPIC * min(spacing) or n < 4 else 3 for s, n in zip(spacing, geometry.cropped, strict=True)]


def _require_fitting(image: sitk.Image, plan: Plan) -> None:
    if plan.orientation and is_picture(image):
        raise PlanError(
            f"the plan is for volumes in orientation {plan.orientation}, the scan is a 2D picture, which "
            "has none; "
            "give volumes, or train on pictures"
        )
    if not plan.orientation and image.GetSize()[2] > 1:
        raise PlanError(
            f"the plan is for 2D pictures, the scan has {image.GetSize()[2]} slices; save each slice as a "
            "picture, or train on volumes"
        )
