"""Compare the scores of two or more methods, and say only what they can show."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ..files import replacing, write_json, write_text
from ..names import choose
from ..report.findings import plain
from ..report.numbers import count, listed
from ..statistics.intervals import constant
from .many import Ranking, method_facts, mixed_facts, ranked, ranking_facts
from .pairs import compared
from .parts import some
from .question import Question, asked
from .reading import Scores, read_scores
from .words import evidence, headline

Found = dict[str, Any]


def compare(
    paths: Sequence[Path | str],
    *,
    out: Path | str | None = None,
    metric: str | None = None,
    methods: Sequence[str] | None = None,
    higher_is_better: bool | None = None,
    margin: float | None = None,
    rule: str = "holm",
    reference: str | None = None,
    level: float = 0.05,
    missing: float | None = None,
    columns: Mapping[str, str] | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Test methods against each other on the subjects that they share.

    All pairs, or each method against `reference`, by a paired test over subjects, corrected for their
    number; equivalence where a `margin` is given; ranks and their stability from three methods on; what so
    many subjects can see; a sentence for each that follows from these numbers by rule.

    Args:
        paths: Folders of studies or evaluations, rows.csv, or any text table of subject, method and value.
        out: Folder for compare.html, compare.json and scores.csv; None writes nothing.
        metric: Which one, where there are several.
        methods: Only these, in this order.
        higher_is_better: None goes by the metric's name.
        margin: Largest difference that does not matter, in the metric's unit; to be settled before scores are seen.
        rule: Correction of p for the number of pairs: holm, hommel, bonferroni, benjamini-hochberg,
            benjamini-yekutieli.
        reference: Compare each method with this one only.
        level: Of tests; intervals cover 1 - level.
        missing: The score that a method gets where it has none and another has, such as 0 Dice for a crash; None
            leaves such subjects out of its comparisons.
        columns: Column by meaning, where names are unusual: {"subject": "Fall", "value": "Wert"}.
        seed: Of bootstrap and permutations: equal scores give equal numbers.
        progress: Called with pairs done and their number, where that takes more than seconds.

    Returns:
        All numbers and words, as JSON has them (None for what does not exist); compare.json holds the same.

    Raises:
        RunError: For files that hold no scores.
        OptionError: For settings that do not fit the scores.
    """
    scores = chosen(read_scores([Path(p) for p in paths], metric=metric, columns=columns), methods)
    if missing is not None:
        scores = filled(scores, missing)
    question, assumed = asked(
        scores, higher_is_better=higher_is_better, margin=margin, rule=rule, reference=reference, level=level, seed=seed
    )
    found, ranking = summarise(scores, question, assumed, progress)
    if out is not None:
        from .page import page

        folder = Path(out)
        write_text(folder / "compare.html", page(scores, question, found, ranking))
        write_json(folder / "compare.json", plain(found))
        with replacing(folder / "scores.csv") as temporary:
            written(scores).to_csv(temporary, index=False)
    return plain(found)  # type: ignore[no-any-return]


def summarise(
    scores: Scores,
    question: Question,
    assumed: Sequence[str] = (),
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Found, Ranking | None]:
    """All numbers and words, with NaN where a number does not exist; and what the figures of ranks are made of."""
    methods = [method_facts(scores, name, question) for name in scores.methods]
    pairs = compared(scores, question, {m["method"]: m["mean"] for m in methods}, progress)
    unranked = why_unranked(scores)
    ranking = ranked(scores, question) if len(methods) > 2 and not unranked else None
    found: Found = {
        "kind": "comparison",
        "sources": scores.sources,
        "metric": {
            "metric": scores.metric,
            "title": question.metric.title,
            "unit": question.metric.unit,
            "digits": question.metric.digits,
            "higher_is_better": question.metric.higher_is_better,
        },
        "level": question.level,
        "margin": question.margin,
        "rule": question.rule,
        "reference": question.reference,
        "seed": question.seed,
        "domain_word": scores.domain_word,
        "domains": scores.domains,
        "subjects": {"all": len(scores.wide), "scored by all": len(scores.wide.dropna())},
        "methods": methods,
        "pairs": pairs,
        "ranking": ranking_facts(ranking) if ranking else None,
        "unranked": unranked,
        "mixed": mixed_facts(scores, question),
    }
    found["headline"] = headline(found, question)
    found["evidence"] = evidence(found, question)
    found["answer"] = [found["headline"], *(f"{e['about']}: {e['text']}" for e in found["evidence"])]
    found["notes"] = list(dict.fromkeys([*scores.notes, *assumed, *left_out(scores, found)]))
    return found, ranking


