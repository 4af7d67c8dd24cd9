"""MONAI's SegResNet, cut in two."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, get_args

from torch import Tensor, nn

from ..errors import OptionError
from ..names import choose
from .layers import Norm
from .monai_layers import monai_norm, monai_relu
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

Upsample = Literal["deconv", "nontrainable", "pixelshuffle"]


class SegResNet(CutNetwork):
    """Pre-activation residual blocks, a wide encoder and a narrow decoder that adds the encoder's maps.

    Parts, parameters and results are those of `monai.networks.nets.SegResNet`. MONAI takes sizes that its strides
    divide; here the surplus of an upsampled odd size is cut off at the end of the axis, so that any image can be
    read.

    Paper: A. Myronenko, "3D MRI Brain Tumor Segmentation Using Autoencoder Regularization", BrainLes 2018,
    https://arxiv.org/abs/1810.11654; without its variational autoencoder.

    Args:
        dimensions: 2 or 3.
        channels: Of the image.
        outputs: Of the prediction.
        init_filters: Channels of the finest level, doubled from level to level.
        blocks_down: Residual blocks by level of the encoder, finest first, at least two levels.
        blocks_up: Residual blocks by level of the decoder, coarsest first, one level fewer.
        norm: "group" (8 groups, fewer where 8 does not divide the filters), "instance", "batch" or "none".
        dropout: Probability with which a channel's value is dropped after the first convolution.
        upsample: "nontrainable" (linear interpolation), "deconv" or "pixelshuffle".

    Raises:
        OptionError: If an option is out of range.
    """

    title: ClassVar[str] = "SegResNet"

    def __init__(
        self,
        *,
        dimensions: int,
        channels: int,
        outputs: int,
        init_filters: int = 8,
        blocks_down: Sequence[int] = (1, 2, 2, 4),
        blocks_up: Sequence[int] = (1, 1, 1),
        norm: Norm = "group",
        dropout: float = 0.0,
        upsample: Upsample = "nontrainable",
    ) -> None:
        super().__init__()
        require_dimensions(self.title, dimensions)
        require_counts(self.title, channels=channels, outputs=outputs, init_filters=init_filters)
        require_counts(self.title, blocks_down=blocks_down, blocks_up=blocks_up)
        require_probability(self.title, dropout)
        choose(upsample, get_args(Upsample), "upsample of a SegResNet")
        if len(blocks_up) != len(blocks_down) - 1:
            raise OptionError(
                f"blocks_up of this SegResNet have {len(blocks_down) - 1} entries, one fewer than blocks_down, "
                f"got {blocks_up}"
            )
        from monai.networks.nets.segresnet import SegResNet as MonaiSegResNet

        whole = MonaiSegResNet(
            spatial_dims=dimensions,
            in_channels=channels,
            out_channels=outputs,
            init_filters=init_filters,
            blocks_down=tuple(blocks_down),
            blocks_up=tuple(blocks_up),
            act=monai_relu(norm),
            norm=monai_norm(norm, [init_filters], self.title),
            dropout_prob=dropout or None,
            upsample_mode=upsample,
        )
        self.dimensions = dimensions
        self.channels = channels
        self.widths = [init_filters * 2**level for level in range(len(blocks_down))]
        self.norm = norm
        self.single = (2 ** len(blocks_up),) * dimensions
        self.encoder = Encoder(whole, dropout)
        self.decoder = Decoder(whole)


class Encoder(nn.Module):
    """The way down, under MONAI's names."""

    def __init__(self, whole: Any, dropout: float) -> None:
        super().__init__()
        self.convInit, self.down_layers = whole.convInit, whole.down_layers
        self.dropout = whole.dropout if dropout else nn.Identity()

    def forward(self, image: Tensor, between: Between = unchanged) -> list[Tensor]:
        return along(self.down_layers, self.dropout(self.convInit(image)), between)


class Decoder(nn.Module):
    """The way up, under MONAI's names."""

    def __init__(self, whole: Any) -> None:
        super().__init__()
        self.up_samples, self.up_layers, self.conv_final = whole.up_samples, whole.up_layers, whole.conv_final

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        features = maps[-1]
        for up, level, skip in zip(self.up_samples, self.up_layers, maps[-2::-1], strict=True):
            features = level(cut(up(features), skip.shape[2:]) + skip)
        return self.conv_final(features)  # type: ignore[no-any-return]
