"""Figures of whole sets, where a scan has one label: discrimination, calibration, confusion, agreement."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..data.targets import Targets, labels_from
from ..errors import ShiftproofError
from ..files import read_rows
from ..metrics import calibration, classification, regression
from ..statistics import subject_samples
from . import draws
from .figures import WIDTH, elided
from .numbers import NOTHING, count, number, span
from .results import Results
from .svg import FAINT, INK, RULE, Plot, colours, style

Found = dict[str, Any]

ANSWERS = ("subject", "scan", "structure", "predicted", "truth")

NUMBERS = 4_000_000  # that a table of samples by lines holds at a time: some 32 MB

RESAMPLES = 200
"""Bootstrap samples of subjects behind an interval; a figure of a whole set costs a pass over it for each."""

SHOWN = {
    "classification": ("balanced accuracy", "auroc", "average precision", "calibration error", "brier"),
    "regression": ("mae", "bias", "r2", "calibration slope", "calibration intercept"),
}
TITLES = {"auroc": "AUROC", "brier": "Brier score", "mae": "MAE", "r2": "R²"}


def targets_of(results: Results) -> Targets | None:
    """What is predicted, where a scan has one label; None for a segmentation."""
    try:
        labels = labels_from(results.facts.get("task") or {"task": "segmentation"})
    except (ShiftproofError, AttributeError):
        return None
    return labels if isinstance(labels, Targets) else None


def read_answers(results: Results) -> pd.DataFrame:
    """Predicted and true values of all cells that are done, a line a class; empty where there are none.

    A file that cannot be read, or lacks a column, is as one that is not there.
    """
    if results.root is None:
        return pd.DataFrame()
    if results.kind == "evaluation":
        table = answers_in(results.root / "answers.csv")
        if table is None:
            return pd.DataFrame()
        name = next(iter(results.rows["row"].drop_duplicates()), "predictions")
        return table.assign(row=name, seed=0, held_out=table["domain"])
    done = [c.folder / "answers.csv" for c in results.cells if c.status == "done" and c.folder is not None]
    tables = [table for path in done if (table := answers_in(path)) is not None]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def answers_in(path: Path) -> pd.DataFrame | None:
    try:
        table = read_rows(path)
    except (OSError, ValueError):
        return None
    return table if set(ANSWERS) <= set(table) else None


def set_tables(results: Results, targets: Targets, answers: pd.DataFrame) -> list[Found]:
    """A table over all domains, then one a domain: a line a row, a column a figure with its interval."""
    parts: list[tuple[str | None, pd.DataFrame]] = [(None, answers)]
    if answers["held_out"].nunique() > 1:
        parts += [(d, answers[answers["held_out"] == d]) for d in results.held_out]
    names = [r["name"] for r in results.recipes if r["name"] in set(answers["row"])]
    found = []
    for domain, own in parts:
        lines = [{"row": name, "cells": cells(own[own["row"] == name], targets)} for name in names]
        full: list[Found] = max((line["cells"] for line in lines), key=len, default=[])
        titles = [c["title"] for c in full]
        for line in lines:  # of a row without a cell in this domain
            line["cells"] = line["cells"] or [{"title": t, "mean": NOTHING, "span": ""} for t in titles]
        found.append({"domain": domain, "n": int(own["subject"].nunique()), "metrics": titles, "lines": lines})
    return found


def cells(answers: pd.DataFrame, targets: Targets) -> list[Found]:
    """The figures of one row: each seed by itself, then the mean over seeds; intervals over subjects."""
    if answers.empty:
        return []
    seeds = by_seed(answers, targets)
    values = _figures(seeds, targets)
    drawn = _drawn(seeds, targets)
    found = []
    for name, value in values.items():
        known = drawn[name][np.isfinite(drawn[name])]
        low, high = np.percentile(known, [2.5, 97.5]) if len(known) >= 0.9 * RESAMPLES else (math.nan, math.nan)
        found.append({"title": titled(name, targets), "mean": number(value), "span": span(float(low), float(high))})
    return found


def titled(name: str, targets: Targets) -> str:
    """A figure's name as it heads a column, with its unit in brackets."""
    if targets.task == "regression" and targets.unit and name.endswith(f" {targets.unit}"):
        word = name.removesuffix(f" {targets.unit}")
        return f"{TITLES.get(word, word)} ({targets.unit})"
    return TITLES.get(name, name)


