"""What engines are made of, without a cluster."""

from __future__ import annotations

import dataclasses
import os
import random
import subprocess
import sys

import pytest

from shiftproof.data.cohort import Row
from shiftproof.errors import OptionError, RunError, ShiftproofError, StorageError
from shiftproof.files import write_json
from shiftproof.study import grid
from shiftproof.study.cell import Job
from shiftproof.study.engines import ENGINES, engine, homes, require
from shiftproof.study.engines.connect import imported, resources, slots
from shiftproof.study.engines.parcels import Parcel, Piece, below, listed, packed, unpack
from shiftproof.study.engines.supplies import scan_files


@pytest.fixture
def files(tmp_path):
    contents = {"a/empty": 0, "a/small": 10, "b/large": 1000, "exact": 100, "z": 3}
    found = {}
    for name, size in contents.items():
        path = tmp_path / "from" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(random.Random(size).randbytes(size))
        os.utime(path, ns=(1_700_000_000_123_456_000, 1_700_000_000_123_456_000))
        found[name] = path
    return found


@pytest.mark.parametrize("limit", [1, 7, 100, 1113, 10_000])
def test_files_arrive_as_they_were_in_chunks_of_any_size(files, tmp_path, limit):
    chunks = list(packed(files, limit))
    assert all(sum(len(piece.content) for piece in chunk) <= limit for chunk in chunks)
    parcel = Parcel(listed(files))
    assert not parcel.arrived(tmp_path / "to")
    unpack(tmp_path / "to", iter(chunks))
    assert {n: (tmp_path / "to" / n).read_bytes() for n in files} == {n: p.read_bytes() for n, p in files.items()}
    assert parcel.arrived(tmp_path / "to")
    (tmp_path / "to" / "z").write_bytes(b"abc")
    assert not parcel.arrived(tmp_path / "to")


def test_small_files_share_a_chunk(files):
    assert len(list(packed(files, 10_000))) == 1


@pytest.mark.parametrize("name", ["../outside", "/etc/outside", "a/../../outside", "a\\..\\outside", ""])
def test_a_file_that_would_leave_its_folder_is_refused(tmp_path, name):
    with pytest.raises(RunError, match="would not lie in"):
        unpack(tmp_path / "to", [[Piece(name, 1, 0, b"x")]])
    assert list(tmp_path.rglob("outside")) == []


def test_half_a_file_does_not_replace_a_whole_one(tmp_path):
    (tmp_path / "a").write_text("whole")
    with pytest.raises(RunError, match="3 of 6 bytes"):
        unpack(tmp_path, [[Piece("a", 6, 0, b"new")]])
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a", "whole")]


