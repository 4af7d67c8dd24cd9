"""What random parameters are drawn from."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor


@dataclass(frozen=True)
class Uniform:
    """Uniform between two numbers.

    Args:
        low: Lower end.
        high: Upper end.
        size: Numbers per draw, one for each axis for example; None for a single one.
        shared: All channels of a sample have the same number.
        around: Below and above this number with equal probability, uniform on each side, so that a range such
            as 0.7 to 1.5 does not strengthen more often than it weakens.
    """

    low: float
    high: float
    size: int | None = None
    shared: bool = False
    around: float | None = None

    def draw(self, shape: tuple[int, ...], generator: Generator) -> Tensor:
        if self.around is None:
            return torch.rand(shape, generator=generator).mul_(self.high - self.low).add_(self.low)
        upper = torch.randint(2, shape, generator=generator).bool()
        reach = torch.where(upper, self.high - self.around, self.low - self.around)
        return torch.rand(shape, generator=generator).mul_(reach).add_(self.around)

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}"


@dataclass(frozen=True)
class Normal:
    """Gaussian around `mean` with standard deviation `std`. `size` and `shared` as for `Uniform`."""

    std: float
    size: int | None = None
    shared: bool = False
    mean: float = 0.0

    def draw(self, shape: tuple[int, ...], generator: Generator) -> Tensor:
        value = self.std * torch.randn(shape, generator=generator)
        return value + self.mean if self.mean else value

    def __str__(self) -> str:
        return f"{f'mean {self.mean:g}, ' if self.mean else ''}std {self.std:g}"


@dataclass(frozen=True)
class Seed:
    """Seeds of what is too large to be drawn in advance, such as noise of every voxel."""

    size: None = None
    shared: bool = False

    def draw(self, shape: tuple[int, ...], generator: Generator) -> Tensor:
        return torch.randint(2**32, shape, generator=generator)  # a CPU's generator looks at no more bits

    def __str__(self) -> str:
        return ""


Span = Uniform | Normal | Seed


@dataclass(frozen=True)
class Chance:
    """Something that happens to a sample with a probability, by an amount drawn from a span."""

    probability: float
    span: Uniform

    @property
    def range(self) -> tuple[float, float]:
        return self.span.low, self.span.high
