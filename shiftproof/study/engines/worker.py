"""What happens on a cluster's node: one job, in the study's folder where the node sees it, else in a copy.

Nothing here imports ray before it runs in one of its workers.
"""

from __future__ import annotations

import _thread
import contextlib
import json
import shutil
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...files import storing, write_text
from ..cell import Job, locked, run_job
from ..grid import last_step
from .homes import Home, copies, require_same, sees
from .parcels import Parcel, below, packed, unpack

TELL_S = 0.5


@dataclass(frozen=True)
class Order:
    """One job with what it needs.

    Args:
        home: Where it comes from.
        job: What to run.
        step: Last step of its run as known at home.
        texts: Small files by path below the copy.
        parcels: Large ones; None where the node is expected to see the folder.
        run: What an interrupted run left at home.
    """

    home: Home
    job: Job
    step: int = 0
    texts: dict[str, str] = field(default_factory=dict)
    parcels: list[Parcel] | None = None
    run: Parcel | None = None


@dataclass(frozen=True)
class Reply:
    """How a job ended.

    Args:
        kind: "done", "interrupted", or "absent": the node does not see the folder, and nothing was sent along.
        chunks: The run's and the cells' files, where they are not at home already.
    """

    kind: str
    chunks: list[Any] = field(default_factory=list)


def execute(order: Order, board: Any) -> Reply:
    """Runs the job as a local process would.

    Raises:
        RunError: If this node's packages differ, or it should see the study's folder and does not.
        StorageError: If the node's disk is full.
    """
    require_same(order.home)
    if sees(order.home):
        return Reply(_run(Path(order.home.folder), order.job, board))
    if order.parcels is None:
        return Reply("absent")
    root = copies(order.home)
    kind = _run(placed(root, order), order.job, board)
    return Reply(kind, list(_sent(root, order.job)))


def placed(root: Path, order: Order) -> Path:
    """Unpacks what is not here yet; returns the folder as a study's."""
    import ray

    with storing(root):
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Several workers of a node share the copies: the first fetches, the others find them.
    with locked(root / ".arriving"):
        for name, text in order.texts.items():
            if name == "study.json":
                text = _moved(text, root)
            if not (root / name).exists() or (root / name).read_text(encoding="utf-8") != text:
                write_text(root / name, text)
        for parcel in order.parcels or []:
            if not parcel.arrived(root):
                unpack(root, _fetched(ray, parcel.chunks))
    # A worker that was lost here may have left more than home knows of.
    if order.run is not None and last_step(root, order.job) < order.step:
        shutil.rmtree(root / "runs" / order.job.key, ignore_errors=True)
        unpack(root, _fetched(ray, order.run.chunks))
    return root


def _moved(text: str, root: Path) -> str:
    table = json.loads(text)
    return json.dumps(table | {"cohort": str(root / table["cohort"])})


def _fetched(ray: Any, chunks: Iterable[Any]) -> Iterator[Any]:
    for chunk in chunks:
        yield ray.get(chunk)


def _run(folder: Path, job: Job, board: Any) -> str:
    try:
        with _watched(folder, job, board):
            run_job(folder, job)
    except (KeyboardInterrupt, SystemExit):
        return "interrupted"
    return "done"


def _sent(root: Path, job: Job) -> Iterator[Any]:
    import ray

    files = below(root, root / "runs" / job.key)
    for cell in job.cells(root).values():
        files |= below(root, cell)
    for chunk in packed(files):
        yield ray.put(chunk)


@contextlib.contextmanager
def _watched(folder: Path, job: Job, board: Any) -> Iterator[None]:
    """Tells the board how far the job is, and interrupts it like Ctrl-C when the board says so."""
    import ray
    from ray.exceptions import RayError

    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            # A board that cannot be asked is on a head that is gone; Ray ends this process itself then.
            with contextlib.suppress(RayError):
                if ray.get(board.tell.remote(job.key, last_step(folder, job))):
                    _thread.interrupt_main()
                    return
            over.wait(TELL_S)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
