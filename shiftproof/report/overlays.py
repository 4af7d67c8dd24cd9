"""Scans with label and prediction: the worst, the median and the best case, not the prettiest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ..data.cohort import Cohort
from ..data.images import array_of, compare_geometry, image_of, is_picture, read_image
from ..data.labels import IGNORE
from ..errors import ShiftproofError
from .numbers import number, scale
from .results import Results
from .svg import Plot, style

if TYPE_CHECKING:
    import SimpleITK as sitk

# Light enough for dark scans, apart for colour-blind readers, and none of them the colour of a domain's dots.
STRUCTURES = ("#4cc9f0", "#ffd166", "#ff7b9c", "#9bf6a5", "#c8a2ff", "#ff9f5a")
OTHERS = "#ffffff"
PANEL = 2.6  # inches
MARGIN = 0.19  # inches around the slice for letters and scale
PLANES = {0: "sagittal", 1: "coronal", 2: "axial"}  # of an image turned to L, P, S


@dataclass(frozen=True)
class Case:
    """A subject of a held-out domain, by its rank in the selected row's scores."""

    rank: str  # "worst", "median", "best"
    subject: str
    held_out: str
    domain: str
    value: float
    n: int


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


def picked(values: pd.DataFrame, row: str, held_out: str, *, higher_is_better: bool = True) -> list[Case]:
    """Worst, median and best subject of a row in a domain; fewer where there are fewer subjects."""
    own = values[(values["row"] == row) & (values["held_out"] == held_out)].dropna(subset="value")
    own = own.sort_values(["value", "subject"], ascending=[higher_is_better, True], kind="stable")
    n = len(own)
    places = {0: "worst", (n - 1) // 2: "median", n - 1: "best"} if n > 2 else {0: "worst", n - 1: "best"}
    places = {0: "only"} if n == 1 else places
    return [
        Case(rank, str(of.subject), held_out, str(of.domain), float(of.value), n)
        for of, rank in ((own.iloc[i], rank) for i, rank in places.items() if n)
    ]


@dataclass(frozen=True)
class Meaning:
    """What the values of label files and of predictions mean."""

    classes: list[str]  # background first
    label: Callable[[np.ndarray, str], np.ndarray]  # (values, domain) to class index, 255 unknown
    prediction: Callable[[np.ndarray, str], np.ndarray]


def meaning_of(results: Results) -> Meaning:
    """From the cohort's label map; where the cohort is gone, values are taken for class indices."""
    classes = [str(c) for c in results.facts.get("classes") or ["background", *results.structures]]
    cohort = results.facts.get("cohort")
    try:
        labels = Cohort.read(Path(str(cohort)), domain=results.domain_word).labels if cohort else None
    except ShiftproofError:
        labels = None
    if labels is None:
        return Meaning(classes, as_indices, as_indices)
    predicted = labels.encode if results.facts.get("values") == "cohort" else as_indices
    return Meaning(list(labels.classes), labels.encode, predicted)


def as_indices(values: np.ndarray, domain: str) -> np.ndarray:
    return np.rint(values)


def overlay(case: Case, results: Results, row: str, meaning: Meaning) -> Plot:
    """One case with the label as a tint and the prediction as a line.

    Args:
        case: Which.
        results: Where its files are.
        row: Whose prediction.
        meaning: Of the values in both files.

    Raises:
        ShiftproofError: If a file is missing or cannot be read, or a value has no meaning.
    """
    image, label, prediction, seed = files(case, results, row)
    shown = best_slice(
        read_image(image),
        coded(read_image(label), lambda values: meaning.label(values, case.domain)),
        coded(read_image(prediction), lambda values: meaning.prediction(values, case.domain)),
    )
    low, high = window(shown.image)
    with style():
        figure = draw(shown, low, high, len(meaning.classes))
    metric = scale(results.primary)
    score = f"{metric.title} {number(seed_value(results, row, case, seed), metric.digits)} {metric.unit}".strip()
    title = f"{case.rank} of {case.n}: {case.subject}" if case.n > 1 else case.subject
    of_seed = f" (seed {seed})" if seed is not None and len(results.seeds) > 1 else ""
    where = f" {shown.index + 1} of {shown.count}" if shown.count > 1 else ""
    caption = f"{row}: {score}{of_seed}. {shown.plane.capitalize()}{where}, grey window {grey(low, high)}."
    alt = f"{case.rank} case of {case.held_out}, {case.subject}, {row}: {score}. {shown.plane} slice with label and prediction."
    return Plot(figure, caption, alt, title)


def files(case: Case, results: Results, row: str) -> tuple[Path, Path, Path, int | None]:
    """Image, label and prediction of a case, and the seed whose prediction it is.

    Raises:
        ShiftproofError: If one of them is not there.
    """
    if results.subjects is None:
        raise ShiftproofError("the study names no image files (no subjects.csv)")
    lines = results.subjects[results.subjects["subject"].astype(str) == case.subject]
    for column, wanted in (("held_out", case.held_out), ("domain", case.domain)):
        if column in lines:
            lines = lines[lines[column].astype(str) == wanted]
    if lines.empty:
        raise ShiftproofError(f"subjects.csv does not name {case.subject}")
    line = lines.iloc[0]
    images = [line[c] for c in lines.columns if (c == "image" or c.startswith("image:")) and line[c]]
    if not images or not line.get("label"):
        raise ShiftproofError(f"no image or no label is named for {case.subject}")
    prediction, seed = prediction_of(case, results, row, str(line.get("prediction") or f"{case.subject}.nii.gz"))
    return located(images[0], results), located(line["label"], results), prediction, seed


def prediction_of(case: Case, results: Results, row: str, name: str) -> tuple[Path, int | None]:
    if results.kind == "evaluation":
        return located(name, results), None
    for cell in results.cells:
        if (cell.row, cell.held_out) == (row, case.held_out) and cell.folder is not None:
            path = cell.folder / "predictions" / name
            if path.exists():
                return path, cell.seed
    raise ShiftproofError(f"{row} kept no prediction of {case.subject}")


def located(path: Any, results: Results) -> Path:
    """A path as it is, or beside the cohort's table, or in the study folder."""
    path, cohort = Path(str(path)), results.facts.get("cohort")
    bases = [Path(), *([Path(str(cohort)).parent] if cohort else []), *([results.root] if results.root else [])]
    found = next((base / path for base in bases if (base / path).is_file()), None)
    if found is None:
        raise ShiftproofError(f"{path} is no longer there")
    return found


def coded(image: sitk.Image, encode: Callable[[np.ndarray], np.ndarray]) -> sitk.Image:
    """The same image with class indices for values."""
    return image_of(encode(array_of(image)).astype(np.uint8), like=image)


def best_slice(image: sitk.Image, label: sitk.Image, prediction: sitk.Image) -> Slice:
    """The slice with the largest labelled area, in the plane with the finest voxels.

    The image is turned to the radiological view (patient's right on the left) by whole axes only:
    what remains oblique stays so and shows in the letters.
    """
    import SimpleITK as sitk

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
    across, down = (i for i in range(3) if i != axis)
    upwards = down == 2  # superior is shown at the top

    areas = ((classes > 0) & (classes < IGNORE)).sum(axis=(across, down))
    if not areas.any():
        areas = (predicted > 0).sum(axis=(across, down))
    index = int(areas.argmax()) if areas.any() else len(areas) // 2

    def view(array: np.ndarray) -> np.ndarray:
        plane = array.take(index, axis=axis).T
        return plane[::-1] if upwards else plane

    direction = np.array(images[0].GetDirection()).reshape(3, 3)
    right, below = direction[:, across], direction[:, down] * (-1 if upwards else 1)
    sides = {"right": right, "left": -right, "bottom": below, "top": -below}
    return Slice(
        image=view(grey).astype(float),
        label=view(classes),
        prediction=view(predicted),
        spacing_mm=None if picture and np.all(spacing == 1) else (float(spacing[down]), float(spacing[across])),
        letters={} if picture else {side: letters(d) for side, d in sides.items()},
        plane="picture" if picture else PLANES[axis],
        index=index,
        count=len(areas),
    )


def on_grid(label: sitk.Image, image: sitk.Image) -> sitk.Image:
    """The label on the image's voxels; as it is where they are the same but for rounding."""
    import SimpleITK as sitk

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


def window(image: np.ndarray) -> tuple[float, float]:
    """Grey values shown as black and white: 0.5th and 99.5th percentile of the slice."""
    low, high = np.percentile(image, [0.5, 99.5])
    return (float(low), float(high)) if high > low else (float(low), float(low) + 1)


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
    axes.imshow(np.rint(255 * level).astype(np.uint8), cmap="gray", vmin=0, vmax=255, extent=extent, interpolation="none")
    label, prediction = shown.label[part], shown.prediction[part]
    x, y = (np.arange(label.shape[1]) + 0.5) * across, (np.arange(label.shape[0]) + 0.5) * down
    for k in range(1, classes):
        colour = structure_colour(k)
        tint = np.zeros((*label.shape, 4))
        tint[label == k] = (*rgb(colour), 0.24)
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


def outline(axes: Any, x: np.ndarray, y: np.ndarray, inside: np.ndarray, colour: str) -> None:
    """The border of a structure, closed where it touches the edge of the picture."""
    if not inside.any():
        return
    around = np.pad(inside.astype(float), 1)
    step_x, step_y = (x[1] - x[0] if len(x) > 1 else 1.0), (y[1] - y[0] if len(y) > 1 else 1.0)
    x = np.concatenate([[x[0] - step_x], x, [x[-1] + step_x]])
    y = np.concatenate([[y[0] - step_y], y, [y[-1] + step_y]])
    axes.contour(x, y, around, levels=[0.5], colors=[colour], linewidths=1.1)


def cropped(shown: Slice) -> tuple[int, int, int, int]:
    """Top, bottom, left, right of what is shown: structures with room around them."""
    down, across = shown.spacing_mm or (1.0, 1.0)
    there = ((shown.label > 0) & (shown.label < 255)) | (shown.prediction > 0)
    size = there.shape
    if not there.any():
        return 0, size[0], 0, size[1]
    found = []
    for axis, step in ((1, down), (0, across)):
        at = np.flatnonzero(there.any(axis=axis))
        extent = (at[-1] + 1 - at[0]) * step
        room = int(np.ceil(max(0.15 * extent, (60 - extent) / 2 if shown.spacing_mm else 0) / step))
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


def seed_value(results: Results, row: str, case: Case, seed: int | None) -> float:
    """The score of the very prediction that is shown."""
    rows = results.rows
    own = rows[
        (rows["row"] == row)
        & (rows["held_out"] == case.held_out)
        & (rows["subject"] == case.subject)
        & (rows["metric"] == results.primary)
    ]
    own = own if seed is None else own[own["seed"] == seed]
    return float(own.groupby("structure")["value"].mean().mean())
