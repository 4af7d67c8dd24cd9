"""From a table of classes, findings or numbers to results, report and model: the path that segmentation takes."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
from sklearn.metrics import roc_auc_score

from shiftproof.data.cohort import Cohort
from shiftproof.data.targets import Targets
from shiftproof.deploy.answer import answer_of
from shiftproof.deploy.model import load_model
from shiftproof.deploy.predictor import predict
from shiftproof.errors import CohortError, LabelError, OptionError, RunError
from shiftproof.evaluate import evaluate
from shiftproof.recipe import Recipe
from shiftproof.report import report
from shiftproof.report.answers import read_answers, set_tables, targets_of
from shiftproof.report.reading import read_results
from shiftproof.statistics import per_subject
from shiftproof.study.declare import with_references
from shiftproof.study.deliver import deliver
from shiftproof.study.run import study
from shiftproof.study.single import train
from shiftproof.train import Trainer

CLASSES = ("low", "middle", "high")
KINDS = {
    "multi-class": Targets("classification", "grade", CLASSES),
    "ordinal": Targets("classification", "grade", CLASSES, "ordinal"),
    "multi-label": Targets("classification", "finding", ("left", "right"), "multi-label"),
    "regression": Targets("regression", "age", unit="years"),
}
RECIPE = Recipe("erm", transforms="light", network={"name": "resnet", "width": 0.0625})
TRAINER = Trainer(steps=3, batch=6, validate_every=3)


def cohort_of(folder, kind: str, *, dimensions: int = 2, subjects: int = 6):
    """A bright square whose place tells the label, at three sites of different gain."""
    random, rows = np.random.default_rng(0), []
    for s, site in enumerate("ABC"):
        for i in range(subjects):
            k = i % 3
            array = random.normal(0, 0.3, (16,) * dimensions)
            array[tuple(slice(2 + 4 * k, 6 + 4 * k) for _ in range(dimensions))] += 3 * (1 + s)
            name = f"{site}{i}.nii.gz"
            folder.mkdir(parents=True, exist_ok=True)
            sitk.WriteImage(sitk.GetImageFromArray((100 * array).astype(np.int16)), str(folder / name))
            label = {
                "multi-class": {"grade": CLASSES[k]},
                "ordinal": {"grade": CLASSES[k]},
                "multi-label": {"finding:left": str(int(k > 0)), "finding:right": "" if i == 5 else str(int(k > 1))},
                "regression": {"age": str(20 + 10 * k + i)},
            }[kind]
            rows.append({"subject": f"{site}{i}", "site": site, "image": name, **label})
    pd.DataFrame(rows).to_csv(folder / "table.csv", index=False)
    KINDS[kind].write(folder / "labels.toml")
    return folder / "table.csv"


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("kind", list(KINDS))
def test_a_model_of_each_kind_is_trained_scored_and_used(tmp_path, kind, dimensions):
    path = cohort_of(tmp_path / "cohort", kind, dimensions=dimensions, subjects=4)
    found = train(path, RECIPE, tmp_path / "run", hold_out="A", trainer=TRAINER)
    model = load_model(tmp_path / "run" / "model")
    row = next(Cohort.read(path).rows())
    answer = answer_of(model, row.images)
    if kind == "regression":
        assert np.isfinite(answer.answer)
        assert answer.unit == "years"
        assert found["metric"] == "absolute error years"
    elif kind == "multi-label":
        assert answer.answer == [c for c in ("left", "right") if answer.probabilities[c] > 0.5]
    else:
        assert sum(answer.probabilities.values()) == pytest.approx(1, abs=1e-5)
        assert answer.answer == max(answer.probabilities, key=lambda c: answer.probabilities[c])
    # What is written for a scan is what was scored.
    predict(model, [row.images["image"]], tmp_path / "out")
    written = json.loads((tmp_path / "out" / "A0.json").read_text())
    assert written == answer.as_dict()
    assert list(pd.read_csv(tmp_path / "out" / "predictions.csv")["scan"]) == ["A0"]


def test_slices_of_a_volume_are_averaged_in_2d(tmp_path):
    path = cohort_of(tmp_path / "cohort", "multi-class", dimensions=3, subjects=4)
    train(path, RECIPE, tmp_path / "run", trainer=TRAINER, plan={"dimensions": 2, "context": 1})
    model = load_model(tmp_path / "run" / "model")
    assert model.setting.channels == 3
    assert set(answer_of(model, next(Cohort.read(path).rows()).images).probabilities) == set(CLASSES)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A study of two rows on one held-out site."""
    root = tmp_path_factory.mktemp("whole")
    path = cohort_of(root / "cohort", "multi-class")
    rows = [RECIPE, Recipe("dann+target", method="dann", target=True, transforms="none", network=RECIPE.network)]
    return study(path, rows, root / "study", held_out=["A"], seeds=2, trainer=TRAINER, workers=1, estimate=False)


