"""Folders of scans, one per site: images and labels apart, or pairs in one folder."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ...errors import CohortError
from ..cohort import Cohort
from ..declared import declared
from ..filenames import SUFFIXES, stem_of
from .found import Found, Progress, Scan, folders_in, image_files, sites_of, some
from .publish import publish

IMAGE_FOLDERS = ("images", "image", "imgs", "img", "scans", "volumes")
LABEL_FOLDERS = ("labels", "label", "masks", "mask", "segmentations", "segmentation", "segs", "seg", "gt")
ENDINGS = ("segmentation", "seg", "labels", "label", "mask", "gt")
"""Last word of a label file's name, after "_" or "-", where images and labels share a folder."""
IMAGE_ENDINGS = ("image", "img", "scan", "volume")
NNUNET = {"imagesTr": ("labelsTr", "train"), "imagesTs": ("labelsTs", "test")}

LAYOUTS = (
    "expected SITE/images and SITE/labels with equal file names, or pairs such as SITE/a.nii.gz and "
    "SITE/a_seg.nii.gz, "
    "or nnU-Net's SITE/imagesTr/a_0000.nii.gz and SITE/labelsTr/a.nii.gz"
)


def import_folders(
    folder: Path | str,
    out: Path | str | None = None,
    *,
    domain: str = "site",
    classes: Sequence[str] | Mapping[str, int | Sequence[int]] | None = None,
    progress: Progress | None = None,
) -> Cohort:
    """A cohort from a folder of scans per site; writes `table.csv` and `labels.toml`.

    A site holds image and label folders, pairs in one folder that differ by an ending, or nnU-Net's folders,
    whose `dataset.json` is read for the names of channels and classes. Images without a label are kept,
    unlabelled. Names of subjects are the files' stems (`sub-NAME` of BIDS names), after the site's where
    stems of two sites collide.

    Every label is read once for its values. A site whose files lack a value that other sites have is taken
    not to annotate the structure; the file says so in a comment, to be corrected where that is wrong. Where
    files of an earlier import would change, what was there is kept beside, as `NAME.old`.

    Args:
        folder: Holds a folder per site, or is itself one site.
        out: Folder, or name of the table, to write to; by default `folder`.
        domain: Name of the column that tells the site.
        classes: Names of the structures, in the order of their values, or name to value; the background need
            not be named. By default "structure 1" for value 1 and so on.
        progress: Called with (labels read, all).

    Raises:
        CohortError: If nothing is found or files cannot be paired without guessing; the message lists them.
        LabelError: If labels cannot be read as such, or `classes` does not fit their values.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CohortError(f"{folder} is no folder; name the one that holds a folder per site")
    return publish(find_folders(folder), folder, out, domain=domain, classes=classes, progress=progress)


def find_folders(folder: Path) -> Found:
    """Scans of all sites.

    Raises:
        CohortError: If nothing is found, or files cannot be paired without guessing.
    """
    sites = _sites(folder)
    scans = [scan for site in sites for scan in scans_of(site)]
    return Found(scans, {site.name: declared(site) for site in sites})


def is_folders(folder: Path) -> bool:
    """Whether this is a site, or there is one in it."""
    return any(is_site(p) for p in (folder, *folders_in(folder)))


def is_site(folder: Path) -> bool:
    """Whether the folder itself holds images, or folders of images."""
    return bool(image_files(folder) or _parts(folder))


def only(folder: Path, is_one: Callable[[Path], bool]) -> bool:
    """Whether the folder is, or holds, data sets of a layout, and no site of another beside them."""
    sites = sites_of(folder, is_one)
    return bool(sites) and (sites == [folder] or not any(is_site(p) for p in folders_in(folder) if p not in sites))


def _sites(folder: Path) -> list[Path]:
    """The folders that hold a site's files: those in `folder`, or `folder` itself."""
    if image_files(folder) or _parts(folder):
        return [folder]
    sites = [p for p in folders_in(folder) if image_files(p) or _parts(p)]
    if not sites:
        raise CohortError(f"no images ({', '.join(SUFFIXES)}) found in {folder}; {LAYOUTS}")
    return sites


