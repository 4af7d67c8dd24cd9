"""Networks by name. Each can be cut in two: `encode` gives feature maps, `decode` a prediction.

A network is an `nn.Module` with

- `encoder` and `decoder`, so that half of it can be copied, frozen or optimised alone;
- `widths`, the channels of each feature map;
- `encode(*inputs, between=...)`, a list of maps (B, C, *space), finest first, coarsest last.
  `between(level, features)` sees each map before the next level does and returns what stands
  in its place;
- `decode(features)`, the prediction, for any leading part of the batch.

`forward` is one after the other.
"""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ..names import choose

if TYPE_CHECKING:
    from torch import nn

NETWORKS: dict[str, tuple[str, str]] = {
    "unet": ("unet", "UNet"),
}
"""Name -> module in this package and class; read lazily, so that a listing does not import torch."""

_SIZES = ("dimensions", "channels", "outputs")


def find(name: str) -> type[nn.Module]:
    """The class of a network."""
    module, attribute = NETWORKS[choose(name, NETWORKS, "network")]
    return getattr(import_module(f".{module}", __package__), attribute)  # type: ignore[no-any-return]


def build(name: str, *, dimensions: int, channels: int, outputs: int, **options: Any) -> nn.Module:
    """A network with fresh weights.

    Args:
        name: A key of `NETWORKS`.
        dimensions: 2 or 3.
        channels: Of the image.
        outputs: Channels of the prediction, for segmentation the number of classes.
        options: Keyword arguments of the network's class.

    Raises:
        OptionError: If the name or an option is unknown, or a value is out of range.
    """
    network = find(name)
    known = [option for option in inspect.signature(network).parameters if option not in _SIZES]
    for option in options:
        choose(option, known, f"option of the network {name}")
    return network(dimensions=dimensions, channels=channels, outputs=outputs, **options)
