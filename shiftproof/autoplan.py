"""`--plan auto`: preprocessing, network, batch and training from the training scans and a memory budget."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from . import catalogue
from .data import planning
from .data.plan import Plan, make_plan
from .data.preprocess import ANISOTROPIC
from .errors import OptionError, PlanError
from .names import choose, converted
from .nets.footprint import Topology
from .nets.planned import SMALLEST, planned
from .nets.unet import MOST_LEVELS, widths_of

if TYPE_CHECKING:
    from .data.cohort import Cohort
    from .recipe import Recipe
    from .train import Trainer

MEMORY_GB = 2.0
"""Of a training step, for a laptop that does other things beside."""

BASE = 32
"""Channels of the finest level, doubled from level to level."""

LEAST_BATCH = 2
SHARE = 0.05
"""Of all training voxels: a larger batch would show the same ones again and again."""

TRAINING: dict[str, Any] = {
    "optimizer": "nesterov",
    "rate": 0.01,
    "momentum": 0.99,
    "weight_decay": 3e-5,
    "schedule": "poly",
    "clip": 12.0,
}
LONG = 5000
"""Steps from which on the published optimiser is used: with a momentum of 0.99 it starts slowly."""

SHORT: dict[str, Any] = {"optimizer": "adamw", "rate": 1e-3, "schedule": "cosine"}
"""Of shorter trainings, and of those that a limit of time ends: the trainer's own defaults."""

ROW: dict[str, Any] = {"transforms": "strong"}
"""What a row that is written down without it gets; it is chosen before any scan is read."""

FOREGROUND = 1 / 3
SCHEMES = "CT is clipped at percentiles of the structures, other channels are z-scored by scan"
OWN = ("memory_gb", "base", "batch", "least_batch", "steps", "keep")
BY_LEVEL = ("widths", "strides", "kernels", "base", "levels", "widest")


def plan_of(cohort: Cohort, *, automatic: bool = False, **options: Any) -> Plan:
    """A plan from training scans: the usual one (`make_plan`), or with `automatic` that of `auto_plan`.

    Raises:
        OptionError: For options of the automatic plan without `automatic`, or that it does not have.
    """
    if automatic:
        for name in options:
            choose(name, inspect.signature(auto_plan).parameters, "option of an automatic plan")
        return auto_plan(cohort, **options)
    own = [name for name in OWN if name in options]
    if own:
        raise OptionError(f"{', '.join(own)} is for automatic plans; use --plan auto, or leave it out")
    return make_plan(cohort, **options)


