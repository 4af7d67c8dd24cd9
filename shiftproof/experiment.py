"""One training run on a divided cohort: from tables to a model folder."""

from __future__ import annotations

import dataclasses
import math
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import tomli_w
import torch

from . import catalogue, nets, tasks
from .autoplan import completed
from .data.plan import Plan
from .data.sampling import Feed, Patches
from .data.splits import Split, shuffled
from .data.store import Case, Store
from .deploy.model import digest, save_model
from .errors import OptionError, RunError, SplitError
from .files import write_text
from .losses.rare import rare_indices
from .methods.method import Method, Setting
from .names import choose, converted
from .recipe import Recipe, build, build_network, check_needs, network_options
from .train import Progress, Run, Trainer
from .training.group import current
from .transforms.policy_files import rare_when_learned
from .transforms.presets import preset
from .transforms.transform import Transform
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
        source, streams["validation"] = apart(source, recipe.method)
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


def setting_of(recipe: Recipe, plan: Plan, domains: list[str], sources: int) -> Setting:
    spacing = tuple(s for s in plan.spacing_mm[: plan.dimensions] if s is not None)
    return Setting(domains, plan.inputs, plan.dimensions, sources, read_of(recipe, plan), spacing, plan.orientation)


def patches_of(recipe: Recipe, plan: Plan) -> Patches:
    """How a recipe has patches cut.

    Raises:
        OptionError: For shares of structures that the cohort does not have, or that are none.
    """
    given = recipe.sampling.get("foreground", Patches.foreground)
    foreground: float | dict[int, float]
    if plan.task != "segmentation" and (isinstance(given, Mapping) or "background" in recipe.sampling):
        raise OptionError(f"sampling places patches around structures; in {plan.task} a scan is shown whole")
    if isinstance(given, Mapping):
        if plan.target.get("kind") == "multi-label":
            raise OptionError("sampling.foreground is one share where structures overlap, got one of each structure")
        structures = list(plan.classes[1:])
        foreground = {
            1 + structures.index(choose(name, structures, "structure of sampling.foreground")): converted(
                f"sampling.foreground.{name}", share, float
            )
            for name, share in given.items()
        }
    else:
        foreground = converted("sampling.foreground", given, float)
    return Patches(
        tuple(plan.patch),
        foreground,
        plan.context,
        plan.task != "segmentation",
        source_of(recipe, plan),
        recipe.sampling.get("background", Patches.background),
        "border" if any(margin_of(recipe, plan)) else "zeros",
    )


VALIDATION_SHARE = 4
"""One of so many training subjects of a domain is a method's own validation subject."""


