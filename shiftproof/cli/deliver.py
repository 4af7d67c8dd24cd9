"""shiftproof deliver: the model to use, with its card."""

from __future__ import annotations

from pathlib import Path

import typer

from .show import JSON


def deliver(
    study: Path = typer.Argument(..., help="Folder of a complete study.", show_default=False),
    out: Path = typer.Option(None, help="Model folder; STUDY/model by default."),
    row: str = typer.Option(None, help="Another row than the one that the training domains select."),
    json: bool = JSON,
) -> None:
    """Retrain the selected row on all labelled domains and write the model folder."""
    from ..study.deliver import deliver as run
    from .show import print_json, training

    with training("training on all domains") as progress:
        folder = run(study, out, row=row, progress=progress)
    if json:
        print_json({"model": str(folder), "card": str(folder / "card.md")})
    else:
        typer.echo(f"model: {folder}\ncard: {folder / 'card.md'}\nuse it: shiftproof predict {folder} SCANS OUT")
