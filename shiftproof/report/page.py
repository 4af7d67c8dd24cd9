"""The page: one HTML file that needs nothing else, for a study or for a user's own predictions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ..errors import ShiftproofError
from ..files import write_text
from . import cases, curves, figures, numbers, tables
from .answers import plots, read_answers, set_tables, targets_of
from .findings import scores_of, summarise
from .reading import read_evaluation, read_results
from .results import Results
from .slices import structure_colour
from .svg import GLYPHS, colours, inline

TEMPLATES = Path(__file__).parent / "templates"


def report(folder: Path) -> Path:
    """Write `report.html` into the folder of a study or of an evaluation, and return its path.

    What is missing (a failed cell, a reference, predictions) is named on the page where it would be.
    Equal results give the same page, byte for byte, but for the seconds that they took.

    Raises:
        RunError: If the folder holds neither.
    """
    path = Path(folder) / "report.html"
    write_text(path, page(read_results(Path(folder))))
    return path


def evaluation_report(folder: Path) -> Path:
    """As `report`, of what `shiftproof evaluate` wrote into a folder."""
    path = Path(folder) / "report.html"
    write_text(path, page(read_evaluation(Path(folder))))
    return path


def page(results: Results) -> str:
    """All of the page, from results to HTML."""
    found = summarise(results)
    values = scores_of(results, results.primary)
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": numbers.number,
        "between": lambda part, digits, signed=False: numbers.span(part["low"], part["high"], digits, signed=signed),
        "percent": numbers.percent,
        "percent_span": numbers.percent_span,
        "plural": numbers.plural,
        "tied": numbers.tied,
        "p": tables.p_text,
        "inline": inline,
    }
    panels: list[str | None] = [d for d, n in found["subjects"]["by domain"].items() if n]
    panels += [None] if len(panels) > 1 else []
    return environment.get_template("page.html.j2").render(
        found=found,
        facts=results.facts,
        style=Markup((TEMPLATES / "style.css").read_text(encoding="utf-8")),
        paint={d: (colour, GLYPHS[marker]) for d, (colour, marker) in colours(found["domains"]).items()},
        dots=[figures.dots(values, found, d) for d in panels],
        differences=figures.differences(values, found),
        structures=tables.structures(results),
        distributions=tables.distributions(results, values),
        comparisons=tables.comparisons(found),
        comparison_columns=tables.COMPARISON_COLUMNS,
        curves=[c for r in results.recipes if (c := curves.curves(results, r["name"])) is not None],
        cases=shown_cases(results, values, found),
        sets=set_figures(results, found),
        recipes=tables.recipes(results),
        cells=tables.cells(results),
    )


def row_in_question(found: dict[str, Any]) -> str | None:
    """The row that the page looks at more closely."""
    first = next((r["row"] for r in found["rows"] if r["overall"]["n"]), None)
    return found["selected"] or found["leader"] or first  # type: ignore[no-any-return]


def set_figures(results: Results, found: dict[str, Any]) -> dict[str, Any]:
    """Tables and pictures of whole sets, where a scan has one label; else nothing."""
    targets = targets_of(results)
    answers = read_answers(results) if targets else pd.DataFrame()
    if targets is None or answers.empty:
        return {"task": "segmentation" if targets is None else targets.task, "tables": [], "plots": []}
    return {
        "task": targets.task,
        "tables": set_tables(results, targets, answers),
        "plots": plots(results, targets, answers, row_in_question(found)),
    }


def shown_cases(results: Results, values: pd.DataFrame, found: dict[str, Any]) -> dict[str, Any]:
    """Overlays of the row in question and of its reference, or why there are none."""
    first = row_in_question(found)
    if first is None:
        return {"domains": [], "row": None, "reference": None, "legend": [], "reasons": []}
    targets = targets_of(results)
    answers = read_answers(results) if targets else pd.DataFrame()
    reference = next(r["reference"] for r in found["rows"] if r["row"] == first)
    shown = [first, *([reference] if reference and reference in set(values["row"]) else [])]
    higher = found["primary"]["higher_is_better"]
    if targets is not None and "brier" in results.metrics:  # right or wrong does not rank
        values, higher = scores_of(results, "brier"), False
    domains, reasons = [], []
    meaning = cases.meaning_of(results)
    for domain in found["held_out"]:
        chosen = cases.picked(values, first, domain, higher_is_better=higher)
        rows = []
        for row in shown:
            plots = []
            for case in chosen:
                try:
                    if targets is None:
                        plots.append(cases.overlay(case, results, row, meaning))
                    else:
                        plots.append(cases.portrait(case, results, row, answers, targets))
                except ShiftproofError as error:
                    reasons.append(str(error))
            if plots:
                rows.append({"row": row, "plots": plots})
        if rows:
            domains.append({"domain": domain, "rows": rows})
    legend = [(name, structure_colour(k)) for k, name in enumerate(meaning.classes) if k and targets is None]
    return {
        "domains": domains,
        "row": first,
        "reference": reference,
        "legend": legend,
        "reasons": list(dict.fromkeys(reasons)),
    }
