"""What a segmentation is compared with: levels of deep supervision, the middle of a label, silent voxels, names."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from shiftproof import losses, tasks
from shiftproof.data.samples import Samples
from shiftproof.errors import OptionError
from shiftproof.tasks.classification import Classification
from shiftproof.tasks.multi_label import MultiLabelSegmentation
from shiftproof.tasks.segmentation import Segmentation, central, level_weights, shrunk

PARTS = [[False, False], [True, False], [True, True]]
KINDS = ["classes", "structures"]
SPACES = [(8, 12), (8, 4, 12)]


def task_of(kind, **options):
    if kind == "classes":
        return Segmentation(["background", "a", "b"], **options)
    return MultiLabelSegmentation(["background", "whole", "core"], PARTS, **options)


def case(kind, space, silent=False, **options):
    task, random = task_of(kind, **options), torch.Generator().manual_seed(0)
    label = torch.randint(0, 3, (2, *space), generator=random)
    extra = {"ignore": torch.rand(2, *space, generator=random) < 0.2}
    if silent:
        shape = (2, *space) if kind == "classes" else (2, 2, *space)
        extra["silent"] = torch.rand(shape, generator=random) < 0.3
    samples = Samples(torch.zeros(2, 1, *space), label, extra=extra)
    return task, 2 * torch.randn(2, task.outputs, *space, generator=random), samples


def every_second(tensor, space):
    """Voxels 1, 3, 5, ...: the nearest to the middles of pairs, as torch rounds."""
    return tensor[(..., *[slice(1, None, 2)] * len(space))]


@pytest.mark.parametrize(
    ("levels", "expected"),
    [(1, [1]), (2, [2 / 3, 1 / 3]), (3, [2 / 3, 1 / 3, 0]), (4, [0.571, 0.286, 0.143, 0])],
)
def test_weights_of_levels_are_halved_and_the_coarsest_has_none(levels, expected):
    np.testing.assert_allclose(level_weights(levels), expected, atol=5e-4)
    assert sum(level_weights(levels)) == pytest.approx(1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("space", SPACES)
def test_levels_are_compared_with_the_label_on_their_grids(kind, space):
    task, prediction, samples = case(kind, space)
    level_1, level_2 = (prediction[(..., *[slice(None, None, step)] * len(space))] for step in (2, 4))
    half = samples.replace(
        label=every_second(samples.label, space), extra={"ignore": every_second(samples.extra["ignore"], space)}
    )
    expected = (task.loss(prediction, samples) + 0.5 * task.loss(level_1, half)) / 1.5

    found = task.loss({"scores": prediction, "scores 1": level_1, "scores 2": level_2}, samples)
    torch.testing.assert_close(found, expected)


def test_the_coarsest_level_gets_no_gradient():
    task, prediction, samples = case("classes", (8, 12))
    levels = [prediction[:, :, ::step, ::step].clone().requires_grad_() for step in (1, 2, 4)]
    value = task.loss({f"scores {i}": z for i, z in enumerate(levels)}, samples).sum()
    gradients = torch.autograd.grad(value, levels, allow_unused=True)
    assert [g is not None and bool(g.any()) for g in gradients] == [True, True, False]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("silent", [False, True])
@pytest.mark.parametrize(("space", "margin"), [((8, 12), (2, 3)), ((8, 4, 12), (1, 0, 4))])
def test_a_smaller_prediction_is_compared_with_the_middle(kind, silent, space, margin):
    task, prediction, samples = case(kind, space, silent)
    middle = tuple(slice(m, size - m) for m, size in zip(margin, space, strict=True))
    cut = {name: value[(..., *middle)] for name, value in samples.extra.items()}
    inner = Samples(torch.zeros(2, 1, *cut["ignore"].shape[1:]), samples.label[(slice(None), *middle)], extra=cut)

    small = prediction[(..., *middle)]
    torch.testing.assert_close(task.loss(small, samples), task.loss(small, inner))
    other = prediction.clone()
    assert not torch.allclose(task.loss(small, samples), task.loss(other, samples))


def test_of_an_odd_rest_the_upper_voxel_goes():
    assert central(torch.arange(8)[None], (5,)).tolist() == [[1, 2, 3, 4, 5]]
    assert central(torch.arange(5)[None], (8,)).tolist() == [[0, 1, 2, 3, 4]]


# Silent voxels -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("space", SPACES)
def test_silent_voxels_reach_the_loss(kind, space):
    task, prediction, samples = case(kind, space, silent=True)
    family = "segmentation" if kind == "classes" else "multi-label segmentation"
    label = samples.label if kind == "classes" else task.inside(samples.label)
    expected = losses.get(task.default_loss, family)(prediction, label, **samples.extra)
    torch.testing.assert_close(task.loss(prediction, samples), expected)
    bare = samples.replace(extra={"ignore": samples.extra["ignore"]})
    assert not torch.allclose(task.loss(prediction, bare), expected)


def test_with_silent_voxels_floats_are_labels_of_structures():
    """The second sample's voxels are in the core and not in the whole: no part is so."""
    task, prediction, samples = case("structures", (8, 12), silent=True)
    by_structure = torch.rand(2, 2, 8, 12).round()
    by_structure[1, 0], by_structure[1, 1] = 0, 1
    samples = samples.replace(label=by_structure)
    criterion = losses.get("dice+bce", "multi-label segmentation")
    torch.testing.assert_close(task.loss(prediction, samples), criterion(prediction, by_structure, **samples.extra))


