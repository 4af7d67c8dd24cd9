"""The card says what was measured, and where that ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from shiftproof.deploy.card import card, held_out_results, write_card
from shiftproof.deploy.model import load_model, read_description, save_model
from shiftproof.errors import ModelError, RunError

STATISTICS = {
    "scans": 30,
    "subjects": 30,
    "domain": "site",
    "domains": {
        name: {
            "scans": n,
            "subjects": n,
            "spacing_mm": [1.0, 1.0, thick],
            "size": [180.0, 200.0, 150.0],
            "intensity": {"image": {"mean": 300.0, "sd": 50.0, "p0.5": 12.0, "p50": 290.0, "p99.5": 910.0}},
        }
        for name, n, thick in (("A", 20, 1.2), ("B", 10, 3.0))
    },
}


def results(*, row: str = "erm/strong", missed: bool = True) -> pd.DataFrame:
    """Two held-out sites, two seeds, subjects whose Dice is known."""
    lines = []
    for site, level, n in (("A", 0.9, 12), ("B", 0.7, 5)):
        for seed in (0, 1):
            for i in range(n):
                for structure, extra in (("disc", 0.05), ("ring", -0.05)):
                    dice = level + extra + 0.01 * i + (0.02 if seed else -0.02)
                    status = "ok"
                    if missed and (site, i, structure) == ("B", 0, "ring"):
                        dice, status = 0.0, "missed"
                    for metric, value in (("dice", dice), ("surface dice", dice + 0.02), ("hd95 mm", 10 * (1 - dice))):
                        lines.append((row, site, seed, f"{site}{i:02d}", site, structure, metric, value, status))
    columns = ["row", "held_out", "seed", "subject", "domain", "structure", "metric", "value", "status"]
    return pd.DataFrame(lines, columns=columns)


def write_study(root: Path, rows: pd.DataFrame) -> Path:
    facts = {
        "name": "sites", "domain_column": "site", "held_out": ["A", "B"], "seeds": [0, 1], "cohort_hash": "c0ffee",
        "tolerance_mm": 2.0, "command": "shiftproof study table.csv --seeds 2", "versions": {"torch": "2.13.0"},
    }  # fmt: skip
    root.mkdir()
    (root / "study.json").write_text(json.dumps(facts))
    for (row, site, seed), some in rows.groupby(["row", "held_out", "seed"]):
        cell = root / "cells" / str(row).replace("/", "_") / str(site) / str(seed)
        cell.mkdir(parents=True)
        some.to_csv(cell / "rows.csv", index=False)
        (cell / "cell.json").write_text(json.dumps({"status": "done", "row": row}))
    return root


@pytest.fixture
def model(tmp_path: Path, tiny: Any) -> Path:
    plan = tiny.plan(statistics=STATISTICS)
    method, recipe, setting = tiny.trained("erm", plan, row="erm/strong")
    save_model(tmp_path / "model", method, recipe, plan, setting)
    return tmp_path / "model"


SELECTION = {
    "row": "erm/strong",
    "rule": "best mean on held-back subjects",
    "scores": {"dann": 0.81, "erm/strong": 0.83},
}


def test_intervals_are_those_of_subjects_with_seeds_averaged() -> None:
    found = held_out_results(results(missed=False))
    site = found["by_domain"]["A"]["dice"]
    subjects = 0.9 + 0.01 * np.arange(12)
    low, high = stats.t.interval(0.95, 11, subjects.mean(), stats.sem(subjects))
    assert site["n"] == 12
    assert (site["mean"], site["low"], site["high"]) == pytest.approx((subjects.mean(), low, high))
    assert found["by_domain"]["A"]["structures"]["ring"]["mean"] == pytest.approx(subjects.mean() - 0.05)
    assert found["all"]["dice"]["mean"] == pytest.approx(np.r_[subjects, 0.7 + 0.01 * np.arange(5)].mean())
    assert found["all"]["subjects"] == 17
    assert found["worst_domain"] == "B"
    assert found["seeds"] == [0, 1]


def test_tolerances_by_structure_are_told(model: Path, tmp_path: Path) -> None:
    study = write_study(tmp_path / "study", results())
    facts = json.loads((study / "study.json").read_text()) | {"tolerance_mm": {"ring": 1.0}}
    (study / "study.json").write_text(json.dumps(facts))
    path = write_card(model, study=study, row="erm/strong", selection=SELECTION)
    assert "Surface Dice is at 1 mm for ring, 2 mm for others." in path.read_text(encoding="utf-8")


def test_what_is_unknown_is_null_and_not_nan() -> None:
    rows = results()
    rows.loc[rows["held_out"] == "A", "value"] = np.nan
    found = held_out_results(rows)
    dice = found["by_domain"]["A"]["dice"]
    assert [dice[key] for key in ("mean", "low", "high", "n")] == [None, None, None, 0]
    json.dumps(found, allow_nan=False)


def test_the_card_of_a_study_tells_the_held_out_results_and_the_limits(model: Path, tmp_path: Path) -> None:
    path = write_card(model, study=write_study(tmp_path / "study", results()), row="erm/strong", selection=SELECTION)
    text = path.read_text(encoding="utf-8")
    found = held_out_results(results())
    for name in ("A", "B"):
        dice = found["by_domain"][name]["dice"]
        assert f"{dice['mean']:.3f} ({dice['low']:.3f} to {dice['high']:.3f})" in text
    for words in (
        "Segments disc and ring in volumes",
        "Not a medical device",
        "Held out in turn: site A and B.",
        "2 seeds",
        "Surface Dice is at 2 mm",
        "It has seen site A and B and nothing else",
        "Worst held-out domain: B",
        "over 5 subjects",
        "Weakest structure: ring",
        "Of 68 structures, counted by subject and seed: 2 missed",
        "fewer than 10 subjects, whose means say little: B (5)",
        '"erm/strong": best mean on held-back subjects. Held-out scores took no part.',
        "| erm/strong | 0.8300 |\n| dann | 0.8100 |",
        "| A | 20 | 20 | 1 x 1 x 1.2 | 180 x 200 x 150 | 12 to 910 |",
        "their values are 0 background, 1 disc, 2 ring",
        "shiftproof study table.csv --seeds 2",
        "c0ffee",
    ):
        assert words in text, words


def test_the_numbers_of_the_card_stand_in_the_model_too(model: Path, tmp_path: Path) -> None:
    before = load_model(model).hash
    write_card(model, study=write_study(tmp_path / "study", results()), row="erm/strong", selection=SELECTION)
    loaded = load_model(model)
    assert loaded.hash == before
    assert loaded.information["held_out"] == json.loads(json.dumps(held_out_results(results())))
    assert loaded.information["selection"] == SELECTION
    assert loaded.information["study"]["cohort_hash"] == "c0ffee"
    # Written twice, nothing changes.
    text = (model / "card.md").read_text(encoding="utf-8")
    write_card(model, study=tmp_path / "study", row="erm/strong", selection=SELECTION)
    assert (model / "card.md").read_text(encoding="utf-8") == text


def test_a_row_of_the_user_s_choice_is_called_that(model: Path, tmp_path: Path) -> None:
    study = write_study(tmp_path / "study", pd.concat([results(), results(row="dann")]))
    write_card(model, study=study, row="dann", selection={**SELECTION, "rule": "chosen by the user"})
    text = (model / "card.md").read_text(encoding="utf-8")
    assert '"dann": chosen by the user. The rule itself selects "erm/strong".' in text
    assert "took no part" not in text


def test_a_model_without_a_study_says_that_nothing_is_known(model: Path) -> None:
    text = card(read_description(model))
    assert "Not measured: this model was trained outside of a study" in text
    assert "Its accuracy at a new site was not measured." in text


def test_adaptation_at_prediction_is_a_limit(tmp_path: Path, tiny: Any) -> None:
    plan = tiny.plan()
    method, recipe, setting = tiny.trained("erm", plan, test_time="tent")
    save_model(tmp_path / "model", method, recipe, plan, setting)
    assert "It adapts while predicting (tent)" in card(read_description(tmp_path / "model"))


def test_tables_have_as_many_cells_in_each_line(model: Path, tmp_path: Path) -> None:
    selection = {**SELECTION, "scores": {"a|b": 0.5}}
    write_card(model, study=write_study(tmp_path / "study", results()), row="erm/strong", selection=selection)
    parts = (model / "card.md").read_text(encoding="utf-8").split("\n\n")
    tables = [part.split("\n") for part in parts if part[0] == "|"]
    assert len(tables) == 4
    for lines in tables:
        assert len({line.replace("\\|", "").count("|") for line in lines}) == 1


def test_a_study_without_the_row_or_without_a_model_is_an_error(model: Path, tmp_path: Path) -> None:
    study = write_study(tmp_path / "study", results())
    with pytest.raises(RunError, match='no results of "mldg"'):
        write_card(model, study=study, row="mldg", selection={})
    with pytest.raises(RunError, match="is not a study"):
        write_card(model, study=tmp_path / "nowhere", row="erm/strong", selection={})
    with pytest.raises(ModelError, match="is not a model folder"):
        write_card(tmp_path / "nothing", study=study, row="erm/strong", selection={})
