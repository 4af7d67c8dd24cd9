"""The answer in words, made by rule from the numbers: nothing is claimed that the tests do not carry.

"Better" is said only where the corrected p is below 0.05 and the interval at the corrected level lies
beyond 0 and beyond the declared margin; "equivalent" only where two one-sided tests against that margin
say so; everything else is "no reliable difference". Nobody is called the winner who does not beat each
other row.
"""

from __future__ import annotations

from .certainty import STABLE, power_text, ranking_text, tests_text
from .comparing import LEVEL, beyond_reach, rivalries
from .halving import waiting
from .notes import named
from .numbers import count, estimate, known, listed, number, p_value, percent, plural, span
from .phrases import (
    Found,
    called,
    closes,
    difference,
    digits,
    drop,
    primary,
    remedies,
    row,
    score,
    scored,
    size,
    tested,
    title,
    unit,
)
from .roles import SOURCE_ONLY

SENTENCES = 6  # rows that get one of their own; of more nobody reads them


def headline(found: Found) -> str:
    """One or two sentences for the top of the page."""
    if not scored(found):
        return waiting(found["halving"]) if found["halving"] else "There is no answer yet: nothing has been scored."
    if found["kind"] == "evaluation":
        return evaluation_headline(found)
    return f"{drop_headline(found)} {help_headline(found)}".strip()


def evidence(found: Found) -> list[dict[str, str]]:
    """What the headline rests on, each piece with what it is about."""
    if not scored(found):
        return []
    if found["kind"] == "evaluation":
        parts = [
            (f"By {found['domain_word']}", by_domain(found)),
            ("Seen in training", seen_text(found)),
            ("Comparison", pairs_text(found)),
        ]
    else:
        parts = [
            ("The drop", drop_text(found)),
            ("What helps", help_text(found)),
            ("What does not", no_help_text(found)),
            ("Selected", selected_text(found)),
        ]
    parts += [
        ("Winner", winner_text(found)),
        ("Ranking", ranking_text(found)),
        ("Power", power_text(found)),
        ("Tests", tests_text(found)),
    ]
    return [{"about": about, "text": text} for about, text in parts if text]


# The drop ----------------------------------------------------------------------------------------


def drop_headline(found: Found) -> str:
    c, word = drop(found), found["domain_word"]
    if c is None:
        return f"How much is lost at an unseen {word} cannot be said: {why_no_drop(found)}."
    if c["verdict"] == "better":
        low, high = sorted(abs(c[end]) for end in ("low", "high"))
        cost = f"{size(found, c['mean_difference'])} {unit(found)} {span(low, high, digits(found))}"
        return f"Unseen {plural(word)} cost {cost}."
    if c["verdict"] == "ahead":
        low, high = sorted(abs(c[end]) for end in ("low", "high"))
        cost = f"{size(found, c['mean_difference'])} {unit(found)} {span(low, high, digits(found))}"
        return f"Unseen {plural(word)} cost {cost} in one training each."
    if c["verdict"] in ("worse", "behind"):
        return f"Labels from the {word} itself made it worse, so there is no loss to make up for."
    if beyond_reach(c):
        are = "is" if c["n"] == 1 else "are"
        alone = 2 / 2 ** c["n"] >= LEVEL  # else it is the number of comparisons
        beside = "" if alone else f", for {count(c['family_size'], 'comparison')},"
        return f"{count(c['n'], 'subject')} {are} too few{beside} to tell what an unseen {word} costs."
    if c["verdict"] == "equivalent":
        return f"No loss at unseen {plural(word)} beyond {size(found, c['margin'])} {unit(found)}."
    return f"No reliable loss at unseen {plural(word)}."


