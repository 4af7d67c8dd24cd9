"""From folders of scans, one per site, to a cohort's table and the meaning of its label values."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import CohortError
from ..files import replacing
from .cohort import Cohort
from .declared import Declared, declared
from .images import SUFFIXES, stem_of, suffix_of
from .meanings import label_map, values_of

if TYPE_CHECKING:
    import pandas

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


@dataclass
class Found:
    """One scan: files by channel, its label if there is one, the split that its folder stands for."""

    site: str
    stem: str
    images: dict[str, Path]
    label: Path | None
    split: str = ""


def import_folders(
    folder: Path | str,
    out: Path | str | None = None,
    *,
    domain: str = "site",
    classes: Sequence[str] | Mapping[str, int | Sequence[int]] | None = None,
    progress: Callable[[int, int], None] | None = None,
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
    sites = _sites(folder)
    found = [scan for site in sites for scan in _scans(site)]
    names = {site.name: declared(site) for site in sites}
    channels = _name_channels(found, names)
    table = _table(found, domain, channels)
    values = values_of([(scan.site, scan.label) for scan in found if scan.label], progress=progress)
    labels, notes = label_map(values, names, classes, domain)
    cohort = Cohort(table, folder, domain=domain, labels=labels)

    out = folder if out is None else Path(out)
    target = out if out.suffix in (".csv", ".parquet") else out / "table.csv"
    before = {path: path.read_bytes() for path in (target, target.parent / "labels.toml") if path.exists()}
    cohort.write(target)
    if labels is not None:
        labels.write(target.parent / "labels.toml", notes=notes)
    for path, content in before.items():
        if path.read_bytes() != content:
            with replacing(path.with_name(path.name + ".old")) as temporary:
                temporary.write_bytes(content)
    return Cohort.read(target, domain=domain)


def _sites(folder: Path) -> list[Path]:
    """The folders that hold a site's files: those in `folder`, or `folder` itself."""
    if _files(folder) or _parts(folder):
        return [folder]
    sites = [p for p in sorted(folder.iterdir()) if p.is_dir() and not p.name.startswith(".")]
    sites = [p for p in sites if _files(p) or _parts(p)]
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
        if images in inner and _files(inner[images])
    ]
    if parts:
        return parts
    images = [p for name, p in inner.items() if name.lower() in IMAGE_FOLDERS and _files(p)]
    labels = [p for name, p in inner.items() if name.lower() in LABEL_FOLDERS and _files(p)]
    for what, several in {"images": images, "labels": labels}.items():
        if len(several) > 1:
            names = ", ".join(p.name for p in several)
            raise CohortError(f"{site} has {len(several)} folders that could hold {what}: {names}; keep one")
    return [(images[0], labels[0] if labels else None, "")] if images else []


def _scans(site: Path) -> list[Found]:
    parts, loose = _parts(site), _files(site)
    if parts and loose:
        raise CohortError(
            f"{site} has images beside its folder {parts[0][0].name}: {_some(p.name for p in loose)}; move "
            "them into it, "
            "or away"
        )
    if not parts:
        labels = [p for p in loose if _without(stem_of(p), ENDINGS) != stem_of(p)]
        return _paired(site, [p for p in loose if p not in labels], labels, "", False)
    scans = []
    for images, labels_folder, split in parts:
        found = _files(labels_folder) if labels_folder else []
        # nnU-Net puts the number of the channel behind the name; elsewhere four digits may be the name.
        stems = {stem_of(p) for p in found}
        numbered = [re.fullmatch(r"(.+)_\d{4}", stem_of(p)) for p in _files(images)]
        apart = all(m[1] in stems and m[0] not in stems for m in numbered if m)
        channels = all(numbered) and (bool(split) or apart)
        scans += _paired(site, _files(images), found, split, channels)
    return scans


def _paired(site: Path, images: list[Path], labels: list[Path], split: str, channels: bool) -> list[Found]:
    """Scans of a site, each with the one label that has its name.

    Raises:
        CohortError: If a name occurs twice, or a label has no image.
    """
    scans: dict[str, Found] = {}
    problems = []
    for path in images:
        stem, channel = stem_of(path), "image"
        if channels:
            stem, channel = stem[:-5], stem[-4:]
        stem = _without(stem, IMAGE_ENDINGS)
        scan = scans.setdefault(stem, Found(site.name, stem, {}, None, split))
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
        raise CohortError(f"{site}: {_some(problems, '; ')}; rename or remove what is not meant. {LAYOUTS}")
    return list(scans.values())


def _name_channels(found: list[Found], names: Mapping[str, Declared]) -> list[str]:
    """Rename numbered channels as the sites' `dataset.json` says, in place; gives all names.

    Raises:
        CohortError: If some sites number or name their channels and others do not.
    """
    for scan in found:
        known = names[scan.site].channels
        scan.images = {known.get(channel, channel): path for channel, path in scan.images.items()}
    channels = list(dict.fromkeys(c for scan in found for c in scan.images))
    if channels == ["0000"]:
        for scan in found:
            scan.images = {"image": scan.images["0000"]}
        return ["image"]
    if "image" in channels and len(channels) > 1:
        by = {c: next(s.site for s in found if c in s.images) for c in channels}
        raise CohortError(
            f"{by.pop('image')} has one channel without a name, but "
            + ", ".join(f"{site} has {c}" for c, site in by.items())
            + "; name the channel of each site in its dataset.json (channel_names), or give all one layout"
        )
    return channels


def _table(found: list[Found], domain: str, channels: list[str]) -> pandas.DataFrame:
    import pandas

    subjects = _subjects(found)
    rows = []
    for scan, subject in zip(found, subjects, strict=True):
        files = {c if c == "image" else f"image:{c}": scan.images.get(c) for c in channels}
        files["label"] = scan.label
        names = {column: str(path.absolute()) if path else "" for column, path in files.items()}
        rows.append({"subject": subject, domain: scan.site, **names, "split": scan.split})
    table = pandas.DataFrame(rows)
    return table if any(scan.split == "test" for scan in found) else table.drop(columns="split")


def _subjects(found: list[Found]) -> list[str]:
    def name(scan: Found) -> str:
        # Sessions and runs of a BIDS subject are scans of one person.
        bids = re.match(r"sub-[A-Za-z0-9]+(?=_|$)", scan.stem)
        return bids[0] if bids else scan.stem

    sites: dict[str, set[str]] = {}
    for scan in found:
        sites.setdefault(name(scan), set()).add(scan.site)
    collide = any(len(s) > 1 for s in sites.values())
    return [f"{scan.site}-{name(scan)}" if collide else name(scan) for scan in found]


def _files(folder: Path) -> list[Path]:
    return [p for p in sorted(folder.iterdir()) if suffix_of(p) and not p.name.startswith(".") and p.is_file()]


def _without(stem: str, endings: Sequence[str]) -> str:
    """The stem without its ending, "a" for "a_seg" or "a-seg", whatever the case of the letters."""
    for ending in endings:
        cut = len(stem) - len(ending) - 1
        if cut > 0 and stem[cut] in "_-" and stem[cut + 1 :].lower() == ending:
            return stem[:cut]
    return stem


def _some(names: Iterable[str], between: str = ", ") -> str:
    names = list(names)
    return between.join(names[:8]) + (f"{between}and {len(names) - 8} more" if len(names) > 8 else "")
