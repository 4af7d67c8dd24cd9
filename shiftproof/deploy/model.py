"""The model folder: weights in safetensors, everything else in JSON; nothing in it can be executed."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from .. import catalogue, nets
from ..autoplan import completed
from ..data.plan import Plan
from ..errors import ModelError, OptionError
from ..files import storing, write_json, write_text
from ..methods.method import Method, Setting
from ..names import choose
from ..recipe import Recipe, build, mirror_axes
from ..tasks.task import Predict, Task
from ..train import device_of
from ..versions import versions

FORMAT = 1
CURE = "copy the whole model folder again"
WEIGHTS, DESCRIPTION, CARD = "weights.safetensors", "model.json", "card.md"
POLICY = "policy.json"
"""What `Method.files` may add: an augmentation that was learned, to be looked at and used again."""
FILES = {WEIGHTS, DESCRIPTION, CARD, POLICY}
KEYS = {
    "format": int,
    "shiftproof": str,
    "recipe": dict,
    "plan": dict,
    "setting": dict,
    "classes": list,
    "channels": list,
    "weights_sha256": str,
    "extra_state": dict,
    "information": dict,
}
"""The content of `model.json`, no more and no less, with the type of each value."""

_TUPLES = ("patch", "spacing_mm")


@dataclass(frozen=True)
class Model:
    """A trained method and what is needed to use it on raw images.

    Args:
        predict: From preprocessed samples to a prediction: the method's own, or the adaptation that its
            recipe names.
        task: What a prediction means.
        plan: Preprocessing.
        device: Where it computes.
        content: Hash of weights and preprocessing.
        folder: Where it was loaded from.
        method: In evaluation mode; None for a user's TorchScript, likewise `recipe` and `setting`.
        information: What the folder says about itself: versions, held-out results.
        margin: Voxels that its network is shown around what it scores, see `nets.margin`; () for none.
    """

    predict: Predict
    task: Task
    plan: Plan
    device: torch.device
    content: str
    folder: Path
    method: Method | None = None
    recipe: Recipe | None = None
    setting: Setting | None = None
    information: Mapping[str, Any] = field(default_factory=dict)
    margin: tuple[int, ...] = ()

    @property
    def hash(self) -> str:
        """Of everything that the predictions depend on."""
        if self.recipe is None:
            return digest(self.content)
        table = self.recipe.as_dict()
        names = ("method", "options", "network", "test_time", "test_time_options")
        return digest(self.content, *[table[name] for name in names])

    @property
    def classes(self) -> list[str]:
        return list(self.plan.classes)

    @property
    def channels(self) -> list[str]:
        return list(self.plan.channels)

    @property
    def mirror_axes(self) -> tuple[int, ...]:
        """Axes along which training mirrored images.

        Raises:
            OptionError: If there are none.
        """
        axes = mirror_axes(self.recipe, self.plan) if self.recipe is not None else ()
        if not axes:
            raise OptionError(
                f"{self.folder} was trained without mirroring, so mirror images are strange to it; predict without "
                "flips, or train with the transforms strong or mirror_axes"
            )
        return axes

    def with_recipe(self, recipe: Recipe) -> Model:
        """The same weights, predicting as another row with the same training does.

        Raises:
            ModelError: If that row is trained otherwise.
        """
        recipe = completed(recipe, self.plan)
        if self.method is None or self.recipe is None or recipe.training_key() != self.recipe.training_key():
            trained = f'the recipe "{self.recipe.name}"' if self.recipe else "another tool"
            raise ModelError(f'{self.folder} was trained by {trained}, which "{recipe.name}" does not share')
        return dataclasses.replace(self, predict=predictor(self.method, recipe), recipe=recipe)


def predictor(method: Method, recipe: Recipe) -> Predict:
    """How a trained method predicts under a recipe: as it is, or adapting to what it is given."""
    if recipe.test_time is None:
        return method.predict
    adapt = catalogue.test_time(recipe.test_time)
    predict: Predict = adapt(method, **catalogue.check_options(recipe.test_time, adapt, dict(recipe.test_time_options)))
    return predict


# Writing ---------------------------------------------------------------------------------------------------


def save_model(
    folder: Path,
    method: Method,
    recipe: Recipe,
    plan: Plan,
    setting: Setting,
    *,
    information: dict[str, Any] | None = None,
) -> None:
    """Writes a model folder, whole or not at all; an older one at the same place is replaced.

    Args:
        folder: Does not exist yet, is empty, or is a model folder.
        method: Trained; its parameters, buffers and extra states are kept.
        recipe: How to build it again.
        plan: Preprocessing, with the statistics of the training domains.
        setting: What it knew of the data.
        information: Facts for people: versions, held-out results. Must be JSON.

    Raises:
        ModelError: If an extra state of the method is not JSON, or the folder holds other files.
        StorageError: If the disk is full or not writable.
    """
    tensors, extra = divided(method.state_dict())
    description = {
        "format": FORMAT,
        "shiftproof": versions()["shiftproof"],
        "recipe": recipe.as_dict(),
        "plan": json.loads(plan.to_json()),
        "setting": dataclasses.asdict(setting),
        "classes": list(plan.classes),
        "channels": list(plan.channels),
        "extra_state": extra,
        "information": information or {},
    }
    with replacing_folder(Path(folder)) as temporary:
        save_file(tensors, temporary / WEIGHTS)
        (temporary / WEIGHTS).chmod(0o644)  # safetensors keeps files to their owner
        description["weights_sha256"] = sha256(temporary / WEIGHTS)
        write_json(temporary / DESCRIPTION, description)
        for name, text in method.files().items():
            write_text(temporary / choose(name, FILES - {WEIGHTS, DESCRIPTION, CARD}, "file of a method"), text)


def divided(state: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """A state dict as tensors that share no memory, and the extra states, which must survive JSON unchanged.

    Raises:
        ModelError: For an extra state that JSON would change: a set, a tuple, keys that are no text.
    """
    tensors: dict[str, Tensor] = {}
    extra: dict[str, Any] = {}
    for name, value in state.items():
        if isinstance(value, Tensor):
            # safetensors knows neither views nor tied weights; each name gets a tensor of its own.
            tensors[name] = value.detach().to("cpu", copy=True).contiguous()
            continue
        try:
            if json.loads(json.dumps(value)) != value:
                raise TypeError("JSON changes it")
        except (TypeError, ValueError) as error:
            raise ModelError(
                f"the extra state {name!r} cannot be written as JSON ({error}); "
                "let get_extra_state return text, numbers, lists and dicts with text as keys"
            ) from error
        extra[name] = value
    return tensors, extra


@contextlib.contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder beside `folder`, which takes its place when the block ends well.

    Raises:
        ModelError: If `folder` holds anything but a model: it would be lost.
    """
    if folder.exists():
        inside = set(os.listdir(folder)) if folder.is_dir() else {folder.name}
        others = sorted(inside - FILES)
        if others:
            raise ModelError(f"{folder} holds other files ({_some(others)}); choose a new folder for the model")
    with storing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            temporary.chmod(0o755)
            yield temporary
            if folder.exists():
                # Two renames: a process killed between them leaves both models beside each other, whole.
                old = Path(tempfile.mkdtemp(prefix=f".{folder.name}.old.", dir=folder.parent))
                os.replace(folder, old)
                os.replace(temporary, folder)
                shutil.rmtree(old, ignore_errors=True)
            else:
                os.replace(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def add_information(folder: Path, information: Mapping[str, Any]) -> None:
    """Adds facts for people to a model folder; predictions do not depend on them."""
    description = read_description(folder)
    description["information"] = {**description["information"], **information}
    write_json(Path(folder) / DESCRIPTION, description)


# Reading ---------------------------------------------------------------------------------------------------


def load_model(folder: Path, *, device: str = "auto") -> Model:
    """A model folder, ready to predict.

    Args:
        folder: As `save_model` wrote it.
        device: "cpu", "cuda" or "auto".

    Raises:
        ModelError: If a file is missing, damaged, from another model or of another version.
    """
    folder = Path(folder)
    description = read_description(folder)
    strangers = sorted(name for name in set(os.listdir(folder)) - FILES if name[0] != ".")
    if strangers:
        # Nothing would read them; but what is handed on as a model should be one, and nothing else.
        raise ModelError(f"{folder} holds files that are no part of a model ({_some(strangers)}); move them away")
    weights = folder / WEIGHTS
    if not weights.is_file():
        raise ModelError(f"{folder} has no {WEIGHTS}; {CURE}")
    if sha256(weights) != description["weights_sha256"]:
        raise ModelError(f"{weights} is damaged or belongs to another model; {CURE}")
    try:
        tensors = load_file(weights)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{weights} cannot be read as safetensors ({error})") from error

    try:
        recipe = Recipe.from_dict(description["recipe"])
        plan = Plan.from_json(json.dumps(description["plan"]))
        facts: dict[str, Any] = dict(description["setting"])
        setting = Setting(**facts | {k: tuple(facts[k]) for k in _TUPLES if k in facts})
        # Building draws fresh weights; the caller's random numbers must not depend on it.
        with torch.random.fork_rng(devices=[]):
            method = build(recipe, plan, setting, weights=False)
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError, OverflowError, MemoryError) as error:
        why = " ".join(str(error).split())[:300]  # some of torch's have several lines
        raise ModelError(
            f"{folder / DESCRIPTION} does not describe a model that this version can build ({why})"
        ) from error
    if list(plan.classes) != description["classes"] or list(plan.channels) != description["channels"]:
        raise ModelError(f"{folder / DESCRIPTION} contradicts itself: its plan has other classes or channels")
    _fill(method, tensors, description["extra_state"], weights)
    where = torch.device(device_of(device))
    method.to(where).eval().requires_grad_(False)
    return Model(
        predictor(method, recipe),
        method.task,
        plan,
        where,
        digest(*[description[key] for key in ("weights_sha256", "plan", "extra_state")]),
        folder,
        method,
        recipe,
        setting,
        description["information"],
        nets.margin_of(method.network),
    )


