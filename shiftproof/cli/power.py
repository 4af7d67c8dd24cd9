"""shiftproof power: how many subjects a comparison needs, what it can see with those at hand."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from . import options as o
from .show import JSON

if TYPE_CHECKING:
    from ..compare import Scores
    from ..statistics import PowerPlan


def power(
    pilot: list[Path] = typer.Argument(
        None,
        help="Scores to take the spread from: a study's or an evaluation's folder, rows.csv, or any CSV of subject, "
        "method and value. Without one, the spread is assumed: --sd and --correlation, or --sd-difference.",
        show_default=False,
    ),
    effect: float = typer.Option(None, help="True difference to find, in the metric's unit: 0.01 for one Dice point."),
    sd: float = typer.Option(None, help="Standard deviation of a method's scores over subjects."),
    correlation: float = typer.Option(None, help="Of two methods' scores over subjects; 0.5 if nothing is known."),
    sd_difference: float = typer.Option(None, help="Standard deviation of subjects' differences, instead of both."),
    subjects: int = typer.Option(None, help="Subjects at hand; of each group if unpaired. A pilot's own by default."),
    design: str = typer.Option("paired", help="paired: both methods on the same subjects; unpaired: each on its own."),
    power: float = typer.Option(0.8, help="Wanted chance to find the effect."),
    level: float = typer.Option(0.05, help="Of the two-sided test."),
    comparisons: int = typer.Option(1, help="Tests in the family: the level is divided by their number."),
    rows: str = typer.Option(None, "--rows", "--methods", help="Two methods of the pilot, A,B; all pairs by default."),
    metric: str = typer.Option(None, help="Of the pilot, where it has several; a study's primary one by default."),
    columns: str = typer.Option(None, help="Unusual names in the pilot as subject=NAME,method=NAME,value=NAME."),
    simulate: str = typer.Option(
        None,
        help="Also draw studies from the pilot's own differences, without assuming normality, and test each by: t, "
        "permutation, wilcoxon or sign.",
    ),
    seed: int = typer.Option(0, help="Of those draws."),
    plot: Path = typer.Option(None, help="File for the curves: .svg, .png, .pdf, or .html for a page with all of it."),
    json: bool = JSON,
) -> None:
    """How many subjects do I need, and what can I see with mine? Exact power of t-tests, paired or unpaired.

    Without --effect: the smallest difference that the subjects show.
    """
    from ..errors import OptionError
    from ..report.power import plot_file, save_power
    from ..statistics import plan_pairs, plan_power
    from .show import print_json

    asked: dict[str, Any] = {
        "effect": effect, "subjects": subjects, "design": design, "power": power, "level": level,
        "comparisons": comparisons,
    }  # fmt: skip
    plot = plot_file(plot) if plot else plot
    pairs: list[PowerPlan] = []
    name, notes = "", []
    if pilot:
        if (sd, correlation, sd_difference) != (None, None, None):
            raise OptionError("a pilot tells the spread itself; leave out --sd, --correlation and --sd-difference")
        if simulate and effect is None:
            raise OptionError("--simulate draws studies in which there is an --effect, and none was given")
        scores = read(pilot, rows, metric, columns)
        name, notes = scores.metric, list(scores.notes)
        pairs = plan_pairs(scores.wide, rows=o.names(rows), **asked)
        plan = chosen(pairs, notes)
        if simulate and plan.pilot is not None:  # of this pair only: it takes a while
            sides = [plan.pilot.a, plan.pilot.b]
            plan = plan_pairs(scores.wide, rows=sides, simulate=simulate, seed=seed, **asked)[0]
    else:
        if rows or metric or columns or simulate:
            raise OptionError("--rows, --metric, --columns and --simulate are about a pilot, and none was given")
        plan = plan_power(sd=sd, correlation=correlation, sd_difference=sd_difference, **asked)
    if json:
        print_json(facts(plan, name) | {"pairs": [facts(p, name) for p in pairs[1:] and pairs], "notes": notes})
    else:
        show(plan, pairs, name, notes)
    if plot and (not plan.reason or plot.suffix.lower() == ".html"):
        save_power(plot, plan, name, pairs=pairs, notes=notes)
        typer.echo(f"\nplot: {plot}", err=json)
    if plan.reason:
        raise typer.Exit(1)


def read(pilot: list[Path], rows: str | None, metric: str | None, columns: str | None) -> Scores:
    """Scores of at least two methods.

    Raises:
        OptionError: For fewer, or names that the pilot has not.
    """
    from ..compare import read_scores
    from ..errors import OptionError
    from ..names import choose
    from .compare import meanings

    scores = read_scores(pilot, metric=metric, columns=meanings(columns))
    found = {choose(name, scores.methods, "method in the pilot") for name in o.names(rows) or scores.methods}
    if len(found) < 2:
        raise OptionError(
            f"a difference takes two methods, got {', '.join(found) or 'none'}; give a second table, or plan with --sd"
        )
    return scores


def chosen(pairs: list[PowerPlan], notes: list[str]) -> PowerPlan:
    """The pair that is told in full; what cannot be planned is noted."""
    from ..statistics.piloting import middling

    best = middling(pairs)
    if best is None or len(pairs) == 1:
        return best or pairs[0]
    notes += [f"left out: {p.reason}" for p in pairs if p.reason]
    assert best.pilot is not None
    notes.append(f"told in full: {best.pilot.a} and {best.pilot.b}, of median spread; --rows picks a pair")
    return best


def show(plan: PowerPlan, pairs: list[PowerPlan], metric: str, notes: list[str]) -> None:
    from ..report.power_tables import pairs_table, tables
    from ..report.power_words import told
    from .show import print_table, tell

    for sentence in told(plan, metric):
        typer.echo(sentence)
    shown = ([pairs_table(pairs, metric)] if len(pairs) > 1 else []) + tables(plan, metric)
    for title, columns, lines in shown:
        typer.echo("")
        print_table(title, columns, lines)
    for note in notes:
        tell(f"note: {note}")


def facts(plan: PowerPlan, metric: str) -> dict[str, Any]:
    """A plan for machines."""
    import dataclasses

    from ..report.power_words import told

    return dataclasses.asdict(plan) | {
        "metric": metric, "subjects_needed": plan.subjects_needed, "answer": told(plan, metric),
    }  # fmt: skip
