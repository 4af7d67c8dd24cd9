"""How well classes of whole images are told: figures of a set of subjects, from NumPy arrays.

Conventions, fixed here because libraries differ:

- *Probabilities* are (N, K), finite, from 0 to 1; of classes that exclude each other they add up to 1. *Truth* is (N,)
  class indices; of findings that may occur together (N, K) of 0 and 1, NaN where a finding is not annotated, which
  leaves that subject out of that finding. Anything else is a `LabelError`.
- *The answer* is the most probable class (the first of equals), or each finding above 0.5.
- *A figure that is not defined is NaN*, never 0 or an error: of no subjects, the recall of a class that does not occur,
  the AUROC of one that always or never occurs, the average precision of one that never does.
- *A mean over classes* is over those where the figure is defined, so that a domain without a rare class has a value;
  compare such means between sets only if the same classes occur in them.
- *AUROC* counts ties as half. *Average precision* is the sum of precisions weighted by the steps of recall, without
  interpolation; tied subjects make one step.
- *Brier score*: squared distance of the probabilities from the truth, summed over classes that exclude each other
  (0 to 2), and averaged over findings (0 to 1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import LabelError
from .calibration import calibration_error, top_label_error

Array = NDArray[Any]
Kind = Literal["multi-class", "ordinal", "multi-label"]

LARGER_IS_BETTER: dict[str, bool] = {
    "balanced accuracy": True,
    "accuracy": True,
    "auroc": True,
    "average precision": True,
    "brier": False,
    "log loss": False,
    "calibration error": False,
    "quadratic kappa": True,
    "class error": False,
    "sensitivity": True,
    "specificity": True,
}
"""The figures of `summary` and `by_class`."""

SMALLEST = float(np.finfo(np.float64).eps)
"""Least probability in a logarithm: one sure and wrong answer costs 36, and not infinitely much."""


def summary(probabilities: Array, truth: Array, kind: Kind, classes: Sequence[str]) -> dict[str, float]:
    """Every figure of a set of subjects.

    AUROC and average precision are one class against the rest and then the mean over classes; of two classes that
    exclude each other the average precision is that of the second, the one that a test is for. The calibration error
    is of the most probable class, of findings the mean over them; 10 bins of equal width. It is not 0 for a perfect
    predictor of few subjects, and sets of different size cannot be compared by it.

    Args:
        probabilities: (N, K).
        truth: (N,) class indices; for "multi-label" (N, K), NaN where not annotated.
        kind: "ordinal" adds "quadratic kappa" and "class error", the mean distance in classes.
        classes: K names.

    Raises:
        LabelError: If the arrays do not fit or hold what is no probability or class.
    """
    p, present, answers = _terms(probabilities, truth, kind, classes)
    precisions = _over_classes(average_precision, p, present)
    found = {
        "balanced accuracy": math.nan,
        "accuracy": _mean((answers == present)[~np.isnan(present)]),
        "auroc": _mean(_over_classes(auroc, p, present)),
        "average precision": float(precisions[1]) if kind != "multi-label" and len(classes) == 2 else _mean(precisions),
        "brier": math.nan,
        "log loss": math.nan,
        "calibration error": math.nan,
    }
    if kind == "multi-label":
        halves = [_over_classes(sensitivity, answers, present), _over_classes(specificity, answers, present)]
        found["balanced accuracy"] = _mean(np.mean(halves, axis=0))
        found["brier"] = _mean(np.square(p - present))
        true = np.where(present == 1, p, 1 - p)
        found["log loss"] = _mean(np.where(np.isnan(present), math.nan, -np.log(np.maximum(true, SMALLEST))))
        found["calibration error"] = _mean(_over_classes(calibration_error, p, present))
        return found
    indices = np.asarray(truth).astype(np.int64)
    answer = p.argmax(1)
    return found | {
        "accuracy": accuracy(answer, indices),
        "balanced accuracy": balanced_accuracy(answer, indices, len(classes)),
        "brier": brier(p, indices),
        "log loss": log_loss(p, indices),
        "calibration error": top_label_error(p, indices),
        **(
            {
                "quadratic kappa": quadratic_kappa(answer, indices, len(classes)),
                "class error": _mean(np.abs(answer - indices)),
            }
            if kind == "ordinal"
            else {}
        ),
    }


def by_class(probabilities: Array, truth: Array, kind: Kind, classes: Sequence[str]) -> dict[str, dict[str, float]]:
    """The figures of each class against the rest, by its name; arguments and errors as of `summary`."""
    p, present, answers = _terms(probabilities, truth, kind, classes)
    figures = {
        "sensitivity": _over_classes(sensitivity, answers, present),
        "specificity": _over_classes(specificity, answers, present),
        "auroc": _over_classes(auroc, p, present),
        "average precision": _over_classes(average_precision, p, present),
        "calibration error": _over_classes(calibration_error, p, present),
    }
    return {name: {f: float(values[k]) for f, values in figures.items()} for k, name in enumerate(classes)}


def accuracy(answer: Array, truth: Array) -> float:
    """Share of right answers, both (N,) class indices."""
    answer, truth = _together(answer, truth)
    return _mean(answer == truth)


def confusion(answer: Array, truth: Array, classes: int) -> NDArray[np.int64]:
    """(K, K) numbers of subjects: true class by row, answer by column."""
    answer, truth = _together(answer, truth)
    table = np.zeros((classes, classes), np.int64)
    np.add.at(table, (_indices("truth", truth, classes), _indices("answer", answer, classes)), 1)
    return table


def recalls(answer: Array, truth: Array, classes: int) -> NDArray[np.float64]:
    """(K,) share of each true class that is answered so; NaN for a class that does not occur."""
    table = confusion(answer, truth, classes)
    number = table.sum(1)
    return np.where(number > 0, np.diag(table) / np.maximum(number, 1), np.nan)


def balanced_accuracy(answer: Array, truth: Array, classes: int) -> float:
    """Mean recall of the classes that occur."""
    return _mean(recalls(answer, truth, classes))


def quadratic_kappa(answer: Array, truth: Array, classes: int) -> float:
    """Agreement beyond chance of classes in order; a miss weighs by the square of its distance.

    1 is perfect, 0 is chance with the same shares of the classes; NaN where answer and truth are one class only.

    Paper: J. Cohen, "Weighted kappa", Psychological Bulletin 70 (1968), https://doi.org/10.1037/h0026256.
    """
    table = confusion(answer, truth, classes)
    index = np.arange(classes)
    weight = np.square(index[:, None] - index[None])
    chance = (weight * np.outer(table.sum(1), table.sum(0))).sum()
    return float(1 - (weight * table).sum() * table.sum() / chance) if chance else math.nan


def sensitivity(answer: Array, present: Array) -> float:
    """Share of the subjects with the class that are answered so, both (N,) of 0 and 1."""
    answer, present = _together(answer, present)
    return _mean(answer[present == 1])


def specificity(answer: Array, present: Array) -> float:
    """Share of the subjects without the class that are answered so, both (N,) of 0 and 1."""
    answer, present = _together(answer, present)
    return _mean(1 - answer[present == 0].astype(float))


def auroc(scores: Array, present: Array) -> float:
    """Probability that a subject with the class scores higher than one without, a tie being half; both (N,)."""
    from scipy.stats import rankdata

    scores, present = _together(scores, present)
    present = present.astype(bool)
    positives, negatives = int(present.sum()), int((~present).sum())
    if not positives or not negatives:
        return math.nan
    above = rankdata(scores)[present].sum() - positives * (positives + 1) / 2
    return float(above / (positives * negatives))


def average_precision(scores: Array, present: Array) -> float:
    """Sum over thresholds of precision times the gain in recall; both (N,)."""
    scores, present = _together(scores, present)
    present = present.astype(bool)
    if not present.any():
        return math.nan
    order = np.argsort(-scores, kind="stable")
    found = np.cumsum(present[order])
    last = np.r_[np.flatnonzero(np.diff(scores[order])), len(scores) - 1]  # of each run of equal scores
    precision = found[last] / (last + 1)
    return float((precision * np.diff(found[last], prepend=0)).sum() / present.sum())


def brier(probabilities: Array, truth: Array) -> float:
    """Mean over subjects of the squared distance of the probabilities (N, K) from the class (N,), from 0 to 2.

    Paper: G. W. Brier, "Verification of forecasts expressed in terms of probability", Monthly Weather Review 78 (1950).
    """
    p = np.asarray(probabilities, np.float64)
    certain = np.eye(p.shape[1])[_indices("truth", truth, p.shape[1])]
    return _mean(np.square(p - certain).sum(1))


def log_loss(probabilities: Array, truth: Array) -> float:
    """Mean over subjects of - log of the true class's probability, in nats; it counts as `SMALLEST` at least."""
    p = np.asarray(probabilities, np.float64)
    of_true = p[np.arange(len(p)), _indices("truth", truth, p.shape[1])]
    return _mean(-np.log(np.maximum(of_true, SMALLEST)))


