"""The jobs of a study, on whichever engine: what is done stays, what remains is run, and how far it is."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .cell import Job, status
from .engines import engine as engine_of
from .engines.local import PRELOAD

__all__ = ["PRELOAD", "GridProgress", "run_grid"]


@dataclass
class GridProgress:
    """Where a grid stands.

    Args:
        done: Jobs that ended, failed ones included.
        total: Jobs.
        steps: Steps taken over all jobs, `total_steps` of how many.
        failed: Cells that failed, by "row / held out / seed".
        running: Keys of jobs under way.
        repeated: Jobs that were started again because their worker was lost.
        workers: Jobs that run at a time; 0 where nothing was to be run.
    """

    done: int
    total: int
    steps: int
    total_steps: int
    failed: list[str] = field(default_factory=list)
    running: list[str] = field(default_factory=list)
    repeated: int = 0
    workers: int = 0


def run_grid(
    folder: Path,
    jobs: Sequence[Job],
    *,
    workers: int | None,
    progress: Callable[[GridProgress], None] | None = None,
    poll: float = 0.2,
    engine: str = "local",
    **options: Any,
) -> None:
    """Runs every job that is not done; what fails is recorded, and the others go on.

    Args:
        folder: The study's.
        jobs: All of its jobs.
        workers: Jobs at a time; None leaves it to the engine.
        progress: Called after every poll.
        poll: Seconds between two looks at the jobs.
        engine: Name in `ENGINES`.
        options: The engine's own, see `engines.cluster.work`; those that are None count as not given.

    Raises:
        OptionError: If there is no such engine, or it does not know an option.
        RunError: If the engine cannot work.
    """
    work = engine_of(engine)
    waiting = [job for job in jobs if not job.done(folder)]
    before = len(jobs) - len(waiting)

    def report(
        finished: int,
        running: Sequence[str],
        *,
        workers: int = 0,
        steps: Mapping[str, int] = {},
        repeated: int = 0,
    ) -> None:
        if progress is not None:
            state = state_of(folder, jobs, before + finished, list(running), steps)
            progress(dataclasses.replace(state, repeated=repeated, workers=workers))

    if not waiting:
        report(0, [])
        return
    given = {name: value for name, value in options.items() if value is not None}
    work(folder, waiting, workers=workers, report=report, poll=poll, **given)


def state_of(
    folder: Path, jobs: Sequence[Job], finished: int, running: list[str], steps: Mapping[str, int] = {}
) -> GridProgress:
    """Read from the folder; `steps` has those of jobs that run where this folder is not."""
    taken = sum(job.steps if job.done(folder) else max(last_step(folder, job), steps.get(job.key, 0)) for job in jobs)
    failed = [
        f"{row} / {job.held_out} / seed {job.seed}"
        for job in jobs
        for row, cell in job.cells(folder).items()
        if job.key not in running and status(cell) == "failed"
    ]
    return GridProgress(finished, len(jobs), taken, sum(job.steps for job in jobs), failed, running)


def last_step(folder: Path, job: Job) -> int:
    """Read from the end of the run's record, which a running process appends to."""
    record = folder / "runs" / job.key / "record.jsonl"
    try:
        with open(record, "rb") as lines:
            lines.seek(max(0, record.stat().st_size - 2000))
            tail = lines.read().decode(errors="replace")
    except OSError:
        return 0
    found = [part.split(",")[0] for part in tail.split('"step": ')[1:]]
    return int(found[-1]) if found and found[-1].isdigit() else 0
