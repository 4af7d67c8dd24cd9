"""What an augmentation policy learned: the probabilities of its operations over training."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ..errors import OptionError
from ..transforms.policy_files import read_policy
from .figures import WIDTH, elided
from .numbers import count, listed, number
from .results import Cell, Results
from .svg import FAINT, INK, PALETTE, RULE, Plot, style

Found = dict[str, Any]

MOMENTS = 60
"""Of a curve; more cannot be seen at this width."""

COLUMNS = 3

SHOWN = 5e-4
"""Least change that can be told in three digits."""


@dataclass(frozen=True)
class Panel:
    """Options that belong together.

    Args:
        name: Of the group, or of the operation where one group holds all.
        options: Names; the identity is not among them.
        values: (runs, moments, options) probabilities, at equal distances from the start to the end of the run.
    """

    name: str
    options: list[str]
    values: np.ndarray

    @property
    def acting(self) -> np.ndarray:
        """(runs, moments), that any of them acts."""
        return np.asarray(self.values.sum(2))


def section(results: Results) -> Found | None:
    """Figures and words of every row that learned a policy; None where no row did."""
    plots: list[Plot] = []
    words: list[str] = []
    broken: list[str] = []

    def show(title: str, contents: Sequence[Found], kind: int) -> None:
        shown = panels(contents, kind)
        plots.append(probabilities(title, shown, len(contents), results))
        words.append(f"{title}: {changes(shown)}.")

    for recipe in results.recipes:
        row = str(recipe["name"])
        every, faults = learned(results, row)
        broken += faults
        contents = alike(every)
        for place, kind in enumerate(contents[0]["sets"] if contents else []):
            title = row if len(contents[0]["sets"]) == 1 else f"{row}, {kind} patches"
            show(title, contents, place)
        if views := alike([content["views"] for content in every if "views" in content]):
            show(f"{row}, views of predictions", views, 0)
    return {"plots": plots, "words": words, "broken": broken} if plots or broken else None


def learned(results: Results, row: str) -> tuple[list[Found], list[str]]:
    """The policies of a row's runs; and what cannot be read."""
    found: list[Found] = []
    faults: list[str] = []
    for cell in runs(results, row):
        assert cell.run is not None  # of a run that is done
        path = cell.run / "model" / "policy.json"
        if not path.exists():
            continue
        try:
            content = read_policy(path)
            for part in (content, content.get("views", content)):
                moments(part)
            found.append(content)
        except (OptionError, AttributeError, KeyError, TypeError) as error:
            faults.append(f"{row}, {results.domain_word} {cell.held_out}, seed {cell.seed}: {error}")
    return found, faults


def alike(contents: Sequence[Found]) -> list[Found]:
    """Those that changed over a run, and have the operations of the first such one."""
    found: list[Found] = []
    for content in contents:
        steps, tables = moments(content)
        if steps == tables and steps > 1 and (not found or operations(content) == operations(found[0])):
            found.append(content)
    return found


def moments(content: Found) -> tuple[int, int]:
    """How many steps and how many tables of probabilities a policy remembers."""
    return len(content["history"].get("step", [])), len(content["history"].get("probabilities", []))


def runs(results: Results, row: str) -> list[Cell]:
    """Runs of a row, each once: cells that share a training share its policy."""
    cells = {c.run: c for c in reversed(results.cells) if c.row == row and c.status == "done" and c.run is not None}
    return list(reversed(cells.values()))


def operations(content: Found) -> list[Any]:
    return [content["sets"], [(g["name"], g["options"]) for g in content["groups"]]]


def panels(contents: Sequence[Found], kind: int) -> list[Panel]:
    """The groups of a policy; where one group holds everything, the operations in it.

    Args:
        contents: Of policy files with the same operations, one a run.
        kind: Place in their `sets`.
    """
    groups = contents[0]["groups"]
    found: list[Panel] = []
    for place, group in enumerate(groups):
        values = np.stack([series(content, place, kind) for content in contents])  # (runs, moments, options)
        families: dict[str, list[int]] = {}
        for index, option in enumerate(group["options"]):
            if len(groups) == 1 or option != "identity":
                families.setdefault(family(option) if len(groups) == 1 else group["name"], []).append(index)
        for name, own in families.items():
            found.append(Panel(name, [group["options"][i] for i in own], values[:, :, own]))
    return found


def family(option: str) -> str:
    """An option's operation: its name without the magnitude; all mirrors are one."""
    return "mirror" if option.startswith("mirror ") else re.sub(r" [+-]?[\d.]+$", "", option)


