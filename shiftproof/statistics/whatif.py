"""Lines of a plan: more subjects, another power, methods that agree more, other subjects for each."""

from __future__ import annotations

import math
from typing import Any

from .exaggeration import exaggeration
from .pilots import Pilot
from .power import Design, minimal_n, power, sd_of_difference, smallest_detectable, subjects_needed, wilcoxon_subjects
from .precision import half_width

CORRELATIONS = (0.0, 0.5, 0.8, 0.9, 0.95, 0.99)
SIZES = (10, 20, 30, 50, 100, 200, 500, 1000)


def needs(
    size: float, spread: float, design: Design, wanted: float, level: float, pilot: Pilot | None
) -> list[dict[str, Any]]:
    """Subjects for 80 and 90 % power, and for the wanted one."""
    found = []
    for chance in sorted({0.8, 0.9, wanted}):
        n = subjects_needed(size, spread, power=chance, level=level, design=design)
        line: dict[str, Any] = {"power": chance, "n": n, "wilcoxon": None}
        if n:  # few as it may be: a rank test has a smallest p
            line["wilcoxon"] = max(wilcoxon_subjects(n), minimal_n(level, design=design))
        if pilot is not None:
            line["safe"] = subjects_needed(size, pilot.sd_safe, power=chance, level=level, design=design)
        found.append(line)
    return found


def line_of_size(n: int, size: float, spread: float, design: Design, wanted: float, level: float) -> dict[str, Any]:
    return {
        "n": n,
        "power": power(size / spread, n, level=level, design=design),
        "detectable": smallest_detectable(spread, n, power=wanted, level=level, design=design),
        "half_width": half_width(spread, n, design=design),
        "type_m": exaggeration(size, spread, n, level=level, design=design).type_m,
    }


def alternatives(
    size: float,
    spread: float,
    sds: tuple[float, float] | None,
    correlation: float | None,
    subjects: int | None,
    design: Design,
    wanted: float,
    level: float,
) -> list[dict[str, Any]]:
    """The same question if methods agreed more or less from subject to subject; the plan's own line is marked.

    `sds` are those of the two methods' scores, None where only that of differences is known.
    """
    own = spread if design == "paired" else math.nan
    lines: list[tuple[str, Design, float, float]] = []  # what it is, design, correlation, SD
    if design == "paired" and correlation is None:
        lines.append(("these differences", design, math.nan, own))
    if sds is not None:
        others = [c for c in CORRELATIONS if correlation is None or abs(c - correlation) > 5e-3]
        known = {c: sd_of_difference(sds[0], c, sds[1]) for c in others}
        if correlation is not None:
            known[correlation] = own
        lines += [(f"correlation {c:.{3 if c > 0.99 else 2}f}", "paired", c, known[c]) for c in sorted(known)]
    if sds is not None or design == "unpaired":
        apart = spread if sds is None or design == "unpaired" else rms(sds)
        lines.append(("other subjects (n each)", "unpaired", math.nan, apart))
    n = subjects or 0  # of which nothing can be said
    return [
        {
            "what": what,
            "design": of,
            "correlation": c,
            "spread": s,
            "own": of == design and s == spread,
            "power": power(size / s, n, level=level, design=of),
            "detectable": smallest_detectable(s, n, power=wanted, level=level, design=of),
            "n": subjects_needed(size, s, power=wanted, level=level, design=of),
            "n_90": subjects_needed(size, s, power=0.9, level=level, design=of),
        }
        for what, of, c, s in lines
    ]


def rms(sds: tuple[float, float] | None) -> float:
    """The SD whose square is the mean of both squares."""
    if sds is None:
        return math.nan
    return sds[0] if sds[0] == sds[1] else math.hypot(*sds) / math.sqrt(2)
