"""How long `shiftproof --help` takes beyond a bare interpreter's start (goal: 0.5 s), whole processes in turn."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from shiftproof.versions import versions


def seconds(*arguments: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> None:
    pairs = [(seconds("-m", "shiftproof", "--help"), seconds("-c", "pass")) for _ in range(11)][1:]
    ours, bare = zip(*pairs, strict=True)
    print(", ".join(f"{k} {v}" for k, v in versions().items()))
    print(f"shiftproof --help  median {statistics.median(ours):.3f} s")
    print(f"bare interpreter   median {statistics.median(bare):.3f} s")
    print(f"difference         median {statistics.median(a - b for a, b in pairs):.3f} s, "
          f"largest {max(a - b for a, b in pairs):.3f} s; goal 0.5 s")  # fmt: skip


if __name__ == "__main__":
    main()
