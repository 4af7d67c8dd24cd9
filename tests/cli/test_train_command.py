"""`shiftproof train` in several processes, and what it tells before it begins."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import SimpleITK as sitk
from safetensors.numpy import load_file

from shiftproof.data.labels import LabelMap

SMALL = ["--steps", "4", "--batch", "4", "--patch", "16,16", "--dimensions", "2", "--device", "cpu", "--hold-out", "C"]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """Three sites of three subjects: a disc in noise, brighter from site to site."""
    folder = tmp_path_factory.mktemp("cohort")
    random = np.random.default_rng(0)
    _, y, x = np.meshgrid(np.arange(4), np.arange(24), np.arange(24), indexing="ij")
    lines = ["subject,site,image,label"]
    for gain, site in enumerate("ABC", start=1):
        for i in range(3):
            label = ((y - 12) ** 2 + (x - 10 - i) ** 2 < 40).astype(np.uint8)
            image = 100.0 * gain * label + random.normal(0, 20, label.shape)
            for kind, array in (("image", image.astype(np.float32)), ("label", label)):
                written = sitk.GetImageFromArray(array)
                written.SetSpacing((1, 1, 4))
                sitk.WriteImage(written, str(folder / f"{site}{i}-{kind}.nii.gz"))
            lines.append(f"{site}{i},{site},{site}{i}-image.nii.gz,{site}{i}-label.nii.gz")
    (folder / "table.csv").write_text("\n".join(lines) + "\n")
    LabelMap.of_values({"disc": 1}).write(folder / "labels.toml")
    return folder


def command(*arguments, launcher=("-m", "shiftproof"), folder) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    line = [sys.executable, *launcher, "train", *map(str, arguments)]
    environment = kept | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False)


def test_an_estimate_alone_trains_nothing(cohort, tmp_path):
    ended = command(cohort, *SMALL, "--estimate", "--json", "--out", "run", folder=tmp_path)
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert found["total_bytes"] > found["activation_bytes"] > 0
    assert found["parameters"] > 1000
    assert found["seconds"] == pytest.approx(4 * found["seconds_per_step"])
    assert found["fits"] is True
    assert not (tmp_path / "run" / "record.jsonl").exists()
    assert not (tmp_path / "run" / "model").exists()


def test_two_processes_write_one_run_and_one_model(cohort, tmp_path):
    ended = command(cohort, *SMALL, "--json", "--out", "two", "--processes", "2", folder=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.count("million parameters; memory about") == 1
    assert ended.stderr.count("training: 4 of 4") == 1
    assert "data " in ended.stderr
    found = json.loads(ended.stdout)
    assert found["steps"] == 4
    assert found["estimate"]["activation_bytes"] > 0
    assert set(found["held out"]) == {"disc"}
    assert json.loads((tmp_path / "two" / "run.json").read_text())["processes"] == 2
    assert (tmp_path / "two" / "model" / "weights.safetensors").exists()


@pytest.mark.slow
def test_the_number_of_processes_does_not_identify_a_run(cohort, tmp_path):
    for out, number in (("one", 1), ("two", 2)):
        assert command(cohort, *SMALL, "--out", out, "--processes", number, folder=tmp_path).returncode == 0
    one, two = (load_file(tmp_path / out / "model" / "weights.safetensors") for out in ("one", "two"))
    # Rounding, which Adam magnifies; tests of processes compare in float64.
    assert all(np.abs(one[name] - two[name]).max() < 5e-3 for name in one)
    facts = [json.loads((tmp_path / out / "run.json").read_text()) for out in ("one", "two")]
    assert [f["processes"] for f in facts] == [1, 2]
    assert facts[0]["options"] == facts[1]["options"]
    # What one process began and ended, several find complete.
    again = command(cohort, *SMALL, "--json", "--out", "one", "--processes", "2", folder=tmp_path)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["seconds"] == facts[0]["seconds"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_outlives_the_first_process(cohort, tmp_path, number):
    psutil = pytest.importorskip("psutil")
    long = [*SMALL, "--steps", "100000", "--processes", "2", "--out", "run"]
    line = [sys.executable, "-m", "shiftproof", "train", str(cohort), *long]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    with open(tmp_path / "output.txt", "w") as output:
        first = subprocess.Popen(line, cwd=tmp_path, env=environment, stdout=output, stderr=output)
    record = tmp_path / "run" / "record.jsonl"
    until = time.monotonic() + 120
    while not record.exists():
        assert time.monotonic() < until
        assert first.poll() is None, (tmp_path / "output.txt").read_text()
        time.sleep(0.1)
    others = psutil.Process(first.pid).children(recursive=True)
    assert others
    first.send_signal(number)
    first.wait(60)
    _, alive = psutil.wait_procs(others, timeout=30)
    assert alive == []
    if number == signal.SIGTERM:
        assert first.returncode == 130
        assert (tmp_path / "run" / "state.pt").exists()


@pytest.mark.slow
def test_torchrun_starts_it_on_any_number_of_processes(cohort, tmp_path):
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "shiftproof"]
    ended = command(cohort, *SMALL, "--out", "run", launcher=launcher, folder=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("4 steps in") == 1
    assert json.loads((tmp_path / "run" / "run.json").read_text())["processes"] == 2
    refused = command(cohort, *SMALL, "--out", "other", "--processes", "3", launcher=launcher, folder=tmp_path)
    assert "a launcher started 2" in refused.stderr