def auto_plan(
    cohort: Cohort,
    *,
    memory_gb: float = MEMORY_GB,
    base: int = BASE,
    batch: int | None = None,
    least_batch: int = LEAST_BATCH,
    steps: int | None = None,
    keep: Sequence[str] = (),
    dimensions: int | None = None,
    spacing_mm: Sequence[float | None] | None = None,
    patch: Sequence[int] | None = None,
    normalisation: str | Mapping[str, str] | None = None,
    context: int = 0,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Plan:
    """A plan with the network, the batch and the training that suit the scans and fit into memory.

    Own code after published rules. Spacing: the median by axis; where the coarsest axis is more than 3 times coarser
    than the finest *and* has fewer than a third of the others' voxels, its 10th percentile, but no finer than the
    others. Patch: the median shape at that spacing, shrunk along its relatively longest axis until a training step
    with the smallest batch fits into `memory_gb`; a network is fitted to every patch that is tried (`nets.planned`),
    and sides are multiples of what it divides them by. Batch: as large as still fits, up to 5 % of all voxels.
    Network: `base` channels, doubled from level to level up to 512 in 2D and 320 in 3D, deep supervision. Intensities:
    CT is clipped at the 0.5 and 99.5 percentiles of the structures, else z-scores. Training: cross-entropy and Dice
    over the batch, a third of the patches on structures; from 5000 steps on SGD with Nesterov's momentum 0.99, rate
    0.01 with the polynomial schedule, weight decay 3e-5.

    Paper: F. Isensee et al., "nnU-Net: a self-configuring method for deep learning-based biomedical image
    segmentation", Nature Methods 18 (2021), https://doi.org/10.1038/s41592-020-01008-z. Deviations: the share of
    1/3 on structures is a probability of each patch, not a part of each batch; memory is estimated in closed form for
    float32 on any device (`nets.footprint`); 2 or 3 dimensions are chosen before training (`make_plan`), not by
    cross-validation; no cascade, no ensemble, no postprocessing; Dice over the batch in 3D, too (the program's
    default in 3D is by sample); the length of training is left to the user (250 000 steps in the program), and one
    that is short or of unknown length has the trainer's usual optimiser, AdamW at 0.001 with the cosine schedule.

    Args:
        cohort: Training scans and nothing else.
        memory_gb: Of a training step, in 10^9 bytes: one pass forwards and back, as `erm` does it.
        base: Channels of the finest level; fewer are faster.
        batch: Samples, where the user has chosen them; the patch is then made to fit.
        least_batch: Fewest samples; methods that compare domains need one of each.
        steps: Of the training; None if they are not known, since a limit of time ends it.
        keep: Settings of the trainer that the user has chosen.
        dimensions, spacing_mm, patch, normalisation, context: As in `make_plan`; what is given stays.
        workers: Processes that read.
        progress: Called with (scans read, all).

    Raises:
        PlanError: If the labels are not of a segmentation, or nothing fits into the memory.
        OptionError: For numbers that are no such numbers.
    """
    memory_gb, base, least = _numbers(memory_gb, base, batch or least_batch)
    if cohort.task != "segmentation":
        raise PlanError(f"plan auto is for segmentation, the labels are for {cohort.task}; leave --plan out")
    facts = planning.facts_for(cohort, normalisation, workers=workers, progress=progress)
    frame = planning.frame_of(facts)
    axes = planning.dimensions_for(frame, dimensions)
    spacing, why_spacing = spacing_of(frame, axes, spacing_mm)
    shapes = planning.shapes_of(frame, spacing)
    fixed = make_plan(
        cohort, dimensions=axes, spacing_mm=spacing, patch=patch or (1,) * axes, normalisation=normalisation,
        context=context, facts=facts,
    )  # fmt: skip
    budget = Budget(memory_gb * 1e9, fixed.inputs, _outputs(fixed), base, least)
    found = budget.fitting(np.median(shapes, 0)[:axes], spacing[:axes], patch)
    share = max(1, round(SHARE * float(shapes.prod(1).sum()) / prod(found.patch)))
    size = batch or max(least, min(found.batch, share))
    training, why_optimizer = _training(steps, keep)
    settings = {"batch": size, **training} if "batch" not in keep else training
    schemes = {channel: rule["scheme"] for channel, rule in fixed.normalisation.items()}
    words = _Reasons(memory_gb, np.median(shapes, 0)[:axes].tolist(), share, given_batch=batch, given_patch=patch)
    automatic = {
        "memory_gb": memory_gb,
        "memory_bytes": found.topology.bytes(found.patch, size),
        "network": found.network(),
        "training": settings,
        "sampling": {"foreground": FOREGROUND},
        "loss_options": {"batch": True},
        "decisions": [
            _decision("dimensions", axes, _why_dimensions(frame, dimensions)),
            _decision("spacing_mm", list(spacing), why_spacing),
            *words.of(found, size, least),
            _decision("normalisation", schemes, "given" if normalisation else SCHEMES),
            _decision("optimizer", training.get("optimizer"), why_optimizer),
        ],
    }
    return dataclasses.replace(fixed, patch=found.patch, automatic=automatic)


def spacing_of(
    frame: planning.Frame, dimensions: int, given: Sequence[float | None] | None
) -> tuple[tuple[float | None, float | None, float | None], str]:
    """Voxel size of the cases, and why."""
    if given is not None:
        return planning.spacing_for(frame, dimensions, given), "given"
    median = np.median(frame.spacings_mm, 0)
    if dimensions == 2:
        return planning.spacing_for(frame, 2, None), "median in plane; slices are not resampled"
    sizes = np.median(frame.sizes, 0)
    coarse = int(median.argmax())
    thick = frame.anisotropy > ANISOTROPIC
    if thick and ANISOTROPIC * sizes[coarse] < np.delete(sizes, coarse).min():
        words = f"median; 10th percentile of the coarsest axis, {frame.anisotropy:.3g} times coarser and of few voxels"
        return planning.spacing_for(frame, 3, None), words
    words = f"median; anisotropy {frame.anisotropy:.3g}"
    words += " above 3, but the axis has many voxels" if thick else " is at most 3"
    return tuple(round(float(s), 6) for s in median), words  # type: ignore[return-value]


@dataclass(frozen=True)
class Fitting:
    """A patch, the network that suits it, and the samples that fit into the memory."""

    patch: tuple[int, ...]
    topology: Topology
    batch: int

    def network(self) -> dict[str, Any]:
        """As a recipe writes it."""
        shape = self.topology
        levels = {"strides": [list(s) for s in shape.strides], "kernels": [list(k) for k in shape.kernels]}
        return {"name": "unet", "widths": list(shape.widths), **levels, "deep_supervision": True}


@dataclass(frozen=True)
class Budget:
    """What a training step may take.

    Args:
        bytes: Memory.
        channels, outputs: Of the network.
        base: Channels of its finest level.
        least: Samples that have to fit.
    """

    bytes: float
    channels: int
    outputs: int
    base: int
    least: int

    def fitting(
        self, shape: Sequence[float], spacing_mm: Sequence[float | None], given: Sequence[int] | None = None
    ) -> Fitting:
        """The largest patch of the shape's proportions that fits, or the given one.

        Raises:
            PlanError: If none fits.
        """
        limit = [max(1, round(n)) for n in shape] if given is None else list(given)
        while True:
            topology = self.topology(limit, spacing_mm)
            units = topology.divisors
            patch = limit if given is not None else [u * -(-n // u) for n, u in zip(limit, units, strict=True)]
            samples = (self.bytes - topology.bytes(patch, 0)) // topology.sample_bytes(patch)
            if samples >= self.least:
                return Fitting(tuple(patch), topology, int(samples))
            longest = [] if given is not None else _by_relative_length(patch, units, shape)
            if not longest:
                raise self.too_small(patch, topology)
            axis, smaller = longest[0], list(patch)
            # A smaller side may be halved less often, and be a multiple of less: 128 is followed by 112, not by 96.
            smaller[axis] -= units[axis]
            # Of the rounded side, which another network may round up again: the limit itself always shrinks.
            following = patch[axis] - min(units[axis], self.topology(smaller, spacing_mm).divisors[axis])
            limit[axis] = min(following, limit[axis] - 1)

    def topology(self, patch: Sequence[int], spacing_mm: Sequence[float | None]) -> Topology:
        levels = planned(len(patch), patch, spacing_mm, least=2, most=MOST_LEVELS)
        widths = widths_of(len(patch), None, self.base, len(levels["kernels"]), None)
        return Topology(self.channels, self.outputs, widths, levels["strides"], levels["kernels"])

    def too_small(self, patch: Sequence[int], topology: Topology) -> PlanError:
        needed = topology.bytes(patch, self.least) / 1e9
        size = "x".join(map(str, patch))
        return PlanError(
            f"memory_gb={self.bytes / 1e9:g} is too small: a batch of {self.least} patches of {size} with {self.base} "
            f"channels takes about {needed:.2g} GB; give that much, a smaller batch or patch, or a smaller base"
        )


def _by_relative_length(patch: Sequence[int], units: Sequence[int], shape: Sequence[float]) -> list[int]:
    """Axes that can shrink by a unit, the one that covers most of the shape first."""
    open_ = [axis for axis, (n, unit) in enumerate(zip(patch, units, strict=True)) if n - unit >= SMALLEST]
    return sorted(open_, key=lambda axis: patch[axis] / shape[axis], reverse=True)


def completed(recipe: Recipe, plan: Plan) -> Recipe:
    """The recipe with what an automatic plan chose and the recipe leaves open; the recipe itself without such a plan.

    Done to a completed recipe, it changes nothing.
    """
    if not plan.automatic:
        return recipe
    found = plan.automatic
    needed = catalogue.method(recipe.method).needs.network
    network = {key: value for key, value in found["network"].items() if key not in needed}
    if any(key in recipe.network for key in BY_LEVEL):
        network = {key: value for key, value in network.items() if key not in BY_LEVEL}
    if "name" in recipe.network:
        network = {}
    return dataclasses.replace(
        recipe,
        network={**network, **recipe.network},
        training={**found["training"], **recipe.training},
        sampling={**found["sampling"], **recipe.sampling},
        loss_options={**(found["loss_options"] if recipe.loss is None else {}), **recipe.loss_options},
    )


def resolved(
    options: Mapping[str, Any] | None, rows: Sequence[Recipe], trainer: Trainer, domains: int
) -> dict[str, Any]:
    """Options of a plan with what an automatic one has to know of the rows and of the user's own settings.

    Args:
        options: Of `plan_of`.
        rows: That share the plan.
        trainer: The user's; where `options` do not say which settings to `keep`, those that are not the default.
        domains: Most training domains, those of a delivery: a batch has one sample of each, where a row compares them.
    """
    found = dict(options or {})
    if not found.get("automatic"):
        return found
    usual = type(trainer)()
    changed = [name for name in ("batch", *TRAINING) if getattr(trainer, name) != getattr(usual, name)]
    found.setdefault("keep", changed)
    found.setdefault("steps", trainer.steps if trainer.seconds is None else None)
    if "batch" in found["keep"]:
        found.setdefault("batch", trainer.batch)
    compares = [r.sampling.get("batches", catalogue.method(r.method).needs.batches) == "balanced" for r in rows]
    if any(compares):
        found.setdefault("least_batch", max(LEAST_BATCH, domains))
    return found


def parsed(text: str | None) -> dict[str, Any]:
    """Options of a plan from the command line: auto, or auto,memory_gb=8,base=16.

    Raises:
        OptionError: If it is something else.
    """
    if text is None:
        return {}
    name, *others = (part.strip() for part in text.split(","))
    choose(name, ("auto",), "plan")
    kinds = {"memory_gb": float, "base": int}
    found: dict[str, Any] = {"automatic": True}
    for other in others:
        key, equals, value = other.partition("=")
        if not equals:
            raise OptionError(f"--plan is auto or auto,OPTION=VALUE,... with {' and '.join(kinds)}, got {text!r}")
        kind = kinds[choose(key.strip(), kinds, "option of --plan auto")]
        try:
            found[key.strip()] = kind(value)
        except ValueError:
            what = "whole number" if kind is int else "number"
            raise OptionError(f"{key.strip()} of --plan auto is a {what}, got {value.strip()!r}") from None
    _numbers(found.get("memory_gb", MEMORY_GB), found.get("base", BASE), LEAST_BATCH)
    return found


def line(plan: Plan) -> str:
    """One line for people."""
    found = plan.automatic
    size, widths = "x".join(map(str, plan.patch)), found["network"]["widths"]
    batch = next(d["value"] for d in found["decisions"] if d["what"] == "batch")
    return (
        f"plan auto: memory budget {found['memory_gb']:g} GB (--plan auto,memory_gb=N), about "
        f"{found['memory_bytes'] / 1e9:.2g} GB used: {_patches(batch)} of {size}, U-Net of {len(widths)} levels with "
        f"{widths[0]} to {widths[-1]} channels"
    )


@dataclass(frozen=True)
class _Reasons:
    """Why patch, network and batch are what they are."""

    memory_gb: float
    shape: list[float]
    share: int
    given_batch: int | None
    given_patch: Sequence[int] | None

    def of(self, found: Fitting, batch: int, least: int) -> list[dict[str, Any]]:
        median = "x".join(f"{n:g}" for n in self.shape)
        covers = all(n >= round(m) for n, m in zip(found.patch, self.shape, strict=True))
        patch = f"the median scan, {median} voxels, in multiples of what the network divides by"
        if not covers:
            patch = f"the median scan, {median} voxels, shrunk until {_patches(least)} fit into {self.memory_gb:g} GB"
        limit = "what fits" if found.batch <= self.share else f"5 % of the training voxels are {_patches(self.share)}"
        if batch > min(found.batch, self.share):
            limit = f"the fewest allowed; {limit}"
        shape = found.topology
        return [
            _decision("patch", list(found.patch), "given" if self.given_patch is not None else patch),
            _decision("batch", batch, "given" if self.given_batch is not None else limit),
            _decision(
                "levels",
                len(shape.widths),
                f"axes are halved while at least {SMALLEST} voxels remain, thick slices last; "
                f"{shape.parameters / 1e6:.2f} million weights",
            ),
        ]


def _training(steps: int | None, keep: Sequence[str]) -> tuple[dict[str, Any], str]:
    """Settings of the trainer that the user has not chosen, and why the optimiser is what it is."""
    long = steps is not None and steps >= LONG
    chosen = {key: value for key, value in (TRAINING if long else SHORT).items() if key not in keep}
    if "optimizer" in keep:
        return chosen, "given"
    if long:
        return chosen, f"the published program's, for {LONG} steps and more"
    length = "an unknown number of steps" if steps is None else f"{steps} steps"
    return chosen, f"{length}: below {LONG} the published SGD with momentum {TRAINING['momentum']} starts too slowly"


def _patches(number: int) -> str:
    return f"{number} patch{'es' if number != 1 else ''}"


def _decision(what: str, value: Any, why: str) -> dict[str, Any]:
    return {"what": what, "value": value, "why": why}


def _why_dimensions(frame: planning.Frame, given: int | None) -> str:
    if given is not None:
        return "given"
    facts = f"{frame.slices} slices in the median, anisotropy {frame.anisotropy:.3g}"
    return f"{facts}: slices one at a time" if frame.flat else f"{facts}: whole volumes"


def _outputs(plan: Plan) -> int:
    """Channels of a segmentation's prediction: classes, or structures where they overlap."""
    return len(plan.classes) - (plan.target["kind"] == "multi-label")


def _numbers(memory_gb: Any, base: Any, least: Any) -> tuple[float, int, int]:
    memory, width, batch = converted("memory_gb", memory_gb, float), converted("base", base, int), least
    if not 0 < memory < float("inf"):
        raise OptionError(f"memory_gb is a number of GB above 0, such as {MEMORY_GB:g}, got {memory_gb}")
    if width < 1 or batch < 1:
        raise OptionError(f"base and batch are at least 1, got base {base} and batch {least}")
    return memory, width, batch
