"""Who is first, how much that depends on the way of ranking, and on which subjects happened to be scored."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

from ..errors import OptionError
from .schemes import SCHEMES, Scheme, ranking
from .tables import by_subject, complete_cases, scores_of

Missing = Literal["worst", "leave out"]

DRAWN = 1000
BLOCK = 4_000_000  # numbers that a bootstrap holds at a time: some 32 MB


@dataclass(frozen=True)
class Stability:
    """What a ranking would have been with other subjects of the same kind.

    `first` is each method's share of bootstrap samples in which it comes first, largest first; `ranks`
    its share at each rank (index: methods in the order of the full ranking; columns 1 to k). Methods that
    tie share their ranks. `tau_median`, `tau_low`, `tau_high` are median and quartiles of Kendall's tau-b
    between the full ranking and those of the samples, `agreement` the same tau between schemes on all
    subjects, `rankings` those rankings. Where `reason` is not empty nothing could be drawn.
    """

    first: dict[str, float]
    ranks: pd.DataFrame
    tau_median: float
    tau_low: float
    tau_high: float
    agreement: pd.DataFrame
    rankings: pd.DataFrame
    n: int
    resamples: int
    scheme: str
    reason: str = ""
    note: str = ""


def rankings(
    wide: pd.DataFrame,
    *,
    higher_is_better: bool = True,
    missing: Missing = "worst",
    worst: float | None = None,
    level: float = 0.05,
) -> pd.DataFrame:
    """Ranks of all methods by each scheme; 1 is best, equal ones share the mean of their ranks.

    "mean then rank" and "median then rank" rank a mean or median over subjects, "rank then mean" averages ranks
    within subjects, "test then rank" counts over how many others a method is better by a one-sided Wilcoxon
    signed-rank test, corrected by Holm's rule for all ordered pairs.

    Schemes: L. Maier-Hein et al., "Why rankings of biomedical image analysis competitions should be interpreted
    with care", Nature Communications 9 (2018); M. Wiesenfarth et al., "Methods and open-source toolkit for analyzing
    and visualizing challenge results", Scientific Reports 11 (2021).

    Args:
        wide: Scores; the index' last level is the subject, a column a method, NaN where missing.
        higher_is_better: False for distances.
        missing: "worst" gives a missing score the value `worst`, and so the worst rank within its subject; "leave out"
            drops the subject for all methods, as is right where NaN stands for a structure that is rightly absent.
        worst: Value of a missing score, 0 for Dice; None for the worst in the table.
        level: Of the tests.

    Returns:
        Index methods, best mean first; a column a scheme; `attrs["note"]` says what was missing. Empty without scores.

    Raises:
        OptionError: For an unknown rule, a column that is no number, or two of the same name.
    """
    filled, note = prepared(wide, higher_is_better, missing, worst)
    found = ranks_of(filled, higher_is_better, level)
    found.attrs["note"] = note
    return found


def ranks_of(filled: pd.DataFrame, higher_is_better: bool, level: float) -> pd.DataFrame:
    scores = filled.to_numpy()
    every = np.arange(len(scores))[None]  # the one sample in which each subject stands once
    columns = {
        scheme: ranking(scheme, higher_is_better, level)(scores, every)[0] if scores.size else np.zeros(0)
        for scheme in SCHEMES
    }
    found = pd.DataFrame(columns, index=list(filled.columns))
    return found.sort_values(list(SCHEMES[:3]), kind="stable")


def stability(
    wide: pd.DataFrame,
    *,
    higher_is_better: bool = True,
    resamples: int = DRAWN,
    seed: int = 0,
    groups: ArrayLike | None = None,
    scheme: Scheme = "mean then rank",
    missing: Missing = "worst",
    worst: float | None = None,
    level: float = 0.05,
) -> Stability:
    """Rank again and again on subjects drawn with replacement.

    Args:
        wide: As for `rankings`.
        higher_is_better: False for distances.
        resamples: Bootstrap samples.
        seed: Of the draws: equal scores and seeds give equal shares.
        groups: Site of each line of `wide`, in its order: subjects are drawn within their site, so that every sample
            has as many of each. None draws from all.
        scheme: What is ranked by; "test then rank" takes some minutes with many methods and subjects.
        missing: As for `rankings`.
        worst: As for `rankings`.
        level: As for `rankings`.

    Raises:
        OptionError: For an unknown scheme or rule, groups of another length, a column that is no number.
    """
    if scheme not in SCHEMES:
        raise OptionError(f"unknown way of ranking {scheme!r}, expected one of {', '.join(SCHEMES)}")
    if groups is not None and len(np.asarray(groups)) != len(wide):
        raise OptionError(f"{len(np.asarray(groups))} sites for {len(wide)} lines of scores, expected one a line")
    filled, note = prepared(wide, higher_is_better, missing, worst)
    full = ranks_of(filled, higher_is_better, level)
    filled = filled[list(full.index)]
    n, k = filled.shape
    agreement = agreements(full)
    if k < 2 or n < 2:
        reason = f"a ranking that can change takes 2 methods and 2 subjects, got {k} and {n}"
        none = pd.DataFrame(math.nan, index=full.index, columns=range(1, k + 1))
        nothing = dict.fromkeys(full.index, math.nan)
        return Stability(
            nothing, none, math.nan, math.nan, math.nan, agreement, full, n, 0, scheme, reason=reason, note=note
        )

    sites = sites_of(wide, filled, groups)
    alone = [s for s, members in sites.items() if len(members) == 1]
    if alone and len(sites) > 1:
        note = "; ".join(t for t in (note, f"one subject only, always drawn: {', '.join(alone)}") if t)
    rank = ranking(scheme, higher_is_better, level)
    scores = filled.to_numpy()
    drawn = np.concatenate(
        [
            rank(scores, places)
            for places in samples(list(sites.values()), n * k, resamples, np.random.default_rng(seed))
        ]
    )  # (resamples, K)
    shares = pd.DataFrame(rank_shares(drawn), index=full.index, columns=range(1, k + 1))
    taus = kendall(full[scheme].to_numpy(), drawn)
    low, middle, high = np.nanquantile(taus, [0.25, 0.5, 0.75]) if np.isfinite(taus).any() else [math.nan] * 3
    first = shares[1].sort_values(ascending=False, kind="stable")
    return Stability(
        first={str(name): float(share) for name, share in first.items()},
        ranks=shares,
        tau_median=float(middle),
        tau_low=float(low),
        tau_high=float(high),
        agreement=agreement,
        rankings=full,
        n=n,
        resamples=resamples,
        scheme=scheme,
        note=note,
    )


def prepared(wide: pd.DataFrame, higher_is_better: bool, missing: str, worst: float | None) -> tuple[pd.DataFrame, str]:
    """One line a subject without NaN, and a note. Scores that were missing lie at or beyond the worst."""
    if missing not in get_args(Missing):
        raise OptionError(
            f"unknown rule for missing scores {missing!r}, expected one of {', '.join(get_args(Missing))}"
        )
    if missing == "leave out":
        return complete_cases(wide)
    scores, note = scores_of(wide)
    holes = scores.isna()
    if not holes.to_numpy().any():
        return by_subject(scores), note
    values = scores.to_numpy()
    fill = float(np.nanmin(values) if higher_is_better else np.nanmax(values)) if worst is None else worst
    lacking = ", ".join(f"{name} {number}" for name, number in holes.sum().items() if number)
    said = f"scores that are missing count as the worst, {fill:.4g}: {lacking}"
    return by_subject(scores.fillna(fill)), "; ".join(t for t in (note, said) if t)


def samples(sites: list[np.ndarray], numbers: int, resamples: int, random: np.random.Generator) -> Iterator[np.ndarray]:
    """Bootstrap samples (B, N) of places, drawn within each site, a block at a time."""
    left = resamples
    while left:
        b = min(left, max(1, BLOCK // max(numbers, 1)))
        yield np.concatenate([own[random.integers(len(own), size=(b, len(own)))] for own in sites], axis=1)
        left -= b


def sites_of(wide: pd.DataFrame, filled: pd.DataFrame, groups: ArrayLike | None) -> dict[str, np.ndarray]:
    """Places of the subjects of each site; a subject of several sites is one of their combination."""
    if groups is None:
        return {"all": np.arange(len(filled))}
    lines = pd.Series([str(g) for g in np.asarray(groups)], index=wide.index.get_level_values(-1))
    named = lines.groupby(level=0).agg(lambda s: ", ".join(sorted(set(s)))).reindex(filled.index).to_numpy()
    return {str(s): np.flatnonzero(named == s) for s in pd.unique(named)}


def rank_shares(ranks: np.ndarray) -> np.ndarray:
    """(B, K) mid-ranks to shares (K, K) of each method at each rank; t tied methods have 1/t of each of their ranks."""
    first, last = (stats.rankdata(ranks, method=m, axis=1) for m in ("min", "max"))
    places = np.arange(1, ranks.shape[1] + 1)
    return np.stack([((first <= r) & (r <= last)) / (last - first + 1) for r in places], axis=-1).mean(0)


def kendall(full: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Kendall's tau-b (B,) between one ranking (K,) and many (B, K); NaN where either is one tie."""
    i, j = np.triu_indices(len(full), 1)
    own, others = np.sign(full[i] - full[j]), np.sign(drawn[:, i] - drawn[:, j])
    with np.errstate(invalid="ignore", divide="ignore"):
        return (others @ own) / np.sqrt((own**2).sum() * (others**2).sum(1))


def agreements(rankings: pd.DataFrame) -> pd.DataFrame:
    """Tau between schemes; NaN where one of them cannot part any methods."""
    columns = [rankings[s].to_numpy() for s in SCHEMES]
    tau = [[float(kendall(a, b[None])[0]) if len(a) > 1 else math.nan for b in columns] for a in columns]
    return pd.DataFrame(tau, index=list(SCHEMES), columns=list(SCHEMES))
