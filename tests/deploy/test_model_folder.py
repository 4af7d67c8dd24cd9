"""What is saved predicts the same; what is damaged is refused in one line."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pickle
import shutil
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from shiftproof import catalogue
from shiftproof.data.samples import Samples
from shiftproof.deploy import model as folders
from shiftproof.deploy.model import add_information, divided, load_model, save_model
from shiftproof.errors import ModelError
from shiftproof.methods.erm import ERM
from shiftproof.recipe import Recipe


@pytest.fixture
def saved(tmp_path: Path, tiny: Any) -> Path:
    plan = tiny.plan()
    save_model(tmp_path / "model", *_of(tiny.trained("erm", plan), plan), information={"note": "é"})
    return tmp_path / "model"


def _of(trained: tuple, plan: Any) -> tuple:
    method, recipe, setting = trained
    return method, recipe, plan, setting


@pytest.mark.parametrize("name", list(catalogue.METHODS))
@pytest.mark.parametrize("dimensions", [2, 3])
def test_a_loaded_model_predicts_the_same_bits(name: str, dimensions: int, tmp_path: Path, tiny: Any) -> None:
    spacing = (1.0, 1.0, 1.0 if dimensions == 3 else None)
    plan = tiny.plan(dimensions=dimensions, patch=(8,) * dimensions, spacing_mm=spacing)
    method, recipe, setting = tiny.trained(name, plan, seed=3)
    save_model(tmp_path / "model", method, recipe, plan, setting)
    found = load_model(tmp_path / "model", device="cpu")
    samples = Samples(torch.randn(2, 1, *(8,) * dimensions))
    with torch.no_grad():
        mine, theirs = found.predict(samples), method.eval().predict(samples)
    assert torch.equal(found.task.scores(mine), method.task.scores(theirs))
    assert found.plan == plan
    assert found.recipe == recipe
    assert found.setting == setting
    assert found.method is not None
    state, loaded = method.state_dict(), found.method.state_dict()
    assert state.keys() == loaded.keys()
    assert all(torch.equal(state[key], loaded[key]) for key in state)
    assert not found.method.training


def test_a_loaded_model_asks_for_no_gradient_and_draws_no_random_number(saved: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    found = load_model(saved, device="cpu")
    assert torch.equal(torch.rand(3), expected)
    assert found.method is not None
    assert not any(p.requires_grad for p in found.method.parameters())


def test_the_folder_holds_safetensors_and_json_only(saved: Path) -> None:
    assert sorted(os.listdir(saved)) == ["model.json", "weights.safetensors"]
    description = json.loads((saved / "model.json").read_text(encoding="utf-8"))
    assert description["classes"] == ["background", "disc", "ring"]
    assert description["channels"] == ["image"]
    assert description["information"] == {"note": "é"}
    assert description["weights_sha256"] == hashlib.sha256((saved / "weights.safetensors").read_bytes()).hexdigest()
    assert (os.stat(saved).st_mode & 0o777) == 0o755


class Counting(ERM):
    """A method with a state that is no tensor."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.pool: Any = []

    def get_extra_state(self) -> Any:
        return {"pool": self.pool}

    def set_extra_state(self, state: Any) -> None:
        self.pool = state["pool"]


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("counting_method")
    module.Counting = Counting  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "counting_method", module)
    monkeypatch.setitem(catalogue.METHODS, "counting", "counting_method:Counting")


@pytest.mark.usefixtures("counting")
def test_extra_state_returns(tmp_path: Path, tiny: Any) -> None:
    plan = tiny.plan()
    method, recipe, setting = tiny.trained("counting", plan)
    method.pool = [1, {"rotate": 0.5}, "x"]
    save_model(tmp_path / "model", method, recipe, plan, setting)
    assert load_model(tmp_path / "model").method.pool == [1, {"rotate": 0.5}, "x"]  # type: ignore[union-attr]


@pytest.mark.usefixtures("counting")
@pytest.mark.parametrize("pool", [{1, 2}, (1, 2), {1: 2}, object()])
def test_extra_state_that_json_would_change_is_refused(pool: Any, tmp_path: Path, tiny: Any) -> None:
    plan = tiny.plan()
    method, recipe, setting = tiny.trained("counting", plan)
    method.pool = pool
    with pytest.raises(ModelError, match="_extra_state.*cannot be written as JSON"):
        save_model(tmp_path / "model", method, recipe, plan, setting)
    assert not any(tmp_path.iterdir())


