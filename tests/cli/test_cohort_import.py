"""`shiftproof cohort import` from the command line."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from shiftproof.cli.app import app


@pytest.fixture
def run():
    def run(*arguments: str):
        return CliRunner().invoke(app, ["cohort", "import", *map(str, arguments)])

    return run


def volume(path, top=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    array = random.integers(0, top, (5, 6, 7)).astype(np.uint8) if top else random.normal(0, 1, (5, 6, 7))
    nib.save(nib.Nifti1Image(array.astype(np.uint8 if top else np.float32), np.eye(4)), path)


def test_a_data_set_of_nnunet_is_imported_by_site(tmp_path, run):
    for case in ("Oslo_1", "Rome_2"):
        volume(tmp_path / "in" / "imagesTr" / f"{case}_0000.nii.gz")
        volume(tmp_path / "in" / "labelsTr" / f"{case}.nii.gz", 2)
    description = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 1}, "numTraining": 2}
    (tmp_path / "in" / "dataset.json").write_text(json.dumps(description))
    done = run(tmp_path / "in", "--out", tmp_path / "out", "--domain-pattern", "^(?P<site>[A-Za-z]+)_", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["classes"] == ["background", "liver"]
    assert [d["domain"] for d in found["domains"]] == ["Oslo", "Rome"]
    assert found["table"] == str(tmp_path / "out" / "table.csv")


def test_a_target_and_a_format_are_options(tmp_path, run):
    for name in "123":
        volume(tmp_path / "in" / f"sub-{name}" / "anat" / f"sub-{name}_T1w.nii.gz")
    (tmp_path / "in" / "participants.tsv").write_text("participant_id\tage\n1\t30\n2\t40\n3\t50\n")
    done = run(tmp_path / "in", "--format", "bids", "--target", "age")
    assert done.exit_code == 0, done.output
    text = (tmp_path / "in" / "labels.toml").read_text()
    assert 'task = "regression"' in text
    assert 'unit = "years"' in text


def test_an_unknown_layout_is_one_line_and_a_code(tmp_path, run):
    (tmp_path / "in").mkdir()
    done = run(tmp_path / "in")
    assert done.exit_code != 0
    assert "no layout known here" in done.output + str(done.exception)
