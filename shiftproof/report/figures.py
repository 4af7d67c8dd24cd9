"""Scores in figures: every subject is a dot, with the summary over it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..statistics import Interval
from .numbers import count, estimate, number, p_value, plural, scale, span
from .phrases import TESTS, remedies
from .svg import FAINT, INK, RULE, Plot, colours, style

WIDTH = 3.7  # inches; 355 px, so that a phone shows letters at their size
STRIP = 0.54  # inches for a row's name and its dots

Found = dict[str, Any]


def dots(values: pd.DataFrame, found: Found, domain: str | None = None) -> Plot:
    """A dot per subject and row, with the mean and its interval over them.

    Args:
        values: Of `per_subject`.
        found: Of `summarise`.
        domain: The held-out domain; None for all, each dot in its domain's colour.
    """
    metric, word = scale(found["primary"]["metric"]), found["domain_word"]
    here = values if domain is None else values[values["held_out"] == domain]
    names = [r["row"] for r in found["rows"] if r["row"] in set(here["row"])]
    means = {r["row"]: r["overall"] if domain is None else r["domains"][domain] for r in found["rows"]}
    paint = colours(found["domains"])
    n = int(here["subject"].nunique())
    where = f"all {plural(word)}" if domain is None else f"{word} {domain}"
    with style():
        figure, axes = strips(len(names), f"{where}, n = {count(n, 'subject')}")
        plain = means.get(found["source_only"], {}).get("mean", np.nan)
        if np.isfinite(plain):
            axes.axvline(plain, color=FAINT, lw=0.8, ls=(0, (1, 2)), zorder=1)
        axes.set_xlim(*limits(values["value"], found))
        for line, name in enumerate(names):
            own = here[here["row"] == name].dropna(subset="value")
            strip(axes, line, own, paint)
            summary_mark(axes, line, Interval(**means[name]))
            label(axes, line, name, estimate(means[name], metric.digits))
        axes.set_xlabel(metric.axis)
    better = "right" if metric.higher_is_better else "left"
    caption = (
        f"{metric.title[0].upper()}{metric.title[1:]} of each subject at {where} (n = {n})"
        f"{', mean over structures' if found['task'] == 'segmentation' else ''}{seeds_words(found)}; "
        f"bars: mean and 95 % interval{dotted(plain)}. Better is further {better}."
    )
    spoken = "; ".join(f"{name} {estimate(means[name], metric.digits)}" for name in names)
    return Plot(figure, caption, f"Dot plot of {metric.title} at {where}. Means with intervals: {spoken}.")


def differences(values: pd.DataFrame, found: Found) -> Plot | None:
    """A dot per subject: its score with a row minus its score with that row's reference.

    The upper bound is left out: next to what it gains, what rows gain could not be seen.
    """
    metric = scale(found["primary"]["metric"])
    pairs = remedies(found)
    if not pairs:
        return None
    wide = values.pivot_table(index=["held_out", "subject"], columns="row", values="value")
    sides = [(str(c["a"]), str(c["b"])) for c in pairs]
    minus = [(wide[a] - wide[b]).dropna().rename("value").reset_index() for a, b in sides]
    paint = colours(found["domains"])
    with style():
        figure, axes = strips(len(pairs), "row minus its reference")
        axes.set_xlim(
            *span_of([*(m["value"] for m in minus), [c["low"] for c in pairs], [c["high"] for c in pairs], [0.0]])
        )
        for line, (c, own) in enumerate(zip(pairs, minus, strict=True)):
            strip(axes, line, own, paint)
            summary_mark(axes, line, Interval(c["mean_difference"], c["low"], c["high"], c["n"], c["interval"]))
            label(axes, line, f"{c['a']} − {c['b']}", f"p {p_value(c['p_corrected'])}")
        axes.axvline(0, color=FAINT, lw=0.9, zorder=1)
        behind = f" ({metric.unit})" if metric.unit else ""
        axes.set_xlabel(f"difference in {metric.title}{behind}")
    better = "right" if metric.higher_is_better else "left"
    caption = (
        f"Difference in {metric.title}, subject by subject{seeds_words(found)}; bars: mean and 95 % "
        f"interval; p: {TESTS.get(pairs[0]['test'], pairs[0]['test'])}, corrected for "
        f"{count(pairs[0]['family_size'], 'comparison')}. The row is better to the {better} of 0."
    )
    spoken = "; ".join(
        f"{c['a']} minus {c['b']} {number(c['mean_difference'], metric.digits, signed=True)} "
        f"{span(c['low'], c['high'], metric.digits, signed=True)}, n = {c['n']}"
        for c in pairs
    )
    return Plot(figure, caption, f"Dot plot of paired differences in {metric.title}. {spoken}.")


def strips(lines: int, title: str) -> tuple[Figure, Axes]:
    height = STRIP * lines + 0.78
    figure = Figure(figsize=(WIDTH, height))
    axes = figure.add_axes((0.015, 0.45 / height, 0.97, (STRIP * lines) / height))
    figure.text(0.015, 1 - 0.17 / height, title, fontsize=9, fontweight="bold", va="center", color=INK)
    axes.set_ylim(lines - 0.5, -0.5)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", color=RULE, lw=0.6)
    axes.set_axisbelow(True)
    axes.locator_params(axis="x", nbins=5)
    return figure, axes


def strip(axes: Axes, line: int, own: pd.DataFrame, paint: dict[str, tuple[str, str]]) -> None:
    """The dots of one row, piled up where they would hide each other."""
    own = own.sort_values("value", kind="stable")
    low, high = axes.get_xlim()
    height = swarm(own["value"].to_numpy(), (high - low) / 55 if len(own) else 1.0)
    for domain, part in own.assign(y=line + 0.2 + height).groupby("held_out"):
        colour, marker = paint[str(domain)]
        axes.scatter(part["value"], part["y"], s=13, color=colour, marker=marker, alpha=0.8, lw=0, zorder=2)


def swarm(values: np.ndarray, width: float) -> np.ndarray:
    """Offsets within +-0.2 that set apart sorted values closer than `width`."""
    if not len(values):
        return np.zeros(0)
    bins = np.floor((values - values[0]) / max(width, 1e-12))
    rank = np.zeros(len(values))
    for b in np.unique(bins):
        inside = np.flatnonzero(bins == b)
        k = np.arange(len(inside))
        rank[inside] = np.where(k % 2, (k + 1) // 2, -(k // 2))  # 0, 1, -1, 2, -2 ...
    return rank * min(0.085, 0.2 / max(1.0, np.abs(rank).max()))


def summary_mark(axes: Axes, line: int, around: Interval) -> None:
    """Interval and mean, just above the dots: they must not hide each other."""
    y = line - 0.04
    if around.known:
        axes.plot([around.low, around.high], [y, y], color=INK, lw=1.3, solid_capstyle="butt", zorder=4)
    if np.isfinite(around.mean):
        axes.plot([around.mean] * 2, [y - 0.08, y + 0.08], color=INK, lw=2.2, solid_capstyle="butt", zorder=4)


def label(axes: Axes, line: int, name: str, behind: str) -> None:
    """Above the dots, so that long names need no margin."""
    where = axes.get_yaxis_transform()
    axes.text(0, line - 0.3, elided(name), transform=where, ha="left", va="center", fontsize=8.5, color=INK)
    axes.text(1, line - 0.3, behind, transform=where, ha="right", va="center", fontsize=7.5, color=FAINT)


def limits(values: pd.Series, found: Found) -> tuple[float, float]:
    """Common to all panels, so that they can be compared."""
    around = [i for r in found["rows"] for i in (r["overall"], *r["domains"].values())]
    return span_of([values, [i["low"] for i in around], [i["high"] for i in around]])


def span_of(parts: Sequence[Any]) -> tuple[float, float]:
    """Room for all numbers that exist, with a margin."""
    values = np.concatenate([np.asarray(p, dtype=float) for p in parts])
    values = values[np.isfinite(values)]
    if not len(values):
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    margin = 0.04 * (high - low) or 0.05 * max(abs(high), 0.1)
    return low - margin, high + margin


def elided(name: str, longest: int = 34) -> str:
    return name if len(name) <= longest else f"{name[: longest - 14]}…{name[-13:]}"


def seeds_words(found: Found) -> str:
    many = len(found["seeds"])
    return f", averaged over {many} seeds" if many > 1 else ""


def dotted(plain: float) -> str:
    return "; dotted line: mean of source-only" if np.isfinite(plain) else ""