def test_views_and_tied_tensors_are_saved_as_their_values(tmp_path: Path) -> None:
    base = torch.arange(12.0).view(3, 4)
    state = {"a": base, "tied": base, "view": base[:, 1], "turned": base.T, "count": torch.tensor(3), "extra": [1]}
    tensors, extra = divided(state)
    save_file(tensors, tmp_path / "x.safetensors")
    found = load_file(tmp_path / "x.safetensors")
    for name in tensors:
        assert torch.equal(found[name], state[name])
    assert extra == {"extra": [1]}


# Damage ----------------------------------------------------------------------------------------------------


def edit(key: str, value: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        description = json.loads((folder / "model.json").read_text())
        if value is None:
            del description[key]
        else:
            description[key] = value(description[key]) if callable(value) else value
        (folder / "model.json").write_text(json.dumps(description))

    return change


def reweigh(change: Callable[[dict], None]) -> Callable[[Path], None]:
    """Other weights, with a hash that fits them."""

    def rewrite(folder: Path) -> None:
        tensors = load_file(folder / "weights.safetensors")
        change(tensors)
        save_file(tensors, folder / "weights.safetensors")
        digest = hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest()
        edit("weights_sha256", digest)(folder)

    return rewrite


def truncate(name: str) -> Callable[[Path], None]:
    return lambda folder: os.truncate(folder / name, (folder / name).stat().st_size // 2)


FIRST = "network.encoder.levels.0.layers.0.weight"

DAMAGE = {
    "no model.json": (lambda f: (f / "model.json").unlink(), "is not a model folder"),
    "no weights": (lambda f: (f / "weights.safetensors").unlink(), "has no weights.safetensors"),
    "weights cut off": (truncate("weights.safetensors"), "damaged or belongs to another model"),
    "description cut off": (truncate("model.json"), "cannot be read as JSON"),
    "description of bytes": (lambda f: (f / "model.json").write_bytes(b"\xff\xfe\x00"), "cannot be read as JSON"),
    "description of a list": (lambda f: (f / "model.json").write_text("[]"), "names no format"),
    "another format": (edit("format", 99), "has format 99, .* reads format 1"),
    "no recipe": (edit("recipe", None), "lacks recipe"),
    "further key": (lambda f: add(f, "hook", "os.system"), "unknown keys hook"),
    "wrong kind": (edit("classes", "background"), "wrong kind for classes"),
    "unknown method": (edit("recipe", lambda r: {**r, "method": "os"}), 'no method "os"'),
    "unknown option": (edit("recipe", lambda r: {**r, "options": {"x": 1}}), "cannot build|this version can build"),
    "unknown recipe key": (edit("recipe", lambda r: {**r, "code": "x"}), "this version can build"),
    "broken plan": (edit("plan", lambda p: {**p, "patch": [8]}), "this version can build"),
    "broken setting": (edit("setting", lambda s: {**s, "more": 1}), "this version can build"),
    "other classes": (edit("classes", ["background", "disc"]), "contradicts itself"),
    "missing tensor": (reweigh(lambda t: t.pop(FIRST)), f"lacks {FIRST}"),
    "further tensor": (reweigh(lambda t: t.update(more=torch.zeros(1))), "unknown more"),
    "wrong shape": (reweigh(lambda t: t.update({FIRST: torch.zeros(4, 1, 3, 3)})), r"is \(4, 1, 3, 3\).*expected"),
    "wrong type": (reweigh(lambda t: t.update({FIRST: t[FIRST].double()})), "float64, expected .* torch.float32"),
    "further extra state": (edit("extra_state", {"_extra_state": 1}), "extra states _extra_state, expected none"),
}


def add(folder: Path, key: str, value: Any) -> None:
    description = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps({**description, key: value}))


@pytest.mark.parametrize("name", list(DAMAGE))
def test_a_damaged_folder_is_refused_in_one_line(name: str, saved: Path) -> None:
    damage, words = DAMAGE[name]
    damage(saved)  # type: ignore[operator]
    with pytest.raises(ModelError, match=words) as caught:
        load_model(saved)
    assert "\n" not in str(caught.value)


def test_weights_of_another_model_are_refused(saved: Path, tmp_path: Path, tiny: Any) -> None:
    plan = tiny.plan()
    save_model(tmp_path / "other", *_of(tiny.trained("erm", plan, seed=1), plan))
    shutil.copy(tmp_path / "other" / "weights.safetensors", saved)
    with pytest.raises(ModelError, match="belongs to another model"):
        load_model(saved)


def test_a_pickle_in_place_of_the_weights_is_never_executed(saved: Path, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple:
            return os.mkdir, (str(tmp_path / "executed"),)

    (saved / "weights.safetensors").write_bytes(pickle.dumps(Bomb()))
    edit("weights_sha256", hashlib.sha256((saved / "weights.safetensors").read_bytes()).hexdigest())(saved)
    with pytest.raises(ModelError, match="cannot be read as safetensors"):
        load_model(saved)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("place", ["nowhere", "file"])
def test_what_is_no_folder_is_refused(place: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ModelError, match="is not a model folder"):
        load_model(tmp_path / place)


# Replacing -------------------------------------------------------------------------------------------------


def test_saving_again_replaces_the_model(saved: Path, tiny: Any) -> None:
    plan = tiny.plan()
    method, recipe, setting = tiny.trained("group_dro", plan, seed=9)
    save_model(saved, method, recipe, plan, setting)
    assert load_model(saved).recipe == recipe
    assert sorted(os.listdir(saved.parent)) == ["model"]


def test_an_interrupted_save_leaves_the_old_model_and_no_rest(
    saved: Path, tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {p.name: p.read_bytes() for p in saved.iterdir()}

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(folders, "write_json", interrupted)
    plan = tiny.plan()
    with pytest.raises(KeyboardInterrupt):
        save_model(saved, *_of(tiny.trained("erm", plan, seed=9), plan))
    assert {p.name: p.read_bytes() for p in saved.iterdir()} == before
    assert sorted(os.listdir(saved.parent)) == ["model"]


def test_a_folder_with_other_files_is_not_replaced(tmp_path: Path, tiny: Any) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").write_text("years of work")
    plan = tiny.plan()
    with pytest.raises(ModelError, match=r"holds other files \(thesis.tex\)"):
        save_model(tmp_path / "thesis", *_of(tiny.trained("erm", plan), plan))
    assert (tmp_path / "thesis" / "thesis.tex").read_text() == "years of work"


# Recipes ---------------------------------------------------------------------------------------------------


def test_the_hash_follows_what_predictions_depend_on(saved: Path, tmp_path: Path, tiny: Any) -> None:
    first = load_model(saved)
    add_information(saved, {"held_out": 1})
    again = load_model(saved)
    assert again.information == {"note": "é", "held_out": 1}
    assert again.hash == first.hash
    assert first.recipe is not None
    adapting = first.with_recipe(Recipe("erm+tent", network=dict(first.recipe.network), test_time="tent"))
    assert adapting.hash != first.hash
    assert adapting.with_recipe(first.recipe).hash == first.hash
    plan = tiny.plan()
    save_model(tmp_path / "other", *_of(tiny.trained("erm", plan, seed=1), plan))
    assert load_model(tmp_path / "other").hash != first.hash


def test_another_row_with_the_same_training_predicts_its_own_way(saved: Path) -> None:
    model = load_model(saved)
    assert model.recipe is not None
    adapting = model.with_recipe(
        dataclasses.replace(model.recipe, name="x", test_time="tent", test_time_options={"rate": 0.5, "steps": 2})
    )
    samples = Samples(torch.randn(1, 1, 8, 8, 8))
    plain, adapted = (m.task.scores(m.predict(samples)) for m in (model, adapting))
    assert not torch.equal(plain, adapted)
    assert torch.equal(plain, model.task.scores(model.predict(samples)))


def test_a_row_with_another_training_is_refused(saved: Path) -> None:
    model = load_model(saved)
    with pytest.raises(ModelError, match='"erm", which "strong" does not share|does not share'):
        model.with_recipe(Recipe("strong", transforms="strong"))


def test_a_saved_recipe_adapts_after_loading(tmp_path: Path, tiny: Any) -> None:
    plan = tiny.plan()
    method, recipe, setting = tiny.trained("erm", plan, test_time="tent", test_time_options={"rate": 0.5, "steps": 2})
    save_model(tmp_path / "model", method, recipe, plan, setting)
    model = load_model(tmp_path / "model")
    samples = Samples(torch.randn(1, 1, 8, 8, 8))
    with torch.no_grad():
        adapted, plain = model.task.scores(model.predict(samples)), method.eval()(samples)
    assert not torch.allclose(adapted, plain)


@pytest.mark.parametrize("name", ["helper.py", "weights.pt", "notes"])
def test_files_that_are_no_part_of_a_model_are_named(saved: Path, name: str) -> None:
    (saved / ".DS_Store").write_text("")
    load_model(saved)
    (saved / name).write_text("import os")
    with pytest.raises(ModelError, match=name):
        load_model(saved)
