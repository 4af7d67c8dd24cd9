"""Rows against rows: two families of paired comparisons, and what they allow to say."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import pandas as pd

from ..statistics import (
    Comparison,
    Interval,
    OverTrainings,
    detectable_over_trainings,
    gap_closed,
    holm,
    interval,
    paired,
    smallest_detectable,
    subjects_needed,
)
from ..statistics.equivalence import equivalence
from ..statistics.exaggeration import exaggeration
from ..statistics.paired import tidy
from .numbers import Scale
from .roles import Recipe, References, reference_of
from .trainings import Trainings

LEVEL = 0.05
BOOTSTRAP_PAIRS = 25  # a family above leaves fewer than ten of the bootstrap's draws in each tail: t interval

Found = dict[str, Any]


def compared(
    wide: pd.DataFrame,
    recipes: list[Recipe],
    references: References,
    metric: Scale,
    margin: float = 0.0,
    trainings: Trainings | None = None,
) -> list[Found]:
    """Both families, each corrected by Holm's rule for its own number.

    "primary" is what the study asks: labels from the domain against source-only, and each row
    against ERM with its own transforms. "between rows" are all pairs of rows; it only serves to say
    whether the row with the best mean, picked after looking, is a winner.

    Args:
        wide: Scores; index held-out domain and subject, a column a row.
        recipes: In the study's order; without scores they are not compared.
        references: What they are compared with. Without any, all pairs are what is asked.
        metric: The primary one.
        margin: The smallest difference that matters, declared before the first run; 0 if none was.
        trainings: Of a study, whose rows are recipes; None where what is compared are predictions as they are.
    """
    declared = [(str(r["name"]), str(reference_of(r, references))) for r in recipes]
    primary = [(a, b) for a, b in declared if a in wide and b in wide]
    rows = [r["name"] for r in recipes if r["role"] != "target-supervised" and r["name"] in wide]
    pairs = [(a, b) for i, a in enumerate(rows) for b in rows[i + 1 :]]
    if not primary:
        primary, pairs = pairs, []
    found: list[Found] = []
    for family, members in (("primary", primary), ("between rows", pairs)):
        found += family_of(wide, family, members, metric, margin, trainings)
    return found


def family_of(
    wide: pd.DataFrame,
    family: str,
    members: list[tuple[str, str]],
    metric: Scale,
    margin: float,
    trainings: Trainings | None = None,
) -> list[Found]:
    """Comparisons that are corrected together."""
    many = len(members)
    scores = [shared(wide, a, b) for a, b in members]
    tested = [paired(first, second) for first, second in scores]
    over = [trainings.against(a, b, level=1 - LEVEL / many) if trainings else None for a, b in members]
    corrected = holm([both_p(c, t) for c, t in zip(tested, over, strict=True)])
    equal = equivalences(scores, margin)
    found = []
    for (a, b), (first, second), c, t, p, e in zip(members, scores, tested, over, corrected, equal, strict=True):
        around = corrected_interval(first - second, many)
        claim = verdict(c, float(p), around, metric.higher_is_better, margin=margin, equal=e, over=t)
        found.append(
            {
                "a": a,
                "b": b,
                "family": family,
                "family_size": many,
                **dataclasses.asdict(c),
                "p_corrected": float(p),
                "low_corrected": around.low,
                "high_corrected": around.high,
                "level_corrected": 1 - LEVEL / many,
                "margin": margin,
                "equivalence": e,
                "trainings": t and dataclasses.asdict(t) | {"detectable": detectable_over_trainings(t)},
                "verdict": claim,
                "detectable": c.sd * smallest_in_sds(c.n, LEVEL),
                "detectable_corrected": c.sd * smallest_in_sds(c.n, LEVEL / many),
                "needed": subjects_needed(c.mean_difference, c.sd),
                "exaggeration": None,
            }
        )
    return [c | {"exaggeration": overstated(c)} if lucky(c) else c for c in found]


def both_p(c: Comparison, over: OverTrainings | None) -> float:
    """The larger p of the two tests: a recipe is better only if subjects and trainings both say so."""
    return max(c.p, over.p) if over and math.isfinite(over.p) else c.p


def corrected_interval(difference: pd.Series, many: int) -> Interval:
    """Bonferroni's: wider than what Holm's rule would need, but the same for each pair of the family."""
    # Tidied as in `paired`: rounding must not carry a constant difference beyond a margin that it equals.
    return interval(
        tidy(difference.to_numpy()), level=1 - LEVEL / many, method="auto" if many <= BOOTSTRAP_PAIRS else "t"
    )


def lucky(c: Found) -> bool:
    """Whether a difference is claimed that studies of this size would mostly miss."""
    claimed = c["family"] == "primary" and c["verdict"] in ("better", "worse")
    return claimed and abs(c["mean_difference"]) < c["detectable"]


@functools.cache
def smallest_in_sds(n: int, level: float) -> float:
    """Smallest difference that n subjects show with 80 % power, in SDs: the same for all pairs of a family."""
    return smallest_detectable(1.0, n, level=level)


def overstated(c: Found) -> Found:
    """Type-M and type-S error at this size: how much studies like this one overstate it where they find it."""
    return dataclasses.asdict(exaggeration(c["mean_difference"], c["sd"], c["n"]))


def power_of(pairs: list[Found]) -> Found | None:
    """What so many subjects with this spread of differences can show; None where no test could show anything.

    "undecided" is the pair with the largest gain among those that are not told apart: what is still worth asking.
    """
    known = [c for c in pairs if math.isfinite(c["detectable"]) and c["detectable"] > 0]
    if not known or all(beyond_reach(c) for c in known):
        return None

    def ends(key: str) -> list[Any]:
        return [min(c[key] for c in known), max(c[key] for c in known)]

    open_ = [c for c in known if c["verdict"] == "no reliable difference" and c["mean_difference"] != 0]
    undecided = max(open_, key=lambda c: abs(c["d_z"]), default=None)
    return {
        "n": ends("n"),
        "family_size": known[0]["family_size"],
        "detectable": ends("detectable"),
        "detectable_corrected": ends("detectable_corrected"),
        "trainings": trainings_power(known),
        "undecided": undecided and {k: undecided[k] for k in ("a", "b", "n", "mean_difference", "needed")},
    }


def trainings_power(pairs: list[Found]) -> Found | None:
    """What so many trainings show of recipes; None where what is compared are predictions as they are."""
    over = [c["trainings"] for c in pairs if c["trainings"]]
    if not over:
        return None
    seen = [t["detectable"] for t in over if math.isfinite(t["detectable"])]
    return {"fewest": min(t["trainings"] for t in over), "detectable": [min(seen), max(seen)] if seen else None}


def equivalences(scores: list[list[pd.Series]], margin: float) -> list[Found | None]:
    """Two one-sided tests of each pair, corrected by Holm's rule like the differences; None without a margin."""
    if margin <= 0:
        return [None] * len(scores)
    tested = [dataclasses.asdict(equivalence(first, second, margin=margin)) for first, second in scores]
    return [e | {"p_corrected": float(p)} for e, p in zip(tested, holm([e["p"] for e in tested]), strict=True)]


