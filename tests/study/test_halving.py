"""Rungs that rank without the held-out domain, and a confirmation that looks at it once."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
from safetensors.numpy import load_file

from shiftproof.cli import main
from shiftproof.data.cohort import Cohort
from shiftproof.errors import MethodError, OptionError, RunError, SplitError
from shiftproof.recipe import Recipe
from shiftproof.study.declare import Declaration, parse_families, parse_rows
from shiftproof.study.halving import Rung, halve
from shiftproof.study.rules import Halving
from shiftproof.study.run import study
from shiftproof.train import Trainer

SMALL = {"widths": [4, 8]}
FAST = Trainer(steps=3, batch=4, validate_every=3, device="cpu")


def row(text: str, **fields) -> Recipe:
    return dataclasses.replace(Recipe.parsed(text), network=SMALL, **fields)


ROWS = [
    row("erm/none"),
    row("mldg/light", sampling={"batches": "one domain"}),  # cannot be met: its cells fail
    row("group_dro/light"),
    row("erm/light+tent"),
    row("dann/light+target"),
    row("mean_teacher/light+target"),
]


class Stop(Exception):
    """Ends a study where a line is told, as a power cut would."""


def until(words: str):
    def tell(line: str) -> None:
        if line.startswith(words):
            raise Stop

    return tell


def run(table: Path, out: Path, rows=ROWS, **options) -> Path:
    given = {
        "held_out": ["D"],
        "rungs": [Rung(steps=2), Rung(steps=3)],
        "keep": 0.5,
        "seeds": 1,
        "trainer": FAST,
        "workers": 2,
        "estimate": False,
        **options,
    }
    return halve(table, rows, out, **given)


def change(path: Path, how, to: Path | None = None) -> None:
    image = sitk.ReadImage(str(path))
    changed = sitk.GetImageFromArray(how(sitk.GetArrayFromImage(image)))
    changed.CopyInformation(image)
    (to or path).parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(changed, str(to or path))


@pytest.fixture(scope="session")
def four_sites(tmp_path_factory, three_sites) -> Path:
    """The three sites and D: mirrored subjects of C on another scanner."""
    root = tmp_path_factory.mktemp("four") / "cohort"
    shutil.copytree(three_sites.parent, root)
    lines = []
    for i in range(4):
        for kind, gain in {"images": 1.5, "labels": 1}.items():
            change(
                root / "C" / kind / f"C{i}.nii.gz",
                lambda a, gain=gain: (a[:, :, ::-1] * gain).astype(a.dtype),
                root / "D" / kind / f"D{i}.nii.gz",
            )
        lines.append(f"D{i},D/images/D{i}.nii.gz,D/labels/D{i}.nii.gz,D\n")
    with open(root / "table.csv", "a") as table:
        table.writelines(lines)
    return root / "table.csv"


@pytest.fixture(scope="module")
def shown() -> list:
    return []


@pytest.fixture(scope="module")
def finished(four_sites, tmp_path_factory, shown) -> Path:
    """Interrupted before the first run, at the second rung and at the confirmation, and then run to its end."""
    out = tmp_path_factory.mktemp("halving") / "s"
    options = {"command": "shiftproof study ...", "progress": shown.append}
    with pytest.raises(Stop):
        run(four_sites, out, tell=until("rung 1"), **options)
    assert not list(out.rglob("runs"))
    declared = (out / "halving.json").read_bytes()
    for words in ("rung 2", "confirmation"):
        with pytest.raises(Stop):
            run(four_sites, out, tell=until(words), **options)
    assert not (out / "study.json").exists()
    run(four_sites, out, **options)
    assert (out / "halving.json").read_bytes() == declared
    return out


def rungs(out: Path) -> dict[tuple[int, str], pd.DataFrame]:
    found = json.loads((out / "rungs.json").read_text())["rungs"]
    return {(r["rung"], r["kind"]): pd.DataFrame(r["rows"]).set_index("row") for r in found}


def test_a_row_is_ranked_by_the_mean_over_inner_domains_of_the_mean_over_subjects(finished):
    found = rungs(finished)[1, "generalisation"]
    rows = pd.read_csv(finished / "rungs" / "1" / "rows.csv")
    assert set(rows["held_out"]) == set("ABC")
    dice = rows[rows["metric"] == "dice"]
    for name in ("erm/none", "group_dro/light", "erm/light+tent"):
        own = dice[dice["row"] == name]
        domains = [
            np.mean([own[(own["subject"] == s)]["value"].mean() for s in own[own["held_out"] == d]["subject"].unique()])
            for d in "ABC"
        ]
        assert found.loc[name, "value"] == pytest.approx(np.mean(domains), abs=1e-12)
        assert found.loc[name, "low"] < found.loc[name, "value"] < found.loc[name, "high"]
        assert found.loc[name, "n"] == 6
    ranked = found[found["rank"] > 0].sort_values("rank")
    assert list(ranked["value"]) == sorted(ranked["value"], reverse=True)
    assert list(ranked["kept"]) == [True, True, False]  # half of 4


def test_a_row_that_fails_is_dropped_with_its_reason(finished):
    dropped = pd.read_csv(finished / "dropped.csv").set_index("row")
    assert dropped.loc["mldg/light", "rung"] == 1
    assert "MLDG needs more than 1 source domains" in dropped.loc["mldg/light", "reason"]


def test_every_candidate_is_either_confirmed_or_printed_as_dropped(finished):
    dropped = pd.read_csv(finished / "dropped.csv")
    finalists = json.loads((finished / "rungs.json").read_text())["finalists"]
    assert sorted([*dropped["row"], *finalists]) == sorted(r.name for r in ROWS)
    assert list(dropped.columns) == [
        "row", "family", "kind", "rung", "rank", "value", "low", "high", "seconds", "reason",
    ]  # fmt: skip
    assert dropped["reason"].str.len().min() > 5
    assert (dropped[dropped["rank"] > 0]["seconds"] > 0).all()


def test_adaptation_is_ranked_among_itself_without_labels(finished):
    found = rungs(finished)[1, "adaptation"]
    assert set(found.index) == {"dann/light+target", "mean_teacher/light+target"}
    rows = pd.read_csv(finished / "rungs" / "1-adaptation" / "rows.csv")
    assert set(rows["metric"]) == {"information maximisation"}
    read = Cohort.read(finished / "rungs" / "cohort-adaptation" / "table.csv")
    assert set(read.where(site="D").table["label"]) == {""}
    # The test half of the confirmation is not even among the images.
    tested = set(pd.read_csv(finished / "subjects.csv")["subject"])
    assert tested == {s for s in tested if s.startswith("D")}
    assert set(rows["subject"]) == set(read.where(site="D").subjects) == {f"D{i}" for i in range(4)} - tested
    for name in found.index:
        own = rows[rows["row"] == name].groupby("subject")["value"].mean()
        assert found.loc[name, "value"] == pytest.approx(own.mean(), abs=1e-12)
    assert found["value"].idxmax() == found["kept"].idxmax()


def test_a_row_without_rivals_costs_nothing(finished):
    assert not (finished / "rungs" / "2-adaptation").exists()
    (place,) = rungs(finished)[2, "adaptation"].to_dict("records")
    assert place["kept"]
    assert place["seconds"] == 0


def test_generalisation_rungs_hold_no_scan_of_the_held_out_domain(finished):
    for number in (1, 2):
        study = Declaration.load(finished / "rungs" / str(number))
        assert study.domains == study.held_out == study.sources == ["A", "B", "C"]
        assert study.references == {}
        assert "D" not in (finished / "rungs" / str(number) / "subjects.csv").read_text()
    assert set(Cohort.read(Path(study.cohort)).domains) == set("ABC")


def test_confirmation_has_the_finalists_the_anchors_and_the_references_with_fresh_seeds(finished):
    study, halving = Declaration.load(finished), Halving.load(finished)
    finalists = json.loads((finished / "rungs.json").read_text())["finalists"]
    assert study.held_out == ["D"]
    assert study.seeds == [1]
    assert {seed for rung in halving.rungs for seed in rung.seeds} == {0}
    assert study.budget["steps"] == 3
    names = [r.name for r in study.rows]
    assert names[: len(finalists)] == finalists
    assert {"erm/none", "erm/light", "erm/strong", "target-supervised/light"} <= set(names)
    rows = pd.read_csv(finished / "rows.csv")
    assert set(rows["row"]) == set(names)
    assert set(rows["seed"]) == {1}


def test_no_more_is_trained_than_was_declared(finished):
    stages = {s["stage"]: s["trainings"] for s in Halving.load(finished).cost["stages"]}
    for stage, folder in {
        "rung 1, generalisation": "rungs/1",
        "rung 1, adaptation": "rungs/1-adaptation",
        "rung 2, generalisation": "rungs/2",
        "confirmation": ".",
    }.items():
        trained = [p for p in (finished / folder / "runs").iterdir() if (p / "model").exists()]
        assert 0 < len(trained) <= stages[stage]


def test_progress_tells_stage_rows_and_trainings(finished, shown):
    seen = list(dict.fromkeys((p.stage, p.rows) for p in shown))
    assert seen[:3] == [("rung 1, generalisation", 4), ("rung 1, adaptation", 2), ("rung 2, generalisation", 2)]
    assert seen[3][0] == "confirmation"
    assert all(math.isnan(p.seconds_left) for p in shown)  # budgets in steps
    assert shown[-1].done == shown[-1].total


def test_the_same_command_continues_and_changes_nothing(finished, four_sites):
    before = {p: p.stat().st_mtime_ns for p in finished.rglob("weights.safetensors")}
    texts = {name: (finished / name).read_bytes() for name in ("rungs.json", "dropped.csv", "rows.csv")}
    (finished / "dropped.csv").unlink()  # as if a kill had come before it
    run(four_sites, finished)
    assert {p: p.stat().st_mtime_ns for p in finished.rglob("weights.safetensors")} == before
    assert {name: (finished / name).read_bytes() for name in texts} == texts


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"keep": 0.4}, "keep"),
        ({"rungs": [Rung(steps=2)]}, "rungs"),
        ({"rows": ROWS[:-1]}, "candidates"),
        ({"seeds": 2}, "seeds"),
        ({"margin": 0.01}, "margin"),
        ({"families": {"erm/none": "x"}}, "candidates"),
    ],
)
def test_another_command_does_not_continue_it(finished, four_sites, options, words):
    with pytest.raises(RunError, match=f"with other {words};"):
        run(four_sites, finished, **options)


def test_a_folder_holds_one_kind_of_study(finished, four_sites, tmp_path):
    with pytest.raises(RunError, match="add --halving"):
        study(four_sites, ROWS[:1], finished, held_out=["D"])
    (tmp_path / "study.json").write_text("{}")
    with pytest.raises(RunError, match="without halving"):
        run(four_sites, tmp_path)


def weights(folder: Path) -> dict[str, dict[str, np.ndarray]]:
    return {p.parts[-3]: load_file(p) for p in sorted(folder.glob("runs/*/model/weights.safetensors"))}


def assert_same_weights(one: Path, other: Path) -> None:
    first, second = weights(one), weights(other)
    assert second
    for key, tensors in second.items():
        for name, value in tensors.items():
            np.testing.assert_array_equal(value, first[key][name])


def altered(table: Path, folder: Path, *kinds: str) -> Path:
    """The cohort with other images or labels at D."""
    shutil.copytree(table.parent, folder)
    for kind in kinds:
        for path in (folder / "D" / kind).iterdir():
            change(path, lambda a, kind=kind: (a[::-1] * 7 if kind == "images" else (a + 1) % 3).astype(a.dtype))
    return folder / "table.csv"


def test_generalisation_rungs_are_bit_equal_whatever_the_held_out_domain_holds(finished, four_sites, tmp_path):
    other = altered(four_sites, tmp_path / "c", "images", "labels")
    rows = [r for r in ROWS if r.name in ("erm/none", "group_dro/light")]
    with pytest.raises(Stop):
        run(other, tmp_path / "s", rows, rungs=[Rung(steps=2)], tell=until("confirmation"))
    one, two = finished / "rungs" / "1", tmp_path / "s" / "rungs" / "1"
    assert_same_weights(one, two)
    for plan in (two / "plans").iterdir():
        assert plan.read_bytes() == (one / "plans" / plan.name).read_bytes()
    first, second = rungs(finished)[1, "generalisation"], rungs(tmp_path / "s")[1, "generalisation"]
    for name in second.index:
        assert second.loc[name, "value"] == first.loc[name, "value"]


def test_adaptation_rungs_are_bit_equal_whatever_the_labels_of_the_held_out_domain(finished, four_sites, tmp_path):
    other = altered(four_sites, tmp_path / "c", "labels")
    with pytest.raises(Stop):
        run(other, tmp_path / "s", ROWS[-2:], rungs=[Rung(steps=2)], tell=until("confirmation"))
    one, two = finished / "rungs" / "1-adaptation", tmp_path / "s" / "rungs" / "1-adaptation"
    assert_same_weights(one, two)
    assert (two / "rows.csv").read_bytes() == (one / "rows.csv").read_bytes()


def test_adaptation_sees_the_images_of_the_held_out_domain(finished, four_sites, tmp_path):
    """Else the test before this one would say nothing."""
    other = altered(four_sites, tmp_path / "c", "images")
    with pytest.raises(Stop):
        run(other, tmp_path / "s", ROWS[-2:], rungs=[Rung(steps=2)], tell=until("confirmation"))
    one, two = (f / "rungs" / "1-adaptation" / "rows.csv" for f in (finished, tmp_path / "s"))
    assert one.read_bytes() != two.read_bytes()


def test_budgets_in_seconds_are_kept_and_counted_down(four_sites, tmp_path):
    shown = []
    rows = [row("erm/none"), row("erm/light")]
    with pytest.raises(Stop):
        run(
            four_sites, tmp_path, rows, rungs=[Rung(seconds=0.2)], trainer=Trainer(steps=10**6, seconds=3.0, batch=4),
            tell=until("confirmation"), progress=shown.append,
        )  # fmt: skip
    cost = json.loads((tmp_path / "halving.json").read_text())["cost"]
    assert cost["stages"][0]["seconds"] == pytest.approx(6 * 0.2)
    # The finalist is one of the anchors none, light and strong; then the upper bounds of light and strong.
    assert cost["stages"][1] == {"stage": "confirmation", "rows": 5, "trainings": 5, "seconds": 15.0}
    assert cost["seconds"] == pytest.approx(16.2)
    left = [p.seconds_left for p in shown]
    assert max(left) <= 16.2 / 2 + 1e-9
    assert left[-1] == pytest.approx(7.5)
    assert left == sorted(left, reverse=True)
    found = rungs(tmp_path)[1, "generalisation"]
    assert (found["seconds"] >= 3 * 0.2).all()


def test_where_every_row_fails_it_is_said_and_tried_again(four_sites, tmp_path):
    rows = [row("mldg/light", sampling={"batches": "one domain"}), row("mldg/none", sampling={"batches": "one domain"})]
    for _ in range(2):
        with pytest.raises(RunError, match="every row failed in rung 1; the first one, mldg/light, failed: MLDG needs"):
            run(four_sites, tmp_path, rows)
    assert json.loads((tmp_path / "rungs.json").read_text())["rungs"] == []


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"held_out": []}, SplitError, "--hold-out"),
        ({"held_out": ["B", "C", "D"]}, SplitError, "need at least 2 of them, got A"),
        ({"held_out": ["X"]}, SplitError, "cannot hold out X"),
        ({"held_out": ["C", "D"], "rows": [row("mldg")]}, MethodError, "at least 2 training domains, .* leave it 1"),
        ({"rows": [row("erm"), row("erm")]}, OptionError, "erm came twice"),
        ({"rows": [row("erm", training={"steps": 9})]}, OptionError, "remove training.steps"),
        ({"rows": [row("erm+target")]}, OptionError, "no use of unlabelled target images"),
        ({"rows": []}, OptionError, "rows must be at least 1"),
        ({"rungs": []}, OptionError, "rungs must be at least 1"),
        ({"rungs": [Rung(steps=2, held_out=["D"])]}, SplitError, "of A, B, C, got D"),
        ({"seeds": [0, 1]}, OptionError, r"fresh seeds, got \[0\]"),
        ({"keep": 0.0}, OptionError, "keep"),
        ({"finalists": 0}, OptionError, "finalists must be at least 1"),
        ({"scoring": "nuclear norms"}, OptionError, "rule for selection without labels"),
        ({"lesions": ["dics"]}, OptionError, 'did you mean "disc"'),
    ],
)
def test_what_cannot_be_run_is_said_before_anything_is_written(four_sites, tmp_path, options, error, words):
    with pytest.raises(error, match=words):
        run(four_sites, tmp_path / "s", **options)
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("given", [{}, {"seconds": 1.0, "steps": 5}, {"steps": 0}, {"steps": 2, "seeds": ()}])
def test_a_rung_has_one_budget_and_a_seed(given):
    with pytest.raises(OptionError):
        Rung(**given)


def test_the_command_line_declares_the_same_study(finished, four_sites, tmp_path, monkeypatch, capsys):
    """Complete already: what it would do else is to refuse the folder, or to train."""
    network = "network = {widths = [4, 8]}\n"
    mldg = '[[row]]\nname = "mldg/light"\nmethod = "mldg"\nsampling = {batches = "one domain"}\n' + network
    texts = [f'[[row]]\nname = "{r.name}"\nmethod = "{r.method}"\ntransforms = "{r.transforms}"\n' for r in ROWS]
    texts = [t + network + f"target = {str(r.target).lower()}\n" for t, r in zip(texts, ROWS, strict=True)]
    texts[1] = mldg
    texts[3] += 'test_time = "tent"\nfamily = "erm"\n'
    recipes = tmp_path / "rows.toml"
    recipes.write_text("\n".join(texts))
    command = (
        f"shiftproof study {four_sites} --recipes {recipes} --hold-out D --halving --rung-steps 2,3 --keep 0.5 "
        f"--seeds 1 --steps 3 --batch 4 --validate-every 3 --device cpu --out {finished} --json"
    )
    before = (finished / "rungs.json").read_bytes()
    monkeypatch.setattr("sys.argv", command.split())
    monkeypatch.setattr("signal.signal", lambda *given: None)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["report"] == str(finished / "report.html")
    assert "continuing the study by halving" in told.err
    assert (finished / "rungs.json").read_bytes() == before


SCRIPT = """
import sys
from pathlib import Path
from shiftproof.recipe import Recipe
from shiftproof.study.halving import Rung, halve
from shiftproof.train import Trainer
if __name__ == "__main__":
    own = {"network": {"widths": [4, 8]}, "training": {"checkpoint_seconds": 0.02}}
    rows = [
        Recipe("none", transforms="none", **own),
        Recipe("light", transforms="light", **own),
        Recipe("dro", method="group_dro", **own),
        Recipe("dann", method="dann", target=True, **own),
        Recipe("teacher", method="mean_teacher", target=True, **own),
    ]
    halve(
        Path(sys.argv[1]), rows, Path(sys.argv[2]), held_out=["D"], rungs=[Rung(steps=12), Rung(steps=20)], keep=0.6,
        seeds=1, trainer=Trainer(steps=24, batch=4, validate_every=6, device="cpu"), workers=2, estimate=False,
    )
