"""Tables of scans: files in, text in every cell, and the columns that a cohort needs."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import CohortError
from .labels import nearest

if TYPE_CHECKING:
    import pandas

SPLITS = ("train", "validation", "test")


def require_columns(table: pandas.DataFrame, domain: str) -> None:
    names = [str(c) for c in table.columns]
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise CohortError(f'column "{twice[0]}" occurs {names.count(twice[0])} times; rename or remove the others')
    for name, what in {"subject": "who was scanned", domain: "the domain"}.items():
        if name not in names:
            cure = "rename it, or name the domain column with --domain" if name == domain else "rename it, or add one"
            raise CohortError(f'there is no column "{name}" ({what}); {nearest(name, names)}; {cure}')
        empty = [i + 1 for i, value in enumerate(table[name]) if not value]
        if empty:
            raise CohortError(f'column "{name}" is empty in row {_some(empty)}; fill it, or remove the rows')
    several = [n for n in names if n.startswith("image:")]
    if "image" in names and several:
        raise CohortError(f'columns "image" and "{several[0]}" together; name one channel "image", or all "image:NAME"')
    if "image" not in names and not several:
        raise CohortError(
            f'there is no column "image"; {nearest("image", names)}; name one "image", or "image:NAME" for each channel'
        )
    if "image:" in several:
        raise CohortError('column "image:" names no channel; for example image:T1')
    images = table[several or ["image"]]
    none = [i + 1 for i, row in enumerate(images.itertuples(index=False)) if not any(row)]
    if none:
        raise CohortError(f"row {_some(none)} has no image; fill it, or remove the rows")
    if "split" in names:
        wrong = sorted(set(table["split"]) - {"", *SPLITS})
        if wrong:
            raise CohortError(
                f'column "split" has "{wrong[0]}"; expected {", ".join(SPLITS)} or nothing; {nearest(wrong[0], SPLITS)}'
            )


def file_columns(table: pandas.DataFrame) -> list[str]:
    return [str(c) for c in table.columns if c in ("image", "label") or str(c).startswith("image:")]


def read_table(path: Path) -> pandas.DataFrame:
    import pandas

    if not path.exists():
        others = sorted(p.name for p in path.parent.glob("*.csv")) if path.parent.is_dir() else []
        hint = nearest(path.name, others) if others else "`shiftproof cohort import FOLDER` makes one"
        raise CohortError(f"{path} does not exist; {hint}")
    if path.suffix == ".parquet":
        import pyarrow

        try:
            # Nullable types: a column of whole numbers with an empty cell would become 1.0, 2.0 otherwise.
            # As text at once: some damage shows only when cells are read.
            return as_text(pandas.read_parquet(path, dtype_backend="numpy_nullable"))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, pyarrow.ArrowException) as error:
            why = " ".join(str(error).split())  # some have several lines
            raise CohortError(f"{path} is no readable Parquet file: {why}") from error
    if path.suffix not in (".csv", ".tsv"):
        raise CohortError(f"{path} is no table known here; expected .csv or .parquet")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise CohortError(f"{path} is not in UTF-8 (byte {error.start}); save it as CSV UTF-8") from error
    except OSError as error:
        raise CohortError(f"{path} cannot be read: {error.strerror}") from error
    # Spreadsheets in many countries write semicolons.
    first = text.partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    try:
        lines = [line for line in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if any(line)]
    except csv.Error as error:
        raise CohortError(f"{path} is no valid CSV: {error}") from error
    if not lines:
        raise CohortError(f"{path} is empty; expected a header with the columns subject, image, label and a domain")
    header = [name.strip() for name in lines[0]]
    for number, line in enumerate(lines[1:], start=1):
        if len(line) != len(header):
            raise CohortError(
                f"{path}: row {number} has {len(line)} cells, the header {len(header)}; "
                "put quotes around cells with a comma"
            )
    return pandas.DataFrame(lines[1:], columns=header, dtype=object)


def as_text(table: pandas.DataFrame) -> pandas.DataFrame:
    """Every cell as text without surrounding space, "" where there is nothing."""
    import pandas

    if table.columns.has_duplicates:
        return table
    columns = {
        str(name): [
            "" if value is None or value is pandas.NA or value != value else str(value).strip()
            for value in table[name].tolist()
        ]
        for name in table.columns
    }
    return pandas.DataFrame(columns, dtype=object)


def relative_to(path: Path, folder: Path) -> str:
    path = Path(os.path.normpath(path))
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)


def _some(numbers: Sequence[int]) -> str:
    shown = ", ".join(str(n) for n in numbers[:5])
    return f"{shown} and {len(numbers) - 5} more" if len(numbers) > 5 else shown
