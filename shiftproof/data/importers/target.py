"""A column of the table as the label: a class, several findings, or a number."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ...errors import CohortError
from ..labels import nearest
from ..targets import Targets

if TYPE_CHECKING:
    import pandas


def targets_of(table: pandas.DataFrame, column: str, classes: list[str] | None, *, unit: str = "") -> Targets:
    """What the column asks for.

    Columns "COLUMN:CLASS" are findings that may occur together. Where every cell is a number, more than two
    different ones occur and no classes are named, the task is regression; all else is classification, with
    the classes in the order of the alphabet unless they are given.

    Raises:
        CohortError: If there is no such column, or not two different values in it.
    """
    findings = [str(c).partition(":")[2] for c in table.columns if str(c).startswith(f"{column}:")]
    if findings:
        return Targets("classification", column, tuple(classes or findings), "multi-label")
    if column not in table:
        raise CohortError(
            f'there is no column "{column}" for --target; {nearest(column, list(map(str, table.columns)))}'
        )
    cells = sorted({str(cell) for cell in table[column]} - {""})
    if len(cells) < 2:
        raise CohortError(f'column "{column}" has {len(cells)} different values, expected at least 2 to learn from')
    if classes is None and len(cells) > 2 and all(map(_is_number, cells)):
        return Targets("regression", column, unit=unit)
    unknown = sorted(set(cells) - set(classes or cells))
    if unknown:
        raise CohortError(f'column "{column}" has {unknown[0]!r}, which --classes does not name; add it')
    return Targets("classification", column, tuple(classes or cells))


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