def _terms(probabilities: Array, truth: Array, kind: str, classes: Sequence[str]) -> tuple[Array, Array, Array]:
    """Checked: probabilities, truth as (N, K) of 0, 1 and NaN, answers as (N, K) of 0 and 1."""
    p, truth, number = np.asarray(probabilities, np.float64), np.asarray(truth), len(classes)
    if kind not in ("multi-class", "ordinal", "multi-label"):
        raise LabelError(f"kind of classification is multi-class, ordinal or multi-label, got {kind!r}")
    several = kind == "multi-label"
    if p.ndim != 2 or p.shape[1] != number or truth.shape != (p.shape if several else p.shape[:1]):
        raise LabelError(
            f"{kind} classification into {number} classes takes probabilities (N, {number}) and truth "
            f"{f'(N, {number})' if several else '(N,)'}, got {p.shape} and {truth.shape}"
        )
    if not (np.isfinite(p).all() and (p >= 0).all() and (p <= 1 + 1e-6).all()):
        raise LabelError("probabilities are finite and from 0 to 1; are these logits?")
    if several:
        present = truth.astype(np.float64)
        if not np.isin(present[~np.isnan(present)], (0, 1)).all():
            raise LabelError("the truth of findings is 1 (present), 0 (absent) or NaN (not annotated)")
        return p, present, (p > 0.5).astype(np.float64)
    if number < 2 or (np.abs(p.sum(1) - 1) > 1e-3).any():
        raise LabelError(f"probabilities of {number} classes that exclude each other are at least 2 and add up to 1")
    return p, np.eye(number)[_indices("truth", truth, number)], np.eye(number)[p.argmax(1)]


