"""DICOM-SEG files as labels on the grid of the series that they segment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ...errors import OptionError
from .dicom_headers import Plane, harmless, reading
from .dicom_stacks import Irregular, axes, step_mm


def segment_names(path: Path, words: tuple[str, ...]) -> dict[int, str]:
    """Name by number of the segments in a file: their labels, or where those identify someone their types.

    Raises:
        FileError: If the file cannot be read.
        Irregular: If it holds fractions.
        OptionError: If highdicom is not installed.
    """
    file = _read(path)
    with reading(path):
        fractional = "BINARY" not in str(file.segmentation_type) and "LABELMAP" not in str(file.segmentation_type)
        names = {}
        for number in file.segment_numbers:
            description = file.get_segment_description(number)
            kind = str(description.segmented_property_type.meaning)
            names[int(number)] = (
                harmless(str(description.segment_label), words) or harmless(kind, words) or f"segment {number}"
            )
    if fractional:
        raise Irregular("its segments are fractions, expected a binary segmentation")
    return names


def label_of(path: Path, stack: list[Plane], frame_of_reference: str, values: dict[int, int]) -> np.ndarray | None:
    """(slices, rows, columns) label of a volume; None if the file lies in another place.

    Args:
        path: The DICOM-SEG file.
        stack: The volume's planes.
        frame_of_reference: UID of their coordinates.
        values: Label value by number of the segment.

    Raises:
        FileError: If the file cannot be read.
        Irregular: If segments overlap.
    """
    import highdicom

    file = _read(path)
    first = stack[0]
    if not first.position or not first.spacing:
        return None
    row, column, normal = axes(first)
    affine = np.eye(4)
    affine[:3, :3] = np.stack([normal * step_mm(stack), column * first.spacing[1], row * first.spacing[0]], axis=1)
    affine[:3, 3] = first.position
    shape = (len(stack), first.size[1], first.size[0])
    with reading(path):
        if str(file.get("FrameOfReferenceUID", "")) != frame_of_reference:
            return None
        grid = highdicom.VolumeGeometry(affine, shape, "PATIENT", frame_of_reference)
        try:
            volume = file.get_volume(combine_segments=True, relabel=False)
        except RuntimeError as error:
            if "overlap" in str(error).lower():
                raise Irregular("its segments overlap, expected one structure a voxel") from None
            return None
        try:
            numbers = volume.match_geometry(grid, tol=1e-3).array
        except RuntimeError:
            return None
    table = np.zeros(int(max(values, default=0)) + 1, np.uint8)
    for number, value in values.items():
        table[number] = value
    return table[numbers]


def _read(path: Path) -> Any:
    try:
        import highdicom
    except ImportError as error:
        raise OptionError(
            "DICOM-SEG files are read with highdicom, which is not installed; pip install 'shiftproof[dicom]'"
        ) from error
    with reading(path):
        return highdicom.seg.segread(path)
