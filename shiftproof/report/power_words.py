"""A plan of a study's size in words, for the terminal and the page."""

from __future__ import annotations

import math

from ..statistics import PowerPlan
from .numbers import NOTHING, count, known, listed, number, percent, scale

TESTS = {"t": "paired t-test", "permutation": "sign-flip test", "wilcoxon": "Wilcoxon test", "sign": "sign test"}


def told(plan: PowerPlan, metric: str = "") -> list[str]:
    """The answer, sentence by sentence; one sentence where there is none.

    Args:
        plan: The plan.
        metric: Behind its numbers, where one is known.
    """
    if plan.reason:
        return [f"No plan: {plan.reason}."]
    parts = [
        basis(plan, metric),
        chance(plan, metric),
        takes(plan, metric),
        sees(plan, metric),
        would_do(plan),
        warning(plan),
        too_few(plan),
        drawn(plan),
        as_observed(plan),
        nothing_asked(plan),
        *plan.notes,
    ]
    return [part[0].upper() + part[1:] for part in parts if part]


def basis(plan: PowerPlan, metric: str) -> str:
    """What is known or assumed of the spread."""
    spread = measured(plan.spread, metric)
    if plan.pilot is not None:
        text = pilot_words(plan, metric)
    elif plan.design == "unpaired":
        text = f"Each method on its own subjects, equally many; scores with an SD of {spread}."
    elif known(plan.sd):
        text = (
            f"Both methods on the same subjects; scores with an SD of {measured(plan.sd, metric)} and a correlation of "
            f"{agreement(plan.correlation)}, so that their differences have an SD of {spread}."
        )
    else:
        text = f"Both methods on the same subjects; their differences have an SD of {spread}."
    if plan.comparisons > 1:
        text += f" Corrected for {plan.comparisons} comparisons: the level of each is {plan.level:.2g} (Bonferroni)."
    return text


def pilot_words(plan: PowerPlan, metric: str) -> str:
    pilot = plan.pilot
    assert pilot is not None
    mean = figure(pilot.mean_difference, signed=True)
    around = f"[{figure(pilot.low, signed=True)}, {figure(pilot.high, signed=True)}]"
    who = f"{pilot.n} subjects" if plan.design == "paired" else f"groups of other subjects, the smaller of {pilot.n}"
    what = "differences" if plan.design == "paired" else "scores"
    alike = f"; the methods’ scores correlate with {agreement(plan.correlation)}" if known(plan.correlation) else ""
    left_out = plan.design == "paired" and pilot.left_out
    return (
        f"Pilot: {pilot.a} minus {pilot.b} is {mean} {around}{behind(metric)} in {who}; the SD of {what} is "
        f"{figure(pilot.sd)} (95 % interval {figure(pilot.sd_low)} to {figure(pilot.sd_high)}){alike}."
        + (f" {count(pilot.left_out, 'subject')} without a score of both left out." if left_out else "")
    )


def chance(plan: PowerPlan, metric: str) -> str:
    if plan.subjects is None or not known(plan.power):
        return ""
    missed = percent(1 - plan.power) if 0.01 < plan.power < 0.99 else "nearly all" if plan.power < 0.5 else "hardly any"
    return (
        f"{people(plan, plan.subjects)} find a true difference of {effect(plan, metric)} with a power of "
        f"{number(plan.power)}: {missed} of such studies would miss it."
    )


def takes(plan: PowerPlan, metric: str) -> str:
    """Subjects that the effect needs."""
    if not plan.needed:
        return ""
    if any(line["n"] is None for line in plan.needed):
        return f"To show {effect(plan, metric)} takes more than ten million subjects."
    each = " in each group" if plan.design == "unpaired" else ""
    shares = listed([f"{line['n']} for {percent(line['power'])}" for line in plan.needed])
    ranks = listed([str(line["wilcoxon"]) for line in plan.needed])
    text = f"Subjects{each} needed to show {effect(plan, metric)}: {shares} power; "
    text += f"with a rank test (if normal) some {ranks}."
    if plan.pilot is not None and all(line.get("safe") for line in plan.needed):
        safe = listed([str(line["safe"]) for line in plan.needed])
        text += f" The pilot knows the spread only roughly: with its upper limit (80 %, one-sided) it takes {safe}."
    return text


