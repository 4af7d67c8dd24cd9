"""Which values of a label file mean which structure, per domain."""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ..errors import LabelError
from ..files import write_text

IGNORE = 255
"""Class index, on disk only, of voxels whose label says nothing."""

KINDS = ("multi-class", "multi-label")

Values = dict[str, tuple[int, ...]]
"""Structure to the values that mean it; a structure that is absent is not annotated."""


@dataclass(frozen=True)
class Meaning:
    """What the values of one domain's label files mean."""

    values: Values
    ignore: tuple[int, ...] = ()


@dataclass(frozen=True)
class LabelMap:
    """The classes of a cohort, background first, and how each domain writes them.

    Args:
        classes: Names; the first is the background.
        default: Meaning of the values where a domain says nothing else; None if every domain has to.
        domains: Meaning by domain, in place of the default.
        column: The column whose values `domains` names.
        kind: "multi-class": a voxel belongs to one class. "multi-label": structures may overlap, and a value may
            mean several of them, as `whole = [1, 2]` and `core = [1]`.

    Raises:
        LabelError: If a name is unknown, or a value has two meanings where it may have only one.
    """

    classes: tuple[str, ...]
    default: Meaning | None = None
    domains: Mapping[str, Meaning] = field(default_factory=dict)
    column: str = "site"
    kind: str = "multi-class"

    task: ClassVar[str] = "segmentation"

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise LabelError(f"labels of a segmentation are {' or '.join(KINDS)}, got kind = {self.kind!r}")
        if len(self.classes) < 2 or len(set(self.classes)) < len(self.classes) or len(self.classes) > 250:
            raise LabelError(
                f"classes are 2 to 250 different names, background first, got {list(self.classes)}; "
                'for example ["background", "lesion"]'
            )

        if self.kind == "multi-label" and len(self.parts) > _MOST:
            raise LabelError(
                f"the values of these labels mean {len(self.parts)} combinations of structures, at most {_MOST} can be "
                "told apart; list the values that occur, or fewer structures"
            )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LabelMap) and self.as_dict() == other.as_dict()

    def __hash__(self) -> int:
        return hash(json.dumps(self.as_dict(), sort_keys=True))

    @classmethod
    def of_values(cls, values: Mapping[str, int | Sequence[int]], *, ignore: Sequence[int] = ()) -> LabelMap:
        """One meaning for all domains, from structure to value; the background, if not named, is 0."""
        table = {**({} if "background" in values else {"background": 0}), **values}
        return cls(tuple(table), _mapping({**table, "ignore": list(ignore)}, tuple(table), "labels"))

    @classmethod
    def read(cls, path: Path | str) -> LabelMap:
        """Read a `labels.toml`.

        Raises:
            LabelError: If the file is missing, no TOML, or says something that has no meaning.
        """
        return cls.from_dict(read_toml(path), str(path))

    @classmethod
    def from_dict(cls, table: Mapping[str, Any], name: str = "labels") -> LabelMap:
        """From what `as_dict` gives, or a parsed `labels.toml`; `name` is what errors call it."""
        classes = table.get("classes")
        kind = table.get("kind", KINDS[0])
        if kind not in KINDS:
            raise LabelError(f"{name}: labels of a segmentation are {' or '.join(KINDS)}, got kind = {kind!r}")
        several = kind == "multi-label"
        table = {key: value for key, value in table.items() if key != "kind"}
        if not isinstance(classes, list) or not classes or not all(isinstance(c, str) and c for c in classes):
            raise LabelError(
                f'{name}: "classes" must be a list of names, background first, got {classes!r}; '
                'for example classes = ["background", "lesion"]'
            )
        for key, value in table.items():
            if key != "classes" and not isinstance(value, dict):
                raise LabelError(
                    f"{name}: {key} = {value!r} stands outside of a section; expected [default] or [site.NAME] above it"
                )
        columns = [key for key in table if key not in ("classes", "default")]
        if len(columns) > 1:
            raise LabelError(
                f"{name}: sections of {len(columns)} columns ({', '.join(columns)}), expected one domain "
                "column; "
                "name every section [COLUMN.VALUE] with the same COLUMN"
            )
        default = (
            _mapping(table["default"], tuple(classes), f"{name} [default]", several) if "default" in table else None
        )
        column = columns[0] if columns else "site"
        domains = {}
        for domain, section in table.get(column, {}).items() if columns else ():
            if not isinstance(section, dict):
                raise LabelError(
                    f"{name}: [{column}] has {domain} = {section!r}; expected a section [{column}.NAME] for each domain"
                )
            domains[domain] = _mapping(section, tuple(classes), f"{name} [{column}.{domain}]", several)
        if default is None and not domains:
            raise LabelError(
                f"{name}: no values are named; add a section [default] with lines such as {classes[-1]} = 1"
            )
        return cls(tuple(classes), default, domains, column, kind)

    def as_dict(self) -> dict[str, Any]:
        """As in the file: classes, default, and a section per domain."""
        table: dict[str, Any] = {"classes": list(self.classes)}
        if self.kind != KINDS[0]:
            table["kind"] = self.kind
        if self.default is not None:
            table["default"] = _section(self.default)
        if self.domains:
            table[self.column] = {domain: _section(m) for domain, m in sorted(self.domains.items())}
        return table

    def write(self, path: Path | str, *, notes: Mapping[str, Sequence[str]] | None = None) -> None:
        """Write `labels.toml`; `notes` are comments by domain ("" for the default)."""
        notes = notes or {}
        lines = [f"classes = {_toml(list(self.classes))}"]
        if self.kind != KINDS[0]:
            lines.append(f"kind = {_toml(self.kind)}")
        sections = [] if self.default is None else [("", "default", self.default)]
        sections += [(d, f"{_key(self.column)}.{_key(d)}", m) for d, m in sorted(self.domains.items())]
        for domain, title, mapping in sections:
            lines += ["", f"[{title}]", *(f"# {note}" for note in notes.get(domain, ()))]
            lines += [f"{_key(name)} = {_toml(value)}" for name, value in _section(mapping).items()]
        write_text(Path(path), "\n".join(lines) + "\n")

    def mapping(self, domain: str) -> Meaning:
        """What values mean at this domain.

        Raises:
            LabelError: If the domain has no section and there is no default.
        """
        found = self.domains.get(domain, self.default)
        if found is None:
            raise LabelError(
                f"labels.toml has no section [{self.column}.{domain}] and no [default]; it has "
                f"{', '.join(self.domains)}"
            )
        return found

    @property
    def structures(self) -> list[str]:
        """What results are listed by."""
        return list(self.classes[1:])

    @property
    def parts(self) -> list[tuple[bool, ...]]:
        """Of "multi-label": the combinations of structures that values can mean, (P, K); first no structure.

        `encode` gives positions in this list. It depends on the meanings alone, so that all sites share it.
        """
        meanings = [*([self.default] if self.default else []), *self.domains.values()]
        found = {combination for meaning in meanings for combination in self._combinations(meaning).values()}
        none = (False,) * len(self.structures)
        return [none, *sorted(found - {none})]

    def _combinations(self, meaning: Meaning) -> dict[int, tuple[bool, ...]]:
        """By value, which structures it means."""
        values = sorted({value for several in meaning.values.values() for value in several})
        return {v: tuple(v in meaning.values.get(name, ()) for name in self.structures) for v in values}

    def annotated(self, domain: str) -> tuple[bool, ...]:
        """Which classes this domain's labels tell of, in the order of `classes`."""
        values = self.mapping(domain).values
        return tuple(name in values for name in self.classes)

    def unknown(self, array: np.ndarray, domain: str) -> dict[int, int]:
        """Values without a meaning at this domain, and how many voxels have each."""
        array = whole_numbers(array)
        known = [v for values in self.mapping(domain).values.values() for v in values]
        return {v: n for v, n in value_counts(array).items() if v not in {*known, *self.mapping(domain).ignore}}

    def encode(self, array: np.ndarray, domain: str, *, name: str = "the label") -> np.ndarray:
        """Class indices of a label's values, uint8; 255 where the label says nothing.

        Of "multi-label": positions in `parts`.

        Args:
            array: Values as stored, of any shape and number type.
            domain: Where the label comes from.
            name: What errors call it.

        Raises:
            LabelError: If a value has no meaning, or is no whole number.
        """
        array = whole_numbers(array, name)
        mapping = self.mapping(domain)
        if array.size == 0:
            return np.zeros(array.shape, np.uint8)
        low, high = int(array.min()), int(array.max())
        if high - low > _TABLE:  # such values are an intensity, not a label
            raise LabelError(
                f"{name} has values from {low} to {high}, which is no label; check that it is not the image"
            )
        table = np.full(high - low + 1, _UNKNOWN, np.uint8)
        if self.kind == "multi-label":
            parts = self.parts
            meanings: list[tuple[int, tuple[int, ...]]] = [
                (parts.index(held), (value,)) for value, held in self._combinations(mapping).items()
            ]
        else:
            meanings = [(self.classes.index(s), vs) for s, vs in mapping.values.items()]
        for index, values in [*meanings, (IGNORE, mapping.ignore)]:
            for value in values:
                if low <= value <= high:
                    table[value - low] = index
        encoded = table[array.astype(np.int64, copy=False) - low]
        if (encoded == _UNKNOWN).any():
            unknown = ", ".join(f"{v} ({n} voxels)" for v, n in list(self.unknown(array, domain).items())[:8])
            known = ", ".join(f"{s} = {_toml(v)}" for s, v in _section(mapping).items())
            raise LabelError(
                f"{name} has values without a meaning at {self.column}={domain}: {unknown}; known are "
                f"{known}; name them "
                "in labels.toml, or list them there under ignore"
            )
        return encoded

    def by_domains(self, members: Mapping[str, set[str]], column: str) -> LabelMap:
        """The same meanings by another column.

        Args:
            members: The values of `self.column` that occur in each domain of `column`.
            column: The new domain column.

        Raises:
            LabelError: If one domain joins values that mean different things.
        """
        domains = {}
        for domain, values in sorted(members.items()):
            mappings = [(v, self.mapping(v)) for v in sorted(values)]
            first, one = mappings[0]
            other = next((v for v, mapping in mappings if mapping != one), None)
            if other is not None:
                raise LabelError(
                    f"{column}={domain} joins {self.column}={first} and {self.column}={other}, whose "
                    "labels.toml sections "
                    f"differ; use {self.column} as the domain, or divide {domain}"
                )
            domains[domain] = one
        return LabelMap(self.classes, self.default, domains, column, self.kind)


