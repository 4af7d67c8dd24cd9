"""Layers in 2 or 3 dimensions, by the length of their kernel or stride."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import gcd
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import OptionError

Norm = Literal["instance", "batch", "group", "none"]
Extent = tuple[int, ...]
ByLevel = Sequence[int | Sequence[int]] | None
"""Strides or kernels as people write them: by level, an int or one int an axis."""
Layers = dict[int, Callable[..., nn.Module]]

SLOPE = 0.01
"""Of leaky ReLUs, as in nnU-Net."""


class _ByGroups:
    """Instance norm by the kernel of group norm, one group a channel.

    Same values; on a CPU a training step of the default U-Net takes 12 % less time. Elsewhere
    autocast would turn group norm's result into float32.
    """

    num_features: int
    weight: Tensor
    bias: Tensor
    eps: float

    def forward(self, features: Tensor) -> Tensor:
        if features.device.type != "cpu":
            return super().forward(features)  # type: ignore[misc, no-any-return]
        return F.group_norm(features, self.num_features, self.weight, self.bias, self.eps)


class InstanceNorm2d(_ByGroups, nn.InstanceNorm2d):  # type: ignore[misc]
    """Of (B, C, X, Y)."""


class InstanceNorm3d(_ByGroups, nn.InstanceNorm3d):  # type: ignore[misc]
    """Of (B, C, X, Y, Z)."""


CONVOLUTION: Layers = {2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED: Layers = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
DROPOUT: Layers = {2: nn.Dropout2d, 3: nn.Dropout3d}
INSTANCE: Layers = {2: InstanceNorm2d, 3: InstanceNorm3d}
BATCH: Layers = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


def convolution(
    inputs: int, outputs: int, kernel: Extent, stride: Extent, norm: Norm, *, bias: bool = False
) -> nn.Module:
    """n voxels become ceil(n / stride); a bias where it is asked for, or the norm does not subtract it again."""
    padding = tuple(size // 2 for size in kernel)
    return CONVOLUTION[len(kernel)](inputs, outputs, kernel, stride, padding, bias=bias or norm in ("none", "group"))


def normalisation(norm: Norm, dimensions: int, width: int) -> nn.Module:
    """The norm over `width` channels; groups are 8, or fewer where 8 does not divide the width."""
    if norm == "instance":
        return INSTANCE[dimensions](width, affine=True)
    if norm == "batch":
        return BATCH[dimensions](width)
    if norm == "group":
        return nn.GroupNorm(gcd(8, width), width)
    return nn.Identity()


def activation() -> nn.Module:
    # In place: no layer before it needs its own result for the gradient.
    return nn.LeakyReLU(SLOPE, inplace=True)


def upsampling(inputs: int, outputs: int, factors: Extent, *, linear: bool, bias: bool = False) -> nn.Module:
    """By whole factors: a transposed convolution with kernel = stride, or linear interpolation."""
    dimensions = len(factors)
    if linear:
        # A 1x1 convolution commutes with the interpolation and is cheaper before it.
        return nn.Sequential(CONVOLUTION[dimensions](inputs, outputs, 1, bias=bias), Interpolation(factors))
    return TRANSPOSED[dimensions](inputs, outputs, factors, factors, bias=bias)


class Interpolation(nn.Module):
    """Linear, by whole factors."""

    def __init__(self, factors: Extent) -> None:
        super().__init__()
        self.factors = factors

    def forward(self, features: Tensor) -> Tensor:
        size = [extent * factor for extent, factor in zip(features.shape[2:], self.factors, strict=True)]
        mode = "bilinear" if len(size) == 2 else "trilinear"
        return F.interpolate(features, size=size, mode=mode, align_corners=False)


def by_level(name: str, given: ByLevel, number: int, dimensions: int, title: str, *, default: int) -> list[Extent]:
    """One extent a level.

    Raises:
        OptionError: If there are fewer or more, or one is not positive.
    """
    extents = [default] * number if given is None else given
    full = []
    if isinstance(extents, Sequence) and not isinstance(extents, str):
        full = [(e,) * dimensions if isinstance(e, int) else e for e in extents]
    if len(full) != number or not all(_is_extent(e, dimensions) for e in full):
        raise OptionError(
            f"{name} of this {title} have {number} entries, each a positive int or {dimensions}, got {given}"
        )
    return [tuple(e) for e in full]


def _is_extent(extent: object, dimensions: int) -> bool:
    return (
        isinstance(extent, Sequence)
        and len(extent) == dimensions
        and all(isinstance(n, int) and not isinstance(n, bool) and n >= 1 for n in extent)
    )


def initialise_(module: nn.Module, slope: float = SLOPE) -> None:
    """He's normal initialisation of a convolution; other layers keep their own. For `Module.apply`."""
    if isinstance(module, nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d):
        nn.init.kaiming_normal_(module.weight, a=slope)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
