"""shiftproof demo: the whole path on an embedded cohort."""

from __future__ import annotations

from pathlib import Path

import typer

from .show import JSON


def demo(
    out: Path = typer.Option(Path("shiftproof-demo"), help="Folder for the cohort, the study and the report."),
    seeds: int = typer.Option(1, help="Trainings of each row and held-out site."),
    steps: int = typer.Option(200, help="Training steps."),
    workers: int = typer.Option(None, help="Processes; the machine's cores by default."),
    json: bool = JSON,
) -> None:
    """A study on four simulated sites of real anatomy, in minutes on a laptop's CPU."""
    from ..report import reported
    from ..scenarios import make
    from ..study.declare import parse_rows
    from ..study.run import study
    from .outcome import print_outcome
    from .show import bar, grid, tell

    tell("brain-sites: T1, T2 and PD signal of real anatomy at four simulated sites, 64 x 64 slices")
    with bar("subjects") as update:
        folder = make("brain-sites", out / "brain-sites", size="2d", workers=workers or 2, progress=update)
    rows = parse_rows("erm/none,erm/strong,dann/strong,mldg/strong", None)
    from ..train import Trainer

    with grid() as progress:
        study(
            folder / "table.csv",
            rows,
            out / "study",
            held_out=DEMO_SITES,
            seeds=seeds,
            trainer=Trainer(steps=steps, batch=9, validate_every=steps, device="cpu"),
            plan={"dimensions": 2, "patch": [64, 64]},
            workers=workers,
            name="brain-sites demo",
            command=f"shiftproof demo --out {out} --seeds {seeds} --steps {steps}",
            progress=progress,
            tell=tell,
        )
    _, found = reported(out / "study")
    print_outcome(out / "study", json=json, found=found)


DEMO_SITES = ["C", "D"]
