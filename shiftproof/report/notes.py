"""What of the scores could not be used as it is, a line each; the rest is reported all the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from .numbers import count, listed, plural

Found = dict[str, Any]


def notes(rows: pd.DataFrame, wide: pd.DataFrame, found: Found) -> list[str]:
    """Sentences on missing, unequal and useless scores; none where all is well.

    Args:
        rows: Tidy results of all metrics.
        wide: Scores of the primary metric; index held-out domain and subject, a column a row.
        found: Of `summarise`, with its rows and comparisons.
    """
    if not len(wide):
        return []
    texts = [infinite(rows, found), few(found), *unscored(rows, found), *unshared(wide, found), *tied(found)]
    return [text for text in texts if text]


def infinite(rows: pd.DataFrame, found: Found) -> str:
    own = rows[rows["metric"] == found["primary"]["metric"]]
    many = int(np.isinf(own["value"]).sum())
    return f"{count(many, 'score')} of infinite size: treated as missing." if many else ""


def few(found: Found) -> str:
    if found["subjects"]["all"] > 1:
        return ""
    return "One subject: there is no spread to see, so no interval, no test and no ranking."


def unscored(rows: pd.DataFrame, found: Found) -> list[str]:
    """Rows some of whose subjects were scored without a number coming out."""
    own = rows[rows["metric"] == found["primary"]["metric"]]
    known = own.assign(known=np.isfinite(own["value"])).groupby(["row", "held_out", "subject"])["known"].any()
    lost = (~known).groupby("row").sum()
    by_count: dict[int, list[str]] = {}
    for name in (r["row"] for r in found["rows"]):
        if lost.get(name, 0):
            by_count.setdefault(int(lost[name]), []).append(name)
    return [
        f"{named(names)}: {count(many, 'subject')} without a number (structures absent, or not a number in the "
        "table), left out of means."
        for many, names in by_count.items()
    ]


def unshared(wide: pd.DataFrame, found: Found) -> list[str]:
    """Rows that lack subjects which others have."""
    lacking = wide.isna().sum()
    by_count: dict[int, list[str]] = {}
    for name in (r["row"] for r in found["rows"] if r["row"] in wide):
        if lacking[name]:
            by_count.setdefault(int(lacking[name]), []).append(name)
    return [
        f"{named(names)}: no score of {many} of the {count(len(wide), 'subject')} that other rows have. Differences "
        "use the subjects that both sides share; in rankings what is missing counts as worst."
        for many, names in by_count.items()
    ]


def tied(found: Found) -> list[str]:
    """Pairs that do not differ in any subject, a sentence for all."""
    pairs = [
        f"{c['a']} and {c['b']}"
        for c in found["comparisons"]
        if c["n"] > 1 and c["wins"] + c["losses"] == 0 and c["family"] == found["comparisons"][0]["family"]
    ]
    if not pairs:
        return []
    return [f"{named(pairs, 'pair')}: equal scores in every subject, so there is nothing to test."]


def named(names: list[str], what: str = "row", most: int = 4) -> str:
    """a, b and c; of many only how many."""
    return listed(names) if len(names) <= most else f"{len(names)} {plural(what)} ({', '.join(names[:most])} …)"
