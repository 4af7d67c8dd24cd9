"""Kill -9 at random moments: does the same command, started again, end with the same results?

Each of three commands (preprocessing, `shiftproof train`, `shiftproof study`) runs once without a disturbance, then
again and again with one: the main process, its whole group or one of its workers is killed, and the command is
started anew until it is complete. Then every file must equal that of the undisturbed run: weights bit for bit,
rows, predictions, preprocessed cases, the report. What tells of time is left out of the comparison.

    python benchmarks/kills.py --kills 20

Ends with code 1 if a file differs, a process outlives its parent, or more unfinished files stay behind than processes
were writing.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

VICTIMS = ("main", "group", "worker")
PATIENCE_S = 10.0
"""How long processes may outlive their parent before they count as orphans."""

PREPARE = """
import sys
from pathlib import Path
from shiftproof.data.cohort import Cohort
from shiftproof.data.plan import make_plan
from shiftproof.data.store import Store
if __name__ == "__main__":
    cohort, out = Cohort.read(Path(sys.argv[1])), Path(sys.argv[2])
    plan = make_plan(cohort, spacing_mm=[1.0, 1.0, 1.0], patch=[32, 32, 32])
    plan.write(out / "plan.json")
    Store(out / "store").prepare(cohort, plan, workers=2)
