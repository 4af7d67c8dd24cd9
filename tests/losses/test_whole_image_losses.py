"""Losses of classes and numbers for whole images: against PyTorch, plain NumPy and the papers' sums."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from shiftproof import losses
from shiftproof.errors import LabelError, OptionError
from shiftproof.losses import classification, multi_label, ordinal, regression

FAMILIES = ("classification", "ordinal classification", "multi-label classification", "regression")
EVERY = [(family, name) for family in FAMILIES for name in losses.LOSSES[family]]
CLASSES = 4
NAMED = {("classification", name): {"rare": [1, 3]} for name in ("large_margin", "rare_focal", "margin_focal")}


def made(name, family):
    """The loss with the options that it asks for."""
    return losses.get(name, family, **NAMED.get((family, name), {}))


def case(family, number=6, seed=0):
    """Arguments of a loss, in float64."""
    random = torch.Generator().manual_seed(seed)
    columns = {"ordinal classification": CLASSES - 1, "regression": 1}.get(family, CLASSES)
    logits = 2 * torch.randn(number, columns, generator=random, dtype=torch.double)
    if family == "regression":
        return logits, torch.randn(number, generator=random, dtype=torch.double)
    if family == "multi-label classification":
        return logits, torch.randint(0, 2, (number, CLASSES), generator=random).double()
    return logits, torch.randint(0, CLASSES, (number,), generator=random)


def sigmoid(z):
    return 1 / (1 + math.exp(-z))


# One class -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, [0.5, 2.0, 1.0, 3.0]])
def test_cross_entropy_is_that_of_torch(smoothing, weights):
    logits, label = case("classification")
    tensor = None if weights is None else torch.tensor(weights, dtype=torch.double)
    expected = F.cross_entropy(logits, label, weight=tensor, label_smoothing=smoothing, reduction="none")

    found = classification.cross_entropy(logits, label, label_smoothing=smoothing, class_weights=weights)

    torch.testing.assert_close(found, expected)


def test_focal_loss_is_the_stated_equation():
    logits, label = case("classification")
    expected = []
    for z, k in zip(logits.tolist(), label.tolist(), strict=True):
        p = math.exp(z[k]) / sum(math.exp(v) for v in z)
        expected.append(-[1.0, 2.0, 0.5, 1.0][k] * (1 - p) ** 1.5 * math.log(p))
    found = classification.focal(logits, label, gamma=1.5, class_weights=[1.0, 2.0, 0.5, 1.0])
    np.testing.assert_allclose(found, expected)


@pytest.mark.parametrize("family", ["classification", "multi-label classification"])
def test_focal_loss_without_gamma_is_cross_entropy(family):
    logits, label = case(family)
    plain = "ce" if family == "classification" else "bce"
    torch.testing.assert_close(
        losses.get("focal", family, gamma=0)(logits, label), losses.get(plain, family)(logits, label)
    )


@pytest.mark.parametrize(("family", "name"), [pair for pair in EVERY if pair[0][0] in "co"])
def test_one_hot_probabilities_are_class_indices(family, name):
    logits, label = case(family)
    loss = made(name, family)
    torch.testing.assert_close(loss(logits, F.one_hot(label, CLASSES).double()), loss(logits, label))


# Classes in order ----------------------------------------------------------------------------------------------


def test_probabilities_of_ordered_classes_are_products_of_sigmoids():
    logits, _ = case("ordinal classification")
    expected = []
    for z in logits.tolist():
        beyond = [1.0, *np.cumprod([sigmoid(v) for v in z]), 0.0]  # P(y > -1), P(y > 0), ...
        expected.append([beyond[k] - beyond[k + 1] for k in range(CLASSES)])
    np.testing.assert_allclose(ordinal.log_probabilities(logits).exp(), expected)


@pytest.mark.parametrize("scale", [1.0, 30.0, 6e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_probabilities_of_ordered_classes_add_up_to_1_whatever_the_logits(scale, dtype):
    logits = (scale * torch.randn(50, 7)).to(dtype)
    log_p = ordinal.log_probabilities(logits)
    assert torch.isfinite(log_p).all()
    assert (log_p <= 0).all()
    torch.testing.assert_close(log_p.exp().sum(1), torch.ones(50))


def test_the_ordinal_loss_is_the_papers_sum_over_thresholds():
    """Equation of CORN: threshold j sees the samples of rank j and above; the sums agree, the divisor does not."""
    logits, label = case("ordinal classification", number=20)
    total = 0.0
    for j in range(CLASSES - 1):
        for z, y in zip(logits.tolist(), label.tolist(), strict=True):
            if y >= j:
                total -= math.log(sigmoid(z[j])) if y > j else math.log(1 - sigmoid(z[j]))
    assert ordinal.corn(logits, label).sum().item() == pytest.approx(total)


def test_the_earth_movers_loss_is_the_squared_distance_of_cumulative_probabilities():
    logits, label = case("ordinal classification")
    p = ordinal.log_probabilities(logits).exp().numpy()
    expected = np.square(np.cumsum(p, 1) - np.cumsum(np.eye(CLASSES)[label.numpy()], 1))[:, :-1].mean(1)
    np.testing.assert_allclose(ordinal.earth_mover(logits, label), expected)


def test_a_miss_by_two_classes_costs_the_earth_mover_more_than_by_one():
    sure = torch.tensor([[9.0, -9.0, -9.0]])  # class 1
    values = [ordinal.earth_mover(sure, torch.tensor([k])).item() for k in range(CLASSES)]
    assert values == pytest.approx([1 / 3, 0, 1 / 3, 2 / 3], abs=1e-3)


# Findings ------------------------------------------------------------------------------------------------------


def test_binary_cross_entropy_is_that_of_torch():
    logits, label = case("multi-label classification")
    weights = torch.tensor([0.5, 2.0, 1.0, 3.0], dtype=torch.double)
    expected = F.binary_cross_entropy_with_logits(logits, label, pos_weight=weights, reduction="none").mean(1)
    found = multi_label.binary_cross_entropy(logits, label, positive_weights=weights.tolist())
    torch.testing.assert_close(found, expected)


def test_focal_loss_of_findings_is_the_stated_equation():
    logits, label = case("multi-label classification")
    p, y = 1 / (1 + np.exp(-logits.numpy())), label.numpy()
    expected = -(y * (1 - p) ** 2 * np.log(p) + (1 - y) * p**2 * np.log(1 - p)).mean(1)
    np.testing.assert_allclose(multi_label.focal(logits, label), expected)


@pytest.mark.parametrize("name", ["bce", "focal"])
def test_a_finding_that_is_not_annotated_has_no_term_whatever_stands_there(name):
    logits, label = case("multi-label classification")
    loss = losses.get(name, "multi-label classification")
    annotated = torch.ones(6, CLASSES, dtype=torch.bool)
    annotated[0, 2] = annotated[1] = False
    odd = label.clone()
    odd[0, 2] = odd[1] = torch.nan
    logits.requires_grad_()

    value = loss(logits, odd, annotated=annotated)
    value.sum().backward()

    kept = [0, 1, 3]
    torch.testing.assert_close(value[0], loss(logits[:1, kept], label[:1, kept])[0])
    torch.testing.assert_close(value[2:], loss(logits, label)[2:])
    assert value[1] == 0
    assert logits.grad[~annotated].abs().max() == 0
    assert logits.grad[annotated].abs().min() > 0


# Numbers -------------------------------------------------------------------------------------------------------


def test_losses_of_numbers_are_those_of_torch():
    prediction, label = case("regression")
    column = prediction[:, 0]
    torch.testing.assert_close(regression.absolute_error(prediction, label), F.l1_loss(column, label, reduction="none"))
    torch.testing.assert_close(regression.squared_error(prediction, label), F.mse_loss(column, label, reduction="none"))
    for delta in (0.3, 1.0):
        expected = F.huber_loss(column, label, delta=delta, reduction="none")
        torch.testing.assert_close(regression.huber(prediction, label, delta=delta), expected)


# All of them ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("family", "name"), EVERY)
def test_gradients_of_any_order_are_right(family, name):
    logits, label = case(family, 3)
    logits.requires_grad_()
    loss = made(name, family)
    assert torch.autograd.gradcheck(lambda z: loss(z, label), (logits,))
    assert torch.autograd.gradgradcheck(lambda z: loss(z, label), (logits,))


@pytest.mark.parametrize(("family", "name"), EVERY)
def test_a_sample_has_its_own_value(family, name):
    logits, label = case(family)
    loss = made(name, family)
    alone = torch.cat([loss(logits[b : b + 1], label[b : b + 1]) for b in range(6)])
    assert alone.shape == (6,)
    torch.testing.assert_close(loss(logits, label), alone)


@pytest.mark.parametrize(("family", "name"), EVERY)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision_gives_the_float32_loss_of_its_values(family, name, dtype):
    logits, label = case(family)
    low, loss = logits.to(dtype), made(name, family)
    label = label.to(dtype) if label.is_floating_point() else label

    with torch.autocast("cpu", torch.bfloat16):
        value = loss(low, label)

    assert value.dtype == torch.float32
    exact = loss(low.double(), label.double() if label.is_floating_point() else label)
    torch.testing.assert_close(value.double(), exact, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("family", "name"), [pair for pair in EVERY if pair[0] != "regression"])
def test_extreme_logits_stay_finite(family, name):
    logits, label = case(family)
    logits = (6e4 * logits.sign()).to(torch.float16).requires_grad_()
    value = made(name, family)(logits, label)
    value.sum().backward()
    assert torch.isfinite(value).all()
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize(
    ("family", "logits", "label"),
    [
        ("classification", [[-40.0, 40.0, -40.0]], [1]),
        ("ordinal classification", [[40.0, -40.0, 0.0]], [1]),
        ("ordinal classification", [[40.0, 40.0, 40.0]], [3]),
        ("multi-label classification", [[40.0, -40.0]], [[1.0, 0.0]]),
        ("regression", [[0.7]], [0.7]),
    ],
)
def test_a_perfect_sample_has_no_loss(family, logits, label):
    for name in losses.LOSSES[family]:
        loss = losses.get(name, family, **({"rare": [1]} if (family, name) in NAMED else {}))
        assert loss(torch.tensor(logits), torch.tensor(label)).item() < 1e-6


def test_focal_loss_below_one_has_a_gradient_at_certainty():
    logits = torch.tensor([[200.0, 0.0]], requires_grad=True)
    classification.focal(logits, torch.tensor([0]), gamma=0.5).sum().backward()
    assert logits.grad.abs().max() == 0


# Names, options, labels ----------------------------------------------------------------------------------------


def test_a_loss_of_another_task_is_answered_with_the_task_it_serves():
    with pytest.raises(OptionError, match=r'"mse" serves regression, not segmentation; known there: ce, dice'):
        losses.get("mse")
    with pytest.raises(OptionError, match=r'"dice\+ce" serves segmentation, not classification; known there: ce'):
        losses.get("dice+ce", "classification")
    with pytest.raises(OptionError, match='"hubert".*did you mean "huber"'):
        losses.get("hubert", "regression")
    with pytest.raises(OptionError, match='"label_smoothin".*did you mean "label_smoothing"'):
        losses.get("ce", "classification", label_smoothin=0.1)


@pytest.mark.parametrize(
    ("family", "name", "options", "words"),
    [
        ("classification", "ce", {"label_smoothing": 1.0}, "from 0 to below 1"),
        ("classification", "ce", {"class_weights": [1.0]}, "4 numbers"),
        ("classification", "ce", {"class_weights": "none"}, "4 numbers"),
        ("classification", "focal", {"gamma": -1}, "at least 0"),
        ("ordinal classification", "corn", {"class_weights": [1.0, 2.0]}, "4 numbers"),
        ("multi-label classification", "bce", {"positive_weights": [1.0]}, "4 numbers"),
        ("multi-label classification", "focal", {"gamma": -0.1}, "at least 0"),
        ("regression", "huber", {"delta": 0.0}, "above 0"),
    ],
)
def test_an_option_out_of_range_is_named(family, name, options, words):
    with pytest.raises(OptionError, match=words):
        losses.get(name, family, **options)(*case(family))


def test_labels_that_do_not_fit_are_refused():
    logits, label = case("classification")
    with pytest.raises(LabelError, match=r"got \(5,\)"):
        classification.cross_entropy(logits, label[:5])
    with pytest.raises(LabelError, match="float"):
        classification.cross_entropy(logits, label.double())
    with pytest.raises(LabelError, match="0 to 3, got -1 to"):
        classification.cross_entropy(logits, torch.tensor([-1, 0, 1, 2, 3, 0]))
    with pytest.raises(LabelError, match=r"got \(6,\)"):
        multi_label.binary_cross_entropy(logits, label)
    with pytest.raises(LabelError, match=r"\(6, 4\) and \(6,\)"):
        regression.huber(logits, label.double())
    # An ordinal label has a class more than there are logits.
    z, y = case("ordinal classification")
    assert ordinal.corn(z, torch.full_like(y, CLASSES - 1)).shape == (6,)
    with pytest.raises(LabelError, match="0 to 3, got 4 to 4"):
        ordinal.corn(z, torch.full_like(y, CLASSES))