def shared(wide: pd.DataFrame, *rows: str) -> list[pd.Series]:
    """Scores of the subjects that all these rows have, in the same domains, one a subject."""
    both = wide[list(rows)].dropna().groupby("subject").mean()
    return [both[r] for r in rows]


def verdict(
    c: Comparison,
    p_corrected: float,
    around: Interval,
    higher_is_better: bool,
    *,
    margin: float = 0.0,
    equal: Found | None = None,
    over: OverTrainings | None = None,
) -> str:
    """A difference is claimed only if its corrected p and all of its corrected interval say so.

    The interval must lie beyond 0 and, where one was declared, beyond the margin; where rows are recipes, that over
    trainings, too. With one training each a recipe cannot be told from its luck: then the row is "ahead" or "behind",
    which is of these networks and no claim. "equivalent" is said only by two one-sided tests against the margin, with
    the interval over trainings inside it: a difference that is not found is not one that is not there.
    """
    p_equal = equal["p_corrected"] if equal else math.nan
    alone = bool(over and over.reason)
    return judged(
        c.mean_difference, p_corrected, around, None if alone else over, p_equal,
        alone=alone, higher_is_better=higher_is_better, margin=margin,
    )  # fmt: skip


def judged(
    difference: float,
    p_corrected: float,
    around: Interval,
    over: Interval | OverTrainings | None,
    p_equivalent: float,
    *,
    alone: bool = False,
    higher_is_better: bool,
    margin: float = 0.0,
    level: float = LEVEL,
) -> str:
    """The one rule of verdicts, from numbers that are corrected already; `compare` asks it, too.

    Args:
        difference: Mean over subjects.
        p_corrected: Of it, NaN where nothing could be tested.
        around: Its interval at the corrected level, over subjects.
        over: The same over trainings; None where what is compared are predictions as they are.
        p_equivalent: Corrected p of two one-sided tests against the margin, NaN without a margin.
        alone: Whether recipes of one training each are compared: then nothing is claimed of them.
        higher_is_better: Of the metric.
        margin: The smallest difference that matters.
        level: Of the tests.
    """
    if not math.isfinite(p_corrected) or not math.isfinite(around.low):
        return "not tested"
    both = [around, over] if over else [around]
    if p_corrected < level and (all(i.low > margin for i in both) or all(i.high < -margin for i in both)):
        words = ("ahead", "behind") if alone else ("better", "worse")
        return words[(difference > 0) != higher_is_better]
    inside = (not over and not alone) or (over is not None and over.low > -margin and over.high < margin)
    return "equivalent" if p_equivalent < level and inside else "no reliable difference"


