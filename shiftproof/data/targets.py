"""Labels that are cells of the table: a class, several findings, or a number for each scan."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from ..errors import LabelError
from ..files import write_text
from ..names import choose
from .labels import LabelMap, read_toml

TaskName = Literal["segmentation", "classification", "regression"]
Kind = Literal["multi-class", "ordinal", "multi-label"]

KEYS = {
    "classification": ("task", "kind", "column", "classes"),
    "regression": ("task", "column", "unit"),
}


@dataclass(frozen=True)
class Targets:
    """What the table says of each scan, where the label is no file.

    Args:
        task: "classification" or "regression".
        column: Of the class or the number; of several findings the part of their columns' names before ":".
        classes: Names; for "ordinal" from least to most. Empty for regression.
        kind: "multi-class": a cell names the one class. "ordinal": as that, and the classes are in order.
            "multi-label": columns "COLUMN:CLASS" hold 1 (present), 0 (absent) or nothing (not annotated).
        unit: Of the number.

    Raises:
        LabelError: If a value has no meaning.
    """

    task: str
    column: str
    classes: tuple[str, ...] = ()
    kind: str = "multi-class"
    unit: str = ""

    def __post_init__(self) -> None:
        if self.task not in KEYS:
            raise LabelError(f"a table's cells are labels of {' or '.join(KEYS)}, got the task {self.task!r}")
        if not self.column or self.column in ("subject", "image", "split") or self.column.startswith("image:"):
            raise LabelError(f"a {self.task} reads its labels from a column of their own, got {self.column!r}")
        if self.task == "regression":
            return
        try:
            choose(self.kind, get_args(Kind), "kind of classification")
        except ValueError as error:
            raise LabelError(str(error)) from error
        least = 1 if self.kind == "multi-label" else 2
        if len(self.classes) < least or len(set(self.classes)) < len(self.classes) or not all(self.classes):
            raise LabelError(
                f"a {self.kind} classification needs at least {least} classes of different names, "
                f'got {list(self.classes)}; for example ["benign", "malignant"]'
            )

    @classmethod
    def from_dict(cls, table: Mapping[str, Any], name: str = "labels") -> Targets:
        """From what `as_dict` gives, or a parsed `labels.toml`; `name` is what errors call it."""
        task = table.get("task")
        known = KEYS.get(str(task), ())
        unknown = sorted(set(table) - set(known))
        if unknown:
            raise LabelError(f'{name}: "{unknown[0]}" is no entry of a {task}; known: {", ".join(known)}')
        classes = table.get("classes", [])
        texts = [task, table.get("column", ""), table.get("kind", ""), table.get("unit", "")]
        if not all(isinstance(t, str) for t in texts) or not isinstance(classes, list | tuple):
            raise LabelError(f"{name}: column, kind and unit are text, classes a list of names")
        if not all(isinstance(c, str) for c in classes):
            raise LabelError(f'{name}: classes are names in quotes, got {classes!r}; for example ["0", "1"]')
        try:
            return cls(
                str(task),
                table.get("column", ""),
                tuple(classes),
                table.get("kind", "multi-class"),
                table.get("unit", ""),
            )
        except LabelError as error:
            raise LabelError(f"{name}: {error}") from error

    def as_dict(self) -> dict[str, Any]:
        """As in the file."""
        table = {"task": self.task, "column": self.column}
        if self.task == "regression":
            return table | ({"unit": self.unit} if self.unit else {})
        return table | {"kind": self.kind, "classes": list(self.classes)}

    def write(self, path: Path | str, *, notes: Mapping[str, Any] | None = None) -> None:
        """Write `labels.toml`."""
        lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in self.as_dict().items()]
        write_text(Path(path), "\n".join(lines) + "\n")

    @property
    def columns(self) -> list[str]:
        """Of the table, one for each finding in "multi-label"."""
        several = self.task == "classification" and self.kind == "multi-label"
        return [f"{self.column}:{name}" for name in self.classes] if several else [self.column]

    @property
    def structures(self) -> list[str]:
        """What results are listed by."""
        return list(self.classes) if self.task == "classification" else [self.column]

    def of(self, cells: Mapping[str, str], who: str) -> np.ndarray | None:
        """The label of one row.

        Args:
            cells: By column, as text.
            who: What errors call the row.

        Returns:
            A class index (), int64; of "multi-label" (K,) float32 with NaN where not annotated; a number (),
            float32; None without a label.

        Raises:
            LabelError: If a cell has no meaning.
        """
        texts = [cells[column] for column in self.columns]
        if not any(texts):
            return None
        if self.task == "regression":
            return np.array(_number(texts[0], f"{who}: {self.column}"), np.float32)
        if self.kind != "multi-label":
            if texts[0] not in self.classes:
                raise LabelError(
                    f'{who}: {self.column} is "{texts[0]}", which is no class of labels.toml; '
                    f"there are {', '.join(self.classes)}"
                )
            return np.array(self.classes.index(texts[0]), np.int64)
        found = []
        for column, text in zip(self.columns, texts, strict=True):
            number = math.nan if not text else _number(text, f"{who}: {column}")
            if not math.isnan(number) and number not in (0, 1):
                raise LabelError(f"{who}: {column} is {text}, expected 1 (present), 0 (absent) or nothing (unknown)")
            found.append(number)
        return np.array(found, np.float32)

    def annotated(self, target: np.ndarray) -> np.ndarray:
        """(K,) bool, of which classes a label says something."""
        if self.task == "classification" and self.kind == "multi-label":
            return ~np.isnan(target)
        return np.ones(max(len(self.classes), 1), bool)


Labels = LabelMap | Targets
"""What the labels of a cohort mean: values of files, or cells of its table."""


def target_of(labels: Labels | None) -> dict[str, Any]:
    """What labels are of, in the words of a plan: task, kind, and of a number column and unit."""
    if isinstance(labels, Targets):
        if labels.task == "regression":
            return {"task": labels.task, "column": labels.column, "unit": labels.unit}
        return {"task": labels.task, "kind": labels.kind}
    return {"task": "segmentation", "kind": "multi-class" if labels is None else labels.kind}


def read_labels(path: Path | str) -> Labels:
    """Read a `labels.toml` of any task.

    Raises:
        LabelError: If the file is missing, no TOML, or says something that has no meaning.
    """
    return labels_from(read_toml(path), str(path))


def labels_from(table: Mapping[str, Any], name: str = "labels") -> Labels:
    """From a parsed `labels.toml`."""
    task = table.get("task", "segmentation")
    if task not in get_args(TaskName):
        raise LabelError(f"{name}: there is no task {task!r}; known: {', '.join(get_args(TaskName))}")
    if task == "segmentation":
        return LabelMap.from_dict({k: v for k, v in table.items() if k != "task"}, name)
    return Targets.from_dict(table, name)


def _number(text: str, where: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.inf
    if not abs(number) <= np.finfo(np.float32).max:
        raise LabelError(f'{where} is "{text}", expected a number; leave the cell empty where it is unknown')
    return number
