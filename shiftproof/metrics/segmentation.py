"""How well a segmentation fits its label: overlap, surfaces in mm, volume in ml.

Conventions, fixed here because libraries differ:

- The *surface* of a structure is its border voxels, those with a face neighbour outside it; all
  weigh the same. The edge of the image counts as outside. An axis of a single voxel has no
  neighbours, so that a slice (X, Y, 1) is measured in its plane.
- *Surface Dice*: border voxels of either side within the tolerance of the other side's border,
  as a share of all border voxels (also called normalised surface Dice, NSD).
- *HD95*: the larger of the two directed 95th percentiles, not the percentile of both together.
- *ASSD*: mean over the distances of both directions together, not of the two directed means; that is *MASD*.
- *Boundary IoU*: of the two bands of voxels within the tolerance of their own border (B. Cheng et al., "Boundary IoU",
  CVPR 2021, https://arxiv.org/abs/2103.16562, where the width is a share of the image's diagonal).
- *clDice*: harmonic mean of the share of the prediction's centreline inside the label and of the label's inside the
  prediction (S. Shit et al., "clDice", CVPR 2021, https://arxiv.org/abs/2003.07311); it needs scikit-image.
- *Empty structures*: absent from both, every value is NaN and the status "both empty": to be left
  out of means, and counted. Absent from one ("missed" or "spurious"), Dice and surface Dice are 0
  and distances the diagonal of the image, shape times spacing; of sensitivity and precision, the
  one without denominator is NaN. Lesions have rules of their own; `rules.py` has all of them in words.
- *Ignored voxels* belong to neither side, and a face towards them is no border. Where nothing else
  is left of a surface, what reads distances is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import GeometryError, LabelError, OptionError
from ..names import choose
from .lesions import LARGER_IS_BETTER as LESION_METRICS
from .lesions import check_smallest
from .lesions import lesions as lesions_of
from .rules import TOLERANCE_MM, Tolerance, check_tolerance, tolerance_of
from .surfaces import Grid, Mask, assd, band, border, distances, hd95, masd
from .surfaces import surface_dice as within

Array = Tensor | NDArray[Any]
Box = tuple[slice, ...]

LARGER_IS_BETTER: dict[str, bool | None] = {
    "dice": True,
    "surface dice": True,
    "hd95 mm": False,
    "assd mm": False,
    "sensitivity": True,
    "precision": True,
    "volume error ml": None,
}
"""The metrics of `measure` in its order; None: signed, best at 0."""

ALSO: dict[str, bool] = {"masd mm": False, "boundary iou": True, "cldice": True}
"""What `measure` gives beside them where it is asked to."""


class Measured(TypedDict):
    """One value of `measure`."""

    structure: str
    metric: str
    value: float
    status: str


def measure(
    prediction: Array,
    label: Array,
    *,
    classes: Sequence[str],
    spacing_mm: Sequence[float],
    annotated: Sequence[bool] | Array | None = None,
    ignore: Array | None = None,
    tolerance_mm: Tolerance = TOLERANCE_MM,
    lesions: Sequence[str] = (),
    smallest_lesion_ml: float = 0.0,
    also: Sequence[str] = (),
) -> list[Measured]:
    """Every metric of every annotated structure of one scan.

    Args:
        prediction: (X, Y, Z) class indices in the scan's own geometry.
        label: (X, Y, Z) class indices.
        classes: Names by index; the first is the background and has no rows.
        spacing_mm: Of the three axes.
        annotated: (K,) bool; structures that the label's site does not annotate have no rows.
        ignore: (X, Y, Z) bool, voxels that the label says nothing of, whatever its value there.
        tolerance_mm: Of surface Dice and boundary IoU; by structure where they differ.
        lesions: Structures whose components are counted one by one, see `lesions.py`.
        smallest_lesion_ml: Volume below which a component does not count.
        also: Names in `ALSO`.

    Returns:
        Rows in the order of `classes`, then of `LARGER_IS_BETTER`, of `also`, and of the metrics of lesions; the
        status is "ok", "both empty", "missed" or "spurious".

    Raises:
        GeometryError: If the arrays do not share one shape, or the spacing does not fit it.
        LabelError: If a value is no class index.
        OptionError: If a structure or metric is unknown, or a tolerance is no distance.
    """
    check_asked(classes[1:], tolerance_mm, lesions, smallest_lesion_ml, also)
    also = list(dict.fromkeys(also))
    ignored = None if ignore is None else _numpy(ignore).astype(bool)
    shapes = [_numpy(array).shape for array in (prediction, label, ignore) if array is not None]
    if len(set(shapes)) > 1:
        raise GeometryError(f"prediction, label and ignored voxels share one shape, got {shapes}")
    predicted = _indices("prediction", _numpy(prediction), len(classes), None)
    labelled = _indices("label", _numpy(label), len(classes), ignored)
    grid = Grid(labelled.shape, tuple(float(s) for s in spacing_mm))
    seen = np.ones(len(classes), bool) if annotated is None else _numpy(annotated).astype(bool)
    if seen.shape != (len(classes),):
        raise LabelError(f"annotated is one bool for each of {len(classes)} classes, got shape {seen.shape}")

    rows: list[Measured] = []
    boxes = zip(_boxes(predicted, len(classes)), _boxes(labelled, len(classes)), strict=True)
    for index, found in enumerate(boxes, start=1):
        if not seen[index]:
            continue
        box = _around(found, grid.shape)
        unknown = None if ignored is None else ignored[box]
        pair = Pair(predicted[box] == index, labelled[box] == index, unknown, grid)
        name, status = classes[index], pair.status
        values = pair.values(tolerance_of(tolerance_mm, name), also)
        if name in lesions:
            counted = lesions_of(pair.prediction, pair.label, voxel_ml=grid.voxel_ml, smallest_ml=smallest_lesion_ml)
            values |= counted.values
        rows += [
            {"structure": name, "metric": metric, "value": float(values[metric]), "status": status}
            for metric in (*LARGER_IS_BETTER, *also, *(LESION_METRICS if name in lesions else ()))
        ]
    return rows


def check_asked(
    structures: Sequence[str],
    tolerance_mm: Tolerance,
    lesions: Sequence[str],
    smallest_lesion_ml: float,
    also: Sequence[str],
) -> None:
    """Whether `measure` can do what is asked of it, before the first scan is predicted.

    Raises:
        OptionError: If a structure or metric is unknown, a tolerance is no distance, or a library is missing.
    """
    check_tolerance(tolerance_mm, structures)
    check_smallest(smallest_lesion_ml)
    for name in lesions:
        choose(name, structures, "structure")
    for name in also:
        choose(name, ALSO, "further metric")
    if "cldice" in also:
        _skeletonize()


@dataclass
class Pair:
    """One structure, predicted and labelled, in a box that holds both.

    Args:
        prediction: Its voxels.
        label: Its voxels.
        ignored: Voxels taken from both, or None.
        grid: Of the whole image.
    """

    prediction: Mask
    label: Mask
    ignored: Mask | None
    grid: Grid

    def __post_init__(self) -> None:
        if self.ignored is not None:
            self.prediction = self.prediction & ~self.ignored
            self.label = self.label & ~self.ignored

    @property
    def status(self) -> str:
        if self.prediction.any():
            return "ok" if self.label.any() else "spurious"
        return "missed" if self.label.any() else "both empty"

    def values(self, tolerance_mm: float, also: Sequence[str] = ()) -> dict[str, float]:
        """By the names of `LARGER_IS_BETTER` and `also`."""
        both = np.count_nonzero(self.prediction & self.label)
        predicted, labelled = np.count_nonzero(self.prediction), np.count_nonzero(self.label)
        if not predicted and not labelled:
            return dict.fromkeys([*LARGER_IS_BETTER, *also], math.nan)
        far = self.grid.diagonal_mm
        surface = {"surface dice": 0.0, "hd95 mm": far, "assd mm": far, "masd mm": far}
        surface |= {"boundary iou": 0.0, "cldice": 0.0}
        if predicted and labelled:
            borders = [border(side, self.grid.axes, self.ignored) for side in (self.prediction, self.label)]
            found = distances(borders[0], borders[1], self.grid.spacing_mm)
            surface |= {
                "surface dice": within(found, tolerance_mm),
                "hd95 mm": hd95(found),
                "assd mm": assd(found),
                "masd mm": masd(found),
            }
            if "boundary iou" in also:
                surface["boundary iou"] = self._boundary_iou(borders, tolerance_mm)
            if "cldice" in also:
                surface["cldice"] = self._centreline_dice()
        return {
            "dice": 2 * both / (predicted + labelled),
            "sensitivity": both / labelled if labelled else math.nan,
            "precision": both / predicted if predicted else math.nan,
            "volume error ml": (predicted - labelled) * self.grid.voxel_ml,
            **surface,
        }

    def _boundary_iou(self, borders: Sequence[Mask], tolerance_mm: float) -> float:
        if not all(b.any() for b in borders):
            return math.nan
        p, y = (
            band(side, own, tolerance_mm, self.grid.spacing_mm)
            for side, own in zip((self.prediction, self.label), borders, strict=True)
        )
        return float(np.count_nonzero(p & y) / np.count_nonzero(p | y))

    def _centreline_dice(self) -> float:
        lines = [_skeleton(side, self.grid.axes) for side in (self.prediction, self.label)]
        share = [
            np.count_nonzero(line & other) / np.count_nonzero(line)
            for line, other in zip(lines, (self.label, self.prediction), strict=True)
        ]
        return 2 * share[0] * share[1] / sum(share) if sum(share) else 0.0


def _skeletonize() -> Callable[[Mask], Mask]:
    try:
        from skimage.morphology import skeletonize
    except ImportError as error:
        raise OptionError(
            "clDice needs scikit-image for its centrelines; pip install scikit-image, or leave cldice out"
        ) from error
    return skeletonize  # type: ignore[no-any-return]


def _skeleton(structure: Mask, axes: Sequence[int]) -> Mask:
    """The centreline, of a slice (X, Y, 1) in its plane; of what thins away to nothing, all of it."""
    if len(axes) < 2:
        return structure
    # Without room around them voxels at the edge of the array are not thinned as others are.
    room = np.pad(structure.reshape([structure.shape[axis] for axis in axes]), 1)
    line = np.asarray(_skeletonize()(room), bool)
    found = line[(slice(1, -1),) * len(axes)].reshape(structure.shape)
    return found if found.any() else structure


def dice(prediction: Array, label: Array, *, ignore: Array | None = None) -> Tensor:
    """2 |P and L| / (|P| + |L|), (B,), of binary (B, *space); NaN where both are empty."""
    both, predicted, labelled = _counts(prediction, label, ignore)
    return 2 * both / (predicted + labelled)


def sensitivity(prediction: Array, label: Array, *, ignore: Array | None = None) -> Tensor:
    """|P and L| / |L|, (B,), of binary (B, *space); NaN where the label is empty."""
    both, _, labelled = _counts(prediction, label, ignore)
    return both / labelled


def precision(prediction: Array, label: Array, *, ignore: Array | None = None) -> Tensor:
    """|P and L| / |P|, (B,), of binary (B, *space); NaN where the prediction is empty."""
    both, predicted, _ = _counts(prediction, label, ignore)
    return both / predicted


def volume_error_ml(
    prediction: Array, label: Array, *, spacing_mm: Sequence[float], ignore: Array | None = None
) -> Tensor:
    """Predicted less labelled volume, (B,), of binary (B, X, Y, Z); NaN where both are empty."""
    return _by_sample("volume error ml", prediction, label, spacing_mm, ignore)


def surface_dice(
    prediction: Array,
    label: Array,
    *,
    spacing_mm: Sequence[float],
    tolerance_mm: float = TOLERANCE_MM,
    ignore: Array | None = None,
) -> Tensor:
    """Share of the borders within the tolerance of each other, (B,), of binary (B, *space)."""
    return _by_sample("surface dice", prediction, label, spacing_mm, ignore, tolerance_mm)


def hd95_mm(prediction: Array, label: Array, *, spacing_mm: Sequence[float], ignore: Array | None = None) -> Tensor:
    """The larger directed 95th percentile of border distances, (B,), of binary (B, *space)."""
    return _by_sample("hd95 mm", prediction, label, spacing_mm, ignore)


def assd_mm(prediction: Array, label: Array, *, spacing_mm: Sequence[float], ignore: Array | None = None) -> Tensor:
    """Average symmetric surface distance, (B,), of binary (B, *space)."""
    return _by_sample("assd mm", prediction, label, spacing_mm, ignore)


def _by_sample(
    metric: str,
    prediction: Array,
    label: Array,
    spacing_mm: Sequence[float],
    ignore: Array | None,
    tolerance_mm: float = 2.0,
) -> Tensor:
    predictions, labels = _numpy(prediction).astype(bool), _numpy(label).astype(bool)
    ignored = [None] * len(labels) if ignore is None else _numpy(ignore).astype(bool)
    grid = Grid(labels.shape[1:], tuple(float(s) for s in spacing_mm))
    pairs = (Pair(p, y, i, grid) for p, y, i in zip(predictions, labels, ignored, strict=True))
    return torch.tensor([pair.values(tolerance_mm)[metric] for pair in pairs], dtype=torch.float64)


def _counts(prediction: Array, label: Array, ignore: Array | None) -> tuple[Tensor, Tensor, Tensor]:
    """|P and L|, |P| and |L|, each (B,)."""
    p, y = torch.as_tensor(prediction).flatten(1).bool(), torch.as_tensor(label).flatten(1).bool()
    if ignore is not None:
        counted = ~torch.as_tensor(ignore).flatten(1).bool()
        p, y = p & counted, y & counted
    return (p & y).sum(1).double(), p.sum(1).double(), y.sum(1).double()


def _boxes(indices: NDArray[np.integer], classes: int) -> list[Box | None]:
    """Of the classes from 1 on."""
    from scipy.ndimage import find_objects

    return find_objects(indices, max_label=classes - 1) if classes > 1 else []


def _around(boxes: Sequence[Box | None], shape: tuple[int, ...]) -> Box:
    """The smallest box that holds all, and a voxel more: beyond it nothing can matter."""
    given = [box for box in boxes if box is not None]
    if not given:
        return tuple(slice(0, 0) for _ in shape)
    return tuple(
        slice(max(min(s.start for s in sides) - 1, 0), min(max(s.stop for s in sides) + 1, extent))
        for extent, *sides in zip(shape, *given, strict=True)
    )


def _numpy(array: Any) -> NDArray[Any]:
    return array.detach().cpu().numpy() if isinstance(array, Tensor) else np.asarray(array)


def _indices(name: str, array: NDArray[Any], classes: int, ignored: Mask | None) -> NDArray[np.integer]:
    """Class indices, 0 where ignored."""
    if array.dtype.kind not in "iub":
        raise LabelError(f"a {name} holds class indices, got {array.dtype} values; take the argmax of scores")
    if ignored is not None:
        array = np.where(ignored, 0, array)
    if array.size and not 0 <= array.min() <= array.max() < classes:
        wrong = np.unique(array[(array < 0) | (array >= classes)])[:10].tolist()
        raise LabelError(f"a {name} of {classes} classes holds 0 to {classes - 1}, got also {wrong}")
    return array.astype(np.uint8 if classes <= 256 else np.int32, copy=False)
