"""Learning curves: how rows fare as training subjects get fewer, from studies that differ in nothing else."""

from __future__ import annotations

import dataclasses
import math
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd

from ..errors import RunError
from ..files import write_json
from ..names import choose
from ..statistics import interval, per_training
from .comparing import family_of
from .findings import declared_margin, oriented
from .generalization import METRICS, line_of, read_gaps, values_of
from .learning_page import write_page
from .numbers import scale
from .reading import read_results
from .results import Cell, Results
from .trainings import fallen, trainings_of

Found = dict[str, Any]

SAME = ("cohort_hash", "domain_column", "held_out", "sources", "validation", "tolerance_mm", "primary", "task")
"""Facts in which the studies of a curve must agree: else its points differ in more than in subjects."""


@dataclass(frozen=True)
class Point:
    """A study as a point of the curves.

    Args:
        fraction: Share of the training subjects.
        subjects: Fewest and most that a held-out domain's networks were trained on; None where runs are gone.
        results: Of the study.
        sides: Scores of training, held-back and held-out subjects, as `read_gaps` gives them.
    """

    fraction: float
    subjects: tuple[int, int] | None
    results: Results
    sides: pd.DataFrame

    @property
    def name(self) -> str:
        return str(self.results.facts.get("name") or self.results.root)

    @property
    def label(self) -> str:
        return f"{100 * self.fraction:g} %"

    @property
    def recipes(self) -> dict[str, Found]:
        return {str(r["name"]): r for r in self.results.recipes}


def learning_curves(
    studies: Sequence[Path],
    out: Path,
    *,
    metrics: Sequence[str] | None = None,
    structure: str | None = None,
    rows: Sequence[str] | None = None,
) -> Found:
    """Scores over the number of training subjects, of the rows of several studies; writes a page and its numbers.

    Of each row, metric and fraction: the mean over held-out subjects with its interval, the mean over the training
    subjects that the study has scored, too, and the gap between both. What the smallest fraction costs against the
    largest is tested like a difference between rows: over subjects (paired) and over trainings, corrected by Holm's
    rule over the rows of a metric.

    Args:
        studies: Folders of `study`, of one cohort and held-out domains, each with another `fraction`.
        out: Where `learning-curves.html` and `learning-curves.json` go.
        metrics: Names; sensitivity, precision and the primary one by default, or the primary one alone.
        structure: Only this one; the mean over structures by default.
        rows: Only these; by default all that two studies or more have.

    Returns:
        As in the file of numbers.

    Raises:
        RunError: If a folder is no study, has no scores, or differs in more than the fraction.
        OptionError: For a metric, structure or row that none of them has.
    """
    points = read_points(studies)
    chosen = chosen_rows(points, rows)
    first = points[0].results
    there = sorted({m for point in points for m in point.results.metrics if not scale(m).signed})
    usual = [m for m in (*(METRICS if first.segments else ()), first.primary) if m in there]
    wanted = [choose(m, there, "metric of these studies") for m in metrics or dict.fromkeys(usual)]
    if structure is not None:
        choose(structure, sorted({s for point in points for s in point.results.structures}), "structure")
    found = {
        "domain_word": first.domain_word,
        "held_out": first.held_out,
        "structure": structure,
        "structures": first.structures if first.segments else [],
        "studies": [
            {
                "name": point.name,
                "folder": str(point.results.root),
                "label": point.label,
                "fraction": point.fraction,
                "subjects": point.subjects,
                "seeds": len(point.results.seeds),
            }
            for point in points
        ],
        "rows": chosen,
        "metrics": [curves(points, chosen, metric, structure) for metric in wanted],
        "primary": first.primary,
        "fallen": fallen_trainings(points, chosen, structure),
        "caveats": caveats(points),
    }
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "learning-curves.json", found)
    write_page(found, out / "learning-curves.html")
    return found


# What is read ----------------------------------------------------------------------------------------------------


