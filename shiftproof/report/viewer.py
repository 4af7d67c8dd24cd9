"""Volumes of a few cases inside the page, small: cropped, reduced, in 256 greys; for looking, not for measuring."""

from __future__ import annotations

import base64
import gzip
import json
import struct
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from markupsafe import Markup

from ..data.images import array_of, image_of
from ..data.labels import IGNORE
from .scans import Scan
from .slices import slice_at, structure_colour, structure_voxels, window

LIMIT_MB = 12.0
"""Room for all volumes of a page, as they stand in it; cases beyond it keep their pictures."""

VOXELS = 1_000_000
"""Of one volume; a larger one is resampled to fewer."""

ROOM_MM = 15.0
"""Around the structures, where a scan is cropped to them."""

UNKNOWN = "not annotated"

SLICES = 3
"""Fewest slices, in every direction, that make a volume worth turning in the hand."""


@dataclass(frozen=True)
class Volumes:
    """A case as the page holds it: JSON with NIfTI files in base64."""

    key: str
    block: Markup

    @property
    def size_mb(self) -> float:
        return len(self.block) / 1e6


def is_volume(scan: Scan) -> bool:
    return not scan.first.picture and min(scan.first.arrays[0].shape) >= SLICES


def volumes(scan: Scan, key: str, classes: Sequence[str], scores: dict[str, str]) -> Volumes:
    """What the viewer shows of a case.

    Args:
        scan: The case.
        key: Its name on the page.
        classes: Of label and predictions, background first; none where the task answers for whole scans.
        scores: In words, by row.
    """
    images, spacing_mm = small(scan)
    full = scan.first.images[0].GetSpacing()
    low, high = window(slice_at(scan.first))
    grey = array_of(images["image"])
    bottom, top = (float(v) for v in np.percentile(grey, [0.5, 99.5]))
    bottom, top = min(bottom, low), max(top, high)
    levels = np.rint(255 * np.clip((grey - bottom) / (top - bottom), 0, 1)).astype(np.uint8)
    place = scan.first.images[0].TransformIndexToPhysicalPoint(scan.first.centre())
    unknown = len(classes) if classes and (array_of(images["label"]) == IGNORE).any() else None
    content: dict[str, Any] = {
        "title": scan.case.title,
        "domain": scan.case.held_out,
        "classes": [*classes, *([UNKNOWN] if unknown else [])],
        "colours": [
            "#000000",
            *(structure_colour(k) for k in range(1, len(classes))),
            *(["#000000"] if unknown else []),
        ],
        "unknown": unknown,  # what is not annotated is not scored: no error stands there
        "plane": scan.first.plane,
        "start": [-place[0], -place[1], place[2]],  # NIfTI counts to the right, anterior, superior
        "window": [low, high],
        "note": reduced(full, spacing_mm),
        "image": packed(image_of(levels, like=images["image"]), slope=(top - bottom) / 255, intercept=bottom),
        "label": packed(known(images["label"], unknown or 0)) if classes else None,
        "predictions": [
            {"row": row, "score": scores.get(row, ""), "volume": packed(known(images[f"prediction {row}"]))}
            for row in scan.places
            if classes
        ],
    }
    text = json.dumps(content, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    # No name of a user's may end the block that it stands in.
    return Volumes(key, Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")))


def reduced(full: Sequence[float], shown: Sequence[float]) -> str:
    """What was done to the volume, in words."""
    if np.allclose(full, shown, rtol=1e-3):
        return f"voxels {millimetres(full)} as in the file, in 256 greys"
    return f"resampled to {millimetres(shown)} (the file has {millimetres(full)}), in 256 greys"


def millimetres(spacing: Sequence[float]) -> str:
    return f"{' × '.join(f'{v:.3g}' for v in spacing)} mm"


def small(scan: Scan) -> tuple[dict[str, sitk.Image], tuple[float, ...]]:
    """Image, label and predictions of a case on one grid, cropped and with at most `VOXELS` voxels, and its spacing."""
    image, label, _ = scan.first.images
    start, size = box(scan)
    found = {"image": sitk.Cast(sitk.RegionOfInterest(image, size, start), sitk.sitkFloat32)}
    for name, marked in {"label": label, **{f"prediction {r}": p.images[2] for r, p in scan.places.items()}}.items():
        found[name] = sitk.Cast(sitk.RegionOfInterest(marked, size, start), sitk.sitkUInt8)
    spacing, extent = np.array(image.GetSpacing()), np.array(size) * image.GetSpacing()
    coarse = coarser(spacing, extent)
    if np.allclose(coarse, spacing):
        return found, tuple(spacing)
    grid = sitk.Image([max(1, int(n)) for n in np.floor(extent / coarse + 1e-6)], sitk.sitkUInt8)
    first = found["image"]
    direction = np.array(first.GetDirection()).reshape(3, 3)
    grid.SetSpacing(coarse.tolist())
    grid.SetDirection(first.GetDirection())
    grid.SetOrigin((np.array(first.GetOrigin()) + direction @ ((coarse - spacing) / 2)).tolist())
    nearest, linear = sitk.sitkNearestNeighbor, sitk.sitkLinear
    return {
        name: sitk.Resample(i, grid, sitk.Transform(), linear if name == "image" else nearest)
        for name, i in found.items()
    }, tuple(coarse)


def known(label: sitk.Image, unknown: int = 0) -> sitk.Image:
    """Class indices, with another value, or background, for what is unknown."""
    array = array_of(label)
    return image_of(np.where(array == IGNORE, unknown, array).astype(np.uint8), like=label)


def box(scan: Scan) -> tuple[list[int], list[int]]:
    """First voxel and size of the part with structures and room around them; all of it without structures."""
    marked = structure_voxels(scan.first.arrays[1], scan.first.arrays[2])
    for place in scan.places.values():
        marked = marked | (place.arrays[2] > 0)
    start, size = [], []
    for axis, step in enumerate(scan.first.images[0].GetSpacing()):
        at = np.flatnonzero(marked.any(axis=tuple(i for i in range(3) if i != axis)))
        room = int(np.ceil(ROOM_MM / step))
        first = max(0, int(at[0]) - room) if len(at) else 0
        last = min(marked.shape[axis] - 1, int(at[-1]) + room) if len(at) else marked.shape[axis] - 1
        start.append(first)
        size.append(last - first + 1)
    return start, size


def coarser(spacing: np.ndarray, extent: np.ndarray) -> np.ndarray:
    """The finest spacing that fits into `VOXELS`: short edges grow first, so that voxels come nearer to cubes."""
    if np.prod(extent / spacing) <= VOXELS:
        return spacing
    low, high = float(spacing.min()), float((np.prod(extent) / VOXELS) ** (1 / 3) + spacing.max())
    for _ in range(40):
        middle = (low + high) / 2
        if np.prod(extent / np.maximum(spacing, middle)) <= VOXELS:
            high = middle
        else:
            low = middle
    return np.maximum(spacing, high)


def packed(image: sitk.Image, *, slope: float = 1.0, intercept: float = 0.0) -> str:
    """A uint8 volume as a NIfTI file, gzipped, in base64; equal volumes give equal text.

    Args:
        image: The volume.
        slope: What one step of its values means.
        intercept: What value 0 means.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "volume.nii"
        sitk.WriteImage(image, str(path))
        content = bytearray(path.read_bytes())
    struct.pack_into("<ff", content, 112, slope, intercept)  # scl_slope, scl_inter of the NIfTI-1 header
    return base64.b64encode(gzip.compress(bytes(content), 9, mtime=0)).decode("ascii")
