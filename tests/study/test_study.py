from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
from safetensors.numpy import load_file

from shiftproof.data.cohort import Cohort
from shiftproof.errors import OptionError, RunError, SplitError
from shiftproof.parts.view_policy import ViewPolicy
from shiftproof.recipe import Recipe
from shiftproof.study.cell import jobs, status
from shiftproof.study.declare import Declaration, parse_rows, with_references
from shiftproof.study.deliver import deliver, selected
from shiftproof.study.run import study
from shiftproof.study.single import train
from shiftproof.train import Trainer
from shiftproof.transforms.views import Views

SMALL = {"widths": [4, 8]}
FAST = Trainer(steps=4, batch=4, validate_every=2, device="cpu")


def row(text: str, **fields) -> Recipe:
    return dataclasses.replace(Recipe.parsed(text), network=SMALL, **fields)


def run(table: Path, out: Path, rows: list[Recipe], **options) -> Path:
    given = {"held_out": ["C"], "seeds": 1, "trainer": FAST, "workers": 2, "estimate": False, **options}
    return study(table, rows, out, **given)


@pytest.fixture(scope="module")
def finished(three_sites, tmp_path_factory) -> Path:
    rows = [
        row("erm/none"),
        row("dann/light+target"),
        row("erm/none+tent", test_time_options={"rate": 0.5}),
        row("mldg/light", sampling={"batches": "one domain"}),  # cannot be met: its cell fails
    ]
    return run(
        three_sites, tmp_path_factory.mktemp("study") / "s", rows, held_out=["A", "C"], command="shiftproof study ..."
    )


def test_every_row_is_scored_on_the_same_unseen_half(finished):
    rows = pd.read_csv(finished / "rows.csv", dtype={"subject": str})
    for held in "AC":
        tested = rows[rows["held_out"] == held].groupby("row")["subject"].agg(lambda s: tuple(sorted(set(s))))
        assert len(set(tested)) == 1
        assert len(tested.iloc[0]) == 2
    assert set(rows["structure"]) == {"ring", "disc"}
    assert (rows["domain"] == rows["held_out"]).all()


def test_a_failed_cell_is_reported_and_the_others_go_on(finished):
    declared = Declaration.load(finished)
    found = {r: status(c) for job in jobs(declared) for r, c in job.cells(finished).items()}
    assert found.pop("mldg/light") == "failed"
    assert set(found.values()) == {"done"}
    text = next((finished / "cells").glob("mldg*/A/0/cell.json")).read_text()
    assert "MLDG needs more than 1 source domains in each batch" in json.loads(text)["error"]


def test_rows_that_differ_in_prediction_only_share_a_training(finished):
    shared = {json.loads(p.read_text())["run"] for p in (finished / "cells").glob("erm_none*/A/0/cell.json")}
    assert len(shared) == 1
    rows = pd.read_csv(finished / "rows.csv").set_index("row")["value"]
    assert not np.array_equal(rows["erm/none"], rows["erm/none+tent"])


def test_references_are_added_once_and_by_preset():
    rows, references = with_references([Recipe.parsed(t) for t in ("erm/none", "dann/strong", "mldg/strong")])
    assert [r.name for r in rows] == [
        "erm/none",
        "dann/strong",
        "mldg/strong",
        "pooled/strong",
        "target-supervised/strong",
    ]
    assert references["source-only"] == "erm/none"
    assert references["pooled"] == {"dann/strong": "pooled/strong", "mldg/strong": "pooled/strong"}
    assert references["target-supervised"]["mldg/strong"] == "target-supervised/strong"


def test_rows_of_another_loss_have_references_of_their_own():
    rows, references = with_references([Recipe.parsed("dann"), Recipe("d2", method="dann", loss="ce")])
    assert references["pooled"]["dann"] != references["pooled"]["d2"]
    assert next(r for r in rows if r.name == references["pooled"]["d2"]).loss == "ce"


def test_a_name_given_twice_is_refused():
    with pytest.raises(OptionError, match="erm came twice"):
        with_references([Recipe.parsed("erm"), Recipe.parsed("erm")])


def test_the_same_command_continues_and_changes_nothing(finished):
    before = (finished / "rows.csv").read_bytes()
    weights = {p: p.stat().st_mtime_ns for p in finished.rglob("weights.safetensors")}
    table = Path(Declaration.load(finished).cohort)
    rows = Declaration.load(finished).rows[:4]
    run(table, finished, rows, held_out=["A", "C"])
    assert (finished / "rows.csv").read_bytes() == before
    assert {p: p.stat().st_mtime_ns for p in finished.rglob("weights.safetensors")} == weights


