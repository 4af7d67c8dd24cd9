"""Tables of the page and the terminal, as plain lists and dicts."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pandas as pd

from ..statistics import interval, per_subject
from .numbers import estimate, known, number, p_value, percent, percent_span, scale, seconds, span
from .results import Results

Found = dict[str, Any]

RESAMPLES = 1999  # in the long table: a page of a large cohort has hundreds of intervals


def table(found: Found) -> tuple[str, list[str], list[list[str]]]:
    """Title, columns and rows of the main table, for the terminal."""
    digits, several = int(found["primary"]["digits"]), len(found["held_out"]) > 1
    compared = any(r["difference"] for r in found["rows"])
    gaps = any(r["gap_closed"] for r in found["rows"])
    columns = ["row"]
    columns += [f"all (n = {found['subjects']['all']})", f"worst {found['domain_word']}"] if several else []
    columns += ["difference", "p"] if compared else []
    columns += ["gap closed"] if gaps else []
    columns += [f"{d} (n = {found['subjects']['by domain'][d]})" for d in found["held_out"]]
    counted = found["task"] == "segmentation"
    columns += ["missed", "spurious"] if counted else []
    lines = []
    for r in found["rows"]:
        line = [r["row"] + (" *" if r["row"] == found["selected"] else "")]
        if several:
            worst = r["worst"] or {}
            line += [
                estimate(r["overall"], digits),
                f"{worst.get('domain', '')} {number(worst.get('mean'), digits)}",
            ]
        if compared:
            c = r["difference"]
            line += [estimate(c, digits, signed=True, value="mean_difference"), p_text(c)] if c else ["", ""]
        if gaps:
            line.append(gap_text(r["gap_closed"]))
        line += [estimate(r["domains"][d], digits) for d in found["held_out"]]
        lines.append(line + ([str(r["failures"]["missed"]), str(r["failures"]["spurious"])] if counted else []))
    unit = f" in {found['primary']['unit']}" if found["primary"]["unit"] else ""
    where = f"at held-out {found['domain_word']}" if found["kind"] == "study" else f"by {found['domain_word']}"
    title = f"{found['primary']['title']}{unit} {where}, mean over subjects with 95 % interval"
    return title + (" (* selected by training domains)" if found["selected"] else ""), columns, lines


def p_text(c: Found | None) -> str:
    """Empty without a comparison; no number where too few subjects were there to test."""
    return p_value(c["p_corrected"] if c["n"] > 1 else None).removeprefix("= ") if c else ""


def gap_text(gap: Found | None) -> str:
    if gap is None:
        return ""
    return "not given" if gap["reason"] else f"{percent(gap['value'])} {percent_span(gap['low'], gap['high'])}"


def structures(results: Results) -> list[Found]:
    """Every metric of every structure and row: one table over all domains, then one a domain."""
    parts: list[tuple[str | None, pd.DataFrame]] = [(None, results.rows)]
    if results.rows["held_out"].nunique() > 1:
        parts += [(d, results.rows[results.rows["held_out"] == d]) for d in results.held_out]
    return [
        {
            "domain": domain,
            "n": int(rows["subject"].nunique()),
            "metrics": [scale(m).axis for m in results.metrics],
            "groups": by_structure(results, rows),
        }
        for domain, rows in parts
        if len(rows)
    ]


def by_structure(results: Results, rows: pd.DataFrame) -> list[Found]:
    values = {
        (metric, structure): per_subject(rows, metric, structure=structure).groupby(["row", "subject"])["value"].mean()
        for metric in results.metrics
        for structure in results.structures
    }
    present = set(rows["row"])
    names = [r["name"] for r in results.recipes if r["name"] in present]
    return [
        {
            "structure": structure,
            "lines": [
                {
                    "row": name,
                    "cells": [structure_cell(values[m, structure], name, m) for m in results.metrics],
                }
                for name in names
            ],
        }
        for structure in results.structures
    ]


def structure_cell(values: pd.Series, row: str, metric: str) -> Found:
    of, here = scale(metric), values.loc[row] if row in values.index.get_level_values(0) else []
    found = interval(here, within=of.within, resamples=RESAMPLES)
    return {
        "mean": number(found.mean, of.digits, signed=of.signed),
        "span": span(found.low, found.high, of.digits, signed=of.signed),
    }


def distributions(found: Found) -> list[Found]:
    """How subjects scatter around a row's mean of the primary metric."""
    digits = int(found["primary"]["digits"])
    return [
        {
            "row": r["row"],
            "n": r["spread"]["n"],
            "numbers": [number(v, digits) for v in (r["overall"]["mean"], *(r["spread"][k] for k in SPREAD_KEYS))],
        }
        for r in found["rows"]
        if r["spread"]["n"]
    ]