@pytest.mark.parametrize("by_class", [False, True])
def test_a_coarse_soft_label_is_the_mean_of_what_is_told(by_class):
    random = np.random.default_rng(0)
    label = random.dirichlet(np.ones(3), (2, 4, 6)).transpose(0, 3, 1, 2)
    silent = random.random((2, 3, 4, 6) if by_class else (2, 4, 6)) < 0.5
    silent[..., :2, :2] = True
    found, _, quiet = shrunk(torch.as_tensor(label), None, torch.as_tensor(silent), (2, 3))
    each = silent if by_class else np.repeat(silent[:, None], 3, 1)
    for b, k, i, j in np.ndindex(2, 3, 2, 3):
        block = (b, k, slice(2 * i, 2 * i + 2), slice(2 * j, 2 * j + 2))
        told = label[block][~each[block]]
        assert found[b, k, i, j].item() == pytest.approx(told.mean() if len(told) else 0)
        assert bool(quiet[(b, k, i, j) if by_class else (b, i, j)]) == (len(told) == 0)


def test_a_coarse_soft_label_is_silent_where_zeros_were():
    label = torch.tensor([[0.2, 0.8], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]]).T[None]  # (1, 2, 4)
    found, _, _ = shrunk(label, None, None, (2,))
    torch.testing.assert_close(found, torch.tensor([[[0.2, 0.0], [0.8, 0.0]]]))


@pytest.mark.parametrize("kind", ["multi-class", "ordinal"])
def test_a_silent_image_has_no_loss(kind):
    task = Classification(["x", "y", "z"], kind=kind)
    prediction, label = torch.randn(4, task.outputs), torch.arange(4) % 3
    silent = torch.tensor([False, True, False, False])
    found = task.loss(prediction, Samples(torch.zeros(4, 1, 2, 2), label, extra={"silent": silent}))
    expected = task.loss(prediction, Samples(torch.zeros(4, 1, 2, 2), label))
    assert torch.equal(found, expected * ~silent)


def test_a_silent_finding_counts_with_no_error():
    task = Classification(["p", "q"], kind="multi-label")
    prediction, label = torch.tensor([[0.3, -0.7]]), torch.tensor([[1.0, 0.0]])
    silent = torch.tensor([[False, True]])
    found = task.loss(prediction, Samples(torch.zeros(1, 1, 2, 2), label, extra={"silent": silent}))
    assert found.item() == pytest.approx(np.log1p(np.exp(-0.3)) / 2)


# Names of rare classes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("space", [(6, 5), (4, 3, 5)])
@pytest.mark.parametrize("loss", ["large_margin", "rare_focal", "margin_focal", "margin_focal+dice"])
def test_rare_structures_are_given_by_name(space, loss):
    for kind, name, index in (("classes", "b", 2), ("structures", "core", 1)):
        task, prediction, samples = case(kind, space, loss=loss, options={"rare": [name]})
        family = "segmentation" if kind == "classes" else "multi-label segmentation"
        label = samples.label if kind == "classes" else task.inside(samples.label)
        expected = losses.get(loss, family, rare=(index,))(prediction, label, **samples.extra)
        assert torch.equal(task.loss(prediction, samples), expected)
        assert not torch.equal(task_of(kind, loss=loss).loss(prediction, samples), expected)


def test_rare_classes_of_images_are_given_by_name():
    samples = Samples(torch.zeros(3, 1, 2, 2), torch.arange(3))
    prediction = torch.randn(3, 3)
    task = Classification(["x", "y", "z"], loss="rare_focal", options={"rare": ["x", "z"]})
    expected = losses.get("rare_focal", "classification", rare=(0, 2))(prediction, samples.label)
    assert torch.equal(task.loss(prediction, samples), expected)


@pytest.mark.parametrize(
    ("target", "classes", "rare", "words"),
    [
        ({}, ["background", "lesion"], ["lesions"], 'no rare class "lesions"; did you mean "lesion"'),
        ({}, ["background", "lesion"], ["background"], "never rare"),
        ({"kind": "multi-label", "parts": PARTS}, ["background", "whole", "core"], ["gore"], 'did you mean "core"'),
        ({"task": "classification"}, ["x", "y"], ["z"], 'no rare class "z"; known: x, y'),
    ],
)
def test_a_rare_class_that_does_not_exist_is_refused_before_training(target, classes, rare, words):
    with pytest.raises(OptionError, match=words):
        tasks.make(target, classes, loss="rare_focal", options={"rare": rare})


def test_a_loss_that_knows_no_rare_classes_says_so():
    with pytest.raises(OptionError, match='option of the loss ce "rare"'):
        task_of("classes", loss="ce", options={"rare": ["a"]})


@pytest.mark.parametrize("kind", KINDS)
def test_a_margin_is_in_the_loss_and_in_nothing_that_is_answered(kind):
    plain, prediction, samples = case(kind, (8, 12))
    task = task_of(kind, loss="large_margin", options={"margin": 3.0})
    assert torch.equal(task.answer(prediction), plain.answer(prediction))
    assert torch.equal(task.probabilities(prediction), plain.probabilities(prediction))
    assert torch.equal(task.scores(prediction), prediction)
    for name, value in task.measure(prediction, samples).items():
        assert torch.equal(value, plain.measure(prediction, samples)[name])
