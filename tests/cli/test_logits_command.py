"""The command `logits` on a model that a short training wrote."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import typer
from typer.testing import CliRunner

from shiftproof.cli.logits import logits
from shiftproof.errors import ShiftproofError
from shiftproof.recipe import Recipe
from shiftproof.study.single import train
from shiftproof.train import Trainer

app = typer.Typer()
app.command()(logits)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A cohort of two sites, and a model of site A beside it."""
    root = tmp_path_factory.mktemp("logits")
    lines = ["subject,image,label,site"]
    for k, name in enumerate(["A0", "A1", "A2", "B0", "B1"]):
        random = np.random.default_rng(k)
        label = np.zeros((4, 16, 16), np.uint8)
        label[:, 5:11, 4:12] = 1
        for kind, array in {
            "image": (label + random.normal(0, 0.3, label.shape)).astype(np.float32),
            "label": label,
        }.items():
            volume = sitk.GetImageFromArray(array)
            volume.SetSpacing((2.0, 2.0, 6.0))
            sitk.WriteImage(volume, str(root / f"{name}-{kind}.nii.gz"))
        lines.append(f"{name},{name}-image.nii.gz,{name}-label.nii.gz,{name[0]}")
    (root / "table.csv").write_text("\n".join(lines) + "\n")
    (root / "labels.toml").write_text('classes = ["background", "lesion"]\n[default]\nlesion = 1\n')
    recipe = Recipe("erm", transforms="none", network={"widths": [4, 8]})
    trainer = Trainer(steps=3, batch=2, validate_every=2, device="cpu")
    train(root / "table.csv", recipe, root / "run", hold_out="B", trainer=trainer)
    return root


def run(*words: object) -> str:
    found = CliRunner().invoke(app, [str(w) for w in words], catch_exceptions=False)
    assert found.exit_code == 0, found.output
    return found.stdout


def test_the_model_folder_knows_whom_it_was_trained_on(trained, tmp_path):
    said = run(trained / "run" / "model", trained, "--out", tmp_path)
    assert "lesion, unseen" in said
    assert "Unseen samples of lesion lie" in said
    found = json.loads((tmp_path / "logits.json").read_text())
    assert {s["subject"] for s in found["cases"] if s["side"] == "test"} == {"B0", "B1"}
    assert {s["subject"] for s in found["cases"] if s["side"] != "test"} == {"A0", "A1", "A2"}
    assert "<svg" in (tmp_path / "logits.html").read_text()


def test_names_of_subjects_do_not_leave_with_the_model(trained):
    description = (trained / "run" / "model" / "model.json").read_text()
    assert not any(f'"{name}"' in description for name in ("A0", "A1", "A2"))


def test_json_is_all_of_it(trained, tmp_path):
    found = json.loads(run(trained / "run" / "model", trained, "--test", "site=B", "--out", tmp_path, "--json"))
    assert found["report"] == str(tmp_path / "logits.html")
    assert {p["truth"] for p in found["panels"]} == {"background", "lesion"}


def test_training_subjects_are_no_unseen_ones(trained, tmp_path):
    with pytest.raises(ShiftproofError, match="both sides of training and test") as raised:
        run(trained / "run" / "model", trained, "--test", "site=A", "--out", tmp_path)
    assert "\n" not in str(raised.value)
