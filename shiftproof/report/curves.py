"""Validation and loss over training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from .figures import WIDTH, elided
from .numbers import count, plural
from .reading import read_record
from .results import Results
from .svg import FAINT, RULE, Plot, colours, style

POINTS = 150  # of a curve; more cannot be seen at this width

Found = dict[str, Any]


def curves(results: Results, row: str) -> Plot | None:
    """Validation and loss of a row over training, a line per held-out domain and seed."""
    runs = [(c, read_record(c.run)) for c in results.cells if c.row == row and c.status == "done"]
    runs = [(c, lines) for c, lines in runs if lines]
    if not runs:
        return None
    paint = colours(results.domains)
    with style():
        figure = Figure(figsize=(WIDTH, 3.0))
        above, below = figure.subplots(2, 1, sharex=True, gridspec_kw={"hspace": 0.16})
        figure.subplots_adjust(left=0.15, right=0.98, top=0.91, bottom=0.14)
        above.set_title(elided(row), loc="left", fontsize=9, fontweight="bold")
        for cell, lines in runs:
            colour, _ = paint[cell.held_out]
            steps, scores = series(lines, "validation", ("mean",))
            above.plot(steps, scores, color=colour, lw=1.1, alpha=0.9)
            if len(steps) == 1:
                above.plot(steps, scores, color=colour, marker="o", ms=3.5)
            steps, losses = series(lines, "losses", ("task", "plain", "meta-train"))
            below.plot(*thinned(steps, losses), color=colour, lw=0.9, alpha=0.9)
        for axes, words in ((above, "validation"), (below, "loss")):
            axes.set_ylabel(words)
            axes.grid(axis="y", color=RULE, lw=0.6)
            axes.set_axisbelow(True)
        if not above.lines or not any(len(line.get_xdata()) for line in above.lines):
            above.text(0.5, 0.5, "no validation recorded", transform=above.transAxes, ha="center", color=FAINT)
            above.set_yticks([])
        below.set_xlabel("step")
        below.set_xlim(left=0)
    word = results.domain_word
    seeds = len({c.seed for c, _ in runs})
    caption = (
        f"Mean score on held-back subjects of the training {plural(word)} (above) and loss of "
        "single batches, averaged over neighbouring steps (below); "
        f"colour: held-out {word}, a line a seed ({seeds}). The held-out {word} is in neither."
    )
    return Plot(
        figure,
        caption,
        f"Training curves of {row}: validation score and loss over steps, {count(len(runs), 'run')}.",
    )


def series(lines: Sequence[Found], part: str, preferred: Sequence[str]) -> tuple[list[int], list[float]]:
    """Steps and values of one number of the record: the first preferred one that is there, else the first."""
    steps, values = [], []
    for line in lines:
        found = line.get(part)
        if not isinstance(found, dict):
            continue
        numbers = {k: v for k, v in found.items() if isinstance(v, int | float)}
        key = next((k for k in preferred if k in numbers), next(iter(numbers), None))
        if key is not None:
            steps.append(int(line["step"]))
            values.append(float(numbers[key]))
    return steps, values


def thinned(steps: list[int], values: list[float]) -> tuple[np.ndarray, np.ndarray]:
    """Means over neighbours, at most POINTS of them."""
    parts = np.array_split(np.arange(len(steps)), min(POINTS, len(steps)) or 1)
    at, of = np.asarray(steps, float), np.asarray(values, float)
    kept = [p for p in parts if len(p)]
    return np.array([at[p].mean() for p in kept]), np.array([of[p].mean() for p in kept])
