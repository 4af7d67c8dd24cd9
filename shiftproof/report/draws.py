"""Figures of a whole set in many bootstrap samples at once: a sample is how often it holds each line.

The same numbers as `metrics.classification.summary` of each sample gives (asserted in the tests), without sorting the
scores anew for each: a page with 640 subjects, 10 classes and 8 rows takes a second for them instead of fifteen.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from ..metrics import calibration

Array = NDArray[np.float64]


def figures(predicted: Array, truth: Array, kind: str, counts: Array) -> dict[str, Array]:
    """(B,) of each figure that pages show; NaN where a sample has none.

    Args:
        predicted: (N, K) probabilities.
        truth: (N, K) of 0 and 1, NaN where a finding is not annotated.
        kind: Of classification.
        counts: (B, N) how often each sample holds each line.
    """
    classes, known = range(truth.shape[1]), ~np.isnan(truth)
    parts = [(predicted[known[:, k], k], truth[known[:, k], k], counts[:, known[:, k]]) for k in classes]
    areas, precisions = zip(*(ranked(*part) for part in parts), strict=True)
    found = {
        "auroc": mean_of(areas),
        "average precision": precisions[1] if kind != "multi-label" and len(classes) == 2 else mean_of(precisions),
    }
    if kind == "multi-label":
        right = [(share(1.0 * (p > 0.5), w * (t == 1)), share(1.0 * (p <= 0.5), w * (t == 0))) for p, t, w in parts]
        distance = np.where(known, np.square(predicted - truth), 0)
        return found | {
            "balanced accuracy": mean_of((positive + negative) / 2 for positive, negative in right),
            "brier": over(counts @ distance.sum(1), counts @ known.sum(1)),
            "calibration error": mean_of(miscalibration(*part) for part in parts),
        }
    answer, true = predicted.argmax(1), truth.argmax(1)
    hit = 1.0 * (answer == true)
    found |= {
        "balanced accuracy": mean_of(share(hit, counts * (true == k)) for k in classes),
        "brier": share(np.square(predicted - truth).sum(1), counts),
        "calibration error": miscalibration(predicted.max(1), hit, counts),
    }
    return found | ({"quadratic kappa": kappa(answer, true, len(classes), counts)} if kind == "ordinal" else {})


def ranked(scores: Array, present: Array, counts: Array) -> tuple[Array, Array]:
    """AUROC and average precision, (B,) each; equal scores make one step."""
    nothing = np.full(len(counts), np.nan)
    if not len(scores):
        return nothing, nothing
    order = np.argsort(-scores, kind="stable")
    last = np.r_[np.flatnonzero(np.diff(scores[order])), len(scores) - 1]  # of each run of equal scores
    above = np.cumsum(counts[:, order], 1)[:, last]
    hits = np.cumsum(counts[:, order] * present[order], 1)[:, last]
    gained, lost = np.diff(hits, prepend=0), np.diff(above - hits, prepend=0)
    positives, negatives = hits[:, -1], (above - hits)[:, -1]
    area = over((lost * (hits - gained / 2)).sum(1), positives * negatives)
    return area, over((hits / np.maximum(above, 1) * gained).sum(1), positives)


def miscalibration(confidence: Array, present: Array, counts: Array) -> Array:
    """(B,) expected calibration errors, over the bins of `calibration.reliability`."""
    edges = [b.low for b in calibration.reliability(confidence, present)][1:]
    place = np.searchsorted(edges, confidence, side="left")
    inside = 1.0 * (place[:, None] == np.arange(len(edges) + 1))  # (N, bins)
    return over(np.abs(counts @ (inside * (present - confidence)[:, None])).sum(1), counts.sum(1))


def kappa(answer: NDArray[np.intp], true: NDArray[np.intp], classes: int, counts: Array) -> Array:
    """(B,) quadratic kappas."""
    one = np.eye(classes)
    tables = np.einsum("bn,ni,nj->bij", counts, one[true], one[answer], optimize=True)
    weight = np.square(np.subtract.outer(np.arange(classes), np.arange(classes)))
    chance = np.einsum("bi,bj,ij->b", tables.sum(2), tables.sum(1), weight)
    return 1 - over((weight * tables).sum((1, 2)) * counts.sum(1), chance)


def share(values: Array, counts: Array) -> Array:
    """(B,) mean of values (N,) in each sample."""
    return over(counts @ values, counts.sum(1))


def over(part: Array, whole: Array) -> Array:
    return np.where(whole > 0, part / np.where(whole > 0, whole, 1), np.nan)


def mean_of(values: Iterable[Array]) -> Array:
    """(B,) mean over classes, or seeds, of those that are not NaN."""
    stacked = np.stack(list(values))
    known = ~np.isnan(stacked)
    return over(np.where(known, stacked, 0).sum(0), known.sum(0).astype(float))
