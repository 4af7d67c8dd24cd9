"""The comparison in words, made by rule from the numbers: nothing is claimed that the tests do not carry."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from ..report.numbers import count, estimate, known, listed, number, p_value, percent, span
from ..report.phrases import TESTS
from .pairs import beyond_reach, least_p
from .question import Question

Found = dict[str, Any]

RULES = {
    "holm": "Holm's rule",
    "hommel": "Hommel's rule",
    "bonferroni": "Bonferroni's rule",
    "benjamini-hochberg": "Benjamini and Hochberg's rule",
    "benjamini-yekutieli": "Benjamini and Yekutieli's rule",
}
OVERSTATED = 1.3  # times, from which on it is worth a warning
SHOWN = 6  # pairs that are written out


def headline(found: Found, question: Question) -> str:
    """One or two sentences for the top."""
    pairs, methods = found["pairs"], found["methods"]
    if len(methods) == 1:
        one = methods[0]
        return f"{one['method']} scores {score(one, question)}. One method alone: there is nothing to compare it with."
    if not any(m["n"] for m in methods):
        return "No method has a score, so there is nothing to compare."
    if not any(p["n"] for p in pairs):
        return "The methods share no subject, so nothing can be said of their difference."
    if beyond_reach(pairs, question):
        few = max(p["n"] for p in pairs)
        return f"{count(few, 'shared subject')} {'is' if few == 1 else 'are'} too few to tell these methods apart."
    if question.reference is not None:
        return against_reference(found, question)
    return single(pairs[0], question) if len(pairs) == 1 else among_all(found, question)


STANDING = {"ahead": "ahead of", "behind": "behind"}


def single(p: Found, question: Question) -> str:
    a, b = p["a"], p["b"]
    if p["verdict"] in ("better", "worse"):
        return f"{a} is {p['verdict']} than {b}: {difference(p, question)}."
    if p["verdict"] in ("ahead", "behind"):
        return f"{p['a']} is {STANDING[p['verdict']]} {b}, in one training each: {difference(p, question)}."
    if p["verdict"] == "equivalent":
        return f"{a} and {b} are equivalent within {size(question.margin, question)}: {difference(p, question)}."
    if p["verdict"] == "not tested":
        return f"{a} and {b} cannot be tested: {p['reason']}."
    return f"No reliable difference{beyond(question)} between {a} and {b}: {difference(p, question)}."


def against_reference(found: Found, question: Question) -> str:
    by: dict[str, list[str]] = {}
    for p in found["pairs"]:
        by.setdefault(p["verdict"], []).append(p["a"])
    texts = []
    equal = f"equivalent within {size(question.margin, question)} to"
    lucky = [(way, f"in one training each {words}") for way, words in STANDING.items()]
    for verdict, words in (("better", "better than"), ("worse", "worse than"), ("equivalent", equal), *lucky):
        if by.get(verdict):
            are = "is" if len(by[verdict]) == 1 else "are"
            texts.append(f"{named(by[verdict])} {are} {words} {question.reference}.")
    rest = by.get("no reliable difference", [])
    if rest and not texts:
        return f"No reliable difference{beyond(question)} from {question.reference}."
    return " ".join(
        [*texts, f"No reliable difference{beyond(question)} from {question.reference}: {named(rest)}." if rest else ""]
    ).strip()


def among_all(found: Found, question: Question) -> str:
    pairs, names = found["pairs"], [m["method"] for m in found["methods"]]
    beaten: dict[str, set[str]] = {name: set() for name in names}
    for p in pairs:
        if p["verdict"] in ("better", "worse"):
            first, second = (p["a"], p["b"]) if p["verdict"] == "better" else (p["b"], p["a"])
            beaten[first].add(second)
    winner = next((name for name in names if len(beaten[name]) == len(names) - 1), None)
    apart = sum(map(len, beaten.values()))
    if winner:
        return f"{winner} is better than each of the {len(names) - 1} other methods."
    if not apart:
        return f"No reliable difference{beyond(question)} among {len(names)} methods."
    return f"No method is better than all others; {apart} of {len(pairs)} pairs differ reliably{beyond(question)}."


def beyond(question: Question) -> str:
    """What a difference must exceed, where that is more than 0: one that is reliable may yet be too small."""
    return f" beyond the margin of {size(question.margin, question)}" if question.margin else ""


def evidence(found: Found, question: Question) -> list[dict[str, str]]:
    """What the headline rests on, each piece with what it is about."""
    parts = [
        ("Differences", differences_text(found, question)),
        ("Margin", margin_text(found, question)),
        ("Not shared", apart_text(found, question)),
        ("Power", power_text(found, question)),
        ("Overstatement", overstated_text(found, question)),
        ("Ranking", ranking_text(found)),
        ("All methods", friedman_text(found)),
        (f"By {found['domain_word']}", domain_text(found, question)),
        ("Spread", mixed_text(found, question)),
        ("Tests", tests_text(found, question)),
    ]
    return [{"about": about, "text": text} for about, text in parts if text]


def differences_text(found: Found, question: Question) -> str:
    """The reliable differences, the largest first."""
    apart = [p for p in found["pairs"] if p["verdict"] in ("better", "worse")]
    apart.sort(key=lambda p: -abs(p["mean_difference"]))
    texts = []
    for p in apart[:SHOWN]:
        word = "corrected p" if p["family_size"] > 1 else "p"
        texts.append(
            f"{p['a']} is {p['verdict']} than {p['b']}: {difference(p, question)}, {word} {p_value(p['p_corrected'])}."
        )
    if len(apart) > SHOWN:
        texts.append(f"{len(apart) - SHOWN} more in the table.")
    lucky = sum(p["verdict"] in STANDING for p in found["pairs"])
    if lucky:
        texts.append(
            f"{count(lucky, 'pair')} differ over subjects, but one training each cannot tell a recipe from luck."
        )
    rest = [p for p in found["pairs"] if p["verdict"] == "no reliable difference"]
    if rest:
        shown = [f"{p['a']} and {p['b']} ({difference(p, question)})" for p in rest[:SHOWN]]
        more = f", and {len(rest) - SHOWN} more pairs" if len(rest) > SHOWN else ""
        texts.append(f"No reliable difference{beyond(question)} between {'; '.join(shown)}{more}.")
    why: dict[str, list[str]] = {}
    for p in found["pairs"]:
        if p["verdict"] == "not tested" and p["n"]:
            why.setdefault(p["reason"], []).append(f"{p['a']} and {p['b']}")
    texts += [f"Not tested: {'; '.join(pairs[:SHOWN])} ({reason})." for reason, pairs in why.items()]
    return " ".join(texts)


def margin_text(found: Found, question: Question) -> str:
    if not question.margin or not found["pairs"]:
        return ""
    same = [p for p in found["pairs"] if p["verdict"] == "equivalent"]
    margin, how = size(question.margin, question), "one-sided t-tests, corrected"
    texts = [f"{p['a']} and {p['b']} (p {p_value(p['p_equivalent_corrected'])})" for p in same[:SHOWN]]
    more = f", and {len(same) - SHOWN} more pairs" if len(same) > SHOWN else ""
    none = f"No pair is shown to be equivalent within {margin}"
    said = f"Equivalent within {margin}: {'; '.join(texts)}{more}" if same else none
    lesser = [
        f"{p['a']} (p {p_value(p['p_no_worse_corrected'])})"
        for p in found["pairs"]
        if p["verdict"] == "no reliable difference" and p["p_no_worse_corrected"] < question.level
    ]
    beside = (
        f" Not worse than {question.reference} by {margin}: {named(lesser)}." if lesser and question.reference else ""
    )
    return f"{said} ({how}).{beside}"


def apart_text(found: Found, question: Question) -> str:
    """Pairs without a common subject, whose difference may be that of their subjects."""
    pairs = [p for p in found["pairs"] if p["unpaired"]]
    texts = []
    for p in pairs[:SHOWN]:
        u = p["unpaired"]
        digits = question.metric.digits
        seen = estimate(u, digits, signed=True, value="mean_difference")
        test = f", Welch's p {p_value(u['p'])}" if known(u["p"]) else ""
        texts.append(f"{p['a']} and {p['b']} share no subject; their means differ by {seen}{test}.")
    return " ".join([*texts, "That may be due to the subjects, so no verdict is given."]) if texts else ""


def power_text(found: Found, question: Question) -> str:
    """What this many subjects can see; nothing of pairs whose test cannot reach the level, whatever they differ by."""
    able = [p for p in found["pairs"] if least_p(p) < question.level / p["family_size"]]
    pairs = [p for p in able if known(p["detectable"]) and p["detectable"] > 0]
    if not pairs:
        return ""
    if len(pairs) > 1:
        least, most = (f(p["detectable_corrected"] for p in pairs) for f in (min, max))
        fewest, largest = (f(p["n"] for p in pairs) for f in (min, max))
        n = f"{fewest} to {largest} subjects" if fewest < largest else count(largest, "subject")
        one, other = number(least, question.metric.digits), number(most, question.metric.digits)
        reach = f"{one} to {size(most, question)}, by pair," if one != other else size(most, question)
        level = f"{100 * question.level:g} % divided by {pairs[0]['family_size']} comparisons"
        return f"With {n}, a true difference of {reach} is found with 80 % power at {level}."
    p = pairs[0]
    more = f" The difference seen would take {count(p['needed'], 'subject')}." if p["needed"] else ""
    return (
        f"With {count(p['n'], 'subject')} and an SD of the differences of {number(p['sd'], question.metric.digits)}, "
        f"a true difference of {size(p['detectable'], question)} is found with 80 % power.{more}"
    )


def overstated_text(found: Found, question: Question) -> str:
    """The type-M warning, of the pair that it concerns most: a claim, else what comes nearest to one."""
    able = [p for p in found["pairs"] if least_p(p) < question.level]
    pairs = [p for p in able if p["exaggeration"]["type_m"] >= OVERSTATED]
    if not pairs:
        return ""
    claimed = [p for p in pairs if p["verdict"] in ("better", "worse")]
    p = max(claimed or pairs, key=lambda p: abs(p["d_z"]))
    e = p["exaggeration"]
    what = "as large as the margin" if question.margin else "the one seen"
    signs = f", with the wrong sign in {percent(e['type_s'])} of such results" if e["type_s"] >= 0.005 else ""
    return (
        f"If the true difference between {p['a']} and {p['b']} is {what} ({size(abs(e['difference']), question)}), the "
        f"chance to find it is {percent(e['power'])}, and a significant result overstates it {fold(e['type_m'])} on "
        f"average{signs}."
    )


def ranking_text(found: Found) -> str:
    ranking = found["ranking"]
    if not ranking:
        return f"None: {found['unranked']}." if found["unranked"] else ""
    if ranking["reason"]:
        return f"None: {ranking['reason']}."
    first = [(name, percent(share)) for name, share in ranking["first"].items() if share >= 0.005][:3]
    shares = [f"{name} is first in {share}" if not i else f"{name} in {share}" for i, (name, share) in enumerate(first)]
    tau = ranking["tau"]
    order = f"; Kendall's τ with the ranking seen: median {number(tau['median'], 2)} " if known(tau["median"]) else ""
    around = span(tau["low"], tau["high"], 2) if order else ""
    within = f" within each {found['domain_word']}" if len(found["domains"]) > 1 else ""
    disagree = firsts(ranking)
    also = f" The ways of ranking name different firsts: {disagree}." if disagree else ""
    return f"{listed(shares)} of {ranking['resamples']} bootstrap samples of subjects{within}{order}{around}.{also}"


def firsts(ranking: Found) -> str:
    """Who is first by each way of ranking, where they differ; a way that has several firsts is no witness."""
    by: dict[str, list[str]] = {}
    for scheme in next(iter(ranking["schemes"].values()), {}):
        least = min(line[scheme] for line in ranking["schemes"].values())
        top = [name for name, line in ranking["schemes"].items() if line[scheme] == least]
        if len(top) == 1:
            by.setdefault(top[0], []).append(scheme)
    return "; ".join(f"{name} ({', '.join(ways)})" for name, ways in by.items()) if len(by) > 1 else ""


def friedman_text(found: Found) -> str:
    ranking = found["ranking"]
    if not ranking:
        return ""
    test = ranking["friedman"]
    if test["reason"]:
        return f"No Friedman test: {test['reason']}."
    text = f"Friedman's test over {test['k']} methods and {count(test['n'], 'subject')}: p {p_value(test['p'])}"
    if test["p"] >= found["level"]:
        return f"{text}; ranks do not differ reliably as a whole, so groups of them mean nothing."
    cd = ranking["critical_difference"]["cd"]
    return f"{text}; mean ranks that differ by {number(cd, 2)} or more are apart (Nemenyi)."


def domain_text(found: Found, question: Question) -> str:
    """The worst domain of each method, which a mean hides."""
    there = [m for m in found["methods"] if m["worst"]]
    texts = []
    for m in there[:SHOWN]:
        w = m["worst"]
        sure = w["share"].get(w["domain"], 0.0)
        how = f", the worst in {percent(sure)} of bootstraps" if sure < 0.995 else ""
        texts.append(f"{m['method']} {w['domain']}, {estimate(w, question.metric.digits)}{how}")
    more = f"; {len(there) - SHOWN} more methods in the table" if len(there) > SHOWN else ""
    return f"Worst {found['domain_word']}: {'; '.join(texts)}{more}." if texts else ""


def mixed_text(found: Found, question: Question) -> str:
    """Where the spread of scores comes from."""
    fit = found["mixed"]
    if not fit or fit["reason"] or not fit["sd"]:
        return f"No mixed model: {fit['reason']}." if fit and fit["reason"] else ""
    names = {"site": found["domain_word"], "residual": "the rest"}
    shares = [f"{names.get(k, k)} {number(v, question.metric.digits)}" for k, v in fit["sd"].items()]
    note = f" {fit['note'][:1].upper()}{fit['note'][1:]}." if fit["note"] else ""
    return f"SDs of a mixed model, {unit(question)}: {', '.join(shares)}.{note}"


def tests_text(found: Found, question: Question) -> str:
    pairs = [p for p in found["pairs"] if p["n"] > 1]
    if not pairs:
        return ""
    level = f"{100 * pairs[0]['level_corrected']:.4g} %"
    test = TESTS.get(pairs[0]["test"], pairs[0]["test"])
    against = f"each method against {question.reference}" if question.reference else "all pairs"
    many = count(pairs[0]["family_size"], "comparison")
    if pairs[0]["family_size"] == 1:
        return f"Two-sided {test} on the subjects that both methods have, {level} interval. {trainings_text(pairs)}"
    return (
        f"Two-sided {test} on the subjects that both methods have; the family is {against}, p corrected by "
        f"{RULES[question.rule]} for {many}, intervals at {level} (Bonferroni). {trainings_text(pairs)}"
    )


def trainings_text(pairs: list[Found]) -> str:
    """Whether what is better are recipes or these predictions."""
    if all(p["trainings"] for p in pairs):
        return "Over trainings, Welch’s t-test must agree; p is the larger of the two."
    some = "Where both have several seeds, Welch’s t-test over trainings must agree. Else what"
    start = some if any(p["trainings"] for p in pairs) else "What"
    return f"{start} is compared are these predictions: another training of a recipe may turn it around."


# Parts --------------------------------------------------------------------------------------------


def unit(question: Question) -> str:
    """What stands behind a number: "Dice", or "mm HD95"; nothing where nobody said what the scores are."""
    if question.metric == dataclasses.replace(question.metric, title="score"):
        return ""
    return f"{question.metric.unit} {question.metric.title}".strip()


def size(value: float, question: Question) -> str:
    """Of a difference, with as many digits as it takes to see it."""
    digits = question.metric.digits
    if value and math.isfinite(value) and abs(value) < 0.5 * 10**-digits:
        digits = min(8, math.ceil(-math.log10(abs(value))))
    return f"{number(abs(value), digits)} {unit(question)}".strip()


def fold(times: float) -> str:
    return f"{number(times, 1)}-fold" if times <= 20 else "more than 20-fold"


def score(part: Found, question: Question) -> str:
    return f"{estimate(part, question.metric.digits)} {unit(question)}".strip()


def difference(p: Found, question: Question) -> str:
    """+0.006 [+0.003, +0.009] Dice."""
    text = estimate(p, question.metric.digits, signed=True, value="mean_difference")
    return f"{text} {unit(question)}".strip()


def named(names: list[str]) -> str:
    return listed(names) if len(names) <= SHOWN else f"{', '.join(names[:SHOWN])} and {len(names) - SHOWN} more"
