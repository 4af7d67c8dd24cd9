"""The command line in this process: what people type wrong, what machines read, how a command ends."""

from __future__ import annotations

import csv
import json
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from shiftproof.catalogue import METHODS, TEST_TIME
from shiftproof.cli import main

COMMANDS = [
    "demo", "cohort", "cohort import", "cohort check", "cohort show", "train", "study", "evaluate", "report",
    "deliver", "predict", "methods", "networks", "scenario", "power", "compare", "metrics",
    "logits", "learning-curves", "policy", "policy show", "policy presets", "policy views",
]  # fmt: skip


@dataclass
class Ended:
    """How a command ended and what it said."""

    code: int
    out: str
    err: str

    def json(self):
        def refuse(constant):
            raise AssertionError(f"{constant} is not JSON")

        return json.loads(self.out, parse_constant=refuse)

    @property
    def complaint(self) -> str:
        """The one line that says what is wrong, after what was told on the way."""
        assert self.code == 2, (self.code, self.out, self.err)
        assert "Traceback" not in self.err
        last = self.err.splitlines()[-1]
        assert last.startswith("shiftproof: ")
        return last


Run = Callable[..., Ended]


@pytest.fixture
def run(monkeypatch, capsys, tmp_path) -> Run:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(signal, "signal", lambda *given: None)  # the test's process keeps its own

    def run(*arguments: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["shiftproof", *map(str, arguments)])
        capsys.readouterr()
        try:
            main()
            code = 0
        except SystemExit as ended:
            code = int(ended.code or 0)
        return Ended(code, *capsys.readouterr())

    return run


def scan(path: Path, array: np.ndarray, spacing: float = 1.0) -> None:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing([spacing] * 3)
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))


def sites(folder: Path, *, subjects: int = 4) -> Path:
    """Sites A and B as folders of images and labels: a bright box (1) in noise."""
    random = np.random.default_rng(0)
    for site in "AB":
        for i in range(subjects):
            label = np.zeros((8, 16, 16), np.uint8)
            label[2:6, 4 + i % 3 : 12, 4:12] = 1
            image = (label * (3 if site == "A" else 2) + random.normal(0, 0.3, label.shape)).astype(np.float32)
            scan(folder / site / "images" / f"{site}{i}.nii.gz", image)
            scan(folder / site / "labels" / f"{site}{i}.nii.gz", label)
    return folder


@pytest.fixture(scope="module")
def imported(tmp_path_factory) -> Path:
    from shiftproof.data.importers import import_folders

    folder = sites(tmp_path_factory.mktemp("cohort"))
    import_folders(folder, classes=["box"])
    return folder


# Help and names ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_every_command_explains_itself(run, command):
    ended = run(*command.split(), "--help")
    assert ended.code == 0
    assert f"shiftproof {command}".strip() in ended.out
    assert ended.err == ""
    assert run(*command.split(), "-h").out == ended.out


def test_help_lists_every_command(run):
    text = run("--help").out
    for command in COMMANDS:
        assert command.split()[0] in text


def test_the_version_is_that_of_the_package(run):
    ended = run("--version")
    assert (ended.code, ended.out.strip()) == (0, metadata.version("shiftproof"))


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (["stduy"], "study"),
        (["cohort", "chek"], "check"),
        (["methods", "--jsn"], "--json"),
        (["study", "table.csv", "--method", "erm"], "--methods"),
    ],
)
def test_a_slip_of_the_hand_is_answered_with_what_was_meant(run, typed, meant):
    ended = run(*typed)
    assert ended.code == 2
    assert meant in ended.err
    assert typed[-1 if len(typed) < 3 else 2].lstrip("-") in ended.err


def test_nothing_typed_shows_the_help(run):
    ended = run()
    assert "Usage" in ended.out + ended.err
    assert "deliver" in ended.out + ended.err


# The catalogue -------------------------------------------------------------------------------------------------


def test_the_catalogue_is_strict_json_with_every_method(run):
    found = run("methods", "--json").json()
    assert [entry["name"] for entry in found] == [*METHODS, *TEST_TIME]
    for entry in found:
        assert entry.keys() == {"name", "summary", "setting", "needs", "options", "documentation"}
        assert entry["summary"] == entry["documentation"].splitlines()[0]


