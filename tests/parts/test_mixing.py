"""Mixtures of two samples: their share, their image, and what they are labelled."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from shiftproof import tasks
from shiftproof.data.samples import Samples
from shiftproof.errors import LabelError, MethodError, OptionError
from shiftproof.parts.mixing import drawn_share, mix_labels, mix_switches, mixed

SEGMENTATION = tasks.make({}, ["background", "kidney", "tumour"])
PARTS = {"kind": "multi-label", "parts": [[0, 0], [1, 0], [1, 1], [0, 1]]}
STRUCTURES = tasks.make(PARTS, ["background", "whole", "core"])
CLASSES = tasks.make({"task": "classification"}, ["small", "middle", "large"])
FINDINGS = tasks.make({"task": "classification", "kind": "multi-label"}, ["large", "bright"])

SHARES = [0.0, 0.1, 0.2, 0.3, 0.5, 0.75, 0.79, 0.8]


def by_the_table(a: int, b: int, share: float, rare: tuple[int, ...], margin: float) -> int | None:
    """The rows of the table, one by one; None is ignored."""
    if a == b:
        return a
    if (a in rare) and (b in rare):
        return None
    if (a not in rare) and (b not in rare):
        return None
    one, weight = (a, share) if a in rare else (b, 1 - share)
    return one if weight > margin else None


@pytest.mark.parametrize("rare", [(1, 2), (2,), (1,), (1, 2, 3)])
@pytest.mark.parametrize("share", SHARES)
def test_labels_are_mixed_by_the_table(rare, share):
    pairs = list(itertools.product(range(4), repeat=2))
    a, b = (torch.tensor(side).view(4, 2, 2) for side in zip(*pairs, strict=True))
    target, silent = mix_labels(a, b, share, rare, 0.2)
    assert target.dtype == torch.int64
    for (one, other), found, ignored in zip(pairs, target.flatten().tolist(), silent.flatten().tolist(), strict=True):
        expected = by_the_table(one, other, share, rare, 0.2)
        assert (None if ignored else found) == expected, (one, other)


def test_at_the_margin_itself_a_rare_class_has_not_won_yet():
    a, b = torch.tensor([1, 0]), torch.tensor([0, 1])
    assert mix_labels(a, b, 0.25, (1,), 0.25)[1].tolist() == [True, False]
    assert mix_labels(a, b, 0.75, (1,), 0.25)[1].tolist() == [False, True]
    assert mix_labels(a, b, 0.5, (1,), 0.25)[0].tolist() == [1, 1]


@pytest.mark.parametrize("share", SHARES[1:])
def test_structures_are_mixed_each_by_itself(share):
    """The total share of what has a rare structure: more than the margin, none, or between."""
    a, b = torch.tensor([[[0, 0, 1, 1]] * 2]).bool(), torch.tensor([[[0, 1, 0, 1]] * 2]).bool()
    there, silent = mix_switches(a, b, share, [1], 0.2)
    for place, (one, other) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
        assert bool(silent[0, 0, place]) == (one != other)  # the common one
        if one == other:
            assert bool(there[0, 0, place]) == bool(one)
        total = 1.0 if one and other else one * share + other * (1 - share)
        assert bool(silent[0, 1, place]) == (0 < total <= 0.2)
        if total == 0 or total > 0.2:
            assert bool(there[0, 1, place]) == (total > 0.2)


@pytest.mark.parametrize("share", SHARES)
def test_one_rare_structure_is_mixed_as_two_classes_of_which_one_is_rare(share):
    a, b = torch.randint(0, 2, (2, 3, 4, 4), generator=torch.Generator().manual_seed(0))
    target, silent = mix_labels(a, b, share, (1,), 0.2)
    there, unknown = mix_switches(a[:, None].bool(), b[:, None].bool(), share, (0,), 0.2)
    assert torch.equal(silent, unknown[:, 0])
    assert torch.equal(target[~silent], there[:, 0][~silent].long())


def test_soft_labels_are_refused_where_classes_are_decided_on():
    with pytest.raises(LabelError, match="class indices"):
        mix_labels(torch.zeros(1, 3), torch.zeros(1, 3), 0.5, (1,), 0.2)


@pytest.mark.parametrize(("alpha", "variance"), [(1.0, 1 / 12), (0.2, 1 / 5.6), (4.0, 1 / 36)])
def test_shares_are_of_a_beta_distribution_cut_by_the_margin(alpha, variance):
    """Beta(a, a) has the mean 1/2 and the variance 1 / (4 (2 a + 1))."""
    assert variance == pytest.approx(1 / (4 * (2 * alpha + 1)))
    random = torch.Generator().manual_seed(0)
    shares = np.array([drawn_share(alpha, 0.2, random) for _ in range(4000)])
    assert 0 <= shares.min() <= shares.max() <= 0.8
    assert shares.mean() == pytest.approx(0.4, abs=0.02)
    assert shares.var() == pytest.approx(0.64 * variance, rel=0.08)


def test_a_share_is_a_function_of_the_generator():
    one, two = (drawn_share(1.0, 0.0, torch.Generator().manual_seed(s)) for s in (3, 3))
    assert one == two != drawn_share(1.0, 0.0, torch.Generator().manual_seed(4))
    assert drawn_share(0.0, 0.2, torch.Generator()) == 0.8


@pytest.mark.parametrize(("alpha", "margin"), [(-1.0, 0.2), (float("nan"), 0.2), (1.0, 1.0), (1.0, -0.1)])
def test_options_out_of_range_are_refused(alpha, margin):
    with pytest.raises(OptionError, match="mixup"):
        drawn_share(alpha, margin, torch.Generator())


def pair(space, classes, seed=0):
    random = torch.Generator().manual_seed(seed)
    return [
        Samples(
            torch.randn((2, 1, *space), generator=random),
            torch.randint(0, classes, (2, *space), generator=random),
            torch.tensor([side, side]),
            [f"{side}{i}" for i in range(2)],
            {"ignore": torch.rand((2, *space), generator=random) < 0.2, "drawn": torch.tensor([side, 2])},
        )
        for side in (0, 1)
    ]


@pytest.mark.parametrize("space", [(4, 5), (3, 4, 5)])
@pytest.mark.parametrize("rare", [None, (2,)])
def test_images_are_mixed_and_what_belongs_to_the_sample_stays(space, rare):
    one, other = pair(space, 3)
    found = mixed(SEGMENTATION, one, other, 0.3, rare=rare, margin=0.2)
    np.testing.assert_allclose(found.image.numpy(), 0.3 * one.image.numpy() + 0.7 * other.image.numpy(), rtol=1e-6)
    assert found.domain.tolist() == [0, 0]
    assert found.subject == one.subject
    assert found.extra["drawn"].tolist() == [0, 2]
    assert torch.equal(found.extra["ignore"], one.extra["ignore"] | other.extra["ignore"])
    assert "silent" not in one.extra


@pytest.mark.parametrize("rare", [None, (2,)])
def test_any_number_may_stand_where_voxels_are_ignored(rare):
    z = torch.randn(2, 3, 4, 4)
    found = []
    for value in (0, 255):
        one, other = pair((4, 4), 3)
        one.label[one.extra["ignore"]] = value
        found.append(SEGMENTATION.loss(z, mixed(SEGMENTATION, one, other, 0.3, rare=rare, margin=0.2)))
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("space", [(4, 5), (3, 4, 5)])
@pytest.mark.parametrize("loss", ["ce", "dice+ce"])
def test_the_cross_entropy_of_ambiguous_voxels_is_0_and_counts(space, loss):
    """- sum over what has a class of log p, over all voxels that are not ignored."""
    task = tasks.make(
        {}, ["background", "kidney", "tumour"], loss=loss, options={"dice_weight": 0} if "d" in loss else {}
    )
    one, other = pair(space, 3)
    found = mixed(task, one, other, 0.1, rare=(2,), margin=0.2)
    z = torch.randn((2, 3, *space), dtype=torch.float64, requires_grad=True)
    error = task.loss(z, found)
    values = error.tolist()
    p, ignore = np.exp(z.detach().log_softmax(1).numpy()), (one.extra["ignore"] | other.extra["ignore"]).numpy()
    ambiguous = 0
    for i in range(2):
        total, number = 0.0, 0
        for place in np.argwhere(~ignore[i]):
            a, b = int(one.label[(i, *place)]), int(other.label[(i, *place)])
            target = by_the_table(a, b, 0.1, (2,), 0.2)
            number += 1
            ambiguous += target is None
            total -= 0 if target is None else np.log(p[(i, target, *place)])
        assert values[i] == pytest.approx(total / number, rel=1e-6)
    assert ambiguous > 0
    (slope,) = torch.autograd.grad(error.sum(), z)
    assert torch.equal(
        slope.movedim(1, -1)[found.extra["silent"]], torch.zeros(int(found.extra["silent"].sum()), 3).double()
    )


def test_ambiguous_voxels_take_no_part_in_dice():
    """Whatever the network says there, and Dice of the others is that of a label without them."""
    task = tasks.make({}, ["background", "kidney", "tumour"], loss="dice")
    one, other = pair((6, 6), 3)
    found = mixed(task, one, other, 0.1, rare=(2,), margin=0.2)
    z = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    changed = torch.where(found.extra["silent"][:, None], 5 * torch.randn(z.shape).double(), z)
    torch.testing.assert_close(task.loss(z, found), task.loss(changed, found))
    without = found.replace(extra={"ignore": found.extra["ignore"] | found.extra["silent"]})
    torch.testing.assert_close(task.loss(z, found), task.loss(z, without))


def test_soft_labels_of_the_symmetric_form_mix_the_losses():
    """Cross-entropy is linear in the label."""
    task = tasks.make({}, ["background", "kidney", "tumour"], loss="ce")
    one, other = (samples.replace(extra={}) for samples in pair((4, 4), 3))
    found = mixed(task, one, other, 0.3, rare=None)
    z = torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(task.loss(z, found), 0.3 * task.loss(z, one) + 0.7 * task.loss(z, other))


def test_soft_structures_of_the_symmetric_form_mix_the_losses():
    task = tasks.make(PARTS, ["background", "whole", "core"], loss="bce")
    one, other = (samples.replace(extra={}) for samples in pair((4, 4), 4))
    found = mixed(task, one, other, 0.3, rare=None)
    z = torch.randn(2, 2, 4, 4)
    torch.testing.assert_close(task.loss(z, found), 0.3 * task.loss(z, one) + 0.7 * task.loss(z, other))


@pytest.mark.parametrize("space", [(4, 4), (3, 3, 4)])
def test_structures_that_win_together_need_not_be_a_part(space):
    """Only "whole" in one, only "core" in the other: the mixture is both, which no part of these labels is."""
    apart = tasks.make({"kind": "multi-label", "parts": [[0, 0], [1, 0], [0, 1]]}, STRUCTURES.classes, loss="bce")
    one, other = (Samples(torch.zeros(1, 1, *space), torch.full((1, *space), part)) for part in (1, 2))
    z = torch.randn(1, 2, *space, dtype=torch.float64)
    found = mixed(apart, one, other, 0.5, rare=(1, 2), margin=0.2)
    expected = np.log1p(np.exp(-z.numpy())).mean()
    assert float(apart.loss(z, found)) == pytest.approx(expected, rel=1e-6)
    # With "whole" common it is silent, and counts.
    found = mixed(apart, one, other, 0.5, rare=(2,), margin=0.2)
    assert float(apart.loss(z, found)) == pytest.approx(np.log1p(np.exp(-z.numpy()[:, 1])).mean() / 2, rel=1e-6)


@pytest.mark.parametrize("rare", [None, (1,), (1, 2)])
def test_a_deeply_supervised_prediction_has_a_loss_on_mixtures_at_every_level(rare):
    for task, classes in ((SEGMENTATION, 3), (STRUCTURES, 4)):
        one, other = pair((8, 8), classes)
        found = mixed(task, one, other, 0.4, rare=rare, margin=0.2)
        levels = {
            name: torch.randn(2, task.outputs, n, n, requires_grad=True)
            for name, n in (("scores", 8), ("scores 1", 4), ("scores 2", 2))
        }
        error = task.loss(levels, found)
        assert error.shape == (2,)
        slopes = torch.autograd.grad(error.sum(), list(levels.values()), allow_unused=True)
        assert all(torch.isfinite(s).all() for s in slopes if s is not None)
        assert float(slopes[1].abs().sum()) > 0


def test_a_whole_image_is_mixed_as_a_voxel_is():
    one = Samples(torch.randn(4, 1, 4, 4), torch.tensor([0, 2, 0, 1]))
    other = Samples(torch.randn(4, 1, 4, 4), torch.tensor([2, 0, 1, 1]))
    z = torch.randn(4, 3)
    log_p = z.log_softmax(1)
    found = mixed(CLASSES, one, other, 0.1, rare=(2,), margin=0.2)
    # Rare with 0.9, rare with 0.1, two common ones, the same.
    expected = torch.stack([-log_p[0, 2], torch.zeros(()), torch.zeros(()), -log_p[3, 1]])
    torch.testing.assert_close(CLASSES.loss(z, found), expected)
    soft = mixed(CLASSES, one, other, 0.1, rare=None)
    expected = -0.1 * log_p[range(4), one.label] - 0.9 * log_p[range(4), other.label]
    torch.testing.assert_close(CLASSES.loss(z, soft), expected)


def test_findings_are_mixed_each_by_itself_and_annotated_where_both_are():
    annotated = torch.tensor([[True, True], [True, False]])
    one = Samples(torch.randn(2, 1, 4, 4), torch.tensor([[1.0, 1.0], [0.0, 1.0]]), extra={"annotated": annotated})
    other = Samples(
        torch.randn(2, 1, 4, 4), torch.tensor([[0.0, 0.0], [0.0, 1.0]]), extra={"annotated": annotated | True}
    )
    s = torch.randn(2, 2)
    found = mixed(FINDINGS, one, other, 0.5, rare=(1,), margin=0.2)
    # The common one differs and is silent, the rare one wins; then one alone is annotated.
    expected = torch.stack([torch.log1p(torch.exp(-s[0, 1])) / 2, torch.log1p(torch.exp(s[1, 0]))])
    torch.testing.assert_close(FINDINGS.loss(s, found), expected)


def test_nothing_of_a_number_is_mixed():
    task = tasks.make({"task": "regression", "column": "age", "unit": "years"}, [])
    samples = Samples(torch.zeros(2, 1, 4, 4), torch.zeros(2))
    with pytest.raises(MethodError, match="segmentation and classification"):
        mixed(task, samples, samples, 0.5, rare=None)
