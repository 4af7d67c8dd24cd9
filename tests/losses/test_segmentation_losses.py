"""Losses against plain NumPy, finite differences, limits, and labels that say less than everything."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from shiftproof import losses
from shiftproof.errors import LabelError, OptionError
from shiftproof.losses.segmentation import cross_entropy, dice, dice_and_cross_entropy, focal, tversky

EVERY = sorted(losses.LOSSES["segmentation"])
OVERLAPS = ("dice", "dice+ce", "tversky")  # what has all options of an overlap
SMOOTH = ("f_beta", "margin_focal+dice")  # what adds a little to sums, and counts classes that are absent
DICE_FORMS = [
    {"denominator": d, "absent_class": a, "background": b, "batch": s}
    for d in ("squared", "linear")
    for a in ("skip", "constant", "smooth")
    for b in (True, False)
    for s in (True, False)
]


@pytest.fixture
def case():
    """Three samples of four classes; class 3 is in none of the labels, class 2 not in the last one's."""
    random = np.random.default_rng(0)
    label = random.integers(0, 3, (3, 4, 5))
    label[2][label[2] == 2] = 1
    return {
        "logits": random.normal(size=(3, 4, 4, 5)) * 2,
        "label": label,
        "ignore": random.random((3, 4, 5)) < 0.3,
        "annotated": np.array([[1, 1, 1, 1], [1, 1, 0, 1], [1, 0, 0, 1]], bool),
    }


def tensors(case, *names):
    return {name: torch.as_tensor(case[name]) for name in ("logits", "label", *names)}


def by_hand(case, names):
    """Per sample: probabilities (V, K), one-hot label (V, K), classes with a term; voxel by voxel."""
    samples = []
    for b in range(len(case["label"])):
        annotated = case["annotated"][b] if "annotated" in names else np.ones(4, bool)
        p, y = [], []
        for at in np.ndindex(case["label"].shape[1:]):
            if "ignore" in names and case["ignore"][(b, *at)]:
                continue
            exponentials = [math.exp(z) for z in case["logits"][(b, slice(None), *at)]]
            voxel = [e / sum(exponentials) for e in exponentials]
            voxel[0] += sum(voxel[k] for k in range(1, 4) if not annotated[k])
            given = case["label"][(b, *at)]
            given = given if annotated[given] else 0
            p.append([voxel[k] if annotated[k] else 0 for k in range(4)])
            y.append([float(k == given) for k in range(4)])
        samples.append((np.array(p), np.array(y), annotated))
    return samples


def dice_by_hand(samples, *, denominator, absent_class, background, batch):
    sums = []
    for p, y, annotated in samples:
        square = 2 if denominator == "squared" else 1
        terms = []
        for k in range(4):
            terms.append((2 * (p[:, k] * y[:, k]).sum(), (p[:, k] ** square).sum() + y[:, k].sum(), y[:, k].sum()))
        sums.append((np.array(terms), annotated))
    if batch:
        sums = [(sum(s for s, _ in sums), np.any([a for _, a in sums], axis=0))] * len(samples)
    values = []
    for terms, annotated in sums:
        errors = []
        for k in range(0 if background else 1, 4):
            if not annotated[k] or (absent_class == "skip" and terms[k][2] == 0):
                continue
            extra = 1 if absent_class == "smooth" else 0
            errors.append(1 - (terms[k][0] + extra) / (terms[k][1] + extra + 1e-7))
        values.append(np.mean(errors) if errors else 0)
    return np.array(values)


LIMITS = [(), ("ignore",), ("annotated",), ("ignore", "annotated")]


@pytest.mark.parametrize("names", LIMITS)
def test_cross_entropy_is_the_mean_over_voxels(case, names):
    expected = [-(np.log((p * y).sum(1))).mean() for p, y, _ in by_hand(case, names)]

    np.testing.assert_allclose(cross_entropy(**tensors(case, *names)), expected)


@pytest.mark.parametrize("names", LIMITS)
def test_class_weights_are_divided_by_voxels_and_not_by_weights(case, names):
    weights = np.array([0.5, 2.0, 3.0, 1.0])
    expected = [-(np.log((p * y).sum(1)) * (y @ weights)).mean() for p, y, _ in by_hand(case, names)]

    np.testing.assert_allclose(cross_entropy(**tensors(case, *names), class_weights=weights.tolist()), expected)


@pytest.mark.parametrize("names", LIMITS)
def test_batch_weights_are_one_minus_the_share_of_the_class(case, names):
    samples = by_hand(case, names)
    seen = np.array([sum(len(y) for _, y, a in samples if a[k] or k == 0) for k in range(4)])
    weights = 1 - sum(y.sum(0) for _, y, _ in samples) / seen
    expected = [-(np.log((p * y).sum(1)) * (y @ weights)).mean() for p, y, _ in samples]

    np.testing.assert_allclose(cross_entropy(**tensors(case, *names), class_weights="batch"), expected)


