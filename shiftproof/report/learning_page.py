"""The page, the figures and the words of learning curves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ..files import write_text
from .figures import WIDTH, elided
from .numbers import estimate, listed, number, p_value, scale, span
from .scripts import policy
from .svg import FAINT, INK, PALETTE, RULE, Plot, style
from .templating import template
from .trainings import fallen_words

Found = dict[str, Any]

PANELS = 2
"""In a line of a figure."""

NAMES = 4
"""Of rows in a sentence; more are counted."""

HELD_OUT, TRAINING = PALETTE[3], PALETTE[0]


def write_page(found: Found, path: Path) -> None:
    """One file that asks nothing of a network."""
    text = template("learning.html.j2").render(
        found=found,
        words=words(found),
        plots=[plot(found, part) for part in found["metrics"]],
        tables=[{"title": scale(p["metric"]).axis, "lines": table(found, p)} for p in found["metrics"]],
        columns=columns(found),
        colours={"held_out": HELD_OUT, "training": TRAINING},
        several=len(found["rows"]) > 1,
        policy=policy(),
    )
    write_text(path, text)


# Words -----------------------------------------------------------------------------------------------------------


def words(found: Found) -> list[str]:
    """What fewer subjects cost the first row, metric by metric; which rows lose reliably; who leads where; who fell."""
    fell = fallen_words(found["fallen"], scale(found["primary"]))
    return [*price(found), *gaps(found), *(losses(found) if len(found["rows"]) > 1 else []), *([fell] if fell else [])]


def price(found: Found) -> list[str]:
    first = found["rows"][0]
    changes = [(part["metric"], line_of(part, first)["change"]) for part in found["metrics"]]
    told = [f"{scale(metric).title} {cost(metric, change)}" for metric, change in changes if change]
    if not told:
        return []
    few, many = (found["studies"][i] for i in ends(line_of(found["metrics"][0], first)))
    return [f"{first}, {named(few)} instead of {named(many)}: {'; '.join(told)}."]


def gaps(found: Found) -> list[str]:
    first, told = found["rows"][0], []
    for part in found["metrics"]:
        line = line_of(part, first)
        sides = [(p["gap"], found["studies"][p["study"]]["label"]) for p in (line["points"][0], line["points"][-1])]
        if len(line["points"]) > 1 and all(gap and math.isfinite(gap["value"]) for gap, _ in sides):
            numbers = [estimate(gap, scale(part["metric"]).digits, signed=True, value="value") for gap, _ in sides]
            told.append(
                f"{first}, generalization gap in {scale(part['metric']).title}: {numbers[0]} with {sides[0][1]}, "
                f"{numbers[1]} with {sides[1][1]} of the subjects."
            )
    return told


def losses(found: Found) -> list[str]:
    told = []
    for part in found["metrics"]:
        changes = {line["row"]: line["change"] for line in part["rows"] if line["change"]}
        sure = [row for row, change in changes.items() if change["verdict"] == "worse"]
        names = f" ({listed(sure)})" if 0 < len(sure) <= NAMES else ""
        told.append(
            f"In {scale(part['metric']).title}, {len(sure) or 'none'} of {len(changes)} rows "
            f"{'loses' if len(sure) == 1 else 'lose'} reliably{names}; best mean {', '.join(leaders(found, part))}."
        )
    return told


def ends(line: Found) -> tuple[int, int]:
    """The studies with the fewest and the most subjects that have the row."""
    return line["points"][0]["study"], line["points"][-1]["study"]


def line_of(part: Found, row: str) -> Found:
    return next(line for line in part["rows"] if line["row"] == row)


def named(study: Found) -> str:
    """5 % (5 subjects)."""
    subjects = study["subjects"]
    if not subjects:
        return str(study["label"])
    few, many = subjects
    return f"{study['label']} ({few if few == many else f'{few} to {many}'} subjects)"


def cost(metric: str, change: Found) -> str:
    digits = scale(metric).digits
    reliably = {"worse": "reliably worse", "better": "reliably better"}.get(change["verdict"], change["verdict"])
    return (
        f"{number(change['mean_difference'], digits, signed=True)} "
        f"{span(change['low'], change['high'], digits, signed=True)}, corrected p {p_value(change['p_corrected'])}, "
        f"{reliably}"
    )


def leaders(found: Found, part: Found) -> list[str]:
    """The row with the best mean at each fraction; whether reliably so is told by each study's own report."""
    best = max if part["higher_is_better"] else min
    told = []
    for place, study in enumerate(found["studies"]):
        here = {
            line["row"]: p["mean"]
            for line in part["rows"]
            for p in line["points"]
            if p["study"] == place and math.isfinite(p["mean"])
        }
        if here:
            name = best(here, key=lambda row: here[row])
            told.append(f"at {study['label']} {name} ({number(here[name], scale(part['metric']).digits)})")
    return told


# Tables ----------------------------------------------------------------------------------------------------------


def columns(found: Found) -> list[tuple[str, str]]:
    """Heads after the row's: a fraction each, its subjects below, then the change."""
    ends = found["studies"][0]["label"], found["studies"][-1]["label"]
    return [*((s["label"], named(s).removeprefix(s["label"]).strip(" ()")) for s in found["studies"]),
            ("change", f"{ends[0]} less {ends[1]}")]  # fmt: skip


