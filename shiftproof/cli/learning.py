"""shiftproof learning-curves: what fewer training subjects cost."""

from __future__ import annotations

from pathlib import Path

import typer

from .show import JSON


def learning_curves(
    studies: list[Path] = typer.Argument(..., help="Folders of studies, one a --fraction.", show_default=False),
    out: Path = typer.Option(
        None, help="Folder for learning-curves.html and .json; the folder of the first study's folder by default."
    ),
    metrics: str = typer.Option(
        None, help="Metrics, with commas; sensitivity, precision and the primary one by default."
    ),
    structure: str = typer.Option(None, help="Only this structure; the mean over structures by default."),
    row: list[str] = typer.Option(None, help="Only this row, may be repeated; all that two studies have by default."),
    json: bool = JSON,
) -> None:
    """Scores over the number of training subjects, from studies of one cohort that differ in --fraction alone."""
    from ..report.learning import learning_curves as run
    from ..report.learning_page import columns, table, words
    from ..report.numbers import scale
    from .options import names
    from .show import print_json, print_table

    folder = out or Path(studies[0]).resolve().parent
    found = run(studies, folder, metrics=names(metrics), structure=structure, rows=row)
    page = folder / "learning-curves.html"
    if json:
        print_json(found | {"report": str(page)})
        return
    heads = ["row", *(f"{head} ({below})" if below else head for head, below in columns(found))]
    for part in found["metrics"]:
        lines = [[row, *(f"{a} {b}".strip() for a, b in cells)] for row, cells in table(found, part)]
        print_table(scale(part["metric"]).axis, heads, lines)
        typer.echo("")
    for sentence in [*words(found), *found["caveats"]]:
        typer.echo(sentence)
    typer.echo(f"\nreport: {page}")
