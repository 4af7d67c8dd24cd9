"""shiftproof power in this process: the lecture's case, pilots of all kinds, what is refused."""

from __future__ import annotations

import json
import math
import signal
import sys

import numpy as np
import pytest

from shiftproof.cli import main
from shiftproof.statistics import power, subjects_needed

LECTURE = ["--effect", "0.01", "--sd", "0.10", "--correlation", "0.5", "--subjects", "20"]
RANDOM = np.random.default_rng(0)
SCORES = {"erm": RANDOM.normal(0.8, 0.05, 12)}
SCORES["dann"] = SCORES["erm"] + RANDOM.normal(0.01, 0.02, 12)
SCORES["mldg"] = SCORES["erm"] + RANDOM.normal(0.0, 0.05, 12)


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(signal, "signal", lambda *given: None)  # the test's process keeps its own

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["shiftproof", "power", *map(str, arguments)])
        capsys.readouterr()
        try:
            main()
            code = 0
        except SystemExit as ended:
            code = int(ended.code or 0)
        return code, *capsys.readouterr()

    return run


def refused(ended) -> str:
    code, out, err = ended
    assert code == 2, (out, err)
    assert out == ""
    assert "Traceback" not in err
    return err.splitlines()[-1]


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "pilot.csv"
    lines = [f"p{i},{m},{v:.6f}" for m, values in SCORES.items() for i, v in enumerate(values)]
    path.write_text("\n".join(["subject,method,dice", *lines]) + "\n")
    return path


def test_the_lectures_case_comes_out(run):
    code, out, err = run(*LECTURE)
    assert code == 0
    assert "20 subjects find a true difference of 0.01 with a power of 0.071" in out
    assert "787 for 80 % and 1053 for 90 % power" in out
    assert "5.1 times the true one on average (type M), and 12 % of such findings have the wrong sign" in out
    assert err == ""


def test_machines_get_the_same_as_json(run):
    code, out, _ = run(*LECTURE, "--json")
    found = json.loads(out, parse_constant=lambda constant: pytest.fail(constant))
    assert code == 0
    assert round(found["power"], 3) == 0.071
    assert found["subjects_needed"] == 787
    assert round(found["exaggeration"]["type_m"], 1) == 5.1
    assert found["pilot"] is None
    assert found["pairs"] == []
    assert any("787" in sentence for sentence in found["answer"])


def test_unpaired_cases_come_out(run):
    _, out, _ = run("--effect", 0.01, "--sd", 0.1, "--subjects", 20, "--design", "unpaired")
    assert "with a power of 0.061" in out
    assert "1571 for 80 % and 2103 for 90 % power" in out


def test_a_pilot_of_two_methods_is_planned_with(run, table):
    _, out, _ = run(table, "--rows", "dann,erm", "--effect", 0.02, "--json")
    found = json.loads(out)
    difference = np.round(SCORES["dann"], 6) - np.round(SCORES["erm"], 6)
    sd = float(difference.std(ddof=1))
    assert (found["pilot"]["a"], found["pilot"]["b"], found["pilot"]["n"]) == ("dann", "erm", 12)
    assert found["pilot"]["mean_difference"] == pytest.approx(float(difference.mean()))
    assert found["metric"] == "dice"
    assert found["power"] == pytest.approx(power(0.02 / sd, 12))
    assert found["subjects_needed"] == subjects_needed(0.02, sd)


def test_all_pairs_of_a_pilot_have_a_line(run, table):
    code, out, err = run(table, "--effect", 0.02)
    assert code == 0
    for pair in ("erm − dann", "erm − mldg", "dann − mldg"):
        assert pair in out
    assert "told in full:" in err
    _, out, _ = run(table, "--effect", 0.02, "--json")
    pairs = json.loads(out)["pairs"]
    spreads = sorted(p["spread"] for p in pairs)
    assert len(pairs) == 3
    assert json.loads(out)["spread"] == spreads[1]


def test_two_files_are_two_methods(run, tmp_path):
    for name in ("erm", "dann"):
        lines = [f"{i},{v}" for i, v in enumerate(SCORES[name])]
        (tmp_path / f"{name}.csv").write_text("\n".join(["case,dice", *lines]))
    _, out, _ = run("erm.csv", "dann.csv", "--effect", 0.02)
    assert "Pilot: erm minus dann" in out


def test_unusual_columns_can_be_named(run, tmp_path):
    lines = [f"{i};{m};{v}" for m in ("erm", "dann") for i, v in enumerate(SCORES[m])]
    (tmp_path / "t.csv").write_text("\n".join(["Fall;Verfahren;Wert", *lines]))
    code, out, _ = run("t.csv", "--columns", "subject=Fall,method=Verfahren,value=Wert")
    assert code == 0
    assert "12 subjects show a true difference of" in out


