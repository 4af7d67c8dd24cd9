"""Mixtures of two samples and what they are labelled: mixup, and its form for rare classes.

Sources: H. Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018, https://arxiv.org/abs/1710.09412;
Z. Li, K. Kamnitsas, B. Glocker, "Overfitting of neural nets under class imbalance: Analysis and improvements for
segmentation", MICCAI 2019, https://arxiv.org/abs/1907.10982, for the asymmetric form.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..data.samples import Samples
from ..errors import LabelError, MethodError, OptionError
from ..tasks.classification import Classification
from ..tasks.multi_label import MultiLabelSegmentation
from ..tasks.segmentation import Segmentation, known
from ..tasks.task import Task


class Shared(Protocol):
    """What is needed of a `Step`."""

    shared: torch.Generator

    @property
    def weight(self) -> float: ...
    def mirrored(self, x: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Mixing:
    """How a method mixes a batch with itself: one share for all, each sample with the one at the batch's other end.

    Args:
        task: Whose labels are mixed.
        rare: Indices into its classes; None is the symmetric form.
        alpha: Of the share, see `drawn_share`.
        margin: Of the asymmetric form, see `mix_labels`.
    """

    task: Task
    rare: tuple[int, ...] | None
    alpha: float
    margin: float

    def __post_init__(self) -> None:
        require_range(self.alpha, self.margin)

    def of(self, samples: Samples, step: Shared) -> Samples:
        """The mixtures.

        Args:
            samples: Labelled; this process's share of the batch.
            step: The step that this is part of.

        Raises:
            MethodError: If there is a single sample in the batch.
        """
        if round(len(samples) / step.weight) < 2:
            raise MethodError(
                "mixup mixes samples of a batch with each other, and this one has 1; use a batch of 2 or more"
            )
        margin = self.margin if self.rare is not None else 0.0
        share = drawn_share(self.alpha, margin, step.shared)
        return mixed(self.task, samples, samples.mapped(step.mirrored), share, rare=self.rare, margin=margin)


def drawn_share(alpha: float, margin: float, random: torch.Generator) -> float:
    """Share of the first sample in a mixture: Beta(alpha, alpha), times 1 - margin.

    Args:
        alpha: 1 is uniform, towards 0 the mixtures come near to either sample; at 0 it is 1 - margin.
        margin: Least share of the second sample.
        random: The same in every process.
    """
    require_range(alpha, margin)
    seed = int(torch.randint(2**62, (), generator=random))
    drawn = float(np.random.default_rng(seed).beta(alpha, alpha)) if alpha > 0 else 1.0
    return drawn * (1 - margin)


def require_range(alpha: float, margin: float) -> None:
    """Checks of the options.

    Raises:
        OptionError: If alpha is not a number from 0 on, or the margin not a share from 0 to below 1.
    """
    if not 0 <= alpha < math.inf:
        raise OptionError(f"alpha of mixup is a number from 0 (nothing is mixed) on, got {alpha}")
    if not 0 <= margin < 1:
        raise OptionError(f"margin of asymmetric mixup is a share from 0 to below 1, got {margin}")


def mix_labels(a: Tensor, b: Tensor, share: float, rare: Sequence[int], margin: float) -> tuple[Tensor, Tensor]:
    """The class of a mixture of `share` of a and `1 - share` of b, and where it has none ("silent"); any shape.

    Where both are of one class, the mixture is. Where exactly one of the two is rare and its share is more than
    `margin`, the mixture is of that class: a rare voxel near the boundary. Elsewhere it is ambiguous and silent: there
    the class returned is a's and means nothing.

    Args:
        a, b: Class indices.
        share: Of a.
        rare: Indices of the rare classes.
        margin: See above (m).

    Raises:
        LabelError: If the labels are not class indices.
    """
    for label in (a, b):
        if label.is_floating_point():
            raise LabelError(f"asymmetric mixup decides between classes and needs class indices, got {label.dtype}")
    kinds = torch.tensor(list(rare), dtype=a.dtype, device=a.device)
    rare_a, rare_b = torch.isin(a, kinds), torch.isin(b, kinds)
    take_a = rare_a & ~rare_b & (share > margin)
    take_b = rare_b & ~rare_a & (1 - share > margin)
    return torch.where(take_b, b, a), (a != b) & ~take_a & ~take_b


def mix_switches(a: Tensor, b: Tensor, share: float, rare: Sequence[int], margin: float) -> tuple[Tensor, Tensor]:
    """As `mix_labels`, for classes that may occur together: each by itself, bool (B, K, ...).

    A rare class is there if the total share of the samples that have it is more than `margin`; if it is less, but not
    0, the class is silent. A common class is silent where the two differ.

    Args:
        a, b: Whether the class is there, bool.
        share: Of a.
        rare: Indices of the rare classes along axis 1.
        margin: See above (m).
    """
    chosen = torch.zeros(a.shape[1], dtype=torch.bool, device=a.device)
    chosen[list(rare)] = True
    chosen = chosen.view(-1, *[1] * (a.dim() - 2))
    differ = a ^ b
    enough = (a & (share > margin)) | (b & (1 - share > margin))
    there = torch.where(differ, enough & chosen, a)
    return there, differ & ~there


def mixed(
    task: Task, samples: Samples, partners: Samples, share: float, *, rare: Sequence[int] | None, margin: float = 0.0
) -> Samples:
    """Each sample mixed with its partner, labelled for the task's loss; domain and subject are the sample's.

    Without rare classes the label is mixed as the image is: soft labels. With them it is as `mix_labels` says, and
    `extra["silent"]` marks what has none. Voxels that either label says nothing of are ignored, and a class counts as
    annotated if it is in both. A share of 1 changes nothing.

    Args:
        task: Segmentation or classification.
        samples, partners: Labelled; alike in shape.
        share: Of the sample itself.
        rare: Indices into `task.classes`; None is the symmetric form.
        margin: Of the asymmetric form.

    Raises:
        MethodError: If the task has no classes.
    """
    if not isinstance(task, Segmentation | MultiLabelSegmentation | Classification):
        raise MethodError(f"labels are mixed in segmentation and classification, got {task.name}")
    if share == 1 and rare is None:
        return samples
    extra = _joint_extras(samples.extra, partners.extra)
    a, b = (_without(known(side), extra.get("ignore")) for side in (samples, partners))
    if rare is None:
        label = share * _soft(task, a) + (1 - share) * _soft(task, b)
    else:
        label, extra["silent"] = _hard(task, a, b, share, rare, margin)
    image = share * samples.image + (1 - share) * partners.image
    return samples.replace(image=image, label=label, extra=extra)


def _without(label: Tensor, ignore: Tensor | None) -> Tensor:
    """Class indices with 0 where voxels are ignored: there any number may stand."""
    return label if ignore is None or label.is_floating_point() else label.masked_fill(ignore, 0)


def _soft(task: Task, label: Tensor) -> Tensor:
    """Shares of the classes, or of the parts of structures that overlap; (B, K, ...)."""
    if label.is_floating_point():
        return label
    number = len(task.parts) if isinstance(task, MultiLabelSegmentation) else len(task.classes)
    return F.one_hot(label.long(), number).movedim(-1, 1).float()


def _hard(task: Task, a: Tensor, b: Tensor, share: float, rare: Sequence[int], margin: float) -> tuple[Tensor, Tensor]:
    if isinstance(task, MultiLabelSegmentation):
        # One channel a structure, the background has none.
        channels = [c - 1 for c in rare]
        there, silent = mix_switches(task.inside(a) > 0.5, task.inside(b) > 0.5, share, channels, margin)
        return there.float(), silent
    if isinstance(task, Classification) and task.kind == "multi-label":
        there, silent = mix_switches(a > 0.5, b > 0.5, share, rare, margin)
        return there.to(a.dtype), silent
    return mix_labels(a, b, share, rare, margin)


def _joint_extras(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The sample's own facts; of labels and channels, what holds of both."""
    extra = dict(ours)
    if "ignore" in extra:
        extra["ignore"] = extra["ignore"] | theirs["ignore"]
    for name in ("annotated", "present"):
        if name in extra:
            extra[name] = extra[name] & theirs[name]
    return extra
