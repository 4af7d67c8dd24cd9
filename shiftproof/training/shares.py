"""A process's share of what several processes do together: its samples of the batch, and their augmentation."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from ..data.samples import Batch, Samples
from ..data.sampling import Feed
from ..errors import OptionError
from ..transforms.transform import Transform
from .group import Group

if TYPE_CHECKING:
    from ..methods.method import Method

Augment = Callable[[Samples, torch.Generator], Samples]


def require_shares(method: Method, feed: Feed, group: Group) -> None:
    """Checked once, before training.

    Raises:
        OptionError: If a batch cannot be divided so that every process has what the method needs in it, or the loss
            compares samples of the batch with each other, which a share of it cannot.
    """
    if not group.several:
        return
    domains = len({case.domain for case in feed.source}) if feed.batches == "balanced" else 1
    if feed.size < group.size * domains:
        what = f"of {domains} domains each" if domains > 1 else "each"
        raise OptionError(
            f"a batch of {feed.size} has not a sample {what} for {group.size} processes; use a batch of at least "
            f"{group.size * domains}, or fewer processes"
        )
    options: dict[str, Any] = getattr(getattr(method.task, "criterion", None), "keywords", {})
    coupled = [k for k, v in options.items() if (k == "batch" and v is True) or (k == "class_weights" and v == "batch")]
    if coupled:
        raise OptionError(
            f"the loss's option {coupled[0]} sums over the batch, of which each of {group.size} processes sees a "
            "share; leave it out, or train in one process"
        )


def augmented(transform: Augment, batch: Batch, random: torch.Generator, size: int, group: Group) -> Batch:
    """The batch with source and target transformed, each sample as it would be in one process.

    Args:
        transform: Draws parameters, then applies them.
        batch: This process's share; it is changed.
        random: The same in every process.
        size: Samples in the joint source batch, and in the target batch.
        group: Who shares it.
    """
    batch.source = _one(transform, batch.source, random, size, group)
    if batch.target is not None:
        batch.target = _one(transform, batch.target, random, size, group)
    return batch


def _one(transform: Augment, samples: Samples, random: torch.Generator, size: int, group: Group) -> Samples:
    if not group.several:
        return transform(samples, random)
    if not isinstance(transform, Transform):
        # It cannot be drawn for the samples of others: every process has random numbers of its own.
        seed = int(torch.randint(2**62, (group.size,), generator=random)[group.rank])
        return transform(samples, torch.Generator().manual_seed(seed))
    # Drawing looks at the shape only, so that a batch without memory stands for the joint one.
    shape = (size, *samples.image.shape[1:])
    everyone = Samples(torch.empty(shape, dtype=samples.image.dtype, device="meta"), subject=[""] * size)
    drawn = transform.draw(everyone, random)
    return transform.apply(samples, {name: value[group.rank :: group.size] for name, value in drawn.items()})
