"""shiftproof compare: tests between tables of scores."""

from __future__ import annotations

from pathlib import Path

import typer

from . import options as o
from .show import JSON


def compare(
    tables: list[Path] = typer.Argument(
        ...,
        help="Folders of studies or evaluations, rows.csv, or any CSV of subject, method and value; a table without "
        "methods is one method, called by its file.",
        show_default=False,
    ),
    out: Path = typer.Option(None, help="Folder for compare.html, compare.json and scores.csv.", show_default=False),
    metric: str = typer.Option(None, help="Metric, where there are several; a study's primary one by default."),
    methods: str = typer.Option(None, help="Only these, with commas between them."),
    reference: str = typer.Option(None, help="Compare each method with this one, instead of all pairs."),
    margin: float = typer.Option(
        None, help="Largest difference that does not matter, settled before scores are seen: asks for equivalence too."
    ),
    lower_is_better: bool = typer.Option(
        None, "--lower-is-better/--higher-is-better", help="By the metric's name by default.", show_default=False
    ),
    correction: str = typer.Option(
        "holm", help="holm, hommel, bonferroni, benjamini-hochberg or benjamini-yekutieli, for the number of pairs."
    ),
    level: float = typer.Option(0.05, help="Level of the tests; intervals cover the rest."),
    missing: float = typer.Option(
        None, help="Score of a method that has none where another has, such as 0 Dice for a crash; left out by default."
    ),
    columns: str = typer.Option(
        None, help="Unusual names as subject=NAME,method=NAME,value=NAME; also metric, structure, domain, seed."
    ),
    seed: int = typer.Option(0, help="Of bootstraps and permutations."),
    json: bool = JSON,
) -> None:
    """Compare methods on the subjects that they share: tests, ranks, words; a page with --out."""
    from ..compare import compare as run
    from ..compare.tables import printed
    from .show import bar, print_json, print_table, tell

    with bar("pairs") as update:
        found = run(
            tables, out=out, metric=metric, methods=o.names(methods), reference=reference, margin=margin,
            rule=correction, higher_is_better=None if lower_is_better is None else not lower_is_better, level=level,
            missing=missing, columns=meanings(columns), seed=seed, progress=update,
        )  # fmt: skip
    if json:
        print_json(found | ({"page": str(out / "compare.html")} if out else {}))
        return
    for title, heads, rows in printed(found):
        print_table(title, heads, rows)
        typer.echo("")
    for sentence in found["answer"]:
        typer.echo(sentence)
    for note in found["notes"]:
        tell(f"note: {note}")
    if out:
        typer.echo(f"\npage: {out / 'compare.html'}")


def meanings(text: str | None) -> dict[str, str] | None:
    """subject=case,value=dice as a dict.

    Raises:
        OptionError: For text of another form.
    """
    from ..errors import OptionError

    if not text:
        return None
    parts = [part.partition("=") for part in text.split(",")]
    if not all(equals and name.strip() for _, equals, name in parts):
        raise OptionError(f"--columns is MEANING=COLUMN,MEANING=COLUMN, such as subject=case,value=dice; got {text!r}")
    return {meaning.strip(): name.strip() for meaning, _, name in parts}
