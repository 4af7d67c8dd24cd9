"""nnU-Net's raw data sets: `Dataset012_Name/{imagesTr,labelsTr,imagesTs}` and `dataset.json`.

Format: nnU-Net v2, documentation/dataset_format.md and region_based_training.md; its older form is read as well.
"""

from __future__ import annotations

from pathlib import Path

from ...errors import CohortError
from ..declared import declared
from ..filenames import suffix_of
from .folders import only, scans_of
from .found import Found, Scan, image_files, read_json, short_names, sites_of

WHAT = "dataset.json of nnU-Net"


def is_nnunet(folder: Path) -> bool:
    """Whether this is a data set, or holds some and no other sites."""
    return only(folder, _is_set)


def find_nnunet(folder: Path) -> Found:
    """Cases of all data sets in the folder, each a site.

    Structures that `dataset.json` gives several values are regions; where they overlap, the cohort is a
    multi-label segmentation. Test cases have the split "test".

    Raises:
        CohortError: If a file is missing or nothing like what `dataset.json` says.
    """
    found = Found([])
    for place, name in short_names(sites_of(folder, _is_set)).items():
        scans = scans_of(place)
        _require_complete(place, scans)
        for scan in scans:
            scan.source = scan.site = name
        found.scans += scans
        found.names[name] = declared(place)
    return found


def _is_set(folder: Path) -> bool:
    return (folder / "dataset.json").is_file() and bool(image_files(folder / "imagesTr"))


def _require_complete(place: Path, scans: list[Scan]) -> None:
    path = place / "dataset.json"
    table = read_json(path, WHAT)
    training = [scan for scan in scans if scan.split == "train"]
    promised = table.get("numTraining", len(training))
    if promised != len(training):
        raise CohortError(
            f"{path} says {promised!r} training cases, found {len(training)} in {place / 'imagesTr'}; copy the "
            "missing ones, or correct numTraining"
        )
    ending = table.get("file_ending")
    files = [p for scan in scans for p in scan.images.values()]
    if isinstance(ending, str) and (wrong := [p for p in files if not p.name.endswith(ending)]):
        raise CohortError(
            f'{path} says file_ending "{ending}", but there is {wrong[0]}; rename it, or correct the entry'
        )
    if wrong := [p for p in files if not suffix_of(p)]:
        raise CohortError(f"{wrong[0]} has a format that cannot be read; save it as .nii.gz")
    names = set(declared(place).channels.values() or ["0000"])
    channels = declared(place).channels
    for scan in scans:
        has = {channels.get(c, c) for c in scan.images}
        if has not in (names, {"image"}):
            raise CohortError(
                f"{place}: case {scan.stem} has the channels {', '.join(sorted(has))}, dataset.json names "
                f"{', '.join(sorted(names))}; copy the missing files, or correct channel_names"
            )
    unlabelled = [scan.stem for scan in training if scan.label is None]
    if unlabelled:
        raise CohortError(
            f"{place}: training case {unlabelled[0]} has no file in labelsTr; copy it, or move its images to imagesTs"
        )
