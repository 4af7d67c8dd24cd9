"""Which classes are rare: names that people write, as indices. What follows for a loss is in `margins`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import OptionError
from ..names import choose


def rare_indices(rare: Sequence[str] | None, classes: Sequence[str], *, background: bool = True) -> tuple[int, ...]:
    """Names of rare classes as indices into `classes`, in rising order.

    Args:
        rare: Names; None takes all classes but the background.
        classes: Names of all classes, of a segmentation the background first.
        background: Whether the first class is a background, which is never rare; False for classification.

    Raises:
        OptionError: For a name that is no class, the background, or no name at all.
    """
    first = int(background)
    if rare is None:
        return tuple(range(first, len(classes)))
    structures = list(classes[first:])
    if isinstance(rare, str) or not rare or not all(isinstance(name, str) for name in rare):
        raise OptionError(f"rare is a list of names among {', '.join(structures)}, got {rare!r}")
    if background and classes[0] in rare:
        raise OptionError(f'the background "{classes[0]}" is never rare; rare can be {", ".join(structures)}')
    return tuple(sorted({first + structures.index(choose(name, structures, "rare class")) for name in rare}))


def parts_with(rare: Sequence[int], parts: Sequence[Sequence[bool]]) -> tuple[int, ...]:
    """Which parts belong to a rare structure, where structures overlap and a patch is drawn around a voxel of a part.

    Args:
        rare: Indices of structures, from 1 on.
        parts: (P, K), whether the part belongs to the structure.
    """
    return tuple(i for i, part in enumerate(parts) if any(part[k - 1] for k in rare))


def with_indices(
    options: Mapping[str, Any] | None, classes: Sequence[str], *, background: bool = True, skipped: int = 0
) -> dict[str, Any]:
    """Options of a loss, with the names of `rare` turned into channels of the network.

    Args:
        options: As a person wrote them.
        classes: Names of all classes.
        background: Whether the first of them is a background.
        skipped: Classes at the front that have no channel.

    Raises:
        OptionError: As `rare_indices`.
    """
    chosen = dict(options or {})
    if chosen.get("rare") is not None:
        found = rare_indices(chosen["rare"], classes, background=background)
        chosen["rare"] = tuple(index - skipped for index in found)
    return chosen
