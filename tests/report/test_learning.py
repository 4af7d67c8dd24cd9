"""Learning curves join studies that differ in their fraction, and in nothing else."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tomli_w

from shiftproof.cli import main
from shiftproof.errors import OptionError, RunError
from shiftproof.report.learning import learning_curves

ROWS = ["erm/none", "erm/strong"]
SMALL = {"rows": ROWS, "sites": ["A", "B"], "seeds": [0, 1, 2]}
LEVELS = {0.05: {"erm/none": 0.55, "erm/strong": 0.70}, 0.5: {"erm/none": 0.75, "erm/strong": 0.71}}


@pytest.fixture
def pair(make_study):
    def made(**facts: object) -> list[Path]:
        """The same people at two fractions; `facts` are of the larger one."""
        folders = []
        for fraction, levels in LEVELS.items():
            own = {"fraction": fraction, **(facts if fraction == 0.5 else {})}
            name = f"at-{100 * fraction:g}"
            folders.append(make_study(name, **SMALL, records=False, levels=levels, facts=own))
        return folders

    return made


def by_subject(folder: Path, row: str, metric: str) -> pd.Series:
    tables = [pd.read_csv(path) for path in folder.glob("cells/*/*/*/rows.csv")]
    own = pd.concat(tables).query("row == @row and metric == @metric")
    return own.groupby(["subject", "seed", "structure"])["value"].mean().groupby(["subject", "seed"]).mean().groupby(
        "subject").mean()  # fmt: skip


def part(found: dict, metric: str, row: str) -> dict:
    metric_part = next(p for p in found["metrics"] if p["metric"] == metric)
    return next(line for line in metric_part["rows"] if line["row"] == row)


def test_points_and_costs_are_those_of_the_subjects(pair, tmp_path):
    few, many = pair()
    found = learning_curves([many, few], tmp_path / "out")
    assert [s["fraction"] for s in found["studies"]] == [0.05, 0.5]
    assert [p["metric"] for p in found["metrics"]] == ["sensitivity", "precision", "dice"]
    line = part(found, "dice", "erm/none")
    less, more = by_subject(few, "erm/none", "dice"), by_subject(many, "erm/none", "dice")
    np.testing.assert_allclose([p["mean"] for p in line["points"]], [less.mean(), more.mean()])
    assert [p["n"] for p in line["points"]] == [20, 20]
    assert all(p["low"] < p["mean"] < p["high"] for p in line["points"])
    change = line["change"]
    np.testing.assert_allclose(change["mean_difference"], (less - more).mean())
    assert (change["a"], change["b"], change["verdict"]) == ("5 %", "50 %", "worse")
    assert part(found, "dice", "erm/strong")["change"]["family_size"] == 2
    assert json.loads((tmp_path / "out" / "learning-curves.json").read_text())["rows"] == ROWS


def test_where_less_is_better_losing_is_to_rise(pair, tmp_path):
    found = learning_curves(pair(), tmp_path / "out", metrics=["hd95 mm"], rows=["erm/none"], structure="grey")
    change = part(found, "hd95 mm", "erm/none")["change"]
    assert change["mean_difference"] > 0
    assert change["verdict"] == "worse"
    assert found["rows"] == ["erm/none"]
    assert found["structure"] == "grey"


def test_training_subjects_and_the_gap_stand_beside_where_a_study_has_scored_them(pair, tmp_path):
    few, many = pair()
    for place, folder in enumerate(sorted(few.glob("cells/erm_none/*/*"))):
        side = pd.read_csv(folder / "rows.csv").query("metric == 'dice'")
        own = side[side["subject"].isin(side["subject"].unique()[3:6])].assign(side="train", value=0.9 + 0.01 * place)
        own.to_csv(folder / "gap.csv", index=False)
    found = learning_curves([few, many], tmp_path / "out", metrics=["dice"])
    first, last = part(found, "dice", "erm/none")["points"]
    assert first["train"] == pytest.approx(0.925)  # cells 0.90 to 0.95, each held-out domain counting once
    tested = by_subject(few, "erm/none", "dice")
    domains = tested.groupby(tested.index.str[0]).mean()
    assert first["gap"]["value"] == pytest.approx(0.925 - domains.mean())
    assert last["gap"] is None
    assert np.isnan(last["train"])


def test_how_many_were_trained_on_is_read_from_the_runs(pair, tmp_path):
    few, many = pair()
    for place, site in enumerate("AB"):
        run = few / "runs" / f"erm_none-{site}-0"
        run.mkdir(parents=True)
        subjects = {"train": [f"s{i}" for i in range(4 + place)], "validation": ["v"], "validation, in training": ["w"]}
        (run / "run.toml").write_text(tomli_w.dumps({"subjects": subjects}))
    found = learning_curves([few, many], tmp_path / "out")
    assert [s["subjects"] for s in found["studies"]] == [(5, 6), None]
    page = (tmp_path / "out" / "learning-curves.html").read_text().replace("\u00a0", " ")
    assert "5 % (5 to 6 subjects) instead of 50 %:" in page


def test_the_page_shows_every_row_and_metric_and_asks_for_nothing(pair, tmp_path):
    learning_curves(pair(budget={"steps": 800}), tmp_path / "out")
    page = (tmp_path / "out" / "learning-curves.html").read_text()
    assert page.count("<svg") == 3
    assert len(re.findall(r'aria-label="Learning curves, (\w+) at 5 %, 50 %', page)) == 3
    assert "differ in their training budget" in page
    assert "dotted, grey: held-out subjects of erm/none" in page
    assert not re.search(r'(?:src|href)="(?!#)', page)
    assert "rows lose reliably (erm/none and erm/strong); best mean at" in page.replace("\u00a0", " ")


def test_a_training_that_found_nothing_is_told_with_its_fraction(pair, tmp_path):
    few, many = pair()
    (path,) = many.glob("cells/erm_strong/B/2/rows.csv")
    rows = pd.read_csv(path)
    rows.loc[rows["metric"] == "dice", "value"] *= 0.01
    rows.to_csv(path, index=False)
    found = learning_curves([few, many], tmp_path / "out")
    (fell,) = found["fallen"]
    assert (fell["row"], fell["held_out"], fell["seed"], fell["fraction"]) == ("erm/strong", "B", 2, 0.5)
    assert fell["value"] < 0.02 < 0.6 < fell["median"]
    page = (tmp_path / "out" / "learning-curves.html").read_text().replace("\u00a0", " ")
    assert "erm/strong at 50 % (held out B, seed 2:" in page


@pytest.mark.parametrize(
    ("facts", "complaint"),
    [
        ({"fraction": 0.05}, "both of 5 %"),
        ({"cohort_hash": "other"}, "differ in cohort_hash; a learning curve"),
        ({"held_out": ["A"]}, "differ in held_out"),
        ({"validation": 0.3, "tolerance_mm": 1.0}, "differ in validation, tolerance_mm"),
    ],
)
def test_studies_that_differ_in_more_than_the_fraction_are_refused(pair, tmp_path, facts, complaint):
    with pytest.raises(RunError, match=complaint):
        learning_curves(pair(**facts), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_row_must_be_the_same_recipe(pair, tmp_path):
    few, many = pair()
    study = json.loads((many / "study.json").read_text())
    study["rows"][0]["loss"] = "ce"
    (many / "study.json").write_text(json.dumps(study))
    with pytest.raises(RunError, match='row "erm/none" of .* differs from that of .* in loss; rename'):
        learning_curves([few, many], tmp_path / "out")
    assert learning_curves([few, many], tmp_path / "out", rows=["erm/strong"])["rows"] == ["erm/strong"]


def test_what_cannot_be_joined_is_said(pair, make_study, tmp_path):
    few, many = pair()
    with pytest.raises(RunError, match="need 2 studies or more, got 1"):
        learning_curves([few], tmp_path / "out")
    with pytest.raises(OptionError, match='no row that two of these studies have "erm/string"; did you mean'):
        learning_curves([few, many], tmp_path / "out", rows=["erm/string"])
    with pytest.raises(OptionError, match='no metric of these studies "auroc"'):
        learning_curves([few, many], tmp_path / "out", metrics=["auroc"])
    with pytest.raises(OptionError, match='no structure "bone"'):
        learning_curves([few, many], tmp_path / "out", structure="bone")
    cells = [(row, site, seed) for row in ROWS for site in "AB" for seed in (0, 1, 2)]
    empty = make_study("empty", **SMALL, failed=cells, facts={"fraction": 0.1})
    with pytest.raises(RunError, match="has no scores yet"):
        learning_curves([few, empty], tmp_path / "out")
    other = make_study("other", rows=["dann/strong"], sites=["A", "B"], facts={"fraction": 0.1})
    with pytest.raises(RunError, match="no row stands in two of these studies"):
        learning_curves([few, other], tmp_path / "out")


def test_the_command_prints_tables_words_and_where_the_page_is(pair, tmp_path, capsys, monkeypatch):
    few, many = map(str, pair())

    def told(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["shiftproof", "learning-curves", few, many, *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code
        return capsys.readouterr().out

    words = told("--row", "erm/none", "--metrics", "dice")
    assert "worse" in words
    assert f"report: {tmp_path / 'learning-curves.html'}" in words
    assert json.loads(told("--out", str(tmp_path / "o"), "--json"))["report"] == str(
        tmp_path / "o/learning-curves.html"
    )
