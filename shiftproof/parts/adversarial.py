"""The direction in which a small change of the image hurts most where it is rare: adversarial training's first half.

Sources: I. J. Goodfellow et al., "Explaining and Harnessing Adversarial Examples", ICLR 2015,
https://arxiv.org/abs/1412.6572; T. Miyato et al., "Virtual Adversarial Training", TPAMI 41 (2019),
https://arxiv.org/abs/1704.03976, whose random start and normalised direction are used, but with labels; Z. Li,
K. Kamnitsas, B. Glocker, "Analyzing Overfitting under Class Imbalance in Neural Networks for Image Segmentation", IEEE
TMI 40 (2021), https://arxiv.org/abs/2102.10365, for the direction of rare classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from .. import losses
from ..data.samples import Samples
from ..errors import MethodError, OptionError
from ..losses.classification import as_probabilities
from ..losses.precision import precise
from ..losses.segmentation import cross_entropy
from ..losses.structures import mean_error, structure_terms
from ..losses.targets import Terms, compare
from ..tasks.classification import Classification
from ..tasks.multi_label import MultiLabelSegmentation
from ..tasks.segmentation import Segmentation, known, over_levels
from ..tasks.task import Prediction, Task

RMS_RADIUS = 0.0222
"""The published length, 10 over four channels of 37 x 37 x 37 voxels, for patches of any size."""

SMOOTHING = 1e-5
"""Voxels added above and below in the Dice of the direction."""

Forward = Callable[[Samples, Mapping[str, Tensor]], Prediction]
"""`Method.forward`, with weights."""


class Noisy(Protocol):
    """What is needed of a `Step`."""

    @property
    def weight(self) -> float: ...
    def noise(self, like: Tensor) -> Tensor: ...


def unit_direction(values: Tensor) -> Tensor:
    """Each sample of (B, ...) divided by its length, over all axes but the first: length 1, and 0 for zeros.

    Divided by the largest *absolute* value first, so that tiny gradients do not vanish when they are squared, then by
    `sqrt(1e-6 + |v|^2)`.
    """
    flat = precise(values).flatten(1)
    largest = flat.abs().amax(1, keepdim=True)
    flat = flat / torch.where(largest > 0, largest, 1)
    flat = flat * (1e-6 + flat.square().sum(1, keepdim=True)).rsqrt()
    return flat.view(values.shape).to(values.dtype)


def adversarial_direction(
    loss: Callable[[list[Tensor]], Tensor],
    inputs: Sequence[Tensor],
    noise: Sequence[Tensor],
    *,
    radius: float | None = None,
    rms_radius: float | None = None,
    start: float = 1e-5,
) -> list[Tensor]:
    """What to add to each input (B, ...), of length `radius` in each sample, to raise `loss`; detached.

    One step: the gradient of the loss at a random point `start` away from the input, brought to the length asked for. A
    sample whose loss does not depend on the input, such as one without a rare voxel, gets zeros. A network with several
    inputs gets a direction of the full length for each of them.

    Args:
        loss: Scalar, from inputs with something added; a sum or mean of the samples' own losses. It must leave no
            trace: `Method.forward` with weights freezes those and keeps batch norm's memory as it is.
        inputs: What the network reads.
        noise: One tensor of random numbers an input, of its shape: where the search starts.
        radius: Length (L2) over all voxels and channels of a sample's input.
        rms_radius: The same as a root mean square per voxel and channel: `radius / sqrt(number of them)`. One of the
            two is given.
        start: Distance of the starting point (xi); the result hardly depends on it.

    Raises:
        OptionError: If none or both of the lengths are given, or one is negative.
    """
    lengths = [length_of(x, radius, rms_radius) for x in inputs]
    if not any(lengths):
        return [torch.zeros_like(x) for x in inputs]
    with torch.enable_grad():
        moved = [(start * unit_direction(u)).detach().requires_grad_() for u in noise]
        value = loss([x + d for x, d in zip(inputs, moved, strict=True)])
        found = torch.autograd.grad(value, moved, allow_unused=True)
    return [
        torch.zeros_like(x) if slope is None else length * unit_direction(slope.detach()).to(x.dtype)
        for x, slope, length in zip(inputs, found, lengths, strict=True)
    ]


@dataclass(frozen=True)
class Attack:
    """How a method finds what it adds to images; see `adversarial_direction` and `rare_error`.

    Args:
        task: Whose labels decide.
        rare: Indices into its classes; None is the symmetric form.
        radius: Length over a whole sample; None takes `rms_radius`.
        rms_radius: The same by voxel and channel.
        start: Distance of the starting point.
        overlap: Whether soft Dice takes part; None: if the task's loss has an overlap in it.
    """

    task: Task
    rare: tuple[int, ...] | None
    radius: float | None
    rms_radius: float
    start: float
    overlap: bool | None = None

    def __post_init__(self) -> None:
        require_length(self.rms_radius if self.radius is None else self.radius)
        if not 0 < self.start < math.inf:
            raise OptionError(f"the start of an adversarial direction is a distance above 0, got {self.start}")

    def on(self, samples: Samples, network: nn.Module, forward: Forward, step: Noisy) -> Samples:
        """The samples with the direction added to their images.

        The network's weights count as constants, and batch norm uses the batch's statistics without remembering them.

        Args:
            samples: Labelled.
            network: With the weights of now.
            forward: `Method.forward` of it.
            step: The step that this is part of.
        """
        radius, rms_radius = self.radius, self.rms_radius if self.radius is None else None
        if length_of(samples.image, radius, rms_radius) == 0:
            return samples
        frozen = {name: weight.detach() for name, weight in network.named_parameters()}
        overlap = trains_overlap(self.task) if self.overlap is None else self.overlap

        def loss(images: list[Tensor]) -> Tensor:
            moved = samples.replace(image=images[0])
            error = rare_error(self.task, forward(moved, frozen), samples, self.rare, overlap=overlap)
            # By its share, so that processes that meet in batch norm climb the joint loss.
            return step.weight * error.mean()

        noise = [step.noise(samples.image)]
        (found,) = adversarial_direction(
            loss, [samples.image], noise, radius=radius, rms_radius=rms_radius, start=self.start
        )
        return samples.replace(image=samples.image + found)


def length_of(x: Tensor, radius: float | None, rms_radius: float | None) -> float:
    """Length (L2) for the samples of `x`, from either way of giving it.

    Raises:
        OptionError: If none or both are given, or one is negative.
    """
    given = radius if radius is not None else rms_radius
    if given is None or (radius is not None and rms_radius is not None):
        raise OptionError(f"either radius or rms_radius is given, got {radius} and {rms_radius}")
    require_length(given)
    return given if radius is not None else given * math.sqrt(x[0].numel())


def require_length(radius: float) -> None:
    """Checks an option.

    Raises:
        OptionError: If it is not a finite number from 0 on.
    """
    if not 0 <= radius < math.inf:
        raise OptionError(f"the radius of an adversarial step is a length from 0 on, got {radius}")


def rare_error(
    task: Task, prediction: Prediction, samples: Samples, rare: Sequence[int] | None, *, overlap: bool = False
) -> Tensor:
    """The loss that the direction climbs, (B,): cross-entropy of the voxels or samples whose true class is rare.

    Softmax: `-(1/N) sum r_c y_c log p_c` over all N voxels. Sigmoid: `-(1/N) sum r_c t log p`, a mean over structures
    too. Classes in order: the same of the classes' probabilities.

    Args:
        task: Segmentation or classification of any kind.
        prediction, samples: As `Task.loss` has them; the levels of deep supervision weigh as there.
        rare: Indices into `task.classes`; None takes the whole cross-entropy, which is the symmetric form. Naming all
            classes is something else where they may occur together: their absence stays out.
        overlap: Whether soft Dice of the structures is subtracted, with target r y and of rare voxels only, as for
            networks that are trained with Dice. Of each sample by itself, also where the loss sums over the batch.

    Raises:
        MethodError: If the task has no classes.
    """
    if isinstance(task, Classification):
        return _of_whole_images(task, prediction, samples, rare)
    annotated = samples.extra.get("annotated")

    def among(logits: Tensor, label: Tensor, ignore: Tensor | None, silent: Tensor | None) -> Tensor:
        weights = _indicator(rare, logits.shape[1])
        error = cross_entropy(logits, label, ignore=ignore, annotated=annotated, silent=silent, class_weights=weights)
        if not overlap:
            return error
        return error - _rare_dice(
            compare(logits, label, ignore, annotated, silent), weights, rare is None, foreground=1
        )

    def beside(logits: Tensor, label: Tensor, ignore: Tensor | None, silent: Tensor | None) -> Tensor:
        assert isinstance(task, MultiLabelSegmentation)
        # Of the background, which has no logit, nothing is known here.
        weights = _indicator(None if rare is None else [c - 1 for c in rare], logits.shape[1])
        seen = None if annotated is None else annotated[:, 1:]
        terms = structure_terms(logits, task.inside(label), ignore, seen, silent)
        error = _rare_switches(terms, logits.flatten(2), weights, rare is None)
        return error - _rare_dice(terms, weights, rare is None, foreground=0) if overlap else error

    if isinstance(task, MultiLabelSegmentation):
        return over_levels(prediction, samples, beside)
    if isinstance(task, Segmentation):
        return over_levels(prediction, samples, among)
    raise MethodError(f"rare classes are those of a segmentation or classification, got {task.name}")


def trains_overlap(task: Task) -> bool:
    """Whether the task's loss has an overlap (Dice, Tversky, F-beta) in it."""
    criterion = getattr(task, "criterion", None)
    criterion = getattr(criterion, "func", criterion)
    module, function = getattr(criterion, "__module__", ""), getattr(criterion, "__name__", "")
    named = {
        name
        for names in losses.LOSSES.values()
        for name, (where, attribute) in names.items()
        if module.endswith(f"losses.{where}") and attribute == function
    }
    return any("dice" in name or name in ("tversky", "f_beta") for name in named)


