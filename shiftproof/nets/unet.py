"""The U-Net, in 2D and 3D."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import prod
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from ..errors import ImageError, OptionError
from ..names import choose
from .layers import (
    CONVOLUTION,
    DROPOUT,
    Extent,
    Norm,
    activation,
    convolution,
    initialise_,
    normalisation,
    upsampling,
)

Upsampling = Literal["transposed", "linear"]
Between = Callable[[int, Tensor], Tensor]


def unchanged(level: int, features: Tensor) -> Tensor:
    return features


class UNet(nn.Module):
    """Encoder and decoder with skip connections.

    A level is `convolutions` times (convolution, dropout, norm, leaky ReLU of slope 0.01); the
    first convolution of a level has its stride, a transposed convolution with kernel = stride
    leads back. The outline is nnU-Net's, narrower by default.

    Images of any size: n voxels are followed by ceil(n / stride), and on the way up the surplus is
    cut off at the end of the axis. So the prediction has the image's size without padding, of
    which `decode` would have to be told.

    Papers: O. Ronneberger et al., "U-Net", MICCAI 2015, https://arxiv.org/abs/1505.04597;
    F. Isensee et al., "nnU-Net", Nature Methods 18 (2021), https://doi.org/10.1038/s41592-020-01008-z.
    Deviations from nnU-Net: no convolution bias where a norm removes it anyway; with deep
    supervision a score for every level of the decoder (there, the lowest one has weight 0).

    Args:
        dimensions: 2 or 3.
        channels: Of the image.
        outputs: Of the prediction.
        widths: Channels by level, finest first; their number is the number of levels.
        residual: Add a shortcut around each level's convolutions (1x1 where the shape changes).
        deep_supervision: In training mode `decode` gives {"scores": full resolution, "scores 1":
            those of the next level, ...} for all levels of the decoder; in evaluation mode the
            plain tensor.
        norm: "instance", "batch", "group" (8 groups, fewer where 8 does not divide the width) or "none".
        dropout: Probability with which a channel is dropped after a convolution.
        convolutions: Convolutions by level.
        strides: From each level to the next, one entry fewer than `widths`; an int or one int an
            axis, (2, 2, 1) for thick slices. Default 2.
        kernels: Of the convolutions by level, odd; an int or one int an axis. Default 3.
        upsampling: "transposed", or "linear" interpolation after a 1x1 convolution.

    Raises:
        OptionError: If an option is out of range.
    """

    def __init__(
        self,
        *,
        dimensions: int,
        channels: int,
        outputs: int,
        widths: Sequence[int] = (16, 32, 48, 64),
        residual: bool = False,
        deep_supervision: bool = False,
        norm: Norm = "instance",
        dropout: float = 0.0,
        convolutions: int = 2,
        strides: Sequence[int | Sequence[int]] | None = None,
        kernels: Sequence[int | Sequence[int]] | None = None,
        upsampling: Upsampling = "transposed",
    ) -> None:
        super().__init__()
        if dimensions not in CONVOLUTION:
            raise OptionError(f"a U-Net has 2 or 3 dimensions, got {dimensions}")
        for name, value in {"channels": channels, "outputs": outputs, "convolutions": convolutions}.items():
            if value < 1:
                raise OptionError(f"{name} of a U-Net are at least 1, got {value}")
        if len(widths) < 2 or min(widths) < 1:
            raise OptionError(f"widths of a U-Net are channels by level, at least 1 on 2 levels, got {widths}")
        if not 0 <= dropout < 1:
            raise OptionError(f"dropout is a probability below 1, got {dropout}")
        choose(norm, get_args(Norm), "norm of a U-Net")
        choose(upsampling, get_args(Upsampling), "upsampling of a U-Net")
        steps = _by_level("strides", strides, len(widths) - 1, dimensions, default=2)
        sizes = _by_level("kernels", kernels, len(widths), dimensions, default=3)
        if any(size % 2 == 0 for kernel in sizes for size in kernel):
            raise OptionError(f"kernels of a U-Net are odd, so that a map keeps its size, got {kernels}")

        self.dimensions = dimensions
        self.channels = channels
        self.widths = list(widths)
        self.norm = norm
        self.reduction = tuple(prod(step[axis] for step in steps) for axis in range(dimensions))

        def level(inputs: int, index: int, stride: Extent = (1,) * dimensions) -> Level:
            return Level(
                inputs,
                widths[index],
                sizes[index],
                stride,
                convolutions=convolutions,
                residual=residual,
                norm=norm,
                dropout=dropout,
            )

        self.encoder = Encoder(
            [level(channels, 0), *(level(widths[i], i + 1, stride) for i, stride in enumerate(steps))]
        )
        self.decoder = Decoder(widths, steps, outputs, level, upsampling, deep_supervision=deep_supervision)
        self.apply(initialise_)

    def encode(self, *inputs: Tensor, between: Between = unchanged) -> list[Tensor]:
        """Feature maps by level, finest first. Several inputs are joined along their channels."""
        image = inputs[0] if len(inputs) == 1 else torch.cat(inputs, 1)
        if image.dim() != self.dimensions + 2 or image.shape[1] != self.channels:
            axes = ", ".join("XYZ"[: self.dimensions])
            raise ImageError(f"this U-Net reads (B, {self.channels}, {axes}), got {tuple(image.shape)}")
        space = image.shape[2:]
        if self.norm == "instance" and all(n <= r for n, r in zip(space, self.reduction, strict=True)):
            raise ImageError(
                f"an image of {_times(space)} voxels shrinks to a single one, of which instance norm leaves "
                f"nothing; this U-Net needs more than {_times(self.reduction)}, or fewer levels"
            )
        return self.encoder(image, between)

    def decode(self, features: Sequence[Tensor]) -> Tensor | dict[str, Tensor]:
        """Scores at the image's resolution, or those of each level under deep supervision."""
        return self.decoder(features)

    def forward(self, *inputs: Tensor) -> Tensor | dict[str, Tensor]:
        return self.decode(self.encode(*inputs))


