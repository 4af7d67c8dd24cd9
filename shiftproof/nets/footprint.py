"""What training a U-Net takes in memory, from its topology alone: before it is built, and before there is a patch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, prod

NUMBER = 4
"""Bytes of a float32."""

KEPT = 2
"""Maps that a convolution, its norm and its activation in place keep for the backward pass: what the norm reads, and
what the activation gives, which is what the next convolution reads."""

COPIES = 3
"""Of the weights: themselves, their gradients and one moment."""

SCORED = 4
"""Maps of scores that a loss keeps at each level that is supervised: cross-entropy with Dice keeps 3, and one comes and
goes."""

TRANSIENT = 2
"""Beside what is kept: the largest map's gradient and what a layer computes with."""

LOADED = 3
"""Batches at once: the one in use, its augmented form, the next one."""

REACH = {2: 1.5, 3: 1.25}
"""Largest side of what augmentation reads, in patches."""


@dataclass(frozen=True)
class Topology:
    """A `UNet` with deep supervision, as far as memory is concerned.

    Args:
        channels: Of the image.
        outputs: Of the prediction.
        widths: Channels by level, finest first.
        strides: From each level to the next.
        kernels: By level.
        convolutions: By level.
    """

    channels: int
    outputs: int
    widths: Sequence[int]
    strides: Sequence[Sequence[int]]
    kernels: Sequence[Sequence[int]]
    convolutions: int = 2

    def voxels(self, patch: Sequence[int]) -> list[int]:
        """By level; an axis of n voxels has ceil(n / stride) on the next one."""
        size, found = list(patch), [prod(patch)]
        for stride in self.strides:
            size = [ceil(n / s) for n, s in zip(size, stride, strict=True)]
            found.append(prod(size))
        return found

    @property
    def divisors(self) -> list[int]:
        """By axis, of sizes that no level rounds up."""
        return [prod(sides) for sides in zip(*self.strides, strict=True)]

    @property
    def parameters(self) -> int:
        """Weights of `UNet(norm="instance", upsampling="transposed", deep_supervision=True)`."""
        taps = [prod(kernel) for kernel in self.kernels]

        def level(inputs: int, index: int) -> int:
            width = self.widths[index]
            convolved = taps[index] * width * (inputs + (self.convolutions - 1) * width)
            return convolved + self.convolutions * 2 * width

        down = sum(level(i, index) for index, i in enumerate([self.channels, *self.widths[:-1]]))
        up = sum(level(2 * width, index) for index, width in enumerate(self.widths[:-1]))
        joined = zip(pairwise(self.widths), self.strides, strict=True)
        risen = sum(fine * coarse * prod(stride) for (fine, coarse), stride in joined)
        return down + up + risen + sum((width + 1) * self.outputs for width in self.widths[:-1])

    def activation_bytes(self, patch: Sequence[int]) -> int:
        """Of one sample: what is kept for the backward pass, and the most that is needed beside it."""
        voxels = self.voxels(patch)
        # On the way up the skip and the map from below, `width` channels each, are copied into one.
        maps = [
            n * w * KEPT * self.convolutions * (1 if lowest else 2) + (0 if lowest else 2 * n * w)
            for n, w, lowest in self._levels(voxels)
        ]
        scores = SCORED * self.outputs * sum(voxels[:-1])
        largest = max(2 * n * w for n, w, _ in self._levels(voxels))
        return NUMBER * (voxels[0] * self.channels + sum(maps) + scores + TRANSIENT * largest)

    def _levels(self, voxels: Sequence[int]) -> list[tuple[int, int, bool]]:
        last = len(self.widths) - 1
        return [(n, w, i == last) for i, (n, w) in enumerate(zip(voxels, self.widths, strict=True))]

    def data_bytes(self, patch: Sequence[int]) -> int:
        """Of one sample: image, and label as 64-bit class indices, as cut for augmentation."""
        voxels = prod(ceil(REACH[len(patch)] * n) for n in patch)
        return LOADED * voxels * (NUMBER * self.channels + 8)

    def bytes(self, patch: Sequence[int], batch: int) -> int:
        """Of a training step in float32, optimiser included."""
        return COPIES * NUMBER * self.parameters + batch * self.sample_bytes(patch)

    def sample_bytes(self, patch: Sequence[int]) -> int:
        return self.activation_bytes(patch) + self.data_bytes(patch)
