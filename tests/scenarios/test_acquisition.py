from __future__ import annotations

import numpy as np
import pytest

from shiftproof.scenarios.acquisition import Grid, Head, scan, shading, slabs, step_down
from shiftproof.scenarios.anatomy import Anatomy
from shiftproof.scenarios.brain_sites import SITES, classes

SEQUENCE = SITES["A"].sequence


def head(seed: int = 0, age: float = 40.0) -> Head:
    return Head.at(Anatomy.draw(np.random.default_rng(seed), age), SEQUENCE, 3.0, {}, 0.0)


def centred(grid: Grid, anatomy: Anatomy) -> tuple[np.ndarray, np.ndarray]:
    spacing = np.array(grid.spacing_mm)
    return np.diag(spacing), anatomy.position_mm - (np.array(grid.shape) - 1) / 2 * spacing


def millilitres(age: float, seed: int) -> np.ndarray:
    """CSF, grey, white of one person."""
    grid = Grid((52, 62, 52), (3.6, 3.6, 3.6), 3.6, oversampling=1, slice_points=1)
    person = head(seed, age)
    maps = person.on(grid, *centred(grid, person.anatomy))
    return maps.fractions.sum((1, 2, 3)) * 3.6**3 / 1000


def test_a_voxel_is_the_mean_of_the_finer_voxels_inside_it() -> None:
    person = head()
    coarse = Grid((24, 28, 3), (7.0, 7.0, 8.0), 8.0, oversampling=2, slice_points=2)
    fine = Grid((48, 56, 6), (3.5, 3.5, 4.0), 4.0, oversampling=1, slice_points=1)
    one, many = (person.on(g, *centred(g, person.anatomy)) for g in (coarse, fine))
    mean = many.signal.reshape(24, 2, 28, 2, 3, 2).mean((1, 3, 5))
    # The warp is interpolated between other nodes, hence not to rounding.
    assert np.abs(one.signal - mean).max() < 0.05 * one.signal.max()
    assert np.corrcoef(one.signal.ravel(), mean.ravel())[0, 1] > 0.999


def test_the_result_does_not_depend_on_how_many_slices_are_made_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from shiftproof.scenarios import acquisition

    person, grid = head(), Grid((32, 32, 5), (6.4, 6.4, 9.0), 5.0)
    whole = person.on(grid, *centred(grid, person.anatomy))
    monkeypatch.setattr(acquisition, "slabs", lambda grid: slabs(grid, 1))
    single = person.on(grid, *centred(grid, person.anatomy))
    np.testing.assert_allclose(single.signal, whole.signal, atol=1e-12)


def test_fractions_are_shares_and_sum_to_one_deep_inside() -> None:
    person, grid = head(), Grid((40, 40, 3), (5.0, 5.0, 6.0), 6.0)
    total = person.on(grid, *centred(grid, person.anatomy)).fractions.sum(0)
    assert total.min() >= 0
    assert total.max() == pytest.approx(1)
    assert total[18:22, 18:22].min() == pytest.approx(1)
    assert total[0].max() == 0


def test_age_widens_fluid_and_thins_grey_matter() -> None:
    young, old = (np.mean([millilitres(age, seed) for seed in range(3)], 0) for age in (22.0, 85.0))
    assert 0.13 < young[0] / young.sum() < 0.21
    assert old[0] / old.sum() > young[0] / young.sum() + 0.05
    assert old[1] / old[2] < young[1] / young[2] - 0.1
    assert 1.2 < young[1] / young[2] < 1.9


def test_ventricles_grow_in_place() -> None:
    from dataclasses import replace

    from shiftproof.scenarios.anatomy import draw_warp, template

    grid = Grid((30, 40, 20), (3.0, 3.0, 3.0), 3.0, oversampling=1, slice_points=1)
    person = head()
    volumes = []
    for growth_mm in (-1.0, 3.5):
        warp = draw_warp(np.random.default_rng(7), 5.0, growth_mm)
        grown = Head(replace(person.anatomy, warp=warp), person.signal)
        matrix, offset = centred(grid, grown.anatomy)
        to_head, shift = grown.anatomy.to_template()
        index = np.indices(grid.shape).reshape(3, -1)
        position = to_head @ (matrix @ index + offset[:, None]) + shift[:, None]
        deep = template().coarse(template().ventricles, position).reshape(grid.shape) > 0.2
        volumes.append((grown.on(grid, matrix, offset).fractions[0] * deep).sum() * 27 / 1000)
    assert volumes[1] > 1.4 * volumes[0]


def test_a_layer_edge_is_half_way_at_zero() -> None:
    np.testing.assert_allclose(step_down(np.array([-5.0, 0.0, 5.0])), [1, 0.5, 0])


def test_noise_is_rician() -> None:
    random = np.random.default_rng(0)
    shape = (60, 60, 20)
    air = scan(random, np.zeros(shape), np.ones(shape), blur=(0, 0, 0), noise=0.1)
    assert air.mean() == pytest.approx(0.1 * np.sqrt(np.pi / 2), rel=0.01)
    tissue = scan(random, np.full(shape, 0.3), np.ones(shape), blur=(0, 0, 0), noise=0.1)
    assert (tissue**2).mean() == pytest.approx(0.3**2 + 2 * 0.1**2, rel=0.01)
    assert scan(random, np.full(shape, -0.3), np.ones(shape), blur=(0, 0, 0), noise=0.0).min() == pytest.approx(0.3)


def test_shading_has_the_strength_that_is_asked_for() -> None:
    grid = Grid((40, 40, 12), (5.0, 5.0, 6.0), 6.0)
    shade = shading(np.random.default_rng(1), grid, 0.3, 0.0)
    assert np.log(shade).std() == pytest.approx(0.3)
    assert np.log(shade).mean() == pytest.approx(0, abs=1e-12)
    steps = np.abs(np.diff(np.log(shade), axis=0)).max()
    assert steps < 0.25  # smooth: no jump between neighbours comes near the whole range
    centre = shading(np.random.default_rng(1), grid, 0.3, 0.5) / shade
    assert centre[20, 20, 6] > centre[0, 20, 6] > centre[0, 0, 6]


def test_a_class_has_the_largest_share_of_its_voxel() -> None:
    fractions = np.array([[0.1, 0.5, 0.2, 0.0], [0.2, 0.3, 0.1, 0.0], [0.6, 0.2, 0.1, 0.0]])
    np.testing.assert_array_equal(classes(fractions), [3, 1, 0, 0])