def _indicator(rare: Sequence[int] | None, classes: int) -> list[float]:
    return [1.0 if rare is None or k in rare else 0.0 for k in range(classes)]


def _of_whole_images(
    task: Classification, prediction: Prediction, samples: Samples, rare: Sequence[int] | None
) -> Tensor:
    label, scores = known(samples), precise(task.scores(prediction))
    weights = _indicator(rare, len(task.classes))
    if task.kind == "multi-label":
        # A finding is a structure of an image of one voxel.
        annotated = samples.extra.get("annotated")
        terms = structure_terms(scores[..., None], label[..., None], None, annotated, None)
        return _rare_switches(terms, scores[..., None], weights, rare is None)
    log_p = scores.log_softmax(1)
    return -(as_probabilities(label, log_p) * log_p * log_p.new_tensor(weights)).sum(1)


def _rare_switches(terms: Terms, logits: Tensor, weights: Sequence[float], symmetric: bool) -> Tensor:
    """Binary cross-entropy of the rare ones' presence, and of every absence in the symmetric form; (B,)."""
    present = terms.log_p * terms.log_p.new_tensor(weights)[:, None]
    absent = torch.nn.functional.logsigmoid(-precise(logits)) if symmetric else torch.zeros_like(present)
    return mean_error(terms, present, absent)


def _rare_dice(terms: Terms, weights: Sequence[float], symmetric: bool, *, foreground: int) -> Tensor:
    """Soft Dice of the classes from `foreground` on, with target r y, of rare voxels only; (B,).

    Args:
        foreground: 1 where classes exclude each other: the first is background, and a voxel is rare if its class is; 0
            where they may overlap: a voxel is rare for a structure if it lies inside of it.
    """
    p, y = terms.p, terms.target * terms.log_p.new_tensor(weights)[:, None]
    if not symmetric:
        p = p * (y.sum(1, keepdim=True) if foreground else y).gt(0)
    p, y = p[:, foreground:], y[:, foreground:]
    overlap = 2 * (p * y).sum(2) + SMOOTHING
    return (overlap / (p.sum(2) + y.sum(2) + SMOOTHING)).mean(1)
