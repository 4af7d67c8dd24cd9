"""Views: images changed in known ways, shown to a trained network whose answers are taken back and averaged."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Generator, Tensor

from ..data.samples import Samples
from ..names import choose
from .pool import Pool
from .spans import Seed
from .transform import Parameters

NOISE = 0
"""Seed of views with noise: a view is a function of the image."""

PRESETS = ("nnunet", "deepmedic", "uniform")
_NAMED = 0.8


class Views:
    """The 84 published views (fewer in 2D) for images of one size: signed, and without chance.

    They are the pool "views" of this package, the operations that augment. What images of this size cannot take is left
    out as it is there: quarter turns in a plane of unequal sides or spacing, turns out of thick slices, mirroring of
    axes that are not named. In 2D "mirror all" is the half turn, and left out.

    Source: Z. Li et al., "Joint optimization of class-specific training- and test-time data augmentation in
    segmentation", IEEE Transactions on Medical Imaging 42 (2023).

    Args:
        space: Voxels of the images along each axis.
        fields: What moves together, as the task has it.
        spacing_mm: Of the voxels; empty where that is not known.
        mirror_axes: Axes that may be mirrored; None for all.
        destroying: With 15 operations that destroy the image, to prove that they are not chosen.
        orientation: Where the axes point to, as the plan has it; "" for pictures.
    """

    def __init__(
        self,
        space: Sequence[int],
        *,
        fields: Sequence[str] = ("image", "label", "ignore"),
        spacing_mm: Sequence[float | None] = (),
        mirror_axes: Sequence[int] | None = None,
        destroying: bool = False,
        orientation: str = "",
    ) -> None:
        spacing = [s for s in spacing_mm if s is not None]
        known = len(spacing) == len(space)
        self.space = tuple(space)
        self.pool = Pool(
            "views",
            dimensions=len(space),
            patch=space,
            # Of a prediction that is taken back, a label tells which voxels the view held.
            fields=tuple(dict.fromkeys(["image", *fields])),
            spacing_mm=spacing if known else None,
            # As for augmentation: nnU-Net's limit for treating a volume as a stack of slices.
            anisotropic=known and max(spacing) > 3 * min(spacing),
            mirror_axes=mirror_axes,
            destroying=destroying,
            orientation=orientation,
        )
        self.group = self.pool.groups[0]

    @property
    def names(self) -> tuple[str, ...]:
        return self.group.names

    def place(self, name: str) -> int:
        """Where a view is among the names.

        Raises:
            OptionError: If images of this size have no such view.
        """
        return self.names.index(choose(name, self.names, "view"))

    def shown(self, samples: Samples, places: Sequence[int] | Tensor) -> Samples:
        """Each sample as one of the views; labels move with it, and "ignore" marks what lay beyond the border.

        Args:
            samples: B of this size.
            places: B views by their place in `names`.
        """
        with torch.autocast(samples.image.device.type, enabled=False):
            return self.pool.apply(samples, self._parameters(samples, places))

    def restored(self, scores: Tensor, places: Sequence[int] | Tensor) -> tuple[Tensor, Tensor]:
        """Scores (B, K, *space) of views with their voxels back in place, and which the view held, (B, *space) bool.

        Intensities need no way back. Scores may be smaller than the image by a margin on each side.
        """
        with torch.autocast(scores.device.type, enabled=False):
            lost = torch.zeros(len(scores), *scores.shape[2:], dtype=torch.bool, device=scores.device)
            as_image = Samples(scores, lost.long())
            back = self.pool.inverse(as_image, self._parameters(as_image, places))
        return back.image, ~back.extra.get("ignore", lost)

    def _parameters(self, samples: Samples, places: Sequence[int] | Tensor) -> Parameters:
        index = torch.as_tensor(places, dtype=torch.int64).cpu()[:, None]
        drawn = self.pool.draw(samples, index, Generator().manual_seed(NOISE))
        # The same noise whatever else is in the batch.
        seeds = Seed().draw((1, samples.image.shape[1]), Generator().manual_seed(NOISE))
        return {n: seeds.expand_as(v) if n.endswith(".seed") else v for n, v in drawn.items()}


def initial(names: Sequence[str], preset: str) -> Tensor:
    """Probabilities (views,) at first.

    "nnunet": identity, mirrorings and half turns have 0.8 in common (0.1 each of the 8 in 3D), the others share 0.2.
    "deepmedic": likewise identity and mirrorings of one axis (0.2 each of the 4 in 3D). "uniform": all alike.

    Raises:
        OptionError: If there is no such preset.
    """
    if choose(preset, PRESETS, "preset of views") == "uniform":
        return torch.full((len(names),), 1 / len(names), dtype=torch.float64)
    named = torch.tensor([name in preset_views(names, preset) for name in names])
    others = max(int((~named).sum()), 1)
    found = torch.full((len(names),), (1 - _NAMED) / others, dtype=torch.float64)
    found[named] = _NAMED / int(named.sum())
    return found / found.sum()


def preset_views(names: Sequence[str], preset: str) -> tuple[str, ...]:
    """Those of the names that a preset makes probable."""

    def is_named(name: str) -> bool:
        half = preset == "nnunet" and (name == "mirror all" or (name.startswith("turn") and name.endswith("180")))
        return name == "identity" or half or (name.startswith("mirror") and name != "mirror all")

    return tuple(name for name in names if is_named(name))


def likeliest(shares: Iterable[tuple[str, float]], number: int) -> dict[str, float]:
    """The most probable views by name, with probabilities that add up to 1; of equal ones the first."""
    best = sorted(shares, key=lambda pair: -pair[1])[:number]
    total = sum(share for _, share in best)
    return {name: share / total for name, share in best}