def read_points(studies: Sequence[Path]) -> list[Point]:
    """From the fewest subjects to the most.

    Raises:
        RunError: See `learning_curves`.
    """
    if len(studies) < 2:
        raise RunError(
            f"learning curves need 2 studies or more, got {len(studies)}; run the study again with another --fraction "
            "and --out"
        )
    points = []
    for folder in studies:
        results = read_results(Path(folder))
        if results.kind != "study":
            raise RunError(f"{folder} is an evaluation, which has no --fraction; give folders of studies")
        if results.rows.empty:
            raise RunError(f"{folder} has no scores yet; repeat its command to go on with it")
        fraction = float(results.facts.get("fraction", 1.0))
        points.append(Point(fraction, training_subjects(results), results, read_gaps(results)))
    points.sort(key=lambda point: point.fraction)
    for a, b in pairwise(points):
        if a.fraction == b.fraction:
            raise RunError(f"{a.results.root} and {b.results.root} are both of {a.label}; give one study a fraction")
        differing = [key for key in SAME if a.results.facts.get(key) != b.results.facts.get(key)]
        if differing:
            raise RunError(
                f"{a.results.root} and {b.results.root} differ in {', '.join(differing)}; a learning curve is of "
                "studies that differ in --fraction alone"
            )
    return points


def training_subjects(results: Results) -> tuple[int, int] | None:
    """Fewest and most subjects that were trained on, or that steered a training, as the runs have noted."""
    bounds = {r["name"] for r in results.recipes if r.get("role") == "target-supervised"}
    numbers = []
    for cell in results.cells:
        path = None if cell.run is None or cell.row in bounds else cell.run / "run.toml"
        if path is not None and path.exists():
            subjects = tomllib.loads(path.read_text(encoding="utf-8")).get("subjects", {})
            sides = [side for side in subjects if side == "train" or side.endswith("in training")]
            numbers.append(len({subject for side in sides for subject in subjects[side]}))
    return (min(numbers), max(numbers)) if numbers else None


def chosen_rows(points: Sequence[Point], rows: Sequence[str] | None) -> list[str]:
    """Rows that two studies or more have, each the same recipe in all of them; upper bounds are left out.

    Raises:
        RunError: If there is none, or a name stands for different recipes.
        OptionError: For a name that none has.
    """
    scored = [set(point.results.rows["row"]) for point in points]
    every = list(dict.fromkeys(name for point in points for name in point.recipes))
    common = [name for name in every if sum(name in there for there in scored) > 1]
    common = [
        name
        for name in common
        if not any(point.recipes.get(name, {}).get("role") == "target-supervised" for point in points)
    ]
    if not common:
        raise RunError("no row stands in two of these studies; a curve joins the same row in studies of two fractions")
    chosen = [choose(name, common, "row that two of these studies have") for name in rows] if rows else common
    for name in chosen:
        known = [(point, recipe_of(point.recipes[name])) for point in points if name in point.recipes]
        for point, recipe in known[1:]:
            before, was = known[0]
            differing = sorted(key for key in {*was, *recipe} if was.get(key) != recipe.get(key))
            if differing:
                raise RunError(
                    f'row "{name}" of {point.results.root} differs from that of {before.results.root} in '
                    f"{', '.join(differing)}; rename one of them, or choose others with --rows"
                )
    return chosen


def recipe_of(row: Found) -> Found:
    """What makes it the same training; whether it is a reference, too, does not."""
    return {key: value for key, value in row.items() if key not in ("role", "family")}


def caveats(points: Sequence[Point]) -> list[str]:
    """What else may differ between the points."""
    found = []
    if any(point.results.facts.get("budget") != points[0].results.facts.get("budget") for point in points):
        found.append("Studies differ in their training budget, too: see budget in their study.json.")
    fewest = min(len(point.results.seeds) for point in points)
    if fewest < 3:
        found.append(f"Some points have {'a single training' if fewest == 1 else '2 trainings'} a row: three or more "
                     "tell a trend from luck.")  # fmt: skip
    unfinished = [point.label for point in points if any(c.status != "done" for c in point.results.cells)]
    if unfinished:
        found.append(f"Not all trainings are done at {', '.join(unfinished)}.")
    return found


