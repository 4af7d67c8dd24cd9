"""DeepMedic: parallel pathways of valid convolutions that see a voxel's surroundings at several resolutions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import ImageError, OptionError
from ..names import choose
from .layers import CONVOLUTION, Norm, initialise_, normalisation
from .network import Between, CutNetwork, cut, require_counts, require_dimensions, require_probability, times, unchanged

Variant = Literal["default", "reduced", "basic"]
Activation = Literal["prelu", "relu"]

VARIANTS: dict[str, dict[str, Any]] = {
    "default": {
        "features": (30, 30, 40, 40, 40, 40, 50, 50),
        "hidden": 250,
        "activation": "prelu",
        "residual": True,
        "dropout": 0.5,
    }
}
VARIANTS["reduced"] = VARIANTS["default"] | {"features": (15, 15, 20, 20, 25, 25, 30, 30), "hidden": 150}
VARIANTS["basic"] = VARIANTS["default"] | {"activation": "relu", "residual": False, "dropout": 0.0}
"""Options by variant, for those that are not given."""

RESIDUALS = (4, 6, 8)
"""Layers of a pathway at which a residual connection ends, counted from 1."""

SLOPE = 0.01
"""Of a PReLU before training."""


class DeepMedic(CutNetwork):
    """DeepMedic: pathways of valid 3x3x3 convolutions at full and at lower resolutions, joined for dense scores.

    All pathways are built alike, with weights of their own: at full resolution, and on the image with every f-th
    voxel. Their last maps, repeated up to full resolution, are joined by a hidden layer of kernel 3, one of kernel 1,
    and the classifier. Convolutions are valid: an image of n + 2 * `margin` voxels an axis gives the scores of its
    n central ones, and any n of at least 1 will do. By default 8 layers reach 8, 24 and 40 voxels far in the three
    pathways, so `margin` is 40. The low resolutions begin to count at the first scored voxel of the image, and what
    they say of it stands for f voxels: scores of one voxel from two images agree where the images begin a multiple
    of all f apart.

    Layers are norm, activation, dropout, convolution; the very first convolutions read the image as it is. Residual
    connections end at layers 4, 6, 8 (each around two layers) and at the second hidden layer (around both); maps
    are cut in the middle for them, and channels that are missing are 0.

    As features, `encode` gives the last map of each pathway, full resolution first; `decode` joins them.

    Paper: K. Kamnitsas et al., "Efficient multi-scale 3D CNN with fully connected CRF for accurate brain lesion
    segmentation", Medical Image Analysis 36 (2017), https://doi.org/10.1016/j.media.2016.10.004; residuals:
    K. Kamnitsas et al., "DeepMedic for Brain Tumor Segmentation", BrainLes 2016, with sizes and alignment as in the
    authors' program. Deviations: running statistics of batch norm are exponential means (theirs: the last 60
    batches); weight penalties are the optimiser's. Without batch norm, convolutions have biases.

    Args:
        dimensions: 2 or 3.
        channels: Of the image.
        outputs: Of the prediction.
        variant: Values of the options that are None: "default" (2.01 million parameters in 3D with 4 channels),
            "reduced" (half the channels, 0.69 million), or "basic" (default without residuals and dropout, ReLU).
        factors: Of the low resolutions, one pathway each; odd numbers of at least 3.
        features: Channels of the layers of a pathway.
        hidden: Channels of the two hidden layers after the pathways.
        activation: "prelu" (a slope a channel) or "relu".
        residual: Whether there are residual connections.
        dropout: Probability with which a value is dropped before the second hidden layer and the classifier.
        norm: "batch", "instance", "group" (8 groups, fewer where 8 does not divide all widths) or "none".

    Raises:
        OptionError: If an option is out of range.
    """

    title: ClassVar[str] = "DeepMedic"

    def __init__(
        self,
        *,
        dimensions: int,
        channels: int,
        outputs: int,
        variant: Variant = "default",
        factors: Sequence[int] = (3, 5),
        features: Sequence[int] | None = None,
        hidden: int | None = None,
        activation: Activation | None = None,
        residual: bool | None = None,
        dropout: float | None = None,
        norm: Norm = "batch",
    ) -> None:
        super().__init__()
        given = {
            "features": features,
            "hidden": hidden,
            "activation": activation,
            "residual": residual,
            "dropout": dropout,
        }
        chosen = self._chosen(variant, given)
        self.margin = self.margin_of(dimensions, variant=variant, factors=factors, features=features)
        require_counts(self.title, channels=channels, outputs=outputs, hidden=chosen["hidden"])
        require_probability(self.title, chosen["dropout"])
        choose(chosen["activation"], get_args(Activation), "activation of a DeepMedic")
        self.dimensions = dimensions
        self.channels = channels
        self.norm = norm
        self.widths = [chosen["features"][-1]] * (1 + len(factors))
        self.single = tuple(2 * m + 1 for m in self.margin)
        block = Block(dimensions, chosen["activation"], norm)
        self.encoder = Encoder(block, channels, chosen["features"], factors, residual=chosen["residual"])
        self.decoder = Decoder(block, sum(self.widths), chosen["hidden"], outputs, factors, chosen)

    @classmethod
    def margin_of(
        cls,
        dimensions: int,
        *,
        variant: Variant = "default",
        factors: Sequence[int] = (3, 5),
        features: Sequence[int] | None = None,
        **others: Any,
    ) -> tuple[int, ...]:
        """Voxels by axis that the furthest pathway reads on each side of what is scored; see `nets.margin`."""
        require_dimensions(cls.title, dimensions)
        layers = cls._chosen(variant, {"features": features})["features"]
        require_counts(cls.title, features=layers)
        if not all(isinstance(f, int) and f >= 3 and f % 2 for f in factors):
            raise OptionError(
                f"factors of a {cls.title} are odd numbers of at least 3 (every f-th voxel has no middle one for an "
                f"even f), got {list(factors)}"
            )
        return (len(layers) * max(factors, default=1),) * dimensions

    @classmethod
    def _chosen(cls, variant: str, given: dict[str, Any]) -> dict[str, Any]:
        usual = VARIANTS[choose(variant, VARIANTS, f"variant of a {cls.title}")]
        return usual | {name: value for name, value in given.items() if value is not None}

    def encode(self, *inputs: Tensor, between: Between = unchanged) -> list[Tensor]:
        """The last map of each pathway, full resolution first.

        Raises:
            ImageError: If an axis has no more voxels than the margins on both sides.
        """
        space = inputs[0].shape[2:]
        if len(space) == self.dimensions and any(n <= 2 * m for n, m in zip(space, self.margin, strict=True)):
            raise ImageError(
                f"an image of {times(space)} voxels leaves nothing between the margins of this {self.title}, which "
                f"are {times(self.margin)} voxels on each side; give at least {times(self.single)}"
            )
        return super().encode(*inputs, between=between)


class Block:
    """Makes a layer: norm, activation, dropout, convolution; a plain convolution where it reads the image."""

    def __init__(self, dimensions: int, activation: str, norm: Norm) -> None:
        self.dimensions, self.activation, self.norm = dimensions, activation, norm

    def __call__(
        self, inputs: int, outputs: int, kernel: int, *, first: bool = False, last: bool = False, dropout: float = 0.0
    ) -> nn.Sequential:
        conv = CONVOLUTION[self.dimensions](inputs, outputs, kernel, bias=last or self.norm == "none")
        initialise_(conv, slope=0.0)
        if first:
            return nn.Sequential(conv)
        activation = nn.PReLU(inputs, SLOPE) if self.activation == "prelu" else nn.ReLU()
        norm = normalisation(self.norm, self.dimensions, inputs)
        return nn.Sequential(norm, activation, nn.Dropout(dropout), conv)


class Pathway(nn.Module):
    """Valid convolutions one after the other; n voxels become n - 2 for each."""

    def __init__(self, block: Block, channels: int, features: Sequence[int], *, residual: bool) -> None:
        super().__init__()
        inputs = [channels, *features[:-1]]
        self.layers = nn.ModuleList(
            block(i, o, 3, first=index == 0) for index, (i, o) in enumerate(zip(inputs, features, strict=True))
        )
        self.residuals = RESIDUALS if residual else ()

    def forward(self, image: Tensor) -> Tensor:
        # Maps of two layers, no more: what the next residual connection may read, and what the next layer does.
        before, features = image, image
        for number, layer in enumerate(self.layers, start=1):
            following = layer(features)
            if number in self.residuals:
                following = following + widened(cropped(before, 2), following.shape[1])
            before, features = features, following
        return features


class Encoder(nn.Module):
    """Pathways, each with its own cut and its own voxels of the image."""

    def __init__(
        self, block: Block, channels: int, features: Sequence[int], factors: Sequence[int], *, residual: bool
    ) -> None:
        super().__init__()
        self.factors = (1, *factors)
        self.layers = len(features)
        self.margin = self.layers * max(self.factors)
        self.pathways = nn.ModuleList(Pathway(block, channels, features, residual=residual) for _ in self.factors)

    def forward(self, image: Tensor, between: Between = unchanged) -> list[Tensor]:
        return [
            between(level, pathway(self.seen(image, factor)))
            for level, (factor, pathway) in enumerate(zip(self.factors, self.pathways, strict=True))
        ]

    def seen(self, image: Tensor, factor: int) -> Tensor:
        """What a pathway reads: every `factor`-th voxel, enough of them to score all that is between the margins.

        With k layers of kernel 3, a receptive field is r = 2k + 1 voxels wide, and the one at full resolution begins
        k voxels before the voxel that is scored. At a lower resolution, the first voxel read is
        factor // 2 - (factor - 1) / 2 * r voxels from there, which for odd factors is k * factor voxels before the
        scored one: that is in the middle of what is read for it.
        """
        for axis in range(2, image.dim()):
            scored = image.shape[axis] - 2 * self.margin
            number = -(-scored // factor) + 2 * self.layers
            start = self.margin - self.layers * factor
            places = slice(start, start + (number - 1) * factor + 1, factor)
            image = image[(slice(None),) * axis + (places,)]
        return image


class Decoder(nn.Module):
    """The layers that join the pathways."""

    def __init__(
        self, block: Block, joined: int, hidden: int, outputs: int, factors: Sequence[int], chosen: dict[str, Any]
    ) -> None:
        super().__init__()
        self.factors = (1, *factors)
        self.residual = chosen["residual"]
        self.first = block(joined, hidden, 3)
        self.second = block(hidden, hidden, 1, dropout=chosen["dropout"])
        self.classifier = block(hidden, outputs, 1, dropout=chosen["dropout"], last=True)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        space = maps[0].shape[2:]
        joined = torch.cat([cut(repeated(m, f), space) for m, f in zip(maps, self.factors, strict=True)], 1)
        # The border repeated once: for one voxel that is also its mirror image.
        wide = F.pad(joined, (1, 1) * len(space), mode="replicate")
        hidden = self.second(self.first(wide))
        if self.residual:
            hidden = hidden + widened(joined, hidden.shape[1])
        return self.classifier(hidden)  # type: ignore[no-any-return]


def cropped(features: Tensor, border: int) -> Tensor:
    """Without `border` voxels on each side of each axis."""
    inner = slice(border, -border)
    return features[(slice(None), slice(None), *[inner] * (features.dim() - 2))]


def widened(features: Tensor, channels: int) -> Tensor:
    """With channels of 0 up to `channels`; without those beyond."""
    missing = channels - features.shape[1]
    if missing <= 0:
        return features[:, :channels]
    return F.pad(features, (0, 0) * (features.dim() - 2) + (0, missing))


def repeated(features: Tensor, factor: int) -> Tensor:
    """Each voxel `factor` times along each axis."""
    for axis in range(2, features.dim()):
        features = features.repeat_interleave(factor, axis)
    return features
