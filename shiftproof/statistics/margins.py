"""How far from the decision boundary samples of a class land, and how much nearer those of unseen subjects do.

Z. Li, K. Kamnitsas, B. Glocker, "Analyzing Overfitting under Class Imbalance in Neural Networks for Image
Segmentation", IEEE TMI 40 (2021), https://arxiv.org/abs/2102.10365, shows the distributions; the numbers beside them
are our own. A softmax does not change when a constant is added to all logits, so that only differences of logits mean
anything: margins of two networks can be compared, their logits cannot.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import OptionError


@dataclass(frozen=True)
class MarginShift:
    """Signed margins of one class on two sides; NaN where a side has none.

    Args:
        n_train, n_test: Samples.
        mean_train, mean_test: Mean margins.
        median_train, median_test: Medians.
        shift: Mean of the training side less that of the test side; above 0 where unseen samples lie nearer to the
            boundary, or beyond it.
        normalised: The shift over the standard deviation of the training side (of the population, not of a sample).
        crossing_train, crossing: Shares of samples with a margin of 0 or less: those that an argmax gives to another
            class, or may. One less the crossing is the sensitivity of the class over these samples.
    """

    n_train: int
    n_test: int
    mean_train: float
    mean_test: float
    median_train: float
    median_test: float
    shift: float
    normalised: float
    crossing_train: float
    crossing: float


def signed_margins(logits: ArrayLike, true: int) -> NDArray[np.float64]:
    """Logit of the true class less the largest of the others, (N,), of (N, K) logits of samples of one class.

    Raises:
        OptionError: If there are fewer than two classes, or the true one is none of them.
    """
    values = np.asarray(logits, dtype=float)
    if values.ndim != 2 or values.shape[1] < 2 or not 0 <= true < values.shape[1]:
        raise OptionError(
            f"margins need logits (N, K) of at least two classes and a true one of them, got {values.shape} and {true}"
        )
    others = np.delete(values, true, axis=1)
    return np.asarray(values[:, true] - others.max(1))


def switch_margins(logits: ArrayLike, present: bool) -> NDArray[np.float64]:
    """The same of a sigmoid, whose other logit is 0: the logit where the structure is present, else its negative."""
    values = np.asarray(logits, dtype=float).ravel()
    return values if present else -values


def margin_shift(train: ArrayLike, test: ArrayLike) -> MarginShift:
    """What two sides of signed margins say together."""
    seen, unseen = (np.asarray(side, dtype=float).ravel() for side in (train, test))
    spread = float(seen.std()) if len(seen) else math.nan
    shift = _of(np.mean, seen) - _of(np.mean, unseen)
    return MarginShift(
        n_train=len(seen),
        n_test=len(unseen),
        mean_train=_of(np.mean, seen),
        mean_test=_of(np.mean, unseen),
        median_train=_of(np.median, seen),
        median_test=_of(np.median, unseen),
        shift=shift,
        normalised=shift / spread if spread > 0 else math.nan,
        crossing_train=crossing_fraction(seen),
        crossing=crossing_fraction(unseen),
    )


def crossing_fraction(margins: ArrayLike) -> float:
    """Share of margins at or below 0; NaN without any."""
    values = np.asarray(margins, dtype=float)
    return float((values <= 0).mean()) if values.size else math.nan


def _of(function: object, values: NDArray[np.float64]) -> float:
    return float(function(values)) if len(values) else math.nan  # type: ignore[operator]