def read_description(folder: Path) -> dict[str, Any]:
    """The content of `model.json`, checked.

    Raises:
        ModelError: If there is none, or not such a one.
    """
    path = Path(folder) / DESCRIPTION
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ModelError(
            f"{folder} is not a model folder: it has no {DESCRIPTION}; "
            "`shiftproof train` and `shiftproof deliver` write such folders"
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} cannot be read as JSON ({error}); {CURE}") from error
    if not isinstance(found, dict) or not isinstance(found.get("format"), int):
        raise ModelError(f"{path} is not a model's description: it names no format")
    if found["format"] != FORMAT:
        raise ModelError(
            f"{path} has format {found['format']}, written by shiftproof {found.get('shiftproof', '?')}; "
            f"this version reads format {FORMAT}"
        )
    missing, unknown = sorted(KEYS.keys() - found.keys()), sorted(found.keys() - KEYS.keys())
    wrong = [k for k, kind in KEYS.items() if k in found and not isinstance(found[k], kind)]
    if missing or unknown or wrong:
        faults = {"lacks": missing, "has unknown keys": unknown, "has values of the wrong kind for": wrong}
        words = "; ".join(f"{fault} {', '.join(keys)}" for fault, keys in faults.items() if keys)
        raise ModelError(f"{path} {words}; {CURE}")
    return found


