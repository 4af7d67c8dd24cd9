"""All rows at once: their order, and how much of it other subjects would leave."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pandas as pd

from ..statistics.friedman import CriticalDifference, Friedman, friedman, nemenyi
from ..statistics.mixed import mixed
from ..statistics.ranks import Stability, stability
from .numbers import Scale, count, scale

Found = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Ranking:
    """What the figures of the page and its numbers are made of. `note` says which subjects took no part."""

    stability: Stability
    friedman: Friedman
    nemenyi: CriticalDifference | None
    note: str

    def as_found(self) -> Found:
        """As `summary` gives it."""
        order, tests = self.stability, self.friedman
        apart = self.nemenyi
        return {
            "scheme": order.scheme,
            "resamples": order.resamples,
            "n": order.n,
            "first": order.first,
            "ranks": {str(row): {str(k): float(v) for k, v in line.items()} for row, line in order.ranks.iterrows()},
            "rankings": {str(row): line.to_dict() for row, line in order.rankings.iterrows()},
            "tau": {"median": order.tau_median, "low": order.tau_low, "high": order.tau_high},
            "agreement": {str(a): line.to_dict() for a, line in order.agreement.iterrows()},
            "reason": order.reason,
            "note": "; ".join(t for t in (self.note, order.note) if t),
            "friedman": dataclasses.asdict(tests),
            "nemenyi": apart and {"cd": apart.cd, "level": apart.level, "groups": apart.groups, "p": apart.p},
        }


def ranking(values: pd.DataFrame, found: Found) -> Ranking | None:
    """Order, stability and the test over all rows but the upper bounds; None where fewer than two have scores.

    A subject that was scored without a number coming out (a structure that is rightly absent, say) leaves for all
    rows: who found nothing where there is nothing must not rank last for it. A score that is not there at all, of a
    cell that failed, counts as the worst.

    Args:
        values: Of `per_subject`.
        found: Of `summarise`, its rows and its primary metric.
    """
    rows = [r["row"] for r in found["rows"] if r["role"] != "target-supervised" and r["overall"]["n"]]
    if len(rows) < 2:
        return None
    metric = scale(found["primary"]["metric"])
    wide, note = rankable(values, rows)
    higher = metric.higher_is_better
    order = stability(
        wide,
        higher_is_better=higher,
        groups=wide.index.get_level_values("held_out"),
        worst=worst_score(metric),
    )
    tests = friedman(wide, higher_is_better=higher)
    apart = nemenyi(tests.mean_ranks, tests.n) if not tests.reason else None
    return Ranking(order, tests, apart, note)


def rankable(values: pd.DataFrame, rows: list[str]) -> tuple[pd.DataFrame, str]:
    """A line a held-out domain and subject, a column a row, and who was left out."""
    own = values[values["row"].isin(rows)]
    known = np.isfinite(own["value"])
    places = pd.MultiIndex.from_frame(own[["held_out", "subject"]])
    absent = places[~known].unique()
    kept = own[known & ~places.isin(absent)]
    wide = kept.pivot_table(index=["held_out", "subject"], columns="row", values="value").reindex(columns=rows)
    note = f"{count(len(absent), 'subject')} without a number in some row left out for all" if len(absent) else ""
    return wide, note


def worst_score(metric: Scale) -> float | None:
    """What counts for a score that is not there: the end of the scale, or, where it has none, the worst seen."""
    end = metric.within[0] if metric.higher_is_better else metric.within[1]
    return end if math.isfinite(end) else None


def mixed_model(scores: pd.DataFrame, found: Found) -> Found | None:
    """A mixed-effects summary of all rows but the upper bounds; None where fewer than two have scores.

    Args:
        scores: Of the primary metric: row, held_out, subject, seed, value; structures and scans are averaged here.
        found: Of `summarise`.
    """
    rows = [r["row"] for r in found["rows"] if r["role"] != "target-supervised" and r["overall"]["n"]]
    if len(rows) < 2:
        return None
    fit = mixed(scores[scores["row"].isin(rows)], site="held_out")
    least, most = scale(found["primary"]["metric"]).within
    means = {r: dataclasses.asdict(fit.means[r]) for r in rows if r in fit.means}
    for of in means.values():  # a t interval of few sites reaches beyond where a mean can lie
        of |= {"low": max(of["low"], least), "high": min(of["high"], most)}
    return dataclasses.asdict(fit) | {"means": means}
