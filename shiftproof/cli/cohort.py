"""shiftproof cohort: make, check and show the table of a cohort."""

from __future__ import annotations

from pathlib import Path

import typer

from . import options as o
from .show import JSON, print_json, print_table

app = typer.Typer(help="Make, check and show the table of a cohort.", no_args_is_help=True)


@app.command("import")
def import_(
    folder: Path = typer.Argument(..., help="A folder with a folder per site.", show_default=False),
    out: Path = typer.Option(None, help="The table; FOLDER/table.csv by default."),
    domain: str = o.DOMAIN,
    classes: str = typer.Option(None, help="Names of the structures in the order of their label values, with commas."),
    json: bool = JSON,
) -> None:
    """A folder per site with image and label pairs -> table.csv and labels.toml."""
    from ..data.importers import import_folders
    from .show import bar

    with bar("scans") as update:
        cohort = import_folders(folder, out, domain=domain, classes=o.names(classes), progress=update)
    path = out or folder / "table.csv"
    _show(cohort, path, json)


@app.command("check")
def check(
    cohort: Path = o.COHORT,
    domain: str = o.DOMAIN,
    minimum: int = typer.Option(3, help="Fewest subjects of a domain."),
    workers: int = typer.Option(1, help="Processes."),
    json: bool = JSON,
) -> None:
    """Report all problems at once, each with its repair; exit code 1 if one is an error."""
    from ..data.checks import check as run
    from ..data.cohort import Cohort
    from .show import bar

    table = Cohort.read(o.table_of(cohort), domain=domain)
    with bar("scans") as update:
        problems = run(table, minimum=minimum, workers=workers, progress=update)
    errors = sum(p.severity == "error" for p in problems)
    if json:
        print_json({"errors": errors, "problems": [vars(p) for p in problems]})
    elif not problems:
        typer.echo(f"{len(table)} scans of {len(table.subjects)} subjects: nothing to object to")
    else:
        for p in problems:
            typer.echo(f"{p.severity}: {p.message}\n    {p.repair}")
        typer.echo(f"\n{errors} errors, {len(problems) - errors} warnings in {len(table)} scans")
    if errors:
        raise typer.Exit(1)


@app.command("show")
def show(cohort: Path = o.COHORT, domain: str = o.DOMAIN, json: bool = JSON) -> None:
    """Domains, subjects, channels and classes."""
    from ..data.cohort import Cohort

    path = o.table_of(cohort)
    _show(Cohort.read(path, domain=domain), path, json)


def _show(cohort, path: Path, json: bool) -> None:  # type: ignore[no-untyped-def]
    rows = list(cohort.rows())
    table = []
    for d in cohort.domains:
        inside = [r for r in rows if r.domain == d]
        table.append([d, len({r.subject for r in inside}), len(inside), sum(r.label is not None for r in inside)])
    classes = cohort.classes if any(r.label is not None for r in rows) else []
    if json:
        keys = ("domain", "subjects", "scans", "labelled")
        print_json(
            {
                "table": str(path), "channels": cohort.channels, "classes": classes, "hash": cohort.hash(),
                "domains": [dict(zip(keys, row, strict=True)) for row in table],
            }
        )  # fmt: skip
        return
    print_table(str(path), [cohort.domain, "subjects", "scans", "labelled"], [[str(c) for c in row] for row in table])
    typer.echo(f"channels: {', '.join(cohort.channels)}   classes: {', '.join(classes) or 'no labels'}")