def drop_text(found: Found) -> str:
    c, word = drop(found), found["domain_word"]
    if c is None:
        return f"Not measured: {why_no_drop(found)}."
    plain, best = (row(found, c[k])["overall"] for k in ("b", "a"))
    claim = "" if c["verdict"] == "better" else f" That is {claims(found, c)}."
    here = [f"{d} {estimate(i, digits(found), signed=True)}" for d, i in found["drops"].items() if known(i["mean"])]
    return (
        f"At {plural(word)} that training never saw, {called(found, c['b'])} scores {score(found, plain)}; "
        f"{c['a']}, trained with labels from that {word}, {score(found, best)}. The difference is "
        f"{tested(found, c)}, n = {count(c['n'], 'subject')}.{claim}{differ(found)}"
    ) + (f" By {word}: {'; '.join(here)}." if len(here) > 1 else "")


def differ(found: Found) -> str:
    """The drop may be more than that of labels; what that means stands in the limits."""
    plain, best = (found["transforms"].get(found[k]) for k in ("source_only", "target_supervised"))
    return f" Their transforms differ, too ({plain}, {best})." if plain and best and plain != best else ""


def why_no_drop(found: Found) -> str:
    names = {"source_only": "source-only", "target_supervised": "target-supervised"}
    there = {r["row"] for r in found["rows"] if r["overall"]["n"]}
    if not found["bounded"]:
        return "the study has no target-supervised reference"
    lacking = [word for key, word in names.items() if found[key] not in there]
    if not lacking:
        return "the two references share no subject"
    return f"the {' and the '.join(lacking)} reference {'has' if len(lacking) == 1 else 'have'} no scores"


# What helps --------------------------------------------------------------------------------------


def help_headline(found: Found) -> str:
    compared = remedies(found)
    better = [c for c in compared if c["verdict"] == "better"]
    worse = list(dict.fromkeys(c["a"] for c in compared if c["verdict"] == "worse"))
    harm = f"{named(worse)} {'is' if len(worse) == 1 else 'are'} reliably worse" if worse else ""
    if not better:
        if not compared:
            return ""
        none = f"No row is reliably better than its reference{f'; {harm}' if harm else ''}."
        return f"{none}{by_luck(compared)}{nothing(found)}"
    against = {called(found, c["b"]) for c in better}
    whom = against.pop() if len(against) == 1 else "their references"
    names = list(dict.fromkeys(c["a"] for c in better))
    does = "does" if len(names) == 1 else "do"
    gap = row(found, better[0]["a"])["gap_closed"] if len(better) == 1 else None
    share = f" and closes {percent(gap['value'])} of the gap" if gap and not gap["reason"] else ""
    helps = f"{named(names)} {does} better than {whom}{share}."
    hurts = f" {harm} than {'its reference' if len(worse) == 1 else 'their references'}." if harm else ""
    return f"{helps}{hurts}{nothing(found)}"


def by_luck(compared: list[Found]) -> str:
    """Rows whose one training is ahead or behind: that is of networks, and says nothing yet of recipes."""
    names = {way: list(dict.fromkeys(c["a"] for c in compared if c["verdict"] == way)) for way in ("ahead", "behind")}
    parts = [f"{named(some)} {'is' if len(some) == 1 else 'are'} {way}" for way, some in names.items() if some]
    return f" {', '.join(parts)}, but one training each cannot tell a recipe from luck." if parts else ""


def nothing(found: Found) -> str:
    """Rows of which nothing can be said: who fails is not to be taken for who does not help."""
    names = [r["row"] for r in found["rows"] if r["role"] != "target-supervised" and not r["overall"]["n"]]
    return f" {named(names)} {'has' if len(names) == 1 else 'have'} no scores." if names else ""


def help_text(found: Found) -> str:
    """Empty where nothing helps: the headline says so."""
    compared = remedies(found)
    if not compared:
        return "No row could be compared with a reference."
    better = [c for c in compared if c["verdict"] == "better"]
    texts = [
        f"{c['a']} is better than {called(found, c['b'])}: {tested(found, c)}{closes(found, c['a'])}."
        for c in better[:SENTENCES]
    ]
    more = [c["a"] for c in better[SENTENCES:]]
    return " ".join(
        [*texts, *([f"So {'is' if len(more) == 1 else 'are'} {named(more)}; see the table."] if more else [])]
    )


