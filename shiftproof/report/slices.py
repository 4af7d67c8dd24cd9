"""A slice of a scan as radiologists look at it, with label and prediction, letters and a scale."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import SimpleITK as sitk
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ..data.images import array_of, compare_geometry, is_picture
from ..data.labels import IGNORE
from .numbers import number

# Light enough for dark scans, apart for colour-blind readers, and none of them the colour of a domain's dots.
STRUCTURES = ("#4cc9f0", "#ffd166", "#ff7b9c", "#9bf6a5", "#c8a2ff", "#ff9f5a")
OTHERS = "#ffffff"
PANEL = 2.6  # inches
MARGIN = 0.19  # inches around the slice for letters and scale
FILLED = 0.25  # share of the picture from which on structures set the grey window
TINT = 0.24  # opacity: the label must not hide what it is about
PLANES = {0: "sagittal", 1: "coronal", 2: "axial"}  # of an image turned to L, P, S


@dataclass(frozen=True)
class Slice:
    """A plane of an image as it is looked at: rows go down, columns to the right."""

    image: np.ndarray  # (H, W)
    label: np.ndarray  # (H, W) class index, 255 unknown
    prediction: np.ndarray  # (H, W)
    spacing_mm: tuple[float, float] | None  # down, right; None where the file has none
    letters: dict[str, str]  # top, bottom, left, right; empty where the file has no orientation
    plane: str
    index: int
    count: int


@dataclass(frozen=True)
class Place:
    """Which plane of a scan is looked at, with the scan turned to the patient's left, posterior and superior."""

    images: tuple[sitk.Image, sitk.Image, sitk.Image]  # image, label, prediction on one grid
    arrays: tuple[np.ndarray, np.ndarray, np.ndarray]  # of them, (X, Y, Z)
    axis: int
    index: int
    picture: bool

    @property
    def plane(self) -> str:
        return "picture" if self.picture else PLANES[self.axis]

    @property
    def count(self) -> int:
        return int(self.arrays[0].shape[self.axis])

    def with_prediction(self, prediction: sitk.Image) -> Place:
        """The same slice of the same scan with another prediction."""
        image = self.images[0]
        turned = on_grid(prediction if self.picture else sitk.DICOMOrient(prediction, "LPS"), image)
        return replace(self, images=(*self.images[:2], turned), arrays=(*self.arrays[:2], array_of(turned)))

    def centre(self) -> list[int]:
        """Voxel (x, y, z) of this plane in the middle of what is marked there, or of the plane."""
        marked = structure_voxels(self.arrays[1], self.arrays[2]).take(self.index, axis=self.axis)
        middle = [int(a.mean()) for a in np.nonzero(marked)] if marked.any() else [s // 2 for s in marked.shape]
        return [*middle[: self.axis], self.index, *middle[self.axis :]]


def best_place(
    image: sitk.Image, label: sitk.Image, prediction: sitk.Image, *, missed: int = 0, spurious: int = 0
) -> Place:
    """The slice with the largest labelled area, in the plane with the finest voxels.

    The image is turned to the radiological view (patient's right on the left) by whole axes only:
    what remains oblique stays so and shows in the letters.

    Args:
        image: The scan.
        label: Class indices, 255 unknown; on any grid.
        prediction: Class indices; on any grid.
        missed: A class whose labelled area decides instead of that of all.
        spurious: A class whose predicted area decides.
    """
    picture = is_picture(image)
    images = [image, on_grid(label, image), on_grid(prediction, image)]
    if not picture:
        images = [sitk.DICOMOrient(i, "LPS") for i in images]
    grey, classes, predicted = (array_of(i) for i in images)  # (X, Y, Z): to the left, posterior, superior
    spacing, size = np.array(images[0].GetSpacing()), grey.shape
    axis = 2
    if 1 in size:
        axis = size.index(1) if size[2] != 1 else 2
    elif spacing.max() > 1.5 * spacing.min():
        axis = int(spacing.argmax())
    across = tuple(i for i in range(3) if i != axis)
    index = size[axis] // 2
    candidates = [
        *([classes == missed] if missed else []),
        *([predicted == spurious] if spurious else []),
        (classes > 0) & (classes < IGNORE),
        predicted > 0,
    ]
    for there in candidates:
        areas = there.sum(axis=across)
        if areas.any():
            index = int(areas.argmax())
            break
    return Place(tuple(images), (grey, classes, predicted), axis, index, picture)  # type: ignore[arg-type]


def best_slice(image: sitk.Image, label: sitk.Image, prediction: sitk.Image, **focus: int) -> Slice:
    """That plane as it is looked at; arguments as of `best_place`."""
    return slice_at(best_place(image, label, prediction, **focus))


def slice_at(place: Place) -> Slice:
    """A plane with superior, or else anterior, at the top."""
    grey, classes, predicted = place.arrays
    spacing = np.array(place.images[0].GetSpacing())
    across, down = (i for i in range(3) if i != place.axis)
    upwards = down == 2  # superior is shown at the top

    def view(array: np.ndarray) -> np.ndarray:
        plane = array.take(place.index, axis=place.axis).T
        return plane[::-1] if upwards else plane

    direction = np.array(place.images[0].GetDirection()).reshape(3, 3)
    right, below = direction[:, across], direction[:, down] * (-1 if upwards else 1)
    sides = {"right": right, "left": -right, "bottom": below, "top": -below}
    return Slice(
        image=view(grey).astype(float),
        label=view(classes),
        prediction=view(predicted),
        spacing_mm=None if place.picture and np.all(spacing == 1) else (float(spacing[down]), float(spacing[across])),
        letters={} if place.picture else {side: letters(d) for side, d in sides.items()},
        plane=place.plane,
        index=place.index,
        count=place.count,
    )


def on_grid(label: sitk.Image, image: sitk.Image) -> sitk.Image:
    """The label on the image's voxels; as it is where they are the same but for rounding."""
    if compare_geometry(label, image) is None:
        return label
    return sitk.Resample(label, image, sitk.Transform(), sitk.sitkNearestNeighbor, 0.0)


def letters(direction: np.ndarray) -> str:
    """Where a direction in patient space points: the nearest of L, R, P, A, S, I, and a second one
    where it is more than 20 degrees off."""
    named = [("L" if x > 0 else "R", "P" if x > 0 else "A", "S" if x > 0 else "I")[i] for i, x in enumerate(direction)]
    size = np.abs(direction)
    order = np.argsort(-size, kind="stable")
    return "".join(named[i] for k, i in enumerate(order) if k == 0 or (k == 1 and size[i] > np.sin(np.radians(20))))


def window(shown: Slice) -> tuple[float, float]:
    """Grey values shown as black and white.

    Where structures fill much of the picture, from their own values, so that bright fat around
    them does not leave them dark; else from the picture's: 0.5th to 99.5th percentile.
    """
    top, bottom, left, right = cropped(shown)
    part = (slice(top, bottom), slice(left, right))
    picture, inside = shown.image[part], structures(shown)[part]
    low, high = np.percentile(picture, [0.5, 99.5])
    if inside.mean() > FILLED:
        darkest, brightest = np.percentile(picture[inside], [0.5, 99.5])
        high = min(high, brightest + 0.1 * (brightest - darkest))
    return (float(low), float(high)) if high > low else (float(low), float(low) + 1)


def structures(shown: Slice) -> np.ndarray:
    """(H, W) where label or prediction have any."""
    return structure_voxels(shown.label, shown.prediction)


def structure_voxels(label: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    return ((label > 0) & (label < IGNORE)) | (prediction > 0)


def grey(low: float, high: float) -> str:
    digits = max(0, 2 - int(np.floor(np.log10(high - low))))
    return f"{number(low, digits)} to {number(high, digits)}"


def draw(shown: Slice, low: float, high: float, classes: int) -> Figure:
    """On black: slice, label as a tint, prediction as a line, letters, scale."""
    top, bottom, left, right = cropped(shown)
    part = (slice(top, bottom), slice(left, right))
    down, across = shown.spacing_mm or (1.0, 1.0)
    height, width = (bottom - top) * down, (right - left) * across
    figure = Figure(figsize=(PANEL, PANEL), facecolor="black")
    axes = figure.add_axes((MARGIN / PANEL,) * 2 + (1 - 2 * MARGIN / PANEL,) * 2)
    axes.set_axis_off()
    extent = (0, width, height, 0)
    level = np.clip((shown.image[part] - low) / (high - low), 0, 1)
    axes.imshow(
        np.rint(255 * level).astype(np.uint8),
        cmap="gray",
        vmin=0,
        vmax=255,
        extent=extent,
        interpolation="none",
    )
    label, prediction = shown.label[part], shown.prediction[part]
    x, y = (np.arange(label.shape[1]) + 0.5) * across, (np.arange(label.shape[0]) + 0.5) * down
    for k in range(1, classes):
        colour = structure_colour(k)
        tint = np.zeros((*label.shape, 4))
        tint[label == k] = (*rgb(colour), TINT)
        if (label == k).any():
            axes.imshow(tint, extent=extent, interpolation="none")
        outline(axes, x, y, prediction == k, colour)
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    axes.set_aspect("equal")
    edge = MARGIN / PANEL / 2
    places = {"top": (0.5, 1 - edge), "bottom": (0.5, edge), "left": (edge, 0.5), "right": (1 - edge, 0.5)}
    for side, letter in shown.letters.items():
        figure.text(*places[side], letter, color="white", fontsize=8.5, ha="center", va="center", fontweight="bold")
    scale_bar(figure, max(height, width), "mm" if shown.spacing_mm else "px")
    return figure


def outline(axes: Axes, x: np.ndarray, y: np.ndarray, inside: np.ndarray, colour: str) -> None:
    """The border of a structure, closed where it touches the edge of the picture."""
    if not inside.any():
        return
    around = np.pad(inside.astype(float), 1)
    step_x, step_y = (x[1] - x[0] if len(x) > 1 else 1.0), (y[1] - y[0] if len(y) > 1 else 1.0)
    x = np.concatenate([[x[0] - step_x], x, [x[-1] + step_x]])
    y = np.concatenate([[y[0] - step_y], y, [y[-1] + step_y]])
    axes.contour(x, y, around, levels=[0.5], colors=[colour], linewidths=1.0)


def cropped(shown: Slice) -> tuple[int, int, int, int]:
    """Top, bottom, left, right of what is shown: structures with room around them."""
    down, across = shown.spacing_mm or (1.0, 1.0)
    there = structures(shown)
    size = there.shape
    if not there.any():
        return 0, size[0], 0, size[1]
    found = []
    for axis, step in ((1, down), (0, across)):
        at = np.flatnonzero(there.any(axis=axis))
        extent = (at[-1] + 1 - at[0]) * step
        room = int(np.ceil(max(0.08 * extent, (60 - extent) / 2 if shown.spacing_mm else 0) / step))
        found += [max(0, at[0] - room), min(size[1 - axis], at[-1] + 1 + room)]
    return tuple(int(v) for v in found)  # type: ignore[return-value]


def scale_bar(figure: Figure, extent: float, unit: str) -> None:
    """A round length, up to a quarter of the picture, at the lower left."""
    length = max((n for n in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if n <= 0.25 * extent), default=1)
    share = length / extent * (1 - 2 * MARGIN / PANEL)
    y, left = MARGIN / PANEL / 2, MARGIN / PANEL
    figure.add_artist(Line2D([left, left + share], [y, y], color="white", lw=2, solid_capstyle="butt"))
    figure.text(left + share + 0.02, y, f"{length} {unit}", color="white", fontsize=7.5, ha="left", va="center")


def structure_colour(k: int) -> str:
    """Of class k, background being 0."""
    return STRUCTURES[k - 1] if k <= len(STRUCTURES) else OTHERS


def rgb(colour: str) -> tuple[float, float, float]:
    return tuple(int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))  # type: ignore[return-value]