@pytest.mark.parametrize("name", [*METHODS, *TEST_TIME])
def test_one_method_shows_its_paper_and_its_options(run, name):
    found = run("methods", name, "--json").json()
    text = run("methods", name).out
    assert found["name"] == name
    for option in found["options"]:
        assert option["help"], option["name"]
        assert option["name"] in text
    assert name == "erm" or "Paper:" in found["documentation"]


def test_an_unknown_method_is_answered_with_the_nearest(run):
    assert 'did you mean "dann"?' in run("methods", "dan").complaint


# Cohorts -------------------------------------------------------------------------------------------------------


def test_import_writes_a_table_that_check_accepts(run, tmp_path):
    sites(tmp_path / "scans")
    found = run("cohort", "import", "scans", "--classes", "box", "--json").json()
    assert found["classes"] == ["background", "box"]
    assert found["domains"] == [
        {"domain": site, "subjects": 4, "scans": 4, "labelled": 4} for site in "AB"
    ]  # fmt: skip
    with open(tmp_path / "scans" / "table.csv", newline="") as file:
        assert {row["site"] for row in csv.DictReader(file)} == {"A", "B"}
    ended = run("cohort", "check", "scans")
    assert ended.code == 0
    assert "8 scans of 8 subjects" in ended.out
    assert run("cohort", "check", "scans", "--json").json() == {"errors": 0, "problems": []}


def test_check_names_all_problems_at_once_and_ends_with_1(run, tmp_path):
    folder = sites(tmp_path / "scans", subjects=3)
    run("cohort", "import", folder, "--classes", "box")
    cut = folder / "A/images/A0.nii.gz"
    cut.write_bytes(cut.read_bytes()[:-200])
    scan(folder / "A/images/A1.nii.gz", np.full((8, 16, 16), 7, np.float32))  # constant
    other = np.zeros((8, 16, 16), np.uint8)
    other[2, 3, 4:9] = 9
    scan(folder / "B/labels/B0.nii.gz", other)  # an unknown value, five times
    scan(folder / "B/labels/B1.nii.gz", np.ones((8, 16, 16), np.uint8), spacing=1.5)  # another grid
    ended = run("cohort", "check", folder, "--json")
    assert ended.code == 1
    found = ended.json()
    errors = {p["subject"]: p for p in found["problems"] if p["severity"] == "error"}
    assert found["errors"] == 4
    assert errors.keys() == {"A0", "A1", "B0", "B1"}
    assert "9 (5 voxels)" in errors["B0"]["message"]
    assert "1.5" in errors["B1"]["message"]
    assert all(p["repair"] for p in errors.values())
    words = run("cohort", "check", folder)
    assert words.code == 1
    assert words.out.count("error: ") == 4
    assert "4 errors" in words.out


def test_a_small_site_is_an_error_below_the_minimum_asked_for(run, imported):
    assert run("cohort", "check", imported, "--minimum", 4).code == 0
    ended = run("cohort", "check", imported, "--minimum", 5)
    assert ended.code == 1
    assert "site=A has 4 subjects, expected at least 5" in ended.out