def by_seed(answers: pd.DataFrame, targets: Targets) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Of each seed subjects (N,), predictions (N, K) and truth (N, K); a seed may lack a domain whose cell failed."""
    order, found = list(targets.structures), []
    for _, own in answers.groupby("seed", sort=True):
        wide = own.pivot(index=["held_out", "subject", "scan"], columns="structure", values=["predicted", "truth"])
        arrays = [pd.DataFrame(wide[name]).reindex(columns=order).to_numpy(float) for name in ("predicted", "truth")]
        found.append((wide.index.get_level_values("subject").to_numpy(), arrays[0], arrays[1]))
    return found


def _samples(seeds: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> Iterator[list[np.ndarray]]:
    """Bootstrap samples of the subjects that any seed has, as positions in each seed's arrays."""
    everyone = np.concatenate([subjects for subjects, _, _ in seeds])
    ends = np.cumsum([len(subjects) for subjects, _, _ in seeds])
    for chosen in subject_samples(everyone.tolist(), RESAMPLES):
        starts = [0, *ends[:-1]]
        yield [chosen[(chosen >= a) & (chosen < b)] - a for a, b in zip(starts, ends, strict=True)]


def _drawn(seeds: list[tuple[np.ndarray, np.ndarray, np.ndarray]], targets: Targets) -> dict[str, np.ndarray]:
    """(RESAMPLES,) of each of `_figures` in bootstrap samples of subjects."""
    if targets.task == "regression":
        samples = [[(s, p[i], t[i]) for (s, p, t), i in zip(seeds, own, strict=True)] for own in _samples(seeds)]
        each = [_figures(sample, targets) for sample in samples]
        return {name: np.array([figures[name] for figures in each]) for name in each[0]}
    block = max(1, NUMBERS // sum(len(subjects) for subjects, _, _ in seeds))
    parts, samples_left = [], _samples(seeds)
    while chosen := list(islice(samples_left, block)):
        by_seed = [
            draws.figures(
                p, t, targets.kind, np.array([np.bincount(own[k], minlength=len(t)) for own in chosen], float)
            )
            for k, (_, p, t) in enumerate(seeds)
        ]
        parts.append({name: draws.mean_of(figures[name] for figures in by_seed) for name in by_seed[0]})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _figures(seeds: list[tuple[np.ndarray, np.ndarray, np.ndarray]], targets: Targets) -> dict[str, float]:
    """The mean over seeds of each figure; NaN where no seed has it."""
    found: list[dict[str, float]] = []
    for _, predicted, truth in seeds:
        if not len(truth):
            continue
        if targets.task == "regression":
            found.append(regression.summary(predicted[:, 0], truth[:, 0], targets.unit))
        else:
            expected = truth if targets.kind == "multi-label" else truth.argmax(1)
            found.append(classification.summary(predicted, expected, targets.kind, targets.classes))  # type: ignore[arg-type]
    shown = SHOWN[targets.task]
    names = [n for n in found[0] if any(n == s or n.startswith(f"{s} ") for s in shown) or "kappa" in n]
    return {name: _mean([figures[name] for figures in found]) for name in names}


def _mean(values: Sequence[float]) -> float:
    known = [v for v in values if math.isfinite(v)]
    return float(np.mean(known)) if known else math.nan


# Pictures ----------------------------------------------------------------------------------------------------


def plots(results: Results, targets: Targets, answers: pd.DataFrame, row: str | None) -> list[Plot]:
    """What a row answers beside what is true, over all held-out domains and seeds."""
    own = answers[answers["row"] == row] if row is not None and len(answers) else pd.DataFrame()
    if own.empty or row is None:
        return []
    if targets.task == "regression":
        return [agreement(own, targets, results, row)]
    found = [reliability(own, targets, row)]
    return found if targets.kind == "multi-label" else [confusion(own, targets, row), *found]


def confusion(own: pd.DataFrame, targets: Targets, row: str) -> Plot:
    """Shares of each true class by answer."""
    seeds = by_seed(own, targets)
    number_of = len(targets.classes)
    counts = np.sum([classification.confusion(p.argmax(1), t.argmax(1), number_of) for _, p, t in seeds], axis=0)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    with style():
        figure = Figure(figsize=(WIDTH, WIDTH))
        axes = figure.add_axes((0.2, 0.16, 0.76, 0.74))
        axes.set_title(elided(row), loc="left", fontsize=9, fontweight="bold")
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        size = 8 if number_of <= 6 else 6
        for i in range(number_of):
            for j in range(number_of):
                if counts[i, j]:
                    ink = "white" if shares[i, j] > 0.55 else "#16181e"
                    axes.text(j, i, f"{100 * shares[i, j]:.0f}", ha="center", va="center", fontsize=size, color=ink)
        names = [elided(c, 16) for c in targets.classes]
        long = max(map(len, names)) > 3
        axes.set_xticks(range(number_of), names, rotation=45 if long else 0, ha="right" if long else "center")
        axes.set_yticks(range(number_of), names)
        axes.set_xlabel("answer")
        axes.set_ylabel("true class")
    n = own.groupby(["held_out", "subject", "scan"]).ngroups
    right = ", ".join(f"{c} {100 * shares[i, i]:.0f} %" for i, c in enumerate(targets.classes))
    caption = (
        f"Confusion matrix of {row} over {count(n, 'scan')} of all held-out domains"
        f"{f' and {len(seeds)} seeds' if len(seeds) > 1 else ''}: per cent of each true class (line) by answer "
        "(column)."
    )
    return Plot(figure, caption, f"Confusion matrix of {row}. Recall: {right}.")


def reliability(own: pd.DataFrame, targets: Targets, row: str) -> Plot:
    """How often the answer is right, by the probability that was given for it."""
    flat, right = [], []
    for _, p, truth in by_seed(own, targets):
        if targets.kind == "multi-label":
            known = ~np.isnan(truth)
            flat.append(p[known])
            right.append(truth[known])
        else:
            flat.append(p.max(1))
            right.append((p.argmax(1) == truth.argmax(1)).astype(float))
    confidence, present = np.concatenate(flat), np.concatenate(right)
    bins = calibration.reliability(confidence, present)
    error = calibration.calibration_error(confidence, present)
    with style():
        figure = Figure(figsize=(WIDTH, WIDTH))
        axes = figure.add_axes((0.15, 0.13, 0.8, 0.77))
        axes.set_title(elided(row), loc="left", fontsize=9, fontweight="bold")
        axes.plot([0, 1], [0, 1], color=FAINT, lw=0.8, ls=(0, (1, 2)))
        filled = [b for b in bins if b.number]
        axes.plot([b.confidence for b in filled], [b.frequency for b in filled], color=INK, lw=1.1, zorder=3)
        most = max(b.number for b in filled)
        axes.scatter(
            [b.confidence for b in filled],
            [b.frequency for b in filled],
            s=[14 + 90 * b.number / most for b in filled],
            color="#0072b2",
            lw=0,
            zorder=4,
        )
        axes.set_xlim(0, 1.02)
        axes.set_ylim(0, 1.02)
        axes.grid(color=RULE, lw=0.6)
        axes.set_axisbelow(True)
        axes.set_xlabel("probability that was given")
        axes.set_ylabel("share that is true")
    what = "finding" if targets.kind == "multi-label" else "most probable class"
    caption = (
        f"Reliability of {row}: of scans with a like probability of the {what}, the share where it is true; the area "
        f"of a dot is their number, the dotted line perfect calibration. Mean distance {number(error)}."
    )
    return Plot(figure, caption, f"Reliability diagram of {row}; calibration error {number(error)}.")


def agreement(own: pd.DataFrame, targets: Targets, results: Results, row: str) -> Plot:
    """Predicted against true numbers, a dot a scan."""
    paint = colours(results.domains)
    unit = f" ({targets.unit})" if targets.unit else ""
    mean = own.groupby(["held_out", "subject", "scan", "truth"], as_index=False)["predicted"].mean()
    low = float(min(mean["truth"].min(), mean["predicted"].min()))
    high = float(max(mean["truth"].max(), mean["predicted"].max()))
    with style():
        figure = Figure(figsize=(WIDTH, WIDTH))
        axes = figure.add_axes((0.16, 0.13, 0.8, 0.77))
        axes.set_title(elided(row), loc="left", fontsize=9, fontweight="bold")
        axes.plot([low, high], [low, high], color=FAINT, lw=0.8, ls=(0, (1, 2)))
        for domain, part in mean.groupby("held_out"):
            colour, marker = paint[str(domain)]
            axes.scatter(part["truth"], part["predicted"], s=14, color=colour, marker=marker, alpha=0.8, lw=0)
        axes.grid(color=RULE, lw=0.6)
        axes.set_axisbelow(True)
        axes.set_xlabel(f"true {targets.column}{unit}")
        axes.set_ylabel(f"predicted {targets.column}{unit}")
    caption = (
        f"{targets.column} as {row} predicts it against the true one, a dot a scan of a held-out domain (its colour), "
        "seeds averaged; on the dotted line both agree."
    )
    return Plot(figure, caption, f"Scatter plot of predicted against true {targets.column} by {row}, n = {len(mean)}.")
