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
    """

    channels: dict[str, str] = field(default_factory=dict)
    values: Values = field(default_factory=dict)
    ignore: tuple[int, ...] = ()


def declared(site: Path) -> Declared:
    """Read `dataset.json` in the site's folder; nothing is declared where there is none.

    Raises:
        CohortError: If the file is no such thing.
    """
    path = site / "dataset.json"
    if not path.exists():
        return Declared()
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        channels = table.get("channel_names", table.get("modality", {}))
        found = Declared({f"{int(number):04d}": str(name) for number, name in channels.items()})
        for key, value in table.get("labels", {}).items():
            # New: name to value or values; old: value to name.
            name, numbers = (str(value), int(key)) if str(key).isdigit() else (key, value)
            values = _numbers(numbers)
            if name == "ignore":
                found.ignore = values
            elif 0 not in values:
                found.values[name] = values
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise CohortError(f"{path} is no dataset.json of nnU-Net ({error}); correct it, or remove it") from error
    if any(len(v) > 1 for v in found.values.values()):
        # Regions that overlap cannot be classes; the values themselves are kept under their own names.
        found.values = {}
    return found


def _numbers(value: Any) -> tuple[int, ...]:
    return tuple(int(v) for v in value) if isinstance(value, list) else (int(value),)
