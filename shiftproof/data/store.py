"""Preprocessed cases on disk: found by content, complete or absent, read through memory maps."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import PlanError
from .building import TEMPORARY, build, is_complete, on_disk
from .geometry import Geometry
from .hashes import FileHashes
from .labels import IGNORE, KINDS, LabelMap
from .parallel import run
from .plan import Plan
from .preprocess import background_of

if TYPE_CHECKING:
    from .cohort import Cohort, Row

__all__ = ["IGNORE", "Case", "Store"]

FORMAT = 1
"""Part of every key: raise it when the same inputs give other arrays."""

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
        labelled: Whether there is a label, in a file or as `target`.
        target: Label of a task whose labels are cells of the table, see `Targets.of`.
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
    target: np.ndarray | None = None

    @property
    def image(self) -> np.ndarray:
        """(C, X, Y, Z) float32, read-only."""
        return _mapped(self.folder / "image.npy")

    @property
    def label(self) -> np.ndarray | None:
        """(X, Y, Z) uint8 class indices, `IGNORE` where the label says nothing; None without a label file."""
        return _mapped(self.folder / "label.npy") if self.labelled and self.target is None else None

    @property
    def centres(self) -> dict[int, np.ndarray]:
        """Some voxels (N, 3) of each class that occurs; empty without a label file."""
        return _centres(self.folder / "centres.npz") if self.labelled and self.target is None else {}

    @property
    def elsewhere(self) -> np.ndarray:
        """Some voxels (N, 3) without a structure, inside of what the scan shows; none without a label file."""
        return _elsewhere(self.folder) if self.labelled and self.target is None else np.zeros((0, 3), np.int32)


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
        with on_disk(self.root):
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
            labels = cohort.labels if row.label is not None and isinstance(cohort.labels, LabelMap) else None
            keyed.append((row, labels, key_of(row, labels, plan, hashes)))
        hashes.save()
        wanted = {key: (row, labels, plan, self._folder(key), key) for row, labels, key in keyed}
        missing = [job for key, job in wanted.items() if not is_complete(self._folder(key))]
        run(build, missing, workers=workers, progress=progress)
        if missing:  # what was damaged may still be mapped
            _mapped.cache_clear()
            _centres.cache_clear()
            _elsewhere.cache_clear()
        return [read_case(row, self._folder(key), key) for row, _, key in keyed]

    def _folder(self, key: str) -> Path:
        return self.root / key[:2] / key

    def _sweep(self) -> None:
        """Remove what builders left behind when they were killed.

        Only after a day: whether a builder on another machine is alive cannot be told, but no case takes that
        long.
        """
        for folder in self.root.glob(f"*/{TEMPORARY}*"):
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
        if labels.kind != KINDS[0]:
            parts["label"] += [labels.kind, labels.parts]
    if row.target is not None:
        # The arrays do not depend on it, but what is trained from them does.
        parts["target"] = row.target.tolist()
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


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
        annotated=np.array(facts["annotated"], bool) if row.annotated is None else row.annotated,
        intensity=facts["intensity"],
        labelled=row.labelled,
        target=row.target,
    )


# Opening a file for every patch would cost more than cutting it; keeping all of them open would exceed the
# limit on open files.
@functools.lru_cache(maxsize=256)
def _mapped(path: Path) -> np.ndarray:
    return np.load(path, mmap_mode="r")


@functools.lru_cache(maxsize=4096)
def _elsewhere(folder: Path) -> np.ndarray:
    return inside(_mapped(folder / "image.npy"), _centres(folder / "centres.npz").get(0, np.zeros((0, 3), np.int32)))


def inside(image: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Those of `places` (N, 3) where a channel of (C, X, Y, Z) is not what surrounds it; all if that leaves none."""
    kept = np.zeros(len(places), bool)
    for channel in image:
        around, values = background_of(np.asarray(channel)), channel[tuple(places.T)]
        kept |= np.ones(len(places), bool) if around is None else ~np.isclose(values, around)
    return places[kept] if kept.any() else places


@functools.lru_cache(maxsize=1024)
def _centres(path: Path) -> dict[int, np.ndarray]:
    with np.load(path) as arrays:
        return {int(name): arrays[name] for name in arrays.files}
