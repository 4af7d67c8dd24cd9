"""MONAI's AttentionUnet, whole: its levels are nested and cannot be called apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from ..errors import ImageError, OptionError
from .network import cut, filled, joined, require_counts, require_dimensions, require_probability, times


class AttentionUNet(nn.Module):
    """A U-Net whose skip connections are weighted by attention.

    The network is `monai.networks.nets.AttentionUnet`, and so are its parameters and results. Images that the
    strides do not divide are filled with zeros at the end of each axis, and the prediction is cut back. As MONAI
    has it, norms are batch norms, and instance norms where maps are merged.

    Paper: O. Oktay et al., "Attention U-Net: Learning Where to Look for the Pancreas", MIDL 2018,
    https://arxiv.org/abs/1804.03999.

    Args:
        dimensions: 2 or 3.
        channels: Of the image.
        outputs: Of the prediction.
        widths: Channels by level, finest first, at least 2 each.
        dropout: Probability with which a value is dropped after a norm.

    Raises:
        OptionError: If an option is out of range.
    """

    title: ClassVar[str] = "Attention U-Net"

    def __init__(
        self,
        *,
        dimensions: int,
        channels: int,
        outputs: int,
        widths: Sequence[int] = (16, 32, 48, 64),
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        require_dimensions(self.title, dimensions)
        require_counts(self.title, channels=channels, outputs=outputs, widths=widths)
        require_probability(self.title, dropout)
        if len(widths) < 2 or min(widths) < 2:
            raise OptionError(f"widths of an Attention U-Net are 2 or more on at least 2 levels, got {widths}")
        from monai.networks.nets.attentionunet import AttentionUnet as MonaiAttentionUnet

        self.dimensions = dimensions
        self.channels = channels
        self.multiple = 2 ** (len(widths) - 1)
        self.whole = MonaiAttentionUnet(
            spatial_dims=dimensions,
            in_channels=channels,
            out_channels=outputs,
            channels=tuple(widths),
            strides=(2,) * (len(widths) - 1),
            dropout=dropout,
        )

    def forward(self, *inputs: Tensor) -> Tensor:
        image = joined(inputs, self.channels, self.dimensions, self.title)
        space = image.shape[2:]
        if self.training and len(image) == 1 and max(space) <= self.multiple:
            raise ImageError(
                f"one image of {times(space)} voxels shrinks to a single one, of which batch norm leaves nothing in "
                f"training; this {self.title} needs more than {self.multiple}, fewer levels or a larger batch"
            )
        padded = filled(image, [-(-n // self.multiple) * self.multiple for n in space])
        return cut(self.whole(padded), space)
