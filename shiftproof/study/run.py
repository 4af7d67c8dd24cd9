"""A study from a cohort to its report."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .. import autoplan
from ..data.cohort import Cohort, Row
from ..data.parallel import processes
from ..data.plan import Plan
from ..data.store import Store
from ..data.targets import Targets
from ..errors import OptionError, RunError, SplitError
from ..evaluate.answers import primary_of
from ..experiment import prepare
from ..files import read_rows, replacing, write_json
from ..metrics.segmentation import check_asked
from ..recipe import Recipe
from ..soundness import require_batch, require_sound
from ..train import Trainer, device_of
from ..training.estimate import estimated as step_of
from ..training.estimate import size_of
from ..versions import versions
from .cell import Job, divide, jobs, prediction_names, side_of, slug, status
from .declare import Declaration, require_once, with_references
from .engines import require as require_engine
from .gap import SUBJECTS
from .grid import PRELOAD, GridProgress, run_grid
from .rules import FILE


@dataclass(frozen=True)
class Estimate:
    """What a study will cost on this machine, from a few measured steps of each kind of row.

    Args:
        seconds: Until the end, with the given number of workers.
        by_row: Seconds of one training by row.
        runs: Trainings that remain.
        bytes_each: Memory of the largest of them.
    """

    seconds: float
    by_row: dict[str, float]
    runs: int
    bytes_each: int = 0


def study(
    cohort: Path,
    rows: Sequence[Recipe],
    out: Path,
    *,
    domain: str = "site",
    held_out: Sequence[str] | None = None,
    sources: Sequence[str] | None = None,
    seeds: int | Sequence[int] = 3,
    trainer: Trainer | None = None,
    plan: dict[str, Any] | None = None,
    workers: int | None = None,
    threads: int = 1,
    tolerance_mm: float | dict[str, float] = 2.0,
    validation: float = 0.2,
    fraction: float = 1.0,
    margin: float = 0.0,
    lesions: Sequence[str] = (),
    gap_subjects: int = SUBJECTS,
    bound: bool = True,
    name: str | None = None,
    command: str = "",
    progress: Callable[[GridProgress], None] | None = None,
    tell: Callable[[str], None] = lambda words: None,
    estimate: bool = True,
    engine: str = "local",
    cluster: dict[str, Any] | None = None,
) -> Path:
    """Rows x held-out domains x seeds, with the reference runs, resumable; returns the study's folder.

    Each held-out domain is out of everything for its rows: the plan, training, validation and selection. What is
    complete in `out` is kept; what failed is tried again.

    Args:
        cohort: Path of the table.
        rows: Recipes; references are added.
        out: Folder of the study.
        domain: Column that names the domain.
        held_out: Domains to hold out in turn; all by default.
        sources: Domains to train on; all but the held-out one by default.
        seeds: A number, or the seeds themselves.
        trainer: Budget; its seed is replaced.
        plan: Options of `autoplan.plan_of`: dimensions, spacing_mm, patch; automatic, memory_gb.
        workers: Processes; the machine's cores by default, 1 on a GPU.
        threads: Torch threads of each process.
        tolerance_mm: Of the surface Dice, one for all structures or by structure.
        margin: A difference of the primary metric that matters; within it rows count as equivalent. 0 declares none.
        lesions: Structures of several components, which are counted one by one, too.
        gap_subjects: Training subjects, and held-back ones, that each run is scored on, too: what its generalization
            gap and the logits in the report are read from; 0 for none. They cost as much as so many test subjects.
        bound: Whether references that are trained on labels of the held-out domain are added.
        progress: Called a few times a second while jobs run.
        tell: Called with a line on what is going on.
        estimate: Whether a few steps are timed first, to tell how long it will take.
        engine: Where trainings run: "local" or "ray".
        cluster: Of the Ray engine: address, shared, gpu_share; see `engines.cluster.work`.

    Raises:
        RunError: If `out` holds another study.
        SplitError: For domains that cannot be held out.
        OptionError: For a number that is too small.
    """
    if (out / FILE).exists():
        raise RunError(
            f"{out} holds a study by successive halving; add --halving to continue it, or choose another --out"
        )
    seeds = list(range(seeds)) if isinstance(seeds, int) else list(seeds)
    require_once("a seed counts once", seeds)
    require_numbers(
        seeds=len(seeds), workers=workers, threads=threads, tolerance_mm=tolerance_mm, margin=margin,
        gap_subjects=gap_subjects,
    )  # fmt: skip
    require_engine(engine, **(cluster or {}))
    table = Cohort.read(cohort, domain=domain)
    chosen = list(held_out) if held_out else table.domains
    require_domains(table, chosen, sources)
    rows = [row.pinned() for row in rows]
    every, references = with_references(rows, bound=bound)
    declared = Declaration(
        name=name or out.name,
        cohort=os.fspath(Path(cohort).resolve()),
        cohort_hash=table.hash(),
        domain_column=domain,
        domains=table.domains,
        held_out=chosen,
        seeds=seeds,
        rows=every,
        references=references,
        budget=budget_of(trainer or Trainer()),
        sources=list(sources or []),
        plan=autoplan.resolved(plan, every, trainer or Trainer(), len(table.domains)),
        tolerance_mm=tolerance_mm,
        validation=validation,
        fraction=fraction,
        threads=threads,
        margin=margin,
        lesions=list(lesions),
        gap_subjects=gap_subjects,
        task=task_of(table),
        versions=versions(),
        command=command,
    )
    carry_out(
        declared, table, out,
        workers=workers, progress=progress, tell=tell, estimate=estimate, engine=engine, cluster=cluster,
    )  # fmt: skip
    gather(out, declared)
    return out


def require_numbers(**given: Any) -> None:
    """Raises OptionError for a number, or one of several, that is too small."""
    for what, value in given.items():
        least = 0 if what in ("tolerance_mm", "margin", "gap_subjects") else 1
        for number in value.values() if isinstance(value, dict) else [value]:
            if number is not None and not number >= least:
                raise OptionError(f"{what} must be at least {least}, got {number}")


def require_domains(table: Cohort, held_out: Sequence[str], sources: Sequence[str] | None) -> None:
    """Raises SplitError for domains that are not there, or where nothing would be left to train on.

    Raises OptionError for one that came twice.
    """
    require_once("a domain is held out once", held_out)
    require_once("a training domain counts once", sources or [])
    missing = [d for d in [*held_out, *(sources or [])] if d not in table.domains]
    if missing or len(table.domains) < 2:
        raise SplitError(
            f"cannot hold out {', '.join(missing or table.domains)}: "
            f"column {table.domain} has the domains {', '.join(table.domains)}, and at least one must be left to "
            "train on"
        )


def budget_of(trainer: Trainer) -> dict[str, Any]:
    """Settings of the trainer that rows share; seeds are the study's."""
    return {k: v for k, v in dataclasses.asdict(trainer).items() if k != "seed"}


