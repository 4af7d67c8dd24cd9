"""The asymmetric combination: focal loss, adversarial training and mixup, each in its form for rare classes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar, Literal

from torch import nn

from ..data.samples import Batch, Samples
from ..errors import MethodError
from ..parts.adversarial import RMS_RADIUS, Attack
from ..parts.mixing import Mixing
from ..parts.rare_inputs import patches_of, rare_classes
from ..tasks.task import Task
from .method import Losses, Method, Needs, Setting, Step

Form = Literal["asymmetric", "symmetric", "off"]


class AsymmetricCombination(Method):
    """Focal loss, adversarial training and mixup together, each in its form for rare classes.

    Each batch is learned three times, in optimiser steps of their own: as it is, moved in the direction that hurts
    what is rare most, and mixed so that what is rare wins. All three use the recipe's loss. The focal part is that
    loss: the combination as published is this method with `loss = "rare_focal"`, gamma 2, or "margin_focal+dice" for
    networks that are trained with Dice; `recommended_loss` has the words. Where only some classes are rare, both
    are told: `rare` here and in `loss_options`.

    Paper: Z. Li, K. Kamnitsas, B. Glocker, "Analyzing Overfitting under Class Imbalance in Neural Networks for Image
    Segmentation", IEEE TMI 40 (2021), https://arxiv.org/abs/2102.10365. Deviations: those of the methods `adversarial`
    and `mixup`; the adversarial direction is that of the rare classes, where the released settings have that of all.
    Cost: about four times that of ERM.

    Args:
        rare: Names of the rare classes; none given takes all structures or findings. To be given
            where one class is chosen for an image.
        adversarial: Form of the adversarial step: "asymmetric", "symmetric" or "off". With both steps off this is ERM.
        mixup: Form of the step on mixtures: likewise.
        radius: Length of what is added to an image, over all voxels and channels (l; 10 in the paper); given, it is
            taken instead of `rms_radius`.
        rms_radius: The same as a root mean square by voxel, in units of the image, which has variance 1.
        start: Distance of the random start from the image (xi); the result hardly depends on it.
        overlap: Whether the direction climbs against soft Dice too; by default if the loss has an overlap in it.
        alpha: Of the share's Beta(alpha, alpha) distribution in mixtures.
        margin: Share that a rare class must have more than in a mixture, and least share of the partner (m).
        order: "before": the adversarial direction is found before the ordinary step, "after": after it.
        plain: Whether the further steps use the patches without augmentation, which is steadier where that is strong.

    Raises:
        OptionError: For a rare class that does not exist, or an option out of range.
        MethodError: In training, if the batch has a single sample: nothing to mix it with.
    """

    needs: ClassVar[Needs] = Needs(tasks=("segmentation", "classification"))

    def __init__(
        self,
        network: nn.Module,
        task: Task,
        setting: Setting,
        *,
        rare: tuple[str, ...] | None = None,
        adversarial: Form = "asymmetric",
        mixup: Form = "asymmetric",
        radius: float | None = None,
        rms_radius: float = RMS_RADIUS,
        start: float = 1e-5,
        overlap: bool | None = None,
        alpha: float = 1.0,
        margin: float = 0.2,
        order: Literal["before", "after"] = "before",
        plain: bool = False,
    ) -> None:
        super().__init__(network, task, setting)
        hurt = rare_classes(task, rare, asymmetric=adversarial == "asymmetric")
        wins = rare_classes(task, rare, asymmetric=mixup == "asymmetric")
        self.attack = Attack(task, hurt, radius, rms_radius, start, overlap) if adversarial != "off" else None
        self.mixing = Mixing(task, wins, alpha, margin) if mixup != "off" else None
        self.order = order
        self.plain = plain
        if plain:
            # Of this instance: only here are the patches wanted.
            vars(self)["needs"] = replace(self.needs, plain=True)

    @classmethod
    def least_batch(cls, **options: Any) -> int:
        return 1 if options.get("mixup") == "off" else 2

    def update(self, batch: Batch, step: Step) -> Losses:
        samples = patches_of(batch, plain=self.plain)
        moved = self.moved(samples, step) if self.order == "before" else None
        losses = {"task": self.error(batch.source).mean()}
        step.descend(losses["task"])
        moved = self.moved(samples, step) if self.order == "after" else moved
        if moved is not None:
            losses["adversarial"] = self.error(moved).mean()
            step.descend(losses["adversarial"])
        if self.mixing is not None:
            losses["mixup"] = self.error(self.mixing.of(samples, step)).mean()
            step.descend(losses["mixup"])
        return losses

    def moved(self, samples: Samples, step: Step) -> Samples | None:
        """The samples, moved with the weights of now; None where that is off."""
        return None if self.attack is None else self.attack.on(samples, self.network, self, step)


def recommended_loss(task: str, *, kind: str = "multi-class", dice: bool = False) -> dict[str, Any]:
    """The loss that makes the combination the published one, as a recipe has it: "loss" and "loss_options".

    Args:
        task: "segmentation" or "classification".
        kind: Of the task; classes in order have no such loss.
        dice: Whether the network is trained with Dice besides, as a U-Net usually is.

    Raises:
        MethodError: If there is none.
    """
    if task not in ("segmentation", "classification") or kind == "ordinal" or (dice and task == "classification"):
        what = f"{kind} {task}" + (" with Dice" if dice else "")
        raise MethodError(f"there is no focal loss for rare classes in {what}; use another loss of that task")
    name = "margin_focal+dice" if dice else "rare_focal"
    options = {"gamma": 2.0, "asymmetric": True} | ({"margin": 0.0} if dice else {})
    return {"loss": name, "loss_options": options}
