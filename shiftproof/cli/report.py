"""shiftproof report: one self-contained page."""

from __future__ import annotations

from pathlib import Path

import typer

from .show import JSON


def report(
    study: Path = typer.Argument(..., help="Folder of a study.", show_default=False),
    viewer: bool = typer.Option(
        True, help="Put volumes of the shown cases into the page, with a viewer that needs no network."
    ),
    json: bool = JSON,
) -> None:
    """Write the report of a study again, from the rows that are there."""
    from ..report import reported
    from .outcome import print_outcome

    _, found = reported(study, viewer=viewer)
    print_outcome(study, json=json, found=found)