# Bad input -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("cohort import nowhere", ["nowhere"]),
        ("cohort check nowhere.csv", ["nowhere.csv does not exist", "cohort import"]),
        ("cohort check COHORT --domain sight", ['no column "sight"', 'did you mean "site"?', "--domain"]),
        ("cohort show COHORT --domain scanner", ['no column "scanner"']),
        ("study COHORT", ["at least one row", "--methods"]),
        ("study COHORT --methods emr", ['no method "emr"', 'did you mean "erm"?']),
        ("study COHORT --methods erm/storng", ['no preset of transforms "storng"', '"strong"']),
        ("study COHORT --methods erm+tant", ['no test-time method "tant"', '"tent"']),
        ("study COHORT --methods erm,erm", ["unique names", "erm came twice"]),
        ("study COHORT --methods erm --hold-out C", ["cannot hold out C", "A, B"]),
        ("study COHORT --methods erm --hold-out scanner=A", ['no column "scanner"']),
        ("study COHORT --methods erm --steps 0", ["steps must be at least 1, got 0"]),
        ("study COHORT --methods erm --rate nan", ["rate must be a number above 0, got nan"]),
        ("study COHORT --methods erm --seconds 0", ["seconds must be a number above 0"]),
        ("study COHORT --methods erm --patience 0", ["patience must be at least 1"]),
        ("study COHORT --methods erm --seeds 0", ["seeds must be at least 1, got 0"]),
        ("study COHORT --methods erm --workers 0", ["workers must be at least 1, got 0"]),
        ("study COHORT --methods erm --threads 0", ["threads must be at least 1, got 0"]),
        ("study COHORT --methods erm --device tpu", ['no device "tpu"', "auto, cpu, cuda"]),
        ("study COHORT --methods erm --selection best", ['no selection rule "best"', "validation mean"]),
        ("study COHORT --methods erm --patch 16,a", ["--patch expects numbers", "'16,a'"]),
        ("study COHORT --methods erm --dimensions 4", ["dimensions is 2 or 3, got 4"]),
        ("study COHORT --recipes nowhere.toml", ["no file nowhere.toml"]),
        ("train COHORT --method erm,dann", ["train takes one row, got erm, dann", "shiftproof study"]),
        ("train COHORT --hold-out A,B", ["train takes one held-out domain, got A, B"]),
        (
            "train COHORT --method erm+target --hold-out A --device cpu",
            ["erm makes no use of unlabelled target images"],
        ),
        ("train COHORT --method mldg --hold-out A --device cpu", ["mldg needs at least 2", "got 1"]),
        ("evaluate COHORT", ["a model or a folder of predictions"]),
        ("evaluate COHORT --predictions nowhere", ["nowhere"]),
        ("evaluate COHORT --model nowhere", ["nowhere is not a model folder"]),
        ("report nowhere", ["nowhere"]),
        ("deliver nowhere", ["nowhere is not a study"]),
        ("predict nowhere COHORT", ["MODEL SCANS OUT"]),
        ("predict nowhere COHORT out", ["nowhere is not a model folder"]),
    ],
)
def test_bad_input_is_answered_in_one_line_that_names_the_cure(run, imported, arguments, words):
    complaint = run(*[imported if a == "COHORT" else a for a in arguments.split()]).complaint
    for word in words:
        assert word in complaint


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("x = [", ["not valid TOML"]),
        ("[[rows]]\nmethod = 'erm'", ['no table of rows.toml "rows"', '"row"']),
        ("row = 3", ["[[row]]"]),
        ("[[row]]\nloss = 'dice'", ['needs a "name" or a "method"']),
        ("[[row]]\nmethod = 'erm'\npatch = 3", ['no key of a row "patch"']),
        ("[[row]]\nmethod = 'erm'\nloss = 3", ["row key loss expects str | None, got 3"]),
        ("[[row]]\nmethod = 'dann'\noptions = {weigth = 1}", ['no option of dann "weigth"', '"weight"']),
        ("[[row]]\nmethod = 'dann'\noptions = {weight = 'x'}", ["dann.weight expects float"]),
        ("[[row]]\nmethod = 'erm'\nloss = 'dicee'", ['no loss "dicee"', '"dice"']),
        ("[[row]]\nmethod = 'erm'\nnetwork = {widhts = [4, 8]}", ['"widhts"', '"widths"']),
        ("[[row]]\nmethod = 'erm'\ntraining = {rte = 1}", ['no setting of the trainer "rte"', '"rate"']),
        ("[[row]]\nmethod = 'erm'\ntraining = {rate = 'x'}", ["rate expects float"]),
        ("[[row]]\nmethod = 'erm'\nsampling = {batches = 'x'}", ["sampling.batches", "balanced"]),
        ("[[row]]\nmethod = 'erm'\nsampling = {foreground = 3}", ["share between 0 and 1", "got 3"]),
        ("[[row]]\nmethod = 'erm'\ntest_time = 'tent'\ntest_time_options = {setps = 1}", ['"setps"', '"steps"']),
        ("[[row]]\nmethod = 'mixup'\noptions = {rare = ['tumour']}", ['no rare class "tumour"', "known: "]),
        (
            "[[row]]\nname = 'a'\nmethod = 'erm'\n[[row]]\nname = 'b'\nmethod = 'adversarial'\n"
            "options = {rare = ['tumour']}",
            ['row "b"', 'no rare class "tumour"'],
        ),
        (
            "[[row]]\nmethod = 'learned_augmentation'\noptions = {class_specific = true, rare = ['tumour']}",
            ['no rare class "tumour"'],
        ),
        ("[[row]]\nmethod = 'erm'\nloss = 'rare_focal'\nloss_options = {rare = ['tumour']}", ['class "tumour"']),
        ("[[row]]\nmethod = 'erm'\nloss = 'rare_focal'\nloss_options = {asymmetric = 'false'}", ["expects bool"]),
        ("[[row]]\nmethod = 'erm'\ntransforms_options = {rare = ['tumour']}", ['no rare class "tumour"']),
        ("[[row]]\nmethod = 'erm'\nsampling = {foreground = {tumour = 0.5}}", ['"tumour"', "sampling.foreground"]),
    ],
)
def test_a_recipe_is_read_to_the_last_option_before_anything_starts(run, imported, tmp_path, toml, words):
    (tmp_path / "rows.toml").write_text(toml)
    short = ["--steps", 1, "--seeds", 1, "--hold-out", "B", "--patch", "16,16", "--device", "cpu"]
    complaint = run("study", imported, "--recipes", "rows.toml", "--out", "study", *short).complaint
    for word in words:
        assert word in complaint
    # The folder must not belong to a study that cannot be: the corrected command would be refused.
    assert not (tmp_path / "study" / "study.json").exists()


