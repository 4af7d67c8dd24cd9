"""One step as a method sees it: the optimisers, their rates, clipping and the finite check, in one place."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .data.samples import Batch
from .errors import DivergedError, OptionError
from .methods.method import Part

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adamw": torch.optim.AdamW,
    "adam": torch.optim.Adam,
    "sgd": torch.optim.SGD,
    "rmsprop": torch.optim.RMSprop,
}

SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda progress: 1.0,
    "poly": lambda progress: (1 - progress) ** 0.9,
    "cosine": lambda progress: 0.5 * (1 + math.cos(math.pi * progress)),
    # The schedule of the DANN paper.
    "inverse": lambda progress: (1 + 10 * progress) ** -0.75,
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


@dataclass
class RunningStep:
    """The `Step` that the trainer hands to a method; see `shiftproof.methods.method.Step`."""

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

    def rate(self, part: str = "all") -> float:
        mover = self.movers[part]
        return mover.rate * (mover.part.schedule or self.schedule)(self.progress)

    def parameters(self, part: str = "all") -> list[nn.Parameter]:
        return self.movers[part].parameters

    def gradient(self, loss: Tensor, part: str = "all", keep: bool = False) -> list[Tensor | None]:
        """Gradient of `loss` by the part's parameters; None where the loss does not reach."""
        return list(torch.autograd.grad(loss, self.parameters(part), retain_graph=keep or None, allow_unused=True))

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
        """Over processes; there is one."""
        return x

    def log(self, name: str, value: Tensor | float) -> None:
        self.logged.setdefault(name, []).append(value.detach() if isinstance(value, Tensor) else value)
