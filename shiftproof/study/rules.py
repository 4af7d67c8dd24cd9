"""What a study by successive halving agrees on before its first run; the content of `halving.json`."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import catalogue
from ..errors import MethodError, OptionError, RunError
from ..files import write_json
from ..names import choose
from ..recipe import Recipe
from .declare import changes, require_once, with_references

FILE = "halving.json"

KINDS = ("generalisation", "adaptation")

NEAR = 0.01
"""A third of 12 is 4, also where the third was typed as 0.334."""


@dataclass(frozen=True)
class Rung:
    """One round of trainings that ranks the rows that are left.

    Args:
        seconds: Budget of each training in seconds of compute; such a rung depends on the machine.
        steps: Or in steps; one of the two is given.
        seeds: The same for every row, so that rows see the same batches.
        held_out: Development domains that are held out in turn; all by default.
    """

    seconds: float | None = None
    steps: int | None = None
    seeds: Sequence[int] = (0,)
    held_out: Sequence[str] = ()

    def __post_init__(self) -> None:
        given = [value for value in (self.seconds, self.steps) if value is not None]
        if len(given) != 1 or not given[0] > 0:
            raise OptionError(
                f"a rung has seconds or steps, one of them and above 0, got seconds {self.seconds}, steps {self.steps}"
            )
        if not self.seeds:
            raise OptionError("a rung needs at least one seed")
        require_once("a seed counts once in a rung", self.seeds)
        require_once("a domain is held out once in a rung", self.held_out)


@dataclass(frozen=True)
class Candidate:
    """A row that competes.

    Args:
        recipe: The row.
        family: Whose variants it is one of: of each family at most one row is confirmed.
    """

    recipe: Recipe
    family: str

    @property
    def kind(self) -> str:
        """Rows that see images of the held-out domain are ranked apart: what they are ranked by differs."""
        return KINDS[self.recipe.target]


@dataclass(frozen=True)
class Halving:
    """Everything that decides which rows are confirmed, and how.

    Args:
        name, cohort, cohort_hash, domain_column, domains: As of a study.
        held_out: Domains that confirmation holds out in turn; no rung sees a label of them, nor an image, except
            for the unlabelled half that adaptation is given anyway.
        development: All other domains, or those named: rungs use these only.
        candidates: The rows, in the order that decides ties.
        rungs: In their order.
        keep: Share of each kind that a rung keeps.
        finalists: Most rows that are confirmed, besides the anchors.
        scoring: Rule without labels that ranks adaptation.
        seeds: Of the confirmation; none of them is a rung's.
        anchors: Rows that are confirmed in any case: `erm` with `none`, `light` and `strong`.
        budget: Settings of the trainer in the confirmation; rungs differ from it in seconds or steps.
        primary: The metric that rows are ranked and compared by.
        rule: All of this in words.
        cost: Trainings and seconds of compute at most, by stage.
    """

    name: str
    cohort: str
    cohort_hash: str
    domain_column: str
    domains: list[str]
    held_out: list[str]
    development: list[str]
    candidates: list[Candidate]
    rungs: list[Rung]
    keep: float
    finalists: int
    scoring: str
    seeds: list[int]
    anchors: list[Recipe]
    budget: dict[str, Any]
    sources: list[str] = field(default_factory=list)
    plan: dict[str, Any] = field(default_factory=dict)
    tolerance_mm: float | dict[str, float] = 2.0
    validation: float = 0.2
    fraction: float = 1.0
    threads: int = 1
    margin: float = 0.0
    lesions: list[str] = field(default_factory=list)
    gap_subjects: int = 0
    primary: str = "dice"
    task: dict[str, Any] = field(default_factory=lambda: {"task": "segmentation"})
    rule: list[str] = field(default_factory=list)
    cost: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    command: str = ""

    def of(self, kind: str) -> list[Candidate]:
        return [c for c in self.candidates if c.kind == kind]

    def as_dict(self) -> dict[str, Any]:
        table = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        candidates = [{"family": c.family, "kind": c.kind, "recipe": c.recipe.as_dict()} for c in self.candidates]
        return table | {
            "candidates": candidates,
            "rungs": [dataclasses.asdict(rung) for rung in self.rungs],
            "anchors": [recipe.as_dict() for recipe in self.anchors],
        }

    def save(self, folder: Path) -> None:
        write_json(folder / FILE, self.as_dict())

    @classmethod
    def load(cls, folder: Path) -> Halving:
        """Raises RunError where `folder` holds no study by halving."""
        path = folder / FILE
        try:
            table = json.loads(path.read_text(encoding="utf-8"))
            candidates = [Candidate(Recipe.from_dict(c["recipe"]), c["family"]) for c in table.pop("candidates")]
            rungs = [Rung(**rung) for rung in table.pop("rungs")]
            anchors = [Recipe.from_dict(r) for r in table.pop("anchors")]
            return cls(candidates=candidates, rungs=rungs, anchors=anchors, **table)
        except FileNotFoundError as error:
            raise RunError(f"{folder} holds no study by halving: it has no {FILE}") from error
        except (json.JSONDecodeError, TypeError, KeyError, AttributeError) as error:
            raise RunError(f"{path} is not valid ({error}); restore it, or start in a new folder") from error

    def compare(self, other: Halving) -> None:
        """Raises RunError where the folder's declaration differs in more than names and places."""
        changed = changes(self.as_dict(), other.as_dict(), free=("rule", "cost"))
        if changed:
            raise RunError(
                f"the folder holds a study by halving that was declared with other {', '.join(changed)}; repeat the "
                "command that began it to continue, or choose another --out"
            )