SPREAD_KEYS = ("sd", "median", "lower", "upper", "tail", "worst")


def comparisons(found: Found) -> list[Found]:
    """Everything that is known about each pair."""
    digits = int(found["primary"]["digits"])
    return [
        {
            "pair": f"{c['a']} − {c['b']}",
            "family": c["family"],
            "difference": estimate(c, digits, signed=True, value="mean_difference"),
            "verdict": c["verdict"],
            "cells": [
                str(c["n"]),
                span(c["low_corrected"], c["high_corrected"], digits, signed=True) or number(None),
                number(c["median_difference"], digits, signed=True),
                number(c["hodges_lehmann"], digits, signed=True),
                number(c["sd"], digits),
                number(c["d_z"], 2, signed=True),
                number(c["rank_biserial"], 2, signed=True),
                number(c["correlation"], 2),
                f"{c['wins']} / {c['ties']} / {c['losses']}",
                p_value(c["p"] if c["n"] > 1 else None).removeprefix("= "),
                p_value((c["trainings"] or {}).get("p")).removeprefix("= "),
                number((c["trainings"] or {}).get("sd"), digits),
                p_text(c),
            ],
        }
        for c in found["comparisons"]
    ]


COMPARISON_COLUMNS = [
    "n", "interval, corrected", "median", "Hodges–Lehmann", "SD", "d_z", "rank-biserial", "correlation",
    "wins / ties / losses", "p", "p over trainings", "SD over trainings", "p corrected",
]  # fmt: skip


def recipes(results: Results) -> list[Found]:
    """What each row is, with what it took."""
    found = []
    for recipe in results.recipes:
        own = [c for c in results.cells if c.row == recipe["name"]]
        spent = [c.seconds for c in own if known(c.seconds)]
        parameters = next((c.parameters for c in own if c.parameters), None)
        found.append(
            {
                "row": recipe["name"],
                "role": recipe.get("role") or "row",
                "method": with_options(recipe.get("method"), recipe.get("options")),
                "loss": with_options(recipe.get("loss"), recipe.get("loss_options")),
                "transforms": str(recipe.get("transforms") or ""),
                "sampling": with_options("", recipe.get("sampling")),
                "network": with_options("", recipe.get("network")),
                "training": with_options("", recipe.get("training")),
                "at prediction": with_options(recipe.get("test_time"), recipe.get("test_time_options")),
                "parameters": f"{parameters:,}".replace(",", " ") if parameters else "",
                "seconds": seconds(float(np.mean(spent))) if spent else "",
            }
        )
    return found


def with_options(name: Any, options: Any) -> str:
    """dann(weight=1.0): how a recipe is written."""
    inside = ", ".join(f"{k}={v}" for k, v in options.items()) if isinstance(options, dict) else str(options or "")
    if not name:
        return inside
    return f"{name}({inside})" if inside else str(name)


def cells(results: Results) -> list[Found]:
    return [
        dataclasses.asdict(c)
        | {
            "seconds": seconds(c.seconds) if known(c.seconds) else "",
            "validation": number(c.validation["mean"]) if isinstance(c.validation.get("mean"), float) else "",
        }
        for c in results.cells
    ]
