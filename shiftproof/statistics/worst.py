"""The domain on which a method does worst, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from ..errors import OptionError
from .intervals import Interval, interval
from .ranks import DRAWN, samples
from .schemes import averages

Domains = pd.Series | pd.DataFrame | Mapping[str, ArrayLike]


@dataclass(frozen=True)
class Worst:
    """The domain with the worst mean.

    `low` and `high` hold the worst of the domains' true means, whichever domain's it is. `share` is how often each
    domain comes out worst among bootstrap samples of subjects, the largest first. `means` are those of all domains.
    Where `reason` is not empty there is no interval, and no mean without any score. `note` says what was left out.
    """

    domain: str
    mean: float
    low: float
    high: float
    n: int
    share: dict[str, float] = field(default_factory=dict)
    means: dict[str, float] = field(default_factory=dict)
    reason: str = ""
    note: str = ""


def worst_domain(
    wide_by_domain: Domains,
    *,
    higher_is_better: bool = True,
    level: float = 0.95,
    within: tuple[float, float] = (-math.inf, math.inf),
    resamples: int = DRAWN,
    seed: int = 0,
) -> Worst:
    """Worst domain of one method, from its scores.

    The interval does not come from a bootstrap of the smallest mean: the smallest of several noisy means is too small,
    the bootstrap makes it too small once more, and of six equal domains its 95 % interval held the truth one time in
    five (see the tests). Here the far bound is the worst of the domains' own bounds, and the near one the worst of
    bounds that are corrected for the number of domains (Bonferroni): it holds the truth at least as often as the
    domains' own intervals do, and more often where domains are alike.

    Args:
        wide_by_domain: A series with index (domain, subject); or a table, index subject, a column a domain; or
            scores by domain. NaN where missing.
        higher_is_better: False for distances: the worst is then the largest mean.
        level: Coverage.
        within: Where a mean can lie, (0, 1) for Dice.
        resamples: Bootstrap samples for `share`; subjects of the same domains are drawn among each other.
        seed: Of those draws, and of the intervals where they are drawn.

    Raises:
        OptionError: For scores that are no numbers.
    """
    scores, note = table_of(wide_by_domain)
    if not scores.size:
        return Worst("", math.nan, math.nan, math.nan, 0, reason="no domain with a score", note=note)
    towards = -1.0 if higher_is_better else 1.0
    means = scores.mean()
    domain = str((towards * means).idxmax())
    many = [d for d in scores.columns if scores[d].count() > 1]
    alone = [d for d in scores.columns if d not in many]
    if alone:
        note = "; ".join(t for t in (note, f"one subject only, not in the interval: {', '.join(alone)}") if t)
    reason = "" if domain in many else f"{domain} has one subject: its mean has no interval"
    low, high = bounds(scores[many], higher_is_better, level, within, seed) if not reason else (math.nan, math.nan)
    share = shares(scores, towards, resamples, np.random.default_rng(seed))
    return Worst(
        domain=domain,
        mean=float(means[domain]),
        low=low,
        high=high,
        n=int(scores[domain].count()),
        share=dict(sorted(share.items(), key=lambda item: -item[1])),
        means={str(d): float(m) for d, m in means.items()},
        reason=reason,
        note=note,
    )


def bounds(
    scores: pd.DataFrame, higher_is_better: bool, level: float, within: tuple[float, float], seed: int
) -> tuple[float, float]:
    """Low and high of the worst of the columns' true means."""

    def around(coverage: float) -> list[Interval]:
        return [interval(scores[d], level=coverage, within=within, seed=seed) for d in scores]

    own, strict = around(level), around(1 - (1 - level) / scores.shape[1])
    if higher_is_better:
        return min(i.low for i in own), min(i.high for i in strict)
    return max(i.low for i in strict), max(i.high for i in own)


def table_of(given: Domains) -> tuple[pd.DataFrame, str]:
    """Index subject, a column a domain, finite or NaN; domains without a score are left out and named."""
    try:
        if isinstance(given, pd.Series):
            levels = [given.index.get_level_values(0).astype(str), given.index.get_level_values(-1)]
            found = given.astype(float).groupby(levels).mean().unstack(0)
        elif isinstance(given, pd.DataFrame):
            found = given.astype(float).groupby(given.index.get_level_values(-1)).mean()
        else:  # who says nothing about subjects has other ones in each domain
            parts = {str(d): np.asarray(v, dtype=float).ravel() for d, v in given.items()}
            lines = [pd.DataFrame({d: v}, index=[f"{d} {i}" for i in range(len(v))]) for d, v in parts.items()]
            found = pd.concat(lines) if lines else pd.DataFrame()
    except (TypeError, ValueError) as error:
        raise OptionError(f"scores by domain must be numbers or NaN ({error})") from None
    found = found.set_axis([str(c) for c in found.columns], axis=1)
    found = found.where(np.isfinite(found)) if found.size else found
    empty = [c for c in found.columns if found[c].isna().all()]
    return found.drop(columns=empty).dropna(how="all"), f"no score: {', '.join(empty)}" if empty else ""


def shares(scores: pd.DataFrame, towards: float, resamples: int, random: np.random.Generator) -> dict[str, float]:
    """How often each domain is the worst; domains that tie share the sample.

    Subjects are drawn among those that were scored on the same domains, so that no domain loses its subjects and a
    subject that several domains share stays one.
    """
    values, there = scores.to_numpy(), scores.notna().to_numpy()
    patterns = np.unique(there, axis=0, return_inverse=True)[1].ravel()
    strata = [np.flatnonzero(patterns == p) for p in range(int(patterns.max()) + 1)]
    filled, per = np.where(there, values, 0.0), len(values) / there.sum(0)
    counted = np.zeros(values.shape[1])
    size = float(np.abs(filled).max()) or 1.0
    for places in samples(strata, len(values) * values.shape[1], resamples, random):
        means = np.round(towards * averages(filled, places) * per / size, 12)
        worst = means == means.max(1, keepdims=True)
        counted += (worst / worst.sum(1, keepdims=True)).sum(0)
    return dict(zip(scores.columns, (counted / resamples).tolist(), strict=True))
