"""Losses by name: pure functions `loss(prediction, label, ...) -> (B,)`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ..names import choose

if TYPE_CHECKING:
    from torch import Tensor

LOSSES: dict[str, tuple[str, str]] = {
    "ce": ("segmentation", "cross_entropy"),
    "dice": ("segmentation", "dice"),
    "dice+ce": ("segmentation", "dice_and_cross_entropy"),
    "focal": ("segmentation", "focal"),
    "tversky": ("segmentation", "tversky"),
}
"""Name -> module in this package and function; read lazily, so that a listing does not import torch."""

_ARGUMENTS = ("logits", "label", "ignore", "annotated")


def get(name: str, **options: Any) -> Callable[..., Tensor]:
    """A loss, with some of its options set.

    Raises:
        OptionError: If the name or an option is unknown.
    """
    module, attribute = LOSSES[choose(name, LOSSES, "loss")]
    loss = getattr(import_module(f".{module}", __package__), attribute)
    known = [option for option in inspect.signature(loss).parameters if option not in _ARGUMENTS]
    for option in options:
        choose(option, known, f"option of the loss {name}")
    return partial(loss, **options) if options else loss
