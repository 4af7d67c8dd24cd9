"""What a run leaves in its folder: a record, a state to go on from, the selected weights."""

from __future__ import annotations

import contextlib
import json
import math
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..errors import OptionError, RunError
from ..files import replacing, strict, write_json

if TYPE_CHECKING:
    from ..train import Trainer

FREE = ("checkpoint_seconds", "device")
"""Settings that may change when a run goes on: where it computes, how often it saves."""


@dataclass
class State:
    """What a resumed run must know besides tensors.

    Args:
        index: Steps taken.
        begun: The phase whose `Method.begin` was called last.
        seconds: Time in steps; `waited` of them for batches.
        averaged: Iterates in the average of the weights.
        best: Value of the selected weights under the selection rule, `best_step` and `best_validation` likewise.
        best_mean: Best mean score, for patience; `stale` validations were no better.
        stopped: Whether the run is over before its last step.
    """

    index: int = 0
    begun: str = ""
    seconds: float = 0.0
    waited: float = 0.0
    averaged: int = 0
    best: float = -math.inf
    best_step: int = 0
    best_validation: dict[str, Any] = field(default_factory=dict)
    best_mean: float = -math.inf
    stale: int = 0
    stopped: bool = False


class Checkpoints:
    """The saved states of a run, and in the end its result.

    Selected weights carry their step in name and content: those of steps that a killed run took after its last saved
    state are not taken for those that the state names.

    Args:
        folder: The run's.
        options: What the run is identified by, besides its data.
    """

    def __init__(self, folder: Path, options: Trainer) -> None:
        self.folder = folder
        self.options = asdict(options)

    def sweep(self) -> None:
        """Removes what a kill in the middle of a save left, each as large as the state."""
        for left in self.folder.glob(".????????.pt"):
            left.unlink(missing_ok=True)

    @property
    def complete(self) -> bool:
        return (self.folder / "run.json").exists()

    def save(self, content: dict[str, Any], best_step: int) -> None:
        """The whole state, in one file that is replaced at once."""
        with replacing(self.folder / "state.pt") as path:
            torch.save({"options": json.dumps(self.options, sort_keys=True), **content}, path)
        self._forget_but(best_step)

    def load(self, device: torch.device) -> dict[str, Any] | None:
        """The saved state; None where a run begins.

        Raises:
            RunError: If it is of another run.
        """
        path = self.folder / "state.pt"
        if not path.exists():
            return None
        content = torch.load(path, map_location=device, weights_only=True)
        self._compare(json.loads(content["options"]))
        return content  # type: ignore[no-any-return]

    def keep(self, weights: dict[str, Any], step: int) -> None:
        """Weights that are the best so far."""
        with replacing(self._best(step)) as path:
            torch.save({"step": step, "weights": weights}, path)

    def finish(self, facts: dict[str, Any], best_step: int) -> None:
        """The run is over; what only a running run needs goes away."""
        if self._best(best_step).exists():
            os.replace(self._best(best_step), self.folder / "best.pt")
        write_json(self.folder / "run.json", strict(facts | {"options": self.options}))
        (self.folder / "state.pt").unlink(missing_ok=True)
        self._forget_but(None)

    def result(self, device: torch.device) -> tuple[dict[str, Any], dict[str, Any]]:
        """Of a complete run: what `finish` was given, and the selected weights.

        Raises:
            RunError: If it is another run, or its weights are not those of the selected step.
        """
        facts = json.loads((self.folder / "run.json").read_text(encoding="utf-8"))
        self._compare(facts["options"])
        try:
            found = torch.load(self.folder / "best.pt", map_location=device, weights_only=True)
        except FileNotFoundError:
            raise RunError(f"{self.folder} holds a complete run without best.pt; train into another folder") from None
        if found.get("step") != facts["selected"]:
            raise RunError(
                f"{self.folder / 'best.pt'} holds the weights of step {found.get('step')}, but the run selected those "
                f"of step {facts['selected']}; the file was exchanged: train into another folder"
            )
        return facts, found["weights"]

    def _best(self, step: int) -> Path:
        return self.folder / f"best-{step}.pt"

    def _forget_but(self, step: int | None) -> None:
        for path in self.folder.glob("best-*.pt"):
            if step is None or path != self._best(step):
                path.unlink(missing_ok=True)

    def _compare(self, theirs: dict[str, Any]) -> None:
        ours = self.options
        changed = [k for k in ours if ours[k] != theirs.get(k) and k not in FREE]
        if changed:
            words = ", ".join(f"{k}: {theirs.get(k)} there, {ours[k]} here" for k in changed)
            raise RunError(
                f"{self.folder} holds a run with other settings ({words}); "
                "use the same settings to continue it, or choose another folder"
            )


class Record:
    """`record.jsonl`: a line of losses now and then, a line a validation; on request for TensorBoard, too.

    Args:
        folder: The run's.
        tensorboard: Whether to write TensorBoard's files as well.
    """

    def __init__(self, folder: Path, *, tensorboard: bool) -> None:
        self.path = folder / "record.jsonl"
        self.writer = _tensorboard(folder) if tensorboard else None

    def write(self, line: dict[str, Any]) -> None:
        with open(self.path, "a", encoding="utf-8") as record:
            record.write(json.dumps(strict(line), allow_nan=False) + "\n")
        if self.writer is not None:
            for group in ("losses", "log", "validation"):
                for name, value in line.get(group, {}).items():
                    if isinstance(value, float):
                        self.writer.add_scalar(f"{group}/{name}", value, line["step"])

    def cut(self, index: int) -> None:
        """Drops what was recorded after step `index`, and a last line that a killed process left unfinished."""
        if not self.path.exists():
            return
        kept = []
        for line in self.path.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                if json.loads(line)["step"] <= index:
                    kept.append(line)
        with replacing(self.path) as path:
            path.write_text("".join(line + "\n" for line in kept), encoding="utf-8")

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()


def _tensorboard(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise OptionError("TensorBoard is not installed; install shiftproof[tensorboard]") from error
    return SummaryWriter(os.fspath(folder / "tensorboard"))
