"""How well single lesions are found: connected components of a structure, matched one to one.

What makes a lesion, which pairs are hits and what counts in scans without lesions is declared in `rules.py`.

Paper: A. Kirillov et al., "Panoptic segmentation", CVPR 2019, https://arxiv.org/abs/1801.00868, for panoptic quality;
the choice of a low IoU for detection and of Hungarian assignment follows L. Maier-Hein et al., "Metrics reloaded",
Nature Methods 21 (2024), https://arxiv.org/abs/2206.01653.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ..errors import GeometryError, OptionError
from ..names import choose
from .rules import LESION_IOU, PANOPTIC_IOU
from .surfaces import Mask

Touching = Literal["corners", "faces"]

LARGER_IS_BETTER: dict[str, bool] = {
    "lesion f1": True,
    "lesion sensitivity": True,
    "lesion precision": True,
    "false lesions": False,
    "panoptic quality": True,
}
"""The metrics of `Lesions.values` in its order."""


@dataclass(frozen=True)
class Lesions:
    """What was found in one scan.

    Args:
        found: Labelled lesions with a partner (true positives).
        missed: Labelled lesions without one (false negatives).
        false: Predicted lesions without one (false positives).
        panoptic_quality: Sum of the IoU of pairs above `PANOPTIC_IOU` / (pairs + half of what has no such partner);
            NaN where there is no lesion on either side.
    """

    found: int
    missed: int
    false: int
    panoptic_quality: float

    @property
    def values(self) -> dict[str, float]:
        """By the names of `LARGER_IS_BETTER`; what has no denominator is NaN."""
        labelled, predicted = self.found + self.missed, self.found + self.false
        return {
            "lesion f1": 2 * self.found / (labelled + predicted) if labelled + predicted else math.nan,
            "lesion sensitivity": self.found / labelled if labelled else math.nan,
            "lesion precision": self.found / predicted if predicted else math.nan,
            "false lesions": float(self.false),
            "panoptic quality": self.panoptic_quality,
        }


def lesions(
    prediction: Mask,
    label: Mask,
    *,
    voxel_ml: float = 1.0,
    smallest_ml: float = 0.0,
    iou: float = LESION_IOU,
    touching: Touching = "corners",
) -> Lesions:
    """Counts of found, missed and false lesions of one structure in one scan.

    Args:
        prediction: Its voxels.
        label: Its voxels, of the same shape.
        voxel_ml: Volume of a voxel; only `smallest_ml` needs it.
        smallest_ml: Volume below which a lesion does not count, see `rules.RULES["smallest lesion"]`.
        iou: A pair is a hit if its intersection over union is above this; 0: at any overlap.
        touching: Whether voxels that share a corner belong to one component, or only those that share a face.

    Raises:
        GeometryError: If the shapes differ.
        OptionError: If `iou` is not from 0 to below 1, or the smallest volume is no volume.
    """
    if prediction.shape != label.shape:
        raise GeometryError(f"prediction and label share one shape, got {prediction.shape} and {label.shape}")
    if not 0 <= iou < 1:
        raise OptionError(f"a lesion is matched above an IoU from 0 to below 1, got {iou}")
    check_smallest(smallest_ml)
    if smallest_ml and not voxel_ml > 0:
        raise OptionError(f"a smallest lesion of {smallest_ml:g} ml needs a volume of voxels, and these have none")
    overlaps, predicted, labelled = _overlaps(components(prediction, touching), components(label, touching))
    # By default all count, those of a picture, which has no volume, too.
    counted = [s * voxel_ml >= smallest_ml * (1 - 1e-9) if smallest_ml else s > 0 for s in (predicted, labelled)]
    found, missed, false, _ = _counts(pairs(overlaps, iou), *counted)
    hits, lacking, spurious, total = _counts(pairs(overlaps, PANOPTIC_IOU), *counted)
    denominator = hits + (lacking + spurious) / 2
    return Lesions(found, missed, false, total / denominator if denominator else math.nan)


def check_smallest(smallest_ml: float) -> None:
    """A volume that can be one.

    Raises:
        OptionError: If it cannot.
    """
    if not (math.isfinite(smallest_ml) and smallest_ml >= 0):
        raise OptionError(f"the smallest lesion is a volume in ml, 0 for all, got {smallest_ml}")


def components(structure: Mask, touching: Touching = "corners") -> NDArray[np.int32]:
    """Components by number from 1 on, 0 outside, in the shape of the structure."""
    from scipy.ndimage import generate_binary_structure, label

    choose(touching, get_args(Touching), "way of touching")
    neighbours = generate_binary_structure(structure.ndim, structure.ndim if touching == "corners" else 1)
    found: NDArray[np.int32] = label(structure, neighbours)[0]
    return found


@dataclass(frozen=True)
class Overlaps:
    """Pairs of components that share voxels: numbers from 0 on, and intersection over union, each (N,)."""

    predicted: NDArray[np.int64]
    labelled: NDArray[np.int64]
    iou: NDArray[np.float64]


def pairs(overlaps: Overlaps, above: float) -> Overlaps:
    """Those above the IoU, each component in one pair at most, with the largest sum of IoU (Hungarian)."""
    from scipy.optimize import linear_sum_assignment
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    near = overlaps.iou > above
    rows, row = np.unique(overlaps.predicted[near], return_inverse=True)
    columns, column = np.unique(overlaps.labelled[near], return_inverse=True)
    iou, number = overlaps.iou[near], len(rows) + len(columns)
    # What does not overlap, not even by way of others, is assigned apart: one table of all would not fit for noise.
    graph = coo_array((np.ones(len(iou)), (row, len(rows) + column)), shape=(number, number))
    group = connected_components(graph, directed=False)[1][row] if len(iou) else np.empty(0, int)
    chosen: list[tuple[int, int, float]] = []
    for members in (np.flatnonzero(group == g) for g in range(group.max() + 1 if len(group) else 0)):
        own_rows, i = np.unique(row[members], return_inverse=True)
        own_columns, j = np.unique(column[members], return_inverse=True)
        table = np.zeros((len(own_rows), len(own_columns)))
        table[i, j] = iou[members]
        best = zip(*linear_sum_assignment(table, maximize=True), strict=True)
        chosen += [(rows[own_rows[a]], columns[own_columns[b]], table[a, b]) for a, b in best if table[a, b] > 0]
    found = np.array(chosen, float).reshape(-1, 3)
    return Overlaps(found[:, 0].astype(np.int64), found[:, 1].astype(np.int64), found[:, 2])


def _overlaps(
    predicted: NDArray[np.int32], labelled: NDArray[np.int32]
) -> tuple[Overlaps, NDArray[np.int64], NDArray[np.int64]]:
    """With the sizes of all components of both sides, in voxels."""
    sizes = [np.bincount(a.ravel(), minlength=1)[1:] for a in (predicted, labelled)]
    both = (predicted > 0) & (labelled > 0)
    p, y = predicted[both].astype(np.int64) - 1, labelled[both].astype(np.int64) - 1
    codes, shared = np.unique(p * max(len(sizes[1]), 1) + y, return_counts=True)
    p, y = np.divmod(codes, max(len(sizes[1]), 1))
    return Overlaps(p, y, shared / (sizes[0][p] + sizes[1][y] - shared)), sizes[0], sizes[1]


def _counts(
    matched: Overlaps, predicted: NDArray[np.bool_], labelled: NDArray[np.bool_]
) -> tuple[int, int, int, float]:
    """Found, missed, false, and the sum of IoU of those found; of components that count by their size."""
    hits = labelled[matched.labelled]
    missed, false = labelled.copy(), predicted.copy()
    missed[matched.labelled] = False
    false[matched.predicted] = False
    return int(hits.sum()), int(missed.sum()), int(false.sum()), float(matched.iou[hits].sum())
