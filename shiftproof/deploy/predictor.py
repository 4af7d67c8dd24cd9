"""Many scans: label files in the geometry of each, and a record of what became of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import SimpleITK as sitk
import torch

from ..data.images import PICTURES, suffix_of, write_image
from ..errors import OptionError, ShiftproofError, StorageError
from .manifest import Manifest, Predicted, kind_of
from .model import Model, load_model
from .scans import Scan, find_scans
from .segment import label_of, segment, write_probabilities

__all__ = ["Predicted", "label_of", "predict", "predict_scans"]


def predict(
    model: Path | Model,
    scans: Path | Sequence[Path],
    out: Path,
    *,
    probabilities: bool = False,
    device: str = "auto",
    batch: int = 4,
    overlap: float = 0.5,
    progress: Callable[[int, int, str], None] | None = None,
    overwrite: bool = False,
) -> list[Predicted]:
    """Label files for scans, each in the geometry of its scan.

    Values are class indices; `predictions.json` in `out` names the classes, the model and what became of each
    scan. A scan that cannot be predicted is reported and does not stop the others. The same call continues
    after an interruption: what is complete stays.

    Args:
        model: A model folder.
        scans: Files, folders or a cohort's table; see `find_scans`.
        out: Folder of the results: NAME.nii.gz, or the picture's format for pictures.
        probabilities: Whether NAME_probabilities.nii.gz is written too: 4D, a volume for each class, in steps
            of 1/255.
        device: "cpu", "cuda" or "auto".
        batch: Windows scored together.
        overlap: Share of a window that neighbours have in common.
        progress: Called with scans done, scans in total and the name of the one that is next.
        overwrite: Whether results of another model, or of a scan that changed, are replaced.

    Raises:
        ModelError: If the model cannot be loaded.
        ImageError: If there are no scans.
        StorageError: If the disk is full.
    """
    loaded = model if isinstance(model, Model) else load_model(model, device=device)
    return predict_scans(
        loaded, find_scans(scans, loaded.channels), Path(out), probabilities=probabilities, batch=batch,
        overlap=overlap, progress=progress, overwrite=overwrite,
    )  # fmt: skip


def predict_scans(
    model: Model,
    scans: Sequence[Scan],
    out: Path,
    *,
    probabilities: bool = False,
    batch: int = 4,
    overlap: float = 0.5,
    progress: Callable[[int, int, str], None] | None = None,
    overwrite: bool = False,
) -> list[Predicted]:
    """As `predict`, for scans that were found before."""
    inputs = {file.resolve() for scan in scans for file in scan.files}
    if any((out / _name(scan)).resolve() in inputs for scan in scans):
        raise OptionError(f"the results would replace the scans themselves; choose another folder than {out}")
    manifest = Manifest.read(out, model)
    entries = [manifest.entry(scan, _name(scan), probabilities, overlap) for scan in scans]
    found = [manifest.known(entry, overwrite) for entry in entries]
    # Written before the first result: a result that is there and announced here is complete, even if this
    # process is killed before it can say so.
    manifest.write(entry for entry, known in zip(entries, found, strict=True) if known is None)
    done = sum(known is not None for known in found)
    try:
        for i, (scan, entry) in enumerate(zip(scans, entries, strict=True)):
            if found[i] is None:
                if progress is not None:
                    progress(done, len(scans), scan.name)
                found[i] = _predicted(model, scan, out, entry, batch, overlap)
                done += 1
    finally:
        manifest.write(entries)
    if progress is not None:
        progress(done, len(scans), "")
    return [known for known in found if known is not None]


def _predicted(model: Model, scan: Scan, out: Path, entry: dict[str, Any], batch: int, overlap: float) -> Predicted:
    started = time.monotonic()
    output, extra = out / entry["output"], entry["probabilities"] and out / entry["probabilities"]
    try:
        result = segment(model, scan.images, probabilities=bool(extra), batch=batch, overlap=overlap)
        if result.probabilities is not None:
            write_probabilities(result.probabilities, extra)
        # Last: a scan is complete when its labels are there.
        write_image(result.label, output)
    except StorageError:
        raise
    except (torch.OutOfMemoryError, MemoryError):
        words = f"{scan.name} does not fit into memory; use a smaller batch, or device cpu"
        return _failed(entry, scan, words, "MemoryError")
    except ShiftproofError as error:
        return _failed(entry, scan, str(error), kind_of(error))
    entry["status"], entry["seconds"] = "done", round(time.monotonic() - started, 3)
    return Predicted(scan.name, output, extra, entry["seconds"])


def _failed(entry: dict[str, Any], scan: Scan, words: str, kind: str) -> Predicted:
    entry["status"], entry["error"] = "failed", words
    return Predicted(scan.name, error=words, kind=kind)


def _name(scan: Scan) -> str:
    """Pictures stay pictures; every volume becomes NIfTI."""
    suffix = suffix_of(scan.files[0]) if scan.files else ""
    return scan.name + (suffix if suffix in PICTURES and _flat(scan.files[0]) else ".nii.gz")


def _flat(path: Path) -> bool:
    """Whether a picture's file holds one slice; a stack of them is a volume."""
    if suffix_of(path) == ".png":
        return True
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError:  # reading it will say what is wrong
        return True
    return reader.GetDimension() == 2
