"""A study and its delivery with automatic plans: one a held-out domain, from its training domains alone."""

from __future__ import annotations

import json
import tomllib

import pytest

from shiftproof.data.plan import Plan
from shiftproof.deploy.model import load_model
from shiftproof.errors import RunError
from shiftproof.recipe import Recipe
from shiftproof.study.declare import Declaration
from shiftproof.study.deliver import deliver
from shiftproof.study.run import study
from shiftproof.train import Trainer

PLAN = {"automatic": True, "memory_gb": 0.02, "base": 2}
TRAINER = Trainer(steps=2, device="cpu", validate_every=2)


@pytest.mark.slow
def test_a_study_trains_and_delivers_what_its_plans_say(three_sites, tmp_path):
    rows = [Recipe("erm/none", transforms="none"), Recipe("dann/none", method="dann", transforms="none")]
    options = {"held_out": ["C"], "seeds": 1, "trainer": TRAINER, "plan": PLAN, "workers": 1, "estimate": False}
    told = []
    out = study(three_sites, rows, tmp_path / "study", tell=told.append, **options)
    assert any("plan auto: memory budget 0.02 GB" in line for line in told)
    # DANN compares domains, three of them when it is delivered; nobody set a trainer's field that is planned.
    assert Declaration.load(out).plan == {**PLAN, "keep": [], "least_batch": 3}
    plan = Plan.read(out / "plans" / "C.json")
    assert list(plan.statistics["domains"]) == ["A", "B"]
    runs = [tomllib.loads(path.read_text()) for path in (out / "runs").glob("*/run.toml")]
    assert len(runs) >= 3
    for run in runs:
        assert run["recipe"]["network"] == plan.automatic["network"]
        assert run["trainer"]["optimizer"] == "nesterov"
        assert run["trainer"]["batch"] == plan.automatic["training"]["batch"]
    statuses = {json.loads(path.read_text())["status"] for path in (out / "cells").rglob("cell.json")}
    assert statuses == {"done"}
    study(three_sites, rows, out, **options)  # goes on: the same study
    with pytest.raises(RunError, match="differs in plan"):
        study(three_sites, rows, out, **(options | {"plan": PLAN | {"memory_gb": 0.03}}))
    model = deliver(out, row="dann/none")
    delivered = load_model(model).plan
    assert list(delivered.statistics["domains"]) == ["A", "B", "C"]
    assert delivered.automatic["memory_gb"] == 0.02
