"""The figure and the page of a plan: power and the smallest difference that shows, by the number of subjects."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from ..errors import OptionError
from ..files import replacing, write_text
from ..statistics import PowerPlan, smallest_detectable
from ..statistics import power as power_of
from .figures import WIDTH, elided
from .numbers import known, number, percent, scale
from .power_tables import pairs_table, tables
from .power_words import agreement, figure, measured, told
from .svg import FAINT, INK, PALETTE, RULE, Plot, style
from .templating import template

TEMPLATES = Path(__file__).parent / "templates"
SUFFIXES = (".svg", ".png", ".pdf", ".html")
OWN = PALETTE[0]
BESIDE = (0.0, 0.5, 0.8, 0.9, 0.95, 0.99)  # correlations that are drawn beside the plan's
APART = 1.3  # in spread, from the next line that is drawn


def power_plot(plan: PowerPlan, metric: str = "") -> Plot:
    """Power (where an effect is named) and the smallest difference that shows, over the number of subjects.

    Raises:
        OptionError: For a plan that has a reason and no numbers.
    """
    if plan.reason:
        raise OptionError(f"there is nothing to draw: {plan.reason}")
    named = known(plan.effect)
    n = sizes(plan)
    with style():
        drawn, axes = panels(2 if named else 1, n, 0.66 if named and beside(plan) else 0.34)
        if named:
            power_panel(axes[0], plan, n, metric)
        detectable_panel(axes[-1], plan, n, metric)
        make_room(axes)
    return Plot(drawn, caption(plan, metric), " ".join(told(plan, metric)), f"Power{title_of(plan)}")


def sizes(plan: PowerPlan) -> np.ndarray:
    """Numbers of subjects that hold all that is marked, evenly on a logarithmic axis."""
    marked = [line["n"] for line in plan.needed if line["n"]] + ([plan.subjects] if plan.subjects else [])
    low = max(2, min(marked, default=20) // 4)
    high = max(3 * max(marked, default=300), 60 * low)
    return np.unique(np.geomspace(low, high, 90).round().astype(int))


def panels(many: int, n: np.ndarray, top: float) -> tuple[Figure, list[Axes]]:
    each, between, bottom = 1.75, 0.62, 0.46  # inches
    height = many * each + (many - 1) * between + bottom + top
    drawn = Figure(figsize=(WIDTH, height))
    axes = []
    for i in range(many):
        lowest = bottom + (many - 1 - i) * (each + between)
        axes.append(drawn.add_axes((0.13, lowest / height, 0.84, each / height)))
    for one in axes:
        one.set_xscale("log")
        one.grid(color=RULE, lw=0.6)
        one.set_axisbelow(True)
        one.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if n[-1] < 150 * n[0] else (1.0,)))
        one.xaxis.set_major_formatter(FuncFormatter(lambda n, _: short(n)))
        one.xaxis.set_minor_formatter(NullFormatter())
    return drawn, axes


def make_room(panels: Sequence[Axes]) -> None:
    """Left of the panels, for the longest number there."""
    low, high = panels[-1].get_ylim()
    longest = max(len(figure(tick)) for tick in panels[-1].get_yticks() if low <= tick <= high)
    for axes in panels:
        box = axes.get_position()
        left = max(box.x0, (0.075 * longest + 0.12) / WIDTH)
        axes.set_position((left, box.y0, box.x1 - left, box.height))


def short(n: float) -> str:
    """1000, 20k, 5M."""
    return f"{n / 1e6:g}M" if n >= 1e6 else f"{n / 1e3:g}k" if n >= 1e4 else f"{n:g}"


def power_panel(axes: Axes, plan: PowerPlan, n: np.ndarray, metric: str) -> None:
    size = abs(plan.effect)

    def curve(spread: float) -> list[float]:
        return [power_of(size / spread, int(k), level=plan.level, design=plan.design) for k in n]

    if plan.pilot is not None:
        axes.fill_between(n, curve(plan.pilot.sd_high), curve(plan.pilot.sd_low), color=OWN, alpha=0.16, lw=0)
    axes.axhline(plan.wanted, color=FAINT, lw=0.8, ls=(0, (1, 2)))
    last = np.inf
    for correlation, spread in beside(plan):  # from the right to the left
        power = np.array(curve(spread))
        axes.plot(n, power, color=FAINT, lw=0.8, alpha=0.6)
        at = float(np.interp(0.93, power, np.log(n)))
        if power[0] < 0.93 < power[-3] and last - at > 0.075 * np.log(n[-1] / n[0]):
            last = at
            label(axes, float(np.exp(at)), 1.03, f"{correlation:g}")
    axes.plot(n, curve(plan.spread), color=OWN, lw=2)
    if beside(plan):
        label(axes, float(n[0]), 1.12, "if scores correlate with", "left")
    axes.set_ylim(0, 1)
    axes.set_xlim(n[0], n[-1])
    if plan.subjects:
        mark(axes, plan.subjects, plan.power, f"n = {plan.subjects}: {number(plan.power, 2)}", n)
    needed = plan.subjects_needed
    if needed and needed != plan.subjects:
        reached = power_of(size / plan.spread, needed, level=plan.level, design=plan.design)
        mark(axes, needed, reached, f"n = {needed}: {percent(plan.wanted)}", n)
    heading(axes, f"power to find {measured(size, metric)}", 27 if beside(plan) else 6)


def detectable_panel(axes: Axes, plan: PowerPlan, n: np.ndarray, metric: str) -> None:
    per_sd = np.array(
        [smallest_detectable(1.0, int(k), power=plan.wanted, level=plan.level, design=plan.design) for k in n]
    )
    axes.set_yscale("log")
    if plan.pilot is not None:
        axes.fill_between(n, per_sd * plan.pilot.sd_low, per_sd * plan.pilot.sd_high, color=OWN, alpha=0.16, lw=0)
    axes.plot(n, per_sd * plan.spread, color=OWN, lw=2)
    if known(plan.effect):
        axes.axhline(abs(plan.effect), color=FAINT, lw=0.8, ls=(0, (1, 2)))
    if plan.subjects:
        shown = f"n = {plan.subjects}: {figure(plan.detectable)}"
        mark(axes, plan.subjects, plan.detectable, shown, n)
    axes.set_xlim(n[0], n[-1])
    low, high = axes.get_ylim()
    axes.set_ylim(low, 1.6 * high)  # room for words at the first point
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < 100 * low else (1.0,)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: figure(value)))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("subjects" if plan.design == "paired" else "subjects of each group")
    unit = f" ({scale(metric).unit})" if metric and scale(metric).unit else ""
    heading(axes, f"smallest difference with {percent(plan.wanted)} power{unit}")


def heading(axes: Axes, text: str, above: float = 6) -> None:
    axes.set_title(text, loc="left", fontsize=9, fontweight="bold", color=INK, pad=above)


def beside(plan: PowerPlan) -> list[tuple[float, float]]:
    """Correlations and spreads of the lines beside the plan's: far enough from it, and from each other."""
    if plan.design != "paired" or not known(plan.sd):
        return []
    found: list[tuple[float, float]] = []
    for line in plan.alternatives:
        near = [plan.spread, *(spread for _, spread in found)]
        if line["correlation"] in BESIDE and not line["own"]:
            ratios = [max(s, line["spread"]) / min(s, line["spread"]) for s in near]
            found += [(line["correlation"], line["spread"])] if min(ratios) > APART else []
    return found


