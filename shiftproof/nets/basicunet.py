"""MONAI's BasicUNet, cut in two."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, get_args

from torch import Tensor, nn

from ..errors import OptionError
from ..names import choose
from .layers import Norm
from .monai_layers import monai_norm
from .network import (
    Between,
    CutNetwork,
    along,
    cut,
    filled,
    require_counts,
    require_dimensions,
    require_probability,
    unchanged,
)

Upsample = Literal["deconv", "pixelshuffle", "nontrainable"]
REDUCTION = 16


class BasicUNet(CutNetwork):
    """Five levels of two convolutions, with max pooling between them.

    Parts, parameters and results are those of `monai.networks.nets.BasicUNet`. As there, pooling leaves out an
    odd voxel at the end of an axis, and the last one is repeated on the way up. An axis of fewer than 16 voxels is
    filled with zeros to 16 and cut back.

    Paper: T. Falk et al., "U-Net: deep learning for cell counting, detection, and morphometry", Nature Methods 16
    (2019), https://doi.org/10.1038/s41592-018-0261-2.

    Args:
        dimensions: 2 or 3.
        channels: Of the image.
        outputs: Of the prediction.
        features: Channels of the five levels, finest first, and of the last map before the scores.
        norm: "instance", "batch", "group" (8 groups, fewer where 8 does not divide all widths) or "none".
        dropout: Probability with which a value is dropped after a norm.
        bias: Whether convolutions before a norm have a bias.
        upsample: "deconv", "pixelshuffle", or "nontrainable" (linear interpolation).

    Raises:
        OptionError: If an option is out of range.
    """

    title: ClassVar[str] = "BasicUNet"

    def __init__(
        self,
        *,
        dimensions: int,
        channels: int,
        outputs: int,
        features: Sequence[int] = (32, 32, 64, 128, 256, 32),
        norm: Norm = "instance",
        dropout: float = 0.0,
        bias: bool = True,
        upsample: Upsample = "deconv",
    ) -> None:
        super().__init__()
        require_dimensions(self.title, dimensions)
        require_counts(self.title, channels=channels, outputs=outputs, features=features)
        require_probability(self.title, dropout)
        choose(upsample, get_args(Upsample), "upsample of a BasicUNet")
        if len(features) != 6:
            raise OptionError(f"features of a BasicUNet are 6 numbers, five levels and the last map, got {features}")
        from monai.networks.nets.basic_unet import BasicUNet as MonaiBasicUNet

        whole = MonaiBasicUNet(
            spatial_dims=dimensions,
            in_channels=channels,
            out_channels=outputs,
            features=tuple(features),
            norm=monai_norm(norm, features, self.title),
            dropout=dropout,
            bias=bias,
            upsample=upsample,
        )
        self.dimensions = dimensions
        self.channels = channels
        self.widths = list(features[:5])
        self.norm = norm
        self.single = (2 * REDUCTION - 1,) * dimensions
        self.encoder = Encoder(whole)
        self.decoder = Decoder(whole)


class Encoder(nn.Module):
    """The way down, under MONAI's names."""

    def __init__(self, whole: Any) -> None:
        super().__init__()
        self.conv_0, self.down_1, self.down_2 = whole.conv_0, whole.down_1, whole.down_2
        self.down_3, self.down_4 = whole.down_3, whole.down_4

    def forward(self, image: Tensor, between: Between = unchanged) -> list[Tensor]:
        levels = (self.conv_0, self.down_1, self.down_2, self.down_3, self.down_4)
        maps = along(levels, filled(image, _enough(image)), between)
        # The finest map carries the image's size to the decoder.
        return [cut(maps[0], image.shape[2:]), *maps[1:]]


class Decoder(nn.Module):
    """The way up, under MONAI's names."""

    def __init__(self, whole: Any) -> None:
        super().__init__()
        self.upcat_4, self.upcat_3, self.upcat_2 = whole.upcat_4, whole.upcat_3, whole.upcat_2
        self.upcat_1, self.final_conv = whole.upcat_1, whole.final_conv

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        finest, second, third, fourth, coarsest = maps
        features = self.upcat_2(self.upcat_3(self.upcat_4(coarsest, fourth), third), second)
        features = self.upcat_1(features, filled(finest, _enough(finest)))
        return cut(self.final_conv(features), finest.shape[2:])


def _enough(features: Tensor) -> list[int]:
    """Sizes that four poolings leave something of."""
    return [max(n, REDUCTION) for n in features.shape[2:]]
