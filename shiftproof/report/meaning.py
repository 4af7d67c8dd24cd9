"""What the values of label files and of predictions mean, for pictures and volumes on the page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..data.cohort import Cohort
from ..data.labels import IGNORE, LabelMap
from ..data.overlaps import decoded
from ..errors import ShiftproofError
from .results import Results


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
