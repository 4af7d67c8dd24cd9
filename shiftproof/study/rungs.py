"""A rung: what its trainings read, how it ranks rows, and which of them it keeps."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.cohort import Cohort
from ..data.splits import hold_out
from ..errors import RunError, StorageError
from ..files import read_rows, replacing, write_json
from ..metrics.unlabelled import FEWEST
from ..statistics import per_subject
from .cell import SPLIT_SEED, jobs, status
from .declare import LABELS, Declaration
from .rules import KINDS, Candidate, Halving, kept_of

if TYPE_CHECKING:
    import pandas as pd

RESULTS = "rungs.json"
DROPPED = "dropped.csv"
COLUMNS = ("row", "family", "kind", "rung", "rank", "value", "low", "high", "seconds", "reason")


@dataclass(frozen=True)
class Place:
    """Where a row came in a rung.

    Args:
        row, family, kind: As declared.
        rung: Its number, from 1.
        rank: From 1 within the kind; 0 for a row that failed.
        value: Mean over held-out domains of the mean over subjects; NaN where there is none.
        low, high: Its 95 % interval over subjects, the domains taken as they are; NaN where no domain has two.
        n: Subjects.
        seconds: Of the row's trainings in this rung; rows that share a training have the same.
        kept: Whether it goes on.
        reason: Why not; "" where it does.
    """

    row: str
    family: str
    kind: str
    rung: int
    rank: int
    value: float
    low: float
    high: float
    n: int
    seconds: float
    kept: bool
    reason: str


def cohort_of(table: Cohort, halving: Halving, kind: str) -> Cohort:
    """All that a rung may read: scans of the development domains, of nobody who was scanned at a held-out one.

    For adaptation also the held-out domains' half that confirmation adapts to, without labels or the names of the
    files that hold them.
    """
    import pandas as pd

    away = set(table.where(**{table.domain: halving.held_out}).subjects)
    inner = table.where(**{table.domain: halving.development})
    own = inner.of_subjects([s for s in inner.subjects if s not in away])
    parts = [own.table]
    if kind == "adaptation":
        options: dict[str, Any] = {"validation": halving.validation, "seed": SPLIT_SEED}
        for held in halving.held_out:
            # Domains that nothing trains on may not even be divisible.
            split = hold_out(table.where(**{table.domain: [*halving.development, held]}), held, **options)
            if split.target is None:
                raise RunError(
                    f"{held} has no subject besides its test side, so that nothing is left to adapt to; "
                    'mark fewer of its subjects as "test", or leave out rows with a target'
                )
            # Of a segmentation every voxel is a point.
            if table.task != "segmentation" and len(split.target) < FEWEST[halving.scoring]:
                raise RunError(
                    f"{halving.scoring} tells rows apart from {FEWEST[halving.scoring]} scans on, and the half of "
                    f"{held} that they adapt to has {len(split.target)}; hold out a domain with more subjects, or "
                    "leave out rows with a target"
                )
            parts.append(split.target.table)
    return Cohort(pd.concat(parts, ignore_index=True), table.root, domain=table.domain, labels=table.labels)


def declared_rung(
    halving: Halving, number: int, kind: str, candidates: Sequence[Candidate], cohort: Cohort, path: Path
) -> Declaration:
    """The study that one rung is: common seeds, no references, the development domains only."""
    rung = halving.rungs[number - 1]
    limits = {"seconds": rung.seconds} if rung.steps is None else {"seconds": None, "steps": rung.steps}
    general = kind == "generalisation"
    return Declaration(
        name=f"{halving.name}, rung {number}, {kind}",
        cohort=str(path),
        cohort_hash=cohort.hash(),
        domain_column=halving.domain_column,
        domains=cohort.domains,
        held_out=list(rung.held_out) if general else list(halving.held_out),
        seeds=list(rung.seeds),
        rows=[c.recipe for c in candidates],
        references={},
        budget=halving.budget | limits,
        sources=list(halving.development),
        plan=halving.plan,
        tolerance_mm=halving.tolerance_mm,
        validation=halving.validation,
        fraction=halving.fraction,
        threads=halving.threads,
        primary=halving.primary,
        lesions=halving.lesions if general else [],
        scoring=LABELS if general else halving.scoring,
        task=halving.task,
        versions=halving.versions,
    )


def placed(folder: Path, declared: Declaration, halving: Halving, number: int, kind: str) -> list[Place]:
    """The rows of a rung that is complete, best first, failed ones last."""
    from ..report.numbers import scale

    metric = declared.primary if declared.scoring == LABELS else declared.scoring
    within = scale(metric).within if declared.scoring == LABELS else (-math.inf, math.inf)
    sign = 1 if declared.scoring != LABELS or scale(metric).higher_is_better else -1
    families = {c.recipe.name: c.family for c in halving.candidates}
    found = []
    for recipe in declared.rows:
        cells = cells_of(folder, declared, recipe.name)
        facts = [facts_of(cell) for cell in cells]
        failed = [str(f.get("error", "it was not run")) for f in facts if f.get("status") != "done"]
        seconds = float(sum(f.get("seconds") or 0.0 for f in facts))
        values = None if failed else subjects_of(cells, metric, declared)
        value, low, high, n = (math.nan, math.nan, math.nan, 0) if values is None else summary(values, within)
        reason = f"failed: {failed[0]}" if failed else ""
        if not failed and not math.isfinite(value):
            reason = f"has no {metric} on one of {', '.join(declared.held_out)}"
        row = recipe.name
        found.append(Place(row, families[row], kind, number, 0, value, low, high, n, seconds, False, reason))
    # Sorting is stable: ties stay in the declared order.
    ranked = sorted((p for p in found if not p.reason), key=lambda p: -sign * p.value)
    most = kept_of(len(found), halving.keep)
    places = []
    for rank, place in enumerate(ranked, start=1):
        kept = rank <= most
        words = "" if kept else f"rank {rank} of {len(found)}, of which {most} stay"
        places.append(dataclasses.replace(place, rank=rank, kept=kept, reason=words))
    return places + [p for p in found if p.reason]


def require_ranked_fairly(folder: Path, declared: Declaration) -> None:
    """Raises StorageError where rows failed for want of disk, which is no fault of theirs to be dropped for."""
    for recipe in declared.rows:
        for facts in map(facts_of, cells_of(folder, declared, recipe.name)):
            if facts.get("kind") == "StorageError":
                raise StorageError(f'row "{recipe.name}" could not be trained and is not dropped: {facts["error"]}')


def alone(candidate: Candidate, number: int) -> Place:
    """The only row of its kind, which has nothing to be ranked against and costs nothing."""
    missing = math.nan
    row, kind = candidate.recipe.name, candidate.kind
    return Place(row, candidate.family, kind, number, 1, missing, missing, missing, 0, 0.0, True, "")


def cells_of(folder: Path, declared: Declaration, row: str) -> list[Path]:
    return [cells[row] for job in jobs(declared) if row in (cells := job.cells(folder))]


def facts_of(cell: Path) -> dict[str, Any]:
    """What cell.json says; nothing of a cell that was not run."""
    if status(cell) == "open":
        return {}
    found: dict[str, Any] = json.loads((cell / "cell.json").read_text(encoding="utf-8"))
    return found


def subjects_of(cells: Sequence[Path], metric: str, declared: Declaration) -> pd.DataFrame:
    """Columns `held_out`, `subject`, `value`: seeds and structures averaged."""
    import pandas as pd

    rows = pd.concat([read_rows(cell / "rows.csv") for cell in cells])
    # Where a scan has one label, a line stands under its class.
    return per_subject(rows, metric, by_structure=declared.task.get("task", "segmentation") == "segmentation")


def summary(values: pd.DataFrame, within: tuple[float, float]) -> tuple[float, float, float, int]:
    """Mean over domains of the mean over subjects, its interval, and the number of subjects.

    Domains count equally whatever their size, and are no sample: the interval is t's with the variance of subjects
    within domains, one for all of them, whose degrees of freedom the domains' means have used up.
    """
    from scipy import stats

    known = values.dropna(subset=["value"])
    by_domain = known.groupby("held_out")["value"]
    means, number = by_domain.mean(), len(known)
    if set(means.index) != set(values["held_out"]) or known.empty:
        return math.nan, math.nan, math.nan, number
    value, free = float(means.mean()), number - len(means)
    if not free:
        return value, math.nan, math.nan, number
    variance = float(((known["value"] - by_domain.transform("mean")) ** 2).sum()) / free
    half = float(stats.t.ppf(0.975, free)) * math.sqrt(variance * float((1 / by_domain.size()).sum())) / len(means)
    return value, max(value - half, within[0]), min(value + half, within[1]), number


def finalists_of(halving: Halving, places: Sequence[Place]) -> tuple[list[str], list[Place]]:
    """Rows to confirm, and those that the last rung kept and that another row of their family or the limit puts out.

    Kinds are ranked by different things and compete in nothing but number: the best of each come first.

    Args:
        halving: What was declared.
        places: Of rows that the last rung kept, by any order.
    """
    order = {c.recipe.name: i for i, c in enumerate(halving.candidates)}
    queue = sorted(places, key=lambda p: (p.rank, order[p.row]))
    best: dict[tuple[str, str], str] = {}
    chosen: list[str] = []
    out = []
    for place in queue:
        ahead = best.setdefault((place.kind, place.family), place.row)
        if ahead != place.row:
            words = f"{ahead} of the same family ({place.family}) came before it"
            out.append(dataclasses.replace(place, kept=False, reason=words))
        elif len(chosen) == halving.finalists:
            words = f"{halving.finalists} rows of other families came before it"
            out.append(dataclasses.replace(place, kept=False, reason=words))
        else:
            chosen.append(place.row)
    return chosen, out


@dataclass
class Results:
    """What rungs found so far; the content of `rungs.json`.

    Args:
        rungs: Places by rung and kind, of those that are complete.
        finalists: Rows to confirm, once all rungs are complete.
        out: Rows that the last rung kept and that are no finalists.
    """

    rungs: dict[tuple[int, str], list[Place]]
    finalists: list[str] | None = None
    out: Sequence[Place] = ()

    @classmethod
    def load(cls, folder: Path) -> Results:
        """Raises RunError for a file that cannot be read."""
        path = folder / RESULTS
        if not path.exists():
            return cls({})
        try:
            table = json.loads(path.read_text(encoding="utf-8"))
            rungs = {(r["rung"], r["kind"]): [_place(p) for p in r["rows"]] for r in table["rungs"]}
            return cls(rungs, table["finalists"], [_place(p) for p in table["out"]])
        except (json.JSONDecodeError, TypeError, KeyError) as error:
            raise RunError(f"{path} is not valid ({error}); remove it, and the rungs are ranked again") from error

    def save(self, folder: Path, halving: Halving) -> None:
        """Writes rungs.json, and dropped.csv from it."""
        rungs = [
            {
                "rung": number,
                "kind": kind,
                "folder": folder_of(number, kind),
                "metric": halving.primary if kind == KINDS[0] else halving.scoring,
                "rows": [dataclasses.asdict(p) for p in places],
            }
            for (number, kind), places in self.rungs.items()
        ]
        out = [dataclasses.asdict(p) for p in self.out]
        write_json(folder / RESULTS, {"rungs": rungs, "finalists": self.finalists, "out": out})
        with replacing(folder / DROPPED) as path:
            self.dropped().to_csv(path, index=False)

    def dropped(self) -> pd.DataFrame:
        """A line for each row that is out, with the rung that it left in."""
        import pandas as pd

        places = [p for rung in self.rungs.values() for p in rung if not p.kept] + list(self.out)
        return pd.DataFrame([dataclasses.asdict(p) for p in places], columns=list(COLUMNS))


def _place(table: Mapping[str, Any]) -> Place:
    # JSON has no NaN.
    numbers = {k: math.nan for k in ("value", "low", "high") if table[k] is None}
    return Place(**{**table, **numbers})


def folder_of(number: int, kind: str) -> str:
    return f"rungs/{number}" + ("" if kind == "generalisation" else f"-{kind}")
