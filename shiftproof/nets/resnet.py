"""The residual network for classification and regression, in 2D and 3D."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any, ClassVar, Literal, get_args

from torch import Tensor, nn

from ..errors import OptionError
from ..names import choose
from .layers import ByLevel, Extent, Norm, by_level, convolution, normalisation
from .network import Between, CutNetwork, along, require_counts, require_dimensions, require_probability, unchanged
from .planned import planned_levels

Stem = Literal["imagenet", "small"]
BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}
SMALL_PATCH = 64
"""Voxels a side, up to which the small stem is the default: the other one would leave 2 x 2 of them."""

POOLS: dict[int, type[nn.Module]] = {2: nn.MaxPool2d, 3: nn.MaxPool3d}


class ResNet(CutNetwork):
    """Four levels of residual blocks, then a mean over space and a linear layer: (B, outputs).

    Its maps are the results of the four levels; without the stem's reduction ("small") the first has the
    image's size. Parameters are named as in torchvision, so that its checkpoints can be loaded.

    Paper: K. He et al., "Deep Residual Learning for Image Recognition", CVPR 2016,
    https://arxiv.org/abs/1512.03385. Deviations: the stride of a bottleneck is that of its 3x3 convolution, as in
    torchvision; the "small" stem (3x3 convolution without reduction) is the paper's for CIFAR-10, with the widths
    of the large networks; dropout before the linear layer.

    Args:
        dimensions: 2 or 3.
        channels: Of the image.
        outputs: Of the prediction.
        depth: 18 or 34 (two 3x3 convolutions a block), or 50 (bottlenecks, four times the width).
        width: Factor of the widths 64, 128, 256, 512.
        norm: "batch", "instance", "group" (8 groups, fewer where 8 does not divide the width) or "none".
        stem: "imagenet" (7x7 of stride 2, then pooling by 2) or "small" (3x3 of stride 1). By default "small"
            where a plan's patch has at most 64 voxels a side, else "imagenet".
        strides: Of each reduction, an int or one int an axis: with "imagenet" five (convolution, pooling, from
            level to level), with "small" three (from level to level). "auto", the default where a plan is at
            hand: by the rules of `nets.planned`. Else 2.
        dropout: Probability with which an averaged feature is dropped.
        zero_init: Whether the last norm of a block begins at 0, so that the block begins as its shortcut.

    Raises:
        OptionError: If an option is out of range.
    """

    title: ClassVar[str] = "ResNet"

    def __init__(
        self,
        *,
        dimensions: int,
        channels: int,
        outputs: int,
        depth: int = 18,
        width: float = 1.0,
        norm: Norm = "batch",
        stem: Stem = "imagenet",
        strides: ByLevel = None,
        dropout: float = 0.0,
        zero_init: bool = False,
    ) -> None:
        super().__init__()
        require_dimensions(self.title, dimensions)
        require_counts(self.title, channels=channels, outputs=outputs)
        require_probability(self.title, dropout)
        choose(norm, get_args(Norm), "norm of a ResNet")
        choose(stem, get_args(Stem), "stem of a ResNet")
        if depth not in BLOCKS:
            raise OptionError(f"depth of a ResNet is one of {', '.join(map(str, BLOCKS))}, got {depth}")
        base = round(64 * width) if 0 < width < 100 else 0
        if base < 1:
            raise OptionError(f"width of a ResNet is a factor of 64 channels that leaves at least 1, got {width}")
        steps = by_level("strides", strides, _reductions(stem), dimensions, self.title, default=2)

        block = Bottleneck if depth >= 50 else Basic
        self.dimensions = dimensions
        self.channels = channels
        self.widths = [base * 2**level * block.expansion for level in range(4)]
        self.norm = norm
        self.single = tuple(prod(step[axis] for step in steps) for axis in range(dimensions))
        self.encoder = Encoder(channels, base, BLOCKS[depth], block, stem, steps, norm)
        self.decoder = Head(self.widths[-1], outputs, dropout)
        self.apply(_initialise_)
        if zero_init:
            for module in self.modules():
                if isinstance(module, Basic | Bottleneck):
                    module.begin_as_shortcut_()

    @classmethod
    def suited(
        cls, dimensions: int, patch: Sequence[int], spacing_mm: Sequence[float | None], given: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Stem and strides for a plan, where they are not given."""
        stem = given.get("stem", "small" if max(patch) <= SMALL_PATCH else "imagenet")
        levels = 1 + _reductions(stem)
        found = planned_levels(dimensions, patch, spacing_mm, given, least=levels, most=levels)
        return {"stem": stem} | {name: found[name] for name in found if name == "strides"}


