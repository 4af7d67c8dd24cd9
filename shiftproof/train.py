"""The one loop that trains every method."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import threading
import time
import typing
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .data.samples import Batch, Samples
from .data.sampling import Feed, seed_of
from .data.store import Case
from .errors import DivergedError, OptionError, RunError
from .files import replacing, write_json
from .methods.method import Losses, Method
from .names import choose, converted
from .parts.averaging import average_, frozen_copy, warmed_decay
from .steps import OPTIMIZERS, SCHEDULES, Mover, RunningStep
from .validate import SELECTIONS, Validation, validate

AVERAGES = ("none", "ema", "swa")


@dataclass(frozen=True)
class Trainer:
    """How long and how a method is trained; the same for every method of a comparison.

    Args:
        steps: Number of steps.
        seconds: Budget of training time; the run ends at the first step beyond it, and progress counts along
            whichever of the two is further. Such a run depends on the machine's speed.
        batch: Samples in a source batch; a target batch has as many.
        optimizer: "adamw", "adam", "sgd" or "rmsprop", for parts that do not choose their own.
        rate: Learning rate, likewise.
        weight_decay: Likewise.
        momentum: For "sgd" and "rmsprop".
        schedule: Factor of the rate over the run: "cosine", "poly" (power 0.9), "constant", "inverse".
        clip: Largest norm of a part's gradient, or None.
        average: "none"; "ema", an exponential average of the weights; "swa", the mean over the last quarter
            of the run. What is averaged is what is validated and kept, buffers included; batch norm is
            re-estimated after "swa".
        average_decay: Decay of "ema".
        precision: "float32" or "bf16" (autocast; losses are computed in float32).
        validate_every: Steps between validations on held-back subjects of the training domains.
        patience: Validations without a better one before training stops; None never stops early.
        selection: Which weights are kept; see `shiftproof.validate.SELECTIONS`.
        checkpoint_seconds: Time between saved states; how often does not change the result.
        device: "cpu", "cuda" or "auto".
        seed: Seed of everything that is random.
    """

    steps: int = 2000
    seconds: float | None = None
    batch: int = 8
    optimizer: str = "adamw"
    rate: float = 1e-3
    weight_decay: float = 1e-4
    momentum: float = 0.9
    schedule: str = "cosine"
    clip: float | None = 12.0
    average: str = "none"
    average_decay: float = 0.999
    precision: str = "float32"
    validate_every: int = 250
    patience: int | None = None
    selection: str = "last"
    checkpoint_seconds: float = 60.0
    device: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(Trainer)
        for f in fields(self):
            # Frozen, but a whole number may be given for a rate.
            object.__setattr__(self, f.name, converted(f.name, getattr(self, f.name), hints[f.name]))
        choose(self.schedule, SCHEDULES, "schedule")
        choose(self.optimizer, OPTIMIZERS, "optimizer")
        for name, high in {"average_decay": 1.0, "momentum": 1.0, "weight_decay": math.inf, "seed": 2.0**63}.items():
            if not 0 <= getattr(self, name) <= high:
                raise OptionError(f"{name} lies between 0 and {high:g}, got {getattr(self, name)}")
        choose(self.average, AVERAGES, "average")
        choose(self.selection, SELECTIONS, "selection rule")
        choose(self.precision, ("float32", "bf16"), "precision")
        choose(self.device, ("auto", "cpu", "cuda"), "device")
        for name in ("steps", "batch", "validate_every", "patience"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise OptionError(f"{name} must be at least 1, got {value}")
        for name in ("rate", "seconds", "clip"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise OptionError(f"{name} must be a number above 0, got {value}")

    def fit(
        self,
        method: Method,
        feed: Feed,
        validation: list[Case],
        folder: Path,
        *,
        transform: Callable[[Samples, torch.Generator], Samples] | None = None,
        progress: Callable[[Progress], None] | None = None,
        tensorboard: bool = False,
    ) -> Run:
        """Train `method` in place, or go on where an interrupted run in `folder` stopped.

        A run that was killed at any moment and resumed ends with the same weights as one that was not; on CPU
        bit for bit at an equal number of threads, which is recorded and restored.

        Args:
            method: Fresh, built with the same options when resuming.
            feed: Where batches come from.
            validation: Held-back cases of the training domains.
            folder: Keeps `record.jsonl` and, until the run is complete, `state.pt`.
            transform: Augmentation, applied to source and target on the device.
            progress: Called after every step.
            tensorboard: Whether losses go to TensorBoard files in the folder, too.

        Raises:
            RunError: If the folder holds another run.
            DivergedError: If a loss or gradient is not finite.
        """
        return _Fit(self, method, feed, validation, Path(folder), transform, progress, tensorboard).run()


@dataclass(frozen=True)
class Progress:
    """Where a run stands."""

    step: int
    steps: int
    seconds: float
    losses: dict[str, float]

    @property
    def remaining(self) -> float:
        """Seconds, by the mean rate so far."""
        return self.seconds / max(self.step, 1) * (self.steps - self.step)


@dataclass
class Run:
    """What training leaves: the method holds the selected weights.

    Args:
        steps: Steps taken.
        seconds: Time in training, over all resumptions, without validation.
        selected: Step whose weights were kept.
        validation: Scores of these weights on held-back subjects of the training domains.
    """

    steps: int
    seconds: float
    selected: int
    validation: dict[str, Any]
    peak_bytes: int | None = None


@dataclass
class _State:
    """What a resumed run must know besides tensors."""

    index: int = 0
    begun: str = ""
    seconds: float = 0.0
    averaged: int = 0
    best: float = -math.inf
    best_step: int = 0
    best_validation: dict[str, Any] = field(default_factory=dict)
    best_mean: float = -math.inf
    stale: int = 0
    stopped: bool = False


class _Fit:
    def __init__(
        self,
        trainer: Trainer,
        method: Method,
        feed: Feed,
        validation: list[Case],
        folder: Path,
        transform: Callable[[Samples, torch.Generator], Samples] | None,
        progress: Callable[[Progress], None] | None,
        tensorboard: bool,
    ) -> None:
        self.options = trainer
        self.device = torch.device(device_of(trainer.device))
        self.method = method.to(self.device)
        self.feed, self.validation, self.folder = feed, validation, folder
        self.transform, self.progress = transform, progress
        self.movers = movers(method, trainer)
        self.average = frozen_copy(method) if trainer.average != "none" else None
        self.state = _State()
        self.writer = _tensorboard(folder) if tensorboard else None
        self.logged: dict[str, list[Tensor | float]] = {}

    # The loop ----------------------------------------------------------------------------------

    def run(self) -> Run:
        self.folder.mkdir(parents=True, exist_ok=True)
        for left in self.folder.glob(".????????.pt"):  # by a kill in the middle of a save; each as large as the state
            left.unlink(missing_ok=True)
        if (self.folder / "run.json").exists():
            return self.completed()
        self.resume()
        saved = time.monotonic()
        state, options = self.state, self.options
        with ThreadPoolExecutor(1) as ahead, interruptions() as interrupted:
            waiting = ahead.submit(self.feed.batch, state.index)
            try:
                while state.index < options.steps and not state.stopped:
                    started = time.monotonic()
                    batch = waiting.result()
                    waiting = self.prefetched(ahead)
                    losses = self.step(batch)
                    state.index += 1
                    state.seconds += time.monotonic() - started
                    state.stopped = options.seconds is not None and state.seconds >= options.seconds
                    self.report(losses)
                    if state.index % options.validate_every == 0 or self.over():
                        self.check()
                    if interrupted():
                        self.save()
                        raise KeyboardInterrupt
                    if time.monotonic() - saved >= options.checkpoint_seconds and not self.over():
                        self.save()
                        saved = time.monotonic()
            finally:
                waiting.cancel()
        return self.finish()

    def prefetched(self, ahead: ThreadPoolExecutor) -> Future[Batch]:
        return ahead.submit(self.feed.batch, min(self.state.index + 1, self.options.steps - 1))

    def over(self) -> bool:
        return self.state.index >= self.options.steps or self.state.stopped

    def step(self, batch: Batch) -> Losses:
        """One update. What is random depends on the seed and the step's number only."""
        options, state, index = self.options, self.state, self.state.index
        torch.manual_seed(seed_of(options.seed, 1, index))
        shared = torch.Generator().manual_seed(seed_of(options.seed, 2, index))
        progress = self.progress_at(index)
        phase, phase_progress = phase_at(self.method.phases(), progress)
        self.method.train()
        if phase != state.begun:
            self.method.begin(phase, _Passes(self.feed, self.device))
            state.begun = phase

        def drawn(draw: int) -> Batch:
            # As the first batch: augmented in full precision.
            with torch.autocast(self.device.type, enabled=False):
                return self.augmented(self.feed.batch(index, draw), draw)

        step = RunningStep(
            index, progress, phase, phase_progress, shared, self.movers,
            SCHEDULES[options.schedule], options.clip, drawn, self.logged,
        )  # fmt: skip
        batch = self.augmented(batch, 0)
        # The cache would keep the low-precision weights of before a descent.
        with torch.autocast(self.device.type, torch.bfloat16, enabled=options.precision == "bf16", cache_enabled=False):
            losses = self.method.update(batch, step)
        if self.average is not None:
            self.take_average()
        return losses

    def progress_at(self, index: int) -> float:
        by_steps = index / max(self.options.steps - 1, 1)
        by_time = self.state.seconds / self.options.seconds if self.options.seconds else 0.0
        return min(max(by_steps, by_time), 1.0)

    def augmented(self, batch: Batch, draw: int) -> Batch:
        batch = batch.to(self.device)
        if self.transform is None:
            return batch
        random = torch.Generator().manual_seed(seed_of(self.options.seed, 4, self.state.index, draw))
        batch.source = self.transform(batch.source, random)
        if batch.target is not None:
            batch.target = self.transform(batch.target, random)
        return batch

    def take_average(self) -> None:
        assert self.average is not None
        state, options = self.state, self.options
        if options.average == "ema":
            average_(self.average, self.method, warmed_decay(state.averaged, options.average_decay))
            state.averaged += 1
        elif self.progress_at(state.index) >= 0.75 or state.averaged == 0:
            # Before the tail begins the average follows the weights, so that early validations are of them.
            tail = self.progress_at(state.index) >= 0.75
            average_(self.average, self.method, state.averaged / (state.averaged + 1) if tail else 0.0)
            state.averaged += tail

    # Validation and selection --------------------------------------------------------------------

    @property
    def kept(self) -> Method:
        """What is validated and, in the end, kept: the method or its average."""
        return self.method if self.average is None else self.average

    def check(self) -> None:
        state, options = self.state, self.options
        if options.average == "swa" and self.over():
            self.re_estimate()
        found = self.validated()
        self.write({"step": state.index, "seconds": round(state.seconds, 3), "validation": found.as_json()})
        value = SELECTIONS[options.selection](found, state.index)
        # Where nothing could be scored, whatever can be is better.
        value = -math.inf if math.isnan(value) else value
        if value > state.best or not state.best_validation:
            state.best, state.best_step, state.best_validation = value, state.index, found.as_json()
            with replacing(self.folder / "best.pt") as path:
                torch.save(self.kept.state_dict(), path)
        # Patience is with the score, also where the last weights are kept.
        if found.mean > state.best_mean:
            state.best_mean, state.stale = found.mean, 0
        else:
            state.stale += 1
            if options.patience is not None and state.stale >= options.patience:
                state.stopped = True

    def validated(self) -> Validation:
        self.kept.eval()
        patch = self.feed.patches.size
        return validate(self.kept, self.validation, self.feed.domains, patch, self.device)

    @torch.no_grad()
    def re_estimate(self) -> None:
        """Batch norm's running statistics for averaged weights, from one pass over the training data."""
        assert self.average is not None
        norms = [m for m in self.average.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        norms = [m for m in norms if m.running_mean is not None]
        if not norms:
            return
        before = [({n: b.clone() for n, b in m.named_buffers()}, m.momentum) for m in norms]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # a plain mean over the batches
            norm.train()
        for samples in _Passes(self.feed, self.device).source():
            self.average.predict(samples)
        for norm, (buffers, momentum) in zip(norms, before, strict=True):
            if norm.num_batches_tracked == 0:  # of a part that does not predict
                for name, buffer in norm.named_buffers():
                    buffer.copy_(buffers[name])
            norm.momentum = momentum
            norm.eval()

    # What is written -------------------------------------------------------------------------------

    def report(self, losses: Losses) -> None:
        state = self.state
        if self.progress is None and state.index % 10 and not self.over():
            return
        values = {name: float(loss.detach()) for name, loss in losses.items()}
        bad = [name for name, value in values.items() if not math.isfinite(value)]
        if bad:
            raise DivergedError(
                f"loss {', '.join(bad)} is not finite at step {state.index - 1}; lower the learning rate, "
                "clip the gradient, or train in float32"
            )
        if state.index % 10 == 0 or self.over():
            extra = {name: sum(map(float, seen)) / len(seen) for name, seen in self.logged.items()}
            self.logged.clear()
            line = {"step": state.index, "seconds": round(state.seconds, 3), "losses": values}
            self.write(line | ({"log": extra} if extra else {}))
        if self.progress is not None:
            self.progress(Progress(state.index, self.options.steps, state.seconds, values))

    def write(self, line: dict[str, Any]) -> None:
        with open(self.folder / "record.jsonl", "a", encoding="utf-8") as record:
            record.write(json.dumps(line) + "\n")
        if self.writer is not None:
            for group in ("losses", "log", "validation"):
                for name, value in line.get(group, {}).items():
                    if isinstance(value, float):
                        self.writer.add_scalar(f"{group}/{name}", value, line["step"])

    def save(self) -> None:
        """The whole state, in one file that is replaced at once."""
        content = {
            "options": json.dumps(asdict(self.options), sort_keys=True),
            "state": asdict(self.state),
            "method": self.method.state_dict(),
            "optimizers": {name: m.optimizer.state_dict() for name, m in self.movers.items()},
            "average": None if self.average is None else self.average.state_dict(),
            "logged": {name: [float(v) for v in seen] for name, seen in self.logged.items()},
            "threads": torch.get_num_threads(),
        }
        with replacing(self.folder / "state.pt") as path:
            torch.save(content, path)

    def resume(self) -> None:
        path = self.folder / "state.pt"
        if not path.exists():
            (self.folder / "record.jsonl").unlink(missing_ok=True)
            return
        content = torch.load(path, map_location=self.device, weights_only=True)
        self.compare(json.loads(content["options"]))
        torch.set_num_threads(content["threads"])
        self.method.load_state_dict(content["method"])
        for name, mover in self.movers.items():
            mover.optimizer.load_state_dict(content["optimizers"][name])
        if self.average is not None:
            self.average.load_state_dict(content["average"])
        self.state = _State(**content["state"])
        self.logged = dict(content["logged"])
        _truncate(self.folder / "record.jsonl", self.state.index)

    def compare(self, theirs: dict[str, Any]) -> None:
        """A folder belongs to one run; where it computes and how often it saves may change."""
        ours = asdict(self.options)
        changed = [k for k in ours if ours[k] != theirs.get(k) and k not in ("checkpoint_seconds", "device")]
        if changed:
            words = ", ".join(f"{k}: {theirs.get(k)} there, {ours[k]} here" for k in changed)
            raise RunError(
                f"{self.folder} holds a run with other settings ({words}); "
                "use the same settings to continue it, or choose another folder"
            )

    def finish(self) -> Run:
        """The selected weights go into the method, and what only a running run needs goes away."""
        state = self.state
        peak = torch.cuda.max_memory_allocated() if self.device.type == "cuda" else None
        run = Run(state.index, state.seconds, state.best_step, state.best_validation, peak)
        if self.writer is not None:
            self.writer.close()
        extra = {"threads": torch.get_num_threads(), "options": asdict(self.options)}
        write_json(self.folder / "run.json", asdict(run) | extra)
        (self.folder / "state.pt").unlink(missing_ok=True)
        return self.completed()

    def completed(self) -> Run:
        """A run that is over: its weights and its figures."""
        content = json.loads((self.folder / "run.json").read_text(encoding="utf-8"))
        self.compare(content["options"])
        weights = torch.load(self.folder / "best.pt", map_location=self.device, weights_only=True)
        self.method.load_state_dict(weights)
        self.method.eval()
        return Run(**{f.name: content[f.name] for f in fields(Run)})


class _Passes:
    """The read-only passes of `shiftproof.methods.method.Reader`."""

    def __init__(self, feed: Feed, device: torch.device) -> None:
        self.feed, self.device = feed, device

    def source(self) -> Iterator[Samples]:
        for samples in self.feed.pass_over(self.feed.source):
            yield samples.to(self.device)

    def target(self) -> Iterator[Samples]:
        for samples in self.feed.pass_over(self.feed.target):
            yield samples.without_labels().to(self.device)


def movers(method: Method, trainer: Trainer) -> dict[str, Mover]:
    """An optimiser for each part of the method."""
    options: dict[str, Any] = {"weight_decay": trainer.weight_decay}
    if trainer.optimizer in ("sgd", "rmsprop"):
        options["momentum"] = trainer.momentum
    return {name: Mover(part, trainer.optimizer, options, trainer.rate) for name, part in method.parts().items()}


def phase_at(phases: dict[str, float], progress: float) -> tuple[str, float]:
    """The phase in which `progress` lies, and the progress within it."""
    total, start = sum(phases.values()), 0.0
    last = list(phases)[-1]
    for name, share in phases.items():
        end = start + share / total
        if progress < end or name == last:
            return name, min(max((progress - start) / max(end - start, 1e-12), 0.0), 1.0)
        start = end
    raise AssertionError("the last phase takes what is left")


def device_of(name: str) -> str:
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise OptionError('device "cuda" was asked for, but torch sees no GPU; use "auto" or "cpu"')
    return name


@contextlib.contextmanager
def interruptions() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C or a scheduler's SIGTERM came; until someone asks, work goes on.

    Weights of which a step has changed one half are no state to save. A second Ctrl-C does not wait.
    """
    heard: list[int] = []

    def note(number: int, frame: object) -> None:
        if number == signal.SIGINT and number in heard:
            raise KeyboardInterrupt
        heard.append(number)

    if threading.current_thread() is not threading.main_thread():  # elsewhere, signals cannot be heard
        yield lambda: False
        return
    # What is ignored stays so: a shell does that for Ctrl-C to jobs in the background.
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    heeded = {number: handler for number, handler in before.items() if handler not in (signal.SIG_IGN, None)}
    for number in heeded:
        signal.signal(number, note)
    try:
        yield lambda: bool(heard)
    finally:
        for number, handler in heeded.items():
            signal.signal(number, handler)


def _truncate(record: Path, index: int) -> None:
    """Drops what was recorded after the saved state, and a last line that a killed process left unfinished."""
    if not record.exists():
        return
    kept = []
    for line in record.read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(json.JSONDecodeError):
            if json.loads(line)["step"] <= index:
                kept.append(line)
    with replacing(record) as path:
        path.write_text("".join(line + "\n" for line in kept), encoding="utf-8")


def _tensorboard(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise OptionError("TensorBoard is not installed; install shiftproof[tensorboard]") from error
    return SummaryWriter(os.fspath(folder / "tensorboard"))
