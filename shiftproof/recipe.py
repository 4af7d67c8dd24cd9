"""A row of a study: everything that is chosen before training, in one value that can be written down."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

from . import catalogue
from .errors import MethodError, OptionError
from .names import choose

if TYPE_CHECKING:
    from torch import nn

    from .data.plan import Plan
    from .methods.method import Method, Setting
    from .tasks.task import Task

PRESETS = ("none", "light", "strong", "heuristic", "random", "policy")
TRANSFORMS_OPTIONS = (
    "mirror_axes", "affine", "pool", "preset", "destroying", "file", "file_hash", "rare", "common"
)  # fmt: skip
SAMPLING_OPTIONS = ("foreground", "background", "batches")

SMALL: dict[str, dict[str, Any]] = {"resnet": {"width": 0.25}}
"""Options of a task's network where a recipe names none: of a size that a laptop trains, as the U-Net's own are."""

REPLICATE_SEEDS = 1000
"""Distance between the seeds of two replicates; a study's own seeds lie below."""

Role = Literal["row", "source-only", "target-supervised"]


@dataclass(frozen=True)
class Recipe:
    """How a model is made.

    Args:
        name: Unique within a study.
        method: Name in the catalogue.
        options: The method's options that differ from its defaults.
        loss: Name of a loss of the task, None for the task's default; `loss_options` its options.
        transforms: Preset of augmentation: "none", "light", "strong", "heuristic", "random", "policy";
            `transforms_options` its options, such as `mirror_axes` where the label tells left from right, and `rare`
            and `common` for asymmetric augmentation. A method that augments by itself has "none".
        sampling: "foreground" (share of patches centred on a structure, or a share for each structure), "background"
            ("anywhere" or "background": where the others are centred) and "batches" ("mixed", "balanced",
            "one domain"; the method's own need where not given).
        network: "name" and options of the network.
        training: Fields of `Trainer` that differ from the study's.
        target: Whether unlabelled images of the held-out domain are used (adaptation rather than generalisation).
        test_time: Name of an adaptation at prediction, `test_time_options` its options.
        role: "row", or a reference: "source-only" or "target-supervised".
        replicate: The same recipe once more with other random numbers: 1, 2, ... train with seeds of their own. Rows
            that differ in this alone show what chance does; see `replicated`.
    """

    name: str
    method: str = "erm"
    options: Mapping[str, Any] = field(default_factory=dict)
    loss: str | None = None
    loss_options: Mapping[str, Any] = field(default_factory=dict)
    transforms: str = "light"
    transforms_options: Mapping[str, Any] = field(default_factory=dict)
    sampling: Mapping[str, Any] = field(default_factory=dict)
    network: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    target: bool = False
    test_time: str | None = None
    test_time_options: Mapping[str, Any] = field(default_factory=dict)
    role: Role = "row"
    replicate: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.replicate < REPLICATE_SEEDS:
            raise OptionError(f"replicate is a number from 0 to {REPLICATE_SEEDS - 1}, got {self.replicate}")
        choose(self.method, catalogue.METHODS, "method")
        choose(self.role, get_args(Role), "role of a row")
        choose(self.transforms, PRESETS, "preset of transforms")
        if self.test_time is not None:
            choose(self.test_time, catalogue.TEST_TIME, "test-time method")
        if self.method in catalogue.OWN_TRANSFORMS:
            if self.transforms not in ("none", "light") or self.transforms_options:
                raise OptionError(
                    f"{self.method} augments by itself; leave transforms and transforms_options out of the row"
                )
            object.__setattr__(self, "transforms", "none")
        for key in self.transforms_options:
            choose(key, TRANSFORMS_OPTIONS, "option of transforms")
        for key in self.sampling:
            choose(key, SAMPLING_OPTIONS, "option of sampling")

    @classmethod
    def parsed(cls, text: str) -> Recipe:
        """From the command line's short form: METHOD[/PRESET][+target][+TEST_TIME].

        `erm/strong`, `dann+target`, `erm/light+tent`; the text is the row's name.
        """
        base, *additions = text.strip().split("+")
        method, _, preset = base.partition("/")
        fields: dict[str, Any] = {"name": text.strip(), "method": method}
        if preset:
            fields["transforms"] = preset
        for addition in additions:
            if addition == "target":
                fields["target"] = True
            else:
                fields["test_time"] = choose(addition, catalogue.TEST_TIME, "test-time method")
        return cls(**fields)

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> Recipe:
        """From a table of a TOML or JSON file.

        Raises:
            OptionError: For unknown keys or values of the wrong kind.
        """
        known = {f.name: f for f in dataclasses.fields(cls)}
        for key, value in table.items():
            choose(key, known, "key of a row")
            kinds = {
                "str": str,
                "bool": bool,
                "int": int,
                "str | None": (str, type(None)),
                "Mapping[str, Any]": Mapping,
            }
            kind = kinds.get(str(known[key].type), str)
            if not isinstance(value, kind):  # type: ignore[arg-type]
                raise OptionError(f"row key {key} expects {known[key].type}, got {value!r}")
        if "name" not in table and "method" not in table:
            raise OptionError('a row needs a "name" or a "method"')
        return cls(**{"name": table.get("method", ""), **table})

    def as_dict(self) -> dict[str, Any]:
        found = dataclasses.asdict(self)
        if not self.replicate:  # what identifies a run is older than replicates
            found.pop("replicate")
        return {key: dict(value) if isinstance(value, Mapping) else value for key, value in found.items()}

    def training_key(self) -> str:
        """Identifies what is trained, whatever it is called and however it predicts: equal keys share a run."""
        table = self.as_dict()
        for key in ("name", "test_time", "test_time_options"):
            table.pop(key)
        if "weights_hash" in table["network"]:
            table["network"].pop("weights", None)
        if "file_hash" in table["transforms_options"]:
            table["transforms_options"].pop("file", None)
        if "policy_hash" in table["options"]:
            table["options"].pop("policy_file", None)
        # A source-only reference and a row with the same recipe are the same training.
        table["role"] = "target" if self.role == "target-supervised" else "row"
        return hashlib.sha256(json.dumps(table, sort_keys=True, default=list).encode()).hexdigest()[:12]

    def seed(self, seed: int) -> int:
        """Seed of training where the study's is `seed`."""
        return seed + REPLICATE_SEEDS * self.replicate

    def pinned(self) -> Recipe:
        """With the hashes of the files that it names, so that equal recipes mean equal trainings.

        Raises:
            ModelError: If weights have changed since they were chosen, or cannot be read.
            OptionError: The same of a policy of augmentation.
        """
        from . import nets

        options = dict(self.transforms_options)
        if options.get("file") is not None:
            from .transforms.policy_files import policy_hash

            options["file_hash"] = policy_hash(options["file"], expected=options.get("file_hash"))
        own, views = dict(self.options), dict(self.test_time_options)
        for table in (own, views):
            if table.get("policy_file") is not None:
                from .transforms.policy_files import policy_hash

                table["policy_hash"] = policy_hash(table["policy_file"], expected=table.get("policy_hash"))
        return dataclasses.replace(
            self,
            options=own,
            network=nets.pinned(self.network),
            transforms_options=options,
            test_time_options=views,
        )

    def setting_words(self) -> str:
        """What the row was allowed to see, for tables."""
        if self.role == "target-supervised":
            return "reference: trained on labels of the held-out domain"
        if self.target:
            return "adaptation: unlabelled images of the held-out domain"
        return "generalisation: held-out domain unseen" + (", adapts while predicting" if self.test_time else "")


