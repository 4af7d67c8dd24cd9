"""The declared rules of scoring, in one place: what the command, the pages and the code go by.

Nothing here is tuned to results. Change a constant, and results before and after cannot be compared.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ..errors import OptionError
from ..names import choose
from .surfaces import Grid

Tolerance = float | Mapping[str, float]
"""In mm: one for all structures, or by structure; those that are not named have `TOLERANCE_MM`."""

TOLERANCE_MM = 2.0
"""Of the surface Dice and the boundary IoU where nothing else is said."""

SMALL_SIDE = 5
"""A structure of fewer voxels than a square or cube of this side is small: moved by one voxel, such a cube loses a
fifth of its Dice."""

LESION_IOU = 0.1
"""A predicted lesion finds a labelled one where their intersection over union is above this."""

PANOPTIC_IOU = 0.5
"""The same for panoptic quality; above one half no component can have two partners."""

RULES: dict[str, str] = {
    "unit": "Every value is of one scan; a subject's scans are averaged, then subjects. Voxels of different subjects "
    "are never pooled.",
    "both empty": "A structure that is in neither label nor prediction is a correct rejection: no value (NaN), left "
    'out of means, counted as "both empty". Only false lesions have one: 0.',
    "missed": "A structure that is labelled and not predicted: 0 for shares, for distances the diagonal of the image, "
    'no precision; counted as "missed".',
    "spurious": "A structure that is predicted and not labelled: as missed, with no sensitivity in place of no "
    'precision; counted as "spurious".',
    "not annotated": "A structure that a domain does not annotate has no value there.",
    "ignored": "Voxels that the label says nothing of belong to neither side; a face towards them is no border.",
    "small": f"A labelled structure of fewer than {SMALL_SIDE**2} voxels in a slice or {SMALL_SIDE**3} in a volume "
    "is small: one voxel more or less moves its Dice by much. Overlap is still given, said to be unstable, and "
    "detection and boundary are to be read with it.",
    "tolerance": f"Surface Dice and boundary IoU take a tolerance in mm, {TOLERANCE_MM:g} if none is given, by "
    "structure where they differ. Right is the distance between two raters. At or above the radius of a ball as large "
    "as the structure the surface Dice says little more than that something was found; at less than the voxel size "
    "it asks for the very same voxels.",
    "surface": "Border voxels are those with a face neighbour outside; all weigh the same. HD95 is the larger of two "
    "directed 95th percentiles, ASSD the mean over both directions together, MASD the mean of two directed means.",
    "lesions": "Lesions are the connected components of a structure; voxels that touch by a corner belong together "
    "(8 neighbours in a slice, 26 in a volume).",
    "lesion match": f"A predicted lesion finds a labelled one if their IoU is above {LESION_IOU:g}; each has at most "
    "one partner, chosen so that the IoU of all pairs adds up to the most. Panoptic quality counts pairs with an IoU "
    f"above {PANOPTIC_IOU:g}.",
    "smallest lesion": "None is left out unless a smallest volume is given: then smaller labelled lesions are no "
    "misses, smaller predicted ones are not false, and pairs whose labelled lesion is smaller count for nothing.",
    "lesion-free scans": "A scan without labelled and without predicted lesions has no sensitivity, precision, F1 or "
    "panoptic quality, and 0 false lesions, so that false lesions per scan count healthy scans too.",
    "missing prediction": "A scan without a prediction is listed and left out; `--missing missed` counts all that is "
    "labelled there as missed.",
}
"""By name, in words."""


def small_below(axes: int) -> int:
    """Voxels below which a structure is small, on a grid with so many axes of more than one voxel."""
    return int(SMALL_SIDE**axes)


def radius_mm(voxels: int, grid: Grid) -> float:
    """Of the ball, or in a slice the disc, with the volume of so many voxels."""
    sides = [grid.spacing_mm[axis] for axis in grid.axes]
    size = voxels * math.prod(sides)
    return math.sqrt(size / math.pi) if len(sides) == 2 else float((size * 3 / (4 * math.pi)) ** (1 / 3))


def unstable(voxels: int, grid: Grid, tolerance_mm: float) -> tuple[bool, bool]:
    """Whether a labelled structure is small, and whether the tolerance reaches across it; neither if it is empty."""
    if not voxels:
        return False, False
    return voxels < small_below(len(grid.axes)), tolerance_mm >= radius_mm(voxels, grid)


def tolerance_of(tolerance_mm: Tolerance, structure: str) -> float:
    """That of one structure, mm."""
    if isinstance(tolerance_mm, Mapping):
        return float(tolerance_mm.get(structure, TOLERANCE_MM))
    return float(tolerance_mm)


def check_tolerance(tolerance_mm: Tolerance, structures: Sequence[str]) -> None:
    """Of known structures, and distances; 0 asks for the very same voxels.

    Raises:
        OptionError: If not.
    """
    given = tolerance_mm if isinstance(tolerance_mm, Mapping) else {"": tolerance_mm}
    for name, value in given.items():
        if name:
            choose(name, structures, "structure")
        if not (math.isfinite(value) and value >= 0):
            raise OptionError(
                f"a tolerance is a distance in mm, 0 or more, got {value}{f' for {name}' if name else ''}"
            )


def read_tolerance(text: str | float) -> float | dict[str, float]:
    """ "2", or "lesion=1,liver=3".

    Raises:
        OptionError: If it is neither.
    """
    parts = str(text).split(",")
    try:
        if len(parts) == 1 and "=" not in parts[0]:
            return float(parts[0])
        found = {}
        for part in parts:
            name, equals, value = part.rpartition("=")
            if not equals or not name.strip():
                raise ValueError(part)
            found[name.strip()] = float(value)
        return found
    except ValueError as error:
        raise OptionError(
            f"a tolerance is a number of mm, or one by structure such as lesion=1,liver=3, got {text!r}"
        ) from error


def tolerance_words(tolerance_mm: Tolerance) -> str:
    """ "2 mm", or "1 mm for lesion, 2 mm for others"."""
    if not isinstance(tolerance_mm, Mapping):
        return f"{tolerance_mm:g} mm"
    return ", ".join([*(f"{v:g} mm for {k}" for k, v in tolerance_mm.items()), f"{TOLERANCE_MM:g} mm for others"])
