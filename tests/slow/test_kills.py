"""A killed command, started again, ends as if nothing had happened; and nothing is left of the killed one."""

from __future__ import annotations

import importlib.util
import signal
import sys
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "kills.py"
KILLS = 2  # of each command; the script itself takes any number

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def kills():
    pytest.importorskip("psutil")
    specification = importlib.util.spec_from_file_location("kills", SCRIPT)
    module = sys.modules["kills"] = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def stages(kills, tmp_path_factory):
    return {stage.name: stage for stage in kills.stages(tmp_path_factory.mktemp("kills"), steps=160)}


@pytest.fixture(scope="module", params=["prepare", "train", "study"])
def events(kills, stages, request, tmp_path_factory):
    return list(kills.series(stages[request.param], tmp_path_factory.mktemp(request.param), KILLS))


def test_every_file_is_the_same_as_without_a_kill(kills, events):
    endings = [event for event in events if isinstance(event, kills.Ending)]
    assert sum(ending.kills for ending in endings) == KILLS
    assert all(ending.files > 20 for ending in endings)
    assert [ending.different for ending in endings] == [[]] * len(endings)


def test_no_process_outlives_its_parent(kills, events):
    assert [event.orphans for event in events if isinstance(event, kills.Kill)] == [0] * KILLS


def test_unfinished_files_do_not_pile_up(kills, events):
    for ending in (event for event in events if isinstance(event, kills.Ending)):
        # What a process was writing when it was killed: a hidden file or folder for each of the two.
        assert len(ending.unfinished) <= 2 * ending.kills


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_study_saves_its_runs_and_says_so(kills, stages, tmp_path, number):
    process = kills.start(stages["study"], tmp_path)
    while "steps" not in kills.found_in(tmp_path / "out") and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(number)
    assert process.wait(60) == 130
    assert kills.outlived(process.pid)[0] == []
    assert "the same command goes on" in (tmp_path / "output.txt").read_text()
    assert "Traceback" not in (tmp_path / "output.txt").read_text()
    assert kills.start(stages["study"], tmp_path).wait() == 0


def test_two_studies_are_identical_but_for_seconds(kills, stages, tmp_path):
    study = stages["study"]
    found = []
    for name in ("first", "second"):
        folder = tmp_path / name
        assert kills.start(study, folder).wait() == 0
        found.append(kills.contents(folder / "out"))
    assert found[0] == found[1]
    assert {"rows.csv", "report.html"} <= found[0].keys()
    assert any(name.endswith("weights.safetensors") for name in found[0])


def test_the_comparison_sees_one_changed_bit(kills, tmp_path):
    (tmp_path / "rows.csv").write_text("value\n0.5\n")
    (tmp_path / "cell.json").write_text('{"seconds": 1.5, "steps": 3}')
    before = kills.contents(tmp_path)
    (tmp_path / "cell.json").write_text('{"seconds": 2.5, "steps": 3}')
    assert kills.contents(tmp_path) == before
    (tmp_path / "rows.csv").write_text("value\n0.6\n")
    assert kills.compared("study", 1, before, tmp_path).different == ["rows.csv"]
