from __future__ import annotations

import json
import shutil

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk

from shiftproof.data.checks import check, has_errors, report_json
from shiftproof.data.cohort import Cohort
from shiftproof.data.labels import LabelMap


def found(problems, kind: str) -> list[tuple[str, str]]:
    return [(p.severity, p.subject) for p in problems if p.kind == kind]


def test_a_sound_cohort_has_no_problem(cohort):
    assert check(cohort) == []


def test_everything_is_said_at_once(tmp_path, scans):
    """One cohort with every fault: each is found, none hides another."""
    cohort = scans.make_cohort(tmp_path, subjects=8)
    size = (18, 20, 24)
    image, label = scans.blob(size, 50)
    path = {name: tmp_path / f"{name}.nii.gz" for name in cohort.subjects}
    seg = {name: tmp_path / f"{name}_seg.nii.gz" for name in cohort.subjects}
    path["A0"].unlink()
    path["A1"].write_bytes(path["A1"].read_bytes()[:2000])
    path["A2"].write_bytes(b"")
    nan = image.copy()
    nan[3:5, 3, 3] = np.nan
    nib.save(nib.Nifti1Image(nan, np.diag([-1, -1, 1, 1])), path["A3"])
    scans.write(path["A4"], np.full(size, 7, np.float32))
    nib.save(nib.Nifti1Image(np.stack([image, image], -1), np.eye(4)), path["A5"])
    scans.write(seg["A6"], label, origin=(0, 3, 4))
    scans.write(seg["A7"], np.where(label == 2, 9, label).astype(np.uint8))
    scans.write(seg["B0"], np.zeros(size, np.uint8))
    scans.write(seg["B1"], label + np.float32(0.5) * (label == 1))
    # The same scan once more, in another format, number type and orientation.
    again = sitk.DICOMOrient(sitk.Cast(sitk.ReadImage(str(path["B2"])), sitk.sitkFloat64), "RIA")
    sitk.WriteImage(again, str(tmp_path / "copy.nrrd"))
    extra = {"subject": "B9", "image": "copy.nrrd", "label": "", "site": "B"}
    lonely = {"subject": "B4", "image": "c.nii.gz", "label": "", "site": "C"}
    scans.write(tmp_path / "c.nii.gz", scans.blob(size, 60)[0])
    table = pd.concat([cohort.table, pd.DataFrame([extra, lonely])])
    table["split"] = ["train"] * 17 + ["test"]
    cohort = Cohort(table, tmp_path, labels=cohort.labels)

    problems = check(cohort)
    expected = {
        "missing": [("error", "A0")],
        "truncated": [("error", "A1"), ("error", "A2")],
        "not finite": [("error", "A3")],
        "constant image": [("error", "A4")],
        "4D": [("error", "A5")],
        "geometry": [("error", "A6")],
        "unknown label values": [("error", "A7")],
        "empty label": [("warning", "B0")],
        "label values": [("error", "B1")],
        "same scan twice": [("error", "B9")],
        "both sides of a split": [("error", "B4")],
        "subject in several domains": [("warning", "B4")],
        "few subjects": [("error", "")],
    }
    assert {kind: found(problems, kind) for kind in expected} == expected
    assert sum(map(len, expected.values())) == len(problems)
    severities = [p.severity for p in problems]
    assert severities == sorted(severities)
    messages = {p.kind: p.message for p in problems}
    assert "2 of 8640 values" in messages["not finite"]
    assert "(by 5 mm)" in messages["geometry"]
    assert "2 volumes of 18 x 20 x 24" in messages["4D"]
    assert f"9 ({(label == 2).sum()} voxels)" in messages["unknown label values"]
    assert "body = 1, core = 2" in messages["unknown label values"]
    assert f"{(label == 1).sum()} values that are no whole numbers" in messages["label values"]
    assert "site=C has 1 subjects, expected at least 3" in messages["few subjects"]
    assert all(p.repair and "\n" not in p.message + p.repair for p in problems)
    assert check(cohort, workers=2) == problems