def test_unfinished_files_stay_where_they_are(tmp_path):
    for name in ("run/state.pt", "run/.half.pt", "run/.tmp-1/x", "run/model/model.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    assert list(below(tmp_path, tmp_path / "run")) == ["run/model/model.json", "run/state.pt"]


def test_every_file_of_a_scan_travels(tmp_path):
    """A volume of a file is in that file; a header's values are in another; a series is a folder."""
    for name in ("four.nii.gz", "head.raw", "label.mha", "series/1.dcm", "series/more/2.dcm"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    (tmp_path / "head.mhd").write_text("ElementDataFile = head.raw\n")
    names = {"a": "four.nii.gz#2", "b": "head.mhd", "c": "series"}
    images = {c: tmp_path / name for c, name in names.items()} | {"d": None}
    found = scan_files(Row("s", "A", images, tmp_path / "label.mha", {}))
    assert {p.relative_to(tmp_path).as_posix() for p in found.values()} == {
        "four.nii.gz", "head.mhd", "head.raw", "label.mha", "series/1.dcm", "series/more/2.dcm"
    }  # fmt: skip
    for name, path in found.items():
        assert name == f"cohort/files{path.as_posix()}"


@pytest.fixture
def home(tmp_path):
    found = homes.home_of(tmp_path, [os.fspath(tmp_path)], shared="auto", word="word", name="copies")
    (tmp_path / found.mark).write_text("word")
    return found


def test_a_folder_is_seen_by_its_mark_and_the_cohort(home, tmp_path):
    assert homes.sees(home)
    assert not homes.sees(dataclasses.replace(home, shared="no"))
    assert not homes.sees(dataclasses.replace(home, word="of another folder with this name"))
    assert not homes.sees(dataclasses.replace(home, files=(os.fspath(tmp_path / "scan.nii.gz"),)))
    assert not homes.sees(dataclasses.replace(home, folder="/nowhere"))


def test_a_folder_that_should_be_shared_and_is_not_is_an_error(home, tmp_path):
    assert homes.sees(dataclasses.replace(home, shared="yes"))
    with pytest.raises(RunError, match="does not see /nowhere; mount it there .*--shared no"):
        homes.sees(dataclasses.replace(home, shared="yes", folder="/nowhere"))
    with pytest.raises(RunError, match=r"does not see .*scan\.nii\.gz"):
        homes.sees(dataclasses.replace(home, shared="yes", files=(os.fspath(tmp_path / "scan.nii.gz"),)))


def test_a_node_writes_what_it_was_told(home, tmp_path):
    found = homes.look(home, "node")
    assert found.sees
    assert (tmp_path / found.wrote).read_text() == "word"


def test_a_node_with_other_versions_is_refused(home):
    homes.require_same(home)
    other = dataclasses.replace(home, versions=home.versions | {"torch": "1.0"})
    with pytest.raises(RunError, match=r"has torch .*, the study was started with 1\.0; install the same versions"):
        homes.require_same(other)


def test_builds_for_cpu_and_gpu_count_as_the_same_version(monkeypatch):
    monkeypatch.setattr(homes, "versions", lambda: dict.fromkeys(homes.DECIDING, "2.13.0+cu128"))
    assert homes.deciding() == dict.fromkeys(homes.DECIDING, "2.13.0")


def test_copies_lie_where_only_this_user_reads(home, tmp_path, monkeypatch):
    monkeypatch.setattr(homes.tempfile, "gettempdir", lambda: os.fspath(tmp_path))
    folder = homes.copies(home)
    assert folder.parent.stat().st_mode & 0o077 == 0
    folder.mkdir()
    homes.clear(home)
    assert not folder.parent.exists()
    folder.parent.symlink_to(tmp_path)  # somebody else was faster
    with pytest.raises(StorageError, match="belongs to another user"):
        homes.copies(home)


class Nodes:
    """What a cluster says of its nodes."""

    def __init__(self, *given: dict) -> None:
        self.given = [{"Alive": True, "NodeID": str(i), "Resources": node} for i, node in enumerate(given)]

    def nodes(self) -> list[dict]:
        return self.given


class Study:
    def __init__(self, device: str, threads: int) -> None:
        self.budget, self.threads = {"device": device}, threads


def test_a_job_takes_its_threads_and_a_gpu_where_it_uses_one():
    cpus, gpus = Nodes({"CPU": 8}), Nodes({"CPU": 8, "GPU": 2})
    assert resources(cpus, Study("auto", 2), 1.0) == {"num_cpus": 2}
    assert resources(gpus, Study("cpu", 2), 1.0) == {"num_cpus": 2}
    assert resources(gpus, Study("auto", 1), 0.5) == {"num_cpus": 1, "num_gpus": 0.5}
    with pytest.raises(RunError, match=r"takes 1 CPUs and 1 GPU.*--device cpu"):
        resources(cpus, Study("cuda", 1), 1.0)
    with pytest.raises(RunError, match="takes 9 CPUs.*most CPUs: 8"):
        resources(cpus, Study("cpu", 9), 1.0)


def test_a_cluster_has_room_by_node_and_by_what_is_scarce():
    assert slots(Nodes({"CPU": 3}, {"CPU": 3}), {"num_cpus": 2}) == 2
    assert slots(Nodes({"CPU": 8, "GPU": 1}, {"CPU": 8}), {"num_cpus": 1, "num_gpus": 0.5}) == 2
    assert slots(Nodes(), {"num_cpus": 1}) == 1


def test_an_unknown_engine_is_answered_with_the_nearest():
    assert set(ENGINES) == {"local", "ray"}
    with pytest.raises(OptionError, match='did you mean "ray"'):
        engine("rai")


def test_options_of_a_cluster_are_refused_on_this_machine(tmp_path):
    job = Job("key", ("row",), "C", 0, 1)
    with pytest.raises(OptionError, match="address is for clusters; add --engine ray"):
        grid.run_grid(tmp_path, [job], workers=1, address="auto")


@pytest.mark.parametrize(("module", "address"), [("ray", None), ("grpc", "ray://head:10001")])
def test_a_missing_library_names_the_extra(monkeypatch, module, address):
    pytest.importorskip("ray")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(OptionError, match=r"pip install 'shiftproof\[ray\]'"):
        imported(address)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"shared": "y"}, "known: auto, yes, no"),
        ({"gpu_share": 0.0}, "--gpu-share must be above 0, got 0"),
        ({"address": "127.0.0.1:1"}, r"no Ray cluster answers at 127\.0\.0\.1:1 .*ray start --head"),
        ({"address": "ray://127.0.0.1:1"}, "no Ray cluster answers at ray://"),
        ({"address": "somewhere"}, r"no Ray cluster answers at somewhere \(expected HOST:PORT\)"),
    ],
)
def test_options_of_a_cluster_are_checked_beforehand(options, words):
    pytest.importorskip("ray")
    with pytest.raises(ShiftproofError, match=words):
        require("ray", **options)


