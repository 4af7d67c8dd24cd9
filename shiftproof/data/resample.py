"""Another number of voxels along each axis, without leaving the index space.

Voxel `i` of `n` covers [i, i + 1) of the whole, so that the first and the last edges stay where they are: the
convention of `torch.nn.functional.interpolate(align_corners=False)`, which therefore takes scores back
exactly. Each axis is a linear map, a sparse matrix; the sums run in a fixed order whatever the number of
threads.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np


def resample_image(array: np.ndarray, shape: Sequence[int], orders: Sequence[int]) -> np.ndarray:
    """An image (X, Y, Z) with `shape` voxels, float32, within its own range of values.

    Args:
        array: The image.
        shape: Voxels along each axis afterwards.
        orders: Order of the B-spline along each axis: 1 linear, 3 cubic. Where the number of voxels falls,
            the axis is smoothed first, so that fine detail does not fold into coarse patterns.
    """
    array = np.asarray(array, dtype=np.float32)
    low, high = array.min(), array.max()
    for axis, (new, order) in enumerate(zip(shape, orders, strict=True)):
        array = _along(array, axis, new, order, True)
    return np.clip(array, low, high)  # cubic splines overshoot at edges


def resample_label(array: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """A label (X, Y, Z) of class indices with `shape` voxels: the class whose linear share is largest."""
    if array.shape == tuple(shape):
        return array
    best = np.zeros(tuple(shape), np.float32)
    label = np.zeros(tuple(shape), array.dtype)
    # The lowest index wins ties.
    for index in np.unique(array):
        share = (array == index).astype(np.float32)
        for axis, new in enumerate(shape):
            share = _along(share, axis, new, 1, False)
        larger = share > best + 1e-6
        label[larger] = index
        best[larger] = share[larger]
    return label


def _along(array: np.ndarray, axis: int, new: int, order: int, smooth: bool) -> np.ndarray:
    old = array.shape[axis]
    if new == old:
        return array
    first = np.moveaxis(array, axis, 0)
    rest = first.shape[1:]
    result = _matrix(old, new, order, smooth) @ np.ascontiguousarray(first).reshape(old, -1)
    return np.moveaxis(result.reshape(new, *rest), 0, axis)


@functools.lru_cache(maxsize=64)
def _matrix(old: int, new: int, order: int, smooth: bool) -> Any:
    from scipy import ndimage, sparse

    # A linear map is what it does to unit vectors.
    columns = np.eye(old)
    factor = old / new
    if smooth and factor > 1:
        # The Gaussian that turns a voxel's width into the new one's, both taken as full widths at half
        # maximum.
        sigma = math.sqrt(factor**2 - 1) / (2 * math.sqrt(2 * math.log(2)))
        columns = ndimage.gaussian_filter1d(columns, sigma, axis=0, mode="nearest")
    at = np.clip((np.arange(new) + 0.5) * factor - 0.5, 0, old - 1)
    matrix = np.stack([ndimage.map_coordinates(c, [at], order=order, mode="mirror") for c in columns.T], axis=1)
    matrix[np.abs(matrix) < 1e-7] = 0
    matrix /= matrix.sum(1, keepdims=True)  # a constant stays what it is
    return sparse.csr_matrix(matrix.astype(np.float32))
