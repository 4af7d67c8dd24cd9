"""The processes that train one method together, and what they say to each other."""

from __future__ import annotations

import contextlib
import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch import distributed as wire

from ..errors import ProcessError

T = TypeVar("T")

PATIENCE = timedelta(hours=2)
"""How long a process waits for the others: the first one alone validates and scores meanwhile. One that died is
noticed at once, for its connections close."""


@dataclass(frozen=True)
class Group:
    """This process among those that share every batch; alone, unless `joined`.

    The objective is the mean over the joint batch: the sum over processes of their own mean, times their share of the
    samples (`RunningStep.weight`). Sums go backwards as sums, so that a value of all processes in a loss, a joint mean
    or a joint statistic, gives each process the derivative of that objective by what it put in.

    Args:
        rank: Number of this process; the first one, 0, decides, writes and reports.
        size: Number of processes.
        local: Number among the processes on the same machine.
    """

    rank: int = 0
    size: int = 1
    local: int = 0

    @property
    def first(self) -> bool:
        return self.rank == 0

    @property
    def several(self) -> bool:
        return self.size > 1

    def share(self, number: int) -> float:
        """This process's part of `number` samples, of which it has `rank, rank + size, ...`."""
        return len(range(self.rank, number, self.size)) / number if self.several else 1.0

    def sum(self, x: Tensor) -> Tensor:
        """Over processes, of one shape in all of them; differentiable, any number of times."""
        return _Sum.apply(x) if self.several else x  # type: ignore[no-any-return, no-untyped-call]

    def stack(self, x: Tensor) -> Tensor:
        """What each process holds, of one shape in all of them, (size, ...); differentiable."""
        return self.sum(torch.stack([x if rank == self.rank else torch.zeros_like(x) for rank in range(self.size)]))

    def gather(self, x: Tensor) -> Tensor:
        """The rows (n, ...) of all processes, in their order, where n may differ; differentiable."""
        if not self.several:
            return x
        counts = self.stack(torch.tensor(len(x))).tolist()
        # Zeros in the others' places, then one sum: it is its own adjoint, where torch's gather goes wrong backwards
        # for gradients that are not contiguous.
        rows = [x if rank == self.rank else x.new_zeros((n, *x.shape[1:])) for rank, n in enumerate(counts)]
        return self.sum(torch.cat(rows))

    def total(self, gradients: Sequence[Tensor | None], like: Sequence[Tensor]) -> list[Tensor | None]:
        """Gradients summed over processes, in one message; None where no process has one."""
        parts = [torch.zeros_like(t) if g is None else g for g, t in zip(gradients, like, strict=True)]
        reached = torch.tensor([float(g is not None) for g in gradients])
        flat = self.sum(torch.cat([p.flatten() for p in parts] + [reached.to(parts[0])]))
        there = flat[-len(parts) :].detach().tolist()
        pieces = flat[: -len(parts)].split([t.numel() for t in like])
        return [p.view(t.shape).to(t.dtype) if r else None for p, t, r in zip(pieces, like, there, strict=True)]

    def told(self, value: Callable[[], T]) -> T:
        """What the first process finds, in all of them; what it raises is raised in all of them."""
        if not self.several:
            return value()
        said: list[Any] = [None, None]
        if self.first:
            try:
                said = [value(), None]
            except Exception as error:
                said = [None, error if _survives(error) else ProcessError(f"{type(error).__name__}: {error}")]
        with _spoken():
            wire.broadcast_object_list(said, src=0)
        if said[1] is not None:
            raise said[1]
        return said[0]  # type: ignore[no-any-return]

    def wait(self) -> None:
        """Until all processes are here."""
        self.sum(torch.zeros(1))


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        # What is sent must be contiguous, and the gradient of a mean or a slice is not.
        total = x.detach().clone(memory_format=torch.contiguous_format)
        with _spoken():
            if total.is_cuda:
                # Between CPUs first: a process that died is noticed there, where a GPU would wait for it.
                wire.all_reduce(torch.zeros(1))
            wire.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _Sum.apply(gradients[0])  # type: ignore[no-any-return, no-untyped-call]


@contextlib.contextmanager
def _spoken() -> Iterator[None]:
    """Turns the network's word on a lost process into one that names the cure."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise ProcessError(
            f"process {_current.rank} of {_current.size} lost the others ({str(error).splitlines()[0]:.120}); see what "
            "the one that ended says, and repeat the command: it goes on from the last saved state"
        ) from error


def _survives(error: Exception) -> bool:
    """Whether an error arrives as what it is in another process."""
    try:
        return type(pickle.loads(pickle.dumps(error))) is type(error)
    except Exception:
        return False


ALONE = Group()

_current = ALONE
_arrivals: list[Callable[[], object]] = []


def current() -> Group:
    """The group that this process is in."""
    return _current


def gathered() -> Group:
    """The group, where training begins: from here on all processes go the same way."""
    while _arrivals:
        _arrivals.pop()()
    return _current


@contextlib.contextmanager
def on_arrival(action: Callable[[], object]) -> Iterator[None]:
    """What is done once, when this process comes to where training begins."""
    _arrivals.append(action)
    try:
        yield
    finally:
        _arrivals.clear()


@contextlib.contextmanager
def joined(*, cpu: bool, **meeting: Any) -> Iterator[Group]:
    """Meets the other processes, through gloo on CPUs and NCCL on GPUs.

    Who and where they are is read from the environment variables that `accelerate launch` and `torchrun` set: RANK,
    WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT.

    Args:
        cpu: Whether to compute on CPUs although there are GPUs.
        meeting: Further arguments of `torch.distributed.init_process_group`.

    Raises:
        ProcessError: If they do not meet.
    """
    global _current
    from accelerate import PartialState

    if not cpu and torch.cuda.is_available():
        # Small facts travel from CPU to CPU and wait for no GPU.
        meeting = {"backend": "cuda:nccl,cpu:gloo", **meeting}
    threads = torch.get_num_threads()
    try:
        state = PartialState(cpu=cpu or not torch.cuda.is_available(), timeout=PATIENCE, **meeting)
    except (RuntimeError, ValueError, wire.DistError) as error:
        PartialState._reset_state()
        raise ProcessError(
            f"process {os.environ.get('RANK')} of {os.environ.get('WORLD_SIZE')} did not meet the others "
            f"({str(error).splitlines()[0]:.120}); check MASTER_ADDR and MASTER_PORT, or use --processes on one machine"
        ) from error
    # Accelerate chooses a number of its own.
    torch.set_num_threads(threads)
    _current = Group(state.process_index, state.num_processes, state.local_process_index)
    try:
        yield _current
    finally:
        _current = ALONE
        wire.destroy_process_group()
        PartialState._reset_state()
