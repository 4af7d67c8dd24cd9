"""Scores and differences in figures: every subject is a dot, with the summary over it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from ..report.figures import elided, label, span_of, strip, strips, summary_mark
from ..report.numbers import count, estimate, number, p_value, span
from ..report.svg import FAINT, INK, Plot, colours, style
from ..statistics import Interval
from .question import Question
from .reading import Scores

Found = dict[str, Any]

MOST_DOTS = 1000  # in a strip: more do not show more, and make pages of many megabytes
MOST_PAIRS = 12  # in one figure; beyond, only those of the method with the best mean


def dots(scores: Scores, question: Question, found: Found) -> Plot:
    """A dot a subject and method, with the mean and its interval over them."""
    metric, methods = question.metric, [m for m in found["methods"] if m["n"]]
    n = count(len(scores.wide), "subject")
    with style():
        figure, axes = strips(max(1, len(methods)), f"each method, {n}")
        values = [scores.cells[m["method"]] for m in methods]
        axes.set_xlim(*span_of([*values, *([m["low"], m["high"]] for m in methods)]) if methods else (0, 1))
        for line, (m, own) in enumerate(zip(methods, values, strict=True)):
            strip(axes, line, lines(own), paint(scores))
            summary_mark(axes, line, Interval(m["mean"], m["low"], m["high"], m["n"], m["interval"]))
            label(axes, line, m["method"], estimate(m, metric.digits))
        axes.set_xlabel(metric.axis)
    better = "right" if metric.higher_is_better else "left"
    title = f"{metric.title[:1].upper()}{metric.title[1:]}"
    caption = (
        f"{title} of each subject ({n}{thinned(len(scores.wide))}); bars: mean and "
        f"{100 * (1 - question.level):g} % interval. Better is further {better}."
    )
    spoken = "; ".join(f"{m['method']} {estimate(m, metric.digits)}" for m in methods)
    return Plot(figure, caption, f"Dot plot of {metric.title} by method. Means with intervals: {spoken}.")


def differences(scores: Scores, question: Question, found: Found) -> Plot | None:
    """A dot a subject and pair: the one score minus the other."""
    pairs = [p for p in found["pairs"] if p["n"]]
    best = pairs[0]["a"] if pairs else ""
    some = len(pairs) > MOST_PAIRS and question.reference is None
    pairs = [p for p in pairs if best in (p["a"], p["b"])] if some else pairs
    if not pairs:
        return None
    metric = question.metric
    minus = [(scores.cells[p["a"]] - scores.cells[p["b"]]).dropna() for p in pairs]
    with style():
        # Where all pairs have one side in common it stands in the title, and leaves room for the other's name.
        common = f"{elided(best)} minus" if some else f"each method minus {elided(question.reference or '')}"
        shared = some or question.reference is not None
        figure, axes = strips(len(pairs), common if shared else "first minus second")
        ends = [[p[end] for p in pairs] for end in ("low", "high", "low_corrected", "high_corrected")]
        axes.set_xlim(*span_of([*minus, *ends, [0.0]]))
        for line, (p, own) in enumerate(zip(pairs, minus, strict=True)):
            strip(axes, line, lines(own), paint(scores))
            y = line - 0.04
            if np.isfinite(p["low_corrected"]):
                axes.plot([p["low_corrected"], p["high_corrected"]], [y, y], color=INK, lw=0.6, zorder=4)
            summary_mark(axes, line, Interval(p["mean_difference"], p["low"], p["high"], p["n"], p["interval"]))
            name = (p["b"] if some else p["a"]) if shared else f"{p['a']} − {p['b']}"
            label(axes, line, name, f"p {p_value(p['p_corrected'])}")
        axes.axvline(0, color=FAINT, lw=0.9, zorder=1)
        for edge in (-question.margin, question.margin) if question.margin else ():
            axes.axvline(edge, color=FAINT, lw=0.8, ls=(0, (1, 2)), zorder=1)
        behind = f" ({metric.unit})" if metric.unit else ""
        axes.set_xlabel(f"difference in {metric.title}{behind}")
    better = "right" if metric.higher_is_better else "left"
    which = f"; only pairs with {best}, which has the best mean" if some else ""
    level = f"{100 * (1 - question.level):g} %"
    family, margin = count(pairs[0]["family_size"], "comparison"), "; dotted: the margin" if question.margin else ""
    corrected = f", thin: corrected for {family}" if pairs[0]["family_size"] > 1 else ""
    shown = thinned(max(map(len, minus)))
    caption = (
        f"Difference in {metric.title}, subject by subject{shown}{which}; bars: mean and {level} "
        f"interval{corrected}{margin}. The first is better to the {better} of 0."
    )
    spoken = "; ".join(
        f"{p['a']} minus {p['b']} {number(p['mean_difference'], metric.digits, signed=True)} "
        f"{span(p['low'], p['high'], metric.digits, signed=True)}, n = {p['n']}"
        for p in pairs
    )
    return Plot(figure, caption, f"Dot plot of paired differences in {metric.title}. {spoken}.")


def lines(own: pd.Series) -> pd.DataFrame:
    """Dots as `strip` takes them, each in its domain's colour; of very many an even choice by value."""
    there = own.dropna().sort_values(kind="stable")
    if len(there) > MOST_DOTS:
        there = there.iloc[np.linspace(0, len(there) - 1, MOST_DOTS).round().astype(int)]
    return there.rename("value").reset_index().rename(columns={"domain": "held_out"})


def thinned(n: int) -> str:
    return f", {MOST_DOTS} of {n} shown, evenly by value" if n > MOST_DOTS else ""


def paint(scores: Scores) -> dict[str, tuple[str, str]]:
    return colours(sorted(set(scores.tidy["domain"])))
