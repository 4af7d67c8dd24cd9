"""What a network that can be cut in two shares with the others: its doors and what it refuses to read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..errors import ImageError, OptionError
from .layers import CONVOLUTION

Between = Callable[[int, Tensor], Tensor]


def unchanged(level: int, features: Tensor) -> Tensor:
    return features


class CutNetwork(nn.Module):
    """Two halves, `encoder(image, between)` and `decoder(maps)`, behind the doors that methods use.

    A subclass sets the attributes after `super().__init__()`.

    Attributes:
        dimensions: 2 or 3.
        channels: Of the image.
        widths: Channels of each map, finest first.
        norm: As in `layers.normalisation`.
        single: Voxels by axis up to which the coarsest map is a single voxel wide.
    """

    title: ClassVar[str]
    dimensions: int
    channels: int
    widths: list[int]
    norm: str
    single: tuple[int, ...]
    encoder: nn.Module
    decoder: nn.Module

    def encode(self, *inputs: Tensor, between: Between = unchanged) -> list[Tensor]:
        """Feature maps by level, finest first. Several inputs are joined along their channels."""
        image = joined(inputs, self.channels, self.dimensions, self.title)
        space = image.shape[2:]
        if all(n <= limit for n, limit in zip(space, self.single, strict=True)):
            self._require_statistics(len(image), space)
        return self.encoder(image, between)  # type: ignore[no-any-return]

    def decode(self, features: Sequence[Tensor]) -> Tensor | dict[str, Tensor]:
        """The prediction that belongs to the maps of `encode`, for any leading part of their batch."""
        return self.decoder(features)  # type: ignore[no-any-return]

    def forward(self, *inputs: Tensor) -> Tensor | dict[str, Tensor]:
        return self.decode(self.encode(*inputs))

    def _require_statistics(self, batch: int, space: Sequence[int]) -> None:
        if self.norm == "instance":
            raise ImageError(
                f"an image of {times(space)} voxels shrinks to a single one, of which instance norm leaves "
                f"nothing; this {self.title} needs more than {times(self.single)}, or fewer levels"
            )
        if self.norm == "batch" and self.training and batch == 1:
            raise ImageError(
                f"one image of {times(space)} voxels shrinks to a single one, of which batch norm leaves nothing in "
                f"training; this {self.title} needs more than {times(self.single)}, fewer levels or a larger batch"
            )


def joined(inputs: Sequence[Tensor], channels: int, dimensions: int, title: str) -> Tensor:
    """One image (B, C, *space) of all inputs.

    Raises:
        ImageError: If its channels or dimensions are not the network's.
    """
    image = inputs[0] if len(inputs) == 1 else torch.cat(list(inputs), 1)
    if image.dim() != dimensions + 2 or image.shape[1] != channels:
        axes = ", ".join("XYZ"[:dimensions])
        raise ImageError(f"this {title} reads (B, {channels}, {axes}), got {tuple(image.shape)}")
    return image


def along(levels: Iterable[Callable[[Tensor], Tensor]], features: Tensor, between: Between) -> list[Tensor]:
    """The maps of levels that follow one another."""
    maps = []
    for index, level in enumerate(levels):
        features = between(index, level(features))
        maps.append(features)
    return maps


def cut(features: Tensor, space: Sequence[int]) -> Tensor:
    """Without the surplus voxels at the end of an axis that upsampling an odd size leaves."""
    for axis, extent in enumerate(space, start=2):
        if features.shape[axis] != extent:
            features = features.narrow(axis, 0, extent)
    return features


def filled(features: Tensor, space: Sequence[int]) -> Tensor:
    """With zeros at the end of each axis up to `space`."""
    missing = [extent - n for extent, n in zip(space, features.shape[2:], strict=True)]
    if not any(missing):
        return features
    return nn.functional.pad(features, [side for extent in reversed(missing) for side in (0, extent)])


def require_dimensions(title: str, dimensions: int) -> None:
    if dimensions not in CONVOLUTION:
        raise OptionError(f"a {title} has 2 or 3 dimensions, got {dimensions}")


def require_counts(title: str, **counts: int | Sequence[int]) -> None:
    """Whole numbers of at least 1, or sequences of them.

    Raises:
        OptionError: With the first name that is something else.
    """
    for name, value in counts.items():
        values = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
        if not values or not all(isinstance(v, int) and not isinstance(v, bool) and v >= 1 for v in values):
            raise OptionError(f"{name} of a {title} are whole numbers of at least 1, got {value!r}")


def require_probability(title: str, dropout: float) -> None:
    if not 0 <= dropout < 1:
        raise OptionError(f"dropout of a {title} is a probability below 1, got {dropout}")


def times(extents: Sequence[int]) -> str:
    return " x ".join(map(str, extents))
