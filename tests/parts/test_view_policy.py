"""How views are learned: the gradient against finite differences, the error against NumPy, and what it leads to."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from shiftproof import tasks
from shiftproof.data.samples import Samples
from shiftproof.parts.modes import evaluating
from shiftproof.parts.view_policy import ViewErrors, ViewPolicy
from shiftproof.tasks.multi_label import MultiLabelSegmentation
from shiftproof.tasks.segmentation import Segmentation
from shiftproof.transforms.policies import conditioned
from shiftproof.transforms.views import Views

TASK = Segmentation(["background", "disc", "ring"])


def policy_of(space=(8, 8), preset="nnunet", **options) -> ViewPolicy:
    return ViewPolicy(Views(space, **options), preset=preset)


def number(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_gradient_is_that_of_the_weighted_mean_by_finite_differences():
    """w_b = 1 + y_j(a) - y_j(a0) under the noise that gave choice j; L = sum(w l) / sum(w), divided by multiplicity."""
    policy = policy_of(preset="deepmedic")
    choices = policy.draw(12, number(1))
    index = choices.index[:, 0].numpy()
    often = np.array([(index == j).sum() for j in index])
    assert often.max() > 1
    errors = np.random.default_rng(0).uniform(size=12)
    (found,) = policy.gradient(torch.from_numpy(errors), choices, number(5))

    logits = policy.policy.logits[0].detach().double()
    rows = logits.expand(12, -1)
    noise = (conditioned(rows, choices.index[:, 0], number(5)) - rows).numpy()
    assert ((logits.numpy() + noise).argmax(1) == index).all()

    def chosen(a: np.ndarray) -> np.ndarray:
        y = np.exp(a + noise - (a + noise).max(1, keepdims=True))
        return (y / y.sum(1, keepdims=True))[np.arange(12), index]

    def mean(w: np.ndarray) -> float:
        return float((w * errors).sum() / w.sum())

    step = 1e-5
    by_weight = [(mean(1 + step * e) - mean(1 - step * e)) / (2 * step) for e in np.eye(12)]
    a = logits.numpy()[0]
    expected = np.zeros_like(a)
    for k in range(len(a)):
        up, down = (chosen(a + sign * step * np.eye(len(a))[k]) for sign in (1, -1))
        expected[k] = (np.array(by_weight) / often * (up - down) / (2 * step)).sum()
    np.testing.assert_allclose(found[0].numpy(), expected, rtol=1e-4, atol=1e-8)


def test_the_mean_error_does_not_matter_only_differences_do():
    policy = policy_of()
    choices, errors = policy.draw(8, number(0)), torch.rand(8, generator=number(1))
    (first,) = policy.gradient(errors, choices, number(2))
    (second,) = policy.gradient(errors + 3, choices, number(2))
    torch.testing.assert_close(first, second, rtol=1e-5, atol=1e-8)
    (flat,) = policy.gradient(torch.full((8,), 0.7), choices, number(2))
    assert flat.abs().max() < 1e-12


def numpy_dice(p: np.ndarray, y: np.ndarray, counted: np.ndarray) -> float:
    """Mean over structures of soft Dice, of voxels that count; (K, *space)."""
    p, y = p * counted, y * counted
    axes = tuple(range(1, p.ndim))
    return float(((2 * (p * y).sum(axes) + 1e-5) / (p.sum(axes) + y.sum(axes) + 1e-5)).mean())


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("overlapping", [False, True])
def test_the_error_is_one_minus_soft_dice_of_the_voxels_that_the_view_held(toys, dimensions, overlapping):
    task = TASK
    if overlapping:
        task = MultiLabelSegmentation(["background", "disc", "ring"], [[False, False], [True, False], [True, True]])
    patch = toys.discs([0], 3, dimensions=dimensions, size=12)
    patch.extra["ignore"] = torch.zeros_like(patch.label, dtype=torch.bool)
    patch.extra["ignore"][:, :2] = True
    views = Views((12,) * dimensions)
    channels = torch.tensor([1.0, -2.0, 3.0])[: task.outputs].view(1, -1, *[1] * dimensions)
    seen = []

    def predict(samples: Samples) -> torch.Tensor:
        seen.append(samples)
        return samples.image * channels

    names = ["identity", "mirror frontal", "scale +0.45", "add -0.25"]
    names.append("turn in plane +90" if dimensions == 2 else "turn frontal -90")
    found = ViewErrors(task)(predict, patch, views, [views.place(name) for name in names])

    (samples,) = seen
    label = patch.label[0].numpy()
    y = np.stack([label >= 1, label == 2] if overlapping else [label == 1, label == 2]).astype(float)
    counted = ~patch.extra["ignore"][0].numpy()
    offset = (np.abs(np.arange(12) - 5.5) + 0.0) / 6 * 1.45 <= 1
    held = np.stack(np.meshgrid(*[offset] * dimensions, indexing="ij")).all(0)
    for b, name in enumerate(names):
        image = samples.image[b, 0].numpy()
        if name == "mirror frontal":
            image = np.flip(image, 1)
        elif name == "turn in plane +90":
            image = np.rot90(image, -1, (0, 1))
        elif name == "turn frontal -90":
            image = np.rot90(image, 1, (1, 2))
        elif name == "scale +0.45":
            zoomed, _ = views.restored(samples.image[b : b + 1], [views.place(name)])
            image = zoomed[0, 0].numpy()
        z = image[None] * channels[0].numpy()
        p = 1 / (1 + np.exp(-z)) if overlapping else (np.exp(z) / np.exp(z).sum(0))[1:]
        expected = 1 - numpy_dice(p, y, counted & held if name == "scale +0.45" else counted)
        assert float(found[b]) == pytest.approx(expected, abs=1e-5), name


def test_of_a_network_that_scores_the_middle_only_the_middle_is_compared(toys):
    patch = toys.discs([0], 3, size=16)
    views = Views((16, 16))

    def predict(samples: Samples) -> torch.Tensor:
        image = samples.image[..., 2:-2, 2:-2]
        return torch.cat([image, -image, 2 * image], 1)

    found = ViewErrors(TASK)(
        predict, patch, views, [0, views.place("mirror sagittal"), views.place("turn in plane +90")]
    )
    small = patch.central((12, 12))
    z = torch.cat([small.image, -small.image, 2 * small.image], 1)
    p = z.softmax(1)[0, 1:].numpy()
    y = np.stack([small.label[0].numpy() == k for k in (1, 2)]).astype(float)
    np.testing.assert_allclose(found.numpy(), 1 - numpy_dice(p, y, np.ones((12, 12), bool)), atol=1e-5)


def test_structures_that_are_not_annotated_do_not_count(toys):
    patch = toys.discs([0], 3)
    scores = torch.randn(1, 3, 16, 16)
    held = torch.ones(1, 16, 16, dtype=torch.bool)
    patch.extra["annotated"] = torch.tensor([[True, True, False]])
    found = float(ViewErrors(TASK).dice(scores, patch, held))
    p = scores.softmax(1)[0, 1:2].numpy()
    y = (patch.label[0].numpy() == 1)[None].astype(float)
    assert found == pytest.approx(1 - numpy_dice(p, y, np.ones((16, 16), bool)), abs=1e-5)


def test_of_whole_images_the_error_is_the_tasks_loss():
    task = tasks.make({"task": "classification", "kind": "multi-class"}, ["a", "b"])
    patch = Samples(torch.randn(1, 1, 8, 8), torch.tensor([1]))
    views = Views((8, 8), fields=task.spatial)

    def predict(samples: Samples) -> torch.Tensor:
        return torch.stack([samples.image.mean((1, 2, 3)), samples.image[:, 0, 0, 0]], 1)

    names = ["identity", "add +0.25", "mirror frontal"]
    found = ViewErrors(task)(predict, patch, views, [views.place(n) for n in names])
    image = patch.image[0, 0].double().numpy()
    for error, shown in zip(found, [image, image + 0.25, image[:, ::-1]], strict=True):
        z = np.array([shown.mean(), shown[0, 0]])
        assert float(error) == pytest.approx(float(np.log(np.exp(z).sum()) - z[1]), abs=1e-5)


def test_it_starts_from_the_preset_and_its_file_says_what_it_is():
    policy = policy_of((8, 8, 8))
    assert policy.probabilities()["identity"] == pytest.approx(0.1, abs=1e-6)
    policy.note(0)
    content = json.loads(policy.as_json(method="erm"))
    assert (content["pool"], content["dimensions"], content["provenance"]) == ("views", 3, {"method": "erm"})
    assert content["groups"][0]["options"][29] == "mirror sagittal"
    assert content["groups"][0]["probabilities"][0][29] == pytest.approx(0.1, abs=1e-6)
    assert content["history"]["step"] == [0]


def test_evaluation_mode_is_for_a_moment_and_part_by_part():
    module = torch.nn.Sequential(torch.nn.Dropout(), torch.nn.BatchNorm1d(2))
    module[1].eval()
    with evaluating(module):
        assert not module[0].training
        assert not module.training
    assert module.training
    assert module[0].training
    assert not module[1].training
    with pytest.raises(RuntimeError), evaluating(module):
        raise RuntimeError
    assert module[0].training
