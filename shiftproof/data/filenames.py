"""What the name of an image file says: its format, its stem, and the volume that is meant of several."""

from __future__ import annotations

import re
from pathlib import Path

SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".png", ".tiff", ".tif")
"""What can be read, longest first where one ends with another."""

DETACHED = (".nhdr", ".mhd")
"""Headers that name a second file with the values: read but not written, as two files have no single step."""

PICTURES = (".png", ".tiff", ".tif")
"""Formats whose resolution is about printing, not about the body: their voxels count as 1 mm."""


def suffix_of(path: Path | str) -> str:
    """The image extension of a file name, ".nii.gz" as one, also before "#N"; "" for other files."""
    return _suffix(_divided(Path(path).name)[0])


def stem_of(path: Path | str) -> str:
    """The file name without its image extension, and without "#N"."""
    name = _divided(Path(path).name)[0]
    return name[: len(name) - len(_suffix(name))]


def file_of(path: Path | str) -> Path:
    """The file on disk: `a.nii.gz` for `a.nii.gz#2`."""
    path = Path(path)
    return path.with_name(_divided(path.name)[0]) if path.name else path


def volume_of(path: Path | str) -> int | None:
    """The volume, from 0, that is meant of several in one file; None where the name says nothing."""
    return _divided(Path(path).name)[1]


def _divided(name: str) -> tuple[str, int | None]:
    found = re.fullmatch(r"(.+)#([0-9]{1,9})", name)
    return (found[1], int(found[2])) if found and _suffix(found[1]) else (name, None)


def _suffix(name: str) -> str:
    name = name.lower()
    return next((suffix for suffix in SUFFIXES if name.endswith(suffix)), "")
