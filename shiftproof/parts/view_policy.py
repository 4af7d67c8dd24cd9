"""Which views of an image a network answers best: a policy of views, and how it is learned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Generator, Tensor, nn

from .. import losses
from ..data.samples import Samples
from ..losses.precision import precise
from ..tasks.multi_label import MultiLabelSegmentation
from ..tasks.segmentation import central, known
from ..tasks.task import Predict, Task
from ..transforms.policies import Choices, Policy
from ..transforms.policy_files import to_json
from ..transforms.views import Views, initial
from .histories import Histories


class ViewPolicy(nn.Module):
    """Probabilities of views, softmax of one vector of logits, and what they were.

    Source: Z. Li et al., "Joint optimization of class-specific training- and test-time data augmentation in
    segmentation", IEEE Transactions on Medical Imaging 42 (2023).

    Args:
        views: What is chosen from, for patches as training has them.
        preset: What it begins with, see `transforms.views.initial`.
        temperature: Of the relaxation that gradients go through.

    Raises:
        OptionError: If there is no such preset.
    """

    def __init__(self, views: Views, *, preset: str = "nnunet", temperature: float = 1.0) -> None:
        super().__init__()
        self.views = views
        self.policy = Policy([views.group], temperature=temperature)
        with torch.no_grad():
            self.policy.logits[0].copy_(initial(views.names, preset).log())
        self.history = Histories([(1, len(views.names))])

    def probabilities(self) -> dict[str, float]:
        """Of each view by name."""
        (found,) = self.policy.probabilities()
        return dict(zip(self.views.names, found[0].double().tolist(), strict=True))

    def draw(self, number: int, generator: Generator) -> Choices:
        """Views of so many samples."""
        return self.policy.sample(torch.zeros(number, dtype=torch.int64), generator)

    def gradient(self, errors: Tensor, choices: Choices, generator: Generator) -> list[Tensor]:
        """Of L = sum(w_b l_b) / sum(w_b) by the logits at w = 1, through the weights of the views that were drawn.

        Each view's part is divided by how often it was drawn; the others see only that it was, not how often.

        Args:
            errors: l, (B,), one for each view; of all processes together, where there are several.
            choices: The views.
            generator: For Gumbel noise, redrawn under the condition that it gives these views.
        """
        errors = errors.detach().double().cpu()
        slopes = (errors - errors.mean()) / len(errors)
        return self.policy.weight_gradient(choices, slopes, torch.zeros(len(errors), dtype=torch.int64), generator)

    def note(self, step: int) -> None:
        """Remembers the probabilities of a step."""
        self.history.note(step, self.policy.probabilities())

    def as_json(self, **provenance: Any) -> str:
        """The text of a policy's file.

        Args:
            provenance: What it was learned on and with.
        """
        history = self.history.as_json()
        return to_json(self.policy, self.views.pool, history=history, provenance=provenance)


class ViewErrors:
    """How wrong a network is about one patch in each of several views, (B,).

    Of a segmentation 1 - soft Dice of the structures, of the voxels that the view held; its gradient is that of the
    published - soft Dice. Of a whole image the task's loss.

    Args:
        task: What is predicted.
    """

    def __init__(self, task: Task) -> None:
        self.task, self.overlapping = task, isinstance(task, MultiLabelSegmentation)
        serves = "multi-label segmentation" if self.overlapping else "segmentation"
        self.overlap = losses.get("f_beta", serves, beta=1.0)

    def __call__(self, predict: Predict, patch: Samples, views: Views, places: Sequence[int] | Tensor) -> Tensor:
        """Without a gradient.

        Args:
            predict: The network as it is.
            patch: One sample with its label.
            views: Of its size.
            places: B views.
        """
        every = patch[torch.zeros(len(places), dtype=torch.int64, device=patch.image.device)]
        with torch.no_grad():
            prediction = predict(views.shown(every, places))
            if self.task.name != "segmentation":
                return self.task.loss(prediction, every)
            scores, held = views.restored(precise(self.task.scores(prediction)), places)
            return self.dice(scores, every, held)

    def dice(self, scores: Tensor, samples: Samples, held: Tensor) -> Tensor:
        """1 - soft Dice of scores, which may be of the label's middle only."""
        space, extra = scores.shape[2:], samples.extra
        label, ignore = central(known(samples), space), ~held
        if "ignore" in extra:
            ignore = ignore | central(extra["ignore"], space)
        annotated = extra.get("annotated")
        if isinstance(self.task, MultiLabelSegmentation):
            label = self.task.inside(label)
            annotated = None if annotated is None else annotated[:, 1:]
        return self.overlap(scores, label, ignore=ignore, annotated=annotated)