class Encoder(nn.Module):
    """Levels one after the other."""

    def __init__(self, levels: Sequence[Level]) -> None:
        super().__init__()
        self.levels = nn.ModuleList(levels)

    def forward(self, image: Tensor, between: Between = unchanged) -> list[Tensor]:
        features, maps = image, []
        for index, level in enumerate(self.levels):
            features = between(index, level(features))
            maps.append(features)
        return maps


class Decoder(nn.Module):
    """From the coarsest map upwards, joined with the encoder's map at each level."""

    def __init__(
        self,
        widths: Sequence[int],
        strides: Sequence[Extent],
        outputs: int,
        level: Callable[[int, int], Level],
        kind: Upsampling,
        *,
        deep_supervision: bool,
    ) -> None:
        super().__init__()
        fine = widths[:-1]
        self.levels = nn.ModuleList(level(2 * width, index) for index, width in enumerate(fine))
        self.upsamplings = nn.ModuleList(
            upsampling(coarse, width, stride, linear=kind == "linear")
            for (width, coarse), stride in zip(pairwise(widths), strides, strict=True)
        )
        self.heads = nn.ModuleList(
            CONVOLUTION[len(stride)](width, outputs, 1) for width, stride in zip(fine, strides, strict=True)
        )
        if not deep_supervision:
            del self.heads[1:]
        self.deep_supervision = deep_supervision

    def forward(self, maps: Sequence[Tensor]) -> Tensor | dict[str, Tensor]:
        features, by_level = maps[-1], []
        for level, up, skip in zip(self.levels[::-1], self.upsamplings[::-1], maps[-2::-1], strict=True):
            features = level(torch.cat([skip, _cut(up(features), skip.shape[2:])], 1))
            by_level.append(features)
        if not (self.training and self.deep_supervision):
            return self.heads[0](features)
        scores = [head(features) for head, features in zip(self.heads, reversed(by_level), strict=True)]
        return {f"scores {index}" if index else "scores": s for index, s in enumerate(scores)}


class Level(nn.Module):
    """The convolutions at one resolution."""

    def __init__(
        self,
        inputs: int,
        width: int,
        kernel: Extent,
        stride: Extent,
        *,
        convolutions: int,
        residual: bool,
        norm: Norm,
        dropout: float,
    ) -> None:
        super().__init__()
        dimensions, point = len(kernel), (1,) * len(kernel)
        layers: list[nn.Module] = []
        for index in range(convolutions):
            first = index == 0
            layers.append(convolution(inputs if first else width, width, kernel, stride if first else point, norm))
            if dropout:
                layers.append(DROPOUT[dimensions](dropout))
            layers += [normalisation(norm, dimensions, width), activation()]
        # Kept apart: with a shortcut, the last activation follows the sum.
        self.activation = layers.pop()
        self.layers = nn.Sequential(*layers)
        self.shortcut: nn.Module | None = None
        if residual:
            self.shortcut = nn.Identity()
            if inputs != width or stride != point:
                self.shortcut = nn.Sequential(
                    convolution(inputs, width, point, stride, norm), normalisation(norm, dimensions, width)
                )

    def forward(self, features: Tensor) -> Tensor:
        result = self.layers(features)
        if self.shortcut is not None:
            result = result + self.shortcut(features)
        return self.activation(result)


def _cut(features: Tensor, space: torch.Size) -> Tensor:
    """Without the surplus voxel at the end of an axis that upsampling an odd size leaves."""
    for axis, extent in enumerate(space, start=2):
        if features.shape[axis] != extent:
            features = features.narrow(axis, 0, extent)
    return features


def _by_level(
    name: str, given: Sequence[int | Sequence[int]] | None, number: int, dimensions: int, *, default: int
) -> list[Extent]:
    extents = [default] * number if given is None else list(given)
    full = [(e,) * dimensions if isinstance(e, int) else tuple(e) for e in extents]
    if len(full) != number or any(len(e) != dimensions or min(e) < 1 for e in full):
        raise OptionError(
            f"{name} of this U-Net have {number} entries, each a positive int or {dimensions}, got {given}"
        )
    return full


def _times(extents: Sequence[int]) -> str:
    return " x ".join(map(str, extents))
