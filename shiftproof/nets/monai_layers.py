"""How MONAI is told what the networks here are told; MONAI itself is imported where a network is built."""

from __future__ import annotations

from collections.abc import Iterable
from math import gcd
from typing import Any, get_args

from ..names import choose
from .layers import SLOPE, Norm

LEAKY = ("leakyrelu", {"inplace": True, "negative_slope": SLOPE})


def monai_norm(norm: Norm, widths: Iterable[int], title: str) -> Any:
    """MONAI's word for a norm; one number of groups serves all widths, 8 or fewer where 8 does not divide them.

    Raises:
        OptionError: For an unknown norm.
    """
    choose(norm, get_args(Norm), f"norm of a {title}")
    if norm == "group":
        return ("group", {"num_groups": gcd(8, *widths)})
    return {"instance": ("instance", {"affine": True}), "batch": "batch", "none": ""}[norm]


def monai_relu(norm: Norm) -> Any:
    """For pre-activation blocks: without a norm before it, working in place would change the shortcut, too."""
    return ("relu", {"inplace": norm != "none"})
