"""Views of images: they come back, and say which voxels they held."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from shiftproof.data.samples import Samples
from shiftproof.errors import OptionError
from shiftproof.transforms.views import Views, initial, likeliest, preset_views

SIZES = {2: (20, 20), 3: (12, 12, 12)}
both = pytest.mark.parametrize("dimensions", [2, 3])


def smooth(space: tuple[int, ...], count: int = 1, channels: int = 2) -> torch.Tensor:
    noise = np.random.default_rng(0).normal(size=(count, channels, *space))
    return torch.from_numpy(ndimage.gaussian_filter(noise, (0, 0, *[3.0] * len(space))) * 20).float()


def test_there_are_as_many_views_as_published_and_in_2d_none_twice():
    assert len(Views((8, 8, 8)).names) == 84
    flat = Views((9, 9))
    image = torch.randn(1, 1, 9, 9)
    exact = [n for n in flat.names if n.startswith(("mirror", "turn", "identity"))]
    shown = [flat.shown(Samples(image), [flat.place(name)]).image for name in exact]
    assert len(exact) == 6
    assert not any(torch.equal(a, b) for i, a in enumerate(shown) for b in shown[:i])


@both
def test_every_view_that_moves_voxels_comes_back_where_it_held_them(dimensions):
    """A linear ramp is interpolated exactly, so that there and back is the identity, but for edges that continue."""
    space = SIZES[dimensions]
    views = Views(space)
    ramps = torch.stack(torch.meshgrid(*[torch.arange(float(n)) for n in space], indexing="ij"))[None]
    image = ramps.double()
    moves = [i for i, n in enumerate(views.names) if n.startswith(("scale", "rotate", "mirror", "turn", "identity"))]
    for place in moves:
        shown = views.shown(Samples(image, torch.zeros(1, *space, dtype=torch.long)), [place])
        back, held = views.restored(shown.image, [place])
        # What lay beyond the border was not the ramp: neither it nor what was mixed with it counts.
        known = views.restored((~shown.extra["ignore"])[:, None].double(), [place])[0][:, 0] == 1
        inner = held & known
        inner = torch.from_numpy(ndimage.binary_erosion(inner.numpy(), iterations=1, border_value=1))
        inner &= interior(space, views.names[place])
        assert inner.float().mean() > 0.1
        difference = ((back - image).abs().amax(1) * inner).max()
        assert difference < (1e-6 if views.names[place].startswith(("mirror", "turn", "identity")) else 1e-4), place


def interior(space: tuple[int, ...], name: str) -> torch.Tensor:
    """Voxels that no interpolation mixes with the continued edge."""
    inside = torch.ones(1, *space, dtype=torch.bool)
    if name.startswith(("scale", "rotate")):
        inside[:] = False
        inside[(0, *[slice(2, n - 2) for n in space])] = True
    return inside


@both
def test_a_view_holds_what_geometry_says(dimensions):
    """Magnified by 1.45, a voxel is held if its distance from the centre, times 1.45, is within the image."""
    space = SIZES[dimensions]
    views = Views(space)
    axes = np.meshgrid(*[(np.arange(n) - (n - 1) / 2) / (n / 2) for n in space], indexing="ij")
    farthest = np.abs(np.stack(axes)).max(0)
    place = views.place("scale +0.45")
    _, held = views.restored(torch.zeros(1, 1, *space), [place])
    np.testing.assert_array_equal(held[0].numpy(), farthest * 1.45 <= 1)
    _, all_held = views.restored(torch.zeros(1, 1, *space), [views.place("scale -0.45")])
    assert all_held.all()
    turned = views.place("rotate in plane +25" if dimensions == 2 else "rotate longitudinal -25")
    _, held = views.restored(torch.zeros(1, 1, *space), [turned])
    assert not held[0, 0, 0].any()
    assert held.float().mean() > 0.8


@both
def test_views_of_intensity_and_turns_hold_everything(dimensions):
    views = Views(SIZES[dimensions])
    for place, name in enumerate(views.names):
        if not name.startswith(("scale", "rotate")):
            scores = torch.randn(1, 3, *SIZES[dimensions])
            back, held = views.restored(scores, [place])
            assert held.all()
            if not name.startswith(("mirror", "turn")):
                assert torch.equal(back, scores), name


@both
def test_a_view_does_not_depend_on_chance_nor_on_the_rest_of_the_batch(dimensions):
    views = Views(SIZES[dimensions])
    image = smooth(SIZES[dimensions], count=3)
    together = {}
    for place, name in enumerate(views.names):
        torch.manual_seed(place)
        together[name] = views.shown(Samples(image), [place] * 3).image
        alone = views.shown(Samples(image[2:]), [place]).image
        torch.testing.assert_close(together[name][2:], alone, rtol=0, atol=1e-6)
    assert not torch.equal(together["noise 0.125"], image)
    mixed = views.shown(Samples(image), [views.place("noise 0.125"), 0, views.place("add +0.25")]).image
    assert torch.equal(mixed[0], together["noise 0.125"][0])
    assert torch.equal(mixed[1], image[1])
    assert torch.allclose(mixed[2], image[2] + 0.25)


def test_signs_are_both_there_and_undo_each_other():
    views = Views((20, 20))
    image = smooth((20, 20), channels=1)
    for name in ("multiply", "scale"):
        up, down = views.place(f"{name} +0.25"), views.place(f"{name} -0.25")
        there = views.shown(Samples(image), [up]).image
        back = views.shown(Samples(there), [down]).image
        inner = (..., slice(6, 14), slice(6, 14))
        assert (there - image)[inner].abs().max() > 0.1
        torch.testing.assert_close(back[inner], image[inner], atol=0.2 if name == "scale" else 1e-5, rtol=0)


def test_images_of_unequal_sides_have_no_quarter_turns():
    assert set(Views((12, 12)).names) - set(Views((12, 10)).names) == {"turn in plane +90", "turn in plane -90"}
    thick = Views((12, 12, 4), spacing_mm=(1.0, 1.0, 5.0))
    assert not [n for n in thick.names if n.startswith(("rotate frontal", "rotate sagittal"))]
    assert "turn longitudinal +90" in thick.names
    assert "mirror sagittal" not in Views((8, 8), mirror_axes=(1,)).names
    with pytest.raises(OptionError, match='no view "turn in plane [+]90"'):
        Views((12, 10)).place("turn in plane +90")


def test_names_of_anatomy_follow_the_orientation():
    """The first axis from front to back, the second from head to foot, the third from left to right."""
    image = torch.randn(1, 1, 6, 6, 6)
    views = Views((6, 6, 6), orientation="PIR")
    assert torch.equal(views.shown(Samples(image), [views.place("mirror sagittal")]).image, image.flip(4))
    turned = views.shown(Samples(image), [views.place("turn frontal 180")]).image  # about the axis from left to right
    assert torch.equal(turned, image.flip(2, 3))
    assert views.names[29:32] == ("mirror sagittal", "mirror frontal", "mirror axial")


def test_presets_are_the_published_ones():
    names = Views((8, 8, 8)).names
    nnunet, deepmedic = initial(names, "nnunet").numpy(), initial(names, "deepmedic").numpy()
    expected = np.full(84, 0.2 / 76)
    expected[[0, 29, 30, 31, 34, 37, 40, 83]] = 0.1
    np.testing.assert_allclose(nnunet, expected, rtol=1e-12)
    expected = np.full(84, 0.2 / 80)
    expected[[0, 29, 30, 31]] = 0.2
    np.testing.assert_allclose(deepmedic, expected, rtol=1e-12)
    np.testing.assert_allclose(initial(names, "uniform").numpy(), 1 / 84)
    for space in ((8, 8), (8, 6), (8, 8, 6)):
        some = Views(space, mirror_axes=(1,)).names
        for preset in ("nnunet", "deepmedic", "uniform"):
            assert initial(some, preset).sum().item() == pytest.approx(1)
    assert preset_views(Views((8, 8)).names, "nnunet") == (
        "identity", "mirror sagittal", "mirror frontal", "turn in plane 180",
    )  # fmt: skip
    with pytest.raises(OptionError, match='no preset of views "nnunett"; did you mean "nnunet"'):
        initial(names, "nnunett")


def test_the_likeliest_are_kept_with_the_weight_that_they_have_among_themselves():
    shares = {"a": 0.1, "b": 0.3, "c": 0.1, "d": 0.5}
    assert likeliest(shares.items(), 2) == pytest.approx({"d": 0.625, "b": 0.375})
    assert list(likeliest(shares.items(), 3)) == ["d", "b", "a"]
    assert likeliest(shares.items(), 1) == {"d": 1.0}
