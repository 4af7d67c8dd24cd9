"""nnU-Net's rules for strides and kernels, on patches worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from shiftproof import nets
from shiftproof.errors import OptionError

FLAT, CUBE = (1, 2, 2), (2, 2, 2)


def pooled(patch, strides):
    for stride in strides:
        patch = tuple(math.ceil(n / s) for n, s in zip(patch, stride, strict=True))
    return patch


def test_an_isotropic_cube_of_128_is_halved_five_times_in_every_axis():
    found = nets.planned(3, (128, 128, 128), (1.0, 1.0, 1.0))

    assert found == {"strides": [CUBE] * 5, "kernels": [(3, 3, 3)] * 6}
    assert pooled((128, 128, 128), found["strides"]) == (4, 4, 4)


@pytest.mark.parametrize("spacing", [(3.6, 0.62, 0.62), (5.0, 0.79, 0.79)])
def test_the_prostate_plan_of_nnunet_waits_two_levels_for_its_slices(spacing):
    # Its published poolings by axis are 2, 6 and 6 for a patch of 20 x 320 x 256.
    found = nets.planned(3, (20, 320, 256), spacing, most=9)

    assert found["strides"] == [FLAT, FLAT, CUBE, CUBE, FLAT, FLAT]
    assert found["kernels"] == [(1, 3, 3)] * 2 + [(3, 3, 3)] * 5
    assert pooled((20, 320, 256), found["strides"]) == (5, 5, 4)


def test_the_cardiac_plan_of_nnunet_does_not_halve_a_lone_axis_of_8():
    # 20 x 256 x 224 at 5 x 1.56 x 1.56 mm comes down to 5 x 8 x 7: only the second axis could still be halved.
    found = nets.planned(3, (20, 256, 224), (5.0, 1.5625, 1.5625), most=9)

    assert found["strides"] == [FLAT, CUBE, CUBE, FLAT, FLAT]
    assert found["kernels"] == [(1, 3, 3)] + [(3, 3, 3)] * 5


def test_the_most_levels_are_kept():
    assert len(nets.planned(2, (512, 512), (1, 1), most=6)["kernels"]) == 6
    assert len(nets.planned(2, (512, 512), (1, 1), most=99)["kernels"]) == 8  # 512 / 2 ** 7 = 4


def test_spacing_twice_as_coarse_is_not_halved_and_just_below_it_is():
    def first(coarse):
        return nets.planned(3, (64, 64, 64), (1.0, 1.0, coarse), most=2)

    assert first(2.0) == {"strides": [(2, 2, 1)], "kernels": [(3, 3, 1), (3, 3, 3)]}
    assert first(1.99) == {"strides": [(2, 2, 2)], "kernels": [(3, 3, 3), (3, 3, 3)]}


def test_an_axis_keeps_four_voxels():
    assert nets.planned(3, (32, 32, 7), (1, 1, 1))["strides"] == [(2, 2, 1)] * 3
    assert nets.planned(3, (32, 32, 8), (1, 1, 1))["strides"] == [(2, 2, 2), (2, 2, 1), (2, 2, 1)]


def test_more_levels_than_the_patch_carries_go_on_halving_what_is_left():
    assert nets.planned(2, (16, 16), (1, 1), least=4, most=4)["strides"] == [(2, 2)] * 3
    assert nets.planned(2, (1, 1), (1, 1), least=3, most=3)["strides"] == [(1, 1)] * 2


def test_an_unknown_spacing_counts_as_the_finest_and_the_third_is_not_read_in_2d():
    assert nets.planned(3, (32, 32, 32), (0.5, 0.5, None)) == nets.planned(3, (32, 32, 32), (1, 1, 1))
    assert nets.planned(2, (32, 32), (0.5, 0.5, 9.0)) == nets.planned(2, (32, 32), (1, 1))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((3, (8, 8), (1, 1, 1)), "patch"),
        ((2, (8, 0), (1, 1)), "patch"),
        ((3, (8, 8, 8), (1, 1)), "spacing_mm"),
        ((2, (8, 8), (1, -1)), "spacing_mm"),
        ((2, (8, 8), (1, math.nan)), "spacing_mm"),
    ],
)
def test_a_patch_or_spacing_without_a_meaning_is_refused(arguments, words):
    with pytest.raises(OptionError, match=words):
        nets.planned(*arguments)


SIZES = {"channels": 1, "outputs": 2}


def test_the_default_unet_is_the_same_for_isotropic_plans_and_does_not_pool_thick_slices():
    def unet(dimensions, **context):
        torch.manual_seed(0)
        return nets.build("unet", dimensions=dimensions, **SIZES, **context)

    plain, image = unet(2), torch.randn(1, 1, 32, 32)
    for patch in ((128, 96), (16, 16)):  # the small one would carry three levels only
        assert torch.equal(plain(image), unet(2, patch=patch, spacing_mm=(1.0, 1.0, None))(image))

    thick = unet(3, patch=(96, 96, 16), spacing_mm=(1.0, 1.0, 5.0))
    maps = thick.encode(torch.randn(1, 1, 32, 32, 8))
    assert [tuple(m.shape[2:]) for m in maps] == [(32, 32, 8), (16, 16, 8), (8, 8, 8), (4, 4, 4)]
    assert thick.encoder.levels[0].layers[0].weight.shape[2:] == (3, 3, 1)


def test_dynunet_takes_its_levels_from_the_plan():
    net = nets.build("dynunet", dimensions=3, **SIZES, patch=(48, 48, 10), spacing_mm=(1, 1, 4))

    assert net.widths == [32, 64, 128, 256]
    assert net.single == (8, 8, 2)


def test_own_strides_stay_and_auto_asks_for_a_plan():
    own = nets.build("unet", dimensions=2, **SIZES, widths=[4, 8], strides=[4], patch=(64, 64), spacing_mm=(1, 1))
    assert own.single == (4, 4)

    auto = {"dimensions": 2, "strides": "auto", **SIZES}
    assert nets.build("unet", **auto, patch=(64, 32), spacing_mm=(1, 2)).single == (8, 4)
    with pytest.raises(OptionError, match="follows from a plan"):
        nets.build("unet", **auto)


def test_resnet_reduces_by_the_plan_and_takes_the_small_stem_for_small_patches():
    small = nets.build("resnet", dimensions=2, **SIZES, width=0.0625, patch=(28, 28), spacing_mm=(1, 1))
    thick = nets.build("resnet", dimensions=3, **SIZES, width=0.0625, patch=(96, 96, 16), spacing_mm=(1, 1, 5))

    assert [m.shape[-1] for m in small.encode(torch.randn(2, 1, 28, 28))] == [28, 14, 7, 4]
    assert thick.encode(torch.randn(2, 1, 96, 96, 16))[0].shape[2:] == (24, 24, 16)
