"""Metrics against brute force in NumPy, SimpleITK, MONAI and shapes whose answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from shiftproof.errors import GeometryError, LabelError
from shiftproof.metrics import segmentation as metrics
from shiftproof.metrics.segmentation import LARGER_IS_BETTER, measure

SPACING = (0.8, 1.1, 2.5)


def blobs(seed, shape=(14, 12, 9), structures=2, margin=0):
    """Two overlapping random segmentations with smooth structures of some size."""
    from scipy.ndimage import gaussian_filter

    random = np.random.default_rng(seed)
    field = gaussian_filter(random.normal(size=(structures + 1, *shape)), (0, *(1.5 if n > 1 else 0 for n in shape)))
    shift = gaussian_filter(random.normal(size=field.shape), (0, *(1.5 if n > 1 else 0 for n in shape)))
    pair = [np.argmax(f, 0).astype(np.uint8) for f in (field, field + 0.7 * shift)]
    inner = tuple(slice(margin, n - margin) if n > 2 * margin else slice(None) for n in shape)
    for array in pair:
        outside = np.ones(shape, bool)
        outside[inner] = False
        array[outside] = 0
    return pair


def values(prediction, label, structure="a", **options):
    options = {"classes": ["background", "a", "b"], "spacing_mm": SPACING, **options}
    rows = measure(prediction, label, **options)
    return {row["metric"]: row["value"] for row in rows if row["structure"] == structure}


def borders_by_hand(structure):
    """Voxel by voxel; axes of one voxel have no neighbours."""
    points = []
    for at in np.argwhere(structure):
        for axis in range(structure.ndim):
            for step in (-1, 1):
                other = at.copy()
                other[axis] += step
                outside = not 0 <= other[axis] < structure.shape[axis]
                if structure.shape[axis] > 1 and (outside or not structure[tuple(other)]):
                    points.append(tuple(at))
    return np.array(sorted(set(points)), float)


def surfaces_by_hand(p, y, spacing, tolerance):
    a, b = borders_by_hand(p) * spacing, borders_by_hand(y) * spacing
    pairs = np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1))
    there, back = pairs.min(1), pairs.min(0)
    return {
        "hd95 mm": max(np.percentile(there, 95), np.percentile(back, 95)),
        "assd mm": (there.sum() + back.sum()) / (len(there) + len(back)),
        "surface dice": ((there <= tolerance).sum() + (back <= tolerance).sum()) / (len(there) + len(back)),
    }


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("shape", [(14, 12, 9), (16, 15, 1), (1, 9, 12), (17, 13)])
def test_surfaces_agree_with_brute_force(seed, shape):
    prediction, label = blobs(seed, shape)
    spacing = SPACING[: len(shape)]

    found = values(prediction, label, spacing_mm=spacing, tolerance_mm=1.5)

    for metric, expected in surfaces_by_hand(prediction == 1, label == 1, spacing, 1.5).items():
        assert found[metric] == pytest.approx(expected, rel=1e-12), metric
    assert 0 < found["surface dice"] < 1


@pytest.mark.parametrize("seed", range(3))
def test_overlap_agrees_with_simpleitk(seed):
    sitk = pytest.importorskip("SimpleITK")
    prediction, label = blobs(seed)
    overlap = sitk.LabelOverlapMeasuresImageFilter()
    overlap.Execute(sitk.GetImageFromArray(prediction), sitk.GetImageFromArray(label))

    for index, structure in ((1, "a"), (2, "b")):
        found = values(prediction, label, structure)
        assert found["dice"] == pytest.approx(overlap.GetDiceCoefficient(index))
        assert found["sensitivity"] == pytest.approx(1 - overlap.GetFalseNegativeError(index))
        assert found["precision"] == pytest.approx(1 - overlap.GetFalseDiscoveryRate(index))
        count = (prediction == index).sum() - (label == index).sum()
        assert found["volume error ml"] == pytest.approx(count * math.prod(SPACING) / 1000)


@pytest.mark.parametrize("seed", range(3))
def test_surfaces_agree_with_distance_maps_of_simpleitk(seed):
    sitk = pytest.importorskip("SimpleITK")
    prediction, label = blobs(seed, margin=1)  # its contours do not count the edge of the image

    def image(array):
        made = sitk.GetImageFromArray(array.T)
        made.SetSpacing(SPACING)
        return made

    contours = [sitk.LabelContour(image((a == 1).astype(np.uint8))) for a in (prediction, label)]
    away = [sitk.SignedMaurerDistanceMap(c, squaredDistance=False, useImageSpacing=True) for c in contours]
    there, back = (
        np.abs(sitk.GetArrayFromImage(d))[sitk.GetArrayFromImage(c) > 0]
        for c, d in zip(contours, reversed(away), strict=True)
    )
    found = values(prediction, label)

    assert found["hd95 mm"] == pytest.approx(max(np.percentile(there, 95), np.percentile(back, 95)), rel=1e-5)
    assert found["assd mm"] == pytest.approx(np.concatenate([there, back]).mean(), rel=1e-5)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_surfaces_agree_with_monai():
    monai = pytest.importorskip("monai.metrics")
    prediction, label = blobs(1)
    p, y = (torch.as_tensor(a == 1)[None, None] for a in (prediction, label))
    given = {"include_background": True, "spacing": SPACING}
    found = values(prediction, label, tolerance_mm=2.0)

    hd95 = monai.compute_hausdorff_distance(p, y, percentile=95, **given)
    assd = monai.compute_average_surface_distance(p, y, symmetric=True, **given)
    surface_dice = monai.compute_surface_dice(p, y, [2.0], **given)

    assert found["hd95 mm"] == pytest.approx(hd95.item(), rel=1e-5)
    assert found["assd mm"] == pytest.approx(assd.item(), rel=1e-5)
    assert found["surface dice"] == pytest.approx(surface_dice.item(), rel=1e-5)


def test_concentric_spheres_are_their_radii_apart():
    axes = np.meshgrid(*[np.arange(-24, 25)] * 3, indexing="ij")
    radius = np.sqrt(sum(a**2 for a in axes))
    small, large = ((radius <= r).astype(np.uint8) for r in (15, 20))

    found = values(small, large, spacing_mm=(0.5,) * 3, tolerance_mm=2.5 + 0.5)

    assert found["hd95 mm"] == pytest.approx(2.5, abs=0.5)
    assert found["assd mm"] == pytest.approx(2.5, abs=0.25)
    assert found["surface dice"] == 1
    assert found["dice"] == pytest.approx(2 * 15**3 / (15**3 + 20**3), rel=0.01)
    assert found["volume error ml"] == pytest.approx(4 / 3 * math.pi * (7.5**3 - 10**3) / 1000, rel=0.01)
    assert found["sensitivity"] == pytest.approx((15 / 20) ** 3, rel=0.02)
    assert found["precision"] == 1


def test_a_slab_moved_along_an_axis_is_off_by_the_spacing():
    """Faces 2 voxels apart on a grid of 2.5 mm; the sides lie on the edge of the image and agree."""
    label = np.zeros((3, 3, 12), np.uint8)
    prediction = label.copy()
    label[..., 2:5] = 1
    prediction[..., 4:7] = 1

    found = values(prediction, label)

    assert found["hd95 mm"] == pytest.approx(5.0)
    assert found["dice"] == pytest.approx(1 / 3)


def test_a_distance_equal_to_the_tolerance_is_within_it():
    label = np.zeros((7, 3, 3), np.uint8)
    prediction = label.copy()
    label[1, 1, 1], prediction[4, 1, 1] = 1, 1
    spacing = (0.1, 1, 1)  # 3 * 0.1 > 0.3

    assert values(prediction, label, spacing_mm=spacing, tolerance_mm=0.3)["surface dice"] == 1
    assert values(prediction, label, spacing_mm=spacing, tolerance_mm=0.29)["surface dice"] == 0


def test_a_slice_has_no_border_through_its_plane():
    """In a slice, the inside of a disc is no surface; in a volume, a flat disc is nothing but surface."""
    label = np.zeros((20, 20, 1), np.uint8)
    prediction = label.copy()
    label[4:16, 4:16], prediction[6:14, 6:14] = 1, 1

    def stacked(array):
        return np.pad(array, ((0, 0), (0, 0), (1, 1)))

    flat = values(prediction, label, spacing_mm=(1, 1, 5))
    volume = values(stacked(prediction), stacked(label), spacing_mm=(1, 1, 5))

    # Rings of 28 and 44 voxels at distance 2, but for the corners of the outer one.
    assert flat["surface dice"] == pytest.approx((28 + 32) / 72)
    assert volume["assd mm"] < flat["assd mm"]


def test_the_edge_of_the_image_is_a_surface():
    everything = np.ones((5, 5, 5), np.uint8)
    inner = np.zeros_like(everything)
    inner[1:-1, 1:-1, 1:-1] = 1

    assert values(inner, everything, spacing_mm=(1, 1, 1))["hd95 mm"] == pytest.approx(math.sqrt(3))
    assert values(everything, everything, spacing_mm=(1, 1, 1))["assd mm"] == 0


def test_the_surroundings_do_not_matter():
    prediction, label = blobs(0)
    wide = [np.pad(a, ((5, 0), (3, 9), (1, 1))) for a in (prediction, label)]
    narrow = [np.pad(a, 1) for a in (prediction, label)]

    assert values(*wide) == pytest.approx(values(*narrow))


def test_absent_from_both_has_no_value():
    empty = np.zeros((4, 4, 4), np.uint8)

    rows = measure(empty, empty, classes=["background", "a"], spacing_mm=(1, 1, 1))

    assert [row["metric"] for row in rows] == list(LARGER_IS_BETTER)
    assert {row["status"] for row in rows} == {"both empty"}
    assert all(math.isnan(row["value"]) for row in rows)


@pytest.mark.parametrize(
    ("status", "sensitivity", "precision", "error"),
    [
        ("missed", 0, math.nan, -0.008),
        ("spurious", math.nan, 0, 0.008),
    ],
)
def test_absent_from_one_is_no_overlap_and_the_diagonal_of_the_image(status, sensitivity, precision, error):
    empty, full = np.zeros((240, 240, 155), np.uint8), np.zeros((240, 240, 155), np.uint8)
    full[3:5, 3:5, 3:5] = 1
    pair = (empty, full) if status == "missed" else (full, empty)

    rows = measure(*pair, classes=["background", "a"], spacing_mm=(1, 1, 1))
    found = {row["metric"]: row["value"] for row in rows}

    assert {row["status"] for row in rows} == {status}
    assert (found["dice"], found["surface dice"]) == (0, 0)
    # The 373.13 mm that the BraTS challenge writes for a missed structure on this grid.
    assert found["hd95 mm"] == found["assd mm"] == pytest.approx(373.13, abs=0.005)
    assert found["sensitivity"] == pytest.approx(sensitivity, nan_ok=True)
    assert found["precision"] == pytest.approx(precision, nan_ok=True)
    assert found["volume error ml"] == pytest.approx(error)


def test_the_diagonal_of_a_slice_lies_in_its_plane():
    label = np.zeros((30, 40, 1), np.uint8)
    label[3, 3] = 1

    assert values(np.zeros_like(label), label, spacing_mm=(2, 2, 7))["hd95 mm"] == pytest.approx(100)


def test_a_structure_that_the_site_does_not_annotate_has_no_rows():
    prediction, label = blobs(0)

    rows = measure(
        prediction, label, classes=["background", "a", "b"], spacing_mm=SPACING, annotated=[True, False, True]
    )

    assert {row["structure"] for row in rows} == {"b"}


def test_ignored_voxels_say_nothing():
    prediction, label = blobs(2)
    ignore = np.zeros(label.shape, bool)
    ignore[:, :, 4:] = True
    other_label, other_prediction = label.copy(), prediction.copy()
    other_label[ignore] = 255
    other_prediction[ignore] = 1

    found = values(prediction, label, ignore=ignore)

    assert values(other_prediction, other_label, ignore=ignore) == pytest.approx(found)
    cut = values(prediction[:, :, :4], label[:, :, :4])
    for metric in ("dice", "sensitivity", "precision", "volume error ml"):
        assert found[metric] == pytest.approx(cut[metric])


def test_a_face_towards_ignored_voxels_is_no_surface():
    """Two rods that differ at one end; where they run into the unknown, nothing is known to agree."""
    label = np.zeros((20, 3, 3), np.uint8)
    label[2:, 1, 1] = 1
    prediction = label.copy()
    prediction[2:5] = 0
    ignore = np.ones(label.shape, bool)
    ignore[:, 1, 1] = False
    ignore[15:] = True

    found = values(prediction, label, spacing_mm=(1, 1, 1), ignore=ignore)

    assert found["hd95 mm"] == found["assd mm"] == 3
    assert found["dice"] == pytest.approx(2 * 10 / 23)


def test_a_surface_that_is_all_unknown_has_no_distance():
    label = np.zeros((5, 5, 5), np.uint8)
    label[2, 2, 2] = 1
    ignore = label == 0

    found = values(label, label, ignore=ignore)

    assert found["dice"] == 1
    assert all(math.isnan(found[metric]) for metric in ("hd95 mm", "assd mm", "surface dice"))


@pytest.mark.parametrize("convert", [np.asarray, torch.as_tensor])
def test_metrics_of_a_batch_are_those_of_its_samples(convert):
    pairs = [blobs(seed) for seed in range(3)]
    pairs.append([np.zeros_like(pairs[0][0]), pairs[0][1]])
    pairs.append([np.zeros_like(pairs[0][0])] * 2)
    ignore = np.random.default_rng(0).random((5, *pairs[0][0].shape)) < 0.1
    prediction, label = (convert(np.stack(side) == 1) for side in zip(*pairs, strict=True))
    unknown = convert(ignore)
    space = {"spacing_mm": SPACING}
    found = {
        "dice": metrics.dice(prediction, label, ignore=unknown),
        "sensitivity": metrics.sensitivity(prediction, label, ignore=unknown),
        "precision": metrics.precision(prediction, label, ignore=unknown),
        "volume error ml": metrics.volume_error_ml(prediction, label, ignore=unknown, **space),
        "surface dice": metrics.surface_dice(prediction, label, tolerance_mm=1, ignore=unknown, **space),
        "hd95 mm": metrics.hd95_mm(prediction, label, ignore=unknown, **space),
        "assd mm": metrics.assd_mm(prediction, label, ignore=unknown, **space),
    }

    assert set(found) == set(LARGER_IS_BETTER)
    expected = [values(p, y, ignore=i, tolerance_mm=1) for (p, y), i in zip(pairs, ignore, strict=True)]
    for metric, value in found.items():
        assert value.shape == (5,)
        assert value.tolist() == pytest.approx([e[metric] for e in expected], nan_ok=True), metric


def test_measures_take_tensors():
    prediction, label = blobs(0)

    assert values(torch.as_tensor(prediction).long(), torch.as_tensor(label)) == values(prediction, label)


def test_an_area_is_no_volume():
    prediction, label = blobs(0, (17, 13))

    assert math.isnan(values(prediction, label, spacing_mm=(1, 1))["volume error ml"])


def test_bad_input_is_named():
    prediction, label = blobs(0)
    with pytest.raises(GeometryError, match="share one shape"):
        values(prediction[1:], label)
    with pytest.raises(GeometryError, match="each of 3 axes"):
        values(prediction, label, spacing_mm=(1, 0, 1))
    with pytest.raises(LabelError, match=r"holds 0 to 1, got also \[2\]"):
        values(prediction, label, classes=["background", "a"])
    with pytest.raises(LabelError, match="float64 values; take the argmax"):
        values(prediction.astype(float), label)
    with pytest.raises(LabelError, match="one bool for each of 3"):
        values(prediction, label, annotated=[True, True])
