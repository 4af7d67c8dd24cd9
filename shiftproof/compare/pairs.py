"""Methods against each other on the subjects that they share: numbers and a verdict for each pair."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any

import pandas as pd

from ..report.comparing import BOOTSTRAP_PAIRS, LEVEL, judged, shared
from ..report.trainings import Trainings, trainings_of
from ..statistics import (
    Equivalence,
    Interval,
    correct,
    equivalence,
    interval,
    paired,
    smallest_detectable,
    subjects_needed,
    unpaired,
)
from ..statistics.exaggeration import exaggeration
from ..statistics.intervals import RESAMPLES, IntervalMethod
from ..statistics.paired import tidy
from ..statistics.power import smallest_p
from .question import Question
from .reading import Scores

Found = dict[str, Any]

MOST_FLIPS = 5_000_000_000  # signs to draw in all, some minutes; above, t-tests, which many subjects allow
PATIENCE = 3.0  # seconds without a word
TAIL = 20  # drawn signs that may be as extreme as a p at the corrected level, at least


def compared(
    scores: Scores, question: Question, means: dict[str, float], progress: Callable[[int, int], None] | None = None
) -> list[Found]:
    """Each pair of the family with its numbers, corrected for how many pairs there are.

    A pair is written with the better mean first, or with the reference second.

    Args:
        scores: As read.
        question: As asked.
        means: Of each method.
        progress: Called with pairs done and their number, once it takes long enough to wonder.
    """
    members = family(scores.methods, question, means)
    named = scores.tidy[scores.tidy["seed"] != ""]  # else nobody said which training a score is of
    trainings = trainings_of(named.rename(columns={"method": "row", "domain": "held_out"}), [])
    found, started = [], time.monotonic()
    for a, b in members:
        one = pair(scores.cells, a, b, question, len(members))
        found.append(one | survives(trainings, one, question))
        if progress is not None and time.monotonic() - started > PATIENCE:
            progress(len(found), len(members))
    for kind, of in {"p": "p_both", "p_equivalent": "p_equivalent", "p_no_worse": "p_no_worse"}.items():
        for one, p in zip(found, correct([f[of] for f in found], question.rule), strict=True):
            one[f"{kind}_corrected"] = float(p)
    return [f | {"verdict": verdict(f, question)} for f in found]


def family(methods: list[str], question: Question, means: dict[str, float]) -> list[tuple[str, str]]:
    if question.reference is not None:
        return [(m, question.reference) for m in methods if m != question.reference]
    sign = -1 if question.metric.higher_is_better else 1
    ordered = sorted(methods, key=lambda m: sign * means[m] if math.isfinite(means[m]) else math.inf)
    return [(a, b) for i, a in enumerate(ordered) for b in ordered[i + 1 :]]


def pair(cells: pd.DataFrame, a: str, b: str, question: Question, family_size: int) -> Found:
    """Everything that is known of one pair, before correction."""
    first, second = (side.to_numpy() for side in shared(cells, a, b))
    n = len(first)
    resamples = max(RESAMPLES, math.ceil(2 * TAIL * family_size / question.level))
    test = "t" if n * resamples * family_size > MOST_FLIPS else "auto"
    level = 1 - question.level
    c = paired(first, second, test=test, level=level, resamples=RESAMPLES if n <= 20 else resamples, seed=question.seed)  # type: ignore[arg-type]
    strict = 1 - question.level / family_size
    around = interval(tidy(first - second), level=strict, method=kind(question.level / family_size), seed=question.seed)
    same = equivalence(first, second, margin=question.margin, level=question.level) if question.margin else None
    truth = question.margin or c.mean_difference
    return {
        "a": a,
        "b": b,
        "family_size": family_size,
        **dataclasses.asdict(c),
        "reason": "no subject has both scores" if not n else c.reason,
        "low_corrected": around.low,
        "high_corrected": around.high,
        "level_corrected": strict,
        "equivalence": dataclasses.asdict(same) if same else None,
        "p_equivalent": same.p if same else math.nan,
        "p_no_worse": no_worse_p(same, question),
        "detectable": smallest_detectable(c.sd, n, level=question.level),
        "detectable_corrected": smallest_detectable(c.sd, n, level=question.level / family_size),
        "needed": subjects_needed(c.mean_difference, c.sd, level=question.level),
        "exaggeration": dataclasses.asdict(exaggeration(truth, c.sd, n, level=question.level)) | {"difference": truth},
        "unpaired": dataclasses.asdict(apart(cells, a, b, question)) if not n else None,
    }


def survives(trainings: Trainings, one: Found, question: Question) -> Found:
    """Whether the difference is one of recipes: a second test, where seeds tell trainings apart.

    Without seeds, predictions are compared as they are, and subjects alone decide. `alone` are recipes of one
    training each.
    """
    a, b = one["a"], one["b"]
    if not {a, b} <= set(trainings.scores) or not math.isfinite(one["p"]):
        return {"trainings": None, "alone": False, "p_both": one["p"]}
    over = trainings.against(a, b, level=one["level_corrected"])
    if over.reason:
        return {"trainings": None, "alone": True, "p_both": one["p"]}
    return {"trainings": dataclasses.asdict(over), "alone": False, "p_both": max(one["p"], over.p)}


def no_worse_p(same: Equivalence | None, question: Question) -> float:
    """One-sided p of "the first is worse than the second by the margin or more"."""
    if same is None:
        return math.nan
    return same.p_lower if question.metric.higher_is_better else same.p_upper


def apart(cells: pd.DataFrame, a: str, b: str, question: Question) -> Any:
    """The comparison that is left where two methods share no subject."""
    sides = [cells[m].dropna().groupby(level="subject").mean().to_numpy() for m in (a, b)]
    return unpaired(*sides, level=1 - question.level, seed=question.seed)


def kind(level: float) -> IntervalMethod:
    """ "auto", unless the bootstrap would have to read its ends off a handful of samples: as in a study's report."""
    return "auto" if level >= LEVEL / BOOTSTRAP_PAIRS else "t"


def verdict(f: Found, question: Question) -> str:
    """What may be said of a pair, by the rule of the report of a study."""
    around = Interval(f["mean_difference"], f["low_corrected"], f["high_corrected"], f["n"], "corrected")
    over = f["trainings"] and Interval(f["mean_difference"], f["trainings"]["low"], f["trainings"]["high"], f["n"], "")
    return judged(
        f["mean_difference"], f["p_corrected"], around, over, f["p_equivalent_corrected"],
        alone=f["alone"], higher_is_better=question.metric.higher_is_better, margin=question.margin or 0.0,
        level=question.level,
    )  # fmt: skip


def beyond_reach(pairs: list[Found], question: Question) -> bool:
    """Whether not even the largest differences could be called reliable with so few subjects.

    The rule itself corrects the smallest p that each pair can have: of all pairs at once, Holm's multiplies it by
    their number, Hommel's or Benjamini and Hochberg's does not.
    """
    least = [least_p(f) for f in pairs if f["n"]]
    return not least or float(correct(least, question.rule).min()) >= question.level


def least_p(f: Found) -> float:
    """The smallest p that a pair can have with its subjects."""
    return smallest_p(f["n"]) if f["test"] == "permutation" else 0.0
