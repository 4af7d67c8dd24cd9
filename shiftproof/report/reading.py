"""Reading the folders of studies and evaluations; what is missing or broken is named, and is no end."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pandas as pd

from ..errors import RunError
from ..files import NAMES, read_rows
from .results import COLUMNS, Cell, Results

DECLARED = {
    "name", "cohort", "cohort_hash", "domain_column", "domains", "held_out", "seeds", "budget", "primary", "margin",
    "tolerance_mm", "task", "versions", "command",
}  # fmt: skip


def read_results(root: Path) -> Results:
    """Read the folder of a study or of an evaluation.

    Raises:
        RunError: If it is neither, or a file of it cannot be read.
    """
    root = Path(root)
    if (root / "study.json").exists() or (root / "halving.json").exists():
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
    rows: pd.DataFrame,
    facts: dict[str, Any],
    *,
    subjects: pd.DataFrame | None = None,
    root: Path | None = None,
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


def declared(root: Path) -> dict[str, Any]:
    """Facts of a large study whose confirmation has not begun, from halving.json: all of study.json but its rows."""
    facts = read_facts(root / "halving.json")
    return {k: v for k, v in facts.items() if k in DECLARED}


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
    """Read a study folder; cells that failed or have not run are there as such.

    A large study whose rungs still run has no study.json yet: what is known of it stands in halving.json.
    """
    facts = read_facts(root / "study.json") if (root / "study.json").exists() else declared(root)
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
    """A cell that is done but whose results cannot be read is a failed one, with that as its error."""
    row, held_out, number = folder.parts[-3:]
    facts: dict[str, Any] = {"status": "not run"}
    rows = pd.DataFrame()
    try:
        if (folder / "cell.json").exists():
            facts = read_facts(folder / "cell.json")
        row, held_out = str(facts.get("row", row)), str(facts.get("held_out", held_out))
        seed = int(facts.get("seed", number))
        if facts.get("status") == "done":
            rows = read_rows(folder / "rows.csv")
            given: dict[str, Any] = {"row": row, "held_out": held_out, "seed": seed}
            rows = tidy(rows.assign(**{k: v for k, v in given.items() if k not in rows}))
    except (OSError, ValueError) as error:
        seed = int(number) if number.isdecimal() else 0
        facts, rows = {"status": "failed", "error": f"results cannot be read: {error}"}, pd.DataFrame()
    validation = facts.get("validation")
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
        validation=validation if isinstance(validation, dict) else {},
        notes=[str(line) for line in facts.get("notes") or []],
    )
    return cell, rows


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
    defaults: dict[str, Any] = {"row": "predictions", "seed": 0, "status": "ok"}
    rows = rows.assign(**{k: v for k, v in defaults.items() if k not in rows})
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
