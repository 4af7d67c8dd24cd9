"""How long and how a method is trained."""

from __future__ import annotations

import math
import typing
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

import torch

from .data.samples import Samples
from .data.sampling import Feed
from .data.store import Case
from .errors import OptionError
from .methods.method import Method
from .names import choose, converted
from .training.averages import AVERAGES
from .training.loop import Loop
from .training.machine import device_of
from .training.progress import Progress, Run
from .training.steps import OPTIMIZERS, SCHEDULES, movers, phase_at
from .validate import SELECTIONS

__all__ = ["Progress", "Run", "Trainer", "device_of", "movers", "phase_at"]


@dataclass(frozen=True)
class Trainer:
    """How long and how a method is trained; the same for every method of a comparison.

    Args:
        steps: Number of steps.
        seconds: Budget of training time; the run ends at the first step beyond it, and progress counts along
            whichever of the two is further. Such a run depends on the machine's speed.
        batch: Samples in a source batch; a target batch has as many.
        optimizer: "adamw", "adam", "sgd", "nesterov" (SGD with Nesterov's momentum), "rmsprop" or "deepmedic"
            (RMSProp as DeepMedic is trained, see `training.rmsprop`), for parts that do not choose their own.
        rate: Learning rate, likewise.
        weight_decay: Likewise.
        momentum: For "sgd", "nesterov", "rmsprop" and "deepmedic".
        schedule: Factor of the rate over the run: "cosine", "poly" (power 0.9), "constant", "inverse", "halving" (at
            17, 22, 27, 30 and 33 of 35 parts of the run, as DeepMedic's).
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
        if self.optimizer == "nesterov" and not self.momentum:
            raise OptionError('Nesterov\'s momentum is above 0, got 0; use the optimizer "sgd" for none')
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

        Within a group of processes (`shiftproof.training.group`) each calls this with the same arguments and trains on
        its share of every batch; the weights are those of one process, and the first one writes.

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
            OutOfMemory: If a step does not fit.
            ProcessError: If another process of the group was lost.
        """
        return Loop(self, method, feed, validation, Path(folder), transform, progress, tensorboard).run()
