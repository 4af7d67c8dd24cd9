"""What is called better is a recipe: trainings of one recipe that differ must not pass for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from shiftproof.report.findings import summarise
from shiftproof.report.results import COLUMNS, Cell, Results


def drawn(
    shifts: dict[str, float], *, seeds: int, luck: float = 0.01, n: int = 12, seed: int = 0, shared: str = ""
) -> Results:
    """Scores at two sites: subjects are as hard for all, and each training has luck of its own at each site.

    Args:
        shifts: By row, what its recipe is worth.
        seeds: Trainings of each.
        luck: SD from training to training.
        shared: A row that predicts from the first row's trainings.
    """
    random = np.random.default_rng(seed)
    hard = {(site, i): random.normal(0.8, 0.05) for site in "AB" for i in range(n)}
    lines, cells, first = [], [], next(iter(shifts))
    lucks = {(row, site, s): random.normal(0, luck) for row in shifts for site in "AB" for s in range(seeds)}
    for (row, site, s), own in lucks.items():
        trained = first if row == shared else row
        cells.append(Cell(row, site, s, "done", run=Path("runs") / f"{trained}-{site}-{s}"))
        own = lucks[trained, site, s] if trained != row else own
        for i in range(n):
            value = hard[site, i] + shifts[row] + own + random.normal(0, 0.005)
            lines.append((row, site, s, f"{site}-{i}", site, "organ", "dice", value, "ok"))
    recipes = [{"name": name, "method": "erm", "role": "row"} for name in shifts]
    facts = {"rows": recipes, "held_out": ["A", "B"], "seeds": list(range(seeds)), "references": {}, "primary": "dice"}
    return Results("study", facts, pd.DataFrame(lines, columns=COLUMNS), cells=cells)


EQUAL = {f"erm #{i + 1}": 0.0 for i in range(12)}


def test_twelve_trainings_of_one_recipe_differ_and_none_is_called_better():
    found = summarise(drawn(EQUAL, seeds=1))
    verdicts = [c["verdict"] for c in found["comparisons"]]
    assert verdicts.count("ahead") + verdicts.count("behind") > 10  # over subjects alone these would be claims
    assert not {"better", "worse"} & set(verdicts)
    assert found["winner"] is None
    assert "one training each cannot tell" in " ".join(found["answer"])
    assert "no row is called better" in found["answer"][-1]
    told = " ".join(found["answer"])
    assert "One training each shows nothing of recipes" in told
    assert "showing it would take" not in told  # subjects alone would not do


def test_equal_recipes_of_three_trainings_are_rarely_told_apart():
    """66 pairs a study, corrected: at most one study in twenty may claim anything."""
    claims = winners = lone = 0
    for seed in range(12):
        found = summarise(drawn(EQUAL, seeds=3, seed=seed))
        verdicts = {c["verdict"] for c in found["comparisons"]}
        claims += bool({"better", "worse"} & verdicts)
        winners += found["winner"] is not None
        lone += sum(c["p"] * c["family_size"] < 0.05 for c in found["comparisons"])
    assert winners == 0
    assert claims <= 2
    assert lone > 50  # what subjects alone would have claimed


def test_a_better_recipe_is_found_beyond_its_trainings():
    found = summarise(drawn({"a": 0.10, "b": 0.0, "c": 0.0}, seeds=3))
    assert [c["verdict"] for c in found["comparisons"]] == ["better", "better", "no reliable difference"]
    assert found["winner"] == "a"
    assert all(c["trainings"]["trainings"] == 3 for c in found["comparisons"])
    assert "Welch’s t-test over trainings" in found["answer"][-1]


def test_why_a_sure_difference_over_subjects_is_no_claim_is_said():
    found = summarise(drawn({"a": 0.02, "b": 0.0}, seeds=3, luck=0.03, seed=1))
    (c,) = found["comparisons"]
    assert c["p"] < 0.001
    assert c["verdict"] == "no reliable difference"
    told = " ".join(found["answer"])
    assert "subjects agree; trainings vary too much" in told
    assert f"3 trainings of each show {c['trainings']['detectable']:.3f} Dice likewise" in told
    assert c["trainings"]["detectable"] > 5 * c["detectable"]


def test_rows_of_the_same_trainings_are_compared_training_by_training():
    """Adaptation at prediction: the luck of a training is in both rows, and leaves their difference."""
    shifts = {"erm": 0.0, "erm+tent": 0.02}
    paired, apart = (summarise(drawn(shifts, seeds=3, luck=0.05, shared=row)) for row in ("erm+tent", ""))
    assert paired["comparisons"][0]["verdict"] == "worse"
    assert paired["comparisons"][0]["trainings"]["sd"] < 0.01
    assert apart["comparisons"][0]["verdict"] == "no reliable difference"
    assert apart["comparisons"][0]["trainings"]["sd"] > 0.03


def test_predictions_that_no_study_made_are_compared_as_they_are():
    study = drawn({"a": 0.1, "b": 0.0}, seeds=1)
    found = summarise(Results("evaluation", {"primary": "dice"}, study.rows))
    assert found["comparisons"][0]["verdict"] == "better"
    assert found["comparisons"][0]["trainings"] is None
