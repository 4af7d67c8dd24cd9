"""What is fast on a CPU gives what the plain way gives: pieces, scaled volumes, memory that is written over."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from shiftproof.data.samples import Samples
from shiftproof.transforms import Compose, Normal, Parameters, Seed, Spatial, Transform, Uniform, Varied, pieces
from shiftproof.transforms.acquisition import bias_field, blur, gaussian_noise, low_resolution, rician_noise
from shiftproof.transforms.affine import inverted, placement
from shiftproof.transforms.intensity import Operation, brightness, contrast, gamma, inverted_gamma, shift
from shiftproof.transforms.resample import _read_at_once, grid, read_
from shiftproof.transforms.separable import after, cubic, linear, matrix, nearest


def images(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def maps(dimensions: int, *, angle: float, scale: float) -> torch.Tensor:
    """Three maps (3, D, D + 1) that differ in mirroring and translation."""
    mirror = torch.eye(3, dimensions).bool()
    translation = torch.tensor([[0.4], [-2.3], [1.1]]).expand(3, dimensions).double()
    angles = torch.full((3, 1 if dimensions == 2 else 3), angle).double()
    return inverted(placement(angles, torch.full((3, dimensions), scale).double(), translation, mirror))


@pytest.mark.parametrize("padding", ["border", "zeros"])
@pytest.mark.parametrize("source", [(13, 10), (9, 12, 11), (1, 7, 6), (8, 1, 7)])
@pytest.mark.parametrize(("angle", "scale"), [(25.0, 0.8), (0.0, 1.3), (0.0, 0.7), (-70.0, 2.5)])
def test_reading_in_pieces_is_reading_with_torch(
    source: tuple[int, ...], padding: str, angle: float, scale: float, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(pieces, "PIECE", 50)
    d, shape = len(source), (8, 7, 6)[: len(source)]
    fields = [images(4, 2, *source), (10 * images(4, 1, *source, seed=1)).long()]
    at = grid(maps(d, angle=angle, scale=scale), shape, [n / 2 for n in source])
    ours, theirs = ([f.new_zeros((*f.shape[:2], *shape)) for f in fields] for _ in range(2))
    places = [0, 1, 3]
    outside = read_(ours, places, fields, at, padding)
    some = [fields[0][places].double(), fields[1][places]]
    expected = _read_at_once(theirs, places, some, at.positions(), padding)
    torch.testing.assert_close(ours[0], theirs[0], atol=1e-4, rtol=0)
    assert (ours[0][2] == 0).all()
    # Positions midway between two voxels may be rounded either way.
    assert (ours[1] != theirs[1]).float().mean() < 0.01
    assert (outside != expected).float().mean() < 0.01
    assert expected.any() or scale > 1


def test_a_scaled_volume_is_that_of_scipy():
    source, factor, moved = (14, 12, 10), 1.25, (3.4, -0.7, 0.2)
    samples = Samples(images(1, 1, *source), (3 * images(1, *source, seed=2)).long())
    drawn = {
        "angles": torch.zeros(1, 3),
        "scale": torch.full((1, 3), factor),
        "translation": torch.tensor([moved]),
        "mirror": torch.tensor([[True, False, False]]),
    }
    result = Spatial(3).apply(samples, drawn)
    centre = (np.array(source) - 1) / 2
    sign = np.array([-1, 1, 1])
    # Content goes to sign * (factor * offset + moved).
    back, shift_ = sign / factor, centre - np.array(moved) / factor - sign / factor * centre
    for order, image, found in ((1, samples.image[0, 0], result.image[0, 0]), (0, samples.label[0], result.label[0])):
        expected = ndimage.affine_transform(image.numpy(), np.diag(back), shift_, order=order, mode="nearest")
        np.testing.assert_allclose(found, expected, atol=1e-5)
    positions = np.stack(np.meshgrid(*[np.arange(n) for n in source], indexing="ij"), -1) * back + shift_
    beyond = ((positions < -0.5) | (positions >= np.array(source) - 0.5)).any(-1)
    np.testing.assert_array_equal(result.extra["ignore"][0], beyond)
    assert 0 < beyond.mean() < 0.5


@pytest.mark.parametrize("dimensions", [2, 3])
def test_a_larger_source_is_moved_and_cut_in_one_resampling(dimensions: int):
    """Cutting afterwards gives the same; rotation and zoom-out bring in what the larger source holds."""
    source, patch = (26, 22, 24)[:dimensions], (12, 10, 14)[:dimensions]
    samples = Samples(images(2, 1, *source), (5 * images(2, *source, seed=3)).long())
    drawn = {
        "angles": torch.tensor([[20.0], [0.0]]).expand(2, 1 if dimensions == 2 else 3),
        "scale": torch.full((2, dimensions), 0.8),
        "translation": torch.zeros(2, dimensions),
        "mirror": torch.zeros(2, dimensions, dtype=torch.bool),
    }
    cut, whole = Spatial(dimensions, patch=patch).apply(samples, drawn), Spatial(dimensions).apply(samples, drawn)
    middle = (..., *[slice((n - w) // 2, (n + w) // 2) for n, w in zip(source, patch, strict=True)])
    torch.testing.assert_close(cut.image, whole.image[middle], atol=1e-4, rtol=0)
    assert (cut.label != whole.label[middle]).float().mean() < 0.01
    assert not cut.extra["ignore"].any()
    inner = Samples(samples.image[middle], samples.label[middle])
    assert Spatial(dimensions).apply(inner, drawn).extra["ignore"].float().mean() > 0.2


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("operation", "drawn"),
    [
        (brightness, {"factor": torch.tensor([0.8, 1.2])}),
        (shift, {"amount": torch.tensor([0.3, -0.2])}),
        (contrast, {"factor": torch.tensor([0.8, 1.2])}),
        (gamma, {"exponent": torch.tensor([0.8, 1.4])}),
        (inverted_gamma, {"exponent": torch.tensor([0.8, 1.4])}),
        (gaussian_noise, {"variance": torch.tensor([0.1, 0.2]), "seed": torch.tensor([1, 2])}),
        (rician_noise, {"variance": torch.tensor([0.1, 0.2]), "seed": torch.tensor([1, 2])}),
        (blur, {"sigma": torch.tensor([0.5, 1.0])}),
        (low_resolution, {"zoom": torch.tensor([0.5, 0.9])}),
        (bias_field, {"coefficients": torch.full((2, 9), 0.05)}),
    ],
)
def test_operations_may_write_over_their_image(operation: Operation, drawn: Parameters, kind: torch.dtype):
    image = images(2, 2, 12, 10).to(kind)
    expected, room = operation(image, **drawn), image.clone()
    result = operation(room, **drawn, out=room)
    assert result.data_ptr() == room.data_ptr()
    torch.testing.assert_close(room, expected, atol=1e-6, rtol=1e-6)
    assert not torch.equal(room, image)


def test_compose_writes_over_what_it_made_and_never_over_what_it_was_given():
    batch = Samples(images(6, 2, 9, 8), (images(6, 9, 8) > 0).long(), extra={"fixed": images(6, 2, 9, 8, seed=1)})
    kept = batch.mapped(torch.clone)
    steps: list[Transform] = [
        Varied(brightness, 0.5, factor=Uniform(0.5, 1.5)),
        Varied(gaussian_noise, 0.6, variance=Uniform(0.1, 0.2), seed=Seed()),
        Varied(blur, 1.0, channel_probability=0.5, sigma=Uniform(0.5, 1, size=2)),
        Varied(gamma, 1.0, exponent=Uniform(0.7, 1.5)),
        Varied(shift, 0.5, amount=Normal(1)),
    ]
    for some in (steps, steps[::-1], [_Swapped(), *steps]):
        transform = Compose(some)
        drawn = transform.draw(batch, torch.Generator().manual_seed(0))
        result, expected = transform.apply(batch, drawn), batch
        for i, step in enumerate(some):
            expected = step.apply(expected, {n.split(".", 1)[1]: v for n, v in drawn.items() if n.startswith(f"{i}.")})
        torch.testing.assert_close(result.image, expected.image, atol=1e-6, rtol=1e-6)
        assert torch.equal(batch.image, kept.image)
        assert torch.equal(batch.extra["fixed"], kept.extra["fixed"])


class _Swapped(Transform):
    """Gives another of the samples' tensors for their image, without a copy."""

    def draw(self, samples: Samples, generator: torch.Generator) -> Parameters:
        return {}

    def apply(self, samples: Samples, parameters: Parameters) -> Samples:
        return samples.replace(image=samples.extra["fixed"])


