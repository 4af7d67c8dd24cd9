"""Names and values that people type, and what to say when there is no such thing."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterable
from typing import Any

from .errors import OptionError


def choose(name: str, known: Iterable[str], kind: str) -> str:
    """`name`, if it is known.

    Raises:
        OptionError: If not, with the nearest name.
    """
    known = list(known)
    if name in known:
        return name
    near = difflib.get_close_matches(name, known, n=1)
    hint = f'did you mean "{near[0]}"? ' if near else ""
    raise OptionError(f'there is no {kind} "{name}"; {hint}known: {", ".join(known)}')


def converted(name: str, value: Any, hint: Any) -> Any:
    """`value` as the annotation of an option asks for it: a whole number may stand for a float, a list for a tuple.

    Raises:
        OptionError: If it is of another kind.
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return choose(str(value), arguments, f"value of {name}")
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in arguments:
            return None
        (only,) = [a for a in arguments if a is not type(None)]
        return converted(name, value, only)
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(converted(name, v, arguments[0]) for v in value)
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if isinstance(hint, type) and isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
        return value
    raise OptionError(f"{name} expects {type_name(hint)}, got {value!r} ({type(value).__name__})")


def type_name(annotation: Any) -> str:
    """An annotation, as people read it."""
    if isinstance(annotation, str):
        return annotation
    return annotation.__name__ if isinstance(annotation, type) else str(annotation).replace("typing.", "")
