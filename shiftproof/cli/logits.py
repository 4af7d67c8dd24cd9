"""shiftproof logits: where a model puts what it was trained on, and what it has never seen."""

from __future__ import annotations

from pathlib import Path

import typer

from . import options as o
from .show import JSON


def logits(
    model: Path = typer.Argument(..., help="Model folder.", show_default=False),
    cohort: Path = o.COHORT,
    test: str = typer.Option(
        None,
        help="Unseen subjects: another cohort's table, or a selection of this one as site=C. By default all that the "
        "model was neither trained on nor selected by.",
    ),
    train: str = typer.Option(
        None, help="Subjects it was trained on, as site=A,B; by default as the model folder knows them."
    ),
    out: Path = typer.Option(None, help="Folder for logits.json and logits.html; logits beside the cohort by default."),
    domain: str = o.DOMAIN,
    subjects: int = typer.Option(24, help="At most so many subjects of each side, a fixed draw; 0: all."),
    cap: int = typer.Option(20_000, help="Voxels of a scan and class at most, a fixed draw."),
    pairs: str = typer.Option("strongest", help="Competitors that a class is drawn against: strongest or all."),
    device: str = o.DEVICE,
    json: bool = JSON,
) -> None:
    """Logits of training and unseen subjects by true class: what drifts over the decision boundary, and how far."""
    from ..evaluate.logits import logits as run
    from ..report.logits import COLUMNS, logits_report, table, words
    from .show import bar, print_json, print_table

    path = o.table_of(cohort)
    folder = out or path.parent / "logits"
    other = None if test is None else test if "=" in test and not Path(test).exists() else o.table_of(Path(test))
    with bar("scans") as update:
        found = run(
            model, path, test=other, train=train, out=folder, domain=domain, subjects=subjects, cap=cap,
            pairs=pairs,  # type: ignore[arg-type]  # checked there
            device=device, progress=update,
        )  # fmt: skip
    page = logits_report(folder)
    if json:
        print_json(found | {"report": str(page)})
        return
    rows = [[head, *(f"{a} ({b})" if b else a for a, b in cells)] for head, cells in table(found)]
    print_table("Margins of true classes (of training)", ["true class", *COLUMNS], rows)
    typer.echo("")
    for sentence in words(found):
        typer.echo(sentence)
    typer.echo(f"\nreport: {page}")
