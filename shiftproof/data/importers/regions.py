"""Structures that overlap, each named by several values of the label files."""

from __future__ import annotations

from collections.abc import Mapping

from ...errors import LabelError
from ..declared import Declared
from ..labels import LabelMap, Meaning


def region_map(found: Mapping[str, set[int]], names: Mapping[str, Declared], column: str) -> LabelMap | None:
    """The meaning of values that stand for several structures at once, as the sites declare it.

    Args:
        found: Values other than 0 by site.
        names: What the sites declare.
        column: The domain column.

    Raises:
        LabelError: If sites declare different structures, or a value belongs to none.
    """
    if not found:
        return None
    sites = {site: Meaning({"background": (0,), **names[site].values}, names[site].ignore) for site in found}
    first, default = next(iter(sites.items()))
    for site, meaning in sites.items():
        if list(meaning.values) != list(default.values):
            raise LabelError(
                f"{site} declares {', '.join(meaning.values)}, {first} {', '.join(default.values)}: structures that "
                "overlap must be the same ones, in the same order, at every site; correct a dataset.json"
            )
        known = {v for values in meaning.values.values() for v in values} | set(meaning.ignore)
        if unknown := sorted(found[site] - known):
            raise LabelError(
                f"labels of {site} have the values {unknown}, which no structure of its dataset.json names; add them"
            )
    special = {site: meaning for site, meaning in sites.items() if meaning != default}
    return LabelMap(tuple(default.values), default, special, column, "multi-label")
