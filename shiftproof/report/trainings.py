"""Rows as recipes: each training's mean, so that a claim can be asked whether it survives another training."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ..statistics import OverTrainings, over_trainings
from .numbers import Scale, count, number
from .results import Cell

Runs = set[tuple[str, int, str]]

FALLEN = 0.5
"""Share of its row's median below which a training is not one of the same kind, but one that went wrong."""

NAMED = 3
"""Of them in a sentence; more are counted."""


@dataclass(frozen=True)
class Trainings:
    """Scores of single trainings.

    Args:
        scores: By row: index held-out domain and subject, a column a seed.
        runs: By row: held-out domain, seed and folder of the run that each of its cells was scored from; rows that
            only predict otherwise share them.
    """

    scores: dict[str, pd.DataFrame]
    runs: dict[str, Runs]

    def against(self, a: str, b: str, *, level: float) -> OverTrainings:
        """`a` minus `b`, over the subjects that both have."""
        both = self.scores[a].index.intersection(self.scores[b].index)
        domains = both.get_level_values("held_out")
        sides = [self.scores[row].loc[both].groupby(domains).mean() for row in (a, b)]
        together = bool(self.runs.get(a)) and self.runs.get(a) == self.runs.get(b)
        subjects = domains.value_counts().reindex(sides[0].index)
        return over_trainings(*sides, weights=subjects, together=together, level=level)


def trainings_of(scores: pd.DataFrame, cells: Iterable[Cell]) -> Trainings:
    """From `statistics.per_training` and the study's cells.

    A subject is there where each training of its domain scored it: a mean over other subjects would pass for another
    training's.
    """
    tables = {}
    for row, own in scores.groupby("row"):
        wide = own.pivot_table(index=["held_out", "subject"], columns="seed", values="value")
        trained = wide.notna().groupby(level="held_out").transform("any")
        tables[str(row)] = wide[(wide.notna() | ~trained).all(axis=1)]
    runs: dict[str, Runs] = {}
    for cell in cells:
        if cell.status == "done" and cell.run is not None:
            runs.setdefault(cell.row, set()).add((cell.held_out, cell.seed, str(cell.run)))
    return Trainings(tables, runs)


def fallen(trainings: Trainings, of: Scale) -> list[dict[str, Any]]:
    """Trainings that score less than half of what their row's median training does, on the same held-out domain.

    Such a training has found another optimum than the others (often: nothing is marked at all), so that the mean of its
    row is that of none of them. Needs three trainings or more, and a metric from 0 to 1 of which more is better.

    Returns:
        `row`, `held_out`, `seed`, `value`, `median`.
    """
    found = []
    for row, scores in trainings.scores.items() if of.higher_is_better and of.within == (0, 1) else ():
        means = scores.groupby(level="held_out").mean()
        medians = means.median(axis=1).where(means.notna().sum(axis=1) > 2)
        for (domain, own), median in zip(means.iterrows(), medians, strict=True):
            low = own[own < FALLEN * median]
            found += [
                {"row": row, "held_out": str(domain), "seed": seed, "value": float(value), "median": float(median)}
                for seed, value in zip(low.index.tolist(), low, strict=True)
            ]
    return found


def fallen_words(found: list[dict[str, Any]], of: Scale) -> str:
    """A sentence; empty where none fell."""
    if not found:
        return ""
    told = [
        f"{each['row']}{each.get('where', '')} (held out {each['held_out']}, seed {each['seed']}: "
        f"{number(each['value'], of.digits)}, the median {number(each['median'], of.digits)})"
        for each in found[:NAMED]
    ]
    more = f"; and {len(found) - NAMED} more" if len(found) > NAMED else ""
    verb, rows = ("scores", "its row") if len(found) == 1 else ("score", "their rows")
    return (
        f"{count(len(found), 'training')} {verb} less than half of the median of {rows}: {'; '.join(told)}{more}. Such "
        "a training found nothing, or something else, often because it was short or its rate high; the mean of its row "
        "is like that of none of its trainings."
    )
