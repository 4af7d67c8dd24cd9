"""What every task promises, and what is special about each, by other libraries and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import entropy
from sklearn.metrics import balanced_accuracy_score
from torch.nn import functional as F

from shiftproof import losses, tasks
from shiftproof.data.samples import Samples
from shiftproof.errors import LabelError, MethodError, OptionError
from shiftproof.tasks.classification import Classification
from shiftproof.tasks.multi_label import MultiLabelSegmentation
from shiftproof.tasks.regression import Regression
from shiftproof.tasks.segmentation import Segmentation

PARTS = [[False, False, False], [True, False, False], [True, True, False], [False, False, True]]
TARGETS = {
    "segmentation": ({"task": "segmentation"}, ["background", "a", "b"]),
    "structures": (
        {"task": "segmentation", "kind": "multi-label", "parts": PARTS},
        ["background", "whole", "core", "other"],
    ),
    "multi-class": ({"task": "classification", "kind": "multi-class"}, ["x", "y", "z"]),
    "ordinal": ({"task": "classification", "kind": "ordinal"}, ["low", "middle", "high", "top"]),
    "findings": ({"task": "classification", "kind": "multi-label"}, ["p", "q", "r"]),
    "regression": ({"task": "regression", "column": "age", "unit": "years", "mean": 50.0, "sd": 8.0}, []),
}
SPACES = [(6, 5), (4, 3, 5)]

every = pytest.mark.parametrize("name", TARGETS)
both = pytest.mark.parametrize("space", SPACES, ids=["2D", "3D"])


def case(name, space=(6, 5), number=4, seed=0):
    """The task, predictions and samples with everything that a site may leave unsaid."""
    target, classes = TARGETS[name]
    task = tasks.make(target, classes)
    random = torch.Generator().manual_seed(seed)
    image = torch.randn(number, 1, *space, generator=random)
    extra = {}
    if task.name == "segmentation":
        prediction = 2 * torch.randn(number, task.outputs, *space, generator=random)
        highest = len(PARTS) if name == "structures" else len(classes)
        label = torch.randint(0, highest, (number, *space), generator=random)
        extra["ignore"] = torch.rand(number, *space, generator=random) < 0.2
        extra["annotated"] = torch.ones(number, len(classes), dtype=torch.bool)
        extra["annotated"][1, 2] = False
    else:
        prediction = 2 * torch.randn(number, task.outputs, generator=random)
        if name == "findings":
            label = torch.randint(0, 2, (number, 3), generator=random).float()
            extra["annotated"] = torch.rand(number, 3, generator=random) < 0.7
        elif name == "regression":
            label = 50 + 8 * torch.randn(number, generator=random)
        else:
            label = torch.arange(number) % len(classes)
    return task, prediction, Samples(image, label, extra=extra)


# What all of them promise --------------------------------------------------------------------------------------


@every
@both
def test_a_task_has_a_loss_an_answer_and_scores_in_any_dimension(name, space):
    task, prediction, samples = case(name, space)

    assert task.inputs(samples) == (samples.image,)
    loss = task.loss(prediction, samples)
    assert loss.shape == (4,)
    assert (loss > 0).all()
    measured = task.measure(prediction, samples)
    assert list(measured) == task.structures
    assert all(value.shape == (4,) for value in measured.values())
    answer = task.answer(prediction)
    several = name in ("structures", "findings")
    assert answer.shape == (4, *[len(task.structures)] * several, *(space if task.name == "segmentation" else ()))
    assert (answer.dtype == torch.bool) == several
    assert prediction.shape[1] == task.outputs


@every
def test_scores_are_predictions(name):
    """Means of scores over windows or views go the way of a prediction."""
    task, prediction, samples = case(name)
    scores = task.scores(prediction)
    assert torch.equal(task.scores(scores), scores)
    assert torch.equal(task.answer(scores), task.answer(prediction))
    for structure, value in task.measure(prediction, samples).items():
        torch.testing.assert_close(task.measure(scores, samples)[structure], value, equal_nan=True)
    if name != "regression":
        torch.testing.assert_close(task.probabilities(scores), task.probabilities(prediction))


@every
def test_permuting_a_batch_permutes_the_result(name):
    task, prediction, samples = case(name)
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(task.loss(prediction[order], samples[order]), task.loss(prediction, samples)[order])
    moved, still = task.measure(prediction[order], samples[order]), task.measure(prediction, samples)
    for structure in task.structures:
        torch.testing.assert_close(moved[structure], still[structure][order], equal_nan=True)


@every
def test_distance_is_0_to_itself_and_the_same_both_ways(name):
    task, prediction, _ = case(name)
    other = case(name, seed=1)[1]
    assert torch.equal(task.distance(prediction, prediction), torch.zeros(4))
    torch.testing.assert_close(task.distance(prediction, other), task.distance(other, prediction))
    assert task.distance(prediction, other).shape == (4,)
    assert (task.distance(prediction, other) > 0).all()


@every
def test_probabilities_agree_with_the_answer(name):
    task, prediction, _ = case(name)
    if name == "regression":
        return
    p = task.probabilities(prediction)
    assert p.shape[1] == len(task.structures) + (name == "segmentation")
    assert ((p >= 0) & (p <= 1)).all()
    if name in ("structures", "findings"):
        assert torch.equal(p > 0.5, task.answer(prediction))
    else:
        torch.testing.assert_close(p.sum(1), torch.ones_like(p[:, 0]))
        assert torch.equal(p.argmax(1), task.answer(prediction))


@every
@both
def test_entropy_is_that_of_the_probabilities(name, space):
    task, prediction, _ = case(name, space)
    if name == "regression":
        with pytest.raises(MethodError, match='"age" has no probabilities'):
            task.entropy(prediction)
        return
    p = task.probabilities(prediction.double()).numpy()
    if name in ("structures", "findings"):
        expected = entropy(np.stack([p, 1 - p]), axis=0).sum(1)
    else:
        expected = entropy(p, axis=1)
    np.testing.assert_allclose(task.entropy(prediction), expected, rtol=1e-5)


@every
def test_a_sure_answer_has_no_entropy_and_a_finite_gradient(name):
    task, prediction, _ = case(name)
    if name == "regression":
        return
    sure = (1e6 * prediction).requires_grad_()
    value = task.entropy(sure)
    value.sum().backward()
    assert value.abs().max() < 1e-6
    assert torch.isfinite(sure.grad).all()


@every
@both
def test_a_blank_sample_goes_through_every_door(name, space):
    task = case(name)[0]
    prediction, samples = task.blank(space)
    assert samples.image.shape == (1, 1, *space)
    assert prediction.shape[1] == task.outputs
    assert torch.isfinite(task.loss(prediction, samples)).all()
    assert set(task.measure(prediction, samples)) == set(task.structures)
    assert task.distance(prediction, prediction) == 0


@every
def test_unlabelled_samples_have_no_loss(name):
    task, prediction, samples = case(name)
    with pytest.raises(LabelError, match="only source samples have labels"):
        task.loss(prediction, samples.without_labels())


@every
def test_every_loss_of_a_task_is_found_and_steps_downhill(name):
    target, classes = TARGETS[name]
    _, prediction, samples = case(name)
    serves = {
        "segmentation": "segmentation",
        "structures": "multi-label segmentation",
        "multi-class": "classification",
        "ordinal": "ordinal classification",
        "findings": "multi-label classification",
        "regression": "regression",
    }[name]
    for loss in losses.LOSSES[serves]:
        asks = name == "multi-class" and loss in ("large_margin", "rare_focal", "margin_focal")
        task = tasks.make(target, classes, loss=loss, options={"rare": ["z"]} if asks else None)
        z = prediction.clone().requires_grad_()
        value = task.loss(z, samples).sum()
        (gradient,) = torch.autograd.grad(value, z)
        assert task.loss(prediction - 1e-2 * gradient / gradient.norm(), samples).sum() < value
    default = tasks.make(target, classes)
    named = tasks.make(target, classes, loss=default.default_loss)
    torch.testing.assert_close(default.loss(prediction, samples), named.loss(prediction, samples))


@every
def test_in_bfloat16_a_loss_is_that_of_the_rounded_scores(name):
    task, prediction, samples = case(name)
    low = prediction.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        value = task.loss(low, samples)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, task.loss(low.float(), samples))


# Names ---------------------------------------------------------------------------------------------------------


def test_a_plan_without_words_is_multi_class_segmentation():
    task = tasks.make({}, ["background", "a"])
    assert isinstance(task, Segmentation)
    assert isinstance(tasks.make({"task": "classification"}, ["a", "b"]), Classification)
    assert [type(case(name)[0]) for name in TARGETS] == [
        Segmentation,
        MultiLabelSegmentation,
        Classification,
        Classification,
        Classification,
        Regression,
    ]
    assert {case(name)[0].name for name in TARGETS} == set(tasks.TASKS)


def test_unknown_names_are_answered_with_the_nearest():
    with pytest.raises(OptionError, match='"regresion".*did you mean "regression"'):
        tasks.make({"task": "regresion"}, [])
    with pytest.raises(OptionError, match='"ordered".*ordinal'):
        tasks.make({"task": "classification", "kind": "ordered"}, ["a", "b"])
    with pytest.raises(OptionError, match='kind of segmentation "ordinal"'):
        tasks.make({"task": "segmentation", "kind": "ordinal"}, ["a", "b"])
    with pytest.raises(OptionError, match="serves segmentation and multi-label segmentation, not classification"):
        tasks.make({"task": "classification"}, ["a", "b"], loss="dice")
    with pytest.raises(OptionError, match='"gama"'):
        tasks.make({"task": "classification"}, ["a", "b"], loss="focal", options={"gama": 1.0})


# Classification ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["multi-class", "ordinal"])
def test_means_of_what_is_measured_are_recalls(kind):
    task = Classification(["a", "b", "c"], kind=kind)
    random = torch.Generator().manual_seed(0)
    label = torch.randint(0, 3, (40,), generator=random)
    prediction = torch.randn(40, task.outputs, generator=random)
    found = task.measure(prediction, Samples(torch.zeros(40, 1, 2, 2), label))
    recalls = [value.nanmean().item() for value in found.values()]
    expected = balanced_accuracy_score(label, task.answer(prediction))
    assert np.mean(recalls) == pytest.approx(expected)
    assert torch.equal(found["b"].isnan(), label != 1)


def test_soft_labels_are_measured_by_their_largest_class():
    task = Classification(["a", "b"])
    samples = Samples(torch.zeros(2, 1, 2, 2), torch.tensor([[0.8, 0.2], [0.3, 0.7]]))
    prediction = torch.tensor([[2.0, 0.0], [2.0, 0.0]])
    found = task.measure(prediction, samples)
    assert found["a"][0] == 1
    assert found["b"][1] == 0
    expected = F.cross_entropy(prediction, samples.label, reduction="none")
    torch.testing.assert_close(task.loss(prediction, samples), expected)


def test_findings_are_right_or_wrong_where_they_are_annotated():
    task = Classification(["p", "q"], kind="multi-label")
    samples = Samples(
        torch.zeros(2, 1, 2, 2),
        torch.tensor([[1.0, 0.0], [0.0, 1.0]]),
        extra={"annotated": torch.tensor([[True, True], [True, False]])},
    )
    found = task.measure(torch.tensor([[1.0, 1.0], [-1.0, -1.0]]), samples)
    assert found["p"].tolist() == [1, 1]
    assert found["q"][0] == 0
    assert found["q"][1].isnan()


def test_nothing_comes_of_findings_that_are_not_annotated():
    task, prediction, samples = case("findings")
    unknown = ~samples.extra["annotated"]
    other = samples.replace(label=torch.where(unknown, 1 - samples.label, samples.label))
    torch.testing.assert_close(task.loss(prediction, other), task.loss(prediction, samples))
    assert not torch.allclose(task.loss(prediction, other.replace(extra={})), task.loss(prediction, samples))


def test_scores_of_ordered_classes_are_log_probabilities():
    task, prediction, samples = case("ordinal")
    scores = task.scores(prediction)
    assert scores.shape == (4, 4)
    torch.testing.assert_close(scores.exp().sum(1), torch.ones(4))
    torch.testing.assert_close(scores.gather(1, samples.label[:, None])[:, 0], -task.loss(prediction, samples))


def test_ordered_classes_are_learned_in_order():
    """Six classes along one direction: the conditional logits of a single number tell all of them."""
    torch.manual_seed(0)
    task = Classification([str(k) for k in range(6)], kind="ordinal")
    network = torch.nn.Linear(1, 5)
    label = torch.randint(0, 6, (300,))
    samples = Samples(torch.zeros(300, 1, 1, 1), label)
    image = label[:, None].float() - 2.5 + 0.05 * torch.randn(300, 1)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.3)
    for _ in range(400):
        optimizer.zero_grad()
        task.loss(network(image), samples).mean().backward()
        optimizer.step()
    assert (task.answer(network(image)) == label).float().mean() > 0.95


def test_a_kind_needs_its_number_of_classes():
    with pytest.raises(LabelError, match="at least 2"):
        Classification(["a"])
    assert Classification(["a"], kind="multi-label").outputs == 1
    assert Classification(["a", "b"], kind="ordinal").outputs == 1
    with pytest.raises(OptionError, match="kind of classification"):
        Classification(["a", "b"], kind="nominal")


def test_a_network_for_voxels_is_refused():
    for name in ("multi-class", "regression"):
        task, _, samples = case(name)
        with pytest.raises(LabelError, match=r"is \(B, \d\), got \(4, 3, 6, 5\); use a network for classification"):
            task.loss(torch.zeros(4, 3, 6, 5), samples)
        with pytest.raises(LabelError, match="got .'scores'"):
            task.answer({"scores": torch.zeros(4, task.outputs)})


# Regression ----------------------------------------------------------------------------------------------------


def test_a_number_is_learned_standardised_and_answered_in_its_unit():
    task = Regression("age", unit="years", mean=50, sd=8)
    samples = Samples(torch.zeros(3, 1, 2, 2), torch.tensor([50.0, 58.0, 34.0]))
    prediction = torch.tensor([[0.0], [0.5], [-3.0]])
    assert task.answer(prediction).tolist() == [50, 54, 26]
    assert task.loss(prediction, samples).tolist() == [0, 0.5, 1]
    assert task.measure(prediction, samples)["age"].tolist() == [0, -4, -8]
    assert task.distance(prediction, torch.zeros(3, 1)).tolist() == [0, 0.25, 9]
    assert (task.structures, task.unit, task.classes) == (["age"], "years", [])


def test_the_unit_does_not_change_the_loss():
    years = Regression("age", mean=50, sd=8)
    months = Regression("age", mean=600, sd=96)
    label, prediction = torch.tensor([31.0, 77.0]), torch.tensor([[0.1], [0.2]])
    image = torch.zeros(2, 1, 2, 2)
    torch.testing.assert_close(
        years.loss(prediction, Samples(image, label)), months.loss(prediction, Samples(image, 12 * label))
    )


def test_numbers_that_cannot_be_learned_are_refused():
    for sd in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(LabelError, match="whose values differ"):
            Regression("age", sd=sd)
    with pytest.raises(LabelError, match='"age" of a training sample is not a number'):
        Regression("age").loss(torch.zeros(2, 1), Samples(torch.zeros(2, 1, 2, 2), torch.tensor([1.0, math.nan])))


# Structures that overlap ---------------------------------------------------------------------------------------


def test_a_part_stands_for_its_structures():
    task, _, samples = case("structures")
    inside = task.inside(samples.label)
    assert inside.shape == (4, 3, 6, 5)
    for at in np.ndindex(4, 6, 5):
        part = PARTS[int(samples.label[at])]
        assert [bool(inside[(at[0], k, *at[1:])]) for k in range(3)] == part


@both
def test_shares_of_parts_are_shares_of_structures(space):
    task, _, samples = case("structures", space)
    shares = F.one_hot(samples.label, 4).movedim(-1, 1).float()
    torch.testing.assert_close(task.inside(shares), task.inside(samples.label))
    mixed = task.inside(0.25 * shares + 0.75 * shares.flip(0))
    torch.testing.assert_close(mixed, 0.25 * task.inside(samples.label) + 0.75 * task.inside(samples.label.flip(0)))


def test_structures_are_measured_by_dice_where_they_are_annotated():
    task, prediction, samples = case("structures")
    found = task.measure(prediction, samples)
    for b in range(4):
        counted = ~samples.extra["ignore"][b].numpy()
        for k, name in enumerate(["whole", "core", "other"]):
            if not samples.extra["annotated"][b, k + 1]:
                assert found[name][b].isnan()
                continue
            a = (prediction[b, k].numpy() > 0)[counted]
            y = np.array([PARTS[p][k] for p in samples.label[b].numpy()[counted]])
            assert found[name][b].item() == pytest.approx(2 * (a & y).sum() / (a.sum() + y.sum()))
    empty = Samples(torch.zeros(1, 1, 2, 2), torch.zeros(1, 2, 2, dtype=torch.long))
    assert all(v.isnan() for v in task.measure(-torch.ones(1, 3, 2, 2), empty).values())


def test_the_loss_sees_annotated_structures_and_counted_voxels():
    task, prediction, samples = case("structures")
    criterion = losses.get("dice+bce", "multi-label segmentation")
    expected = criterion(
        prediction,
        task.inside(samples.label),
        ignore=samples.extra["ignore"],
        annotated=samples.extra["annotated"][:, 1:],
    )
    torch.testing.assert_close(task.loss(prediction, samples), expected)
    bare = samples.replace(extra={})
    assert not torch.allclose(task.loss(prediction, bare), expected)


@pytest.mark.parametrize("name", ["segmentation", "structures"])
def test_levels_of_deep_supervision_weigh_half_of_the_one_before(name):
    task, prediction, samples = case(name, (8, 4))
    coarse = prediction[:, :, ::2, ::2]
    half = Samples(
        samples.image,
        F.interpolate(samples.label[:, None].double(), (4, 2), mode="nearest-exact")[:, 0].long(),
        extra={
            "annotated": samples.extra["annotated"],
            "ignore": F.interpolate(samples.extra["ignore"][:, None].double(), (4, 2), mode="nearest-exact")[:, 0] > 0,
        },
    )
    levels = {"scores": prediction, "scores 1": coarse}
    expected = (task.loss(prediction, samples) + 0.5 * task.loss(coarse, half)) / 1.5
    torch.testing.assert_close(task.loss(levels, samples), expected)
    assert torch.equal(task.answer(levels), task.answer(prediction))


@pytest.mark.parametrize(
    ("classes", "parts", "words"),
    [
        (["background"], [[]], "at least one structure"),
        (["background", "a", "b"], [[False, False], [True]], "rows of 2 times"),
        (["background", "a"], [[True]], "first of them all false"),
        (["background", "a"], [], "first of them all false"),
        (["background", "a", "b"], [[False, False], [True, False]], "no part belongs to b"),
    ],
)
def test_parts_that_do_not_fit_are_refused(classes, parts, words):
    with pytest.raises(LabelError, match=words):
        MultiLabelSegmentation(classes, parts)


def test_a_part_that_does_not_exist_is_refused():
    task, prediction, samples = case("structures")
    with pytest.raises(LabelError, match="0 to 3, got 0 to 4"):
        task.loss(prediction, samples.replace(label=samples.label.masked_fill(samples.label == 3, 4)))
