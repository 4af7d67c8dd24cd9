"""Loading of training patches: `Feed` over a `Store` against MONAI's `CacheDataset` and `PersistentDataset`.

    python benchmarks/loading.py [--count 12] [--size 128] [--patch 64] [--batch 2] [--seconds 4] [--workers 0,1,2]

All read the same preprocessed volumes (float32 images, labels of a byte a voxel) and cut the same kind of patches: a
third centred on a voxel of a structure, from indices that were made beforehand. `CacheDataset` holds all volumes in
memory, `PersistentDataset` reads each from its own file on disk; both in a DataLoader with the numbers of workers that
are named, of which the best counts. Ours has no workers. Every measurement has a process of its own. Memory is the peak
of all its processes, workers included, beyond what it held before the first dataset was made.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measured import Memory, fresh, heading
from volumes import SITES, write_cohort

NAMES = ("shiftproof", "CacheDataset", "PersistentDataset")


def prepared(folder: Path, size: int) -> list[Any]:
    from shiftproof.data.cohort import Cohort
    from shiftproof.data.plan import make_plan
    from shiftproof.data.store import Store

    cohort = Cohort.read(folder / "table.csv")
    return Store(folder / "store").prepare(cohort, make_plan(cohort, spacing_mm=[1.0] * 3, patch=[size] * 3))


def ours(cases: list[Any], patch: int, batch: int) -> Iterator[torch.Tensor]:
    from shiftproof.data.sampling import Feed, Patches

    feed = Feed(cases, list(SITES), Patches((patch,) * 3), size=batch)
    return (feed.batch(index).source.image for index in itertools.count())


def read(item: dict[str, Any]) -> dict[str, Any]:
    """One case's arrays, in memory of their own."""
    return {
        "image": torch.from_numpy(np.load(item["image"])),
        "label": torch.from_numpy(np.load(item["label"]))[None],
    }


def monai(name: str, cases: list[Any], patch: int, batch: int, workers: int, cache: Path) -> Iterator[torch.Tensor]:
    from monai import transforms as m
    from monai.data import CacheDataset, DataLoader, PersistentDataset

    items = [{n: str(case.folder / f"{n}.npy") for n in ("image", "label")} for case in cases]
    crop = m.RandCropByPosNegLabeld(
        ["image", "label"], "label", (patch,) * 3, pos=1, neg=2, num_samples=1,
        fg_indices_key="label_fg_indices", bg_indices_key="label_bg_indices",
    )  # fmt: skip
    steps = m.Compose([m.Lambda(read), m.FgBgToIndicesd("label"), crop, m.SelectItemsd(["image", "label"])])
    if name == "CacheDataset":
        dataset: Any = CacheDataset(items, steps, progress=False)
    else:
        dataset = PersistentDataset(items, steps, cache)
    loader = DataLoader(dataset, workers, batch_size=batch, shuffle=True, persistent_workers=workers > 0)
    return (one["image"] for _ in itertools.count() for one in loader)


def child(name: str, workers: int, folder: Path, patch: int, batch: int, seconds: float) -> dict[str, float]:
    torch.set_num_threads(1)
    cases = prepared(folder, patch)
    with Memory() as memory:
        make: Callable[[], Iterator[torch.Tensor]] = (
            (lambda: ours(cases, patch, batch))
            if name == "shiftproof"
            else (lambda: monai(name, cases, patch, batch, workers, folder / "persistent"))
        )
        batches = make()
        for _ in range(len(cases)):  # caches are filled
            next(batches)
        start, count = time.perf_counter(), 0
        while time.perf_counter() - start < seconds:
            count += len(next(batches))
        rate = count / (time.perf_counter() - start)
    return {"rate": rate, "MiB": memory.peak, "mapped": memory.mapped}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--patch", type=int, default=64)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--workers", default="0,1,2")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        name, workers, folder = given.child
        print(json.dumps(child(name, int(workers), Path(folder), given.patch, given.batch, given.seconds)))
        return
    import monai as peer

    print(heading(monai=peer.__version__))
    print(f"{given.count} volumes of {given.size}^3, batches of {given.batch} x {given.patch}^3")
    numbers = [int(n) for n in given.workers.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        write_cohort(Path(folder), count=given.count, size=given.size)
        prepared(Path(folder), given.patch)
        sizes = ["--patch", str(given.patch), "--batch", str(given.batch), "--seconds", str(given.seconds)]
        found: dict[str, dict[int, dict[str, float]]] = {name: {} for name in NAMES}
        for number in numbers:  # in turns, so that a machine that slows down slows all
            for name in NAMES:
                found[name][number] = fresh(__file__, "--child", name, str(number), folder, *sizes)
    best = {name: max(runs.items(), key=lambda run: run[1]["rate"]) for name, runs in found.items()}
    for name, (workers, run) in best.items():
        print(
            f"{name:18} {run['rate']:7.1f} samples/s with {0 if name == 'shiftproof' else workers} workers, "
            f"{run['MiB']:.0f} MiB and {run['mapped']:.0f} MiB of mapped files"
        )
    mine = best["shiftproof"][1]
    for name in NAMES[1:]:
        other = best[name][1]
        print(f"ours to {name}: speed {mine['rate'] / other['rate']:.2f}, memory {mine['MiB'] / other['MiB']:.2f}")


if __name__ == "__main__":
    main()
