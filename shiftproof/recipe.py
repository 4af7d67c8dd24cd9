"""A row of a study: everything that is chosen before training, in one value that can be written down."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

from . import catalogue
from .errors import MethodError, OptionError
from .names import choose

if TYPE_CHECKING:
    from .data.plan import Plan
    from .methods.method import Method, Setting

PRESETS = ("none", "light", "strong")

Role = Literal["row", "source-only", "target-supervised"]


@dataclass(frozen=True)
class Recipe:
    """How a model is made.

    Args:
        name: Unique within a study.
        method: Name in the catalogue.
        options: The method's options that differ from its defaults.
        loss: Name of the task's loss, `loss_options` its options.
        transforms: Preset of augmentation: "none", "light", "strong"; `transforms_options` its options, such as
            `mirror_axes` where the label tells left from right.
        sampling: "foreground" (share of patches centred on a structure) and "batches" ("mixed", "balanced",
            "one domain"; the method's own need where not given).
        network: "name" and options of the network.
        training: Fields of `Trainer` that differ from the study's.
        target: Whether unlabelled images of the held-out domain are used (adaptation rather than generalisation).
        test_time: Name of an adaptation at prediction, `test_time_options` its options.
        role: "row", or a reference: "source-only" or "target-supervised".
    """

    name: str
    method: str = "erm"
    options: Mapping[str, Any] = field(default_factory=dict)
    loss: str = "dice+ce"
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

    def __post_init__(self) -> None:
        choose(self.method, catalogue.METHODS, "method")
        choose(self.role, get_args(Role), "role of a row")
        choose(self.transforms, PRESETS, "preset of transforms")
        if self.test_time is not None:
            choose(self.test_time, catalogue.TEST_TIME, "test-time method")
        for key in self.transforms_options:
            choose(key, ("mirror_axes",), "option of transforms")
        for key in self.sampling:
            choose(key, ("foreground", "batches"), "option of sampling")

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
            kinds = {"str": str, "bool": bool, "str | None": (str, type(None)), "Mapping[str, Any]": Mapping}
            kind = kinds.get(str(known[key].type), str)
            if not isinstance(value, kind):  # type: ignore[arg-type]
                raise OptionError(f"row key {key} expects {known[key].type}, got {value!r}")
        if "name" not in table and "method" not in table:
            raise OptionError('a row needs a "name" or a "method"')
        return cls(**{"name": table.get("method", ""), **table})

    def as_dict(self) -> dict[str, Any]:
        found = dataclasses.asdict(self)
        return {key: dict(value) if isinstance(value, Mapping) else value for key, value in found.items()}

    def training_key(self) -> str:
        """Identifies what is trained, whatever it is called and however it predicts: equal keys share a run."""
        table = self.as_dict()
        for key in ("name", "test_time", "test_time_options"):
            table.pop(key)
        # A source-only reference and a row with the same recipe are the same training.
        table["role"] = "target" if self.role == "target-supervised" else "row"
        return hashlib.sha256(json.dumps(table, sort_keys=True, default=list).encode()).hexdigest()[:12]

    def setting_words(self) -> str:
        """What the row was allowed to see, for tables."""
        if self.role == "target-supervised":
            return "reference: trained on labels of the held-out domain"
        if self.target:
            return "adaptation: unlabelled images of the held-out domain"
        return "generalisation: held-out domain unseen" + (", adapts while predicting" if self.test_time else "")


def build(recipe: Recipe, plan: Plan, setting: Setting, *, seed: int = 0) -> Method:
    """A fresh method with its network, initialised from the seed.

    Raises:
        MethodError: If the method's needs are not met.
        OptionError: For unknown options.
    """
    import torch

    from . import nets
    from .tasks.segmentation import Segmentation

    cls = catalogue.method(recipe.method)
    task = Segmentation(plan.classes, loss=recipe.loss, options=recipe.loss_options)
    check_needs(recipe, cls, task.name, setting)
    wanted = {"name": "unet", **recipe.network}
    for key, value in cls.needs.network.items():
        if wanted.setdefault(key, value) != value:
            raise MethodError(f"{recipe.method} needs a network with {key}={value!r}, got {wanted[key]!r}")
    torch.manual_seed(seed)
    network = nets.build(
        wanted.pop("name"),
        dimensions=setting.dimensions,
        channels=setting.channels,
        outputs=task.outputs,
        **wanted,
    )
    options = catalogue.check_options(recipe.method, cls, dict(recipe.options))
    return cls(network, task, setting, **options)


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
