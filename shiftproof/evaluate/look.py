"""What a cohort's labels say about which metrics to read: sizes, components, scans without a structure, shares."""

from __future__ import annotations

import collections
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..data.cohort import Cohort
from ..data.images import array_of, is_picture, read_image
from ..data.labels import IGNORE, LabelMap
from ..data.parallel import run
from ..data.targets import Targets
from ..errors import CohortError, ShiftproofError
from ..metrics.lesions import components
from ..metrics.rules import TOLERANCE_MM, Tolerance, check_tolerance, tolerance_of, unstable
from ..metrics.surfaces import Grid

OFTEN = 0.25
"""Share of scans from which on a structure counts as small, or as several lesions."""

PAIR = 2
"""Several lesions are more than this: two may be the two sides of a body."""

SPECK = 0.1
"""Components smaller than this share of the largest do not count as lesions: labels have stray voxels."""

RARE = 4
"""The commonest class is so many times as common as the rarest where classes are imbalanced."""


@dataclass(frozen=True)
class Look:
    """One structure, class or number in the labels of a cohort.

    Args:
        name: Its name.
        scans: Labelled scans of domains that annotate it.
        present: Of these, how many have it.
        voxels: Least, median and most of these; all 0 where nothing is counted in voxels.
        volume_ml: The same in ml; NaN of pictures.
        components: Least, median and most; corners touch.
        small: Scans where it is small.
        wide: Scans where the tolerance reaches across it.
        properties: Names in `metrics.choice.PROPERTIES`.
    """

    name: str
    scans: int
    present: int
    voxels: tuple[float, float, float] = (0.0, 0.0, 0.0)
    volume_ml: tuple[float, float, float] = (0.0, 0.0, 0.0)
    components: tuple[float, float, float] = (0.0, 0.0, 0.0)
    small: int = 0
    wide: int = 0
    properties: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Seen:
    """What a whole cohort shows.

    Args:
        task: A name in `metrics.described.TASKS`.
        looks: By structure or class, in their order.
        failures: Labels that could not be read, one line each; nothing else contains them.
    """

    task: str
    looks: list[Look]
    failures: list[str] = field(default_factory=list)