def no_help_text(found: Found) -> str:
    """Each row that does not beat its reference, by name; of many, one by one only those that do harm."""
    others = [c for c in remedies(found) if c["verdict"] != "better"]
    alone = others if len(others) <= SENTENCES else [c for c in others if c["verdict"] == "worse"][:SENTENCES]
    texts = [
        f"{c['a']} {lacks(c)} {called(found, c['b'])}: {claims(found, c)}, {tested(found, c)}{still(found, c)}."
        for c in alone
    ]
    together: dict[tuple[str, str], list[str]] = {}
    for c in (c for c in others if not any(c is one for one in alone)):
        asked = row(found, c["a"])["reference"] == c["b"]
        told, what = (c["a"], "row") if asked else (f"{c['a']} against {c['b']}", "pair")
        together.setdefault((claims(found, c), what), []).append(told)
    texts += [f"{claim[0].upper()}{claim[1:]}: {named(names, what)}." for (claim, what), names in together.items()]
    texts += ["The table has the numbers of each."] if together else []
    untested = [
        r
        for r in found["rows"]
        if r["role"] != "target-supervised" and r["row"] != found["source_only"] and r["difference"] is None
    ]
    # Of several losses or networks each has a source-only of its own, and is it where it adds nothing to them.
    plain = [r["row"] for r in untested if r["setting"] == SOURCE_ONLY and r["overall"]["n"]]
    # Without any reference all pairs are what is asked, and each row of them is compared.
    asked_of_all = all(c["family"] == "primary" for c in found["comparisons"])
    paired = {name for c in found["comparisons"] for name in (c["a"], c["b"])} if asked_of_all else set()
    lacking = [r["row"] for r in untested if r["row"] not in plain and r["row"] not in paired]
    if plain:
        texts.append(
            f"{listed(plain)}: plain training, with nothing to compare it with but each other; every comparison in "
            "full has these pairs."
        )
    if lacking:
        texts.append(f"{listed(lacking)}: not compared, for want of scores or of a reference.")
    return " ".join(texts)


def lacks(c: Found) -> str:
    return "is not shown to beat" if c["verdict"] == "ahead" else "does not beat"


def still(found: Found, c: Found) -> str:
    """What a row that does not beat its reference gains on source-only, where it surely gains.

    Nothing where source-only is that reference: the test has just found no gain.
    """
    gap = row(found, c["a"])["gap_closed"]
    if row(found, c["b"])["setting"] == SOURCE_ONLY or not gap or gap["reason"] or gap["low"] <= 0:
        return ""
    return closes(found, c["a"])


def claims(found: Found, c: Found) -> str:
    """A verdict within a sentence."""
    if c["verdict"] in ("better", "worse"):
        return f"reliably {c['verdict']}"
    if c["verdict"] == "equivalent":
        return f"equivalent within {size(found, c['margin'])} {unit(found)}"
    if c["verdict"] in ("ahead", "behind"):
        return f"{c['verdict']} in one training each"
    if c["n"] < 2:
        return "too few subjects to test"
    text = "no reliable difference"
    if undecided_by_trainings(c):
        return f"{text} (subjects agree; trainings vary too much)"
    if not c["p_corrected"] < LEVEL:
        return text
    if c["low_corrected"] <= 0 <= c["high_corrected"]:  # a few outliers can make p small and the interval wide
        return f"{text} (p is small, but the corrected interval contains 0)"
    return f"not reliably more than the margin of {size(found, c['margin'])} apart"


def undecided_by_trainings(c: Found) -> bool:
    """Whether subjects alone would have made a claim of it."""
    over = c["trainings"]
    sure = c["p"] < LEVEL / c["family_size"] and not c["low_corrected"] <= 0 <= c["high_corrected"]
    return bool(over) and not over["reason"] and sure and over["low"] <= c["margin"] and over["high"] >= -c["margin"]