def sees(plan: PowerPlan, metric: str) -> str:
    if plan.subjects is None:
        return ""
    return (
        f"{people(plan, plan.subjects)} show a true difference of {measured(plan.detectable, metric)} or more with "
        f"{percent(plan.wanted)} power; the 95 % interval of the difference reaches {figure(plan.half_width)} to "
        "either side."
    )


def would_do(plan: PowerPlan) -> str:
    """What the same subjects could show if methods agreed more."""
    if plan.subjects is None or not known(plan.correlation_needed) or plan.power >= plan.wanted:
        return ""
    return (
        f"For {people(plan, plan.subjects)} to do, the methods’ scores would have to correlate with "
        f"{agreement(plan.correlation_needed)} from subject to subject."
    )


def warning(plan: PowerPlan) -> str:
    """A finding that was unlikely is a wrong one in size, often in sign."""
    e = plan.exaggeration
    if plan.subjects is None or e is None or not known(e.type_m) or e.power >= plan.wanted:
        return ""
    sign = f", and {percent(e.type_s)} of such findings have the wrong sign (type S)" if e.type_s >= 0.005 else ""
    return (
        f"Beware: where {people(plan, plan.subjects)} do give p < {plan.level:.2g}, the difference they show is "
        f"{number(e.type_m, 1)} times the true one on average (type M){sign}."
    )


def too_few(plan: PowerPlan) -> str:
    if plan.subjects is None or plan.subjects >= plan.fewest_for_exact_tests:
        return ""
    tests = "sign-flip, signed-rank or sign" if plan.design == "paired" else "permutation or rank"
    return (
        f"No {tests} test can give p < {plan.level:.2g} with {people(plan, plan.subjects)}, however large the "
        f"difference: it takes {plan.fewest_for_exact_tests}."
    )


def drawn(plan: PowerPlan) -> str:
    s = plan.simulated
    if s is None:
        return ""
    if s.reason:
        return f"Nothing was simulated: {s.reason}."
    test = TESTS.get(s.test, s.test)
    return (
        f"Without assuming normality ({s.studies} studies of {s.n} drawn from the {s.how}; {test}): power "
        f"{number(s.power)} [{number(s.low)}, {number(s.high)}]."
    )


def as_observed(plan: PowerPlan) -> str:
    """Where no effect was named: what the pilot's own would take, and why that is no plan."""
    if plan.pilot is None or plan.needed:
        return ""
    n = plan.needed_as_observed
    each = "" if plan.design == "paired" else " in each group"
    takes = "more than ten million subjects" if n is None else f"{count(n, 'subject')}{each}"
    return (
        f"To show a difference of the size observed with {percent(plan.wanted)} power: {takes}. That is no plan: "
        "differences seen in a pilot are uncertain, and promising ones too large. Name the effect that would matter."
    )


def nothing_asked(plan: PowerPlan) -> str:
    if plan.needed or plan.subjects is not None:
        return ""
    return f"Neither an effect nor subjects were named: below is what {percent(plan.wanted)} power shows."


def people(plan: PowerPlan, n: int) -> str:
    return f"{n} subjects" if plan.design == "paired" else f"two groups of {n} subjects"


def effect(plan: PowerPlan, metric: str) -> str:
    return measured(abs(plan.effect), metric)


def measured(value: float, metric: str) -> str:
    """A number with its unit and metric, where they are known."""
    return f"{figure(value)}{behind(metric)}"


def behind(metric: str) -> str:
    if not metric:
        return ""
    of = scale(metric)
    return f" {of.unit} {of.title}" if of.unit else f" {of.title}"


def figure(value: float, *, signed: bool = False) -> str:
    """Three significant digits: spreads and differences have no digits that fit all metrics."""
    if not known(value):
        return NOTHING
    digits = 2 - math.floor(math.log10(abs(value))) if value else 0
    text = number(value, min(max(digits, 0), 9), signed=signed)
    whole, point, part = text.partition(".")
    return whole + (point + part.rstrip("0")).rstrip(".") if point else text


def agreement(correlation: float) -> str:
    """A correlation, to more digits where it is near 1."""
    return number(correlation, 3 if correlation > 0.9 else 2) if known(correlation) else NOTHING
