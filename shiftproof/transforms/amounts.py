"""How much of a chosen option acts on each sample."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .groups import Group, Option


class Drawn:
    """Amounts (B,) of the chosen options of one group, of use where `chosen`.

    Args:
        options: Of the group.
        index: (B,) which of them.
        chosen: (B,) bool, whether it is of the operation in question.
        share: (B,) in -1 to 1, where in its range the amount lies.
        side: (B,) -1 or 1, the sign where the option leaves it open.
    """

    def __init__(self, options: Sequence[Option], index: Tensor, chosen: Tensor, share: Tensor, side: Tensor) -> None:
        def column(values: Sequence[float]) -> Tensor:
            return torch.tensor(values)[index]

        self.options, self.index, self.chosen = options, index, chosen
        middle, spread = column([o.magnitude for o in options]), column([o.spread for o in options])
        self.amount = (middle + share * spread).clamp_min(0)
        given = column([float(o.sign) for o in options])
        self.sign = torch.where(given == 0, side.to(given.dtype), given)
        self.signed = self.sign * self.amount
        ratio = column([float(o.ratio) for o in options]).bool() & (self.sign < 0)
        self.factor = torch.where(ratio, 1 / (1 + self.amount), 1 + self.signed)

    def along(self, axis: int) -> Tensor:
        return torch.tensor([axis in option.axes for option in self.options])[self.index]

    def of(self, operation: str) -> Tensor:
        """As the operation's parameter has it."""
        if operation == "noise":
            return self.amount**2
        if operation == "ramp":
            return torch.tensor([float(sum(option.axes)) for option in self.options])[self.index]
        if operation == "low resolution":
            return self.amount.clamp_max(1)
        if operation in ("blur", "sharpen"):
            return self.amount
        return self.signed if operation in ("add", "constant") else self.factor


def by_operation(group: Group) -> dict[str, list[int]]:
    """Places of the group's options by what they do; identity is left out."""
    found: dict[str, list[int]] = {}
    for place, option in enumerate(group.options):
        if option.operation != "identity":
            found.setdefault(option.operation, []).append(place)
    return found


def least_factor(option: Option) -> float:
    """What an option of scaling shrinks by at most."""
    most = option.magnitude + option.spread
    return 1 / (1 + most) if option.ratio else 1 - most
