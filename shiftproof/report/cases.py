"""Scans with label and prediction: the worst, the median and the best case, not the prettiest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import SimpleITK as sitk

from ..data.cohort import Cohort
from ..data.filenames import file_of
from ..data.images import array_of, image_of, read_image
from ..data.labels import IGNORE, LabelMap
from ..data.overlaps import decoded
from ..data.targets import Targets
from ..errors import ShiftproofError
from .numbers import number, scale
from .results import Results
from .slices import best_slice, draw, grey, window
from .svg import Plot, style


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
class Meaning:
    """What the values of label files and of predictions mean."""

    classes: list[str]  # background first
    label: Callable[[np.ndarray, str], np.ndarray]  # (values, domain) to class index, 255 unknown
    prediction: Callable[[np.ndarray, str], np.ndarray]


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
    low, high = window(shown)
    with style():
        figure = draw(shown, low, high, len(meaning.classes))
    metric = scale(results.primary)
    score = f"{metric.title} {number(seed_value(results, row, case, seed), metric.digits)} {metric.unit}".strip()
    title = f"{case.rank} of {case.n}: {case.subject}" if case.n > 1 else case.subject
    of_seed = f" (seed {seed})" if seed is not None and len(results.seeds) > 1 else ""
    where = f" {shown.index + 1} of {shown.count}" if shown.count > 1 else ""
    caption = f"{row}: {score}{of_seed}. {shown.plane.capitalize()}{where}, grey window {grey(low, high)}."
    alt = (
        f"{case.rank} case of {case.held_out}, {case.subject}, {row}: {score}. "
        f"{shown.plane} slice with label and prediction."
    )
    return Plot(figure, caption, alt, title)


def portrait(case: Case, results: Results, row: str, answers: pd.DataFrame, targets: Targets) -> Plot:
    """One case of a task that answers for whole scans: a slice, and what was answered beside what is true.

    Raises:
        ShiftproofError: If the image is missing or cannot be read.
    """
    image = read_image(located(image_file(case, results)[0], results))
    nothing = image_of(np.zeros(image.GetSize(), np.uint8), like=image)
    shown = best_slice(image, nothing, nothing)
    low, high = window(shown)
    with style():
        figure = draw(shown, low, high, 1)
    own = answers[(answers["row"] == row) & (answers["held_out"] == case.held_out)]
    own = own[own["subject"].astype(str) == case.subject]
    # The image is the first scan's.
    mean = own[own["scan"] == own["scan"].min()].groupby("structure")[["predicted", "truth"]].mean()
    words = answered(mean, targets)
    title = f"{case.rank} of {case.n}: {case.subject}" if case.n > 1 else case.subject
    where = f" Slice {shown.index + 1} of {shown.count}." if shown.count > 1 else ""
    alt = f"{case.rank} case of {case.held_out}, {case.subject}, {words}"
    return Plot(figure, f"{row}: {words}.{where}", alt, title)


def answered(mean: pd.DataFrame, targets: Targets) -> str:
    """What was answered and what is true, of one scan."""
    if targets.task == "regression":
        predicted, truth = mean.loc[targets.column, ["predicted", "truth"]]
        return f"{predicted:.1f} {targets.unit}".strip() + f", true {truth:.1f}"
    if targets.kind == "multi-label":
        return ", ".join(f"{name} {p:.2f} (true {t:.0f})" for name, (p, t) in mean.iterrows())  # type: ignore[misc]
    best, true = mean["predicted"].idxmax(), mean["truth"].idxmax()
    return f"{best} ({mean['predicted'].max():.2f}), true {true}"


def coded(image: sitk.Image, encode: Callable[[np.ndarray], np.ndarray]) -> sitk.Image:
    """The same image with class indices for values."""
    return image_of(encode(array_of(image)).astype(np.uint8), like=image)


def meaning_of(results: Results) -> Meaning:
    """From the cohort's label map; where the cohort is gone, values are taken for class indices."""
    classes = [str(c) for c in results.facts.get("classes") or ["background", *results.structures]]
    cohort = results.facts.get("cohort")
    try:
        labels = Cohort.read(Path(str(cohort)), domain=results.domain_word).labels if cohort else None
    except ShiftproofError:
        labels = None
    if not isinstance(labels, LabelMap):
        return Meaning(classes, as_indices, as_indices)
    if labels.kind == "multi-label":
        return overlapping(labels, results)
    predicted = labels.encode if results.facts.get("values") == "cohort" else as_indices
    return Meaning(list(labels.classes), labels.encode, predicted)


def overlapping(labels: LabelMap, results: Results) -> Meaning:
    """Of structures that share voxels, the last in the list is drawn: usually the innermost."""
    ranks = 1 + np.arange(len(labels.structures))
    by_part = (np.array(labels.parts) * ranks).max(1)

    def label(values: np.ndarray, domain: str) -> np.ndarray:
        encoded = labels.encode(values, domain)
        return np.where(encoded == IGNORE, IGNORE, by_part[np.where(encoded == IGNORE, 0, encoded)])

    def bits(values: np.ndarray, domain: str) -> np.ndarray:
        return (decoded(np.rint(values).astype(np.int64), len(ranks)) * ranks[:, None, None, None]).max(0)

    return Meaning(list(labels.classes), label, label if results.facts.get("values") == "cohort" else bits)


def as_indices(values: np.ndarray, domain: str) -> np.ndarray:
    return np.rint(values)


def files(case: Case, results: Results, row: str) -> tuple[Path, Path, Path, int | None]:
    """Image, label and prediction of a case, and the seed whose prediction it is.

    Raises:
        ShiftproofError: If one of them is not there.
    """
    image, line = image_file(case, results)
    if not line.get("label"):
        raise ShiftproofError(f"no label is named for {case.subject}")
    prediction, seed = prediction_of(case, results, row, str(line.get("prediction") or f"{case.subject}.nii.gz"))
    return located(image, results), located(line["label"], results), prediction, seed


def image_file(case: Case, results: Results) -> tuple[str, Any]:
    """The first image of a case as subjects.csv names it, and its line there.

    Raises:
        ShiftproofError: If it is not there.
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
    if not images:
        raise ShiftproofError(f"no image is named for {case.subject}")
    return str(images[0]), line


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
    bases = [
        Path(),
        *([Path(str(cohort)).parent] if cohort else []),
        *([results.root] if results.root else []),
    ]
    found = next((base / path for base in bases if file_of(base / path).is_file()), None)
    if found is None:
        raise ShiftproofError(f"{path} is no longer there")
    return found


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
