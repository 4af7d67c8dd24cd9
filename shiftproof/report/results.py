"""What a study, or a user's own predictions, left behind: read once, missing parts tolerated."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pandas as pd

COLUMNS = ["row", "held_out", "seed", "subject", "domain", "structure", "metric", "value", "status"]


@dataclass(frozen=True)
class Cell:
    """One run of the grid: a row, a held-out domain, a seed."""

    row: str
    held_out: str
    seed: int
    status: str  # "done", "failed" or, for what the grid names and the folder lacks, "not run"
    error: str = ""
    seconds: float = math.nan
    steps: int | None = None
    parameters: int | None = None
    run: Path | None = None
    folder: Path | None = None
    validation: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Results:
    """Rows and the facts around them; all that a page is made of."""

    kind: Literal["study", "evaluation"]
    facts: dict[str, Any]  # study.json
    rows: pd.DataFrame  # COLUMNS
    cells: list[Cell] = field(default_factory=list)
    subjects: pd.DataFrame | None = None  # subject, domain, image columns, label; `prediction` in an evaluation
    root: Path | None = None  # the study folder

    @property
    def primary(self) -> str:
        return str(self.facts.get("primary", "dice"))

    @property
    def domain_word(self) -> str:
        return str(self.facts.get("domain_column") or "domain")

    @property
    def segments(self) -> bool:
        """Whether scans have structures; else each has one answer."""
        return bool((self.facts.get("task") or {}).get("task", "segmentation") == "segmentation")

    @property
    def recipes(self) -> list[dict[str, Any]]:
        """One a row, in the study's order; rows that only the results name come last."""
        named = [r for r in self.facts.get("rows", []) if isinstance(r, dict) and "name" in r]
        known = {r["name"] for r in named}
        found = [name for name in self.rows["row"].drop_duplicates() if name not in known]
        return named + [{"name": name, "role": "row"} for name in found]

    @property
    def held_out(self) -> list[str]:
        """Held-out domains in the study's order, with those that only the rows name."""
        named = [str(d) for d in self.facts.get("held_out", [])]
        return named + sorted(set(self.rows["held_out"]) - set(named))

    @property
    def domains(self) -> list[str]:
        """All domains, sorted: the order that decides their colours."""
        return sorted({*(str(d) for d in self.facts.get("domains", [])), *self.held_out, *self.rows["domain"]})

    @property
    def structures(self) -> list[str]:
        return list(self.rows["structure"].drop_duplicates())

    @property
    def metrics(self) -> list[str]:
        """The primary metric first, then as they come."""
        return sorted(self.rows["metric"].drop_duplicates(), key=lambda m: m != self.primary)

    @property
    def seeds(self) -> list[int]:
        return sorted({*(int(s) for s in self.facts.get("seeds", [])), *(int(s) for s in self.rows["seed"])})
