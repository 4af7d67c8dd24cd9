"""What an importer finds in a folder, before it is a table."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import CohortError, OptionError
from ..declared import Declared
from ..filenames import suffix_of

Progress = Callable[[int, int], None]

MOST_JSON = 64 << 20
"""Bytes of a description file; a larger one is no such thing."""


@dataclass
class Scan:
    """One scan: files by channel, its label if there is one, the split that its folder stands for.

    Args:
        source: Folder of the data set that it comes from; the site too, unless a pattern says otherwise.
        stem: Name of the case.
        images: File by channel; a volume of several as `file.nii.gz#2`.
        label: Its label file.
        split: "train", "test" or nothing.
        columns: Further cells of the table.
        subject: Whose scan; "" for the stem.
        site: Value of the domain column; "" for the source.
    """

    source: str
    stem: str
    images: dict[str, Path]
    label: Path | None = None
    split: str = ""
    columns: dict[str, str] = field(default_factory=dict)
    subject: str = ""
    site: str = ""

    def __post_init__(self) -> None:
        self.site = self.site or self.source


@dataclass
class Found:
    """Everything that an importer found.

    Args:
        scans: In the order of the table.
        names: What each source, or each site, says of its channels and classes.
        units: Of columns of numbers.
    """

    scans: list[Scan]
    names: dict[str, Declared] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=dict)


def image_files(folder: Path) -> list[Path]:
    """Image files right in the folder, by name; none where there is no folder."""
    if not folder.is_dir():
        return []
    return [p for p in sorted(folder.iterdir()) if suffix_of(p) and not p.name.startswith(".") and p.is_file()]


def folders_in(folder: Path) -> list[Path]:
    return [p for p in sorted(folder.iterdir()) if p.is_dir() and not p.name.startswith(".")]


def sites_of(folder: Path, is_one: Callable[[Path], bool]) -> list[Path]:
    """The data sets of a layout: `folder` itself, or folders in it."""
    return [folder] if is_one(folder) else [p for p in folders_in(folder) if is_one(p)]


def short_names(folders: Iterable[Path]) -> dict[Path, str]:
    """Names of data sets without "Dataset012_" or "Task03_", where they stay different."""
    folders = list(folders)
    short = [re.sub(r"^(Dataset|Task)\d+_(?=.)", "", p.name) for p in folders]
    return dict(zip(folders, short if len(set(short)) == len(short) else [p.name for p in folders], strict=True))


def read_json(path: Path, what: str) -> dict[str, Any]:
    """The table in a JSON file.

    Raises:
        CohortError: If it cannot be read, is no JSON, or no table; `what` says what was expected.
    """
    try:
        if path.stat().st_size > MOST_JSON:
            raise ValueError(f"it has {path.stat().st_size} bytes")
        table = json.loads(path.read_text(encoding="utf-8-sig"))
        if not isinstance(table, dict):
            raise ValueError(f"it holds a {type(table).__name__}, no table")
    except (OSError, ValueError, RecursionError) as error:
        raise CohortError(f"{path} is no {what} ({error}); correct it, or remove it") from error
    return table


def inside(root: Path, name: Any, where: Path) -> Path:
    """The file that a description names, below its folder.

    Raises:
        CohortError: If the name is none, leaves the folder, or nothing is there.
    """
    if not isinstance(name, str) or not name.strip() or "\0" in name:
        raise CohortError(f"{where} names {name!r} as a file, expected a path below {root}")
    path = root / name
    try:
        outside = Path(name).is_absolute() or not path.resolve().is_relative_to(root.resolve())
        missing = not path.is_file()
    except OSError as error:  # too long, or a loop of links
        raise CohortError(f"{where} names {name:.80}, which cannot be a file here ({error.strerror})") from error
    if outside:
        raise CohortError(f"{where} names {name}, which is outside of {root}; put the file below it")
    if missing:
        raise CohortError(f"{where} names {name}, which does not exist; copy the file, or correct the name")
    return path


def divide(scans: list[Scan], pattern: str | None, domain: str) -> None:
    """Read sites, subjects and further columns out of the cases' names, in place.

    Raises:
        OptionError: If the pattern is no regular expression or names nothing.
        CohortError: If a case does not fit it.
    """
    if pattern is None:
        return
    try:
        expression = re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise OptionError(f"--domain-pattern {pattern!r} is no regular expression: {error}") from error
    if not expression.groupindex:
        raise OptionError(f"--domain-pattern {pattern!r} names no group; for example (?P<site>[A-Za-z]+)_")
    if taken := {"image", "label", "split"} & set(expression.groupindex):
        raise OptionError(
            f"--domain-pattern names the group {taken.pop()}, which is a column of another kind; rename it"
        )
    wrong = [scan.stem for scan in scans if not expression.search(scan.stem)]
    if wrong:
        raise CohortError(f"--domain-pattern {pattern!r} is not found in {some(wrong)}; make it fit every case")
    for scan in scans:
        found = expression.search(scan.stem)
        groups = {k: v or "" for k, v in found.groupdict().items()} if found else {}
        site = groups.pop(domain, "") or groups.pop("site", "")
        scan.site, scan.subject = site or scan.site, groups.pop("subject", "") or scan.subject
        scan.columns |= groups


def by_site(found: Found) -> dict[str, Declared]:
    """What is declared at each site.

    Raises:
        CohortError: If data sets that declare different things have scans at one site.
    """
    names: dict[str, Declared] = {}
    for scan in found.scans:
        mine = found.names.get(scan.source, found.names.get(scan.site, Declared()))
        if names.setdefault(scan.site, mine) != mine:
            raise CohortError(
                f"{scan.site} has scans of data sets whose dataset.json differ in labels or channels, "
                f"{scan.source} is one; import each data set by itself"
            )
    return names


def some(names: Iterable[str], between: str = ", ") -> str:
    names = list(names)
    return between.join(names[:8]) + (f"{between}and {len(names) - 8} more" if len(names) > 8 else "")


def walk(folder: Path) -> Iterator[Path]:
    """Every file below a folder, by name; hidden ones and links to folders left out."""
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir() and not path.is_symlink():
            yield from walk(path)
        elif path.is_file():
            yield path