def replicated(rows: Sequence[Recipe], times: int) -> list[Recipe]:
    """Each row `times` times under names of their own, "NAME #1" onwards, equal but for the seeds of training.

    A study of these alone is a null study: whatever difference it shows is chance, and no winner may be marked.
    """
    if times < 1:
        raise OptionError(f"replicates must be at least 1, got {times}")
    return [
        dataclasses.replace(row, name=replicate_name(row.name, i), replicate=row.replicate + i)
        for row in rows
        for i in range(times)
    ]


def replicate_name(name: str, number: int) -> str:
    """Of a row's replicate, counted from 0."""
    return f"{name} #{number + 1}"


def mirror_axes(recipe: Recipe, plan: Plan) -> tuple[int, ...]:
    """Axes along which a recipe's augmentation mirrors."""
    given = recipe.transforms_options.get("mirror_axes")
    if recipe.transforms == "none" or (given is None and recipe.transforms in ("none", "light")):
        return ()
    if given is not None:
        return tuple(given)
    if recipe.transforms == "heuristic":  # from right to left alone
        return tuple(axis for axis, end in enumerate((plan.orientation or "LPS")[: plan.dimensions]) if end in "LR")
    return tuple(range(plan.dimensions))


def build(recipe: Recipe, plan: Plan, setting: Setting, *, seed: int = 0, weights: bool = True) -> Method:
    """A fresh method with its network, initialised from the seed.

    Raises:
        MethodError: If the method's needs are not met.
        OptionError: For unknown options.
    """
    import torch

    from . import tasks

    cls = catalogue.method(recipe.method)
    task = tasks.make(plan.target, plan.classes, loss=recipe.loss, options=recipe.loss_options)
    check_needs(recipe, cls, task.name, setting)
    torch.manual_seed(seed)
    network = build_network(recipe, task, setting, plan, weights=weights)
    options = catalogue.check_options(recipe.method, cls, dict(recipe.options))
    return cls(network, task, setting, **options)