def look(
    cohort: Cohort,
    *,
    tolerance_mm: Tolerance = TOLERANCE_MM,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Seen:
    """Reads every label of a cohort, no image.

    Args:
        cohort: With labels.
        tolerance_mm: Of the surface Dice.
        workers: Processes.
        progress: Called with labels read and all.

    Raises:
        CohortError: If nothing is labelled, or no label can be read.
    """
    rows = [row for row in cohort.rows() if row.labelled]
    if not rows or cohort.labels is None:
        raise CohortError(f"{cohort.root} has no labelled scan to look at; fill the table's label column")
    clusters = ["clusters"] if len({r.subject for r in rows}) < len(rows) else []
    if isinstance(cohort.labels, Targets):
        return _of_targets(cohort, cohort.labels, clusters)
    check_tolerance(tolerance_mm, cohort.labels.structures)
    jobs = [(row.label, cohort.labels, row.domain, tolerance_mm) for row in rows]
    found = run(_read, jobs, workers=workers, progress=progress)
    failures = [f"{row.subject}: {one}" for row, one in zip(rows, found, strict=True) if isinstance(one, str)]
    scans = [one for one in found if not isinstance(one, str)]
    if not scans:
        raise CohortError(f"none of {len(rows)} labels could be read; the first: {failures[0]}")
    looks = [_summed(name, [s[name] for s in scans if name in s], clusters) for name in cohort.labels.structures]
    return Seen("segmentation", looks, failures)


@dataclass(frozen=True)
class _Scan:
    """One structure in one scan."""

    voxels: int
    ml: float
    components: int
    large: int
    small: bool
    wide: bool


def _read(path: Path, labels: LabelMap, domain: str, tolerance_mm: Tolerance) -> dict[str, _Scan] | str:
    """By structure that is annotated; what is wrong, if the label cannot be read."""
    try:
        image = read_image(path)
        encoded = labels.encode(array_of(image), domain, name=str(path))
    except ShiftproofError as error:
        return str(error)
    grid = Grid(encoded.shape, tuple(float(s) for s in image.GetSpacing()))
    parts = np.array(labels.parts) if labels.kind == "multi-label" else None
    # A picture has no third axis, whatever spacing its file is read with.
    voxel_ml = math.nan if is_picture(image) else grid.voxel_ml
    found = {}
    for k, (name, annotated) in enumerate(zip(labels.structures, labels.annotated(domain)[1:], strict=True)):
        if annotated:
            own = encoded == k + 1
            if parts is not None:
                own = parts[np.where(encoded == IGNORE, 0, encoded), k].astype(bool)
            found[name] = _scan(own, grid, voxel_ml, tolerance_of(tolerance_mm, name))
    return found


def _scan(structure: np.ndarray, grid: Grid, voxel_ml: float, tolerance_mm: float) -> _Scan:
    from scipy.ndimage import find_objects

    voxels = int(np.count_nonzero(structure))
    (box,) = find_objects(structure.view(np.uint8), max_label=1)  # most of a scan is far from its structures
    sizes = np.bincount(components(structure[box]).ravel())[1:] if box else np.empty(0, int)
    large = int((sizes >= SPECK * sizes.max()).sum()) if voxels else 0
    return _Scan(voxels, voxels * voxel_ml, len(sizes), large, *unstable(voxels, grid, tolerance_mm))


def _summed(name: str, scans: Sequence[_Scan], clusters: list[str]) -> Look:
    own = [s for s in scans if s.voxels]
    small, wide = sum(s.small for s in own), sum(s.wide for s in own)
    number = collections.Counter(s.large for s in own)
    several = sum(s.large > PAIR for s in own)
    # Five vertebrae are five in nearly every scan; lesions are now three, now one.
    steady = bool(own) and number.most_common(1)[0][1] >= (1 - OFTEN) * len(own)
    properties = {
        "small": bool(own) and small >= OFTEN * len(own),
        "lesions": bool(own) and several >= OFTEN * len(own) and not steady,
        "empty": len(own) < len(scans),
    }
    return Look(
        name,
        len(scans),
        len(own),
        voxels=_spread([s.voxels for s in own]),
        volume_ml=_spread([s.ml for s in own]),
        components=_spread([s.components for s in own]),
        small=small,
        wide=wide,
        properties=[p for p, holds in properties.items() if holds] + clusters,
    )


def _spread(values: Sequence[float]) -> tuple[float, float, float]:
    if not len(values):
        return 0.0, 0.0, 0.0
    return float(min(values)), float(np.median(values)), float(max(values))


def _of_targets(cohort: Cohort, targets: Targets, clusters: list[str]) -> Seen:
    rows: list[Any] = [row for row in cohort.rows() if row.target is not None]
    if targets.task == "regression":
        return Seen("regression", [Look(targets.column, len(rows), len(rows), properties=clusters)])
    several = targets.kind == "multi-label"
    task = "findings" if several else "grading" if targets.kind == "ordinal" else "classification"
    truths = np.array([row.target if several else np.eye(len(targets.classes))[int(row.target)] for row in rows], float)
    domains = np.array([row.domain for row in rows])
    known = ~np.isnan(truths)
    present = np.where(known, truths, 0).sum(0)
    share = [_shares(truths[:, k], domains) for k in range(truths.shape[1])]
    # Of findings each is a test of its own, present against absent; of classes all share the subjects.
    rest = np.where(known, 1 - truths, 0).sum(0)
    uneven = [max(a, b) >= RARE * min(a, b) for a, b in zip(present, rest, strict=True)]
    if not several:
        uneven = [present.max() >= RARE * present.min()] * len(present)
    differ = [len(s) > 1 and max(s) - min(s) >= 0.1 and max(s) >= 2 * min(s) for s in share]
    return Seen(
        task,
        [
            Look(
                name, int(known[:, k].sum()), int(present[k]),
                properties=["imbalance"] * bool(uneven[k]) + ["prevalence"] * bool(differ[k]) + clusters,
            )
            for k, name in enumerate(targets.classes)
        ],
    )  # fmt: skip


def _shares(truth: np.ndarray, domains: np.ndarray) -> list[float]:
    """How common it is, by domain that says anything of it."""
    by_domain = [truth[(domains == d) & ~np.isnan(truth)] for d in np.unique(domains)]
    return [float(own.mean()) for own in by_domain if len(own)]