def table(found: Found, part: Found) -> list[tuple[str, list[tuple[str, str]]]]:
    """A line for each row: means with intervals, and the change with its verdict; the others' where a point lacks."""
    digits = scale(part["metric"]).digits
    lines = []
    for line in part["rows"]:
        by_study = {p["study"]: p for p in line["points"]}
        cells = []
        for place in range(len(found["studies"])):
            point = by_study.get(place, {})
            cells.append((number(point.get("mean"), digits), span(point.get("low"), point.get("high"), digits)))
        change = line["change"]
        cells.append(
            (number(change["mean_difference"], digits, signed=True), f"p {p_value(change['p_corrected'])}, "
             f"{change['verdict']}") if change else ("–", "")
        )  # fmt: skip
        lines.append((line["row"], cells))
    return lines


# Figures ---------------------------------------------------------------------------------------------------------


def plot(found: Found, part: Found) -> Plot:
    """A panel for each row: held-out subjects with intervals, training subjects, and the first row behind both."""
    of, rows = scale(part["metric"]), part["rows"]
    lines = math.ceil(len(rows) / PANELS)
    height = 0.82 + 1.05 * lines
    fractions = [study["fraction"] for study in found["studies"]]
    with style():
        figure = Figure(figsize=(WIDTH, height))
        axes = figure.subplots(lines, PANELS, sharex=True, sharey=True, squeeze=False)
        figure.subplots_adjust(
            left=0.12, right=0.985, top=1 - 0.45 / height, bottom=0.5 / height, hspace=0.32, wspace=0.1
        )
        figure.text(
            0.01, 1 - 0.13 / height, of.axis[0].upper() + of.axis[1:], fontsize=9, fontweight="bold", va="center",
            color=INK,
        )  # fmt: skip
        for place, ax in enumerate(axes.flat):
            if place >= len(rows):
                ax.set_visible(False)
                continue
            draw(ax, rows[place], rows[0] if place else None, fractions)
            ax.set_title(elided(rows[place]["row"], 28), loc="left", fontsize=7.5, pad=2.5)
            ax.tick_params(labelsize=7, length=2, labelbottom=place + PANELS >= len(rows))
        axes[0, 0].set_xscale("log")
        axes[0, 0].set_xticks(fractions, [study["label"].replace(" ", "") for study in found["studies"]])
        axes[0, 0].minorticks_off()
        margin = (fractions[-1] / fractions[0]) ** 0.08
        axes[0, 0].set_xlim(fractions[0] / margin, fractions[-1] * margin)
        axes[0, 0].set_ylim(*limits(part))
        figure.text(
            0.55, 0.1 / height, "share of the training subjects", fontsize=8, ha="center", va="bottom", color=FAINT
        )
    structure = f" of {found['structure']}" if found["structure"] else ""
    mean = ", mean over structures" if len(found["structures"]) > 1 and not found["structure"] else ""
    ghost = f"; dotted, grey: held-out subjects of {rows[0]['row']}" if len(rows) > 1 else ""
    caption = (
        f"{of.title[0].upper()}{of.title[1:]}{structure} over the share of training subjects{mean}: held-out subjects "
        f"(solid, with 95 % intervals) and training subjects (dashed){ghost}. Better is further "
        f"{'up' if of.higher_is_better else 'down'}; the distance of the two lines is the generalization gap."
    )
    spoken = "; ".join(f"{name} {', '.join(c[0] for c in cells[:-1])}" for name, cells in table(found, part))
    shares = ", ".join(study["label"] for study in found["studies"])
    return Plot(figure, caption, f"Learning curves, {of.title} at {shares} of the training subjects. {spoken}.")


def draw(ax: Any, line: Found, behind: Found | None, fractions: Sequence[float]) -> None:
    if behind:
        ax.plot(*path(behind, fractions, "mean"), color=FAINT, lw=1.0, ls=(0, (1, 1.5)), zorder=1)
    ax.plot(*path(line, fractions, "train"), color=TRAINING, lw=1.2, ls=(0, (4, 2)), marker="o", ms=2.5, zorder=2)
    x, y = path(line, fractions, "mean")
    low, high = (path(line, fractions, end)[1] for end in ("low", "high"))
    around = [np.maximum(y - low, 0), np.maximum(high - y, 0)]
    ax.errorbar(x, y, yerr=around, color=HELD_OUT, lw=1.4, elinewidth=0.9, marker="^", ms=3.5, zorder=3)
    ax.grid(axis="y", color=RULE, lw=0.6)
    ax.set_axisbelow(True)


def path(line: Found, fractions: Sequence[float], value: str) -> tuple[np.ndarray, np.ndarray]:
    places = [fractions[p["study"]] for p in line["points"]]
    return np.array(places, float), np.array([p[value] for p in line["points"]], float)


def limits(part: Found) -> tuple[float, float]:
    """Room for all that is drawn, within what the metric can be."""
    seen = [p[k] for line in part["rows"] for p in line["points"] for k in ("mean", "low", "high", "train")]
    known = [v for v in seen if v is not None and math.isfinite(v)] or [0.0, 1.0]
    low, high = scale(part["metric"]).within
    room = 0.06 * (max(known) - min(known) or 1.0)
    return max(low, min(known) - room), min(high, max(known) + room)
