"""The U-Net, in 2D and 3D."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from math import prod
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from ..errors import OptionError
from ..names import choose
from .layers import (
    CONVOLUTION,
    DROPOUT,
    ByLevel,
    Extent,
    Norm,
    activation,
    by_level,
    convolution,
    initialise_,
    normalisation,
    upsampling,
)
from .network import Between, CutNetwork, along, cut, require_counts, require_dimensions, require_probability, unchanged
from .planned import planned_levels

Upsampling = Literal["transposed", "linear"]
WIDTHS = (16, 32, 48, 64)

WIDEST = {2: 512, 3: 320}
"""Channels at most by dimensions, as in nnU-Net, for a network that doubles them from a base."""

MOST_LEVELS = 8


class UNet(CutNetwork):
    """Encoder and decoder with skip connections.

    A level is `convolutions` times (convolution, dropout, norm, leaky ReLU of slope 0.01); the
    first convolution of a level has its stride, a transposed convolution with kernel = stride
    leads back. The outline is nnU-Net's, narrower by default.

    Images of any size: n voxels are followed by ceil(n / stride), and on the way up the surplus is
    cut off at the end of the axis. So the prediction has the image's size without padding, of
    which `decode` would have to be told.

    With `base=32, deep_supervision=True, bias=True` it is the plain U-Net of nnU-Net's version 2, with `base=30,
    deep_supervision=True` and the widest level 320 (3D) or 480 (2D) the "generic" one of version 1; weights of both are
    read (`nets.nnunet`).

    Papers: O. Ronneberger et al., "U-Net", MICCAI 2015, https://arxiv.org/abs/1505.04597;
    F. Isensee et al., "nnU-Net", Nature Methods 18 (2021), https://doi.org/10.1038/s41592-020-01008-z.
    Deviations from nnU-Net: no convolution bias by default, where a norm removes it anyway. The
    levels of deep supervision are weighed by the task.

    Args:
        dimensions: 2 or 3.
        channels: Of the image.
        outputs: Of the prediction.
        widths: Channels by level, finest first; their number is the number of levels. By default 16, 32, 48, 64.
        base: Instead of `widths`: channels of the finest level, doubled from level to level up to `widest`.
        levels: Of a network with `base`; where a plan is at hand, by the rules of `nets.planned` if not given.
        widest: Most channels of a level of a network with `base`; 320 in 3D and 512 in 2D if not given.
        residual: Add a shortcut around each level's convolutions (1x1 where the shape changes).
        deep_supervision: In training mode `decode` gives {"scores": full resolution, "scores 1":
            those of the next level, ...} for all levels of the decoder; in evaluation mode the
            plain tensor.
        norm: "instance", "batch", "group" (8 groups, fewer where 8 does not divide the width) or "none".
        dropout: Probability with which a channel is dropped after a convolution.
        convolutions: Convolutions by level.
        strides: From each level to the next, one entry fewer than `widths`; an int or one int an
            axis, (2, 2, 1) for thick slices. "auto", the default where a plan is at hand: by the rules of
            `nets.planned` for as many levels as `widths` has. Else 2.
        kernels: Of the convolutions by level, odd; an int or one int an axis. Likewise "auto", else 3.
        upsampling: "transposed", or "linear" interpolation after a 1x1 convolution.
        bias: Give every convolution a bias, transposed ones included, as nnU-Net's version 2 does.

    Raises:
        OptionError: If an option is out of range.
    """

    title: ClassVar[str] = "U-Net"

    def __init__(
        self,
        *,
        dimensions: int,
        channels: int,
        outputs: int,
        widths: Sequence[int] | None = None,
        base: int | None = None,
        levels: int | None = None,
        widest: int | None = None,
        residual: bool = False,
        deep_supervision: bool = False,
        norm: Norm = "instance",
        dropout: float = 0.0,
        convolutions: int = 2,
        strides: ByLevel = None,
        kernels: ByLevel = None,
        upsampling: Upsampling = "transposed",
        bias: bool = False,
    ) -> None:
        super().__init__()
        require_dimensions(self.title, dimensions)
        widths = widths_of(dimensions, widths, base, levels, widest)
        require_counts(self.title, channels=channels, outputs=outputs, convolutions=convolutions, widths=widths)
        if len(widths) < 2:
            raise OptionError(f"widths of a U-Net are channels by level, at least 1 on 2 levels, got {widths}")
        require_probability(self.title, dropout)
        choose(norm, get_args(Norm), "norm of a U-Net")
        choose(upsampling, get_args(Upsampling), "upsampling of a U-Net")
        steps = by_level("strides", strides, len(widths) - 1, dimensions, self.title, default=2)
        sizes = by_level("kernels", kernels, len(widths), dimensions, self.title, default=3)
        if any(size % 2 == 0 for kernel in sizes for size in kernel):
            raise OptionError(f"kernels of a U-Net are odd, so that a map keeps its size, got {kernels}")

        self.dimensions = dimensions
        self.channels = channels
        self.widths = list(widths)
        self.norm = norm
        self.single = tuple(prod(step[axis] for step in steps) for axis in range(dimensions))

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
                bias=bias,
            )

        self.encoder = Encoder(
            [level(channels, 0), *(level(widths[i], i + 1, stride) for i, stride in enumerate(steps))]
        )
        self.decoder = Decoder(widths, steps, outputs, level, upsampling, deep_supervision=deep_supervision, bias=bias)
        self.apply(initialise_)

    @classmethod
    def suited(
        cls, dimensions: int, patch: Sequence[int], spacing_mm: Sequence[float | None], given: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Strides and kernels for a plan, and with `base` the number of levels, where they are not given."""
        if given.get("base") is not None and given.get("levels") is None:
            steps = given.get("strides")
            number = None if steps in (None, "auto") else len(steps) + 1
            found = planned_levels(dimensions, patch, spacing_mm, given, least=number or 2, most=number or MOST_LEVELS)
            return {**found, "levels": number or len(found["strides"]) + 1}
        levels = given.get("levels") or len(given.get("widths") or WIDTHS)
        return planned_levels(dimensions, patch, spacing_mm, given, least=levels, most=levels)


def widths_of(
    dimensions: int, widths: Sequence[int] | None, base: int | None, levels: int | None, widest: int | None
) -> Sequence[int]:
    """Channels by level.

    Raises:
        OptionError: If they are given in two ways, or by a base without a number of levels.
    """
    if base is None:
        if levels is not None or widest is not None:
            raise OptionError("levels and widest of a U-Net belong to base; give base, or the widths of all levels")
        return WIDTHS if widths is None else widths
    if widths is not None:
        raise OptionError(f"a U-Net has widths or a base, not both; got widths {widths} and base {base}")
    if levels is None:
        raise OptionError("base of a U-Net needs its number of levels, which follows from a plan; give levels")
    require_counts("U-Net", base=base, levels=levels)
    most = WIDEST[dimensions] if widest is None else widest
    return [min(base * 2**level, max(base, most)) for level in range(levels)]


class Encoder(nn.Module):
    """Levels one after the other."""

    def __init__(self, levels: Sequence[Level]) -> None:
        super().__init__()
        self.levels = nn.ModuleList(levels)

    def forward(self, image: Tensor, between: Between = unchanged) -> list[Tensor]:
        return along(self.levels, image, between)


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
        bias: bool,
    ) -> None:
        super().__init__()
        fine = widths[:-1]
        self.levels = nn.ModuleList(level(2 * width, index) for index, width in enumerate(fine))
        self.upsamplings = nn.ModuleList(
            upsampling(coarse, width, stride, linear=kind == "linear", bias=bias)
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
            features = level(torch.cat([skip, cut(up(features), skip.shape[2:])], 1))
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
        bias: bool = False,
    ) -> None:
        super().__init__()
        dimensions, point = len(kernel), (1,) * len(kernel)
        layers: list[nn.Module] = []
        for index in range(convolutions):
            first = index == 0
            layers.append(
                convolution(inputs if first else width, width, kernel, stride if first else point, norm, bias=bias)
            )
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
                    convolution(inputs, width, point, stride, norm, bias=bias), normalisation(norm, dimensions, width)
                )

    def forward(self, features: Tensor) -> Tensor:
        result = self.layers(features)
        if self.shortcut is not None:
            result = result + self.shortcut(features)
        return self.activation(result)
