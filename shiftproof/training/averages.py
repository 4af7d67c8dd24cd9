"""The average of the weights that is validated and kept instead of the last ones."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from ..data.samples import Samples
from ..methods.method import Method
from ..parts.averaging import average_, frozen_copy, warmed_decay

AVERAGES = ("none", "ema", "swa")

TAIL = 0.75
"""Progress from which "swa" averages."""


class Average:
    """A running average of a method, buffers included.

    Args:
        kind: "ema", an exponential average, or "swa", the mean over the last quarter of the run.
        method: What is averaged; a copy is made.
        decay: Of "ema".
        taken: Iterates in the average so far.
    """

    def __init__(self, kind: str, method: Method, decay: float) -> None:
        self.kind, self.decay = kind, decay
        self.method = frozen_copy(method)
        self.taken = 0

    def take(self, method: Method, progress: float) -> None:
        """Adds the weights that the method has now."""
        if self.kind == "ema":
            average_(self.method, method, warmed_decay(self.taken, self.decay))
            self.taken += 1
        elif progress >= TAIL or self.taken == 0:
            # Before the tail begins the average follows the weights, so that early validations are of them.
            tail = progress >= TAIL
            average_(self.method, method, self.taken / (self.taken + 1) if tail else 0.0)
            self.taken += tail

    @torch.no_grad()
    def re_estimate(self, passes: Iterable[Samples]) -> None:
        """Batch norm's running statistics for averaged weights, from one pass over the training data."""
        norms = [m for m in self.method.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        norms = [m for m in norms if m.running_mean is not None]
        if not norms:
            return
        before = [({n: b.clone() for n, b in m.named_buffers()}, m.momentum) for m in norms]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # a plain mean over the batches
            norm.train()
        for samples in passes:
            self.method.predict(samples)
        for norm, (buffers, momentum) in zip(norms, before, strict=True):
            if norm.num_batches_tracked == 0:  # of a part that does not predict
                for name, buffer in norm.named_buffers():
                    buffer.copy_(buffers[name])
            norm.momentum = momentum
            norm.eval()