"""


def without_seconds(folder: Path) -> dict[str, object]:
    """What a study by halving found, but for times."""
    found: dict[str, object] = {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if not p.name.startswith(".")  # what a process was writing when it was killed
        and (p.name in ("rows.csv", "weights.safetensors", "halving.json") or p.name.endswith(".nii.gz"))
    }
    table = json.loads((folder / "rungs.json").read_text())
    for part in (*table["rungs"], {"rows": table["out"]}):
        for place in part["rows"]:
            place.pop("seconds")
    return found | {
        "rungs.json": table,
        "dropped": pd.read_csv(folder / "dropped.csv").drop(columns="seconds").to_csv(),
    }


@pytest.mark.slow
def test_killed_in_every_stage_and_started_again_it_ends_as_if_undisturbed(four_sites, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)

    def start(name: str) -> subprocess.Popen[bytes]:
        folder = tmp_path / name / "s"
        folder.parent.mkdir(exist_ok=True)
        return subprocess.Popen([sys.executable, str(script), str(four_sites), str(folder)])

    assert start("undisturbed").wait(600) == 0
    killed = tmp_path / "killed" / "s"
    # Moments: while the first trainings run, with some cells done, in each later stage.
    for sign in (
        "rungs/1/runs/*/state.pt",
        "rungs/1/cells/*/*/*/cell.json",
        "rungs/1-adaptation/runs/*/record.jsonl",
        "rungs/2/runs/*/record.jsonl",
        "rungs/2/cells/*/*/*/cell.json",
        "runs/*/record.jsonl",
        "cells/*/*/*/cell.json",
    ):
        process = start("killed")
        until_s = time.monotonic() + 300
        while not list(killed.glob(sign)):
            assert process.poll() is None, "it ended before it was killed"
            assert time.monotonic() < until_s
            time.sleep(0.005)
        process.kill()
        process.wait()
    assert start("killed").wait(600) == 0
    expected, found = without_seconds(tmp_path / "undisturbed" / "s"), without_seconds(killed)
    assert expected.keys() == found.keys()
    assert len(expected) > 40
    assert [name for name, value in expected.items() if found[name] != value] == []


def test_example_recipes_are_at_least_twelve_sound_rows_of_several_families():
    path = Path(__file__).parents[2] / "examples" / "many_recipes.toml"
    rows, families = parse_rows(None, path), parse_families(path)
    assert len({r.name for r in rows}) == len(rows) >= 12
    assert {r.method for r in rows} == {"erm", "dann", "mldg", "group_dro", "mean_teacher"}
    assert sum(r.target for r in rows) >= 2
    assert families == {r.name: "tent" for r in rows if r.test_time == "tent"}