def _together(values: Array, truth: Array) -> tuple[Array, Array]:
    a, b = np.asarray(values), np.asarray(truth)
    if a.ndim != 1 or a.shape != b.shape or np.isnan(a).any() or np.isnan(b).any():
        raise LabelError(f"two arrays (N,) without NaN are compared, got {a.shape} and {b.shape}")
    return a, b


def _indices(name: str, given: Array, classes: int) -> NDArray[np.int64]:
    values = np.asarray(given)
    indices = values.astype(np.int64) if np.isfinite(values).all() else np.full(values.shape, -1)
    if values.ndim != 1 or (indices != values).any() or (indices < 0).any() or (indices >= classes).any():
        raise LabelError(f"{name} is class indices (N,) from 0 to {classes - 1}, got {values.shape} {values.dtype}")
    return indices


def _over_classes(figure: Any, values: Array, present: Array) -> NDArray[np.float64]:
    """(K,) of `figure(values, present)` over the subjects where the class is annotated."""
    known = ~np.isnan(present)
    return np.array([figure(values[known[:, k], k], present[known[:, k], k]) for k in range(present.shape[1])])


def _mean(values: Array) -> float:
    """Of what is not NaN; NaN where nothing is."""
    values = np.asarray(values, np.float64)
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else math.nan