def why_unranked(scores: Scores) -> str:
    """Methods on different subjects have no common order."""
    there = scores.cells.dropna(axis=1, how="all").notna().astype(int)  # who has no score at all is left out there
    both, names = there.T @ there, list(there.columns)
    apart = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :] if not both.loc[a, b]]
    return f"{apart[0][0]} and {apart[0][1]} share no subject" if apart and len(scores.methods) > 2 else ""


def chosen(scores: Scores, methods: Sequence[str] | None) -> Scores:
    """The scores of some methods, in the order in which they are named."""
    if not methods:
        return scores
    for name in methods:
        choose(name, scores.methods, "method")
    order = {name: i for i, name in enumerate(dict.fromkeys(methods))}
    kept = scores.tidy[scores.tidy["method"].isin(order)]
    kept = kept.sort_values("method", key=lambda names: names.map(order), kind="stable", ignore_index=True)
    dropped = [name for name in scores.methods if name not in order]
    notes = [f"not asked for and left out: {some(dropped)}"] if dropped else []
    return dataclasses.replace(scores, tidy=kept, notes=[*scores.notes, *notes])


def filled(scores: Scores, value: float) -> Scores:
    """With a score where a method has none and another has, but for what a study says is rightly absent."""
    cells = scores.cells.dropna(how="all")
    lacking = cells[~cells.index.isin(scores.undefined)].isna()
    holes = {str(name): int(n) for name, n in lacking.sum().items() if n}
    if not holes:
        return scores
    seeds = {str(name): own.unique() for name, own in scores.tidy.groupby("method")["seed"]}
    added = [
        {"method": name, "domain": domain, "subject": subject, "seed": seed, "value": value}
        for name in holes
        for domain, subject in lacking.index[lacking[name]]
        for seed in seeds[name]
    ]
    order = {name: i for i, name in enumerate(scores.methods)}
    absent = pd.MultiIndex.from_frame(scores.tidy[["domain", "subject"]]).isin(scores.undefined)
    tidy = pd.concat([scores.tidy[scores.tidy["value"].notna() | absent], pd.DataFrame(added)])
    tidy = tidy.sort_values("method", key=lambda names: names.map(order), kind="stable", ignore_index=True)
    note = f"missing scores count as {value:g}: {listed([f'{name} {n}' for name, n in holes.items()])}"
    return dataclasses.replace(scores, tidy=tidy, notes=[*scores.notes, note])


def left_out(scores: Scores, found: Found) -> list[str]:
    """What could not be used as it is, a line each."""
    cells = scores.cells.dropna(how="all")
    notes = []
    nowhere = len(scores.cells) - len(cells)
    if nowhere:
        notes.append(f"{count(nowhere, 'subject')} without a score by any method left out")
    expected = cells[~cells.index.isin(scores.undefined)]
    if len(expected) < len(cells):
        notes.append(
            f"{count(len(cells) - len(expected), 'subject')} where a method has rightly no number, such as for a "
            "structure that is absent: in no ranking, and in the pairs of methods that have one"
        )
    for name in scores.methods:
        lacking = list(expected.index[expected[name].isna()].get_level_values("subject"))
        if lacking:
            who = f"{len(lacking)} of {count(len(cells), 'subject')} ({some(lacking, 4)})"
            notes.append(
                f"{name} has no score of {who}: left out of its comparisons; if these are failures, --missing VALUE "
                "counts them"
            )
    if found["ranking"] and found["ranking"]["note"]:
        notes.append(f"ranking: {found['ranking']['note']}")
    alike = [f"{p['a']} and {p['b']}" for p in found["pairs"] if same(p)]
    notes += [f"the same scores in every subject: {some(alike)}"] if alike else []
    flat = [m["method"] for m in found["methods"] if m["n"] > 1 and constant(scores.cells[m["method"]].dropna())]
    seeds = scores.tidy["seed"].nunique()
    notes += [f"{count(seeds, 'seed')} averaged, one value a subject"] if seeds > 1 else []
    return notes + ([f"one score for all subjects: {some(flat)}"] if flat else [])


def same(p: Found) -> bool:
    return bool(p["n"] > 1 and p["wins"] + p["losses"] == 0)


def written(scores: Scores) -> pd.DataFrame:
    """The scores as they were compared, without columns that say nothing."""
    dull = [c for c in ("domain", "seed") if scores.tidy[c].nunique() < 2]
    return scores.tidy.drop(columns=dull)
