"""DANN: features from which a classifier cannot tell the domain."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..data.samples import Batch, Samples
from ..errors import MethodError
from ..parts.by_domain import means_by_domain
from ..parts.gradient_reversal import reverse_gradient
from ..tasks.task import Task
from .method import Losses, Method, Needs, Part, Setting, Step


class DANN(Method):
    """Domain-adversarial training of neural networks.

    A domain classifier reads encoder features, averaged over space. It learns to tell the domains apart while
    the encoder learns to leave it nothing to tell them by. Target images need no labels; without target images
    the source domains are made alike instead, which is the method's use for domain generalisation.

    In the form "reversal" a gradient reversal stands between encoder and classifier, and one optimiser moves
    everything. In the form "alternating" the classifier has an optimiser of its own: it takes `critic_steps` steps
    on fresh batches, with a penalty on its gradient, and then the network takes one.

    Paper: Y. Ganin et al., "Domain-Adversarial Training of Neural Networks", JMLR 17 (2016),
    https://arxiv.org/abs/1505.07818. The paper has one source, one target and a binary domain loss; with more
    domains this is a softmax over them. As there, each domain's loss is a mean of its own, and the means are
    added. Deviation: `weight` scales the domain loss for classifier and encoder alike, the schedule the encoder's
    part only (as the authors do). The alternating form and its penalty follow common practice, not the paper.

    Args:
        weight: Weight of the domain loss (lambda); with 0 this is ERM.
        hidden: Width of the two hidden layers of the domain classifier.
        sharpness: How fast the reversal rises from 0 to 1 (gamma, 10 in the paper).
        levels: Encoder levels that the classifier reads, finest 0, coarsest -1.
        warm_up: Share of the run that trains the task alone first.
        form: "reversal" or "alternating".
        critic_steps: Steps of the classifier before each step of the network; "alternating" only.
        penalty: Weight of the squared gradient norm of the domain loss by the features; "alternating" only.

    Raises:
        MethodError: If there are fewer than two domains: nothing to tell apart.
    """

    needs: ClassVar[Needs] = Needs(target="optional", batches="balanced", features=True)

    def __init__(
        self,
        network: nn.Module,
        task: Task,
        setting: Setting,
        *,
        weight: float = 1.0,
        hidden: int = 256,
        sharpness: float = 10.0,
        levels: tuple[int, ...] = (-1,),
        warm_up: float = 0.0,
        form: Literal["reversal", "alternating"] = "reversal",
        critic_steps: int = 1,
        penalty: float = 0.0,
    ) -> None:
        super().__init__(network, task, setting)
        domains = len(setting.domains)
        if domains < 2:
            raise MethodError(f"DANN tells domains apart and needs at least 2 of them, got {domains}")
        self.weight = weight
        self.sharpness = sharpness
        self.levels = levels
        self.warm_up = warm_up
        self.form = form
        self.critic_steps = critic_steps
        self.penalty = penalty
        self.domain_classifier = nn.Sequential(
            nn.Linear(sum(network.widths[level] for level in levels), hidden),  # type: ignore[index, misc]
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, domains),
        )

    def phases(self) -> dict[str, float]:
        shares = {"task": self.warm_up, "adversarial": 1 - self.warm_up}
        return {name: share for name, share in shares.items() if share > 0}

    def parts(self) -> dict[str, Part]:
        if self.form == "reversal":
            return {"all": Part([self])}
        return {"all": Part([self.network]), "critic": Part([self.domain_classifier])}

    def update(self, batch: Batch, step: Step) -> Losses:
        if self.form == "alternating" and self.active(step):
            for _ in range(self.critic_steps):
                self.teach_critic(step.draw().everyone, step)
        return super().update(batch, step)

    def losses(self, batch: Batch, step: Step) -> Losses:
        if not self.active(step):
            return {"task": self.error(batch.source).mean()}
        # Source and target pass through the encoder together, so that layers with batch
        # statistics see both; only the source part, which comes first, is decoded.
        everyone = batch.everyone
        features = self.encode(everyone)
        prediction = self.decode([f[: len(batch.source)] for f in features], batch.source)
        read = reverse_gradient(self.pooled(features), self.strength(step))
        return {
            "task": self.task.loss(prediction, batch.source).mean(),
            "domain": self.weight * self.domain_loss(read, everyone, step),
        }

    def teach_critic(self, everyone: Samples, step: Step) -> None:
        with torch.no_grad():
            read = self.pooled(self.encode(everyone))
        read.requires_grad_(self.penalty > 0)
        loss = self.domain_loss(read, everyone, step)
        if self.penalty > 0:
            # By this process's features, of the joint loss: seeds of the processes add up to 1.
            (slope,) = torch.autograd.grad(step.weight * loss, read, create_graph=True)
            # That is a mean over the samples of all processes; the penalty is on the gradient of its sum.
            number = len(everyone) / step.weight
            loss = loss + self.penalty * (slope * number).square().sum(1).mean()
        step.descend(loss, "critic")

    def domain_loss(self, read: Tensor, everyone: Samples, step: Step) -> Tensor:
        """A mean within each domain, added over domains."""
        assert everyone.domain is not None  # training domains are known
        found = self.domain_classifier(read)
        error = F.cross_entropy(found, everyone.domain, reduction="none")
        step.log("domain accuracy", (found.argmax(1) == everyone.domain).float().mean())
        _, means = means_by_domain(error, everyone.domain, len(self.setting.domains), step.mean)
        return means.sum()

    def pooled(self, features: list[Tensor]) -> Tensor:
        """The levels that are read, averaged over space and put side by side, (B, C)."""
        return torch.cat([features[level].flatten(2).mean(2) for level in self.levels], dim=1)

    def active(self, step: Step) -> bool:
        return self.weight > 0 and step.phase == "adversarial"

    def strength(self, step: Step) -> float:
        """0 at the start, so that an untrained classifier's noise is ignored; near 1 at the end."""
        return 2 / (1 + math.exp(-self.sharpness * step.phase_progress)) - 1
