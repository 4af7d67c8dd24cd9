"""The command line's words for networks, weights, scenarios and tasks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
from typer.testing import CliRunner

from shiftproof.cli.app import app
from shiftproof.cli.options import networked, plan
from shiftproof.errors import OptionError
from shiftproof.nets import NETWORKS
from shiftproof.recipe import Recipe


def said(*arguments: object) -> str:
    """What a command that ends well prints."""
    found = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert found.exit_code == 0, found.output
    return found.stdout


def test_a_network_is_written_with_its_options():
    (row,) = networked([Recipe("erm")], "unet,widths=[8,16],residual=true,norm=batch,strides=[[2,2,1]]", None)
    assert row.network == {
        "name": "unet", "widths": [8, 16], "residual": True, "norm": "batch", "strides": [[2, 2, 1]],
    }  # fmt: skip
    (row,) = networked([Recipe("erm")], "resnet,width=0.5", None)
    assert row.network == {"name": "resnet", "width": 0.5}
    with pytest.raises(OptionError, match="NAME,OPTION=VALUE"):
        networked([Recipe("erm")], "resnet,deep", None)


def test_rows_keep_the_network_that_they_name_and_all_take_the_weights():
    rows = [Recipe("a", network={"name": "unet", "widths": [8, 16]}), Recipe("b")]
    named, plain = networked(rows, "dynunet", Path("w.safetensors"))
    assert named.network == {"name": "unet", "widths": [8, 16], "weights": str(Path("w.safetensors").resolve())}
    assert plain.network == {"name": "dynunet", "weights": str(Path("w.safetensors").resolve())}
    assert networked(rows, None, None) == rows


def test_context_is_a_part_of_the_plan():
    assert plan(2, None, None, 1) == {"dimensions": 2, "context": 1}
    assert plan(2, None, None) == {"dimensions": 2}


def test_networks_are_listed_with_what_they_serve():
    found = {n["name"]: n for n in json.loads(said("networks", "--json"))}
    assert set(found) == set(NETWORKS)
    assert found["resnet"]["tasks"] == ["classification", "regression"]
    assert not found["attentionunet"]["cut"]
    one = json.loads(said("networks", "resnet", "--json"))
    assert {"depth", "width", "norm"} <= {o["name"] for o in one["options"]}
    assert not {"dimensions", "channels", "outputs"} & {o["name"] for o in one["options"]}


def test_a_scenario_is_listed_described_and_made(tmp_path):
    assert {s["name"] for s in json.loads(said("scenario", "--json"))} == {
        "brain-lesions", "brain-sites", "chest-ct-sites", "digit-sites", "liver-tumours",
    }  # fmt: skip
    assert json.loads(said("scenario", "digit-sites", "--json"))["hashes"]["2d"] == "b3f796fd27fe6319"
    made = json.loads(said("scenario", "digit-sites", tmp_path / "d", "--subjects", 2, "--sites", "A,C", "--json"))
    table = pd.read_csv(made["table"])
    assert table["site"].tolist() == ["A", "A", "C", "C"]


def test_a_cohort_of_classes_is_shown_and_checked(tmp_path):
    rows = []
    for i, (site, grade) in enumerate([("A", "low"), ("A", "high"), ("B", "low"), ("B", "low"), ("B", "")]):
        array = np.random.default_rng(i).integers(0, 255, (12, 12), dtype=np.uint8)
        sitk.WriteImage(sitk.GetImageFromArray(array), str(tmp_path / f"{i}.png"))
        rows.append({"subject": f"s{i}", "site": site, "image": f"{i}.png", "grade": grade})
    pd.DataFrame(rows).to_csv(tmp_path / "table.csv", index=False)
    (tmp_path / "labels.toml").write_text(
        'task = "classification"\nkind = "multi-class"\ncolumn = "grade"\nclasses = ["low", "middle", "high"]\n'
    )
    shown = json.loads(said("cohort", "show", tmp_path, "--json"))
    assert shown["task"] == "classification"
    assert shown["classes"] == ["low", "middle", "high"]
    assert [d["labelled"] for d in shown["domains"]] == [2, 2]
    found = json.loads(said("cohort", "check", tmp_path, "--minimum", 1, "--json"))["problems"]
    kinds = {p["kind"]: p["message"] for p in found}
    assert "the class middle occurs in none of 4 labelled scans" in kinds["class never occurs"]
    assert "all 2 labelled scans of site=B have the class low" in kinds["one class"]
