"""The imaging chains against what their physics says of blank fields, noise and edges."""

from __future__ import annotations

import numpy as np
import pytest

from shiftproof.scenarios.digit_imaging import (
    FINE,
    SIDE,
    Placing,
    Thing,
    across_the_beam,
    along_the_beam,
    densitometer,
    fluoroscopy,
    resonance,
    stored,
    thing,
    ultrasound,
)

WIDE = SIDE * FINE


def blank(ink: float = 0.0) -> Thing:
    return Thing(np.full((WIDE, WIDE), ink), np.ones((WIDE, WIDE)), 1.0)


def half() -> Thing:
    """Structure in the right half, for its contrast and its edge."""
    ink = np.zeros((WIDE, WIDE))
    ink[:, WIDE // 2 :] = 1
    return Thing(ink, np.ones((WIDE, WIDE)), 1.0)


def many(chain, subject: Thing, number: int = 40) -> np.ndarray:
    return np.stack([chain(subject, np.random.default_rng(i)) for i in range(number)]).astype(float)


def test_an_upright_digit_lies_in_the_middle_at_its_size() -> None:
    strokes = np.zeros((8, 8))
    strokes[:, 3:5] = 16
    still = Placing(turn_spread_deg=0, shift_spread_px=0)
    inks = [thing(strokes, np.random.default_rng(i), still).ink for i in range(20)]
    ink = np.mean(inks, 0)
    rows, columns = (ink.sum(axis) @ np.arange(WIDE) / ink.sum() for axis in (1, 0))
    assert rows == pytest.approx((WIDE - 1) / 2, abs=0.1)
    assert columns == pytest.approx((WIDE - 1) / 2, abs=0.1)
    wide = np.mean([i[WIDE // 2].sum() for i in inks]) / FINE
    assert wide == pytest.approx(2 * 3.1, rel=0.12)  # two cells of 3.1 pixels


def test_a_turn_is_against_the_clock_by_its_degrees() -> None:
    strokes = np.zeros((8, 8))
    strokes[:, 3:5] = 16
    ink = thing(strokes, np.random.default_rng(0), Placing(turn_deg=20, turn_spread_deg=0, shift_spread_px=0)).ink
    rows, columns = np.nonzero(ink > 0.5)
    across, along = np.cov(columns, rows)[0, 1], rows.var() - columns.var()
    assert np.rad2deg(0.5 * np.arctan2(2 * across, along)) == pytest.approx(20, abs=3)


def test_the_densitometer_measures_the_density() -> None:
    plain, inked = (many(densitometer, blank(ink))[:, 8:24, 8:24] * 2 / 255 for ink in (0.0, 1.0))
    assert plain.mean() == pytest.approx(0.18, abs=0.01)
    assert inked.mean() == pytest.approx(0.18 + 1.15, abs=0.01)
    # Quanta: the standard deviation of log10 of a count n is 1 / (ln 10 sqrt(n)); storage rounds to 2 / 255.
    expected = np.hypot(1 / np.log(10) / np.sqrt(4000 * 10**-1.33), 2 / 255 / np.sqrt(12))
    assert (inked - inked.mean(0)).std() == pytest.approx(expected, rel=0.1)


def test_fluoroscopy_is_limited_by_quanta_and_veiled() -> None:
    """Variance over mean is the gain, 1500 over the dose, whether the field is open or behind contrast medium."""
    for ink in (0.0, 1.0):
        fields = many(fluoroscopy, blank(ink), 60)[:, 12:20, 12:20]
        gains = fields.var((1, 2)) / fields.mean((1, 2))
        assert 1500 / 220 < np.median(gains) < 1500 / 120 * 1.15
    vessel = blank()
    vessel.ink[:, 14 * FINE : 18 * FINE] = 1
    image = many(fluoroscopy, vessel).mean(0)
    contrast = 1 - image[12:20, 15:17].mean() / image[12:20, [8, 9, 22, 23]].mean()
    beer_lambert = 1 - np.exp(-1.1)
    assert 0.4 * beer_lambert < contrast < 0.7 * beer_lambert  # all of it, had there been no scatter and no glare


def test_fluoroscopy_has_a_round_field_that_falls_off() -> None:
    image = many(fluoroscopy, blank()).mean(0)
    assert image[0, 0] < 0.1 * image[16, 16]
    assert 0.6 < image[16, 1] / image[16, 16] < 0.85


def test_speckle_is_fully_developed_and_keeps_its_power() -> None:
    """The amplitude of a sum of many scatterers is Rayleigh: mean over standard deviation is 1.913."""
    random = np.random.default_rng(0)
    white = random.standard_normal((WIDE, 4 * WIDE)) + 1j * random.standard_normal((WIDE, 4 * WIDE))
    widths = np.linspace(0.5, 2.0, WIDE)
    field = across_the_beam(along_the_beam(white, 0.42), widths)
    for part in (slice(8, 40), slice(-40, -8)):
        amplitude = np.abs(field[part])
        assert (amplitude**2).mean() == pytest.approx(2, rel=0.12)
        assert amplitude.mean() / amplitude.std() == pytest.approx(1.913, rel=0.06)


def test_speckle_is_wider_across_the_beam_and_coarsens_with_depth() -> None:
    images = many(ultrasound, blank())
    images -= images.mean(0)

    def alike(part: np.ndarray, axis: int) -> float:
        """Correlation of neighbours along an axis."""
        first, second = (np.take(part, range(a, part.shape[axis] - 1 + a), axis) for a in (0, 1))
        return float(np.corrcoef(first.ravel(), second.ravel())[0, 1])

    deep, focal = images[:, 24:30], images[:, 8:14]
    assert alike(deep, 2) > alike(deep, 1) + 0.2
    assert alike(deep, 2) > alike(focal, 2) + 0.15


def test_echoes_fade_with_depth_and_brighten_behind_fluid() -> None:
    image = many(ultrasound, blank()).mean(0)
    assert image[2:6].mean() - image[26:30].mean() > 20
    cyst = blank()
    cyst.ink[10 * FINE : 18 * FINE, 10 * FINE : 22 * FINE] = 1
    seen = many(ultrasound, cyst).mean(0)
    assert seen[12:16, 12:20].mean() < image[12:16, 12:20].mean() - 50
    assert seen[20:24, 14:18].mean() > image[20:24, 14:18].mean() + 15


def test_air_in_resonance_is_rician_noise() -> None:
    images = many(resonance, blank(), 300)
    corner = images[:, :2, :2]  # too far for the ringing of the body's edge
    # Of the same scan, since gain and level differ between scans: Rayleigh again.
    scaled = corner / np.sqrt((corner**2).mean((1, 2), keepdims=True))
    assert scaled.mean() == pytest.approx(np.sqrt(np.pi) / 2, abs=0.04)
    assert images[:, 14:18, 14:18].mean() > 5 * corner.mean()


def test_missing_phase_lines_ring_along_the_rows_and_not_along_the_columns() -> None:
    """With 22 of 32 lines an edge overshoots in the rows' direction, and detail beyond 11 cycles is gone."""
    upright, lying = half(), Thing(half().ink.T, half().tissue, 1.0)
    detail = []
    for subject, axis in ((upright, 1), (lying, 0)):
        image = many(resonance, subject, 60)[:, 8:24, 8:24]
        profile = (image / image.mean((1, 2), keepdims=True)).mean(0).mean(1 - axis)
        detail.append(np.abs(np.diff(profile)).max())
    assert detail[1] < 0.85 * detail[0]  # steepest step: the edge across the rows is the softer one
    flat = many(resonance, blank(), 60)
    power = (np.abs(np.fft.fft2(flat - flat.mean(0))) ** 2).mean(0)
    assert power[13:20, 1:8].mean() < 0.5 * power[1:8, 13:20].mean()


def test_structure_is_bright_in_two_chains_and_dark_in_two() -> None:
    for chain, sign in ((densitometer, 1), (fluoroscopy, -1), (ultrasound, -1), (resonance, 1)):
        image = many(chain, half(), 10).mean(0)[10:22]
        assert sign * (image[:, 20:26].mean() - image[:, 6:12].mean()) > 0.2 * image.mean()


def test_storage_rounds_and_clips() -> None:
    values = np.array([-3.0, 1.5, 2.5, 254.6, 400.0, 5000.0])
    np.testing.assert_array_equal(stored(values, 8), np.array([0, 2, 2, 255, 255, 255], np.uint8))
    assert stored(values, 8).dtype == np.uint8
    assert stored(values, 12).max() == 4095
    assert stored(values, 12).dtype == np.uint16
