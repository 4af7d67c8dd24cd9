"""The one loop that trains every method, in one process or in several."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..data.samples import Batch
from ..data.sampling import Feed, seed_of
from ..data.store import Case
from ..errors import DivergedError
from ..methods.method import Losses, Method
from ..validate import SELECTIONS, Validation, validate
from .averages import Average
from .checkpoint import Checkpoints, Record, State
from .estimate import estimated, size_of
from .group import gathered
from .interruptions import interruptions
from .machine import device_of, enough_memory
from .passes import Passes
from .progress import Progress, Run
from .shares import Augment, augmented, require_shares
from .steps import SCHEDULES, RunningStep, movers, phase_at
from .synchronised import synchronised

if TYPE_CHECKING:
    from ..train import Trainer

EVERY = 10
"""Steps between lines of the record."""


class Loop:
    """A run under way; see `Trainer.fit` for the arguments.

    Every process of the group runs it with the same arguments. What one alone could decide (a time budget, an
    interruption, which weights are best), the first decides for all, so that their steps stay the same.
    """

    def __init__(
        self,
        trainer: Trainer,
        method: Method,
        feed: Feed,
        validation: list[Case],
        folder: Path,
        transform: Augment | None,
        progress: Callable[[Progress], None] | None,
        tensorboard: bool,
    ) -> None:
        self.options = trainer
        self.group = gathered()
        self.device = torch.device(device_of(trainer.device))
        self.method = method.to(self.device)
        self.feed, self.validation, self.folder = feed, validation, folder
        self.transform = transform
        self.progress = progress if self.group.first else None
        self.movers = movers(method, trainer)
        self.average: Average | None = None
        self.state = State()
        self.saved = Checkpoints(folder, trainer)
        self.record = Record(folder, tensorboard=tensorboard and self.group.first)
        self.logged: dict[str, list[Tensor | float]] = {}

    def run(self) -> Run:
        if self.group.first:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.saved.sweep()
        if self.group.told(lambda: self.saved.complete):
            return self.completed()
        require_shares(self.method, self.feed, self.group)
        self.begin()
        saved = time.monotonic()
        state, options = self.state, self.options
        with (
            enough_memory(self.words),
            ThreadPoolExecutor(1) as ahead,
            interruptions() as interrupted,
            synchronised(self.method, self.group),
        ):
            waiting = ahead.submit(self.loaded, state.index)
            try:
                while state.index < options.steps and not state.stopped:
                    started = time.monotonic()
                    batch = waiting.result()
                    state.waited += time.monotonic() - started
                    waiting = self.prefetched(ahead)
                    losses = self.step(batch)
                    state.index += 1
                    state.seconds += time.monotonic() - started
                    leave = self.agree(losses, interrupted())
                    if state.index % options.validate_every == 0 or self.over():
                        self.check()
                    if leave:
                        self.save()
                        raise KeyboardInterrupt
                    if time.monotonic() - saved >= options.checkpoint_seconds and not self.over():
                        self.save()
                        saved = time.monotonic()
            finally:
                waiting.cancel()
        return self.finish()

    def over(self) -> bool:
        return self.state.index >= self.options.steps or self.state.stopped

    # One step --------------------------------------------------------------------------------------

    def loaded(self, index: int, draw: int = 0) -> Batch:
        return self.feed.batch(index, draw, self.group.rank, self.group.size)

    def prefetched(self, ahead: ThreadPoolExecutor) -> Future[Batch]:
        return ahead.submit(self.loaded, min(self.state.index + 1, self.options.steps - 1))

    def step(self, batch: Batch) -> Losses:
        """One update. What is random depends on the seed and the step's number only."""
        options, state, index, group = self.options, self.state, self.state.index, self.group
        # Noise inside of networks differs between processes, as their samples do.
        torch.manual_seed(seed_of(options.seed, 1, index, *([group.rank] if group.rank else [])))
        shared = torch.Generator().manual_seed(seed_of(options.seed, 2, index))
        joint = torch.Generator(self.device).manual_seed(seed_of(options.seed, 1, index)) if group.several else None
        progress = self.progress_at(index)
        phase, phase_progress = phase_at(self.method.phases(), progress)
        self.method.train()
        if phase != state.begun:
            self.method.begin(phase, Passes(self.feed, self.device))
            state.begun = phase

        def drawn(draw: int) -> Batch:
            started = time.monotonic()
            further = self.loaded(index, draw)
            state.waited += time.monotonic() - started
            # As the first batch: augmented in full precision.
            with torch.autocast(self.device.type, enabled=False):
                return self.augmented(further, draw)

        step = RunningStep(
            index, progress, phase, phase_progress, shared, self.movers, SCHEDULES[options.schedule], options.clip,
            drawn, self.logged, group=group, batch=self.feed.size if group.several else 0, joint=joint,
        )  # fmt: skip
        batch = self.augmented(batch, 0)
        # The cache would keep the low-precision weights of before a descent.
        with torch.autocast(self.device.type, torch.bfloat16, enabled=options.precision == "bf16", cache_enabled=False):
            losses = self.method.update(batch, step)
        if self.average is not None:
            self.average.take(self.method, progress)
            state.averaged = self.average.taken
        return losses

    def progress_at(self, index: int) -> float:
        by_steps = index / max(self.options.steps - 1, 1)
        by_time = self.state.seconds / self.options.seconds if self.options.seconds else 0.0
        return min(max(by_steps, by_time), 1.0)

    def augmented(self, batch: Batch, draw: int) -> Batch:
        batch = batch.to(self.device)
        if self.method.needs.plain:
            batch.plain = batch.source.central(self.method.setting.patch)
        if self.transform is None or self.method.needs.own_transforms:
            return batch
        random = torch.Generator().manual_seed(seed_of(self.options.seed, 4, self.state.index, draw))
        return augmented(self.transform, batch, random, self.feed.size if self.group.several else 0, self.group)

    # What all processes agree on -------------------------------------------------------------------

    def agree(self, losses: Losses, interrupted: bool) -> bool:
        """Reports the step, and says whether to leave after it."""
        state, options, group = self.state, self.options, self.group
        values = None
        if group.several:
            share = group.share(self.feed.size)
            own = [share * float(loss.detach()) for loss in losses.values()]
            facts = [*own, state.seconds * group.first, state.waited * group.first, float(interrupted)]
            *joint, state.seconds, state.waited, heard = group.sum(torch.tensor(facts, dtype=torch.float64)).tolist()
            values, interrupted = dict(zip(losses, joint, strict=True)), heard > 0
        state.stopped = options.seconds is not None and state.seconds >= options.seconds
        recorded = state.index % EVERY == 0 or self.over()
        if recorded or self.progress is not None or group.several:
            values = values or {name: float(loss.detach()) for name, loss in losses.items()}
            self.report(values, recorded)
        return interrupted

    def report(self, values: dict[str, float], recorded: bool) -> None:
        state = self.state
        bad = [name for name, value in values.items() if not math.isfinite(value)]
        if bad:
            raise DivergedError(
                f"loss {', '.join(bad)} is not finite at step {state.index - 1}; lower the learning rate, "
                "clip the gradient, or train in float32"
            )
        if recorded:
            extra = self.means_of_logged()
            line = {"step": state.index, "seconds": round(state.seconds, 3), "losses": values}
            self.write(line | ({"log": extra} if extra else {}))
        if self.progress is not None:
            waiting = state.waited / max(state.seconds, 1e-9)
            self.progress(Progress(state.index, self.options.steps, state.seconds, values, min(waiting, 1.0)))

    def means_of_logged(self) -> dict[str, float]:
        """What methods logged since the last line of the record, over steps and processes."""
        found = {name: sum(map(float, seen)) / len(seen) for name, seen in self.logged.items()}
        self.logged.clear()
        if self.group.several and found:
            share = self.group.share(self.feed.size)
            joint = self.group.sum(share * torch.tensor(list(found.values()), dtype=torch.float64))
            found = dict(zip(found, joint.tolist(), strict=True))
        return found

    def write(self, line: dict[str, Any]) -> None:
        if self.group.first:
            self.record.write(line)

    # Validation and selection ----------------------------------------------------------------------

    @property
    def kept(self) -> Method:
        """What is validated and, in the end, kept: the method or its average."""
        return self.method if self.average is None else self.average.method

    def check(self) -> None:
        state, options = self.state, self.options
        if self.average is not None and options.average == "swa" and self.over():
            self.average.re_estimate(Passes(self.feed, self.device).source())
        found = self.group.told(self.validated)
        self.write({"step": state.index, "seconds": round(state.seconds, 3), "validation": found.as_json()})
        value = SELECTIONS[options.selection](found, state.index)
        # Where nothing could be scored, whatever can be is better.
        value = -math.inf if math.isnan(value) else value
        if value > state.best or not state.best_validation:
            state.best, state.best_step, state.best_validation = value, state.index, found.as_json()
            if self.group.first:
                self.saved.keep(self.kept.state_dict(), state.index)
        # Patience is with the score, also where the last weights are kept.
        if found.mean > state.best_mean:
            state.best_mean, state.stale = found.mean, 0
        else:
            state.stale += 1
            if options.patience is not None and state.stale >= options.patience:
                state.stopped = True

    def validated(self) -> Validation:
        self.kept.eval()
        return validate(self.kept, self.validation, self.feed.domains, self.feed.patches, self.device)

    # From and to the folder ------------------------------------------------------------------------

    def begin(self) -> None:
        """Starts anew or goes on; in any case with the same state in every process."""
        content = self.group.told(self.found)
        if content is not None:
            torch.set_num_threads(content["threads"])
            self.method.load_state_dict(content["method"])
            for name, mover in self.movers.items():
                mover.optimizer.load_state_dict(content["optimizers"][name])
            self.state = State(**content["state"])
            self.logged = dict(content["logged"])
        elif self.group.several:
            state = {name: v.cpu() if isinstance(v, Tensor) else v for name, v in self.method.state_dict().items()}
            self.method.load_state_dict(self.group.told(lambda: state))
        if self.options.average != "none":
            self.average = Average(self.options.average, self.method, self.options.average_decay)
            self.average.taken = self.state.averaged
            if content is not None:
                self.average.method.load_state_dict(content["average"])

    def found(self) -> dict[str, Any] | None:
        """The saved state, with the record cut back to it."""
        content = self.saved.load(torch.device("cpu") if self.group.several else self.device)
        if content is None:
            self.record.path.unlink(missing_ok=True)
        else:
            self.record.cut(content["state"]["index"])
        return content

    def save(self) -> None:
        if not self.group.first:
            return
        content = {
            "state": asdict(self.state),
            "method": self.method.state_dict(),
            "optimizers": {name: m.optimizer.state_dict() for name, m in self.movers.items()},
            "average": None if self.average is None else self.average.method.state_dict(),
            "logged": {name: [float(v) for v in seen] for name, seen in self.logged.items()},
            "threads": torch.get_num_threads(),
        }
        self.saved.save(content, self.state.best_step)

    def finish(self) -> Run:
        """The selected weights go into the method, and what only a running run needs goes away."""
        state = self.state
        if self.group.first:
            peak = torch.cuda.max_memory_allocated() if self.device.type == "cuda" else None
            run = Run(state.index, state.seconds, state.best_step, state.best_validation, peak)
            loading = {"seconds": round(state.waited, 3)}
            facts = {"threads": torch.get_num_threads(), "processes": self.group.size, "loading": loading}
            self.record.close()
            self.saved.finish(asdict(run) | facts, state.best_step)
        return self.completed()

    def completed(self) -> Run:
        """A run that is over: its weights and its figures."""
        device = torch.device("cpu") if self.group.several else self.device
        facts, weights = self.group.told(lambda: self.saved.result(device))
        self.method.load_state_dict(weights)
        self.method.eval()
        run = Run(**{f.name: facts[f.name] for f in fields(Run)})
        run.validation = _numbers(run.validation)
        return run

    def words(self) -> str:
        """What did not fit, and what it would have taken as far as that can still be told."""
        patch = " x ".join(map(str, self.feed.patches.size))
        several = f", divided among {self.group.size} processes" if self.group.several else ""
        told = f"a batch of {self.feed.size} patches of {patch} in {self.options.precision}{several}, did not fit"
        with contextlib.suppress(Exception):
            found = estimated(self.options, self.method, self.feed, processes=self.group.size, timed=0)
            told += f": it takes about {size_of(found.total_bytes)} ({size_of(found.activation_bytes)} activations)"
        return told


def _numbers(value: Any) -> Any:
    """A score that is no number is null in JSON, and NaN again here."""
    if isinstance(value, dict):
        return {k: _numbers(v) for k, v in value.items()}
    return math.nan if value is None else value
