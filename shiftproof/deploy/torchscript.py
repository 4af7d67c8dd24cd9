"""A network that someone else trained, as a TorchScript file with a plan of its preprocessing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from .. import tasks
from ..data.plan import Plan
from ..data.samples import Samples
from ..errors import ModelError
from ..tasks.task import Prediction
from ..train import device_of
from .model import Model, digest, sha256


def load_torchscript(path: Path, plan: Plan, *, device: str = "auto", margin: Sequence[int] = ()) -> Model:
    """A TorchScript file that maps images (B, C, *space) to logits (B, K, *space).

    One of valid convolutions maps the plan's patch with a margin around it to the logits of the patch.

    Unlike a model folder, such a file is a program: load only what you would run.

    Args:
        path: As `torch.jit.save` wrote it.
        plan: Preprocessing, channels, classes and the window that the network reads.
        device: "cpu", "cuda" or "auto".
        margin: Voxels around the patch that it reads and does not score, on each side of each axis of the patch.

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
    around = tuple(margin) or (0,) * plan.dimensions
    if len(around) != plan.dimensions or not all(isinstance(m, int) and m >= 0 for m in around):
        raise ModelError(f"a margin is {plan.dimensions} whole numbers of at least 0, got {tuple(margin)}")

    def predict(samples: Samples) -> Prediction:
        given = tuple(samples.image.shape)
        try:
            scores = network(samples.image)
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            reason = str(error).strip().splitlines()[-1]
            raise ModelError(f"{path} fails on an input of {given} ({reason}); check the plan") from error
        expected = (len(samples), task.outputs, *(n - 2 * m for n, m in zip(given[2:], around, strict=True)))
        if not isinstance(scores, torch.Tensor) or scores.shape != expected:
            shape = tuple(scores.shape) if isinstance(scores, torch.Tensor) else ()
            got = shape or type(scores).__name__
            valid = len(shape) == len(given) and all(n < m for n, m in zip(shape[2:], given[2:], strict=True))
            raise ModelError(
                f"{path} gives {got} for an input of {given}, expected logits {expected}: one channel for "
                f"each class of the plan ({', '.join(task.structures)}"
                f"{', background first' if task.outputs > len(task.structures) else ''})"
                f"{VALID if valid and not any(around) else ''}"
            )
        return scores

    content = digest(sha256(path), plan.to_json(), *([list(around)] if any(around) else []))
    return Model(predict, task, plan, where, content, path, margin=around if any(around) else ())


VALID = "; one of valid convolutions, which scores less than it reads, is loaded with its margin (load_torchscript)"
