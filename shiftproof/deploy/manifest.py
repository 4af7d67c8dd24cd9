"""`predictions.json`: which model made which file of which scan, and what is complete."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data.filenames import file_of
from ..errors import ShiftproofError
from ..files import write_json
from ..versions import versions
from .model import Model
from .scans import Scan

MANIFEST = "predictions.json"


@dataclass(frozen=True)
class Predicted:
    """What became of one scan.

    Args:
        scan: Its name.
        output: The label file; None if there is none.
        probabilities: The file of probabilities, where asked for.
        seconds: Time that it took; None where it was there already.
        error: What went wrong, or None.
        kind: Type of the error.
    """

    scan: str
    output: Path | None = None
    probabilities: Path | None = None
    seconds: float | None = None
    error: str | None = None
    kind: str | None = None


def kind_of(error: ShiftproofError) -> str:
    """Name of the error's type in `shiftproof.errors`: subclasses elsewhere are details of their modules."""
    return next(cls.__name__ for cls in type(error).__mro__ if cls.__module__ == ShiftproofError.__module__)


@dataclass
class Manifest:
    """The results in a folder, by the name of their label file.

    Args:
        path: Of the file.
        model: Whose results are asked for.
        entries: By name of the label file, earlier calls' included.
    """

    path: Path
    model: Model
    entries: dict[str, dict[str, Any]]

    @classmethod
    def read(cls, out: Path, model: Model) -> Manifest:
        path = out / MANIFEST
        try:
            scans = json.loads(path.read_text(encoding="utf-8"))["scans"]
            entries = {entry["output"]: entry for entry in scans}
        except (OSError, ValueError, KeyError, TypeError):
            # Without it nothing is known of files that are there; they are kept, and reported.
            entries = {}
        return cls(path, model, entries)

    def entry(
        self, scan: Scan, output: str, probabilities: bool, overlap: float, flips: bool, batch: int
    ) -> dict[str, Any]:
        """What is to be made of a scan, in the file `output`."""
        return {
            "scan": scan.name,
            "images": {channel: _identity(path) for channel, path in scan.images.items()},
            "model": self.model.hash,
            "overlap": overlap,
            "flips": flips,
            # What adapts while predicting adapts to the windows that it is shown together.
            "batch": batch if self.model.recipe is not None and self.model.recipe.test_time else None,
            "output": output,
            "probabilities": f"{scan.name}_probabilities.nii.gz" if probabilities else None,
            "status": "open",
            "seconds": None,
            "error": None,
        }

    def known(self, entry: dict[str, Any], overwrite: bool) -> Predicted | None:
        """The result that is there; None if it is yet to be made."""
        output = self.path.parent / entry["output"]
        extra = self.path.parent / entry["probabilities"] if entry["probabilities"] else None
        if not output.exists():
            return None
        before = self.entries.get(entry["output"], {})
        usual = {"flips": False}
        if all(before.get(k, usual.get(k)) == entry[k] for k in ("images", "model", "overlap", "flips", "batch")):
            if extra is None or (before["probabilities"] and extra.exists()):
                entry.update(status="done", seconds=before["seconds"], probabilities=before["probabilities"])
                return Predicted(entry["scan"], output, extra)
        elif not overwrite:
            words = f"{output} is there and was not made by this model from this scan"
            # What is known of the file stays.
            entry.update(before or {"status": "foreign"})
            return Predicted(
                entry["scan"], error=f"{words}; overwrite it, or choose another folder", kind="OptionError"
            )
        # An old result must not pass for the new one, should this process be killed.
        output.unlink()
        return None

    def write(self, entries: Iterable[dict[str, Any]]) -> None:
        self.entries |= {entry["output"]: entry for entry in entries if entry["status"] != "foreign"}
        write_json(
            self.path,
            {
                "shiftproof": versions()["shiftproof"],
                "model": {"folder": str(self.model.folder), "hash": self.model.hash},
                "classes": self.model.classes,
                "target": self.model.plan.target,
                "values": _meaning(self.model),
                "scans": [self.entries[name] for name in sorted(self.entries)],
            },
        )


def _meaning(model: Model) -> str:
    """Of what the files hold."""
    if model.plan.task != "segmentation":
        return f"answers of a {model.plan.task} in JSON; predictions.csv holds all of them"
    if model.plan.target["kind"] == "multi-label":
        bits = ", ".join(f"{2**k} {name}" for k, name in enumerate(model.task.structures))
        return f"a bit for each structure: {bits}; where several are, their numbers add up"
    return "class indices: 0 is the first of classes, the background"


def _identity(path: Path | None) -> dict[str, Any] | None:
    if path is None:
        return None
    try:
        stat = file_of(path).stat()
    except OSError:  # reading it will say what is wrong
        return {"path": str(path.resolve())}
    return {"path": str(path.resolve()), "bytes": stat.st_size, "changed_ns": stat.st_mtime_ns}
