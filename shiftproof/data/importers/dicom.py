"""DICOM series: volumes as NIfTI under pseudonyms, with their scanners as columns."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from ...errors import CohortError, OptionError
from ...files import write_json
from ..images import write_image
from ..integrity import FileError
from .dicom_headers import Header, harmless, looks_like_dicom, read_header, require_pydicom
from .dicom_labels import write_labels
from .dicom_pixels import volume_of
from .dicom_series import Faulty, Series
from .dicom_stacks import Irregular, stacks
from .found import Found, Progress, Scan, divide, some, walk
from .pseudonyms import Pseudonyms


def is_dicom(folder: Path) -> bool:
    """Whether a file below the folder is DICOM by its content."""
    return any(looks_like_dicom(path) for path in walk(folder))


def find_dicom(
    folder: Path,
    out: Path | str | None,
    *,
    pattern: str | None = None,
    key: Path | str | None = None,
    faulty: str = "refuse",
    progress: Progress | None = None,
) -> Found:
    """Convert all series below a folder; a row for each volume.

    Written are OUT/images, OUT/labels (from DICOM-SEG files of the same series and frame of reference) and
    OUT/pseudonyms.json. Subjects are numbered in the order of a keyed hash of their ID, sites by their
    institution's, and keep their numbers in later imports with the same key. Columns: vendor, model,
    field_strength_t, kernel, slice_thickness_mm, modality, body_part, series, volume. Nothing else of the headers
    is kept; what stands in the pixels is (faces, and text that a file does not own up to). Localizers, reports,
    plans and doses are no scans and are passed over.

    Raises:
        OptionError: If `out` is no folder's name, or pydicom is missing.
        CohortError: If there are no series, or some are faulty and `faulty` is "refuse".
        FileError: If a file is damaged.
    """
    if out is None or Path(out).suffix in (".csv", ".parquet"):
        raise OptionError("DICOM is converted to NIfTI, so it needs a folder for them; name it with --out FOLDER")
    require_pydicom()
    out = Path(out).absolute()
    problems: list[Faulty] = []
    headers = _headers(folder, problems, progress)
    series = _series([h for h in headers if h.segmentation is None], problems)
    if faulty == "refuse":
        _refuse(problems)
    if not series:
        raise CohortError(f"{folder} has no series of DICOM images that make a volume; expected files of CT, MR, ...")
    names = Pseudonyms(out / "pseudonyms.json", Path(key) if key else out.with_name(out.name + ".key"))
    _name(series, headers, names)
    sites = _sites(series, folder, pattern)
    found = Found(_converted(series, sites, out, problems))
    found.names = write_labels([h for h in headers if h.segmentation is not None], series, out, problems)
    if faulty == "refuse":
        _refuse(problems)
    names.save()
    subjects = names.number("subject", sorted({h.patient for h in headers}))
    who = {patient: f"subject-{number:03d}" for patient, number in subjects.items()}
    write_json(
        out / "left-out.json",
        [{"subject": who.get(p.patient, ""), "files": p.files, "why": p.why} for p in problems],
    )
    return found


def _headers(folder: Path, problems: list[Faulty], progress: Progress | None) -> list[Header]:
    """Files that are images or segmentations, each content once."""
    tell = progress or (lambda done, number: None)
    files = [path for path in walk(folder) if looks_like_dicom(path)]
    headers: dict[tuple[str, str, str], Header] = {}
    for i, path in enumerate(files):
        tell(i, len(files))
        try:
            header = read_header(path)
        except FileError as error:
            problems.append(Faulty(path, str(error).removeprefix(f"{path} ")))
            continue
        if header is not None:
            headers.setdefault((header.patient, header.series, header.instance), header)
    tell(len(files), len(files))
    return list(headers.values())


def _series(headers: list[Header], problems: list[Faulty]) -> list[Series]:
    groups: dict[tuple[str, str], list[Header]] = defaultdict(list)
    for header in headers:
        if header.problem:
            problems.append(Faulty(header.path, header.problem, 1, header.patient))
        else:
            groups[header.patient, header.series].append(header)
    series = []
    for members in groups.values():
        try:
            volumes = stacks([plane for header in members for plane in header.planes])
            series.append(Series(members, volumes))
        except Irregular as error:
            problems.append(Faulty(members[0].path.parent, str(error), len(members), members[0].patient))
    return series


def _refuse(problems: list[Faulty]) -> None:
    if problems:
        listed = some((f"{p.where}: {p.why}" for p in problems), "; ")
        raise CohortError(
            f"{len(problems)} series or files are no regular volumes: {listed}; move them away, or pass "
            "--faulty leave-out to import the others"
        )


def _name(series: list[Series], headers: list[Header], names: Pseudonyms) -> None:
    """Give subjects, sites and series their numbers, in place."""
    subjects = names.number("subject", {h.patient for h in headers})
    institutions = names.number("site", {h.institution for h in headers if h.institution})
    of: dict[str, list[Series]] = defaultdict(list)
    for one in series:
        first = one.headers[0]
        of[first.patient].append(one)
        one.subject = f"subject-{subjects[first.patient]:03d}"
        one.site = f"site-{institutions[first.institution]:02d}" if first.institution else "unknown"
    for patient, mine in of.items():
        numbers = names.number(f"series of {subjects[patient]}", {one.headers[0].series for one in mine})
        for one in mine:
            one.number = numbers[one.headers[0].series]
    series.sort(key=lambda one: (one.subject, one.number))


def _sites(series: list[Series], folder: Path, pattern: str | None) -> list[Scan]:
    """A scan without images for each series, with what the pattern reads out of the files' paths."""
    scans = []
    for one in series:
        first = one.headers[0]
        stem = first.path.relative_to(folder).as_posix()
        scans.append(Scan("", stem, {}, columns=dict(first.columns), subject=one.subject, site=one.site))
    before = [dict(scan.columns) for scan in scans]
    divide(scans, pattern, "site")
    for scan, one, columns in zip(scans, series, before, strict=True):
        new = [scan.site, *(v for c, v in scan.columns.items() if columns.get(c) != v)]
        words = tuple(w for h in one.headers for w in h.words if h.institution.find(w) < 0)
        if scan.subject != one.subject or any(v != harmless(v, words) for v in new):
            raise CohortError(
                "--domain-pattern reads something from the paths that identifies a patient, or a subject, or a date; "
                "let it name sites only"
            )
    return scans


def _converted(series: list[Series], sites: list[Scan], out: Path, problems: list[Faulty]) -> list[Scan]:
    """Write every volume, and give its scan."""
    for one, site in zip(series, sites, strict=True):
        for i, stack in enumerate(one.volumes, start=1):
            name = f"{one.subject}_series-{one.number}" + (f"_volume-{i}" if len(one.volumes) > 1 else "")
            path = out / "images" / f"{name}.nii.gz"
            try:
                write_image(volume_of(stack), path)
            except FileError as error:
                problems.append(Faulty.of(error, one.headers[0], [p.path for p in stack]))
                continue
            columns = {**site.columns, "series": str(one.number), "volume": str(i)}
            scan = Scan("", name, {"image": path}, columns=columns, subject=one.subject, site=site.site)
            one.scans.append((stack, scan))
    scans = [scan for one in series for _, scan in one.scans]
    if not scans:
        listed = some((f"{p.where}: {p.why}" for p in problems), "; ")
        raise CohortError(f"no series has pixels that can be read: {listed}")
    return scans
