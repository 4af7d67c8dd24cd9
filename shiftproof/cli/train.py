"""shiftproof train: one model."""

from __future__ import annotations

from pathlib import Path

import typer

from . import options as o
from .show import JSON


def train(
    cohort: Path = o.COHORT,
    method: str = typer.Option("erm", help="METHOD[/PRESET][+target][+tent], as in a study."),
    recipes: Path = typer.Option(None, help="A TOML file with one [[row]] instead of --method."),
    hold_out: str = typer.Option(None, help="Domain to hold out and evaluate on, C or site=C; none by default."),
    out: Path = typer.Option(Path("run"), help="Run folder."),
    domain: str = o.DOMAIN,
    steps: int = o.STEPS,
    seconds: float = o.SECONDS,
    batch: int = o.BATCH,
    rate: float = o.RATE,
    average: str = o.AVERAGE,
    selection: str = o.SELECTION,
    patience: int = o.PATIENCE,
    validate_every: int = o.EVERY,
    precision: str = o.PRECISION,
    device: str = o.DEVICE,
    dimensions: int = o.DIMENSIONS,
    spacing: str = o.SPACING,
    patch: str = o.PATCH,
    seed: int = typer.Option(0, help="Seed."),
    workers: int = typer.Option(1, help="Processes for preprocessing."),
    tensorboard: bool = typer.Option(False, help="Write TensorBoard files."),
    json: bool = JSON,
) -> None:
    """Train one method and write a model folder; the same command continues an interrupted run."""
    from ..errors import OptionError
    from ..study.declare import parse_rows
    from ..study.single import train as run
    from .show import print_json, training

    domain, held = o.held_out(hold_out, domain)
    trainer = o.trainer(
        steps=steps, seconds=seconds, batch=batch, rate=rate, average=average, selection=selection,
        patience=patience, validate_every=validate_every, precision=precision, device=device, seed=seed,
    )  # fmt: skip
    rows = parse_rows(None if recipes else method, recipes)
    for what, given in (("row", [r.name for r in rows]), ("held-out domain", held or [])):
        if len(given) > 1:
            raise OptionError(f"train takes one {what}, got {', '.join(given)}; `shiftproof study` takes several")
    with training("training") as progress:
        found = run(
            o.table_of(cohort),
            rows[0],
            out,
            domain=domain,
            hold_out=held[0] if held else None,
            trainer=trainer,
            plan=o.plan(dimensions, spacing, patch),
            workers=workers,
            tensorboard=tensorboard,
            progress=progress,
        )
    if json:
        print_json(found)
        return
    typer.echo(f"{found['steps']} steps in {found['seconds']:.0f} s; validation on training domains: "
               f"{found['validation'].get('mean', float('nan')):.3f}")  # fmt: skip
    for structure, value in found.get("held out", {}).items():
        typer.echo(f"held-out {held[0] if held else ''}, {structure}: Dice {value:.3f}")
    typer.echo(f"model: {found['model']}")