def test_nothing_of_ray_is_imported_for_a_local_study():
    code = "import sys, shiftproof.study.run, shiftproof.study.engines.local\nassert 'ray' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_looks_at_a_node_imports_nothing_heavy():
    code = "import sys, shiftproof.study.engines.homes\nassert not {'torch', 'numpy', 'pandas'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_engine_gets_what_is_not_done_and_the_options_that_were_given(tmp_path, monkeypatch):
    work = [Job(f"key{i}", ("row",), "C", i, 10) for i in range(3)]
    for i, state in enumerate(["done", "failed"]):
        write_json(tmp_path / "cells" / "row" / "C" / str(i) / "cell.json", {"status": state})
    seen: dict = {}

    def stub(folder, jobs, *, workers, report, poll, **options):
        seen.update(jobs=[job.key for job in jobs], workers=workers, options=options)
        report(0, ["key1", "key2"], workers=2, steps={"key2": 4})
        report(2, [], workers=2, repeated=1)

    monkeypatch.setattr(grid, "engine_of", lambda name: stub)
    told: list = []
    grid.run_grid(tmp_path, work, workers=None, progress=told.append, engine="ray", address="auto", shared=None)
    assert seen == {"jobs": ["key1", "key2"], "workers": None, "options": {"address": "auto"}}
    assert (told[0].done, told[0].total, told[0].steps, told[0].total_steps) == (1, 3, 14, 30)
    assert (told[0].failed, told[0].running, told[0].workers) == ([], ["key1", "key2"], 2)
    assert (told[1].done, told[1].failed, told[1].repeated) == (3, ["row / C / seed 1"], 1)


def test_a_study_that_is_done_starts_no_engine(tmp_path, monkeypatch):
    write_json(tmp_path / "cells" / "row" / "C" / "0" / "cell.json", {"status": "done"})
    monkeypatch.setattr(grid, "engine_of", lambda name: pytest.fail)
    told: list = []
    grid.run_grid(tmp_path, [Job("key", ("row",), "C", 0, 10)], workers=2, progress=told.append)
    assert [(state.done, state.workers) for state in told] == [(1, 0)]
