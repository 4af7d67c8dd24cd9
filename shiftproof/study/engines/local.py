"""Jobs on local processes: as many at a time as asked for, each in a process of its own."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from ...data.parallel import processes
from ...errors import OptionError
from ..cell import Job, fail, run_job
from . import Report

PRELOAD = "shiftproof.study.preload"
GRACE_S = 20.0


def require(**options: Any) -> None:
    """Raises OptionError for options of another engine."""
    if options:
        raise OptionError(f"{', '.join(options)} is for clusters; add --engine ray, or leave it out")


def work(
    folder: Path, jobs: Sequence[Job], *, workers: int | None, report: Report, poll: float, **options: Any
) -> None:
    """Runs every job. One whose process dies is recorded as failed; the others go on.

    Raises:
        OptionError: For options of another engine.
    """
    require(**options)
    number = workers or os.cpu_count() or 1
    # A process per job keeps memory and crashes apart.
    context = processes(PRELOAD)
    waiting, finished = list(jobs), 0
    running: dict[str, tuple[Job, BaseProcess]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < number:
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
            report(finished, list(running), workers=number)
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


def _death(code: int | None) -> str:
    if code is not None and code < 0:
        hint = "; the system may have run out of memory: use fewer --workers or a smaller --batch" if code == -9 else ""
        return f"the process was ended by signal {-code}{hint}; run the same command again to retry"
    return f"the process ended with code {code}; run the same command again to retry"
