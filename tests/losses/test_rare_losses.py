"""Losses for rare classes: against NumPy voxel by voxel, limits, a sigmoid for two classes, labels that are silent."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from shiftproof import losses
from shiftproof.errors import LabelError, OptionError
from shiftproof.losses.rare import rare_indices, with_indices

NAMES = ("large_margin", "rare_focal", "margin_focal", "margin_focal+dice", "f_beta")
SOFTMAX, SIGMOID = "segmentation", "multi-label segmentation"
WHOLE, FINDINGS = "classification", "multi-label classification"
S = 1e-5

FORMS = [
    {"margin": m, "gamma": g, "asymmetric": a, "rare": r, "eps": e}
    for m, g in ((0.7, 0.0), (0.0, 1.5), (1.3, 2.0))
    for a, r in ((False, None), (True, None), (True, (2,)))
    for e in (0.0, 1e-2)
]
LIMITS = [(), ("ignore",), ("annotated",), ("silent",), ("ignore", "annotated", "silent")]


@pytest.fixture
def case():
    """Three samples of four classes, in 2D; class 3 is in none of the labels."""
    random = np.random.default_rng(1)
    return {
        "logits": 2 * random.normal(size=(3, 4, 4, 5)),
        "label": random.integers(0, 3, (3, 4, 5)),
        "ignore": random.random((3, 4, 5)) < 0.3,
        "silent": random.random((3, 4, 5)) < 0.3,
        "annotated": np.array([[1, 1, 1, 1], [1, 1, 0, 1], [1, 0, 0, 1]], bool),
    }


@pytest.fixture
def overlapping():
    """Three samples of three structures, which may overlap, in 3D."""
    random = np.random.default_rng(2)
    return {
        "logits": 2 * random.normal(size=(3, 3, 2, 4, 3)),
        "label": (random.random((3, 3, 2, 4, 3)) < 0.3).astype(float),
        "ignore": random.random((3, 2, 4, 3)) < 0.3,
        "silent": random.random((3, 3, 2, 4, 3)) < 0.3,
        "annotated": np.array([[1, 1, 1], [1, 0, 1], [0, 0, 1]], bool),
    }


def tensors(case, names):
    return {name: torch.as_tensor(case[name]) for name in ("logits", "label", *names)}


# The equations, with loops ---------------------------------------------------------------------------------------


def softmax_sample(case, names, b, *, margin=0.0, gamma=0.0, asymmetric=True, rare=None, eps=0.0):
    """Cross-entropy, and q, f, y of the voxels that have a target (V, K); with the classes that have a term."""
    rare = (1, 2, 3) if rare is None else rare
    annotated = case["annotated"][b] if "annotated" in names else np.ones(4, bool)
    total, number, rows = 0.0, 0, []
    for at in np.ndindex(case["label"].shape[1:]):
        if "ignore" in names and case["ignore"][(b, *at)]:
            continue
        number += 1
        if "silent" in names and case["silent"][(b, *at)]:
            continue
        z = case["logits"][(b, slice(None), *at)].copy()
        z[0] = np.log(np.exp(z[[0, *np.flatnonzero(~annotated)]]).sum())  # nobody looked for these
        z[~annotated] = -np.inf
        y = int(case["label"][(b, *at)])
        y = y if annotated[y] else 0
        if not asymmetric or y in rare:
            z[y] -= margin
        q = np.exp(z) / np.exp(z).sum()
        f = [(1 - q[k] + eps) ** gamma if not asymmetric or k not in rare else 1.0 for k in range(4)]
        total -= f[y] * math.log(q[y] + eps)
        rows.append((q, f, np.eye(4)[y]))
    q, f, y = (np.array(part) for part in zip(*rows, strict=True))
    return total / number, q, f, y, np.flatnonzero(annotated)


def sigmoid_sample(case, names, b, *, margin=0.0, gamma=0.0, asymmetric=True, rare=None, eps=0.0):
    """As `softmax_sample`, of structures: q, f, y are lists by structure."""
    channels = case["logits"].shape[1]
    rare = range(channels) if rare is None else rare
    total, number, kept = 0.0, 0, []
    for k in range(channels):
        if "annotated" in names and not case["annotated"][b, k]:
            continue
        rows = []
        for at in np.ndindex(case["ignore"].shape[1:]):
            if "ignore" in names and case["ignore"][(b, *at)]:
                continue
            number += 1
            if "silent" in names and case["silent"][(b, k, *at)]:
                continue
            z, t = case["logits"][(b, k, *at)], case["label"][(b, k, *at)]
            if not asymmetric or k in rare:
                z -= margin * t
            if not asymmetric:
                z += margin * (1 - t)
            q = 1 / (1 + math.exp(-z))
            f = 1.0 if asymmetric and k in rare else (1 - q + eps) ** gamma
            total -= t * f * math.log(q + eps) + (1 - t) * (q + eps) ** gamma * math.log(1 - q + eps)
            rows.append((q, f, t))
        kept.append(tuple(np.array(part) for part in zip(*rows, strict=True)))
    return total / number, kept


def overlap_terms(q, f, y):
    return np.array([(q * y).sum(), (q * (1 - y)).sum(), ((1 - q) * y).sum(), (f * (1 - q) * y).sum()])


def focal_dice(tp, fp, fn, weighted):
    return (fp + weighted + S) / (2 * tp + fp + fn + S)


@pytest.mark.parametrize("names", LIMITS)
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_margin_and_focal_are_the_stated_equations(case, names, form):
    expected = [softmax_sample(case, names, b, **form)[0] for b in range(3)]

    np.testing.assert_allclose(losses.get("margin_focal", **form)(**tensors(case, names)), expected)


@pytest.mark.parametrize("names", LIMITS)
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_margin_and_focal_of_structures_are_the_stated_equations(overlapping, names, form):
    expected = [sigmoid_sample(overlapping, names, b, **form)[0] for b in range(3)]

    found = losses.get("margin_focal", SIGMOID, **form)(**tensors(overlapping, names))
    np.testing.assert_allclose(found, expected)


@pytest.mark.parametrize("names", LIMITS)
@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("form", FORMS[::3], ids=str)
def test_the_overlap_shares_q_and_f_with_the_cross_entropy(case, names, form, batch):
    samples = [softmax_sample(case, names, b, **form) for b in range(3)]
    terms = [{k: overlap_terms(q[:, k], f[:, k], y[:, k]) for k in seen if k} for _, q, f, y, seen in samples]
    if batch:
        terms = [{k: sum(t[k] for t in terms if k in t) for k in (1, 2, 3)}] * 3
    overlap = [np.mean([focal_dice(*t) for t in by_class.values()]) for by_class in terms]
    expected = [ce + error for (ce, *_), error in zip(samples, overlap, strict=True)]

    found = losses.get("margin_focal+dice", batch=batch, **form)(**tensors(case, names))
    np.testing.assert_allclose(found, expected)


@pytest.mark.parametrize("names", [n for n in LIMITS if "annotated" not in n])
@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("form", FORMS[::3], ids=str)
def test_the_overlap_of_structures_shares_q_and_f(overlapping, names, form, batch):
    samples = [sigmoid_sample(overlapping, names, b, **form) for b in range(3)]
    terms = [[overlap_terms(*structure) for structure in kept] for _, kept in samples]
    terms = [np.sum(terms, axis=0)] * 3 if batch else terms
    expected = [
        ce + np.mean([focal_dice(*t) for t in by_class]) for (ce, _), by_class in zip(samples, terms, strict=True)
    ]

    found = losses.get("margin_focal+dice", SIGMOID, batch=batch, **form)(**tensors(overlapping, names))
    np.testing.assert_allclose(found, expected)


@pytest.mark.parametrize("names", LIMITS)
@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("beta", [0.5, 1, 2, 8])
def test_f_beta_is_the_stated_equation(case, names, beta, background, batch):
    terms = []
    for b in range(3):
        _, q, f, y, seen = softmax_sample(case, names, b)
        terms.append({k: overlap_terms(q[:, k], f[:, k], y[:, k]) for k in seen if k or background})
    if batch:
        terms = [{k: sum(t[k] for t in terms if k in t) for k in range(0 if background else 1, 4)}] * 3
    expected = []
    for by_class in terms:
        scores = [
            ((1 + beta**2) * tp + S) / ((1 + beta**2) * tp + beta**2 * fn + fp + S)
            for tp, fp, fn, _ in by_class.values()
        ]
        expected.append(1 - np.mean(scores))

    found = losses.get("f_beta", beta=beta, background=background, batch=batch)(**tensors(case, names))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("names", LIMITS)
def test_f_beta_of_structures_is_the_stated_equation(overlapping, names):
    expected = []
    for b in range(3):
        terms = [overlap_terms(*structure) for structure in sigmoid_sample(overlapping, names, b)[1]]
        expected.append(1 - np.mean([(5 * tp + S) / (5 * tp + 4 * fn + fp + S) for tp, fp, fn, _ in terms]))

    found = losses.get("f_beta", SIGMOID, beta=2.0)(**tensors(overlapping, names))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_whole_images_have_the_same_equations(form):
    random = np.random.default_rng(3)
    one = {"logits": random.normal(size=(6, 4, 1)), "label": random.integers(0, 4, (6, 1))}
    form = {**form, "rare": form["rare"] or (1, 2, 3)}
    expected = [softmax_sample(one, (), b, **form)[0] for b in range(6)]
    found = losses.get("margin_focal", WHOLE, **form)(torch.as_tensor(one["logits"])[..., 0], label_of(one))
    np.testing.assert_allclose(found, expected)


def label_of(case):
    return torch.as_tensor(case["label"])[..., 0]


@pytest.mark.parametrize("names", [(), ("annotated",), ("silent",), ("annotated", "silent")])
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_findings_have_the_same_equations(form, names):
    random = np.random.default_rng(4)
    findings = {
        "logits": random.normal(size=(6, 3, 1)),
        "label": (random.random((6, 3, 1)) < 0.4).astype(float),
        "ignore": np.zeros((6, 1), bool),
        "silent": random.random((6, 3, 1)) < 0.2,
        "annotated": random.random((6, 3)) < 0.8,
    }
    expected = [sigmoid_sample(findings, names, b, **form)[0] for b in range(6)]
    given = {k: torch.as_tensor(findings[k]) for k in ("logits", "label", *names)}
    given = {k: v if k == "annotated" else v[..., 0] for k, v in given.items()}
    np.testing.assert_allclose(losses.get("margin_focal", FINDINGS, **form)(**given), expected)


def test_a_soft_label_has_its_share_of_the_margin(case):
    y = np.random.default_rng(5).dirichlet(np.ones(4), (3, 4, 5)).transpose(0, 3, 1, 2)
    for asymmetric, r in ((True, np.array([0, 0, 1, 0])), (False, np.ones(4))):
        z = case["logits"] - 0.7 * r[:, None, None] * y
        q = np.exp(z) / np.exp(z).sum(1, keepdims=True)
        f = np.where((1 - r)[:, None, None] + (not asymmetric) > 0, (1 - q) ** 2, 1)
        expected = -(f * y * np.log(q)).sum(1).mean((1, 2))
        loss = losses.get("margin_focal", margin=0.7, gamma=2, asymmetric=asymmetric, rare=(2,))
        np.testing.assert_allclose(loss(torch.as_tensor(case["logits"]), torch.as_tensor(y)), expected)


# Limits ----------------------------------------------------------------------------------------------------------

PLAIN = {SOFTMAX: "ce", SIGMOID: "bce", WHOLE: "ce", FINDINGS: "bce"}


def example(family, dtype=torch.float32):
    """Arguments of the losses of a family, with everything that a label may leave unsaid."""
    random = torch.Generator().manual_seed(0)
    space = (3, 4, 2) if "segmentation" in family else ()
    logits = 2 * torch.randn(3, 4, *space, generator=random, dtype=dtype)
    drawn = torch.rand(3, 4, *space, generator=random, dtype=dtype)
    label = (drawn < 0.4).to(dtype) if "multi-label" in family else drawn.argmax(1)
    given = {"logits": logits, "label": label}
    if space:
        given["ignore"] = torch.rand(3, *space, generator=random) < 0.3
        given["silent"] = torch.rand(given["label"].shape, generator=random) < 0.3
    if "multi-label" in family or space:
        given["annotated"] = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 1], [1, 0, 1, 1]], dtype=torch.bool)
    return given


@pytest.mark.parametrize("family", PLAIN)
@pytest.mark.parametrize("asymmetric", [True, False])
def test_no_margin_and_no_gamma_is_cross_entropy_to_the_bit(family, asymmetric):
    given, options = example(family), {"asymmetric": asymmetric, "rare": (2,)}
    expected = losses.get(PLAIN[family], family)(**given)

    assert torch.equal(losses.get("large_margin", family, margin=0, **options)(**given), expected)
    assert torch.equal(losses.get("rare_focal", family, gamma=0, **options)(**given), expected)
    assert torch.equal(losses.get("margin_focal", family, margin=0, gamma=0, **options)(**given), expected)
    assert not torch.equal(losses.get("large_margin", family, margin=0.1, **options)(**given), expected)
    assert not torch.equal(losses.get("rare_focal", family, gamma=0.1, **options)(**given), expected)


@pytest.mark.parametrize("family", PLAIN)
def test_margin_and_focal_in_one_are_each_of_them_without_the_other(family):
    given, options = example(family), {"rare": (1, 2)}
    both = losses.get("margin_focal", family, margin=0.5, gamma=0, **options)(**given)
    assert torch.equal(both, losses.get("large_margin", family, margin=0.5, **options)(**given))
    both = losses.get("margin_focal", family, margin=0, gamma=3, **options)(**given)
    assert torch.equal(both, losses.get("rare_focal", family, gamma=3, **options)(**given))


@pytest.mark.parametrize("family", PLAIN)
def test_the_symmetric_focal_loss_is_the_published_one(family):
    given = example(family)
    mine = losses.get("rare_focal", family, gamma=1.5, asymmetric=False)(**given)
    torch.testing.assert_close(mine, losses.get("focal", family, gamma=1.5)(**given), rtol=0, atol=0)


@pytest.mark.parametrize("family", [SOFTMAX, WHOLE])
def test_asymmetric_with_all_classes_rare_or_none_is_a_known_loss(family):
    """All: every class has a margin and none is discounted. None: the other way round."""
    given, every = example(family), range(4)
    margin, focal = (partial_of(name, family, given) for name in ("large_margin", "rare_focal"))
    plain = losses.get("ce", family)(**given)

    assert torch.equal(margin(rare=tuple(every)), margin(asymmetric=False))
    torch.testing.assert_close(margin(rare=()), plain)
    assert torch.equal(focal(rare=tuple(every)), plain)
    assert torch.equal(focal(rare=()), focal(asymmetric=False))


@pytest.mark.parametrize("family", [SIGMOID, FINDINGS])
def test_asymmetric_without_rare_structures_is_a_known_loss(family):
    given = example(family)
    margin, focal = (partial_of(name, family, given) for name in ("large_margin", "rare_focal"))
    torch.testing.assert_close(margin(rare=()), losses.get("bce", family)(**given))
    assert torch.equal(focal(rare=()), focal(asymmetric=False))
    assert not torch.allclose(focal(rare=(0,)), focal(asymmetric=False))


def partial_of(name, family, given):
    return lambda **options: losses.get(name, family, **options)(**given)


def test_all_foreground_classes_are_rare_unless_some_are_named():
    for family, every in ((SOFTMAX, (1, 2, 3)), (SIGMOID, (0, 1, 2, 3)), (FINDINGS, (0, 1, 2, 3))):
        given = example(family)
        for name in ("large_margin", "rare_focal", "margin_focal"):
            loss = losses.get(name, family)(**given)
            assert torch.equal(loss, losses.get(name, family, rare=every)(**given))
            assert not torch.equal(loss, losses.get(name, family, rare=every[1:])(**given))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("asymmetric", [True, False])
@pytest.mark.parametrize("soft", [False, True])
def test_a_softmax_of_two_classes_is_a_sigmoid(name, asymmetric, soft):
    random = torch.Generator().manual_seed(3)
    z = 2 * torch.randn(3, 2, 4, 3, 2, generator=random, dtype=torch.double)
    t = torch.rand(3, 4, 3, 2, generator=random, dtype=torch.double)
    t = t if soft else (t < 0.3).double()
    ignore, silent = (torch.rand(3, 4, 3, 2, generator=random) < 0.3 for _ in range(2))
    options = {} if name == "f_beta" else {"asymmetric": asymmetric, "eps": 1e-6}
    for more in ({}, {"batch": True}) if name in ("f_beta", "margin_focal+dice") else ({},):
        two = losses.get(name, **options, **more)(z, torch.stack([1 - t, t], 1), ignore=ignore, silent=silent)
        one = losses.get(name, SIGMOID, **options, **more)(
            z[:, 1:] - z[:, :1], t[:, None], ignore=ignore, silent=silent[:, None]
        )
        torch.testing.assert_close(two, one)


@pytest.mark.parametrize("name", ["large_margin", "rare_focal", "margin_focal"])
@pytest.mark.parametrize("asymmetric", [True, False])
def test_a_choice_of_two_classes_is_a_finding(name, asymmetric):
    z, t = torch.randn(8, 2, dtype=torch.double), torch.arange(8) % 2
    two = losses.get(name, WHOLE, asymmetric=asymmetric, rare=(1,))(z, t)
    one = losses.get(name, FINDINGS, asymmetric=asymmetric)(z[:, 1:] - z[:, :1], t[:, None].double())
    torch.testing.assert_close(two, one)


def test_f_1_is_linear_dice_and_f_beta_a_tversky_index():
    given = example(SOFTMAX, torch.double)
    given["label"][:, 0, 0, 0] = 3  # all classes are there
    given["label"][:, 0, 0, 1], given["label"][:, 0, 1, 0] = 1, 2
    for name in ("ignore", "silent"):
        given[name][:, 0] = False
    dice = losses.get("dice", denominator="linear", background=False)(**given)
    torch.testing.assert_close(losses.get("f_beta", beta=1)(**given), dice, rtol=1e-4, atol=0)
    for beta, fp, fn in ((2, 0.2, 0.8), (4, 0.0588235, 0.9411765), (8, 0.0153846, 0.9846154)):
        tversky = losses.get("tversky", false_positives=fp, false_negatives=fn, background=False)(**given)
        torch.testing.assert_close(losses.get("f_beta", beta=beta)(**given), tversky, rtol=1e-4, atol=0)


def test_without_gamma_and_margin_the_combined_loss_is_cross_entropy_and_dice():
    given = example(SOFTMAX, torch.double)
    for batch in (False, True):
        loss = losses.get("margin_focal+dice", gamma=0, batch=batch)(**given)
        form = {"denominator": "linear", "absent_class": "constant", "background": False, "batch": batch}
        torch.testing.assert_close(loss, losses.get("dice+ce", **form)(**given), rtol=1e-4, atol=0)


# Gradients -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asymmetric", [True, False])
def test_the_gradient_of_a_margin_is_q_minus_y_over_all_voxels(case, asymmetric):
    logits = torch.as_tensor(case["logits"]).requires_grad_()
    losses.get("large_margin", margin=0.7, asymmetric=asymmetric, rare=(2,))(
        logits, torch.as_tensor(case["label"])
    ).sum().backward()

    y = np.eye(4)[case["label"]].transpose(0, 3, 1, 2)
    a = np.array([0, 0, 1, 0]) if asymmetric else np.ones(4)
    z = case["logits"] - 0.7 * a[:, None, None] * y
    q = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    np.testing.assert_allclose(logits.grad, (q - y) / 20, atol=1e-12)


@pytest.mark.parametrize("family", PLAIN)
@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_those_of_finite_differences(family, name):
    if name not in losses.LOSSES[family]:
        return
    given = example(family, torch.double)
    logits = given.pop("logits")
    options = {"beta": 4.0} if name == "f_beta" else {"rare": (1, 2)}
    loss = losses.get(name, family, **options)
    z = logits.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(z, **given).sum(), z)
    random = torch.Generator().manual_seed(7)
    for _ in range(3):
        step = torch.randn(logits.shape, generator=random, dtype=torch.double)
        slope = (loss(logits + 1e-5 * step, **given) - loss(logits - 1e-5 * step, **given)).sum() / 2e-5
        assert (gradient * step).sum().item() == pytest.approx(slope.item(), rel=1e-6, abs=1e-9)


def test_the_discount_takes_part_in_the_gradient():
    """Of one voxel, d/dz of -(1 - p)^g log p at p = 1/2 has a part that a constant factor would not have."""
    z = torch.zeros(1, 2, 1, dtype=torch.double, requires_grad=True)
    losses.get("rare_focal", gamma=2, asymmetric=False)(z, torch.tensor([[1]])).sum().backward()
    p = 0.5
    slope = 2 * (1 - p) * math.log(p) - (1 - p) ** 2 / p  # by p
    assert z.grad[0, 1, 0].item() == pytest.approx(slope * p * (1 - p))


def test_a_margin_on_the_true_class_is_one_on_all_others(case):
    given = tensors(case, ())
    y = F.one_hot(given["label"], 4).movedim(-1, 1)
    other = losses.get("ce")(given["logits"] + 0.7 * (1 - y), given["label"])
    torch.testing.assert_close(losses.get("large_margin", margin=0.7, asymmetric=False)(**given), other)


def test_rare_voxels_keep_their_pull_where_common_ones_lose_it():
    """A confident right voxel of each kind: the focal factor silences the common one only."""
    logits = torch.tensor([[[4.0, 0.0], [0.0, 4.0]]], dtype=torch.double)  # one of class 0, one of class 1
    label, pull = torch.tensor([[0, 1]]), {}
    for name in ("ce", "rare_focal"):
        z = logits.clone().requires_grad_()
        losses.get(name)(z, label).sum().backward()
        pull[name] = z.grad[0].abs().sum(0)
    assert pull["rare_focal"][1] == pull["ce"][1]
    assert pull["rare_focal"][0] < 0.01 * pull["ce"][0]


@pytest.mark.parametrize("family", [SOFTMAX, SIGMOID])
def test_a_structure_that_is_absent_adds_1_and_no_gradient_of_the_overlap(family):
    logits = torch.zeros(1, 2 if family == SOFTMAX else 1, 6, dtype=torch.double, requires_grad=True)
    label = torch.zeros(1, 6, dtype=torch.long) if family == SOFTMAX else torch.zeros(1, 1, 6)
    plain = losses.get("margin_focal", family, margin=0, gamma=0)(logits, label)
    overlap = losses.get("margin_focal+dice", family, margin=0, gamma=0)(logits, label) - plain
    (gradient,) = torch.autograd.grad(overlap.sum(), logits)
    assert overlap.item() == pytest.approx(1)
    assert gradient.abs().max() < 1e-15


# What a label does not say -----------------------------------------------------------------------------------------

EVERY = [(family, name) for family in (SOFTMAX, SIGMOID) for name in losses.LOSSES[family]]


def silent_pair(family):
    """Arguments without ignored voxels, 3D, and where they are silent."""
    given = example(family, torch.double)
    return {k: v for k, v in given.items() if k in ("logits", "label")}, given["silent"]


@pytest.mark.parametrize("name", losses.LOSSES[SOFTMAX])
def test_a_soft_label_that_adds_up_to_0_is_silent(name):
    given, silent = silent_pair(SOFTMAX)
    soft = F.one_hot(given["label"], 4).movedim(-1, 1).double() * ~silent[:, None]
    loss = losses.get(name)
    torch.testing.assert_close(loss(given["logits"], soft), loss(**given, silent=silent))
    assert not torch.allclose(loss(given["logits"], soft), loss(**given))


@pytest.mark.parametrize(("family", "name"), EVERY)
def test_what_is_silent_changes_nothing_and_gets_no_gradient(family, name):
    given, silent = silent_pair(family)
    loss, out = losses.get(name, family), silent if family == SIGMOID else silent[:, None].expand(3, 4, 3, 4, 2)
    other = 1 - given["label"] if family == SIGMOID else 3 - given["label"]
    z = (given["logits"] + 5 * out).requires_grad_()

    value = loss(z, torch.where(silent, other, given["label"]), silent=silent)
    torch.testing.assert_close(value, loss(**given, silent=silent))

    (gradient,) = torch.autograd.grad(value.sum(), z)
    assert gradient[out].abs().max() == 0
    assert gradient[~out].abs().max() > 0


@pytest.mark.parametrize(("family", "name"), EVERY)
def test_what_is_silent_counts_in_means_over_voxels_and_in_no_overlap(family, name):
    """One voxel in four is silent: against ignoring it, cross-entropy loses a quarter, an overlap nothing."""
    given, _ = silent_pair(family)
    ignore = torch.zeros(3, 3, 4, 2, dtype=torch.bool)
    ignore[:, :, 1] = True
    silent = ignore if family == SOFTMAX else ignore[:, None].expand(3, 4, 3, 4, 2)
    quiet = losses.get(name, family)(**given, silent=silent)
    gone = losses.get(name, family)(**given, ignore=ignore)
    if name in ("dice", "tversky", "f_beta"):
        torch.testing.assert_close(quiet, gone)
    elif "dice" not in name:
        torch.testing.assert_close(quiet, 0.75 * gone)
    else:
        plain = {"dice+ce": "ce", "dice+bce": "bce", "margin_focal+dice": "rare_focal"}[name]
        torch.testing.assert_close(gone - quiet, 0.25 * losses.get(plain, family)(**given, ignore=ignore))


@pytest.mark.parametrize(("family", "name"), EVERY)
def test_a_sample_that_is_all_silent_has_no_loss_and_no_gradient(family, name):
    given, silent = silent_pair(family)
    silent[1] = True
    given["logits"].requires_grad_()
    value = losses.get(name, family)(**given, silent=silent)
    (gradient,) = torch.autograd.grad(value.sum(), given["logits"])
    assert value[1] == 0
    assert gradient[1].abs().max() == 0
    assert gradient[0].abs().max() > 0


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_row_of_zeros_says_nothing_of_a_whole_image(smoothing):
    soft = torch.tensor([[0.0, 0.0, 0.0], [0.2, 0.5, 0.3]], dtype=torch.double)
    logits = torch.randn(2, 3, dtype=torch.double)
    value = losses.get("ce", WHOLE, label_smoothing=smoothing)(logits, soft)
    assert value[0] == 0
    expected = F.cross_entropy(logits, soft, reduction="none", label_smoothing=smoothing)
    torch.testing.assert_close(value[1], expected[1])


def test_silent_voxels_of_structures_are_told_for_each():
    given, silent = silent_pair(SIGMOID)
    with pytest.raises(LabelError, match=r"\(B, K, \*space\), one mask a structure.*got \(3, 3, 4, 2\)"):
        losses.get("bce", SIGMOID)(**given, silent=silent[:, 0])


# Half precision --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", PLAIN)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_has_finite_losses_and_gradients(family, name, dtype):
    if name not in losses.LOSSES[family]:
        return
    options = {"beta": 8.0} if name == "f_beta" else {"rare": (1,), "gamma": 0.5} if "focal" in name else {"rare": (1,)}
    for scale in (1.0, 100.0, 3e4):
        given = example(family)
        low = (scale * given.pop("logits").sign()).to(dtype).requires_grad_()
        value = losses.get(name, family, **options)(low, **given)
        value.sum().backward()
        assert value.dtype == torch.float32
        assert torch.isfinite(value).all()
        assert torch.isfinite(low.grad).all()


# Names and options -------------------------------------------------------------------------------------------------

CLASSES = ["background", "kidney", "tumour"]


def test_names_of_rare_classes_become_indices():
    assert rare_indices(["tumour"], CLASSES) == (2,)
    assert rare_indices(["tumour", "kidney", "tumour"], CLASSES) == (1, 2)
    assert rare_indices(None, CLASSES) == (1, 2)
    assert rare_indices(None, ["x", "y"], background=False) == (0, 1)
    assert rare_indices(["x"], ["x", "y"], background=False) == (0,)


@pytest.mark.parametrize(
    ("rare", "words"),
    [
        (["tumor"], r'no rare class "tumor"; did you mean "tumour"\? known: kidney, tumour'),
        (["background"], '"background" is never rare; rare can be kidney, tumour'),
        ("tumour", "list of names among kidney, tumour, got 'tumour'"),
        ([], r"got \[\]"),
        ([2], r"got \[2\]"),
    ],
)
def test_a_rare_class_that_does_not_exist_is_one_clear_line(rare, words):
    with pytest.raises(OptionError, match=words) as failure:
        rare_indices(rare, CLASSES)
    assert "\n" not in str(failure.value)


def test_options_without_rare_classes_stay_as_they_are():
    assert with_indices(None, CLASSES) == {}
    given = {"gamma": 2, "rare": None}
    assert with_indices(given, CLASSES) == given
    given = {"gamma": 2, "rare": ["tumour"]}
    assert with_indices(given, CLASSES, skipped=1) == {"gamma": 2, "rare": (1,)}
    assert given["rare"] == ["tumour"]


@pytest.mark.parametrize(
    ("family", "name", "options", "words"),
    [
        (SOFTMAX, "large_margin", {"margin": -0.1}, "margin is a number from 0 on"),
        (SOFTMAX, "rare_focal", {"gamma": -1}, "gamma is a number from 0 on"),
        (SIGMOID, "margin_focal", {"eps": -1e-6}, "eps is a number from 0 on"),
        (SOFTMAX, "f_beta", {"beta": 0}, "beta of F-beta is above 0"),
        (SIGMOID, "f_beta", {"beta": -1}, "beta of F-beta is above 0"),
        (SOFTMAX, "rare_focal", {"rare": (4,)}, "whole numbers from 0 to 3"),
        (SIGMOID, "rare_focal", {"rare": ["tumour"]}, "whole numbers from 0 to 3"),
        (SOFTMAX, "large_margin", {"margin": float("nan")}, "margin is a number from 0 on.*nan"),
        (SOFTMAX, "large_margin", {"asymmetric": "false"}, "large_margin.asymmetric expects bool, got 'false'"),
        (FINDINGS, "rare_focal", {"gamma": "2"}, "rare_focal.gamma expects float, got '2'"),
        (WHOLE, "rare_focal", {}, "asks which classes are rare.*asymmetric = false"),
    ],
)
def test_an_option_out_of_range_is_named(family, name, options, words):
    with pytest.raises(OptionError, match=words):
        losses.get(name, family, **options)(**example(family))