def test_a_folder_belongs_to_one_study(finished, three_sites):
    with pytest.raises(RunError, match="differs in .*held_out"):
        run(three_sites, finished, [row("erm/none")])


def test_labels_of_the_held_out_domain_reach_no_training(three_sites, tmp_path):
    """Other labels there, same weights: for generalisation, for adaptation, and for what is selected."""
    other = tmp_path / "other"
    shutil.copytree(three_sites.parent, other)
    for path in (other / "C" / "labels").iterdir():
        image = sitk.ReadImage(str(path))
        array = sitk.GetArrayFromImage(image)
        changed = sitk.GetImageFromArray(((array + 1) % 3).astype(np.uint8))
        changed.CopyInformation(image)
        sitk.WriteImage(changed, str(path))
    rows = [row("erm/none"), row("dann/light+target")]
    found = []
    for table, name in ((three_sites, "a"), (other / "table.csv", "b")):
        out = run(table, tmp_path / name, rows)
        runs = sorted(p for p in (out / "runs").iterdir() if p.is_dir() and not p.name.startswith("target-supervised"))
        found.append({p.name: load_file(p / "model" / "weights.safetensors") for p in runs})
    assert found[0].keys() == found[1].keys()
    assert len(found[0]) >= 3
    for name, tensors in found[0].items():
        for key, value in tensors.items():
            np.testing.assert_array_equal(value, found[1][name][key])
    a, b = (pd.read_csv(tmp_path / n / "rows.csv") for n in "ab")
    assert not np.array_equal(a["value"], b["value"])


def test_two_studies_give_identical_numbers(three_sites, tmp_path):
    rows = [row("erm/light")]
    first, second = (run(three_sites, tmp_path / n, rows, workers=w) for n, w in (("a", 1), ("b", 2)))
    assert (first / "rows.csv").read_bytes() == (second / "rows.csv").read_bytes()


def test_the_selected_row_comes_from_the_training_domains(finished):
    declared = Declaration.load(finished)
    choice = selected(finished, declared)
    assert "dann/light+target" not in choice.scores
    assert "erm/none+tent" not in choice.scores
    assert "mldg/light" not in choice.scores
    assert not any(name.startswith("target-supervised") for name in choice.scores)
    # Another held-out score selects the same row.
    for path in (finished / "cells").rglob("rows.csv"):
        assert "validation" not in path.read_text()
    assert choice.row == max(choice.scores, key=choice.scores.get)


def test_the_delivered_model_predicts_in_the_geometry_of_its_input(finished, three_sites, tmp_path):
    from shiftproof.deploy.predictor import predict

    model = deliver(finished, tmp_path / "model")
    assert (model / "card.md").exists()
    predict(model, [three_sites.parent / "B" / "images"], tmp_path / "out")
    for path in (three_sites.parent / "B" / "images").iterdir():
        image, label = sitk.ReadImage(str(path)), sitk.ReadImage(str(tmp_path / "out" / path.name))
        assert label.GetSize() == image.GetSize()
        np.testing.assert_allclose(label.GetDirection(), image.GetDirection(), atol=1e-9)
        np.testing.assert_allclose(label.GetOrigin(), image.GetOrigin(), atol=1e-6)


def test_a_row_that_needs_the_held_out_domain_is_not_delivered(finished):
    with pytest.raises(RunError, match="rows that can"):
        deliver(finished, row="dann/light+target")


def test_the_report_tells_of_the_failure(finished):
    from shiftproof.report import report

    page = report(finished).read_text(encoding="utf-8")
    assert "MLDG needs more than 1 source domains in each batch" in page
    assert "http-equiv" in page


def test_one_training_run_with_a_held_out_domain(three_sites, tmp_path):
    found = train(three_sites, row("erm/none"), tmp_path, hold_out="C", trainer=FAST)
    assert found["steps"] == 4
    assert set(found["held out"]) == {"ring", "disc"}
    assert (tmp_path / "model" / "model.json").exists()
    assert "erm" in (tmp_path / "run.toml").read_text()


def test_a_domain_that_does_not_exist_cannot_be_held_out(three_sites, tmp_path):
    with pytest.raises(SplitError, match="cannot hold out X"):
        run(three_sites, tmp_path, [row("erm")], held_out=["X"])


def test_rows_from_a_file(tmp_path):
    path = tmp_path / "rows.toml"
    path.write_text('[[row]]\nname = "exact"\nmethod = "mldg"\n[row.options]\nsecond_order = true\n')
    (found,) = parse_rows(None, path)
    assert found.options == {"second_order": True}
    path.write_text('[[row]]\nmetod = "mldg"\n')
    with pytest.raises(OptionError, match='did you mean "method"'):
        parse_rows(None, path)
    path.write_text("[[row]\n")
    with pytest.raises(OptionError, match="not valid TOML"):
        parse_rows(None, path)


