"""Which cases are shown, not the prettiest: the worst, failures of each kind, the median and the best; drawn."""

from __future__ import annotations

import pandas as pd

from ..data.targets import Targets
from ..errors import ShiftproofError
from .meaning import Meaning
from .numbers import listed, number, scale
from .results import Results
from .scans import Case, Scan, bare, opened, seed_of
from .slices import draw, grey, slice_at, window
from .svg import Plot, style

FAILURES = ("missed", "spurious")
SECOND = 6  # subjects from which on a second bad one is shown
TRIED = 5  # subjects whose files are looked for before a kind of failure goes without a picture


def picked(values: pd.DataFrame, row: str, held_out: str, *, higher_is_better: bool = True) -> list[Case]:
    """Worst, median and best subject of a row in a domain; fewer where there are fewer subjects."""
    own = values[(values["row"] == row) & (values["held_out"] == held_out)].dropna(subset="value")
    own = own.sort_values(["value", "subject"], ascending=[higher_is_better, True], kind="stable")
    n = len(own)
    places = {0: "worst", (n - 1) // 2: "median", n - 1: "best"} if n > 2 else {0: "worst", n - 1: "best"}
    places = {0: "only"} if n == 1 else places
    return [
        Case(rank, str(of.subject), held_out, str(of.domain), float(of.value), n)
        for of, rank in ((own.iloc[i], rank) for i, rank in places.items() if n)
    ]


def gallery(
    values: pd.DataFrame, results: Results, row: str, held_out: str, *, higher_is_better: bool = True
) -> list[Case]:
    """The cases of a domain: the worst two, one of each kind of failure that these do not show, median, best."""
    first = picked(values, row, held_out, higher_is_better=higher_is_better)
    bad = [case for case in first if case.rank in ("worst", "only")]
    rest = [case for case in first if case not in bad]
    own = values[(values["row"] == row) & (values["held_out"] == held_out)].dropna(subset="value")
    if len(own) >= SECOND:
        own = own.sort_values(["value", "subject"], ascending=[higher_is_better, True], kind="stable")
        of = own.iloc[1]
        bad.append(Case("second worst", str(of.subject), held_out, str(of.domain), float(of.value), len(own)))
    seen = {kind for case in bad for kind in failures(case, results, row)}
    for kind in FAILURES:
        taken = {case.subject for case in [*bad, *rest]}
        found = None if kind in seen else failing(own, results, row, held_out, kind, taken)
        bad += [found] if found is not None else []
    return bad + rest


def failing(own: pd.DataFrame, results: Results, row: str, held_out: str, kind: str, taken: set[str]) -> Case | None:
    """The subject with most structures missed (or spurious) in a prediction that was kept; None without one."""
    rows = results.rows
    rows = rows[(rows["row"] == row) & (rows["held_out"] == held_out) & (rows["metric"] == results.primary)]
    rows = rows[(rows["status"] == kind) & ~rows["subject"].isin(taken)]
    order = rows.groupby("subject")["structure"].nunique().sort_values(ascending=False, kind="stable")
    for subject in order.index[:TRIED]:
        scored = own[own["subject"] == subject]
        if scored.empty:
            continue
        of = scored.iloc[0]
        case = Case(kind, str(subject), held_out, str(of.domain), float(of.value), len(own))
        structures = failures(case, results, row).get(kind)
        if structures:
            return Case(kind, case.subject, held_out, case.domain, case.value, case.n, structures[0])
    return None


def failures(case: Case, results: Results, row: str) -> dict[str, list[str]]:
    """Structures missed and spurious in the very prediction that is shown; empty where none was kept."""
    try:
        seed = seed_of(case, results, row)
    except ShiftproofError:
        return {}
    own = rows_of(case, results, row, seed)
    found = {kind: list(dict.fromkeys(own.loc[own["status"] == kind, "structure"])) for kind in FAILURES}
    return {kind: structures for kind, structures in found.items() if structures}


def overlay(case: Case, results: Results, row: str, meaning: Meaning) -> Plot:
    """One case with the label as a tint and the prediction as a line.

    Args:
        case: Which.
        results: Where its files are.
        row: Whose prediction.
        meaning: Of the values in both files.

    Raises:
        ShiftproofError: If a file is missing or cannot be read, or a value has no meaning.
    """
    return drawn(opened(case, results, [row], meaning), results, row, meaning)


def drawn(scan: Scan, results: Results, row: str, meaning: Meaning) -> Plot:
    """As `overlay`, of a scan that is read already."""
    case, seed = scan.case, scan.seeds[row]
    shown = slice_at(scan.places[row])
    low, high = window(shown)
    with style():
        figure = draw(shown, low, high, len(meaning.classes))
    score = scored(case, results, row, seed)
    of_seed = f" (seed {seed})" if seed is not None and len(results.seeds) > 1 else ""
    where = f" {shown.index + 1} of {shown.count}" if shown.count > 1 else ""
    failed = "".join(f" {kind.capitalize()}: {listed(s)}." for kind, s in failures(case, results, row).items())
    caption = f"{row}: {score}{of_seed}.{failed} {shown.plane.capitalize()}{where}, grey window {grey(low, high)}."
    why = f"{case.structure} {case.rank}" if case.structure else f"{case.rank} case"
    alt = (
        f"{why} of {case.held_out}, {case.subject}, {row}: {score}.{failed} "
        f"{shown.plane} slice with label and prediction."
    )
    return Plot(figure, caption, alt, case.title)


def scored(case: Case, results: Results, row: str, seed: int | None) -> str:
    """Dice 0.812: the primary metric of the very prediction that is shown."""
    metric = scale(results.primary)
    value = float(rows_of(case, results, row, seed).groupby("structure")["value"].mean().mean())
    return f"{metric.title} {number(value, metric.digits)} {metric.unit}".strip()


def rows_of(case: Case, results: Results, row: str, seed: int | None) -> pd.DataFrame:
    """Result rows of a case in the primary metric."""
    rows = results.rows
    own = rows[
        (rows["row"] == row)
        & (rows["held_out"] == case.held_out)
        & (rows["subject"] == case.subject)
        & (rows["metric"] == results.primary)
    ]
    return own if seed is None else own[own["seed"] == seed]


def portrait(case: Case, results: Results, row: str, answers: pd.DataFrame, targets: Targets) -> Plot:
    """One case of a task that answers for whole scans: a slice, and what was answered beside what is true.

    Raises:
        ShiftproofError: If the image is missing or cannot be read.
    """
    return answered_plot(bare(case, results), row, answers, targets)


def answered_plot(scan: Scan, row: str, answers: pd.DataFrame, targets: Targets) -> Plot:
    """As `portrait`, of a scan that is read already.

    Raises:
        ShiftproofError: If no answer of it was kept.
    """
    case, shown = scan.case, slice_at(scan.first)
    own = answers
    if len(own):
        own = own[(own["row"] == row) & (own["held_out"] == case.held_out)]
        own = own[own["subject"].astype(str) == case.subject]
    if own.empty:
        raise ShiftproofError(f"{row} kept no answer of {case.subject}")
    low, high = window(shown)
    with style():
        figure = draw(shown, low, high, 1)
    # The image is the first scan's.
    mean = own[own["scan"] == own["scan"].min()].groupby("structure")[["predicted", "truth"]].mean()
    words = answered(mean, targets)
    where = f" Slice {shown.index + 1} of {shown.count}." if shown.count > 1 else ""
    alt = f"{case.rank} case of {case.held_out}, {case.subject}, {words}"
    return Plot(figure, f"{row}: {words}.{where}", alt, case.title)


def answered(mean: pd.DataFrame, targets: Targets) -> str:
    """What was answered and what is true, of one scan."""
    if targets.task == "regression":
        predicted, truth = mean.loc[targets.column, ["predicted", "truth"]]
        return f"{predicted:.1f} {targets.unit}".strip() + f", true {truth:.1f}"
    if targets.kind == "multi-label":
        return ", ".join(f"{name} {p:.2f} (true {t:.0f})" for name, (p, t) in mean.iterrows())  # type: ignore[misc]
    best, true = mean["predicted"].idxmax(), mean["truth"].idxmax()
    return f"{best} ({mean['predicted'].max():.2f}), true {true}"
