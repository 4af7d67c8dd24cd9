"""The answer in words, made by rule from the numbers: nothing is claimed that the tests do not carry.

"Better" is said only where the corrected p is below 0.05 and the interval of the difference excludes
0; everything else is "no reliable difference". Nobody is called the winner who does not beat each
other row.
"""

from __future__ import annotations

import math
from typing import Any

from .numbers import count, estimate, known, listed, number, p_value, percent, percent_span, plural, span

Found = dict[str, Any]

TESTS = {
    "permutation": "sign-flip permutation test",
    "wilcoxon": "Wilcoxon signed-rank test",
    "t": "paired t-test",
    "sign": "sign test",
}


def headline(found: Found) -> str:
    """One or two sentences for the top of the page."""
    if not scored(found):
        return "There is no answer yet: no cell of this study has results."
    if found["kind"] == "evaluation":
        return evaluation_headline(found)
    return " ".join(part for part in (drop_headline(found), help_headline(found)) if part)


def evidence(found: Found) -> list[dict[str, str]]:
    """What the headline rests on, each piece with what it is about."""
    if not scored(found):
        return []
    parts = (
        [("By " + found["domain_word"], by_domain(found)), ("Comparison", help_text(found))]
        if found["kind"] == "evaluation"
        else [
            ("The drop", drop_text(found)),
            ("What helps", help_text(found)),
            ("What does not", no_help_text(found)),
            ("Selected", selected_text(found)),
        ]
    )
    parts += [("Winner", winner_text(found)), ("Tests", tests_text(found))]
    return [{"about": about, "text": text} for about, text in parts if text]


# ---- the drop


def drop_headline(found: Found) -> str:
    c, word = drop(found), found["domain_word"]
    if c is None:
        return f"How much is lost at an unseen {word} cannot be said: {why_no_drop(found)}."
    if c["verdict"] == "better":
        return f"Unseen {plural(word)} cost {amount(found, c['mean_difference'])}."
    if c["verdict"] == "worse":
        return f"Labels from the {word} itself made it worse, so there is no loss to make up for."
    return f"No reliable loss at unseen {plural(word)}."


def drop_text(found: Found) -> str:
    c, word = drop(found), found["domain_word"]
    if c is None:
        return f"Not measured: {why_no_drop(found)}."
    plain, best = (row(found, found[k])["overall"] for k in ("source_only", "target_supervised"))
    text = (
        f"At {plural(word)} that training never saw, {called(found, c['b'])} scores {score(found, plain)}; "
        f"{called(found, c['a'])}, trained with labels from that {word}, {score(found, best)}. "
        f"The difference is {tested(found, c)}, n = {count(c['n'], 'subject')}."
    )
    if c["verdict"] != "better":
        text += f" {claim(c)}."
    here = {d: i for d, i in found["drops"].items() if known(i["mean"])}
    if len(here) > 1:
        texts = [f"{d} {estimate(i, digits(found), signed=True)}" for d, i in here.items()]
        text += f" By {word}: {'; '.join(texts)}."
    return text


def drop(found: Found) -> Found | None:
    return comparison(found, found["target_supervised"], found["source_only"])


def why_no_drop(found: Found) -> str:
    names = (("source_only", "source-only"), ("target_supervised", "target-supervised"))
    lacking = [word for key, word in names if not has_scores(found, found[key])]
    return f"the {' and the '.join(lacking)} reference {'has' if len(lacking) == 1 else 'have'} no scores"


# ---- what helps


def help_headline(found: Found) -> str:
    better = [c for c in remedies(found) if c["verdict"] == "better"]
    if not remedies(found):
        return ""
    if not better:
        return "No row is reliably better than its reference."
    names = listed([c["a"] for c in better])
    against = {called(found, c["b"]) for c in better}
    whom = against.pop() if len(against) == 1 else "their references"
    text = f"{names} {'does' if len(better) == 1 else 'do'} better than {whom}"
    gap = row(found, better[0]["a"])["gap_closed"]
    if len(better) == 1 and gap and not gap["reason"]:
        text += f" and closes {percent(gap['value'])} of the gap"
    return f"{text}."