def test_the_plan_is_made_without_the_held_out_domain(finished):
    plan = json.loads((finished / "plans" / "C.json").read_text())
    assert set(plan["statistics"]["domains"]) == {"A", "B"}


def test_a_cohort_that_changed_is_noticed(three_sites, tmp_path):
    root = tmp_path / "c"
    shutil.copytree(three_sites.parent, root)
    out = run(root / "table.csv", tmp_path / "s", [row("erm/none")])
    path = next((root / "A" / "images").iterdir())
    image = sitk.ReadImage(str(path))
    sitk.WriteImage(image + 1, str(path))
    with pytest.raises(RunError, match="changed since the study"):
        deliver(out)
    assert Cohort.read(root / "table.csv").hash() != Declaration.load(out).cohort_hash


def test_from_one_source_to_one_target(three_sites, tmp_path):
    out = run(three_sites, tmp_path / "s", [row("erm/none")], sources=["A"])
    plan = json.loads((out / "plans" / "C.json").read_text())
    assert set(plan["statistics"]["domains"]) == {"A"}
    assert set(pd.read_csv(out / "rows.csv")["domain"]) == {"C"}


def test_a_structure_that_a_site_does_not_annotate_and_a_channel_that_it_lacks(three_sites, tmp_path):
    """Site B has no disc in its labels and no second channel; the held-out site has both."""
    root = tmp_path / "c"
    shutil.copytree(three_sites.parent, root)
    table = pd.read_csv(root / "table.csv").rename(columns={"image": "image:one"})
    table["image:two"] = [
        path if site != "B" else "" for path, site in zip(table["image:one"], table["site"], strict=True)
    ]
    table.to_csv(root / "table.csv", index=False)
    for path in (root / "B" / "labels").iterdir():
        image = sitk.ReadImage(str(path))
        bare = sitk.GetArrayFromImage(image)
        bare[bare == 2] = 0
        changed = sitk.GetImageFromArray(bare)
        changed.CopyInformation(image)
        sitk.WriteImage(changed, str(path))
    with open(root / "labels.toml", "a") as toml:
        toml.write("[site.B]\nring = 1\n")
    out = run(root / "table.csv", tmp_path / "s", [row("erm/light"), row("dann/light+target")])
    rows = pd.read_csv(out / "rows.csv")
    assert set(rows["structure"]) == {"ring", "disc"}
    assert rows["row"].nunique() >= 4


def test_scans_of_one_subject_keep_predictions_of_their_own(three_sites, tmp_path):
    root = tmp_path / "c"
    shutil.copytree(three_sites.parent, root)
    table = pd.read_csv(root / "table.csv")
    table["subject"] = [f"{s[0]}{int(s[1]) // 2}" for s in table["subject"]]  # two scans each
    table.to_csv(root / "table.csv", index=False)
    out = run(root / "table.csv", tmp_path / "s", [row("erm/none")])
    subjects = pd.read_csv(out / "subjects.csv")
    assert subjects["prediction"].is_unique
    written = list((out / "cells").glob("*/C/0/predictions"))
    assert written
    for folder in written:
        assert sorted(p.name for p in folder.iterdir()) == sorted(subjects["prediction"])


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"method": "dann", "options": {"weight": "1"}}, "dann.weight expects float, got '1'"),
        ({"loss": "dise"}, "dise"),
        ({"network": {"widths": "wide"}}, 'row "x"'),
        ({"network": {"depth": 3}}, "depth"),
        ({"training": {"steps": "x"}}, "steps expects int"),
        ({"training": {"step": 5}}, 'did you mean "steps"'),
        ({"sampling": {"batches": "balancd"}}, 'did you mean "balanced"'),
        ({"test_time": "tent", "test_time_options": {"steps": 1.5}}, "tent.steps expects int"),
    ],
)
def test_a_wrong_row_is_named_before_anything_runs(three_sites, tmp_path, fields, words):
    with pytest.raises(OptionError, match=words):
        run(three_sites, tmp_path / "s", [Recipe("x", **fields)])
    assert not (tmp_path / "s").exists()


