from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from shiftproof.data.cohort import Cohort
from shiftproof.data.labels import IGNORE, LabelMap
from shiftproof.data.plan import Plan, make_plan
from shiftproof.data.sampling import Feed, Patches, cut, seeded, stacked, views
from shiftproof.data.splits import everything, hold_out
from shiftproof.data.store import Store
from shiftproof.data.targets import Targets, labels_from, read_labels
from shiftproof.errors import LabelError, PlanError, SplitError

GRADES = Targets("classification", "grade", ("low", "high"))
FINDINGS = Targets("classification", "finding", ("effusion", "mass"), "multi-label")
AGE = Targets("regression", "age", unit="years")


def table(tmp_path, scans, targets, cells, size=(20, 18, 1)) -> Cohort:
    """A picture for each tuple of cells, at two sites in turn."""
    rows = []
    for i, values in enumerate(cells):
        image, _ = scans.blob((size[0], size[1], max(size[2], 3)), i)
        scans.write(tmp_path / f"{i}.nii.gz", image[:, :, : size[2]])
        rows.append({"subject": f"s{i}", "site": "AB"[i % 2], "image": f"{i}.nii.gz"})
        rows[-1] |= dict(zip(targets.columns, values, strict=True))
    targets.write(tmp_path / "labels.toml")
    pd.DataFrame(rows).to_csv(tmp_path / "table.csv", index=False)
    return Cohort.read(tmp_path / "table.csv")


@pytest.mark.parametrize("targets", [GRADES, FINDINGS, AGE], ids=lambda t: t.column)
def test_the_file_gives_back_what_was_written(tmp_path, targets):
    targets.write(tmp_path / "labels.toml")
    assert read_labels(tmp_path / "labels.toml") == targets
    assert labels_from(targets.as_dict()) == targets


def test_a_file_without_a_task_is_of_a_segmentation(tmp_path):
    LabelMap.of_values({"disc": 1}).write(tmp_path / "labels.toml")
    assert read_labels(tmp_path / "labels.toml") == LabelMap.of_values({"disc": 1})


def test_cells_become_indices_findings_and_numbers():
    assert GRADES.of({"grade": "high"}, "s").tolist() == 1
    assert GRADES.of({"grade": ""}, "s") is None
    found = FINDINGS.of({"finding:effusion": "1", "finding:mass": ""}, "s")
    np.testing.assert_array_equal(found, [1, np.nan])
    np.testing.assert_array_equal(FINDINGS.annotated(found), [True, False])
    assert AGE.of({"age": "61.5"}, "s") == 61.5


@pytest.mark.parametrize(
    ("targets", "cells", "words"),
    [
        (GRADES, {"grade": "hgih"}, "no class of labels.toml; there are low, high"),
        (FINDINGS, {"finding:effusion": "2", "finding:mass": "0"}, "expected 1 .present., 0 .absent. or nothing"),
        (AGE, {"age": "old"}, 'age is "old", expected a number'),
        (AGE, {"age": "inf"}, "expected a number"),
    ],
)
def test_a_cell_without_a_meaning_is_named(targets, cells, words):
    with pytest.raises(LabelError, match=words):
        targets.of(cells, "subject s7")


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"task": "detection"}, "there is no task 'detection'"),
        ({"task": "classification", "column": "grade", "classes": ["one"]}, "at least 2 classes"),
        ({"task": "classification", "column": "grade", "classes": [1, 2]}, "names in quotes"),
        ({"task": "classification", "column": "grade", "classes": ["a", "b"], "kind": "multi"}, "multi-class"),
        ({"task": "regression", "column": "age", "classes": ["a"]}, '"classes" is no entry of a regression'),
        ({"task": "regression", "column": "subject"}, "a column of their own"),
        ({"task": "regression", "column": 3}, "are text"),
    ],
)
def test_a_wrong_file_is_refused_by_its_name(table, words):
    with pytest.raises(LabelError, match=words) as caught:
        labels_from(table, "labels.toml")
    assert "labels.toml" in str(caught.value)


