"""The same function on many inputs, in processes of its own where asked for."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from ..errors import ShiftproofError

Result = TypeVar("Result")


def run(
    function: Callable[..., Result],
    jobs: Sequence[tuple[Any, ...]],
    *,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> list[Result]:
    """`function(*job)` for each job, in the order of the jobs; the first error ends it.

    Args:
        function: Of a module, so that another process finds it.
        jobs: Its arguments.
        workers: Processes; 1 stays in this one.
        progress: Called with (jobs done, all), first with 0.

    Raises:
        ShiftproofError: If a process died, most likely for lack of memory.
    """
    tell = progress or (lambda done, number: None)
    tell(0, len(jobs))
    results: list[Any] = [None] * len(jobs)
    if workers <= 1 or len(jobs) <= 1:
        for i, job in enumerate(jobs):
            results[i] = function(*job)
            tell(i + 1, len(jobs))
        return results
    # A forked copy of a process with running threads can hang: start from nothing instead.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(workers, len(jobs)), mp_context=context, initializer=_one_thread)
    try:
        futures = {pool.submit(function, *job): i for i, job in enumerate(jobs)}
        for done, future in enumerate(as_completed(futures), start=1):
            results[futures[future]] = future.result()
            tell(done, len(jobs))
    except BrokenProcessPool as error:
        raise ShiftproofError(
            f"one of {workers} worker processes was ended from outside, most likely for lack of memory; "
            "use fewer workers"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)
    return results


def _one_thread() -> None:
    """Processes are the parallelism; threads inside of them would only get in each other's way."""
    import SimpleITK as sitk

    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
