"""One case's files: made beside their place, moved into it when complete."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ShiftproofError, StorageError
from ..files import storing
from .images import array_of, image_of, read_image, require_same_geometry
from .labels import IGNORE, LabelMap
from .plan import Plan, preprocess

if TYPE_CHECKING:
    from .cohort import Row

CENTRES = 2000
"""Voxels that are kept of each class, to centre patches on."""

TEMPORARY = ".tmp-"
"""First letters of folders that are not complete yet."""


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
    temporary = folder.parent / f"{TEMPORARY}{uuid.uuid4().hex}"
    with on_disk(folder):
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
def on_disk(path: Path) -> Iterator[None]:
    """Whatever goes wrong with the disk, as a `StorageError`; what NumPy raises of a short write too."""
    try:
        with storing(path):
            yield
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error}; check that the disk is there and has space") from error


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
