"""Losses by name and by what they serve: pure functions `loss(prediction, label, ...) -> (B,)`."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ..errors import OptionError
from ..names import choose, converted

if TYPE_CHECKING:
    from torch import Tensor

LOSSES: dict[str, dict[str, tuple[str, str]]] = {
    "segmentation": {
        "ce": ("segmentation", "cross_entropy"),
        "dice": ("segmentation", "dice"),
        "dice+ce": ("segmentation", "dice_and_cross_entropy"),
        "focal": ("segmentation", "focal"),
        "tversky": ("segmentation", "tversky"),
        "f_beta": ("imbalance", "f_beta"),
        "large_margin": ("imbalance", "large_margin"),
        "rare_focal": ("imbalance", "rare_focal"),
        "margin_focal": ("imbalance", "margin_focal"),
        "margin_focal+dice": ("imbalance", "margin_focal_and_dice"),
    },
    "multi-label segmentation": {
        "bce": ("structures", "binary_cross_entropy"),
        "dice": ("structures", "dice"),
        "dice+bce": ("structures", "dice_and_binary_cross_entropy"),
        "focal": ("structures", "focal"),
        "f_beta": ("imbalance_structures", "f_beta"),
        "large_margin": ("imbalance_structures", "large_margin"),
        "rare_focal": ("imbalance_structures", "rare_focal"),
        "margin_focal": ("imbalance_structures", "margin_focal"),
        "margin_focal+dice": ("imbalance_structures", "margin_focal_and_dice"),
    },
    "classification": {
        "ce": ("classification", "cross_entropy"),
        "focal": ("classification", "focal"),
        "large_margin": ("classification", "large_margin"),
        "rare_focal": ("classification", "rare_focal"),
        "margin_focal": ("classification", "margin_focal"),
    },
    "ordinal classification": {
        "corn": ("ordinal", "corn"),
        "emd": ("ordinal", "earth_mover"),
    },
    "multi-label classification": {
        "bce": ("multi_label", "binary_cross_entropy"),
        "focal": ("multi_label", "focal"),
        "large_margin": ("multi_label", "large_margin"),
        "rare_focal": ("multi_label", "rare_focal"),
        "margin_focal": ("multi_label", "margin_focal"),
    },
    "regression": {
        "huber": ("regression", "huber"),
        "l1": ("regression", "absolute_error"),
        "mse": ("regression", "squared_error"),
    },
}
"""What is predicted -> name -> module in this package and function; read lazily, so that a listing imports no torch."""

_ARGUMENTS = ("logits", "prediction", "label", "ignore", "annotated", "silent")


def get(name: str, serves: str = "segmentation", /, **options: Any) -> Callable[..., Tensor]:
    """A loss, with some of its options set.

    Args:
        name: Such as "ce"; the same name may be another function elsewhere.
        serves: What is predicted, a key of `LOSSES`.
        options: Keyword arguments of the function.

    Raises:
        OptionError: If the name or an option is unknown, the loss serves something else, or what is a number or true or
            false by the function's annotations is given as something else.
    """
    known = LOSSES[choose(serves, LOSSES, "target of a loss")]
    others = [family for family, names in LOSSES.items() if name in names]
    if name not in known and others:
        raise OptionError(
            f'the loss "{name}" serves {" and ".join(others)}, not {serves}; known there: {", ".join(known)}'
        )
    module, attribute = known[choose(name, known, "loss")]
    loss = getattr(import_module(f".{module}", __package__), attribute)
    allowed = [option for option in inspect.signature(loss).parameters if option not in _ARGUMENTS]
    hints = typing.get_type_hints(loss)
    for option, value in options.items():
        choose(option, allowed, f"option of the loss {name}")
        if hints[option] in (bool, float):  # "false" would count as true
            options[option] = converted(f"{name}.{option}", value, hints[option])
    return partial(loss, **options) if options else loss