def mark(axes: Axes, n: int, value: float, text: str, all_n: np.ndarray) -> None:
    """A point with its words on the side where there is room, clear of a rising or a falling line."""
    axes.plot([n], [value], "o", color=INK, ms=4.5, zorder=5)
    right = np.log(n) < (np.log(all_n[0]) + np.log(all_n[-1])) / 2
    below = right and axes.get_yscale() == "linear" and value > 0.2
    up = -4 if below else 7 if value > 0.2 else 12
    axes.annotate(
        text, (n, value), xytext=(6 if right else -6, up), textcoords="offset points", fontsize=8, color=INK,
        ha="left" if right else "right", va="top" if below else "bottom", zorder=6,
    )  # fmt: skip


def label(axes: Axes, x: float, y: float, text: str, side: str = "center") -> None:
    """Above the axes, at a number of subjects."""
    axes.text(x, y, text, transform=axes.get_xaxis_transform(), ha=side, va="bottom", fontsize=7.5, color=FAINT)


def caption(plan: PowerPlan, metric: str) -> str:
    what = "differences" if plan.design == "paired" else "scores"
    test = "two-sided paired t-test" if plan.design == "paired" else "two-sided t-test of two groups of equal size"
    level = f"level {plan.level:.2g}"
    if plan.comparisons > 1:
        level += f" ({plan.level * plan.comparisons:.2g} over {plan.comparisons} comparisons)"
    parts = [f"{test[0].upper()}{test[1:]}, {level}; SD of {what} {measured(plan.spread, metric)}"]
    if known(plan.correlation):
        parts.append(f"correlation of the methods’ scores {agreement(plan.correlation)}")
    text = f"{', '.join(parts)}."
    if known(plan.effect):
        text += f" Dotted: {percent(plan.wanted)} power; a difference of {measured(abs(plan.effect), metric)}."
    if plan.pilot is not None:
        text += " Band: what the pilot leaves open of the SD (95 % interval)."
    if known(plan.effect) and beside(plan):
        text += " Thin lines: the same scores, if the methods agreed more or less from subject to subject."
    return text


def title_of(plan: PowerPlan) -> str:
    return "" if plan.pilot is None else f": {elided(plan.pilot.a)} and {elided(plan.pilot.b)}"


def power_page(plan: PowerPlan, metric: str = "", *, pairs: Sequence[PowerPlan] = (), notes: Sequence[str] = ()) -> str:
    """A self-contained page: the answer, the figure, the tables."""
    lines = [pairs_table(pairs, metric)] if len(pairs) > 1 else []
    return template("power.html.j2").render(
        title=f"Power{title_of(plan)}",
        answer=told(plan, metric),
        plot=None if plan.reason else power_plot(plan, metric),
        tables=[*lines, *tables(plan, metric)],
        notes=list(notes),
    )


def plot_file(path: Path) -> Path:
    """The path, if a plot can be written there; to ask before the work.

    Raises:
        OptionError: For a suffix that is none of `SUFFIXES`.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise OptionError(f"a plot is written as {', '.join(SUFFIXES)}, got {path.name}")
    return path


def save_power(
    path: Path, plan: PowerPlan, metric: str = "", *, pairs: Sequence[PowerPlan] = (), notes: Sequence[str] = ()
) -> None:
    """Write the figure, or with the suffix .html the page.

    Raises:
        OptionError: For another suffix, or a figure of a plan that has no numbers.
        StorageError: If it cannot be written.
    """
    path = plot_file(path)
    if path.suffix.lower() == ".html":
        write_text(path, power_page(plan, metric, pairs=pairs, notes=notes))
        return
    plot = power_plot(plan, metric)
    with replacing(path) as temporary, style():
        kind = path.suffix.lower()[1:]
        dated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind)  # equal plans, equal files
        plot.figure.savefig(temporary, format=kind, dpi=200, facecolor="white", metadata=dated)
