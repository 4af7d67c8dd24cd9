"""The decisions of a plan, one function each, from the facts of the training scans."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import PlanError
from .facts import FRAME, Facts, facts_of
from .geometry import turns
from .labels import LabelMap
from .preprocess import ANISOTROPIC, percentiles, resampled_shape
from .targets import Targets
from .targets import target_of as target_of_labels

if TYPE_CHECKING:
    from .cohort import Cohort

FEW_SLICES = 16

CAPS = {2: 128, 3: 96}
"""Largest side of a patch by dimensions."""


@dataclass(frozen=True)
class Frame:
    """The orientation that suits the scans, and their grids (N, 3) in it, slice axis last."""

    orientation: str
    spacings_mm: np.ndarray
    sizes: np.ndarray

    @property
    def slices(self) -> int:
        return int(np.median(self.sizes[:, 2]))

    @property
    def anisotropy(self) -> float:
        median = np.median(self.spacings_mm, 0)
        return float(median.max() / median.min())

    @property
    def flat(self) -> bool:
        """Whether slices are better seen one at a time."""
        return self.slices < FEW_SLICES or self.anisotropy > ANISOTROPIC


def frame_of(facts: Sequence[Facts]) -> Frame:
    """The slice axis: the one along which all scans have one voxel, else the coarsest by far, else S.

    Raises:
        PlanError: If pictures and volumes are mixed.
    """
    pictures = sum(f.picture for f in facts)
    if 0 < pictures < len(facts):
        raise PlanError(
            f"{pictures} of {len(facts)} scans are 2D pictures, the others volumes; keep them in cohorts of their own"
        )
    spacings, sizes = np.array([f.spacing_mm for f in facts]), np.array([f.cropped for f in facts])
    if pictures:
        return Frame("", spacings, sizes)
    median = np.median(spacings, 0)
    single = [a for a in range(3) if all(f.size[a] == 1 for f in facts)]
    # Rounding in headers, or a median over sites, must not decide: slices of nearly isotropic scans are axial.
    axis = single[0] if single else 2 if median[2] > 0.8 * median.max() else int(median.argmax())
    orientation = ("PSL", "LSP", "LPS")[axis]
    order = list(turns(FRAME, orientation)[0])
    return Frame(orientation, spacings[:, order], sizes[:, order])


def facts_for(
    cohort: Cohort,
    normalisation: str | Mapping[str, str] | None = None,
    *,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> list[Facts]:
    """What a plan reads of each scan.

    Raises:
        PlanError: If there is no scan.
    """
    if not len(cohort):
        raise PlanError("a plan needs at least one training scan, got none; check the cohort's split and domains")
    clipped = [channel for channel, scheme in schemes(normalisation, cohort.channels).items() if scheme == "clip"]
    return facts_of(cohort, clip=clipped, workers=workers, progress=progress)


def dimensions_for(frame: Frame, given: int | None) -> int:
    """2 or 3, see `make_plan`.

    Raises:
        PlanError: If `given` is neither, or the scans have a single slice.
    """
    if given not in (None, 2, 3):
        raise PlanError(f"dimensions is 2 or 3, got {given}")
    if given == 3 and frame.slices == 1:
        raise PlanError("the median scan has a single slice, too few for 3 dimensions; use dimensions 2")
    return given or (2 if frame.flat else 3)


def spacing_for(
    frame: Frame, dimensions: int, given: Sequence[float | None] | None
) -> tuple[float | None, float | None, float | None]:
    """Voxel size of the cases, see `make_plan`."""
    if given is not None:
        values = [None if s is None else float(s) for s in given]
        if dimensions == 2 and len(values) == 2:
            values.append(None)
        if len(values) != 3 or None in values[:dimensions] or (dimensions == 2 and values[2] is not None):
            raise PlanError(
                f"spacing_mm needs {dimensions} "
                f"sizes{' (slices are never resampled in 2D)' if dimensions == 2 else ''}, "
                f"got {list(given)}"
            )
        return tuple(values)  # type: ignore[return-value]
    spacing = np.median(frame.spacings_mm, 0)
    if dimensions == 2:
        return round(float(spacing[0]), 6), round(float(spacing[1]), 6), None
    coarse = int(spacing.argmax())
    if frame.anisotropy > ANISOTROPIC:
        others = np.delete(spacing, coarse)
        spacing[coarse] = max(np.percentile(frame.spacings_mm[:, coarse], 10), others.max())
    return tuple(round(float(s), 6) for s in spacing)  # type: ignore[return-value]


def shapes_of(frame: Frame, spacing_mm: Sequence[float | None]) -> np.ndarray:
    """Voxels of each scan as a case, (N, 3)."""
    shapes = [resampled_shape(n, s, spacing_mm) for n, s in zip(frame.sizes, frame.spacings_mm, strict=True)]
    return np.array(shapes)


def patch_for(shape: np.ndarray, dimensions: int) -> tuple[int, ...]:
    """What covers the shape, in multiples of 16 (8 up to 32 voxels), at most 128 a side in 2D, 96 in 3D."""
    cap = CAPS[dimensions]
    sides = []
    for n in shape[:dimensions]:
        unit = 8 if n <= 32 else 16
        sides.append(min(cap, unit * math.ceil(n / unit)))
    return tuple(sides)


def covering(
    frame: Frame, spacing_mm: tuple[float | None, float | None, float | None], patch: Sequence[int]
) -> tuple[float | None, float | None, float | None]:
    """Voxels large enough for a patch to cover every scan, alike along all axes that need it."""
    known = [s for s in spacing_mm[: len(patch)] if s is not None]
    extent = np.max(frame.sizes * frame.spacings_mm, 0)[: len(patch)]
    least = float((extent / np.array(patch)).max())
    if all(s >= least for s in known):
        return spacing_mm
    return tuple(None if s is None else max(s, round(least, 6)) for s in spacing_mm)  # type: ignore[return-value]


def target_of(cohort: Cohort) -> dict[str, Any]:
    """What is predicted, as a plan says it.

    Raises:
        PlanError: If the numbers of a regression do not differ: there is nothing to learn.
    """
    labels, target = cohort.labels, target_of_labels(cohort.labels)
    if isinstance(labels, LabelMap) and labels.kind == "multi-label":
        target["parts"] = [list(p) for p in labels.parts]
    if target["task"] != "regression":
        return target
    assert isinstance(labels, Targets)
    numbers = np.array([float(row.target) for row in cohort.rows() if row.target is not None])
    if not len(numbers) or numbers.std() == 0:
        raise PlanError(
            f"{labels.column} has no spread in the training scans ({len(numbers)} numbers); "
            "regression needs labels that differ"
        )
    mean, sd = float(numbers.mean()), float(numbers.std())
    return target | {"mean": mean, "sd": sd}


def schemes(given: str | Mapping[str, str] | None, channels: Sequence[str]) -> dict[str, str]:
    """The scheme of normalisation by channel.

    Raises:
        PlanError: If a channel or a scheme is unknown.
    """
    chosen = {c: "clip" if c.upper() == "CT" else "zscore" for c in channels}
    wanted = dict.fromkeys(channels, given) if isinstance(given, str) else dict(given or {})
    for channel, scheme in wanted.items():
        if channel not in chosen:
            raise PlanError(f'normalisation names the channel "{channel}"; there are {", ".join(channels)}')
        if scheme not in ("zscore", "clip"):
            raise PlanError(f'normalisation is "zscore" or "clip", got "{scheme}" for {channel}')
        chosen[channel] = scheme
    return chosen


def numbers(scheme: str, channel: str, facts: Sequence[Facts]) -> dict[str, Any]:
    """A plan's rule for one channel.

    Raises:
        PlanError: If "clip" finds no spread to normalise by.
    """
    if scheme == "zscore":
        return {"scheme": "zscore"}
    # Of structures where any are labelled: air and table would decide otherwise.
    drawn = [f.structures[channel] for f in facts if channel in f.structures]
    if not sum(map(len, drawn)):
        drawn = [f.values[channel] for f in facts if channel in f.values]
    values = np.concatenate(drawn) if drawn else np.zeros(0)
    if not len(values) or values.min() == values.max():
        raise PlanError(f'channel {channel} has no spread of values in the training scans to clip by; use "zscore"')
    lower, upper = np.percentile(values, (0.5, 99.5))
    rule = {
        "lower": lower,
        "upper": upper,
        "mean": values.mean(dtype=np.float64),
        "sd": values.std(dtype=np.float64),
    }
    return {"scheme": "clip", **{name: float(value) for name, value in rule.items()}}


def statistics(cohort: Cohort, facts: Sequence[Facts], frame: Frame) -> dict[str, Any]:
    """What a model card says of the training domains."""
    subjects = {d: len(cohort.where(**{cohort.domain: d}).subjects) for d in cohort.domains}
    domains = {}
    for domain in cohort.domains:
        rows = [i for i, f in enumerate(facts) if f.domain == domain]
        intensity = {}
        for channel in cohort.channels:
            values = [facts[i].values[channel] for i in rows if channel in facts[i].values]
            pooled = np.concatenate(values) if values else np.zeros(0)
            if len(pooled):
                spread = {
                    "mean": float(pooled.mean(dtype=np.float64)),
                    "sd": float(pooled.std(dtype=np.float64)),
                }
                intensity[channel] = spread | percentiles(pooled)
        domains[domain] = {
            "scans": len(rows),
            "subjects": subjects[domain],
            "spacing_mm": np.median(frame.spacings_mm[rows], 0).tolist(),
            "size": np.median(frame.sizes[rows], 0).tolist(),
            "intensity": intensity,
        }
    return {
        "scans": len(cohort),
        "subjects": len(cohort.subjects),
        "domain": cohort.domain,
        "domains": domains,
    }