def test_clip_takes_the_gradient_of_hopeless_voxels_and_bounds_their_loss():
    logits = torch.tensor([[0.0, 10.0], [0.0, 1.0]], dtype=torch.double).view(2, 2, 1).requires_grad_()
    label = torch.zeros(2, 1, dtype=torch.long)

    value = cross_entropy(logits, label, clip=0.005)
    value.sum().backward()

    np.testing.assert_allclose(value.detach(), [-math.log(0.005), math.log(1 + math.e)])
    assert logits.grad[0].abs().max() == 0
    assert logits.grad[1, 0, 0].item() == pytest.approx(-math.e / (1 + math.e))


@pytest.mark.parametrize("names", LIMITS)
@pytest.mark.parametrize("form", DICE_FORMS, ids=str)
def test_dice_is_the_stated_equation(case, form, names):
    expected = dice_by_hand(by_hand(case, names), **form)

    np.testing.assert_allclose(dice(**tensors(case, *names), **form), expected, atol=1e-12)


@pytest.mark.parametrize("names", LIMITS)
def test_focal_loss_is_the_stated_equation(case, names):
    expected = []
    for p, y, _ in by_hand(case, names):
        true = (p * y).sum(1)
        expected.append(-((1 - true) ** 1.5 * np.log(true)).mean())

    np.testing.assert_allclose(focal(**tensors(case, *names), gamma=1.5), expected)


@pytest.mark.parametrize("names", LIMITS)
def test_tversky_loss_is_the_stated_equation(case, names):
    expected = []
    for p, y, annotated in by_hand(case, names):
        errors = []
        for k in range(4):
            if annotated[k] and y[:, k].any():
                both = (p[:, k] * y[:, k]).sum()
                fp, fn = (p[:, k] * (1 - y[:, k])).sum(), ((1 - p[:, k]) * y[:, k]).sum()
                errors.append(1 - both / (both + 0.2 * fp + 0.9 * fn))
        expected.append(np.mean(errors))
    value = tversky(**tensors(case, *names), false_positives=0.2, false_negatives=0.9)

    np.testing.assert_allclose(value, expected, rtol=1e-6)


def test_dice_and_cross_entropy_is_their_weighted_sum(case):
    given = tensors(case, "ignore", "annotated")
    form = {"denominator": "linear", "absent_class": "smooth", "background": False, "batch": True}
    weighting = {"class_weights": "batch", "clip": 0.01}

    both = dice_and_cross_entropy(**given, dice_weight=0.3, ce_weight=2, **form, **weighting)

    torch.testing.assert_close(both, 0.3 * dice(**given, **form) + 2 * cross_entropy(**given, **weighting))


def test_focal_loss_without_gamma_is_cross_entropy(case):
    given = tensors(case, "ignore", "annotated")

    torch.testing.assert_close(focal(**given, gamma=0), cross_entropy(**given))


@pytest.mark.parametrize("absent_class", ["skip", "constant", "smooth"])
def test_tversky_loss_with_halves_is_linear_dice(case, absent_class):
    given = {**tensors(case, "ignore", "annotated"), "absent_class": absent_class}

    value = tversky(**given, false_positives=0.5, false_negatives=0.5)

    torch.testing.assert_close(value, dice(**given, denominator="linear"))


@pytest.mark.parametrize("name", EVERY)
def test_one_hot_soft_labels_are_hard_labels(case, name):
    given = tensors(case, "ignore", "annotated")
    soft = F.one_hot(given["label"], 4).movedim(-1, 1).double()

    torch.testing.assert_close(losses.get(name)(**{**given, "label": soft}), losses.get(name)(**given))


def test_squared_dice_and_cross_entropy_are_least_at_the_soft_label(case):
    logits = torch.as_tensor(case["logits"])
    soft = logits.softmax(1)

    torch.testing.assert_close(dice(logits, soft), torch.zeros(3, dtype=torch.double), atol=1e-7, rtol=0)
    entropy = -(soft * soft.log()).sum(1).mean((1, 2))
    torch.testing.assert_close(cross_entropy(logits, soft), entropy)
    assert (dice(logits + torch.randn_like(logits), soft) > 1e-3).all()


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("options", [{}, {"batch": True}])
def test_gradients_of_any_order_are_right(case, name, options):
    if options and name in ("ce", "focal"):
        options = {"class_weights": "batch"}
    if options and name in ("large_margin", "margin_focal", "rare_focal"):
        options = {"asymmetric": False}
    given = tensors(case, "ignore", "annotated")
    logits = given.pop("logits")[:, :, :2, :2].clone().requires_grad_()
    given = {k: v if k == "annotated" else v[:, :2, :2] for k, v in given.items()}

    def loss(z):
        return losses.get(name)(z, **given, **options)

    assert torch.autograd.gradcheck(loss, (logits,))
    assert torch.autograd.gradgradcheck(loss, (logits,))


