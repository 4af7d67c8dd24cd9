"""MONAI's UNETR, cut in two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any, ClassVar

from torch import Tensor, nn

from ..errors import ImageError, OptionError
from .layers import Norm
from .monai_layers import monai_norm
from .network import (
    Between,
    CutNetwork,
    cut,
    filled,
    require_counts,
    require_dimensions,
    require_probability,
    times,
    unchanged,
)

TOKEN = 16
"""Voxels a side that one token stands for."""


class UNETR(CutNetwork):
    """A vision transformer as the encoder of a U-Net.

    Parts, parameters and results are those of `monai.networks.nets.UNETR`. Its five maps: that of the
    image itself, three made of the transformer's layers 4, 7 and 10, and its result. They do not follow one
    another: what `between` puts in place of a map reaches the decoder only. Positions are learned for one size,
    that of `patch` rounded up to tokens of 16 voxels; smaller images are filled with zeros at the end of each axis and
    the prediction is cut back, larger ones are refused (a prediction of whole scans goes through windows of that size).

    Paper: A. Hatamizadeh et al., "UNETR: Transformers for 3D Medical Image Segmentation", WACV 2022,
    https://arxiv.org/abs/2103.10504.

    Args:
        dimensions: 2 or 3.
        channels: Of the image.
        outputs: Of the prediction.
        patch: Largest image, voxels by axis; by default the plan's patch.
        feature_size: Channels of the finest map, doubled from level to level.
        hidden_size: Width of the transformer, a multiple of `num_heads`.
        mlp_dim: Width of its feed-forward layers.
        num_heads: Attention heads.
        norm: Of the convolutions, "instance", "batch", "group" (8 groups, fewer where 8 does not divide
            `feature_size`) or "none".
        dropout: Probability with which a value of the transformer is dropped.
        qkv_bias: Whether queries, keys and values have a bias.
        residual: Convolution blocks with a shortcut (MONAI's `res_block`).

    Raises:
        OptionError: If an option is out of range, or `patch` is neither given nor known.
    """

    title: ClassVar[str] = "UNETR"

    def __init__(
        self,
        *,
        dimensions: int,
        channels: int,
        outputs: int,
        patch: Sequence[int] | None = None,
        feature_size: int = 16,
        hidden_size: int = 768,
        mlp_dim: int = 3072,
        num_heads: int = 12,
        norm: Norm = "instance",
        dropout: float = 0.0,
        qkv_bias: bool = False,
        residual: bool = True,
    ) -> None:
        super().__init__()
        require_dimensions(self.title, dimensions)
        require_counts(self.title, channels=channels, outputs=outputs, feature_size=feature_size)
        require_counts(self.title, hidden_size=hidden_size, mlp_dim=mlp_dim, num_heads=num_heads)
        require_probability(self.title, dropout)
        if hidden_size % num_heads:
            raise OptionError(f"hidden_size of a UNETR is a multiple of num_heads, got {hidden_size} and {num_heads}")
        if patch is None:
            raise OptionError("a UNETR learns positions for one size; give it as patch, voxels by axis")
        require_counts(self.title, patch=patch)
        if len(patch) != dimensions:
            raise OptionError(f"patch of this UNETR has {dimensions} entries, got {patch}")
        if find_spec("einops") is None:
            raise OptionError("unetr needs the package einops; install it (pip install einops), or use another network")
        from monai.networks.nets.unetr import UNETR as MonaiUNETR

        size = tuple(-(-n // TOKEN) * TOKEN for n in patch)
        whole = MonaiUNETR(
            in_channels=channels,
            out_channels=outputs,
            img_size=size,
            feature_size=feature_size,
            hidden_size=hidden_size,
            mlp_dim=mlp_dim,
            num_heads=num_heads,
            norm_name=monai_norm(norm, [feature_size], self.title),
            res_block=residual,
            dropout_rate=dropout,
            spatial_dims=dimensions,
            qkv_bias=qkv_bias,
        )
        self.dimensions = dimensions
        self.channels = channels
        self.widths = [feature_size, 2 * feature_size, 4 * feature_size, 8 * feature_size, hidden_size]
        self.norm = norm
        # The tokens are normed by themselves, and the coarsest convolution sees 2 voxels an axis at least.
        self.single = (0,) * dimensions
        self.encoder = Encoder(whole, size)
        self.decoder = Decoder(whole, size)

    @classmethod
    def suited(
        cls, dimensions: int, patch: Sequence[int], spacing_mm: Sequence[float | None], given: Mapping[str, Any]
    ) -> dict[str, Any]:
        """The plan's patch, where none is given."""
        return {"patch": given.get("patch", tuple(patch))}


class Encoder(nn.Module):
    """Transformer and the convolutions on its layers, under MONAI's names."""

    def __init__(self, whole: Any, size: tuple[int, ...]) -> None:
        super().__init__()
        self.size = size
        self.vit, self.encoder1, self.encoder2 = whole.vit, whole.encoder1, whole.encoder2
        self.encoder3, self.encoder4 = whole.encoder3, whole.encoder4
        for block in self.vit.blocks:
            # MONAI makes them for cross attention, which there is none of here; they would never learn.
            block.cross_attn = block.norm_cross_attn = nn.Identity()

    def forward(self, image: Tensor, between: Between = unchanged) -> list[Tensor]:
        space = image.shape[2:]
        if any(n > limit for n, limit in zip(space, self.size, strict=True)):
            raise ImageError(
                f"this UNETR reads images of up to {times(self.size)} voxels, got {times(space)}; "
                "build it with a larger patch"
            )
        image = filled(image, self.size)
        result, layers = self.vit(image)
        maps = [
            self.encoder1(image),
            self.encoder2(self.spread(layers[3])),
            self.encoder3(self.spread(layers[6])),
            self.encoder4(self.spread(layers[9])),
            self.spread(result),
        ]
        maps = [between(level, features) for level, features in enumerate(maps)]
        # The finest map carries the image's size to the decoder.
        return [cut(maps[0], space), *maps[1:]]

    def spread(self, tokens: Tensor) -> Tensor:
        """Tokens (B, N, C) in their places, (B, C, *space)."""
        places = [extent // TOKEN for extent in self.size]
        return tokens.transpose(1, 2).unflatten(2, places).contiguous()


class Decoder(nn.Module):
    """The way up, under MONAI's names."""

    def __init__(self, whole: Any, size: tuple[int, ...]) -> None:
        super().__init__()
        self.size = size
        self.decoder5, self.decoder4, self.decoder3 = whole.decoder5, whole.decoder4, whole.decoder3
        self.decoder2, self.out = whole.decoder2, whole.out

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        finest, second, third, fourth, coarsest = maps
        features = self.decoder3(self.decoder4(self.decoder5(coarsest, fourth), third), second)
        return cut(self.out(self.decoder2(features, filled(finest, self.size))), finest.shape[2:])
