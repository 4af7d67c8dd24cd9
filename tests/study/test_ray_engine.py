"""Studies on a real cluster: two nodes with one CPU each, as processes of this machine."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import tempfile
import time
from pathlib import Path

import pytest

from shiftproof.errors import RunError
from shiftproof.recipe import Recipe
from shiftproof.study.cell import jobs, status
from shiftproof.study.declare import Declaration
from shiftproof.study.grid import run_grid
from shiftproof.study.run import study
from shiftproof.train import Trainer

pytest.importorskip("ray")
psutil = pytest.importorskip("psutil")

SMALL = {"widths": [4, 8]}
OBJECTS_B = 80 * 2**20


@pytest.fixture(scope="module")
def cluster():
    """Its address, and that for programs outside of it."""
    # Not pytest's folder: the path of a socket may not be longer than some 100 letters.
    folder = tempfile.mkdtemp(prefix="r")
    before = {name: os.environ.get(name) for name in SETTINGS}
    os.environ.update(SETTINGS | {"RAY_TMPDIR": folder, "TMPDIR": folder})
    import ray
    from ray.cluster_utils import Cluster

    port = free_port()
    node = {"num_cpus": 1, "object_store_memory": OBJECTS_B, "include_dashboard": False}
    started = Cluster(initialize_head=True, head_node_args=node | {"ray_client_server_port": port})
    started.add_node(**node)
    started.folder = Path(folder)
    started.outside = f"ray://127.0.0.1:{port}"
    yield started
    ray.shutdown()
    started.shutdown()
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})
    shutil.rmtree(folder)


SETTINGS = {
    "RAY_TMPDIR": "",
    "TMPDIR": "",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray writes a token into the home folder otherwise.
    "RAY_AUTH_MODE": "disabled",
    # Else the head's server for programs outside of the cluster cannot start its processes.
    "GRPC_ENABLE_FORK_SUPPORT": "0",
}


def free_port() -> int:
    import socket

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def local(table: Path, out: Path, texts: dict[str, dict], steps: int, seeds: int = 1) -> Path:
    rows = [dataclasses.replace(Recipe.parsed(t), network=SMALL, **fields) for t, fields in texts.items()]
    trainer = Trainer(steps=steps, batch=4, validate_every=max(1, steps // 10), device="cpu")
    return study(table, rows, out, held_out=["C"], seeds=seeds, trainer=trainer, workers=2, estimate=False)


@pytest.fixture(scope="module")
def finished(three_sites, tmp_path_factory) -> Path:
    """A study with local processes; a row of it cannot be trained."""
    rows = {"dann/light+target": {}, "erm/none+tent": {}, "mldg/light": {"sampling": {"batches": "one domain"}}}
    return local(three_sites, tmp_path_factory.mktemp("local") / "s", rows, 4)


@pytest.fixture(scope="module")
def long(three_sites, tmp_path_factory) -> Path:
    """One of at least three trainings that take seconds each."""
    return local(three_sites, tmp_path_factory.mktemp("long") / "s", {"erm/none": {}}, 900, seeds=3)


def begun(finished: Path, out: Path) -> Path:
    """The study as it is before its first job."""
    shutil.copytree(finished, out, ignore=shutil.ignore_patterns("cells", "runs", "rows.csv"))
    return out


def on_ray(folder: Path, address: str, only: int | None = None, **options) -> list:
    """Runs the study's jobs; returns what progress was told."""
    told: list = []
    watch = options.pop("watch", lambda state: None)

    def progress(state) -> None:
        told.append(state)
        watch(state)

    options = {"workers": 2, **options}
    work = jobs(Declaration.load(folder))[:only]
    run_grid(folder, work, progress=progress, engine="ray", address=address, **options)
    return told


