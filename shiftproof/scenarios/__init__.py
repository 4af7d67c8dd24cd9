"""Embedded cohorts whose shift is known: real subjects, simulated acquisition.

folder = shiftproof.scenarios.make("brain-sites", "cohort", size="2d")
cohort = Cohort.read(folder / "table.csv")
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import OptionError

if TYPE_CHECKING:
    from .scenario import Progress, Scenario

MODULES = {  # each holds its scenario as SCENARIO
    "brain-lesions": "shiftproof.scenarios.brain_lesions",
    "brain-sites": "shiftproof.scenarios.brain_sites",
    "chest-ct-sites": "shiftproof.scenarios.chest_ct_sites",
    "digit-sites": "shiftproof.scenarios.digit_sites",
    "liver-tumours": "shiftproof.scenarios.liver_tumours",
}


def names() -> list[str]:
    return sorted(MODULES)


def get(name: str) -> Scenario:
    """The scenario of that name: its description, what shifts, its licence and its hashes."""
    if name not in MODULES:
        near = get_close_matches(name, MODULES, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names())}"
        raise OptionError(f"no scenario is called {name!r}; {hint}")
    return import_module(MODULES[name]).SCENARIO


def make(
    name: str,
    folder: str | Path,
    *,
    size: str = "2d",
    subjects: int | None = None,
    seed: int = 0,
    sites: Sequence[str] | None = None,
    workers: int = 1,
    progress: Progress | None = None,
) -> Path:
    """Write the scenario's cohort into `folder` and return it; see `Scenario.make` for the options."""
    return get(name).make(
        folder, size=size, subjects=subjects, seed=seed, sites=sites, workers=workers, progress=progress
    )
