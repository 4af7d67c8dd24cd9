"""Learned augmentation: how often each operation is used follows from what it does to held-back subjects."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from ..data.samples import Batch, Samples
from ..errors import MethodError, OptionError
from ..losses.rare import parts_with, rare_indices
from ..parts.histories import Histories
from ..parts.kind_means import KindMeans
from ..parts.lookahead import REACH, lookahead_weight_gradient
from ..parts.modes import evaluating
from ..parts.outer_losses import OuterLoss
from ..parts.view_policy import ViewErrors, ViewPolicy
from ..tasks.multi_label import MultiLabelSegmentation
from ..tasks.task import Task
from ..transforms.policies import Choices, Policy
from ..transforms.policy_files import fitted, parsed, read_policy, to_json
from ..transforms.policy_files import policy_hash as hash_of
from ..transforms.pool import Pool
from ..transforms.rare import is_rare
from ..transforms.views import Views
from .method import Losses, Method, Needs, Part, Setting, Step, Weights

POLICY = "policy.json"
VALIDATION = "validation"


class LearnedAugmentation(Method):
    """Augmentation whose probabilities are learned during training.

    A policy gives every operation of a pool, at every magnitude, a probability. Each patch is augmented by what is
    drawn from it. Every few steps the samples are weighed: a plain step on the batch is tried, and the loss of
    validation patches after it, from training subjects that no step learns from, tells which samples had better
    weighed more. Operations that made such samples become more probable. The network that is trained, and predicts, is
    plain otherwise.

    Paper: Z. Li, "Improving the generalization capability for medical image segmentation" (talk, 2020), and, with a
    policy for each kind of patches, Z. Li et al., "Joint optimization of class-specific training- and test-time data
    augmentation in segmentation", IEEE Transactions on Medical Imaging 42 (2023). Deviations: the operations are this
    project's own; probabilities are used at once rather than an epoch later; noise is redrawn in closed form; the tried
    step takes the gradient that the training step uses, before clipping; where the loss sums over the batch, a sample's
    own loss is that of the sample alone; where a batch has fewer than 4 patches of a kind, they are compared with the
    mean of such patches over past updates instead of the batch's; the difference moves weights by 0.003 (0.01 there);
    the policy is updated every 4 steps and 4 times as fast; its rate is ten times the published one, whose runs have
    200 000 steps. A quarter of the training subjects is held back for validation.

    With `learn` off this is plain training under a fixed policy, as `erm` with the transforms "policy" on the same
    subjects, but for random numbers; if that policy never acts, plain training bit for bit.

    With `views` the probabilities of test-time views are learned in the same run: several views of one validation patch
    are predicted by the present weights, and those with more overlap become more probable. Validation patches are then
    shown as such views when they judge the augmentation. Predict with the test-time method "learned_views" to use them;
    the method's own prediction is of the image alone. Deviations there: the network is in the mode in which it
    predicts; there are as many views as samples in the batch; the rate is ten times the published one, too.

    Args:
        pool: Operations to choose from: "talk", one of 44 for a patch (33 in 2D), or "jcsa", 15 groups that act
            together (12 in 2D).
        preset: Probabilities at the start: "uniform", "nnunet", "deepmedic", "weak" or "weaker"; None takes "uniform"
            for "talk" and "nnunet" for "jcsa".
        policy_file: A saved policy.json to start from instead, made for the same pool.
        policy_hash: What the file's content must amount to; a study notes it, so that a row means one policy.
        learn: Whether the policy changes; it is fixed otherwise.
        class_specific: A policy of its own for patches that were drawn on a rare structure, or of a rare class.
        rare: Names of the classes that are rare; None means all structures of a segmentation. Whole images are of one
            kind unless classes are named.
        outer: What is asked of validation patches: "task", the training loss; "ce"; "dice"; "ce+dice"; "ramp", from
            cross-entropy to Dice over the run; None takes "ce+dice" for segmentation, "task" for whole images.
        policy_rate: Rate of the policy for an update at every step; it falls to 0 as (1 - progress)^0.9.
        policy_update_every: Steps between updates; the rate of an update is that many times `policy_rate`. With 1 a
            step costs about 2.7 times a plain one, with 4 about 1.5 times.
        reach: How far the weights are moved to tell two losses apart.
        temperature: Of the relaxation through which choices are differentiated.
        destroying: With 15 operations that destroy the image, as a proof that the policy learns to leave them.
        mirror_axes: Axes that may be mirrored; None takes all. Leave out left-right where the label tells sides apart.
        views: Learn test-time views, too, from published probabilities: "nnunet" or "deepmedic"; None learns none. An
            update then costs one more forward pass.
        view_rate: Rate of their probabilities, as `policy_rate`.

    Raises:
        OptionError: If a name or number is not one of these, or a policy for rare classes has none to tell.
    """

    needs: ClassVar[Needs] = Needs(streams=(VALIDATION,), own_transforms=True)

    def __init__(
        self,
        network: nn.Module,
        task: Task,
        setting: Setting,
        *,
        pool: Literal["talk", "jcsa"] = "talk",
        preset: str | None = None,
        policy_file: str | None = None,
        policy_hash: str | None = None,
        learn: bool = True,
        class_specific: bool = False,
        rare: tuple[str, ...] | None = None,
        outer: Literal["task", "ce", "dice", "ce+dice", "ramp"] | None = None,
        policy_rate: float = 0.01,
        policy_update_every: int = 4,
        reach: float = REACH,
        temperature: float = 1.0,
        destroying: bool = False,
        mirror_axes: tuple[int, ...] | None = None,
        views: Literal["nnunet", "deepmedic"] | None = None,
        view_rate: float = 5e-4,
    ) -> None:
        super().__init__(network, task, setting)
        if policy_update_every < 1:
            raise OptionError(f"policy_update_every is a number of steps from 1 on, got {policy_update_every}")
        for name, value, low in (
            ("policy_rate", policy_rate, 0.0),
            ("view_rate", view_rate, 0.0),
            ("reach", reach, 1e-12),
        ):
            if not low <= value < math.inf:
                raise OptionError(f"{name} is a number above 0, got {value}")
        self.rare = rare_of(task, rare)
        self.drawn = parts_with(self.rare, task.parts) if isinstance(task, MultiLabelSegmentation) else self.rare
        if class_specific and not self.rare:
            raise OptionError(
                "class_specific needs classes that are rare; name them: rare = [...], "
                f"of {', '.join(task.classes) or 'a task with classes'}"
            )
        self.policy_file, self.policy_hash = policy_file, policy_hash
        self.learn, self.class_specific = learn, class_specific
        self.policy_rate, self.policy_update_every, self.reach = policy_rate, policy_update_every, reach
        self.pool = pool_of(pool, setting, task.spatial, destroying=destroying, mirror_axes=mirror_axes)
        start = preset or ("uniform" if pool == "talk" else "nnunet")
        self.policy = Policy(self.pool.groups, sets=1 + class_specific, preset=start, temperature=temperature)
        self.views: ViewPolicy | None = None
        if views is not None:
            shown = Views(
                setting.patch,
                fields=task.spatial,
                spacing_mm=setting.spacing_mm,
                mirror_axes=mirror_axes,
                orientation=setting.orientation,
            )
            self.views = ViewPolicy(shown, preset=views, temperature=temperature)
        self.view_rate, self.view_errors = view_rate, ViewErrors(task)
        self.outer = OuterLoss(outer, task)
        self.history = Histories([tuple(p.shape) for p in self.policy.probabilities()])
        self.usual = KindMeans()  # slopes
        # Of a loss whose samples depend on each other, a sample's own is asked for alone.
        given: dict[str, Any] = getattr(getattr(task, "criterion", None), "keywords", {})
        self.coupled = given.get("batch") is True or given.get("class_weights") == "batch"

    @classmethod
    def source_patch(
        cls,
        setting: Setting,
        *,
        pool: str = "talk",
        destroying: bool = False,
        mirror_axes: tuple[int, ...] | None = None,
        **options: Any,
    ) -> tuple[int, ...]:
        augmentation = pool_of(pool, setting, ("image", "label"), destroying=destroying, mirror_axes=mirror_axes)
        return augmentation.source_patch(setting.patch)

    def begin(self, phase: str, reader: object) -> None:
        """A saved policy becomes the first one; afterwards it is state, and the file is not needed."""
        self.require_files()

    def require_files(self) -> None:
        """Starts from the saved policy, where one is named."""
        if self.policy_file is None:
            return
        hash_of(self.policy_file, expected=self.policy_hash)
        content = read_policy(self.policy_file)
        saved = fitted(content, self.pool)
        if saved.sets != self.policy.sets:
            kinds = {1: "one kind of patches", 2: "two kinds of patches"}
            raise OptionError(
                f"policy_file {self.policy_file} is for {kinds[saved.sets]}, expected {kinds[self.policy.sets]}; "
                f"set class_specific = {str(saved.sets > 1).lower()}"
            )
        self.policy.load_state_dict(saved.state_dict())
        if self.views is not None and "views" in content:
            self.views.policy.load_state_dict(fitted(content["views"], self.views.views.pool).state_dict())

    def parts(self) -> dict[str, Part]:
        found = {"network": Part([self.network]), "policy": self.slowly(self.policy, self.policy_rate)}
        if self.views is not None:
            found["views"] = self.slowly(self.views, self.view_rate)
        return found

    def slowly(self, policy: nn.Module, rate: float) -> Part:
        """How probabilities move."""
        return Part(
            [policy],
            "adam",
            options={"betas": (0.9, 0.999), "weight_decay": 0.0},
            rate=rate * self.policy_update_every,
            schedule=poly,
            clip=math.inf,
        )

    def update(self, batch: Batch, step: Step) -> Losses:
        number = round(len(batch.source) / step.weight)
        kinds = self.joint(self.kinds(batch.source), step, number)
        sets = kinds if self.class_specific else torch.zeros_like(kinds)
        choices = self.policy.sample(sets, step.shared)
        samples = self.augmented(batch.source, choices, step)
        loss = self.error(samples).mean()
        gradients = step.gradient(loss, "network")
        if self.learn and step.index % self.policy_update_every == 0:
            self.history.note(step.index, self.policy.probabilities())
            slopes = self.slopes(samples, batch, gradients, step, number)
            usual = self.usual(slopes, kinds)
            found = self.policy.weight_gradient(choices, slopes, sets, step.shared, usual=usual)
            step.move(list(found), "policy")
            step.log("policy entropy", self.policy.entropies().mean())
        if self.views is not None and step.index % self.policy_update_every == 0:
            self.views.note(step.index)
            step.move(list(self.view_gradient(self.views, batch, step, number)), "views")
        step.move(gradients, "network")
        return {"task": loss}

    def slopes(self, samples: Samples, batch: Batch, gradients: list[Tensor | None], step: Step, number: int) -> Tensor:
        """Derivative of the outer loss after the step by each sample's weight in it, (B,) of the joint batch."""
        weights = {name: p for name, p in self.network.named_parameters() if p.requires_grad}
        seen = self.seen(batch, step)

        def outer(after: Weights) -> Tensor:
            loss = self.outer(self(seen, after), seen, step, step.progress, number)
            step.log("validation loss", loss)
            return loss

        found = lookahead_weight_gradient(
            lambda moved: self.own_errors(samples, moved),
            outer,
            weights,
            gradients,
            step.rate("network"),
            step.derivative,
            number=number,
            reach=self.reach,
        )
        return self.joint(found.cpu(), step, number)

    def seen(self, batch: Batch, step: Step) -> Samples:
        """The patches that the outer loss is of; where test-time views are learned, shown as such."""
        validation = self.validation(batch)
        if self.views is None:
            return validation
        choices = self.views.draw(round(len(validation) / step.weight), step.shared)
        return self.views.views.shown(validation, step.own(choices.index[:, 0]))

    def validation(self, batch: Batch) -> Samples:
        """Patches of held-back subjects, as the network reads them."""
        if VALIDATION not in batch.streams:
            raise MethodError('learned augmentation needs validation subjects: a batch with the stream "validation"')
        validation = batch.streams[VALIDATION]
        return validation.central(self.setting.patch) if self.setting.patch else validation

    def view_gradient(self, views: ViewPolicy, batch: Batch, step: Step, number: int) -> list[Tensor]:
        """By the views' logits, of views of one validation patch that the present weights predict."""
        place = int(torch.randint(number, (1,), generator=step.shared))
        patch = self.validation(batch).mapped(lambda t: self.one(t, place, step, number))
        patch.subject = []
        choices = views.draw(number, step.shared)
        with evaluating(self):
            found = self.view_errors(self.predict, patch, views.views, step.own(choices.index[:, 0]))
        errors = self.joint(found.cpu(), step, number)
        step.log("view error", errors.mean())
        return views.gradient(errors, choices, step.shared)

    def one(self, x: Tensor, place: int, step: Step, number: int) -> Tensor:
        """One row of the joint batch, (1, ...), in every process."""
        # Truth values are sent as numbers.
        sent = x.to(torch.uint8) if x.dtype == torch.bool else x
        return self.joint(sent, step, number)[place : place + 1].to(x.dtype)

    def own_errors(self, samples: Samples, weights: Weights) -> Tensor:
        """(B,), each of its own sample alone."""
        if not self.coupled:
            return self.error(samples, weights)
        prediction = self(samples, weights)
        found = []
        for b in range(len(samples)):
            one = slice(b, b + 1)
            part = {n: p[one] for n, p in prediction.items()} if isinstance(prediction, dict) else prediction[one]
            found.append(self.task.loss(part, samples[one]))
        return torch.cat(found)

    def augmented(self, samples: Samples, choices: Choices, step: Step) -> Samples:
        """This process's samples, each as it would be in one process."""
        # Drawing looks at shapes only, so that tensors without memory stand for the joint batch.
        everyone = {n: blank(t, len(choices)) for n, t in samples.extra.items() if n == "present"}
        joint = Samples(blank(samples.image, len(choices)), subject=[""] * len(choices), extra=everyone)
        drawn = self.pool.draw(joint, choices.index, step.shared)
        with torch.autocast(samples.image.device.type, enabled=False):
            return self.pool.apply(samples, {name: step.own(value) for name, value in drawn.items()})

    def kinds(self, samples: Samples) -> Tensor:
        """(B,) on the CPU: 1 of patches that were drawn on a rare structure, or of images of a rare class."""
        told = self.task.name != "segmentation" or "drawn" in samples.extra
        if self.class_specific and not told:
            raise MethodError("class_specific needs to know where patches were drawn; samples do not say it")
        if not self.rare or not told:
            return torch.zeros(len(samples), dtype=torch.long)
        return is_rare(samples, self.drawn).long().cpu()

    def joint(self, x: Tensor, step: Step, number: int) -> Tensor:
        """What each process has of its samples (n, ...), of all of them in the order of the joint batch."""
        order = step.gather(step.own(torch.arange(number)))
        return step.gather(x)[order.argsort()]

    def files(self) -> dict[str, str]:
        provenance = {
            "method": "learned_augmentation",
            "learned": self.learn,
            "domains": list(self.setting.domains[: self.setting.sources]),
            "classes": list(self.task.classes),
            "rare": [self.task.classes[k] for k in self.rare],
            "outer": self.outer.name,
        }
        views = None if self.views is None else parsed(self.views.as_json(**provenance))
        history = self.history.as_json()
        return {POLICY: to_json(self.policy, self.pool, history=history, provenance=provenance, views=views)}


