"""How sure the answer is, in words: the order of rows, what so many subjects can show, and what was tested."""

from __future__ import annotations

from .numbers import count, number, percent, plural
from .phrases import TESTS, Found, primary, size, unit

STABLE = 0.95  # share of bootstraps from which a place is called settled


def ranking_text(found: Found) -> str:
    """How often each row would come first, were other subjects drawn."""
    if not found["ranking"] or found["ranking"]["reason"]:
        return ""
    first = sorted(found["ranking"]["first"].items(), key=lambda item: -item[1])
    (name, share), *others = [(n, v) for n, v in first if v >= 0.005]  # what is no 0 % in print
    word, many = found["domain_word"], len(found["held_out"])
    these = f"this {word}" if many == 1 else f"these {plural(word)}"
    often = "more than 99 %" if 0.995 <= share < 1 else percent(share)
    text = f"{name} comes first in {often} of {found['ranking']['resamples']} draws of other subjects of {these}"
    text += f", {others[0][0]} in {percent(others[0][1])}" if others else ""
    if share < STABLE:
        return f"{text}: who is first is not settled."
    return f"{text}." if found["winner"] == name else f"{text}. To be first so often is not yet to be reliably better."


def power_text(found: Found) -> str:
    """What so many subjects can show, and what they cannot."""
    facts = found["power"]
    if facts is None:
        return ""
    text = (
        f"With the spread of differences seen here, {subjects_span(facts)} show a true difference of "
        f"{range_of(found, facts['detectable'])} {unit(found)}{depending(facts['detectable'])} in 8 of 10 such studies"
    )
    if facts["family_size"] > 1:
        corrected = range_of(found, facts["detectable_corrected"])
        text += f" ({corrected} when corrected for {count(facts['family_size'], 'comparison')})"
    text += f"; much smaller ones would mostly be missed.{trainings_power_text(found, facts['trainings'])}"
    c = facts["undecided"]
    if c and c["needed"] and c["needed"] > c["n"] and not hidden_by_trainings(facts["trainings"], c):
        before = " before that correction" if facts["family_size"] > 1 else ""
        text += (
            f" Were the difference seen between {c['a']} and {c['b']}, {size(found, c['mean_difference'])}, the true "
            f"one, showing it would take {c['needed']} subjects{before}."
        )
    return text


def trainings_power_text(found: Found, facts: Found | None) -> str:
    """What trainings allow to say of recipes, which is often less than what subjects allow."""
    if facts is None:
        return ""
    if facts["detectable"] is None:
        return " One training each shows nothing of recipes, however many the subjects."
    many, ends = count(facts["fewest"], "training"), facts["detectable"]
    shown = f"{range_of(found, ends)} {unit(found)}{depending(ends)}"
    return f" That is of these networks; of recipes, {many} of each show {shown} likewise, and the larger counts."


def hidden_by_trainings(facts: Found | None, c: Found) -> bool:
    """Whether more subjects would not do: trainings hide so small a difference."""
    return bool(facts) and (facts["detectable"] is None or facts["detectable"][0] > abs(c["mean_difference"]))  # type: ignore[index]


def subjects_span(facts: Found) -> str:
    low, high = facts["n"]
    return count(high, "subject") if low == high else f"{low} to {high} subjects"


def range_of(found: Found, ends: list[float]) -> str:
    low, high = (size(found, end) for end in ends)
    return high if low == high else f"{low} to {high}"


def depending(ends: list[float]) -> str:
    return "" if ends[0] == ends[1] else ", depending on the pair,"


def tests_text(found: Found) -> str:
    pairs = primary(found)
    if all(c["n"] < 2 for c in pairs):
        return ""
    test = TESTS.get(pairs[0]["test"], pairs[0]["test"])
    which = "of rows with their references" if found["source_only"] else "of rows"
    many, margin = count(len(pairs), "comparison"), found["margin"]
    beyond = f"beyond the margin of {size(found, margin)} {unit(found)}" if margin else "beyond 0"
    level = number(100 * pairs[0]["level_corrected"], 2).rstrip("0").rstrip(".")
    text = (
        f"Over subjects, two-sided: {test}; p corrected by Holm’s rule for {many} {which}. “Better” needs a corrected "
        f"p below 0.05 and all of the {level} % interval (Bonferroni) {beyond}."
    )
    text += trainings_text(pairs)
    if not margin:
        return text
    return f"{text} “Equivalent” needs two one-sided tests within ±{size(found, margin)}, corrected likewise."


def trainings_text(pairs: list[Found]) -> str:
    """How the luck of single trainings is kept out of claims."""
    over = [c["trainings"] for c in pairs if c["trainings"]]
    if not over:
        return ""
    if all(t["reason"] for t in over):
        return " One training each: a recipe cannot be told from its luck, so no row is called better."
    return " The same is asked of Welch’s t-test over trainings, domain by domain; p is the larger of the two."
