"""Data sets of the Medical Segmentation Decathlon: lists of files in `dataset.json`, sequences as 4D files.

Format: http://medicaldecathlon.com and the `dataset.json` of its tasks.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...errors import CohortError
from ..declared import Declared, declared
from ..filenames import stem_of
from ..images import volumes_in
from .folders import only
from .found import Found, Scan, inside, read_json, short_names, sites_of

WHAT = "dataset.json of the Medical Segmentation Decathlon"


def is_decathlon(folder: Path) -> bool:
    """Whether this is a task of the Decathlon, or holds some and no other sites."""
    return only(folder, _is_task)


def find_decathlon(folder: Path) -> Found:
    """Cases of all tasks in the folder, each a site; a channel for each modality of a 4D file.

    Raises:
        CohortError: If a file that is listed is missing or lies elsewhere, or has not one volume a modality.
        FileError: If the header of an image cannot be read.
    """
    found = Found([])
    for place, name in short_names(sites_of(folder, _is_task)).items():
        table, names = read_json(place / "dataset.json", WHAT), declared(place)
        for split, key in (("train", "training"), ("test", "test")):
            entries = table.get(key, [])
            if not isinstance(entries, list):
                raise CohortError(f"{place / 'dataset.json'}: {key} is {entries!r:.80}, expected a list of files")
            found.scans += [_scan(place, name, entry, split, names) for entry in entries]
        found.names[name] = names
    if not found.scans:
        raise CohortError(f"{folder}: dataset.json lists no cases; expected some under training")
    return found


def _is_task(folder: Path) -> bool:
    path = folder / "dataset.json"
    if not path.is_file():
        return False
    entries = read_json(path, WHAT).get("training")
    # nnU-Net's first version wrote such lists too, of names that lack the number of the channel.
    return isinstance(entries, list) and bool(entries) and _exists(folder, entries[0])


def _exists(folder: Path, entry: Any) -> bool:
    name = entry.get("image") if isinstance(entry, dict) else entry
    try:
        return isinstance(name, str) and "\0" not in name and (folder / name).is_file()
    except OSError:
        return False


def _scan(place: Path, name: str, entry: Any, split: str, names: Declared) -> Scan:
    where = place / "dataset.json"
    entry = entry if isinstance(entry, dict) else {"image": entry}
    image = inside(place, entry.get("image"), where)
    label = inside(place, entry["label"], where) if entry.get("label") else None
    channels = list(names.channels.values()) or ["image"]
    volumes = volumes_in(image)
    if volumes != len(channels):
        raise CohortError(
            f"{image} has {volumes} volumes, {where} names {len(channels)} modalities ({', '.join(channels)}); "
            "correct the list, or the file"
        )
    files = {c: image if volumes == 1 else image.with_name(f"{image.name}#{i}") for i, c in enumerate(channels)}
    return Scan(name, stem_of(image), files, label, split)