def _parts(site: Path) -> list[tuple[Path, Path | None, str]]:
    """(images, labels, split) folders of a site; an image folder with nothing in it does not count.

    Raises:
        CohortError: If two folders could hold the labels, or the images.
    """
    inner = {p.name: p for p in sorted(site.iterdir()) if p.is_dir()}
    parts = [
        (inner[images], inner.get(labels), split)
        for images, (labels, split) in NNUNET.items()
        if images in inner and image_files(inner[images])
    ]
    if parts:
        return parts
    images = [p for name, p in inner.items() if name.lower() in IMAGE_FOLDERS and image_files(p)]
    labels = [p for name, p in inner.items() if name.lower() in LABEL_FOLDERS and image_files(p)]
    for what, several in {"images": images, "labels": labels}.items():
        if len(several) > 1:
            names = ", ".join(p.name for p in several)
            raise CohortError(f"{site} has {len(several)} folders that could hold {what}: {names}; keep one")
    return [(images[0], labels[0] if labels else None, "")] if images else []


def scans_of(site: Path) -> list[Scan]:
    parts, loose = _parts(site), image_files(site)
    if parts and loose:
        raise CohortError(
            f"{site} has images beside its folder {parts[0][0].name}: {some(p.name for p in loose)}; move "
            "them into it, "
            "or away"
        )
    if not parts:
        labels = [p for p in loose if _without(stem_of(p), ENDINGS) != stem_of(p)]
        return _paired(site, [p for p in loose if p not in labels], labels, "", False)
    scans = []
    for images, labels_folder, split in parts:
        found = image_files(labels_folder) if labels_folder else []
        # nnU-Net puts the number of the channel behind the name; elsewhere four digits may be the name.
        stems = {stem_of(p) for p in found}
        numbered = [re.fullmatch(r"(.+)_\d{4}", stem_of(p)) for p in image_files(images)]
        apart = all(m[1] in stems and m[0] not in stems for m in numbered if m)
        channels = all(numbered) and (bool(split) or apart)
        scans += _paired(site, image_files(images), found, split, channels)
    return scans


def _paired(site: Path, images: list[Path], labels: list[Path], split: str, channels: bool) -> list[Scan]:
    """Scans of a site, each with the one label that has its name.

    Raises:
        CohortError: If a name occurs twice, or a label has no image.
    """
    scans: dict[str, Scan] = {}
    problems = []
    for path in images:
        stem, channel = stem_of(path), "image"
        if channels:
            stem, channel = stem[:-5], stem[-4:]
        stem = _without(stem, IMAGE_ENDINGS)
        scan = scans.setdefault(stem, Scan(site.name, stem, {}, None, split))
        if channel in scan.images:
            problems.append(f"{scan.images[channel].name} and {path.name} are both images of {stem}")
        scan.images[channel] = path
    for path in labels:
        stem = stem_of(path)
        matches = [n for n in dict.fromkeys((stem, _without(stem, ENDINGS))) if n in scans]
        if not matches:
            problems.append(f"label {path.name} has no image")
            continue
        scan = scans[matches[0]]
        if scan.label is not None:
            problems.append(f"{scan.label.name} and {path.name} are both labels of {scan.stem}")
        scan.label = path
    if problems:
        raise CohortError(f"{site}: {some(problems, '; ')}; rename or remove what is not meant. {LAYOUTS}")
    return list(scans.values())


def _without(stem: str, endings: Sequence[str]) -> str:
    """The stem without its ending, "a" for "a_seg" or "a-seg", whatever the case of the letters."""
    for ending in endings:
        cut = len(stem) - len(ending) - 1
        if cut > 0 and stem[cut] in "_-" and stem[cut + 1 :].lower() == ending:
            return stem[:cut]
    return stem
