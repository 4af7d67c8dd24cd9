"""Presets have the published numbers and react to what kind of images they are for."""

from __future__ import annotations

import pytest
import torch

from shiftproof.data.samples import Samples
from shiftproof.errors import OptionError
from shiftproof.transforms import PRESETS, preset

STRONG = [
    ("rotation", 0.2, "-30 to 30 degrees about axes 0, 1, 2"),
    ("scaling", 0.2, "0.7 to 1.4"),
    ("mirroring", 0.5, "each of axes 0, 1, 2"),
    ("gaussian noise", 0.1, "variance 0 to 0.1"),
    ("blur", 0.2, "sigma 0.5 to 1, each channel with probability 0.5"),
    ("brightness", 0.15, "factor 0.75 to 1.25"),
    ("contrast", 0.15, "factor 0.75 to 1.25"),
    ("low resolution", 0.25, "zoom 0.5 to 1, each channel with probability 0.5"),
    ("inverted gamma", 0.1, "exponent 0.7 to 1.5"),
    ("gamma", 0.3, "exponent 0.7 to 1.5"),
]
"""nnU-Net's default in 3D."""


def rotation_of(**options: object) -> str:
    return preset("strong", **options).describe()[0][2]


def test_strong_has_the_published_probabilities_and_ranges():
    assert preset("strong", dimensions=3, patch=(64, 64, 64)).describe() == STRONG


def test_rotation_of_strong_depends_on_dimensions_and_shape():
    assert rotation_of(dimensions=2, patch=(64, 64)) == "-180 to 180 degrees"
    assert rotation_of(dimensions=2, patch=(64, 96)) == "-180 to 180 degrees"
    assert rotation_of(dimensions=2, patch=(64, 97)) == "-15 to 15 degrees"
    assert rotation_of(dimensions=3, patch=(64, 64, 16), anisotropic=True) == "-180 to 180 degrees about axes 2"


def test_thick_slices_are_neither_tilted_nor_scaled_nor_blurred_into_each_other():
    """Slices that are constant, each of its own value, must stay so: nothing is mixed across them but by blur."""
    values = torch.arange(6.0) ** 2
    batch = Samples(values.expand(64, 1, 12, 12, 6).contiguous())
    transform = preset("strong", dimensions=3, patch=(12, 12, 6), anisotropic=True, mirror_axes=())
    drawn = transform.draw(batch, torch.Generator().manual_seed(0))
    moved = transform.transforms[0].apply(batch, {n[2:]: v for n, v in drawn.items() if n.startswith("0.")})
    torch.testing.assert_close(moved.image, batch.image, atol=1e-3, rtol=0)
    coarse = transform.transforms[5].apply(batch, {n[2:]: v for n, v in drawn.items() if n.startswith("5.")})
    assert drawn["5.chosen"].any()
    torch.testing.assert_close(coarse.image, batch.image)


def test_light_is_milder_and_mirrors_only_on_request():
    names = [name for name, _, _ in preset("light", dimensions=2, patch=(64, 64)).describe()]
    assert names == ["rotation", "scaling", "gaussian noise", "brightness", "contrast"]
    asked = preset("light", dimensions=2, patch=(64, 64), mirror_axes=(1,)).describe()
    assert ("mirroring", 0.5, "each of axes 1") in asked
    batch = Samples(torch.randn(64, 1, 32, 32))
    change = {
        name: (preset(name, dimensions=2, patch=(32, 32))(batch, torch.Generator().manual_seed(0)).image - batch.image)
        for name in PRESETS
    }
    assert change["none"].abs().max() == 0
    assert 0 < change["light"].square().mean() < 0.5 * change["strong"].square().mean()


def test_mirror_axes_leave_the_others_alone():
    batch = Samples(torch.zeros(50, 1, 4, 4, 4))
    drawn = preset("strong", dimensions=3, patch=(4, 4, 4), mirror_axes=(0, 2)).draw(
        batch, torch.Generator().manual_seed(0)
    )
    assert drawn["0.mirror"][:, 0].any()
    assert drawn["0.mirror"][:, 2].any()
    assert not drawn["0.mirror"][:, 1].any()


def test_none_gives_back_the_samples():
    batch = Samples(torch.randn(2, 1, 8, 8))
    transform = preset("none", dimensions=2, patch=(8, 8))
    assert transform(batch, torch.Generator()) is batch
    assert transform.describe() == []


def test_an_unknown_preset_is_answered_with_the_nearest():
    with pytest.raises(OptionError, match="strnog.*strong"):
        preset("strnog", dimensions=2, patch=(8, 8))


def test_images_that_stand_alone_need_no_label():
    transform = preset("strong", dimensions=2, patch=(16, 16), spatial=("image",))
    batch = Samples(torch.randn(8, 1, 16, 16), torch.arange(8))
    result = transform(batch, torch.Generator().manual_seed(0))
    assert torch.equal(result.label, batch.label)
    assert result.extra == {}


