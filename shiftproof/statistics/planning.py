"""A plan of a study's size: what it can see, what it would take, and what a finding of too small a one is worth."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from ..errors import OptionError
from .exaggeration import Exaggeration, exaggeration
from .pilots import Pilot
from .power import (
    Design,
    checked,
    minimal_n,
    power,
    sd_of_difference,
    smallest_d_z,
    smallest_detectable,
    subjects_needed,
)
from .precision import half_width
from .simulated import SimulatedPower
from .whatif import SIZES, alternatives, line_of_size, needs, rms

USUAL_CORRELATION = 0.5  # where nothing is known: differences then spread as scores do


@dataclass(frozen=True)
class PowerPlan:
    """What a comparison of two methods needs and what it can see. Numbers that do not exist are NaN or None.

    `spread` is the SD that effects are measured by: of the subjects' differences (paired), of the scores (unpaired).
    `n` is of subjects; of each group where the design is unpaired. `level` is after correction. Where `reason` is not
    empty there is no plan.
    """

    design: Design
    effect: float
    sd: float
    correlation: float
    spread: float
    subjects: int | None
    level: float
    comparisons: int
    wanted: float
    power: float = math.nan
    detectable: float = math.nan  # with `subjects`
    half_width: float = math.nan  # likewise, of the 95 % interval
    correlation_needed: float = math.nan  # between the methods, for `subjects` to show the effect
    exaggeration: Exaggeration | None = None
    needed: list[dict[str, Any]] = field(default_factory=list)  # power, n, wilcoxon, and safe where a pilot is known
    sizes: list[dict[str, Any]] = field(default_factory=list)  # n, power, detectable, half_width, type_m
    alternatives: list[dict[str, Any]] = field(default_factory=list)  # other correlations, and other subjects
    fewest_for_exact_tests: int = 0  # subjects below which no exact test can reach the level
    pilot: Pilot | None = None
    needed_as_observed: int | None = None  # to show a difference of the size that the pilot saw
    simulated: SimulatedPower | None = None
    notes: list[str] = field(default_factory=list)
    reason: str = ""

    @property
    def subjects_needed(self) -> int | None:
        """For the wanted power."""
        return next((line["n"] for line in self.needed if line["power"] == self.wanted), None)


def plan_power(
    *,
    effect: float | None = None,
    sd: float | None = None,
    sd_difference: float | None = None,
    correlation: float | None = None,
    subjects: int | None = None,
    design: Design = "paired",
    power: float = 0.8,
    level: float = 0.05,
    comparisons: int = 1,
) -> PowerPlan:
    """A plan from assumed numbers.

    Args:
        effect: True mean difference to find, in the metric's unit; None asks what can be seen.
        sd: Of one method's scores over subjects.
        sd_difference: Of the subjects' differences between the methods, where that is known; instead of `correlation`.
        correlation: Of the two methods' scores over subjects; 0.5 where nothing is given.
        subjects: Who are at hand; of each group where the design is unpaired. None asks how many it takes.
        design: "paired" (both methods on the same subjects) or "unpaired".
        power: Wanted chance to find the effect.
        level: Of the two-sided test.
        comparisons: In the family; the level is divided by it (Bonferroni, Holm's first step).

    Raises:
        OptionError: For numbers out of range, or without a spread.
    """
    check(effect, subjects, power, level, comparisons)
    notes: list[str] = []
    if checked(design) == "unpaired":
        if sd is None:
            raise OptionError(f"an unpaired plan needs the SD of scores (sd), got {given(sd_difference, correlation)}")
        positive(sd, "the SD of scores")
        if correlation is not None or sd_difference is not None:
            notes.append("Different subjects have no correlation and no differences: those numbers are not used.")
        spread, correlation = sd, None
    else:
        sd, correlation, spread = paired_spread(sd, sd_difference, correlation, notes)
    return plan(
        effect, spread, sds=None if sd is None else (sd, sd), correlation=correlation, subjects=subjects,
        design=design, wanted=power, level=level, comparisons=comparisons, notes=notes,
    )  # fmt: skip


def plan(
    effect: float | None,
    spread: float,
    *,
    sds: tuple[float, float] | None,
    correlation: float | None,
    subjects: int | None,
    design: Design,
    wanted: float,
    level: float,
    comparisons: int,
    notes: list[str],
    pilot: Pilot | None = None,
) -> PowerPlan:
    """All numbers of a plan whose spread is known; `sds` are those of the two methods' scores."""
    level /= comparisons
    size = abs(effect) if effect is not None else math.nan
    observed = math.nan if pilot is None else pilot.mean_difference
    sizes = sorted({*SIZES, *([] if subjects is None else [subjects])})
    return PowerPlan(
        design=design, effect=nan(effect), sd=rms(sds), correlation=nan(correlation), spread=spread, subjects=subjects,
        level=level, comparisons=comparisons, wanted=wanted,
        **({} if subjects is None else with_subjects(size, spread, sds, subjects, design, wanted, level)),
        needed=[] if effect is None else needs(size, spread, design, wanted, level, pilot),
        sizes=[line_of_size(n, size, spread, design, wanted, level) for n in sizes],
        alternatives=alternatives(size, spread, sds, correlation, subjects, design, wanted, level),
        fewest_for_exact_tests=minimal_n(level, design=design),
        pilot=pilot,
        needed_as_observed=subjects_needed(observed, spread, power=wanted, level=level, design=design),
        notes=notes,
    )  # fmt: skip


def with_subjects(
    size: float,
    spread: float,
    sds: tuple[float, float] | None,
    n: int,
    design: Design,
    wanted: float,
    level: float,
) -> dict[str, Any]:
    """What so many subjects see."""
    found = {
        "power": power(size / spread, n, level=level, design=design),
        "detectable": smallest_detectable(spread, n, power=wanted, level=level, design=design),
        "half_width": half_width(spread, n, design=design),
    }
    if not math.isfinite(size):
        return found
    enough = size / smallest_d_z(n, wanted, level)  # SD of differences with which n would do
    agreeing = (sds[0] ** 2 + sds[1] ** 2 - enough**2) / (2 * sds[0] * sds[1]) if sds else math.nan
    return found | {
        "correlation_needed": agreeing if design == "paired" and -1 <= agreeing < 1 else math.nan,
        "exaggeration": exaggeration(size, spread, n, level=level, design=design),
    }


def paired_spread(
    sd: float | None, sd_difference: float | None, correlation: float | None, notes: list[str]
) -> tuple[float | None, float | None, float]:
    """SD of scores, correlation, SD of differences: the third from two of them."""
    if sd is None and sd_difference is None:
        raise OptionError(
            f"a plan needs a spread: the SD of scores (sd) with their correlation, the SD of differences "
            f"(sd_difference), or a pilot; got {given(sd_difference, correlation)}"
        )
    if sd is not None:
        positive(sd, "the SD of scores")
    if sd_difference is not None:
        positive(sd_difference, "the SD of differences")
        if correlation is not None:
            raise OptionError("the SD of differences and a correlation say the same; give one of them")
        if sd is None:
            return None, None, sd_difference
        correlation = 1 - sd_difference**2 / (2 * sd**2)
        if correlation < -1:
            raise OptionError(f"differences of SD {sd_difference} cannot come from scores of SD {sd}: at most twice it")
        return sd, correlation, sd_difference
    assert sd is not None
    if correlation is None:
        correlation = USUAL_CORRELATION
        notes.append(
            f"No correlation was given: {correlation} is assumed, with which differences spread as scores do. "
            "Two networks for the same task often agree more."
        )
    spread = sd_of_difference(sd, correlation)
    if spread == 0:
        raise OptionError("methods with a correlation of 1 differ equally in all subjects; expected one below 1")
    return sd, correlation, spread


def check(effect: float | None, subjects: int | None, wanted: float, level: float, comparisons: int) -> None:
    if effect is not None and (not math.isfinite(effect) or effect == 0):
        raise OptionError(f"the effect to find is a number other than 0, got {effect}")
    if subjects is not None and subjects < 2:
        raise OptionError(f"a spread needs at least 2 subjects, got {subjects}")
    if comparisons < 1:
        raise OptionError(f"a study compares at least once, got {comparisons} comparisons")
    if not 0 < level < wanted < 1:
        raise OptionError(f"0 < level < power < 1 is expected, got level {level} and power {wanted}")


def positive(value: float, what: str) -> None:
    if not math.isfinite(value) or value <= 0:
        raise OptionError(f"{what} is a number above 0, got {value}")


def given(sd_difference: float | None, correlation: float | None) -> str:
    parts = {"sd_difference": sd_difference, "correlation": correlation}
    return ", ".join(f"{k} {v}" for k, v in parts.items() if v is not None) or "none of them"


def nan(value: float | None) -> float:
    return math.nan if value is None else float(value)
