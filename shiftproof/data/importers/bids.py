"""BIDS: anatomical images by suffix, labels from derivatives, participants and scanners as columns.

Format: the Brain Imaging Data Structure, https://bids-specification.readthedocs.io, version 1.9: entities, the
inheritance principle, `participants.tsv`, and derivatives (`dseg`, `mask`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ...errors import CohortError
from ..declared import Declared
from ..filenames import stem_of, suffix_of
from .bids_tables import SCANNER, Sidecars, participants, segment_names, units
from .found import Found, Scan, folders_in, image_files, sites_of, some

SUFFIXES = (
    "T1w", "T2w", "FLAIR", "PDw", "T2starw", "T1rho", "inplaneT1", "inplaneT2", "PDT2", "angio", "UNIT1",
    "T1map", "T2map", "T2starmap", "R1map", "R2map", "PDmap", "MTRmap", "MTsat", "SWI", "swi", "ct", "CT",
)  # fmt: skip
"""Last words of anatomical images' names; each is a channel."""

OWN_GRID = ("orig", "individual", "scanner", "T1w", "T2w", "FLAIR")
"""Spaces whose grid can be that of the raw image."""

FREE = ("space", "desc", "label", "res", "den", "hemi")
"""Entities that a label may have and its image has not."""


@dataclass(frozen=True)
class Name:
    """A file's name in its parts: `sub-01_ses-2_run-1_T1w`."""

    entities: tuple[tuple[str, str], ...]
    suffix: str

    @classmethod
    def of(cls, path: Path) -> Name:
        *pairs, suffix = stem_of(path).split("_")
        return cls(tuple((k, v) for k, _, v in (p.partition("-") for p in pairs)), suffix)

    def get(self, entity: str) -> str:
        return dict(self.entities).get(entity, "")

    def without(self, *names: str) -> tuple[tuple[str, str], ...]:
        return tuple((k, v) for k, v in self.entities if k not in names)


def is_bids(folder: Path) -> bool:
    """Whether this is a BIDS data set, or holds some."""
    return bool(sites_of(folder, _is_set))


def find_bids(folder: Path) -> Found:
    """Scans of all data sets in the folder, each a site unless participants have a column `site`.

    A row is what one session holds, a channel for each suffix; where a suffix occurs several times in a session,
    each combination of the other entities (acquisition, run, ...) is a row.

    Raises:
        CohortError: If a table cannot be read, or a label belongs to no image or to several.
    """
    found = Found([])
    for place in sites_of(folder, _is_set):
        people, sidecars = participants(place), Sidecars(place)
        labels, names = _labels(place)
        scans = [s for subject in _subjects(place) for s in _rows(place, subject, people, sidecars)]
        _pair(place, scans, labels)
        kinds = {Name.of(s.label).get("label") for s in scans if s.label and Name.of(s.label).suffix == "mask"}
        if len(kinds) > 1:
            raise CohortError(
                f"{place}: masks of several structures ({', '.join(sorted(kinds))}) are no labels of one kind; "
                "write one dseg for each image"
            )
        names = names or dict.fromkeys(kinds, (1,))
        found.scans += scans
        found.names[place.name] = Declared(values=names, lookup=True)
        found.units |= units(place)
    return found


def _is_set(folder: Path) -> bool:
    return any(_anatomical(place) for subject in _subjects(folder) for place in _sessions(subject))


def _subjects(folder: Path) -> list[Path]:
    return [p for p in folders_in(folder) if p.name.startswith("sub-")]


def _sessions(subject: Path) -> list[Path]:
    return [subject, *(p for p in folders_in(subject) if p.name.startswith("ses-"))]


def _anatomical(session: Path) -> list[Path]:
    files = image_files(session / "anat")
    return [p for p in files if suffix_of(p) in (".nii", ".nii.gz") and Name.of(p).suffix in SUFFIXES]


def _rows(place: Path, subject: Path, people: dict[str, dict[str, str]], sidecars: Sidecars) -> list[Scan]:
    scans = []
    for session in _sessions(subject):
        files = _anatomical(session)
        groups: dict[tuple[tuple[str, str], ...], list[Path]] = {}
        suffixes = [Name.of(p).suffix for p in files]
        once = len(set(suffixes)) == len(suffixes)
        for path in files:
            if Name.of(path).get("sub") != subject.name.removeprefix("sub-"):
                raise CohortError(f"{path} is in the folder of {subject.name}; rename it, or move it")
            entities = Name.of(path).entities
            groups.setdefault(entities[: 1 + (session != subject)] if once else entities, []).append(path)
        for entities, members in groups.items():
            stem = "_".join(f"{k}-{v}" for k, v in entities)
            scan = Scan(place.name, stem, {}, subject=subject.name)
            for path in members:
                channel = Name.of(path).suffix
                if channel in scan.images:
                    raise CohortError(f"{scan.images[channel].name} and {path} are both {channel}; keep one")
                scan.images[channel] = path
            scan.columns = {k: v for k, v in {"session": Name.of(members[0]).get("ses")}.items() if v}
            scan.columns |= people.get(subject.name, {})
            scanner = [sidecars.scanner(path) for path in members]
            scan.columns |= {c: v for c in SCANNER.values() if (v := next((s[c] for s in scanner if s[c]), ""))}
            scan.site = scan.columns.pop("site", "") or place.name
            scans.append(scan)
    return scans


def _labels(place: Path) -> tuple[list[Path], dict[str, tuple[int, ...]]]:
    """Label files on the raw images' grids, whole segmentations before single structures; names of their values."""
    files: list[Path] = []
    elsewhere: list[Path] = []
    names: dict[str, tuple[int, ...]] = {}
    derived = place / "derivatives"
    for pipeline in (derived, *folders_in(derived)) if derived.is_dir() else ():
        here = [p for s in _subjects(pipeline) for session in _sessions(s) for p in image_files(session / "anat")]
        here = [p for p in here if Name.of(p).suffix in ("dseg", "mask")]
        here = [p for p in here if Name.of(p).suffix == "dseg" or Name.of(p).get("label")]
        own = [p for p in here if Name.of(p).get("space") in ("", *OWN_GRID)]
        elsewhere += [p for p in here if p not in own]
        files += own
        names |= segment_names(pipeline, own)
    if elsewhere and not files:
        raise CohortError(
            f"{place}: labels are only in the space {Name.of(elsewhere[0]).get('space')} ({elsewhere[0].name}), "
            "expected some on the grid of the raw images; resample them to it, or remove them"
        )
    return files, names


def _pair(place: Path, scans: list[Scan], labels: list[Path]) -> None:
    """Give each scan its label, in place."""
    problems = []
    for path in sorted(labels, key=lambda p: Name.of(p).suffix != "dseg"):
        wanted = set(Name.of(path).without(*FREE))
        fitting = [s for s in scans if any(wanted <= set(Name.of(p).entities) for p in s.images.values())]
        if len(fitting) != 1:
            problems.append(f"label {path.name} fits {len(fitting)} scans")
            continue
        if fitting[0].label is None:
            fitting[0].label = path
        elif Name.of(path).suffix == "dseg" or Name.of(fitting[0].label).suffix == "mask":
            problems.append(f"{fitting[0].label.name} and {path.name} are both labels of {fitting[0].stem}")
    if problems:
        raise CohortError(
            f"{place}: {some(problems, '; ')}; keep one dseg, or one mask, for each image, with its entities"
        )
