"""Two recipes of several trainings each: do the recipes differ, or only these trainings?"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, stats

from ..errors import OptionError


@dataclass(frozen=True)
class OverTrainings:
    """A mean difference, and what it spreads by from training to training.

    Args:
        mean, low, high: Of the difference, other trainings of the same recipes in mind.
        p: Two-sided.
        freedom: Degrees of freedom of its t distribution.
        error: Standard error of the mean.
        sd: Standard deviation of the difference of one training each, within a domain.
        trainings: The fewest of a side within a domain.
        reason: Why there is no such number; "" where there is.
    """

    mean: float
    low: float
    high: float
    p: float
    freedom: float
    error: float
    sd: float
    trainings: int
    reason: str = ""


def over_trainings(
    a: ArrayLike, b: ArrayLike, *, weights: ArrayLike | None = None, together: bool = False, level: float = 0.95
) -> OverTrainings:
    """Welch's t-test over trainings: each one's mean over the same subjects is one observation.

    A test over subjects asks whether *these* networks differ. A training that came out better than another one of
    the same recipe is better for most subjects, and more subjects only make that surer: a claim about recipes has to
    survive both tests. Every held-out domain has trainings of its own; variances are taken within domains.

    Args:
        a: (H, S) mean score of each training, by domain and seed; NaN where there is none.
        b: (H, T) likewise; of the same domains.
        weights: (H,) of each domain in the mean, such as its subjects; equal if not given.
        together: Whether both are scored from the same trainings (one adapts while predicting, say), so that their
            seeds belong together, S = T.
        level: Coverage of the interval.

    Raises:
        OptionError: For tables that do not fit together.
    """
    first, second = (np.atleast_2d(np.asarray(side, dtype=float)) for side in (a, b))
    if len(first) != len(second) or (together and first.shape != second.shape):
        raise OptionError(f"trainings are given by domain and seed, got {first.shape} and {second.shape}")
    sides = [first - second] if together else [first, second]
    counts = np.array([np.isfinite(side).sum(1) for side in sides])  # (1 or 2, H)
    fewest = int(counts.min()) if counts.size else 0
    if fewest < 1:
        reason = "a domain has no training of one side" if len(first) else "they share no subject"
        return unknown(math.nan, 0, reason)
    shares = np.ones(len(first)) if weights is None else np.asarray(weights, dtype=float)
    shares = shares / shares.sum()
    means = np.array([np.nanmean(side, 1) for side in sides])
    mean = float((shares * (means[0] if together else means[0] - means[1])).sum())
    if fewest < 2:
        reason = "one training each: what another training would give is not known"
        return unknown(mean, fewest, reason)
    variances = np.array([np.nanvar(side, 1, ddof=1) for side in sides])
    parts = shares**2 * variances / counts
    error, sd = math.sqrt(parts.sum()), math.sqrt(float((shares * variances.sum(0)).sum()))
    if error <= 1e-12 * max(1.0, abs(mean)):  # whoever trains again gets the same
        return OverTrainings(mean, mean, mean, 1.0 if abs(mean) <= 1e-12 else 0.0, math.inf, 0.0, sd, fewest)
    freedom = float(parts.sum() ** 2 / (parts**2 / (counts - 1)).sum())
    half = float(stats.t.ppf((1 + level) / 2, freedom)) * error
    p = float(2 * stats.t.sf(abs(mean) / error, freedom))
    return OverTrainings(mean, mean - half, mean + half, p, freedom, error, sd, fewest)


def detectable_over_trainings(found: OverTrainings, *, power: float = 0.8, level: float = 0.05) -> float:
    """Smallest true difference of recipes that so many trainings with this spread show; NaN where none is known."""
    if not math.isfinite(found.freedom):
        return 0.0 if found.error == 0 else math.nan
    critical = float(stats.t.ppf(1 - level / 2, found.freedom))

    def lacking(away: float) -> float:
        # Beyond the other end lies next to nothing at this power.
        return float(stats.nct.sf(critical, found.freedom, away)) - power

    return found.error * float(optimize.brentq(lacking, 0.0, 10 * critical + 10))


def unknown(mean: float, trainings: int, reason: str) -> OverTrainings:
    nan = math.nan
    return OverTrainings(mean, nan, nan, nan, nan, nan, nan, trainings, reason)
