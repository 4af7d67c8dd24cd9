"""Adversarial directions: their length, what they climb, and that finding them leaves no trace."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from shiftproof import tasks
from shiftproof.data.samples import Samples
from shiftproof.errors import OptionError
from shiftproof.parts.adversarial import (
    RMS_RADIUS,
    Attack,
    adversarial_direction,
    rare_error,
    trains_overlap,
    unit_direction,
)
from shiftproof.training.steps import RunningStep

SEGMENTATION = tasks.make({}, ["background", "kidney", "tumour"])
BINARY = tasks.make({}, ["background", "lesion"])
PARTS = {"kind": "multi-label", "parts": [[0, 0], [1, 0], [1, 1], [0, 1]]}
STRUCTURES = tasks.make(PARTS, ["background", "whole", "core"])
ONE = tasks.make({"kind": "multi-label", "parts": [[0], [1]]}, ["background", "lesion"])


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


class Still(RunningStep):
    """A step of one process that moves nothing."""

    def __init__(self) -> None:
        super().__init__(0, 0.0, "main", 0.0, torch.Generator(), {}, lambda p: 1.0, None, None, {})  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(3, 5), (2, 1, 4, 4), (2, 2, 3, 4, 5)])
@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e20])
def test_a_direction_is_the_vector_over_its_length_whatever_its_scale(shape, scale):
    v = numbers(*shape)
    length = np.sqrt((v.reshape(len(v), -1) ** 2).sum(1)).reshape(-1, *[1] * (len(shape) - 1))
    found = unit_direction(torch.tensor(scale * v, dtype=torch.float32)).numpy()
    np.testing.assert_allclose(found, v / length, rtol=1e-5, atol=1e-6)


def test_a_direction_of_nothing_is_nothing_and_its_neighbour_keeps_its_own():
    v = torch.zeros(2, 1, 3)
    v[1] = torch.tensor([-3.0, 0.0, -4.0])
    found = unit_direction(v)
    assert torch.equal(found[0], torch.zeros(1, 3))
    torch.testing.assert_close(found[1], torch.tensor([[-0.6, 0.0, -0.8]]), rtol=1e-6, atol=1e-6)


def test_half_precision_keeps_its_type_and_its_direction():
    v = torch.tensor([[3e-4, -4e-4]], dtype=torch.float16)
    found = unit_direction(v)
    assert found.dtype == torch.float16
    torch.testing.assert_close(found.float(), torch.tensor([[0.6, -0.8]]), rtol=2e-2, atol=1e-3)


def test_on_a_parabola_the_direction_is_the_gradient_at_the_start():
    """loss = x' A x / 2 has the gradient A (x + xi n(u))."""
    half, x, u = numbers(6, 6), numbers(1, 6, seed=1), numbers(1, 6, seed=2)
    a = half @ half.T
    matrix = torch.tensor(a)

    def loss(inputs):
        return 0.5 * inputs[0][0] @ matrix @ inputs[0][0]

    (found,) = adversarial_direction(loss, [torch.tensor(x)], [torch.tensor(u)], radius=3.0, start=0.7)
    slope = a @ (x[0] + 0.7 * u[0] / np.linalg.norm(u))
    np.testing.assert_allclose(found.numpy()[0], 3 * slope / np.linalg.norm(slope), rtol=1e-5)


def test_each_input_of_a_network_gets_the_whole_length():
    one, two = torch.tensor(numbers(2, 1, 4, 4)), torch.tensor(numbers(2, 1, 3, 3, seed=1))

    def loss(inputs):
        return (inputs[0] ** 3).sum() + 1e-3 * (inputs[1] ** 3).sum()

    found = adversarial_direction(loss, [one, two], [torch.randn_like(one), torch.randn_like(two)], radius=2.0)
    for d in found:
        torch.testing.assert_close(d.flatten(1).norm(dim=1), torch.full((2,), 2.0).double(), rtol=1e-5, atol=1e-5)
        assert not d.requires_grad


def test_a_length_by_voxel_is_a_root_mean_square():
    x = torch.tensor(numbers(2, 3, 4, 5))
    (found,) = adversarial_direction(lambda i: (i[0] ** 3).sum(), [x], [torch.randn_like(x)], rms_radius=0.1)
    np.testing.assert_allclose(np.sqrt((found.numpy() ** 2).mean((1, 2, 3))), 0.1, rtol=1e-5)


def test_the_usual_length_is_the_published_one_on_the_published_patch():
    assert math.sqrt(4 * 37**3) * RMS_RADIUS == pytest.approx(10, rel=1e-3)


@pytest.mark.parametrize(("radius", "rms_radius"), [(None, None), (1.0, 1.0), (-1.0, None), (None, math.inf)])
def test_a_length_that_makes_no_sense_is_refused(radius, rms_radius):
    with pytest.raises(OptionError, match="radius"):
        adversarial_direction(sum, [torch.zeros(1, 2)], [torch.zeros(1, 2)], radius=radius, rms_radius=rms_radius)