class Encoder(nn.Module):
    """Stem and four levels, under torchvision's names."""

    layer1: nn.Module
    layer2: nn.Module
    layer3: nn.Module
    layer4: nn.Module

    def __init__(
        self,
        channels: int,
        base: int,
        blocks: Sequence[int],
        block: type[Basic] | type[Bottleneck],
        stem: Stem,
        strides: Sequence[Extent],
        norm: Norm,
    ) -> None:
        super().__init__()
        dimensions = len(strides[0])
        point = (1,) * dimensions
        large = stem == "imagenet"
        self.conv1 = convolution(
            channels, base, (7 if large else 3,) * dimensions, strides[0] if large else point, norm
        )
        self.bn1 = normalisation(norm, dimensions, base)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = POOLS[dimensions](3, strides[1], 1) if large else nn.Identity()
        inputs = base
        for level, (number, stride) in enumerate(zip(blocks, (point, *strides[-3:]), strict=True)):
            width = base * 2**level
            layers = []
            for index in range(number):
                layers.append(block(inputs, width, point if index else stride, norm))
                inputs = width * block.expansion
            self.add_module(f"layer{level + 1}", nn.Sequential(*layers))

    def forward(self, image: Tensor, between: Between = unchanged) -> list[Tensor]:
        features = self.maxpool(self.relu(self.bn1(self.conv1(image))))
        return along([self.layer1, self.layer2, self.layer3, self.layer4], features, between)


class Basic(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: Extent, norm: Norm) -> None:
        super().__init__()
        dimensions = len(stride)
        cube, point = (3,) * dimensions, (1,) * dimensions
        self.conv1 = convolution(inputs, width, cube, stride, norm)
        self.bn1 = normalisation(norm, dimensions, width)
        self.conv2 = convolution(width, width, cube, point, norm)
        self.bn2 = normalisation(norm, dimensions, width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(inputs, width, stride, norm)

    def forward(self, features: Tensor) -> Tensor:
        result = self.relu(self.bn1(self.conv1(features)))
        return self.relu(self.bn2(self.conv2(result)) + self.downsample(features))

    def begin_as_shortcut_(self) -> None:
        _zero_(self.bn2, self.conv2)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 to four times the width, and a shortcut."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: Extent, norm: Norm) -> None:
        super().__init__()
        dimensions = len(stride)
        cube, point = (3,) * dimensions, (1,) * dimensions
        self.conv1 = convolution(inputs, width, point, point, norm)
        self.bn1 = normalisation(norm, dimensions, width)
        self.conv2 = convolution(width, width, cube, stride, norm)
        self.bn2 = normalisation(norm, dimensions, width)
        self.conv3 = convolution(width, width * self.expansion, point, point, norm)
        self.bn3 = normalisation(norm, dimensions, width * self.expansion)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(inputs, width * self.expansion, stride, norm)

    def forward(self, features: Tensor) -> Tensor:
        result = self.relu(self.bn1(self.conv1(features)))
        result = self.relu(self.bn2(self.conv2(result)))
        return self.relu(self.bn3(self.conv3(result)) + self.downsample(features))

    def begin_as_shortcut_(self) -> None:
        _zero_(self.bn3, self.conv3)


class Head(nn.Module):
    """From the coarsest map: mean over space, dropout, linear."""

    def __init__(self, width: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(width, outputs)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        return self.fc(self.dropout(maps[-1].flatten(2).mean(2)))  # type: ignore[no-any-return]


def _reductions(stem: str) -> int:
    return 5 if stem == "imagenet" else 3


def _shortcut(inputs: int, outputs: int, stride: Extent, norm: Norm) -> nn.Module:
    point = (1,) * len(stride)
    if inputs == outputs and stride == point:
        return nn.Identity()
    return nn.Sequential(convolution(inputs, outputs, point, stride, norm), normalisation(norm, len(stride), outputs))


def _zero_(norm: nn.Module, last: nn.Module) -> None:
    # Without a norm the convolution before it takes its part.
    for parameter in (last if isinstance(norm, nn.Identity) else norm).parameters():
        nn.init.zeros_(parameter)


def _initialise_(module: nn.Module) -> None:
    """He's normal initialisation for ReLU, by the number of outputs as in torchvision."""
    if isinstance(module, nn.Conv2d | nn.Conv3d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