def test_rows_are_worked_out_from_the_answers(finished):
    rows, answers = (pd.read_csv(finished / name) for name in ("rows.csv", "answers.csv"))
    assert set(rows["metric"]) == {"correct", "brier"}
    one = answers[(answers["row"] == "erm") & (answers["seed"] == 0)]
    for subject, own in one.groupby("subject"):
        true = own.loc[own["truth"].idxmax(), "structure"]
        chosen = own.loc[own["predicted"].idxmax(), "structure"]
        mine = rows[(rows["row"] == "erm") & (rows["seed"] == 0) & (rows["subject"] == subject)]
        mine = mine.set_index("metric")
        assert mine.loc["correct", "value"] == float(true == chosen)
        assert mine.loc["correct", "structure"] == true
        assert mine.loc["brier", "value"] == pytest.approx(((own["predicted"] - own["truth"]) ** 2).sum())


def test_figures_of_a_whole_set_are_the_mean_over_seeds(finished):
    results = read_results(finished)
    answers = read_answers(results)
    table = set_tables(results, targets_of(results), answers)[0]
    line = next(line for line in table["lines"] if line["row"] == "erm")
    expected = []
    for _, own in answers[answers["row"] == "erm"].groupby("seed"):
        wide = own.pivot(index="subject", columns="structure", values=["predicted", "truth"])
        there = [c for c in CLASSES if wide["truth"][c].nunique() == 2]
        expected.append(np.mean([roc_auc_score(wide["truth"][c], wide["predicted"][c]) for c in there]))
    shown = dict(zip(table["metrics"], line["cells"], strict=True))
    assert float(shown["AUROC"]["mean"]) == pytest.approx(np.mean(expected), abs=6e-4)


def test_the_page_shows_classes_and_says_nothing_of_voxels(finished):
    text = report(finished).read_text(encoding="utf-8")
    assert "Confusion matrix of" in text
    assert "Reliability of" in text
    assert "balanced accuracy" in text
    assert "surface Dice" not in text
    assert "no longer there" not in text


def test_the_selected_row_is_delivered_with_a_card_of_its_task(finished, tmp_path):
    model = deliver(finished, tmp_path / "model")
    card = (model / "card.md").read_text(encoding="utf-8")
    assert "Tells low, middle and high apart in pictures" in card
    assert "Accuracy by class" in card
    assert "Dice" not in card
    listed = next(line for line in card.splitlines() if line.startswith("| site |") and "accuracy" not in line)
    assert [c for c in CLASSES if c in listed] == [cell.strip() for cell in listed.split("|")[2:-1]]


def test_a_model_and_a_table_of_its_answers_score_alike(finished, tmp_path):
    cohort = Cohort.read(finished.parent / "cohort" / "table.csv")
    folder = next((finished / "runs").glob("erm-*/model"))
    by_model = evaluate(cohort, model=folder, out=tmp_path / "model")
    predict(folder, finished.parent / "cohort" / "table.csv", tmp_path / "out")
    by_table = evaluate(cohort, predictions=tmp_path / "out")
    pd.testing.assert_frame_equal(by_model.rows, by_table.rows)
    assert by_model.facts["primary"] == "correct"
    assert (tmp_path / "model" / "answers.csv").exists()
    assert "balanced accuracy" in report(tmp_path / "model").read_text(encoding="utf-8")