def kept_of(number: int, keep: float) -> int:
    """How many of `number` rows a rung keeps."""
    return min(number, max(1, math.ceil(number * keep - NEAR)))


def candidates_of(rows: Sequence[Recipe], families: dict[str, str]) -> list[Candidate]:
    """Rows with their families: the method's name unless one is given.

    Raises:
        OptionError: For two rows of one name, one that sets a budget of its own, or a family of no row.
    """
    names = [row.name for row in rows]
    require_once("rows need unique names", names)
    for name in families:
        choose(name, names, "row that a family is given for")
    for row in rows:
        own = sorted({"steps", "seconds"} & set(row.training))
        if own or row.role != "row":
            what = f"training.{own[0]}" if own else f'role = "{row.role}"'
            raise OptionError(
                f'row "{row.name}": rungs give every row the same budget and add references themselves; remove {what}'
            )
    return [Candidate(row, families.get(row.name, row.method)) for row in rows]


def require_sources(candidates: Sequence[Candidate], development: Sequence[str]) -> None:
    """Raises MethodError where holding out one development domain leaves a row too few to train on."""
    for candidate in candidates:
        least = catalogue.method(candidate.recipe.method).needs.sources
        # Adaptation is ranked on the held-out domains' images, and trains on all of the others.
        left = len(development) - (candidate.kind == "generalisation")
        if left < least:
            raise MethodError(
                f'row "{candidate.recipe.name}": {candidate.recipe.method} needs at least {least} training domains, '
                f"and rungs leave it {left} of {', '.join(development)}; hold out fewer domains, or leave the row out"
            )


def anchors_of(rows: Sequence[Recipe]) -> list[Recipe]:
    """`erm` with each preset, on the network that most rows have, the first of them on a tie.

    One whose name a row of another recipe has takes another: also a row that is dropped keeps its name in the tables.
    """
    networks = [json.dumps(dict(row.network), sort_keys=True) for row in rows]
    usual = rows[max(range(len(rows)), key=lambda i: (networks.count(networks[i]), -i))].network
    anchors = [Recipe(f"erm/{preset}", transforms=preset, network=usual) for preset in ("none", "light", "strong")]
    taken = {row.name for row in rows for anchor in anchors if row.name == anchor.name and not same(row, anchor)}
    return [dataclasses.replace(a, name=f"{a.name} (anchor)") if a.name in taken else a for a in anchors]


def same(row: Recipe, anchor: Recipe) -> bool:
    """Whether a row is an anchor under whatever name."""
    return row.training_key() == anchor.training_key() and row.test_time is None