def apart(source: Sequence[Case], method: str) -> tuple[list[Case], list[Case]]:
    """Training cases and those that a method validates on while it trains, by subject and within each domain.

    They are taken from the training side, so that a method which learns from them has seen no more labels than the
    others; which ones does not depend on the seed of training.

    Raises:
        SplitError: If there is a single subject.
    """
    subjects: dict[str, list[str]] = {}
    for case in source:
        if not any(case.subject in seen for seen in subjects.values()):  # who was scanned twice counts once
            subjects.setdefault(case.domain, []).append(case.subject)
    chosen = {
        subject
        for domain, its_own in subjects.items()
        for subject in shuffled(its_own, SEED_APART)[: len(its_own) // VALIDATION_SHARE]
    }
    if not chosen:  # few subjects: the largest domain gives one
        most = max(subjects.values(), key=len)
        chosen = set(shuffled(most, SEED_APART)[:1]) if sum(map(len, subjects.values())) > 1 else set()
    if not chosen:
        raise SplitError(
            f"{method} validates on training subjects while it trains and needs at least 2 of them, got 1; use a "
            "larger fraction of the cohort, or another method"
        )
    return [c for c in source if c.subject not in chosen], [c for c in source if c.subject in chosen]


SEED_APART = 17


def shares_by_name(shares: float | Mapping[int, float], classes: Sequence[str]) -> float | dict[str, float]:
    return shares if not isinstance(shares, Mapping) else {classes[k]: share for k, share in shares.items()}


REACH = {2: 1.5, 3: 1.25}
"""Largest side of what is cut for augmentation, in patches: beyond, hardly a voxel is gained, but much is read."""


def source_of(recipe: Recipe, plan: Plan) -> tuple[int, ...] | None:
    """Size that is cut for augmentation to turn and shrink, so that few voxels come from beyond its border.

    Where a network reads more than it scores, that comes on top. None where a patch is enough: without spatial
    changes, and where a scan has one label and is shown whole.
    """
    if plan.task != "segmentation":
        return None
    reach, read = REACH[plan.dimensions], read_of(recipe, plan)
    method = catalogue.method(recipe.method)
    if method.needs.own_transforms:
        wanted = method.source_patch(read, **catalogue.check_options(recipe.method, method, dict(recipe.options)))
    else:
        wanted = transform_of(recipe, plan).source_patch(read)
    source = tuple(min(n, math.ceil(reach * w)) for n, w in zip(wanted, read, strict=True))
    return source if source != tuple(plan.patch) else None


def margin_of(recipe: Recipe, plan: Plan) -> tuple[int, ...]:
    """Voxels on each side of its scores that the recipe's network must be shown; see `nets.margin`."""
    options = network_options(recipe, plan.task, weights=False)
    return nets.margin(options.pop("name"), dimensions=plan.dimensions, **options)


def read_of(recipe: Recipe, plan: Plan) -> tuple[int, ...]:
    """Voxels of a training patch, as the recipe's network reads it."""
    return tuple(n + 2 * m for n, m in zip(plan.patch, margin_of(recipe, plan), strict=True))


KINDS: dict[str, Any] = {
    "mirror_axes": tuple[int, ...], "affine": bool, "destroying": bool, "pool": str, "preset": str, "file": str
}  # fmt: skip
"""What some options of transforms are; the others are checked for what they mean."""


def transform_of(recipe: Recipe, plan: Plan) -> Transform:
    spacing = [s for s in plan.spacing_mm[: plan.dimensions] if s is not None]
    options = dict(recipe.transforms_options)
    for name in [name for name in KINDS if options.get(name) is not None]:
        options[name] = converted(f"transforms_options.{name}", options[name], KINDS[name])
    if options.pop("file_hash", None) is not None:
        recipe.pinned()  # refuses a file that has changed
    if options.get("file") is not None and "rare" not in options and (kinds := rare_when_learned(options["file"])):
        options["rare"] = list(kinds)
    if "rare" in options or "common" in options:
        options["rare"] = rare_drawn(options.get("rare"), plan)
    return preset(
        recipe.transforms,
        dimensions=plan.dimensions,
        patch=read_of(recipe, plan),
        # Where a scan has one label, that does not move.
        spatial=("image", "label", "ignore") if plan.task == "segmentation" else ("image",),
        # nnU-Net's limit for treating a volume as a stack of slices.
        anisotropic=max(spacing) > 3 * min(spacing),
        spacing_mm=spacing,
        orientation=plan.orientation,
        **options,
    )


def rare_drawn(rare: Sequence[str] | None, plan: Plan) -> tuple[int, ...]:
    """Values of `extra["drawn"]`, or of the label of a whole scan, that belong to a rare class.

    Raises:
        OptionError: For a name that is no class, none where a scan has one class (no class is a background then), or a
            task without classes.
    """
    if plan.task not in ("segmentation", "classification"):
        raise OptionError(f"rare and common of transforms are for classes, and {plan.task} has none; leave them out")
    if rare is None and plan.task == "classification" and plan.target.get("kind") != "multi-label":
        raise OptionError(
            f"augmentation by class asks which of the classes {', '.join(plan.classes)} are rare; add "
            f'rare = ["{plan.classes[-1]}"] to transforms_options, or leave out common'
        )
    indices = rare_indices(rare, plan.classes, background=plan.task == "segmentation")
    if plan.target.get("kind") == "multi-label" and plan.task == "segmentation":  # a patch is centred on a combination
        return tuple(i for i, part in enumerate(plan.target["parts"]) if any(part[k - 1] for k in indices))
    return indices


MANY = 64
"""Training domains where their number is not known: a method that holds some of them out must not be refused."""


def require_sound(recipe: Recipe, plan: Plan) -> None:
    """What can be found wrong with a recipe before any run: unknown options and classes, values of the wrong kind.

    Raises:
        OptionError: With the row's name.
    """
    recipe = completed(recipe, plan)
    try:
        cls = catalogue.method(recipe.method)
        options = catalogue.check_options(recipe.method, cls, dict(recipe.options))
        if recipe.test_time is not None:
            adapt = catalogue.test_time(recipe.test_time)
            catalogue.check_options(recipe.test_time, adapt, dict(recipe.test_time_options))
        setting = setting_of(recipe, plan, ["a", "b"], 2)
        task = tasks.make(plan.target, plan.classes, loss=recipe.loss, options=recipe.loss_options)
        # How many training domains there are depends on the one that is held out.
        check_needs(recipe, cls, task.name, dataclasses.replace(setting, sources=max(2, cls.needs.sources)))
        with torch.device("meta"):  # takes no memory
            network = build_network(recipe, task, setting, plan, weights=False)
        many = setting_of(recipe, plan, [f"domain {i}" for i in range(MANY)], MANY)
        cls(network, task, many, **options).require_files()  # and its own checks: rare classes, lengths, shares
        if recipe.network.get("weights") is not None:
            build_network(recipe, task, setting, plan)
        task.loss(*task.blank((2,) * plan.dimensions))
        if "seed" in recipe.training:
            raise OptionError("seeds are the study's, the same for every row; remove training.seed")
        for key in recipe.training:
            choose(key, [f.name for f in dataclasses.fields(Trainer)], "setting of the trainer")
        Trainer(**recipe.training)
        transform_of(recipe, plan)
        patches_of(recipe, plan)
        batches = recipe.sampling.get("batches", "mixed")
        choose(str(batches), ("mixed", "balanced", "one domain"), "value of sampling.batches")
    except (OptionError, TypeError, ValueError, RuntimeError) as error:
        raise OptionError(f'row "{recipe.name}": {error}') from error


def require_batch(recipe: Recipe, trainer: Trainer, domains: Sequence[str]) -> None:
    """What can be found wrong with a batch's size before any run.

    Raises:
        OptionError: If a batch has to hold every training domain and is smaller than their number, or the method mixes
            samples and there are too few.
    """
    cls = catalogue.method(recipe.method)
    batches = recipe.sampling.get("batches", cls.needs.batches)
    size = int(recipe.training.get("batch", trainer.batch))
    if batches == "balanced" and size < len(domains):
        raise OptionError(
            f'row "{recipe.name}": a batch of {size} cannot hold each of the {len(domains)} training domains, which '
            f"{recipe.method} compares; use a batch of at least {len(domains)}"
        )
    least = cls.least_batch(**catalogue.check_options(recipe.method, cls, dict(recipe.options)))
    if size < least:
        raise OptionError(
            f'row "{recipe.name}": {recipe.method} mixes samples of a batch with each other and needs {least} of them, '
            f"got {size}; use a larger batch"
        )


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