def test_a_table_that_lacks_scans_or_classes_says_which(finished, tmp_path):
    cohort = Cohort.read(finished.parent / "cohort" / "table.csv")
    table = pd.DataFrame({"subject": ["A0"], **{f"probability:{c}": [1 / 3] for c in CLASSES}})
    table.to_csv(tmp_path / "p.csv", index=False)
    found = evaluate(cohort, predictions=tmp_path / "p.csv")
    assert len(found.failures) == len(cohort) - 1
    table.assign(**{"probability:low": 1.5}).to_csv(tmp_path / "p.csv", index=False)
    with pytest.raises(LabelError, match="between 0 and 1"):
        evaluate(cohort, predictions=tmp_path / "p.csv")
    with pytest.raises(OptionError, match="missing=report"):
        evaluate(cohort, predictions=tmp_path / "p.csv", missing="missed")


def test_a_model_of_another_task_is_refused(finished, three_sites):
    folder = next((finished / "runs").glob("erm-*/model"))
    with pytest.raises(LabelError, match="is for multi-class classification, .* of multi-class segmentation"):
        evaluate(Cohort.read(three_sites), model=folder)
    with pytest.raises(OptionError, match="answers for whole scans"):
        predict(folder, finished.parent / "cohort" / "table.csv", finished / "x", probabilities=True)


def test_overlapping_structures_go_all_the_way(three_sites, tmp_path):
    """The disc lies within the whole: a value means both, and a prediction is a bit for each."""
    folder = tmp_path / "cohort"
    cohort = Cohort.read(three_sites)
    cohort.with_labels(None).write(folder / "table.csv")
    (folder / "labels.toml").write_text(
        'classes = ["background", "whole", "disc"]\nkind = "multi-label"\n[default]\nwhole = [1, 2]\ndisc = 2\n'
    )
    recipe = Recipe("erm", transforms="strong", network={"widths": [8, 16]})
    trainer = Trainer(steps=60, batch=6, validate_every=60, rate=5e-3)
    train(folder / "table.csv", recipe, tmp_path / "run", hold_out="A", trainer=trainer)
    rows = pd.read_csv(tmp_path / "run" / "rows.csv")
    dice = rows[rows["metric"] == "dice"].groupby("structure")["value"].mean()
    assert set(dice.index) == {"whole", "disc"}
    assert dice["whole"] > 0.6
    model = load_model(tmp_path / "run" / "model")
    row = next(Cohort.read(folder / "table.csv").where(site="A").rows())
    (made,) = predict(model, [row.images["image"]], tmp_path / "out", probabilities=True, flips=True)
    values = set(np.unique(sitk.GetArrayFromImage(sitk.ReadImage(str(made.output)))))
    assert values <= {0, 1, 2, 3}
    assert values & {1, 3}
    assert "1 whole, 2 disc" in json.loads((tmp_path / "out" / "predictions.json").read_text())["values"]
    assert sitk.ReadImage(str(made.probabilities)).GetSize()[3] == 2
    # By files, the same scores as by the model.
    held = Cohort.read(folder / "table.csv").where(site="A")
    predict(model, [r.images["image"] for r in held.rows()], tmp_path / "all")
    by_files = evaluate(held, predictions=tmp_path / "all").rows
    pd.testing.assert_frame_equal(by_files, evaluate(held, model=model).rows)


def several_scans(folder, kind="regression"):
    """Two scans of each subject, with labels of their own."""
    path = cohort_of(folder, kind)
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    table["subject"] = [f"P{s[0]}{int(s[1:]) // 2}" for s in table["subject"]]
    table.to_csv(path, index=False)
    return path


def test_scans_of_a_subject_keep_answers_of_their_own(tmp_path):
    path = several_scans(tmp_path / "cohort")
    train(path, RECIPE, tmp_path / "run", trainer=TRAINER)
    cohort, model = Cohort.read(path), tmp_path / "run" / "model"
    by_model = evaluate(cohort, model=model)
    predict(model, path, tmp_path / "out")
    by_table = evaluate(cohort, predictions=tmp_path / "out")
    pd.testing.assert_frame_equal(by_model.answers, by_table.answers)
    assert by_model.answers.groupby("subject")["scan"].apply(list).map(tuple).unique().tolist() == [(1, 2)]
    # One line for two scans says of neither which it is.
    pd.DataFrame({"subject": cohort.subjects, "answer": 30.0}).to_csv(tmp_path / "p.csv", index=False)
    with pytest.raises(CohortError, match="the image file where a subject has several scans"):
        evaluate(cohort, predictions=tmp_path / "p.csv")