def help_text(found: Found) -> str:
    compared = remedies(found) if found["kind"] == "study" else found["comparisons"]
    if not compared:
        return "" if found["kind"] == "evaluation" else "No row could be compared with a reference."
    if found["kind"] == "evaluation":
        return " ".join(f"{c['a']} against {c['b']}: {tested(found, c)}: {claim(c).lower()}." for c in compared)
    better = [c for c in compared if c["verdict"] == "better"]
    if not better:
        return f"No row is reliably better than its reference ({count(len(compared), 'row')} compared)."
    return " ".join(
        f"{c['a']} is better than {called(found, c['b'])} by {tested(found, c)}{closes(found, c['a'])}." for c in better
    )


def no_help_text(found: Found) -> str:
    """Each remedy that does not beat its reference, by name; plain ERM is no remedy but a transform."""
    texts = []
    for c in remedies(found):
        if c["verdict"] == "better":
            continue
        against = called(found, c["b"])
        text = {
            "worse": f"{c['a']} is worse than {against}: {tested(found, c)}",
            "no reliable difference": f"{c['a']} does not beat {against}: no reliable difference, {tested(found, c)}",
        }.get(c["verdict"], f"{c['a']} could not be tested against {against} ({count(c['n'], 'subject')})")
        texts.append(f"{text}{closes(found, c['a'])}.")
    untested = [r["row"] for r in found["rows"] if is_remedy(found, r) and r["difference"] is None]
    if untested:
        texts.append(f"{listed(untested)}: not compared, for want of scores or of a reference.")
    return " ".join(texts)


def remedies(found: Found) -> list[Found]:
    """Comparisons of rows with their reference, the upper bound left out."""
    bounds = {r["row"] for r in found["rows"] if r["role"] == "target-supervised"}
    return [c for c in found["comparisons"] if c["family"] == "primary" and c["a"] not in bounds]


def is_remedy(found: Found, of: Found) -> bool:
    return of["role"] != "target-supervised" and of["row"] != found["source_only"]


def closes(found: Found, name: str) -> str:
    """What share of the gap the row closes, where that is a number."""
    gap = row(found, name)["gap_closed"]
    if not gap or gap["reason"]:
        return ""
    around = percent_span(gap["low"], gap["high"])
    return f"; against source-only it closes {percent(gap['value'])} {around} of the gap"


# ---- selection and winner


def selected_text(found: Found) -> str:
    name, rule = found["selected"], found["selection"]
    ruled = f" (rule: {rule})" if rule else ""
    if name is None:
        return f"No row could be selected by training domains{ruled}: none is complete with a validation score."
    of = row(found, name)
    text = (
        f"{name}, by training domains alone{ruled}, with {number(of['validation'])} there. "
        f"At the held-out {plural(found['domain_word'])} it scores {score(found, of['overall'])}"
    )
    if of["worst"] and len(of["covers"]) > 1:
        worst = of["worst"]["domain"]
        text += f", at the worst of them, {worst}, {score(found, of['domains'][worst])}"
    return f"{text}."


def winner_text(found: Found) -> str:
    name = found["leader"]
    if name is None:
        return ""
    if found["winner"]:
        size = rivalries(found, name)[0]["family_size"]
        return f"{name} is reliably better than each other row (p corrected for {count(size, 'pair')} of rows)."
    rivals = [c for c in rivalries(found, name) if claim_for(c, name) != "better"]
    closest = min(rivals, key=lambda c: abs(c["mean_difference"]), default=None)
    text = f"None. {name} has the best mean"
    if closest is None:
        return f"{text}, but was not tested against each other row."
    other = closest["b"] if closest["a"] == name else closest["a"]
    turned = closest if closest["a"] == name else mirrored(closest)
    more = f" and {len(rivals) - 1} more" if len(rivals) > 1 else ""
    size = closest["family_size"]
    return (
        f"{text} but is not reliably better than {other}{more}: {difference(found, turned)}, "
        f"p {p_value(closest['p_corrected'])} (corrected for {count(size, 'pair')} of rows: the best was picked "
        "after looking)."
    )


def tests_text(found: Found) -> str:
    primary = [c for c in found["comparisons"] if c["family"] == "primary"]
    if not primary:
        return ""
    test = TESTS.get(primary[0]["test"], primary[0]["test"])
    many = len(primary)
    pairs = {
        True: "of rows with their references",
        False: "of rows",
    }[found["kind"] == "study" and found["source_only"] is not None]
    return (
        f"Over subjects, two-sided: {test}; p corrected by Holm’s rule for {count(many, 'comparison')} {pairs}. "
        "“Better” needs a corrected p below 0.05 and a 95 % interval that excludes 0."
    )


