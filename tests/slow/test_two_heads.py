"""The whole path on files that this project did not make, on grids as hospitals write them."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

SCRIPT = Path(__file__).parents[2] / "examples" / "two_heads.py"
COLIN = Path("/usr/share/mricron/templates/ch2.nii.gz")
SUBJECTS = 10

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not COLIN.exists(), reason=f"{COLIN} is missing: apt-get install mricron-data"),
]


def shiftproof(folder: Path, *arguments: object, code: int = 0) -> str:
    """Standard output of a command, which must end with `code`."""
    command = [sys.executable, "-m", "shiftproof", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == code, f"{' '.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    assert "Traceback" not in done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two_heads")
    subprocess.run([sys.executable, SCRIPT, "heads", "--subjects", str(SUBJECTS)], cwd=folder, check=True)
    return folder


@pytest.fixture(scope="module")
def cohort(folder):
    shiftproof(folder, "cohort", "import", "heads", "--classes", "thalamus,striatum")
    return folder / "heads"


@pytest.fixture(scope="module")
def study(folder, cohort):
    few = ["--seeds", 1, "--steps", 30, "--validate-every", 15, "--batch", 2, "--patch", "32,32,32", "--device", "cpu"]
    shiftproof(folder, "study", "heads", "--methods", "erm/none,erm/light", "--out", "study", *few)
    return folder / "study"


@pytest.fixture(scope="module")
def predicted(folder, study):
    """Output by input of every raw scan, given as two folders."""
    shiftproof(folder, "deliver", "study", "--out", "model")
    shiftproof(folder, "predict", "model", "heads/MNI/images", "heads/Colin/images", "predicted")
    scans = sorted((folder / "heads").glob("*/images/*.nii.gz"))
    return {scan: folder / "predicted" / scan.name for scan in scans}


def test_grids_are_oblique_anisotropic_and_all_different(cohort):
    images = [sitk.ReadImage(str(path)) for path in sorted(cohort.glob("*/images/*.nii.gz"))]
    assert len(images) == 2 * SUBJECTS
    assert len({image.GetDirection() for image in images}) == len(images)
    assert len({sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(i.GetDirection()) for i in images}) > 5
    for image in images:
        assert max(image.GetSpacing()) > 1.15 * min(image.GetSpacing())
        cosines = np.abs(np.reshape(image.GetDirection(), (3, 3))).max(0)
        assert cosines.min() < 0.9999


def test_the_import_finds_two_sites_and_two_structures(cohort):
    with open(cohort / "table.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * SUBJECTS
    assert {row["site"] for row in rows} == {"MNI", "Colin"}
    shown = json.loads(shiftproof(cohort, "cohort", "show", ".", "--json"))
    assert shown["classes"] == ["background", "thalamus", "striatum"]
    assert [d["labelled"] for d in shown["domains"]] == [SUBJECTS, SUBJECTS]


def test_the_check_finds_no_error(folder, cohort):
    assert json.loads(shiftproof(folder, "cohort", "check", "heads", "--json"))["errors"] == 0


def test_the_study_holds_out_each_site_and_writes_a_page(study):
    with open(study / "rows.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["held_out"] for row in rows} == {"MNI", "Colin"}
    assert {"erm/none", "erm/light"} <= {row["row"] for row in rows}
    assert {row["structure"] for row in rows} == {"thalamus", "striatum"}
    assert "erm/light" in (study / "report.html").read_text()


def test_predictions_have_the_geometry_of_their_scans(predicted):
    assert len(predicted) == 2 * SUBJECTS
    for scan, output in predicted.items():
        image, label = sitk.ReadImage(str(scan)), sitk.ReadImage(str(output))
        assert label.GetSize() == image.GetSize()
        for facts in ("GetSpacing", "GetOrigin", "GetDirection"):
            np.testing.assert_allclose(getattr(label, facts)(), getattr(image, facts)(), rtol=0, atol=1e-6)
        # The same by another reader, which prefers another part of the header.
        affines = [nibabel.load(path).affine for path in (scan, output)]
        np.testing.assert_allclose(affines[1], affines[0], rtol=0, atol=1e-6)


def test_predictions_hold_classes_and_lie_in_the_head(predicted):
    values, inside = set(), []
    for scan, output in predicted.items():
        image, label = (sitk.GetArrayFromImage(sitk.ReadImage(str(path))) for path in (scan, output))
        values |= set(np.unique(label).tolist())
        inside.append(image[label > 0].mean() > image.mean())
    assert values <= {0, 1, 2}
    assert len(values) > 1
    assert all(inside)


def test_the_predicted_folder_is_scored_as_any_model_is(folder, predicted):
    shiftproof(folder, "evaluate", "heads", "--predictions", "predicted", "--out", "evaluation")
    with open(folder / "evaluation" / "rows.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["metric"] == "dice"]
    assert len(rows) == 2 * SUBJECTS * 2
    # By SimpleITK's own overlap measure, on the files.
    row = next(r for r in rows if r["subject"] == "colin03" and r["structure"] == "striatum")
    overlap = sitk.LabelOverlapMeasuresImageFilter()
    label, prediction = folder / "heads/Colin/labels/colin03.nii.gz", folder / "predicted/colin03.nii.gz"
    overlap.Execute(*[sitk.ReadImage(str(path)) == 2 for path in (label, prediction)])
    assert float(row["value"]) == pytest.approx(overlap.GetDiceCoefficient(1), abs=1e-6)


def test_a_missing_head_is_named_with_its_cure(tmp_path):
    done = subprocess.run(
        [sys.executable, SCRIPT, "heads", "--colin", "nowhere"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "apt-get install mricron-data" in done.stderr
    assert not (tmp_path / "heads").exists()