def test_accuracy_counts_scans_and_not_the_classes_that_they_have():
    rows = pd.DataFrame(
        [
            {"row": "erm", "held_out": "A", "seed": 0, "subject": "s", "domain": "A", "metric": "correct"} | line
            for line in [{"structure": "low", "value": 1.0}] * 3 + [{"structure": "high", "value": 0.0}]
        ]
    )
    assert per_subject(rows, "correct", by_structure=False)["value"].tolist() == [0.75]
    assert per_subject(rows, "correct")["value"].tolist() == [0.5]


def test_a_cell_that_failed_takes_nothing_from_the_others(finished, tmp_path):
    """One seed lacks a site: its figures are of what it has."""
    folder = tmp_path / "study"
    shutil.copytree(finished, folder)
    broken = folder / "cells" / "erm" / "A" / "1" / "cell.json"
    broken.write_text(json.dumps({**json.loads(broken.read_text()), "status": "failed", "error": "killed"}))
    results = read_results(folder)
    answers = read_answers(results)
    assert set(answers[answers["row"] == "erm"]["seed"]) == {0}
    table = set_tables(results, targets_of(results), answers)[0]
    assert all(len(line["cells"]) == len(table["metrics"]) for line in table["lines"])
    for name in ("erm", "source-only", "dann+target"):
        for cell in (folder / "cells" / name / "A").glob("*/cell.json"):
            cell.write_text(json.dumps({**json.loads(cell.read_text()), "status": "failed", "error": "killed"}))
    assert "Whole sets" in report(folder).read_text(encoding="utf-8")


@pytest.mark.parametrize("change", ["names", "order"])
def test_other_labels_are_another_run(tmp_path, change):
    path = cohort_of(tmp_path / "cohort", "multi-class")
    train(path, RECIPE, tmp_path / "run", trainer=TRAINER)
    if change == "order":
        KINDS["ordinal"].write(path.parent / "labels.toml")
    else:
        text = path.read_text().replace("low", "none")
        path.write_text(text)
        Targets("classification", "grade", ("none", "middle", "high")).write(path.parent / "labels.toml")
    with pytest.raises(RunError, match="differs in .*(target|classes)"):
        train(path, RECIPE, tmp_path / "run", trainer=TRAINER)


def test_a_model_of_another_number_is_refused(tmp_path):
    path = cohort_of(tmp_path / "cohort", "regression")
    train(path, RECIPE, tmp_path / "run", trainer=TRAINER)
    predict(tmp_path / "run" / "model", path, tmp_path / "out")
    Targets("regression", "age", unit="months").write(path.parent / "labels.toml")
    for given in ({"model": tmp_path / "run" / "model"}, {"predictions": tmp_path / "out"}):
        with pytest.raises(LabelError, match="regression age years, the cohort's labels are of regression age months"):
            evaluate(Cohort.read(path), **given)


def test_channels_of_neighbouring_slices_survive_strong_augmentation(tmp_path):
    path = cohort_of(tmp_path / "cohort", "multi-class", dimensions=3, subjects=4)
    table = pd.read_csv(path)
    table["image:T1"] = table.pop("image")
    table["image:T2"] = table["image:T1"].where(table.index % 3 > 0, "")
    table.to_csv(path, index=False)
    recipe = Recipe("erm", transforms="strong", network=RECIPE.network)
    train(path, recipe, tmp_path / "run", trainer=TRAINER, plan={"dimensions": 2, "context": 1})
    model = load_model(tmp_path / "run" / "model")
    assert model.setting.channels == 6
    answer_of(model, next(Cohort.read(path).rows()).images)


def test_references_start_from_what_their_row_starts_from():
    rows = [RECIPE, Recipe("big", method="dann", network={"name": "resnet", "width": 0.5})]
    every, references = with_references(rows)
    network = {r.name: r.network for r in every}
    for row in rows:
        for kind in ("plain", "pooled", "target-supervised"):
            assert network[references[kind][row.name]] == row.network
