"""What a number usually is for each of two kinds of samples, where a batch may hold few of a kind."""

from __future__ import annotations

import torch
from torch import Tensor, nn

FEWEST = 4
"""Samples of a kind whose mean says what is usual; of fewer the mean of the past stands in."""

MEMORY = 0.9
"""Decay of that mean, from batch to batch."""


class KindMeans(nn.Module):
    """The mean of each kind, in the batch if it has enough of it, else over past batches; on the CPU in use.

    A batch of two has one patch of each kind, which differs from its own mean by nothing.

    Args:
        kinds: How many there are.
    """

    past: Tensor
    known: Tensor

    def __init__(self, kinds: int = 2) -> None:
        super().__init__()
        self.register_buffer("past", torch.zeros(kinds))
        self.register_buffer("known", torch.zeros(kinds, dtype=torch.int32))

    def forward(self, values: Tensor, kinds: Tensor) -> Tensor:
        """What is usual for each sample's kind, (B,), and takes the values into the past.

        Args:
            values: (B,), of all samples of a batch.
            kinds: (B,) whole numbers.
        """
        found, past = torch.empty_like(values), self.past.cpu().to(values)
        for kind in kinds.unique().tolist():
            own = kinds == kind
            here = values[own].mean()
            before = past[kind] if self.known[kind] else here
            found[own] = here if int(own.sum()) >= FEWEST else before
            past[kind] = before + (1 - MEMORY) * (here - before)
            self.known[kind] = 1
        self.past.copy_(past)
        return found