def test_a_column_that_is_not_there_is_named(tmp_path, scans):
    table(tmp_path, scans, GRADES, [("low",), ("high",)])
    Targets("classification", "grades", ("low", "high")).write(tmp_path / "labels.toml")
    with pytest.raises(LabelError, match='did you mean "grade"'):
        Cohort.read(tmp_path / "table.csv")


def test_labels_leave_with_every_trace(tmp_path, scans):
    cohort = table(tmp_path, scans, GRADES, [("low",), ("high",), ("",), ("low",)])
    assert cohort.labelled == 3
    assert [r.labelled for r in cohort.rows()] == [True, True, False, True]
    assert all("grade" not in r.columns for r in cohort.rows())
    bare = cohort.without_labels()
    assert bare.labelled == 0
    assert set(bare.table["grade"]) == {""}
    assert bare.hash() != cohort.hash()


def test_a_column_named_label_may_hold_classes(tmp_path, scans):
    cohort = table(tmp_path, scans, Targets("classification", "label", ("low", "high")), [("low",), ("high",)])
    assert [int(r.target) for r in cohort.rows()] == [0, 1]
    assert all(r.label is None for r in cohort.rows())
    again = Cohort.read(cohort.write(tmp_path / "again" / "table.csv"))
    assert list(again.table["label"]) == ["low", "high"]


def test_splits_divide_labelled_scans_and_hide_held_out_labels(tmp_path, scans):
    cohort = table(tmp_path, scans, AGE, [(str(30 + i) if i != 5 else "",) for i in range(12)])
    split = hold_out(cohort, "A")
    assert set(split.train.domains) == {"B"}
    assert "s5" not in [*split.train.subjects, *split.validation.subjects]
    assert split.target.labelled == 0
    assert split.test.labelled == len(split.test)
    assert everything(cohort).target.subjects == ["s5"]
    with pytest.raises(SplitError, match="labelled"):
        hold_out(cohort.without_labels(), "A")


def test_another_label_makes_another_case_with_the_same_image(tmp_path, scans):
    cohort = table(tmp_path, scans, GRADES, [("low",), ("high",)])
    plan = make_plan(cohort)
    store = Store(tmp_path / "store")
    (one, two) = store.prepare(cohort, plan)
    assert one.target == 0
    assert two.target == 1
    assert one.label is None
    assert one.centres == {}
    (bare, _) = store.prepare(cohort.without_labels(), plan)
    assert (bare.target, bare.labelled) == (None, False)
    np.testing.assert_array_equal(bare.image, one.image)
    assert bare.key != one.key


def test_a_plan_says_what_is_predicted(tmp_path, scans):
    ages = [20.0, 30.0, 55.0, 61.0]
    plan = make_plan(table(tmp_path, scans, AGE, [(str(a),) for a in ages]))
    assert plan.target == {
        "task": "regression", "column": "age", "unit": "years", "mean": np.mean(ages), "sd": np.std(ages),
    }  # fmt: skip
    assert Plan.from_json(plan.to_json()) == plan
    with pytest.raises(PlanError, match="no spread"):
        make_plan(table(tmp_path, scans, AGE, [("40",), ("40",)]))


def test_a_patch_covers_every_scan_that_has_one_label(tmp_path, scans):
    cohort = table(tmp_path, scans, GRADES, [("low",), ("high",)], size=(300, 200, 1))
    # Blobs fill less than the field; what is cropped away is background.
    plan = make_plan(cohort)
    shapes = [case.image.shape[1:3] for case in Store(tmp_path / "store").prepare(cohort, plan)]
    assert plan.spacing_mm[0] > 1
    assert plan.spacing_mm[0] == plan.spacing_mm[1]
    assert all(n <= p for shape in shapes for n, p in zip(shape, plan.patch, strict=True))
    assert max(max(shape) for shape in shapes) == 128


