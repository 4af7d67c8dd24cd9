"""Which structures the values found in label files stand for, site by site."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ..errors import LabelError
from .declared import Declared
from .images import array_of, read_image
from .labels import LabelMap, Meaning, Values, value_counts, whole_numbers

MOST = 250

Named = Mapping[str, int | Sequence[int]]


def values_of(
    labels: Sequence[tuple[str, Path]], *, progress: Callable[[int, int], None] | None = None
) -> dict[str, set[int]]:
    """The values other than 0 that occur at each site, from (site, file).

    Raises:
        LabelError: If a file does not look like a label.
        ImageError: If it cannot be read.
    """
    tell = progress or (lambda done, number: None)
    found: dict[str, set[int]] = {}
    for i, (site, path) in enumerate(labels):
        tell(i, len(labels))
        values = value_counts(whole_numbers(array_of(read_image(path)), str(path)))
        if len(values) > MOST:
            raise LabelError(
                f"{path} has {len(values)} different values, which is no label; check that it is not the image"
            )
        found.setdefault(site, set()).update(set(values) - {0})
    tell(len(labels), len(labels))
    return found


def label_map(
    found: Mapping[str, set[int]],
    names: Mapping[str, Declared],
    classes: Sequence[str] | Named | None,
    column: str,
) -> tuple[LabelMap | None, dict[str, list[str]]]:
    """The meaning of the values, and comments by domain for its file; None if nothing is labelled.

    Args:
        found: Values other than 0 by site.
        names: What sites declare themselves; it counts where `classes` is None.
        classes: As in `import_folders`.
        column: The domain column.

    Raises:
        LabelError: If `classes` does not fit the values.
    """
    if not found:
        return None, {}
    if not set().union(*found.values()):
        raise LabelError("no label has a value other than 0, so there is no structure; check that these are the labels")
    if isinstance(classes, Mapping):
        sites = {site: _given(classes, values, site) for site, values in found.items()}
    elif classes is not None:
        sites = _ordered(list(classes), found)
    else:
        sites = _numbered(found, {site: names[site].values if site in names else {} for site in found})
    order = list(dict.fromkeys(s for values in sites.values() for s in values))
    order.sort(key=lambda s: min(v[s][0] for v in sites.values() if s in v))
    meanings = {
        site: Meaning(
            {"background": (0,), **{s: values[s] for s in order if s in values}},
            names[site].ignore if classes is None and site in names else (),
        )
        for site, values in sites.items()
    }
    keys = {site: (tuple(m.values.items()), m.ignore) for site, m in meanings.items()}
    times = Counter(keys.values())
    common = max(times, key=lambda key: (times[key], len(key[0])))  # of equally common ones the richest
    default = next(m for site, m in meanings.items() if keys[site] == common)
    special = {site: m for site, m in meanings.items() if keys[site] != common}
    notes = {
        site: [
            f"{s} occurs in no label here and is taken as not annotated; if it is annotated, name its value"
            for s in order
            if s not in m.values
        ]
        for site, m in {"": default, **special}.items()
    }
    return LabelMap(("background", *order), default, special, column), notes


def _given(classes: Named, values: set[int], site: str) -> Values:
    """The named structures whose values occur at this site."""
    table = {s: tuple(v) if isinstance(v, Sequence) else (v,) for s, v in classes.items() if s != "background"}
    known = {n for numbers in table.values() for n in numbers} | {0}
    if values - known:
        raise LabelError(
            f"labels of {site} have the values {sorted(values - known)}, which no class names; "
            f"named are {', '.join(f'{s} = {list(v)}' for s, v in table.items())}"
        )
    return {s: numbers for s, numbers in table.items() if values & set(numbers)}


def _ordered(classes: list[str], found: Mapping[str, set[int]]) -> dict[str, Values]:
    """Names in the order of the values: of all sites together, or of each site if they number differently."""
    names = classes[1:] if classes and classes[0] == "background" else classes
    together = sorted(set().union(*found.values()))
    if len(together) == len(names):
        meaning = dict(zip(together, names, strict=True))
        return {site: {meaning[v]: (v,) for v in sorted(values)} for site, values in found.items()}
    if all(len(values) == len(names) for values in found.values()):
        return {site: {s: (v,) for s, v in zip(names, sorted(values), strict=True)} for site, values in found.items()}
    raise LabelError(
        f"{len(names)} class names ({', '.join(names)}) for {len(together)} values ("
        + "; ".join(f"{site}: {sorted(values)}" for site, values in found.items())
        + "); give one name for each value, or name = value"
    )


def _numbered(found: Mapping[str, set[int]], declared: Mapping[str, Values]) -> dict[str, Values]:
    """Declared names, and "structure N" for value N; a single structure is the same one everywhere."""
    lonely = all(len(values) <= 1 for values in found.values()) and not any(declared.values())
    sites = {}
    for site, values in found.items():
        known = declared[site]
        named = {n for numbers in known.values() for n in numbers}
        rest = {("structure 1" if lonely else f"structure {v}"): (v,) for v in sorted(values - named)}
        sites[site] = {**known, **rest}
    return sites
