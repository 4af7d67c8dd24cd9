"""Many scans: label files in the geometry of each, and a record of what became of them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import SimpleITK as sitk
import torch

from ..data.filenames import file_of
from ..data.images import PICTURES, suffix_of, write_image
from ..errors import ModelError, OptionError, ShiftproofError, StorageError
from ..files import replacing, write_json
from ..tasks.windows import usual_overlap
from .answer import Answer, answer_of
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
    overlap: float | None = None,
    flips: bool = False,
    progress: Callable[[int, int, str], None] | None = None,
    overwrite: bool = False,
) -> list[Predicted]:
    """Label files for scans, each in the geometry of its scan; an answer for each where a scan has one label.

    Answers are NAME.json each, and `predictions.csv` for all. Values of label files are class indices;
    `predictions.json` in `out` says what they mean, names the model and tells what became of each scan. A scan that
    cannot be predicted is reported and does not stop the others. The same call continues after an interruption: what
    is complete stays.

    Args:
        model: A model folder.
        scans: Files, folders or a cohort's table; see `find_scans`.
        out: Folder of the results: NAME.nii.gz, or the picture's format for pictures.
        probabilities: Whether NAME_probabilities.nii.gz is written too: 4D, a volume for each class, in steps
            of 1/255.
        device: "cpu", "cuda" or "auto".
        batch: Windows scored together.
        overlap: Share of a window that neighbours have in common; by default half of it, or nothing where the network
            sees beyond the window, as DeepMedic does.
        flips: Whether scores are averaged over mirror images along the axes that training mirrored.
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
        overlap=overlap, flips=flips, progress=progress, overwrite=overwrite,
    )  # fmt: skip


def predict_scans(
    model: Model,
    scans: Sequence[Scan],
    out: Path,
    *,
    probabilities: bool = False,
    batch: int = 4,
    overlap: float | None = None,
    flips: bool = False,
    progress: Callable[[int, int, str], None] | None = None,
    overwrite: bool = False,
) -> list[Predicted]:
    """As `predict`, for scans that were found before."""
    whole = model.plan.task != "segmentation"
    if whole and (probabilities or flips):
        raise OptionError(
            f"{model.folder} answers for whole scans: probabilities are always written, and there are no flips"
        )
    if flips:
        model.mirror_axes  # noqa: B018  # says at once if there are none
    names = [f"{scan.name}.json" if whole else _name(scan) for scan in scans]
    inputs = {file.resolve() for scan in scans for file in scan.files}
    if any((out / name).resolve() in inputs for name in names):
        raise OptionError(f"the results would replace the scans themselves; choose another folder than {out}")
    overlap = usual_overlap(model.margin) if overlap is None else overlap
    manifest = Manifest.read(out, model)
    entries = [
        manifest.entry(scan, name, probabilities, overlap, flips, batch)
        for scan, name in zip(scans, names, strict=True)
    ]
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
                found[i] = _predicted(model, scan, out, entry, batch)
                done += 1
    finally:
        manifest.write(entries)
    if whole:
        write_answers(out, model)
    if progress is not None:
        progress(done, len(scans), "")
    return [known for known in found if known is not None]


def write_answers(out: Path, model: Model) -> None:
    """`predictions.csv`: every answer of this model in the folder that the manifest names, a line each."""
    import pandas as pd

    lines = []
    for entry in Manifest.read(out, model).entries.values():
        path = out / entry["output"]
        if entry["status"] == "done" and entry["model"] == model.hash and path.exists():
            found = read_answer(path)
            several = isinstance(found.answer, list)
            line = {"scan": entry["scan"], "answer": ";".join(found.answer) if several else found.answer}  # type: ignore[arg-type]
            lines.append(line | {f"probability:{name}": p for name, p in found.probabilities.items()})
    with replacing(out / "predictions.csv") as temporary:
        pd.DataFrame(lines, columns=None if lines else ["scan", "answer"]).to_csv(temporary, index=False)


def read_answer(path: Path) -> Answer:
    """What `predict` wrote of one scan.

    Raises:
        ModelError: If it is no such file.
    """
    try:
        return Answer.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{path} is no answer of a model ({error}); predict the scan again") from error


def _predicted(model: Model, scan: Scan, out: Path, entry: dict[str, Any], batch: int) -> Predicted:
    started = time.monotonic()
    output, extra = out / entry["output"], entry["probabilities"] and out / entry["probabilities"]
    try:
        if output.suffix == ".json":
            write_json(output, answer_of(model, scan.images, batch=batch).as_dict())
            entry["status"], entry["seconds"] = "done", round(time.monotonic() - started, 3)
            return Predicted(scan.name, output, None, entry["seconds"])
        result = segment(
            model, scan.images, probabilities=bool(extra), batch=batch, overlap=entry["overlap"], flips=entry["flips"]
        )
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
    reader.SetFileName(str(file_of(path)))
    try:
        reader.ReadImageInformation()
    except RuntimeError:  # reading it will say what is wrong
        return True
    return reader.GetDimension() == 2