HOW_TO_MAKE = "`shiftproof cohort import` writes one from the values that it finds"


def read_toml(path: Path | str) -> dict[str, Any]:
    """The content of a `labels.toml`.

    Raises:
        LabelError: If the file is missing or no TOML.
    """
    path = Path(path)
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise LabelError(f"{path} cannot be read ({error.strerror}); {HOW_TO_MAKE}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise LabelError(f"{path} is no valid TOML: {error}") from error


_UNKNOWN = 254
_MOST = 250
_TABLE = 1 << 22


def whole_numbers(array: np.ndarray, name: str = "the label") -> np.ndarray:
    """A label's values as integers; many tools store them as floats.

    Raises:
        LabelError: If some are no whole numbers.
    """
    if array.dtype.kind in "iub":
        return array
    rounded = np.rint(array)
    off = ~(np.abs(array - rounded) <= 1e-4)  # a header's scale factor leaves rounding errors
    if off.any():
        example = float(array[off].flat[0])
        raise LabelError(
            f"{name} has {int(off.sum())} values that are no whole numbers, such as {example:.6g}; "
            "resample labels by "
            "nearest neighbour, and check that this is not the image"
        )
    return rounded.astype(np.int64)


def value_counts(array: np.ndarray) -> dict[int, int]:
    """How many voxels have each value, in the order of the values."""
    values, counts = np.unique(array, return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def nearest(name: str, names: Sequence[str]) -> str:
    """A half-sentence that offers the name closest to `name`, or all of them."""
    close = difflib.get_close_matches(name, names, 1, 0.5)
    return f'did you mean "{close[0]}"?' if close else f"there are {', '.join(names) or 'none'}"


def _mapping(section: Any, classes: tuple[str, ...], where: str, several: bool = False) -> Meaning:
    if not isinstance(section, dict):
        raise LabelError(f"{where}: expected a section with lines such as {classes[-1]} = 1, got {section!r}")
    values: Values = {}
    ignore: tuple[int, ...] = ()
    meaning: dict[int, str] = {}
    if classes[0] not in section:
        section = {classes[0]: 0, **section}
    for name, value in section.items():
        numbers = value if isinstance(value, list | tuple) else [value]
        if not all(isinstance(n, int) and not isinstance(n, bool) for n in numbers):
            raise LabelError(f"{where}: {name} = {value!r}, expected a whole number or a list of them such as [4, 24]")
        if name == "ignore":
            ignore = tuple(numbers)
        elif name not in classes:
            raise LabelError(f'{where}: "{name}" is none of the classes; {nearest(name, classes)}')
        elif not numbers:
            raise LabelError(
                f"{where}: {name} has no value; leave the line out if {name} is not annotated there, which "
                "is what it means"
            )
        else:
            values[name] = tuple(numbers)
        for number in numbers:
            alone = not several or name in ("ignore", classes[0]) or meaning.get(number) in ("ignore", classes[0])
            if meaning.setdefault(number, name) != name and alone:
                raise LabelError(
                    f"{where}: value {number} means both {meaning[number]} and {name}; keep one of them"
                    + ("" if several else ', or say kind = "multi-label" where structures overlap')
                )
    # The order of the classes, so that equal meanings are equal objects.
    return Meaning({name: values[name] for name in classes if name in values}, ignore)


def _section(mapping: Meaning) -> dict[str, int | list[int]]:
    section: dict[str, int | list[int]] = {s: v[0] if len(v) == 1 else list(v) for s, v in mapping.values.items()}
    return section | ({"ignore": list(mapping.ignore)} if mapping.ignore else {})


def _toml(value: Any) -> str:
    # A JSON string, number or list of these is TOML as well.
    return json.dumps(value, ensure_ascii=False)


def _key(name: str) -> str:
    plain = name.isascii() and name.replace("-", "").replace("_", "").isalnum()
    return name if plain else _toml(name)
