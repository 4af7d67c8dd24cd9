from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk

from shiftproof.data.cohort import Cohort
from shiftproof.data.splits import hold_out
from shiftproof.recipe import Recipe
from shiftproof.report import report
from shiftproof.report.generalization import section
from shiftproof.report.reading import read_results
from shiftproof.study.declare import Declaration
from shiftproof.study.gap import GapWatch
from shiftproof.study.run import study
from shiftproof.train import Trainer

FAST = Trainer(steps=4, batch=4, validate_every=2, device="cpu")
ROWS = [Recipe("erm/none", transforms="none", network={"widths": [4, 8]})]


def run(table: Path, out: Path, **options) -> Path:
    return study(
        table, ROWS, out, held_out=["C"], seeds=1, trainer=FAST, workers=1, estimate=False, validation=0.5, **options
    )


@pytest.fixture(scope="module")
def looked_at(three_sites, tmp_path_factory) -> Path:
    return run(three_sites, tmp_path_factory.mktemp("gap") / "s", gap_subjects=3)


@pytest.fixture(scope="module")
def plain(three_sites, tmp_path_factory) -> Path:
    return run(three_sites, tmp_path_factory.mktemp("plain") / "s", gap_subjects=0)


@pytest.fixture(scope="module")
def cell(looked_at) -> Path:
    return next(looked_at.glob("cells/*/C/0"))


def test_training_and_held_back_subjects_are_scored_as_test_subjects_are(cell, three_sites):
    found = pd.read_csv(cell / "gap.csv")
    tested = pd.read_csv(cell / "rows.csv")
    assert [*tested.columns, "side"] == sorted([*found.columns], key=[*tested.columns, "side"].index)
    split = hold_out(Cohort.read(three_sites), "C", validation=0.5)
    for side, cohort in (("train", split.train), ("validation", split.validation)):
        own = found[found["side"] == side]
        assert set(own["subject"]) <= set(cohort.subjects)
        assert own["subject"].nunique() == 3
        assert set(own["domain"]) == {"A", "B"}
        assert set(own["metric"]) == set(tested["metric"])
    assert {"dice", "sensitivity", "precision"} <= set(found["metric"])


def test_scores_of_the_gap_are_those_of_the_model_folder(cell, looked_at, three_sites):
    """Against predictions by the saved model, with SimpleITK's own overlap."""
    from shiftproof.deploy.model import load_model
    from shiftproof.deploy.segment import label_of

    found = pd.read_csv(cell / "gap.csv")
    facts = json.loads((cell / "cell.json").read_text())
    model = load_model(looked_at / facts["run"] / "model", device="cpu")
    subject = found["subject"].iloc[0]
    row = next(r for r in Cohort.read(three_sites).rows() if r.subject == subject)
    predicted, label = label_of(model, row.images), sitk.ReadImage(str(row.label), sitk.sitkUInt8)
    p, y = sitk.GetArrayFromImage(predicted), sitk.GetArrayFromImage(label)
    for index, name in ((1, "ring"), (2, "disc")):
        own = found[(found["subject"] == subject) & (found["structure"] == name)].set_index("metric")["value"]
        assert own["sensitivity"] == pytest.approx(np.sum((p == index) & (y == index)) / np.sum(y == index))


def test_logits_of_the_same_subjects_stand_beside_the_scores(cell):
    found = json.loads((cell / "logits.json").read_text())
    gap = pd.read_csv(cell / "gap.csv")
    for side in ("train", "validation"):
        assert {c["subject"] for c in found["cases"] if c["side"] == side} == set(gap[gap["side"] == side]["subject"])
    tested = {c["subject"] for c in found["cases"] if c["side"] == "test"}
    assert tested <= set(pd.read_csv(cell / "rows.csv")["subject"])
    assert {p["truth"] for p in found["panels"]} == {"background", "ring", "disc"}
    assert {s["to"] for s in found["shifts"]} == {"validation", "test"}


def test_no_gap_subjects_leave_the_cell_as_it_was(plain, cell):
    without = next(plain.glob("cells/*/C/0"))
    assert not (without / "gap.csv").exists()
    assert not (without / "logits.json").exists()
    assert (without / "rows.csv").read_bytes() == (cell / "rows.csv").read_bytes()


def test_an_older_study_is_continued_whatever_the_number_of_gap_subjects(looked_at, three_sites):
    run(three_sites, looked_at, gap_subjects=0)
    assert Declaration.load(looked_at).gap_subjects == 3


def test_the_study_gathers_the_gaps_of_its_cells(looked_at, cell):
    assert (looked_at / "gap.csv").read_bytes() == (cell / "gap.csv").read_bytes()


def test_the_report_shows_the_gap_where_there_is_one(looked_at, plain):
    found = section(read_results(looked_at))
    assert {(part["structure"], part["metric"]) for part in found["tables"]} >= {
        ("disc", "dice"),
        ("ring", "precision"),
    }
    assert found["notes"].startswith("Errors of the final weights on 3 training subjects and 3 held-back subjects")
    assert section(read_results(plain)) is None


def test_whom_a_method_validates_on_while_it_trains_is_neither_trained_on_nor_held_back(three_sites):
    """No weights are fitted to them, but their labels steer."""
    split = hold_out(Cohort.read(three_sites), "C", validation=0.5)
    first, *others = split.train.subjects
    watch = GapWatch.of(None, split, split.test, 6, {first})  # type: ignore[arg-type]  # no model is asked
    assert watch.subjects["train"] == set(others)
    assert first not in watch.subjects["validation"] | watch.subjects["test"]


def test_a_scan_with_one_label_is_asked_in_the_same_way(tmp_path):
    """A classification: answers and logits of training subjects, from the one prediction of each."""
    lines = ["subject,image,site,grade"]
    for k, name in enumerate(f"{site}{i}" for site in "ABC" for i in range(4)):
        array = np.random.default_rng(k).normal(k % 2, 0.5, (4, 16, 16)).astype(np.float32)
        volume = sitk.GetImageFromArray(array)
        volume.SetSpacing((2.0, 2.0, 6.0))
        sitk.WriteImage(volume, str(tmp_path / f"{name}.nii.gz"))
        lines.append(f"{name},{name}.nii.gz,{name[0]},{['low', 'high'][k % 2]}")
    (tmp_path / "table.csv").write_text("\n".join(lines) + "\n")
    kind = 'task = "classification"\nkind = "multi-class"\ncolumn = "grade"\nclasses = ["low", "high"]\n'
    (tmp_path / "labels.toml").write_text(kind)
    rows = [Recipe("erm/none", transforms="none", network={"name": "resnet", "depth": 18, "width": 0.125})]
    out = study(
        tmp_path / "table.csv", rows, tmp_path / "s", held_out=["C"], seeds=1, trainer=FAST, workers=1, estimate=False,
        validation=0.5, gap_subjects=2,
    )  # fmt: skip
    cell = next(out.glob("cells/*/C/0"))
    gap, found = pd.read_csv(cell / "gap.csv"), json.loads((cell / "logits.json").read_text())
    assert set(gap["metric"]) == {"correct", "brier"}
    for case in found["cases"]:
        if case["side"] != "test":  # a margin above 0 is a right answer
            own = gap[(gap["subject"] == case["subject"]) & (gap["metric"] == "correct")]["value"].item()
            assert own == (case["mean"] > 0)
    assert "Logits of scans of each true class" in report(out, viewer=False).read_text()
