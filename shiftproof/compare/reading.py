"""Scores from anywhere: a study, an evaluation, or any table of subject, method and value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from ..errors import OptionError
from ..report.numbers import count, listed
from ..report.reading import read_results
from ..statistics import per_subject
from .columns import normal
from .parts import Part, from_results, from_table, some

TIDY = ["method", "subject", "domain", "seed", "value"]


@dataclass(frozen=True)
class Scores:
    """What several methods scored on subjects, and what had to be said while it was read.

    `tidy` has one line a method, domain, subject and seed: columns `method`, `subject`, `domain`
    ("" where the table names none), `seed` (text) and `value`, NaN where there is no score. `undefined`
    are the (domain, subject) that a study scored without a number coming out, such as a structure that
    is rightly absent: no failure, unlike other scores that are missing.
    """

    tidy: pd.DataFrame
    metric: str
    domain_word: str = "domain"
    notes: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    undefined: list[tuple[str, str]] = field(default_factory=list)

    @property
    def methods(self) -> list[str]:
        """In the order in which they came."""
        return list(self.tidy["method"].drop_duplicates())

    @property
    def domains(self) -> list[str]:
        return sorted(set(self.tidy["domain"]) - {""})

    @cached_property
    def cells(self) -> pd.DataFrame:
        """Seeds averaged; index (domain, subject), a column a method, NaN where missing."""
        wide = self.tidy.groupby(["domain", "subject", "method"], sort=True)["value"].mean().unstack("method")
        return wide.reindex(columns=self.methods)

    @cached_property
    def wide(self) -> pd.DataFrame:
        """One line a subject, a column a method.

        A subject that was scored in several domains has the mean over them; NaN for a method that
        lacks one of those domains, since means over different domains do not compare.
        """
        there = self.cells.dropna(how="all").groupby(level="subject")
        return there.mean().where(there.count().eq(there.size(), axis=0))


def read_scores(
    paths: Sequence[Path], *, metric: str | None = None, columns: Mapping[str, str] | None = None
) -> Scores:
    """Read tables and folders into one set of scores.

    A path is the folder of a study or an evaluation, its rows.csv, or any text table: long (columns for
    subject, method and value; also metric, structure, domain, seed) or wide (subject, and a column a method).
    Columns go by the usual names. A table without methods is one method, called by its file.

    Several values of one subject (structures, scans, lesions) are averaged, and that is said in `notes`.

    Args:
        paths: One or more.
        metric: Which one, where there are several; by default the study's primary metric.
        columns: Column by meaning (subject, method, value, metric, structure, domain, seed), for unusual names.

    Raises:
        RunError: For a file that is no table, or whose values are no numbers.
        OptionError: For columns or a metric that cannot be found.
    """
    if not paths:
        raise OptionError("no table was given, expected a study folder, rows.csv or a table of subject, method, value")
    places = [Path(p) for p in paths]
    names = distinct_names(places)
    parts = [read_part(p, n, metric, columns) for p, n in zip(places, names, strict=True)]
    tidy, notes = joined(parts)
    word = next((p.domain_word for p in parts if p.domain_word), "domain")
    if not all(p.ours for p in parts):
        notes += travelling(tidy, word)
    return Scores(
        tidy=tidy,
        metric=common_metric(parts),
        domain_word=word,
        notes=list(dict.fromkeys([n for p in parts for n in p.notes] + notes)),
        sources=[str(p) for p in places],
        undefined=undefined(parts),
    )


def read_part(path: Path, name: str, metric: str | None, columns: Mapping[str, str] | None) -> Part:
    if path.is_dir():
        return from_results(read_results(path), name, metric)
    return from_table(path, name, metric, columns)


def distinct_names(paths: list[Path]) -> list[str]:
    """What a file's only method is called: the file, with as many folders before it as set it apart."""
    full = [p.resolve() for p in paths]
    if len(set(full)) < len(full):
        raise OptionError(f"{next(p for p in paths if full.count(p.resolve()) > 1)} was given twice")
    longest = max(len(p.parts) for p in full)
    whole = [
        list(p.parts[:-1]) if p.name == "rows.csv" else [*p.parts[:-1], p.name if p.is_dir() else p.stem] for p in full
    ]
    for depth in range(1, longest + 1):
        names = ["/".join(parts[-depth:]) for parts in whole]
        if len(set(names)) == len(names):
            return names
    return [str(p) for p in paths]