def _fill(method: Method, tensors: dict[str, Tensor], extra: dict[str, Any], path: Path) -> None:
    """Weights into a fresh method, after a look at every name and shape."""
    expected, fresh = divided(method.state_dict())
    fault = "does not fit the recipe of its folder"
    missing, unknown = sorted(expected.keys() - tensors.keys()), sorted(tensors.keys() - expected.keys())
    if missing or unknown:
        raise ModelError(f"{path} {fault}: it lacks {_some(missing)} and has unknown {_some(unknown)}; {CURE}")
    for name, tensor in tensors.items():
        ours = expected[name]
        if (tensor.shape, tensor.dtype) != (ours.shape, ours.dtype):
            found, wanted = (f"{tuple(t.shape)} {t.dtype}" for t in (tensor, ours))
            raise ModelError(f"{path} {fault}: {name} is {found}, expected {wanted}; {CURE}")
    if extra.keys() != fresh.keys():
        raise ModelError(f"{path} {fault}: extra states {_some(extra)}, expected {_some(fresh)}; {CURE}")
    method.load_state_dict({**tensors, **extra})


def sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(*values: Any) -> str:
    """Of values that JSON can hold, 16 hexadecimal digits."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=dict).encode()).hexdigest()[:16]


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:3]) + (f" and {len(listed) - 3} more" if len(listed) > 3 else "") or "none"
