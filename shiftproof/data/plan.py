"""How scans become arrays, decided once from the training domains and written to `plan.json`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import PlanError
from ..files import write_text
from .geometry import ORIENTATIONS, restore_labels
from .labels import nearest
from .preprocess import Preprocessed, preprocess

if TYPE_CHECKING:
    from .cohort import Cohort
    from .facts import Facts

__all__ = ["Plan", "Preprocessed", "make_plan", "preprocess", "restore_labels"]

FORMAT = 1

SEGMENTATION = {"task": "segmentation", "kind": "multi-class"}


@dataclass(frozen=True)
class Plan:
    """What training scans decided, for every scan that a network will see.

    Args:
        dimensions: 2 (a slice at a time) or 3.
        orientation: Where the axes of a case point to; the third is the slice axis. "" for pictures, whose
            axes stay.
        spacing_mm: Voxel size of a case; None for the slice axis in 2D, which is never resampled.
        channels: Names, in the order of the network's input.
        classes: Names, background first; empty where nothing was labelled.
        normalisation: By channel, {"scheme": "zscore"} or {"scheme": "clip", "lower", "upper", "mean", "sd"}.
        patch: Voxels of a training patch, `dimensions` numbers.
        context: In 2D, slices on each side that are shown beside the one that is predicted ("2.5D"; frames of a
            cine likewise); they count as channels.
        target: What is predicted, as `shiftproof.tasks.make` reads it: the task, its kind, of "multi-label"
            segmentation the combinations of structures, of regression the training set's mean and deviation.
        crop: "background" (to the box of what is not background) or "none".
        statistics: What the plan was made from: scans, subjects, spacing, size and intensity by domain.
        automatic: What `--plan auto` chose beside all this, with its reasons; see `shiftproof.autoplan`. Else empty.
    """

    dimensions: int
    orientation: str
    spacing_mm: tuple[float | None, float | None, float | None]
    channels: tuple[str, ...]
    classes: tuple[str, ...]
    normalisation: dict[str, dict[str, Any]]
    patch: tuple[int, ...]
    crop: str = "background"
    context: int = 0
    target: dict[str, Any] = field(default_factory=lambda: dict(SEGMENTATION))
    statistics: dict[str, Any] = field(default_factory=dict)
    automatic: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _require_sound(self)

    def preprocessing(self) -> dict[str, Any]:
        """The part that decides a case's arrays; equal parts share preprocessed cases."""
        others = ("patch", "context", "target", "statistics", "classes", "automatic")
        return {k: v for k, v in asdict(self).items() if k not in others}

    @property
    def inputs(self) -> int:
        """Channels that a network reads: those of the image, for each slice that is shown."""
        return len(self.channels) * (2 * self.context + 1)

    @property
    def task(self) -> str:
        return str(self.target["task"])

    def to_json(self) -> str:
        table = asdict(self)
        if not self.automatic:  # as plans were written before there was a planner
            table.pop("automatic")
        return json.dumps({"format": FORMAT, **table}, indent=2)

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Read what `to_json` wrote.

        Raises:
            PlanError: If it is no plan, or says something that has no meaning.
        """
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise PlanError(f"the plan is no valid JSON: {error}") from error
        if not isinstance(values, dict):
            raise PlanError(f"a plan is a JSON object, got {type(values).__name__}")
        version = values.pop("format", None)
        if version != FORMAT:
            raise PlanError(f"the plan has format {version!r}, this version reads {FORMAT}; make the plan again")
        names = [f.name for f in fields(cls)]
        unknown = sorted(set(values) - set(names))
        if unknown:
            raise PlanError(f'the plan has an unknown entry "{unknown[0]}"; {nearest(unknown[0], names)}')
        absent = [n for n in names if n not in values and n != "automatic"]
        if absent:
            raise PlanError(f'the plan lacks "{absent[0]}"; make the plan again')
        lists = ("spacing_mm", "channels", "classes", "patch")
        for name in lists:
            if not isinstance(values[name], list):
                raise PlanError(f"plan: {name} must be a list, got {values[name]!r}")
        return cls(**{**values, **{name: tuple(values[name]) for name in lists}})

    def write(self, path: Path | str) -> None:
        """Write `plan.json`, complete or not at all."""
        write_text(Path(path), self.to_json() + "\n")

    @classmethod
    def read(cls, path: Path | str) -> Plan:
        """Read `plan.json`.

        Raises:
            PlanError: If it is missing or wrong.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise PlanError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
        try:
            return cls.from_json(text)
        except PlanError as error:
            raise PlanError(f"{path}: {error}") from error


