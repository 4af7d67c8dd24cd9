"""Studies by successive halving on the page: what was declared, who left when and why, and what was confirmed."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from pathlib import Path

import pytest

from shiftproof.recipe import Recipe
from shiftproof.report import report, summary, table
from shiftproof.report.halving import halving, limit, tables
from shiftproof.study.rules import Candidate, Halving, Rung
from shiftproof.study.rungs import Place, Results

NAN = math.nan


def place(
    row: str, rung: int, rank: int, value: float, *, kept: bool, kind: str = "generalisation", **options
) -> Place:
    around = {"low": value - 0.02, "high": value + 0.02} if math.isfinite(value) else {"low": NAN, "high": NAN}
    options = {"n": 10, "seconds": 40.0 * rung, "reason": "" if kept else f"rank {rank}", **options}
    return Place(row, row.split("/")[0], kind, rung, rank, value, kept=kept, **around, **options)


RANKED = {
    (1, "generalisation"): [
        place("mldg/strong", 1, 1, 0.71, kept=True),
        place("dann/strong", 1, 2, 0.705, kept=True),
        place("group_dro/light", 1, 3, 0.6, kept=False, reason="rank 3 of 4, of which 2 stay"),
        place("mean_teacher/light", 1, 0, NAN, kept=False, n=0, reason="failed: loss is not finite at step 3"),
    ],
    (1, "adaptation"): [place("dann/light+target", 1, 1, NAN, kept=True, kind="adaptation", n=0, seconds=0.0)],
    (2, "generalisation"): [
        place("dann/strong", 2, 1, 0.73, kept=True),
        place("mldg/strong", 2, 2, 0.72, kept=False, reason="rank 2 of 2, of which 1 stay"),
    ],
}


def declared() -> Halving:
    names = ["mldg/strong", "dann/strong", "group_dro/light", "mean_teacher/light", "dann/light+target"]
    recipes = [Recipe(n, method=n.split("/")[0], transforms="light", target=n.endswith("target")) for n in names]
    anchors = [Recipe(f"erm/{p}", transforms=p) for p in ("none", "light", "strong")]
    return Halving(
        name="brain-sites", cohort="table.csv", cohort_hash="4f1c", domain_column="site", domains=["A", "B", "C", "D"],
        held_out=["D"], development=["A", "B", "C"], candidates=[Candidate(r, r.method) for r in recipes],
        rungs=[Rung(seconds=15.0), Rung(seconds=45.0)], keep=1 / 3, finalists=6, scoring="information maximisation",
        seeds=[1, 2, 3], anchors=anchors, budget={"seconds": 60.0, "batch": 8}, primary="dice",
        rule=["5 rows compete in 2 rungs.", "Each rung keeps 33 % of each kind."],
        cost={"trainings": 41, "seconds": 1830.0, "stages": []},
    )  # fmt: skip


def write(root: Path, rungs: dict, finalists: list[str] | None, out: tuple[Place, ...] = ()) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    of = declared()
    of.save(root)
    Results(rungs, finalists, out).save(root, of)
    return root


def words(path: Path) -> str:
    """Text of the page, without its tags."""
    page = path.read_text(encoding="utf-8")
    page = re.sub(r"<(style|script).*?</\1>", " ", page, flags=re.S)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page)).replace("\u00a0", " ")


SMALL = {"rows": ["erm/none", "erm/strong", "dann/strong"], "sites": ["D"], "seeds": [1], "n": 4, "records": False}
OUT = dataclasses.replace(RANKED[1, "adaptation"][0], kept=False, reason="dann/strong came before it")


@pytest.fixture(scope="module")
def confirmed(tmp_path_factory, study_writer) -> tuple[dict, str]:
    """Summary and page of a study that was confirmed, with its rungs."""
    root = study_writer(tmp_path_factory.mktemp("confirmed") / "study", **SMALL)
    write(root, RANKED, ["dann/strong"], (OUT,))
    return summary(root), words(report(root))


def test_every_dropped_row_stands_there_with_rung_seconds_and_interval(confirmed):
    found, text = confirmed[0]["halving"], confirmed[1]
    left = [(p["row"], p["rung"], p["seconds"]) for p in found["dropped"]]
    assert left == [("group_dro/light", 1, 40.0), ("mean_teacher/light", 1, 40.0), ("mldg/strong", 2, 80.0),
                    ("dann/light+target", 1, 0.0)]  # fmt: skip
    assert "0.600 [0.580, 0.620]" in text
    assert "rank 3 of 4, of which 2 stay" in text
    assert "failed: loss is not finite at step 3" in text
    assert "dann/strong came before it" in text
    assert "80 s" in text


def test_the_declaration_and_its_limit_are_printed(confirmed):
    text = confirmed[1]
    for line in declared().rule:
        assert line in text
    assert "Declared limit: 41 trainings, 30.5 min of training" in text
    assert "Spent in rungs: 5.3 min" in text  # 4 rows of 40 s and 2 of 80 s


def test_what_is_corrected_for_is_said_to_be_the_confirmed_rows(confirmed):
    assert "Every p on this page is corrected within the confirmed rows" in confirmed[1]
    named = {name for c in confirmed[0]["comparisons"] for name in (c["a"], c["b"])}
    assert "group_dro/light" not in named


def test_a_study_whose_rungs_still_run_has_a_page(tmp_path):
    root = write(tmp_path / "study", {key: RANKED[key] for key in list(RANKED)[:2]}, None)
    found = summary(root)
    assert found["rows"] == []
    assert found["held_out"] == ["D"]
    assert table(found)[2] == []  # nothing for the terminal either
    assert found["headline"] == "There is no answer yet: rows are still being ranked, without the held-out domains."
    text = words(report(root))
    assert "5 rows competed in 2 rungs on A, B and C; 1 of them has been ranked." in text
    assert "group_dro/light" in text
    assert "Every p on this page" not in text


def test_a_study_that_has_only_been_declared_has_a_page(tmp_path):
    root = tmp_path / "study"
    root.mkdir()
    declared().save(root)
    assert "0 of them have been ranked" in words(report(root))


def test_a_study_that_waits_for_its_confirmation_names_who_remains(tmp_path):
    root = write(tmp_path / "study", RANKED, ["dann/strong", "dann/light+target"])
    assert summary(root)["headline"] == (
        "There is no answer yet: dann/strong and dann/light+target remain to be confirmed on D."
    )


@pytest.mark.parametrize("content", ["{", "[]", '{"rungs": 3, "finalists": null, "out": []}', '{"rungs": []}'])
def test_a_broken_table_of_rungs_is_named(tmp_path, content):
    root = write(tmp_path, RANKED, ["dann/strong"])
    (root / "rungs.json").write_text(content)
    found = summary(root)["halving"]
    assert "rungs.json" in found["reason"]
    assert tables(found)["standing"].startswith("How rows were chosen cannot be shown: ")


def test_a_broken_table_of_rungs_leaves_the_rest_of_the_page(make_study):
    root = write(make_study(**SMALL), RANKED, ["dann/strong"])
    (root / "rungs.json").write_text("[]")
    text = words(report(root))
    assert "How rows were chosen cannot be shown" in text
    assert "Every comparison in full" in text


def test_a_study_without_halving_has_no_such_section(make_study):
    root = make_study(**SMALL)
    assert summary(root)["halving"] is None
    assert 'id="halving"' not in report(root).read_text()


def test_all_of_it_is_strict_json(confirmed):
    found = confirmed[0]
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_a_finalist_is_not_named_beside_itself(tmp_path):
    told = tables(halving(write(tmp_path, RANKED, ["erm/strong", "dann/strong"])))["standing"]
    assert told.endswith("were erm/strong and dann/strong, beside erm/none, erm/light and the references.")


def test_each_rung_lists_its_rows_from_first_to_last(tmp_path):
    of = tables(halving(write(tmp_path, RANKED, ["dann/strong"])))
    assert [r["title"] for r in of["rungs"]] == [
        "Rung 1, generalisation",
        "Rung 1, adaptation",
        "Rung 2, generalisation",
    ]
    assert [p["row"] for p in of["rungs"][0]["lines"]] == [
        "mldg/strong",
        "dann/strong",
        "group_dro/light",
        "mean_teacher/light",
    ]
    assert of["rungs"][0]["lines"][-1]["value"] == "–"
    assert of["rungs"][1]["metric"] == "information maximisation"
    assert limit({"trainings": 3, "seconds": None}) == "3 trainings"


def test_a_training_that_two_rows_share_is_spent_once(tmp_path):
    root = write(tmp_path / "shared", RANKED, None)
    for row, run, seconds in (("a", "runs/a", 60.0), ("a+tent", "runs/a", 60.0), ("b", "runs/b", 30.0)):
        cell = root / "rungs" / "1" / "cells" / row / "A" / "0" / "cell.json"
        cell.parent.mkdir(parents=True)
        cell.write_text(json.dumps({"status": "done", "run": run, "seconds": seconds}))
    assert halving(root)["seconds"] == 90


def test_a_row_without_a_rival_is_told_from_one_that_was_ranked(confirmed):
    assert "kept without a rival, not trained" in confirmed[1]