def task_of(table: Cohort) -> dict[str, Any]:
    return table.labels.as_dict() if isinstance(table.labels, Targets) else {"task": "segmentation"}


def begun(declared: Declaration, table: Cohort, out: Path, tell: Callable[[str], None]) -> Declaration:
    """Writes the declaration into `out`, or finds it there; with the primary metric, which follows from the cohort.

    Raises:
        RunError: If `out` holds another study.
        ShiftproofError: For what cannot be divided, planned or built; nothing is written then.
    """
    if (out / "study.json").exists():
        found = Declaration.load(out)
        declared = dataclasses.replace(declared, primary=found.primary)
        declared.compare(found)
        if found.cohort != declared.cohort:  # the same content, in another place
            dataclasses.replace(found, cohort=declared.cohort).save(out)
        tell(f"continuing the study in {out}")
        return declared
    declared = dataclasses.replace(declared, primary=checked(declared, table))
    declared.save(out)
    return declared


def checked(declared: Declaration, table: Cohort) -> str:
    """The primary metric, once every division, plan and recipe is found to be sound; nothing is written.

    Raises:
        ShiftproofError: For what cannot be divided, planned or built.
    """
    if table.task == "segmentation":
        check_asked(table.classes[1:], declared.tolerance_mm, declared.lesions, 0.0, ())
    elif declared.lesions:
        raise OptionError(f"lesions are counted in segmentations, and this cohort's labels are for {table.task}")
    training = [divide(declared, table, held).train for held in declared.held_out]
    first = autoplan.plan_of(training[0], **declared.plan)
    trainer = Trainer(**declared.budget)
    fewest = min((side.domains for side in training), key=len)
    for row in declared.rows:
        require_sound(row, first, fewest)
        for side in training:
            require_batch(autoplan.completed(row, first), trainer, side.domains)
    return primary_of(first.target)


