"""A plan of a study's size in tables, for the terminal and the page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..statistics import PowerPlan
from .numbers import MINUS, NOTHING, known, number, percent, scale
from .power_words import agreement, figure

Table = tuple[str, list[str], list[list[str]]]  # title, columns, rows


def tables(plan: PowerPlan, metric: str = "") -> list[Table]:
    """Other correlations, then other numbers of subjects; columns without a number are left out."""
    if plan.reason:
        return []
    n = plan.subjects
    unit = f" ({scale(metric).unit})" if metric and scale(metric).unit else ""
    others, sizes, wanted = plan.alternatives, plan.sizes, percent(plan.wanted)
    who = "n" if plan.design == "paired" else "n of each group"
    agreeing = [
        ["agreement", *(starred(line["what"], line["own"]) for line in others)],
        [f"SD{unit}", *(figure(line["spread"]) for line in others)],
        [f"power with n = {n}", *(number(line["power"]) for line in others)],
        [f"n for {wanted}", *(whole(line["n"]) for line in others)],
        ["n for 90 %", *(whole(line["n_90"]) for line in others)],
        [f"smallest shown with n = {n}{unit}", *(figure(line["detectable"]) for line in others)],
    ]
    if plan.wanted == 0.9:
        del agreeing[4]
    by_size = [
        [who, *(starred(line["n"], line["n"] == n) for line in sizes)],
        ["power", *(number(line["power"]) for line in sizes)],
        ["a finding overstates", *(times(line["type_m"]) for line in sizes)],
        [f"smallest shown with {wanted} power{unit}", *(figure(line["detectable"]) for line in sizes)],
        [f"95 % interval ±{unit}", *(figure(line["half_width"]) for line in sizes)],
    ]
    return [
        across("If methods agreed more or less (* the plan)", agreeing),
        across("With other numbers of subjects" + (" (* the plan)" if n else ""), by_size),
    ]


def pairs_table(plans: Sequence[PowerPlan], metric: str = "") -> Table:
    """A line a pair of methods."""
    first = plans[0]
    unit = f" ({scale(metric).unit})" if metric and scale(metric).unit else ""
    columns = [
        "pair", "n", f"difference{unit}", f"SD{unit}", "correlation", f"smallest shown{unit}",
        f"n for {percent(first.wanted)}" + (f" at {figure(first.effect)}" if known(first.effect) else " as observed"),
    ]  # fmt: skip
    return "Pairs", columns, [pair_line(plan) for plan in plans]


def pair_line(plan: PowerPlan) -> list[str]:
    pilot = plan.pilot
    assert pilot is not None
    name = f"{pilot.a} {MINUS} {pilot.b}"
    if plan.reason:
        return [name, str(pilot.n), *[NOTHING] * 5]
    return [
        name,
        str(pilot.n),
        f"{figure(pilot.mean_difference, signed=True)} [{figure(pilot.low, signed=True)}, "
        f"{figure(pilot.high, signed=True)}]",
        figure(pilot.sd),
        agreement(plan.correlation),
        figure(plan.detectable),
        whole(plan.subjects_needed if plan.needed else plan.needed_as_observed),
    ]


def across(title: str, columns: list[list[str]]) -> Table:
    """Columns, each with its head, as a table without those that hold nothing."""
    kept = [c for c in columns if any(cell != NOTHING for cell in c[1:])]
    return title, [c[0] for c in kept], [list(row) for row in zip(*(c[1:] for c in kept), strict=True)]


def starred(what: object, own: bool) -> str:
    return f"{what} *" if own else str(what)


def times(factor: float) -> str:
    return f"{number(factor, 1)} times" if known(factor) else NOTHING


def whole(n: Any) -> str:
    return NOTHING if n is None else str(n)
