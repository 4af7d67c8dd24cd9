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
    tolerance_mm: str = typer.Option("2", help="Tolerance of the surface Dice in mm: 2, or lesion=1,liver=3."),
    lesions: str = typer.Option(
        None, help="Structures whose lesions are counted one by one, with commas; see `shiftproof metrics`."
    ),
    smallest_lesion_ml: float = typer.Option(0.0, help="Volume below which a lesion does not count."),
    also: str = typer.Option(None, help="Further metrics, with commas: masd mm, boundary iou, cldice."),
    device: str = o.DEVICE,
    json: bool = JSON,
) -> None:
    """Score a model or a folder of predictions on a labelled cohort, by domain."""
    from ..data.cohort import Cohort
    from ..evaluate import evaluate as run
    from ..metrics.rules import read_tolerance
    from ..report import reported
    from .outcome import print_outcome
    from .show import bar, tell

    table = o.table_of(cohort)
    folder = out or table.parent / "evaluation"
    with bar("scans") as update:
        found = run(
            Cohort.read(table, domain=domain), model=model, predictions=predictions, plan=plan, values=values,  # type: ignore[arg-type]  # checked there
            missing=missing,  # type: ignore[arg-type]
            out=folder, tolerance_mm=read_tolerance(tolerance_mm), lesions=o.names(lesions) or [],
            smallest_lesion_ml=smallest_lesion_ml, also=o.names(also) or [], device=device, progress=update,
        )  # fmt: skip
    _, summary = reported(folder)
    for failure in found.failures:
        tell(f"not scored: {failure.subject}: {failure.message}")
    for note in found.facts.get("notes", []):
        tell(note)
    print_outcome(folder, json=json, found=summary)
