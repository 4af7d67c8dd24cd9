"""The declared rules, and that the code goes by them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from shiftproof.errors import OptionError
from shiftproof.metrics import rules
from shiftproof.metrics.rules import check_tolerance, radius_mm, read_tolerance, tolerance_words, unstable
from shiftproof.metrics.segmentation import ALSO, LARGER_IS_BETTER, measure
from shiftproof.metrics.surfaces import Grid

CLASSES = ["background", "lesion", "organ"]


def test_a_tolerance_is_read_as_one_number_or_one_by_structure():
    assert read_tolerance("2") == 2
    assert read_tolerance(1.5) == 1.5
    assert read_tolerance("lesion=1, big organ=3.5") == {"lesion": 1, "big organ": 3.5}
    for wrong in ("", "two", "lesion=", "=2", "1,2", "lesion=1,3"):
        with pytest.raises(OptionError, match="lesion=1,liver=3"):
            read_tolerance(wrong)


def test_tolerances_are_distances_of_known_structures():
    check_tolerance({"lesion": 1, "organ": 0}, CLASSES)
    for wrong in (-1, math.nan, math.inf, {"lesion": -0.5}):
        with pytest.raises(OptionError, match="0 or more"):
            check_tolerance(wrong, CLASSES)
    with pytest.raises(OptionError, match='did you mean "lesion"'):
        check_tolerance({"lesions": 1}, CLASSES)


def test_tolerances_are_said_in_words():
    assert tolerance_words(2.0) == "2 mm"
    assert tolerance_words({"lesion": 1.0}) == "1 mm for lesion, 2 mm for others"


def test_each_structure_is_scored_at_its_own_tolerance():
    label = np.zeros((20, 20, 20), np.uint8)
    label[2:8, 2:8, 2:8], label[10:18, 10:18, 10:18] = 1, 2
    given = {"classes": CLASSES, "spacing_mm": (1, 1, 1)}

    def surface(tolerance_mm):
        rows = measure(np.roll(label, 2, 0), label, tolerance_mm=tolerance_mm, **given)
        return [r["value"] for r in rows if r["metric"] == "surface dice"]

    wide, tight = surface(2.0), surface(0.5)
    assert wide == [1, 1]
    assert max(tight) < 1
    assert surface({"lesion": 0.5}) == [tight[0], wide[1]]  # what is not named has the default


def test_the_radius_is_that_of_a_ball_or_in_a_slice_of_a_disc():
    assert radius_mm(1000, Grid((50, 50, 50), (1, 1, 1))) == pytest.approx((750 / math.pi) ** (1 / 3))
    assert radius_mm(100, Grid((50, 50, 1), (2, 0.5, 7))) == pytest.approx(math.sqrt(100 / math.pi))
    assert radius_mm(100, Grid((50, 50), (2, 0.5))) == pytest.approx(math.sqrt(100 / math.pi))


def test_small_is_below_a_cube_of_five_and_in_a_slice_a_square_of_five():
    volume, plane = Grid((30, 30, 30), (1, 1, 1)), Grid((30, 30, 1), (1, 1, 1))
    assert [unstable(n, volume, 0.1)[0] for n in (0, 1, 124, 125)] == [False, True, True, False]
    assert [unstable(n, plane, 0.1)[0] for n in (24, 25)] == [True, False]


def test_a_cube_of_that_side_loses_a_fifth_of_its_dice_when_it_moves_by_a_voxel():
    label = np.zeros((12, 12, 12), np.uint8)
    label[3:8, 3:8, 3:8] = 1
    rows = measure(np.roll(label, 1, 0), label, classes=CLASSES[:2], spacing_mm=(1, 1, 1))
    assert rows[0]["metric"] == "dice"
    assert rows[0]["value"] == pytest.approx(1 - 1 / rules.SMALL_SIDE)


def test_a_tolerance_that_reaches_across_the_structure_is_said():
    grid = Grid((30, 30, 30), (1, 1, 1))
    radius = radius_mm(200, grid)
    assert not unstable(200, grid, radius - 0.01)[1]
    assert unstable(200, grid, radius)[1]
    assert not unstable(0, grid, 100)[1]


def pair(prediction, label, **options):
    given = {"classes": CLASSES[:2], "spacing_mm": (1, 1, 1), "lesions": ["lesion"], "also": list(ALSO), **options}
    return {r["metric"]: (r["value"], r["status"]) for r in measure(prediction, label, **given)}


def test_every_metric_follows_the_rules_of_empty_and_missed_structures(monkeypatch):
    monkeypatch.setattr("shiftproof.metrics.segmentation._skeletonize", lambda: lambda side: side)
    empty, full = np.zeros((9, 8, 7), np.uint8), np.zeros((9, 8, 7), np.uint8)
    full[2:6, 2:6, 2:6] = 1
    diagonal = math.hypot(9, 8, 7)
    distances = {"hd95 mm", "assd mm", "masd mm"}

    nothing = pair(empty, empty)
    assert {status for _, status in nothing.values()} == {"both empty"}
    assert {m for m, (v, _) in nothing.items() if not math.isnan(v)} == {"false lesions"}
    assert nothing["false lesions"][0] == 0

    for prediction, label, status, absent in (
        (empty, full, "missed", {"precision", "lesion precision"}),
        (full, empty, "spurious", {"sensitivity", "lesion sensitivity"}),
    ):
        found = pair(prediction, label)
        assert {s for _, s in found.values()} == {status}
        assert {m for m, (v, _) in found.items() if math.isnan(v)} == absent
        assert {m for m, (v, _) in found.items() if v == pytest.approx(diagonal)} == distances
        shares = set(found) - distances - absent - {"volume error ml", "false lesions"}
        assert {found[m][0] for m in shares} == {0}
        assert found["false lesions"][0] == (status == "spurious")


def test_further_metrics_come_after_the_others_and_each_once():
    label = np.zeros((9, 9, 9), np.uint8)
    label[2:5, 2:5, 2:5] = 1
    rows = measure(
        label, label, classes=CLASSES[:2], spacing_mm=(1, 1, 1), also=["masd mm", "boundary iou", "masd mm"],
        lesions=["lesion"],
    )  # fmt: skip
    assert [r["metric"] for r in rows] == [
        *LARGER_IS_BETTER, "masd mm", "boundary iou", "lesion f1", "lesion sensitivity", "lesion precision",
        "false lesions", "panoptic quality",
    ]  # fmt: skip


def test_what_is_asked_is_checked():
    label = np.zeros((4, 4, 4), np.uint8)
    given = {"classes": CLASSES, "spacing_mm": (1, 1, 1)}
    for options, words in (
        ({"lesions": ["tumour"]}, 'no structure "tumour"'),
        ({"also": ["cl-dice"]}, 'did you mean "cldice"'),
        ({"smallest_lesion_ml": -1.0}, "volume in ml"),
        ({"tolerance_mm": {"liver": 1}}, 'no structure "liver"'),
    ):
        with pytest.raises(OptionError, match=words):
            measure(label, label, **given, **options)
    flat = {"classes": CLASSES, "spacing_mm": (1, 1), "lesions": ["lesion"], "smallest_lesion_ml": 1.0}
    with pytest.raises(OptionError, match="these have none"):
        measure(label[0], label[0], **flat)


def test_lesions_below_the_smallest_volume_do_not_count_in_rows():
    label = np.zeros((20, 5, 5), np.uint8)
    label[1:3, 1:3, 1:3], label[6:10, 1:4, 1:4] = 1, 1  # 8 and 36 voxels of 2 mm^3
    given = {"classes": CLASSES[:2], "spacing_mm": (1, 1, 2), "lesions": ["lesion"]}
    large = label * (np.arange(20) > 4)[:, None, None].astype(np.uint8)

    def sensitivity(**options):
        return {r["metric"]: r["value"] for r in measure(large, label, **given, **options)}["lesion sensitivity"]

    assert sensitivity() == 0.5
    assert sensitivity(smallest_lesion_ml=0.017) == 1
    assert sensitivity(smallest_lesion_ml=0.016) == 0.5
