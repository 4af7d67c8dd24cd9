from __future__ import annotations

import numpy as np
import pytest
from scipy.interpolate import RegularGridInterpolator

from shiftproof.scenarios.anatomy import (
    LATTICE_MM,
    Anatomy,
    draw_warp,
    interpolate,
    lattice,
    rotation,
    smooth_field,
    spline_basis,
    template,
)


def random(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_warps_are_invertible_and_move_the_brain_by_3_to_8_mm() -> None:
    _, brain, _ = lattice()
    head = template().coarse(template().surface, lattice()[0]) < 15
    for seed in range(6):
        amplitude_mm = random(seed).uniform(4.5, 8.0)
        for growth_mm in (-1.5, 4.5):
            warp = draw_warp(random(seed), amplitude_mm, growth_mm)
            slope = np.stack([np.stack(np.gradient(w, LATTICE_MM)) for w in warp])
            jacobian = slope + np.eye(3)[:, :, None, None, None]
            assert np.linalg.det(jacobian.transpose(2, 3, 4, 0, 1))[head].min() > 0.02
        still = draw_warp(random(seed), amplitude_mm, 0.0)
        assert 3 < np.percentile(np.linalg.norm(still, axis=0)[brain], 95) < 8.5


def test_subjects_are_not_moved_alike() -> None:
    _, brain, _ = lattice()
    one, two = (draw_warp(random(s), 6.0, 0.0)[:, brain].ravel() for s in (0, 1))
    assert abs(np.corrcoef(one, two)[0, 1]) < 0.3


def test_the_spline_basis_reproduces_constants_and_lines() -> None:
    basis = spline_basis(40, 22.0)
    knots = np.arange(-1, basis.shape[1] - 1)
    np.testing.assert_allclose(basis.sum(1), 1, atol=1e-12)
    np.testing.assert_allclose(basis @ (knots * 22.0), np.arange(40) * LATTICE_MM, atol=1e-9)


def test_smooth_fields_have_unit_variance_and_the_smoothness_of_their_knots() -> None:
    _, brain, _ = lattice()
    coarse, fine = (smooth_field(random(3), 1, mm)[0] for mm in (30.0, 9.0))
    assert np.sqrt((coarse[brain] ** 2).mean()) == pytest.approx(1)
    assert np.abs(np.diff(coarse, axis=0)).mean() < 0.5 * np.abs(np.diff(fine, axis=0)).mean()


def test_interpolation_agrees_with_another_implementation() -> None:
    volume, origin = random(0).normal(size=(6, 7, 8)), np.array([-3.0, 2.0, 10.0])
    positions = origin[:, None] + random(1).uniform(0, 1, (3, 50)) * np.array([[10.0], [12.0], [14.0]])
    axes = [o + 2.0 * np.arange(n) for o, n in zip(origin, volume.shape, strict=True)]
    expected = RegularGridInterpolator(axes, volume)(positions.T)
    np.testing.assert_allclose(interpolate(volume, positions, origin, 2.0), expected, atol=1e-12)


def test_the_frame_takes_the_brains_centre_to_the_templates_and_undoes_turn_and_size() -> None:
    anatomy = Anatomy.draw(random(5), 40.0)
    matrix, offset = anatomy.to_template()
    from_head = anatomy.turn @ np.diag(anatomy.size)
    np.testing.assert_allclose(matrix @ from_head, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(matrix @ anatomy.position_mm + offset, [0, -18, 12], atol=1e-12)
    np.testing.assert_allclose(rotation(np.array([0, 0, 90.0])) @ [1, 0, 0], [0, 1, 0], atol=1e-12)
    np.testing.assert_allclose(
        rotation(np.array([10.0, 20, 30])) @ rotation(np.array([10.0, 20, 30])).T, np.eye(3), atol=1e-12
    )


def test_the_shipped_template_is_a_head_below_one_and_a_half_megabytes() -> None:
    from importlib.resources import files

    maps = template()
    assert (files("shiftproof.scenarios") / "files" / "brain_template.npz").stat().st_size < 1.5e6
    millilitres = maps.spacing_mm**3 / 1000
    assert maps.grey.sum() * millilitres == pytest.approx(1000, rel=0.1)
    assert maps.white.sum() * millilitres == pytest.approx(670, rel=0.1)
    assert (maps.grey + maps.white).max() <= 1.01
    # The hull of the brain encloses what is grey or white.
    where = np.argwhere(maps.grey + maps.white > 0.5)[::97].T * maps.spacing_mm + maps.origin_mm[:, None]
    assert (maps.coarse(maps.surface, where) < 1.5).mean() > 0.99