def confirmed(finalists: Sequence[Recipe], anchors: Sequence[Recipe]) -> list[Recipe]:
    """The rows of the confirmation: an anchor that is a finalist already is not run twice."""
    return [*finalists, *(a for a in anchors if not any(same(row, a) for row in finalists))]


def cost_of(halving: Halving) -> dict[str, Any]:
    """Trainings at most, and their seconds where budgets are in seconds, stage by stage.

    Which rows stay is not known yet, so every row counts as a training of its own in later stages.
    """
    stages: list[dict[str, Any]] = []
    left = {kind: len(halving.of(kind)) for kind in KINDS}
    for i, rung in enumerate(halving.rungs):
        for kind in KINDS:
            number = left[kind]
            if number < 2:
                continue  # nothing to rank
            held_out = rung.held_out if kind == "generalisation" else halving.held_out
            distinct = len({c.recipe.training_key() for c in halving.of(kind)})
            trainings = min(number, distinct) * len(held_out) * len(rung.seeds)
            stages.append(_stage(f"rung {i + 1}, {kind}", number, trainings, rung.seconds))
            left[kind] = kept_of(number, halving.keep)
    most = _most_confirmed(halving, min(halving.finalists, sum(left.values())))
    trainings = most * len(halving.held_out) * len(halving.seeds)
    stages.append(_stage("confirmation", most, trainings, halving.budget.get("seconds")))
    seconds = [stage["seconds"] for stage in stages]
    known = all(s is not None for s in seconds)
    return {
        "trainings": sum(stage["trainings"] for stage in stages),
        "seconds": sum(seconds) if known else None,
        "stages": stages,
    }


def _stage(name: str, rows: int, trainings: int, seconds: float | None) -> dict[str, Any]:
    total = None if seconds is None else trainings * seconds
    return {"stage": name, "rows": rows, "trainings": trainings, "seconds": total}


def _most_confirmed(halving: Halving, finalists: int) -> int:
    """Finalists, anchors and references at most: those that need the most references may be the ones that stay."""
    own = len(halving.anchors)
    more: list[int] = []
    for candidate in halving.candidates:
        rows = confirmed([candidate.recipe], halving.anchors)
        every, _ = with_references(rows)
        more.append(len(every) - own)
    every, _ = with_references(halving.anchors)
    shared = len(every) - own
    # References that the anchors bring are counted once, not once a finalist.
    return len(every) + sum(sorted((max(0, n - shared) for n in more), reverse=True)[:finalists])


def rule_of(halving: Halving) -> list[str]:
    """The declaration in words, a line for each decision."""
    budgets = ", ".join(_budget(rung) for rung in halving.rungs)
    inner = ", ".join(halving.development)
    numbers = {kind: len(halving.of(kind)) for kind in KINDS}
    lines = [
        f"{len(halving.candidates)} rows compete ({numbers[KINDS[0]]} of generalisation, {numbers[KINDS[1]]} of "
        f"adaptation) in {len(halving.rungs)} rung{'s' if len(halving.rungs) > 1 else ''} of {budgets} a training.",
        f"Generalisation is ranked by {halving.primary} on {inner}, each held out in turn from the others: mean over "
        "these domains of the mean over their subjects.",
    ]
    if numbers["adaptation"]:
        lines.append(
            f"Adaptation is trained on {inner} and ranked by {halving.scoring} on the unlabelled images of "
            f"{', '.join(halving.held_out)} that it adapts to; no label of these is read."
        )
    lines += [
        f"Each rung keeps {100 * halving.keep:.0f} % of each kind, rounded up, at least one; ties go to the row "
        "that was named first. A training that fails is tried once more, then its row is dropped.",
        f"Confirmed on {', '.join(halving.held_out)} with the fresh seeds {', '.join(map(str, halving.seeds))} are the "
        f"best row of each family that the last rung kept, at most {halving.finalists}, "
        f"{', '.join(a.name for a in halving.anchors)}, and the references.",
        "Tests are corrected for the confirmed rows only: no other row was looked at there.",
    ]
    return lines


def _budget(rung: Rung) -> str:
    return f"{rung.seconds:g} s" if rung.seconds is not None else f"{rung.steps} steps"
