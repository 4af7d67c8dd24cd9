"""MLDG: a step that helps some domains must help the others too."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from ..data.samples import Batch
from ..errors import MethodError
from ..parts.by_domain import divided
from ..parts.inner import stepped
from ..tasks.task import Task
from .method import Losses, Method, Needs, Setting, Step, Weights


class MLDG(Method):
    """Meta-learning for domain generalisation.

    Each step divides the source domains into meta-train and meta-test. The meta-train loss is taken at the
    weights, the meta-test loss at the weights after a virtual gradient step on the meta-train loss, and both
    are minimised together. To first order in the inner rate this rewards gradients of different domains for
    pointing the same way.

    Paper: D. Li et al., "Learning to Generalize: Meta-Learning for Domain Generalization", AAAI 2018,
    https://arxiv.org/abs/1710.03463. As there the meta-train loss is a sum over domains, so that the inner rate
    acts on the sum. Deviations: the inner rate is 1e-3 (0.5 in the paper, for a small network on fixed
    features); the meta-test loss is a sum over the meta-test domains, one of them by default. Batch norm's running
    statistics are written by the meta-train forward only.

    Args:
        weight: Weight of the meta-test loss (beta); with 0 this is ERM on the meta-train domains of the step,
            their losses summed.
        inner_rate: Length of the virtual step (alpha).
        held_out: Number of meta-test domains in a step.
        second_order: Whether the gradient passes through the virtual step (exact) or takes it for a constant
            (first order, about half the cost).

    Raises:
        MethodError: If there are not more source domains than `held_out`.
    """

    needs: ClassVar[Needs] = Needs(sources=2, batches="balanced")

    def __init__(
        self,
        network: nn.Module,
        task: Task,
        setting: Setting,
        *,
        weight: float = 1.0,
        inner_rate: float = 1e-3,
        held_out: int = 1,
        second_order: bool = False,
    ) -> None:
        super().__init__(network, task, setting)
        if not 1 <= held_out < setting.sources:
            raise MethodError(
                f"MLDG holds {held_out} of {setting.sources} source domains out in each step; "
                f"it needs at least 1 held out and 1 left: choose held_out between 1 and {setting.sources - 1}"
            )
        self.weight = weight
        self.inner_rate = inner_rate
        self.held_out = held_out
        self.second_order = second_order

    def losses(self, batch: Batch, step: Step) -> Losses:
        domains = divided(batch.source, self.setting.sources, step.mean)
        if len(domains) <= self.held_out:
            raise MethodError(
                f"MLDG needs more than {self.held_out} source domains in each batch, got {len(domains)}; "
                'use batches = "balanced"'
            )
        order = torch.randperm(len(domains), generator=step.shared).tolist()
        test, train = order[: self.held_out], order[self.held_out :]

        def risk(chosen: list[int], weights: Weights | None = None) -> Tensor:
            means = [factor * self.error(samples, weights).mean() for samples, factor in (domains[d] for d in chosen)]
            return torch.stack(means).sum()

        loss = risk(train)
        if self.weight == 0:
            return {"meta-train": loss}
        virtual = stepped(self.network, loss, self.inner_rate, step.derivative, second_order=self.second_order)
        return {"meta-train": loss, "meta-test": self.weight * risk(test, virtual)}
