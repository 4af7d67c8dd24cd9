"""Metrics of boundaries and centrelines against brute force and known shapes."""

from __future__ import annotations

import math

import numpy as np
import pytest

from shiftproof.errors import OptionError
from shiftproof.metrics.segmentation import measure

SPACING = (0.8, 1.1, 2.5)


def value(prediction, label, metric, *, spacing_mm=SPACING, **options):
    given = {"classes": ["background", "a"], "spacing_mm": spacing_mm[: label.ndim], "also": [metric], **options}
    rows = measure(prediction.astype(np.uint8), label.astype(np.uint8), **given)
    (found,) = (r["value"] for r in rows if r["metric"] == metric)
    return found


def blobs(seed, shape):
    from scipy.ndimage import gaussian_filter

    random = np.random.default_rng(seed)
    sigma = [1.5 if n > 1 else 0 for n in shape]
    field, shift = (gaussian_filter(random.normal(size=shape), sigma) for _ in range(2))
    return field + 0.5 * shift > 0, field > 0


def border_by_hand(structure):
    """Voxel by voxel; axes of one voxel have no neighbours, the edge of the image is outside."""
    found = np.zeros(structure.shape, bool)
    for at in np.argwhere(structure):
        for axis in range(structure.ndim):
            for step in (-1, 1):
                other = at.copy()
                other[axis] += step
                outside = not 0 <= other[axis] < structure.shape[axis] or not structure[tuple(other)]
                found[tuple(at)] |= structure.shape[axis] > 1 and outside
    return found


def apart(a, b, spacing):
    a, b = np.argwhere(a) * spacing, np.argwhere(b) * spacing
    return np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1))


@pytest.mark.parametrize("shape", [(9, 8, 7), (12, 11, 1), (13, 12)])
@pytest.mark.parametrize("width", [0.1, 1.6, 2.5])
def test_boundary_iou_agrees_with_brute_force(shape, width):
    prediction, label = blobs(1, shape)
    bands = []
    for side in (prediction, label):
        near = apart(side, border_by_hand(side), SPACING[: len(shape)]).min(1) <= width
        bands.append({tuple(v) for v in np.argwhere(side)[near]})
    expected = len(bands[0] & bands[1]) / len(bands[0] | bands[1])
    assert value(prediction, label, "boundary iou", tolerance_mm=width) == pytest.approx(expected)
    assert 0 < expected < 1


def test_the_band_of_a_large_structure_agrees_with_a_distance_map():
    from scipy.ndimage import distance_transform_edt

    label = np.zeros((26, 24, 14), bool)
    label[3:23, 2:22, 1:13] = True
    prediction = np.roll(label, 1, 0) & blobs(7, label.shape)[0] | label
    prediction[12:14, 11:13, :] = False  # a hole deep inside
    edges = [border_by_hand(side) for side in (prediction, label)]
    for width in (0.5, 1.1, 2.2, 3.3, 7.5):
        near = []
        for side, edge in zip((prediction, label), edges, strict=True):
            near.append(side & (distance_transform_edt(~edge, sampling=SPACING) <= width + 1e-9))
        expected = (near[0] & near[1]).sum() / (near[0] | near[1]).sum()
        assert value(prediction, label, "boundary iou", tolerance_mm=width) == pytest.approx(expected)


def test_boundary_iou_of_a_wide_band_is_the_iou():
    prediction, label = blobs(2, (10, 9, 8))
    expected = (prediction & label).sum() / (prediction | label).sum()
    assert value(prediction, label, "boundary iou", tolerance_mm=99.0) == pytest.approx(expected)


def test_boundary_iou_sees_what_the_overlap_of_a_large_structure_hides():
    label = np.zeros((60, 60), bool)
    label[5:55, 5:55] = True
    prediction = np.zeros_like(label)
    prediction[6:54, 6:54] = True  # one voxel too small all round
    dice = 2 * 48**2 / (48**2 + 50**2)
    assert value(prediction, label, "boundary iou", spacing_mm=(1, 1), tolerance_mm=0.5) == 0
    assert dice > 0.95


