from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from shiftproof.data.resample import resample_image, resample_label


def smooth(size, seed=0):
    noise = np.random.default_rng(seed).normal(size=size)
    return ndimage.gaussian_filter(noise, 1.5).astype(np.float32)


@pytest.mark.parametrize("shape", [(12, 18, 9), (25, 9, 11), (9, 9, 30)])
def test_linear_enlargement_is_torch_interpolate(shape):
    array = smooth((9, 9, 9))
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(array)[None, None], size=shape, mode="trilinear", align_corners=False
    )[0, 0].numpy()
    np.testing.assert_allclose(resample_image(array, shape, (1, 1, 1)), expected, atol=1e-6)


def test_cubic_enlargement_is_scipy_zoom():
    array = smooth((12, 10, 14))
    expected = ndimage.zoom(array.astype(float), (2, 1.5, 1), order=3, mode="mirror", grid_mode=True)
    result = resample_image(array, expected.shape, (3, 3, 3))
    # At the border the two extend the image differently, by half a voxel.
    inner = (slice(4, -4), slice(3, -3), slice(None))
    np.testing.assert_allclose(result[inner], expected[inner], atol=2e-4)


def test_shrinking_smooths_away_what_the_coarse_grid_cannot_hold():
    stripes = np.tile(np.array([0.0, 1.0], np.float32), 24)[:, None, None] * np.ones((1, 4, 4), np.float32)
    result = resample_image(stripes, (13, 4, 4), (3, 3, 3))
    assert stripes.std() == 0.5
    assert result[2:-2].std() < 0.02
    np.testing.assert_allclose(result[2:-2].mean(), 0.5, atol=0.01)


def test_position_is_kept_in_both_directions():
    """The centre of mass, as a share of the axis, does not move by a hundredth of a voxel."""
    grid = (np.arange(48) + 0.5) / 48
    bump = np.exp(-((grid - 0.37) ** 2) / 0.005)[:, None, None] * np.ones((1, 3, 3))
    for new in (20, 31, 77):
        result = resample_image(bump, (new, 3, 3), (3, 3, 3))[:, 1, 1].astype(float)
        centre = (result * (np.arange(new) + 0.5) / new).sum() / result.sum()
        assert abs(centre - 0.37) < 0.01 / 48


def test_constants_and_range_are_kept():
    np.testing.assert_allclose(resample_image(np.full((7, 8, 9), 3.7), (10, 5, 9), (3, 1, 3)), 3.7, rtol=1e-6)
    step = np.zeros((16, 4, 4), np.float32)
    step[8:] = 1000
    result = resample_image(step, (37, 4, 4), (3, 3, 3))
    assert result.min() == 0
    assert result.max() == 1000


def test_equal_shape_changes_nothing():
    array = smooth((5, 6, 7))
    np.testing.assert_array_equal(resample_image(array, (5, 6, 7), (3, 3, 3)), array)


def test_labels_take_the_class_with_the_largest_share():
    label = np.zeros((4, 4, 4), np.uint8)
    label[2:] = 1
    label[:, 2:] = 255
    result = resample_label(label, (8, 8, 8))
    np.testing.assert_array_equal(result, label.repeat(2, 0).repeat(2, 1).repeat(2, 2))
    shares = {}
    random = np.random.default_rng(0).choice([0, 1, 4, 255], (9, 8, 7)).astype(np.uint8)
    for value in (0, 1, 4, 255):
        one = torch.from_numpy((random == value).astype(np.float32))[None, None]
        scaled = torch.nn.functional.interpolate(one, size=(14, 11, 13), mode="trilinear", align_corners=False)
        shares[value] = scaled[0, 0].numpy()
    stacked = np.stack(list(shares.values()))
    clear = np.sort(stacked, 0)[-1] - np.sort(stacked, 0)[-2] > 1e-4
    expected = np.array(list(shares))[stacked.argmax(0)]
    result = resample_label(random, (14, 11, 13))
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(result[clear], expected[clear])


def test_an_axis_of_one_voxel_can_grow():
    np.testing.assert_array_equal(resample_image(np.ones((4, 4, 1)), (4, 4, 5), (3, 3, 1)), 1)
