"""What an nnU-Net `dataset.json` says of channels and classes, in its old and its new form."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import CohortError
from .labels import Values


@dataclass
class Declared:
    """Names that a site gives itself.

    Args:
        channels: Number, as in file names ("0000"), to name.
        values: Structure to values, without the background; empty where nothing is said.
        ignore: Values of voxels that say nothing.
        lookup: Whether the names are a dictionary, so that those which occur nowhere are no structures.
    """

    channels: dict[str, str] = field(default_factory=dict)
    values: Values = field(default_factory=dict)
    ignore: tuple[int, ...] = ()
    lookup: bool = False

    @property
    def overlap(self) -> bool:
        """Whether a value belongs to several structures."""
        numbers = [n for values in self.values.values() for n in values]
        return len(numbers) > len(set(numbers))


def declared(site: Path) -> Declared:
    """Read `dataset.json` in the site's folder; nothing is declared where there is none.

    Raises:
        CohortError: If the file is no such thing.
    """
    path = site / "dataset.json"
    if not path.exists():
        return Declared()
    try:
        if path.stat().st_size > _MOST:
            raise ValueError(f"it has {path.stat().st_size} bytes")
        table = json.loads(path.read_text(encoding="utf-8-sig"))
        return _declared(table)
    except (OSError, ValueError, AttributeError, TypeError, RecursionError, OverflowError) as error:
        raise CohortError(f"{path} is no dataset.json of nnU-Net ({error}); correct it, or remove it") from error


_MOST = 64 << 20


def _declared(table: Any) -> Declared:
    channels = table.get("channel_names", table.get("modality", {}))
    found = Declared({f"{int(number):04d}": str(name) for number, name in channels.items()})
    for key, value in table.get("labels", {}).items():
        # New: name to value or values; old: value to name.
        name, numbers = (str(value), int(key)) if str(key).isdigit() else (key, value)
        values = _numbers(numbers)
        if name == "ignore":
            found.ignore = values
        elif 0 not in values:
            if not values or name == "background":
                raise ValueError(f"{name} = {value!r}; expected 0 for the background, others for structures")
            found.values[name] = values
    if len(set(found.channels.values())) < len(found.channels):
        raise ValueError(f"channels share a name: {', '.join(found.channels.values())}")
    return found


def _numbers(value: Any) -> tuple[int, ...]:
    return tuple(int(v) for v in value) if isinstance(value, list) else (int(value),)
