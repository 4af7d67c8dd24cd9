"""The cases on the page: pictures by domain, and the volumes of as many as there is room for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from ..data.targets import Targets
from ..errors import ShiftproofError
from . import cases, viewer
from .answers import read_answers, targets_of
from .findings import scores_of
from .meaning import Meaning, meaning_of
from .results import Results
from .scans import Case, Scan, bare, opened
from .slices import structure_colour
from .svg import Plot

BAD = ("worst", "only", "missed", "spurious", "second worst")
"""Ranks whose volumes are packed first, in this order."""


@dataclass
class Card:
    """A case with a picture for each row, and the key of its volumes where the page holds them."""

    case: Case
    plots: list[Plot]
    held: viewer.Volumes | None = None

    @property
    def volume(self) -> str:
        return self.held.key if self.held is not None else ""


def shown_cases(
    results: Results, values: pd.DataFrame, found: dict[str, Any], first: str | None, *, volumes: bool = True
) -> dict[str, Any]:
    """Cases of the row in question and of its reference, or why there are none.

    Args:
        results: Of the study.
        values: Scores by subject in the primary metric.
        found: What `summarise` found.
        first: The row in question.
        volumes: Whether the page gets volumes to look through.
    """
    nothing: dict[str, Any] = {"domains": [], "row": None, "reference": None, "legend": [], "reasons": []}
    if first is None:
        return nothing | {"volumes": [], "left_out": 0, "limit_mb": viewer.LIMIT_MB}
    targets = targets_of(results)
    answers = read_answers(results) if targets else pd.DataFrame()
    reference = next(r["reference"] for r in found["rows"] if r["row"] == first)
    rows = [first, *([reference] if reference and reference in set(values["row"]) else [])]
    higher = found["primary"]["higher_is_better"]
    if targets is not None and "brier" in results.metrics:  # right or wrong does not rank
        values, higher = scores_of(results, "brier"), False
    meaning, reasons, domains = meaning_of(results), [], []
    room = Room(viewer.LIMIT_MB if volumes else 0.0)
    for number, domain in enumerate(found["held_out"], start=1):
        cards = []
        if targets is None:
            chosen = cases.gallery(values, results, first, domain, higher_is_better=higher)
        else:
            chosen = cases.picked(values, first, domain, higher_is_better=higher)
        for place, case in enumerate(chosen, start=1):
            try:
                scan, plots, scores = pictured(case, results, rows, meaning, answers, targets)
            except ShiftproofError as error:
                reasons.append(str(error))
                continue
            reasons += scan.reasons
            card = Card(case, plots)
            if volumes and viewer.is_volume(scan):
                classes = meaning.classes if targets is None else []
                room.offer(card, viewer.volumes(scan, f"{number}-{place}", classes, scores))
            cards.append(card)
        if cards:
            domains.append({"domain": domain, "cards": cards})
    room.fill()
    legend = [(name, structure_colour(k)) for k, name in enumerate(meaning.classes) if k and targets is None]
    return {
        "domains": domains,
        "row": first,
        "reference": rows[1] if len(rows) > 1 else None,
        "legend": legend,
        "reasons": list(dict.fromkeys(reasons)),
        "volumes": [c.held for d in domains for c in d["cards"] if c.held is not None],
        "left_out": room.left_out,
        "limit_mb": viewer.LIMIT_MB,
    }


def pictured(
    case: Case,
    results: Results,
    rows: list[str],
    meaning: Meaning,
    answers: pd.DataFrame,
    targets: Targets | None,
) -> tuple[Scan, list[Plot], dict[str, str]]:
    """A case read, drawn for each row that has it, and what the viewer says of each.

    Raises:
        ShiftproofError: If there is nothing to draw.
    """
    if targets is not None:
        scan = bare(case, results)
        plots: list[Plot] = []
        reasons: list[str] = []
        for row in rows:
            try:
                plots.append(cases.answered_plot(scan, row, answers, targets))
            except ShiftproofError as error:
                reasons.append(str(error))
        if not plots:
            raise ShiftproofError(reasons[0])
        return replace(scan, reasons=reasons), plots, {}
    scan = opened(case, results, rows, meaning)
    scores = {row: cases.scored(case, results, row, scan.seeds[row]) for row in scan.places}
    return scan, [cases.drawn(scan, results, row, meaning) for row in scan.places], scores


class Room:
    """What a page can hold of volumes: the bad cases of every domain come before the good ones of any."""

    def __init__(self, limit_mb: float) -> None:
        self.limit_mb = limit_mb
        self.offered: list[tuple[Card, viewer.Volumes]] = []
        self.left_out = 0

    def offer(self, card: Card, held: viewer.Volumes) -> None:
        self.offered.append((card, held))

    def fill(self) -> None:
        """Give each card its volumes while there is room."""
        order = {rank: i for i, rank in enumerate(BAD)}
        used = 0.0
        for card, held in sorted(self.offered, key=lambda pair: order.get(pair[0].case.rank, len(order))):
            if used + held.size_mb <= self.limit_mb:
                card.held = held
                used += held.size_mb
            else:
                self.left_out += 1
