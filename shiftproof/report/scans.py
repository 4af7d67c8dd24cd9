"""Scans of cases: where their files lie, read once, for the pictures and for the viewer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from ..data.filenames import file_of
from ..data.images import array_of, image_of, read_image
from ..errors import ShiftproofError
from .meaning import Meaning
from .results import Results
from .slices import Place, best_place


@dataclass(frozen=True)
class Case:
    """A subject of a held-out domain that is shown, and why: its rank in a row's scores, or a failure."""

    rank: str  # "worst", "second worst", "median", "best", "only", "missed" or "spurious"
    subject: str
    held_out: str
    domain: str
    value: float
    n: int
    structure: str = ""  # which was missed or spurious

    @property
    def title(self) -> str:
        if self.structure:
            return f"{self.structure} {self.rank}: {self.subject}"
        return f"{self.rank} of {self.n}: {self.subject}" if self.n > 1 else self.subject


@dataclass(frozen=True)
class Scan:
    """The files of a case, read; the same slice for every row."""

    case: Case
    places: dict[str, Place]  # by row; under "" where no row has an own prediction file
    seeds: dict[str, int | None]  # whose predictions those are; None in an evaluation
    reasons: list[str]  # rows that lack a readable prediction

    @property
    def first(self) -> Place:
        return next(iter(self.places.values()))


def opened(case: Case, results: Results, rows: Sequence[str], meaning: Meaning) -> Scan:
    """Image, label and the predictions of some rows; the first one's choose the slice.

    Raises:
        ShiftproofError: If image or label are missing or unreadable, or none of the rows has a prediction.
    """
    image, line = image_file(case, results)
    if not line.get("label"):
        raise ShiftproofError(f"no label is named for {case.subject}")
    name, reasons = str(line.get("prediction") or f"{case.subject}.nii.gz"), []
    found: dict[str, tuple[Path, int | None]] = {}
    for row in rows:
        try:
            found[row] = prediction_of(case, results, row, name)
        except ShiftproofError as error:
            reasons.append(str(error))
    if not found:
        raise ShiftproofError(reasons[0])

    paths = located(image, results), located(line["label"], results)
    grey = read_image(paths[0])
    label = coded(read_image(paths[1]), lambda values: meaning.label(values, case.domain))
    focus = {case.rank: meaning.classes.index(case.structure)} if case.structure in meaning.classes else {}
    places: dict[str, Place] = {}
    for row, (path, _) in found.items():
        try:
            predicted = coded(read_image(path), lambda values: meaning.prediction(values, case.domain))
        except ShiftproofError as error:
            reasons.append(str(error))
            continue
        first = next(iter(places.values()), None)
        places[row] = first.with_prediction(predicted) if first else best_place(grey, label, predicted, **focus)
    if not places:
        raise ShiftproofError(reasons[0])
    return Scan(case, places, {row: found[row][1] for row in places}, reasons)


def bare(case: Case, results: Results) -> Scan:
    """The image alone, in its middle, where a scan has one label.

    Raises:
        ShiftproofError: If the image is missing or cannot be read.
    """
    image = read_image(located(image_file(case, results)[0], results))
    nothing = image_of(np.zeros(image.GetSize(), np.uint8), like=image)
    return Scan(case, {"": best_place(image, nothing, nothing)}, {"": None}, [])


def coded(image: sitk.Image, encode: Callable[[np.ndarray], np.ndarray]) -> sitk.Image:
    """The same image with class indices for values."""
    return image_of(encode(array_of(image)).astype(np.uint8), like=image)


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


def seed_of(case: Case, results: Results, row: str) -> int | None:
    """The seed whose prediction of a case was kept; None in an evaluation.

    Raises:
        ShiftproofError: If none was.
    """
    line = image_file(case, results)[1]
    return prediction_of(case, results, row, str(line.get("prediction") or f"{case.subject}.nii.gz"))[1]


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
