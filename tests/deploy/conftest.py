"""Tiny models and scans: a few voxels, a network of a few hundred weights or one comparison."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from shiftproof.data.plan import Plan
from shiftproof.data.samples import Samples
from shiftproof.deploy.model import Model
from shiftproof.methods.method import Method, Setting
from shiftproof.recipe import Recipe, build
from shiftproof.tasks.segmentation import Segmentation

AS_STORED = {"scheme": "clip", "lower": -1e6, "upper": 1e6, "mean": 0.0, "sd": 1.0}
"""A normalisation that changes nothing."""


def plan(**changes: Any) -> Plan:
    """Volumes at 1 mm, windows of 8 voxels, two structures."""
    channels = tuple(changes.get("channels", ("image",)))
    given = {
        "dimensions": 3,
        "orientation": "RAS",
        "spacing_mm": (1.0, 1.0, 1.0),
        "channels": channels,
        "classes": ("background", "disc", "ring"),
        "normalisation": dict.fromkeys(channels, AS_STORED),
        "patch": (8, 8, 8),
        **changes,
    }
    return Plan(**given)


def trained(name: str, plan: Plan, *, seed: int = 0, **fields: Any) -> tuple[Method, Recipe, Setting]:
    """A method with random weights, as training would leave it."""
    recipe = Recipe(fields.pop("row", name), method=name, network={"widths": [4, 8]}, **fields)
    setting = Setting(["A", "B"], len(plan.channels), plan.dimensions, 2, tuple(plan.patch))
    method = build(recipe, plan, setting, seed=seed)
    with torch.no_grad():
        for tensor in [*method.parameters(), *method.buffers()]:
            if tensor.is_floating_point():
                tensor.add_(0.1 * torch.randn(tensor.shape, generator=torch.Generator().manual_seed(tensor.numel())))
    return method, recipe, setting


def levels(plan: Plan, predict: Callable[[Samples], torch.Tensor] | None = None, content: str = "levels") -> Model:
    """Class k where the intensity is nearest to k: what it predicts is known without it."""

    def nearest(samples: Samples) -> torch.Tensor:
        centres = torch.arange(len(plan.classes), dtype=torch.float32)
        shape = (1, -1, *[1] * plan.dimensions)
        return -10 * (samples.image[:, :1] - centres.view(shape)).square()

    return Model(predict or nearest, Segmentation(plan.classes), plan, torch.device("cpu"), content, Path(content))


def write_nifti(path: Path, array: np.ndarray, affine: np.ndarray) -> Path:
    """By another library than the one that is tested."""
    import nibabel

    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array, affine), path)
    return path


def steps(shape: tuple[int, ...] = (14, 12, 10), *, seed: int = 0, margin: int = 1) -> np.ndarray:
    """Whole numbers 0 to 2 in random voxels, 0 at the border."""
    array = np.zeros(shape, np.float32)
    inside = tuple(slice(margin, n - margin) for n in shape)
    array[inside] = np.random.default_rng(seed).integers(0, 3, array[inside].shape)
    return array


class Toys:
    plan = staticmethod(plan)
    trained = staticmethod(trained)
    levels = staticmethod(levels)
    write_nifti = staticmethod(write_nifti)
    steps = staticmethod(steps)


@pytest.fixture
def tiny() -> type[Toys]:
    return Toys
