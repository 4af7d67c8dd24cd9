"""What a pilot knows: the difference of two methods, its spread, and how uncertain both are."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

from ..errors import OptionError
from .intervals import finite, interval
from .paired import correlation, tidy
from .precision import spread_interval


@dataclass(frozen=True)
class Pilot:
    """What a pilot says of two methods: the difference `a` minus `b`, its spread, and how well both are known."""

    a: str
    b: str
    n: int  # subjects that both have; of the smaller group where they have none in common
    left_out: int  # subjects without a score of both
    mean_difference: float = math.nan
    low: float = math.nan
    high: float = math.nan
    sd: float = math.nan  # of the differences; of the scores, pooled, where the design is unpaired
    sd_low: float = math.nan
    sd_high: float = math.nan
    sd_safe: float = math.nan  # one-sided upper limit of 80 %
    sd_a: float = math.nan  # of the scores of either method
    sd_b: float = math.nan
    correlation: float = math.nan  # of their scores


def measured(first: np.ndarray, second: np.ndarray, names: tuple[str, str], design: str) -> Pilot:
    """What the scores of two methods say.

    Raises:
        OptionError: For paired scores of different length.
    """
    if design == "unpaired":
        return of_groups(finite(first), finite(second), names, len(first) + len(second))
    if len(first) != len(second):
        raise OptionError(f"a paired plan needs both scores of each subject, got {len(first)} and {len(second)}")
    both = np.isfinite(first) & np.isfinite(second)
    one, other = first[both], second[both]
    difference = tidy(one - other)
    n, around = len(difference), interval(difference)
    if n < 2:
        return Pilot(*names, n, len(both) - n, around.mean)
    known = spread_interval(float(difference.std(ddof=1)), n - 1)
    return Pilot(
        *names, n, len(both) - n, around.mean, around.low, around.high, known.sd, known.low, known.high, known.safe,
        float(one.std(ddof=1)), float(other.std(ddof=1)), correlation(one, other),
    )  # fmt: skip


def of_groups(first: np.ndarray, second: np.ndarray, names: tuple[str, str], lines: int) -> Pilot:
    """The same of two groups of subjects, by the pooled SD that a t-test of them uses."""
    sizes = (len(first), len(second))
    n, freedom, left_out = min(sizes), sum(sizes) - 2, lines - sum(sizes)
    if n < 2:
        return Pilot(*names, n, left_out)
    sds = [float(side.std(ddof=1)) for side in (first, second)]
    pooled = math.sqrt(sum(sd**2 * (size - 1) for sd, size in zip(sds, sizes, strict=True)) / freedom)
    mean = float(first.mean() - second.mean())
    half = float(stats.t.ppf(0.975, freedom)) * pooled * math.sqrt(sum(1 / size for size in sizes))
    known = spread_interval(pooled, freedom)
    limits = (known.low, known.high, known.safe)
    return Pilot(*names, n, left_out, mean, mean - half, mean + half, pooled, *limits, *sds)


def unusable(pilot: Pilot, design: str) -> str:
    """Why a pilot says nothing of the spread; empty where it does."""
    if pilot.n < 2:
        who = f"{pilot.a} and {pilot.b}"
        many = f"{pilot.n or 'no'} subject{'' if pilot.n == 1 else 's'} with scores"
        if design == "paired":
            return f"{who} share {many}, and a spread takes 2; the unpaired design needs none in common"
        return f"the smaller group of {who} has {many}, and a spread takes 2"
    if pilot.sd <= 1e-12 * max(1.0, abs(pilot.mean_difference)):
        what = f"{pilot.a} minus {pilot.b} is the same in all" if design == "paired" else "scores are equal in all"
        return f"{what} {pilot.n} subjects: a spread of 0 says nothing about others"
    return ""
