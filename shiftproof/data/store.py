"""Preprocessed cases on disk: found by content, complete or absent, read through memory maps."""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import PlanError, ShiftproofError, StorageError
from ..files import storing
from .geometry import Geometry
from .hashes import FileHashes
from .images import array_of, image_of, read_image, require_same_geometry
from .labels import IGNORE, LabelMap
from .parallel import run
from .plan import Plan, preprocess

if TYPE_CHECKING:
    from .cohort import Cohort, Row

__all__ = ["IGNORE", "Case", "Store"]

FORMAT = 1
"""Part of every key: raise it when the same inputs give other arrays."""

CENTRES = 2000
"""Voxels that are kept of each class, to centre patches on."""

_TEMPORARY = ".tmp-"
_ABANDONED_S = 24 * 3600


@dataclass(frozen=True, eq=False)
class Case:
    """One preprocessed scan. It holds names and numbers; arrays are mapped from disk when asked for.

    Args:
        subject, domain, columns: As in the cohort's table.
        paths: The scan's own files by channel; None where it lacks the channel.
        folder: Where the arrays are.
        key: What they were made from.
        geometry: The way back to the file's grid.
        present: (C,) bool, the channels that the scan has.
        annotated: (K,) bool, the classes that its domain annotates; empty without a label.
        intensity: By channel, of the values as stored outside of the background.
        labelled: Whether there is a label.
    """

    subject: str
    domain: str
    columns: dict[str, str]
    paths: dict[str, Path | None]
    folder: Path
    key: str
    geometry: Geometry
    present: np.ndarray
    annotated: np.ndarray
    intensity: dict[str, dict[str, float]]
    labelled: bool = False

    @property
    def image(self) -> np.ndarray:
        """(C, X, Y, Z) float32, read-only."""
        return _mapped(self.folder / "image.npy")

    @property
    def label(self) -> np.ndarray | None:
        """(X, Y, Z) uint8 class indices, `IGNORE` where the label says nothing; None without a label."""
        return _mapped(self.folder / "label.npy") if self.labelled else None

    @property
    def centres(self) -> dict[int, np.ndarray]:
        """Some voxels (N, 3) of each class that occurs; empty without a label."""
        return _centres(self.folder / "centres.npz") if self.labelled else {}


