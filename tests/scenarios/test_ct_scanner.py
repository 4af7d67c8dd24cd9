from __future__ import annotations

import numpy as np
import pytest

from shiftproof.scenarios.ct_scanner import (
    ELECTRONIC,
    FIELD_PIXELS,
    PIXEL_MM,
    VIEWS,
    Kernel,
    attenuation,
    centres,
    hounsfield,
    measured,
    project,
    reconstructed,
)

RAMP = Kernel("ramp", boost=0.0, cutoff=1e9, power=0.0)
SOFT = Kernel("soft", boost=0.0, cutoff=0.75, power=2.0)
SHARP = Kernel("sharp", boost=2.2, cutoff=1.15, power=1.0)
PLANE = centres(FIELD_PIXELS, PIXEL_MM)


def disc(radius_mm: float, hu: float = 0.0) -> np.ndarray:
    """(pixels, pixels, 1) attenuation of a water disc in nothing, its edge anti-aliased."""
    points = centres(8 * FIELD_PIXELS, PIXEL_MM / 8)
    inside = np.hypot(*np.meshgrid(points, points, indexing="ij")) < radius_mm
    share = inside.reshape(FIELD_PIXELS, 8, FIELD_PIXELS, 8).mean((1, 3))
    return (share * attenuation(np.array(hu)))[:, :, None]


def at_middle(integrals: np.ndarray, kernel: Kernel, matrix: int = 40, pixel_mm: float = PIXEL_MM) -> np.ndarray:
    return reconstructed(integrals, kernel, (matrix, matrix), pixel_mm, (0.0, 0.0))


def test_line_integrals_of_a_disc_are_its_chords() -> None:
    found = project(disc(150.0))[:, :, 0]
    chords_cm = 2 * np.sqrt(np.maximum(150.0**2 - PLANE**2, 0)) / 10
    assert np.sqrt(((found - 0.192 * chords_cm) ** 2).mean() / ((0.192 * chords_cm) ** 2).mean()) < 0.02


def test_every_view_counts_all_matter_once() -> None:
    slices = np.random.default_rng(0).uniform(size=(FIELD_PIXELS, FIELD_PIXELS, 2))
    slices *= (np.hypot(*np.meshgrid(PLANE, PLANE, indexing="ij")) < 300)[:, :, None]
    found = project(slices).sum(1) * PIXEL_MM / 10  # (views, slices): over the elements' width in cm
    expected = slices.sum((0, 1)) * (PIXEL_MM / 10) ** 2
    np.testing.assert_allclose(found, np.broadcast_to(expected, (VIEWS, 2)), rtol=1e-9)


def test_a_small_object_casts_its_shadow_where_it_stands() -> None:
    image = np.zeros((FIELD_PIXELS, FIELD_PIXELS, 1))
    image[110, 60] = 1.0
    shadow = project(image)[:, :, 0]
    centre = (shadow * PLANE).sum(1) / shadow.sum(1)
    angle = (np.arange(VIEWS) + 0.5) * np.pi / VIEWS
    np.testing.assert_allclose(centre, PLANE[110] * np.cos(angle) + PLANE[60] * np.sin(angle), atol=0.5)


@pytest.mark.parametrize("kernel", [RAMP, SOFT, SHARP])
def test_reconstruction_gives_the_attenuation_back_whatever_the_kernel(kernel: Kernel) -> None:
    hu = hounsfield(at_middle(project(disc(150.0, 40.0)), kernel))[10:30, 10:30]
    assert hu.mean() == pytest.approx(40, abs=1)
    assert hu.std() < 1


def test_a_reconstruction_lies_where_its_field_of_view_does() -> None:
    image = np.zeros((FIELD_PIXELS, FIELD_PIXELS, 1))
    image[110, 60] = 1.0
    found = reconstructed(project(image), RAMP, (30, 20), 2.0, (PLANE[110] + 6.0, PLANE[60] - 5.0))[:, :, 0]
    x, y = PLANE[110] + 6.0 + centres(30, 2.0), PLANE[60] - 5.0 + centres(20, 2.0)
    peak = np.unravel_index(found.argmax(), found.shape)
    assert abs(x[peak[0]] - PLANE[110]) <= 2.0
    assert abs(y[peak[1]] - PLANE[60]) <= 2.0


