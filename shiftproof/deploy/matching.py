"""Which file of a folder of predictions belongs to which scan."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..data.cohort import Cohort, Row
from ..data.images import stem_of, suffix_of
from ..data.plan import SEGMENTATION
from ..data.targets import target_of
from ..errors import CohortError, LabelError
from .manifest import MANIFEST
from .scans import name_of

Key = tuple[str, Path | None, tuple[Path | None, ...]]


def key_of(row: Row) -> Key:
    """What tells a scan of a cohort from the others."""
    return row.subject, row.label, tuple(row.images.values())


def find_predictions(folder: Path, cohort: Cohort) -> dict[Key, Path | None]:
    """For each scan of the cohort its prediction, or None.

    A prediction is named after the scan's subject, its image (without nnU-Net's `_0000` or the channel's
    name) or its label.

    Raises:
        CohortError: If there is no such folder, no name fits any scan, some scans lack a prediction while
            some files fit no scan, or a name fits twice. All names are listed.
        LabelError: If shiftproof made the predictions with other classes than the cohort's.
    """
    if not folder.is_dir():
        raise CohortError(f"{folder} is no folder; give the folder that holds the predicted label files")
    check_meaning(folder, cohort)
    files: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        stem = stem_of(path)
        if path.is_file() and suffix_of(path) and not stem.startswith(".") and not stem.endswith("_probabilities"):
            files.setdefault(stem, []).append(path)
    twice = [path.name for paths in files.values() if len(paths) > 1 for path in paths]
    if twice:
        raise CohortError(f"{folder} has several files of one name: {', '.join(twice)}; keep one format")

    rows = list(cohort.rows())
    single = {s for s in cohort.subjects if sum(row.subject == s for row in rows) == 1}
    found: dict[Key, Path | None] = {}
    users: dict[Path, list[str]] = {}
    for row in rows:
        names = [name for name in names_of(row, row.subject in single, cohort.channels) if name in files]
        found[key_of(row)] = files[names[0]][0] if names else None
        if names:
            users.setdefault(files[names[0]][0], []).append(row.subject)
    shared = [f"{path.name} ({', '.join(subjects)})" for path, subjects in users.items() if len(subjects) > 1]
    if shared:
        raise CohortError(f"predictions fit several scans: {'; '.join(shared)}; name them after the image files")
    unused = [path.name for paths in files.values() for path in paths if path not in users]
    missing = [row.subject for row in rows if found[key_of(row)] is None]
    if missing and (unused or not users):
        raise CohortError(
            f"{folder} has no prediction for {', '.join(missing)}; "
            f"files that fit no scan: {', '.join(unused) or 'none'}; "
            f"name them after the subject ({missing[0]}.nii.gz) or the image file, and move others away"
        )
    return found


def names_of(row: Row, single: bool, channels: list[str]) -> list[str]:
    """Stems that a prediction for this scan may have, the surest first."""
    names = [name_of(row, single)] + [row.subject] * single
    for channel, path in row.images.items():
        if path is None:
            continue
        stem = stem_of(path)
        names.append(stem)
        ends = [f"_{channels.index(channel):04d}", "_0000", *(s + channel for s in "_-.")]
        names += [stem.removesuffix(end) for end in ends if stem.endswith(end)]
    return names + ([stem_of(row.label)] if row.label is not None else [])


def check_meaning(folder: Path, cohort: Cohort) -> None:
    """Predictions that shiftproof made say what they are of.

    Raises:
        LabelError: If that is something else than the cohort's labels.
    """
    try:
        found = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        classes, target = found["classes"], found.get("target", SEGMENTATION)
    except (OSError, ValueError, KeyError, TypeError):
        return
    require_same_target(target, cohort, f"{folder / MANIFEST} is of")
    if classes != cohort.classes:
        raise LabelError(
            f"{folder / MANIFEST} names the classes {', '.join(map(str, classes))}, the cohort has "
            f"{', '.join(cohort.classes)}; use a cohort with the same classes in the same order"
        )


def require_same_target(target: Mapping[str, Any], cohort: Cohort, words: str) -> None:
    """Nothing, if a plan's target is what the cohort's labels tell of.

    Args:
        target: As a plan says it.
        cohort: With labels.
        words: How an error begins.

    Raises:
        LabelError: Otherwise.
    """
    theirs = target_of(cohort.labels)
    names = ("task", "kind", "column", "unit") if theirs["task"] == "regression" else ("task", "kind")
    if any(target.get(name) != theirs.get(name) for name in names):
        raise LabelError(
            f"{words} {_told(target)}, the cohort's labels are of {_told(theirs)}; use a cohort and a model of the same"
        )


def _told(target: Mapping[str, Any]) -> str:
    parts = [target.get(name) for name in ("kind", "task", "column", "unit")]
    return " ".join(str(part) for part in parts if part)
