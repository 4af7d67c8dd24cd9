"""What the numbers of a page cannot say, by rule."""

from __future__ import annotations

from .comparing import beyond_reach, lucky
from .numbers import count, known, listed, number, plural, scale
from .phrases import Found, primary, scored, size, unit
from .trainings import fallen_words


def caveats(found: Found) -> list[str]:
    """Sentences for the end of the page; none where nothing was scored."""
    if not scored(found):
        return []
    texts = [
        subjects(found),
        resolution(found),
        domains(found),
        seeds(found) if found["kind"] == "study" else "",
        fallen_words(found["fallen"], scale(found["primary"]["metric"])),
        transforms(found),
        repeated(found),
        empty(found),
        partial(found),
        lost(found),
        unscored(found),
        "Where a prediction was missing, all structures of the scan count as missed."
        if found["missing_counts_as_missed"]
        else "",
        overestimates(found),
    ]
    return [text for text in texts if text]


def subjects(found: Found) -> str:
    parts = [f"{d} {k}" for d, k in found["subjects"]["by domain"].items()]
    return f"{count(found['subjects']['all'], 'subject')} in all ({found['domain_word']}: {', '.join(parts)})."


def resolution(found: Found) -> str:
    """With very few subjects no sign-flip test can ever reach the level."""
    pairs = [c for c in primary(found) if c["n"] > 1]
    if not pairs or not all(beyond_reach(c) for c in pairs):
        return ""
    n = max(c["n"] for c in pairs)
    least = min(1.0, len(pairs) * 2 / 2**n)
    return (
        f"With {n} subjects and {count(len(pairs), 'comparison')} the smallest corrected p that the test can "
        f"give is {number(least)}: no difference, however large, can be called reliable here."
    )


def domains(found: Found) -> str:
    word, few = found["domain_word"], len(found["held_out"])
    verb = "held out" if found["kind"] == "study" else "scored"
    these = f"this {word}" if few == 1 else f"these {plural(word)}"
    how_few = "one" if few == 1 else "so few" if few < 10 else str(few)
    return (
        f"{count(few, word)} {'was' if few == 1 else 'were'} {verb}. Intervals and tests are over subjects of "
        f"{these}; how results vary from {word} to {word} cannot be told from {how_few}, "
        "and the next may be worse than the worst here."
    )


def seeds(found: Found) -> str:
    many = len(found["seeds"])
    if many == 1:
        return (
            "One seed: how much a row varies from training to training is not known and is in no interval, so that no "
            "row can be called better than another. Two trainings of one recipe often differ reliably over subjects."
        )
    text = f"{many} seeds, averaged by subject before intervals; claims are tested over trainings, too"
    spread = [r["seed_sd"] for r in found["rows"] if known(r["seed_sd"])]
    if not spread:
        return f"{text}."
    return (
        f"{text}; a row’s mean varies between seeds with a standard deviation of up to "
        f"{size(found, max(spread))} {unit(found)}."
    )


def transforms(found: Found) -> str:
    """The gap is of two networks that may differ by more than the labels that they saw."""
    names = (found["source_only"], found["target_supervised"])
    plain, best = (found["transforms"].get(n) for n in names)
    if not plain or not best or plain == best:
        return ""
    return (
        f"The drop compares source-only (transforms {plain}) with {names[1]} (transforms {best}): it holds "
        "the effect of augmentation as well as that of the labels."
    )


def repeated(found: Found) -> str:
    many = found["subjects"]["in several domains"]
    if not many:
        return ""
    return (
        f"{count(many, 'subject')} {'appears' if many == 1 else 'appear'} in more than one "
        f"{found['domain_word']}; over all of them each counts once, with the mean."
    )


def empty(found: Found) -> str:
    many = sum(r["failures"]["both empty"] for r in found["rows"])
    if not many:
        return ""
    over = " (all rows and seeds)" if found["kind"] == "study" else ""
    return (
        f"{count(many, 'score')} of structures that are absent from label and prediction{over}: left out of means, "
        "and counted."
    )


def partial(found: Found) -> str:
    names = [r["row"] for r in found["rows"] if r["covers"] and r["covers"] != found["held_out"]]
    if not names:
        return ""
    return (
        f"{listed(names)}: results for some {plural(found['domain_word'])} only; the overall mean is over "
        "those, and differences use the subjects that both sides have."
    )


def lost(found: Found) -> str:
    many = found["cells"]["failed"] + found["cells"]["not run"]
    if not many:
        return ""
    listing = "it is" if many == 1 else "they are"
    return f"{count(many, 'cell')} of the grid failed or did not run; {listing} listed under “What was run”."


def unscored(found: Found) -> str:
    many = len(found["unscored"])
    if not many:
        return ""
    verb = "is" if many == 1 else "are"
    return f"{count(many, 'scan')} could not be scored and {verb} in no mean; see “What was run”."


def overestimates(found: Found) -> str:
    """Found although such a difference is mostly missed: then its size is exaggerated on average."""
    pairs = [c for c in primary(found) if lucky(c)]
    if not pairs:
        return ""
    names = listed([f"{c['a']} against {c['b']}" for c in pairs])
    times = max((e["type_m"] for c in pairs if (e := c["exaggeration"]) and known(e["type_m"])), default=0.0)
    by_much = f", on average up to {number(times, 1)}-fold" if times >= 1.05 else ""
    return (
        f"{names}: smaller than what so many subjects show with 80 % power; where such a difference "
        f"is found, its size is likely to be overestimated{by_much}."
    )
