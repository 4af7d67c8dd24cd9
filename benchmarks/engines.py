"""What a second worker brings: the same study with one and with two, on local processes and on Ray (goal: 1.8 each).

A study is prepared once: 12 trainings of a small network on 12 made subjects of three sites, one thread each. Every
contestant runs a fresh copy of it, in shuffled order in each round; ratios are formed within a round, and their median
is printed. Each engine is warm when its clock starts: the local server that processes are forked from has imported what
they need, and so have the cluster's two worker processes, which serve both of Ray's contestants.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import shutil
import statistics
import tempfile
import time
from importlib import metadata
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from shiftproof.recipe import Recipe
from shiftproof.study.cell import jobs
from shiftproof.study.declare import Declaration
from shiftproof.study.grid import run_grid
from shiftproof.study.run import study
from shiftproof.train import Trainer
from shiftproof.versions import versions

CONTESTANTS = [("local", 1), ("local", 2), ("ray", 1), ("ray", 2)]


def cohort(folder: Path) -> Path:
    """Discs in noise, 32 x 32 x 4 voxels, four subjects at each of three sites."""
    lines = ["subject,image,label,site"]
    for site, gain in {"A": 1.0, "B": 2.0, "C": 3.0}.items():
        for i in range(4):
            noise = np.random.default_rng([ord(site), i])
            x, y = np.meshgrid(np.arange(32), np.arange(32), indexing="ij")
            radius = np.stack([np.hypot(x - cx, y - cy) for cx, cy in noise.uniform(12, 20, (4, 2))])
            label = (radius < 10).astype(np.uint8) + (radius < 5)
            image = (gain * 100 * (label + noise.normal(0, 0.3, label.shape))).astype(np.float32)
            for kind, array in {"image": image, "label": label.astype(np.uint8)}.items():
                sitk.WriteImage(sitk.GetImageFromArray(array), str(folder / f"{site}{i}-{kind}.nii.gz"))
            lines.append(f"{site}{i},{site}{i}-image.nii.gz,{site}{i}-label.nii.gz,{site}")
    (folder / "table.csv").write_text("\n".join(lines) + "\n")
    (folder / "labels.toml").write_text('classes = ["background", "ring", "disc"]\n[default]\nring = 1\ndisc = 2\n')
    return folder / "table.csv"


def prepared(folder: Path, steps: int, seeds: int) -> Path:
    """A study that is ready for its first job, by running and forgetting its shortest form."""
    out = folder / "study"
    rows = [Recipe("erm", transforms="none", network={"widths": [16, 32]})]
    trainer = Trainer(steps=1, batch=8, validate_every=1, device="cpu")
    study(cohort(folder), rows, out, held_out=["B", "C"], seeds=seeds, trainer=trainer, workers=2, estimate=False)
    for name in ("cells", "runs"):
        shutil.rmtree(out / name)
    declared = Declaration.load(out)
    declared.budget.update(steps=steps, validate_every=steps)
    declared.save(out)
    return out


def seconds(study_folder: Path, engine: str, workers: int, **options: str) -> float:
    """Wall time of all jobs on a fresh copy of the study."""
    with tempfile.TemporaryDirectory(dir=study_folder.parent) as folder:
        copy = Path(folder) / "study"
        shutil.copytree(study_folder, copy)
        work = jobs(Declaration.load(copy))
        started = time.perf_counter()
        run_grid(copy, work, workers=workers, poll=0.05, engine=engine, **options)
        taken = time.perf_counter() - started
        failed = [job.key for job in work if not job.done(copy)]
        if failed:
            raise SystemExit(f"{len(failed)} jobs failed on {engine}: {failed[0]}")
        return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    scratch = tempfile.mkdtemp(prefix="b", dir="/tmp" if os.path.isdir("/tmp") else None)
    times: dict[tuple[str, int], list[float]] = {contestant: [] for contestant in CONTESTANTS}
    try:
        folder = prepared(Path(scratch), given.steps, given.seeds)
        ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error",
                 object_store_memory=200 * 2**20, _temp_dir=scratch)  # fmt: skip
        for round_ in range(given.rounds + 1):
            for engine, workers in random.Random(round_).sample(CONTESTANTS, len(CONTESTANTS)):
                taken = seconds(folder, engine, workers)
                if round_:  # the first one imports
                    times[engine, workers].append(taken)
    finally:
        ray.shutdown()
        shutil.rmtree(scratch, ignore_errors=True)

    print(f"{given.rounds} rounds, {4 * given.seeds} trainings of {given.steps} steps, 1 thread each")
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {platform.machine()}")
    print(", ".join(f"{k} {v}" for k, v in versions().items()), f"ray {metadata.version('ray')}", sep=", ")
    for engine in ("local", "ray"):
        for workers in (1, 2):
            print(f"{engine:6} workers {workers}        {statistics.median(times[engine, workers]):7.2f} s")
        ratios = [one / two for one, two in zip(times[engine, 1], times[engine, 2], strict=True)]
        print(f"{engine:6} one against two  {statistics.median(ratios):.2f}   "
              f"from {min(ratios):.2f} to {max(ratios):.2f}; goal 1.8")  # fmt: skip
    over = [a / b for a, b in zip(times["ray", 2], times["local", 2], strict=True)]
    print(f"ray against local, two workers each  {statistics.median(over):.2f}")


if __name__ == "__main__":
    main()