# Selection and winner ----------------------------------------------------------------------------


def selected_text(found: Found) -> str:
    name = found["selected"]
    ruled = f" (rule: {found['selection']})" if found["selection"] else ""
    if name is None:
        return f"No row could be selected by training domains{ruled}: none is complete with a validation score."
    of = row(found, name)
    sign = " (of errors the negative: larger is better)" if of["validation"] < 0 else ""
    text = (
        f"{name}, by training domains alone{ruled}, with {number(of['validation'])} there{sign}. "
        f"At {held_out(found)} it scores {score(found, of['overall'])}"
    )
    if of["worst"] and len(of["covers"]) > 1:
        worst = of["worst"]["domain"]
        text += f", at the worst of them, {worst}, {score(found, of['domains'][worst])}"
        share = of["worst"]["share"].get(worst, 1.0)
        text += f" (the worst in {percent(share)} of draws of subjects)" if share < STABLE else ""
    return f"{text}."


def held_out(found: Found) -> str:
    word = found["domain_word"]
    return f"the held-out {word if len(found['held_out']) == 1 else plural(word)}"


def winner_text(found: Found) -> str:
    name = found["leader"]
    if name is None:
        return ""
    pairs = rivalries(found, name)
    if found["winner"]:
        corrected = count(pairs[0]["family_size"], "pair")
        return f"{name} is reliably better than each other row (p corrected for {corrected} of rows)."
    rivals = [c for c in pairs if c["verdict"] != "better"]
    if not rivals:
        return f"None. {name} has the best mean, but was not tested against each other row."
    closest = min(rivals, key=lambda c: abs(c["mean_difference"]))
    if any(c["verdict"] == "ahead" for c in rivals) and closest["n"] > 1:
        return f"None. {name} has the best mean, but one training each cannot tell a better recipe from luck."
    if closest["n"] < 2:
        return f"None. {name} has the best mean, but there are too few subjects to test."
    more = f" and {len(rivals) - 1} more" if len(rivals) > 1 else ""
    is_not = f"{claims(found, closest)} to" if closest["verdict"] == "equivalent" else "not reliably better than"
    return (
        f"None. {name} has the best mean but is {is_not} {closest['b']}{more}: "
        f"{difference(found, closest)}, p {p_value(closest['p_corrected'])} "
        f"(corrected for {count(closest['family_size'], 'pair')} of rows: the best was picked after looking)."
    )


# A user's own predictions ------------------------------------------------------------------------


def evaluation_headline(found: Found) -> str:
    first = max(found["rows"], key=lambda r: r["overall"]["n"])
    places = count(len(first["covers"]), found["domain_word"])
    text = f"{score(found, first['overall'])} over {count(first['overall']['n'], 'subject')} of {places}"
    if first["worst"] and len(first["covers"]) > 1:
        worst = first["worst"]["domain"]
        side = "lowest" if found["primary"]["higher_is_better"] else "highest"
        text += f", {side} at {worst} ({score(found, first['domains'][worst]).removeprefix(title(found) + ' ')})"
    return f"{text}." if len(found["rows"]) == 1 else f"{first['row']}: {text}."


def by_domain(found: Found) -> str:
    texts = []
    for of in found["rows"]:
        parts = [
            f"{d} {estimate(i, digits(found))}, n = {i['n']}" for d, i in of["domains"].items() if known(i["mean"])
        ]
        texts.append((f"{of['row']}: " if len(found["rows"]) > 1 else "") + "; ".join(parts) + ".")
    return " ".join(texts)


def seen_text(found: Found) -> str:
    seen = [d for d in found["held_out"] if d in found["seen_domains"]]
    if not seen:
        return ""
    return f"{listed(seen)} took part in training; scores there say nothing of an unseen {found['domain_word']}."


def pairs_text(found: Found) -> str:
    return " ".join(f"{c['a']} against {c['b']}: {claims(found, c)}, {tested(found, c)}." for c in primary(found))
