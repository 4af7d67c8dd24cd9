"""A network that someone else trained, as a TorchScript file with a plan of its preprocessing."""

from __future__ import annotations

from pathlib import Path

import torch

from .. import tasks
from ..data.plan import Plan
from ..data.samples import Samples
from ..errors import ModelError
from ..tasks.task import Prediction
from ..train import device_of
from .model import Model, digest, sha256


def load_torchscript(path: Path, plan: Plan, *, device: str = "auto") -> Model:
    """A TorchScript file that maps images (B, C, *space) to logits (B, K, *space).

    Unlike a model folder, such a file is a program: load only what you would run.

    Args:
        path: As `torch.jit.save` wrote it.
        plan: Preprocessing, channels, classes and the window that the network reads.
        device: "cpu", "cuda" or "auto".

    Raises:
        ModelError: If the file is no TorchScript, or gives other scores than the plan's classes.
    """
    path = Path(path)
    where = torch.device(device_of(device))
    if not path.is_file():
        raise ModelError(f"{path} does not exist; give a file that torch.jit.save wrote")
    try:
        network = torch.jit.load(str(path), map_location=where).eval()
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(
            f"{path} is no TorchScript file ({reason}); export the network with torch.jit.trace or "
            "torch.jit.script, and torch.jit.save"
        ) from error

    if plan.task != "segmentation":
        raise ModelError(f"{path} comes with a plan for {plan.task}; TorchScript is used for segmentation only")
    task = tasks.make(plan.target, plan.classes)

    def predict(samples: Samples) -> Prediction:
        given = tuple(samples.image.shape)
        try:
            scores = network(samples.image)
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            reason = str(error).strip().splitlines()[-1]
            raise ModelError(f"{path} fails on an input of {given} ({reason}); check the plan") from error
        expected = (len(samples), task.outputs, *samples.image.shape[2:])
        if not isinstance(scores, torch.Tensor) or scores.shape != expected:
            got = tuple(scores.shape) if isinstance(scores, torch.Tensor) else type(scores).__name__
            raise ModelError(
                f"{path} gives {got} for an input of {given}, expected logits {expected}: one channel for "
                f"each class of the plan ({', '.join(task.structures)}"
                f"{', background first' if task.outputs > len(task.structures) else ''})"
            )
        return scores

    return Model(predict, task, plan, where, digest(sha256(path), plan.to_json()), path)
