"""Running averages of a module's weights."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)


def frozen_copy(module: M) -> M:
    """A copy that no descent moves and that stays in evaluation mode."""
    twin = copy.deepcopy(module)
    twin.requires_grad_(False)
    return twin.eval()


@torch.no_grad()
def average_(running: nn.Module, module: nn.Module, decay: float) -> None:
    """`running` becomes `decay * running + (1 - decay) * module`, in place.

    Buffers take part: batch norm's running statistics belong to the weights that they were measured with,
    so floating-point buffers are averaged with the same decay and counters are copied.
    """
    floats, sources = [], []
    ours = [*running.parameters(), *running.buffers()]
    for mine, other in zip(ours, [*module.parameters(), *module.buffers()], strict=True):
        if mine.is_floating_point():
            floats.append(mine)
            sources.append(other.detach())
        else:
            mine.copy_(other)
    torch._foreach_lerp_(floats, sources, 1 - decay)


def warmed_decay(index: int, decay: float) -> float:
    """`min(1 - 1/(index + 1), decay)`: early on a plain mean of all iterates, later an exponential one."""
    return min(1 - 1 / (index + 1), decay)
