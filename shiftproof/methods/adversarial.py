"""Adversarial training: images moved to where the network does worst on what is rare."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Literal

from torch import nn

from ..data.samples import Batch, Samples
from ..parts.adversarial import RMS_RADIUS, Attack
from ..parts.rare_inputs import patches_of, rare_classes
from ..tasks.task import Task
from .method import Losses, Method, Needs, Setting, Step


class AdversarialTraining(Method):
    """Adversarial training, in the form for rare classes.

    To each image the direction is added that raises the cross-entropy of its rare voxels most, found with one gradient
    at a random start. The network then learns the moved image with its label and the whole loss, in an optimiser step
    of its own after the ordinary one: what is rare is seen where it is nearly missed. In the symmetric form the
    direction is that of all classes.

    Paper: Z. Li, K. Kamnitsas, B. Glocker, "Analyzing Overfitting under Class Imbalance in Neural Networks for Image
    Segmentation", IEEE TMI 40 (2021), https://arxiv.org/abs/2102.10365; symmetric: I. J. Goodfellow et al., "Explaining
    and Harnessing Adversarial Examples", ICLR 2015, https://arxiv.org/abs/1412.6572. The random start is Gaussian.
    Deviations: the length is given by voxel, so that it means the same on patches of any size, and the published 10 on
    four channels of 37 x 37 x 37 voxels is the default; Dice in the direction is of each sample by itself; batch norm
    does not remember the pass that finds the direction. Cost: about three times that of ERM.

    Args:
        asymmetric: Whether the direction is that of the rare classes; false: of all.
        rare: Names of the rare classes; none given takes all structures or findings. To be given
            where one class is chosen for an image.
        radius: Length of what is added, over all voxels and channels of a patch (l; 10 in the paper); given, it is
            taken instead of `rms_radius`. With 0 the second step is an ordinary one, too.
        rms_radius: The same as a root mean square by voxel, in units of the image, which has variance 1.
        start: Distance of the random start from the image (xi); the result hardly depends on it.
        overlap: Whether the direction climbs against soft Dice too; by default if the loss has an overlap in it.
        order: "before": the direction is found before the ordinary step, "after": after it.
        ordinary: Whether the ordinary step is taken; without it and with radius 0 this is ERM.
        plain: Whether the second step uses the patches without augmentation, which is steadier where that is strong.

    Raises:
        OptionError: For a rare class that does not exist, or a negative length.
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
        radius: float | None = None,
        rms_radius: float = RMS_RADIUS,
        start: float = 1e-5,
        overlap: bool | None = None,
        order: Literal["before", "after"] = "before",
        ordinary: bool = True,
        plain: bool = False,
    ) -> None:
        super().__init__(network, task, setting)
        chosen = rare_classes(task, rare, asymmetric=asymmetric)
        self.attack = Attack(task, chosen, radius, rms_radius, start, overlap)
        self.order = order
        self.ordinary = ordinary
        self.plain = plain
        if plain:
            # Of this instance: only here are the patches wanted.
            vars(self)["needs"] = replace(self.needs, plain=True)

    def update(self, batch: Batch, step: Step) -> Losses:
        moved = self.moved(batch, step) if self.order == "before" else None
        losses: Losses = {}
        if self.ordinary:
            losses["task"] = self.error(batch.source).mean()
            step.descend(losses["task"])
        moved = self.moved(batch, step) if moved is None else moved
        losses["adversarial"] = self.error(moved).mean()
        step.descend(losses["adversarial"])
        return losses

    def moved(self, batch: Batch, step: Step) -> Samples:
        samples = patches_of(batch, plain=self.plain)
        return self.attack.on(samples, self.network, self, step)
