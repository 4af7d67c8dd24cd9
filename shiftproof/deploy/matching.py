"""Which file of a folder of predictions belongs to which scan."""

from __future__ import annotations

import json
from pathlib import Path

from ..data.cohort import Cohort, Row
from ..data.images import stem_of, suffix_of
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
    _check_classes(folder, cohort)
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
        names = [name for name in _names(row, row.subject in single, cohort.channels) if name in files]
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


def _names(row: Row, single: bool, channels: list[str]) -> list[str]:
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


def _check_classes(folder: Path, cohort: Cohort) -> None:
    """Predictions that shiftproof made say what their values mean."""
    try:
        classes = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["classes"]
    except (OSError, ValueError, KeyError, TypeError):
        return
    if classes != cohort.classes:
        raise LabelError(
            f"{folder / MANIFEST} names the classes {', '.join(map(str, classes))}, the cohort has "
            f"{', '.join(cohort.classes)}; use a cohort with the same classes in the same order"
        )
