"""Noise, blur, coarse sampling and bias fields against SciPy, PyTorch and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.interpolate import BSpline
from torch.nn import functional as F

from shiftproof.errors import OptionError
from shiftproof.transforms.acquisition import bias_field, blur, gaussian_noise, low_resolution, rician_noise, sharpen
from shiftproof.transforms.fields import noise, polynomial, polynomial_terms
from shiftproof.transforms.separable import spline


def images(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(2, 2, 17, 12), (2, 2, 9, 12, 10)])
def test_blur_is_the_gaussian_filter_of_scipy(shape: tuple[int, ...]):
    d = len(shape) - 2
    image = images(*shape)
    sigma = torch.rand(2, 2, d, generator=torch.Generator().manual_seed(1)) + 0.5
    blurred = blur(image, sigma)
    for b in range(2):
        for c in range(2):
            expected = ndimage.gaussian_filter(image[b, c].numpy(), sigma[b, c].tolist(), mode="nearest", truncate=4)
            np.testing.assert_allclose(blurred[b, c], expected, atol=1e-6)


def test_blur_by_one_number_is_the_same_along_all_axes_and_zero_is_the_identity():
    image = images(2, 2, 8, 9, 7)
    per_sample = torch.tensor([0.6, 1.1])
    torch.testing.assert_close(blur(image, per_sample), blur(image, per_sample[:, None, None].expand(2, 2, 3)))
    torch.testing.assert_close(blur(image, torch.zeros(2)), image)


@pytest.mark.parametrize("shape", [(2, 2, 17, 12), (2, 2, 9, 12, 10), (2, 2, 9, 1, 7)])
def test_sharpening_takes_away_the_laplacian_of_the_blurred_image(shape: tuple[int, ...]):
    image, sigma = images(*shape), torch.tensor([0.5, 0.9])
    result = sharpen(image, sigma)
    for b in range(2):
        for c in range(2):
            array = image[b, c].double().numpy()
            smooth = ndimage.gaussian_filter(array, float(sigma[b]), mode="nearest")
            np.testing.assert_allclose(result[b, c], array - ndimage.laplace(smooth, mode="nearest"), atol=2e-5)
    flat = torch.full((1, 1, 6, 6), 3.0)
    torch.testing.assert_close(sharpen(flat, torch.tensor([0.4])), flat)
    # An edge gets steeper.
    edge = torch.linspace(-3, 3, 16).tanh().expand(1, 1, 16, 16)
    assert sharpen(edge, torch.tensor([0.7])).diff(dim=-1).max() > edge.diff(dim=-1).max()


@pytest.mark.parametrize(("shape", "up"), [((24, 17), "linear"), ((24, 17), "cubic"), ((12, 9, 16), "linear")])
@pytest.mark.parametrize("zoom", [0.5, 0.63, 0.81, 1.0])
def test_low_resolution_is_two_interpolations_of_torch(shape: tuple[int, ...], up: str, zoom: float):
    image = images(2, 1, *shape)
    modes = {"linear": {2: "bilinear", 3: "trilinear"}, "cubic": {2: "bicubic"}}
    coarse = F.interpolate(image, [round(n * zoom) for n in shape], mode="nearest-exact")
    expected = F.interpolate(coarse, shape, mode=modes[up][len(shape)], align_corners=False)
    torch.testing.assert_close(low_resolution(image, torch.full((2,), zoom), up=up), expected, atol=1e-5, rtol=0)


def test_low_resolution_by_linear_and_nearest_is_that_of_torch():
    image = images(1, 2, 20, 18)
    coarse = F.interpolate(image, (14, 13), mode="bilinear", align_corners=False)
    expected = F.interpolate(coarse, (20, 18), mode="nearest-exact")
    torch.testing.assert_close(low_resolution(image, torch.tensor([0.7]), down="linear", up="nearest"), expected)


def test_low_resolution_takes_each_samples_zoom_and_only_the_named_axes():
    image = images(2, 1, 12, 10, 8)
    both = low_resolution(image, torch.tensor([0.5, 0.8]), axes=(0, 1))
    for b, zoom in enumerate((0.5, 0.8)):
        slices = image[b].permute(3, 0, 1, 2)  # thick slices, each on its own
        coarse = F.interpolate(slices, (round(12 * zoom), round(10 * zoom)), mode="nearest-exact")
        expected = F.interpolate(coarse, (12, 10), mode="bilinear", align_corners=False)
        torch.testing.assert_close(both[b], expected.permute(1, 2, 3, 0))
    with pytest.raises(OptionError, match="low resolution goes down by"):
        low_resolution(image, torch.tensor([0.5, 0.8]), up="spline")


def test_gaussian_noise_has_the_variance_that_is_asked_for():
    image = images(3, 2, 64, 64)
    variance = torch.tensor([[0.0, 0.01], [0.1, 0.5], [0.04, 1.0]])
    added = gaussian_noise(image, variance, torch.arange(6).view(3, 2)) - image
    assert torch.equal(added[0, 0], torch.zeros(64, 64))
    # Standard error of a variance from n normal numbers: variance * sqrt(2 / n).
    measured = added.double().flatten(2).var(2)
    assert (measured - variance).abs().le(5 * variance * (2 / 4096) ** 0.5 + 1e-9).all()
    assert added.flatten(2).mean(2).abs().le(5 * (variance / 4096).sqrt() + 1e-9).all()


def test_rician_noise_has_the_second_moment_of_its_distribution():
    amplitude = torch.tensor([0.0, 1.0, 3.0, 10.0])
    image = amplitude.view(4, 1, 1, 1).expand(4, 1, 128, 128).contiguous()
    variance = 0.7
    measured = rician_noise(image, torch.full((4,), variance), torch.arange(4)).double()
    # Var[M^2] = 4 variance A^2 + 4 variance^2.
    error = ((4 * variance * amplitude**2 + 4 * variance**2) / 128**2).sqrt()
    second = measured.square().flatten(1).mean(1)
    assert ((second - (amplitude**2 + 2 * variance)).abs() < 5 * error).all()
    # Without signal: Rayleigh, mean sqrt(pi / 2) sigma.
    assert measured[0].mean().item() == pytest.approx((np.pi / 2 * variance) ** 0.5, rel=0.02)


def test_rician_noise_of_a_z_scored_image_only_adds_to_air():
    image = images(1, 1, 64, 64)
    air = image.min()
    image[..., :32] = air
    noisy = rician_noise(image, torch.tensor([0.2]), torch.tensor([1]))
    assert (noisy >= air - 1e-5).all()
    assert noisy[..., :32].mean() - air > 0.3


def test_noise_depends_on_the_seed_of_each_sample_alone():
    first = noise(torch.tensor([3, 5, 3]), (8, 8), torch.device("cpu"))
    assert torch.equal(first[0], first[2])
    assert not torch.equal(first[0], first[1])
    assert torch.equal(first[1], noise(torch.tensor([5]), (8, 8), torch.device("cpu"))[0])


@pytest.mark.parametrize("shape", [(16, 20), (10, 12, 8)])
def test_a_bias_field_is_the_exponential_of_legendre_polynomials(shape: tuple[int, ...]):
    d = len(shape)
    terms = polynomial_terms(d, 3)
    assert len(terms) == {2: 9, 3: 19}[d]
    coefficients = 0.3 * images(2, len(terms), seed=4)
    image = images(2, 3, *shape).abs()
    field = bias_field(image, coefficients) / image
    axes = np.meshgrid(*[(2 * np.arange(n) + 1) / n - 1 for n in shape], indexing="ij")
    for b in range(2):
        logarithm = sum(
            float(coefficients[b, t])
            * np.prod([np.polynomial.Legendre.basis(e)(x) for e, x in zip(exponents, axes, strict=True)], axis=0)
            for t, exponents in enumerate(terms)
        )
        for c in range(3):
            np.testing.assert_allclose(field[b, c], np.exp(logarithm), rtol=2e-4)


def test_a_bias_field_is_smooth_and_has_mean_one_in_logarithms():
    coefficients = 0.1 * images(4, 1, 19)
    field = polynomial(coefficients, (32, 32, 32), 3)
    assert field.flatten(1).mean(1).abs().max() < 0.01
    assert field.flatten(1).std(1).min() > 0.05
    # Neighbours differ little compared with the whole; white noise would differ by sqrt(2) standard deviations.
    for axis in (2, 3, 4):
        assert field.diff(dim=axis).square().mean().sqrt() < 0.2 * field.std()
    # Mean square of orthogonal terms: sum of c^2 / prod(2 e + 1).
    weight = torch.tensor([np.prod([2 * e + 1 for e in term]) for term in polynomial_terms(3, 3)])
    expected = (coefficients**2 / weight).sum(-1)
    torch.testing.assert_close(field.square().flatten(2).mean(2).double(), expected.double(), rtol=0.05, atol=1e-4)


def test_a_bias_field_of_a_z_scored_image_leaves_air_and_shows_its_own_channels():
    image = images(2, 2, 16, 16) - 1
    coefficients = 0.3 * images(2, 2, 9, seed=3)
    biased = bias_field(image, coefficients)
    for b in range(2):
        for c in range(2):
            assert biased[b, c].min() == image[b, c].min()
            alone = bias_field(image[b : b + 1, c : c + 1], coefficients[b : b + 1, c])
            torch.testing.assert_close(biased[b, c], alone[0, 0])


def test_splines_are_those_of_scipy():
    points, size = 7, 30
    matrix = spline(points, size).numpy()
    position = 1 + (points - 3) * (np.arange(size) + 0.5) / size
    for k in range(points):
        knots = np.arange(-5, 6) + k  # a cubic centred on coefficient k
        basis = BSpline.basis_element(knots[3:8], extrapolate=False)
        np.testing.assert_allclose(matrix[:, k], np.nan_to_num(basis(position)), atol=1e-6)
    np.testing.assert_allclose(matrix.sum(1), 1, atol=1e-6)


@pytest.mark.parametrize(
    ("operation", "arguments"),
    [
        (gaussian_noise, {"variance": torch.tensor([0.1, 0.2]), "seed": torch.tensor([1, 2])}),
        (rician_noise, {"variance": torch.tensor([0.1, 0.2]), "seed": torch.tensor([1, 2])}),
        (blur, {"sigma": torch.tensor([0.5, 1.0])}),
        (sharpen, {"sigma": torch.tensor([0.5, 1.0])}),
        (low_resolution, {"zoom": torch.tensor([0.5, 0.9])}),
        (bias_field, {"coefficients": torch.full((2, 9), 0.05)}),
    ],
)
def test_operations_are_per_sample_keep_half_precision_and_leave_their_input(operation, arguments):
    image = images(2, 2, 12, 12)
    kept = image.clone()
    whole = operation(image, **arguments)
    assert torch.equal(image, kept)
    assert not torch.equal(whole, image)
    for b in range(2):
        alone = operation(image[b : b + 1], **{name: value[b : b + 1] for name, value in arguments.items()})
        torch.testing.assert_close(alone, whole[b : b + 1])
    half = image.bfloat16()
    assert torch.equal(operation(half, **arguments), operation(half.float(), **arguments).bfloat16())
