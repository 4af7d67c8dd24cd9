"""Where the jobs of a study run.

An engine is a module of two functions. `require(**options)` checks what can be checked beforehand;
`work(folder, jobs, *, workers, report, poll, **options)` works the jobs off, writes down what fails, and says how far
it is.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from ...names import choose

ENGINES = {"local": "local", "ray": "cluster"}
"""Modules of this package by the name that people type; read when asked for."""


class Report(Protocol):
    """How far an engine is.

    Args:
        finished: Jobs that ended, failed ones included.
        running: Keys of jobs under way.
        workers: Jobs that run at a time, as far as the engine knows.
        steps: Steps of jobs whose record cannot be read in the study's folder, by key.
        repeated: Jobs that were started again because their worker was lost.
    """

    def __call__(
        self,
        finished: int,
        running: Sequence[str],
        *,
        workers: int = 0,
        steps: Mapping[str, int] = {},
        repeated: int = 0,
    ) -> None: ...


def engine(name: str) -> Callable[..., None]:
    """The engine's `work`.

    Raises:
        OptionError: If there is none of this name.
    """
    found: Callable[..., None] = _module(name).work
    return found


def require(name: str, **options: Any) -> None:
    """Checks what can be checked before anything is prepared: the engine's name, its options, what it needs.

    Raises:
        OptionError: If there is no such engine, it does not know an option, or a library is missing.
        RunError: If it cannot be reached.
    """
    _module(name).require(**options)


def _module(name: str) -> Any:
    return importlib.import_module(f".{ENGINES[choose(name, ENGINES, 'engine')]}", __package__)
