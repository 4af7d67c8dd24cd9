"""The methods by name. An explicit dict, read lazily: nothing here imports torch."""

from __future__ import annotations

import importlib
import inspect
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .names import choose, converted, type_name

if TYPE_CHECKING:
    from .methods.method import Method

METHODS = {
    "erm": "shiftproof.methods.erm:ERM",
    "dann": "shiftproof.methods.dann:DANN",
    "mldg": "shiftproof.methods.mldg:MLDG",
    "group_dro": "shiftproof.methods.group_dro:GroupDRO",
    "mean_teacher": "shiftproof.methods.mean_teacher:MeanTeacher",
    "adversarial": "shiftproof.methods.adversarial:AdversarialTraining",
    "mixup": "shiftproof.methods.mixup:Mixup",
    "asymmetric_combination": "shiftproof.methods.asymmetric_combination:AsymmetricCombination",
    "learned_augmentation": "shiftproof.methods.learned_augmentation:LearnedAugmentation",
}

OWN_TRANSFORMS = ("learned_augmentation",)
"""Methods whose `Needs.own_transforms` is set: a recipe knows it without loading them."""

TEST_TIME = {
    "tent": "shiftproof.testtime.tent:tent",
    "learned_views": "shiftproof.testtime.learned_views:learned_views",
}


def method(name: str) -> type[Method]:
    """The class of a method."""
    return _load(METHODS, name, "method")  # type: ignore[no-any-return]


def test_time(name: str) -> Callable[..., Any]:
    """A function from a trained method to a predictor that adapts."""
    return _load(TEST_TIME, name, "test-time method")  # type: ignore[no-any-return]


test_time.__test__ = False  # type: ignore[attr-defined]  # its name looks like a test's


def _load(table: dict[str, str], name: str, kind: str) -> Any:
    module, attribute = table[choose(name, table, kind)].split(":")
    return getattr(importlib.import_module(module), attribute)


@dataclass(frozen=True)
class Option:
    """An option of a method: the signature is the schema."""

    name: str
    type: str
    default: Any
    help: str


def options(target: Callable[..., Any]) -> list[Option]:
    """The keyword-only arguments of a method's class or of a test-time function, with their docstring's words."""
    words = argument_docs(inspect.getdoc(target) or "")
    return [
        Option(p.name, type_name(p.annotation), p.default, words.get(p.name, ""))
        for p in inspect.signature(target).parameters.values()
        if p.kind is p.KEYWORD_ONLY
    ]


def check_options(name: str, target: Callable[..., Any], given: dict[str, Any]) -> dict[str, Any]:
    """All options of a method: those given, checked by name and type, and the defaults.

    Raises:
        OptionError: For a name that the method does not have or a value of the wrong kind.
    """
    hints = typing.get_type_hints(target.__init__ if inspect.isclass(target) else target)
    resolved = {o.name: o.default for o in options(target)}
    for key, value in given.items():
        choose(key, resolved, f"option of {name}")
        resolved[key] = converted(f"{name}.{key}", value, hints[key])
    return resolved


def argument_docs(doc: str) -> dict[str, str]:
    """The `Args:` section of a Google-style docstring, by argument."""
    lines = doc.split("\n")
    if "Args:" not in lines:
        return {}
    found: dict[str, list[str]] = {}
    current: list[str] = []
    for line in lines[lines.index("Args:") + 1 :]:
        if line.startswith("    ") and not line.startswith("     ") and ":" in line:
            name, _, rest = line.strip().partition(":")
            current = found.setdefault(name, [rest.strip()])
        elif line.startswith("     "):
            current.append(line.strip())
        elif line.strip():
            break
    return {name: " ".join(words) for name, words in found.items()}
