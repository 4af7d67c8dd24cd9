"""Parts of sentences about what was found."""

from __future__ import annotations

import math
from typing import Any

from .numbers import estimate, known, number, p_value, percent, percent_span

Found = dict[str, Any]

TESTS = {
    "permutation": "sign-flip permutation test",
    "wilcoxon": "Wilcoxon signed-rank test",
    "t": "paired t-test",
    "sign": "sign test",
}


def scored(found: Found) -> bool:
    return any(r["overall"]["n"] for r in found["rows"])


def row(found: Found, name: str) -> Found:
    return next(r for r in found["rows"] if r["row"] == name)


def primary(found: Found) -> list[Found]:
    return [c for c in found["comparisons"] if c["family"] == "primary"]


def drop(found: Found) -> Found | None:
    """Labels from the domain against none: the comparison that says what an unseen domain costs."""
    pair = (found["target_supervised"], found["source_only"])
    return next((c for c in primary(found) if (c["a"], c["b"]) == pair), None)


def remedies(found: Found) -> list[Found]:
    """Comparisons of rows with their references, the upper bounds left out."""
    bounds = {r["row"] for r in found["rows"] if r["role"] == "target-supervised"}
    return [c for c in primary(found) if c["a"] not in bounds]


def called(found: Found, name: str) -> str:
    """A reference by what it is, with its name where that says something else."""
    if name == found["source_only"]:
        return name if name == "source-only" else f"source-only ({name})"
    bound = any(r["row"] == name and r["role"] == "target-supervised" for r in found["rows"])
    if not bound and any(r["reference"] == name for r in found["rows"]):
        return f"ERM with the same transforms ({name})"
    return name


def digits(found: Found) -> int:
    return int(found["primary"]["digits"])


def title(found: Found) -> str:
    return str(found["primary"]["title"])


def unit(found: Found) -> str:
    """What stands behind a number: "Dice", or "mm HD95"."""
    return f"{found['primary']['unit']} {title(found)}".strip()


def size(found: Found, value: float) -> str:
    """Of a difference, without its sign or unit."""
    return number(abs(value) if math.isfinite(value) else value, digits(found))


def score(found: Found, part: Found) -> str:
    """Dice 0.712 [0.690, 0.734]."""
    return f"{title(found)} {estimate(part, digits(found))} {found['primary']['unit']}".strip()


def difference(found: Found, c: Found) -> str:
    """+0.061 [+0.040, +0.082] Dice."""
    text = estimate(c, digits(found), signed=True, value="mean_difference")
    return f"{text} {unit(found)}"


def tested(found: Found, c: Found) -> str:
    p = f", corrected p {p_value(c['p_corrected'])}" if known(c["p_corrected"]) and c["n"] > 1 else ""
    return f"{difference(found, c)}{p}"


def closes(found: Found, name: str) -> str:
    """What share of the gap a row closes, where that is a number."""
    gap = row(found, name)["gap_closed"]
    if not gap or gap["reason"]:
        return ""
    around = percent_span(gap["low"], gap["high"])
    return f"; measured from source-only it closes {percent(gap['value'])} {around} of the gap"
