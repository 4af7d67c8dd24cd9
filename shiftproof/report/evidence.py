"""What stands behind the words: tables of power, order, domains and equivalence for the section that few open."""

from __future__ import annotations

from typing import Any

import pandas as pd

from ..statistics.ranks import SCHEMES
from .numbers import NOTHING, count, estimate, number, p_value, percent, plural, scale, span
from .phrases import primary, size, unit
from .ranking import ranking
from .ranks import critical_difference, rank_shares
from .svg import Plot

Found = dict[str, Any]


def statistics(values: pd.DataFrame, found: Found) -> Found:
    """All that the section is made of; a part is None or empty where there is nothing to say."""
    parts = {
        "notes": found["notes"],
        "power": power_table(found),
        "equivalence": equivalence_table(found),
        "domains": domain_table(found),
        "ranking": ranking_table(found),
        "ranking_words": ranking_words(found),
        "plots": plots(values, found),
        "mixed": mixed_table(found),
    }
    return parts | {"shown": any(parts.values())}


def plots(values: pd.DataFrame, found: Found) -> list[Plot]:
    """Ranks under bootstrap, and the diagram of critical differences where the test has one."""
    order = ranking(values, found)
    if order is None or order.stability.reason:
        return []
    drawn = [rank_shares(order.stability, word="row")]
    drawn += [critical_difference(order.friedman, order.nemenyi, word="row")] if order.nemenyi else []
    return [plot for plot in drawn if plot is not None]


def table(columns: list[str], lines: list[tuple[str, list[str]]]) -> Found | None:
    """A table of the section: each line with its head; None without lines."""
    return {"columns": columns, "lines": [{"head": h, "cells": c} for h, c in lines]} if lines else None


def power_table(found: Found) -> Found | None:
    digits = int(found["primary"]["digits"])
    lines = [
        (
            f"{c['a']} − {c['b']}",
            [
                str(c["n"]),
                number(c["mean_difference"], digits, signed=True),
                number(c["sd"], digits),
                number(c["detectable"], digits),
                number(c["detectable_corrected"], digits),
                str(c["needed"]) if c["needed"] else NOTHING,
                f"{number(c['exaggeration']['type_m'], 1)} ×" if c["exaggeration"] else NOTHING,
            ],
        )
        for c in primary(found)
        if c["n"] > 1
    ]
    heads = ["n", "difference", "SD", "visible at 80 %", "the same, corrected", "n needed", "exaggeration"]
    return table(heads, lines)


def equivalence_table(found: Found) -> Found | None:
    digits = int(found["primary"]["digits"])
    lines = [
        (
            f"{c['a']} − {c['b']}",
            [
                str(c["n"]),
                number(c["mean_difference"], digits, signed=True),
                span(e["low"], e["high"], digits, signed=True) or NOTHING,
                p_value(e["p"]).removeprefix("= "),
                p_value(e["p_corrected"]).removeprefix("= "),
                e["reason"] or ("equivalent" if c["verdict"] == "equivalent" else "not shown"),
            ],
        )
        for c in primary(found)
        if (e := c["equivalence"])
    ]
    within = f"within ±{size(found, found['margin'])}"
    return table(["n", "difference", "90 % interval", "p", "p corrected", within], lines)


def domain_table(found: Found) -> Found | None:
    """Each row at domains that training saw and at those it did not, and where it is worst."""
    digits, word = int(found["primary"]["digits"]), found["domain_word"]
    several, seen = len(found["held_out"]) > 1, any(r["unseen"] for r in found["rows"])
    if not (several or seen):
        return None
    columns = [f"seen {plural(word)}", f"unseen {plural(word)}", "loss"] if seen else []
    columns += [f"worst {word}", "its mean", "worst in draws"] if several else []
    lines = []
    for r in found["rows"]:
        if not r["overall"]["n"]:
            continue
        cells, lost, worst = [], r["unseen"], r["worst"]
        if seen and lost:
            unseen = number(lost["seen"] - lost["mean"], digits)
            cells = [number(lost["seen"], digits), unseen, estimate(lost, digits, signed=True)]
        elif seen:
            cells = [NOTHING] * 3
        if several:
            share = worst["share"].get(worst["domain"])
            cells += [worst["domain"], estimate(worst, digits), percent(share) if len(r["covers"]) > 1 else NOTHING]
        lines.append((r["row"], cells))
    return table(columns, lines)


def ranking_table(found: Found) -> Found | None:
    order = found["ranking"]
    if order is None or order["reason"]:
        return None
    ranks = order["friedman"]["mean_ranks"]
    lines = [
        (
            row,
            [
                percent(order["first"].get(row)),
                *(number(by[scheme], 1).removesuffix(".0") for scheme in SCHEMES),
                number(ranks.get(row), 2),
            ],
        )
        for row, by in order["rankings"].items()
    ]
    return table(["first in draws", *SCHEMES, "mean rank, shared subjects"], lines)


def ranking_words(found: Found) -> str:
    """What the captions of the figures leave open: what was left out, and why there is no order or no test."""
    order = found["ranking"]
    if order is None:
        return ""
    if order["reason"]:
        return f"No ranking: {order['reason']}."
    test = order["friedman"]
    return " ".join(f"{t[0].upper()}{t[1:]}." for t in (test["reason"], order["note"], test["note"]) if t)


def mixed_table(found: Found) -> Found | None:
    """Means of a mixed-effects model with their intervals, and where the variance lies."""
    of = found["mixed"]
    if of is None:
        return None
    digits = int(found["primary"]["digits"])
    least, most = scale(found["primary"]["metric"]).within

    def around(m: Found) -> str:
        """Nothing, where all that a mean can be lies within."""
        return "" if m["low"] <= least and m["high"] >= most else span(m["low"], m["high"], digits)

    lines = [(r, [number(m["mean"], digits), around(m) or NOTHING]) for r, m in of["means"].items()]
    called = {"site": found["domain_word"], "seed": "training"}
    sources = ", ".join(f"{called.get(name, name)} {number(v, digits)}" for name, v in of["sd"].items())
    empty = any(not around(m) and span(m["low"], m["high"]) for m in of["means"].values())
    few = (
        f"of {count(len(found['held_out']), found['domain_word'])} an interval would be the whole scale"
        if empty
        else ""
    )
    said = "; ".join(t for t in (of["reason"], of["note"], few) if t)
    return {
        "table": table([f"mean {unit(found)}", "95 % interval"], lines),
        "sources": sources,
        "said": f"{said[0].upper()}{said[1:]}." if said else "",
        "word": found["domain_word"],
    }
