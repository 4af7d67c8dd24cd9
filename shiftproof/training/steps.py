"""One step as a method sees it: the optimisers, their rates, clipping and the finite check, in one place."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..data.samples import Batch
from ..errors import DivergedError, OptionError
from ..methods.method import Method, Part
from .group import ALONE, Group
from .rmsprop import NesterovRMSProp

if TYPE_CHECKING:
    from ..train import Trainer

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adamw": torch.optim.AdamW,
    "adam": torch.optim.Adam,
    "sgd": torch.optim.SGD,
    "nesterov": functools.partial(torch.optim.SGD, nesterov=True),
    "rmsprop": torch.optim.RMSprop,
    "deepmedic": NesterovRMSProp,
}

WITH_MOMENTUM = ("sgd", "nesterov", "rmsprop", "deepmedic")

HALVED = (17 / 35, 22 / 35, 27 / 35, 30 / 35, 33 / 35)
"""Progress at which DeepMedic's rate is halved: epochs of 35."""

SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda progress: 1.0,
    "poly": lambda progress: (1 - progress) ** 0.9,
    "cosine": lambda progress: 0.5 * (1 + math.cos(math.pi * progress)),
    # The schedule of the DANN paper.
    "inverse": lambda progress: (1 + 10 * progress) ** -0.75,
    "halving": lambda progress: 0.5 ** sum(progress >= at for at in HALVED),
}


class Mover:
    """A part of a method with the optimiser that moves it."""

    def __init__(self, part: Part, optimizer: str, options: dict[str, Any], rate: float) -> None:
        self.part = part
        self.rate = part.rate if part.rate is not None else rate
        kind = part.optimizer or optimizer
        if kind not in OPTIMIZERS:
            raise OptionError(f'there is no optimizer "{kind}"; known: {", ".join(OPTIMIZERS)}')
        seen = {id(p): p for module in part.modules for p in module.parameters() if p.requires_grad}
        self.parameters: list[nn.Parameter] = list(seen.values())
        # The trainer's options belong to the trainer's kind of optimiser.
        chosen = {**(options if kind == optimizer else {}), **part.options}
        self.optimizer = OPTIMIZERS[kind](self.parameters, lr=self.rate, **chosen)


def movers(method: Method, trainer: Trainer) -> dict[str, Mover]:
    """An optimiser for each part of the method."""
    options: dict[str, Any] = {"weight_decay": trainer.weight_decay}
    if trainer.optimizer in WITH_MOMENTUM:
        options["momentum"] = trainer.momentum
    return {name: Mover(part, trainer.optimizer, options, trainer.rate) for name, part in method.parts().items()}


def phase_at(phases: dict[str, float], progress: float) -> tuple[str, float]:
    """The phase in which `progress` lies, and the progress within it."""
    total, start = sum(phases.values()), 0.0
    last = list(phases)[-1]
    for name, share in phases.items():
        end = start + share / total
        if progress < end or name == last:
            return name, min(max((progress - start) / max(end - start, 1e-12), 0.0), 1.0)
        start = end
    raise AssertionError("the last phase takes what is left")


