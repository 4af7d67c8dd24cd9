"""shiftproof policy views: views for a model folder, and their use."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from typer.testing import CliRunner

from shiftproof.cli.policy import app
from shiftproof.data.cohort import Cohort
from shiftproof.data.plan import Plan
from shiftproof.deploy.model import digest, load_model, save_model
from shiftproof.deploy.segment import label_of
from shiftproof.errors import ModelError, SplitError
from shiftproof.evaluate.views import unseen
from shiftproof.methods.method import Setting
from shiftproof.parts.view_policy import ViewPolicy
from shiftproof.recipe import Recipe, build
from shiftproof.transforms.policies import Policy
from shiftproof.transforms.policy_files import parsed, to_json
from shiftproof.transforms.pool import Pool
from shiftproof.transforms.views import Views

AS_STORED = {"scheme": "clip", "lower": -1e6, "upper": 1e6, "mean": 0.0, "sd": 1.0}


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    random, lines = np.random.default_rng(0), ["subject,image,label,site"]
    for name in ("a1", "a2", "b1", "b2"):
        label = np.zeros((6, 16, 16), np.uint8)
        label[1:5, 3:9, 4:11] = 1
        image = (label + random.normal(0, 0.2, label.shape)).astype(np.float32)
        for kind, array in {"image": image, "label": label}.items():
            volume = sitk.GetImageFromArray(array)
            volume.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))  # RAS: no turn
            sitk.WriteImage(volume, str(tmp_path / f"{name}-{kind}.nii.gz"))
        lines.append(f"{name},{name}-image.nii.gz,{name}-label.nii.gz,{name[0].upper()}")
    (tmp_path / "table.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "labels.toml").write_text('classes = ["background", "square"]\n[default]\nsquare = 1\n')
    return tmp_path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model that was trained on a1 and b1, and selected by a2."""
    plan = Plan(
        dimensions=2, orientation="RAS", spacing_mm=(1.0, 1.0, None), channels=("image",), patch=(12, 12),
        classes=("background", "square"), normalisation={"image": AS_STORED}, crop="none",
    )  # fmt: skip
    recipe = Recipe("erm", method="erm", network={"widths": [4, 8]})
    setting = Setting(["A", "B"], 1, 2, 2, (12, 12), (1.0, 1.0))
    method = build(recipe, plan, setting, seed=0)
    subjects = {"train": [digest("a1"), digest("b1")], "validation": [digest("a2")]}
    save_model(tmp_path / "model", method, recipe, plan, setting, information={"subjects": subjects})
    return tmp_path / "model"


def test_views_are_learned_for_a_model_folder_shown_and_used(cohort, folder, tmp_path):
    weights = (folder / "weights.safetensors").read_bytes()
    out = tmp_path / "views.json"
    given = ["views", folder, cohort, "--out", out, "--steps", 4, "--number", 4, "--rate", 0.1, "--device", "cpu"]
    found = CliRunner().invoke(app, [str(a) for a in [*given, "--json"]], catch_exceptions=False)
    assert found.exit_code == 0, found.output
    said = json.loads(found.stdout)["views"]
    content = json.loads(out.read_text())
    names = content["groups"][0]["options"]
    assert said == pytest.approx(dict(zip(names, content["groups"][0]["probabilities"][0], strict=True)), abs=1e-6)
    assert abs(said["identity"] - 0.2) > 1e-3
    assert content["provenance"]["subjects"] == 1
    assert content["provenance"]["domains"] == ["A"]
    assert (folder / "weights.safetensors").read_bytes() == weights

    shown = CliRunner().invoke(app, ["show", str(out)], catch_exceptions=False)
    assert "turn in plane 180" in shown.stdout
    recipe = Recipe("views", method="erm", network={"widths": [4, 8]}, test_time="learned_views",
                    test_time_options={"policy_file": str(out)})  # fmt: skip
    model = load_model(folder, device="cpu").with_recipe(recipe)
    label = label_of(model, {"image": cohort / "a1-image.nii.gz"})
    assert label.GetSize() == (16, 16, 6)


def test_views_that_were_learned_with_augmentation_are_shown_beside_it(tmp_path):
    views = ViewPolicy(Views((8, 8)), preset="deepmedic")
    pool = Pool("talk", dimensions=2, patch=(8, 8))
    text = to_json(Policy(pool.groups), pool, views=parsed(views.as_json()))
    (tmp_path / "policy.json").write_text(text)
    shown = CliRunner().invoke(app, ["show", str(tmp_path)], catch_exceptions=False).stdout
    _, below = shown.split("most probable views of predictions")
    lines = [line.split() for line in below.splitlines() if "0.267" in line]
    assert [" ".join(line[:-1]) for line in lines] == ["identity", "mirror sagittal", "mirror frontal"]


def test_subjects_are_those_that_selected_the_model_or_others_that_are_named(cohort, folder):
    model, table = load_model(folder, device="cpu"), Cohort.read(cohort)
    assert unseen(model, table, None).subjects == ["a2"]
    assert unseen(model, table, "subject=b2").subjects == ["b2"]
    with pytest.raises(SplitError, match="was trained on subjects of this selection: b1"):
        unseen(model, table, "site=B")
    forgetful = dataclasses.replace(model, information={})
    with pytest.raises(SplitError, match="select some, such as site=A"):
        unseen(forgetful, table, None)


def test_a_network_without_a_recipe_has_no_views_to_learn(cohort, folder, tmp_path):
    from shiftproof.evaluate.views import learned_views_of

    alone = dataclasses.replace(load_model(folder, device="cpu"), method=None, recipe=None)
    with pytest.raises(ModelError, match="views cannot be learned for it"):
        learned_views_of(alone, Cohort.read(cohort), tmp_path / "v.json", store=tmp_path / "store")
    assert isinstance(alone.device, torch.device)
