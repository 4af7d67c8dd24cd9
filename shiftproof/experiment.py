"""One training run on a divided cohort: from tables to a model folder."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import tomli_w
import torch

from . import catalogue, nets
from .autoplan import completed
from .data.plan import Plan
from .data.sampling import Feed
from .data.splits import Split, set_apart
from .data.store import Case, Store
from .deploy.model import digest, save_model
from .errors import OptionError, RunError
from .files import write_text
from .methods.method import Method, Setting
from .patching import patches_of, setting_of, shares_by_name, transform_of
from .recipe import Recipe, build
from .train import Progress, Run, Trainer
from .training.group import current
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
        self.claim(folder)
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
        if current().first and not (folder / "model").exists():
            facts = {"run": dataclasses.asdict(run), "versions": versions(), "subjects": self.subjects()}
            facts |= information or {}
            save_model(folder / "model", method, self.recipe, self.plan, self.setting, information=facts)
        return run

    def subjects(self) -> dict[str, list[str]]:
        """Who trained, who selected and who was adapted to, as a model folder may tell: digests, no names.

        Subjects that a method validates on while it trains have selected, too: none of them is unseen.
        """
        sides = {
            "train": self.feed.source,
            "validation": [*self.validation, *chain(*self.feed.streams.values())],
            "target": self.feed.target,
        }
        return {side: sorted({digest(case.subject) for case in cases}) for side, cases in sides.items() if cases}

    def claim(self, folder: Path) -> None:
        """Writes `run.toml`, unless the folder holds another run: weights must not pass for those of this one.

        Raises:
            RunError: If they differ in anything that identifies a run.
        """
        path, ours = folder / "run.toml", self.declared()
        begun = any((folder / name).exists() for name in ("state.pt", "run.json", "model"))
        if begun and path.exists():
            theirs = tomllib.loads(path.read_text(encoding="utf-8"))
            # The trainer compares its own settings, and knows which of them may change.
            free = {"trainer", "threads", "versions"}
            changed = sorted(k for k in {*ours, *theirs} - free if ours.get(k) != theirs.get(k))
            if changed:
                raise RunError(
                    f"{folder} holds a run that differs in {', '.join(changed)}; choose another folder (--out), "
                    "or repeat the command that began it to continue"
                )
            if (folder / "state.pt").exists() or (folder / "run.json").exists():
                return
        write_text(path, tomli_w.dumps(ours))

    def declared(self) -> dict[str, Any]:
        """What identifies the run: resolved options, never a class or folder name."""
        cls = catalogue.method(self.recipe.method)
        recipe = self.recipe.pinned()
        options = catalogue.check_options(recipe.method, cls, dict(recipe.options))
        transforms = {key: value for key, value in recipe.transforms_options.items() if key != "file"}
        found = {"options": by_content(options), "transforms_options": transforms, "network": identity(recipe.network)}
        return _without_none(
            {
                "recipe": recipe.as_dict() | found,
                "target": self.plan.target,
                "classes": list(self.plan.classes),
                "context": self.plan.context,
                "trainer": dataclasses.asdict(self.trainer),
                "setting": dataclasses.asdict(self.setting),
                "sampling": {
                    "patch": list(self.feed.patches.size),
                    "foreground": shares_by_name(self.feed.patches.foreground, self.plan.classes),
                    "background": self.feed.patches.background,
                    "source": list(self.feed.patches.source or self.feed.patches.size),
                    "batches": self.feed.batches,
                },
                "subjects": {
                    "train": sorted({c.subject for c in self.feed.source}),
                    "validation": sorted({c.subject for c in self.validation}),
                    "target, without labels": sorted({c.subject for c in self.feed.target}),
                    **{
                        f"{name}, in training": sorted({c.subject for c in cases})
                        for name, cases in self.feed.streams.items()
                    },
                },
                # Content of files, labels and preprocessing: other voxels are another run.
                "cases": sorted(
                    c.key
                    for c in [
                        *self.feed.source,
                        *self.validation,
                        *self.feed.target,
                        *chain(*self.feed.streams.values()),
                    ]
                ),
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
    """
    recipe = completed(recipe, plan)
    trainer = dataclasses.replace(trainer, **recipe.training, seed=recipe.seed(trainer.seed))
    source = store.prepare(split.train, plan, workers=workers, progress=progress)
    held_back = store.prepare(split.validation, plan, workers=workers, progress=progress)
    target: list[Case] = []
    if recipe.target:
        if split.target is None:
            raise OptionError(f'"{recipe.name}" asks for target images, but this division of the cohort has none')
        target = store.prepare(split.target, plan, workers=workers, progress=progress)
    sources = sorted({case.domain for case in source})
    domains = sources + sorted({case.domain for case in target} - set(sources))
    needs = catalogue.method(recipe.method).needs
    streams: dict[str, list[Case]] = {}
    if "validation" in needs.streams:
        source, streams["validation"] = set_apart(source, recipe.method)
    feed = Feed(
        source,
        domains,
        patches_of(recipe, plan),
        size=trainer.batch,
        target=target,
        streams=streams,
        batches=recipe.sampling.get("batches", needs.batches),
        seed=trainer.seed,
    )
    return Experiment(recipe, plan, trainer, setting_of(recipe, plan, domains, len(sources)), feed, held_back)


def identity(network: Mapping[str, Any]) -> dict[str, Any]:
    """What tells a recipe's network from others: of weights their content, not where they lie."""
    return {key: value for key, value in nets.pinned(network).items() if key != "weights"}


def by_content(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a method, without the place of a policy's file where its content is noted."""
    known = options.get("policy_hash") is not None
    return {key: value for key, value in options.items() if not (known and key == "policy_file")}


def _without_none(value: Any) -> Any:
    """TOML has no null; what is not set is left out. Tuples become lists."""
    if isinstance(value, dict):
        return {str(k): _without_none(v) for k, v in value.items() if v is not None}
    if isinstance(value, list | tuple):
        return [_without_none(v) for v in value]
    return value
