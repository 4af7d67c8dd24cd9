"""Which files make a scan: single files, folders in the usual layouts, or a cohort's table."""

from __future__ import annotations

import collections
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..data.cohort import Cohort, Row
from ..data.filenames import file_of
from ..data.images import stem_of, suffix_of
from ..errors import CohortError, ImageError

TABLES = (".csv", ".tsv", ".parquet")


@dataclass(frozen=True)
class Scan:
    """One input of a prediction.

    Args:
        name: Stem of the result's file.
        images: File of each channel; None where the scan lacks it.
    """

    name: str
    images: dict[str, Path | None]

    @property
    def files(self) -> list[Path]:
        return [path for path in self.images.values() if path is not None]


def find_scans(given: Path | Sequence[Path], channels: Sequence[str]) -> list[Scan]:
    """The scans that files, folders and tables hold.

    - A file is a scan of one channel. Several channels lie in files that end in `_CHANNEL` or, as nnU-Net has
      it, in the number of the channel: `case_0000.nii.gz`, `case_0001.nii.gz`.
    - A folder holds such files, or a cohort's table, or a folder for each scan with one file a channel.
    - A table is a cohort's; an empty cell says that a scan lacks the channel.

    Raises:
        ImageError: If a path does not exist, or nothing is found.
        CohortError: If files cannot be told apart; all of them are named.
    """
    found: list[Scan] = []
    files: list[Path] = []
    for path in [given] if isinstance(given, Path) else given:
        path = Path(path)
        if path.is_dir():
            found += _of_folder(path, channels)
        elif not file_of(path).exists():
            raise ImageError(f"{path} does not exist; give image files, folders of them, or a cohort's table")
        elif path.suffix.lower() in TABLES:
            found += of_table(path)
        else:
            files.append(path)
    found += grouped(files, channels)
    if not found:
        raise ImageError("no scan was given; give image files, folders of them, or a cohort's table")
    names = [scan.name for scan in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise CohortError(
            f"several scans would be written to the same file: {', '.join(twice[:5])}; "
            "predict them into different folders"
        )
    return found


def of_table(path: Path) -> list[Scan]:
    """The scans of a table; to predict, nobody needs to know their domains."""
    return of_cohort(Cohort.read(path, domain="subject"))


def of_cohort(cohort: Cohort) -> list[Scan]:
    """A scan for each row of a table."""
    rows = list(cohort.rows())
    number = collections.Counter(row.subject for row in rows)
    return [Scan(name_of(row, number[row.subject] == 1), dict(row.images)) for row in rows]


def name_of(row: Row, single: bool) -> str:
    """Safe as a file's name: the subject, and the stem of its image where the subject has several scans."""
    name = row.subject
    if not single:
        name += "_" + next(stem_of(path) for path in row.images.values() if path is not None)
    return re.sub(r"[^\w.=+-]+", "_", name)


def grouped(files: Sequence[Path], channels: Sequence[str]) -> list[Scan]:
    """Files as scans, by the channel that each name ends with.

    Raises:
        CohortError: If a name ends with no channel, or a scan lacks one.
    """
    if len(channels) == 1:
        # A lone `_0000` names the channel only where every file has it.
        ending = "_0000" if all(stem_of(f).endswith("_0000") for f in files) else ""
        return [Scan(stem_of(f).removesuffix(ending), {channels[0]: f}) for f in files]
    scans: dict[tuple[Path, str], dict[str, Path | None]] = {}
    unknown = []
    for file in files:
        name, channel = _divided(stem_of(file), channels)
        if channel is None or channel in scans.setdefault((file.parent, name), {}):
            unknown.append(file.name)
        else:
            scans[file.parent, name][channel] = file
    if unknown:
        raise CohortError(
            f"the model reads the channels {', '.join(channels)} and these files do not tell theirs: "
            f"{', '.join(unknown)}; name them like case_{channels[0]}.nii.gz or case_0000.nii.gz, "
            "or use a cohort's table"
        )
    lacking = {name: [c for c in channels if c not in found] for (_, name), found in scans.items()}
    words = "; ".join(f"{name or 'a scan'} has no {', '.join(absent)}" for name, absent in lacking.items() if absent)
    if words:
        raise CohortError(
            f"scans without all channels: {words}; add the files, or use a cohort's table, in which "
            "an empty cell says that a channel is missing"
        )
    return [Scan(name, {c: images[c] for c in channels}) for (_, name), images in scans.items()]


def _of_folder(folder: Path, channels: Sequence[str]) -> list[Scan]:
    files = _images_in(folder)
    if files:
        return grouped(files, channels)
    for name in ("table.csv", "table.parquet"):
        # Its folders hold labels as well as images.
        if (folder / name).exists():
            return of_table(folder / name)
    scans = []
    for inner in sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")):
        files = _images_in(inner)
        if len(channels) == 1 and len(files) == 1:
            scans.append(Scan(inner.name, {channels[0]: files[0]}))
        elif files:
            found = grouped(files, channels)
            # One scan in a folder of its own takes the folder's name.
            scans += [Scan(inner.name, found[0].images)] if len(channels) > 1 and len(found) == 1 else found
    if not scans:
        raise ImageError(f"{folder} holds no image files, neither directly nor in a folder for each scan")
    return scans


def _images_in(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_file() and suffix_of(p) and not p.name.startswith("."))


def _divided(stem: str, channels: Sequence[str]) -> tuple[str, str | None]:
    """`case_t1` and `case_0000` into scan and channel; a file named just `t1` belongs to its folder."""
    for channel in sorted(channels, key=len, reverse=True):
        if stem.lower() == channel.lower():
            return "", channel
        for separator in "_-.":
            if stem.lower().endswith(f"{separator}{channel}".lower()):
                return stem[: -len(channel) - 1], channel
    number = re.fullmatch(r"(.+)_(\d{4})", stem)
    if number and int(number[2]) < len(channels):
        return number[1], channels[int(number[2])]
    return stem, None
