"""MONAI's DenseNet121, cut in two."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import accumulate
from typing import ClassVar

from torch import Tensor, nn

from ..errors import OptionError
from .layers import Norm
from .monai_layers import monai_norm, monai_relu
from .network import (
    Between,
    CutNetwork,
    along,
    filled,
    require_counts,
    require_dimensions,
    require_probability,
    unchanged,
)


class DenseNet121(CutNetwork):
    """Blocks in which each layer reads all layers before it; (B, outputs).

    Parts, parameters and results are those of `monai.networks.nets.DenseNet121`; its maps are the results of the
    four dense blocks, the last one with its norm. An axis that the poolings would leave nothing of (below 29
    voxels) is filled with zeros at its end.

    Paper: G. Huang et al., "Densely Connected Convolutional Networks", CVPR 2017, https://arxiv.org/abs/1608.06993.

    Args:
        dimensions: 2 or 3.
        channels: Of the image.
        outputs: Of the prediction.
        init_features: Channels of the stem.
        growth_rate: Channels that each layer adds (k in the paper).
        block_config: Layers of each dense block.
        bn_size: Width of a layer's 1x1 convolution, in growth rates.
        norm: "batch", "instance", "group" (8 groups, fewer where 8 does not divide all widths) or "none".
        dropout: Probability with which a channel is dropped after each layer.

    Raises:
        OptionError: If an option is out of range.
    """

    title: ClassVar[str] = "DenseNet121"

    def __init__(
        self,
        *,
        dimensions: int,
        channels: int,
        outputs: int,
        init_features: int = 64,
        growth_rate: int = 32,
        block_config: Sequence[int] = (6, 12, 24, 16),
        bn_size: int = 4,
        norm: Norm = "batch",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        require_dimensions(self.title, dimensions)
        require_counts(self.title, channels=channels, outputs=outputs, init_features=init_features)
        require_counts(self.title, growth_rate=growth_rate, block_config=block_config, bn_size=bn_size)
        require_probability(self.title, dropout)
        if len(block_config) < 2:
            raise OptionError(f"block_config of a DenseNet121 has at least 2 blocks, got {block_config}")
        from monai.networks.nets.densenet import DenseNet as MonaiDenseNet

        self.widths, normed = _widths(init_features, growth_rate, block_config)
        whole = MonaiDenseNet(
            spatial_dims=dimensions,
            in_channels=channels,
            out_channels=outputs,
            init_features=init_features,
            growth_rate=growth_rate,
            block_config=tuple(block_config),
            bn_size=bn_size,
            act=monai_relu(norm),
            norm=monai_norm(norm, [*normed, bn_size * growth_rate], self.title),
            dropout_prob=dropout,
        )
        self.dimensions = dimensions
        self.channels = channels
        self.norm = norm
        # Stem and pooling halve and round up, the transitions halve and round down.
        transitions = 2 ** (len(block_config) - 1)
        self.single = (4 * (2 * transitions - 1),) * dimensions
        self.encoder = Encoder(whole.features, len(block_config), 4 * (transitions - 1) + 1)
        self.decoder = Decoder(whole.class_layers)


def _widths(stem: int, growth: int, blocks: Sequence[int]) -> tuple[list[int], list[int]]:
    """Of the blocks' results, and of everything that is normed."""
    results, normed, width = [], [stem], stem
    for layers in blocks:
        normed += accumulate([growth] * layers, initial=width)
        results.append(width + layers * growth)
        width = results[-1] // 2
    return results, normed


class Encoder(nn.Module):
    """Stem and dense blocks, under MONAI's names."""

    def __init__(self, features: nn.Sequential, blocks: int, smallest: int) -> None:
        super().__init__()
        self.features = features
        self.smallest = smallest
        self.levels = [["denseblock1"]]
        self.levels += [[f"transition{index}", f"denseblock{index + 1}"] for index in range(1, blocks)]
        self.levels[-1].append("norm5")

    def forward(self, image: Tensor, between: Between = unchanged) -> list[Tensor]:
        image = filled(image, [max(n, self.smallest) for n in image.shape[2:]])
        stem = self.run(("conv0", "norm0", "relu0", "pool0"), image)
        return along([partial(self.run, names) for names in self.levels], stem, between)

    def run(self, names: Sequence[str], features: Tensor) -> Tensor:
        for name in names:
            features = self.features.get_submodule(name)(features)
        return features


class Decoder(nn.Module):
    """From the last map: ReLU, mean over space, linear, under MONAI's names."""

    def __init__(self, class_layers: nn.Sequential) -> None:
        super().__init__()
        # MONAI's ReLU works in place, which would change the map that a method holds.
        class_layers.relu = nn.ReLU()
        self.class_layers = class_layers

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        return self.class_layers(maps[-1])  # type: ignore[no-any-return]
