"""Option values at which a method is a simpler one, bit for bit."""

from __future__ import annotations

import pytest
import torch

from shiftproof.errors import MethodError


def same(a, b) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.network.parameters(), b.network.parameters(), strict=True))


@pytest.mark.parametrize("form", ["reversal", "alternating"])
def test_dann_without_weight_is_erm(toys, form):
    erm, dann = toys.make("erm"), toys.make("dann", weight=0.0, form=form)
    assert same(erm, dann)
    toys.drive(erm, 4)
    toys.drive(dann, 4)
    assert same(erm, dann)


def test_dann_with_weight_is_not_erm(toys):
    erm, dann = toys.make("erm"), toys.make("dann")
    toys.drive(erm, 4)
    toys.drive(dann, 4)
    assert not same(erm, dann)


def test_mean_teacher_without_weight_is_erm_for_the_student(toys):
    erm, teacher = toys.make("erm"), toys.make("mean_teacher", weight=0.0)
    toys.drive(erm, 4)
    toys.drive(teacher, 4)
    assert same(erm, teacher)


def test_group_dro_at_rate_zero_is_erm_on_balanced_batches(toys):
    # One mean over all samples and a mean of the domains' means are equal in exact arithmetic.
    erm, dro = toys.make("erm").double(), toys.make("group_dro", rate=0.0).double()
    batch = toys.batch_of(erm, 0)
    batch.source.image = batch.source.image.double()
    loss_erm = erm.losses(batch, None)["task"]

    class Quiet:
        def log(self, *_): ...
        def mean(self, x):
            return x

    loss_dro = dro.losses(batch, Quiet())["task"]
    torch.testing.assert_close(loss_erm, loss_dro, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("second_order", [False, True])
def test_mldg_without_weight_is_erm_on_the_meta_train_domains(toys, second_order):
    mldg, erm = toys.make("mldg", weight=0.0, second_order=second_order), toys.make("erm")
    toys.drive(mldg, 1)
    # The same permutation, drawn from the same seed.
    order = torch.randperm(3, generator=torch.Generator().manual_seed(0)).tolist()
    batch = toys.batch_of(erm, 0)
    domains = batch.source.by_domain()
    loss = torch.stack([erm.error(domains[d]).mean() for d in order[1:]]).sum()
    loss.backward()
    optimizer = torch.optim.AdamW(erm.parameters(), lr=1e-2, weight_decay=0.0)
    optimizer.step()
    assert same(mldg, erm)


def test_dann_needs_two_domains(toys):
    with pytest.raises(MethodError, match="at least 2"):
        toys.make("dann", sources=1)


def test_mldg_cannot_hold_all_domains_out(toys):
    with pytest.raises(MethodError, match="between 1 and 2"):
        toys.make("mldg", held_out=3)


def test_a_method_that_cannot_use_target_images_refuses_them(toys):
    with pytest.raises(MethodError, match="dann"):
        toys.make("mldg", targets=1)