def test_a_simulation_is_told(run, table):
    _, out, _ = run(table, "--rows", "dann,erm", "--effect", 0.02, "--simulate", "permutation")
    assert "2000 studies of 12 drawn from the observed differences, moved; sign-flip test" in out


@pytest.mark.parametrize("name", ["p.svg", "p.png", "p.html"])
def test_plots_are_written_where_they_are_asked_for(run, table, tmp_path, name):
    _, out, _ = run(table, "--rows", "dann,erm", "--effect", 0.02, "--plot", name)
    assert f"plot: {name}" in out
    assert (tmp_path / name).stat().st_size > 5000
    _, out, err = run(*LECTURE, "--plot", name, "--json")
    assert json.loads(out)["subjects_needed"] == 787
    assert name in err


@pytest.mark.parametrize(
    ("scores", "words"),
    [(["1,A,0.9", "1,B,0.8"], "A and B share 1 subject with scores"),
     (["1,A,0.9", "2,B,0.8", "3,A,0.7", "4,B,0.7"], "A and B share no subjects with scores"),
     (["1,A,0.9", "1,B,0.8", "2,A,0.8", "2,B,0.7"], "the same in all 2 subjects"),
     (["1,A,0.9", "1,B,nan", "2,A,0.8", "2,B,0.7"], "share 1 subject")],
)  # fmt: skip
def test_a_pilot_that_knows_nothing_is_one_line_and_a_code(run, tmp_path, scores, words):
    (tmp_path / "t.csv").write_text("\n".join(["subject,method,value", *scores]))
    code, out, _ = run("t.csv", "--effect", 0.01)
    assert code == 1
    assert out.startswith("No plan: ")
    assert words in out
    assert len(out.strip().splitlines()) == 1
    code, out, _ = run("t.csv", "--effect", 0.01, "--json", "--plot", "p.html")
    assert code == 1
    assert words in json.loads(out)["reason"]
    assert "No plan" in (tmp_path / "p.html").read_text()


def test_pairs_without_a_plan_do_not_stop_the_others(run, tmp_path):
    lines = [f"p{i},{m},{v}" for m in ("erm", "dann") for i, v in enumerate(SCORES[m])] + ["p0,late,0.5"]
    (tmp_path / "t.csv").write_text("\n".join(["subject,method,value", *lines]))
    code, out, err = run("t.csv", "--effect", 0.02)
    assert code == 0
    assert "Pilot: erm minus dann" in out
    assert "left out: erm and late share 1 subject" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["--effect", 0.01], "a plan needs a spread"), (["--sd", 0], "above 0, got 0"),
     (["--sd", 0.1, "--correlation", 2], "between -1 and 1, got 2"), (["--sd", 0.1, "--subjects", 1], "got 1"),
     (["--sd", 0.1, "--design", "crossed"], "unknown design 'crossed'"), (["--sd", 0.1, "--level", 0.9], "level 0.9"),
     (["--sd", 0.1, "--plot", "x.bmp"], "got x.bmp"), (["--sd", 0.1, "--rows", "A,B"], "about a pilot"),
     (["pilot.csv", "--sd", 0.1], "tells the spread itself"), (["pilot.csv", "--rows", "erm"], "takes two methods"),
     (["pilot.csv", "--rows", "erm,dan"], 'did you mean "dann"'), (["pilot.csv", "--simulate", "t"], "--effect"),
     (["pilot.csv", "--effect", 0.1, "--simulate", "z"], "unknown test 'z'"), (["nothing.csv"], "nothing.csv"),
     (["--sd", 0.1, "--comparisons", 0], "got 0 comparisons")],
)  # fmt: skip
def test_what_cannot_be_is_refused_in_one_line(run, table, tmp_path, arguments, words):
    assert words in refused(run(*arguments))
    assert [p.name for p in tmp_path.iterdir()] == ["pilot.csv"]


def test_the_help_names_the_ways_to_ask(run):
    code, out, _ = run("--help")
    assert code == 0
    for option in ("--effect", "--sd-difference", "--correlation", "--subjects", "--design", "--simulate", "--plot"):
        assert option in out


def test_numbers_that_do_not_exist_are_null(run):
    _, out, _ = run("--sd-difference", 0.1, "--json")
    found = json.loads(out)
    assert found["power"] is None
    assert found["effect"] is None
    assert math.isclose(found["spread"], 0.1)
