"""Mean teacher: agree with the average of one's own past, where there are no labels."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..data.samples import Batch, Samples
from ..parts.averaging import average_, frozen_copy, warmed_decay
from ..tasks.task import Prediction, Task
from .method import Losses, Method, Needs, Part, Setting, Step


class MeanTeacher(Method):
    """Self-ensembling with a running average of the weights.

    A teacher, the exponential average of the student's weights, predicts the same images under another noise;
    the student learns the labels of the source and the teacher's probabilities everywhere. With target images
    this is unsupervised domain adaptation, without them a consistency regulariser. The teacher predicts.

    Paper: A. Tarvainen, H. Valpola, "Mean teachers are better role models", NeurIPS 2017,
    https://arxiv.org/abs/1703.01780; for adaptation of segmentation networks: C. S. Perone et al., "Unsupervised
    domain adaptation for medical imaging segmentation with self-ensembling", NeuroImage 194 (2019),
    https://arxiv.org/abs/1811.06042. The ramp is over the whole run (200 x 150 iterations in the reference
    settings for segmentation). The noise of student and teacher is Gaussian of standard deviation `noise`, cut at
    twice that; the source images take part in the consistency loss, as in the first paper. The teacher's batch norm
    uses its running statistics, which are averaged with the weights.

    Args:
        weight: Largest weight of the consistency loss (w_max), reached at the end as `exp(-5 (1 - progress)^2)`;
            with 0 the student is ERM.
        decay: Decay of the average (a); early on the average is a plain mean.
        noise: Standard deviation of the noise on the image, which is of unit variance; cut at twice that
            (0.1 and 0.2 in the reference settings).
    """

    needs: ClassVar[Needs] = Needs(target="optional")

    def __init__(
        self,
        network: nn.Module,
        task: Task,
        setting: Setting,
        *,
        weight: float = 0.1,
        decay: float = 0.99,
        noise: float = 0.1,
    ) -> None:
        super().__init__(network, task, setting)
        self.weight = weight
        self.decay = decay
        self.noise = noise
        self.teacher = frozen_copy(network)

    def parts(self) -> dict[str, Part]:
        return {"student": Part([self.network])}

    def train(self, mode: bool = True) -> MeanTeacher:
        super().train(mode)
        self.teacher.eval()
        return self

    def update(self, batch: Batch, step: Step) -> Losses:
        losses = {"task": self.error(batch.source).mean()}
        weight = self.weight * math.exp(-5 * (1 - step.progress) ** 2)
        if weight > 0:
            everyone = batch.everyone
            with torch.no_grad():
                taught = self.teach(self.noisy(everyone, step))
            disagreement = self.task.distance(self(self.noisy(everyone, step)), taught).mean()
            losses["consistency"] = weight * disagreement
        step.descend(torch.stack(list(losses.values())).sum(), "student")
        average_(self.teacher, self.network, warmed_decay(step.index, self.decay))
        return losses

    def noisy(self, samples: Samples, step: Step) -> Samples:
        noise = (self.noise * step.noise(samples.image)).clamp(-2 * self.noise, 2 * self.noise)
        return samples.replace(image=samples.image + noise)

    def teach(self, samples: Samples) -> Prediction:
        prediction: Prediction | Tensor = self.teacher(*self.task.inputs(samples))
        return prediction

    def predict(self, samples: Samples) -> Prediction:
        return self.teach(samples)
