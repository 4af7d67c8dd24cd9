"""How a rung ranks, whom it keeps, and what it costs: on results that are made up."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from shiftproof.cli.study import require_unused, rungs_of
from shiftproof.data.cohort import Cohort
from shiftproof.errors import OptionError, StorageError
from shiftproof.recipe import Recipe
from shiftproof.study.cell import fail, jobs, told
from shiftproof.study.declare import Declaration
from shiftproof.study.rules import Candidate, Halving, Rung, anchors_of, confirmed, cost_of, kept_of, rule_of
from shiftproof.study.rungs import Place, Results, cohort_of, finalists_of, placed, require_ranked_fairly


def halving(rows: list[Recipe], **fields) -> Halving:
    families = fields.pop("families", {})
    given = {
        "name": "s",
        "cohort": "table.csv",
        "cohort_hash": "",
        "domain_column": "site",
        "domains": list("ABCD"),
        "held_out": ["D"],
        "development": list("ABC"),
        "candidates": [Candidate(r, families.get(r.name, r.method)) for r in rows],
        "rungs": [Rung(seconds=10.0, held_out=list("ABC"))],
        "keep": 1 / 3,
        "finalists": 6,
        "scoring": "information maximisation",
        "seeds": [1, 2, 3],
        "anchors": anchors_of(rows),
        "budget": {"steps": 100, "seconds": 60.0},
        **fields,
    }
    return Halving(**given)


def declared(rows: list[Recipe], **fields) -> Declaration:
    given = {
        "name": "rung",
        "cohort": "",
        "cohort_hash": "",
        "domain_column": "site",
        "domains": list("ABC"),
        "held_out": ["A", "B"],
        "seeds": [0],
        "rows": rows,
        "references": {},
        "budget": {"steps": 5},
        **fields,
    }
    return Declaration(**given)


def write(folder: Path, study: Declaration, values: dict[str, dict[str, list[float]] | str], metric: str) -> None:
    """Cells of a finished rung: by row, values of the subjects of each domain, or an error."""
    for job in jobs(study):
        for row, cell in job.cells(folder).items():
            cell.mkdir(parents=True)
            found = values[row]
            facts = {"status": "failed", "error": found} if isinstance(found, str) else {"status": "done"}
            (cell / "cell.json").write_text(json.dumps(facts | {"seconds": 10.5}))
            if not isinstance(found, str):
                lines = [
                    {
                        "row": row,
                        "held_out": job.held_out,
                        "seed": job.seed,
                        "subject": f"{job.held_out}{i}",
                        "domain": job.held_out,
                        "structure": "age",
                        "metric": metric,
                        "value": value,
                        "status": "ok",
                    }
                    for i, value in enumerate(found[job.held_out])
                ]
                pd.DataFrame(lines).to_csv(cell / "rows.csv", index=False)


def rows_of(*names: str) -> list[Recipe]:
    """Rows of trainings of their own."""
    return [Recipe(name, training={"rate": 0.001 * (i + 1)}) for i, name in enumerate(names)]


def test_domains_count_equally_and_the_interval_is_around_the_ranked_value(tmp_path):
    rows = rows_of("one", "two")
    study, rule = declared(rows), halving(rows)
    some = {"A": [0.1, 0.2, 0.3, 0.4], "B": [0.8, 0.9]}
    write(tmp_path, study, {"one": some, "two": {"A": [0.1] * 4, "B": [0.1] * 2}}, "dice")
    first, second = placed(tmp_path, study, rule, 1, "generalisation")
    assert (first.row, first.rank, first.kept) == ("one", 1, True)
    assert first.value == pytest.approx((0.25 + 0.85) / 2)
    # One variance within domains, of 4 + 2 - 2 degrees of freedom; the mean of two means of 4 and of 2 subjects.
    variance = (3 * np.var([0.1, 0.2, 0.3, 0.4], ddof=1) + np.var([0.8, 0.9], ddof=1)) / 4
    expected = stats.t.interval(0.95, 4, first.value, np.sqrt(variance * (1 / 4 + 1 / 2)) / 2)
    assert (first.low, first.high) == pytest.approx(expected)
    assert first.n == 6
    assert first.seconds == 21.0
    assert (second.kept, second.reason) == (False, "rank 2 of 2, of which 1 stay")


def test_the_smallest_error_of_a_regression_comes_first_and_ties_keep_the_declared_order(tmp_path):
    rows = rows_of("bad", "good", "same")
    study = declared(rows, primary="absolute error years", task={"task": "regression"})
    values = {"bad": {"A": [5.0, 7.0], "B": [6.0]}} | {n: {"A": [2.0, 4.0], "B": [1.0]} for n in ("same", "good")}
    write(tmp_path, study, values, "absolute error years")
    places = placed(tmp_path, study, halving(rows, keep=0.5, primary=study.primary), 1, "generalisation")
    assert [(p.row, p.rank, p.kept) for p in places] == [("good", 1, True), ("same", 2, True), ("bad", 3, False)]


def test_failed_rows_and_rows_without_a_value_come_last_and_are_never_kept(tmp_path):
    rows = rows_of("failed", "empty", "fine")
    study = declared(rows)
    values = {"failed": "ran out", "empty": {"A": [0.5, 0.5], "B": [math.nan]}, "fine": {"A": [0.1, 0.2], "B": [0.1]}}
    write(tmp_path, study, values, "dice")
    places = placed(tmp_path, study, halving(rows, keep=1.0), 1, "generalisation")
    assert [(p.row, p.kept) for p in places] == [("fine", True), ("failed", False), ("empty", False)]
    assert places[1].reason == "failed: ran out"
    assert places[2].reason == "has no dice on one of A, B"
    assert math.isnan(places[2].value)


def test_a_full_disk_drops_no_row(tmp_path):
    rows = rows_of("unlucky", "fine")
    study = declared(rows)
    first = jobs(study)[0]
    fail(tmp_path, first, *told(StorageError("no space left while writing x; free some")))
    with pytest.raises(StorageError, match='row "unlucky" could not be trained and is not dropped: no space left'):
        require_ranked_fairly(tmp_path, study)
    fail(tmp_path, first, *told(ValueError("a defect")))
    require_ranked_fairly(tmp_path, study)


@pytest.mark.parametrize(
    ("number", "keep", "kept"),
    [(12, 1 / 3, 4), (12, 0.3334, 4), (13, 1 / 3, 5), (4, 1 / 3, 2), (1, 1 / 3, 1), (3, 0.01, 1), (5, 1.0, 5)],
)
def test_a_rung_keeps_its_share_rounded_up_and_at_least_one(number, keep, kept):
    assert kept_of(number, keep) == kept


def place(row: str, family: str, rank: int, kind: str = "generalisation") -> Place:
    return Place(row, family, kind, 2, rank, 0.5, 0.4, 0.6, 9, 1.0, True, "")


def test_of_each_family_the_best_is_a_finalist_and_kinds_do_not_compete():
    rows = [Recipe(n) for n in "abcd"] + [Recipe("t", method="dann", target=True)]
    places = [place("b", "x", 1), place("a", "x", 2), place("d", "y", 3), place("t", "x", 1, "adaptation")]
    chosen, out = finalists_of(halving(rows), places)
    assert chosen == ["b", "t", "d"]
    assert [(p.row, p.kept, p.reason) for p in out] == [("a", False, "b of the same family (x) came before it")]


def test_no_more_finalists_than_declared():
    rows = [Recipe(n) for n in "abc"]
    places = [place(n, n, i + 1) for i, n in enumerate("abc")]
    chosen, out = finalists_of(halving(rows, finalists=2), places)
    assert chosen == ["a", "b"]
    assert [p.row for p in out] == ["c"]


def test_results_are_read_as_they_were_written(tmp_path):
    rows = [Recipe("a"), Recipe("b")]
    lost = Place("b", "erm", "generalisation", 1, 0, math.nan, math.nan, math.nan, 0, 3.0, False, "failed: x, y")
    rule = halving(rows)
    Results({(1, "generalisation"): [place("a", "erm", 1), lost]}, ["a"], []).save(tmp_path, rule)
    found = Results.load(tmp_path)
    assert found.finalists == ["a"]
    first, second = found.rungs[1, "generalisation"]
    assert first == place("a", "erm", 1)
    assert math.isnan(second.value)
    assert second.reason == "failed: x, y"
    table = pd.read_csv(tmp_path / "dropped.csv")
    assert list(table["row"]) == ["b"]
    assert list(table["reason"]) == ["failed: x, y"]


def test_an_anchor_that_is_a_finalist_is_not_run_twice():
    rows = [Recipe("mine", transforms="strong"), Recipe("erm/light+tent", transforms="light", test_time="tent")]
    assert [r.name for r in confirmed(rows, anchors_of(rows))] == ["mine", "erm/light+tent", "erm/none", "erm/light"]


def test_a_candidate_with_the_name_of_an_anchor_keeps_it():
    rows = [Recipe("erm/none", transforms="strong", loss="ce")]
    assert [r.name for r in confirmed(rows, anchors_of(rows))][1] == "erm/none (anchor)"


def test_anchors_have_the_network_that_most_rows_have():
    wide = {"widths": [32, 64]}
    rows = [Recipe("a"), Recipe("b", network=wide), Recipe("c", network=wide)]
    assert {str(r.network) for r in anchors_of(rows)} == {str(wide)}


def test_the_declared_cost_counted_by_hand():
    """Nine rows of eight trainings and three of adaptation, in two rungs; then at most four finalists."""
    rows = [Recipe(f"r{i}", method="group_dro", training={"rate": 0.001 * (i + 1)}) for i in range(7)]
    rows += [Recipe("p", transforms="strong"), Recipe("p+tent", transforms="strong", test_time="tent")]
    rows += [Recipe(f"t{i}", method="dann", target=True, training={"rate": 0.001 * (i + 1)}) for i in range(3)]
    found = cost_of(halving(rows, rungs=[Rung(seconds=s, held_out=list("ABC")) for s in (10.0, 20.0)]))
    stages = [(s["stage"], s["rows"], s["trainings"], s["seconds"]) for s in found["stages"]]
    assert stages[:3] == [
        ("rung 1, generalisation", 9, 8 * 3, 240.0),
        ("rung 1, adaptation", 3, 3, 30.0),
        ("rung 2, generalisation", 3, 9, 180.0),
    ]
    # Adaptation has one row left, which is not ranked again. Two finalists at most (1 + 1), each of a rate of its
    # own, and so with references of its own: itself, source-only, pooled and upper bound. Then three anchors and the
    # upper bounds of light and strong.
    assert stages[3] == ("confirmation", 2 * 4 + 3 + 2, 13 * 3, 13 * 3 * 60.0)
    assert found["trainings"] == 24 + 3 + 9 + 39
    assert found["seconds"] == 240 + 30 + 180 + 2340


def test_a_cost_in_steps_has_no_seconds():
    rows = [Recipe("a"), Recipe("b", transforms="strong")]
    found = cost_of(halving(rows, rungs=[Rung(steps=5, held_out=list("ABC"))]))
    assert found["seconds"] is None
    assert found["trainings"] > 0


def test_the_rule_in_words_names_what_was_declared():
    rows = [Recipe("a"), Recipe("t", method="dann", target=True)]
    text = "\n".join(rule_of(halving(rows)))
    for words in (
        "10 s a training",
        "33 %",
        "A, B, C",
        "fresh seeds 1, 2, 3",
        "at most 6",
        "erm/none, erm/light, erm/s",
    ):
        assert words in text


def test_a_rung_reads_nobody_who_was_scanned_at_a_held_out_domain():
    table = pd.DataFrame(
        [[f"{site}{i}", f"{site}{i}.nii", f"{site}{i}-label.nii", site] for site in "ABD" for i in range(4)]
        + [["A0", "A0-at-D.nii", "A0-at-D-label.nii", "D"]],
        columns=["subject", "image", "label", "site"],
    )
    rule = halving([Recipe("a")], development=["A", "B"])
    cohort = Cohort(table)
    general = cohort_of(cohort, rule, "generalisation")
    assert general.domains == ["A", "B"]
    assert "A0" not in general.subjects
    adapting = cohort_of(cohort, rule, "adaptation")
    seen = adapting.where(site="D")
    assert set(seen.table["label"]) == {""}
    assert 0 < len(seen.subjects) < 5
    assert "A0" not in adapting.where(site=["A", "B"]).subjects


def test_rungs_of_the_command_line():
    assert [(r.seconds, r.steps) for r in rungs_of(None, None, 1)] == [(15.0, None), (45.0, None)]
    assert [(r.seconds, r.steps, list(r.seeds)) for r in rungs_of(None, "20,60", 2)] == [
        (None, 20, [0, 1]),
        (None, 60, [0, 1]),
    ]
    with pytest.raises(OptionError, match="not both"):
        rungs_of("1", "2", 1)
    with pytest.raises(OptionError, match="--rung-seconds expects numbers"):
        rungs_of("fast", None, 1)


def test_options_of_rungs_need_halving():
    require_unused({"--keep": None})
    with pytest.raises(OptionError, match="--keep is for large studies; add --halving"):
        require_unused({"--keep": 0.5, "--finalists": None})
