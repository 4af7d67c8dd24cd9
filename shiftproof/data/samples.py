"""What flows: subjects or patches, stacked, and the batches made of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass
class Samples:
    """Subjects or patches of subjects, stacked along the first axis.

    Args:
        image: (B, C, *space), float.
        label: (B, ...), or None where unknown. For segmentation (B, *space) class indices, or
            (B, K, *space) soft labels of `K` classes; where structures overlap, positions in `LabelMap.parts`.
            For classification (B,) class indices, of several findings (B, K) of 0 and 1; for regression (B,)
            numbers in their unit.
        domain: (B,) index into `Setting.domains`; None for a domain that training never saw.
        subject: B names.
        extra: Further facts by name, each (B, ...). Known names: "ignore" (B, *space) bool, where the label says
            nothing; "silent", where it sets no target but counts in means (`losses.targets`); "annotated" (B, K) bool,
            which classes the site annotates; "present" (B, C) bool, which channels the scan has (with neighbouring
            slices as channels, the image has a multiple of them); "centre" (B,), class of the patch's centre; "drawn"
            (B,), class on a voxel of which the patch was centred when it was drawn, 0 where from anywhere or on the
            background.
    """

    image: Tensor
    label: Tensor | None = None
    domain: Tensor | None = None
    subject: list[str] = field(default_factory=list)
    extra: dict[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.image)

    def __getitem__(self, index: slice | Sequence[int] | Tensor) -> Samples:
        """A subset along the batch, in the order of `index` (a slice, positions or a mask)."""
        if isinstance(index, slice):
            taken = self.mapped(lambda tensor: tensor[index])
            taken.subject = self.subject[index]
            return taken
        if not isinstance(index, Tensor):
            positions = torch.as_tensor(list(index), device=self.image.device)
        else:
            positions = index.nonzero().flatten() if index.dtype == torch.bool else index
        taken = self.mapped(lambda tensor: tensor[positions])
        taken.subject = [self.subject[i] for i in positions.tolist()] if self.subject else []
        return taken

    def mapped(self, function: Callable[[Tensor], Tensor]) -> Samples:
        """The same samples with `function` applied to every tensor."""
        return Samples(
            function(self.image),
            None if self.label is None else function(self.label),
            None if self.domain is None else function(self.domain),
            list(self.subject),
            {name: function(value) for name, value in self.extra.items()},
        )

    def to(self, device: torch.device | str) -> Samples:
        return self.mapped(lambda tensor: tensor.to(device, non_blocking=True))

    def replace(self, **changes: object) -> Samples:
        """A copy with some fields changed; tensors are shared, not copied."""
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]

    def without_labels(self) -> Samples:
        """The same images with everything removed that was derived from labels."""
        kept = {name: value for name, value in self.extra.items() if name not in FROM_LABELS}
        return self.replace(label=None, extra=kept)

    def central(self, patch: Sequence[int]) -> Samples:
        """The middle of the image, and of all that has its space, cut to `patch`; shorter axes stay."""
        space = self.image.shape[-len(patch) :]
        starts = [max(n - w, 0) // 2 for n, w in zip(space, patch, strict=True)]
        window: tuple[Any, ...] = (..., *[slice(a, a + w) for a, w in zip(starts, patch, strict=True)])
        return self.mapped(lambda t: t[window] if t.ndim > len(patch) and t.shape[-len(patch) :] == space else t)

    def by_domain(self) -> list[Samples]:
        """One `Samples` per domain that occurs, in the order of the domains."""
        if self.domain is None:
            raise ValueError("samples of an unknown domain cannot be divided by domain")
        return [self[self.domain == d] for d in self.domain.unique(sorted=True)]

    @staticmethod
    def joined(parts: Sequence[Samples]) -> Samples:
        """Several samples as one; a field that one of them lacks is dropped."""
        first = parts[0]
        names = [n for n in first.extra if all(n in p.extra for p in parts)]
        return Samples(
            torch.cat([p.image for p in parts]),
            _joined([p.label for p in parts]),
            _joined([p.domain for p in parts]),
            [name for p in parts for name in p.subject],
            {n: torch.cat([p.extra[n] for p in parts]) for n in names},
        )


FROM_LABELS = ("ignore", "silent", "annotated", "centre", "drawn")
"""Extras that tell something of a label, and leave with it."""


def _joined(tensors: Sequence[Tensor | None]) -> Tensor | None:
    known = [t for t in tensors if t is not None]
    return torch.cat(known) if len(known) == len(tensors) else None


@dataclass
class Batch:
    """What one step sees.

    Args:
        source: Labelled samples of the training domains.
        target: Samples of the target domains without labels, or None.
        streams: Further samples by name, as the method's `Needs` asks for them.
        plain: The source before augmentation, cut to the same patch, where the method asks for it.
    """

    source: Samples
    target: Samples | None = None
    streams: dict[str, Samples] = field(default_factory=dict)
    plain: Samples | None = None

    @property
    def everyone(self) -> Samples:
        """Source, then target: images and domains without labels, and the extras that both have."""
        source = self.source.without_labels()
        return source if self.target is None else Samples.joined([source, self.target.without_labels()])

    def to(self, device: torch.device | str) -> Batch:
        return Batch(
            self.source.to(device),
            None if self.target is None else self.target.to(device),
            {name: samples.to(device) for name, samples in self.streams.items()},
            None if self.plain is None else self.plain.to(device),
        )
