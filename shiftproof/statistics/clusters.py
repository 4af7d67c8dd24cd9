"""Several values a subject, and subjects from several sites: intervals that count each once."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

from ..errors import OptionError
from .intervals import BOOTSTRAP_FROM, RESAMPLES, Interval, IntervalMethod, check_level, constant, interval


def clustered(
    values: ArrayLike,
    *,
    subjects: ArrayLike,
    sites: ArrayLike | None = None,
    level: float = 0.95,
    method: IntervalMethod = "auto",
    within: tuple[float, float] = (-math.inf, math.inf),
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Mean and interval where a subject has several values (lesions, slices, scans), and sites may be random too.

    What is estimated. Without `sites`: the mean over subjects of the subject's own mean, so that whoever has
    twenty lesions counts no more than who has one; the interval is for other subjects of the same sites. With
    `sites`: the mean over sites of the mean over their subjects, each site counting once; the interval is for
    other sites, and `n` is the number of sites. A t interval over 3 to 6 sites has 2 to 5 degrees of freedom
    and is wide: that is what so few sites can say.

    A bootstrap with `sites` draws sites, then subjects within each drawn site. Drawing at both levels counts
    the spread within sites once more than the mean has it, so the ends lie rather too far out (Davison and
    Hinkley, Bootstrap Methods and their Application, 1997, section 3.8); with few sites they still lie too
    near, since S sites show only (S - 1) / S of their variance.

    Args:
        values: (N,) of any number a subject; NaN is left out, as is a value whose subject or site is unknown (None).
        subjects: (N,) whose each value is.
        sites: (N,) where each value's subject was scanned. A subject seen at two sites counts at both, as two.
        level: Coverage.
        method: As in `interval`; "auto" decides by the number of subjects, or of sites where these are random.
        within: Where the mean can lie, (0, 1) for Dice.
        resamples: Of the bootstrap.
        seed: Of the bootstrap.

    Raises:
        OptionError: For an unknown method, a level outside 0 to 1, or columns of different length.
    """
    lines = table(values, subjects, sites)
    keys = ["subject"] if sites is None else ["site", "subject"]
    by_subject = lines.groupby(keys, sort=True)["value"].mean()
    if sites is None:
        return interval(by_subject, level=level, method=method, within=within, resamples=resamples, seed=seed)
    groups = [own.to_numpy() for _, own in by_subject.groupby(level="site", sort=True)]
    means = np.array([own.mean() for own in groups])
    if len(means) < 2:
        mean = float(means[0]) if len(means) else math.nan
        return Interval(mean, math.nan, math.nan, len(means), "none: fewer than 2 sites")
    if method == "auto":
        method = "t" if len(means) < BOOTSTRAP_FROM else "bca"
    if method not in ("bca", "percentile"):
        return interval(means, level=level, method=method, within=within)
    check_level(level)
    low, high = two_stage(groups, level=level, method=method, resamples=resamples, seed=seed)
    return Interval(float(means.mean()), max(low, within[0]), min(high, within[1]), len(means), method)


def two_stage(groups: list[np.ndarray], *, level: float, method: str, resamples: int, seed: int) -> tuple[float, float]:
    """Low and high of a bootstrap of the mean of group means: groups are drawn, then members of each drawn group."""
    random = np.random.default_rng(seed)
    count = len(groups)
    drawn = random.integers(count, size=(resamples, count))
    totals = np.zeros(resamples)
    for place, own in enumerate(groups):
        # A group that is drawn twice has its members drawn twice, independently.
        times = (drawn == place).sum(1)
        means = own[random.integers(len(own), size=(int(times.sum()), len(own)))].mean(1)
        totals += np.bincount(np.repeat(np.arange(resamples), times), weights=means, minlength=resamples)
    found, ends = totals / count, np.array([(1 - level) / 2, (1 + level) / 2])
    if constant(found):
        return float(found[0]), float(found[0])
    if method == "bca":
        ends = corrected_ends(found, np.array([own.mean() for own in groups]), ends)
    low, high = np.quantile(found, ends)
    return float(low), float(high)


def corrected_ends(found: np.ndarray, means: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Quantiles that BCa takes instead of `ends`: for the bias of the bootstrap, and its skew over groups (jackknife).

    B. Efron, "Better Bootstrap Confidence Intervals", JASA 82 (1987).
    """
    below = ((found < means.mean()).sum() + (found <= means.mean()).sum()) / (2 * len(found))
    bias = stats.norm.ppf(np.clip(below, 1 / (2 * len(found)), 1 - 1 / (2 * len(found))))
    away = means - means.mean()  # the jackknife's deviations, but for a factor that cancels
    spread = (away**2).sum() ** 1.5
    acceleration = float((away**3).sum() / (6 * spread)) if spread else 0.0
    z = bias + stats.norm.ppf(ends)
    return np.asarray(stats.norm.cdf(bias + z / (1 - acceleration * z)))


def icc(values: ArrayLike, subjects: ArrayLike) -> float:
    """Intraclass correlation of values of a subject, ICC(1) by one-way analysis of variance.

    The share of the variance that lies between subjects; 0 where values of a subject are as different as those
    of others, below 0 by chance, NaN where nothing tells (one value each, one subject, no spread). Subjects with
    unequal numbers of values enter by their harmonically corrected mean number.

    P. E. Shrout and J. L. Fleiss, "Intraclass Correlations: Uses in Assessing Rater Reliability", Psychological
    Bulletin 86 (1979).
    """
    lines = table(values, subjects)
    by_subject = lines.groupby("subject")["value"]
    sizes, means = by_subject.count().to_numpy(float), by_subject.mean().to_numpy()
    total, count = sizes.sum(), len(sizes)
    if count < 2 or total == count or constant(lines["value"].to_numpy()):
        return math.nan
    between = float((sizes * (means - lines["value"].mean()) ** 2).sum() / (count - 1))
    inside = float(((lines["value"] - by_subject.transform("mean")) ** 2).sum() / (total - count))
    size = (total - (sizes**2).sum() / total) / (count - 1)
    return (between - inside) / (between + (size - 1) * inside)


def design_effect(m: ArrayLike, icc: float) -> float:
    """How many values that hang together are worth one: 1 + (m - 1) ICC (Kish 1965).

    20 slices a subject with an ICC of 0.3 give 6.7: they are worth 3.

    Args:
        m: Values a subject, or (N,) how many each subject has: then their mean weighted by itself, which is
            what a mean over all values feels.
        icc: Of the values of a subject.
    """
    sizes = np.asarray(m, dtype=float)
    return float(1 + ((sizes**2).sum() / sizes.sum() - 1) * icc)


def table(values: ArrayLike, subjects: ArrayLike, sites: ArrayLike | None = None) -> pd.DataFrame:
    """Columns value, subject and site where given; lines left out that lack one of them."""
    columns = {"value": np.asarray(values, dtype=float).ravel(), "subject": labels(subjects)}
    if sites is not None:
        columns["site"] = labels(sites)
    if len({len(c) for c in columns.values()}) > 1:
        raise OptionError(
            "each value needs its subject (and its site where sites are given), got "
            + ", ".join(f"{len(c)} {name}s" for name, c in columns.items())
        )
    lines = pd.DataFrame(columns)
    return lines[np.isfinite(lines["value"])].dropna()


def labels(names: ArrayLike) -> np.ndarray:
    """(N,) as given: numpy alone would make a subject called "nan" of a missing name among text."""
    return pd.Series(names, dtype=object).to_numpy()