def contents(folder: Path, only: int | None = None) -> dict[str, bytes]:
    """Rows, weights, records and predictions, and what cells say besides seconds."""
    found = {}
    for job in jobs(Declaration.load(folder))[:only]:
        for place in [folder / "runs" / job.key, *job.cells(folder).values()]:
            for path in (p for p in place.rglob("*") if p.is_file() and p.suffix != ".pt"):
                content = path.read_bytes()
                if path.suffix == ".json" or path.name == "record.jsonl":
                    lines = content.decode().splitlines() if path.name == "record.jsonl" else [content.decode()]
                    content = repr([without_seconds(json.loads(line)) for line in lines]).encode()
                found[path.relative_to(folder).as_posix()] = content
    return found


def without_seconds(value):
    if isinstance(value, dict):
        return {k: without_seconds(v) for k, v in value.items() if "second" not in k}
    return value


def executing() -> list:
    """Processes of the cluster that run a job."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if "ray::execute" in " ".join(process.cmdline()):
                found.append(process)
    return found


def assert_nothing_is_left(cluster, folder: Path) -> None:
    assert list(folder.glob(".*")) + list((folder / "runs").glob(".*-*")) == []
    assert list(cluster.folder.glob("shiftproof-*")) == []


def test_a_job_on_a_cluster_gives_what_a_local_process_gives(cluster, finished, tmp_path):
    folder = begun(finished, tmp_path / "s")
    told = on_ray(folder, cluster.address, only=1)
    assert contents(folder, only=1) == contents(finished, only=1)
    assert any(name.endswith("rows.csv") for name in contents(folder, only=1))
    assert (told[-1].done, told[-1].workers, told[-1].repeated) == (1, 2, 0)
    assert_nothing_is_left(cluster, folder)


@pytest.mark.slow
@pytest.mark.parametrize("shared", ["yes", "no"])
def test_a_study_on_a_cluster_is_the_local_one(cluster, finished, tmp_path, shared):
    folder = begun(finished, tmp_path / "s")
    told = on_ray(folder, cluster.address, shared=shared)
    assert contents(folder) == contents(finished)
    assert told[-1].done == told[-1].total > 4
    assert told[-1].repeated == 0
    assert told[-1].failed == ["mldg/light / C / seed 0"]
    assert_nothing_is_left(cluster, folder)


@pytest.mark.slow
def test_a_study_from_outside_of_the_cluster_is_the_local_one(cluster, finished, tmp_path):
    folder = begun(finished, tmp_path / "s")
    told = on_ray(folder, cluster.outside, shared="no")
    assert contents(folder) == contents(finished)
    assert told[-1].failed == ["mldg/light / C / seed 0"]
    assert_nothing_is_left(cluster, folder)


@pytest.mark.slow
def test_a_training_that_raises_is_recorded_and_not_tried_again(cluster, finished, tmp_path):
    folder = begun(finished, tmp_path / "s")
    failing = next(j for j in jobs(Declaration.load(folder)) if j.rows == ("mldg/light",))
    run_grid(folder, [failing], workers=1, engine="ray", address=cluster.address)
    cell = failing.cells(folder)["mldg/light"]
    words = json.loads((cell / "cell.json").read_text())["error"]
    assert words == json.loads((failing.cells(finished)["mldg/light"] / "cell.json").read_text())["error"]
    assert "MLDG needs more than 1 source domains" in words


@pytest.mark.slow
@pytest.mark.parametrize("shared", ["yes", "no"])
def test_a_killed_worker_is_replaced(cluster, long, tmp_path, shared):
    folder = begun(long, tmp_path / "s")
    killed: list[int] = []

    def watch(state) -> None:
        if state.steps > 60 and not killed and (found := executing()):
            killed.append(found[0].pid)
            found[0].kill()

    told = on_ray(folder, cluster.address, only=1, shared=shared, watch=watch)
    assert killed
    assert told[-1].repeated == 1
    assert contents(folder, only=1) == contents(long, only=1)
    assert_nothing_is_left(cluster, folder)


@pytest.mark.slow
def test_a_worker_that_is_lost_again_and_again_fails_its_cell_in_words(cluster, long, tmp_path):
    folder = begun(long, tmp_path / "s")

    def watch(state) -> None:
        for process in executing():
            with contextlib.suppress(psutil.Error):
                process.kill()

    told = on_ray(folder, cluster.address, only=1, watch=watch)
    assert told[-1].repeated == 3
    (job,) = jobs(Declaration.load(folder))[:1]
    cell = next(iter(job.cells(folder).values()))
    words = json.loads((cell / "cell.json").read_text())["error"]
    assert words.startswith("its worker was lost 3 times, the last time: ")
    assert words.endswith("run the same command again to continue")
    assert "\n" not in words
    on_ray(folder, cluster.address, only=1)
    assert status(cell) == "done"


@pytest.mark.slow
@pytest.mark.parametrize("shared", ["yes", "no"])
def test_an_interrupted_study_saves_its_states_and_goes_on(cluster, long, tmp_path, shared):
    folder = begun(long, tmp_path / "s")

    def watch(state) -> None:
        if state.steps > 60:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        on_ray(folder, cluster.address, shared=shared, watch=watch)
    saved = sorted((folder / "runs").glob("*/state.pt"))
    assert saved
    assert len(saved) < len(jobs(Declaration.load(folder)))
    assert executing() == []
    assert_nothing_is_left(cluster, folder)
    steps: list[int] = []
    on_ray(folder, cluster.address, shared=shared, watch=lambda state: steps.append(state.steps))
    assert steps[0] > 0
    assert contents(folder) == contents(long)


@pytest.mark.slow
def test_what_is_done_is_not_run_again(cluster, finished, tmp_path):
    folder = begun(finished, tmp_path / "s")
    for text in ("cells", "runs"):
        shutil.copytree(finished / text, folder / text)
    first = jobs(Declaration.load(folder))[0]
    shutil.rmtree(folder / "runs" / first.key)
    for cell in first.cells(folder).values():
        shutil.rmtree(cell)
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}
    on_ray(folder, cluster.address, only=2, shared="no")
    after = {p: p.stat().st_mtime_ns for p in before}
    assert after == before
    assert contents(folder) == contents(finished)


@pytest.mark.slow
def test_a_cluster_started_for_the_study_ends_with_it(cluster, finished, tmp_path, monkeypatch):
    scratch = Path(tempfile.mkdtemp(prefix="r"))
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    before = {p.pid for p in psutil.Process().children(recursive=True)}
    handler = signal.getsignal(signal.SIGTERM)
    folder = begun(finished, tmp_path / "s")
    on_ray(folder, "none", only=1)
    assert contents(folder, only=1) == contents(finished, only=1)
    time.sleep(1)
    assert [
        p for p in psutil.Process().children(recursive=True) if p.pid not in before and p.status() != "zombie"
    ] == []
    assert list(scratch.iterdir()) == []
    assert signal.getsignal(signal.SIGTERM) == handler
    scratch.rmdir()


@pytest.mark.slow
def test_more_threads_than_a_node_has_are_refused_before_anything_runs(cluster, finished, tmp_path):
    folder = begun(finished, tmp_path / "s")
    dataclasses.replace(Declaration.load(folder), threads=4).save(folder)
    with pytest.raises(RunError, match="takes 4 CPUs, and no node of the cluster has that"):
        on_ray(folder, cluster.address)
    assert not (folder / "cells").exists()


@pytest.mark.slow
def test_what_ran_on_a_lost_machine_runs_on_another(cluster, long, tmp_path):
    """Last of this file: the cluster has one node less afterwards."""
    folder = begun(long, tmp_path / "s")
    (lost,) = [node for node in cluster.list_all_nodes() if node != cluster.head_node]

    def watch(state) -> None:
        if state.steps > 60 and lost in cluster.list_all_nodes():
            cluster.remove_node(lost, allow_graceful=False)

    told = on_ray(folder, cluster.address, shared="yes", watch=watch)
    assert told[-1].repeated == 1
    assert contents(folder) == contents(long)
