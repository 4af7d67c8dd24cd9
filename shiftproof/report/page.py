"""The page: one HTML file that needs nothing else, for a study or for a user's own predictions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from ..files import write_text
from . import curves, evidence, figures, generalization, halving, logits, policies, tables
from .answers import plots, read_answers, set_tables, targets_of
from .findings import plain, scores_of, summarise
from .gallery import shown_cases
from .reading import read_evaluation, read_results
from .results import Results
from .scripts import library, policy, script
from .svg import GLYPHS, colours
from .templating import template


def report(folder: Path, *, viewer: bool = True) -> Path:
    """Write `report.html` into the folder of a study or of an evaluation, and return its path; see `reported`."""
    return reported(folder, viewer=viewer)[0]


def reported(folder: Path, *, viewer: bool = True) -> tuple[Path, dict[str, Any]]:
    """Write `report.html`, and return its path and all that `summary` gives, which is computed once for both.

    What is missing (a failed cell, a reference, predictions) is named on the page where it would be.
    Equal results give the same page, byte for byte, but for the seconds that they took.

    Args:
        folder: Of a study or of an evaluation.
        viewer: Whether the page holds volumes of the shown cases, and a viewer for them.

    Raises:
        RunError: If the folder holds neither.
    """
    path, results = Path(folder) / "report.html", read_results(Path(folder))
    found = summarise(results)
    write_text(path, page(results, found, viewer=viewer))
    return path, plain(found)


def evaluation_report(folder: Path, *, viewer: bool = True) -> Path:
    """As `report`, of what `shiftproof evaluate` wrote into a folder."""
    path = Path(folder) / "report.html"
    write_text(path, page(read_evaluation(Path(folder)), viewer=viewer))
    return path


def page(results: Results, found: dict[str, Any] | None = None, *, viewer: bool = True) -> str:
    """All of the page, from results to HTML.

    Args:
        results: Of a study or of an evaluation.
        found: What `summarise` gives of them; None to have it computed here.
        viewer: As of `report`.
    """
    found = summarise(results) if found is None else found
    values = scores_of(results, results.primary)
    shown = shown_cases(results, values, found, row_in_question(found), volumes=viewer)
    niivue = library() if shown["volumes"] else None
    scripts = [script("tables.js"), *([script("viewer.js")] if niivue else [])]
    panels: list[str | None] = [d for d, n in found["subjects"]["by domain"].items() if n]
    panels += [None] if len(panels) > 1 else []
    return template("page.html.j2").render(
        found=found,
        facts=results.facts,
        paint={d: (colour, GLYPHS[marker]) for d, (colour, marker) in colours(found["domains"]).items()},
        dots=[figures.dots(values, found, d) for d in panels],
        differences=figures.differences(values, found),
        structures=tables.structures(results),
        distributions=tables.distributions(found),
        statistics=evidence.statistics(values, found),
        generalization=generalization.section(results),
        logits=logits.section(results, found),
        halving=halving.tables(found["halving"]) if found["halving"] else None,
        comparisons=tables.comparisons(found),
        comparison_columns=tables.COMPARISON_COLUMNS,
        curves=[c for r in results.recipes if (c := curves.curves(results, r["name"])) is not None],
        cases=shown,
        policies=policies.section(results),
        policy=policy([s.hash for s in scripts] + ([niivue.hash] if niivue else [])),
        scripts=scripts,
        niivue=niivue,
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
