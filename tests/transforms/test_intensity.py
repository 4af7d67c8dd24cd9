"""Changes of intensity against closed forms in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from shiftproof.transforms import intensity
from shiftproof.transforms.intensity import brightness, contrast, gamma, inverted_gamma, shift


def images(*shape: int) -> torch.Tensor:
    """Z-scored images of different means and scales by sample and channel."""
    random = torch.Generator().manual_seed(0)
    image = torch.randn(shape, generator=random)
    columns = (*shape[:2], *[1] * (len(shape) - 2))
    return image * (0.5 + torch.rand(columns, generator=random)) + torch.randn(columns, generator=random)


SHAPES = [(3, 2, 9, 11), (2, 2, 6, 7, 8)]
EACH = torch.tensor([[0.7, 1.5], [1.0, 0.9], [1.3, 1.1]])


@pytest.mark.parametrize("shape", SHAPES)
def test_brightness_shift_and_contrast_are_their_formulas(shape: tuple[int, ...]):
    image, factor = images(*shape), EACH[: shape[0]]
    array, by = image.numpy(), factor.numpy().reshape(*factor.shape, *[1] * (len(shape) - 2))
    axes = tuple(range(2, len(shape)))
    np.testing.assert_allclose(brightness(image, factor), array * by, rtol=1e-6)
    np.testing.assert_allclose(shift(image, factor), array + by, rtol=1e-6)
    mean = array.mean(axes, keepdims=True)
    stretched = np.clip((array - mean) * by + mean, array.min(axes, keepdims=True), array.max(axes, keepdims=True))
    np.testing.assert_allclose(contrast(image, factor), stretched, atol=2e-6)


def gamma_of_nnunet(array: np.ndarray, exponent: float) -> np.ndarray:
    """One channel, step by step as nnU-Net defines it, statistics retained."""
    low, extent = array.min(), array.max() - array.min()
    bent = ((array - low) / extent) ** exponent * extent + low
    return (bent - bent.mean()) / bent.std() * array.std() + array.mean()


@pytest.mark.parametrize("shape", SHAPES)
def test_gamma_bends_and_restores_mean_and_std(shape: tuple[int, ...]):
    image, exponent = images(*shape), EACH[: shape[0]]
    bent, inverted = gamma(image, exponent), inverted_gamma(image, exponent)
    for b in range(shape[0]):
        for c in range(shape[1]):
            array, power = image[b, c].double().numpy(), float(exponent[b, c])
            np.testing.assert_allclose(bent[b, c], gamma_of_nnunet(array, power), atol=2e-5)
            np.testing.assert_allclose(inverted[b, c], -gamma_of_nnunet(-array, power), atol=2e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_gamma_can_keep_the_range_instead(shape: tuple[int, ...]):
    image, exponent = images(*shape), EACH[: shape[0]]
    axes = tuple(range(2, len(shape)))
    array, power = image.double().numpy(), exponent.double().numpy().reshape(*exponent.shape, *[1] * (len(shape) - 2))
    low, high = array.min(axes, keepdims=True), array.max(axes, keepdims=True)
    expected = ((array - low) / (high - low)) ** power * (high - low) + low
    np.testing.assert_allclose(gamma(image, exponent, keep="range"), expected, atol=2e-5)
    np.testing.assert_allclose(gamma(image, exponent, keep="range", out=image.clone()), expected, atol=2e-5)
    flat = torch.full((1, 1, 5, 5), 3.0)
    torch.testing.assert_close(gamma(flat, torch.tensor([1.4]), keep="range"), flat)


def test_gamma_below_one_brightens_the_dark_and_inverted_gamma_the_bright():
    ramp = torch.linspace(0, 1, 64).view(1, 1, 8, 8)
    curve = gamma(ramp, torch.tensor([0.5])).flatten().diff()
    assert curve[0] > 3 * curve[-1]
    inverted = inverted_gamma(ramp, torch.tensor([0.5])).flatten().diff()
    assert inverted[-1] > 3 * inverted[0]


def test_a_constant_channel_stays_as_it_is():
    image = torch.full((1, 1, 5, 5), 3.0)
    for operation in (gamma, inverted_gamma, contrast):
        torch.testing.assert_close(operation(image, torch.tensor([1.4])), image)


@pytest.mark.parametrize("operation", [brightness, shift, contrast, gamma, inverted_gamma])
def test_operations_are_per_sample_differentiable_and_leave_their_input(operation: intensity.Operation):
    image, parameter = images(3, 2, 6, 6), torch.tensor([0.8, 1.0, 1.3])
    kept = image.clone()
    whole = operation(image, parameter)
    assert torch.equal(image, kept)
    for b in range(3):
        torch.testing.assert_close(operation(image[b : b + 1], parameter[b : b + 1]), whole[b : b + 1])
    # A parameter per channel that is the same for all is a parameter per sample.
    torch.testing.assert_close(operation(image, parameter[:, None].expand(3, 2)), whole)

    leaf, value = image.double().requires_grad_(), parameter.double().requires_grad_()
    (operation(leaf, value) ** 2).sum().backward()
    assert leaf.grad is not None
    assert leaf.grad.isfinite().all()
    step = 1e-6
    ahead, behind = (operation(image.double(), parameter.double() + s) ** 2 for s in (step, -step))
    slope = (ahead - behind).flatten(1).sum(1) / (2 * step)
    torch.testing.assert_close(value.grad, slope, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("operation", [brightness, shift, contrast, gamma, inverted_gamma])
def test_half_precision_is_computed_in_float32(operation: intensity.Operation):
    image = images(2, 1, 32, 32).bfloat16()
    parameter = torch.tensor([0.7, 1.4])
    result = operation(image, parameter)
    assert result.dtype == torch.bfloat16
    assert torch.equal(result, operation(image.float(), parameter).bfloat16())
