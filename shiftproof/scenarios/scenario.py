"""What a scenario is, and how its files come to lie in a folder: completely, once, and checked."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from ..data.parallel import run
from ..errors import OptionError, StorageError
from ..files import replacing, storing, write_json, write_text

Array = np.ndarray
Progress = Callable[[int, int], None]  # subjects done, subjects in all

SETTINGS, RECORDS, MARKER = "scenario.json", "made", "complete.json"
USUAL = 24  # subjects a site


@dataclass(frozen=True)
class Scan:
    """One subject as it goes to disk: a volume in storage order with its affine, or a picture.

    Args:
        subject: Name.
        image: Volume (X, Y, Z) of integers, written as NIfTI, or picture (rows, columns) of 8 or 16 bits, as PNG.
        label: uint8 of the image's shape; None where the target is a cell of the table, not a file.
        affine: (4, 4) from voxel index to RAS mm; None for a picture, which has no place in the body.
        columns: Further cells of the table's row, the target among them where there is no label.
        channel: What the image shows, where planning treats it in a way of its own ("CT"): the table's column is then
            image:CT.
    """

    subject: str
    image: Array
    label: Array | None
    affine: Array | None
    columns: dict[str, Any]
    channel: str = ""

    def digest(self) -> str:
        """Of the arrays and their shape, not of compressed files, which differ between versions of zlib.

        Without a label the columns count, as the target is one of them.
        """
        content = hashlib.sha256(repr(self.image.shape).encode())
        content.update(np.ascontiguousarray(self.image, dtype=self.image.dtype.newbyteorder("<")).tobytes())
        if self.label is None:
            content.update(json.dumps(self.columns, sort_keys=True).encode())
        else:
            content.update(np.ascontiguousarray(self.label, dtype="u1").tobytes())
        return content.hexdigest()[:16]


@dataclass(frozen=True)
class Scenario:
    """A cohort whose shift is known, made on demand from a few numbers.

    `hashes` are the content hashes at the default number of subjects and seed, by size; they were written
    before any method was compared on the scenario, and a change to them is a new scenario. `usual_subjects` and
    `most_subjects` are numbers a site, by size: what is made by default (24 where a size is not named), and how many
    the scenario's source holds (no bound where a size is not named).
    """

    name: str
    description: str
    sizes: tuple[str, ...]
    sites: tuple[str, ...]
    shifts: tuple[dict[str, str], ...]  # a row a site: what it scans, with what, what that does
    labels_toml: str
    licence: str
    hashes: dict[str, str]
    subject: Callable[..., Scan]  # (site, index, *, size, seed), importable by name: workers need it
    usual_subjects: Mapping[str, int] = field(default_factory=dict)
    most_subjects: Mapping[str, int] = field(default_factory=dict)

    def content_hash(self, digests: Iterable[tuple[str, str]]) -> str:
        lines = "".join(f"{subject} {digest}\n" for subject, digest in sorted(digests))
        return hashlib.sha256(lines.encode()).hexdigest()[:16]

    def make(
        self,
        folder: str | Path,
        *,
        size: str = "2d",
        subjects: int | None = None,
        seed: int = 0,
        sites: Sequence[str] | None = None,
        workers: int = 1,
        progress: Progress | None = None,
    ) -> Path:
        """Write the cohort and return its folder; what is already there and intact is kept.

        Args:
            folder: new, empty, or one that an earlier call with the same size and seed left, complete or not.
            size: one of `sizes`; the scenario's page says what each is.
            subjects: a site; subject i is the same however many are made. The scenario's usual number by default.
            seed: 0 is the frozen cohort; others are new people from the same distribution.
            sites: a selection; all by default.
            workers: processes; the files do not depend on it.
            progress: called with the subjects done and the subjects in all.

        Raises:
            OptionError: an unknown size or site, or a number of subjects below 1 or above what there is.
            StorageError: the folder holds something else, or cannot be written.
        """
        subjects = self.usual_subjects.get(size, USUAL) if subjects is None else subjects
        chosen = self._checked(size, subjects, seed, sites, workers)
        folder = Path(folder)
        settings = {"scenario": self.name, "size": size, "seed": seed, "version": self.hashes.get(size, "")}
        with storing(folder):
            claim(folder, settings)
            wanted = [(site, i) for site in chosen for i in range(subjects)]
            todo = [which for which in wanted if not intact(folder, which)]
            if todo:
                (folder / MARKER).unlink(missing_ok=True)
            run(
                write_subject,
                [(self.subject, folder, size, seed, which) for which in todo],
                workers=workers,
                progress=progress and (lambda done, _: progress(len(wanted) - len(todo) + done, len(wanted))),
            )
            self._finish(folder, settings, [read_record(folder, which) for which in wanted])
        return folder

    def _checked(
        self, size: str, subjects: int, seed: int, sites: Sequence[str] | None, workers: int
    ) -> tuple[str, ...]:
        if size not in self.sizes:
            raise OptionError(f"{self.name} has no size {size!r}; it has {', '.join(self.sizes)}")
        if subjects < 1 or workers < 1 or seed < 0:
            raise OptionError(
                f"{self.name} needs subjects and workers of at least 1 and a seed of at least 0, "
                f"got {subjects}, {workers} and {seed}"
            )
        most = self.most_subjects.get(size, subjects)
        if subjects > most:
            raise OptionError(f"{self.name} has at most {most} subjects a site at size {size}, got {subjects}")
        chosen = tuple(self.sites if sites is None else dict.fromkeys(sites))
        unknown = [s for s in chosen if s not in self.sites]
        if unknown or not chosen:
            got = ", ".join(map(repr, unknown)) or "none"
            raise OptionError(f"{self.name} has the sites {', '.join(self.sites)}; got {got}")
        return chosen

    def _finish(self, folder: Path, settings: dict[str, Any], records: list[dict[str, Any]]) -> None:
        rows = [record["row"] for record in records]
        table = io.StringIO()
        csv.writer(table, lineterminator="\n").writerows([list(rows[0]), *(row.values() for row in rows)])
        write_text(folder / "table.csv", table.getvalue())
        write_text(folder / "labels.toml", self.labels_toml)
        write_text(folder / "NOTICE.txt", self.licence)
        content = self.content_hash((r["row"]["subject"], r["digest"]) for r in records)
        write_json(folder / MARKER, {**settings, "subjects": len(records), "content_hash": content})


def claim(folder: Path, settings: dict[str, Any]) -> None:
    """Make the folder ours, or see that it is; records of another version of the scenario are dropped."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        found = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    except FileNotFoundError:
        if any(p for p in folder.iterdir() if not p.name.startswith(".")):
            raise StorageError(
                f"{folder} is not empty and was not made by a scenario; name a new or empty folder"
            ) from None
        write_json(folder / SETTINGS, settings)
        return
    except ValueError as error:
        raise StorageError(f"{folder / SETTINGS} is not what a scenario writes; name a new or empty folder") from error
    if any(found.get(k) != settings[k] for k in ("scenario", "size", "seed")):
        held, asked = (" ".join(f"{k}={v.get(k)}" for k in ("scenario", "size", "seed")) for v in (found, settings))
        raise StorageError(f"{folder} holds {held}, and {asked} is asked for; name another folder")
    if found != settings:
        for record in (folder / RECORDS).glob("*.json"):
            record.unlink()
        write_json(folder / SETTINGS, settings)


