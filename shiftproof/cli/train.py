"""shiftproof train: one model."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from . import options as o
from .show import JSON

if TYPE_CHECKING:
    from ..experiment import Experiment


def train(
    typed: typer.Context,
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
    plan: str = o.PLAN,
    dimensions: int = o.DIMENSIONS,
    spacing: str = o.SPACING,
    patch: str = o.PATCH,
    context: int = o.CONTEXT,
    network: str = o.NETWORK,
    weights: Path = o.WEIGHTS,
    seed: int = typer.Option(0, help="Seed."),
    workers: int = typer.Option(1, help="Processes for preprocessing."),
    tensorboard: bool = typer.Option(False, help="Write TensorBoard files."),
    processes: int = typer.Option(
        None, help="Processes on this machine that share every batch, a GPU each; as one process, but for rounding."
    ),
    estimate: bool = typer.Option(False, "--estimate", help="Only tell memory and time, and train nothing."),
    json: bool = JSON,
) -> None:
    """Train one method and write a model folder; the same command continues an interrupted run.

    For several machines, start the same command on each of them by `torchrun` or, with GPUs, by `accelerate launch`:
    `torchrun --nnodes 2 --nproc-per-node 4 ... -m shiftproof train COHORT ...`.
    """
    from ..errors import OptionError
    from ..study.declare import parse_rows
    from ..study.single import train as run
    from ..training.launch import together
    from .show import print_json, training

    domain, held = o.held_out(hold_out, domain)
    trainer = o.trainer(
        steps=steps, seconds=seconds, batch=batch, rate=rate, average=average, selection=selection,
        patience=patience, validate_every=validate_every, precision=precision, device=device, seed=seed,
    )  # fmt: skip
    rows = o.networked(parse_rows(None if recipes else method, recipes, o.row_defaults(plan)), network, weights)
    for what, given in (("row", [r.name for r in rows]), ("held-out domain", held or [])):
        if len(given) > 1:
            raise OptionError(f"train takes one {what}, got {', '.join(given)}; `shiftproof study` takes several")
    arguments: dict[str, Any] = {
        "cohort": o.table_of(cohort),
        "recipe": rows[0],
        "out": out,
        "domain": domain,
        "hold_out": held[0] if held else None,
        "trainer": trainer,
        "plan": o.plan(dimensions, spacing, patch, context, plan, typed),
        "workers": workers,
        "tensorboard": tensorboard,
    }
    expected = _Expected(out, processes or int(os.environ.get("WORLD_SIZE", "1")), only=estimate, json=json)
    other = int(os.environ.get("RANK", "0")) > 0  # the first process speaks for all
    if estimate:
        if not other:
            run(**arguments, before=expected.tell)
        return
    with training("training") as progress:
        own = {"progress": progress, "before": expected.tell}
        found = together(run, arguments, processes=processes, device=device, own=own)
    if other:
        return
    if json:
        print_json(found | ({"estimate": expected.found} if expected.found else {}))
        return
    value = found["validation"].get("mean")
    typer.echo(f"{found['steps']} steps in {found['seconds']:.0f} s; validation on training domains: "
               f"{float('nan') if value is None else value:.3f}")  # fmt: skip
    for structure, score in found.get("held out", {}).items():
        typer.echo(f"held-out {held[0] if held else ''}, {structure}: {found.get('metric', 'dice')} {score:.3f}")
    typer.echo(f"model: {found['model']}")


class _Expected:
    """What training will take, said before it begins; nothing is measured for a run that is over."""

    def __init__(self, out: Path, processes: int, *, only: bool, json: bool) -> None:
        self.out, self.processes, self.only, self.json = out, processes, only, json
        self.found: dict[str, Any] = {}

    def tell(self, experiment: Experiment) -> None:
        from ..autoplan import line
        from ..training.estimate import estimated
        from .show import print_json, tell

        if (self.out / "run.json").exists() and not self.only:
            return
        if experiment.plan.automatic:
            tell(line(experiment.plan))
        found = estimated(
            experiment.trainer, experiment.method(), experiment.feed, experiment.transform(), processes=self.processes
        )
        self.found = found.as_dict()
        if not self.only:
            tell(found.line())
            return
        if self.json:
            print_json(self.found)
        else:
            typer.echo(found.line())
        raise typer.Exit
