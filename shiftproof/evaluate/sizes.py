"""Which labelled structures are too small for their scores to be taken at their word, see `metrics/rules.py`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..data.labels import IGNORE, LabelMap
from ..metrics.rules import Tolerance, small_below, tolerance_of, tolerance_words, unstable
from ..metrics.surfaces import Grid


@dataclass(frozen=True)
class Size:
    """A structure that is labelled in one scan.

    Args:
        subject: Whose scan.
        domain: Its domain.
        structure: Name.
        voxels: How many are labelled, at least 1.
        small: Whether overlap is unstable.
        below: Voxels that "small" is below.
        wide: Whether the tolerance reaches across it.
    """

    subject: str
    domain: str
    structure: str
    voxels: int
    small: bool
    below: int
    wide: bool


def sizes_of(
    label: np.ndarray,
    labels: LabelMap,
    spacing_mm: Sequence[float],
    tolerance_mm: Tolerance,
    *,
    subject: str,
    domain: str,
) -> list[Size]:
    """Of the structures that occur, in the order of the classes.

    Args:
        label: What `labels.encode` gives, of any number of axes.
        labels: Meaning of its values.
        spacing_mm: By axis.
        tolerance_mm: Of the surface Dice.
        subject: Whose it is.
        domain: Whose it is.
    """
    grid = Grid(label.shape, tuple(float(s) for s in spacing_mm))
    counts = np.bincount(label.ravel(), minlength=IGNORE + 1)
    if labels.kind == "multi-label":
        parts = np.array(labels.parts)
        voxels = counts[: len(parts)] @ parts
    else:
        voxels = counts[1 : len(labels.classes)]
    found = []
    for name, number in zip(labels.structures, voxels.tolist(), strict=True):
        if number:
            small, wide = unstable(number, grid, tolerance_of(tolerance_mm, name))
            found.append(Size(subject, domain, name, number, small, small_below(len(grid.axes)), wide))
    return found


def words(sizes: Sequence[Size], tolerance_mm: Tolerance) -> list[str]:
    """A line on each structure whose scores are unstable in some scans."""
    lines = []
    for name in dict.fromkeys(s.structure for s in sizes):
        own = [s for s in sizes if s.structure == name]
        small, wide = [s for s in own if s.small], [s for s in own if s.wide]
        if small:
            lines.append(
                f"{name}: fewer than {small[0].below} voxels in {len(small)} of {len(own)} scans that have it; Dice is "
                "unstable there, read detection (missed, spurious, lesions) and surface Dice beside it"
            )
        if wide:
            lines.append(
                f"{name}: the tolerance of {tolerance_words(tolerance_of(tolerance_mm, name))} reaches across it in "
                f"{len(wide)} of {len(own)} scans that have it; take a smaller one for the surface Dice"
            )
    return lines