def make_plan(
    cohort: Cohort,
    *,
    dimensions: int | None = None,
    spacing_mm: Sequence[float | None] | None = None,
    patch: Sequence[int] | None = None,
    normalisation: str | Mapping[str, str] | None = None,
    context: int = 0,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
    facts: Sequence[Facts] | None = None,
) -> Plan:
    """A plan from the scans of `cohort`, which must be the training domains and nothing else.

    Args:
        cohort: Training scans.
        dimensions: 2 or 3; by default 2 if the scans are pictures, have thick slices (more than 3 pixels) or
            few (below 16 in the median), else 3.
        spacing_mm: Voxel size, slice axis last; by default the median per axis, and for a slice axis that is
            more than 3 times coarser the 10th percentile, so that thin slices are not thrown away.
        patch: Voxels; by default what covers the median scan, up to 128 a side in 2D and 96 in 3D. Where a whole
            scan has one label, voxels are made as large as it takes for the patch to cover the scan.
        normalisation: "zscore" or "clip", for all or by channel; by default "clip" for a channel named CT.
        context: Slices on each side that are shown beside the predicted one; for 2 dimensions.
        workers: Processes that read.
        progress: Called with (scans read, all).
        facts: Of these scans, where they are known: nothing is read then.

    Raises:
        PlanError: If an option does not fit the scans, or pictures and volumes are mixed.
        ImageError: If a scan cannot be read.
    """
    from . import planning

    channels = cohort.channels
    schemes = planning.schemes(normalisation, channels)
    if facts is None:
        facts = planning.facts_for(cohort, normalisation, workers=workers, progress=progress)
    frame = planning.frame_of(facts)
    dimensions = planning.dimensions_for(frame, dimensions)
    spacing = planning.spacing_for(frame, dimensions, spacing_mm)
    whole = cohort.task != "segmentation"
    if whole and spacing_mm is None:
        spacing = planning.covering(frame, spacing, patch or (planning.CAPS[dimensions],) * dimensions)
    shapes = planning.shapes_of(frame, spacing)
    shape = shapes.max(0) if whole else np.median(shapes, 0)
    return Plan(
        dimensions,
        frame.orientation,
        spacing,
        tuple(channels),
        tuple(cohort.classes),
        {c: planning.numbers(schemes[c], c, facts) for c in channels},
        tuple(patch) if patch is not None else planning.patch_for(shape, dimensions),
        context=context,
        target=planning.target_of(cohort),
        statistics=planning.statistics(cohort, facts, frame),
    )


def _require_sound(plan: Plan) -> None:
    """Every entry has its type and fits the others.

    Raises:
        PlanError: Otherwise.
    """

    def require(right: bool, name: str, expected: str) -> None:
        if not right:
            raise PlanError(f"plan: {name} must be {expected}, got {getattr(plan, name)!r}")

    spacing = plan.spacing_mm
    require(plan.dimensions in (2, 3), "dimensions", "2 or 3")
    require(plan.orientation in ("", *ORIENTATIONS), "orientation", 'three letters such as "LPS", or ""')
    numbers = len(spacing) == 3 and all(_is_number(s) and s > 0 for s in spacing[: plan.dimensions])  # type: ignore[operator]
    require(
        numbers and (plan.dimensions == 3 or spacing[2] is None),
        "spacing_mm",
        "three sizes above 0 mm, or two and null in 2D",
    )
    for name in ("channels", "classes"):
        names = getattr(plan, name)
        require(
            all(isinstance(n, str) and n for n in names) and len(set(names)) == len(names),
            name,
            "different names",
        )
    require(len(plan.channels) > 0, "channels", "at least one name")
    right = isinstance(plan.normalisation, dict) and set(plan.normalisation) == set(plan.channels)
    require(right, "normalisation", f"an object with the channels {', '.join(plan.channels)}")
    for rule in plan.normalisation.values():
        scheme = rule.get("scheme") if isinstance(rule, dict) else None
        wanted = {"zscore": (), "clip": ("lower", "upper", "mean", "sd")}.get(str(scheme))
        complete = wanted is not None and all(_is_number(rule.get(n)) for n in wanted)
        require(
            complete and (not wanted or (rule["lower"] < rule["upper"] and rule["sd"] > 0)),
            "normalisation",
            'by channel {"scheme": "zscore"} or {"scheme": "clip", "lower", "upper", "mean", "sd"} with '
            "lower < upper, sd > 0",
        )
    whole = all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in plan.patch)
    require(whole and len(plan.patch) == plan.dimensions, "patch", f"{plan.dimensions} whole numbers above 0")
    require(plan.crop in ("background", "none"), "crop", '"background" or "none"')
    count = isinstance(plan.context, int) and not isinstance(plan.context, bool) and plan.context >= 0
    require(count and (plan.dimensions == 2 or not plan.context), "context", "slices on each side, 0 in 3D")
    require(not plan.context or bool(plan.orientation), "context", "0 for 2D pictures, which have no neighbours")
    require(_is_target(plan), "target", "a task with its kind, as `shiftproof cohort import` and the plan write it")
    require(isinstance(plan.statistics, dict), "statistics", "an object")
    require(isinstance(plan.automatic, dict), "automatic", "an object")


def _is_target(plan: Plan) -> bool:
    target = plan.target
    if not isinstance(target, dict):
        return False
    task, kind = target.get("task"), target.get("kind")
    if task == "regression":
        names = all(isinstance(target.get(n), str) for n in ("column", "unit"))
        return names and _is_number(target.get("mean")) and _is_number(target.get("sd")) and target["sd"] > 0
    if task == "classification":
        return kind in ("multi-class", "ordinal", "multi-label") and len(plan.classes) > 0
    if task != "segmentation" or kind not in ("multi-class", "multi-label"):
        return False
    parts = target.get("parts", [])
    structures = len(plan.classes) - 1
    return kind == "multi-class" or (
        isinstance(parts, list)
        and len(parts) > 0
        and all(isinstance(p, list) and len(p) == structures and all(b in (True, False) for b in p) for p in parts)
    )


def _is_number(value: object) -> bool:
    return (
        isinstance(value, int | float) and not isinstance(value, bool) and value == value and abs(value) != float("inf")
    )
