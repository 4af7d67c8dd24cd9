"""shiftproof evaluate: the same rows and report for any model."""

from __future__ import annotations

from pathlib import Path

import typer

from . import options as o
from .show import JSON


def evaluate(
    cohort: Path = o.COHORT,
    model: Path = typer.Option(None, help="A model folder, or a TorchScript file (needs --plan)."),
    predictions: Path = typer.Option(None, help="A folder of predicted label files, such as nnU-Net's output."),
    plan: Path = typer.Option(None, help="plan.json with the preprocessing of a TorchScript model."),
    values: str = typer.Option(
        "indices", help='What predicted files hold: "indices" of classes, or the "cohort"\'s values.'
    ),
    missing: str = typer.Option(
        "report", help='A scan without prediction: "report" leaves it out of means and lists it, "missed" counts it.'
    ),
    out: Path = typer.Option(None, help="Folder for rows and report; evaluation beside the cohort by default."),
    domain: str = o.DOMAIN,
    tolerance_mm: float = typer.Option(2.0, help="Tolerance of the surface Dice."),
    device: str = o.DEVICE,
    json: bool = JSON,
) -> None:
    """Score a model or a folder of predictions on a labelled cohort, by domain."""
    from ..data.cohort import Cohort
    from ..evaluate import evaluate as run
    from ..report import evaluation_report
    from .outcome import print_outcome
    from .show import bar, tell

    table = o.table_of(cohort)
    folder = out or table.parent / "evaluation"
    with bar("scans") as update:
        found = run(
            Cohort.read(table, domain=domain), model=model, predictions=predictions, plan=plan, values=values,  # type: ignore[arg-type]  # checked there
            missing=missing,  # type: ignore[arg-type]
            out=folder, tolerance_mm=tolerance_mm, device=device, progress=update,
        )  # fmt: skip
    evaluation_report(folder)
    for failure in found.failures:
        tell(f"not scored: {failure.subject}: {failure.message}")
    print_outcome(folder, json=json)
