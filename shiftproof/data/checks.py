"""Everything that is wrong with a cohort's files, at once, each with what would repair it."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from ..errors import ImageError, LabelError
from .cohort import Cohort, Row
from .facts import FRAME
from .geometry import orientation_of, turned
from .images import array_of, compare_geometry, is_picture, read_image
from .integrity import AGAIN, FileError
from .labels import HOW_TO_MAKE, LabelMap, nearest, whole_numbers
from .parallel import run
from .targets import Targets


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Args:
        kind: In a few words, the same for all problems alike.
        severity: "error": training would fail or mislead; "warning": worth a look.
        subject: Whose scan; "" where it is about a domain or the whole.
        path: The file, or None.
        message: What came and what was expected.
        repair: What would repair it.
    """

    kind: str
    severity: str
    subject: str
    path: Path | None
    message: str
    repair: str


@dataclass
class Seen:
    """What was seen of one scan: problems, a hash of each channel's values, structures in its label."""

    problems: list[Problem] = field(default_factory=list)
    contents: dict[str, str] = field(default_factory=dict)
    structures: set[str] | None = None


def check(
    cohort: Cohort,
    *,
    minimum: int = 3,
    progress: Callable[[int, int], None] | None = None,
    workers: int = 1,
) -> list[Problem]:
    """Read every file and list what is wrong, errors first; it never stops at the first.

    Args:
        cohort: The cohort.
        minimum: Subjects that a domain needs.
        progress: Called with (scans read, all).
        workers: Processes that read.
    """
    rows = list(cohort.rows())
    labels = cohort.labels
    seen = run(
        _inspect,
        [(row, labels if isinstance(labels, LabelMap) else None) for row in rows],
        workers=workers,
        progress=progress,
    )
    problems = [p for one in seen for p in one.problems]
    problems += _label_map(cohort, rows, seen)
    problems += _twice(rows, seen)
    problems += _sides(rows)
    problems += _sizes(cohort, rows, minimum)
    return sorted(problems, key=lambda p: p.severity)  # "error" sorts first, and the order within stays


def has_errors(problems: Sequence[Problem]) -> bool:
    return any(p.severity == "error" for p in problems)


def report_json(problems: Sequence[Problem]) -> str:
    """The problems as JSON, with their number by severity."""
    listed = [{**asdict(p), "path": None if p.path is None else str(p.path)} for p in problems]
    number = {s: sum(p.severity == s for p in problems) for s in ("error", "warning")}
    return json.dumps({"errors": number["error"], "warnings": number["warning"], "problems": listed}, indent=2)


def _inspect(row: Row, labels: LabelMap | None) -> Seen:
    seen = Seen()
    reference: tuple[Path, sitk.Image] | None = None
    for channel, path in row.images.items():
        image = None if path is None else _read(row, path, seen)
        if path is None or image is None:
            continue
        array = array_of(image)
        if array.min() == array.max():
            what = f"{path} has the value {float(array.flat[0]):g} everywhere"
            seen.problems.append(_error("constant image", row, path, what, "export it again, or leave it out"))
        seen.contents[channel] = _content(image)
        reference = reference or (path, image)
        seen.problems += _geometry(row, reference, (path, image))
    if row.label is not None and (label := _read(row, row.label, seen)) is not None:
        if reference is not None:
            seen.problems += _geometry(row, reference, (row.label, label))
        seen.problems += _label(row, row.label, label, labels, seen)
    return seen


def _error(kind: str, row: Row, path: Path, message: str, repair: str) -> Problem:
    return Problem(kind, "error", row.subject, path, message, repair)


def _read(row: Row, path: Path, seen: Seen) -> sitk.Image | None:
    try:
        return read_image(path)
    except FileError as error:
        seen.problems.append(_error(error.kind, row, path, error.message, error.cure))
    except (ImageError, OSError) as error:
        seen.problems.append(_error("unreadable", row, path, str(error), AGAIN))
    return None


def _geometry(row: Row, first: tuple[Path, sitk.Image], second: tuple[Path, sitk.Image]) -> Iterator[Problem]:
    difference = compare_geometry(first[1], second[1])
    if difference:
        what = f"{first[0].name} and {second[0].name} differ in {difference}"
        repair = "resample one to the other, or correct the header that is wrong"
        yield _error("geometry", row, second[0], what, repair)


def _label(row: Row, path: Path, label: sitk.Image, labels: LabelMap | None, seen: Seen) -> Iterator[Problem]:
    try:
        array = whole_numbers(array_of(label), str(path))
        if labels is None:  # said once, for the whole cohort
            return
        unknown = labels.unknown(array, row.domain)
        meaning = labels.mapping(row.domain)
    except LabelError as error:
        what, _, cure = str(error).partition("; ")
        yield _error("label values", row, path, what, cure)
        return
    if unknown:
        listed = ", ".join(f"{v} ({n} voxels)" for v, n in list(unknown.items())[:8])
        more = f" and {len(unknown) - 8} more" if len(unknown) > 8 else ""
        known = ", ".join(f"{s} = {', '.join(map(str, v))}" for s, v in meaning.values.items())
        what = f"{path} has values without a meaning: {listed}{more}; known at {row.domain} are {known}"
        repair = "name them in labels.toml, or list them there under ignore"
        yield _error("unknown label values", row, path, what, repair)
        return
    values = set(np.unique(array).tolist())
    seen.structures = {s for s, v in meaning.values.items() if values & set(v)} - {labels.classes[0]}
    if not seen.structures:
        what = f"{path} has none of the structures {', '.join(labels.classes[1:])}"
        repair = "none, if the scan really has none of them; else export the label again"
        yield Problem("empty label", "warning", row.subject, path, what, repair)


