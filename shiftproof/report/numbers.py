"""Numbers as they are printed: one rule for page, terminal and figures."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

MINUS = "\u2212"
TIE = "\u00a0"
NOTHING = "\u2013"  # an en dash where a number does not exist


@dataclass(frozen=True)
class Scale:
    """How a metric is called, in which unit, to how many digits, and which way is better."""

    title: str
    unit: str = ""
    digits: int = 3
    higher_is_better: bool = True
    signed: bool = False  # better is nearer to 0

    within: tuple[float, float] = (-math.inf, math.inf)  # where a mean can lie

    @property
    def axis(self) -> str:
        return f"{self.title} ({self.unit})" if self.unit else self.title


SCALES = {
    "dice": Scale("Dice", within=(0, 1)),
    "surface dice": Scale("surface Dice", within=(0, 1)),
    "hd95 mm": Scale("HD95", "mm", 2, higher_is_better=False, within=(0, math.inf)),
    "assd mm": Scale("ASSD", "mm", 2, higher_is_better=False, within=(0, math.inf)),
    "sensitivity": Scale("sensitivity", within=(0, 1)),
    "precision": Scale("precision", within=(0, 1)),
    "correct": Scale("accuracy", within=(0, 1)),
    "brier": Scale("Brier score", higher_is_better=False, within=(0, 2)),
    "class error": Scale("class error", "classes", 2, higher_is_better=False, within=(0, math.inf)),
    "masd mm": Scale("MASD", "mm", 2, higher_is_better=False, within=(0, math.inf)),
    "boundary iou": Scale("boundary IoU", within=(0, 1)),
    "cldice": Scale("clDice", within=(0, 1)),
    "lesion f1": Scale("lesion F1", within=(0, 1)),
    "lesion sensitivity": Scale("lesion sensitivity", within=(0, 1)),
    "lesion precision": Scale("lesion precision", within=(0, 1)),
    "false lesions": Scale("false lesions", "per scan", 2, higher_is_better=False, within=(0, math.inf)),
    "panoptic quality": Scale("panoptic quality", within=(0, 1)),
    "volume error ml": Scale("volume error", "ml", 2, higher_is_better=False, signed=True),
}


def scale(metric: str) -> Scale:
    """Of a metric by its name; of one that is not known here, from the unit that ends its name."""
    if metric in SCALES:
        return SCALES[metric]
    for title, signed in (("absolute error", False), ("error", True)):  # of a number, then its unit
        if metric == title or metric.startswith(f"{title} "):
            within = (-math.inf, math.inf) if signed else (0, math.inf)
            return Scale(title, metric[len(title) + 1 :], 2, higher_is_better=False, signed=signed, within=within)
    *words, last = metric.split() or [""]
    if words and last in {"mm", "ml"}:
        return Scale(" ".join(words), last, 2, higher_is_better=False)
    return Scale(metric)


def known(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def number(value: float | None, digits: int = 3, *, signed: bool = False) -> str:
    """0.812, or +0.012 and −0.012 where the sign is the message."""
    if value is None or not math.isfinite(value):
        return NOTHING
    text = f"{value:+.{digits}f}" if signed else f"{value:.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("+-")
    return text.replace("-", MINUS)


def span(low: float | None, high: float | None, digits: int = 3, *, signed: bool = False) -> str:
    """[0.790, 0.834], or nothing where there is no interval."""
    if not (known(low) and known(high)):
        return ""
    return f"[{number(low, digits, signed=signed)}, {number(high, digits, signed=signed)}]"


def estimate(part: dict, digits: int = 3, *, signed: bool = False, value: str = "mean") -> str:
    """0.812 [0.790, 0.834] of a dict with that value, `low` and `high`."""
    middle = number(part.get(value), digits, signed=signed)
    around = span(part.get("low"), part.get("high"), digits, signed=signed)
    return f"{middle} {around}".strip()


def p_value(p: float | None) -> str:
    """ "= 0.034" or "< 0.001": what follows the letter p."""
    if p is None or not math.isfinite(p):
        return NOTHING
    if p < 0.001:
        return "< 0.001"
    text = f"{p:.3f}"
    # 0.0496 must not be printed as 0.050 beside the word "reliable", nor 0.0504 as 0.05.
    return f"= {text}" if (float(text) < 0.05) == (p < 0.05) else f"= {p:.4f}"


def percent(share: float | None) -> str:
    return NOTHING if not known(share) else f"{number(100 * float(share or 0), 0)} %"


def percent_span(low: float | None, high: float | None) -> str:
    if not (known(low) and known(high)):
        return ""
    return f"[{number(100 * float(low or 0), 0)}, {number(100 * float(high or 0), 0)}]"


def seconds(value: float | None) -> str:
    """14 s, 3.2 min or 1.5 h."""
    if value is None or not math.isfinite(value):
        return NOTHING
    if value < 100:
        return f"{value:.0f} s" if value >= 10 else f"{value:.1f} s"
    return f"{value / 60:.1f} min" if value < 6000 else f"{value / 3600:.1f} h"


def count(n: int, word: str) -> str:
    """1 subject, 2 subjects."""
    return f"{n} {word if n == 1 else plural(word)}"


def grouped(n: int) -> str:
    """20 000, in one piece."""
    return f"{n:,}".replace(",", TIE)


def plural(word: str) -> str:
    if word.endswith("s"):
        return word
    if word.endswith("y") and word[-2:-1] not in set("aeiou"):
        return f"{word[:-1]}ies"
    return f"{word}s"


def tied(text: str) -> str:
    """With spaces that do not break where a line's end would part a number from its sense."""
    text = re.sub(r"\[[^\]]{1,40}\]", lambda m: m[0].replace(" ", TIE), text)
    return re.sub(r"(?<=[pn]) ([<=]) (?=[\d.])", f"{TIE}\\1{TIE}", text).replace(" %", f"{TIE}%")


def listed(words: list[str]) -> str:
    """a, b and c."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else ""