@pytest.mark.parametrize("name", EVERY)
def test_nothing_moves_between_background_and_what_nobody_annotated(case, name):
    """The loss stands still when probability goes from an unannotated class to the background."""
    given = tensors(case, "annotated")
    logits = given["logits"].requires_grad_()
    (gradient,) = torch.autograd.grad(losses.get(name)(**given).sum(), logits)

    p = logits.detach().softmax(1)
    # p_0 grows by p_0 p_2 as p_2 shrinks by it: the logits move by +p_2 and -p_0, others stay.
    moved = gradient[:, 0] * p[:, 2] - gradient[:, 2] * p[:, 0]

    assert moved[1:].abs().max() < 1e-12
    assert moved[0].abs().max() > 1e-3


@pytest.mark.parametrize("name", sorted({*EVERY} - {*SMOOTH}))
def test_an_unannotated_class_is_no_error_where_the_label_says_background(name):
    logits = torch.tensor([-5.0, -5.0, 9.0], dtype=torch.double).view(1, 3, 1).repeat(1, 1, 4)
    label = torch.zeros(1, 4, dtype=torch.long)

    blind = losses.get(name)(logits, label, annotated=torch.tensor([[True, True, False]]))
    seeing = losses.get(name)(logits, label)

    assert blind.item() < 1e-3
    assert seeing.item() > 0.5


@pytest.mark.parametrize("name", EVERY)
def test_an_unannotated_class_is_an_error_on_an_annotated_structure(name):
    logits = torch.tensor([-5.0, -5.0, 9.0], dtype=torch.double).view(1, 3, 1).requires_grad_()
    label = torch.ones(1, 1, dtype=torch.long)

    losses.get(name)(logits, label, annotated=torch.tensor([[True, True, False]])).backward()

    assert logits.grad[0, 1, 0] < 0 < logits.grad[0, 2, 0]


@pytest.mark.parametrize("name", EVERY)
def test_all_classes_annotated_is_the_plain_loss(case, name):
    given = tensors(case)
    every = torch.ones(3, 4, dtype=torch.bool)
    some = every.clone()
    some[1, 2] = False  # so that samples 0 and 2 pass through the merge with nothing to merge

    plain = losses.get(name)(**given)

    torch.testing.assert_close(losses.get(name)(**given, annotated=every), plain)
    torch.testing.assert_close(losses.get(name)(**given, annotated=some)[[0, 2]], plain[[0, 2]])


@pytest.mark.parametrize("name", EVERY)
def test_ignored_voxels_change_nothing_whatever_they_hold(case, name):
    given = tensors(case, "ignore")
    loss = losses.get(name)
    other = {**given, "label": given["label"].masked_fill(given["ignore"], 255)}
    other["logits"] = given["logits"] + 7 * torch.randn(3, 4, 4, 5) * given["ignore"][:, None]
    cut = [
        loss(z[:, ~i][None], y[~i][None])
        for z, y, i in zip(given["logits"], given["label"], given["ignore"], strict=True)
    ]

    torch.testing.assert_close(loss(**other), loss(**given))
    torch.testing.assert_close(torch.cat(cut), loss(**given))


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize(
    "options", [{}, {"absent_class": "constant"}, {"absent_class": "smooth"}, {"background": False}]
)
def test_a_sample_that_says_nothing_has_no_loss_and_no_gradient(case, name, options):
    if name not in OVERLAPS:
        options = {}
    given = tensors(case)
    logits = given["logits"].requires_grad_()
    ignore = torch.zeros(3, 4, 5, dtype=torch.bool)
    ignore[1] = True

    value = losses.get(name)(**given, ignore=ignore, **options)
    value.sum().backward()

    assert value[1] == 0
    assert logits.grad[1].abs().max() == 0
    assert logits.grad[0].abs().max() > 0
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("name", EVERY)
def test_a_sample_has_its_own_value(case, name):
    given, loss = tensors(case, "ignore", "annotated"), losses.get(name)

    alone = [loss(**{k: v[b : b + 1] for k, v in given.items()}) for b in range(3)]

    torch.testing.assert_close(loss(**given), torch.cat(alone))