def beyond_reach(c: Found) -> bool:
    """Whether not even the largest difference could be called reliable with so few subjects."""
    return c["n"] < 2 or (c["test"] == "permutation" and c["family_size"] * 2 / 2 ** c["n"] >= LEVEL)


def closed(wide: pd.DataFrame, row: str, plain_row: str | None, best_row: str | None, higher: bool) -> Found | None:
    if not plain_row or not best_row or row in (plain_row, best_row):
        return None
    lacking = [r for r in (row, plain_row, best_row) if r not in wide]
    if lacking:
        reason = f"{lacking[0]} has no scores"
        return {"value": math.nan, "low": math.nan, "high": math.nan, "n": 0, "reason": reason}
    return dataclasses.asdict(gap_closed(*shared(wide, row, plain_row, best_row), higher_is_better=higher))


def drops(wide: pd.DataFrame, found: Found) -> dict[str, Found]:
    """Target-supervised minus source-only in each held-out domain."""
    plain_row, best_row = found["source_only"], found["target_supervised"]
    if plain_row not in wide or best_row not in wide:
        return {}
    sides = wide[[best_row, plain_row]].dropna()
    here = sides.index.get_level_values("held_out")
    return {
        domain: dataclasses.asdict(interval(sides[here == domain][best_row] - sides[here == domain][plain_row]))
        for domain in found["held_out"]
        if domain in here
    }


def leader(found: Found) -> tuple[str | None, str | None]:
    """The row with the best mean, and the same again if it beats each other row."""
    rows = [r for r in found["rows"] if r["role"] != "target-supervised"]
    complete = [r for r in rows if r["covers"] == found["held_out"] and math.isfinite(r["overall"]["mean"])]
    if len(rows) < 2 or not complete:
        return None, None
    best = max if found["primary"]["higher_is_better"] else min
    first = best(complete, key=lambda r: r["overall"]["mean"])["row"]
    against = rivalries(found, first)
    beaten = {c["b"] for c in against if c["verdict"] == "better"}
    return first, first if beaten >= {r["row"] for r in rows if r["row"] != first} else None


def rivalries(found: Found, name: str) -> list[Found]:
    """All comparisons of a row with the others, from its side."""
    families = {c["family"] for c in found["comparisons"]}
    family = "between rows" if "between rows" in families else "primary"
    pairs = [c for c in found["comparisons"] if c["family"] == family]
    return [c for c in pairs if c["a"] == name] + [mirrored(c) for c in pairs if c["b"] == name]


def mirrored(c: Found) -> Found:
    """The same comparison, seen from the other row; of its numbers only those that words are made of."""
    turned = {"better": "worse", "worse": "better", "ahead": "behind", "behind": "ahead"}
    return c | {
        "a": c["b"],
        "b": c["a"],
        "mean_difference": -c["mean_difference"],
        "low": -c["high"],
        "high": -c["low"],
        "low_corrected": -c["high_corrected"],
        "high_corrected": -c["low_corrected"],
        "verdict": turned.get(c["verdict"], c["verdict"]),
    }
