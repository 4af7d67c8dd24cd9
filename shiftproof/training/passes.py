"""Read-only passes over the training data, in a fixed order and without augmentation."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from ..data.samples import Samples
from ..data.sampling import Feed


class Passes:
    """The read-only passes of `shiftproof.methods.method.Reader`; every process makes all of them."""

    def __init__(self, feed: Feed, device: torch.device) -> None:
        self.feed, self.device = feed, device

    def source(self) -> Iterator[Samples]:
        for samples in self.feed.pass_over(self.feed.source):
            yield samples.to(self.device)

    def target(self) -> Iterator[Samples]:
        for samples in self.feed.pass_over(self.feed.target):
            yield samples.without_labels().to(self.device)
