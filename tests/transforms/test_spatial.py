"""Moves of voxels against NumPy, SciPy and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch.nn import functional as F

from shiftproof.data.samples import Samples
from shiftproof.errors import OptionError
from shiftproof.transforms import Chance, Parameters, Spatial, Uniform
from shiftproof.transforms.affine import inverted, placement, rotation
from shiftproof.transforms.fields import splines
from shiftproof.transforms.resample import grid, read_


def parameters(
    batch: int,
    dimensions: int,
    *,
    angles: object = 0.0,
    scale: object = 1.0,
    translation: object = 0.0,
    mirror: object = False,
) -> Parameters:
    """What `Spatial.draw` would give, with these amounts for all samples or for each."""

    def filled(value: object, width: int) -> torch.Tensor:
        return torch.as_tensor(value).expand(batch, width).clone()

    return {
        "angles": filled(angles, 1 if dimensions == 2 else 3).float(),
        "scale": filled(scale, dimensions).float(),
        "translation": filled(translation, dimensions).float(),
        "mirror": filled(mirror, dimensions).bool(),
    }


def smooth(*shape: int, seed: int = 0) -> torch.Tensor:
    """Images (B, C, *space) without edges, so that two interpolations of them agree."""
    noise = np.random.default_rng(seed).normal(size=shape)
    sigma = [0, 0] + [1.5] * (len(shape) - 2)
    return torch.from_numpy(ndimage.gaussian_filter(noise, sigma) * 10).float()


def labels(*shape: int, classes: int = 4, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, classes, shape, generator=torch.Generator().manual_seed(seed))


def by_scipy(image: np.ndarray, matrix: np.ndarray, **options: object) -> np.ndarray:
    """`image` read through (D, D + 1), from offsets from the centre to offsets from the centre."""
    centre = (np.array(image.shape) - 1) / 2
    linear, shift = matrix[:, :-1], matrix[:, -1]
    return ndimage.affine_transform(image, linear, centre + shift - linear @ centre, mode="nearest", **options)


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_right_angles_in_2d_are_those_of_numpy(turns: int):
    samples = Samples(smooth(2, 3, 9, 9), labels(2, 9, 9))
    moved = Spatial(2).apply(samples, parameters(2, 2, angles=90.0 * turns))
    expected = np.rot90(samples.image.numpy(), turns, axes=(2, 3))
    np.testing.assert_allclose(moved.image, expected, atol=1e-4)
    np.testing.assert_array_equal(moved.label, np.rot90(samples.label.numpy(), turns, axes=(1, 2)))


@pytest.mark.parametrize(("axis", "plane"), [(0, (1, 2)), (1, (2, 0)), (2, (0, 1))])
def test_right_angles_in_3d_are_those_of_numpy(axis: int, plane: tuple[int, int]):
    samples = Samples(smooth(1, 2, 8, 8, 8), labels(1, 8, 8, 8))
    angles = torch.zeros(3)
    angles[axis] = 90
    moved = Spatial(3).apply(samples, parameters(1, 3, angles=angles))
    expected = np.rot90(samples.image.numpy(), 1, axes=(plane[0] + 2, plane[1] + 2))
    np.testing.assert_allclose(moved.image, expected, atol=2e-4)
    np.testing.assert_array_equal(moved.label, np.rot90(samples.label.numpy(), 1, axes=(plane[0] + 1, plane[1] + 1)))
    assert not moved.extra["ignore"].any()


@pytest.mark.parametrize("shape", [(24, 17), (12, 15, 10), (1, 9, 8), (9, 1, 7)])
def test_an_affine_map_is_that_of_scipy(shape: tuple[int, ...]):
    d = len(shape)
    samples = Samples(smooth(2, 2, *shape), labels(2, *shape))
    drawn = parameters(
        2,
        d,
        angles=[[25.0], [-140.0]] if d == 2 else [[25.0, -10, 40], [-120, 15, 5]],
        scale=[[1.2] * d, [0.8] * d],
        translation=torch.tensor([[1.5], [-0.7]]),
        mirror=[[True] + [False] * (d - 1), [False] * d],
    )
    moved = Spatial(d).apply(samples, drawn)
    matrix = inverted(placement(*(drawn[n] for n in ("angles", "scale", "translation", "mirror")))).numpy()
    for b in range(2):
        for c in range(2):
            expected = by_scipy(samples.image[b, c].numpy(), matrix[b], order=1)
            np.testing.assert_allclose(moved.image[b, c], expected, atol=2e-3)
        expected = by_scipy(samples.label[b].numpy(), matrix[b], order=0)
        # Positions midway between voxels may round either way.
        assert (moved.label[b].numpy() != expected).mean() < 0.01


def test_reading_slabs_is_trilinear_interpolation_of_torch():
    image, matrix = torch.randn(2, 2, 7, 9, 8), inverted(placement(*_some_3d()))
    at = grid(matrix, (6, 5, 8), (3.5, 4.5, 4.0))
    for padding in ("border", "zeros"):
        result = torch.empty(2, 2, 6, 5, 8)
        read_([result], [0, 1], [image], at, padding)
        unit = at.positions() * (2 / torch.tensor([7.0, 9, 8])).view(3, 1, 1, 1, 1) - 1
        lattice = unit.flip(0).movedim(0, -1)
        expected = F.grid_sample(image, lattice, padding_mode=padding, align_corners=False)
        torch.testing.assert_close(result, expected, atol=1e-4, rtol=0)


def _some_3d() -> tuple[torch.Tensor, ...]:
    drawn = parameters(2, 3, angles=[[10.0, 30, -20], [5, 0, 90]], scale=0.9, translation=0.3)
    return drawn["angles"], drawn["scale"], drawn["translation"], drawn["mirror"]


@pytest.mark.parametrize("dimensions", [2, 3])
def test_mirroring_is_numpys_flip_for_each_sample(dimensions: int):
    shape = (5, 6, 7)[:dimensions]
    samples = Samples(torch.randn(4, 2, *shape), labels(4, *shape))
    mirror = torch.rand(4, dimensions, generator=torch.Generator().manual_seed(1)) < 0.5
    moved = Spatial(dimensions).apply(samples, parameters(4, dimensions, mirror=mirror))
    for b in range(4):
        axes = [axis for axis in range(dimensions) if mirror[b, axis]]
        np.testing.assert_array_equal(moved.image[b], np.flip(samples.image[b].numpy(), [a + 1 for a in axes]))
        np.testing.assert_array_equal(moved.label[b], np.flip(samples.label[b].numpy(), axes))


def test_scale_magnifies_about_the_centre():
    coordinates = torch.arange(20.0) - 9.5
    samples = Samples(coordinates.view(1, 1, 20, 1).expand(1, 1, 20, 20).contiguous())
    moved = Spatial(2).apply(samples, parameters(1, 2, scale=2.0))
    torch.testing.assert_close(moved.image[0, 0, :, 3], coordinates / 2, atol=1e-4, rtol=0)


def test_translation_moves_content_forward_and_marks_what_came_in():
    samples = Samples(torch.arange(10.0).view(1, 1, 10, 1).expand(1, 1, 10, 4).contiguous(), labels(1, 10, 4))
    moved = Spatial(2).apply(samples, parameters(1, 2, translation=[3.0, 0.0]))
    torch.testing.assert_close(moved.image[0, 0, 3:], samples.image[0, 0, :-3], atol=1e-4, rtol=0)
    assert torch.equal(moved.label[0, 3:], samples.label[0, :-3])
    assert moved.extra["ignore"][0, :3].all()
    assert not moved.extra["ignore"][0, 3:].any()


def test_rotation_turns_millimetres_where_a_spacing_is_given():
    # A point 4 mm along the first axis (4 voxels) comes to lie 4 mm along the second (2 voxels).
    image = torch.zeros(1, 1, 15, 15)
    image[0, 0, 7 + 4, 7] = 1
    moved = Spatial(2, spacing_mm=(1.0, 2.0)).apply(Samples(image), parameters(1, 2, angles=90.0))
    assert torch.argmax(moved.image.flatten()).item() == 7 * 15 + 7 + 2
    plain = Spatial(2).apply(Samples(image), parameters(1, 2, angles=90.0))
    assert torch.argmax(plain.image.flatten()).item() == 7 * 15 + 7 + 4


def test_rotations_are_orthogonal_and_compose_in_the_stated_order():
    angles = torch.tensor([[10.0, 20.0, 30.0]])
    r = rotation(angles)
    torch.testing.assert_close(r @ r.mT, torch.eye(3)[None], atol=1e-6, rtol=0)
    assert torch.linalg.det(r).item() == pytest.approx(1)
    single = [rotation(angles * torch.eye(3)[axis]) for axis in range(3)]
    torch.testing.assert_close(r, single[0] @ single[1] @ single[2])


def test_ignore_marks_exactly_what_a_rotation_brings_in_from_outside():
    samples = Samples(torch.zeros(1, 1, 16, 16), torch.zeros(1, 16, 16, dtype=torch.long))
    drawn = parameters(1, 2, angles=30.0)
    ignore = Spatial(2).apply(samples, drawn).extra["ignore"][0].numpy()
    matrix = inverted(placement(*(drawn[n] for n in ("angles", "scale", "translation", "mirror")))).numpy()[0]
    offsets = np.stack(np.meshgrid(*[np.arange(16) - 7.5] * 2, indexing="ij"))
    source = np.einsum("ij,jxy->ixy", matrix[:, :-1], offsets)
    np.testing.assert_array_equal(ignore, (np.abs(source) > 8).any(0))
    assert 0.05 < ignore.mean() < 0.3


def test_what_was_ignored_moves_with_the_label_and_stays_ignored():
    ignore = torch.zeros(1, 8, 8, dtype=torch.bool)
    ignore[0, 1, 2] = True
    samples = Samples(torch.zeros(1, 1, 8, 8), labels(1, 8, 8), extra={"ignore": ignore})
    moved = Spatial(2, fields=("image", "label")).apply(samples, parameters(1, 2, angles=90.0))
    np.testing.assert_array_equal(moved.extra["ignore"], np.rot90(ignore.numpy(), 1, axes=(1, 2)))
    # What comes in from outside is added, not put in its place.
    shifted = Spatial(2).apply(samples, parameters(1, 2, translation=[2.0, 0.0])).extra["ignore"][0]
    assert shifted[:2].all()
    assert shifted[2:].nonzero().tolist() == [[1, 2]]


def test_nothing_is_marked_without_a_label_or_on_request():
    drawn = parameters(1, 2, angles=30.0)
    assert "ignore" not in Spatial(2).apply(Samples(torch.zeros(1, 1, 8, 8)), drawn).extra
    samples = Samples(torch.zeros(1, 1, 8, 8), labels(1, 8, 8))
    assert "ignore" not in Spatial(2, mark_outside=False).apply(samples, drawn).extra


@pytest.mark.parametrize("shape", [(12, 12), (8, 8, 8)])
def test_padding_is_the_edge_or_zero(shape: tuple[int, ...]):
    d = len(shape)
    samples = Samples(torch.full((1, 1, *shape), 5.0), torch.full((1, *shape), 2))
    drawn = parameters(1, d, scale=0.5)
    edge, zeros = Spatial(d).apply(samples, drawn), Spatial(d, padding="zeros").apply(samples, drawn)
    outside = edge.extra["ignore"]
    assert 0.5 < outside.float().mean() < 0.9
    torch.testing.assert_close(edge.image, samples.image)
    assert torch.equal(edge.label, samples.label)
    assert zeros.image[0, 0][outside[0]].abs().max() < 1e-3
    assert torch.equal(zeros.label, torch.where(outside, 0, 2))


def test_soft_labels_are_interpolated_and_remain_distributions():
    soft = torch.softmax(smooth(2, 3, 9, 9, 9), 1)
    drawn = parameters(2, 3, angles=[[20.0, 0, 10], [0, 0, 0]], scale=1.1)
    transform = Spatial(3)
    moved = transform.apply(Samples(smooth(2, 1, 9, 9, 9), soft), drawn)
    torch.testing.assert_close(moved.label.sum(1), torch.ones(2, 9, 9, 9))
    torch.testing.assert_close(moved.label, transform.apply(Samples(soft), drawn).image)


@pytest.mark.parametrize("shape", [(20, 14), (10, 12, 8)])
def test_image_and_label_move_together_and_label_values_are_preserved(shape: tuple[int, ...]):
    """An image whose values are its own labels, twice as large, must still be that where neither is interpolated."""
    d = len(shape)
    label = (
        torch.from_numpy(ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(3, *shape)), 2) > 0).long() * 3
    )
    samples = Samples(2.0 * label[:, None].float(), label)
    transform = Spatial(
        d,
        rotation=Chance(1, Uniform(-40, 40, size=1 if d == 2 else 3)),
        scale=Chance(1, Uniform(0.8, 1.25, size=d)),
        translation=Chance(1, Uniform(-2, 2, size=d)),
        elastic=Chance(1, Uniform(1, 1)),
        mirror_axes=range(d),
    )
    moved = transform(samples, torch.Generator().manual_seed(3))
    assert set(moved.label.unique().tolist()) == {0, 3}
    # Linear interpolation passes half height where the nearest voxel changes, up to corners.
    agree = (moved.image[:, 0] > 3) == (moved.label == 3)
    assert agree.float().mean() > 0.97
    assert (moved.label != samples.label).float().mean() > 0.05


def test_other_named_fields_move_and_unnamed_ones_do_not():
    image = smooth(1, 1, 8, 8)
    samples = Samples(image, extra={"fixed": image.clone(), "sinogram": image.clone(), "centre": torch.tensor([1])})
    moved = Spatial(2, fields=("image", "fixed")).apply(samples, parameters(1, 2, angles=90.0))
    assert torch.equal(moved.extra["fixed"], moved.image)
    assert torch.equal(moved.extra["sinogram"], image)
    assert torch.equal(moved.extra["centre"], torch.tensor([1]))


@pytest.mark.parametrize("shape", [(24, 24), (16, 16, 16)])
def test_inverse_brings_back_what_was_not_lost(shape: tuple[int, ...]):
    d = len(shape)
    samples = Samples(smooth(3, 1, *shape), torch.zeros(3, *shape, dtype=torch.long))
    transform = Spatial(
        d,
        rotation=Chance(1, Uniform(-30, 30, size=1 if d == 2 else 3)),
        scale=Chance(1, Uniform(0.9, 1.1)),
        translation=Chance(1, Uniform(-1, 1, size=d)),
        mirror_axes=range(d),
    )
    drawn = transform.draw(samples, torch.Generator().manual_seed(0))
    back = transform.inverse(transform.apply(samples, drawn), drawn)
    inside = (slice(None), 0, *[slice(6, -6)] * d)
    kept = ~back.extra["ignore"][:, None][inside]
    assert kept.float().mean() > 0.9
    error = (back.image - samples.image)[inside][kept].abs()
    before = (transform.apply(samples, drawn).image - samples.image)[inside][kept].abs()
    # What remains is the smoothing of two interpolations.
    assert error.mean() < 0.2 * before.mean()
    assert error.max() < 0.25 * samples.image.std()


def test_inverse_of_mirroring_and_right_angles_is_exact():
    samples = Samples(smooth(2, 1, 9, 9))
    drawn = parameters(2, 2, angles=[[90.0], [0.0]], mirror=[[True, False], [True, True]])
    back = Spatial(2).inverse(Spatial(2).apply(samples, drawn), drawn)
    torch.testing.assert_close(back.image, samples.image, atol=1e-4, rtol=0)
    assert torch.equal(back.image[1], samples.image[1])


def test_elastic_deformation_has_no_inverse():
    transform = Spatial(2, elastic=Chance(1, Uniform(1, 1)))
    samples = Samples(smooth(1, 1, 12, 12))
    drawn = transform.draw(samples, torch.Generator().manual_seed(0))
    with pytest.raises(OptionError, match="elastic deformation has no inverse"):
        transform.inverse(samples, drawn)


@pytest.mark.parametrize("shape", [(20, 24), (12, 10, 14)])
def test_elastic_deformation_is_that_of_scipy(shape: tuple[int, ...]):
    d = len(shape)
    transform = Spatial(d, elastic=Chance(1, Uniform(1, 1)), elastic_points=6)
    samples = Samples(smooth(1, 1, *shape))
    drawn = transform.draw(samples, torch.Generator().manual_seed(0))
    field = splines(drawn["elastic"], shape)[0].numpy()
    grid_ = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij")) + field
    expected = ndimage.map_coordinates(samples.image[0, 0].numpy(), grid_, order=1, mode="nearest")
    np.testing.assert_allclose(transform.apply(samples, drawn).image[0, 0], expected, atol=2e-3)


def test_elastic_deformation_never_folds():
    transform = Spatial(3, elastic=Chance(1, Uniform(50, 50)), elastic_points=6)
    samples = Samples(torch.zeros(2, 1, 24, 24, 24))
    drawn = transform.draw(samples, torch.Generator().manual_seed(0))
    field = splines(drawn["elastic"], (24, 24, 24)).numpy()
    assert np.abs(field).max() > 1
    for one in field:
        gradient = np.stack([np.stack(np.gradient(component)) for component in one])
        jacobian = np.linalg.det(np.moveaxis(gradient, (0, 1), (-2, -1)) + np.eye(3))
        assert jacobian.min() > 0


def test_a_larger_source_is_cut_to_the_patch():
    samples = Samples(
        torch.arange(100.0).view(1, 1, 10, 10).repeat(2, 1, 1, 1), torch.arange(100).view(1, 10, 10).repeat(2, 1, 1)
    )
    drawn = parameters(2, 2, angles=[[0.0], [90.0]])
    moved = Spatial(2, patch=(6, 6)).apply(samples, drawn)
    assert torch.equal(moved.label[0], samples.label[0, 2:8, 2:8])
    np.testing.assert_array_equal(moved.label[1], np.rot90(samples.label[1, 2:8, 2:8].numpy()))
    torch.testing.assert_close(moved.image[:, 0], moved.label.float(), atol=1e-3, rtol=0)
    assert not moved.extra["ignore"].any()


@pytest.mark.parametrize(("shape", "span"), [((20, 16), 180), ((12, 10, 8), 30)])
def test_a_source_patch_leaves_nothing_outside_and_is_no_larger_than_needed(shape: tuple[int, ...], span: float):
    d = len(shape)
    turns = 1 if d == 2 else 3
    transform = Spatial(
        d,
        patch=shape,
        rotation=Chance(1, Uniform(-span, span, size=turns)),
        scale=Chance(1, Uniform(0.7, 1.4)),
    )
    source = transform.source_patch(shape)
    samples = Samples(torch.zeros(100, 1, *source), torch.zeros(100, *source, dtype=torch.uint8))
    drawn = transform.draw(samples, torch.Generator().manual_seed(0))
    drawn["scale"][:] = 0.7
    moved = transform.apply(samples, drawn)
    assert moved.image.shape == (100, 1, *shape)
    assert moved.extra["ignore"].float().mean() < 1e-4
    # Somewhat less is too little for some of them.
    small = tuple(int(0.8 * n) for n in source)
    cut = Samples(torch.zeros(100, 1, *small), torch.zeros(100, *small, dtype=torch.uint8))
    assert transform.apply(cut, drawn).extra["ignore"].flatten(1).any(1).float().mean() > 0.1


def test_one_field_moves_as_the_samples_do_and_lets_gradients_pass():
    image = smooth(2, 1, 8, 8, 8)
    transform, drawn = Spatial(3), parameters(2, 3, angles=[[15.0, 0, 0], [0.0, 0, 0]], mirror=[True, False, False])
    leaf = image.clone().requires_grad_()
    moved = transform.moved(leaf, drawn)
    assert torch.equal(moved, transform.apply(Samples(image), drawn).image)
    weight = torch.randn(moved.shape, generator=torch.Generator().manual_seed(0))
    (moved * weight).sum().backward()
    # Linear in the image: the derivative along a direction is the change of the result.
    direction = smooth(2, 1, 8, 8, 8, seed=1)
    expected = (transform.moved(direction, drawn) * weight).sum()
    torch.testing.assert_close((leaf.grad * direction).sum(), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("shape", [(12, 10), (7, 6, 8)])
def test_double_and_half_precision_come_back_in_kind(shape: tuple[int, ...]):
    d = len(shape)
    drawn, image = parameters(2, d, angles=20.0), smooth(2, 1, *shape)
    exact = Spatial(d).apply(Samples(image), drawn).image
    double = Spatial(d).apply(Samples(image.double()), drawn).image
    half = Spatial(d).apply(Samples(image.bfloat16()), drawn).image
    assert double.dtype == torch.float64
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(double.float(), exact, atol=1e-3, rtol=0)
    torch.testing.assert_close(half.float(), exact, atol=0.1, rtol=0.02)


def test_bad_options_and_shapes_are_named():
    with pytest.raises(OptionError, match=r"mirror_axes are among \(0, 1\) in 2D, got \(2,\)"):
        Spatial(2, mirror_axes=(2,))
    with pytest.raises(OptionError, match="patch has one number an axis, 3 in all"):
        Spatial(3, patch=(8, 8))
    with pytest.raises(OptionError, match="probability of rotation is between 0 and 1, got 2"):
        Spatial(2, rotation=Chance(2, Uniform(0, 1)))
    with pytest.raises(OptionError, match="rotation draws 1 or 3 numbers in 3D, got size 2"):
        Spatial(3, rotation=Chance(0.5, Uniform(0, 1, size=2)))
    with pytest.raises(OptionError, match="a 2D transform takes images"):
        Spatial(2).apply(Samples(torch.zeros(1, 1, 4, 4, 4)), parameters(1, 2))
    with pytest.raises(OptionError, match=r"label of shape \(1,\) cannot move"):
        Spatial(2).apply(Samples(torch.zeros(1, 1, 4, 4), torch.tensor([1])), parameters(1, 2))
