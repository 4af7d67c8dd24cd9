"""A folder per class inside a site: the folder's name is the label."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from ...errors import CohortError
from ..filenames import stem_of
from .folders import IMAGE_FOLDERS, LABEL_FOLDERS
from .found import Found, Scan, folders_in, image_files, some

COLUMN = "class"


def is_classes(folder: Path) -> bool:
    """Whether folders in the folder's folders hold images, and are not named as images or labels are."""
    return any(_classes(site) for site in folders_in(folder))


def find_classes(folder: Path) -> Found:
    """Scans of `SITE/CLASS/`, or of `CLASS/` where the folder is itself a site.

    Subjects have the files' names, after the class where two classes of a site share one.

    Raises:
        CohortError: If there are fewer than two classes, or images lie beside the folders of classes.
    """
    sites = [site for site in folders_in(folder) if _classes(site)] or ([folder] if _classes(folder) else [])
    if not sites:
        raise CohortError(f"no images found in {folder}; expected SITE/CLASS/a.png or .nii.gz")
    scans = []
    for site in sites:
        if loose := image_files(site):
            raise CohortError(
                f"{site} has images beside its folders of classes: {some(p.name for p in loose)}; move them"
            )
        files = [(place.name, file) for place in _classes(site) for file in image_files(place)]
        times = Counter(stem_of(file) for _, file in files)
        for name, file in files:
            stem = stem_of(file)
            subject = f"{name}-{stem}" if times[stem] > 1 else stem
            scans.append(Scan(site.name, stem, {"image": file}, columns={COLUMN: name}, subject=subject))
    return Found(scans)


def _classes(site: Path) -> list[Path]:
    names = {*IMAGE_FOLDERS, *LABEL_FOLDERS, "imagestr", "labelstr", "imagests", "labelsts"}
    return [p for p in folders_in(site) if p.name.lower() not in names and image_files(p)]