@dataclass
class RunningStep:
    """The `Step` that the trainer hands to a method; see `shiftproof.methods.method.Step`.

    Args:
        group: The processes that share the batch, each the samples `rank, rank + size, ...` of it.
        batch: Samples in the joint source batch; with several processes only.
        joint: Random numbers that are the same in all of them, on the device; likewise.
    """

    index: int
    progress: float
    phase: str
    phase_progress: float
    shared: torch.Generator
    movers: dict[str, Mover]
    schedule: Callable[[float], float]
    clip: float | None
    drawn: Callable[[int], Batch]
    logged: dict[str, list[Tensor | float]]
    draws: int = 0
    group: Group = ALONE
    batch: int = 0
    joint: torch.Generator | None = None

    @property
    def weight(self) -> float:
        """This process's share of the joint batch."""
        return self.group.share(self.batch)

    def rate(self, part: str = "all") -> float:
        mover = self.movers[part]
        return mover.rate * (mover.part.schedule or self.schedule)(self.progress)

    def parameters(self, part: str = "all") -> list[nn.Parameter]:
        return self.movers[part].parameters

    def gradient(self, loss: Tensor, part: str = "all", keep: bool = False) -> list[Tensor | None]:
        """Gradient of `loss` by the part's parameters; None where the loss does not reach."""
        return self.derivative(loss, self.parameters(part), keep=keep)

    def derivative(
        self, loss: Tensor, by: Sequence[Tensor], *, keep: bool = False, differentiable: bool = False
    ) -> list[Tensor | None]:
        """Of the joint loss, by tensors that are the same in all processes; None where it does not reach."""
        options: dict[str, Any] = {"retain_graph": keep or None, "create_graph": differentiable, "allow_unused": True}
        if not self.group.several:
            return list(torch.autograd.grad(loss, by, **options))
        return self.group.total(torch.autograd.grad(self.weight * loss, by, **options), by)

    def move(self, gradients: list[Tensor | None], part: str = "all") -> None:
        """Clip, check and step.

        Raises:
            DivergedError: If the gradient is not finite; the weights are then still those before the step.
        """
        mover = self.movers[part]
        given = [g for g in gradients if g is not None]
        norm = torch.nn.utils.get_total_norm(given)
        if not bool(torch.isfinite(norm)):
            raise DivergedError(
                f'the gradient of part "{part}" is not finite at step {self.index}; '
                "lower the learning rate, clip the gradient, or train in float32"
            )
        largest = mover.part.clip if mover.part.clip is not None else self.clip
        for parameter, gradient in zip(mover.parameters, gradients, strict=True):
            parameter.grad = gradient
        if largest is not None:
            torch.nn.utils.clip_grads_with_norm_(mover.parameters, largest, norm)
        for group in mover.optimizer.param_groups:
            group["lr"] = self.rate(part)
        mover.optimizer.step()
        for parameter in mover.parameters:
            parameter.grad = None
        if mover.part.after is not None:
            mover.part.after()

    def descend(self, loss: Tensor, part: str = "all", keep: bool = False) -> None:
        self.move(self.gradient(loss, part, keep), part)

    def draw(self) -> Batch:
        """A further batch, different from this step's and from each other."""
        self.draws += 1
        return self.drawn(self.draws)

    def mean(self, x: Tensor) -> Tensor:
        """Over processes, each by its share of the samples; differentiable.

        Of a mean over the own samples it is the mean over the joint batch.
        """
        return self.group.sum(self.weight * x) if self.group.several else x

    def gather(self, x: Tensor) -> Tensor:
        """The rows of all processes; differentiable."""
        return self.group.gather(x)

    def mirrored(self, x: Tensor) -> Tensor:
        """The rows at the other end of the joint batch: for its sample i of n, that of n - 1 - i; without a gradient.

        Of an odd batch the middle one is its own.
        """
        x, group = x.detach(), self.group
        if not group.several:
            return x.flip(0)
        # Truth values are sent as numbers.
        every = group.gather(x.to(torch.uint8) if x.dtype == torch.bool else x).to(x.dtype)
        # Rows come process by process; each has every so manieth sample.
        order = [i for rank in range(group.size) for i in range(rank, self.batch, group.size)]
        place = torch.tensor(order, device=x.device).argsort()
        return every[place].flip(0)[group.rank :: group.size]

    def own(self, x: Tensor) -> Tensor:
        """This process's rows of what has a row for each sample of the joint source batch."""
        return x[self.group.rank :: self.group.size]

    def noise(self, like: Tensor) -> Tensor:
        """Standard normal, for `like` (B, ...) with one or more rows a sample; the joint batch's own in every process.

        B is that of the source batch, or a multiple: source, then target.
        """
        group = self.group
        if not group.several:
            return torch.randn_like(like)
        own = range(group.rank, self.batch, group.size)
        blocks = len(like) // len(own)
        rows = [block * self.batch + place for block in range(blocks) for place in own]
        shape = (blocks * self.batch, *like.shape[1:])
        return torch.randn(shape, generator=self.joint, dtype=like.dtype, device=like.device)[rows]

    def log(self, name: str, value: Tensor | float) -> None:
        self.logged.setdefault(name, []).append(value.detach() if isinstance(value, Tensor) else value)