def carry_out(
    declared: Declaration,
    table: Cohort,
    out: Path,
    *,
    workers: int | None,
    progress: Callable[[GridProgress], None] | None,
    tell: Callable[[str], None],
    estimate: bool,
    engine: str,
    cluster: dict[str, Any] | None,
) -> None:
    """Everything between a declaration and the table of all rows: what is done stays, what failed is tried again."""
    declared = begun(declared, table, out, tell)
    device = device_of(declared.budget["device"])
    number = workers or (1 if device == "cuda" else max(1, (os.cpu_count() or 1) // declared.threads))
    preprocess(declared, table, out, workers=number, tell=tell)
    todo = jobs(declared)
    if estimate and not all(job.done(out) for job in todo):
        cost = estimated(declared, table, out, [j for j in todo if not j.done(out)], number)
        memory = f", {size_of(cost.bytes_each)} each at most" if cost.bytes_each else ""
        tell(f"{cost.runs} trainings on {number} processes, about {words_of(cost.seconds)}{memory}")
        write_json(out / "estimate.json", dataclasses.asdict(cost))
    # A cluster knows itself how many trainings it has room for.
    at_a_time = number if engine == "local" else workers
    run_grid(out, todo, workers=at_a_time, progress=progress, engine=engine, **(cluster or {}))


def preprocess(declared: Declaration, cohort: Cohort, out: Path, *, workers: int, tell: Callable[[str], None]) -> None:
    """A plan for each held-out domain, and every case that its rows read."""
    processes(PRELOAD)  # the jobs' server, before it is started for preprocessing
    store = Store(out / "store")
    tested = []
    for held in declared.held_out:
        split = divide(declared, cohort, held)
        path = out / "plans" / f"{slug(held)}.json"
        if not path.exists():
            plan = autoplan.plan_of(split.train, **declared.plan)
            plan.write(path)
        plan = Plan.read(path)
        if plan.automatic:
            tell(f"held out {held}: {autoplan.line(plan)}")
        # All labelled cases at once: a pool of processes is worth its start for many.
        sides = [split.train, split.validation]
        if split.upper is not None and any(r.role == "target-supervised" for r in declared.rows):
            sides.append(split.upper)
        sides = [table_of(sides)]
        if any(r.target for r in declared.rows) and split.target is not None:
            sides.append(split.target)
        started = time.monotonic()
        number = sum(len(store.prepare(side, plan, workers=workers)) for side in sides)
        tell(f"held out {held}: {number} scans ready in {words_of(time.monotonic() - started)}")
        tested += [(held, row, name) for row, name in zip(split.test.rows(), prediction_names(split.test), strict=True)]
    _write_subjects(out, tested)


def table_of(sides: Sequence[Cohort]) -> Cohort:
    """The scans of several sides as one cohort."""
    import pandas as pd

    first = sides[0]
    table = pd.concat([side.table for side in sides], ignore_index=True)
    return Cohort(table, first.root, domain=first.domain, labels=first.labels)


def estimated(declared: Declaration, cohort: Cohort, out: Path, todo: Sequence[Job], workers: int) -> Estimate:
    """Times a few steps of each recipe on the first held-out domain."""
    threads = torch.get_num_threads()
    torch.set_num_threads(declared.threads)
    try:
        per_step: dict[str, float] = {}
        memory = 0
        for job in todo:
            row = declared.row(job.rows[0])
            if row.name in per_step:
                continue
            split = divide(declared, cohort, job.held_out)
            plan = Plan.read(out / "plans" / f"{slug(job.held_out)}.json")
            trainer = Trainer(**{**declared.budget, "seed": 0})
            try:
                side = side_of(row, split, declared)
                trial = prepare(row, side, plan, trainer, Store(out / "store"))
                found = step_of(trial.trainer, trial.method(), trial.feed, trial.transform())
                per_step[row.name] = found.seconds_per_step or 0.0
                memory = max(memory, found.total_bytes)
            except Exception:
                per_step[row.name] = 0.0  # it will fail, and say why, as a cell of its own
    finally:
        torch.set_num_threads(threads)
    by_row = {name: per_step[name] * max(j.steps for j in todo if j.rows[0] == name) for name in per_step}
    if declared.budget.get("seconds") is not None:
        by_row = {name: min(seconds, declared.budget["seconds"]) for name, seconds in by_row.items()}
    total = sum(by_row[job.rows[0]] for job in todo)
    # Starting a process, reading weights and scoring take their time beside the steps.
    return Estimate((total + 3.0 * len(todo)) / min(workers, len(todo)), by_row, len(todo), memory)


def gather(out: Path, declared: Declaration) -> None:
    """All rows of all cells that are done, in one table."""
    import pandas as pd

    cells = [cell for job in jobs(declared) for cell in job.cells(out).values() if status(cell) == "done"]
    if not cells:
        failed = sorted((out / "cells").rglob("cell.json"))
        why = json.loads(failed[0].read_text(encoding="utf-8"))["error"] if failed else "nothing was run"
        raise RunError(f"every cell of the study failed ({len(failed)}): {why}")
    for name in ("rows.csv", "answers.csv", "gap.csv"):
        found = [read_rows(cell / name) for cell in cells if (cell / name).exists()]
        if found:
            with replacing(out / name) as path:
                pd.concat(found).to_csv(path, index=False)


def _write_subjects(out: Path, tested: Sequence[tuple[str, Row, str]]) -> None:
    """Where the scans and labels of the test subjects lie: what the report draws."""
    import pandas as pd

    table = pd.DataFrame(
        [
            {
                "held_out": held,
                "subject": row.subject,
                "domain": row.domain,
                "image": next((str(path) for path in row.images.values() if path is not None), ""),
                "label": str(row.label or ""),
                "prediction": name,
            }
            for held, row, name in tested
        ],
        columns=["held_out", "subject", "domain", "image", "label", "prediction"],
    )
    with replacing(out / "subjects.csv") as path:
        table.to_csv(path, index=False)


def words_of(seconds: float) -> str:
    """A duration for people."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
