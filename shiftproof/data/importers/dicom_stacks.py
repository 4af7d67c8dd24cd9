"""Which planes of a series make a volume, and in which order."""

from __future__ import annotations

from collections import defaultdict
from itertools import combinations

import numpy as np

from ...errors import CohortError
from .dicom_headers import KEYS, Plane

SAME_MM = 0.01
"""Two images that are closer lie at one place."""

TOLERANCE_MM = 0.05
"""Of the steps between slices; scanners round positions to some hundredths."""


class Irregular(CohortError):
    """A series that is no regular volume; the words say why, and tell nothing of the patient."""


def stacks(planes: list[Plane]) -> list[list[Plane]]:
    """Volumes of a series, each in the order of its slices; planes without a place are pictures of their own.

    A series with several orientations, sizes or pixel sizes has a volume for each. Where all positions repeat
    (echoes, time points, b-values), each repetition is a volume.

    Raises:
        Irregular: If slices are missing, uneven, shifted against each other, or repeated beyond telling apart.
    """
    placed = [p for p in planes if p.position and p.orientation and p.spacing]
    if not placed:
        return [[p] for p in sorted(planes, key=lambda p: (p.number, str(p.path)))]
    if len(placed) < len(planes):
        raise Irregular(f"{len(planes) - len(placed)} of {len(planes)} images have no position")
    groups: list[list[Plane]] = []
    for plane in placed:
        group = next((g for g in groups if _alike(g[0], plane)), None)
        if group is None:
            groups.append([plane])
        else:
            group.append(plane)
    return [stack for group in groups for stack in _repetitions(group)]


def _alike(first: Plane, second: Plane) -> bool:
    """Whether two planes can be slices of one volume."""
    return (
        first.size == second.size
        and np.allclose(first.orientation or (), second.orientation or (), rtol=0, atol=0.01)
        and np.allclose(first.spacing or (), second.spacing or (), rtol=1e-3, atol=0)
    )


def axes(plane: Plane) -> np.ndarray:
    """(3, 3): directions of a row, of a column and from slice to slice, one a row, at right angles.

    Raises:
        Irregular: If the file's directions are not.
    """
    row, column = np.array(plane.orientation or (0.0,) * 6).reshape(2, 3)
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if not np.allclose(lengths, 1, atol=0.01) or abs(row @ column) > 0.01:
        raise Irregular("the directions of rows and columns are not at right angles")
    row = row / lengths[0]
    normal = np.cross(row, column)
    normal /= np.linalg.norm(normal)
    return np.stack([row, np.cross(normal, row), normal])


def step_mm(stack: list[Plane]) -> float:
    """From slice to slice; of a single one its thickness, or 1."""
    if len(stack) == 1:
        return stack[0].thickness or 1.0
    return float(_heights(stack)[[0, -1]] @ (-1, 1)) / (len(stack) - 1)


def _repetitions(group: list[Plane]) -> list[list[Plane]]:
    number = _distinct(group)
    if number == len(group):
        return [_regular(group)]
    for names in (n for r in (1, 2, 3) for n in combinations(KEYS, r)):
        parts: dict[tuple[str, ...], list[Plane]] = defaultdict(list)
        for plane in group:
            parts[tuple(dict(plane.keys)[n] for n in names)].append(plane)
        if all(len(p) == number == _distinct(p) for p in parts.values()):
            return [_regular(part) for _, part in sorted(parts.items(), key=lambda item: _order(item[0]))]
    raise Irregular(
        f"{len(group)} images at {number} positions repeat some of them, and neither {', '.join(KEYS)} tells them apart"
    )


def _distinct(group: list[Plane]) -> int:
    """At how many places the planes lie."""
    return 1 + int((np.diff(np.sort(_heights(group))) > SAME_MM).sum())


def _order(values: tuple[str, ...]) -> tuple[tuple[float, str], ...]:
    def number(text: str) -> float:
        try:
            return float(text)
        except ValueError:
            return 0.0

    return tuple((number(v), v) for v in values)


def _regular(stack: list[Plane]) -> list[Plane]:
    """The planes in order.

    Raises:
        Irregular: If they are not evenly spaced along their normal.
    """
    heights = _heights(stack)
    order = np.argsort(heights, kind="stable")
    stack, heights = [stack[i] for i in order], heights[order]
    directions = axes(stack[0])
    if len(stack) == 1:
        return stack
    steps = np.diff(heights)
    usual = float(np.median(steps))
    off = np.abs(steps - usual) > max(0.1 * usual, TOLERANCE_MM)
    if off.any():
        where = int(np.flatnonzero(off)[0])
        missing = round(steps[where] / usual) - 1
        what = f"{missing} slices are missing" if missing >= 1 else f"the step is {steps[where]:.3g} mm"
        raise Irregular(f"{what} after slice {where + 1} of {len(stack)}, where others are {usual:.3g} mm apart")
    positions = np.array([p.position for p in stack])
    aside = positions - positions[0] - np.outer(heights - heights[0], directions[2])
    shift = float(np.linalg.norm(aside, axis=1).max())
    if shift > max(2 * TOLERANCE_MM, 0.1 * min(stack[0].spacing or (1.0,))):
        raise Irregular(f"slices are shifted against each other by {shift:.3g} mm (a tilted gantry)")
    return stack


def _heights(stack: list[Plane]) -> np.ndarray:
    """Places of the planes along their normal, in mm."""
    return np.array([p.position for p in stack]) @ axes(stack[0])[2]
