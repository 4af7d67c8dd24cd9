"""Neighbouring slices as channels: one scan, so that they look alike after augmentation, but for noise."""

from __future__ import annotations

import torch

from shiftproof.data.samples import Samples
from shiftproof.transforms.presets import preset


def test_slices_of_a_scan_change_alike():
    one = torch.rand(64, 2, 16, 16, generator=torch.Generator().manual_seed(0))
    samples = Samples(one.repeat(1, 3, 1, 1), extra={"present": torch.ones(64, 2, dtype=torch.bool)})
    strong = preset("strong", dimensions=2, patch=(16, 16), spatial=("image",))
    without_noise = [t for t in strong.transforms if "noise" not in repr(t)]
    assert len(without_noise) == len(strong.transforms) - 1
    for k, transform in enumerate(without_noise):
        samples = transform(samples, torch.Generator().manual_seed(k))
    slices = samples.image.unflatten(1, (3, 2))
    assert torch.equal(slices[:, 0], slices[:, 1])
    assert torch.equal(slices[:, 0], slices[:, 2])
    assert not torch.equal(slices[:, 0, 0], slices[:, 0, 1])


def test_noise_differs_between_slices():
    samples = Samples(torch.zeros(64, 3, 16, 16), extra={"present": torch.ones(64, 1, dtype=torch.bool)})
    strong = preset("strong", dimensions=2, patch=(16, 16), spatial=("image",))
    (noise,) = [t for t in strong.transforms if "noise" in repr(t)]
    found = noise(samples, torch.Generator().manual_seed(0)).image
    touched = found.flatten(1).abs().sum(1) > 0
    assert touched.any()
    # A sample is touched as a whole, each slice by noise of its own.
    assert (found[touched].flatten(2).std(2) > 0).all()
    assert not torch.allclose(found[touched][:, 0], found[touched][:, 1])
