"""Rows of predictions: subject, domain, structure, metric, value."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import SimpleITK as sitk

from ..catalogue import choose
from ..data.cohort import Cohort, Row
from ..data.images import array_of, compare_geometry, read_image
from ..data.labels import IGNORE, LabelMap, whole_numbers
from ..deploy.manifest import kind_of
from ..errors import CohortError, GeometryError, LabelError, ShiftproofError
from ..metrics.rules import TOLERANCE_MM, Tolerance, tolerance_of
from ..metrics.segmentation import check_asked, measure
from .sizes import Size, sizes_of

if TYPE_CHECKING:
    import pandas as pd

Values = Literal["indices", "cohort"]
Update = Callable[[int, int, str], None]
LabelOf = Callable[[Row], sitk.Image | Path | None]
"""From a scan to its predicted label, or to the file that holds it; None: nothing was predicted."""

COLUMNS = ("subject", "domain", "structure", "metric", "value", "status")


@dataclass(frozen=True)
class Failure:
    """A scan without a score.

    Args:
        subject: Whose.
        path: The file that is to blame, as far as known.
        kind: Type of the error.
        message: What came, what was expected, what would work.
    """

    subject: str
    path: str
    kind: str
    message: str


@dataclass(frozen=True)
class Scoring:
    """What is measured of a segmentation, see `metrics.segmentation.measure`.

    Args:
        tolerance_mm: Of the surface Dice, one or by structure.
        lesions: Structures whose components are counted one by one.
        smallest_lesion_ml: Volume below which a component does not count.
        also: Further metrics.
    """

    tolerance_mm: Tolerance = TOLERANCE_MM
    lesions: Sequence[str] = ()
    smallest_lesion_ml: float = 0.0
    also: Sequence[str] = ()


def rows_of(
    label_of: LabelOf,
    cohort: Cohort,
    *,
    tolerance_mm: Tolerance = TOLERANCE_MM,
    lesions: Sequence[str] = (),
    smallest_lesion_ml: float = 0.0,
    also: Sequence[str] = (),
    values: Values = "indices",
    failures: list[Failure] | None = None,
    sizes: list[Size] | None = None,
    workers: int = 1,
    progress: Update | None = None,
) -> pd.DataFrame:
    """Every metric of every labelled scan, measured on the grid of its label.

    Structures that a domain does not annotate have no rows, and ignored voxels count for nothing. Where
    `label_of` gives None, everything that the label has counts as missed.

    Args:
        label_of: Called once for each scan, in order, from this thread.
        cohort: With labels and their meaning; unlabelled scans are passed over.
        tolerance_mm: Of the surface Dice; by structure where they differ.
        lesions: Structures whose components are counted one by one: "lesion f1" and its like.
        smallest_lesion_ml: Volume below which a component does not count.
        also: Further metrics by name, such as "boundary iou".
        values: What predictions hold: "indices" of the cohort's classes, or the values that the "cohort"
            itself has in the labels of the scan's domain.
        failures: Where scans that cannot be scored are listed; None raises the first error.
        sizes: Where the size of each labelled structure of the scored scans is listed, if it is asked for.
        workers: Threads that measure, while further predictions are made.
        progress: Called with scans done, scans in total and the subject that is next.

    Returns:
        Columns `COLUMNS`, in the order of the cohort.

    Raises:
        GeometryError: If a prediction does not share its label's grid, and by how much it is off.
        LabelError: If a value of a prediction or a label has no meaning.
        OptionError: If a structure or metric is unknown, or a tolerance is no distance.
    """
    import pandas as pd

    choose(values, get_args(Values), "meaning of predicted values")
    classes, labels = cohort.classes, cohort.labels
    rows = [row for row in cohort.rows() if row.label is not None]
    if not isinstance(labels, LabelMap) or not rows:
        raise CohortError(f"{cohort.root} has no labelled scan to score against; fill the table's label column")
    check_asked(classes[1:], tolerance_mm, lesions, smallest_lesion_ml, also)
    scoring = Scoring(tolerance_mm, lesions, smallest_lesion_ml, also)

    def scored(row: Row, predicted: sitk.Image | Path | None) -> tuple[list[dict[str, Any]], list[Size]]:
        seen: list[Size] = []
        found = scores(row, predicted, labels, classes, scoring, values, seen)
        return [{"subject": row.subject, "domain": row.domain, **line} for line in found], seen

    lines: list[dict[str, Any]] = []
    with ThreadPoolExecutor(workers) as threads:
        done = 0
        for row, result in _ahead(rows, label_of, scored, threads, 2 * workers):
            if progress is not None:
                progress(done, len(rows), row.subject)
            try:
                found, seen = result.result()
                lines += found
                if sizes is not None:
                    sizes += seen
            except ShiftproofError as error:
                if failures is None:
                    raise
                path = next((p for p in row.images.values() if p is not None), "")
                failures.append(Failure(row.subject, str(path), kind_of(error), str(error)))
            done += 1
    if progress is not None:
        progress(done, len(rows), "")
    return pd.DataFrame(lines, columns=list(COLUMNS))


def _ahead(
    rows: Sequence[Row],
    label_of: LabelOf,
    scored: Callable[..., Any],
    threads: ThreadPoolExecutor,
    limit: int,
) -> Iterator[tuple[Row, Future[Any]]]:
    """Predictions are made here, one by one, and measured in threads; few wait: each is a volume."""
    waiting: collections.deque[tuple[Row, Future[Any]]] = collections.deque()
    for row in rows:
        try:
            result = threads.submit(scored, row, label_of(row))
        except ShiftproofError as error:
            result = Future()
            result.set_exception(error)
        waiting.append((row, result))
        if len(waiting) >= limit:
            yield waiting.popleft()
    yield from waiting


def scores(
    row: Row,
    predicted: sitk.Image | Path | None,
    labels: LabelMap,
    classes: Sequence[str],
    scoring: Scoring,
    values: Values,
    sizes: list[Size],
) -> list[Any]:
    """The rows of one scan, without its name; `sizes` gets those of its structures."""
    assert row.label is not None
    image = read_image(row.label)
    label = labels.encode(array_of(image), row.domain, name=str(row.label))
    if predicted is None:
        prediction = np.zeros(label.shape, np.uint8)
    else:
        name = str(predicted) if isinstance(predicted, str | Path) else f"the prediction for {row.subject}"
        other = read_image(predicted) if isinstance(predicted, str | Path) else predicted
        difference = compare_geometry(other, image)
        if difference:
            raise GeometryError(
                f"{name} and {row.label} do not share a grid: {difference}; "
                "resample the prediction to the label by nearest neighbour, or predict in the scan's geometry"
            )
        read = _codes if labels.kind == "multi-label" else _indices
        prediction = read(array_of(other), name, row.domain, labels, classes, values)
    known = label != IGNORE
    spacing_mm = image.GetSpacing()
    sizes += sizes_of(label, labels, spacing_mm, scoring.tolerance_mm, subject=row.subject, domain=row.domain)
    if labels.kind == "multi-label":
        return _overlapping(prediction, label, row, labels, spacing_mm, scoring)
    return measure(
        prediction,
        np.where(known, label, 0),
        classes=classes,
        spacing_mm=spacing_mm,
        annotated=labels.annotated(row.domain),
        ignore=None if known.all() else ~known,
        **vars(scoring),
    )


def _overlapping(
    prediction: np.ndarray,
    label: np.ndarray,
    row: Row,
    labels: LabelMap,
    spacing_mm: Sequence[float],
    scoring: Scoring,
) -> list[Any]:
    """As `scores`, of structures that may share voxels: each against everything else.

    Args:
        prediction: A bit for each structure.
        label: Positions in `labels.parts`.
    """
    known, annotated = label != IGNORE, labels.annotated(row.domain)
    table = np.array(labels.parts)
    found: list[Any] = []
    for k, name in enumerate(labels.structures):
        own = dataclasses.replace(
            scoring,
            tolerance_mm=tolerance_of(scoring.tolerance_mm, name),
            lesions=[name] if name in scoring.lesions else [],
        )
        found += measure(
            ((prediction >> k) & 1).astype(np.uint8),
            (table[np.where(known, label, 0), k]).astype(np.uint8),
            classes=[labels.classes[0], name],
            spacing_mm=spacing_mm,
            annotated=(True, annotated[k + 1]),
            ignore=None if known.all() else ~known,
            **vars(own),
        )
    return found


def _codes(
    array: np.ndarray, name: str, domain: str, labels: LabelMap, classes: Sequence[str], values: Values
) -> np.ndarray:
    """Predictions of overlapping structures, as a bit for each."""
    structures = len(labels.structures)
    if values == "cohort":
        encoded = labels.encode(array, domain, name=name)
        bits = (np.array(labels.parts) * 2 ** np.arange(structures)).sum(1)
        return np.where(encoded == IGNORE, 0, bits[np.where(encoded == IGNORE, 0, encoded)])
    array = whole_numbers(array, name)
    if array.size and (array.min() < 0 or array.max() >= 2**structures):
        meant = ", ".join(f"{2**k} {c}" for k, c in enumerate(labels.structures))
        raise LabelError(
            f"{name} has values from {array.min()} to {array.max()}, expected a bit for each structure ({meant}); "
            "use --values cohort if it holds the values of the cohort's own labels"
        )
    return array


def _indices(
    array: np.ndarray, name: str, domain: str, labels: LabelMap, classes: Sequence[str], values: Values
) -> np.ndarray:
    if values == "cohort":
        encoded = labels.encode(array, domain, name=name)
        # To say nothing is no prediction: it counts as background.
        return np.where(encoded == IGNORE, 0, encoded)
    array = whole_numbers(array, name)
    wrong = np.unique(array[(array < 0) | (array >= len(classes))])
    if len(wrong):
        meant = ", ".join(f"{i} {c}" for i, c in enumerate(classes))
        raise LabelError(
            f"{name} has the values {', '.join(map(str, wrong[:8]))}, expected class indices ({meant}); "
            "use --values cohort if it holds the values of the cohort's own labels"
        )
    return array.astype(np.uint8)
