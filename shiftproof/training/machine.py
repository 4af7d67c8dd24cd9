"""What this machine computes with: its device, its memory, and what to do where that runs out."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from ..errors import OptionError, OutOfMemory

CONTROL_GROUPS = (
    # Limit and use of a container or a batch job, in the second and the first version of Linux' control groups.
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def device_of(name: str) -> str:
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise OptionError('device "cuda" was asked for, but torch sees no GPU; use "auto" or "cpu"')
    return name


def available_bytes(device: torch.device) -> int | None:
    """Memory that can still be had there, within the limits of a container; None where the system does not say."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        # What torch holds and does not use is free, too.
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    found = [_of_machine(), *(_within(*paths) for paths in CONTROL_GROUPS)]
    return min((b for b in found if b is not None), default=None)


def _of_machine() -> int | None:
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def _within(limit: str, use: str) -> int | None:
    with contextlib.suppress(OSError, ValueError):  # no such group, or its limit is "max"
        return max(int(Path(limit).read_text()) - int(Path(use).read_text()), 0)
    return None


@contextlib.contextmanager
def enough_memory(words: Callable[[], str]) -> Iterator[None]:
    """Turns every way of saying that memory ran out into one error that names what to change.

    Args:
        words: What was to be held, for the message.

    Raises:
        OutOfMemory: With these words.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory(
            f"out of memory ({_first_line(error)}); {words()}; use a smaller batch (--batch), a smaller patch "
            "(--patch), a narrower network (widths), or --precision bf16"
        ) from error


def is_out_of_memory(error: BaseException) -> bool:
    said = str(error).lower()
    spoken = "allocate memory" in said or "not enough memory" in said or "out of memory" in said
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (isinstance(error, RuntimeError) and spoken)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:160]
