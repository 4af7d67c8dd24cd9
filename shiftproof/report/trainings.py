"""Rows as recipes: each training's mean, so that a claim can be asked whether it survives another training."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from ..statistics import OverTrainings, over_trainings
from .results import Cell

Runs = set[tuple[str, int, str]]


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
