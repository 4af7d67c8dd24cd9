"""Mixup: mixtures of two images, labelled so that the boundary moves away from what is rare."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

from torch import nn

from ..data.samples import Batch
from ..parts.mixing import Mixing
from ..parts.rare_inputs import patches_of, rare_classes
from ..tasks.task import Task
from .method import Losses, Method, Needs, Setting, Step


class Mixup(Method):
    """Mixup, in the form for rare classes.

    Each image is mixed with the one at the other end of the batch. Where a rare and a common class meet, the mixture
    is a rare one as soon as more than `margin` of it is: such voxels lie near the boundary and push it into the common
    side. Where two rare or two common classes meet nothing is learned. In the symmetric form labels are mixed as images
    are. The mixtures have an optimiser step of their own, after the ordinary one.

    Paper: Z. Li, K. Kamnitsas, B. Glocker, "Analyzing Overfitting under Class Imbalance in Neural Networks for Image
    Segmentation", IEEE TMI 40 (2021), https://arxiv.org/abs/2102.10365; symmetric: H. Zhang et al., "mixup: Beyond
    Empirical Risk Minimization", ICLR 2018, https://arxiv.org/abs/1710.09412, whose method is this with
    `asymmetric = false` and `ordinary = false`. One share is drawn for the whole batch. Voxels of which nothing is
    learned count in the mean of cross-entropies and take no part in Dice. Structures that may overlap are decided each
    by itself, which the papers do not have. Cost: twice that of ERM.

    Args:
        asymmetric: Whether rare classes win in mixtures; false: labels are mixed as images are.
        rare: Names of the rare classes; none given takes all structures or findings. To be given
            where one class is chosen for an image.
        alpha: Of the share's Beta(alpha, alpha) distribution: 1 is uniform, small values mix little. With 0 nothing is
            mixed in the symmetric form, and the share is `1 - margin` in the asymmetric one.
        margin: Of the asymmetric form: share that a rare class must have more than, and least share of the partner (m).
        ordinary: Whether the ordinary step is taken; without it, symmetric and with alpha 0 this is ERM.
        plain: Whether the second step uses the patches without augmentation, which is steadier where that is strong.

    Raises:
        OptionError: For a rare class that does not exist, or an alpha or margin out of range.
        MethodError: In training, if the batch has a single sample: nothing to mix it with.
    """

    needs: ClassVar[Needs] = Needs(tasks=("segmentation", "classification"))

    def __init__(
        self,
        network: nn.Module,
        task: Task,
        setting: Setting,
        *,
        asymmetric: bool = True,
        rare: tuple[str, ...] | None = None,
        alpha: float = 1.0,
        margin: float = 0.2,
        ordinary: bool = True,
        plain: bool = False,
    ) -> None:
        super().__init__(network, task, setting)
        self.mixing = Mixing(task, rare_classes(task, rare, asymmetric=asymmetric), alpha, margin)
        self.ordinary = ordinary
        self.plain = plain
        if plain:
            # Of this instance: only here are the patches wanted.
            vars(self)["needs"] = replace(self.needs, plain=True)

    @classmethod
    def least_batch(cls, **options: Any) -> int:
        return 2

    def update(self, batch: Batch, step: Step) -> Losses:
        losses: Losses = {}
        if self.ordinary:
            losses["task"] = self.error(batch.source).mean()
            step.descend(losses["task"])
        samples = patches_of(batch, plain=self.plain)
        losses["mixup"] = self.error(self.mixing.of(samples, step)).mean()
        step.descend(losses["mixup"])
        return losses
