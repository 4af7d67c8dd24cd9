"""MONAI's DynUNet, nnU-Net's network, cut in two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..errors import OptionError
from .layers import ByLevel, Norm, by_level
from .monai_layers import LEAKY, monai_norm
from .network import (
    Between,
    CutNetwork,
    along,
    cut,
    require_counts,
    require_dimensions,
    require_probability,
    unchanged,
)
from .planned import planned_levels

LEVELS = 5
"""Where neither filters nor a plan say otherwise."""


class DynUNet(CutNetwork):
    """The U-Net of nnU-Net: strided convolutions down, transposed ones up, all of them by level.

    Parts, parameters and results are those of `monai.networks.nets.DynUNet`. MONAI takes sizes that its strides
    divide; here the surplus of an upsampled odd size is cut off at the end of the axis, so that any image can be
    read. Deep supervision gives the scores at their own resolutions, which MONAI interpolates to the finest.

    Paper: F. Isensee et al., "nnU-Net", Nature Methods 18 (2021), https://doi.org/10.1038/s41592-020-01008-z.

    Args:
        dimensions: 2 or 3.
        channels: Of the image.
        outputs: Of the prediction.
        filters: Channels by level, finest first, at least 3; by default 32, doubled from level to level, up to 512
            in 2D and 320 in 3D.
        strides: From each level to the next, an int or one int an axis. "auto", the default where a plan is at
            hand: by the rules of `nets.planned`, which then choose 3 to 6 levels unless `filters` do. Else 2.
        kernels: Of the convolutions by level, odd. Likewise "auto", else 3.
        norm: "instance", "batch", "group" (8 groups, fewer where 8 does not divide all widths) or "none".
        dropout: Probability with which a value is dropped after a convolution.
        deep_supervision: In training mode `decode` gives {"scores": full resolution, "scores 1": those of the
            next level, ...}; in evaluation mode the plain tensor.
        supervised: Levels below the finest that deep supervision scores; by default all but the two coarsest,
            at least one.
        residual: Blocks with a shortcut around their convolutions (MONAI's `res_block`).

    Raises:
        OptionError: If an option is out of range.
    """

    title: ClassVar[str] = "DynUNet"

    def __init__(
        self,
        *,
        dimensions: int,
        channels: int,
        outputs: int,
        filters: Sequence[int] | None = None,
        strides: ByLevel = None,
        kernels: ByLevel = None,
        norm: Norm = "instance",
        dropout: float = 0.0,
        deep_supervision: bool = False,
        supervised: int | None = None,
        residual: bool = False,
    ) -> None:
        super().__init__()
        require_dimensions(self.title, dimensions)
        levels = len(filters) if filters is not None else LEVELS if strides is None else len(strides) + 1
        widths = list(filters) if filters is not None else default_filters(dimensions, levels)
        require_counts(self.title, channels=channels, outputs=outputs, filters=widths)
        require_probability(self.title, dropout)
        if levels < 3:
            raise OptionError(f"a DynUNet has at least 3 levels, got {levels}; give it more, or use unet")
        steps = by_level("strides", strides, levels - 1, dimensions, self.title, default=2)
        sizes = by_level("kernels", kernels, levels, dimensions, self.title, default=3)
        if any(size % 2 == 0 for kernel in sizes for size in kernel):
            raise OptionError(f"kernels of a DynUNet are odd, so that a map keeps its size, got {kernels}")
        heads = supervised if supervised is not None else max(levels - 3, 1)
        if not 1 <= heads <= levels - 2:
            raise OptionError(f"supervised of this DynUNet is a number of levels from 1 to {levels - 2}, got {heads}")
        from monai.networks.nets.dynunet import DynUNet as MonaiDynUNet

        whole = MonaiDynUNet(
            spatial_dims=dimensions,
            in_channels=channels,
            out_channels=outputs,
            kernel_size=sizes,
            strides=[(1,) * dimensions, *steps],
            upsample_kernel_size=steps,
            filters=widths,
            dropout=dropout or None,
            norm_name=monai_norm(norm, widths, self.title),
            act_name=LEAKY,
            deep_supervision=deep_supervision,
            deep_supr_num=heads,
            res_block=residual,
        )
        self.dimensions = dimensions
        self.channels = channels
        self.widths = widths
        self.norm = norm
        self.single = tuple(prod(step[axis] for step in steps) for axis in range(dimensions))
        self.encoder = Encoder(whole)
        self.decoder = Decoder(whole, deep_supervision=deep_supervision)

    @classmethod
    def suited(
        cls, dimensions: int, patch: Sequence[int], spacing_mm: Sequence[float | None], given: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Strides and kernels for a plan, where they are not given, and so the number of levels."""
        filters, kernels = given.get("filters"), given.get("kernels")
        by_hand = filters if filters is not None else kernels if kernels not in (None, "auto") else None
        least, most = (3, 6) if by_hand is None else (len(by_hand), len(by_hand))
        return planned_levels(dimensions, patch, spacing_mm, given, least=least, most=most)


def default_filters(dimensions: int, levels: int) -> list[int]:
    return [min(32 * 2**level, 512 if dimensions == 2 else 320) for level in range(levels)]


class Encoder(nn.Module):
    """The way down, under MONAI's names."""

    def __init__(self, whole: Any) -> None:
        super().__init__()
        self.input_block, self.downsamples, self.bottleneck = whole.input_block, whole.downsamples, whole.bottleneck

    def forward(self, image: Tensor, between: Between = unchanged) -> list[Tensor]:
        return along([self.input_block, *self.downsamples, self.bottleneck], image, between)


class Decoder(nn.Module):
    """The way up, under MONAI's names."""

    def __init__(self, whole: Any, *, deep_supervision: bool) -> None:
        super().__init__()
        self.upsamples, self.output_block = whole.upsamples, whole.output_block
        self.deep_supervision_heads = whole.deep_supervision_heads if deep_supervision else nn.ModuleList()

    def forward(self, maps: Sequence[Tensor]) -> Tensor | dict[str, Tensor]:
        features, by_level = maps[-1], []
        for up, skip in zip(self.upsamples, maps[-2::-1], strict=True):
            raised = cut(up.transp_conv(features), skip.shape[2:])
            features = up.conv_block(torch.cat([raised, skip], 1))
            by_level.append(features)
        scores: Tensor = self.output_block(features)
        if not (self.training and self.deep_supervision_heads):
            return scores
        coarser = zip(self.deep_supervision_heads, by_level[-2::-1], strict=False)
        return {"scores": scores} | {f"scores {i}": head(map_) for i, (head, map_) in enumerate(coarser, start=1)}
