"""shiftproof study: rows x held-out domains x seeds, resumable."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from . import options as o
from .show import JSON

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..study.grid import GridProgress
    from ..study.halving import HalvingProgress, Rung


def study(
    typed: typer.Context,
    cohort: Path = o.COHORT,
    methods: str = typer.Option(
        None,
        help="Rows as METHOD[/PRESET][+target][+tent], with commas: erm/strong,dann,mldg/light,erm/light+tent.",
    ),
    recipes: Path = typer.Option(
        None,
        help="A TOML file with [[row]] tables: rows with options, loss, network; with --halving also their family.",
    ),
    out: Path = typer.Option(None, help="Folder of the study; NAME-study beside the cohort by default."),
    domain: str = o.DOMAIN,
    hold_out: str = typer.Option(None, help="Domains to hold out in turn, C,D or site=C,D; all by default."),
    sources: str = typer.Option(None, help="Domains to train on, A,B; all but the held-out one by default."),
    seeds: int = typer.Option(3, help="Trainings of each row and held-out domain."),
    replicates: int = typer.Option(
        1, help="Each row so many times under names of its own, with other random numbers: what chance alone does."
    ),
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
    tolerance_mm: str = typer.Option(
        "2", help="Tolerance of the surface Dice in mm: a number, or by structure as lesion=1,liver=3."
    ),
    margin: float = typer.Option(
        0.0, help="Difference of the main metric that matters; rows within it count as equivalent. 0: none declared."
    ),
    lesions: str = typer.Option(None, help="Structures of several components, A,B: each component is counted, too."),
    validation: float = typer.Option(0.2, help="Share of each training domain's subjects that is held back."),
    fraction: float = typer.Option(1.0, help="Share of the remaining training subjects that is used."),
    gap_subjects: int = typer.Option(
        6, help="Training subjects, and held-back ones, that each run is scored on for its generalization gap; 0: none."
    ),
    bound: bool = typer.Option(
        True, help="Add the references that are trained on half of the held-out domain: what its labels would be worth."
    ),
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
    halving: bool = typer.Option(
        False,
        "--halving",
        help="Many rows by successive halving: rungs on the training domains drop most, the rest is confirmed on "
        "--hold-out with --seeds fresh seeds and the budget given by --steps, --seconds.",
    ),
    rung_seconds: str = typer.Option(
        None, help="Budget of a training in each rung, in seconds of compute as 15,45 (the default of --halving)."
    ),
    rung_steps: str = typer.Option(None, help="The same in steps as 200,600; results do not depend on the machine."),
    rung_seeds: int = typer.Option(None, help="Trainings of each row and inner domain in a rung; 1 by default."),
    keep: float = typer.Option(None, help="Share of the rows that a rung keeps; a third by default."),
    finalists: int = typer.Option(None, help="Most rows that are confirmed, the best of each family; 6 by default."),
    adaptation_rule: str = typer.Option(
        None, help='Rule without labels that ranks rows with +target; "information maximisation" by default.'
    ),
    json: bool = JSON,
) -> None:
    """Compare methods on domains that training never saw; write a report.

    Reference runs are added: source-only, pooled, and the target-supervised upper bound. The same command continues an
    interrupted study and retries what failed.
    """
    from ..errors import OptionError
    from ..metrics.rules import read_tolerance
    from ..recipe import replicate_name, replicated
    from ..report import reported
    from ..study.declare import parse_families, parse_rows
    from ..study.halving import halve
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
    rows = o.networked(parse_rows(methods, recipes, o.row_defaults(plan)), network, weights)
    families = parse_families(recipes)
    if replicates != 1:
        rows = replicated(rows, replicates)
        families = {replicate_name(row, i): family for row, family in families.items() for i in range(replicates)}
    common: dict[str, Any] = {
        "domain": domain,
        "sources": o.names(sources),
        "seeds": seeds,
        "trainer": trainer,
        "plan": o.plan(dimensions, spacing, patch, context, plan, typed),
        "workers": workers,
        "threads": threads,
        "tolerance_mm": read_tolerance(tolerance_mm),
        "validation": validation,
        "fraction": fraction,
        "margin": margin,
        "lesions": o.names(lesions) or [],
        "gap_subjects": gap_subjects,
        "command": "shiftproof " + " ".join(sys.argv[1:]),
        "tell": tell,
        **where,
    }
    most = {"workers": 0}
    rung_options = {
        "--rung-seconds": rung_seconds, "--rung-steps": rung_steps, "--rung-seeds": rung_seeds, "--keep": keep,
        "--finalists": finalists, "--adaptation-rule": adaptation_rule,
    }  # fmt: skip
    if halving:
        if not bound:
            raise OptionError("a study by halving confirms with all references; leave --no-bound out")
        options: dict[str, Any] = {"keep": keep, "finalists": finalists, "scoring": adaptation_rule}
        with stages(most) as shown_stage:
            halve(
                table,
                rows,
                folder,
                held_out=held or [],
                rungs=rungs_of(rung_seconds, rung_steps, 1 if rung_seeds is None else rung_seeds),
                families=families,
                progress=shown_stage,
                **{name: value for name, value in options.items() if value is not None},
                **common,
            )
    else:
        require_unused(rung_options)
        with grid() as shown:

            def progress(state: GridProgress) -> None:
                most["workers"] = max(most["workers"], state.workers)
                shown(state)

            run(table, rows, folder, held_out=held, bound=bound, progress=progress, **common)
    _, found = reported(folder)
    print_outcome(folder, json=json, found=found, engine=engine, workers=most["workers"])


def require_unused(given: dict[str, Any]) -> None:
    """Raises OptionError where an option of --halving comes without it."""
    from ..errors import OptionError

    named = [name for name, value in given.items() if value is not None]
    if named:
        raise OptionError(f"{', '.join(named)} is for large studies; add --halving, or leave it out")


def rungs_of(seconds: str | None, steps: str | None, seeds: int) -> list[Rung]:
    """Raises OptionError where both budgets are given, or one that is no number above 0."""
    from ..errors import OptionError
    from ..study.halving import Rung

    if seconds and steps:
        raise OptionError("rungs have a budget in seconds or in steps; give --rung-seconds or --rung-steps, not both")
    numbers = list(range(seeds))
    if steps:
        return [Rung(steps=n, seeds=numbers) for n in o.numbers(steps, int, "--rung-steps")]
    return [Rung(seconds=n, seeds=numbers) for n in o.numbers(seconds or "15,45", float, "--rung-seconds")]


@contextlib.contextmanager
def stages(most: dict[str, int]) -> Iterator[Callable[[HalvingProgress], None]]:
    """A bar over all trainings of a study by halving: which rung, how many rows are left in it, seconds left."""
    import math

    from .show import bar

    with bar("trainings") as update:

        def progress(state: HalvingProgress) -> None:
            most["workers"] = max(most["workers"], state.grid.workers)
            failed = f", {len(state.grid.failed)} failed" if state.grid.failed else ""
            left = "" if math.isnan(state.seconds_left) else f", at most {state.seconds_left:.0f} s of training left"
            update(state.done, state.total, f"{state.stage}, {state.rows} rows{failed}{left}")

        yield progress
