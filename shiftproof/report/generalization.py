"""How much of what a row learned holds for subjects, and for a domain, that it never saw."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from ..files import read_rows
from ..statistics import per_training
from ..statistics.generalization import generalization_gap
from .figures import WIDTH, label, span_of, strips
from .logits import read_cells, shifts_of
from .numbers import NOTHING, count, estimate, number, plural, scale, span
from .results import Results
from .svg import FAINT, INK, PALETTE, RULE, Plot, style

Found = dict[str, Any]

METRICS = ("sensitivity", "precision", "dice")
"""Of a segmentation, the one that rare structures lose first in front."""

MOST = 6
"""Figures at most; the tables have all."""

STEPS = (("sample", "train", "validation"), ("domain", "validation", "test"), ("all", "train", "test"))
MARKS = {"train": ("o", PALETTE[0], "●"), "validation": ("D", PALETTE[2], "◆"), "test": ("^", PALETTE[3], "▲")}


def read_gaps(results: Results) -> pd.DataFrame:
    """Scores of all sides: training and held-back subjects of the cells that looked at them, and the held-out ones.

    Empty where no cell did, as in studies of earlier versions.
    """
    tables = []
    for cell in results.cells:
        path = cell.folder / "gap.csv" if cell.folder is not None else None
        if cell.status == "done" and path is not None and path.exists():
            tables.append(read_rows(path))
    if not tables:
        return pd.DataFrame()
    own = pd.concat(tables)
    keys = own[["row", "held_out", "seed"]].drop_duplicates()
    tested = results.rows.merge(keys, on=["row", "held_out", "seed"]).assign(side="test")
    return pd.concat([own, tested], ignore_index=True)


def generalization(results: Results) -> list[Found]:
    """For each structure and metric the errors of three sides by row, and the gaps between them.

    An error is 1 less the score of a metric from 0 to 1, of a distance the distance. Subjects are averaged over their
    scans and seeds first; held-out domains, which have networks of their own, count once each.
    """
    rows = read_gaps(results)
    if rows.empty:
        return []
    found = []
    for structure in [s for s in results.structures if s in set(rows["structure"])] if results.segments else [None]:
        for metric in metrics_of(rows, results):
            values = values_of(rows, structure, metric, results.segments)
            lines = [line for r in results.recipes if (line := line_of(values, r["name"], metric, results))]
            if lines:
                found.append({"structure": structure, "metric": metric, "lines": lines})
    return found


def metrics_of(rows: pd.DataFrame, results: Results) -> list[str]:
    """The metrics whose gap is shown: where better has a direction."""
    there = list(rows["metric"].drop_duplicates())
    wanted = [*METRICS, results.primary] if results.segments else there
    return [m for m in dict.fromkeys(wanted) if m in there and not scale(m).signed]


def values_of(rows: pd.DataFrame, structure: str | None, metric: str, by_structure: bool) -> pd.DataFrame:
    """A value a subject, seed and side, with the row and held-out domain of its network."""
    own = rows[rows["metric"] == metric]
    tables = [
        per_training(own[own["side"] == side], metric, structure=structure, by_structure=by_structure).assign(side=side)
        for side in MARKS
    ]
    return pd.concat(tables, ignore_index=True)


def line_of(values: pd.DataFrame, row: str, metric: str, results: Results) -> Found | None:
    """One row of the study: errors, gaps with intervals, the spread over seeds, and each held-out domain alone."""
    own = values[values["row"] == row]
    parts: dict[str, dict[str, np.ndarray]] = {}
    by_subject = own.groupby(["held_out", "side", "domain", "subject"])["value"].mean()
    for (held_out, side), some in by_subject.groupby(["held_out", "side"]):
        parts.setdefault(str(held_out), {})[str(side)] = errors(some, metric)
    held = [d for d in results.held_out if {"train", "test"} <= parts.get(d, {}).keys()]
    if not held:
        return None
    gaps = {name: gap_of([parts[d] for d in held], a, b) for name, a, b in STEPS}
    alone = {d: {name: gap_of([parts[d]], a, b) for name, a, b in STEPS} for d in held}
    known = {d: g["all"]["value"] for d, g in alone.items() if math.isfinite(g["all"]["value"])}
    return {
        "row": row,
        "errors": {side: mean_error([parts[d] for d in held], side) for side in MARKS},
        "gaps": gaps,
        "domains": alone,
        "worst": max(known, key=lambda d: known[d]) if len(known) > 1 else None,
        "seeds": seed_gaps(own, metric),
        "subjects": {side: sum(len(parts[d].get(side, ())) for d in held) for side in MARKS},
    }


def errors(values: pd.Series, metric: str) -> np.ndarray:
    numbers = values.to_numpy(float)
    numbers = numbers[np.isfinite(numbers)]
    return 1 - numbers if scale(metric).higher_is_better else numbers


def gap_of(parts: list[dict[str, np.ndarray]], first: str, second: str) -> Found:
    nobody = np.zeros(0)
    return dataclasses.asdict(
        generalization_gap([p.get(first, nobody) for p in parts], [p.get(second, nobody) for p in parts])
    )


def mean_error(parts: list[dict[str, np.ndarray]], side: str) -> float:
    known = [float(p[side].mean()) for p in parts if len(p.get(side, ()))]
    return float(np.mean(known)) if known else math.nan


def seed_gaps(own: pd.DataFrame, metric: str) -> Found:
    """Mean and standard deviation over seeds of the whole gap; the deviation is NaN for a single one."""
    train, test = (
        own[own["side"] == side].pivot_table(index="seed", columns="held_out", values="value", aggfunc="mean")
        for side in ("train", "test")
    )
    gaps = train - test if scale(metric).higher_is_better else test - train
    by_seed = gaps.mean(axis=1).dropna()
    sd = float(by_seed.std(ddof=1)) if len(by_seed) > 1 else math.nan
    return {"n": len(by_seed), "mean": float(by_seed.mean()) if len(by_seed) else math.nan, "sd": sd}


def section(results: Results) -> Found | None:
    """All that the page shows of it; None where no cell was asked."""
    found = generalization(results)
    if not found:
        return None
    return {
        "tables": tables(found, shifts_of(read_cells(results))),
        "plots": plots(found, results.domain_word),
        "marks": MARKS,
        "notes": notes(results, found),
    }


def tables(found: list[Found], shifts: Mapping[tuple[str, str], Found]) -> list[Found]:
    """As the page shows them.

    Args:
        found: Of `generalization`.
        shifts: By row and structure, of `logits.shifts_of`.
    """
    result = []
    for part in found:
        digits = scale(part["metric"]).digits
        lines = []
        for line in part["lines"]:
            moved = shifts.get((line["row"], part["structure"]))
            cells = [(number(line["errors"][side], digits), "") for side in MARKS]
            cells += [gap_cell(line["gaps"][name], digits) for name, _, _ in STEPS]
            cells.append((number(line["seeds"]["sd"], digits), ""))
            cells.append(
                (number(moved["normalised"], 2, signed=True), f"{share(moved['crossing_train'])} → "
                 f"{share(moved['crossing'])}") if moved else (NOTHING, "")
            )  # fmt: skip
            by_domain = [(d, [gap_cell(g[name], digits) for name, _, _ in STEPS]) for d, g in line["domains"].items()]
            lines.append(
                {
                    "row": line["row"],
                    "cells": cells,
                    "worst": line["worst"],
                    "domains": by_domain if line["worst"] else [],
                }
            )
        result.append({**part, "title": title(part), "lines": lines})
    return result


def gap_cell(gap: Found, digits: int) -> tuple[str, str]:
    return number(gap["value"], digits, signed=True), span(gap["low"], gap["high"], digits, signed=True)


def share(value: float | None) -> str:
    return NOTHING if value is None or not math.isfinite(value) else f"{number(100 * value, 0)} %"


def title(part: Found) -> str:
    of = scale(part["metric"])
    error = f"1 − {of.title}" if of.higher_is_better else of.axis
    return f"{part['structure']}: {error}" if part["structure"] else error


def plots(found: list[Found], word: str) -> list[Plot]:
    """Errors of the three sides by row, for the metrics in front."""
    ordered = sorted(found, key=lambda part: list(dict.fromkeys(p["metric"] for p in found)).index(part["metric"]))
    return [errors_plot(part, word) for part in ordered[:MOST]]


def errors_plot(part: Found, word: str) -> Plot:
    lines, digits = part["lines"], scale(part["metric"]).digits
    with style():
        figure, axes = strips(len(lines), title(part))
        low, high = span_of([[line["errors"][side] for line in lines for side in MARKS], [0.0]])
        axes.set_xlim(low, high)
        # A number at the very edge would be cut off, and be read as another one.
        axes.set_xticks([t for t in axes.get_xticks() if 0.03 <= (t - low) / (high - low) <= 0.97])
        for place, line in enumerate(lines):
            numbers = {side: line["errors"][side] for side in MARKS if math.isfinite(line["errors"][side])}
            if numbers:  # a row that predicts a structure nowhere has no precision
                axes.plot([min(numbers.values()), max(numbers.values())], [place] * 2, color=RULE, lw=2.5, zorder=1)
            for side, value in numbers.items():
                marker, colour, _ = MARKS[side]
                axes.scatter([value], [place], s=30, marker=marker, color=colour, lw=0, zorder=3)
            label(axes, place, line["row"], f"gap {estimate(line['gaps']['all'], digits, signed=True, value='value')}")
        axes.axvline(0, color=FAINT, lw=0.9, zorder=0)
        axes.set_xlabel("error", color=INK)
    figure.set_figwidth(WIDTH)
    most = {side: max(line["subjects"][side] for line in lines) for side in MARKS}
    caption = (
        f"{title(part)}: mean error on training subjects (●, up to {most['train']}), held-back subjects of the "
        f"training {plural(word)} (◆, {most['validation']}) and the held-out {word} (▲, {most['test']}); gap: ▲ less "
        "●, with the 95 % interval of a bootstrap over the subjects of both."
    )
    each = {line["row"]: ", ".join(f"{s} {number(line['errors'][s], digits)}" for s in MARKS) for line in lines}
    spoken = "; ".join(f"{row} {numbers}" for row, numbers in each.items())
    return Plot(figure, caption, f"Errors by side, {title(part)}. {spoken}.")


def notes(results: Results, found: list[Found]) -> str:
    """What was asked, of how many, in words."""
    word = results.domain_word
    # Not everybody has every structure.
    asked = {side: max(line["subjects"][side] for part in found for line in part["lines"]) for side in MARKS}
    return (
        f"Errors of the final weights on {count(asked['train'], 'training subject')} and "
        f"{count(asked['validation'], 'held-back subject')} of the training {plural(word)}, scored as the held-out "
        f"{word} is: whole scans, no augmentation. "
    )
