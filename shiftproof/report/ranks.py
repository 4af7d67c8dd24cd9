"""Rankings in figures: which methods can be told apart, and how firm their ranks are."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.optimize import isotonic_regression

from ..statistics import CriticalDifference, Friedman, Stability
from .figures import WIDTH, elided, label, strips
from .numbers import count, listed, number, p_value, percent, plural
from .svg import FAINT, INK, PALETTE, Plot, style

LINE = 0.23  # inches between names
BAR = 0.095  # inches between bars
BARS = 14  # side by side at most: more would leave no room for names
LETTER = 0.07  # inches

POST_HOC = {
    "Nemenyi": "Nemenyi's test",
    "Wilcoxon, Holm": "Wilcoxon signed-rank tests of all pairs, corrected by Holm's rule",
}


def critical_difference(friedman: Friedman, cd: CriticalDifference, *, word: str = "method") -> Plot | None:
    """Demšar's diagram of mean ranks, upright, so that long names and many methods have room.

    Methods lie on a scale of mean ranks, the best at the top; a bar joins those that cannot be told apart. None
    where there are no ranks or no test.

    Diagram: J. Demšar, "Statistical Comparisons of Classifiers over Multiple Data Sets", JMLR 7 (2006).

    Args:
        friedman: Of the same scores; its p stands in the caption.
        cd: Of `nemenyi` or `wilcoxon_holm`. A bar of the latter may pass over a method that stands apart: its dots
            are its members.
        word: What a column of the scores is called.
    """
    means = cd.mean_ranks
    if cd.reason or len(means) < 2:
        return None
    k, ranks = len(means), np.array(list(means.values()))
    bars = side_by_side(cd.groups, means, 0.12 * (k - 1))
    tall = max(LINE * (k - 1), 1.1)
    height = tall + 0.66
    with style():
        figure = Figure(figsize=(WIDTH, height))
        title = f"mean rank, n = {count(cd.n, 'subject')}"
        figure.text(0.015, 1 - 0.17 / height, title, fontsize=9, fontweight="bold", va="center", color=INK)
        axes = figure.add_axes((0, 0.16 / height, 1, tall / height))
        axes.set_xlim(0, WIDTH)
        axes.set_ylim(k, 1)
        axes.axis("off")
        left = rank_axis(axes, k, cd.cd)
        for place, members in bars:
            bar(axes, left + 0.15 + BAR * place, members)
        right = left + 0.15 + BAR * (1 + max((place for place, _ in bars), default=-1))
        room = max(16, int((WIDTH - right - 0.7) / LETTER))
        for name, rank, y in zip(means, ranks, spaced(ranks, LINE * (k - 1) / tall, k), strict=True):
            axes.plot([left, right, right + 0.22], [rank, rank, y], color=FAINT, lw=0.7, zorder=1, clip_on=False)
            axes.text(right + 0.27, y, elided(name, room), va="center", fontsize=8.5, color=INK)
            axes.text(WIDTH - 0.04, y, number(rank, 2), va="center", ha="right", fontsize=7.5, color=FAINT)
    return Plot(figure, ranks_caption(friedman, cd, word, len(bars)), ranks_alt(friedman, cd))


def rank_shares(stability: Stability, *, word: str = "method") -> Plot | None:
    """A blob for each method and rank, by how often bootstrap samples of the subjects give it that rank.

    The figure follows M. Wiesenfarth et al., "Methods and open-source toolkit for analyzing and visualizing challenge
    results", Scientific Reports 11 (2021). None where nothing was drawn.

    Args:
        stability: Of the function of that name.
        word: What a column of the scores is called.
    """
    if stability.reason:
        return None
    shares, full = stability.ranks, stability.rankings[stability.scheme]
    k = len(shares)
    widest = 72 * min(0.22, 0.9 * (WIDTH - 0.2) / k)  # points: blobs of two ranks or lines never touch
    with style():
        figure, axes = strips(k, f"ranks in {stability.resamples} bootstraps, n = {count(stability.n, 'subject')}")
        axes.set_xlim(0.5, k + 0.5)
        for line, name in enumerate(shares.index):
            y, own = line + 0.15, shares.loc[name].to_numpy()
            seen = own > 0
            axes.scatter(np.arange(1, k + 1)[seen], np.full(seen.sum(), y), s=widest**2 * own[seen],
                         color=PALETTE[0], alpha=0.8, lw=0, zorder=2)  # fmt: skip
            at = float(full[name])
            axes.plot([at, at], [y - 0.13, y + 0.13], color=INK, lw=1.6, solid_capstyle="butt", zorder=4)
            label(axes, line, name, f"first in {percent(stability.first[name])}")
        axes.set_xticks(ticks(k))
        axes.set_xlabel(f"rank by {stability.scheme.replace(' then rank', '').replace(' then mean', '')}, 1 is best")
    caption = (
        f"How often each {word} takes each rank in {stability.resamples} bootstrap samples of the subjects "
        f"(n = {stability.n}; {stability.scheme}), by area; bars: rank on all subjects. {tau_words(stability)}"
    )
    spoken = "; ".join(f"{name} first in {percent(share)}" for name, share in stability.first.items())
    return Plot(figure, caption, f"Ranks in bootstrap samples of {count(stability.n, 'subject')}: {spoken}.")


def rank_axis(axes: Axes, k: int, cd: float) -> float:
    """The scale from 1 to k, with the critical difference beside it; where it stands, in inches."""
    shown = math.isfinite(cd) and cd <= k - 1
    left = 0.52 if shown else 0.3
    axes.plot([left, left], [1, k], color=FAINT, lw=0.9, zorder=2, clip_on=False)
    for tick in ticks(k):
        axes.plot([left - 0.045, left], [tick, tick], color=FAINT, lw=0.7, clip_on=False)
        axes.text(left - 0.07, tick, str(tick), ha="right", va="center", fontsize=7.5, color=FAINT)
    if shown:
        axes.plot([0.24, 0.24], [1, 1 + cd], color=INK, lw=1.1, clip_on=False)
        for end in (1, 1 + cd):
            axes.plot([0.205, 0.275], [end, end], color=INK, lw=1.1, clip_on=False)
        axes.text(0.12, 1 + cd / 2, "CD", rotation=90, ha="center", va="center", fontsize=7.5, color=INK)
    return left


def ticks(k: int) -> list[int]:
    """1 and whole steps up to k, some ten in all."""
    step = next((s for s in (1, 2, 5, 10, 20, 50) if k / s <= 10), 100)
    return [1, *range(step if step > 1 else 2, k + 1, step)]


def bar(axes: Axes, x: float, members: list[float]) -> None:
    ends = [min(members), max(members)]
    axes.plot([x, x], ends, color=PALETTE[0], lw=2.2, solid_capstyle="round", zorder=3, clip_on=False)
    axes.scatter([x] * len(members), members, s=16, color=PALETTE[0], lw=0, zorder=4, clip_on=False)


def side_by_side(groups: list[list[str]], means: dict[str, float], gap: float) -> list[tuple[int, list[float]]]:
    """Place and mean ranks of each bar: above each other where there is a gap, else beside.

    Beyond `BARS` places the smallest groups are not drawn.
    """
    ends: list[float] = []  # of the last bar at each place
    bars = []
    for members in sorted([means[name] for name in group] for group in groups):
        place = next((i for i, end in enumerate(ends) if members[0] > end + gap), len(ends))
        ends[place : place + 1] = [members[-1]]
        bars.append((place, members))
    if len(ends) <= BARS:
        return bars
    largest = sorted(groups, key=len, reverse=True)[: len(groups) - 1]
    return side_by_side(largest, means, gap)


def spaced(ranks: np.ndarray, apart: float, k: int) -> np.ndarray:
    """Places for sorted names, as near their ranks as a distance of `apart` allows, between 1 and k."""
    steps = apart * np.arange(len(ranks))
    return np.clip(isotonic_regression(ranks - steps).x, 1, k - steps[-1]) + steps


def ranks_caption(friedman: Friedman, cd: CriticalDifference, word: str, drawn: int) -> str:
    how = POST_HOC.get(cd.test, cd.test)
    if math.isfinite(cd.cd):
        how += f", critical difference {number(cd.cd, 2)}"
    overall = friedman.reason or f"Friedman's test: p {p_value(friedman.f_p)}"
    hidden = len(cd.groups) - drawn
    less = f" {count(hidden, 'smaller group')} not drawn." if hidden else ""
    return (
        f"Mean rank of each {word} over {count(cd.n, 'subject')}, 1 is best. A bar joins {plural(word)} that cannot be "
        f"told apart ({how}, at {cd.level:g}).{less} {overall[0].upper()}{overall[1:]}."
    )


def ranks_alt(friedman: Friedman, cd: CriticalDifference) -> str:
    spoken = ", ".join(f"{name} {number(rank, 2)}" for name, rank in cd.mean_ranks.items())
    order = list(cd.mean_ranks)
    joined = "; ".join(spoken_group(group, order) for group in cd.groups) or "none"
    return f"Diagram of mean ranks: {spoken}. Cannot be told apart: {joined}."


def spoken_group(group: list[str], order: list[str]) -> str:
    """All names, or the first and the last where nothing between them is left out."""
    here = order[order.index(group[0]) : order.index(group[-1]) + 1]
    return f"{group[0]} to {group[-1]}" if len(group) > 3 and here == group else listed(group)


def tau_words(stability: Stability) -> str:
    if not math.isfinite(stability.tau_median):
        return "All of them tie."
    return (
        f"Kendall's tau with the ranking on all subjects: median {number(stability.tau_median, 2)}, "
        f"quartiles {number(stability.tau_low, 2)} and {number(stability.tau_high, 2)}."
    )
