"""Tasks by name, and the one that a plan records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ..names import choose

if TYPE_CHECKING:
    from .task import Task

TASKS: dict[str, dict[str, str]] = {
    "segmentation": {
        "multi-class": "segmentation:Segmentation",
        "multi-label": "multi_label:MultiLabelSegmentation",
    },
    "classification": dict.fromkeys(("multi-class", "ordinal", "multi-label"), "classification:Classification"),
    "regression": {"": "regression:Regression"},
}
"""Name -> kind -> module in this package and class; read lazily, so that a listing does not import torch."""


def make(
    target: Mapping[str, Any],
    classes: Sequence[str],
    *,
    loss: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Task:
    """The task that a plan records.

    Args:
        target: "task" ("segmentation" where absent) and, for segmentation and classification, "kind" ("multi-class"
            where absent); "parts" of overlapping structures; "column", "unit", "mean" and "sd" of a regression.
        classes: Names of the classes; regression has none.
        loss: Name of a loss; None takes the task's `default_loss`.
        options: Options of the loss.

    Raises:
        OptionError: For an unknown task, kind, loss or option.
        LabelError: For classes or numbers that the task cannot have.
    """
    name = choose(str(target.get("task", "segmentation")), TASKS, "task")
    kinds = TASKS[name]
    kind = choose(str(target.get("kind", next(iter(kinds)))), kinds, f"kind of {name}")
    module, attribute = kinds[kind].split(":")
    task = getattr(import_module(f".{module}", __package__), attribute)
    chosen = {"loss": loss, "options": options}
    if name == "regression":
        facts = {key: target[key] for key in ("unit", "mean", "sd") if key in target}
        return task(target["column"], **facts, **chosen)  # type: ignore[no-any-return]
    if name == "classification":
        return task(classes, kind=kind, **chosen)  # type: ignore[no-any-return]
    if kind == "multi-label":
        return task(classes, target["parts"], **chosen)  # type: ignore[no-any-return]
    return task(classes, **chosen)  # type: ignore[no-any-return]
