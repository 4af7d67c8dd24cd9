"""Memory of a U-Net from its topology, against what a network really has and keeps."""

from __future__ import annotations

import pytest
import torch

from shiftproof import tasks
from shiftproof.data.samples import Samples
from shiftproof.nets import footprint
from shiftproof.nets.footprint import Topology
from shiftproof.nets.planned import planned
from shiftproof.nets.unet import UNet
from shiftproof.patching import REACH
from shiftproof.training.estimate import LOADED, TRANSIENT, watched

CASES = [
    # dimensions, patch, spacing, base, channels, classes
    (2, (64, 48), (1.0, 1.0), 8, 1, 4),
    (3, (24, 24, 24), (1.0, 1.0, 1.0), 8, 2, 2),
    (3, (32, 24, 10), (1.0, 1.0, 3.0), 6, 1, 3),
    (2, (33, 20), (1.0, 1.0), 16, 3, 2),
]


def topology(dimensions, patch, spacing, base, channels, classes):
    levels = planned(dimensions, patch, spacing, most=8)
    widths = [min(base * 2**i, 40) for i in range(len(levels["kernels"]))]
    return Topology(channels, classes, widths, levels["strides"], levels["kernels"])


def network(found, dimensions):
    return UNet(
        dimensions=dimensions, channels=found.channels, outputs=found.outputs, widths=found.widths,
        strides=found.strides, kernels=found.kernels, deep_supervision=True,
    )  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_parameters_are_those_of_the_network(case):
    found = topology(*case)
    assert found.parameters == sum(p.numel() for p in network(found, case[0]).parameters())


@pytest.mark.parametrize("case", CASES)
def test_activations_are_what_a_training_step_keeps_within_a_seventh(case):
    dimensions, patch, *_, channels, classes = case
    found, batch = topology(*case), 2
    net = network(found, dimensions)
    names = ["background", *(f"c{i}" for i in range(1, classes))]
    task = tasks.make({"task": "segmentation", "kind": "multi-class"}, names, loss="dice+ce", options={"batch": True})
    samples = Samples(
        torch.randn(batch, channels, *patch), torch.randint(0, classes, (batch, *patch)), None, ["a"] * batch
    )
    with watched(net) as saved:
        task.loss(net(samples.image), samples).mean().backward()
    measured = (saved.most + TRANSIENT * saved.largest) / batch
    assert measured / 1.15 < found.activation_bytes(patch) < 1.15 * measured


def test_constants_are_those_of_the_loop_and_the_estimate():
    assert footprint.REACH == REACH
    assert (footprint.LOADED, footprint.TRANSIENT) == (LOADED, TRANSIENT)


def test_a_batch_adds_the_same_bytes_for_each_sample():
    found = topology(*CASES[0])
    one, two, five = (found.bytes((64, 48), n) for n in (1, 2, 5))
    assert five - two == 3 * (two - one) > 0
    assert found.bytes((64, 48), 0) == 12 * found.parameters
