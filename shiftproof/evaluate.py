"""Rows for any prediction: subject, domain, structure, metric, value."""

from __future__ import annotations

import collections
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import SimpleITK as sitk

from .catalogue import choose
from .data.cohort import Cohort, Row
from .data.images import array_of, compare_geometry, read_image, stem_of, suffix_of
from .data.labels import IGNORE, LabelMap, whole_numbers
from .deploy.manifest import MANIFEST
from .deploy.model import Model, load_model
from .deploy.predictor import predict_scans
from .deploy.scans import of_cohort
from .deploy.segment import label_of as predicted_label
from .errors import CohortError, GeometryError, LabelError, OptionError, ShiftproofError
from .files import replacing, write_json
from .metrics.segmentation import measure
from .versions import versions

if TYPE_CHECKING:
    import pandas as pd

    from .data.plan import Plan

Values = Literal["indices", "cohort"]
Missing = Literal["report", "missed"]
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
class Evaluation:
    """What was found.

    Args:
        rows: Columns `COLUMNS`; a line for each subject, annotated structure and metric.
        failures: Scans that could not be scored; no mean contains them.
        facts: What was scored and how: the content of `evaluation.json`.
        out: Folder of `rows.csv`, `evaluation.json` and `report.html`; None if nothing was written.
    """

    rows: pd.DataFrame
    failures: list[Failure] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    out: Path | None = None


def rows_of(
    label_of: LabelOf,
    cohort: Cohort,
    *,
    tolerance_mm: float = 2.0,
    values: Values = "indices",
    failures: list[Failure] | None = None,
    workers: int = 1,
    progress: Update | None = None,
) -> pd.DataFrame:
    """Every metric of every labelled scan, measured on the grid of its label.

    Structures that a domain does not annotate have no rows, and ignored voxels count for nothing. Where `label_of` gives
    None, everything that the label has counts as missed.

    Args:
        label_of: Called once for each scan, in order, from this thread.
        cohort: With labels and their meaning; unlabelled scans are passed over.
        tolerance_mm: Of the surface Dice.
        values: What predictions hold: "indices" of the cohort's classes, or the values that the "cohort" itself has
            in the labels of the scan's domain.
        failures: Where scans that cannot be scored are listed; None raises the first error.
        workers: Threads that measure, while further predictions are made.
        progress: Called with scans done, scans in total and the subject that is next.

    Returns:
        Columns `COLUMNS`, in the order of the cohort.

    Raises:
        GeometryError: If a prediction does not share its label's grid, and by how much it is off.
        LabelError: If a value of a prediction or a label has no meaning.
    """
    import pandas as pd

    choose(values, get_args(Values), "meaning of predicted values")
    classes, labels = cohort.classes, cohort.labels
    rows = [row for row in cohort.rows() if row.label is not None]
    if labels is None or not rows:
        raise CohortError(f"{cohort.root} has no labelled scan to score against; fill the table's label column")

    def scored(row: Row, predicted: sitk.Image | Path | None) -> list[dict[str, Any]]:
        found = scores(row, predicted, labels, classes, tolerance_mm, values)
        return [{"subject": row.subject, "domain": row.domain, **line} for line in found]

    lines: list[dict[str, Any]] = []
    with ThreadPoolExecutor(workers) as threads:
        done = 0
        for row, result in _ahead(rows, label_of, scored, threads, 2 * workers):
            if progress is not None:
                progress(done, len(rows), row.subject)
            try:
                lines += result.result()
            except ShiftproofError as error:
                if failures is None:
                    raise
                failures.append(failure(row, error))
            done += 1
    if progress is not None:
        progress(done, len(rows), "")
    return pd.DataFrame(lines, columns=list(COLUMNS))


def _ahead(
    rows: Sequence[Row], label_of: LabelOf, scored: Callable[..., Any], threads: ThreadPoolExecutor, limit: int
) -> Iterator[tuple[Row, Future[Any]]]:
    """Predictions are made here, one after the other, and measured in threads; few wait, since each is a volume."""
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
    tolerance_mm: float,
    values: Values,
) -> list[Any]:
    """The rows of one scan, without its name."""
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
                "resample the prediction to the label by nearest neighbour, or predict in the scan's own geometry"
            )
        prediction = _indices(array_of(other), name, row.domain, labels, classes, values)
    known = label != IGNORE
    return measure(
        prediction,
        np.where(known, label, 0),
        classes=classes,
        spacing_mm=image.GetSpacing(),
        annotated=labels.annotated(row.domain),
        ignore=None if known.all() else ~known,
        tolerance_mm=tolerance_mm,
    )


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
            'use --values cohort if it holds the values of the cohort\'s own labels'
        )
    return array.astype(np.uint8)


