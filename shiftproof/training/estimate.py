"""What a training will take, memory and time, from one small step and a few real ones."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..data.samples import Batch, Samples
from ..data.sampling import Feed, seed_of
from ..methods.method import Method
from .machine import available_bytes, device_of, enough_memory
from .steps import SCHEDULES, Mover, RunningStep, movers, phase_at

if TYPE_CHECKING:
    from ..train import Trainer

Augment = Callable[[Samples, torch.Generator], Samples]

LOADED = 3
"""Batches in memory at once: the one in use, its augmented form, the next one."""

TRANSIENT = 2
"""Gradients of feature maps, and what a layer computes with, beside what is saved: in multiples of the largest map."""


@dataclass(frozen=True)
class Estimate:
    """Memory of one process, and time.

    Args:
        parameters: Numbers that are trained.
        state_bytes: Weights and buffers of the method, teachers and the running average included.
        gradient_bytes: Gradients.
        optimizer_bytes: Moments of the optimisers.
        activation_bytes: At most, of what a step keeps for its backward passes, and computes with.
        data_bytes: Batches.
        available_bytes: What the device has left; None where that is unknown.
        seconds_per_step: Median of a few steps; None where none was timed.
        seconds: Of all steps, without validation; likewise.
    """

    parameters: int
    state_bytes: int
    gradient_bytes: int
    optimizer_bytes: int
    activation_bytes: int
    data_bytes: int
    available_bytes: int | None
    seconds_per_step: float | None = None
    seconds: float | None = None

    @property
    def total_bytes(self) -> int:
        parts = (self.state_bytes, self.gradient_bytes, self.optimizer_bytes, self.activation_bytes, self.data_bytes)
        return sum(parts)

    @property
    def fits(self) -> bool:
        """Whether there is room; where nothing is known, yes."""
        return self.available_bytes is None or self.total_bytes <= self.available_bytes

    def as_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self) | {"total_bytes": self.total_bytes, "fits": self.fits}

    def line(self) -> str:
        """One line for people."""
        words = f"{self.parameters / 1e6:.2f} million parameters; memory about {size_of(self.total_bytes)}"
        words += f" (activations {size_of(self.activation_bytes)})"
        if self.available_bytes is not None:
            words += f" of {size_of(self.available_bytes)} available"
        if self.seconds_per_step is not None and self.seconds is not None:
            words += f"; {self.seconds_per_step:.2g} s a step, about {duration_of(self.seconds)} without validation"
        return words if self.fits else f"{words}. It may not fit: use a smaller --batch or --patch, or --precision bf16"


def estimated(
    trainer: Trainer,
    method: Method,
    feed: Feed,
    transform: Augment | None = None,
    *,
    processes: int = 1,
    timed: int = 3,
) -> Estimate:
    """An estimate for `Trainer.fit` with the same arguments, on throw-away copies.

    A step on the smallest batch that the method takes is watched: what autograd saves grows with the batch.

    Args:
        trainer, method, feed, transform: As they will be trained.
        processes: That share each batch.
        timed: Real steps to time after one to warm up; 0 for none.

    Raises:
        OutOfMemory: If not even these steps fit.
    """
    device = torch.device(device_of(trainer.device))
    least, own = smallest(method, feed), -(-feed.size // processes)
    room = available_bytes(device)
    with enough_memory(lambda: "a step to estimate memory and time did not fit"):
        trial = Trial(trainer, method, dataclasses.replace(feed, size=least), transform, device)
        with watched(trial.method) as saved:
            trial.step(0)
        state = _bytes(trial.method) * (1 if trainer.average == "none" else 2)
        moments = sum(_moments(mover) for mover in trial.movers.values())
        moved = {id(p): p for mover in trial.movers.values() for p in mover.parameters}.values()
        one = trial.batch_bytes / least
        trial.feed = dataclasses.replace(feed, size=own) if processes > 1 else feed
        times = [trial.step(index + 1) for index in range(timed + 1)] if timed else []
    per_step = sorted(times[1:])[timed // 2] if times else None
    total = None
    if per_step is not None:
        total = per_step * trainer.steps
        total = total if trainer.seconds is None else min(total, trainer.seconds)
    return Estimate(
        parameters=sum(p.numel() for p in moved),
        state_bytes=state,
        gradient_bytes=sum(p.numel() * p.element_size() for p in moved),
        optimizer_bytes=moments,
        activation_bytes=round((saved.most + TRANSIENT * saved.largest) * own / least),
        data_bytes=round(LOADED * one * own),
        available_bytes=room,
        seconds_per_step=per_step,
        seconds=total,
    )


def smallest(method: Method, feed: Feed) -> int:
    """Samples in the smallest batch that the method takes, 2 at least: batch norm takes no single one."""
    if feed.batches != method.needs.batches:
        return feed.size
    domains = len({case.domain for case in feed.source}) if feed.batches == "balanced" else 1
    return min(feed.size, max(2, domains))


class Trial:
    """Steps on a copy of a method that leave no trace."""

    def __init__(
        self, trainer: Trainer, method: Method, feed: Feed, transform: Augment | None, device: torch.device
    ) -> None:
        self.trainer, self.feed, self.transform, self.device = trainer, feed, transform, device
        self.method = copy.deepcopy(method).to(device)
        self.movers = movers(self.method, trainer)
        self.batch_bytes = 0

    def step(self, index: int) -> float:
        """Seconds of one."""
        trainer = self.trainer
        before = torch.random.get_rng_state()
        torch.manual_seed(seed_of(trainer.seed, 9, index))
        started = time.perf_counter()
        batch = self.drawn(index, 0)
        every = (batch.source, batch.target, batch.plain, *batch.streams.values())
        self.batch_bytes = sum(_size(s) for s in every if s is not None)
        # The last phase is the dearest: methods warm up without what makes them special.
        phase, within = phase_at(self.method.phases(), 1.0)
        random = torch.Generator().manual_seed(index)
        step = RunningStep(
            index, 1.0, phase, within, random, self.movers, SCHEDULES[trainer.schedule], trainer.clip,
            lambda draw: self.drawn(index, draw), {},
        )  # fmt: skip
        self.method.train()
        low = trainer.precision == "bf16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=low, cache_enabled=False):
            self.method.update(batch, step)
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        torch.random.set_rng_state(before)
        return time.perf_counter() - started

    def drawn(self, index: int, draw: int) -> Batch:
        batch = self.feed.batch(index, draw).to(self.device)
        needs = self.method.needs
        if needs.plain:
            batch.plain = batch.source.central(self.method.setting.patch)
        if self.transform is not None and not needs.own_transforms:
            random = torch.Generator().manual_seed(index)
            with torch.autocast(self.device.type, enabled=False):
                batch.source = self.transform(batch.source, random)
                if batch.target is not None:
                    batch.target = self.transform(batch.target, random)
        return batch


class Saved:
    """Bytes that autograd keeps for backward passes: now, at most, and the largest piece."""

    def __init__(self, known: set[int]) -> None:
        self.known = known
        self.held: dict[int, int] = {}
        self.now = self.most = self.largest = 0

    def pack(self, tensor: Tensor) -> _Piece:
        return _Piece(tensor, self)

    def take(self, tensor: Tensor) -> int | None:
        storage = tensor.untyped_storage()
        key = storage.data_ptr()
        if key in self.known:  # weights, which are counted by themselves
            return None
        self.held[key] = self.held.get(key, 0) + 1
        if self.held[key] == 1:
            self.now += storage.nbytes()
            self.most, self.largest = max(self.most, self.now), max(self.largest, storage.nbytes())
        return key

    def leave(self, key: int, size: int) -> None:
        self.held[key] -= 1
        if not self.held[key]:
            del self.held[key]
            self.now -= size


class _Piece:
    """A saved tensor, counted as long as its graph lives."""

    def __init__(self, tensor: Tensor, saved: Saved) -> None:
        self.tensor, self.saved = tensor, saved
        self.size = tensor.untyped_storage().nbytes()
        self.key = saved.take(tensor)

    def __del__(self) -> None:
        if self.key is not None:
            self.saved.leave(self.key, self.size)


@contextlib.contextmanager
def watched(method: Method) -> Iterator[Saved]:
    """Counts what autograd saves within; storages that several nodes save count once."""
    tensors = [*method.parameters(), *method.buffers()]
    saved = Saved({t.untyped_storage().data_ptr() for t in tensors})
    with torch.autograd.graph.saved_tensors_hooks(saved.pack, lambda piece: piece.tensor):
        yield saved


def _bytes(method: Method) -> int:
    return sum(t.numel() * t.element_size() for t in [*method.parameters(), *method.buffers()])


def _moments(mover: Mover) -> int:
    values = [v for state in mover.optimizer.state.values() for v in state.values() if isinstance(v, Tensor)]
    return sum(v.numel() * v.element_size() for v in values)


def _size(samples: Samples) -> int:
    found = 0

    def count(tensor: Tensor) -> Tensor:
        nonlocal found
        found += tensor.numel() * tensor.element_size()
        return tensor

    samples.mapped(count)
    return found


def size_of(number: float) -> str:
    """Bytes for people."""
    for unit in ("B", "kB", "MB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} GB"


def duration_of(seconds: float) -> str:
    """A duration for people."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
