"""Densities of logits, training and unseen samples over each other: figures, a table and words from `logits.json`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.ndimage import gaussian_filter

from ..errors import RunError
from ..files import write_text
from ..statistics.densities import edges, level_of, unpacked
from .figures import WIDTH, elided
from .numbers import TIE, grouped, known, number, percent, tied
from .results import Results
from .scripts import policy
from .svg import FAINT, INK, PALETTE, RULE, Plot, style
from .templating import template

Found = dict[str, Any]

LOOKS: dict[str, tuple[str, Any, str, str]] = {
    "train": (PALETTE[0], "solid", "training", "solid line"),
    "validation": (PALETTE[2], (0, (1, 1.3)), "held back", "dotted"),
    "test": (PALETTE[3], (0, (4, 1.6)), "unseen", "dashed"),
}
"""Colour, line, and words for the side and its line: lines differ where colours cannot be told apart."""

SHARES = (0.9, 0.5)
"""Of the samples of a side, within its outer and its inner line."""

SMOOTH = 0.8
"""Standard deviation of the blur, in bins."""

STILL = 0.1
"""A shift of less, in SD of the training samples, is not said to be one."""

FEW = 10
"""Samples on a side below which an SD is said to be none to rely on."""

LEFT = 0.18
"""Share of a figure's width in front of its axes: numbers such as -12.5, and the axis's name."""

PANELS = 4
ROWS = 4


def read_logits(path: Path) -> Found:
    """What `shiftproof logits` or a study's cell wrote.

    Raises:
        RunError: If there is no such file, or it is broken.
    """
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RunError(f"there is no {path}; `shiftproof logits MODEL COHORT --out FOLDER` writes it") from error
    except (OSError, json.JSONDecodeError) as error:
        raise RunError(f"{path} cannot be read ({error}); write it again") from error
    if not isinstance(found, dict) or not {"panels", "shifts", "sides"} <= found.keys():
        raise RunError(f"{path} holds no logits; `shiftproof logits` writes it")
    return found


def logits_report(folder: Path) -> Path:
    """Writes `logits.html` beside `logits.json`: one page that needs nothing else; returns its path.

    Raises:
        RunError: If the folder has no logits.
    """
    found = read_logits(Path(folder) / "logits.json")
    path = Path(folder) / "logits.html"
    text = template("logits.html.j2").render(
        found=found,
        plots=plots([found], [""]),
        omitted=drawn([found])[1],
        columns=COLUMNS,
        alone=ALONE,
        lines=table(found),
        words=words(found),
        cases=case_table(found),
        policy=policy(),
        looks={side: LOOKS[side] for side in found["sides"]},
    )
    write_text(path, text)
    return path


COLUMNS = ["samples", "mean margin", "median", "shift", "shift / SD", "beyond the boundary", "the same, by scan"]
ALONE = ("shift", "shift / SD")
"""Columns without a number of training."""


def table(found: Found) -> list[tuple[str, list[tuple[str, str]]]]:
    """A line for each class and unseen side; training in small below."""
    result = []
    for line in found["shifts"]:
        if not (line["n_train"] and line["n_test"]):
            continue
        by_case = line["by_case"]
        cells = [
            (grouped(line["n_test"]), grouped(line["n_train"])),
            (number(line["mean_test"], 2), number(line["mean_train"], 2)),
            (number(line["median_test"], 2), number(line["median_train"], 2)),
            (number(line["shift"], 2, signed=True), ""),
            (number(line["normalised"], 2, signed=True), ""),
            (percent(line["crossing"]), percent(line["crossing_train"])),
            (percent(by_case["crossing"]), percent(by_case["crossing_train"])),
        ]
        result.append((f"{line['truth']}, {LOOKS[line['to']][2]}", cells))
    return result


def case_table(found: Found) -> list[tuple[str, list[str]]]:
    """Margins of each scan."""
    return [
        (
            c["subject"] if c["scan"] == 1 else f"{c['subject']} ({c['scan']})",
            [c["domain"], LOOKS[c["side"]][2], c["truth"], grouped(c["n"]), number(c["mean"], 2),
             number(c["median"], 2), percent(c["crossing"])],
        )
        for c in found["cases"]
    ]  # fmt: skip


def moved(found: Found) -> list[Found]:
    """Shifts to the unseen side, the largest first."""
    lines = [s for s in found["shifts"] if s["to"] == "test" and s["n_train"] and s["n_test"]]
    return sorted(lines, key=lambda s: -s["normalised"] if known(s["normalised"]) else math.inf)


def words(found: Found) -> list[str]:
    """What the numbers say, class by class, the largest shift first."""
    lines = moved(found)
    if not lines:
        return ["No class occurs on both sides: there is nothing to compare."]
    said = [sentence(line) for line in lines]
    first, last = lines[0], lines[-1]
    if len(lines) > 1 and known(last["normalised"]) and first["normalised"] >= STILL:
        said.append(
            f"The class that moves most is {first['truth']} ({number(first['normalised'], 2, signed=True)} SD of "
            f"training), least {last['truth']} ({number(last['normalised'], 2, signed=True)} SD)."
        )
    few = [line["truth"] for line in lines if min(line["n_train"], line["n_test"]) < FEW]
    if few:
        said.append(f"Fewer than {FEW} samples on a side: {', '.join(few)}. Shifts in SD of so few say little.")
    return said


def sentence(line: Found) -> str:
    way = where(line["normalised"], line["mean_train"], line["mean_test"])
    return (
        f"Unseen samples of {line['truth']} lie {way}: mean margin "
        f"{number(line['mean_test'], 2)} against {number(line['mean_train'], 2)}, a shift of "
        f"{number(line['shift'], 2, signed=True)} ({number(line['normalised'], 2, signed=True)} SD); "
        f"{percent(line['crossing'])} of them lie beyond the boundary, of training {percent(line['crossing_train'])}."
    )


def where(by: float | None, seen: float, unseen: float) -> str:
    """Where samples lie, by how much they moved in SD and the mean margins of both sides."""
    if by is None or not math.isfinite(by):  # no spread in training: a direction is all that is known
        by = math.copysign(STILL, seen - unseen) if seen != unseen else 0.0
    if abs(by) < STILL:
        return "where those of training lie"
    if by > 0:
        if seen <= 0:
            return "farther beyond the boundary than those of training"
        return (
            "on the wrong side of the boundary on average"
            if unseen <= 0
            else "nearer to the boundary than those of training"
        )
    if unseen <= 0:
        return "beyond the boundary, less far than those of training"
    return (
        "on the right side of the boundary on average, where those of training are not"
        if seen <= 0
        else "farther from the boundary than those of training"
    )


# Of a study ------------------------------------------------------------------------------------------------------


def read_cells(results: Results) -> dict[str, dict[tuple[str, int], Found]]:
    """By row, held-out domain and seed the logits of cells that kept them; what cannot be read counts as missing."""
    found: dict[str, dict[tuple[str, int], Found]] = {}
    for cell in results.cells:
        path = cell.folder / "logits.json" if cell.folder is not None else None
        if cell.status == "done" and path is not None and path.exists():
            try:
                found.setdefault(cell.row, {})[cell.held_out, cell.seed] = read_logits(path)
            except RunError:
                continue
    return found


def over_trainings(parts: Sequence[Found]) -> Found:
    """Margins of several trainings: means of what each gives, since each has a network, and a scale, of its own."""
    shifts = dict.fromkeys((s["truth"], s["to"]) for part in parts for s in part["shifts"])
    return {
        "shifts": [
            averaged([s for part in parts for s in part["shifts"] if (s["truth"], s["to"]) == k]) for k in shifts
        ]
    }


NUMBERS = (
    "mean_train", "mean_test", "median_train", "median_test", "shift", "normalised", "crossing_train", "crossing"
)  # fmt: skip


def averaged(shifts: Sequence[Found]) -> Found:
    """Means over trainings of what each has; samples add up."""

    def mean(values: Sequence[Any]) -> float:
        known = [float(v) for v in values if v is not None and math.isfinite(v)]
        return float(np.mean(known)) if known else math.nan

    found: Found = {"truth": shifts[0]["truth"], "to": shifts[0]["to"]}
    found |= {name: sum(int(s[name]) for s in shifts) for name in ("n_train", "n_test")}
    found |= {name: mean([s[name] for s in shifts]) for name in NUMBERS}
    by_case = {name: mean([s["by_case"][name] for s in shifts]) for name in ("shift", "crossing_train", "crossing")}
    return found | {"by_case": by_case, "trainings": len(shifts)}


def shifts_of(cells: Mapping[str, Mapping[Any, Found]]) -> dict[tuple[str, str], Found]:
    """By row and class, of the held-out side."""
    return {
        (row, shift["truth"]): shift
        for row, parts in cells.items()
        for shift in over_trainings(list(parts.values()))["shifts"]
        if shift["to"] == "test"
    }


def section(results: Results, found: Found) -> Found | None:
    """The logit section of a study's report: the first row, the selected and the leading one, drawn beside each other.

    Drawn is one training of each, the first that all of them have: logits of different networks have no common scale.
    None where no cell kept logits.
    """
    cells = read_cells(results)
    if not cells:
        return None
    own = [r["name"] for r in results.recipes if r["role"] == "row"]
    wanted = [*own[:1], found.get("selected"), found.get("leader"), found.get("source_only"), *own, *cells]
    shown = [name for name in dict.fromkeys(wanted) if name in cells][:ROWS]
    common = [key for key in cells[shown[0]] if all(key in cells[name] for name in shown)]
    held_out, seed = key = common[0] if common else next(iter(cells[shown[0]]))
    shown = [name for name in shown if key in cells[name]]
    together = {name: over_trainings(list(parts.values())) for name, parts in cells.items()}
    ordered = [*shown, *(r["name"] for r in results.recipes if r["name"] in cells and r["name"] not in shown)]
    return {
        "plots": plots([cells[name][key] for name in shown], shown),
        "omitted": drawn([cells[name][key] for name in shown])[1],
        "training": f"held-out {results.domain_word} {held_out}, seed {seed}",
        "columns": COLUMNS,
        "alone": ALONE,
        "lines": [{"row": name, "lines": table(together[name])} for name in ordered],
        "words": row_words(together, shown),
        "samples": cells[shown[0]][key].get("samples", "voxels"),
        "looks": {side: LOOKS[side] for side in cells[shown[0]][key]["sides"]},
    }


def row_words(together: Mapping[str, Found], shown: Sequence[str]) -> list[str]:
    """A sentence for each row, all of the class that moves most in the first: so rows can be compared."""
    lines = {name: moved(together[name]) for name in shown}
    first = next((own[0]["truth"] for own in lines.values() if own), None)
    same = {name: next((line for line in own if line["truth"] == first), None) for name, own in lines.items()}
    return [f"{name}: {sentence(line)}" for name, line in same.items() if line is not None]


# Figures ---------------------------------------------------------------------------------------------------------


def plots(parts: Sequence[Found], names: Sequence[str]) -> list[Plot]:
    """A figure for each class and row; a class has one scale in all rows.

    Args:
        parts: Of each row, as `read_logits` gives it.
        names: Of the rows; "" for no name.
    """
    result = []
    for truth in drawn(parts)[0]:
        every = [(name, part, p) for name, part in zip(names, parts, strict=True) for p in part["panels"]]
        several = [one for one in every if one[2]["truth"] == truth]
        wide = max(reach(side) for _, _, panel in several for side in panel["sides"].values())
        result += [plot(panel, shift_of(part, truth), name, wide) for name, part, panel in several]
    return result


def drawn(parts: Sequence[Found]) -> tuple[list[str], str]:
    """The classes that have figures, those that move most in the first row; and what is to be said of others."""
    truths = list(dict.fromkeys(p["truth"] for part in parts for p in part["panels"]))
    if len(truths) <= PANELS:
        return truths, ""
    first = [s["truth"] for s in moved(parts[0])]
    kept = sorted(truths, key=lambda t: first.index(t) if t in first else len(first))[:PANELS]
    return kept, f"Drawn are {PANELS} of {len(truths)} classes, those that move most; the table has all."


def shift_of(part: Found, truth: str) -> Found | None:
    return next((s for s in moved(part) if s["truth"] == truth), None)


def reach(side: Found) -> float:
    """Where the axes of a side end, on either side of 0."""
    if side["points"]:
        return 1.1 * float(np.abs(side["points"]).max())
    smooth, middle = smoothed(side)
    inside = np.argwhere(smooth >= level_of(smooth, 0.995))
    return float(np.abs(middle[inside]).max() + middle[1] - middle[0])


def smoothed(side: Found) -> tuple[np.ndarray, np.ndarray]:
    """Counts without the grain of the grid, and the middles of the bins."""
    ends = edges(float(side["density"]["step"]))
    return gaussian_filter(unpacked(side["density"]), SMOOTH), (ends[1:] + ends[:-1]) / 2


def plot(panel: Found, shift: Found | None, name: str, wide: float) -> Plot:
    """One true class against one competitor: lines around half and nine tenths of the samples, a star at each mean."""
    flat = panel["competitor"] is None
    with style():
        figure = Figure(figsize=(WIDTH, 2.3 if flat else 3.3))
        axes = figure.add_axes((LEFT, 0.21 if flat else 0.15, 0.96 - LEFT, 0.62 if flat else 0.70))
        (curves if flat else plane)(axes, panel, wide)
        axes.set_title(f"truly {elided(panel['truth'], 30)}", loc="left", fontsize=9, fontweight="bold", color=INK)
        if name:
            figure.text(LEFT, 0.965, elided(name), fontsize=8.5, color=FAINT, va="center")
        axes.set_xlabel(f"logit of {panel['column']}")
        if not flat:
            axes.set_ylabel(f"logit of {panel['competitor']}")
            axes.yaxis.set_label_coords(-0.155, 0.5)  # the same in all panels, and within the figure
    numbers = ", ".join(f"{LOOKS[side][2]} n{TIE}={TIE}{grouped(of['n'])}" for side, of in panel["sides"].items())
    against = "0" if flat else f"that of {panel['competitor']}"
    few = [LOOKS[side][2] for side, of in panel["sides"].items() if of["points"]]
    lines = "lines around 50 and 90 % of the samples"
    some = "each sample" if len(few) == len(panel["sides"]) else f"{lines}, each sample of few ({', '.join(few)})"
    drawn = "density" if flat else some if few else lines
    caption = (
        f"{name + ', ' if name else ''}truly {panel['truth']}: {drawn}, stars at the means ({numbers}); boundary: the "
        f"logit of {panel['column']} equals {against}{'; ' + beyond(shift) if shift else ''}."
    )
    means = "; ".join(
        f"{LOOKS[side][2]} mean {', '.join(number(m, 1) for m in of['mean'])}" for side, of in panel["sides"].items()
    )
    alt = f"Density of logits{' of ' + name if name else ''}, true class {panel['truth']}: {means}."
    return Plot(figure, tied(caption), f"{alt} {beyond(shift)}." if shift else alt)


def beyond(shift: Found) -> str:
    return (
        f"shift {number(shift['shift'], 2, signed=True)} ({number(shift['normalised'], 2, signed=True)} SD), beyond "
        f"the boundary {percent(shift['crossing'])}, of training {percent(shift['crossing_train'])}"
    )


def plane(axes: Axes, panel: Found, wide: float) -> None:
    """The plane of two logits; below the diagonal the true class wins over the competitor."""
    for side, of in panel["sides"].items():
        colour, line, *_ = LOOKS[side]
        if of["points"]:
            x, y = np.array(of["points"], float).T
            axes.scatter(x, y, s=9, color=colour, alpha=0.7, lw=0, marker="o" if side == "train" else "^")
        else:
            smooth, middle = smoothed(of)
            levels = sorted({level_of(smooth, share) for share in SHARES})
            axes.contour(middle, middle, smooth.T, levels=levels, colors=colour, linestyles=[line], linewidths=1.2)
        axes.plot(*of["mean"], marker="*", ms=10, color=colour, mec=INK, mew=0.5, zorder=5)
    axes.plot([-wide, wide], [-wide, wide], color=FAINT, lw=0.9, zorder=0)
    axes.set_xlim(-wide, wide)
    axes.set_ylim(-wide, wide)
    axes.grid(color=RULE, lw=0.5)
    axes.set_axisbelow(True)


def curves(axes: Axes, panel: Found, wide: float) -> None:
    """The density of one logit; the boundary is at 0."""
    for side, of in panel["sides"].items():
        colour, line, *_ = LOOKS[side]
        smooth, middle = smoothed(of)
        axes.plot(middle, smooth / (smooth.sum() * (middle[1] - middle[0])), color=colour, ls=line, lw=1.3)
        axes.plot(of["mean"][0], 0, marker="*", ms=10, color=colour, mec=INK, mew=0.5, zorder=5, clip_on=False)
    axes.axvline(0, color=FAINT, lw=0.9, zorder=0)
    axes.set_xlim(-wide, wide)
    axes.set_ylim(bottom=0)
    axes.set_yticks([])
    axes.set_ylabel("density")