def test_gradients_pass_through_composed_transforms():
    transform = Compose(
        [Varied(brightness, 1.0, factor=Uniform(2, 2)), Varied(shift, 0.5, amount=Normal(1)), Varied(gamma, 0.0)]
    )
    leaf = images(4, 1, 6, 6).requires_grad_()
    transform(Samples(leaf), torch.Generator().manual_seed(0)).image.sum().backward()
    assert torch.equal(leaf.grad, torch.full_like(leaf, 2))


@pytest.mark.parametrize("second", [nearest, linear, cubic])
def test_taps_of_two_operations_are_the_product_of_their_matrices(second):
    count, size = torch.tensor([7.0, 9.0]), 12
    centre = torch.arange(size) + 0.5
    coarse = linear(centre * size / count[:, None] - 0.5, torch.full_like(count, size))
    fine = second(centre * count[:, None] / size - 0.5, count)
    together = matrix(*after(fine, coarse), size)
    torch.testing.assert_close(together, matrix(*fine, size) @ matrix(*coarse, size), atol=1e-6, rtol=0)


def test_absent_channels_stay_zero_where_nobody_looks_at_them():
    """On a GPU all that is drawn is changed, and what is absent is emptied again."""
    transform, image = Varied(shift, 1.0, amount=Normal(1)), images(3, 1, 4, 5)
    lacking, drawn = torch.tensor([False, True, False]).view(3, 1, 1, 1), {"amount": torch.ones(3, 1)}
    expected = (image + 1) * ~lacking
    assert torch.equal(transform._changed(image, drawn, lacking), expected)
    assert torch.equal(transform._changed(image, drawn, lacking, out=image), expected)
    assert torch.equal(image, expected)


def test_channels_of_neighbouring_slices_are_present_together():
    present = torch.tensor([[True, False], [True, True]])
    image = images(2, 6, 4, 4) * present.repeat(1, 3)[..., None, None]  # three slices of two channels
    batch = Samples(image, extra={"present": present})
    moved = Compose([Varied(shift, 1.0, amount=Uniform(1, 2))])(batch, torch.Generator().manual_seed(0)).image
    assert (moved[0, 1::2] == 0).all()
    assert (moved[0, ::2] != image[0, ::2]).all()
    assert (moved[1] != image[1]).all()


def test_an_image_that_is_not_contiguous_is_changed_too():
    turned = images(3, 5, 4, 2).permute(0, 3, 1, 2)
    transform = Varied(shift, 1.0, amount=Uniform(1, 2))
    drawn = transform.draw(Samples(turned), torch.Generator().manual_seed(0))
    drawn["chosen"] = torch.tensor([[True, True], [False, False], [True, False]])
    expected = turned + drawn["amount"][..., None, None] * drawn["chosen"][..., None, None]
    torch.testing.assert_close(transform.apply_(Samples(turned.clone()), drawn).image, expected)
