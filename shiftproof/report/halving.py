"""A large study by successive halving: what was declared, which rows left in which rung, and what was confirmed.

Read from `halving.json`, written before the first run, and `rungs.json`, written after each rung.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from ..errors import RunError
from .numbers import count, listed, number, plural, scale, seconds, span
from .reading import read_facts

DECLARED, RUNGS = "halving.json", "rungs.json"

Found = dict[str, Any]

NUMBERS = ("value", "low", "high", "seconds")


def halving(root: Path | None) -> Found | None:
    """What `summary` gives of it; None for a study without halving. A broken file is a `reason`, not an end."""
    if root is None or not (root / DECLARED).exists():
        return None
    try:
        facts = read_facts(root / DECLARED)
        ranked = read_facts(root / RUNGS) if (root / RUNGS).exists() else {"rungs": [], "finalists": None, "out": []}
        found = found_of(facts, ranked)
        return found | {"seconds": spent(root, found["rungs"])}
    except RunError as error:
        return nothing(str(error))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"{type(error).__name__}: {error}"
        return nothing(f"{DECLARED} or {RUNGS} is not as `shiftproof study` writes it ({what})")


def found_of(facts: Found, ranked: Found) -> Found:
    rungs = [rung | {"rows": [place_of(p) for p in rung["rows"]]} for rung in ranked["rungs"]]
    metric = {(r["rung"], r["kind"]): r["metric"] for r in rungs}
    out = [p for r in rungs for p in r["rows"] if not p["kept"]] + [place_of(p) for p in ranked["out"]]
    return {
        "reason": "",
        "candidates": len(facts["candidates"]),
        "anchors": [a["name"] for a in facts["anchors"]],
        "development": facts["development"],
        "held_out": facts["held_out"],
        "declared_rungs": len(facts["rungs"]),
        "rule": facts.get("rule") or [],
        "cost": facts.get("cost") or {},
        "rungs": rungs,
        "dropped": [p | {"metric": metric[p["rung"], p["kind"]]} for p in out],
        "finalists": ranked["finalists"],
    }


def spent(root: Path, rungs: list[Found]) -> float:
    """Seconds of training in all rungs; rows that share a training have the same seconds, which passed once."""
    runs: dict[tuple[str, str], float] = {}
    for rung in rungs:
        for path in (root / rung["folder"]).glob("cells/*/*/*/cell.json"):
            cell = read_facts(path)
            runs[rung["folder"], str(cell.get("run", path))] = float(cell.get("seconds") or 0.0)
    listed_seconds = (p["seconds"] for r in rungs for p in r["rows"] if math.isfinite(p["seconds"]))
    return sum(runs.values()) if runs else sum(listed_seconds)


def place_of(place: Found) -> Found:
    """JSON has no NaN: what is null is one."""
    return place | {k: math.nan if place[k] is None else float(place[k]) for k in NUMBERS}


def nothing(reason: str) -> Found:
    empty: Found = {k: [] for k in ("anchors", "development", "held_out", "rule", "rungs", "dropped")}
    numbers = {"candidates": 0, "declared_rungs": 0, "seconds": 0.0}
    return empty | numbers | {"reason": reason, "cost": {}, "finalists": None}


def standing(of: Found) -> str:
    """Where it stands, in a sentence or two."""
    if of["reason"]:
        return f"How rows were chosen cannot be shown: {of['reason']}."
    rungs, places = count(of["declared_rungs"], "rung"), listed(of["development"])
    text = f"{count(of['candidates'], 'row')} competed in {rungs} on {places}"
    if of["finalists"] is None:
        ended = len({r["rung"] for r in of["rungs"]})
        have = "has" if ended == 1 else "have"
        return f"{text}; {ended} of them {have} been ranked. The held-out domains were not looked at yet."
    others = [name for name in of["anchors"] if name not in of["finalists"]]
    were = "was" if len(of["finalists"]) == 1 else "were"
    return (
        f"{text}, without a label of {listed(of['held_out'])}, and {len(of['dropped'])} of them left. Confirmed there, "
        f"with fresh seeds, {were} {listed(of['finalists'])}, beside {listed([*others, 'the references'])}."
    )


def waiting(of: Found) -> str:
    """The headline while nothing is confirmed."""
    if of["reason"]:
        return "There is no answer yet: nothing has been scored."
    if of["finalists"] is None:
        return "There is no answer yet: rows are still being ranked, without the held-out domains."
    return f"There is no answer yet: {listed(of['finalists'])} remain to be confirmed on {listed(of['held_out'])}."


def tables(of: Found) -> Found:
    """Lines of the section: dropped rows, and each rung from first to last place."""
    return {
        "standing": standing(of),
        "dropped": [line(p, p["metric"]) for p in of["dropped"]],
        "rungs": [
            {
                "title": f"Rung {r['rung']}, {r['kind']}",
                "n": len(r["rows"]),
                "metric": scale(r["metric"]).axis,
                "lines": [line(p, r["metric"]) for p in r["rows"]],
            }
            for r in of["rungs"]
        ],
        "spent": seconds(of["seconds"]),
        "limit": limit(of["cost"]),
    }


def line(place: Found, metric: str) -> Found:
    digits = scale(metric).digits
    return {
        "row": place["row"],
        "family": place["family"],
        "kind": place["kind"],
        "rung": str(place["rung"]),
        "rank": str(place["rank"]) if place["rank"] else number(None),
        "value": number(place["value"], digits),
        "span": span(place["low"], place["high"], digits),
        "metric": scale(metric).axis,
        "n": str(place.get("n", "")),
        "seconds": seconds(place["seconds"]),
        "reason": outcome(place),
    }


def outcome(place: Found) -> str:
    if not place["kept"]:
        return str(place["reason"])
    alone = place.get("n") == 0 and not math.isfinite(place["value"])
    return "kept without a rival, not trained" if alone else "kept"


def limit(cost: Found) -> str:
    """The declared upper bound."""
    if not cost:
        return ""
    trainings = f"{cost['trainings']} {plural('training')}"
    return f"{trainings}, {seconds(float(cost['seconds']))} of training" if cost.get("seconds") else trainings
