"""Augmentation by class: patches of rare classes are changed more than others."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from ..data.samples import Samples
from ..errors import OptionError
from .transform import Description, Parameters, Transform, check_probability


class ForRare(Transform):
    """Full augmentation for samples of rare classes, less of it for the others.

    A patch is of a rare class if it was drawn around a voxel of one (`extra["drawn"]`), a scan with one label if that
    is one, a scan with several findings if it has one. Samples without labels, which nobody can tell apart, get the
    full augmentation. With `probability` 1 this is the full augmentation, bit for bit.

    Source: Z. Li, K. Kamnitsas, B. Glocker, "Analyzing overfitting under class imbalance in neural networks for image
    segmentation", IEEE Transactions on Medical Imaging 40 (2021). The probability behind its table is not known;
    the default is our choice.

    Args:
        full: For samples of rare classes.
        rare: Indices of these classes; None for all but 0.
        weak: What the other samples get if they do not get the full one; it cuts patches as the full one does.
        probability: Of the other samples to get the full one.

    Raises:
        OptionError: If the probability is none.
    """

    def __init__(
        self, full: Transform, weak: Transform, *, rare: Sequence[int] | None = None, probability: float = 0.5
    ) -> None:
        check_probability("the full augmentation", probability)
        self.full, self.weak, self.probability = full, weak, probability
        self.rare = None if rare is None else tuple(rare)

    def draw(self, samples: Samples, generator: Generator) -> Parameters:
        """Parameters of both, named "full." and "weak.", and "gate" (B,)."""
        drawn = {f"full.{name}": value for name, value in self.full.draw(samples, generator).items()}
        drawn |= {f"weak.{name}": value for name, value in self.weak.draw(samples, generator).items()}
        return drawn | {"gate": torch.rand(len(samples), generator=generator) < self.probability}

    def apply(self, samples: Samples, parameters: Parameters) -> Samples:
        return self._each(samples, parameters, "apply")

    def inverse(self, samples: Samples, parameters: Parameters) -> Samples:
        return self._each(samples, parameters, "inverse")

    def source_patch(self, patch: Sequence[int]) -> tuple[int, ...]:
        sizes = (self.full.source_patch(patch), self.weak.source_patch(patch))
        return tuple(max(size) for size in zip(*sizes, strict=True))

    def describe(self) -> list[Description]:
        """Of the full augmentation, and what others get."""
        share = f"others with probability {self.probability:g}"
        mild = [(f"otherwise {name}", p, span) for name, p, span in self.weak.describe()]
        return [("full augmentation of rare classes", 1.0, share), *self.full.describe(), *mild]

    def _each(self, samples: Samples, parameters: Parameters, way: str) -> Samples:
        fully = is_rare(samples, self.rare).cpu() | parameters["gate"]
        parts, order = [], []
        for transform, name, some in ((self.full, "full.", fully), (self.weak, "weak.", ~fully)):
            places = some.nonzero().flatten()
            if len(places):
                own = {n.removeprefix(name): v[places] for n, v in parameters.items() if n.startswith(name)}
                parts.append(getattr(transform, way)(samples[places.to(samples.image.device)], own))
                order.append(places)
        if len(parts) == 1:
            return parts[0]
        back = torch.cat(order).argsort()
        return Samples.joined(parts)[back.to(samples.image.device)]


def is_rare(samples: Samples, rare: Sequence[int] | None) -> Tensor:
    """(B,) bool: which samples are of a rare class; all of those without labels.

    Args:
        samples: Patches or scans.
        rare: Indices of the classes; None for all but 0.

    Raises:
        OptionError: If patches do not say what they were drawn around.
    """
    if samples.label is None:
        return torch.ones(len(samples), dtype=torch.bool, device=samples.image.device)
    if "drawn" in samples.extra:
        return _among(samples.extra["drawn"], rare)
    label = samples.label
    if label.ndim == 1 and not label.is_floating_point():
        return _among(label, rare)
    if label.ndim == 2:  # findings
        some = label if rare is None else label[:, list(rare)]
        return (some > 0).any(1)
    raise OptionError(
        "rare classes are told by what a patch was drawn around, or by the class of a scan; these samples have neither"
    )


def _among(classes: Tensor, rare: Sequence[int] | None) -> Tensor:
    if rare is None:
        return classes > 0
    return torch.isin(classes, torch.tensor(rare, device=classes.device))
