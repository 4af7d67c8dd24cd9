"""Outer losses against plain NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from shiftproof import tasks
from shiftproof.data.samples import Samples
from shiftproof.errors import OptionError
from shiftproof.parts.outer_losses import OUTER, OuterLoss

STRUCTURES = ({"kind": "multi-label", "parts": [[0, 0], [1, 0], [1, 1]]}, ["background", "disc", "core"])


class Alone:
    def mean(self, x):
        return x


def case(channels: int, dimensions: int, seed: int = 0):
    """Scores, a label of three classes, ignored voxels and a structure that one site does not annotate."""
    random = torch.Generator().manual_seed(seed)
    space = (5, 4, 3)[:dimensions]
    scores = torch.randn(4, channels, *space, generator=random, dtype=torch.double)
    label = torch.randint(0, 3, (4, *space), generator=random)
    extra = {"ignore": torch.rand(4, *space, generator=random) < 0.2}
    return scores, Samples(torch.zeros(4, 1, *space), label, extra=extra)


def asked(name, task, scores, samples, progress=0.25) -> float:
    return float(OuterLoss(name, task)(scores, samples, Alone(), progress, len(samples)))


def one_minus_dice(p, y, counted) -> float:
    """(B, K, V): of all samples together, mean over structures."""
    found = [
        (2 * (p[:, k] * y[:, k] * counted).sum() + 1e-5) / (((p[:, k] + y[:, k]) * counted).sum() + 1e-5)
        for k in range(p.shape[1])
    ]
    return 1 - float(np.mean(found))


@pytest.mark.parametrize("dimensions", [2, 3])
def test_of_classes_that_exclude_each_other(dimensions):
    task = tasks.make({"task": "segmentation"}, ["background", "a", "b"])
    scores, samples = case(3, dimensions)
    z = scores.flatten(2).numpy()
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    label, counted = samples.label.flatten(1).numpy(), ~samples.extra["ignore"].flatten(1).numpy()
    y = np.stack([label == k for k in range(3)], 1).astype(float)
    dice = one_minus_dice(p[:, 1:], y[:, 1:], counted)
    ce = np.mean([-(np.log((p * y).sum(1)) * counted)[b].sum() / counted[b].sum() for b in range(4)])
    expected = {"dice": dice, "ce": ce, "ce+dice": ce + dice, "ramp": 0.75 * ce + 0.25 * dice, None: ce + dice}
    for name, value in expected.items():
        assert asked(name, task, scores, samples) == pytest.approx(value, rel=1e-6)
    assert asked("task", task, scores, samples) == pytest.approx(float(task.loss(scores, samples).mean()))


@pytest.mark.parametrize("dimensions", [2, 3])
def test_of_structures_that_overlap(dimensions):
    task = tasks.make(*STRUCTURES)
    scores, samples = case(2, dimensions)
    samples.extra["annotated"] = torch.ones(4, 3, dtype=torch.bool)
    samples.extra["annotated"][1, 2] = False
    p = 1 / (1 + np.exp(-scores.flatten(2).numpy()))
    label, told = samples.label.flatten(1).numpy(), ~samples.extra["ignore"].flatten(1).numpy()
    y = np.stack([label >= 1, label == 2], 1).astype(float)
    counted = told[:, None] * samples.extra["annotated"][:, 1:, None].numpy()
    both, sizes = 2 * (p * y * counted).sum((0, 2)), ((p + y) * counted).sum((0, 2))
    dice = 1 - np.mean((both + 1e-5) / (sizes + 1e-5))
    errors = -(y * np.log(p) + (1 - y) * np.log(1 - p)) * counted
    ce = np.mean(errors.sum((1, 2)) / counted.sum((1, 2)))
    assert asked("dice", task, scores, samples) == pytest.approx(dice, rel=1e-6)
    assert asked("ce+dice", task, scores, samples) == pytest.approx(ce + dice, rel=1e-6)


def test_the_ramp_goes_from_cross_entropy_to_dice():
    task = tasks.make({"task": "segmentation"}, ["background", "a", "b"])
    given = case(3, 2)
    assert asked("ramp", task, *given, progress=0.0) == pytest.approx(asked("ce", task, *given))
    assert asked("ramp", task, *given, progress=1.0) == pytest.approx(asked("dice", task, *given))


def test_of_deep_supervision_the_finest_level_is_asked():
    task = tasks.make({"task": "segmentation"}, ["background", "a", "b"])
    scores, samples = case(3, 2)
    levels = {"scores": scores, "scores 1": torch.zeros(4, 3, 2, 2)}
    for name in ("ce", "dice"):
        assert asked(name, task, levels, samples) == asked(name, task, scores, samples)


def test_a_network_of_valid_convolutions_is_asked_about_the_middle():
    task = tasks.make({"task": "segmentation"}, ["background", "a", "b"])
    scores, samples = case(3, 2)
    small = scores[:, :, 1:4, 1:3]
    middle = samples.mapped(lambda t: t[..., 1:4, 1:3])
    for name in ("ce", "dice"):
        assert asked(name, task, small, samples) == asked(name, task, small, middle)


def test_a_perfect_prediction_costs_nothing_and_an_absent_structure_does_not_either():
    task = tasks.make({"task": "segmentation"}, ["background", "a", "b"])
    label = torch.tensor([[[0, 0], [1, 1]]])
    perfect = 60 * torch.nn.functional.one_hot(label, 3).movedim(-1, 1).double()
    for name in OUTER:
        assert asked(name, task, perfect, Samples(torch.zeros(1, 1, 2, 2), label)) < 1e-6


def test_of_whole_images_the_loss_that_is_trained_or_the_usual_one():
    for kind, columns in (("multi-class", 3), ("ordinal", 2), ("multi-label", 3)):
        usual = tasks.make({"task": "classification", "kind": kind}, ["a", "b", "c"])
        scores = torch.randn(4, columns, generator=torch.Generator().manual_seed(0))
        label = torch.tensor([[0, 1, 1], [1, 0, 0], [0, 0, 0], [1, 1, 1]]).float()
        samples = Samples(torch.zeros(4, 1, 2, 2), label if kind == "multi-label" else torch.tensor([0, 1, 2, 1]))
        expected = float(usual.loss(scores, samples).mean())
        assert [asked(name, usual, scores, samples) for name in (None, "task", "ce")] == [expected] * 3


def test_what_a_task_has_not_is_refused():
    classes = tasks.make({"task": "classification"}, ["a", "b"])
    number = tasks.make({"task": "regression", "column": "age", "unit": "years", "mean": 1.0, "sd": 0.5}, [])
    for name, task in (("dice", classes), ("ce+dice", classes), ("ramp", number), ("ce", number)):
        with pytest.raises(OptionError, match=f'outer loss "{name.replace("+", "[+]")}".*use "task"'):
            OuterLoss(name, task)
    with pytest.raises(OptionError, match='did you mean "dice"'):
        OuterLoss("dicee", classes)
