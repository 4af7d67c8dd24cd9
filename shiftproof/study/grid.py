"""Jobs on local processes: as many at a time as asked for, each in a process of its own."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path

from ..data.parallel import processes
from .cell import Job, fail, run_job, status

PRELOAD = "shiftproof.study.preload"
GRACE_S = 20.0


@dataclass
class GridProgress:
    """Where a grid stands.

    Args:
        done: Jobs that ended, failed ones included.
        total: Jobs.
        steps: Steps taken over all jobs, `total_steps` of how many.
        failed: Cells that failed, by "row / held out / seed".
        running: Keys of jobs under way.
    """

    done: int
    total: int
    steps: int
    total_steps: int
    failed: list[str] = field(default_factory=list)
    running: list[str] = field(default_factory=list)


def run_grid(
    folder: Path,
    jobs: Sequence[Job],
    *,
    workers: int,
    progress: Callable[[GridProgress], None] | None = None,
    poll: float = 0.2,
) -> None:
    """Runs every job that is not done. A job whose process dies is recorded as failed; the others go on."""
    # A process per job keeps memory and crashes apart.
    context = processes(PRELOAD)
    waiting = [job for job in jobs if not job.done(folder)]
    finished = len(jobs) - len(waiting)
    running: dict[str, tuple[Job, BaseProcess]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                job = waiting.pop(0)
                process = context.Process(target=run_job, args=(folder, job, os.getpid()))
                process.start()
                running[job.key] = (job, process)
            for key, (job, process) in list(running.items()):
                if process.is_alive():
                    continue
                process.join()
                if process.exitcode != 0:
                    fail(folder, job, _death(process.exitcode))
                del running[key]
                finished += 1
            if progress is not None:
                progress(state_of(folder, jobs, finished, list(running)))
            if running:
                time.sleep(poll)
    finally:
        # Told to end, a job saves its state first; one that does not come to it is not waited for.
        for _, process in running.values():
            process.terminate()
        until = time.monotonic() + GRACE_S
        for _, process in running.values():
            process.join(max(0.0, until - time.monotonic()))
            if process.is_alive():
                process.kill()
                process.join()


def state_of(folder: Path, jobs: Sequence[Job], finished: int, running: list[str]) -> GridProgress:
    steps = sum(job.steps if job.done(folder) else last_step(folder, job) for job in jobs)
    failed = [
        f"{row} / {job.held_out} / seed {job.seed}"
        for job in jobs
        for row, cell in job.cells(folder).items()
        if job.key not in running and status(cell) == "failed"
    ]
    return GridProgress(finished, len(jobs), steps, sum(job.steps for job in jobs), failed, running)


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


def _death(code: int | None) -> str:
    if code is not None and code < 0:
        hint = "; the system may have run out of memory: use fewer --workers or a smaller --batch" if code == -9 else ""
        return f"the process was ended by signal {-code}{hint}; run the same command again to retry"
    return f"the process ended with code {code}; run the same command again to retry"
