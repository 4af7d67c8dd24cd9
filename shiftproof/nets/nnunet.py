"""Weights of nnU-Net's U-Nets under the names of ours: two versions of its program, one and the same network."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

import torch
from torch import Tensor

_BLOCK = re.compile(r"(encoder|decoder)\.levels\.(\d+)\.layers\.(\d+)\.(\w+)")
_REST = re.compile(r"decoder\.(upsamplings|heads)\.(\d+)\.(\w+)")
_JOINED = re.compile(r"decoder\.levels\.\d+\.layers\.0\.weight")
"""What reads the skip and the map from below."""

_COPIES = (".all_modules.", "decoder.encoder.")
"""Version 2 lists some tensors twice, under the sequence of a block's layers and under the decoder."""


def under_our_names(theirs: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A checkpoint's tensors, those of nnU-Net's networks under the names of a `UNet`; others as they are.

    The decoder's first convolutions read the map from below before the skip, ours after it: their channels are
    exchanged. A bias that they do not have is one of 0. Biases before a norm, which subtracts them again, have no
    place in a `UNet` without `bias`; those of transposed convolutions (version 2) do matter: build it with `bias=True`.

    Args:
        theirs: The checkpoint, whatever stands before its names.
        own: State dict of the network that is to take it.

    Returns:
        As `theirs`, where it is no checkpoint of theirs.
    """
    for names in (first(own), second(own)):
        start = _beginning(theirs, names.values())
        if start is not None:
            return _taken(theirs, own, names, start)
    return dict(theirs)


def first(own: Mapping[str, Tensor]) -> dict[str, str]:
    """Names of version 1's "generic U-Net" by ours.

    The last convolution of a level stands apart, except in the encoder above the lowest level.
    """
    found = {}
    for name, (half, level, layer, index, end) in _blocks(own).items():
        lowest, last = level == _lowest(own), index == _convolutions(own) - 1
        kind = {"conv": "conv", "norm": "instnorm"}[layer]
        inner = f"1.blocks.0.{kind}.{end}" if last else f"0.blocks.{index}.{kind}.{end}"
        if half == "encoder":
            inner = inner if lowest else f"blocks.{index}.{kind}.{end}"
            found[name] = f"conv_blocks_context.{level}.{inner}"
        else:
            found[name] = f"conv_blocks_localization.{_lowest(own) - 1 - level}.{inner}"
    return found | _others(own, {"upsamplings": "tu", "heads": "seg_outputs"})


def second(own: Mapping[str, Tensor]) -> dict[str, str]:
    """Names of version 2's "plain convolutional U-Net" by ours."""
    found = {}
    for name, (half, level, layer, index, end) in _blocks(own).items():
        stage = f"{level}.0" if half == "encoder" else str(_lowest(own) - 1 - level)
        found[name] = f"{half}.stages.{stage}.convs.{index}.{layer}.{end}"
    return found | _others(own, {"upsamplings": "decoder.transpconvs", "heads": "decoder.seg_layers"})


def _blocks(own: Mapping[str, Tensor]) -> dict[str, tuple[str, int, str, int, str]]:
    """Half, level, "conv" or "norm", its number within the level and what it is, of every tensor of the levels."""
    found: dict[str, tuple[str, int, str, int, str]] = {}
    seen: dict[tuple[str, str, str], list[str]] = {}
    for name in own:
        match = _BLOCK.fullmatch(name)
        if match is None:
            continue
        half, level, place, end = match.groups()
        layer = "conv" if own[f"{name.removesuffix(end)}weight"].dim() > 1 else "norm"
        order = seen.setdefault((half, level, layer), [])
        order += [place] if place not in order else []
        found[name] = (half, int(level), layer, order.index(place), end)
    return found


def _others(own: Mapping[str, Tensor], words: Mapping[str, str]) -> dict[str, str]:
    """Of transposed convolutions and of what gives scores; theirs are counted from the coarsest level."""
    matches = {name: match.groups() for name in own if (match := _REST.fullmatch(name))}
    return {
        name: f"{words[kind]}.{_lowest(own) - 1 - int(level)}.{end}" for name, (kind, level, end) in matches.items()
    }


def _lowest(own: Mapping[str, Tensor]) -> int:
    return max((level for _, level, *_ in _blocks(own).values()), default=0)


def _convolutions(own: Mapping[str, Tensor]) -> int:
    return 1 + max((index for *_, index, _ in _blocks(own).values()), default=0)


def _beginning(theirs: Mapping[str, Tensor], names: Collection[str]) -> str | None:
    """What stands before their names, if most of the encoder's are there."""
    wanted = [name for name in names if name.startswith(("encoder.stages.", "conv_blocks_context."))]
    if not wanted:
        return None
    starts = [name.removesuffix(wanted[0]) for name in theirs if name.endswith(wanted[0])]
    for start in sorted(starts, key=len):
        if sum(start + name in theirs for name in wanted) > len(wanted) / 2:
            return start
    return None


def _taken(
    theirs: Mapping[str, Tensor], own: Mapping[str, Tensor], names: Mapping[str, str], start: str
) -> dict[str, Tensor]:
    found, used = {}, set()
    for name, their in names.items():
        tensor = theirs.get(start + their)
        if tensor is not None:
            used.add(start + their)
            found[name] = _skip_first(tensor) if _JOINED.fullmatch(name) else tensor
        elif name.endswith(".bias"):
            found[name] = torch.zeros_like(own[name], device="cpu")
    rest = {name: tensor for name, tensor in theirs.items() if name not in used}
    return found | {name: t for name, t in rest.items() if not any(copy in name for copy in _COPIES)}


def _skip_first(kernel: Tensor) -> Tensor:
    below, skip = kernel.chunk(2, 1)
    return torch.cat([skip, below], 1)
