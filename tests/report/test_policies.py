"""What a policy learned, as the report shows it."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch

from shiftproof.report.page import page
from shiftproof.report.policies import changes, family, panels, section, series
from shiftproof.report.results import COLUMNS, Cell, Results
from shiftproof.report.svg import inline
from shiftproof.transforms.policies import Policy
from shiftproof.transforms.policy_files import to_json
from shiftproof.transforms.pool import Pool


def learned(pool: str = "talk", *, sets: int = 1, option: int = 3, gain: float = 2.0, steps=(0, 10, 40)) -> str:
    """A policy that was uniform at the first step and prefers one option of the first group at the end."""
    made = Pool(pool, dimensions=2, patch=(16, 16))
    policy = Policy(made.groups, sets=sets, preset="uniform")
    start = [p.tolist() for p in policy.probabilities()]
    with torch.no_grad():
        policy.logits[0][-1, option] = gain
    return to_json(policy, made, history={"step": list(steps), "probabilities": [start] * len(steps)})


def results_of(folder, texts: dict[tuple[str, int], str | None]) -> Results:
    cells = []
    for (row, seed), text in texts.items():
        run = folder / f"{row}-{seed}"
        (run / "model").mkdir(parents=True)
        if text is not None:
            (run / "model" / "policy.json").write_text(text, encoding="utf-8")
        cells.append(Cell(row, "A", seed, "done", run=run))
    names = list(dict.fromkeys(row for row, _ in texts))
    scores = [(row, "A", 0, f"s{i}", "A", "disc", "dice", 0.5 + i / 10, "ok") for row in names for i in range(3)]
    facts = {"rows": [{"name": n, "role": "row"} for n in names], "domain_column": "site", "held_out": ["A"]}
    return Results("study", facts, pd.DataFrame(scores, columns=COLUMNS), cells)


def test_a_study_without_a_policy_has_no_such_section(tmp_path):
    assert section(results_of(tmp_path, {("erm", 0): None})) is None


def test_each_row_that_learned_a_policy_has_a_figure_of_its_runs(tmp_path):
    given = {("erm", 0): None, ("learned", 0): learned(), ("learned", 1): learned(gain=0.0), ("by class", 0): None}
    given["by class", 0] = learned("jcsa", sets=2)
    found = section(results_of(tmp_path, given))
    assert found["broken"] == []
    assert len(found["plots"]) == 3
    assert "2 runs" in found["plots"][0].caption
    assert "run" not in found["plots"][1].caption.split("start")[1].split(".")[0]
    assert [w.split(":")[0] for w in found["words"]] == [
        "learned",
        "by class, common patches",
        "by class, rare patches",
    ]
    assert "scale 0.15" in found["plots"][0].alt
    titles = [ax.get_title(loc="left") for ax in found["plots"][1].figure.axes if ax.get_visible()]
    assert titles == [group.name for group in Pool("jcsa", dimensions=2, patch=(16, 16)).groups]


def test_views_that_were_learned_with_it_have_a_figure_of_their_own(tmp_path):
    views = json.loads(learned("views", option=1, gain=3.0))
    with_views = json.dumps(json.loads(learned()) | {"views": views})
    fixed = json.dumps(json.loads(learned()) | {"history": {}, "views": views})  # only views were learned
    found = section(results_of(tmp_path, {("both", 0): with_views, ("views", 0): fixed, ("learned", 0): learned()}))
    titles = ["both", "both, views of predictions", "views, views of predictions", "learned"]
    assert [w.split(":")[0] for w in found["words"]] == titles
    assert "rose most: scale +0.05" in found["words"][1]
    panels_shown = [ax.get_title(loc="left") for ax in found["plots"][1].figure.axes if ax.get_visible()]
    assert panels_shown[:5] == ["identity", "scale", "rotate in plane", "mirror", "turn in plane"]
    damaged = json.dumps(json.loads(with_views) | {"views": {**views, "history": []}})
    broken = section(results_of(tmp_path / "damaged", {("both", 0): damaged}))["broken"]
    assert broken[0].startswith("both, site A, seed 0")


def test_lines_are_the_probabilities_from_the_start_to_what_the_run_ended_with():
    content = json.loads(learned(option=3, gain=2.0))
    count = len(content["groups"][0]["options"])
    curve = series(content, 0, 0)
    end = np.exp(2.0) / (np.exp(2.0) + count - 1)
    assert curve[0, 3] == pytest.approx(1 / count)
    assert curve[-1, 3] == pytest.approx(end)
    # Noted at steps 0, 10 and 40; the end lies as far behind as they lie apart in the mean, at 60: halfway from 40 to
    # it, at 50 of 60, it is the mean of both.
    halfway = np.interp(50 / 60, np.linspace(0, 1, len(curve)), curve[:, 3])
    assert halfway == pytest.approx((1 / count + end) / 2, rel=0.02)
    np.testing.assert_allclose(curve.sum(1), 1)


def test_one_group_of_all_operations_is_shown_by_operation():
    shown = panels([json.loads(learned())], 0)
    assert [p.name for p in shown] == [
        "identity", "scale", "rotate in plane", "mirror", "contrast", "brightness", "noise", "gamma"
    ]  # fmt: skip
    assert shown[1].options == [f"scale {m:g}" for m in (0.05, 0.1, 0.15, 0.2, 0.25)]
    np.testing.assert_allclose(sum(p.acting for p in shown), 1)


def test_of_several_groups_the_share_that_acts_is_shown():
    content = json.loads(learned("jcsa"))
    for panel, group in zip(panels([content], 0), content["groups"], strict=True):
        assert panel.options == group["options"][1:]
        assert panel.acting[0, -1] == pytest.approx(1 - group["probabilities"][0][0])


@pytest.mark.parametrize(
    ("option", "name"),
    [("rotate frontal 90", "rotate frontal"), ("mirror axial", "mirror"), ("static", "static"), ("add +0.05", "add"),
     ("constant -2", "constant")],
)  # fmt: skip
def test_an_operation_is_an_option_without_its_magnitude(option, name):
    assert family(option) == name


def test_words_name_what_rose_and_fell_most():
    text = changes(panels([json.loads(learned(option=3, gain=2.0))], 0))
    assert text.startswith("rose most: scale 0.15 (0.")
    assert "fell most: " in text
    assert "scale 0.15" not in text.split("fell")[1]
    assert changes(panels([json.loads(learned(gain=0.0))], 0)).startswith("nothing changed in")


def test_a_file_that_is_no_policy_is_named(tmp_path):
    found = section(results_of(tmp_path, {("learned", 0): "{", ("other", 3): learned()}))
    assert len(found["plots"]) == 1
    assert len(found["broken"]) == 1
    assert "learned, site A, seed 0" in found["broken"][0]


def test_a_policy_that_was_not_learned_has_no_curve(tmp_path):
    assert section(results_of(tmp_path, {("fixed", 0): learned(steps=())})) is None
    assert section(results_of(tmp_path / "one", {("fixed", 0): learned(steps=(0,))})) is None


def test_cells_that_share_a_training_are_one_run(tmp_path):
    results = results_of(tmp_path, {("learned", 0): learned()})
    results.cells.append(Cell("learned", "B", 0, "done", run=results.cells[0].run))
    assert "runs" not in section(results)["plots"][0].caption


def test_the_page_shows_it_with_words_for_who_cannot_see_it(tmp_path):
    text = page(results_of(tmp_path, {("erm", 0): None, ("learned", 0): learned()}))
    assert '<section id="policies">' in text
    assert '<a href="#policies">' in text
    assert "Probabilities of augmentation with learned over training" in text
    without = page(results_of(tmp_path / "none", {("erm", 0): None}))
    assert 'id="policies"' not in without
    assert "#policies" not in without


def test_the_figure_follows_the_pages_colours(tmp_path):
    plot = section(results_of(tmp_path, {("learned", 0): learned()}))["plots"][0]
    drawn = inline(plot, "policy1")
    assert "currentColor" in drawn
    assert "#16181d" not in drawn
