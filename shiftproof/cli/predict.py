"""shiftproof predict: raw files in, label files in the same geometry out."""

from __future__ import annotations

from pathlib import Path

import typer

from . import options as o
from .show import JSON


def predict(
    model: Path = typer.Argument(..., help="Model folder.", show_default=False),
    scans: list[Path] = typer.Argument(
        ..., help="Scans, folders of scans, or a cohort's table; then OUT.", show_default=False
    ),
    probabilities: bool = typer.Option(False, help="Write the probabilities of each class, too."),
    device: str = o.DEVICE,
    batch: int = typer.Option(4, help="Windows scored together."),
    flips: bool = typer.Option(False, help="Average over mirror images along the axes that training mirrored."),
    overwrite: bool = typer.Option(False, help="Predict again what is there."),
    json: bool = JSON,
) -> None:
    """shiftproof predict MODEL SCANS... OUT: a label file for each scan, in its geometry, or an answer for each."""
    from ..deploy.predictor import predict as run
    from ..errors import OptionError
    from .show import bar, print_json

    if len(scans) < 2:
        raise OptionError("predict needs scans and a folder for the results: shiftproof predict MODEL SCANS OUT")
    *given, out = scans
    with bar("scans") as update:
        found = run(
            model, given, out, probabilities=probabilities, device=device, batch=batch, flips=flips,
            overwrite=overwrite, progress=update,
        )  # fmt: skip
    failed = [f for f in found if f.error]
    if json:
        print_json([vars(f) for f in found])
    else:
        for f in found:
            typer.echo(f"{f.scan}: {f.error or f.output}")
    if failed:
        raise typer.Exit(1)
