"""Weights of a file in a network: read without running anything, matched by name and shape, with a word on the rest."""

from __future__ import annotations

import hashlib
import pickle
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ModelError
from ..names import choose
from . import nnunet

STRICT = ("all", "matching")
FOLDER_FILE = "weights.safetensors"
"""What a model folder keeps its weights in."""

WRAPPERS = ("state_dict", "model", "model_state_dict", "network", "network_weights", "module", "net", "_orig_mod")
"""What other programs put around a network, as an entry of the file or as the first word of a name."""

HALVES = ("encoder.", "decoder.")
KINDS = (".safetensors", ".pt", ".pth")


@dataclass(frozen=True)
class Loaded:
    """What became of a file's weights.

    Args:
        path: The file.
        loaded: Tensors of the network that now are the file's, by the network's names.
        adapted: Those of them that read the image and were fitted to another number of channels.
        other_shape: Tensors that the file has in another shape, with both shapes.
        missing: Tensors that the file has not.
        unused: Tensors of the file that the network has not, by the file's names.
    """

    path: Path
    loaded: tuple[str, ...]
    adapted: tuple[str, ...]
    other_shape: tuple[str, ...]
    missing: tuple[str, ...]
    unused: tuple[str, ...]

    def __str__(self) -> str:
        total = len(self.loaded) + len(self.other_shape) + len(self.missing)
        words = [f"{len(self.loaded)} of {total} tensors from {self.path}"]
        if self.adapted:
            words.append(f"fitted to other channels: {_some(self.adapted)}")
        if self.other_shape:
            words.append(f"other shapes: {_some(self.other_shape)}")
        if self.missing:
            words.append(f"not in the file: {_some(self.missing)}")
        if self.unused:
            words.append(f"in the file only: {_some(self.unused)}")
        return "; ".join(words)


def load_weights(network: nn.Module, path: str | Path, *, strict: str = "matching") -> Loaded:
    """Puts the weights of a file into a network; what the file lacks stays as it is.

    Names match with or without what programs put before them ("module.", "network.", "model."), and without the
    network's own "encoder." and "decoder.", so that checkpoints of torchvision and MONAI fit their networks; those of
    nnU-Net fit a U-Net of their sizes (`nets.nnunet`). A convolution that reads the image takes another number of
    channels: the mean over the file's channels for each of ours, scaled so that an image that is equal in all channels
    gives the same response.

    Args:
        network: With `encoder` and `decoder`, or whole; it may be on any device.
        path: A model folder, a .safetensors file, or a state dict in a .pt or .pth file.
        strict: "matching" takes what fits, if it is at least half of the encoder's tensors; "all" accepts a file
            only if it has every tensor of the network in its shape.

    Raises:
        ModelError: If the file is missing, no such file, would run code, holds values that are not finite, or does
            not fit; the network is unchanged then.
    """
    choose(strict, STRICT, "strictness")
    file = weights_file(path)
    own = network.state_dict()
    own = {name: tensor for name, tensor in own.items() if isinstance(tensor, Tensor)}
    found = nnunet.under_our_names(read_tensors(file), own)
    names, unused = _matched(own, found)
    channels = getattr(network, "channels", None)

    values: dict[str, Tensor] = {}
    adapted, other = [], []
    for name, theirs in names.items():
        tensor = found[theirs]
        if tensor.shape == own[name].shape and tensor.is_floating_point() == own[name].is_floating_point():
            values[name] = tensor
        elif _reads_image(own[name], tensor, channels):
            values[name] = _for_channels(tensor, own[name].shape[1])
            adapted.append(name)
        else:
            other.append(f"{name} {_shape(tensor)} instead of {_shape(own[name])}")
    missing = [name for name in own if name not in names]
    result = Loaded(file, tuple(values), tuple(adapted), tuple(other), tuple(missing), tuple(unused))
    _require_fitting(network, result, strict)
    _require_finite(file, values)
    with torch.no_grad():
        for name, tensor in values.items():
            own[name].copy_(tensor)
    return result


def weights_hash(path: str | Path) -> str:
    """SHA-256 of the file that `load_weights` would read: what a run's identity is made of.

    Raises:
        ModelError: If there is none.
    """
    with weights_file(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def weights_file(path: str | Path) -> Path:
    """The file itself, in a model folder the one that holds the weights.

    Raises:
        ModelError: If there is none, or it is of another kind.
    """
    file = Path(path)
    if file.is_dir():
        if not (file / FOLDER_FILE).is_file():
            raise ModelError(f"{file} is no model folder: it has no {FOLDER_FILE}; name a model folder or a file")
        return file / FOLDER_FILE
    if not file.is_file():
        raise ModelError(f"there are no weights at {file}; name a model folder or a file ({', '.join(KINDS)})")
    if file.suffix not in KINDS:
        raise ModelError(f"{file} is no file of weights that can be read; expected {', '.join(KINDS)}")
    return file


def read_tensors(file: Path) -> dict[str, Tensor]:
    """All tensors of a file by name; nested state dicts are opened.

    Raises:
        ModelError: If it cannot be read, or holds what could run code.
    """
    found = _safetensors(file) if file.suffix == ".safetensors" else _state_dict(file)
    if not found:
        raise ModelError(f"{file} holds no tensors; expected a state dict, names with tensors")
    return found


def _safetensors(file: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file, device="cpu")
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(f"{file} cannot be read as safetensors ({_line(error)}); copy it again") from error


def _state_dict(file: Path) -> dict[str, Tensor]:
    _require_uncompressed(file)
    try:
        # Tensors, numbers and containers only: anything that would be called while reading is refused by torch.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on pickle's protocol, of which the error says enough
            content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{file} holds more than tensors, which could run code while it is read, and is refused ({_line(error)}); "
            "save the state dict alone: torch.save(network.state_dict(), file)"
        ) from error
    except Exception as error:
        # torch answers a broken file with whatever its readers meet: RuntimeError, EOFError, struct.error ...
        raise ModelError(
            f"{file} cannot be read as a state dict ({_line(error)}); expected what "
            "torch.save(network.state_dict(), file) writes"
        ) from error
    return dict(_tensors(content))


