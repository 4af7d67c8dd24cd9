"""Several processes for one training: started here on this machine, or by `accelerate launch` or `torchrun`."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from multiprocessing import connection, parent_process
from pathlib import Path
from typing import Any, TypeVar

import torch

from ..data.parallel import processes as process_context
from ..errors import OptionError, ProcessError
from .group import joined, on_arrival
from .machine import device_of

T = TypeVar("T")

INTERRUPTED = 130
READY_SECONDS = 300.0
"""In which a started process has imported what it needs."""


def together(
    function: Callable[..., T],
    arguments: Mapping[str, Any],
    *,
    processes: int | None = None,
    device: str = "auto",
    own: Mapping[str, Any] | None = None,
) -> T:
    """`function(**arguments, **own)` in several processes that share every batch; what it returns in this one.

    The first process goes ahead as far as to where training begins, so that it alone prepares what it finds missing;
    the others follow. It alone writes and reports.

    Args:
        function: Of a module, so that another process finds it.
        arguments: Its arguments in every process; they travel.
        processes: How many are started on this machine, this one among them. Where `accelerate launch` or `torchrun`
            started this process, they decide, on any number of machines.
        device: As in `Trainer`: "cuda" takes a GPU a process.
        own: Arguments of this process only, such as a callback.

    Raises:
        OptionError: For a number that this machine cannot serve.
        ProcessError: If one of the processes is lost.
    """
    started = int(os.environ.get("WORLD_SIZE", "1"))
    everything = {**arguments, **(own or {})}
    cpu = device_of(device) == "cpu"
    if started > 1:
        if processes not in (None, 1, started):
            raise OptionError(
                f"{processes} processes were asked for, but a launcher started {started}; leave --processes out"
            )
        with joined(cpu=cpu) as group:
            if not group.first:
                group.wait()
                return function(**arguments)
            with on_arrival(group.wait):
                return function(**everything)
    if processes is None or processes == 1:
        return function(**everything)
    _require_possible(processes, cpu)
    with _Helpers(function, arguments, processes, cpu) as helpers, on_arrival(helpers.meet):
        try:
            return function(**everything)
        except ProcessError as error:
            raise helpers.why() or error from error


def _require_possible(processes: int, cpu: bool) -> None:
    if processes < 1:
        raise OptionError(f"processes must be at least 1, got {processes}")
    if not cpu and processes > torch.cuda.device_count():
        raise OptionError(
            f"{processes} processes take a GPU each, and there are {torch.cuda.device_count()}; "
            "use fewer, or --device cpu"
        )


class _Helpers:
    """The other processes on this machine; this one is the first of the group.

    They import while this one prepares, and wait for a word to begin. None outlives this one.
    """

    def __init__(self, function: Callable[..., Any], arguments: Mapping[str, Any], size: int, cpu: bool) -> None:
        self.size, self.cpu = size, cpu
        self.threads = max(1, torch.get_num_threads() // size) if cpu else torch.get_num_threads()
        self.work = (function, dict(arguments))
        self.folder = tempfile.TemporaryDirectory(prefix="shiftproof-")
        self.meeting = f"file://{Path(self.folder.name) / 'meeting'}"
        self.context = process_context("shiftproof.train")
        self.processes: list[Any] = []
        self.lines: list[Any] = []
        self.joined = contextlib.ExitStack()

    def __enter__(self) -> _Helpers:
        for rank in range(1, self.size):
            mine, theirs = self.context.Pipe()
            given = (theirs, rank, self.size, self.meeting, self.cpu, self.threads, *self.work)
            process = self.context.Process(target=_help, args=given, daemon=True)
            process.start()
            theirs.close()
            self.processes.append(process)
            self.lines.append(mine)
        return self

    def meet(self) -> None:
        """Sends the others on their way and joins them."""
        for rank, (process, line) in enumerate(zip(self.processes, self.lines, strict=True), start=1):
            arrived = connection.wait([line, process.sentinel], READY_SECONDS)
            if line not in arrived or line.recv() != "ready":
                raise ProcessError(f"process {rank} of {self.size} did not start ({_ending(process)}); see its output")
        for line in self.lines:
            line.send("go")
        before = torch.get_num_threads()
        self.joined.callback(torch.set_num_threads, before)
        self.joined.enter_context(_numbered(0, self.size, self.threads))
        self.joined.enter_context(joined(cpu=self.cpu, **_place(self.meeting, 0, self.size)))

    def why(self) -> Exception | None:
        """What the first of the others that failed said, as it said it, or how it ended."""
        for rank, (process, line) in enumerate(zip(self.processes, self.lines, strict=True), start=1):
            process.join(5)
            with contextlib.suppress(EOFError, OSError):
                if line.poll():
                    said = line.recv()
                    if isinstance(said, Exception) and not isinstance(said, ProcessError):
                        return said
            if process.exitcode not in (0, None):
                return ProcessError(
                    f"process {rank} of {self.size} was lost ({_ending(process)}); the same command goes on from the "
                    "last saved state, with fewer processes or a smaller batch where memory ran out"
                )
        return None

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        with contextlib.suppress(Exception):  # of a group that lost a process, nothing is left to close
            self.joined.close()
        for line in self.lines:  # who still waits for a word leaves
            line.close()
        for process in self.processes:
            process.join(30 if kind is None else 5)
            if process.is_alive():
                process.terminate()
                process.join(5)
            if process.is_alive():
                process.kill()
                process.join()
        self.folder.cleanup()


def _help(
    line: Any,
    rank: int,
    size: int,
    meeting: str,
    cpu: bool,
    threads: int,
    function: Callable[..., Any],
    arguments: dict[str, Any],
) -> None:
    """What every process but the first does."""
    _leave_with_parent()
    try:
        line.send("ready")
        line.recv()
        with _numbered(rank, size, threads), joined(cpu=cpu, **_place(meeting, rank, size)):
            function(**arguments)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)  # the first process says so
    except (EOFError, BrokenPipeError):
        sys.exit(1)  # it is gone
    except Exception as error:
        with contextlib.suppress(Exception):  # one that does not travel is told by the exit
            line.send(error)
        sys.exit(1)


def _place(meeting: str, rank: int, size: int) -> dict[str, Any]:
    return {"init_method": meeting, "rank": rank, "world_size": size}


@contextlib.contextmanager
def _numbered(rank: int, size: int, threads: int) -> Iterator[None]:
    """The variables in which launchers tell a process its place; processes of one machine keep to themselves."""
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
    wanted = {name: str(value) for name, value in numbers.items()}
    wanted |= {"MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": str(threads)}
    if "lo" in (name for _, name in socket.if_nameindex()):
        wanted["GLOO_SOCKET_IFNAME"] = "lo"
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _leave_with_parent() -> None:
    """Ends this process soon after the first one: an orphan would wait for it for hours."""
    parent = parent_process()
    if parent is None:
        return

    def watch() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _ending(process: Any) -> str:
    code = process.exitcode
    if code is None:
        return "still running"
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