"""

ROWS = """
[[row]]
name = "none"
transforms = "none"
network = {widths = [8, 16]}
training = {checkpoint_seconds = 0.05}
[[row]]
name = "light"
transforms = "light"
network = {widths = [8, 16]}
training = {checkpoint_seconds = 0.05}
"""


@dataclass(frozen=True)
class Stage:
    """A command that writes into a folder, called "out", beside which it is started."""

    name: str
    command: list[str]
    victims: tuple[str, ...] = VICTIMS


@dataclass(frozen=True)
class Kill:
    """One kill and what it left.

    Args:
        stage: Name of the command.
        victim: "main", "group" or "worker".
        seconds: Since the start of the process.
        found: What there was at that moment.
        orphans: Processes that lived on for `PATIENCE_S` after the main one was killed.
        gone: Seconds until the last of its processes had ended.
    """

    stage: str
    victim: str
    seconds: float
    found: str
    orphans: int
    gone: float

    @property
    def good(self) -> bool:
        return not self.orphans

    def __str__(self) -> str:
        return (
            f"{self.stage:8s} {self.victim:7s} at {self.seconds:5.1f} s  {self.found:44s} "
            f"others gone in {self.gone:3.1f} s" + (f"  {self.orphans} ORPHANS" if self.orphans else "")
        )


@dataclass(frozen=True)
class Ending:
    """A command that was killed some times and then ran to its end.

    Args:
        kills: How often.
        files: Number compared.
        different: Names of files that differ, are missing or are too many.
        unfinished: Names of temporary files that were left behind.
    """

    stage: str
    kills: int
    files: int
    different: list[str] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        return not self.different and len(self.unfinished) <= 2 * self.kills  # there are two processes

    def __str__(self) -> str:
        verdict = "equal" if not self.different else f"DIFFERENT: {', '.join(self.different[:5])}"
        left = f"; left behind: {', '.join(self.unfinished[:5])}" if self.unfinished else ""
        return f"{self.stage:8s} complete after {self.kills} kills: {self.files} files {verdict}{left}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="in all (20)")
    parser.add_argument("--folder", type=Path, help="where to work; a temporary folder by default")
    parser.add_argument("--only", help="one of the commands: prepare, train, study")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    given = parser.parse_args()
    good = True
    with contextlib.ExitStack() as stack:
        folder = given.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        every = [stage for stage in stages(folder.absolute()) if given.only in (None, stage.name)]
        for i, stage in enumerate(every):
            share = given.kills // len(every) + (i < given.kills % len(every))
            for event in series(stage, folder / stage.name, share, seed=given.seed):
                print(event, flush=True)
                good &= event.good
    print("all equal" if good else "NOT EQUAL")
    return 0 if good else 1


def stages(folder: Path, *, steps: int = 240) -> list[Stage]:
    """The three commands, on a small cohort that is made in `folder`."""
    from shiftproof.scenarios import make

    cohort = make("brain-sites", folder / "cohort", size="3d", subjects=8, sites=["A", "B", "C"], workers=2)
    rows, prepare = folder / "rows.toml", folder / "prepare.py"
    rows.write_text(ROWS)
    one = folder / "row.toml"
    one.write_text(ROWS[ROWS.rindex("[[row]]") :])
    prepare.write_text(PREPARE)
    plain = ["--dimensions", "2", "--patch", "32,32", "--batch", "4", "--device", "cpu", "--out", "out"]
    shiftproof = [sys.executable, "-m", "shiftproof"]
    short = ["--steps", str(steps // 4), "--validate-every", str(steps // 8), "--seeds", "1", "--workers", "2"]
    return [
        Stage("prepare", [sys.executable, str(prepare), str(cohort / "table.csv"), "out"]),
        Stage(
            "train",
            [*shiftproof, "train", str(cohort), "--recipes", str(one), "--hold-out", "C", *plain]
            + ["--steps", str(steps), "--validate-every", str(steps // 4)],
            ("main", "group"),  # it has no others
        ),
        Stage(
            "study",
            [*shiftproof, "study", str(cohort), "--recipes", str(rows), "--hold-out", "B,C", *plain, *short],
        ),
    ]


def series(stage: Stage, folder: Path, kills: int, *, seed: int = 0) -> Iterator[Kill | Ending]:
    """Kills and endings, as they happen, until there were so many kills and the last run is complete.

    Raises:
        RuntimeError: If the command fails by itself; its output is the message.
    """
    chance = random.Random(f"{stage.name} {seed}")
    shutil.rmtree(folder, ignore_errors=True)
    undisturbed = folder / "undisturbed"
    started = time.monotonic()
    _require_success(start(stage, undisturbed), undisturbed)
    duration = time.monotonic() - started
    expected = contents(undisturbed / "out")
    done = attempt = 0
    while done < kills:
        attempt += 1
        here, in_this = folder / f"disturbed{attempt}", 0
        while True:
            process = start(stage, here)
            began = time.monotonic()
            if done < kills:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(chance.uniform(0.2, 1.0) * duration)
            if done >= kills or process.poll() is not None:
                _require_success(process, here)
                break
            victim = stage.victims[done % len(stage.victims)]
            yield strike(stage, process, victim, began, here, chance)
            done, in_this = done + 1, in_this + 1
        yield compared(stage.name, in_this, expected, here / "out")


def start(stage: Stage, folder: Path) -> subprocess.Popen[bytes]:
    """In a session of its own, so that its processes can be told from all others."""
    folder.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with open(folder / "output.txt", "ab") as output:
        return subprocess.Popen(
            stage.command, cwd=folder, env=environment, stdout=output, stderr=output, start_new_session=True
        )


def strike(
    stage: Stage, process: subprocess.Popen[bytes], victim: str, began: float, folder: Path, chance: random.Random
) -> Kill:
    """Kill -9. A command whose worker is killed is left to end by itself, whatever it then says."""
    session, workers = process.pid, [p for p in members(process.pid) if p != process.pid]
    seconds, found = time.monotonic() - began, found_in(folder / "out")
    if victim == "worker" and not workers:
        victim = "main"
    if victim == "worker":
        with contextlib.suppress(ProcessLookupError):
            os.kill(chance.choice(workers), signal.SIGKILL)
    elif victim == "group":
        os.killpg(session, signal.SIGKILL)
    else:
        process.kill()
    process.wait(600)
    left, gone = outlived(session)
    for orphan in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(orphan, signal.SIGKILL)
    return Kill(stage.name, victim, seconds, found, len(left), gone)


def outlived(session: int) -> tuple[list[int], float]:
    """Processes of a session that still live after `PATIENCE_S`, and how many seconds it took the others to end."""
    began = time.monotonic()
    while (left := members(session)) and time.monotonic() - began < PATIENCE_S:
        time.sleep(0.05)
    return left, time.monotonic() - began


def members(session: int) -> list[int]:
    """Living processes of a session."""
    found = []
    for process in psutil.process_iter(["status"]):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if process.info["status"] != psutil.STATUS_ZOMBIE and os.getsid(process.pid) == session:
                found.append(process.pid)
    return found


def found_in(out: Path) -> str:
    """What a killed command had come to, in words."""
    cases = len(list(out.glob("store/*/*/case.json")))
    done = sum('"done"' in path.read_text() for path in out.glob("cells/*/*/*/cell.json"))
    steps = [
        int(re.findall(r'"step": (\d+)', path.read_text())[-1])
        for path in [*out.glob("record.jsonl"), *out.glob("runs/*/record.jsonl")]
        if '"step": ' in path.read_text()
    ]
    words = {"cases": cases, "cells": done, "steps": sum(steps)}
    return ", ".join(f"{number} {what}" for what, number in words.items() if number) or "nothing yet"


def compared(stage: str, kills: int, expected: dict[str, str], out: Path) -> Ending:
    found = contents(out)
    different = sorted(name for name in {*expected, *found} if expected.get(name) != found.get(name))
    unfinished = sorted(str(path.relative_to(out)) for path in out.rglob(".*"))
    return Ending(stage, kills, len(expected), different, unfinished)


PASSED_OVER = ("hashes.json", "estimate.json", "best.pt", "*.lock")
"""Times of files, a guess of seconds, the same weights as in the model folder inside of an archive with a name."""


def contents(out: Path) -> dict[str, str]:
    """What every file says, as a hash, without what tells of time."""
    found = {}
    for path in sorted(out.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(out).parts)
        if path.is_file() and not hidden and not any(path.match(pattern) for pattern in PASSED_OVER):
            found[str(path.relative_to(out))] = hashlib.sha256(timeless(path)).hexdigest()
    return found


def timeless(path: Path) -> bytes:
    if path.suffix == ".json":
        return json.dumps(_without_seconds(json.loads(path.read_text()))).encode()
    if path.suffix == ".jsonl":
        return json.dumps([_without_seconds(json.loads(line)) for line in path.read_text().splitlines()]).encode()
    if path.suffix in (".html", ".md"):
        return re.sub(r"\d+(\.\d+)? (s|min|h)\b", "some time", path.read_text()).encode()
    return path.read_bytes()


def _without_seconds(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_seconds(v) for k, v in value.items() if k not in ("seconds", "scoring_seconds")}
    return [_without_seconds(v) for v in value] if isinstance(value, list) else value


def _require_success(process: subprocess.Popen[bytes], folder: Path) -> None:
    if process.wait() != 0:
        output = (folder / "output.txt").read_text(errors="replace")
        raise RuntimeError(f"the command ended with code {process.returncode}:\n{output[-3000:]}")


if __name__ == "__main__":
    sys.exit(main())
