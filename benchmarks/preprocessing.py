"""Preprocessing of 50 volumes of 128^3: seconds and peak memory, with one and with two workers.

    python benchmarks/preprocessing.py [--count 50] [--size 128] [--workers 1,2]

Compressed NIfTI files of 1 mm, with labels, are read, checked, resampled to 1.25 mm (cubic; labels by class),
normalised and stored. Every measurement has a process of its own and an empty store. Memory is the peak of all
processes beyond what the main one held before.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from measured import Memory, fresh, heading, timed
from volumes import write_cohort

SPACING_MM = 1.25


def child(table: Path, store: Path, workers: int) -> dict[str, float]:
    from shiftproof.data.cohort import Cohort
    from shiftproof.data.plan import make_plan
    from shiftproof.data.store import Store

    cohort = Cohort.read(table)
    plan = make_plan(cohort, spacing_mm=[SPACING_MM] * 3, patch=[64] * 3)
    with Memory() as memory:
        seconds = timed(lambda: Store(store).prepare(cohort, plan, workers=workers))
    return {"seconds": seconds, "MiB": memory.peak}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--workers", default="1,2")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        table, store, workers = given.child
        print(json.dumps(child(Path(table), Path(store), int(workers))))
        return
    print(heading())
    print(f"{given.count} volumes of {given.size}^3, from 1 mm to {SPACING_MM} mm")
    with tempfile.TemporaryDirectory() as folder:
        table = write_cohort(Path(folder), count=given.count, size=given.size)
        first = None
        for workers in map(int, given.workers.split(",")):
            store = Path(folder) / f"store-{workers}"
            found = fresh(str(Path(__file__)), "--child", str(table), str(store), str(workers))
            first = first or found["seconds"]
            print(
                f"{workers} workers: {found['seconds']:6.1f} s, {found['seconds'] / given.count:.2f} s a volume, "
                f"{found['MiB']:.0f} MiB, {first / found['seconds']:.2f} times as fast as the first"
            )


if __name__ == "__main__":
    main()