def joined(parts: list[Part]) -> tuple[pd.DataFrame, list[str]]:
    """All parts as one tidy table.

    A method that two parts score on different subjects is one method in two pieces; where they share a
    subject these are two results, and each is called by its file too.
    """
    notes, pieces = [], [averaged(p) for p in parts]
    for part, (_, said) in zip(parts, pieces, strict=True):
        notes += [f"{part.name}: {s}" if len(parts) > 1 else s for s in said]
    tables = [piece for piece, _ in pieces]
    for i, part in enumerate(parts):
        if not part.own_names and tables[i]["method"].nunique() == 1 and len(parts) > 1:
            tables[i] = tables[i].assign(method=part.name)
    tables, said = placed(tables)
    notes += said
    clashing = clashes(tables)
    if clashing:
        notes.append(f"{some(sorted(clashing))} came from several files, on the same subjects: named by file too")
        tables = [
            t.assign(method=[f"{p.name}: {m}" if m in clashing else m for m in t["method"]])
            for p, t in zip(parts, tables, strict=True)
        ]
    together = pd.concat(tables, ignore_index=True)
    pieced = together.assign(part=np.repeat(np.arange(len(tables)), [len(t) for t in tables]))
    split = [m for m, k in pieced.groupby("method")["part"].nunique().items() if k > 1]
    if split:
        notes.append(f"{some([str(m) for m in split])} came from several files, on different subjects: put together")
    return together[TIDY], notes


def placed(tables: list[pd.DataFrame]) -> tuple[list[pd.DataFrame], list[str]]:
    """With the domain that other lines name, where some lines of a subject name none: else they would share nothing."""
    together = pd.concat(tables)
    named = together[together["domain"] != ""].groupby("subject")["domain"]
    only = named.first()[named.nunique() == 1]
    nameless = together.loc[together["domain"] == "", "subject"]
    filled = nameless[nameless.isin(only.index)].nunique()
    if not filled:
        return tables, []
    whole = [t.assign(domain=t["domain"].where(t["domain"] != "", t["subject"].map(only).fillna(""))) for t in tables]
    return whole, [f"{count(filled, 'subject')} without a domain in some lines: taken from those that name it"]


def travelling(tidy: pd.DataFrame, word: str) -> list[str]:
    """A word on subjects of several domains: people who went there, or numbers that each site gave anew."""
    several = tidy.dropna(subset="value").groupby("subject")["domain"].nunique()
    many = int((several > 1).sum())
    if not many:
        return []
    return [
        f"{count(many, 'subject')} of more than one {word}: averaged, one value a subject; if these are different "
        "people of the same name, give them different ones"
    ]


def undefined(parts: list[Part]) -> list[tuple[str, str]]:
    """(domain, subject) without a number by some method of a study."""
    found: set[tuple[str, str]] = set()
    for part in parts:
        if part.ours:
            some_number = part.rows.groupby(["row", "held_out", "subject"])["value"].count()
            found |= {(str(d), str(s)) for _, d, s in some_number.index[some_number == 0]}
    return sorted(found)


def clashes(tables: list[pd.DataFrame]) -> set[str]:
    """Methods that two tables score on the same subject of the same domain and seed."""
    keys = pd.concat([t[["method", "domain", "subject", "seed"]].drop_duplicates() for t in tables])
    return {str(m) for m in keys[keys.duplicated()]["method"]}


def averaged(part: Part) -> tuple[pd.DataFrame, list[str]]:
    """One line a method, domain, subject and seed, and what was averaged to get there."""
    rows, notes = part.rows.astype({"seed": str, "value": float}), []
    keys = ["row", "held_out", "subject", "seed", "structure"]
    again = rows.duplicated(keys, keep=False) if part.by_structure else rows.duplicated(keys[:-1], keep=False)
    if again.any():
        subjects = int(rows[again].groupby(["held_out", "subject"]).ngroups)
        notes.append(f"{count(subjects, 'subject')} with several values a method: averaged, one value a subject")
    structures = rows["structure"].nunique()
    if part.by_structure and structures > 1:
        notes.append(
            f"scores are means over {count(structures, 'structure')}: {some(list(rows['structure'].unique()))}"
        )
    order = {m: i for i, m in enumerate(rows["row"].drop_duplicates())}
    found = [
        per_subject(own.assign(metric=""), "", by_structure=part.by_structure).assign(seed=seed)
        for seed, own in rows.groupby("seed", sort=True)
    ]
    tidy = pd.concat(found, ignore_index=True).rename(columns={"row": "method"}).drop(columns="domain")
    tidy = tidy.rename(columns={"held_out": "domain"})
    tidy = tidy.sort_values("method", key=lambda m: m.map(order), kind="stable", ignore_index=True)
    return tidy[TIDY], notes


def common_metric(parts: list[Part]) -> str:
    """The metric of all parts; "" where none says which it is.

    Raises:
        OptionError: If they say different things.
    """
    told = list(dict.fromkeys(p.metric for p in parts if p.metric))
    if len(set(map(normal, told))) > 1:
        raise OptionError(f"the tables hold different metrics: {listed(told)}; name a common one with --metric")
    return told[0] if told else ""
