"""The same function on many inputs, in processes of its own where asked for."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from ..errors import ShiftproofError

Result = TypeVar("Result")

_preloaded: dict[str, None] = dict.fromkeys(["SimpleITK", "shiftproof.data.preprocess"])


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
    context = processes()
    pool = ProcessPoolExecutor(min(workers, len(jobs)), mp_context=context, initializer=_one_thread)
    try:
        futures = {pool.submit(function, *job): i for i, job in enumerate(jobs)}
        for done, future in enumerate(as_completed(futures), start=1):
            results[futures[future]] = future.result()
            tell(done, len(jobs))
    except BrokenProcessPool as error:
        raise ShiftproofError(
            f"one of {workers} worker processes ended before its work did, most likely for lack of memory; use fewer "
            'workers, and in a script of your own start under `if __name__ == "__main__":`'
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)
    return results


def processes(*modules: str) -> Any:
    """A multiprocessing context whose processes start in a moment and share nothing with this one.

    A forked copy of a process with running threads can hang, so processes are forked from a server that has done
    nothing but import; where there is no such server, they start from nothing.

    Args:
        modules: What the server imports once, for all processes; counts only before the first process is started.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    # There is one server for all; what an earlier call asked for stays.
    _preloaded.update(dict.fromkeys(modules))
    context.set_forkserver_preload(list(_preloaded))
    return context


def _one_thread() -> None:
    """Processes are the parallelism; threads inside of them would only get in each other's way."""
    import SimpleITK as sitk

    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
