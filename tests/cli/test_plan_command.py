"""`--plan auto` on the command line: what is typed stays, what is not is planned, and what is wrong is told."""

from __future__ import annotations

import json
import signal
import tomllib

import numpy as np
import pytest
import SimpleITK as sitk

from shiftproof.cli import main
from shiftproof.data.labels import LabelMap

SMALL = ["--steps", "2", "--device", "cpu", "--hold-out", "C"]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """Three sites of three subjects: a disc in noise on thick slices."""
    folder = tmp_path_factory.mktemp("cohort")
    random = np.random.default_rng(0)
    _, y, x = np.meshgrid(np.arange(6), np.arange(24), np.arange(24), indexing="ij")
    lines = ["subject,site,image,label"]
    for site in "ABC":
        for i in range(3):
            label = ((y - 12) ** 2 + (x - 10 - i) ** 2 < 40).astype(np.uint8)
            image = 100.0 * label + random.normal(0, 20, label.shape)
            for kind, array in (("image", image.astype(np.float32)), ("label", label)):
                written = sitk.GetImageFromArray(array)
                written.SetSpacing((1, 1, 4))
                sitk.WriteImage(written, str(folder / f"{site}{i}-{kind}.nii.gz"))
            lines.append(f"{site}{i},{site},{site}{i}-image.nii.gz,{site}{i}-label.nii.gz")
    (folder / "table.csv").write_text("\n".join(lines) + "\n")
    LabelMap.of_values({"disc": 1}).write(folder / "labels.toml")
    return folder


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(signal, "signal", lambda *given: None)

    def ended(*arguments):
        monkeypatch.setattr("sys.argv", ["shiftproof", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            main()
        said = capsys.readouterr()
        return exit_.value.code or 0, said.out, said.err

    return ended


def test_training_follows_the_plan_and_writes_it_down(cohort, run, tmp_path):
    code, out, err = run("train", cohort, *SMALL, "--plan", "auto,memory_gb=0.05,base=4", "--json")
    assert code == 0, err
    assert "plan auto: memory budget 0.05 GB" in err
    plan = json.loads((tmp_path / "run" / "plan.json").read_text())
    declared = tomllib.loads((tmp_path / "run" / "run.toml").read_text())
    assert declared["trainer"]["optimizer"] == "adamw"
    reasons = {d["what"]: d["why"] for d in plan["automatic"]["decisions"]}
    assert reasons["optimizer"].startswith("2 steps: below 5000 the published SGD")
    assert declared["trainer"]["batch"] == plan["automatic"]["training"]["batch"]
    assert declared["recipe"]["network"] == plan["automatic"]["network"]
    assert declared["recipe"]["transforms"] == "strong"
    assert declared["recipe"]["loss_options"] == {"batch": True}
    assert declared["sampling"]["patch"] == plan["patch"] == [24, 24]
    assert json.loads(out)["steps"] == 2
    # The model folder says everything by itself, and goes on from where it was.
    again, _, err = run("train", cohort, *SMALL, "--plan", "auto,memory_gb=0.05,base=4")
    assert again == 0, err


def test_what_is_typed_wins(cohort, run, tmp_path):
    # The batch is the trainer's default, but it was typed.
    given = ["--batch", "8", "--rate", "0.5", "--patch", "16,16", "--network", "unet,widths=[3,5]"]
    code, _, err = run(
        "train", cohort, *SMALL, "--plan", "auto,base=4", *given, "--method", "erm/none", "--out", "typed"
    )
    assert code == 0, err
    declared = tomllib.loads((tmp_path / "typed" / "run.toml").read_text())
    assert (declared["trainer"]["batch"], declared["trainer"]["rate"]) == (8, 0.5)
    assert declared["recipe"]["loss_options"] == {"batch": True}
    assert declared["recipe"]["network"] == {"name": "unet", "widths": [3, 5]}
    assert declared["recipe"]["transforms"] == "none"
    assert declared["sampling"]["patch"] == [16, 16]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("atuo", 'there is no plan "atuo"; did you mean "auto"?'),
        ("auto,memory_gb=lots", "memory_gb of --plan auto is a number, got 'lots'"),
        ("auto,memory_gb=0.0001", "memory_gb=0.0001 is too small: a batch of 2 patches of"),
    ],
)
def test_bad_plans_are_told_in_one_line(cohort, run, text, words):
    code, _, err = run("train", cohort, *SMALL, "--plan", text, "--out", "bad")
    assert code == 2
    assert words in err.splitlines()[-1]
    assert "Traceback" not in err


def test_rows_of_a_file_keep_their_own_augmentation(tmp_path):
    from shiftproof.cli.options import row_defaults
    from shiftproof.study.declare import parse_rows

    rows = tmp_path / "rows.toml"
    rows.write_text('[[row]]\nname = "a"\n[[row]]\nname = "b"\ntransforms = "none"\n')
    found = parse_rows("erm,dann/light", rows, row_defaults("auto"))
    assert {r.name: r.transforms for r in found} == {"a": "strong", "b": "none", "erm": "strong", "dann/light": "light"}
    assert [r.transforms for r in parse_rows("erm", None, row_defaults(None))] == ["light"]


def test_a_method_that_augments_by_itself_has_no_augmentation_planned(tmp_path):
    from shiftproof.cli.options import row_defaults
    from shiftproof.study.declare import parse_rows

    rows = tmp_path / "rows.toml"
    rows.write_text('[[row]]\nname = "a"\nmethod = "learned_augmentation"\n')
    found = parse_rows("learned_augmentation", rows, row_defaults("auto"))
    assert [r.transforms for r in found] == ["none", "none"]
