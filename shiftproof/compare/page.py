"""The page of a comparison: one HTML file that needs nothing else."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..report.numbers import count
from ..report.scripts import policy, script
from ..report.svg import GLYPHS, Plot
from ..report.templating import template
from .figures import differences, dots, paint
from .many import Ranking
from .question import Question
from .reading import Scores
from .tables import domain_table, method_table, pair_table, scheme_table
from .words import RULES, size

TEMPLATES = Path(__file__).parent / "templates"

Found = dict[str, Any]


def page(scores: Scores, question: Question, found: Found, ranking: Ranking | None) -> str:
    """All of the page, from numbers to HTML."""
    sorting = script("tables.js")
    return template("compare.html.j2", TEMPLATES).render(
        found=found,
        title=title(found),
        policy=policy([sorting.hash]),
        scripts=[sorting],
        version=version("shiftproof"),
        many=count,
        methods=method_table(found, question),
        pairs=pair_table(found, question),
        by_domain=domain_table(found, question),
        schemes=scheme_table(found),
        paint={d: (colour, GLYPHS[marker]) for d, (colour, marker) in paint(scores).items()},
        dots=dots(scores, question, found),
        differences=differences(scores, question, found),
        ranks=rank_plots(ranking, question),
        rule=RULES[question.rule],
        margin=size(question.margin, question) if question.margin else "",
    )


def rank_plots(ranking: Ranking | None, question: Question) -> list[Plot]:
    """Critical differences, where Friedman's test allows them, and shares of ranks."""
    from ..report.ranks import critical_difference, rank_shares

    if ranking is None:
        return []
    groups = critical_difference(ranking.friedman, ranking.critical) if ranking.friedman.p < question.level else None
    shares = None if ranking.stability.reason else rank_shares(ranking.stability)
    return [plot for plot in (groups, shares) if plot is not None]


def title(found: Found) -> str:
    names = [m["method"] for m in found["methods"]]
    if found["reference"]:
        return f"{count(len(names) - 1, 'method')} against {found['reference']}"
    return " against ".join(names) if len(names) < 3 else f"{len(names)} methods"
