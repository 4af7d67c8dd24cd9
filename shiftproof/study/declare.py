"""What a study is, written down before its first run: rows, held-out domains, seeds, references, budget."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..catalogue import OWN_TRANSFORMS, TEST_TIME
from ..errors import OptionError, RunError
from ..files import write_json
from ..names import choose
from ..recipe import Recipe

LABELS = "labels"
"""The scoring of a study that reads the labels of held-out subjects, as all but rungs of adaptation do."""

FAMILY = "family"
"""Key of a [[row]] table: which rows a large study counts as variants of one idea."""

FREE = ("command", "versions", "name", "cohort", "gap_subjects")
"""What of a declaration changes no number of a held-out subject."""


@dataclass(frozen=True)
class Declaration:
    """Everything that a study's numbers depend on; the content of `study.json`.

    Args:
        name: Shown in the report.
        cohort: Path of the table.
        cohort_hash: Of its content: table, label map and files.
        domain_column: Column that names the domain.
        domains: All domains.
        held_out: Domains that are held out in turn.
        seeds: Seeds of training; the division into subjects is the same for all.
        rows: Recipes, references included.
        references: "source-only": a row's name, that of the first row; "plain" (source-only), "pooled" and
            "target-supervised": by row, the reference's name.
        budget: Settings of the trainer.
        sources: Domains to train on; empty: all but the held-out one.
        plan: Options of `autoplan.plan_of`: dimensions, spacing_mm, patch; automatic, memory_gb.
        tolerance_mm: Of the surface Dice, one for all structures or by structure.
        validation: Share of training subjects held back.
        fraction: Share of the remaining training subjects used.
        threads: Torch threads of each process; results are bit-equal at an equal number only.
        primary: The metric that rows are compared by.
        margin: A difference of the primary metric that matters: within it rows count as equivalent; 0 declares none.
        lesions: Structures of several components, which are counted one by one, too.
        gap_subjects: Training subjects, and held-back ones, that each run is scored on for its generalization gap, too;
            0 for none.
        scoring: "labels", or the name of a rule that ranks adaptation without labels of the held-out domain.
        task: What is predicted, as the cohort's labels say it.
        versions: Of the packages.
        command: How to run it again.
    """

    name: str
    cohort: str
    cohort_hash: str
    domain_column: str
    domains: list[str]
    held_out: list[str]
    seeds: list[int]
    rows: list[Recipe]
    references: dict[str, Any]
    budget: dict[str, Any]
    sources: list[str] = field(default_factory=list)
    plan: dict[str, Any] = field(default_factory=dict)
    tolerance_mm: float | dict[str, float] = 2.0
    validation: float = 0.2
    fraction: float = 1.0
    threads: int = 1
    selection: str = "mean validation score of held-back subjects of the training domains"
    primary: str = "dice"
    margin: float = 0.0
    lesions: list[str] = field(default_factory=list)
    gap_subjects: int = 0
    scoring: str = LABELS
    task: dict[str, Any] = field(default_factory=lambda: {"task": "segmentation"})
    versions: dict[str, str] = field(default_factory=dict)
    command: str = ""

    def row(self, name: str) -> Recipe:
        by_name = {r.name: r for r in self.rows}
        return by_name[choose(name, by_name, "row of the study")]

    def save(self, folder: Path) -> None:
        table = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        write_json(folder / "study.json", table | {"rows": [r.as_dict() for r in self.rows]})

    @classmethod
    def load(cls, folder: Path) -> Declaration:
        """Raises RunError where `folder` is not a study."""
        path = folder / "study.json"
        try:
            table = json.loads(path.read_text(encoding="utf-8"))
            rows = [Recipe.from_dict(r) for r in table.pop("rows")]
            return cls(rows=rows, **table)
        except FileNotFoundError as error:
            raise RunError(
                f"{folder} is not a study: it has no study.json; make one with `shiftproof study`"
            ) from error
        except (json.JSONDecodeError, TypeError, KeyError, AttributeError) as error:
            raise RunError(f"{path} is not a valid study ({error}); restore it, or start in a new folder") from error

    def compare(self, other: Declaration) -> None:
        """A folder belongs to one study. What does not change the numbers may differ."""
        changed = changes(dataclasses.asdict(self), dataclasses.asdict(other))
        if changed:
            raise RunError(
                f"the folder holds a study that differs in {', '.join(changed)}; "
                "repeat the command that began it to continue, or choose another --out"
            )


def changes(ours: Mapping[str, Any], theirs: Mapping[str, Any], *, free: Sequence[str] = ()) -> list[str]:
    """Names of what differs between two declarations, but for what changes no number and what is `free`."""
    # Compared as JSON, since one of the two was read from it, where a tuple is a list; and 15 s are 15.0 s.
    mine, others = (json.loads(json.dumps(table)) for table in (ours, theirs))
    return [key for key in mine if key not in (*FREE, *free) and mine[key] != others[key]]


def require_once(rule: str, names: Sequence[Any]) -> None:
    """Raises OptionError where one came twice: two of a name would write into one folder, and count double."""
    twice = sorted({name for name in names if list(names).count(name) > 1})
    if twice:
        raise OptionError(f"{rule}; {', '.join(map(str, twice))} came twice")


def with_references(rows: Sequence[Recipe], *, bound: bool = True) -> tuple[list[Recipe], dict[str, Any]]:
    """The rows and the reference runs that they are read against.

    Source-only: `erm` without augmentation, with the row's own loss, network and settings. Pooled: `erm` with the
    row's own transforms, too. Target-supervised: as pooled, trained on a fixed half of the held-out domain. A reference
    that a row already is, is not run twice.

    Args:
        rows: Of the study.
        bound: Whether there is a target-supervised one: where held-out domains differ in nothing that labels could
            teach, as in a division at random, it says little for what it costs.

    Raises:
        OptionError: For two rows of one name.
    """
    require_once("rows need unique names", [r.name for r in rows])
    every = list(rows)

    def add(recipe: Recipe) -> str:
        for known in every:
            same = known.training_key() == recipe.training_key() and known.test_time == recipe.test_time
            if same and (known.role == "target-supervised") == (recipe.role == "target-supervised"):
                return known.name
        # Rows that differ in loss or network have references of their own.
        taken = {r.name for r in every}
        names = [recipe.name, *(f"{recipe.name} {n}" for n in range(2, len(every) + 3))]
        every.append(dataclasses.replace(recipe, name=next(n for n in names if n not in taken)))
        return every[-1].name

    pooled, bounds, bare = {}, {}, {}
    for row in rows:
        plain = dataclasses.replace(
            row, method="erm", options={}, target=False, test_time=None, test_time_options={}, role="row", replicate=0
        )
        # Of the row's own network, weights and loss: what is measured is the method, not what it starts from.
        bare[row.name] = add(
            dataclasses.replace(
                plain,
                name="source-only",
                transforms="none",
                transforms_options={},
                sampling=_patches(row),
                role="source-only",
            )
        )
        if row.name == bare[row.name]:
            continue
        pooled[row.name] = add(dataclasses.replace(plain, name=f"pooled/{row.transforms}", sampling=_patches(row)))
        if bound:
            supervised = dataclasses.replace(plain, sampling=_patches(row), role="target-supervised")
            bounds[row.name] = add(dataclasses.replace(supervised, name=f"target-supervised/{row.transforms}"))
    references = {"source-only": next(iter(bare.values())), "plain": bare}
    return every, {**references, "pooled": pooled, "target-supervised": bounds}


def _patches(row: Recipe) -> dict[str, Any]:
    """Of the sampling, what is not tied to the method."""
    return {k: v for k, v in row.sampling.items() if k != "batches"}


def parse_rows(methods: str | None, recipes: Path | None, defaults: Mapping[str, Any] | None = None) -> list[Recipe]:
    """Rows from the command line's short form, from a TOML file with [[row]] tables, or both.

    A row's `family` is no part of its recipe; see `parse_families`.

    Args:
        methods: METHOD[/PRESET][+target][+TEST_TIME], with commas.
        recipes: The TOML file.
        defaults: What a row gets that does not say it itself.
    """
    usual, rows = dict(defaults or {}), []
    if recipes is not None:
        tables = [{k: v for k, v in r.items() if k != FAMILY} for r in _tables(recipes)]
        rows += [
            Recipe.from_dict({**_open(usual, table.get("method")), **table} if table else table) for table in tables
        ]
    for text in (methods or "").split(","):
        if text.strip():
            row = Recipe.parsed(text)
            named = {"transforms"} if "/" in text else set()
            found = _open(usual, row.method)
            rows.append(dataclasses.replace(row, **{k: v for k, v in found.items() if k not in named}))
    if not rows:
        raise OptionError(
            "a study needs at least one row: --methods erm/light,dann or --recipes rows.toml; "
            f"adaptation at prediction: {', '.join(TEST_TIME)}"
        )
    return rows


def _open(defaults: Mapping[str, Any], method: Any) -> dict[str, Any]:
    """What a row of this method leaves open: not the augmentation, where the method augments by itself."""
    own = isinstance(method, str) and method in OWN_TRANSFORMS
    return {key: value for key, value in defaults.items() if not (own and key == "transforms")}


def parse_families(recipes: Path | None) -> dict[str, str]:
    """Family by row, of the rows of a TOML file that name one.

    Raises:
        OptionError: For a family that is no text.
    """
    found = {}
    for table in _tables(recipes) if recipes is not None else []:
        if FAMILY in table:
            if not isinstance(table[FAMILY], str):
                raise OptionError(f"row key {FAMILY} expects str, got {table[FAMILY]!r}")
            found[str(table.get("name", table.get("method", "")))] = table[FAMILY]
    return found


def _tables(recipes: Path) -> list[dict[str, Any]]:
    import tomllib

    try:
        table = tomllib.loads(recipes.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise OptionError(f"there is no file {recipes}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise OptionError(f"{recipes} is not valid TOML: {error}") from error
    for key in table:
        choose(key, ["row"], f"table of {recipes.name}")
    given = table.get("row", [])
    if not isinstance(given, list) or not all(isinstance(r, dict) for r in given):
        raise OptionError(f"{recipes} must give its rows as [[row]] tables")
    return given
