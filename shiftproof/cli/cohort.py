"""shiftproof cohort: make, check and show the table of a cohort."""

from __future__ import annotations

from pathlib import Path

import typer

from . import options as o
from .show import JSON, print_json, print_table

app = typer.Typer(help="Make, check and show the table of a cohort.", no_args_is_help=True)


@app.command("import")
def import_(
    folder: Path = typer.Argument(..., help="Where the scans are.", show_default=False),
    out: Path = typer.Option(None, help="Folder or table to write; FOLDER/table.csv by default. DICOM needs a folder."),
    domain: str = o.DOMAIN,
    format: str = typer.Option(
        "auto", help="auto, folders (per site), nnunet, decathlon, bids, classes (SITE/CLASS/) or dicom."
    ),
    classes: str = typer.Option(None, help="Names of the structures in the order of their label values, with commas."),
    target: str = typer.Option(None, help="Column that is the label: a class, or a number such as age."),
    pattern: str = typer.Option(
        None,
        "--domain-pattern",
        help="Regular expression on the cases' names with named groups: (?P<site>[A-Za-z]+)_.",
    ),
    faulty: str = typer.Option("refuse", help="DICOM series that are no regular volumes: refuse, or leave-out."),
    key: Path = typer.Option(None, help="File with the secret of DICOM pseudonyms; OUT.key by default."),
    json: bool = JSON,
) -> None:
    """Scans in a layout that is recognised -> table.csv and labels.toml."""
    from ..data.importers import import_cohort
    from .show import bar

    with bar("files") as update:
        cohort = import_cohort(
            folder,
            out,
            format=format,
            domain=domain,
            classes=o.names(classes),
            target=target,
            pattern=pattern,
            key=key,
            faulty=faulty,
            progress=update,
        )
    _show(cohort, o.table_of(out or folder), json)


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
        table.append([d, len({r.subject for r in inside}), len(inside), sum(r.labelled for r in inside)])
    classes = cohort.classes if any(r.labelled for r in rows) else []
    if json:
        keys = ("domain", "subjects", "scans", "labelled")
        print_json(
            {
                "table": str(path), "channels": cohort.channels, "task": cohort.task, "classes": classes,
                "hash": cohort.hash(),
                "domains": [dict(zip(keys, row, strict=True)) for row in table],
            }
        )  # fmt: skip
        return
    what = ", ".join(classes) or (cohort.labels.structures[0] if cohort.labelled else "")
    print_table(str(path), [cohort.domain, "subjects", "scans", "labelled"], [[str(c) for c in row] for row in table])
    typer.echo(f"channels: {', '.join(cohort.channels)}   {cohort.task}: {what or 'no labels'}")