def test_strong_takes_a_larger_source_that_leaves_nothing_unknown():
    transform = preset("strong", dimensions=2, patch=(16, 16))
    source = transform.source_patch((16, 16))
    batch = Samples(torch.randn(64, 1, *source), torch.zeros(64, *source, dtype=torch.long))
    result = transform(batch, torch.Generator().manual_seed(0))
    assert result.image.shape == (64, 1, 16, 16)
    assert not result.extra["ignore"].any()


@pytest.mark.parametrize("dimensions", [2, 3])
def test_heuristic_mirrors_sides_and_changes_each_channel_by_two_normal_numbers(dimensions: int):
    transform = preset("heuristic", dimensions=dimensions, patch=(6,) * dimensions)
    assert transform.describe() == [
        ("mirroring", 0.5, "each of axes 0"),
        ("shift", 1.0, "amount std 0.05"),
        ("brightness", 1.0, "factor mean 1, std 0.01"),
    ]
    batch = Samples(torch.randn(2000, 2, *(6,) * dimensions))
    drawn = transform.draw(batch, torch.Generator().manual_seed(0))
    assert drawn["1.amount"].std().item() == pytest.approx(0.05, rel=0.05)
    assert drawn["2.factor"].std().item() == pytest.approx(0.01, rel=0.05)
    assert drawn["2.factor"].mean().item() == pytest.approx(1, abs=1e-3)
    assert not torch.equal(drawn["1.amount"][:, 0], drawn["1.amount"][:, 1])
    result = transform.apply(batch, drawn).image
    for b in range(20):
        image = batch.image[b].flip(1) if drawn["0.mirror"][b, 0] else batch.image[b]
        grown = (2, *[1] * dimensions)
        expected = (image + drawn["1.amount"][b].view(grown)) * drawn["2.factor"][b].view(grown)
        torch.testing.assert_close(result[b], expected)
    moving = preset("heuristic", dimensions=dimensions, patch=(6,) * dimensions, affine=True).describe()
    assert [name for name, _, _ in moving[:2]] == ["rotation", "scaling"]


def test_heuristic_mirrors_the_axis_between_right_and_left_if_there_is_one():
    across = preset("heuristic", dimensions=3, patch=(6, 6, 6), orientation="PSL").describe()
    assert across[0] == ("mirroring", 0.5, "each of axes 2")
    from_the_side = preset("heuristic", dimensions=2, patch=(6, 6), orientation="PSL").describe()
    assert [name for name, _, _ in from_the_side] == ["shift", "brightness"]
    picture = preset("heuristic", dimensions=2, patch=(6, 6), orientation="").describe()
    assert picture[0] == ("mirroring", 0.5, "each of axes 0")


def test_random_takes_all_operations_alike_and_policy_the_published_one():
    (line,) = preset("random", dimensions=3, patch=(8, 8, 8)).describe()
    assert line[1] == pytest.approx(43 / 44)
    assert line[2].count("0.023") == 43
    policy = preset("policy", dimensions=3, patch=(8, 8, 8)).describe()
    assert len(policy) == 15
    assert [round(p, 3) for _, p, _ in policy[:5]] == [0.2, 0.1, 0.1, 0.1, 0.5]
    weak = preset("policy", dimensions=3, patch=(8, 8, 8), preset="weak", pool="talk").describe()
    assert weak[0][1] == pytest.approx(1 - 0.9**11, abs=1e-3)  # scaling, 3 rotations, 3 mirrors, 4 of intensity
    wider = preset("random", dimensions=3, patch=(8, 8, 8), destroying=True).describe()
    assert wider[0][1] == pytest.approx(58 / 59)


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_repeated_by_its_seed_and_serves_scans_with_one_label(name: str, dimensions: int):
    transform = preset(name, dimensions=dimensions, patch=(8,) * dimensions, spatial=("image",))
    batch = Samples(torch.randn(6, 2, *(8,) * dimensions), torch.arange(6) % 2)
    first, second = (transform(batch, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(first.image, second.image)
    assert torch.equal(first.label, batch.label)
    assert first.image.isfinite().all()
    assert "ignore" not in first.extra
    for pool in ("talk", "jcsa") if name in ("random", "policy") else ():
        other = preset(name, dimensions=dimensions, patch=(8,) * dimensions, spatial=("image",), pool=pool)
        assert other(batch, torch.Generator().manual_seed(5)).image.isfinite().all()
    if name in ("random", "policy"):
        with pytest.raises(OptionError, match='no pool of operations "views"'):
            preset(name, dimensions=dimensions, patch=(8,) * dimensions, pool="views")