def softmax(z):
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def dice_by_loops(p, y, rare_voxel):
    """2 TP + s over 2 TP + FP + FN + s, of rare voxels."""
    tp = fp = fn = 0.0
    for one, other, counts in zip(p.ravel(), y.ravel(), rare_voxel.ravel(), strict=True):
        if counts:
            tp, fp, fn = tp + one * other, fp + one * (1 - other), fn + (1 - one) * other
    return (2 * tp + 1e-5) / (2 * tp + fp + fn + 1e-5)


@pytest.mark.parametrize("space", [(5, 4), (3, 4, 2)])
@pytest.mark.parametrize("rare", [(2,), (1, 2), None])
@pytest.mark.parametrize("overlap", [False, True])
def test_of_classes_that_exclude_each_other_it_is_the_equation(space, rare, overlap):
    z, random = 2 * numbers(2, 3, *space), np.random.default_rng(3)
    label, ignore = random.integers(0, 3, (2, *space)), random.random((2, *space)) < 0.2
    samples = Samples(torch.zeros(2, 1, *space), torch.tensor(label), extra={"ignore": torch.tensor(ignore)})
    found = rare_error(SEGMENTATION, torch.tensor(z), samples, rare, overlap=overlap).numpy()
    p, r = softmax(z), np.isin(np.arange(3), rare if rare is not None else [0, 1, 2])
    for b in range(2):
        total, known = 0.0, ~ignore[b]
        for place in np.argwhere(known):
            c = label[b][tuple(place)]
            total -= r[c] * np.log(p[(b, c, *place)])
        expected = total / known.sum()
        if overlap:
            voxels = known & (r[label[b]] if rare is not None else True)
            expected -= np.mean([dice_by_loops(p[b, c], r[c] * (label[b] == c), voxels) for c in (1, 2)])
        assert found[b] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("space", [(5, 4), (3, 4, 2)])
@pytest.mark.parametrize("rare", [(2,), (1, 2), None])
@pytest.mark.parametrize("overlap", [False, True])
def test_of_structures_that_may_overlap_it_is_the_sigmoid_equation(space, rare, overlap):
    s, label = 2 * numbers(2, 2, *space), np.random.default_rng(3).integers(0, 4, (2, *space))
    samples = Samples(torch.zeros(2, 1, *space), torch.tensor(label))
    found = rare_error(STRUCTURES, torch.tensor(s), samples, rare, overlap=overlap).numpy()
    t = np.array(PARTS["parts"])[label].transpose(0, -1, *range(1, len(space) + 1))
    sigmoid = 1 / (1 + np.exp(-s))
    r = np.isin([1, 2], rare if rare is not None else [1, 2]).astype(float)
    for b in range(2):
        terms = [
            r[c] * t[b, c] * np.log(sigmoid[b, c]) + (rare is None) * (1 - t[b, c]) * np.log(1 - sigmoid[b, c])
            for c in range(2)
        ]
        expected = -np.mean(terms)
        if overlap:
            masks = [t[b, c] * r[c] if rare is not None else np.ones(space) for c in range(2)]
            expected -= np.mean([dice_by_loops(sigmoid[b, c], r[c] * t[b, c], masks[c]) for c in range(2)])
        assert found[b] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("rare", [(1,), None])
@pytest.mark.parametrize("overlap", [False, True])
def test_two_classes_are_the_sigmoid_form_of_their_difference(rare, overlap):
    z, label = torch.tensor(3 * numbers(3, 2, 4, 4)), torch.tensor(np.random.default_rng(1).integers(0, 2, (3, 4, 4)))
    samples = Samples(torch.zeros(3, 1, 4, 4), label)
    two = rare_error(BINARY, z, samples, rare, overlap=overlap)
    one = rare_error(ONE, z[:, 1:] - z[:, :1], samples, rare, overlap=overlap)
    torch.testing.assert_close(two, one, rtol=1e-9, atol=1e-12)


def test_of_a_whole_image_only_rare_classes_count():
    task = tasks.make({"task": "classification"}, ["small", "middle", "large"])
    z, label = numbers(4, 3), np.array([0, 1, 2, 2])
    found = rare_error(task, torch.tensor(z), Samples(torch.zeros(4, 1, 2, 2), torch.tensor(label)), (2,)).numpy()
    expected = [0, 0, *(-np.log(softmax(z)[i, 2]) for i in (2, 3))]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_of_findings_only_the_presence_of_rare_ones_counts():
    task = tasks.make({"task": "classification", "kind": "multi-label"}, ["large", "bright"])
    s, label = numbers(3, 2), torch.tensor([[1.0, 1.0], [0.0, 0.0], [1.0, 1.0]])
    annotated = torch.tensor([[True, True], [True, True], [True, False]])
    samples = Samples(torch.zeros(3, 1, 2, 2), label, extra={"annotated": annotated})
    found = rare_error(task, torch.tensor(s), samples, (1,)).numpy()
    np.testing.assert_allclose(found, [np.log1p(np.exp(-s[0, 1])) / 2, 0, 0], rtol=1e-6)


