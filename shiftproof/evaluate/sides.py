"""Which subjects a model was trained on, which selected it, and which it has never seen."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..data.cohort import Cohort
from ..deploy.model import Model, digest
from ..errors import CohortError, SplitError

SIDES = ("train", "validation", "test")

UNLABELLED = "target, without labels"
"""Key of a run's file."""

RECORDED = ("train", "validation", "target")
"""What a model folder knows; the target's images were seen without their labels."""


def recorded(model: Model) -> Mapping[str, set[str]]:
    """Digests of subjects of training, of validation and of an unlabelled target, from the folder or from the run
    around it; else empty.

    Digests, since a folder that is handed on must not hold names.
    """
    found = model.information.get("subjects")
    if isinstance(found, dict):
        return {side: set(found.get(side, [])) for side in RECORDED}
    try:
        run: dict[str, Any] = tomllib.loads((model.folder.parent / "run.toml").read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError):
        return {}
    named = run.get("subjects", {})
    keys = {"train": ["train"], "validation": ["validation", "validation, in training"], "target": [UNLABELLED]}
    return {side: {digest(s) for key in keys[side] for s in named.get(key, [])} for side in RECORDED} if named else {}


def sides_of(
    model: Model,
    cohort: Path | Cohort,
    *,
    test: Path | Cohort | str | None,
    train: str | None,
    domain: str = "site",
    subjects: int = 0,
) -> dict[str, Cohort]:
    """Labelled subjects by side; see `logits`.

    Raises:
        SplitError: If nobody is on a side, somebody on both, or nothing tells them apart.
    """
    table = (cohort if isinstance(cohort, Cohort) else Cohort.read(cohort, domain=domain)).only_labelled()
    known = recorded(model)
    seen = {
        side: table.of_subjects([s for s in table.subjects if digest(s) in known.get(side, set())])
        for side in ("train", "validation")
    }
    if train is not None:
        seen = {"train": selected(table, train)}
    other = _other(test, table, domain)
    digests = set().union(*known.values())
    if other is None:
        if train is None and not known:
            raise SplitError(
                f"{model.folder} does not say which of these subjects it was trained on; name them with train, such as "
                "site=A,B, and the unseen ones with test"
            )
        used = set(seen["train"].subjects)
        # Whoever trained, selected or was adapted to is not unseen, whatever a selection leaves out.
        other = table.of_subjects([s for s in table.subjects if s not in used and digest(s) not in digests])
    elif train is None and not known:
        taken = set(other.subjects)
        seen = {"train": table.of_subjects([s for s in table.subjects if s not in taken])}
    sides = {**seen, "test": other}
    trained = known.get("train", set())
    both = sorted(s for s in other.subjects if s in set(seen["train"].subjects) or digest(s) in trained)
    if both:
        raise SplitError(
            f"subjects on both sides of training and test: {', '.join(both[:5])}; a subject has one side, "
            "so name unseen ones with test, or others with train"
        )
    named = set(other.subjects)
    if "validation" in sides and named & set(sides["validation"].subjects):  # who is named as unseen is counted there
        kept = sides["validation"]
        sides["validation"] = kept.of_subjects([s for s in kept.subjects if s not in named])
    for side in ("train", "test"):
        if not len(sides[side]):
            raise SplitError(
                f"no labelled subject of {table.root} is on the {side} side of {model.folder}; "
                f"name some with {side}, such as {domain}={table.domains[0]}"
            )
    return {side: drawn(sides[side], subjects) for side in SIDES if side in sides and len(sides[side])}


def _other(test: Path | Cohort | str | None, table: Cohort, domain: str) -> Cohort | None:
    if test is None or isinstance(test, Cohort):
        return None if test is None else test.only_labelled()
    if isinstance(test, str) and "=" in test and not Path(test).exists():
        return selected(table, test)
    return Cohort.read(Path(test), domain=domain).only_labelled()


def selected(table: Cohort, text: str) -> Cohort:
    """The subjects of a selection such as "site=A,B".

    Raises:
        CohortError: If it is none, or the column or a value is not there.
    """
    column, equals, values = text.partition("=")
    column, wanted = column.strip(), [v.strip() for v in values.split(",") if v.strip()]
    if not equals or not wanted or column not in table.columns:
        raise CohortError(
            f"a selection is COLUMN=VALUE,VALUE with a column of the table ({', '.join(table.columns)}), got {text!r}"
        )
    there = list(dict.fromkeys(map(str, table.table[column])))
    strange = [v for v in wanted if v not in there]
    if strange:
        raise CohortError(
            f"no labelled scan has {column}={', '.join(strange)}; there are {', '.join(there[:8])}"
            f"{' and others' if len(there) > 8 else ''}"
        )
    return table.where(**{column: wanted})


def drawn(cohort: Cohort, number: int) -> Cohort:
    """At most so many subjects, evenly over domains; always the same ones for the same subjects. 0: all."""
    if not 0 < number < len(cohort.subjects):
        return cohort
    # The order of digests is as good as a draw, and stays when other subjects are there or not.
    queues = []
    taken: set[str] = set()
    for name in cohort.domains:
        own = [s for s in cohort.where(**{cohort.domain: name}).subjects if s not in taken]
        taken.update(own)
        queues.append(sorted(own, key=digest))
    turns = [subject for turn in range(number) for queue in queues for subject in queue[turn : turn + 1]]
    return cohort.of_subjects(turns[:number])
