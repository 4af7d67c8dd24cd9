"""Tiny data and a bare loop, so that a method can be tried in a blink."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from shiftproof import catalogue
from shiftproof.data.samples import Batch, Samples
from shiftproof.methods.method import Method, Setting
from shiftproof.recipe import Recipe, build
from shiftproof.train import Trainer, movers, phase_at
from shiftproof.training.steps import RunningStep

torch.set_num_threads(1)


class PlanOf:
    """What `build` reads of a plan."""

    classes = ["background", "disc", "ring"]
    channels = ["image"]
    target = {"task": "segmentation", "kind": "multi-class"}

    def __init__(self, dimensions: int = 2) -> None:
        self.dimensions = dimensions
        self.patch, self.spacing_mm = [16] * dimensions, [1.0] * dimensions


def discs(
    domains: list[int],
    seed: int,
    *,
    dimensions: int = 2,
    size: int = 16,
    gain: dict[int, float] | None = None,
    offset: dict[int, float] | None = None,
) -> Samples:
    """Bright discs with a brighter ring in noise; a domain's images are scaled by its gain, then shifted."""
    random = torch.Generator().manual_seed(seed)
    axes = torch.meshgrid(*[torch.arange(size, dtype=torch.float32)] * dimensions, indexing="ij")
    images, labels = [], []
    for domain in domains:
        centre = torch.rand(dimensions, generator=random) * size / 4 + 3 * size / 8
        radius = sum((a - c) ** 2 for a, c in zip(axes, centre, strict=True)).sqrt()
        label = (radius < size / 3).long() + (radius < size / 5).long()
        image = label.float() + 0.3 * torch.randn(label.shape, generator=random)
        images.append((gain or {}).get(domain, 1.0) * image[None] + (offset or {}).get(domain, 0.0))
        labels.append(torch.where(label == 2, 1, torch.where(label == 1, 2, 0)))
    return Samples(
        torch.stack(images), torch.stack(labels), torch.tensor(domains), [f"s{i}" for i in range(len(domains))]
    )


def make(
    name: str,
    *,
    sources: int = 3,
    targets: int = 0,
    dimensions: int = 2,
    seed: int = 0,
    norm: str = "none",
    **options,
) -> Method:
    """A method with a network of a few hundred weights."""
    domains = [f"d{i}" for i in range(sources + targets)]
    setting = Setting(domains, 1, dimensions, sources, (16,) * dimensions, (1.0,) * dimensions)
    recipe = Recipe(name, method=name, options=options, target=targets > 0, network={"widths": [4, 8], "norm": norm})
    return build(recipe, PlanOf(dimensions), setting, seed=seed)  # type: ignore[arg-type]


def batch_of(method: Method, index: int, draw: int = 0, per_domain: int = 2, **looks) -> Batch:
    sources = [d for d in range(method.setting.sources) for _ in range(per_domain)]
    targets = [d for d in range(method.setting.sources, len(method.setting.domains)) for _ in range(len(sources))]
    dimensions = method.setting.dimensions
    source = discs(sources, 1000 * index + draw, dimensions=dimensions, **looks)
    target = discs(targets, 1000 * index + draw + 500, dimensions=dimensions, **looks) if targets else None
    batch = Batch(source, target.without_labels() if target else None)
    for place, name in enumerate(method.needs.streams, start=2):
        batch.streams[name] = discs(sources, 1000 * index + draw + 250 * place, dimensions=dimensions, **looks)
    for samples in (source, *batch.streams.values()):  # every other patch was centred on a structure
        samples.extra["drawn"] = torch.arange(len(samples)) % 2
    if method.needs.plain:
        batch.plain = source
    return batch


def drive(
    method: Method,
    steps: int,
    *,
    start: int = 0,
    total: int | None = None,
    after: Callable[[], None] | None = None,
    trainer: Trainer | None = None,
    moved=None,
    **looks,
) -> dict:
    """A bare loop; returns the last step's losses."""
    trainer = trainer or Trainer(rate=1e-2, schedule="constant", clip=None, weight_decay=0.0)
    moved = moved if moved is not None else movers(method, trainer)
    losses: dict = {}
    for index in range(start, steps):
        torch.manual_seed(index)
        progress = index / max((total or steps) - 1, 1)
        phase, within = phase_at(method.phases(), progress)
        step = RunningStep(
            index, progress, phase, within, torch.Generator().manual_seed(index), moved, lambda p: 1.0, trainer.clip,
            lambda draw, index=index: batch_of(method, index, draw, **looks), {},
        )  # fmt: skip
        method.train()
        losses = method.update(batch_of(method, index, **looks), step)
        if after is not None:
            after()
    return losses


class Toys:
    discs = staticmethod(discs)
    make = staticmethod(make)
    batch_of = staticmethod(batch_of)
    drive = staticmethod(drive)
    methods = list(catalogue.METHODS)


@pytest.fixture
def toys() -> type[Toys]:
    return Toys


class MemoryCase:
    """What a feed reads of a preprocessed case, held in memory."""

    def __init__(self, subject: str, domain: str, image: np.ndarray, label: np.ndarray | None) -> None:
        self.subject, self.domain, self.image, self.label = subject, domain, image, label
        self.labelled, self.target = label is not None, None
        classes = 3
        self.present = np.ones(len(image), dtype=bool)
        self.annotated = np.ones(classes, dtype=bool)
        self.centres = {} if label is None else {k: np.argwhere(label == k) for k in range(1, classes)}


def cases(domain: str, number: int, *, seed: int = 0, labelled: bool = True, depth: int = 8, gain: float = 1.0) -> list:
    """Volumes 16 x 16 x depth of discs, one disc a slice."""
    found = []
    for i in range(number):
        some = discs([0] * depth, seed + 77 * i)
        image = gain * some.image[:, 0].permute(1, 2, 0).numpy()[None]
        label = some.label.permute(1, 2, 0).numpy().astype(np.uint8) if labelled else None
        found.append(MemoryCase(f"{domain}{i}", domain, np.ascontiguousarray(image), label))
    return found


Toys.cases = staticmethod(cases)
