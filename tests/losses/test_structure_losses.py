"""Losses of structures that may overlap: against NumPy loops, PyTorch and MONAI, and labels that say less than all."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from shiftproof import losses
from shiftproof.errors import LabelError, OptionError
from shiftproof.losses.structures import binary_cross_entropy, dice, dice_and_binary_cross_entropy, focal

FAMILY = "multi-label segmentation"
EVERY = sorted(losses.LOSSES[FAMILY])
LIMITS = [(), ("ignore",), ("annotated",), ("ignore", "annotated")]


@pytest.fixture
def case():
    """Three samples of three structures, the second inside the first; the last sample lacks the third."""
    random = np.random.default_rng(0)
    label = np.zeros((3, 3, 4, 5))
    label[:, 0] = random.random((3, 4, 5)) < 0.6
    label[:, 1] = label[:, 0] * (random.random((3, 4, 5)) < 0.5)
    label[:2, 2] = random.random((2, 4, 5)) < 0.3
    return {
        "logits": torch.as_tensor(2 * random.normal(size=(3, 3, 4, 5))),
        "label": torch.as_tensor(label),
        "ignore": torch.as_tensor(random.random((3, 4, 5)) < 0.3),
        "annotated": torch.tensor([[True, True, True], [True, False, True], [False, False, True]]),
    }


def given(case, names):
    return {name: case[name] for name in ("logits", "label", *names)}


def by_hand(case, names):
    """Per sample and annotated structure: probabilities and labels of the voxels that count."""
    samples = []
    for b in range(3):
        counted = ~case["ignore"][b].numpy() if "ignore" in names else np.ones((4, 5), bool)
        seen = case["annotated"][b].numpy() if "annotated" in names else np.ones(3, bool)
        p = 1 / (1 + np.exp(-case["logits"][b].numpy()))
        samples.append([(p[k][counted], case["label"][b, k].numpy()[counted]) for k in range(3) if seen[k]])
    return samples


@pytest.mark.parametrize("names", LIMITS)
def test_binary_cross_entropy_is_the_mean_over_voxels_and_structures(case, names):
    expected = [
        np.mean(np.concatenate([-(3 * y * np.log(p) + (1 - y) * np.log(1 - p)) for p, y in sample]))
        for sample in by_hand(case, names)
    ]
    np.testing.assert_allclose(binary_cross_entropy(**given(case, names), positive_weight=3.0), expected)


@pytest.mark.parametrize("names", LIMITS)
def test_focal_loss_is_the_stated_equation(case, names):
    expected = [
        np.mean(
            np.concatenate([-(y * (1 - p) ** 1.5 * np.log(p) + (1 - y) * p**1.5 * np.log(1 - p)) for p, y in sample])
        )
        for sample in by_hand(case, names)
    ]
    np.testing.assert_allclose(focal(**given(case, names), gamma=1.5), expected)


@pytest.mark.parametrize("names", LIMITS)
@pytest.mark.parametrize("denominator", ["squared", "linear"])
@pytest.mark.parametrize("absent_class", ["skip", "constant", "smooth"])
def test_dice_is_the_stated_equation(case, names, denominator, absent_class):
    power, extra = (2 if denominator == "squared" else 1), (1 if absent_class == "smooth" else 0)
    expected = []
    for sample in by_hand(case, names):
        errors = [
            1 - (2 * (p * y).sum() + extra) / ((p**power).sum() + y.sum() + extra + 1e-7)
            for p, y in sample
            if y.any() or absent_class != "skip"
        ]
        if absent_class == "constant":
            errors = [e if y.any() else 1.0 for e, (p, y) in zip(errors, sample, strict=True)]
        expected.append(np.mean(errors) if errors else 0)
    found = dice(**given(case, names), denominator=denominator, absent_class=absent_class)
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_dice_and_binary_cross_entropy_is_their_weighted_sum(case):
    some = given(case, ("ignore", "annotated"))
    form = {"denominator": "linear", "absent_class": "smooth", "batch": True}
    both = dice_and_binary_cross_entropy(**some, dice_weight=0.3, bce_weight=2, positive_weight=4, **form)
    torch.testing.assert_close(both, 0.3 * dice(**some, **form) + 2 * binary_cross_entropy(**some, positive_weight=4))


def test_they_agree_with_torch_and_monai(case):
    from monai.losses import DiceLoss

    plain = given(case, ())
    expected = F.binary_cross_entropy_with_logits(plain["logits"], plain["label"], reduction="none")
    torch.testing.assert_close(binary_cross_entropy(**plain), expected.flatten(1).mean(1))
    theirs = DiceLoss(sigmoid=True, squared_pred=True, smooth_nr=0.0, smooth_dr=1e-7, reduction="none")
    value = theirs(plain["logits"], plain["label"]).flatten(1).mean(1)
    torch.testing.assert_close(dice(**plain, absent_class="constant"), value)


@pytest.mark.parametrize("name", EVERY)
def test_gradients_of_any_order_are_right(case, name):
    some = given(case, ("ignore", "annotated"))
    logits = some.pop("logits")[:, :, :2, :2].clone().requires_grad_()
    some = {k: v if k == "annotated" else v[..., :2, :2] for k, v in some.items()}
    loss = losses.get(name, FAMILY)
    assert torch.autograd.gradcheck(lambda z: loss(z, **some), (logits,))
    assert torch.autograd.gradgradcheck(lambda z: loss(z, **some), (logits,))


@pytest.mark.parametrize("name", EVERY)
def test_what_does_not_count_changes_nothing_and_gets_no_gradient(case, name):
    some = given(case, ("ignore", "annotated"))
    loss = losses.get(name, FAMILY)
    out = some["ignore"][:, None] | ~some["annotated"][:, :, None, None]
    other = {**some, "label": torch.where(out, 1 - some["label"], some["label"])}
    other["logits"] = (some["logits"] + 5 * out).requires_grad_()

    value = loss(**other)
    torch.testing.assert_close(value, loss(**some))

    value.sum().backward()
    assert other["logits"].grad[out].abs().max() == 0
    assert other["logits"].grad[~out].abs().max() > 0


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("what", ["ignore", "annotated"])
def test_a_sample_that_says_nothing_has_no_loss_and_no_gradient(case, name, what):
    some = given(case, ())
    some["logits"].requires_grad_()
    some[what] = torch.zeros(3, 4, 5, dtype=torch.bool) if what == "ignore" else torch.ones(3, 3, dtype=torch.bool)
    some[what][1] = what == "ignore"

    value = losses.get(name, FAMILY)(**some)
    value.sum().backward()

    assert value[1] == 0
    assert some["logits"].grad[1].abs().max() == 0
    assert some["logits"].grad[0].abs().max() > 0


@pytest.mark.parametrize("name", EVERY)
def test_a_sample_and_a_structure_have_their_own_values(case, name):
    some, loss = given(case, ("ignore", "annotated")), losses.get(name, FAMILY)
    alone = [loss(**{k: v[b : b + 1] for k, v in some.items()}) for b in range(3)]
    torch.testing.assert_close(loss(**some), torch.cat(alone))

    plain = given(case, ())
    single = [loss(plain["logits"][:2, [k]], plain["label"][:2, [k]]) for k in range(3)]
    torch.testing.assert_close(loss(**plain)[:2], torch.stack(single).mean(0))


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision_gives_the_float32_loss_of_its_values(case, name, dtype):
    some, loss = given(case, ("ignore", "annotated")), losses.get(name, FAMILY)
    low = some["logits"].to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(**{**some, "logits": low})
    assert value.dtype == torch.float32
    torch.testing.assert_close(value.double(), loss(**{**some, "logits": low.double()}), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", EVERY)
def test_extreme_logits_stay_finite_and_perfect_ones_have_no_loss(case, name):
    loss, label = losses.get(name, FAMILY), case["label"]
    extreme = (6e4 * case["logits"].sign()).half().requires_grad_()
    value = loss(extreme, label)
    value.sum().backward()
    assert torch.isfinite(value).all()
    assert torch.isfinite(extreme.grad).all()
    if name == "margin_focal+dice":  # where a structure that is absent adds 1, as in the papers
        label = label.clone()
        label[2, 2, 0] = 1
    assert loss(60 * (2 * label - 1), label).max() < 1e-6


@pytest.mark.parametrize("space", [(6,), (2, 3), (1, 2, 3)])
def test_any_number_of_dimensions_gives_the_same_value(case, space):
    logits, label = case["logits"][:, :, :2, :3], case["label"][:, :, :2, :3]
    expected = dice_and_binary_cross_entropy(logits.flatten(2), label.flatten(2))
    found = dice_and_binary_cross_entropy(logits.reshape(3, 3, *space), label.reshape(3, 3, *space))
    torch.testing.assert_close(found, expected)


def test_labels_and_options_that_do_not_fit_are_refused(case):
    with pytest.raises(LabelError, match=r"got \(3, 4, 5\)"):
        dice(case["logits"], case["label"][:, 0])
    with pytest.raises(LabelError, match=r"and \(3, 4\)"):
        dice(case["logits"], case["label"], annotated=torch.ones(3, 4, dtype=torch.bool))
    with pytest.raises(OptionError, match="squared or linear"):
        dice(case["logits"], case["label"], denominator="cubic")
    with pytest.raises(OptionError, match="at least 0"):
        focal(case["logits"], case["label"], gamma=-1.0)
