"""What is asked of the scores: which metric, which way is better, against whom, how strictly."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np

from ..errors import OptionError
from ..names import choose
from ..report.numbers import Scale, scale
from ..statistics.corrections import CORRECTIONS
from .columns import BETTER_HIGHER, BETTER_LOWER, normal
from .reading import Scores

MOST_METHODS = 20  # of which all pairs are compared; 190 pairs


@dataclass(frozen=True)
class Question:
    """How scores are compared; settled before any of them is tested.

    `margin` is the difference that does not matter, in the metric's unit; 0 is none. Without a
    `reference` all pairs are compared.
    """

    metric: Scale
    margin: float = 0.0
    rule: str = "holm"
    reference: str | None = None
    level: float = 0.05
    seed: int = 0


def asked(
    scores: Scores,
    *,
    higher_is_better: bool | None = None,
    margin: float | None = None,
    rule: str = "holm",
    reference: str | None = None,
    level: float = 0.05,
    seed: int = 0,
) -> tuple[Question, list[str]]:
    """The question, and what was assumed in it.

    Raises:
        OptionError: For an unknown rule or reference, a margin below 0, a level outside 0 to 0.5, or all pairs of
            more methods than can be compared so.
    """
    choose(rule, CORRECTIONS, "correction")
    if reference is not None:
        choose(reference, scores.methods, "method")
    if margin is not None and not (math.isfinite(margin) and margin >= 0):
        raise OptionError(f"a margin is a difference of 0 or more that does not matter, got {margin}")
    if not 0 < level < 0.5:
        raise OptionError(f"the level of a test lies between 0 and 0.5, got {level}")
    many = len(scores.methods)
    if reference is None and many > MOST_METHODS:
        raise OptionError(
            f"{many} methods have {many * (many - 1) // 2} pairs, too many to tell any apart; compare them with one "
            f"(--reference NAME), or at most {MOST_METHODS} of them (--methods A,B,...)"
        )
    metric, notes = scale_of(scores, higher_is_better)
    return Question(metric, margin or 0.0, rule, reference, level, seed), notes


def scale_of(scores: Scores, higher_is_better: bool | None) -> tuple[Scale, list[str]]:
    """Name, unit, digits and direction of the metric; what is not known of it is read off the scores."""
    values, notes = scores.tidy["value"].to_numpy(), []
    values = values[np.isfinite(values)]
    found = scale(scores.metric or "score")
    name = normal(scores.metric)
    known = found != Scale(scores.metric) and scores.metric != ""
    if not known:
        lower = name in BETTER_LOWER
        found = dataclasses.replace(found, digits=digits_for(values), higher_is_better=not lower)
        if higher_is_better is None and name not in BETTER_HIGHER + BETTER_LOWER:
            notes.append(f"it is assumed that a higher {found.title} is better; --lower-is-better says otherwise")
    if not inside(values, found.within):  # Dice in percent
        found = dataclasses.replace(found, within=(-math.inf, math.inf), digits=digits_for(values))
    if higher_is_better is not None:
        found = dataclasses.replace(found, higher_is_better=higher_is_better)
    return dataclasses.replace(found, signed=False), notes


def digits_for(values: np.ndarray) -> int:
    """As many as a hundredth of the standard deviation needs."""
    spread = float(values.std()) if len(values) else 0.0
    return min(6, max(0, round(-math.log10(spread / 100)))) if spread > 0 else 3


def inside(values: np.ndarray, within: tuple[float, float]) -> bool:
    return not len(values) or (float(values.min()) >= within[0] and float(values.max()) <= within[1])