def record_path(folder: Path, which: tuple[str, int]) -> Path:
    return folder / RECORDS / f"{which[0]}{which[1]}.json"


def read_record(folder: Path, which: tuple[str, int]) -> dict[str, Any]:
    return json.loads(record_path(folder, which).read_text(encoding="utf-8"))


def intact(folder: Path, which: tuple[str, int]) -> bool:
    try:
        record = read_record(folder, which)
    except (FileNotFoundError, ValueError):
        return False
    return all(file_hash(folder / name) == found for name, found in record["files"].items())


def file_hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.is_file() else ""


def write_subject(make_scan: Callable[..., Scan], folder: Path, size: str, seed: int, which: tuple[str, int]) -> None:
    """The subject's files, and then the record that they are complete."""
    site, index = which
    scan = make_scan(site, index, size=size, seed=seed)
    names = write_files(folder, scan)
    record = {
        "row": {"subject": scan.subject, **names, "site": site, **scan.columns},
        "digest": scan.digest(),
        "files": {name: file_hash(folder / name) for name in names.values()},
    }
    write_json(record_path(folder, which), record)


def write_files(folder: Path, scan: Scan) -> dict[str, str]:
    """Image, and label if there is one; their names below `folder` by the table's column."""
    suffix = ".png" if scan.affine is None else ".nii.gz"
    column = f"image:{scan.channel}" if scan.channel else "image"
    names = {column: f"images/{scan.subject}{suffix}"}
    arrays = {column: scan.image}
    if scan.label is not None:
        names["label"], arrays["label"] = f"labels/{scan.subject}{suffix}", scan.label
    for kind, array in arrays.items():
        if scan.affine is None:
            write_picture(folder / names[kind], array)
        else:
            write_nifti(folder / names[kind], array, scan.affine)
    return names


def write_picture(path: Path, array: Array) -> None:
    """Atomically; rows downwards, as PNG."""
    import SimpleITK as sitk

    write_itk(path, sitk.GetImageFromArray(np.ascontiguousarray(array)))


def write_nifti(path: Path, array: Array, affine: Array) -> None:
    """Atomically; `affine` maps the array's indices to RAS mm."""
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(np.ascontiguousarray(array.transpose(2, 1, 0)))  # SimpleITK reads (z, y, x)
    lps = np.diag([-1.0, -1.0, 1.0]) @ affine[:3]
    spacing = np.sqrt((lps[:, :3] ** 2).sum(0))
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(lps[:, 3].tolist())
    image.SetDirection((lps[:, :3] / spacing).ravel().tolist())
    write_itk(path, image)


def write_itk(path: Path, image: Any) -> None:
    """Atomically, compressed."""
    import SimpleITK as sitk

    with replacing(path) as temporary:
        try:
            sitk.WriteImage(image, str(temporary), useCompression=True)
        except RuntimeError as error:  # ITK does not say why; a full disk is the usual reason
            raise StorageError(
                f"cannot write {path}; see that the disk has space and run the same command again"
            ) from error


def read_file(name: str) -> str:
    """A text file that is shipped with the scenarios."""
    return (files("shiftproof.scenarios") / "files" / name).read_text(encoding="utf-8")
