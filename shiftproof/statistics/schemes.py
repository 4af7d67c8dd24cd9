"""Ways to come from scores to ranks, each for many samples of subjects at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import numpy as np

from .corrections import holm
from .paired import rank_biserial, signed_rank_p, tidy
from .tables import ranked

Scheme = Literal["mean then rank", "median then rank", "rank then mean", "test then rank"]

SCHEMES: tuple[Scheme, ...] = get_args(Scheme)

Ranking = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Scores (N, K) and samples of subjects (B, N) to ranks (B, K)."""


def ranking(scheme: str, higher_is_better: bool, level: float) -> Ranking:
    def means(scores: np.ndarray, places: np.ndarray) -> np.ndarray:
        return ranked(averages(scores, places), higher_is_better)

    def medians(scores: np.ndarray, places: np.ndarray) -> np.ndarray:
        return ranked(np.median(scores[places], axis=1), higher_is_better)

    def mean_ranks(scores: np.ndarray, places: np.ndarray) -> np.ndarray:
        return ranked(averages(ranked(scores, higher_is_better), places), False)

    def wins(scores: np.ndarray, places: np.ndarray) -> np.ndarray:
        counted = np.stack([significant_wins(scores[own], higher_is_better, level) for own in places])
        return ranked(counted, True)

    return dict(zip(SCHEMES, (means, medians, mean_ranks, wins), strict=True))[scheme]


def averages(scores: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Means of each sample, (B, K), by how often each subject stands in it: no copy of the scores a sample."""
    b, n = places.shape
    counts = np.zeros((b, len(scores)))
    np.add.at(counts, (np.arange(b)[:, None], places), 1)
    return counts @ scores / n


def significant_wins(scores: np.ndarray, higher_is_better: bool, level: float) -> np.ndarray:
    """How many others each method beats, (K,): one-sided Wilcoxon tests, Holm over all ordered pairs."""
    k = scores.shape[1]
    p, sides = [], []
    for a in range(k):
        for b in range(a + 1, k):
            difference = tidy(scores[:, a] - scores[:, b])
            both_sided, lean = signed_rank_p(difference), rank_biserial(difference)
            towards = both_sided / 2  # of the side that the ranks lean to
            a_leads = lean > 0 if higher_is_better else lean < 0
            sides += [a, b]
            p += [towards, 1 - towards] if a_leads else [1 - towards, towards]
    won = np.zeros(k)
    np.add.at(won, np.asarray(sides, dtype=int), holm(p) < level)
    return won