def rare_of(task: Task, names: Sequence[str] | None) -> tuple[int, ...]:
    """Indices of rare classes: by default all structures of a segmentation, none of whole images."""
    segments = task.name == "segmentation"
    if names is None and not segments:
        return ()
    if not task.classes:
        raise OptionError(f"rare names classes, which {task.name} has not; leave it out")
    return rare_indices(names, task.classes, background=segments)


def pool_of(
    name: str, setting: Setting, fields: Sequence[str], *, destroying: bool, mirror_axes: tuple[int, ...] | None
) -> Pool:
    """The pool for the patches of a setting.

    Raises:
        MethodError: If their size is not known.
    """
    if len(setting.patch) != setting.dimensions:
        raise MethodError(
            f"learned augmentation needs the size of a patch in {setting.dimensions}D, got {setting.patch or 'none'}"
        )
    spacing = [s for s in setting.spacing_mm if s is not None]
    known = len(spacing) == setting.dimensions
    return Pool(
        name,
        dimensions=setting.dimensions,
        patch=setting.patch,
        fields=fields,
        spacing_mm=spacing if known else None,
        # nnU-Net's limit for treating a volume as a stack of slices.
        anisotropic=known and max(spacing) > 3 * min(spacing),
        destroying=destroying,
        mirror_axes=mirror_axes,
        orientation=setting.orientation,
    )


def blank(tensor: Tensor, number: int) -> Tensor:
    return torch.empty((number, *tensor.shape[1:]), dtype=tensor.dtype, device="meta")


def poly(progress: float) -> float:
    return float((1 - progress) ** 0.9)
