"""Lesions against brute force: components by flooding, assignments by trying them all."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from shiftproof.errors import GeometryError, OptionError
from shiftproof.metrics.lesions import LARGER_IS_BETTER, Lesions, components, lesions


def flooded(structure, faces_only=False):
    """Sets of voxels, by walking from neighbour to neighbour."""
    left, found = {tuple(v) for v in np.argwhere(structure)}, []
    steps = [s for s in itertools.product((-1, 0, 1), repeat=structure.ndim) if any(s)]
    steps = [s for s in steps if sum(map(abs, s)) == 1] if faces_only else steps
    while left:
        own, edge = set(), [left.pop()]
        while edge:
            at = edge.pop()
            own.add(at)
            near = {tuple(a + b for a, b in zip(at, s, strict=True)) for s in steps} & left
            left -= near
            edge += near
        found.append(own)
    return found


def assigned(predicted, labelled, above):
    """Every way to give each predicted component one labelled one or none; the best sum of IoU."""
    table = [[len(p & y) / len(p | y) for y in labelled] for p in predicted]

    def best(i, taken):
        if i == len(predicted):
            return 0.0, []
        total, chosen = best(i + 1, taken)
        for j, iou in enumerate(table[i]):
            if iou > above and j not in taken:
                rest, others = best(i + 1, taken | {j})
                if rest + iou > total + 1e-12:
                    total, chosen = rest + iou, [(i, j, iou), *others]
        return total, chosen

    return best(0, frozenset())[1]


def by_hand(prediction, label, above=0.1, smallest=0):
    p, y = flooded(prediction), flooded(label)

    def counted(threshold):
        found = assigned(p, y, threshold)
        hits = [iou for _, j, iou in found if len(y[j]) >= smallest]
        missed = [c for j, c in enumerate(y) if j not in {f[1] for f in found} and len(c) >= smallest]
        false = [c for i, c in enumerate(p) if i not in {f[0] for f in found} and len(c) >= smallest]
        return hits, len(missed), len(false)

    hits, missed, false = counted(above)
    panoptic, lacking, spurious = counted(0.5)
    below = len(panoptic) + lacking / 2 + spurious / 2
    return Lesions(len(hits), missed, false, sum(panoptic) / below if below else math.nan)


def scene(seed, shape=(11, 10)):
    """Specks and blobs on both sides, some shared; few enough to try all assignments."""
    random = np.random.default_rng(seed)
    label = random.random(shape) > 0.8
    prediction = np.where(random.random(shape) > 0.8, random.random(shape) > 0.6, label)
    if seed % 2:
        prediction = np.roll(prediction, 1, 0)
    return prediction.astype(bool), label


def close(found, expected):
    assert (found.found, found.missed, found.false) == (expected.found, expected.missed, expected.false)
    assert found.panoptic_quality == pytest.approx(expected.panoptic_quality, nan_ok=True)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("above", [0.0, 0.1, 0.34])
@pytest.mark.parametrize("smallest", [0, 3])
def test_counts_agree_with_brute_force(seed, above, smallest):
    prediction, label = scene(seed, (7, 8))
    found = lesions(prediction, label, iou=above, smallest_ml=float(smallest))
    close(found, by_hand(prediction, label, above, smallest))


@pytest.mark.parametrize("seed", range(4))
def test_counts_agree_with_brute_force_in_volumes(seed):
    random = np.random.default_rng(seed)
    label = random.random((5, 4, 4)) > 0.93
    prediction = label ^ (random.random(label.shape) > 0.95)
    close(lesions(prediction, label), by_hand(prediction, label))


@pytest.mark.parametrize("touching", ["corners", "faces"])
@pytest.mark.parametrize("shape", [(9, 9), (6, 5, 4), (9, 9, 1)])
def test_components_are_those_of_a_flood(touching, shape):
    structure = np.random.default_rng(3).random(shape) > 0.7
    numbers = components(structure, touching)
    own = {frozenset(map(tuple, np.argwhere(numbers == k))) for k in range(1, numbers.max() + 1)}
    assert own == {frozenset(c) for c in flooded(structure, touching == "faces")}
    assert not numbers[~structure].any()


def test_components_are_those_of_simpleitk():
    sitk = pytest.importorskip("SimpleITK")
    structure = np.random.default_rng(5).random((12, 13, 9)) > 0.85
    for touching, full in (("corners", True), ("faces", False)):
        theirs = sitk.GetArrayFromImage(
            sitk.ConnectedComponent(sitk.GetImageFromArray(structure.astype(np.uint8)), full)
        )
        assert components(structure, touching).max() == theirs.max()


def test_voxels_that_share_a_corner_are_one_lesion_unless_asked():
    structure = np.eye(3, dtype=bool)
    assert lesions(structure, structure).found == 1
    assert lesions(structure, structure, touching="faces").found == 3


def line(*spans, length=40):
    made = np.zeros((length, 3), bool)
    for start, stop in spans:
        made[start:stop, 1] = True
    return made


def test_panoptic_quality_is_its_equation():
    # Three labelled lesions: IoU 1, IoU 4/5 and IoU 1/3 (below one half); one predicted where nothing is.
    label = line((0, 4), (6, 11), (14, 17))
    prediction = line((0, 4), (6, 10), (16, 17), (30, 33))
    found = lesions(prediction, label)
    assert (found.found, found.missed, found.false) == (3, 0, 1)
    assert found.panoptic_quality == pytest.approx((1 + 4 / 5) / (2 + (1 + 2) / 2))
    assert found.values == pytest.approx(
        {
            "lesion f1": 6 / 7, "lesion sensitivity": 1, "lesion precision": 3 / 4, "false lesions": 1,
            "panoptic quality": 1.8 / 3.5,
        }
    )  # fmt: skip
    assert list(found.values) == list(LARGER_IS_BETTER)


def test_a_lesion_has_one_partner_and_the_better_one():
    label = line((0, 10))
    found = lesions(line((0, 3), (4, 10)), label)
    assert (found.found, found.missed, found.false) == (1, 0, 1)
    assert found.panoptic_quality == pytest.approx(0.6 / 1.5)  # of the longer part
    # One prediction over two lesions finds one of them.
    found = lesions(label, line((0, 4), (6, 10)))
    assert (found.found, found.missed, found.false) == (1, 1, 0)


def test_any_overlap_is_enough_where_it_is_declared():
    label, prediction = line((0, 20)), line((19, 20))
    assert lesions(prediction, label).found == 0
    assert lesions(prediction, label, iou=0.0).found == 1


def test_an_iou_at_the_threshold_is_no_hit():
    label, prediction = line((0, 10)), line((0, 1))
    assert lesions(prediction, label, iou=0.1).found == 0
    assert lesions(prediction, label, iou=0.0999).found == 1
    assert math.isnan(lesions(line(), line()).panoptic_quality)
    assert lesions(line((0, 5)), label).panoptic_quality == 0  # IoU 1/2 is not above 1/2


def test_scans_without_lesions_follow_the_declared_rule():
    nothing, one, two = line(), line((0, 4)), line((0, 4), (10, 12))
    both = lesions(nothing, nothing).values
    assert both.pop("false lesions") == 0
    assert all(math.isnan(v) for v in both.values())

    spurious = lesions(two, nothing).values
    assert math.isnan(spurious.pop("lesion sensitivity"))
    assert spurious == {"lesion f1": 0, "lesion precision": 0, "false lesions": 2, "panoptic quality": 0}

    missed = lesions(nothing, one).values
    assert math.isnan(missed.pop("lesion precision"))
    assert missed == {"lesion f1": 0, "lesion sensitivity": 0, "false lesions": 0, "panoptic quality": 0}


def test_what_is_below_the_smallest_volume_is_neither_miss_nor_false():
    size = {"voxel_ml": 0.5, "smallest_ml": 1.5}  # three voxels
    found = lesions(line((30, 32)), line((0, 2), (10, 13)), **size)
    assert (found.found, found.missed, found.false) == (0, 1, 0)
    # A small labelled lesion that is found counts for nothing, and its finder is not false.
    found = lesions(line((0, 4)), line((0, 2)), **size)
    assert (found.found, found.missed, found.false) == (0, 0, 0)
    # A large one that is found by a small component is found.
    found = lesions(line((0, 2)), line((0, 4)), **size)
    assert (found.found, found.missed, found.false) == (1, 0, 0)


def test_noise_of_thousands_of_specks_is_matched():
    random = np.random.default_rng(0)
    label = np.zeros((300, 300), bool)
    label[::3, ::3] = True  # 10 000 lesions of one voxel
    prediction = label & (random.random(label.shape) > 0.4)
    found = lesions(prediction, label)
    assert (found.found, found.missed, found.false) == (prediction.sum(), (label & ~prediction).sum(), 0)
    assert found.panoptic_quality == pytest.approx(found.values["lesion f1"])


def test_what_cannot_be_counted_is_refused():
    with pytest.raises(GeometryError, match="share one shape"):
        lesions(np.zeros((2, 2), bool), np.zeros((2, 3), bool))
    with pytest.raises(OptionError, match="from 0 to below 1"):
        lesions(line(), line(), iou=1.0)
    with pytest.raises(OptionError, match="smallest lesion"):
        lesions(line(), line(), smallest_ml=1.0, voxel_ml=math.nan)
    with pytest.raises(OptionError, match="way of touching"):
        components(line(), "edges")
