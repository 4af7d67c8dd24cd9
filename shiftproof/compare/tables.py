"""Tables of the page and the terminal, as plain lists and dicts."""

from __future__ import annotations

from typing import Any

from ..report.numbers import NOTHING, estimate, known, number, p_value, percent, span
from .question import Question

Found = dict[str, Any]

TERMINAL = 30  # pairs that a terminal is shown


def method_table(found: Found, question: Question) -> Found:
    """A line a method: mean with interval, and how subjects scatter around it."""
    digits = question.metric.digits
    first = (found["ranking"] or {}).get("first") or {}
    lines = []
    for m in found["methods"]:
        s = m["spread"]
        cells = {
            "n": str(m["n"]),
            "SD": number(s["sd"], digits),
            "median": number(s["median"], digits),
            "quartiles": span(s["lower"], s["upper"], digits) or NOTHING,
            "worst 5 %": number(s["tail"], digits),
            "worst": number(s["worst"], digits),
            **({"first in bootstraps": percent(first.get(m["method"]))} if first else {}),
        }
        mean, around = number(m["mean"], digits), span(m["low"], m["high"], digits)
        lines.append({"method": m["method"], "mean": mean, "span": around, "missing": m["missing"], "cells": cells})
    return {"columns": list(lines[0]["cells"]), "lines": lines}


def pair_table(found: Found, question: Question) -> Found:
    """A line a pair with everything that is known about it."""
    digits = question.metric.digits
    lines = [
        {
            "pair": f"{p['a']} − {p['b']}",
            "difference": number(p["mean_difference"], digits, signed=True),
            "span": span(p["low"], p["high"], digits, signed=True),
            "verdict": p["verdict"],
            "reason": p["reason"],
            "cells": pair_cells(p, question),
        }
        for p in found["pairs"]
    ]
    return {"columns": list(lines[0]["cells"]) if lines else [], "lines": lines}


def pair_cells(p: Found, question: Question) -> dict[str, str]:
    """By column; what only a family or a margin asks for is not there without one."""
    digits, several = question.metric.digits, p["family_size"] > 1
    corrected = span(p["low_corrected"], p["high_corrected"], digits, signed=True) or NOTHING
    return {
        **({"corrected interval": corrected} if several else {}),
        "n": str(p["n"]),
        "p": p_text(p["p"]),
        **({"p corrected": p_text(p["p_corrected"])} if several else {}),
        **({"p equivalent": p_text(p["p_equivalent_corrected"])} if question.margin else {}),
        "median": number(p["median_difference"], digits, signed=True),
        "Hodges–Lehmann": number(p["hodges_lehmann"], digits, signed=True),
        "SD": number(p["sd"], digits),
        "d_z": number(p["d_z"], 2, signed=True),
        "rank-biserial": number(p["rank_biserial"], 2, signed=True),
        "correlation": number(p["correlation"], 2),
        "wins / ties / losses": f"{p['wins']} / {p['ties']} / {p['losses']}",
        "detectable at 80 %": number(p["detectable"], digits),
        **({"detectable, corrected": number(p["detectable_corrected"], digits)} if several else {}),
        "n needed": str(p["needed"]) if p["needed"] else NOTHING,
    }


def domain_table(found: Found, question: Question) -> Found | None:
    """A line a method, a column a domain, where there are several; the worst one of each is marked."""
    if len(found["domains"]) < 2:
        return None
    digits = question.metric.digits
    return {
        "domains": found["domains"],
        "lines": [
            {
                "method": m["method"],
                "cells": [
                    {
                        "mean": number(m["domains"].get(d, {}).get("mean"), digits),
                        "span": span(m["domains"].get(d, {}).get("low"), m["domains"].get(d, {}).get("high"), digits),
                        "n": m["domains"].get(d, {}).get("n", 0),
                        "worst": bool(m["worst"]) and d == m["worst"]["domain"],
                    }
                    for d in found["domains"]
                ],
            }
            for m in found["methods"]
        ],
    }


def scheme_table(found: Found) -> Found | None:
    """Ranks of each method by each way of ranking."""
    ranking = found["ranking"]
    if not ranking or not ranking["schemes"]:
        return None
    columns = list(next(iter(ranking["schemes"].values())))
    lines = [
        (name, [number(line[c], 1).removesuffix(".0") for c in columns]) for name, line in ranking["schemes"].items()
    ]
    return {"columns": columns, "lines": lines}


def p_text(p: float | None) -> str:
    return p_value(p).removeprefix("= ")


# The terminal -------------------------------------------------------------------------------------


def printed(found: Found) -> list[tuple[str, list[str], list[list[str]]]]:
    """Title, columns and rows of the two tables that a terminal is shown."""
    metric = found["metric"]
    digits, higher = int(metric["digits"]), metric["higher_is_better"]
    unit = f" in {metric['unit']}" if metric["unit"] else ""
    better = "higher" if higher else "lower"
    first = (found["ranking"] or {}).get("first") or {}
    methods = [
        [m["method"], str(m["n"]), estimate(m, digits), number(m["spread"]["sd"], digits)]
        + [number(m["spread"][k], digits) for k in ("median", "tail", "worst")]
        + ([percent(first.get(m["method"]))] if first else [])
        for m in found["methods"]
    ]
    columns = ["method", "n", "mean", "SD", "median", "worst 5 %", "worst"] + (["first"] if first else [])
    level = f"{100 * (1 - found['level']):g} % interval"
    tables = [(f"{metric['title']}{unit}, mean over subjects with {level} ({better} is better)", columns, methods)]
    pairs = sorted(found["pairs"], key=lambda p: p["p"] if known(p["p"]) else 2.0)[:TERMINAL]
    lines = [
        [f"{p['a']} − {p['b']}", str(p["n"]), estimate(p, digits, signed=True, value="mean_difference")]
        + [p_text(p["p"])]
        + ([p_text(p["p_corrected"])] if p["family_size"] > 1 else [])
        + [p["verdict"]]
        for p in pairs
    ]
    if lines:
        more = len(found["pairs"]) - len(pairs)
        shown = f"; {more} more are on the page" if more else ""
        title = f"pairs, on the subjects that both have{shown}"
        corrected = ["p corrected"] if found["pairs"][0]["family_size"] > 1 else []
        tables.append((title, ["pair", "n", "mean difference", "p", *corrected, "verdict"], lines))
    return tables