def failure(row: Row, error: ShiftproofError, path: Path | None = None) -> Failure:
    path = path or next((p for p in row.images.values() if p is not None), None)
    return Failure(row.subject, str(path or ""), type(error).__name__, str(error))


# A model, or predictions of any origin --------------------------------------------------------------------


def evaluate(
    cohort: Cohort,
    *,
    model: Path | Model | None = None,
    predictions: Path | None = None,
    plan: Path | Plan | None = None,
    values: Values = "indices",
    missing: Missing = "report",
    out: Path | None = None,
    tolerance_mm: float = 2.0,
    device: str = "auto",
    batch: int = 4,
    workers: int = 1,
    progress: Update | None = None,
) -> Evaluation:
    """Scores a model, or predictions that any tool made, on a labelled cohort.

    Args:
        cohort: With labels.
        model: A model folder; or a TorchScript file, which is a program of the user's own and is run.
        predictions: Instead of a model: a folder of label files, named after the subjects or after the files of the
            images (an nnU-Net output folder is one).
        plan: Preprocessing of a TorchScript file.
        values: See `rows_of`; for `predictions`.
        missing: "report": a scan without prediction is listed as a failure and no mean contains it; "missed": all its
            structures count as missed.
        out: Folder for `rows.csv`, `evaluation.json`, `report.html` and the predictions of a model; the same call
            continues after an interruption.
        tolerance_mm: Of the surface Dice.
        device: "cpu", "cuda" or "auto".
        batch: Windows scored together.
        workers: Threads that measure.
        progress: Called with scans done, scans in total and the subject that is next.

    Raises:
        OptionError: If neither or both of model and predictions are given, or a TorchScript file lacks its plan.
        ModelError: If the model cannot be loaded.
        LabelError: If its classes are not the cohort's.
        CohortError: If nothing is labelled, nothing can be scored, or predictions have names that fit no scan.
    """
    choose(missing, get_args(Missing), "treatment of missing predictions")
    if (model is None) == (predictions is None):
        raise OptionError("evaluate needs either a model or a folder of predictions, and not both")
    labelled = Cohort(
        cohort.table[[row.label is not None for row in cohort.rows()]],
        cohort.root,
        domain=cohort.domain,
        labels=cohort.labels,
    )
    if not len(labelled):
        raise CohortError(f"{cohort.root} has no labelled scan to score against; fill the table's label column")
    failures: list[Failure] = []
    facts: dict[str, Any] = {
        "name": cohort.root.name,
        "cohort": str(cohort.root),
        "domain_column": cohort.domain,
        "domains": labelled.domains,
        "classes": cohort.classes,
        "primary": "dice",
        "tolerance_mm": tolerance_mm,
        "values": values,
        "missing": missing,
        "unlabelled": len(cohort) - len(labelled),
        "versions": versions(),
    }
    if predictions is not None:
        files = find_predictions(Path(predictions), labelled)
        facts["predictions"] = str(predictions)
        label_of = _from_files(files, f"{predictions} has no prediction for it; add one, or leave the scan out")
    else:
        assert model is not None
        loaded = model if isinstance(model, Model) else load(Path(model), plan, device=device)
        facts |= _about(loaded, labelled)
        values = "indices"
        if out is None:
            label_of = lambda row: predicted_label(loaded, row.images, batch=batch)  # noqa: E731
        else:
            made = predict_scans(
                loaded, of_cohort(labelled), Path(out) / "predictions", batch=batch, progress=progress, overwrite=True
            )
            files = {_key(row): p.output or p.error for row, p in zip(labelled.rows(), made, strict=True)}
            label_of = _from_files(files, "")
    if missing == "missed":
        label_of = _or_missed(label_of)
    rows = rows_of(
        label_of, labelled, tolerance_mm=tolerance_mm, values=values, failures=failures, workers=workers, progress=progress
    )
    if rows.empty:
        raise CohortError(f"none of {len(labelled)} scans could be scored; the first: {failures[0].message}")
    facts["failures"] = [asdict(f) for f in failures]
    found = Evaluation(rows, failures, facts, None if out is None else Path(out))
    if out is not None:
        _write(found, labelled, files)
    return found