@pytest.mark.parametrize("shape", [(9, 8, 7), (12, 11, 1)])
def test_masd_is_the_mean_of_the_two_directed_means(shape):
    prediction, label = blobs(3, shape)
    pairs = apart(border_by_hand(prediction), border_by_hand(label), SPACING)
    expected = (pairs.min(1).mean() + pairs.min(0).mean()) / 2
    assert value(prediction, label, "masd mm") == pytest.approx(expected)


def test_masd_weighs_both_directions_alike_and_assd_does_not():
    label, prediction = np.zeros((40, 3), bool), np.zeros((40, 3), bool)
    label[:, 1], prediction[0, 1] = True, True
    # One voxel against a line of 40: there 0 mm, back 0 to 39 mm.
    assert value(prediction, label, "masd mm", spacing_mm=(1, 1)) == pytest.approx((0 + 19.5) / 2)
    assert value(prediction, label, "assd mm", spacing_mm=(1, 1), also=[]) == pytest.approx(40 * 19.5 / 41)


def test_ignored_voxels_leave_no_border():
    label = np.zeros((8, 3), bool)
    label[2:5, :] = True
    ignore = np.ones((8, 3), bool)
    ignore[3, 1] = False  # inside, all its neighbours unknown
    for metric in ("boundary iou", "masd mm"):
        assert math.isnan(value(label, label, metric, spacing_mm=(1, 1), ignore=ignore))


def test_centrelines_need_a_library_and_the_message_says_which(monkeypatch):
    import builtins

    real = builtins.__import__

    def without(name, *rest, **given):
        if name.startswith("skimage"):
            raise ImportError(name)
        return real(name, *rest, **given)

    monkeypatch.setattr(builtins, "__import__", without)
    label = np.ones((5, 5), bool)
    with pytest.raises(OptionError, match="pip install scikit-image"):
        value(label, label, "cldice")


def test_cldice_is_the_harmonic_mean_of_two_shares():
    pytest.importorskip("skimage")
    label, prediction = np.zeros((30, 7, 7), bool), np.zeros((30, 7, 7), bool)
    label[2:28, 3, 3] = True  # lines of one voxel are their own centreline
    prediction[2:15, 3, 3] = True  # half of it
    prediction[15:20, 5, 5] = True  # and a piece that is not there
    precision, sensitivity = 13 / 18, 13 / 26
    expected = 2 * precision * sensitivity / (precision + sensitivity)
    assert value(prediction, label, "cldice") == pytest.approx(expected)


def test_cldice_forgives_width_and_not_gaps():
    pytest.importorskip("skimage")
    label = np.zeros((40, 11, 11), bool)
    label[3:37, 4:7, 4:7] = True
    thick = np.zeros_like(label)
    thick[3:37, 3:8, 3:8] = True
    broken = label.copy()
    broken[15:25] = False
    assert value(thick, label, "cldice") > 0.95
    assert value(thick, label, "cldice") > value(broken, label, "cldice")
    dice = {"spacing_mm": SPACING, "also": []}
    assert value(thick, label, "dice", **dice) < value(broken, label, "dice", **dice)


@pytest.mark.parametrize("shape", [(30, 9), (30, 9, 1)])
def test_cldice_of_a_slice_is_that_of_its_plane(shape):
    pytest.importorskip("skimage")
    label = np.zeros((30, 9), bool)
    label[2:28, 3:6] = True
    prediction = np.roll(label, 1, 1)
    plane = value(prediction, label, "cldice", spacing_mm=(1, 1))
    assert plane == 1  # the centrelines lie a voxel inside of the other
    assert value(prediction.reshape(shape), label.reshape(shape), "cldice", spacing_mm=(1, 1, 1)[: len(shape)]) == plane


def test_cldice_agrees_with_a_skeleton_of_its_own():
    skimage = pytest.importorskip("skimage.morphology")
    prediction, label = blobs(5, (16, 15, 14))
    p, y = skimage.skeletonize(np.pad(prediction, 1)), skimage.skeletonize(np.pad(label, 1))
    precision = (p & np.pad(label, 1)).sum() / p.sum()
    sensitivity = (y & np.pad(prediction, 1)).sum() / y.sum()
    expected = 2 * precision * sensitivity / (precision + sensitivity)
    assert value(prediction, label, "cldice") == pytest.approx(expected)