def series(content: Found, group: int, kind: int) -> np.ndarray:
    """(moments, options) at equal distances over the run, the probabilities that the run ended with last."""
    steps = np.asarray(content["history"]["step"], float)
    seen = [moment[group][kind] for moment in content["history"]["probabilities"]]
    values = np.asarray([*seen, content["groups"][group]["probabilities"][kind]], float)
    steps = np.append(steps, steps[-1] + (steps[-1] - steps[0]) / (len(steps) - 1))
    share = (steps - steps[0]) / (steps[-1] - steps[0])
    at = np.linspace(0, 1, MOMENTS)
    return np.stack([np.interp(at, share, column) for column in values.T], 1)


def probabilities(title: str, shown: Sequence[Panel], number_of_runs: int, results: Results) -> Plot:
    """Small multiples: that an operation acts at all, and each of its options, over the run."""
    rows = math.ceil(len(shown) / COLUMNS)
    height = 0.62 + 0.92 * rows
    with style():
        figure = Figure(figsize=(WIDTH, height))
        axes = figure.subplots(rows, COLUMNS, sharex=True, sharey=True, squeeze=False)
        figure.subplots_adjust(
            left=0.12, right=0.985, top=1 - 0.42 / height, bottom=0.4 / height, hspace=0.42, wspace=0.14
        )
        figure.suptitle(elided(title), x=0.01, y=1 - 0.06 / height, ha="left", va="top", fontsize=9, fontweight="bold")
        at = np.linspace(0, 1, MOMENTS)
        for place, ax in enumerate(axes.flat):
            if place >= len(shown):
                ax.set_visible(False)
                continue
            draw(ax, shown[place], at)
            if place + COLUMNS >= len(shown):  # nothing below it
                ax.tick_params(labelbottom=True)
        axes[0, 0].set_ylim(0, 1.05 * max(float(panel.acting.max()) for panel in shown))
        axes[0, 0].set_xlim(0, 1)
        axes[0, 0].set_xticks([0, 1], ["start", "end"])
        for ax in axes.flat:  # so that they stand within the panel
            first, last = ax.xaxis.get_major_ticks()[:2]
            first.label1.set_horizontalalignment("left")
            last.label1.set_horizontalalignment("right")
    several = f"; means of {count(number_of_runs, 'run')}, band: the lowest and highest" if number_of_runs > 1 else ""
    caption = (
        f"Probability of each operation over training: that it acts on a patch (thick), and its options (thin, the "
        f"stronger the darker); dotted: at the start{several}. Learned from patches of training subjects that were "
        f"kept out of the training steps; no subject of a held-out {results.domain_word} is among them."
    )
    return Plot(figure, caption, f"Probabilities of augmentation with {title} over training: {changes(shown)}.")


def draw(ax: Any, panel: Panel, at: np.ndarray) -> None:
    means, acting = panel.values.mean(0), panel.acting
    ax.axhline(acting.mean(0)[0], color=FAINT, lw=0.8, ls=(0, (1, 2)), zorder=1)
    if len(panel.options) > 1:
        for i in range(len(panel.options)):
            strength = 0.35 + 0.65 * i / (len(panel.options) - 1)
            ax.plot(at, means[:, i], color=PALETTE[0], alpha=strength, lw=0.9, zorder=2)
    if len(acting) > 1:
        ax.fill_between(at, acting.min(0), acting.max(0), color=FAINT, alpha=0.25, lw=0, zorder=1)
    ax.plot(at, acting.mean(0), color=INK, lw=1.5, zorder=3)
    ax.set_title(elided(panel.name, 20), loc="left", fontsize=7.5, pad=2.5)
    ax.grid(axis="y", color=RULE, lw=0.6)
    ax.set_axisbelow(True)
    ax.tick_params(labelsize=7, length=2)


def changes(shown: Sequence[Panel]) -> str:
    """What rose and fell most from start to end, by option, in words."""
    moved = [
        (float(after - before), option, float(before), float(after))
        for panel in shown
        for option, before, after in zip(panel.options, *panel.values.mean(0)[[0, -1]], strict=True)
    ]
    moved.sort(key=lambda change: change[0])
    fell = [told(change) for change in moved[:3] if change[0] <= -SHOWN]
    rose = [told(change) for change in reversed(moved[-3:]) if change[0] >= SHOWN]
    parts = [f"{words} most: {listed(some)}" for words, some in (("rose", rose), ("fell", fell)) if some]
    return "; ".join(parts) or f"nothing changed in {count(len(moved), 'option')}"


def told(change: tuple[float, str, float, float]) -> str:
    _, option, before, after = change
    return f"{option} ({number(before, 3)} to {number(after, 3)})"
