"""Tables beside BIDS images: participants, scanners, names of label values."""

from __future__ import annotations

import csv
import io
import math
from functools import cache
from pathlib import Path
from typing import Any

from ...errors import CohortError
from ..filenames import stem_of
from .found import MOST_JSON, read_json

SCANNER = {
    "Manufacturer": "vendor",
    "ManufacturersModelName": "model",
    "MagneticFieldStrength": "field_strength_t",
}
"""Entries of sidecar files that are columns."""


def participants(place: Path) -> dict[str, dict[str, str]]:
    """Columns by subject (`sub-01`), "n/a" as nothing; empty where there is no `participants.tsv`.

    Raises:
        CohortError: If the table cannot be read as such, or names somebody twice.
    """
    path = place / "participants.tsv"
    if not path.is_file():
        return {}
    people: dict[str, dict[str, str]] = {}
    for row in _rows(path, "participant_id"):
        name = row.pop("participant_id")
        name = name if name.startswith("sub-") else f"sub-{name}"
        if name in people:
            raise CohortError(f"{path} has {name} twice; keep one of the rows")
        people[name] = {_column(k): "" if v.lower() in ("n/a", "nan") else v for k, v in row.items()}
    return people


def units(place: Path) -> dict[str, str]:
    """Units of the columns by `participants.json`; ages are years, as the standard says."""
    found = {"age": "years"}
    path = place / "participants.json"
    for column, entry in read_json(path, "participants.json of BIDS").items() if path.is_file() else ():
        unit = entry.get("Units") if isinstance(entry, dict) else None
        if isinstance(unit, str) and unit:
            found[column] = unit
    return found


class Sidecars:
    """What JSON files say of images; one further up is valid for all below, unless one nearer says otherwise.

    Args:
        place: Folder of the data set.
    """

    def __init__(self, place: Path) -> None:
        self.place = place
        self._read = cache(lambda path: read_json(path, "sidecar file of BIDS"))

    def scanner(self, image: Path) -> dict[str, str]:
        """Vendor, model and field strength of an image."""
        entities = set(stem_of(image).split("_"))
        table: dict[str, Any] = {}
        for folder in reversed([p for p in image.parents if p.is_relative_to(self.place)]):
            fitting = [p for p in folder.glob("*.json") if set(p.stem.split("_")) <= entities]
            for path in sorted(fitting, key=lambda p: len(p.stem.split("_"))):
                if path.stem.split("_")[-1] == stem_of(image).split("_")[-1]:
                    table |= self._read(path)
        return {column: _text(table.get(entry)) for entry, column in SCANNER.items()}


def segment_names(pipeline: Path, labels: list[Path]) -> dict[str, tuple[int, ...]]:
    """Values by name, from the `dseg.tsv` of the pipeline, or those beside its labels.

    Raises:
        CohortError: If two tables differ, or a value is no whole number.
    """
    tables = {p for p in pipeline.glob("*dseg.tsv") if p.stem.split("_")[-1] == "dseg"}
    tables |= {p for label in labels if (p := label.with_name(f"{stem_of(label)}.tsv")).is_file()}
    found: dict[str, tuple[int, ...]] = {}
    for path in sorted(tables):
        for row in _rows(path, "index"):
            name = row.get("name") or row.get("abbreviation") or ""
            try:
                value = int(row["index"])
            except ValueError as error:
                raise CohortError(f"{path} has the index {row['index']!r}, expected a whole number") from error
            if value == 0 or not name:
                continue
            if other := next((n for n, v in found.items() if v == (value,) and n != name), ""):
                raise CohortError(f"{path} calls {value} {name}, and also {other}; keep one of the names")
            if found.setdefault(name, (value,)) != (value,):
                raise CohortError(
                    f"{path} gives {name} the value {value}, another table {found[name][0]}; make them equal"
                )
    return found


def _rows(path: Path, key: str) -> list[dict[str, str]]:
    try:
        if path.stat().st_size > MOST_JSON:
            raise ValueError(f"it has {path.stat().st_size} bytes")
        lines = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8-sig"), newline=""), delimiter="\t"))
    except (OSError, ValueError, csv.Error) as error:
        raise CohortError(f"{path} is no table with tabs ({error}); save it as UTF-8") from error
    header = [cell.strip() for cell in lines[0]] if lines else []
    if key not in header or len(set(header)) < len(header):
        raise CohortError(
            f"{path} has the columns {', '.join(header) or '(none)'}; expected {key} and others, each once"
        )
    wrong = [i for i, line in enumerate(lines[1:], start=1) if line and len(line) != len(header)]
    if wrong:
        raise CohortError(f"{path}: row {wrong[0]} has {len(lines[wrong[0]])} cells, the header {len(header)}")
    rows = [dict(zip(header, (c.strip() for c in line), strict=True)) for line in lines[1:] if line]
    return [{name: cell for name, cell in row.items() if name} for row in rows]


def _column(name: str) -> str:
    """A participants' column under a name that means nothing else in a cohort's table."""
    taken = name in ("subject", "image", "label", "split", "session") or name.startswith("image:")
    return f"participant_{name.replace(':', '_')}" if taken else name


def _text(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return ""
    if isinstance(value, str):
        return " ".join(value.split())[:64]
    return f"{value:g}" if math.isfinite(value) else ""
