"""What the benchmarks share: contestants in fresh processes, their time and memory, and what stands above a table."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

MIB = 2**20


def heading(**further: str) -> str:
    """Versions, machine and how busy it is."""
    from shiftproof.versions import versions

    named = ", ".join(f"{k} {v}" for k, v in (versions() | further).items())
    return f"{named}\n{psutil.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}"


def fresh(script: str, *arguments: str, environment: dict[str, str] | None = None) -> dict[str, Any]:
    """What a script prints as its last line, JSON, run in a process of its own."""
    command = [sys.executable, script, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | (environment or {}))
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


class Memory:
    """Peak memory of this process and those it started, beyond what there was at the start of the block.

    Sampled every 10 ms; memory that processes share counts once, in parts. `peak` is of what the processes hold
    themselves, in MiB; `mapped` is of files that they look into, which the system takes back when it needs room.
    """

    def __enter__(self) -> Memory:
        self.before = _held()
        self.most = self.before
        self.ended = threading.Event()
        self.watcher = threading.Thread(target=self._watch, daemon=True)
        self.watcher.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._note()
        self.ended.set()
        self.watcher.join()

    @property
    def peak(self) -> float:
        return (self.most[0] - self.before[0]) / MIB

    @property
    def mapped(self) -> float:
        return (self.most[1] - self.before[1]) / MIB

    def _watch(self) -> None:
        while not self.ended.wait(0.01):
            self._note()

    def _note(self) -> None:
        now = _held()
        self.most = (max(self.most[0], now[0]), max(self.most[1], now[1]))


def _held() -> tuple[int, int]:
    """Bytes of this process tree: held by themselves, and mapped files (both in proportional shares)."""
    own, files = 0, 0
    this = psutil.Process()
    for process in [this, *this.children(recursive=True)]:
        try:
            lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()[1:]
        except OSError:  # it has just ended
            continue
        kib = {line.split(":")[0]: int(line.split()[1]) for line in lines}
        own += 1024 * (kib["Pss_Anon"] + kib["Pss_Shmem"])
        files += 1024 * kib["Pss_File"]
    return own, files


def timed(function: Callable[[], object]) -> float:
    """Seconds."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start