def test_a_number_that_is_none_is_named_with_its_option(run):
    ended = run("study", "table.csv", "--steps", "many")
    assert ended.code == 2
    assert "--steps" in ended.err
    assert "Traceback" not in ended.err


# Endings -------------------------------------------------------------------------------------------------------


def test_an_interruption_ends_with_130_and_says_how_to_go_on(run, monkeypatch):
    def interrupted(name):
        raise KeyboardInterrupt

    monkeypatch.setattr("shiftproof.cli.methods.described", interrupted)
    ended = run("methods")
    assert ended.code == 130
    assert "the same command goes on" in ended.err


def test_what_is_a_defect_is_not_dressed_up_as_bad_input(run, monkeypatch):
    def broken(name):
        raise RuntimeError("a defect")

    monkeypatch.setattr("shiftproof.cli.methods.described", broken)
    with pytest.raises(RuntimeError, match="a defect"):
        run("methods")


def test_train_predict_and_evaluate_speak_json_with_progress_apart(run, imported, tmp_path):
    small = [
        "--steps",
        2,
        "--batch",
        2,
        "--patch",
        "16,16",
        "--dimensions",
        2,
        "--validate-every",
        1,
        "--device",
        "cpu",
    ]
    (tmp_path / "row.toml").write_text("[[row]]\nmethod = 'erm'\nnetwork = {widths = [4, 8]}")
    trained = run("train", imported, "--recipes", "row.toml", "--hold-out", "B", *small, "--out", "run", "--json")
    found = trained.json()
    assert found["steps"] == 2
    assert set(found["held out"]) == {"box"}
    assert "training" in trained.err

    predicted = run("predict", found["model"], imported / "B" / "images", "out", "--device", "cpu", "--json")
    outputs = {entry["scan"]: entry["output"] for entry in predicted.json()}
    assert sorted(outputs) == ["B0", "B1", "B2", "B3"]
    assert all(Path(path).exists() for path in outputs.values())

    evaluated = run("evaluate", imported, "--model", found["model"], "--device", "cpu", "--out", "rows", "--json")
    assert evaluated.code == 0
    evaluated.json()
    with open(tmp_path / "rows" / "rows.csv", newline="") as file:
        assert {row["subject"] for row in csv.DictReader(file)} == {f"{s}{i}" for s in "AB" for i in range(4)}


def test_one_unreadable_scan_does_not_stop_the_others_but_shows_in_the_code(run, imported, tmp_path):
    (tmp_path / "row.toml").write_text("[[row]]\nmethod = 'erm'\nnetwork = {widths = [4, 8]}")
    small = ["--steps", 1, "--batch", 2, "--patch", "16,16", "--dimensions", 2, "--device", "cpu"]
    model = run("train", imported, "--recipes", "row.toml", *small, "--json").json()["model"]
    scans = tmp_path / "scans"
    scan(scans / "good.nii.gz", np.random.default_rng(1).normal(0, 1, (8, 16, 16)).astype(np.float32))
    (scans / "bad.nii.gz").write_bytes(b"not an image")
    ended = run("predict", model, scans, "out", "--device", "cpu")
    assert ended.code == 1
    assert (tmp_path / "out" / "good.nii.gz").exists()
    assert "bad" in ended.out
    assert not list((tmp_path / "out").glob("bad*"))
