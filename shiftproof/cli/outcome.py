"""What a study found, in the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from .show import print_json, print_table


def print_outcome(folder: Path, *, json: bool, found: dict[str, Any] | None = None, **facts: Any) -> None:
    """The comparison as a table and in words, and where the page lies; or all of it, and `facts`, as JSON.

    `found` is the folder's `summary` where it is known already: of many subjects it takes seconds.
    """
    from ..report import summary, table

    found = summary(folder) if found is None else found
    if json:
        print_json(found | {"report": str(folder / "report.html"), **facts})
        return
    title, columns, rows = table(found)
    print_table(title, columns, rows)
    typer.echo("")
    for sentence in found["answer"]:
        typer.echo(sentence)
    typer.echo(f"\nreport: {folder / 'report.html'}")