def test_outside_of_the_scanned_circle_nothing_is_known() -> None:
    found = at_middle(project(disc(100.0)), RAMP, matrix=100, pixel_mm=7.0)
    assert np.isnan(found[0, 0]).all()
    assert not np.isnan(found[50]).any() or np.isnan(found[50, [0, -1]]).all()
    assert not np.isnan(found[50, 10:-10]).any()


def test_a_kernel_without_boost_blurs_and_one_with_boost_overshoots() -> None:
    edges = {k.name: hounsfield(at_middle(project(disc(60.0)), k, matrix=60))[30, :, 0] for k in (SOFT, RAMP, SHARP)}
    steepest = {name: np.abs(np.diff(line)).max() for name, line in edges.items()}
    assert steepest["soft"] < steepest["ramp"] < steepest["sharp"]
    assert edges["soft"].max() < 15
    assert edges["sharp"].max() > 30


def test_noise_is_that_of_the_photons_left() -> None:
    integrals = np.full((200, 50, 20), 3.0)
    photons = 40_000.0
    found = measured(np.random.default_rng(0), integrals, photons)
    left = photons * np.exp(-3.0)
    assert found.mean() == pytest.approx(3.0, abs=3e-3)
    assert found.std() == pytest.approx(np.sqrt(left + ELECTRONIC**2) / left, rel=0.02)


def test_scatter_darkens_the_middle_of_the_person() -> None:
    integrals = project(disc(150.0))
    found = [measured(np.random.default_rng(0), integrals, 1e9, scatter) for scatter in (0.0, 0.04)]
    clean, dark = (hounsfield(at_middle(f, SOFT, matrix=80))[:, :, 0] for f in found)
    assert abs(clean[38:42, 38:42].mean()) < 2
    assert dark[38:42, 38:42].mean() < dark[30:50, 8:12].mean() - 20 < -20
    # The central ray, by hand: what it lost in transmission and what every element gets beside it.
    chord = 0.192 * 30.0
    inside = integrals[:, :, 0] > 0.5
    added = 0.04 * np.exp(-integrals[:, :, 0][inside].mean())
    assert found[1][:, 79:81, 0].mean() == pytest.approx(-np.log(np.exp(-chord) + added), abs=0.01)


def test_starved_rays_stay_finite() -> None:
    found = measured(np.random.default_rng(0), np.full((10, 10, 1), 30.0), 1e5)
    assert np.isfinite(found).all()
    assert found.max() <= np.log(1e5) + 1e-12


def test_the_ramps_noise_has_the_variance_of_its_closed_form() -> None:
    """White noise of a sinogram, through the ramp's taps and the mean of two elements, summed over views."""
    noise = np.random.default_rng(1).standard_normal((VIEWS, FIELD_PIXELS, 60))
    n = np.arange(-FIELD_PIXELS, FIELD_PIXELS + 1)
    taps = np.zeros(n.size)
    taps[n % 2 == 1] = -1 / (np.pi * n[n % 2 == 1]) ** 2
    taps[n == 0] = 0.25
    pair = np.convolve(taps, [0.5, 0.5])  # the centre of an even number of elements lies between two
    expected = (np.pi / VIEWS) * np.sqrt(VIEWS * (pair**2).sum()) / (PIXEL_MM / 10)
    found = reconstructed(noise, RAMP, (1, 1), PIXEL_MM, (0.0, 0.0))
    assert found.std() == pytest.approx(expected, rel=0.25)


def test_noise_grows_with_frequency_as_back_projection_makes_it() -> None:
    noise = np.random.default_rng(2).standard_normal((VIEWS, FIELD_PIXELS, 40))
    image = at_middle(noise, RAMP, matrix=64)
    power = (np.abs(np.fft.fft2(image, axes=(0, 1))) ** 2).mean(-1)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(64), np.fft.fftfreq(64), indexing="ij"))
    low, middle = (
        power[(frequency > 0.02) & (frequency < 0.06)].mean(),
        power[(frequency > 0.2) & (frequency < 0.26)].mean(),
    )
    assert 3 < middle / low < 12  # proportional to frequency, less the blur of interpolation between elements
