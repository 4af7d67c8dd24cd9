"""Views for a network that is trained already: which of them it answers best on labelled subjects."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Generator

from ..data.samples import Samples
from ..errors import LabelError, OptionError
from ..methods.method import Method
from ..parts.modes import evaluating
from ..parts.view_policy import ViewErrors, ViewPolicy
from ..transforms.views import Views


def learn_views(
    method: Method,
    patches: Iterable[Samples],
    *,
    steps: int = 1000,
    number: int = 10,
    rate: float = 5e-3,
    preset: Literal["nnunet", "deepmedic", "uniform"] = "nnunet",
    temperature: float = 1.0,
    mirror_axes: tuple[int, ...] | None = None,
    destroying: bool = False,
    seed: int = 0,
) -> ViewPolicy:
    """Probabilities of views for a trained method, whose weights stay as they are.

    In each step one patch is shown in several views, drawn with the present probabilities; Adam makes those more
    probable whose answers overlap more with the label. To be used by `learned_views` from a file:
    `write_text(path, learn_views(method, patches).as_json())`.

    Source: the mode of Z. Li et al., "Joint optimization of class-specific training- and test-time data augmentation in
    segmentation", IEEE Transactions on Medical Imaging 42 (2023), in which a trained model is frozen: about 10 epochs
    of 100 steps. Deviation: the network is in the mode in which it predicts.

    Args:
        method: A trained method.
        patches: Labelled samples of validation subjects of the training domains, all of one size, as training cuts
            them; of each, one patch is taken by chance. They have no part in any result that is reported.
        steps: At most; fewer where there are fewer samples.
        number: Views of a patch in one step.
        rate: Of Adam on the logits; it falls to 0 as (1 - progress)^0.9.
        preset: Probabilities at first: "nnunet", "deepmedic", or "uniform".
        temperature: Of the relaxation through which choices are differentiated.
        mirror_axes: Axes that may be mirrored; None takes all. Leave out left-right where the label tells sides apart.
        destroying: With 15 operations that destroy the image, as a proof that they are not chosen; `learned_views`
            refuses the result.
        seed: Of views and patches.

    Raises:
        OptionError: If a number is out of range, or patches are not of one size.
        LabelError: If there are no samples, or they have no label.
    """
    if steps < 1 or number < 2 or not rate >= 0:
        raise OptionError(
            f"learn_views takes at least 1 step of at least 2 views at a rate of at least 0, got {steps}, {number} "
            f"and {rate}"
        )
    generator = Generator().manual_seed(seed)
    learner: _Learner | None = None
    for step, samples in zip(range(steps), patches, strict=False):
        if method.setting.patch:
            samples = samples.central(method.setting.patch)
        _require_usable(samples, learner.policy.views.space if learner is not None else ())
        if learner is None:
            views = Views(
                samples.image.shape[2:],
                fields=method.task.spatial,
                spacing_mm=method.setting.spacing_mm,
                mirror_axes=mirror_axes,
                destroying=destroying,
                orientation=method.setting.orientation,
            )
            learner = _Learner(method, ViewPolicy(views, preset=preset, temperature=temperature))
        learner.policy.note(step)
        place = int(torch.randint(len(samples), (1,), generator=generator))
        learner.learn(samples[place : place + 1], number, rate * (1 - step / steps) ** 0.9, generator)
    if learner is None:
        raise LabelError("learn_views was given no samples; expected labelled patches of validation subjects")
    return learner.policy


class _Learner:
    """A policy with what moves it."""

    def __init__(self, method: Method, policy: ViewPolicy) -> None:
        self.method, self.policy = method, policy
        self.errors = ViewErrors(method.task)
        self.logits = list(policy.policy.parameters())
        self.optimizer = torch.optim.Adam(self.logits, betas=(0.9, 0.999))

    def learn(self, patch: Samples, number: int, rate: float, generator: Generator) -> None:
        """Some views of one patch make the policy a little better."""
        choices = self.policy.draw(number, generator)
        with evaluating(self.method):
            found = self.errors(self.method.predict, patch, self.policy.views, choices.index[:, 0])
        for logits, gradient in zip(self.logits, self.policy.gradient(found, choices, generator), strict=True):
            logits.grad = gradient
        self.optimizer.param_groups[0]["lr"] = rate
        self.optimizer.step()


def _require_usable(samples: Samples, space: tuple[int, ...]) -> None:
    if samples.label is None or not len(samples):
        raise LabelError("learn_views needs labelled patches: only labels tell which views are answered best")
    size = tuple(samples.image.shape[2:])
    if space and size != space:
        raise OptionError(f"learn_views takes patches of one size, got {size} after {space}; cut them alike")
