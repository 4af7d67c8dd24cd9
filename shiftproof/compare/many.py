"""Several methods at once: who is first and how surely, by subjects, domains and seeds."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ..report.spread import spread
from ..statistics import interval
from ..statistics.friedman import CriticalDifference, Friedman, friedman, nemenyi
from ..statistics.mixed import mixed
from ..statistics.ranks import Stability, stability
from ..statistics.worst import Worst, worst_domain
from .question import Question
from .reading import Scores

Found = dict[str, Any]


def method_facts(scores: Scores, name: str, question: Question) -> Found:
    """One method by itself: mean, spread, bad end, by domain."""
    metric, level = question.metric, 1 - question.level
    own = scores.cells[name]
    by_subject = own.dropna().groupby(level="subject").mean()
    domains = {
        d: dataclasses.asdict(interval(own.loc[d], level=level, within=metric.within, seed=question.seed))
        for d in scores.domains
        if d in own.index.get_level_values("domain")
    }
    several = sum(i["n"] > 0 for i in domains.values()) > 1
    around = dataclasses.asdict(interval(by_subject, level=level, within=metric.within, seed=question.seed))
    return {
        **around,
        "interval": around["method"],
        "method": name,
        "missing": int(own.isna().sum()),
        "spread": spread(by_subject, metric),
        "domains": domains,
        "worst": dataclasses.asdict(worst_of(own, question)) if several else None,
        "seed_sd": seed_sd(scores.tidy[scores.tidy["method"] == name]),
    }


def worst_of(own: pd.Series, question: Question) -> Worst:
    """The domain where a method does worst, and how surely it is that one."""
    metric = question.metric
    level = 1 - question.level
    return worst_domain(
        own, higher_is_better=metric.higher_is_better, level=level, within=metric.within, seed=question.seed
    )


def seed_sd(own: pd.DataFrame) -> float:
    """SD over seeds of the mean over subjects that all seeds have; NaN for a single seed."""
    by_seed = own.pivot_table(index=["domain", "subject"], columns="seed", values="value").dropna()
    return float(by_seed.mean().std(ddof=1)) if by_seed.shape[1] > 1 and len(by_seed) else math.nan


@dataclass(frozen=True)
class Ranking:
    """Tests and draws of three or more methods, as objects for figures."""

    friedman: Friedman
    critical: CriticalDifference
    stability: Stability


def ranked(scores: Scores, question: Question) -> Ranking:
    """Over domains and subjects; subjects of several domains count once, and samples keep as many of each domain.

    Subjects without a number where there is rightly none (a structure that is absent) leave for all methods: who found
    nothing where there is nothing must not rank last for it. Other missing scores count as the worst.
    """
    cells, higher = scores.cells.dropna(how="all"), question.metric.higher_is_better
    cells = cells[~cells.index.isin(scores.undefined)]
    whole = friedman(cells, higher_is_better=higher)
    end = question.metric.within[0] if higher else question.metric.within[1]
    return Ranking(
        friedman=whole,
        critical=nemenyi(whole.mean_ranks, whole.n, question.level),
        stability=stability(
            cells,
            higher_is_better=higher,
            seed=question.seed,
            groups=cells.index.get_level_values("domain"),
            worst=end if math.isfinite(end) else None,
        ),
    )


def mixed_facts(scores: Scores, question: Question) -> Found | None:
    """All scores in one model, where domains or seeds are part of the spread."""
    if scores.tidy["domain"].nunique() < 2 and scores.tidy["seed"].nunique() < 2:
        return None
    fit = mixed(scores.tidy.rename(columns={"method": "row"}), site="domain", level=1 - question.level)
    return dataclasses.asdict(fit)


def ranking_facts(ranking: Ranking) -> Found:
    """As JSON has it."""
    s = ranking.stability
    return {
        "friedman": dataclasses.asdict(ranking.friedman),
        "critical_difference": {
            "cd": ranking.critical.cd,
            "groups": ranking.critical.groups,
            "p": ranking.critical.p,
            "reason": ranking.critical.reason,
        },
        "first": s.first,
        "ranks": {str(m): {str(r): float(v) for r, v in line.items()} for m, line in s.ranks.iterrows()},
        "schemes": {str(m): {str(k): float(v) for k, v in line.items()} for m, line in s.rankings.iterrows()},
        "agreement": {str(m): {str(k): float(v) for k, v in line.items()} for m, line in s.agreement.iterrows()},
        "tau": {"median": s.tau_median, "low": s.tau_low, "high": s.tau_high},
        "resamples": s.resamples,
        "reason": s.reason,
        "note": s.note,
    }