def test_a_used_folder_does_not_pass_for_another_run(three_sites, tmp_path):
    """Else the weights that were trained on a site would be scored on it as if unseen."""
    train(three_sites, row("erm/none"), tmp_path, hold_out="C", trainer=FAST)
    before = (tmp_path / "run.toml").read_text()
    with pytest.raises(RunError, match="differs in .*subjects"):
        train(three_sites, row("erm/none"), tmp_path, hold_out="A", trainer=FAST)
    with pytest.raises(RunError, match="differs in recipe"):
        train(three_sites, row("erm/light"), tmp_path, hold_out="C", trainer=FAST)
    assert (tmp_path / "run.toml").read_text() == before
    again = train(three_sites, row("erm/none"), tmp_path, hold_out="C", trainer=FAST)
    assert again["steps"] == 4


def test_a_row_that_fails_while_predicting_fails_alone(three_sites, tmp_path):
    policy = tmp_path / "views.json"
    policy.write_text(ViewPolicy(Views((16, 16))).as_json())
    views = {"test_time": "learned_views", "test_time_options": {"policy_file": str(policy)}}
    rows = [row("erm/none"), dataclasses.replace(row("erm/none"), name="views", **views)]
    # Sound when the study begins, and gone when the row is predicted.
    out = run(three_sites, tmp_path / "t", rows, tell=lambda _: policy.unlink(missing_ok=True))
    found = {r: status(c) for job in jobs(Declaration.load(out)) for r, c in job.cells(out).items()}
    assert found.pop("views") == "failed"
    assert set(found.values()) == {"done"}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"test_time": "tent", "network": {**SMALL, "norm": "none"}}, "TENT adapts .* and found none in this network"),
        ({"test_time": "tent", "test_time_options": {"steps": 0}}, "at least 1 step"),
        ({"test_time": "learned_views", "test_time_options": {"policy_file": "gone.json"}}, "there is no policy"),
    ],
)
def test_what_cannot_predict_is_refused_before_anything_is_trained(three_sites, tmp_path, fields, words):
    rows = [row("erm/none"), dataclasses.replace(row("erm/none"), name="b", **fields)]
    with pytest.raises(OptionError, match=words):
        run(three_sites, tmp_path / "s", rows)
    assert not (tmp_path / "s").exists()


def test_a_row_that_asks_for_more_training_domains_than_there_are_is_refused_before_anything_is_trained(
    three_sites, tmp_path
):
    rows = [row("erm/none"), row("mldg/none", options={"held_out": 2})]
    with pytest.raises(OptionError, match='row "mldg/none": MLDG holds 2 of 2 source domains out'):
        run(three_sites, tmp_path / "s", rows)
    assert not (tmp_path / "s").exists()


def test_mldg_on_batches_of_one_domain_fails_in_words(three_sites, tmp_path):
    out = run(
        three_sites,
        tmp_path / "s",
        [row("erm/none"), row("mldg/none", sampling={"batches": "one domain"})],
        estimate=True,
    )
    text = next((out / "cells").glob("mldg*/C/0/cell.json")).read_text()
    assert "balanced" in json.loads(text)["error"]


def test_a_site_with_three_subjects_can_be_held_out(three_sites, tmp_path):
    root = tmp_path / "c"
    shutil.copytree(three_sites.parent, root)
    table = pd.read_csv(root / "table.csv")
    table[~table["subject"].isin(["C3", "A1", "A2", "A3"])].to_csv(root / "table.csv", index=False)
    out = run(root / "table.csv", tmp_path / "s", [row("erm/none")], estimate=True)
    assert {status(c) for job in jobs(Declaration.load(out)) for c in job.cells(out).values()} == {"done"}


def test_without_validation_a_row_is_delivered_by_name(three_sites, tmp_path):
    out = run(three_sites, tmp_path / "s", [row("erm/none")], validation=0.0)
    with pytest.raises(RunError, match="--row"):
        deliver(out)
    assert (deliver(out, row="erm/none") / "card.md").exists()


def test_a_moved_cohort_is_found_at_its_new_place(three_sites, tmp_path):
    shutil.copytree(three_sites.parent, tmp_path / "old")
    out = run(tmp_path / "old" / "table.csv", tmp_path / "s", [row("erm/none")])
    (tmp_path / "old").rename(tmp_path / "new")
    run(tmp_path / "new" / "table.csv", out, [row("erm/none")])
    assert (deliver(out) / "model.json").exists()


def test_a_site_called_na_keeps_its_name(three_sites, tmp_path):
    root = tmp_path / "c"
    shutil.copytree(three_sites.parent, root)
    table = (root / "table.csv").read_text().replace(",C\n", ",NA\n")
    (root / "table.csv").write_text(table)
    out = run(root / "table.csv", tmp_path / "s", [row("erm/none")], held_out=["NA"])
    assert ",NA," in (out / "rows.csv").read_text()
    assert "NA" in (deliver(out) / "card.md").read_text()
