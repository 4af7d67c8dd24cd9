"""Damaged and hostile files for every reader: typed errors with the file's name, nothing else."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "fuzz_readers.py"


@pytest.fixture(scope="module")
def fuzz():
    specification = importlib.util.spec_from_file_location("fuzz_readers", SCRIPT)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules["fuzz_readers"] = module  # where dataclasses look for their module
    specification.loader.exec_module(module)
    yield module
    del sys.modules["fuzz_readers"]


@pytest.fixture(scope="module")
def sound(fuzz, tmp_path_factory):
    """Sound files of every reader, by its name; each is read without an error."""
    folders = {}
    for name, reader in fuzz.READERS.items():
        if name == "dicom":
            pytest.importorskip("pydicom")
        folders[name] = tmp_path_factory.mktemp("sound") / "in"
        folders[name].mkdir()
        reader.make(folders[name])
    return folders


def test_sound_files_are_read(fuzz, sound):
    for name, folder in sound.items():
        assert fuzz.outcome(name, folder) == ("read", ""), name


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(draws=st.tuples(st.integers(0, 2**32), st.integers(0, 10**6)), choice=st.integers(0, 10**6))
def test_damaged_files_are_read_or_refused_by_a_typed_error(fuzz, sound, tmp_path_factory, draws, choice):
    name = list(sound)[choice % len(sound)]
    place = tmp_path_factory.getbasetemp() / "place"
    folder = fuzz.one(name, draws[1], draws[0], sound[name], place)
    what, why = fuzz.outcome(name, folder)
    assert what in ("read", "refused"), why


def test_the_inputs_are_a_function_of_their_number(fuzz, sound, tmp_path):
    for name in ("nifti.gz", "label map", "model"):
        contents = []
        for place in ("a", "b"):
            folder = fuzz.one(name, 7, 3, sound[name], tmp_path / place)
            contents.append({p.name: p.read_bytes() for p in folder.rglob("*") if p.is_file()})
        if name != "nifti.gz":  # gzip notes the time
            assert contents[0] == contents[1]
        before = {p.name: p.read_bytes() for p in sound[name].rglob("*") if p.is_file()}
        assert contents[0] != before or name == "label map"


def test_what_is_no_typed_error_is_a_failure(fuzz, sound, monkeypatch, tmp_path):
    from shiftproof.errors import ShiftproofError

    def outcome_of(error: BaseException) -> str:
        def read(folder: Path) -> None:
            raise error

        monkeypatch.setattr(fuzz.READERS["plan"], "read", read)
        return fuzz.outcome("plan", sound["plan"])[0]

    assert outcome_of(KeyError("x")) == "failed"
    assert outcome_of(ShiftproofError("something is wrong")) == "failed"
    assert outcome_of(ShiftproofError("plan is wrong\nbadly")) == "failed"
    assert outcome_of(ShiftproofError("plan is wrong")) == "refused"


@pytest.mark.slow
def test_ten_thousand_damaged_files_give_no_untyped_error():
    done = subprocess.run([sys.executable, str(SCRIPT), "--seed", "7"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert "10000 inputs, 0 failures" in done.stdout
