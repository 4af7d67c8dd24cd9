"""Jobs on a Ray cluster: as many at a time as it has room for, with or without a folder that all machines see."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import time
import uuid
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from ...errors import OptionError, RunError, ShiftproofError
from ...files import write_text
from ...names import choose
from ..cell import Job, fail, status, told
from ..declare import Declaration
from . import Report
from .connect import answering, connected, first_line, imported, nodes, reached, resources, slots
from .homes import Board, Home, Look, clear, home_of, look
from .parcels import unpack
from .supplies import Supplies
from .worker import Order, Reply, execute

RETRIES = 2
"""How often a job is started again after its worker was lost; what raises an error is not."""

GRACE_S = 20.0
LOOK_S = 120.0


def require(*, address: str | None = None, shared: str = "auto", gpu_share: float = 1.0) -> None:
    """Checks the options of `work`, and whether something answers at the address.

    Raises:
        OptionError: If ray is not installed, or an option has no meaning.
        RunError: If nothing answers.
    """
    choose(shared, ("auto", "yes", "no"), "value of --shared")
    if not gpu_share > 0:
        raise OptionError(f"--gpu-share must be above 0, got {gpu_share}")
    ray = imported(address)
    if address not in (None, "none") and not ray.is_initialized():
        with reached(address):
            answering(address)


def work(
    folder: Path,
    jobs: Sequence[Job],
    *,
    workers: int | None,
    report: Report,
    poll: float,
    address: str | None = None,
    shared: str = "auto",
    gpu_share: float = 1.0,
) -> None:
    """Runs every job as a Ray task. One whose worker is lost is started again; what raises an error is recorded.

    Args:
        folder: The study's.
        jobs: What to run.
        workers: Tasks at a time; None: as many as the cluster has room for.
        report: Told how far it is.
        poll: Seconds between two looks.
        address: "auto" (a cluster that this machine is part of), "HOST:PORT", "ray://HOST:PORT" (from outside), "none"
            (started on this machine for this study); None: as "auto" where there is one, else "none".
        shared: Whether nodes see the study's folder and the cohort: "yes", "no" (files travel through the cluster), or
            "auto" (each node looks).
        gpu_share: GPUs of a job where the trainer's device is one; 0.5 lets two jobs share each.

    Raises:
        OptionError: If ray is not installed, or an option has no meaning.
        RunError: If the cluster cannot be reached, or cannot run the jobs.
    """
    require(address=address, shared=shared, gpu_share=gpu_share)
    study = Declaration.load(folder)
    with connected(address, workers, study.threads) as ray:
        needs = resources(ray, study, gpu_share)
        with home(folder, study, shared) as known:
            crew = Crew(ray, folder, study, known, needs)
            crew.survey()
            try:
                crew.work_off(jobs, workers=workers, report=report, poll=poll)
            except (ConnectionError, ray.exceptions.RaySystemError) as error:
                raise RunError(f"the connection to the cluster was lost ({first_line(error)}); {AGAIN}") from error
            finally:
                crew.leave()


class Crew:
    """The cluster's side of one study.

    Args:
        ray: The connected module.
        folder: The study's.
        study: Its declaration.
        home: How nodes find the folder.
        needs: Resources of a job.
    """

    def __init__(self, ray: Any, folder: Path, study: Declaration, home: Home, needs: dict[str, float]) -> None:
        self.ray, self.folder, self.study, self.home, self.needs = ray, folder, study, home, needs
        # Where the head is there is somebody to stop the study; a board that is lost with it is not missed.
        self.board = ray.remote(num_cpus=0, resources={"node:__internal_head__": 0.001})(Board).remote()
        self.execute = ray.remote(max_retries=0, **needs)(execute)
        self.supplies: Supplies | None = None
        self.lost: Counter[str] = Counter()
        self.running: dict[Any, Job] = {}

    def survey(self) -> None:
        """Looks at every node, so that what would fail on each of them is said once and before anything runs.

        Raises:
            RunError: If a node has other versions, or sees the folder and cannot write there.
        """
        looks = {node: self._on(node, look).remote(self.home, node) for node in nodes(self.ray)}
        elsewhere = False
        for reference in looks.values():
            try:
                found = self.ray.get(reference, timeout=LOOK_S)
            except self.ray.exceptions.RayTaskError as error:
                raise _typed(error) from error
            except self.ray.exceptions.RayError:
                continue  # a node that is leaving
            self._require_writable(found)
            elsewhere = elsewhere or not found.sees
        if elsewhere:
            self.supplies = Supplies(self.folder, self.study, self.ray.put)

    def work_off(self, jobs: Sequence[Job], *, workers: int | None, report: Report, poll: float) -> None:
        waiting, finished = deque(jobs), 0
        steps: dict[str, int] = {}
        asked: Any = None
        while waiting or self.running:
            room = workers or slots(self.ray, self.needs)
            while waiting and len(self.running) < room:
                self._start(waiting.popleft())
            ready, _ = self.ray.wait(list(self.running), num_returns=1, timeout=poll)
            for reference in ready:
                job = self.running.pop(reference)
                if self._settled(reference, job):
                    finished += 1
                else:
                    waiting.append(job)
            if asked is None:
                asked = self.board.steps.remote()
            elif self.ray.wait([asked], timeout=0)[0]:
                with contextlib.suppress(self.ray.exceptions.RayError):
                    steps = self.ray.get(asked)
                asked = None
            keys = [job.key for job in self.running.values()]
            report(finished, keys, workers=room, steps=steps, repeated=self.lost.total())

    def leave(self) -> None:
        """Has jobs that still run save their state, fetches what they send, and removes copies from nodes."""
        gone = (self.ray.exceptions.RayError, ConnectionError)
        with contextlib.suppress(*gone):
            if self.running:
                self._stop()
            if self.supplies is not None:
                cleared = [self._on(node, clear).remote(self.home) for node in nodes(self.ray)]
                self.ray.wait(cleared, num_returns=len(cleared), timeout=GRACE_S)
            self.ray.kill(self.board)

    def _start(self, job: Job) -> None:
        order = Order(self.home, job)
        if self.supplies is not None:
            order = self.supplies.filled(order)
        self.running[self.execute.remote(order, self.board)] = job

    def _settled(self, reference: Any, job: Job) -> bool:
        """Whether the job has ended, one way or the other; if not, it is to be started again."""
        exceptions = self.ray.exceptions
        try:
            reply: Reply = self.ray.get(reference)
            if reply.kind == "absent":
                # A node that joined later, without the folder.
                self.supplies = self.supplies or Supplies(self.folder, self.study, self.ray.put)
                return False
            self._receive(job, reply)
            if reply.kind == "done":
                return True
            why = "it was told to end from outside"
        except exceptions.RayTaskError as error:
            fail(self.folder, job, *told(_typed(error)))
            return True
        except exceptions.RaySystemError:
            raise
        except exceptions.RayError as error:
            why = first_line(error)
        self.lost[job.key] += 1
        if self.lost[job.key] <= RETRIES:
            return False
        fail(
            self.folder,
            job,
            f"its worker was lost {self.lost[job.key]} times, the last time: {why}; its machine may have run out of "
            f"memory: use fewer --workers or a smaller --batch; {AGAIN}",
        )
        return True

    def _receive(self, job: Job, reply: Reply) -> None:
        """Unpacks what a job sent beside its place, then moves it there: a run or a cell is whole or as it was."""
        if not reply.chunks:
            return
        arriving = self.folder / "runs" / f".{job.key}-{uuid.uuid4().hex[:8]}"
        try:
            unpack(arriving, (self.ray.get(chunk) for chunk in reply.chunks))
            run = self.folder / "runs" / job.key
            cells = [cell for cell in job.cells(self.folder).values() if status(cell) != "done"]
            for place in [run, *cells]:
                come = arriving / place.relative_to(self.folder)
                if come.exists():
                    shutil.rmtree(place, ignore_errors=True)
                    place.parent.mkdir(parents=True, exist_ok=True)
                    os.replace(come, place)
        finally:
            shutil.rmtree(arriving, ignore_errors=True)

    def _stop(self) -> None:
        self.board.stop.remote()
        with contextlib.suppress(self.ray.exceptions.RayError):
            begun = self.ray.get(self.board.steps.remote(), timeout=GRACE_S)
            for reference, job in list(self.running.items()):
                if job.key not in begun:
                    self.ray.cancel(reference)
                    del self.running[reference]
        until = time.monotonic() + GRACE_S
        while self.running and (left := until - time.monotonic()) > 0:
            ready, _ = self.ray.wait(list(self.running), num_returns=1, timeout=left)
            for reference in ready:
                job = self.running.pop(reference)
                with contextlib.suppress(self.ray.exceptions.RayError):
                    self._receive(job, self.ray.get(reference))
        for reference in self.running:
            self.ray.cancel(reference, force=True)

    def _on(self, node: str, function: Any) -> Any:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        there = NodeAffinitySchedulingStrategy(node, soft=False)
        return self.ray.remote(num_cpus=0, max_retries=1, scheduling_strategy=there)(function)

    def _require_writable(self, found: Look) -> None:
        if not found.sees:
            return
        why = found.why
        if found.wrote is not None:
            path, until = Path(self.home.folder) / found.wrote, time.monotonic() + 5.0
            # Network file systems show what another machine wrote with a delay.
            while not path.exists() and time.monotonic() < until:
                time.sleep(0.1)
            if path.exists():
                path.unlink()
                return
            why = "what it writes there is not seen here"
        raise RunError(
            f"node {found.host} sees {self.home.folder} and cannot share it ({why}); give its user write access, or "
            "let files travel: --shared no"
        )


AGAIN = "run the same command again to continue"


@contextlib.contextmanager
def home(folder: Path, study: Declaration, shared: str) -> Iterator[Home]:
    """How nodes recognise the study's folder: by a hidden file, which is there as long as the study runs."""
    from ...data.cohort import Cohort

    scans = list(Cohort.read(Path(study.cohort), domain=study.domain_column).rows())
    some = [p for row in scans[:: max(1, len(scans) // 10)] for p in row.images.values() if p is not None]
    # A folder's copies are this study's: the same place with another study in it has others.
    content = (
        (folder / "study.json").read_bytes() + os.fspath(folder.resolve()).encode() + socket.gethostname().encode()
    )
    known = home_of(
        folder,
        [study.cohort, *(os.fspath(p.parent) for p in some)],
        shared=shared,
        word=uuid.uuid4().hex,
        name=sha256(content).hexdigest()[:16],
    )
    write_text(folder / known.mark, known.word)
    try:
        yield known
    finally:
        for path in folder.glob(f"{known.mark}*"):
            path.unlink(missing_ok=True)


def _typed(error: Any) -> Exception:
    """What was raised on the node."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, ShiftproofError):
        return cause
    if isinstance(cause, ModuleNotFoundError):
        return RunError(f"a node of the cluster cannot import {cause.name}; install shiftproof on every node")
    return cause if isinstance(cause, Exception) else error