def test_views_are_the_middle_of_a_scan_filled_up():
    image = np.arange(2 * 6 * 3 * 2, dtype=np.float32).reshape(2, 6, 3, 2)
    shown = views(image, (4, 5))
    assert shown.shape == (2, 2, 4, 5)
    np.testing.assert_array_equal(shown[1, :, :, 1:4], image[:, 1:5, :, 1])
    assert not shown[:, :, :, [0, 4]].any()
    np.testing.assert_array_equal(views(image, (6, 3, 2))[0], image)


def test_neighbouring_slices_become_channels_in_order():
    image = np.random.default_rng(0).normal(size=(2, 5, 4, 6)).astype(np.float32)
    np.testing.assert_array_equal(
        stacked(image[..., 1:4]), np.concatenate([image[..., 1], image[..., 2], image[..., 3]])
    )
    shown = views(image, (5, 4), context=1)
    assert shown.shape == (6, 6, 5, 4)
    np.testing.assert_array_equal(shown[2], np.concatenate([image[..., 1], image[..., 2], image[..., 3]]))
    # At the ends the last slice stands in.
    np.testing.assert_array_equal(shown[0], np.concatenate([image[..., 0], image[..., 0], image[..., 1]]))


def test_a_patch_with_context_has_the_label_of_its_middle_slice(toys):
    case = toys.cases("d0", 1, seed=0)[0]
    patch = cut(case, Patches((8, 8), 1.0, context=1), ["d0"], seeded(4))
    plain = cut(case, Patches((8, 8), 1.0), ["d0"], seeded(4))
    assert patch.image.shape == (1, 3 * plain.image.shape[1], 8, 8)
    channels = plain.image.shape[1]
    assert (patch.image[:, channels : 2 * channels] == plain.image).all()
    assert (patch.label == plain.label).all()


def test_batches_carry_the_labels_of_their_scans(tmp_path, scans):
    cohort = table(tmp_path, scans, FINDINGS, [("1", ""), ("0", "1"), ("1", "0"), ("0", "0")])
    cases = Store(tmp_path / "store").prepare(cohort, make_plan(cohort))
    batch = Feed(cases, ["A", "B"], Patches((16, 16)), size=4).batch(0).source
    for i, subject in enumerate(batch.subject):
        expected = [[1, 0], [0, 1], [1, 0], [0, 0]][int(subject[1:])]
        assert batch.label[i].tolist() == expected
        assert batch.extra["annotated"][i].tolist() == [True, subject != "s0"]
    assert batch.without_labels().label is None
    assert "annotated" not in batch.without_labels().extra


REGIONS = {"classes": ["background", "whole", "core"], "kind": "multi-label", "default": {"whole": [1, 2], "core": 2}}


def test_a_value_may_mean_several_structures():
    labels = LabelMap.from_dict({**REGIONS, "site": {"B": {"whole": [7, 8], "core": 8, "ignore": 9}}})
    assert labels.parts == [(False, False), (True, False), (True, True)]
    np.testing.assert_array_equal(labels.encode(np.array([0, 1, 2]), "A"), [0, 1, 2])
    np.testing.assert_array_equal(labels.encode(np.array([0, 7, 8, 9]), "B"), [0, 1, 2, IGNORE])
    assert LabelMap.from_dict(labels.as_dict()) == labels
    with pytest.raises(LabelError, match='kind = "multi-label" where structures overlap'):
        LabelMap.from_dict({**REGIONS, "kind": "multi-class"})
    with pytest.raises(LabelError, match="both background and whole"):
        LabelMap.from_dict({**REGIONS, "default": {"whole": [0, 1], "core": 2}})


def test_overlapping_structures_reach_the_plan(tmp_path, scans):
    cohort = scans.make_cohort(tmp_path, labels=LabelMap.from_dict(REGIONS))
    plan = make_plan(cohort)
    assert plan.target == {
        "task": "segmentation",
        "kind": "multi-label",
        "parts": [[False, False], [True, False], [True, True]],
    }
    assert Plan.from_json(plan.to_json()) == plan
    with pytest.raises(PlanError, match="target"):
        Plan.from_json(plan.to_json().replace('"parts": [', '"parts": [[true],'))
