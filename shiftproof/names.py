"""Names that people type, and what to say when there is no such thing."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

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