@pytest.mark.parametrize("absent_class", ["skip", "constant", "smooth"])
def test_gradient_on_an_absent_class_is_the_stated_one(absent_class):
    """Two voxels of class 0; what happens to p of class 1, seen by Dice without background."""
    logits = torch.zeros(1, 2, 2, dtype=torch.double, requires_grad=True)
    value = dice(logits, torch.zeros(1, 2, dtype=torch.long), absent_class=absent_class, background=False)
    value.sum().backward()

    assert value.item() == pytest.approx({"skip": 0, "constant": 1, "smooth": 1 - 1 / 1.5}[absent_class])
    assert (logits.grad[0, 1] > 0).all() == (absent_class == "smooth")
    assert (logits.grad == 0).all() == (absent_class != "smooth")


@pytest.mark.parametrize("name", sorted({*EVERY} - {"margin_focal+dice"}))
def test_a_perfect_sample_has_no_loss_whatever_it_contains(name):
    label = torch.tensor([[0, 0, 0], [0, 1, 2], [2, 2, 2]])
    logits = 60 * F.one_hot(label, 4).movedim(-1, 1).double()

    assert losses.get(name)(logits, label).max() < 1e-6


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision_logits_give_the_float32_loss_of_their_values(case, name, dtype):
    given = tensors(case, "ignore", "annotated")
    low = given["logits"].to(dtype)

    with torch.autocast("cpu", torch.bfloat16):
        value = losses.get(name)(**{**given, "logits": low})

    assert value.dtype == torch.float32
    exact = losses.get(name)(**{**given, "logits": low.double()})
    torch.testing.assert_close(value.double(), exact, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("annotated", [None, torch.tensor([[True, False, True]])])
def test_extreme_logits_stay_finite(name, annotated):
    logits = torch.tensor([[6e4, -6e4, 0.0], [-6e4, 6e4, 0.0], [0.0, 0.0, 6e4]], dtype=torch.float16)
    logits = logits[None].requires_grad_()
    label = torch.tensor([[0, 0, 2]])

    value = losses.get(name)(logits, label, annotated=annotated)
    value.sum().backward()

    assert torch.isfinite(value).all()
    assert torch.isfinite(logits.grad).all()


def test_focal_loss_below_one_has_a_gradient_at_certainty():
    logits = torch.tensor([[[200.0], [0.0]]], requires_grad=True)
    focal(logits, torch.zeros(1, 1, dtype=torch.long), gamma=0.5).sum().backward()

    assert logits.grad.abs().max() == 0


@pytest.mark.parametrize("space", [(6,), (2, 3), (1, 2, 3)])
def test_any_number_of_dimensions_gives_the_same_value(case, space):
    logits = torch.as_tensor(case["logits"])[:, :, :2, :3].flatten(2)
    label = torch.as_tensor(case["label"])[:, :2, :3].flatten(1)
    flat = dice_and_cross_entropy(logits, label)

    torch.testing.assert_close(dice_and_cross_entropy(logits.view(3, 4, *space), label.view(3, *space)), flat)


def test_labels_that_do_not_fit_are_refused(case):
    given = tensors(case)
    with pytest.raises(LabelError, match=r"got \(3, 4\)"):
        cross_entropy(given["logits"], given["label"][:, :, 0])
    with pytest.raises(LabelError, match=r"0 to 3, got 0 to 255.*`ignore`"):
        cross_entropy(given["logits"], given["label"].masked_fill(given["label"] == 1, 255))


@pytest.mark.parametrize(
    ("loss", "options", "words"),
    [
        (cross_entropy, {"class_weights": [1.0]}, "4 numbers"),
        (cross_entropy, {"class_weights": "batches"}, "4 numbers, one a class, or 'batch'"),
        (cross_entropy, {"clip": 1.0}, "below 1"),
        (focal, {"gamma": -1}, "at least 0"),
        (dice, {"denominator": "cubic"}, "squared or linear"),
        (dice, {"absent_class": "zero"}, "skip, constant or smooth"),
        (tversky, {"false_positives": 0, "false_negatives": 0}, "not both 0"),
    ],
)
def test_an_option_out_of_range_is_named(case, loss, options, words):
    with pytest.raises(OptionError, match=words):
        loss(**tensors(case), **options)


def test_a_loss_is_found_by_name_with_its_options(case):
    given = tensors(case)

    torch.testing.assert_close(losses.get("focal", gamma=3.0)(**given), focal(**given, gamma=3.0))
    with pytest.raises(OptionError, match=r'"dise".*"dice"'):
        losses.get("dise")
    with pytest.raises(OptionError, match=r'"gama".*"gamma"'):
        losses.get("focal", gama=1)
