"""One training run on a divided cohort: from tables to a model folder."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import tomli_w
import torch

from . import catalogue
from .data.plan import Plan
from .data.sampling import Batches, Feed, Patches
from .data.splits import Split
from .data.store import Case, Store
from .deploy.model import save_model
from .errors import MethodError, OptionError
from .files import write_text
from .methods.method import Method, Setting
from .names import choose
from .recipe import Recipe, build
from .train import Progress, Run, Trainer
from .transforms.presets import preset
from .versions import versions


@dataclass
class Experiment:
    """A recipe on one division of a cohort, ready to train.

    Args:
        recipe: What is trained.
        plan: Preprocessing, made from training domains.
        trainer: Budget and optimiser.
        setting: What the method may know.
        feed: Batches.
        validation: Held-back cases of the training domains.
    """

    recipe: Recipe
    plan: Plan
    trainer: Trainer
    setting: Setting
    feed: Feed
    validation: list[Case]

    def method(self) -> Method:
        """A fresh method, the same for the same seed."""
        return build(self.recipe, self.plan, self.setting, seed=self.trainer.seed)

    def transform(self) -> Callable[..., Any]:
        return transform_of(self.recipe, self.plan)

    def train(
        self,
        folder: Path,
        *,
        progress: Callable[[Progress], None] | None = None,
        tensorboard: bool = False,
        information: dict[str, Any] | None = None,
    ) -> Run:
        """Train in `folder`, or go on where an interrupted run stopped, and write the model folder `folder/model`."""
        write_text(folder / "run.toml", tomli_w.dumps(self.declared()))
        method = self.method()
        run = self.trainer.fit(
            method,
            self.feed,
            self.validation,
            folder,
            transform=self.transform(),
            progress=progress,
            tensorboard=tensorboard,
        )
        # Whole means complete: the folder appears at once, so an existing one is never half a model.
        if not (folder / "model").exists():
            facts = {"run": dataclasses.asdict(run), "versions": versions(), **(information or {})}
            save_model(folder / "model", method, self.recipe, self.plan, self.setting, information=facts)
        return run

    def declared(self) -> dict[str, Any]:
        """What identifies the run: resolved options, never a class or folder name."""
        cls = catalogue.method(self.recipe.method)
        options = catalogue.check_options(self.recipe.method, cls, dict(self.recipe.options))
        return _without_none(
            {
                "recipe": self.recipe.as_dict() | {"options": options},
                "trainer": dataclasses.asdict(self.trainer),
                "setting": dataclasses.asdict(self.setting),
                "sampling": {
                    "patch": list(self.feed.patches.size),
                    "foreground": self.feed.patches.foreground,
                    "batches": self.feed.batches,
                },
                "subjects": {
                    "train": sorted({c.subject for c in self.feed.source}),
                    "validation": sorted({c.subject for c in self.validation}),
                    "target, without labels": sorted({c.subject for c in self.feed.target}),
                },
                "threads": torch.get_num_threads(),
                "versions": versions(),
            }
        )


def prepare(
    recipe: Recipe,
    split: Split,
    plan: Plan,
    trainer: Trainer,
    store: Store,
    *,
    workers: int = 1,
    progress: Callable[..., None] | None = None,
) -> Experiment:
    """Reads (or builds) the preprocessed cases of one division and puts the experiment together.

    For the reference "target-supervised" the caller gives a split whose training side is the held-out domain's.

    Raises:
        OptionError: For settings of the trainer that do not exist.
    """
    trainer = adjusted(trainer, recipe)
    source = store.prepare(split.train, plan, workers=workers, progress=progress)
    held_back = store.prepare(split.validation, plan, workers=workers, progress=progress)
    target: list[Case] = []
    if recipe.target:
        if split.target is None:
            raise OptionError(f'"{recipe.name}" asks for target images, but this division of the cohort has none')
        target = store.prepare(split.target, plan, workers=workers, progress=progress)
    sources = sorted({case.domain for case in source})
    domains = sources + sorted({case.domain for case in target} - set(sources))
    setting = Setting(domains, len(plan.channels), plan.dimensions, len(sources))
    patches, batches = sampling_of(recipe, plan)
    feed = Feed(source, domains, patches, size=trainer.batch, target=target, batches=batches, seed=trainer.seed)
    return Experiment(recipe, plan, trainer, setting, feed, held_back)


def transform_of(recipe: Recipe, plan: Plan) -> Callable[..., Any]:
    spacing = [s for s in plan.spacing_mm[: plan.dimensions] if s is not None]
    return preset(
        recipe.transforms,
        dimensions=plan.dimensions,
        patch=plan.patch,
        spatial=("image", "label", "ignore"),
        # nnU-Net's limit for treating a volume as a stack of slices.
        anisotropic=max(spacing) > 3 * min(spacing),
        spacing_mm=spacing,
        **recipe.transforms_options,
    )


def sampling_of(recipe: Recipe, plan: Plan) -> tuple[Patches, Batches]:
    """How patches are cut and batches made up; the method's own need where the recipe says nothing."""
    foreground = recipe.sampling.get("foreground", Patches.foreground)
    if not isinstance(foreground, int | float):
        raise OptionError(f"sampling.foreground is a share between 0 and 1, got {foreground!r}")
    batches = recipe.sampling.get("batches", catalogue.method(recipe.method).needs.batches)
    choose(batches, get_args(Batches), "kind of batches")
    return Patches(tuple(plan.patch), float(foreground)), batches


def adjusted(trainer: Trainer, recipe: Recipe) -> Trainer:
    """The trainer with the recipe's own settings.

    Raises:
        OptionError: For settings that do not exist or whose values do not fit.
    """
    for key in recipe.training:
        choose(key, [f.name for f in dataclasses.fields(Trainer)], "setting of the trainer")
    try:
        return dataclasses.replace(trainer, **recipe.training)
    except TypeError as error:
        raise OptionError(f'training of "{recipe.name}" has a value of the wrong kind: {error}') from error


def check(recipe: Recipe, plan: Plan, trainer: Trainer, domains: Sequence[str]) -> None:
    """Nothing, if every name and option of a recipe exists; takes no memory.

    Raises:
        OptionError: For the first that does not, before anything is trained.
    """
    adjusted(trainer, recipe)
    transform_of(recipe, plan)
    sampling_of(recipe, plan)
    setting = Setting(list(domains), len(plan.channels), plan.dimensions, len(domains))
    if recipe.test_time is not None:
        target = catalogue.test_time(recipe.test_time)
        catalogue.check_options(recipe.test_time, target, dict(recipe.test_time_options))
    # What a method needs of the data may hold at one site and not at another: that is for each run to say.
    with torch.device("meta"), contextlib.suppress(MethodError):
        build(recipe, plan, setting)


def _without_none(value: Any) -> Any:
    """TOML has no null; what is not set is left out. Tuples become lists."""
    if isinstance(value, dict):
        return {str(k): _without_none(v) for k, v in value.items() if v is not None}
    if isinstance(value, list | tuple):
        return [_without_none(v) for v in value]
    return value
