"""What is seen of each training scan before there is a plan."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import ShiftproofError
from .filenames import file_of
from .geometry import Geometry
from .images import array_of, is_picture, read_image, require_same_geometry
from .labels import IGNORE, LabelMap
from .parallel import run
from .preprocess import background_of, content_box

if TYPE_CHECKING:
    from .cohort import Cohort, Row

FRAME = "LPS"
"""Orientation in which scans are compared before the plan's own is known."""

_DRAWN = 4000


@dataclass(frozen=True)
class Facts:
    """One scan: where it is from, its grid in `FRAME`, and some of its intensities.

    Args:
        domain: Its domain.
        picture: Whether the file has two axes.
        size: Voxels.
        cropped: Voxels of the box of what is not background.
        spacing_mm: Voxel size.
        values: Drawn evenly from what is not background, by channel.
        structures: Drawn from what has a label other than background, by channel; only where asked for.
    """

    domain: str
    picture: bool
    size: tuple[int, int, int]
    cropped: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    values: dict[str, np.ndarray] = field(default_factory=dict)
    structures: dict[str, np.ndarray] = field(default_factory=dict)


def facts_of(
    cohort: Cohort,
    *,
    clip: Sequence[str] = (),
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> list[Facts]:
    """`Facts` of every scan; of the channels in `clip` the intensities of labelled structures too."""
    labels = cohort.labels if isinstance(cohort.labels, LabelMap) else None
    jobs = [(row, labels, tuple(clip)) for row in cohort.rows()]
    return run(_facts, jobs, workers=workers, progress=progress)


def _facts(row: Row, labels: LabelMap | None, clip: tuple[str, ...]) -> Facts:
    files = tuple((c, p, _stamp(p)) for c, p in row.images.items() if p is not None)
    label = (row.label, _stamp(row.label)) if clip and row.label is not None and labels is not None else None
    try:
        return _read_facts(files, label, labels if label else None, row.domain, clip)
    except ShiftproofError as error:
        raise type(error)(f"subject {row.subject}: {error}") from error


# A leave-one-out study plans from nearly the same scans again and again.
@functools.lru_cache(maxsize=2048)
def _read_facts(
    files: tuple[tuple[str, Path, tuple[int, int]], ...],
    label: tuple[Path, tuple[int, int]] | None,
    labels: LabelMap | None,
    domain: str,
    clip: tuple[str, ...],
) -> Facts:
    images = {channel: read_image(path) for channel, path, _ in files}
    (first, reference), *others = images.items()
    for channel, image in others:
        require_same_geometry(reference, image, f"channels {first} and {channel}")
    picture = is_picture(reference)
    whole = Geometry.of(reference, "" if picture else FRAME)
    arrays = {c: whole.forward(array_of(image)).astype(np.float32) for c, image in images.items()}
    backgrounds = {c: background_of(a) for c, a in arrays.items()}
    box = content_box(arrays, backgrounds)
    values = {c: _drawn(a[box], a[box] != backgrounds[c]) for c, a in arrays.items()}
    structures = {}
    if label is not None and labels is not None:
        image = read_image(label[0])
        require_same_geometry(reference, image, "image and label")
        index = labels.encode(whole.forward(array_of(image)), domain, name=str(label[0]))
        structures = {c: _drawn(arrays[c], (index > 0) & (index < IGNORE)) for c in clip if c in arrays}
    cropped = tuple(s.stop - s.start for s in box)
    return Facts(domain, picture, whole.turned_size, cropped, whole.turned_spacing_mm, values, structures)  # type: ignore[arg-type]


def _stamp(path: Path) -> tuple[int, int]:
    # A file that is missing is reported by the reader, in its words.
    file = file_of(path)
    if not file.exists():
        return 0, 0
    stat = file.stat()
    return stat.st_size, stat.st_mtime_ns


def _drawn(array: np.ndarray, where: np.ndarray) -> np.ndarray:
    values = array[where]
    return values[:: math.ceil(len(values) / _DRAWN)].copy() if len(values) else values
