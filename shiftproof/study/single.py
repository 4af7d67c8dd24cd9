"""One training run, without a grid around it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .. import autoplan
from ..data.cohort import Cohort
from ..data.splits import everything
from ..data.splits import hold_out as held_out_split
from ..data.store import Store
from ..deploy.model import load_model
from ..evaluate.answers import primary_of
from ..experiment import Experiment, prepare
from ..files import replacing
from ..recipe import Recipe
from ..soundness import require_sound
from ..train import Progress, Trainer
from ..training.group import current
from .cell import SPLIT_SEED, score


def train(
    cohort: Path,
    recipe: Recipe,
    out: Path,
    *,
    domain: str = "site",
    hold_out: str | None = None,
    trainer: Trainer | None = None,
    plan: dict[str, Any] | None = None,
    workers: int = 1,
    tensorboard: bool = False,
    tolerance_mm: float = 2.0,
    progress: Callable[[Progress], None] | None = None,
    before: Callable[[Experiment], None] | None = None,
) -> dict[str, Any]:
    """Train a recipe and write `out/model`; with a held-out domain, score it on that domain's test half.

    The same call continues an interrupted run.

    Args:
        plan: Options of `autoplan.plan_of`: dimensions, spacing_mm, patch; automatic, memory_gb.
        progress: Called after every step.
        before: Called with what is about to be trained, when all scans are ready.

    Returns:
        Steps, seconds, validation on held-back subjects of the training domains, mean of the task's primary metric
        over the held-out subjects by structure, and where the model lies.
    """
    trainer, recipe = trainer or Trainer(), recipe.pinned()
    table = Cohort.read(cohort, domain=domain)
    if hold_out is not None:
        split = held_out_split(table, hold_out, seed=SPLIT_SEED)
    else:
        split = everything(table, seed=SPLIT_SEED)
    chosen = autoplan.plan_of(split.train, **autoplan.resolved(plan, [recipe], trainer, len(split.train.domains)))
    require_sound(recipe, chosen)
    experiment = prepare(recipe, split, chosen, trainer, Store(out / "store"), workers=workers)
    if before is not None:
        before(experiment)
    experiment.claim(out)
    chosen.write(out / "plan.json")
    run = experiment.train(out, progress=progress, tensorboard=tensorboard)
    found: dict[str, Any] = dataclasses.asdict(run) | {"model": str(out / "model")}
    if hold_out is not None and current().first:
        model = load_model(out / "model", device=trainer.device)
        scored = score(model, split.test, out / "predictions", tolerance_mm)
        for name, written in scored.tables().items():
            if written is not None:
                with replacing(out / name) as path:
                    written.to_csv(path, index=False)
        found["metric"] = primary_of(chosen.target)
        own = scored.rows[scored.rows["metric"] == found["metric"]]
        found["held out"] = {str(k): float(v) for k, v in own.groupby("structure")["value"].mean().items()}
    return found