def test_of_classes_in_order_it_is_the_probability_of_the_class():
    task = tasks.make({"task": "classification", "kind": "ordinal"}, ["mild", "moderate", "severe"])
    z = numbers(1, 2)
    reached = 1 / (1 + np.exp(-z[0]))
    found = rare_error(task, torch.tensor(z), Samples(torch.zeros(1, 1, 2, 2), torch.tensor([2])), (2,))
    assert float(found) == pytest.approx(-np.log(reached[0] * reached[1]), rel=1e-6)


def small(outputs: int = 3, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    layers = [nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Tanh(), nn.Conv2d(4, outputs, 3, padding=1)]
    return nn.Sequential(*layers).double().train()


def test_it_is_the_gradient_by_finite_differences_of_the_rare_voxels():
    network = small()
    image, label = numbers(2, 1, 4, 4, seed=5), np.zeros((2, 4, 4), dtype=int)
    label[0, 1, 1:3], label[1, 2, 2], label[:, 3] = 2, 2, 1

    def error(x):
        z = network(torch.tensor(x)).detach().numpy()
        p = softmax(z)
        return -sum(np.log(p[b, 2][label[b] == 2]).sum() for b in range(2))

    slope, h = np.zeros_like(image), 1e-5
    for place in np.ndindex(*image.shape):
        up, down = image.copy(), image.copy()
        up[place] += h
        down[place] -= h
        slope[place] = (error(up) - error(down)) / (2 * h)
    slope /= np.sqrt((slope**2).sum((1, 2, 3), keepdims=True))

    class Door:
        def __call__(self, samples, weights):
            return network(samples.image)

    samples = Samples(torch.tensor(image), torch.tensor(label))
    attack = Attack(SEGMENTATION, (2,), 0.5, 0.0, 1e-8, overlap=False)
    moved = attack.on(samples, network, Door(), Still())
    np.testing.assert_allclose((moved.image - samples.image).numpy(), 0.5 * slope, atol=1e-5)
    assert moved.label is samples.label


def test_a_sample_without_a_rare_voxel_is_not_moved_and_the_others_are(toys):
    method = toys.make("adversarial", rare=("ring",), radius=1.0)
    samples = toys.batch_of(method, 0).source
    label = samples.label.clone()
    label[0] = torch.where(label[0] == 2, 0, label[0])
    moved = method.attack.on(samples.replace(label=label), method.network, method, Still())
    assert torch.equal(moved.image[0], samples.image[0])
    lengths = (moved.image - samples.image).flatten(1).norm(dim=1)
    torch.testing.assert_close(lengths[1:], torch.ones(len(samples) - 1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_finding_it_leaves_no_trace(toys, dimensions):
    method = toys.make("adversarial", dimensions=dimensions, norm="batch").train()
    before = {n: t.clone() for n, t in method.state_dict().items()}
    samples = toys.batch_of(method, 0).source
    image = samples.image.clone()
    method.attack.on(samples, method.network, method, Still())
    assert torch.equal(samples.image, image)
    assert all(torch.equal(t, before[n]) for n, t in method.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in method.network.parameters())


def test_it_raises_the_error_of_what_is_rare_more_than_noise_of_its_length(toys):
    method = toys.make("adversarial", rare=("ring",), radius=0.5)
    toys.drive(method, 20)
    samples = toys.batch_of(method, 99).source

    def risk(image) -> float:
        with torch.no_grad():
            moved = samples.replace(image=image)
            return float(rare_error(method.task, method(moved), moved, (2,)).mean())

    here = risk(samples.image)
    hurt = risk(method.attack.on(samples, method.network, method, Still()).image) - here
    random = torch.Generator().manual_seed(0)
    for _ in range(5):
        noise = torch.randn(samples.image.shape, generator=random)
        noise = 0.5 * noise / noise.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        assert hurt > 5 * abs(risk(samples.image + noise) - here)


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        ("dice+ce", True),
        ("dice", True),
        ("tversky", True),
        ("f_beta", True),
        ("margin_focal+dice", True),
        ("ce", False),
        ("focal", False),
        ("rare_focal", False),
    ],
)
def test_whether_a_loss_has_an_overlap_is_known_from_its_name(loss, expected):
    assert trains_overlap(tasks.make({}, ["background", "lesion"], loss=loss)) is expected
