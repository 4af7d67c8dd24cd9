"""shiftproof policy."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from typer.testing import CliRunner

from shiftproof.cli.policy import app, likeliest, overview
from shiftproof.transforms.policies import Policy
from shiftproof.transforms.policy_files import read_policy, to_json
from shiftproof.transforms.pool import Pool


def saved(folder: Path, sets: int = 2) -> Path:
    pool = Pool("jcsa", dimensions=2, patch=(8, 8))
    policy = Policy(pool.groups, sets=sets)
    begun = [p.tolist() for p in policy.probabilities()]
    with torch.no_grad():
        policy.logits[0][-1] = torch.tensor([0.0, 0, 0, 0, 0, 9])
    history = {"step": [0], "probabilities": [begun]}
    path = folder / "policy.json"
    path.write_text(to_json(policy, pool, history=history, provenance={"network": "unet"}), encoding="utf-8")
    return path


def said(*arguments: object) -> str:
    found = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert found.exit_code == 0, found.output
    return found.stdout


def test_a_policy_is_shown_with_its_groups_and_likeliest_options(tmp_path: Path):
    text = said("show", saved(tmp_path))
    for words in ('pool "jcsa", 2D', "common", "rare", "scale 0.45", "inverted gamma", "network: unet"):
        assert words in text
    content = read_policy(tmp_path)
    assert json.loads(said("show", tmp_path, "--json")) == content
    (name, common, rare, entropies), *_ = overview(content)
    assert (name, common, rare) == ("scale", "0.83", "1.00")
    assert entropies.startswith("1.00, 0.0")
    first = likeliest(content)[0]
    assert first[:4] == ["scale 0.45", "scale", "0.167", "0.999"]
    assert first[4] == "0.167, 0.167"


def test_a_policy_without_history_is_shown_too(tmp_path: Path):
    path = saved(tmp_path, sets=1)
    content = json.loads(path.read_text(encoding="utf-8")) | {"history": {}}
    path.write_text(json.dumps(content), encoding="utf-8")
    assert "all patches" in said("show", path)


def test_published_policies_are_listed():
    found = json.loads(said("presets", "--json"))
    assert set(found) == {"uniform", "nnunet", "deepmedic", "weak", "weaker"}
    assert abs(found["nnunet"]["mirror sagittal"] - 0.5) < 1e-6
    assert abs(found["weaker"]["noise"] - 0.05) < 1e-6
    assert "nnunet" in said("presets")
