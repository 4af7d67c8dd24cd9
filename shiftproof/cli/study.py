"""shiftproof study: rows x held-out domains x seeds, resumable."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from . import options as o
from .show import JSON

if TYPE_CHECKING:
    from ..study.grid import GridProgress


def study(
    cohort: Path = o.COHORT,
    methods: str = typer.Option(
        None,
        help="Rows as METHOD[/PRESET][+target][+tent], with commas: erm/strong,dann,mldg/light,erm/light+tent.",
    ),
    recipes: Path = typer.Option(None, help="A TOML file with [[row]] tables: rows with options, loss, network."),
    out: Path = typer.Option(None, help="Folder of the study; NAME-study beside the cohort by default."),
    domain: str = o.DOMAIN,
    hold_out: str = typer.Option(None, help="Domains to hold out in turn, C,D or site=C,D; all by default."),
    sources: str = typer.Option(None, help="Domains to train on, A,B; all but the held-out one by default."),
    seeds: int = typer.Option(3, help="Trainings of each row and held-out domain."),
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
    context: int = o.CONTEXT,
    network: str = o.NETWORK,
    weights: Path = o.WEIGHTS,
    tolerance_mm: float = typer.Option(2.0, help="Tolerance of the surface Dice."),
    validation: float = typer.Option(0.2, help="Share of each training domain's subjects that is held back."),
    fraction: float = typer.Option(1.0, help="Share of the remaining training subjects that is used."),
    workers: int = typer.Option(
        None, help="Trainings at a time; as many as the machine, or the cluster, has cores for."
    ),
    threads: int = typer.Option(1, help="Threads of each training; results are equal at an equal number."),
    engine: str = typer.Option("local", help="Where trainings run: local (processes) or ray (a cluster)."),
    address: str = typer.Option(
        None,
        help="The Ray cluster: auto (this machine's), HOST:PORT, ray://HOST:PORT (from outside), none (started for the "
        "study); by default this machine's where there is one, else none.",
    ),
    shared: str = typer.Option(
        None,
        help="Whether the cluster's machines see the study's folder and the cohort: yes, no (files travel), or auto "
        "(each looks), the default.",
    ),
    gpu_share: float = typer.Option(None, help="GPUs that a training takes on the cluster: 0.5 lets two share one."),
    json: bool = JSON,
) -> None:
    """Compare methods on domains that training never saw; write a report.

    Reference runs are added: source-only, pooled, and the target-supervised upper bound. The same command continues an
    interrupted study and retries what failed.
    """
    from ..report import report as page
    from ..study.declare import parse_rows
    from ..study.run import study as run
    from .outcome import print_outcome
    from .show import grid, tell

    table = o.table_of(cohort)
    domain, held = o.held_out(hold_out, domain)
    folder = out or table.parent / f"{table.parent.name or 'cohort'}-study"
    trainer = o.trainer(
        steps=steps, seconds=seconds, batch=batch, rate=rate, average=average, selection=selection,
        patience=patience, validate_every=validate_every, precision=precision, device=device,
    )  # fmt: skip
    cluster = {"address": address, "shared": shared, "gpu_share": gpu_share}
    given = {name: value for name, value in cluster.items() if value is not None}
    where: dict[str, Any] = {"engine": engine, "cluster": given} if engine != "local" or given else {}
    most = {"workers": 0}
    with grid() as shown:

        def progress(state: GridProgress) -> None:
            most["workers"] = max(most["workers"], state.workers)
            shown(state)

        run(
            table,
            o.networked(parse_rows(methods, recipes), network, weights),
            folder,
            domain=domain,
            held_out=held,
            sources=o.names(sources),
            seeds=seeds,
            trainer=trainer,
            plan=o.plan(dimensions, spacing, patch, context),
            workers=workers,
            threads=threads,
            tolerance_mm=tolerance_mm,
            validation=validation,
            fraction=fraction,
            command="shiftproof " + " ".join(sys.argv[1:]),
            progress=progress,
            tell=tell,
            **where,
        )
    page(folder)
    print_outcome(folder, json=json, engine=engine, workers=most["workers"])