def _content(image: sitk.Image) -> str:
    """Hash of the values, whatever the format, number type and orientation they are stored in."""
    array = array_of(image)
    if not is_picture(image):
        array = turned(array, orientation_of(image), FRAME)
    values = np.ascontiguousarray(array, dtype=np.float32) + np.float32(0)  # -0 and 0 are the same value
    return f"{hashlib.sha256(values.tobytes()).hexdigest()} {values.shape}"


def _label_map(cohort: Cohort, rows: list[Row], seen: list[Seen]) -> Iterator[Problem]:
    labels, path = cohort.labels, cohort.root / "labels.toml"
    if labels is None:
        if cohort.labelled:
            what = f"{cohort.labelled} scans have a label, and no labels.toml says what the values mean"
            yield Problem("no label map", "error", "", path, what, HOW_TO_MAKE)
        return
    if isinstance(labels, Targets):
        yield from _classes(cohort, labels, rows)
        return
    for domain in sorted(set(labels.domains) - set(cohort.domains)):
        what = f"[{labels.column}.{domain}] is in labels.toml, but no scan is from there"
        repair = f"remove the section, or correct its name: {nearest(domain, cohort.domains)}"
        yield Problem("label map", "warning", "", path, what, repair)
    for domain in cohort.domains:
        mine = [s for s, row in zip(seen, rows, strict=True) if row.domain == domain]
        found = [s.structures for s in mine if s.structures is not None]
        if not found or not set().union(*found):  # each empty label is said on its own
            continue
        for name, annotated in zip(labels.classes[1:], labels.annotated(domain)[1:], strict=True):
            if annotated and not any(name in structures for structures in found):
                what = f"{name} is annotated at {cohort.domain}={domain}, but in none of its {len(found)} labels"
                repair = f"take it out of [{labels.column}.{domain}] in labels.toml if it is not annotated there"
                yield Problem("structure never occurs", "warning", "", path, what, repair)


def _classes(cohort: Cohort, labels: Targets, rows: list[Row]) -> Iterator[Problem]:
    """Labels that are cells: classes that never occur, domains where all scans are alike."""
    if labels.task == "regression":
        return
    path = cohort.root / "labels.toml"

    def there(row: Row, k: int) -> bool:
        assert row.target is not None
        return bool(row.target[k] == 1) if labels.kind == "multi-label" else int(row.target) == k

    known = [row for row in rows if row.target is not None]
    counts = {name: sum(there(row, k) for row in known) for k, name in enumerate(labels.classes)}
    for name in [name for name, count in counts.items() if not count]:
        what = f"the class {name} occurs in none of {len(known)} labelled scans"
        yield Problem(
            "class never occurs", "warning", "", path, what, "take it out of labels.toml, or add scans with it"
        )
    for domain in cohort.domains:
        own = [row for row in known if row.domain == domain]
        if labels.kind == "multi-label" or len({int(row.target) for row in own if row.target is not None}) != 1:
            continue
        what = f"all {len(own)} labelled scans of {cohort.domain}={domain} have the class {_class_of(own[0], labels)}"
        repair = "a network may learn the site in place of the class, and no score there tells; add scans of others"
        yield Problem("one class", "warning", "", path, what, repair)


def _class_of(row: Row, labels: Targets) -> str:
    assert row.target is not None
    return labels.classes[int(row.target)]


def _twice(rows: list[Row], seen: list[Seen]) -> Iterator[Problem]:
    """The same values in two scans; of two subjects an error, as a split could come between them."""
    places: dict[str, list[tuple[Row, str]]] = defaultdict(list)
    for row, one in zip(rows, seen, strict=True):
        for channel, content in one.contents.items():
            places[content].append((row, channel))
    for (row, channel), *others in places.values():
        for other, name in others:
            path, first = other.images[name], row.images[channel]
            same = row.subject == other.subject
            message = f"{path} has the same values as {first}" + ("" if same else f" of subject {row.subject}")
            repair = "remove one of the two" + ("" if same else ", or give both the same subject")
            yield Problem("same scan twice", "warning" if same else "error", other.subject, path, message, repair)


def _sides(rows: list[Row]) -> Iterator[Problem]:
    splits: dict[str, set[str]] = defaultdict(set)
    domains: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        splits[row.subject].add(row.columns.get("split") or "")
        domains[row.subject].add(row.domain)
    for subject, sides in splits.items():
        if len(sides) > 1:
            named = ", ".join(sorted(s or "(nothing)" for s in sides))
            message = f"subject {subject} has scans in several splits: {named}"
            repair = "give all scans of a subject the same split"
            yield Problem("both sides of a split", "error", subject, None, message, repair)
    for subject, places in domains.items():
        if len(places) > 1:
            message = f"subject {subject} is in several domains: {', '.join(sorted(places))}"
            repair = "fine if it is one person; else make the names different, for example SITE-NAME"
            yield Problem("subject in several domains", "warning", subject, None, message, repair)


def _sizes(cohort: Cohort, rows: list[Row], minimum: int) -> Iterator[Problem]:
    subjects: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        subjects[row.domain].add(row.subject)
    for domain in cohort.domains:
        number = len(subjects[domain])
        if number < minimum:
            message = f"{cohort.domain}={domain} has {number} subjects, expected at least {minimum}"
            repair = "add subjects, join it with a similar domain, or leave it out"
            yield Problem("few subjects", "error", "", None, message, repair)
