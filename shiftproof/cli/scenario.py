"""shiftproof scenario: the embedded cohorts whose shift is known."""

from __future__ import annotations

from pathlib import Path

import typer

from . import options as o
from .show import JSON


def scenario(
    name: str = typer.Argument(None, help="Such as brain-sites; without it, all are listed.", show_default=False),
    out: Path = typer.Argument(None, help="Folder of the cohort; without it, the scenario is described."),
    size: str = typer.Option("2d", help="One of the scenario's sizes."),
    subjects: int = typer.Option(None, help="Subjects a site; the scenario's usual number by default."),
    seed: int = typer.Option(0, help="0 is the frozen cohort; others are new people of the same kind."),
    sites: str = typer.Option(None, help="Sites, A,B; all by default."),
    workers: int = typer.Option(2, help="Processes; the files do not depend on it."),
    json: bool = JSON,
) -> None:
    """List, describe or make an embedded cohort: real anatomy or images, simulated acquisition, a known shift."""
    from .. import scenarios
    from .show import bar, print_json, print_table

    if name is None:
        found = [scenarios.get(n) for n in scenarios.names()]
        if json:
            print_json([{"name": s.name, "description": s.description, "sizes": list(s.sizes)} for s in found])
            return
        rows = [[s.name, ", ".join(s.sizes), ", ".join(s.sites), s.description] for s in found]
        print_table("scenarios (shiftproof scenario NAME FOLDER makes one)", ["name", "sizes", "sites", "what"], rows)
        return
    chosen = scenarios.get(name)
    if out is None:
        facts = {"name": chosen.name, "description": chosen.description, "sizes": list(chosen.sizes)}
        if json:
            print_json(facts | {"shifts": list(chosen.shifts), "hashes": chosen.hashes, "licence": chosen.licence})
            return
        typer.echo(chosen.description)
        columns = list(chosen.shifts[0])
        print_table("what shifts", columns, [[str(row.get(c, "")) for c in columns] for row in chosen.shifts])
        hashes = ", ".join(f"{s} {h}" for s, h in chosen.hashes.items())
        typer.echo(f"content hashes at the usual number of subjects and seed 0: {hashes}")
        return
    with bar("subjects") as update:
        folder = scenarios.make(
            name, out, size=size, subjects=subjects, seed=seed, sites=o.names(sites), workers=workers, progress=update
        )
    if json:
        print_json({"table": str(folder / "table.csv")})
    else:
        typer.echo(f"table: {folder / 'table.csv'}")