def rivalries(found: Found, name: str) -> list[Found]:
    families = {c["family"] for c in found["comparisons"]}
    family = "between rows" if "between rows" in families else "primary"
    return [c for c in found["comparisons"] if c["family"] == family and name in (c["a"], c["b"])]


def claim_for(c: Found, name: str) -> str:
    turned = {"better": "worse", "worse": "better"}
    return c["verdict"] if c["a"] == name else turned.get(c["verdict"], c["verdict"])


def mirrored(c: Found) -> Found:
    return c | {"mean_difference": -c["mean_difference"], "low": -c["high"], "high": -c["low"]}


# ---- a user's own predictions


def evaluation_headline(found: Found) -> str:
    first = max(found["rows"], key=lambda r: r["overall"]["n"])
    n, sites = first["overall"]["n"], count(len(first["covers"]), found["domain_word"])
    text = f"{title(found)} {estimate(first['overall'], digits(found))} over {count(n, 'subject')} of {sites}"
    if first["worst"] and len(first["covers"]) > 1:
        text += f", lowest at {first['worst']['domain']}" if found["primary"]["higher_is_better"] else (
            f", highest at {first['worst']['domain']}"
        )  # fmt: skip
        text += f" ({estimate(first['domains'][first['worst']['domain']], digits(found))})"
    return f"{text}." if len(found["rows"]) == 1 else f"{first['row']}: {text}."


def by_domain(found: Found) -> str:
    texts = []
    for of in found["rows"]:
        parts = [
            f"{d} {estimate(i, digits(found))}, n = {i['n']}" for d, i in of["domains"].items() if known(i["mean"])
        ]
        texts.append((f"{of['row']}: " if len(found["rows"]) > 1 else "") + "; ".join(parts) + ".")
    return " ".join(texts)


# ---- limits


def caveats(found: Found) -> list[str]:
    """What these numbers cannot say."""
    word, texts = found["domain_word"], []
    if not scored(found):
        return texts
    n = found["subjects"]["all"]
    parts = [f"{d} {k}" for d, k in found["subjects"]["by domain"].items()]
    texts.append(f"{count(n, 'subject')} in all ({word}: {', '.join(parts)}). {detectable(found)}".strip())
    few = len(found["held_out"])
    texts.append(
        f"{count(few, word)} {'was' if few == 1 else 'were'} {'held out' if found['kind'] == 'study' else 'scored'}. "
        f"Intervals and tests are over subjects of {'this' if few == 1 else 'these'} {word if few == 1 else plural(word)}; "
        f"how results vary from {word} to {word} cannot be told from {'one' if few == 1 else 'so few' if few < 10 else few}, "
        "and the next may be worse than the worst here."
    )
    if found["kind"] == "study":
        texts.append(seeds_caveat(found))
    if found["subjects"]["in several domains"]:
        texts.append(
            f"{count(found['subjects']['in several domains'], 'subject')} appear in more than one {word}; "
            "over all of them each counts once, with the mean."
        )
    mixed = unequal_transforms(found)
    if mixed:
        texts.append(mixed)
    seen = [d for d in found["held_out"] if d in found["seen_domains"]]
    if seen:
        texts.append(f"{listed(seen)} took part in training: scores there say nothing of an unseen {word}.")
    if found["unscored"]:
        n = len(found["unscored"])
        texts.append(f"{count(n, 'scan')} could not be scored and {'is' if n == 1 else 'are'} in no mean; see “What was run”.")
    if found["missing_counts_as_missed"]:
        texts.append("Where a prediction was missing, all structures of the scan count as missed.")
    empty = sum(r["failures"]["both empty"] for r in found["rows"])
    if empty:
        texts.append(
            f"{count(empty, 'structure')} (all rows and seeds) absent from label and prediction: left out of means and counted."
        )
    partial = [r["row"] for r in found["rows"] if r["covers"] and r["covers"] != found["held_out"]]
    if partial:
        texts.append(
            f"{listed(partial)}: results for some held-out {plural(word)} only; the overall mean is over those, and "
            "differences use the subjects that both sides have."
        )
    lost = found["cells"]["failed"] + found["cells"]["not run"]
    if lost:
        texts.append(f"{count(lost, 'cell')} of the grid failed or did not run; they are listed under “What was run”.")
    weak = [c for c in found["comparisons"] if c["verdict"] in ("better", "worse") and small(c)]
    if weak:
        pairs = listed([f"{c['a']} against {c['b']}" for c in weak])
        texts.append(
            f"{pairs}: smaller than what this many subjects show with 80 % power; a difference found so luckily is "
            "likely to be overestimated."
        )
    return texts


