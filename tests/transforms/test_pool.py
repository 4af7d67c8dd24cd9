"""Pools of operations: every option against NumPy, SciPy or a closed form, and what holds for all of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch.nn import functional as F

from shiftproof.data.samples import Samples
from shiftproof.errors import OptionError
from shiftproof.transforms.groups import groups
from shiftproof.transforms.pool import Pool

SIZES = {2: (12, 12), 3: (10, 10, 10)}


def smooth(count: int, dimensions: int, channels: int = 2, size: tuple[int, ...] | None = None) -> Samples:
    shape = (count, channels, *(size or SIZES[dimensions]))
    noise = np.random.default_rng(dimensions).normal(size=shape)
    image = ndimage.gaussian_filter(noise, (0, 0, *[1.5] * dimensions)) * 5
    label = torch.from_numpy((image[:, 0] > 0).astype(np.int64))
    return Samples(torch.from_numpy(image).float(), label, subject=[f"s{i}" for i in range(count)])


def drawn(
    pool: Pool, samples: Samples, option: str, group: str | None = None, seed: int = 0
) -> dict[str, torch.Tensor]:
    """Parameters where every sample takes one option of one group, and nothing of the others."""
    choices = torch.zeros(len(samples), len(pool.groups), dtype=torch.int64)
    for number, found in enumerate(pool.groups):
        if option in found.names and group in (None, found.name):
            choices[:, number] = found.names.index(option)
    assert option == "identity" or choices.any()
    return pool.draw(samples, choices, torch.Generator().manual_seed(seed))


def changed(pool: Pool, samples: Samples, option: str, seed: int = 0) -> Samples:
    return pool.apply(samples, drawn(pool, samples, option, seed=seed))


def pool_of(name: str, dimensions: int, **options: object) -> Pool:
    return Pool(name, **{"dimensions": dimensions, "patch": SIZES[dimensions], **options})  # type: ignore[arg-type]


def test_the_pools_have_as_many_entries_as_published():
    (talk,), jcsa, (views,) = (groups(name, 3) for name in ("talk", "jcsa", "views"))
    assert len(talk.options) == 44
    assert len(jcsa) == 15
    assert sum(len(group.options) for group in jcsa) == 62
    assert len(views.options) == 84
    # The numbers by which the published views are known.
    places = {0: "identity", 1: "scale +0.05", 10: "scale -0.45", 29: "mirror sagittal", 31: "mirror axial"}
    places |= {34: "turn frontal 180", 37: "turn sagittal 180", 40: "turn longitudinal 180", 41: "gamma +0.1"}
    places |= {53: "add +0.05", 70: "contrast -0.25", 71: "blur 0.5", 74: "sharpen 0.9", 77: "noise 0.025"}
    places |= {80: "low resolution 0.9", 83: "mirror all"}
    assert {place: views.names[place] for place in places} == places


@pytest.mark.parametrize("name", ["talk", "jcsa", "views"])
@pytest.mark.parametrize("dimensions", [2, 3])
def test_names_are_unique_and_identity_comes_first(name: str, dimensions: int):
    plain, more = groups(name, dimensions), groups(name, dimensions, destroying=True)
    for group in plain:
        assert group.names[0] == "identity"
        assert len(set(group.names)) == len(group.names)
    extra = sum(len(g.options) for g in more) - sum(len(g.options) for g in plain)
    assert extra == 15 + (name == "jcsa")  # and an identity where they are a group of their own


def test_in_2d_there_is_one_rotation_and_no_third_mirror():
    (talk,) = groups("talk", 2)
    assert len(talk.options) == 33
    assert [g.name for g in groups("jcsa", 2)][:4] == ["scale", "rotate in plane", "mirror sagittal", "mirror frontal"]


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("name", ["talk", "jcsa", "views"])
def test_identity_is_the_central_part_bit_for_bit(name: str, dimensions: int):
    pool = pool_of(name, dimensions)
    samples = smooth(3, dimensions, size=tuple(n + 4 for n in SIZES[dimensions]))
    result = changed(pool, samples, "identity")
    window = (..., *[slice(2, n + 2) for n in SIZES[dimensions]])
    assert torch.equal(result.image, samples.image[window])
    assert torch.equal(result.label, samples.label[window])
    assert not result.extra["ignore"].any()


def of_both_signs(pool: Pool, option: str, expected: list[np.ndarray], image: Samples, **close: float) -> None:
    """Each sample equals one of two arrays, and both occur."""
    found = set()
    for seed in range(6):
        result = changed(pool, image, option, seed).image.numpy()
        for b in range(len(image)):
            fits = [np.allclose(result[b], e[b], **close) for e in expected]
            assert any(fits), option
            found.add(fits.index(True))
    assert found == {0, 1}


@pytest.mark.parametrize("dimensions", [2, 3])
def test_intensities_of_the_first_pool_are_their_formulas_with_either_sign(dimensions: int):
    pool, samples = pool_of("talk", dimensions), smooth(4, dimensions)
    image = samples.image.double().numpy()
    axes = tuple(range(2, image.ndim))
    low, high = image.min(axes, keepdims=True), image.max(axes, keepdims=True)
    of_both_signs(pool, "contrast 0.05", [image * 1.05, image * 0.95], samples, atol=1e-5)
    of_both_signs(pool, "brightness 0.25", [image + 0.25, image - 0.25], samples, atol=1e-5)
    bent = [((image - low) / (high - low)) ** power * (high - low) + low for power in (1.25, 0.75)]
    of_both_signs(pool, "gamma 0.25", bent, samples, atol=1e-4)


def test_noise_has_the_named_standard_deviation_and_is_each_channels_own():
    pool = pool_of("talk", 2, patch=(64, 64))
    samples = Samples(torch.zeros(4, 2, 64, 64))
    result = changed(pool, samples, "noise 0.2").image
    assert result.std((2, 3)).allclose(torch.tensor(0.2), rtol=0.05)
    assert np.abs(np.corrcoef(result.flatten(2).flatten(0, 1))[0, 1:]).max() < 0.1


def by_scipy(image: np.ndarray, linear: np.ndarray) -> np.ndarray:
    """`image` read at linear (offset from the centre)."""
    centre = (np.array(image.shape) - 1) / 2
    return ndimage.affine_transform(image, linear, centre - linear @ centre, order=1, mode="nearest")


@pytest.mark.parametrize("dimensions", [2, 3])
def test_scaling_zooms_in_or_out(dimensions: int):
    pool, samples = pool_of("talk", dimensions), smooth(4, dimensions, channels=1)
    either = [
        np.stack([by_scipy(i[0], np.eye(dimensions) / factor)[None] for i in samples.image.numpy()])
        for factor in (1.25, 0.75)
    ]
    of_both_signs(pool, "scale 0.25", either, samples, atol=1e-4)


def turn_about(axis: int, degrees: float, dimensions: int) -> np.ndarray:
    """From the axis that follows `axis` towards the next one."""
    a, b = (0, 1) if dimensions == 2 else ((axis + 1) % 3, (axis + 2) % 3)
    matrix, angle = np.eye(dimensions), np.deg2rad(degrees)
    matrix[a, a] = matrix[b, b] = np.cos(angle)
    matrix[b, a], matrix[a, b] = np.sin(angle), -np.sin(angle)
    return matrix


@pytest.mark.parametrize(
    ("dimensions", "name", "axis"),
    [(2, "in plane", 0), (3, "frontal", 0), (3, "sagittal", 1), (3, "longitudinal", 2)],
)
def test_rotations_are_about_the_axis_that_they_are_named_after(dimensions: int, name: str, axis: int):
    pool, samples = pool_of("talk", dimensions), smooth(4, dimensions, channels=1)
    either = [
        np.stack([by_scipy(i[0], turn_about(axis, -degrees, dimensions))[None] for i in samples.image.numpy()])
        for degrees in (20, -20)
    ]
    of_both_signs(pool, f"rotate {name} 20", either, samples, atol=1e-4)


@pytest.mark.parametrize(
    ("dimensions", "name", "plane"),
    [(2, "in plane", (0, 1)), (3, "frontal", (1, 2)), (3, "sagittal", (2, 0)), (3, "longitudinal", (0, 1))],
)
def test_right_angles_are_exact_and_labels_follow(dimensions: int, name: str, plane: tuple[int, int]):
    pool, samples = pool_of("talk", dimensions), smooth(6, dimensions)
    axes = (plane[0] + 2, plane[1] + 2)
    image, label = samples.image.numpy(), samples.label.numpy()
    signs = set()
    for seed in range(3):
        result = changed(pool, samples, f"rotate {name} 90", seed)
        for b in range(6):
            turns = [np.rot90(image[b], k, tuple(a - 1 for a in axes)) for k in (1, -1)]
            fits = [np.array_equal(result.image[b], t) for t in turns]
            assert any(fits)
            k = (1, -1)[fits.index(True)]
            signs.add(k)
            np.testing.assert_array_equal(result.label[b], np.rot90(label[b], k, plane))
    assert signs == {1, -1}
    half = changed(pool, samples, f"rotate {name} 180").image.numpy()
    np.testing.assert_array_equal(half, np.rot90(image, 2, axes))


@pytest.mark.parametrize("dimensions", [2, 3])
def test_mirroring_reverses_its_axis_exactly(dimensions: int):
    pool, samples = pool_of("jcsa", dimensions), smooth(2, dimensions)
    for axis, name in enumerate(("sagittal", "frontal", "axial")[:dimensions]):
        result = changed(pool, samples, f"mirror {name}")
        np.testing.assert_array_equal(result.image, np.flip(samples.image.numpy(), axis + 2))
        np.testing.assert_array_equal(result.label, np.flip(samples.label.numpy(), axis + 1))


def amounts(option: str, parameter: str, group: str | None = None) -> np.ndarray:
    """What one option of the second pool draws, for many samples."""
    pool = pool_of("jcsa", 3)
    samples = Samples(torch.empty(4000, 1, *SIZES[3], device="meta"))
    found = drawn(pool, samples, option, group)
    values = [value for name, value in found.items() if name.endswith(f".{parameter}")]
    chosen = [v for v in values if len(v.unique()) > 2] or values
    return chosen[0].flatten(1)[:, -1].double().numpy()


@pytest.mark.parametrize(
    ("option", "parameter", "low", "high"),
    [
        ("scale 0.05", "scale", 0.0, 0.1),
        ("scale 0.45", "scale", 0.4, 0.5),
        ("gamma 0.3", "exponent", 0.2, 0.4),
        ("inverted gamma 0.1", "exponent", 0.0, 0.2),
        ("multiply 0.25", "factor", 0.2, 0.3),
        ("contrast 0.15", "factor", 0.1, 0.2),
    ],
)
def test_factors_are_uniform_around_their_magnitude_and_inverted_half_of_the_time(
    option: str, parameter: str, low: float, high: float
):
    factor = amounts(option, parameter)
    above = factor[factor > 1] - 1
    below = 1 / factor[factor < 1] - 1
    for part in (above, below):
        assert 0.45 < len(part) / len(factor) < 0.55
        assert part.min() == pytest.approx(low, abs=0.02 * (high - low) + 1e-6)
        assert part.max() == pytest.approx(high, abs=0.02 * (high - low))
        assert part.mean() == pytest.approx((low + high) / 2, rel=0.03)


@pytest.mark.parametrize(
    ("option", "parameter", "low", "high", "signed"),
    [
        ("rotate longitudinal 5", "angles", 0, 10, True),
        ("rotate longitudinal 25", "angles", 20, 30, True),
        ("add 0.15", "amount", 0.1, 0.2, True),
        ("blur 0.7", "sigma", 0.6, 0.8, False),
        ("sharpen 0.9", "sigma", 0.8, 1.0, False),
        ("noise 0.075", "variance", 0.05**2, 0.1**2, False),
        ("low resolution 0.5", "zoom", 0.4, 0.6, False),
    ],
)
def test_other_amounts_lie_in_their_range(option: str, parameter: str, low: float, high: float, signed: bool):
    value = amounts(option, parameter)
    assert np.abs(value).min() == pytest.approx(low, abs=0.02 * (high - low))
    assert np.abs(value).max() == pytest.approx(high, abs=0.02 * (high - low))
    assert (value < 0).mean() == pytest.approx(0.5 if signed else 0, abs=0.05)


def test_small_amounts_are_cut_at_zero_not_reversed():
    variance = amounts("noise 0.025", "variance")
    assert variance.min() >= 0
    assert variance.max() <= 0.05**2 * 1.0001


@pytest.mark.parametrize("dimensions", [2, 3])
def test_all_groups_act_together_in_the_published_order(dimensions: int):
    """Multiplication before contrast before gamma, on the image that was turned and mirrored."""
    pool, samples = pool_of("jcsa", dimensions), smooth(3, dimensions, channels=1)
    wanted = {"brightness multiply": "multiply 0.25", "contrast": "contrast 0.25", "gamma": "gamma 0.5"}
    wanted |= {"brightness add": "add 0.25", "mirror frontal": "mirror frontal"}
    turned = "rotate in plane" if dimensions == 2 else "rotate longitudinal"
    wanted |= {turned: f"{turned} 90"}
    choices = torch.tensor([[g.names.index(wanted.get(g.name, "identity")) for g in pool.groups]] * 3)
    found = pool.draw(samples, choices, torch.Generator().manual_seed(1))
    result = pool.apply(samples, found)
    amount = {name.split(".")[1]: [] for name in found}
    for name, value in found.items():
        amount[name.split(".")[1]].append(value)
    for b in range(3):
        array = samples.image[b, 0].double().numpy()
        array = np.flip(np.rot90(array, int(found["1.turns"][b, -1]), (0, 1)), 1)
        # The factors: of multiplication first, then of contrast.
        array = (array + float(amount["amount"][0][b, 0])) * float(amount["factor"][0][b, 0])
        mean, low, high = array.mean(), array.min(), array.max()
        array = np.clip((array - mean) * float(amount["factor"][1][b, 0]) + mean, low, high)
        mean, std, low, high = array.mean(), array.std(), array.min(), array.max()
        exponents = [float(e[b, 0]) for e in amount["exponent"]]  # of the negative, which was not chosen, and gamma
        array = ((array - low) / (high - low)) ** exponents[1] * (high - low) + low
        array = (array - array.mean()) / array.std() * std + mean
        np.testing.assert_allclose(result.image[b, 0], array, atol=2e-4)


def test_rotations_of_several_groups_are_one_interpolation():
    pool, samples = pool_of("jcsa", 3), smooth(4, 3, channels=1)
    named = {f"rotate {name}": f"rotate {name} 25" for name in ("frontal", "sagittal", "longitudinal")}
    choices = torch.tensor([[g.names.index(named.get(g.name, "identity")) for g in pool.groups]] * 4)
    found = pool.draw(samples, choices, torch.Generator().manual_seed(0))
    result = pool.apply(samples, found)
    for b in range(4):
        x, y, z = (turn_about(axis, float(found["0.angles"][b, axis]), 3) for axis in range(3))
        np.testing.assert_allclose(
            result.image[b, 0], by_scipy(samples.image[b, 0].numpy(), np.linalg.inv(x @ y @ z)), atol=1e-4
        )


def test_quarter_turns_of_several_groups_follow_each_other_as_rotations_do():
    pool, samples = pool_of("jcsa", 3), smooth(6, 3, channels=1)
    named = {f"rotate {name}": f"rotate {name} 90" for name in ("frontal", "sagittal", "longitudinal")}
    choices = torch.tensor([[g.names.index(named.get(g.name, "identity")) for g in pool.groups]] * 6)
    found = pool.draw(samples, choices, torch.Generator().manual_seed(0))
    result = pool.apply(samples, found)
    for b in range(6):
        x, y, z = (turn_about(axis, 90 * float(found["1.turns"][b, axis]), 3) for axis in range(3))
        expected = by_scipy(samples.image[b, 0].numpy(), np.linalg.inv(x @ y @ z))
        np.testing.assert_allclose(result.image[b, 0], expected, atol=1e-4)
    assert torch.equal(pool.inverse(result, found).image, samples.image)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_resolution_is_lost_linearly_and_comes_back_by_the_nearest(dimensions: int):
    samples = smooth(2, dimensions)
    result = changed(pool_of("views", dimensions), samples, "low resolution 0.5").image
    coarse = F.interpolate(
        samples.image, [n // 2 for n in SIZES[dimensions]], mode="bilinear" if dimensions == 2 else "trilinear"
    )
    torch.testing.assert_close(result, F.interpolate(coarse, SIZES[dimensions], mode="nearest-exact"))


def test_a_group_that_does_nothing_leaves_what_another_does():
    """Both the group of noise and the destroying one hold noise."""
    pool, samples = pool_of("jcsa", 2, destroying=True), smooth(2, 2)
    assert not torch.equal(changed(pool, samples, "noise 0.125").image, samples.image)
    both = torch.tensor([[0] * len(pool.groups)] * 2)
    for group, option in (("noise", "noise 0.125"), ("destroying", "drown in noise 16")):
        number = [g.name for g in pool.groups].index(group)
        both[:, number] = pool.groups[number].names.index(option)
    found = pool.draw(samples, both, torch.Generator().manual_seed(0))
    assert (pool.apply(samples, found).image - samples.image).std() > 10


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("name", ["talk", "jcsa", "views"])
def test_a_permuted_batch_gives_the_permuted_result_and_the_shape_decides_how_much_is_drawn(name: str, dimensions: int):
    pool, samples = pool_of(name, dimensions, destroying=True), smooth(6, dimensions)
    after = set()
    for seed in range(3):
        random = torch.Generator().manual_seed(seed)
        choices = torch.stack([torch.randint(len(g.options), (6,), generator=random) for g in pool.groups], -1)
        generator = torch.Generator().manual_seed(7)
        found = pool.draw(samples, choices, generator)
        after.add(float(torch.rand((), generator=generator)))
        whole = pool.apply(samples, found)
        order = [3, 0, 5, 1, 4, 2]
        part = pool.apply(samples[order], {n: v[order] for n, v in found.items()})
        assert torch.equal(part.image, whole.image[order])
        assert torch.equal(part.label, whole.label[order])
    assert len(after) == 1


@pytest.mark.parametrize("dimensions", [2, 3])
def test_what_was_turned_comes_back_exactly_and_what_was_interpolated_nearly(dimensions: int):
    pool, samples = pool_of("views", dimensions), smooth(2, dimensions, channels=1)
    inner = (..., *[slice(3, n - 3) for n in SIZES[dimensions]])
    for option in pool.groups[0].names:
        found = drawn(pool, samples, option)
        moved = pool.moved(samples.image, found)
        back = pool.moved(moved, found, inverse=True)
        if option.startswith(("scale", "rotate")):
            assert not torch.equal(moved, samples.image)
            if "0.05" in option or option.endswith(("+5", "-5")):
                assert (back - samples.image)[inner].abs().mean() < 0.1 * samples.image.std()
        else:
            assert torch.equal(back, samples.image), option


def test_labels_of_the_inverse_say_what_the_patch_did_not_hold():
    pool, samples = pool_of("views", 2), smooth(2, 2)
    found = drawn(pool, samples, "scale +0.45")
    back = pool.inverse(pool.apply(samples, found), found)
    held = ~back.extra["ignore"]
    border = torch.ones(12, 12, dtype=torch.bool)
    border[2:-2, 2:-2] = False
    assert not held[:, border].any()
    assert held[:, 3:-3, 3:-3].all()


def test_fields_are_moved_differentiably():
    pool, samples = pool_of("views", 2), smooth(1, 2, channels=1)
    for option in ("rotate in plane +15", "turn in plane +90", "mirror sagittal"):
        found = drawn(pool, samples, option)
        leaf = samples.image.double().requires_grad_()
        weight = torch.randn(leaf.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        (pool.moved(leaf, found, inverse=True) * weight).sum().backward()
        # A linear map: <A x, w> is <x, A' w>.
        value = (pool.moved(samples.image.double(), found, inverse=True) * weight).sum()
        assert (leaf.grad * samples.image).sum().item() == pytest.approx(value.item(), rel=1e-9)


def test_options_that_patches_cannot_take_are_left_out():
    def names(**options: object) -> list[str]:
        return [name for g in Pool("talk", **options).groups for name in g.names]  # type: ignore[arg-type]

    cube = names(dimensions=3, patch=(8, 8, 8))
    flat = names(dimensions=3, patch=(8, 8, 6))
    assert set(cube) - set(flat) == {"rotate frontal 90", "rotate sagittal 90"}
    thick = names(dimensions=3, patch=(8, 8, 8), spacing_mm=(1.0, 1.0, 2.0))
    assert set(cube) - set(thick) == {"rotate frontal 90", "rotate sagittal 90"}
    slices = names(dimensions=3, patch=(8, 8, 4), spacing_mm=(1.0, 1.0, 5.0), anisotropic=True)
    assert not [name for name in slices if name.startswith(("rotate frontal", "rotate sagittal")) and "180" not in name]
    sided = names(dimensions=3, patch=(8, 8, 8), mirror_axes=(1, 2))
    assert set(cube) - set(sided) == {"mirror sagittal"}
    with pytest.raises(OptionError, match=r"mirror_axes are among \(0, 1\) in 2D, got \(2,\)"):
        names(dimensions=2, patch=(8, 8), mirror_axes=(2,))
    with pytest.raises(OptionError, match='no pool of operations "jsca".*jcsa'):
        Pool("jsca", dimensions=2, patch=(8, 8))


def test_thick_slices_are_not_mixed():
    values = torch.arange(6.0) ** 2
    samples = Samples(values.expand(64, 1, 12, 12, 6).contiguous())
    pool = Pool("jcsa", dimensions=3, patch=(12, 12, 6), spacing_mm=(1.0, 1.0, 5.0), anisotropic=True)
    for option in ("scale 0.45", "rotate longitudinal 25", "low resolution 0.5"):
        torch.testing.assert_close(changed(pool, samples, option).image, samples.image, atol=1e-3, rtol=0)


def test_a_picture_that_cannot_be_turned_keeps_its_shape():
    """A patch that is smaller than planned, and no square."""
    pool = pool_of("talk", 2)
    samples = smooth(2, 2, size=(12, 8))
    assert torch.equal(changed(pool, samples, "rotate in plane 90").image, samples.image)
    half = changed(pool, samples, "rotate in plane 180").image
    assert torch.equal(half, samples.image.flip(2, 3))


@pytest.mark.parametrize("name", ["talk", "jcsa", "views"])
@pytest.mark.parametrize("dimensions", [2, 3])
def test_a_source_as_large_as_asked_for_leaves_nothing_unknown(name: str, dimensions: int):
    pool = pool_of(name, dimensions, patch=(6,) * dimensions)
    count, source = 64, pool.source_patch((6,) * dimensions)
    samples = Samples(torch.randn(count, 1, *source), torch.zeros(count, *source, dtype=torch.long))
    random = torch.Generator().manual_seed(0)
    choices = torch.stack([torch.randint(len(g.options), (count,), generator=random) for g in pool.groups], -1)
    result = pool.apply(samples, pool.draw(samples, choices, random))
    assert result.image.shape == (count, 1, *(6,) * dimensions)
    assert not result.extra["ignore"].any()


def test_channels_that_a_scan_lacks_stay_empty():
    pool, samples = pool_of("jcsa", 2), smooth(2, 2)
    samples.image[:, 1] = 0
    samples.extra["present"] = torch.tensor([[True, False]] * 2)
    for option in ("add 0.25", "noise 0.125", "gamma 0.5"):
        result = changed(pool, samples, option).image
        assert not result[:, 1].any()
        assert not torch.equal(result[:, 0], samples.image[:, 0])


def test_several_processes_do_what_one_would():
    pool, samples = pool_of("jcsa", 2), smooth(6, 2)
    random = torch.Generator().manual_seed(0)
    choices = torch.stack([torch.randint(len(g.options), (6,), generator=random) for g in pool.groups], -1)
    shapes = Samples(torch.empty(samples.image.shape, device="meta"))
    found = pool.draw(shapes, choices, random)
    whole = pool.apply(samples, found)
    for rank in range(2):
        part = pool.apply(samples[slice(rank, None, 2)], {n: v[rank::2] for n, v in found.items()})
        # Kernels are as wide as the widest of the batch: sums may be rounded otherwise.
        torch.testing.assert_close(part.image, whole.image[rank::2], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_destroying_operations_leave_nothing_of_the_image_and_the_label_in_place(dimensions: int):
    pool = pool_of("talk", dimensions, destroying=True, patch=(16,) * dimensions)
    samples = smooth(2, dimensions, size=(16,) * dimensions)
    image = samples.image.numpy()
    destroying = list(pool.groups[0].names[-15:])
    for option in destroying:
        result = changed(pool, samples, option)
        assert torch.equal(result.label, samples.label)
        for b in range(2):
            one, other = image[b, 0].ravel(), result.image[b, 0].numpy().ravel()
            flat = other.std() < 0.25 * one.std()
            assert flat or abs(np.corrcoef(one, other)[0, 1]) < 0.4, option
    assert torch.equal(changed(pool, samples, "constant -2").image, torch.full_like(samples.image, -2))
    mixed = changed(pool, samples, "scramble").image
    np.testing.assert_array_equal(np.sort(mixed.flatten(2)), np.sort(samples.image.flatten(2)))
    slope = np.linspace(-np.sqrt(3), np.sqrt(3), 16).reshape(16, *[1] * (dimensions - 1))
    np.testing.assert_allclose(changed(pool, samples, "ramp 0").image[0, 0], slope + 0 * image[0, 0], rtol=1e-5)


def test_operations_that_a_task_cannot_invert_are_named():
    pool_of("views", 3).require_invertible("segmentation")
    with pytest.raises(OptionError, match="operations that segmentation cannot invert: constant -1.*leave out"):
        pool_of("views", 3, destroying=True).require_invertible("segmentation")


def test_names_of_anatomy_follow_the_orientation():
    """Patches of slices from right to left: the first axis runs from front to back, the second from foot to head."""
    axes = {o.name: o.axes for g in groups("jcsa", 3, orientation="PSL") for o in g.options if o.axes}
    assert axes["mirror sagittal"] == axes["rotate frontal 5"] == (2,)
    assert axes["mirror frontal"] == axes["rotate sagittal 90"] == (0,)
    assert axes["mirror axial"] == axes["rotate longitudinal 25"] == (1,)
    flat = {o.name: o.axes for o in groups("talk", 2, orientation="PSL")[0].options if o.operation == "mirror"}
    assert flat == {"mirror frontal": (0,), "mirror axial": (1,)}
    right = {o.name: o.axes for o in groups("talk", 3, orientation="ARI")[0].options if o.operation == "mirror"}
    assert right == {"mirror sagittal": (1,), "mirror frontal": (0,), "mirror axial": (2,)}
    assert (
        Pool("talk", dimensions=2, patch=(8, 8), orientation="").groups
        == Pool("talk", dimensions=2, patch=(8, 8)).groups
    )


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dimensions", [2, 3])
def test_a_gpu_gives_what_the_cpu_gives_but_for_noise(dimensions: int):
    pool, samples = pool_of("jcsa", dimensions), smooth(8, dimensions)
    random = torch.Generator().manual_seed(0)
    choices = torch.stack([torch.randint(len(g.options), (8,), generator=random) for g in pool.groups], -1)
    choices[:, [g.name for g in pool.groups].index("noise")] = 0
    found = pool.draw(samples, choices, random)
    here, there = pool.apply(samples, found), pool.apply(samples.to("cuda"), found)
    torch.testing.assert_close(there.image.cpu(), here.image, atol=5e-3, rtol=0)
    assert (there.label.cpu() == here.label).float().mean() > 0.99
