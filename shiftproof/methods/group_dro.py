"""GroupDRO: weight on the domains that are worst."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from ..data.samples import Batch
from ..parts.by_domain import means_by_domain
from ..tasks.task import Task
from .method import Losses, Method, Needs, Reader, Setting, Step


class GroupDRO(Method):
    """Distributionally robust optimisation over domains.

    A weight for each source domain grows exponentially with that domain's loss, and the weighted loss is
    minimised: training cares most for the domains that it serves worst.

    Paper: S. Sagawa et al., "Distributionally Robust Neural Networks for Group Shifts: On the Importance of
    Regularization for Worst-Case Generalization", ICLR 2020, https://arxiv.org/abs/1911.08731. The weights are
    updated before the loss is formed, as in the paper's algorithm. A domain without a sample in the batch keeps
    its relative weight, and the loss is a weighted mean over the domains that are present.

    Args:
        rate: How fast the domain weights move (eta); with 0 this is ERM with one mean a domain, averaged
            over domains: plain ERM on domain-balanced batches.
        adjustment: C of the size adjustment `C / sqrt(n)`, n being the domain's number of training samples: small
            domains, whose training loss says least, get more weight. 0 switches it off.
    """

    needs: ClassVar[Needs] = Needs(batches="balanced")
    weights: Tensor
    sizes: Tensor

    def __init__(
        self,
        network: nn.Module,
        task: Task,
        setting: Setting,
        *,
        rate: float = 0.01,
        adjustment: float = 0.0,
    ) -> None:
        super().__init__(network, task, setting)
        self.rate = rate
        self.adjustment = adjustment
        self.register_buffer("weights", torch.full((setting.sources,), 1 / setting.sources))
        self.register_buffer("sizes", torch.ones(setting.sources))

    def begin(self, phase: str, reader: Reader) -> None:
        if self.adjustment:
            domains = torch.cat([s.domain for s in reader.source() if s.domain is not None]).cpu()
            counts = torch.bincount(domains, minlength=len(self.sizes))[: len(self.sizes)]
            self.sizes.copy_(counts.clamp(min=1))

    def losses(self, batch: Batch, step: Step) -> Losses:
        assert batch.source.domain is not None  # training domains are known
        index, risks = means_by_domain(self.error(batch.source), batch.source.domain, self.setting.sources, step.mean)

        with torch.no_grad():
            exponent = risks + self.adjustment / self.sizes[index].sqrt()
            before = self.weights[index].sum()
            moved = self.weights[index] * torch.exp(self.rate * exponent)
            # The share of absent domains stays as it was; rounding is kept from adding up.
            self.weights[index] = moved / moved.sum() * before
            self.weights /= self.weights.sum()
            weights = self.weights[index] / self.weights[index].sum()
        for d, weight in zip(index.tolist(), weights, strict=True):
            step.log(f"weight {self.setting.domains[d]}", weight)
        return {"task": (weights * risks).sum()}