def unequal_transforms(found: Found) -> str:
    """The gap is of two networks that may differ by more than the labels that they saw."""
    names = [found["source_only"], found["target_supervised"]]
    plain, best = (found["transforms"].get(n) for n in names)
    if not plain or not best or plain == best:
        return ""
    return (
        f"The drop compares source-only (transforms {plain}) with {names[1]} (transforms {best}): it holds the effect of "
        "augmentation as well as that of the labels."
    )


def detectable(found: Found) -> str:
    """The power statement over the primary comparisons."""
    seen = [c["detectable"] for c in found["comparisons"] if c["family"] == "primary" and known(c["detectable"])]
    seen = [d for d in seen if d > 0]
    if not seen:
        return ""
    low, high = amount(found, min(seen), bare=True), amount(found, max(seen))
    between = high if low == amount(found, max(seen), bare=True) else f"{low} to {high}"
    return (
        f"With this many and the spread of differences seen here, the smallest true difference that a comparison "
        f"shows with 80 % power is {between}, depending on the pair; smaller ones would mostly be missed."
    )


def small(c: Found) -> bool:
    return known(c["detectable"]) and abs(c["mean_difference"]) < c["detectable"]


def seeds_caveat(found: Found) -> str:
    seeds = found["seeds"]
    if len(seeds) == 1:
        return "One seed: how much a row varies from training to training is not known and is in no interval."
    spread = [r["seed_sd"] for r in found["rows"] if known(r["seed_sd"])]
    if not spread:
        return f"{len(seeds)} seeds, averaged by subject before every interval and test."
    return (
        f"{len(seeds)} seeds, averaged by subject before every interval and test; a row's mean varies between seeds "
        f"with a standard deviation of up to {amount(found, max(spread))}."
    )


# ---- words for parts


def scored(found: Found) -> bool:
    return any(r["overall"]["n"] for r in found["rows"])


def has_scores(found: Found, name: str | None) -> bool:
    return any(r["row"] == name and r["overall"]["n"] for r in found["rows"])


def row(found: Found, name: str) -> Found:
    return next(r for r in found["rows"] if r["row"] == name)


def comparison(found: Found, a: str | None, b: str | None) -> Found | None:
    return next((c for c in found["comparisons"] if (c["a"], c["b"], c["family"]) == (a, b, "primary")), None)


def called(found: Found, name: str) -> str:
    """A reference by what it is, with its name where that says something else."""
    if name == found["source_only"]:
        return name if name == "source-only" else f"source-only ({name})"
    if any(r["row"] == name and r["role"] == "target-supervised" for r in found["rows"]):
        return name
    if any(r["reference"] == name for r in found["rows"]):
        return f"ERM with the same transforms ({name})"
    return name


def claim(c: Found) -> str:
    return {
        "better": f"{c['a']} is better",
        "worse": f"{c['a']} is worse",
        "no reliable difference": "No reliable difference",
    }.get(c["verdict"], "Too few subjects to test")


def digits(found: Found) -> int:
    return int(found["primary"]["digits"])


def title(found: Found) -> str:
    return str(found["primary"]["title"])


def unit(found: Found) -> str:
    """Behind a number: "Dice", or "mm HD95"."""
    return f"{found['primary']['unit']} {title(found)}".strip()


def amount(found: Found, value: float, *, bare: bool = False) -> str:
    """The size of a difference, without its sign."""
    text = number(abs(value) if math.isfinite(value) else value, digits(found))
    return text if bare else f"{text} {unit(found)}"


def score(found: Found, part: Found) -> str:
    """Dice 0.712 [0.690, 0.734]."""
    behind = f" {found['primary']['unit']}" if found["primary"]["unit"] else ""
    return f"{title(found)} {estimate(part, digits(found))}{behind}"


def difference(found: Found, c: Found) -> str:
    """+0.061 [+0.040, +0.082] Dice."""
    places = digits(found)
    around = span(c["low"], c["high"], places, signed=True)
    return f"{number(c['mean_difference'], places, signed=True)} {around} {unit(found)}".replace("  ", " ")


def tested(found: Found, c: Found) -> str:
    p = f", corrected p {p_value(c['p_corrected'])}" if known(c["p_corrected"]) else ""
    return f"{difference(found, c)}{p}"
