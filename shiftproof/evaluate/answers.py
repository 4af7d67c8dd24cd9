"""Rows of predictions for whole scans: a class, findings, or a number for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..data.cohort import Cohort, Row
from ..data.targets import Targets
from ..deploy.answer import Answer
from ..deploy.manifest import kind_of
from ..errors import CohortError, LabelError, ShiftproofError
from .rows import COLUMNS, Failure, Update

if TYPE_CHECKING:
    import pandas as pd

AnswerOf = Callable[[Row], Answer | None]
"""From a scan to what was answered; None: nothing was."""

ANSWERS = ("subject", "domain", "scan", "structure", "predicted", "truth")
"""Columns of the table of answers: number of the scan within its subject; probability and truth (0 or 1) of each class,
or two numbers in their unit."""


def rows_of_answers(
    answer_of: AnswerOf,
    cohort: Cohort,
    *,
    failures: list[Failure] | None = None,
    progress: Update | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Every metric of every labelled scan, and the table that figures of a whole set are worked out from.

    A classification has "correct" (1 or 0, under the name of the true class, so that a mean under a name is its
    recall) and "brier", the squared distance of the probabilities from the truth; with classes in order
    "class error", too. Several findings have both under each finding that is annotated. A regression has the
    absolute error and the signed one, in the unit.

    Args:
        answer_of: Called once for each scan, in order.
        cohort: With labels that are cells of its table; unlabelled scans are passed over.
        failures: Where scans without an answer are listed; None raises the first error.
        progress: Called with scans done, scans in total and the subject that is next.

    Returns:
        Rows with the columns `COLUMNS`, and answers with the columns `ANSWERS`, in the order of the cohort.
    """
    import pandas as pd

    targets = cohort.labels
    rows = [row for row in cohort.rows() if row.target is not None]
    if not isinstance(targets, Targets) or not rows:
        raise CohortError(f"{cohort.root} has no labelled scan to score against; fill the label's column of the table")
    lines: list[dict[str, Any]] = []
    answers: list[dict[str, Any]] = []
    seen: dict[str, int] = {}
    for done, row in enumerate(rows):
        scan = seen[row.subject] = seen.get(row.subject, 0) + 1
        if progress is not None:
            progress(done, len(rows), row.subject)
        who = {"subject": row.subject, "domain": row.domain}
        try:
            found = answer_of(row)
            if found is None:
                raise CohortError(f"there is no prediction for {row.subject}")
            lines += [who | line | {"status": "ok"} for line in measured(found, row, targets)]
            answers += [who | {"scan": scan} | line for line in compared(found, row, targets)]
        except ShiftproofError as error:
            if failures is None:
                raise
            path = next((p for p in row.images.values() if p is not None), "")
            failures.append(Failure(row.subject, str(path), kind_of(error), str(error)))
    if progress is not None:
        progress(len(rows), len(rows), "")
    return pd.DataFrame(lines, columns=list(COLUMNS)), pd.DataFrame(answers, columns=list(ANSWERS))


def measured(answer: Answer, row: Row, targets: Targets) -> list[dict[str, Any]]:
    """Metrics of one scan: structure, metric, value."""
    truth = row.target
    assert truth is not None
    if targets.task == "regression":
        error = float(answer.answer) - float(truth)  # type: ignore[arg-type]
        unit = f" {targets.unit}" if targets.unit else ""
        return _lines(targets.column, {f"absolute error{unit}": abs(error), f"error{unit}": error})
    certain = _probabilities(answer, targets)
    if targets.kind == "multi-label":
        assert row.annotated is not None
        return [
            line
            for k in np.flatnonzero(row.annotated)
            for line in _lines(
                targets.classes[k],
                {
                    "correct": float((targets.classes[k] in answer.answer) == bool(truth[k])),  # type: ignore[operator]
                    "brier": float((certain[k] - truth[k]) ** 2),
                },
            )
        ]
    place, chosen = int(truth), targets.classes.index(str(answer.answer))
    values = {
        "correct": float(chosen == place),
        "brier": float(((certain - np.eye(len(certain))[place]) ** 2).sum()),
    }
    if targets.kind == "ordinal":
        values["class error"] = float(abs(chosen - place))
    return _lines(targets.classes[place], values)


def compared(answer: Answer, row: Row, targets: Targets) -> list[dict[str, Any]]:
    """What was predicted beside what is true, a line a class."""
    truth = row.target
    assert truth is not None
    if targets.task == "regression":
        return [{"structure": targets.column, "predicted": float(answer.answer), "truth": float(truth)}]  # type: ignore[arg-type]
    certain = _probabilities(answer, targets)
    expected = truth if targets.kind == "multi-label" else np.eye(len(certain))[int(truth)]
    return [
        {"structure": name, "predicted": float(p), "truth": float(t)}
        for name, p, t in zip(targets.classes, certain, expected, strict=True)
    ]


def primary_of(targets: Mapping[str, Any]) -> str:
    """The metric that rows of a plan's `target` are compared by."""
    if targets["task"] == "regression":
        return f"absolute error {targets['unit']}".strip()
    return "dice" if targets["task"] == "segmentation" else "correct"


def _probabilities(answer: Answer, targets: Targets) -> np.ndarray:
    if set(answer.probabilities) != set(targets.classes):
        raise LabelError(
            f"the prediction is about {', '.join(answer.probabilities) or 'nothing'}, the cohort about "
            f"{', '.join(targets.classes)}; use one with the same classes"
        )
    return np.array([answer.probabilities[name] for name in targets.classes])


def _lines(structure: str, values: Mapping[str, float]) -> list[dict[str, Any]]:
    return [{"structure": structure, "metric": metric, "value": value} for metric, value in values.items()]