class Store:
    """A folder of preprocessed cases that runs share.

    A case is found by what it is made from: content of the files, the preprocessing part of the plan, the
    meaning of the label values. Several processes may build at once, and any may be killed.

    Args:
        root: The folder; it is made when needed.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)

    def prepare(
        self,
        cohort: Cohort,
        plan: Plan,
        *,
        workers: int = 1,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[Case]:
        """The cohort's cases, in the order of its rows; what is missing is built.

        Args:
            cohort: Scans; without labels, cases have none and nothing that tells of them.
            plan: How.
            workers: Processes that build.
            progress: Called with (cases built, cases to build).

        Raises:
            StorageError: If the disk is full, read-only or gone.
            ShiftproofError: If a scan cannot be used; the message names the subject.
        """
        with _on_disk(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
        self._sweep()
        hashes = FileHashes(self.root / "hashes.json")
        if cohort.labelled and tuple(cohort.classes) != plan.classes:
            raise PlanError(
                f"the plan is for the classes {', '.join(plan.classes)}, the cohort has "
                f"{', '.join(cohort.classes)}; "
                "make them agree in labels.toml"
            )
        keyed = []
        for row in cohort.rows():
            labels = cohort.labels if row.label is not None else None
            keyed.append((row, labels, key_of(row, labels, plan, hashes)))
        hashes.save()
        wanted = {key: (row, labels, plan, self._folder(key), key) for row, labels, key in keyed}
        missing = [job for key, job in wanted.items() if not is_complete(self._folder(key))]
        run(build, missing, workers=workers, progress=progress)
        return [read_case(row, self._folder(key), key) for row, _, key in keyed]

    def _folder(self, key: str) -> Path:
        return self.root / key[:2] / key

    def _sweep(self) -> None:
        """Remove what builders left behind when they were killed.

        Only after a day: whether a builder on another machine is alive cannot be told, but no case takes that
        long.
        """
        for folder in self.root.glob(f"*/{_TEMPORARY}*"):
            with contextlib.suppress(OSError):  # another process may sweep as well
                if time.time() - folder.stat().st_mtime > _ABANDONED_S:
                    shutil.rmtree(folder, ignore_errors=True)


def key_of(row: Row, labels: LabelMap | None, plan: Plan, hashes: FileHashes) -> str:
    """What a case is made from, as a SHA-256."""
    parts: dict[str, Any] = {
        "format": FORMAT,
        "plan": plan.preprocessing(),
        "images": {c: p and hashes.of(p) for c, p in row.images.items()},
    }
    if labels is not None and row.label is not None:
        meaning = labels.mapping(row.domain)
        parts["label"] = [hashes.of(row.label), list(labels.classes), meaning.values, meaning.ignore]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def build(row: Row, labels: LabelMap | None, plan: Plan, folder: Path, key: str) -> None:
    """Preprocess one scan into `folder`; complete or not at all."""
    try:
        images = {c: None if p is None else read_image(p) for c, p in row.images.items()}
        label = None
        if row.label is not None and labels is not None:
            stored = read_image(row.label)
            label = image_of(labels.encode(array_of(stored), row.domain, name=str(row.label)), stored)
            for channel, image in images.items():
                if image is not None:
                    require_same_geometry(image, stored, f"{row.images[channel]} and {row.label}")
        done = preprocess(images, label, plan)
    except ShiftproofError as error:
        raise type(error)(f"subject {row.subject} ({row.domain}): {error}") from error

    arrays = {"image.npy": done.image}
    centres: dict[int, np.ndarray] = {}
    if done.label is not None:
        arrays["label.npy"] = done.label
        centres = centres_of(done.label, seed=int(key[:16], 16))
    temporary = folder.parent / f"{_TEMPORARY}{uuid.uuid4().hex}"
    with _on_disk(folder):
        try:
            temporary.mkdir(parents=True)
            for name, array in arrays.items():
                np.save(temporary / name, array)
            if centres:
                named: dict[str, Any] = {str(index): places for index, places in centres.items()}
                np.savez(temporary / "centres.npz", **named)
            facts = {
                "key": key,
                "geometry": done.geometry.as_dict(),
                "present": done.present.tolist(),
                "annotated": list(labels.annotated(row.domain)) if done.label is not None and labels else [],
                "intensity": done.intensity,
                "bytes": {p.name: p.stat().st_size for p in sorted(temporary.iterdir())},
            }
            (temporary / "case.json").write_text(json.dumps(facts, indent=1))
            _take_place(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def is_complete(folder: Path) -> bool:
    """Whether a case's files are there in the sizes that they were written with."""
    try:
        facts = json.loads((folder / "case.json").read_text())
        return all((folder / name).stat().st_size == size for name, size in facts["bytes"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def read_case(row: Row, folder: Path, key: str) -> Case:
    facts = json.loads((folder / "case.json").read_text())
    return Case(
        subject=row.subject,
        domain=row.domain,
        columns=row.columns,
        paths=row.images,
        folder=folder,
        key=key,
        geometry=Geometry.from_dict(facts["geometry"]),
        present=np.array(facts["present"], bool),
        annotated=np.array(facts["annotated"], bool),
        intensity=facts["intensity"],
        labelled=row.label is not None,
    )


def centres_of(label: np.ndarray, *, seed: int, number: int = CENTRES) -> dict[int, np.ndarray]:
    """At most `number` voxels (N, 3) of each class that occurs, drawn evenly; the same for the same seed."""
    random = np.random.default_rng(seed)
    centres = {}
    for index in np.unique(label):
        if index != IGNORE:
            places = np.flatnonzero(label == index)
            if len(places) > number:
                places = np.sort(random.choice(places, number, replace=False))
            centres[int(index)] = np.stack(np.unravel_index(places, label.shape), 1).astype(np.int32)
    return centres


@contextlib.contextmanager
def _on_disk(path: Path) -> Iterator[None]:
    """Whatever goes wrong with the disk, as a `StorageError`; what NumPy raises of a short write too."""
    try:
        with storing(path):
            yield
    except OSError as error:
        raise StorageError(
            f"cannot write {path}: {error}; check that the disk is there and has space"
        ) from error


def _take_place(temporary: Path, folder: Path) -> None:
    """Move a complete case into its place; one that is there and complete stays, a damaged one goes."""
    for _ in range(3):
        try:
            os.rename(temporary, folder)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        if is_complete(folder):  # another process was faster, with the same content
            return
        damaged = temporary.with_name(temporary.name + "-damaged")
        os.rename(folder, damaged)
        shutil.rmtree(damaged, ignore_errors=True)


# Opening a file for every patch would cost more than cutting it; keeping all of them open would exceed the
# limit on open files.
@functools.lru_cache(maxsize=256)
def _mapped(path: Path) -> np.ndarray:
    return np.load(path, mmap_mode="r")


@functools.lru_cache(maxsize=1024)
def _centres(path: Path) -> dict[int, np.ndarray]:
    with np.load(path) as arrays:
        return {int(name): arrays[name] for name in arrays.files}