def build_network(recipe: Recipe, task: Task, setting: Setting, plan: Plan, *, weights: bool = True) -> nn.Module:
    """The network that a recipe names, or the task's own, as its method needs it.

    Args:
        recipe, task, setting, plan: As the run has them.
        weights: Whether it starts from the file that the recipe names; a trained one needs no such file.

    Raises:
        MethodError: If the method needs an option that the recipe gives another value, or features that the network
            does not give.
        OptionError: If the network serves another task, or an option is unknown.
    """
    from . import nets

    wanted = network_options(recipe, task.name, weights=weights)
    name = wanted.pop("name")
    nets.require_serves(name, task.name)
    network = nets.build(
        name,
        dimensions=setting.dimensions,
        channels=setting.channels,
        outputs=task.outputs,
        patch=plan.patch,
        spacing_mm=plan.spacing_mm[: plan.dimensions],
        **wanted,
    )
    if catalogue.method(recipe.method).needs.features:
        nets.require_cuttable(network, name, recipe.method)
    return network


def network_options(recipe: Recipe, task: str, *, weights: bool = True) -> dict[str, Any]:
    """Name and options of the network that a recipe names, or of the task's own, as its method needs it.

    Raises:
        MethodError: If the method needs an option that the recipe gives another value.
        OptionError: For an option that follows from the plan.
    """
    from . import nets

    needs = catalogue.method(recipe.method).needs
    usual = nets.DEFAULTS[task]
    wanted = {"name": usual, **({} if "name" in recipe.network else SMALL.get(usual, {})), **recipe.network}
    for key, value in needs.network.items():
        if wanted.setdefault(key, value) != value:
            raise MethodError(f"{recipe.method} needs a network with {key}={value!r}, got {wanted[key]!r}")
    if not weights:
        wanted = {key: value for key, value in wanted.items() if key not in ("weights", "weights_hash")}
    for key in ("dimensions", "channels", "outputs", "patch", "spacing_mm"):
        if key in wanted:
            raise OptionError(f'"{key}" of the network follows from the plan; remove it from the recipe')
    return wanted


def check_needs(recipe: Recipe, cls: type[Method], task: str, setting: Setting) -> None:
    """Once, before training."""
    needs, name = cls.needs, recipe.method
    if task not in needs.tasks:
        raise MethodError(f"{name} trains {', '.join(needs.tasks)}, not {task}")
    if setting.sources < needs.sources:
        raise MethodError(
            f"{name} needs at least {needs.sources} labelled training domains, got {setting.sources} "
            f"({', '.join(setting.domains)}); use a cohort with more domains, or a method such as erm"
        )
    if recipe.target and needs.target == "unused":
        users = [m for m in catalogue.METHODS if catalogue.method(m).needs.target != "unused"]
        raise MethodError(f"{name} makes no use of unlabelled target images; methods that do: {', '.join(users)}")
    if not recipe.target and needs.target == "required":
        raise MethodError(f"{name} needs unlabelled target images; write {name}+target")
