"""What a study, or a user's own predictions, left behind: read once, missing parts tolerated."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from ..errors import RunError

COLUMNS = ["row", "held_out", "seed", "subject", "domain", "structure", "metric", "value", "status"]
NAMES = ["row", "held_out", "subject", "domain", "structure", "metric", "status"]


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


def read_results(root: Path) -> Results:
    """Read the folder of a study or of an evaluation.

    Raises:
        RunError: If it is neither, or a file of it cannot be read.
    """
    root = Path(root)
    if (root / "study.json").exists():
        return read_study(root)
    if (root / "evaluation.json").exists():
        return read_evaluation(root)
    raise RunError(
        f"{root} holds no study.json and no evaluation.json, expected a folder that `shiftproof study` or "
        "`shiftproof evaluate` wrote"
    )


def read_evaluation(root: Path) -> Results:
    """Read what `shiftproof evaluate` wrote: rows.csv, subjects.csv, evaluation.json."""
    facts = read_facts(root / "evaluation.json")
    try:
        rows = read_rows(root / "rows.csv")
    except (OSError, ValueError) as error:
        raise RunError(f"{root / 'rows.csv'} cannot be read ({error}); `shiftproof evaluate` writes it anew") from None
    return evaluation(rows, facts, subjects=read_subjects(root), root=root)


def evaluation(
    rows: pd.DataFrame, facts: dict[str, Any], *, subjects: pd.DataFrame | None = None, root: Path | None = None
) -> Results:
    """Results of predictions that no study made.

    Args:
        rows: Tidy results; `row`, `held_out` and `seed` may be missing.
        facts: As in evaluation.json; what is not there is not on the page.
        subjects: Where the files lie: columns `subject`, `domain`, `image`, `label`, `prediction`.
        root: Where relative paths begin.

    Raises:
        RunError: If `rows` lacks a column.
    """
    made = (facts.get("model") or {}).get("folder") or facts.get("predictions") or "predictions"
    named = rows if "row" in rows else rows.assign(row=Path(str(made)).name)
    return Results("evaluation", facts, tidy(named), subjects=subjects, root=root)


def read_facts(path: Path) -> dict[str, Any]:
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise RunError(f"{path} cannot be read ({error}); the command that wrote it writes it anew") from None
    if not isinstance(facts, dict):
        raise RunError(f"{path} holds a {type(facts).__name__}, expected an object")
    return facts


def read_subjects(root: Path) -> pd.DataFrame | None:
    path = root / "subjects.csv"
    return pd.read_csv(path, dtype=str, keep_default_na=False) if path.exists() else None


def read_study(root: Path) -> Results:
    """Read a study folder; cells that failed or have not run are there as such."""
    facts = read_facts(root / "study.json")
    cells, tables = [], []
    for folder in sorted(p for p in root.glob("cells/*/*/*") if p.is_dir()):
        cell, rows = read_cell(root, folder)
        cells.append(cell)
        if cell.status == "done":
            tables.append(rows)
    return Results(
        kind="study",
        facts=facts,
        rows=tidy(pd.concat(tables) if tables else pd.DataFrame(columns=COLUMNS)),
        cells=complete(facts, cells),
        subjects=read_subjects(root),
        root=root,
    )


def read_cell(root: Path, folder: Path) -> tuple[Cell, pd.DataFrame]:
    """A cell whose results cannot be read is a failed cell, with that as its error."""
    row, held_out, seed = folder.parts[-3:]
    try:
        facts = json.loads((folder / "cell.json").read_text(encoding="utf-8"))
        rows = read_rows(folder / "rows.csv") if facts.get("status") == "done" else pd.DataFrame()
    except (OSError, ValueError) as error:
        missing = isinstance(error, FileNotFoundError)
        status, reason = ("not run", "") if missing else ("failed", f"results cannot be read: {error}")
        facts, rows = {"status": status, "error": reason}, pd.DataFrame()
    row, held_out = str(facts.get("row", row)), str(facts.get("held_out", held_out))
    seed = int(facts.get("seed", seed if seed.isdecimal() else 0))
    validation = facts.get("validation")
    if not isinstance(validation, dict):
        validation = {} if validation is None else {"validation": validation}
    cell = Cell(
        row=row,
        held_out=held_out,
        seed=seed,
        status=str(facts.get("status", "failed")),
        error=str(facts.get("error") or ""),
        seconds=float(facts.get("seconds") or math.nan),
        steps=facts.get("steps"),
        parameters=facts.get("parameters"),
        run=root / str(facts["run"]) if facts.get("run") else None,
        folder=folder,
        validation=validation,
    )
    return cell, rows.assign(**{k: v for k, v in place(cell).items() if k not in rows})


def read_rows(path: Path) -> pd.DataFrame:
    """Names stay text: a subject "007" is not 7, and a site "NA" is not a missing one."""
    rows = pd.read_csv(path, dtype=dict.fromkeys(NAMES, str), keep_default_na=False, na_values={"value": ["", "nan", "NaN"]})
    return rows.astype({"value": float})


def place(cell: Cell) -> dict[str, Any]:
    return {"row": cell.row, "held_out": cell.held_out, "seed": cell.seed}


def complete(facts: dict[str, Any], cells: list[Cell]) -> list[Cell]:
    """The cells in the grid's order, with those that the folder lacks as "not run"."""
    found = {(c.row, c.held_out, c.seed): c for c in cells}
    grid = [
        (str(recipe["name"]), str(held_out), int(seed))
        for recipe in facts.get("rows", [])
        for held_out in facts.get("held_out", [])
        for seed in facts.get("seeds", [])
    ]
    listed = [found.pop(key, Cell(*key, status="not run")) for key in grid]
    return listed + [found[key] for key in sorted(found)]


def tidy(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows with all of COLUMNS, names as text.

    Raises:
        RunError: If a column is missing that no rule can fill.
    """
    rows = rows.reset_index(drop=True)
    if "domain" in rows and "held_out" not in rows:
        rows = rows.assign(held_out=rows["domain"])
    rows = rows.assign(**{k: v for k, v in {"row": "predictions", "seed": 0, "status": "ok"}.items() if k not in rows})
    lacking = [c for c in COLUMNS if c not in rows]
    if lacking:
        raise RunError(f"results without {', '.join(lacking)}, expected the columns {', '.join(COLUMNS)}")
    return rows[COLUMNS].astype({**dict.fromkeys(NAMES, str), "seed": int, "value": float})


def read_record(run: Path | None) -> list[dict[str, Any]]:
    """The lines of a run's record.jsonl; a last line that a kill cut short is left out."""
    path = run / "record.jsonl" if run is not None else None
    if path is None or not path.exists():
        return []
    lines = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            found = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(found, dict) and "step" in found:
            lines.append(found)
    return lines