# Numbers ---------------------------------------------------------------------------------------------------------


def curves(points: Sequence[Point], rows: Sequence[str], metric: str, structure: str | None) -> Found:
    """Of one metric: each row's points, and what the smallest fraction costs."""
    tables, cells = [], []
    for point in points:
        scores = by_training(point, rows, metric, structure)
        tables.append(scores.assign(row=scores["row"] + key(point)))
        cells += [renamed(cell, point) for cell in point.results.cells]
    scores = pd.concat(tables)
    wide = scores.pivot_table(index=["held_out", "subject"], columns="row", values="value")
    seen = [gaps(point, rows, metric, structure) for point in points]
    lines: list[Found] = []
    for row in rows:
        own = [i for i, point in enumerate(points) if row + key(point) in wide]
        lines.append({"row": row, "points": [of_point(wide, points[i], i, row, seen[i].get(row)) for i in own]})
    joined = [line for line in lines if len(line["points"]) > 1]
    ends = [[points[line["points"][end]["study"]] for end in (0, -1)] for line in joined]
    members = [
        (line["row"] + key(few), line["row"] + key(many)) for line, (few, many) in zip(joined, ends, strict=True)
    ]
    margin = declared_margin(points[0].results.facts) if metric == points[0].results.primary else 0.0
    tested = family_of(wide, "curve", members, scale(metric), margin, trainings_of(scores, cells))
    changes = {
        line["row"]: change | {"a": few.label, "b": many.label}
        for line, change, (few, many) in zip(joined, tested, ends, strict=True)
    }
    return {
        "metric": metric,
        "higher_is_better": scale(metric).higher_is_better,
        "rows": [line | {"change": changes.get(line["row"])} for line in lines],
    }


def by_training(point: Point, rows: Sequence[str], metric: str, structure: str | None) -> pd.DataFrame:
    results = point.results
    scores = per_training(oriented(results.rows, metric), metric, structure=structure, by_structure=results.segments)
    return scores[scores["row"].isin(rows)]


def fallen_trainings(points: Sequence[Point], rows: Sequence[str], structure: str | None) -> list[Found]:
    """Those that went wrong by the primary metric, with the fraction that they are of."""
    metric = points[0].results.primary
    found = []
    for point in points:
        trainings = trainings_of(by_training(point, rows, metric, structure), ())
        found += [
            each | {"fraction": point.fraction, "where": f" at {point.label}"}
            for each in fallen(trainings, scale(metric))
        ]
    return found


def key(point: Point) -> str:
    """Behind a row's name: the same row in another study is another one to a test."""
    return f"\x1f{point.fraction!r}"


def renamed(cell: Cell, point: Point) -> Cell:
    return dataclasses.replace(cell, row=cell.row + key(point))


def of_point(wide: pd.DataFrame, point: Point, place: int, row: str, seen: Found | None) -> Found:
    around = interval(wide[row + key(point)].dropna().to_numpy())
    train, gap = (seen["train"], seen["gap"]) if seen else (math.nan, None)
    return {
        "study": place, "mean": around.mean, "low": around.low, "high": around.high, "n": around.n, "train": train,
        "gap": gap,
    }  # fmt: skip


def gaps(point: Point, rows: Sequence[str], metric: str, structure: str | None) -> dict[str, Found]:
    """By row: the mean score of training subjects, and the generalization gap; nothing where a study has not looked."""
    results = point.results
    if point.sides.empty or metric not in set(point.sides["metric"]):
        return {}
    values = values_of(point.sides, structure, metric, results.segments)
    found = {}
    for row in rows:
        line = line_of(values, row, metric, results)
        if line is not None:
            error = line["errors"]["train"]
            found[row] = {"train": 1 - error if scale(metric).higher_is_better else error, "gap": line["gaps"]["all"]}
    return found