def _require_uncompressed(file: Path) -> None:
    """torch stores tensors as they are; a file that says it holds more than its size would only fill memory."""
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return  # an older format, or broken: torch will say so
    inside, size = sum(entry.file_size for entry in entries), file.stat().st_size
    if inside > size or any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise ModelError(
            f"{file} is compressed ({size} bytes for {inside}), which torch.save never does, and is refused; "
            "write it with torch.save(network.state_dict(), file)"
        )


def _tensors(content: Any, depth: int = 0) -> Iterator[tuple[str, Tensor]]:
    """Of the entry that holds the network where there is one ("state_dict"), else of the whole dict."""
    if not isinstance(content, Mapping):
        return
    for wrapper in WRAPPERS:
        if isinstance(content.get(wrapper), Mapping) and depth < 3:
            inner = dict(_tensors(content[wrapper], depth + 1))
            if inner:
                yield from inner.items()
                return
    for name, value in content.items():
        if isinstance(value, Tensor) and not value.is_sparse and not value.is_quantized:
            yield str(name), value


def _matched(own: Iterable[str], found: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """Names of the network -> names of the file, for the beginning that fits most of them; and what is left."""
    own, found = list(own), list(found)
    short = [_short(name) for name in own]
    # A U-Net's halves have levels of the same names: there, short names would be ambiguous.
    aliases = dict(zip(own, short, strict=True)) if len(set(short)) == len(short) else {}
    best: dict[str, str] = {}
    for beginning in sorted({b for name in found for b in _beginnings(name)}, key=len):
        theirs = {name.removeprefix(beginning): name for name in found if name.startswith(beginning)}
        pairs = {}
        for name in own:
            for known in (name, aliases.get(name, name)):
                if known in theirs:
                    pairs[name] = theirs[known]
                    break
        if len(pairs) > len(best):
            best = pairs
    used = set(best.values())
    return best, [name for name in found if name not in used]


def _short(name: str) -> str:
    """Without the half that it belongs to, and without the wrapper of a whole network."""
    for half in (*HALVES, "whole."):
        if name.startswith(half):
            return name.removeprefix(half)
    return name


def _beginnings(name: str) -> Iterator[str]:
    """ "", "module.", "module.network." of "module.network.encoder..."."""
    yield ""
    words = name.split(".")
    for index, word in enumerate(words[:-1]):
        if word not in WRAPPERS:
            return
        yield ".".join(words[: index + 1]) + "."


def _reads_image(ours: Tensor, theirs: Tensor, channels: int | None) -> bool:
    """Whether two convolutions differ only in the channels of the image that they read."""
    return (
        ours.dim() >= 4
        and theirs.dim() == ours.dim()
        and theirs.is_floating_point()
        and ours.shape[1] == channels
        and ours.shape[0] == theirs.shape[0]
        and ours.shape[2:] == theirs.shape[2:]
        and min(theirs.shape) > 0
    )


def _for_channels(kernel: Tensor, channels: int) -> Tensor:
    mean = kernel.float().mean(1, keepdim=True) * (kernel.shape[1] / channels)
    return mean.expand(-1, channels, *kernel.shape[2:])


def _require_fitting(network: nn.Module, result: Loaded, strict: str) -> None:
    if strict == "all" and (result.missing or result.other_shape):
        raise ModelError(f'{result.path} does not have all of this network, as "all" asks: {result}')
    parameters = [name for name, _ in network.named_parameters()]
    asked = [name for name in parameters if name.startswith("encoder.")] or parameters
    fitting = len(set(asked) & set(result.loaded))
    if 2 * fitting < len(asked):
        raise ModelError(
            f"{result.path} fits {fitting} of {len(asked)} tensors of this network's "
            f"{'encoder' if asked != parameters else 'layers'}, expected at least half; "
            f"build the network that the file was made with ({result})"
        )


def _require_finite(file: Path, values: Mapping[str, Tensor]) -> None:
    for name, tensor in values.items():
        if tensor.is_floating_point() and not tensor.float().isfinite().all():
            raise ModelError(f"{file} has values in {name} that are not finite; use a checkpoint from before")


def _shape(tensor: Tensor) -> str:
    kind = "" if tensor.is_floating_point() else f" ({str(tensor.dtype).removeprefix('torch.')})"
    return ("x".join(map(str, tensor.shape)) or "scalar") + kind


def _some(names: tuple[str, ...], most: int = 3) -> str:
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return (text[:200] + " ...") if len(text) > 200 else text or type(error).__name__