def test_domains_need_a_minimum_of_subjects_not_of_scans(tmp_path, cohort):
    assert found(check(cohort, minimum=4), "few subjects") == [("error", ""), ("error", "")]
    twice = cohort.table.assign(subject=["a", "a", "a", "b", "c", "d"])
    problems = check(Cohort(twice, tmp_path, labels=cohort.labels))
    assert [p.message for p in problems] == ["site=A has 1 subjects, expected at least 3"]


def test_the_same_scan_of_the_same_subject_is_only_a_warning(tmp_path, cohort):
    shutil.copy(tmp_path / "A0.nii.gz", tmp_path / "again.nii.gz")
    extra = pd.DataFrame([{"subject": "A0", "image": "again.nii.gz", "label": "", "site": "A"}])
    problems = check(Cohort(pd.concat([cohort.table, extra]), tmp_path, labels=cohort.labels))
    assert found(problems, "same scan twice") == [("warning", "A0")]
    assert not has_errors(problems)


def test_labels_without_a_meaning_are_one_problem(tmp_path, cohort):
    problems = check(Cohort(cohort.table, tmp_path))
    assert [(p.kind, p.severity) for p in problems] == [("no label map", "error")]
    assert "6 scans have a label" in problems[0].message
    assert check(Cohort(cohort.table, tmp_path).without_labels()) == []


def test_a_map_that_does_not_fit_the_labels_is_told(tmp_path, cohort):
    meaning = {
        "classes": ["background", "body", "core", "rim"],
        "default": {"body": 1, "core": 2, "rim": 3},
        "site": {"B": {"body": 1, "core": 2}, "Bb": {"body": 1}},
    }
    problems = check(cohort.with_labels(LabelMap.from_dict(meaning)))
    assert found(problems, "structure never occurs") == [("warning", "")]
    assert "rim is annotated at site=A, but in none of its 3 labels" in problems[-1].message
    assert [p.repair for p in problems if p.kind == "label map"] == [
        'remove the section, or correct its name: did you mean "B"?'
    ]
    only = LabelMap.from_dict({"classes": ["background", "body", "core"], "site": {"A": {"body": 1, "core": 2}}})
    missing = [p for p in check(cohort.with_labels(only)) if p.kind == "label values"]
    assert [p.subject for p in missing] == ["B0", "B1", "B2"]
    assert "no section [site.B]" in missing[0].message


def test_channels_of_a_scan_must_share_a_grid(tmp_path, scans):
    for name, spacing in {"a": 1, "b": 1, "c": 2}.items():
        scans.write(tmp_path / f"{name}.nii", scans.blob((9, 9, 9), ord(name))[0], spacing=(1, 1, spacing))
    table = pd.DataFrame(
        {"subject": ["s"], "image:X": ["a.nii"], "image:Y": ["b.nii"], "image:Z": ["c.nii"], "site": "A"}
    )
    problems = check(Cohort(table, tmp_path), minimum=1)
    assert [(p.kind, p.path.name) for p in problems] == [("geometry", "c.nii")]
    assert "a.nii and c.nii differ in spacing (1, 1, 1) against (1, 1, 2) mm (by up to 1 mm)" in problems[0].message


@pytest.mark.parametrize("ignored", [False, True])
def test_ignored_values_are_known_values(tmp_path, cohort, scans, ignored):
    label = scans.blob((18, 20, 24), 0)[1]
    label[:2] = 200
    scans.write(tmp_path / "A0_seg.nii.gz", label)
    meaning = LabelMap.of_values({"body": 1, "core": 2}, ignore=[200] if ignored else [])
    assert has_errors(check(cohort.with_labels(meaning))) is not ignored


def test_the_report_for_machines_counts_and_lists(tmp_path, cohort):
    (tmp_path / "A0.nii.gz").unlink()
    report = json.loads(report_json(check(cohort)))
    assert (report["errors"], report["warnings"]) == (1, 0)
    assert report["problems"][0] == {
        "kind": "missing",
        "severity": "error",
        "subject": "A0",
        "path": str(tmp_path / "A0.nii.gz"),
        "message": f"{tmp_path / 'A0.nii.gz'} does not exist",
        "repair": "correct the path; relative ones count from the table's folder",
    }


def test_progress_counts_the_scans(cohort):
    told = []
    check(cohort, progress=lambda *n: told.append(n))
    assert told == [(i, 6) for i in range(7)]
