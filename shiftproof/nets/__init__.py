"""Networks by name. Most can be cut in two: `encode` gives feature maps, `decode` a prediction.

A network is an `nn.Module` called with the image (B, C, *space). One that can be cut has

- `encoder` and `decoder`, so that half of it can be copied, frozen or optimised alone;
- `widths`, the channels of each feature map;
- `encode(*inputs, between=...)`, a list of maps (B, C, *space), finest first, coarsest last.
  `between(level, features)` sees each map before the next level does and returns what stands
  in its place;
- `decode(features)`, the prediction, for any leading part of the batch.

`forward` is then one after the other. Methods that read features need such a network
(`require_cuttable`); the others train any.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import MethodError, OptionError
from ..names import choose, converted
from .planned import planned

if TYPE_CHECKING:
    from torch import nn

    from .weights import Loaded

__all__ = [
    "DEFAULTS",
    "KINDS",
    "NETWORKS",
    "build",
    "cuttable",
    "find",
    "load_weights",
    "margin",
    "margin_of",
    "pinned",
    "planned",
    "require_cuttable",
    "require_serves",
    "weights_hash",
]

NETWORKS: dict[str, tuple[str, str]] = {
    "unet": ("unet", "UNet"),
    "resnet": ("resnet", "ResNet"),
    "basicunet": ("basicunet", "BasicUNet"),
    "dynunet": ("dynunet", "DynUNet"),
    "segresnet": ("segresnet", "SegResNet"),
    "unetr": ("unetr", "UNETR"),
    "attentionunet": ("attentionunet", "AttentionUNet"),
    "densenet121": ("densenet", "DenseNet121"),
    "deepmedic": ("deepmedic", "DeepMedic"),
}
"""Name -> module in this package and class; read lazily, so that a listing does not import torch."""

_DENSE, _WHOLE = ("segmentation",), ("classification", "regression")
KINDS: dict[str, tuple[str, ...]] = {
    "unet": _DENSE,
    "resnet": _WHOLE,
    "basicunet": _DENSE,
    "dynunet": _DENSE,
    "segresnet": _DENSE,
    "unetr": _DENSE,
    "attentionunet": _DENSE,
    "densenet121": _WHOLE,
    "deepmedic": _DENSE,
}
"""Name -> tasks that it serves: scores of every voxel, or (B, outputs) of the whole image."""

DEFAULTS = {"segmentation": "unet", "classification": "resnet", "regression": "resnet"}
"""Task -> network where none is named."""

_SIZES = ("dimensions", "channels", "outputs")
_BY_LEVEL = ("strides", "kernels")
_PLANNED = ("channels", "outputs", "patch", "spacing_mm", "weights", "weights_hash")
_LISTS: dict[Any, Any] = {Sequence[int]: tuple[int, ...], Sequence[int] | None: tuple[int, ...] | None}


def find(name: str) -> type[nn.Module]:
    """The class of a network."""
    module, attribute = NETWORKS[choose(name, NETWORKS, "network")]
    return getattr(import_module(f".{module}", __package__), attribute)  # type: ignore[no-any-return]


def build(
    name: str,
    *,
    dimensions: int,
    channels: int,
    outputs: int,
    patch: Sequence[int] | None = None,
    spacing_mm: Sequence[float | None] | None = None,
    weights: str | Path | None = None,
    weights_hash: str | None = None,
    **options: Any,
) -> nn.Module:
    """A network with fresh weights, or with those of a file.

    Args:
        name: A key of `NETWORKS`.
        dimensions: 2 or 3.
        channels: Of the image.
        outputs: Channels of the prediction, for segmentation the number of classes.
        patch: Voxels that the network will see, as the plan has them. With `spacing_mm` it decides the options
            that are not given and depend on them, such as the strides of a U-Net; see each class.
        spacing_mm: Of these voxels; None for an axis where it is unknown.
        weights: What `load_weights` reads; what the file lacks keeps its fresh weights. The network's attribute
            `loaded` then says in words what came from the file.
        weights_hash: What `nets.weights_hash` must say of that file, where its content is pinned.
        options: Keyword arguments of the network's class.

    Raises:
        OptionError: If the name or an option is unknown, or a value is of the wrong kind or out of range.
        ModelError: If the weights cannot be read, do not fit, or are not the pinned ones.
    """
    network = find(name)
    options = _typed(name, network, options)
    if patch is not None and hasattr(network, "suited"):
        spacing = spacing_mm if spacing_mm is not None else (None,) * dimensions
        options |= network.suited(dimensions, patch, spacing, options)
    automatic = [option for option, value in options.items() if value == "auto"]
    if automatic:
        raise OptionError(f'{automatic[0]} "auto" of {name} follows from a plan, and there is no patch here; give it')
    built = network(dimensions=dimensions, channels=channels, outputs=outputs, **options)
    if weights is not None:
        if weights_hash is not None:
            _require_pinned(Path(weights), weights_hash)
        built.loaded = load_weights(built, weights)  # type: ignore[assignment]
    return built


def margin(name: str, *, dimensions: int, **options: Any) -> tuple[int, ...]:
    """Voxels on each side of its scores that a network must be shown beside them, one number an axis.

    0 for networks that score every voxel of the image; where convolutions are valid, an image of n + 2 * margin
    voxels gives n scores. A built network says the same of itself, see `margin_of`.

    Args:
        name: A key of `NETWORKS`.
        dimensions: 2 or 3.
        options: As `build` takes them; what says nothing of the margin is checked, too.

    Raises:
        OptionError: If the name or an option is unknown, or a value is of the wrong kind or out of range.
    """
    network = find(name)
    options = _typed(name, network, {key: value for key, value in options.items() if key not in _PLANNED})
    if not hasattr(network, "margin_of"):
        return (0,) * dimensions
    return network.margin_of(dimensions, **options)  # type: ignore[no-any-return]


def margin_of(network: nn.Module) -> tuple[int, ...]:
    """Of a built network; () for one that scores every voxel of the image."""
    return tuple(getattr(network, "margin", ()))


def cuttable(network: nn.Module | type[nn.Module]) -> bool:
    """Whether `encode` and `decode` can be called apart."""
    return all(hasattr(network, door) for door in ("encode", "decode"))


def require_cuttable(network: nn.Module, name: str, method: str) -> None:
    """Once, before training, for a method whose `Needs.features` is set.

    Raises:
        MethodError: If the network is whole, with the names of those that can be cut.
    """
    if not cuttable(network):
        others = [n for n in NETWORKS if KINDS[n] == KINDS.get(name, KINDS[n]) and cuttable(find(n))]
        raise MethodError(
            f'{method} reads features between encoder and decoder, and the network "{name}" cannot be cut there; '
            f"networks that can: {', '.join(others)}"
        )


def require_serves(name: str, task: str) -> None:
    """Once, before training.

    Raises:
        OptionError: If the network predicts something else than the task needs.
    """
    choose(name, NETWORKS, "network")
    if task not in KINDS[name]:
        others = [n for n, tasks in KINDS.items() if task in tasks]
        raise OptionError(
            f'the network "{name}" serves {" and ".join(KINDS[name])}, not {task}; '
            f"networks that do: {', '.join(others) or 'none'}"
        )


def load_weights(network: nn.Module, path: str | Path, *, strict: str = "matching") -> Loaded:
    """See `nets.weights.load_weights`."""
    from . import weights

    return weights.load_weights(network, path, strict=strict)


def weights_hash(path: str | Path) -> str:
    """See `nets.weights.weights_hash`."""
    from . import weights

    return weights.weights_hash(path)


def pinned(table: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's network table with the hash of its weights, so that equal tables mean equal networks."""
    if table.get("weights") is None:
        return dict(table)
    found = weights_hash(table["weights"])
    _require_pinned(Path(table["weights"]), table.get("weights_hash", found), found)
    return {**table, "weights_hash": found}


def _require_pinned(path: Path, expected: str, found: str | None = None) -> None:
    from ..errors import ModelError

    found = found or weights_hash(path)
    if found != expected:
        raise ModelError(
            f"{path} has changed since it was chosen (hash {found[:12]}, expected {expected[:12]}); "
            "put the old file back, or start anew with this one"
        )


def _typed(name: str, network: type[nn.Module], options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of the kinds that the class annotates; what stands in strides and kernels is checked by the class."""
    known = [option for option in inspect.signature(network).parameters if option not in _SIZES]
    hints = typing.get_type_hints(network.__init__)
    found = {}
    for option, value in options.items():
        choose(option, known, f"option of the network {name}")
        hint = _LISTS.get(hints[option], hints[option])
        if option in _BY_LEVEL:
            if value not in (None, "auto") and not isinstance(value, list | tuple):
                raise OptionError(f'{option} of {name} expects a list, one entry a level, or "auto", got {value!r}')
            found[option] = value
        else:
            found[option] = converted(f"{option} of {name}", value, hint)
    return found
