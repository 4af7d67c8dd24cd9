"""Whole-scan answers that were not kept, or cannot be read, are named; the page goes on."""

from __future__ import annotations

import pandas as pd
import pytest

from shiftproof.data.targets import Targets
from shiftproof.errors import ShiftproofError
from shiftproof.report import cases, gallery
from shiftproof.report.answers import answers_in
from shiftproof.report.meaning import meaning_of
from shiftproof.report.reading import read_results
from shiftproof.report.scans import Case, bare

ANSWERS = {"scan": [0, 0], "structure": ["no", "yes"], "predicted": [0.3, 0.7], "truth": [0.0, 1.0]}


@pytest.fixture
def results(make_study):
    return read_results(make_study(images=True, sites=["A"], n=1, rows=["erm/none"], seeds=[0]))


@pytest.fixture
def targets() -> Targets:
    return Targets("classification", "outcome", ("no", "yes"))


def answers_of(row: str) -> pd.DataFrame:
    return pd.DataFrame({"row": row, "held_out": "A", "subject": "A-00", "seed": 0, **ANSWERS})


def test_a_row_without_an_answer_is_named_and_the_others_are_drawn(results, targets):
    case = Case("only", "A-00", "A", "A", 0.5, 1)
    scan, plots, _ = gallery.pictured(case, results, ["a", "b"], meaning_of(results), answers_of("a"), targets)
    assert [plot.caption.split(".")[0] for plot in plots] == ["a: yes (0"]
    assert scan.reasons == ["b kept no answer of A-00"]


@pytest.mark.parametrize("answers", [pd.DataFrame(), answers_of("another")])
def test_no_answer_at_all_is_a_reason_and_no_crash(results, targets, answers):
    case = Case("only", "A-00", "A", "A", 0.5, 1)
    with pytest.raises(ShiftproofError, match="a kept no answer of A-00"):
        cases.answered_plot(bare(case, results), "a", answers, targets)


def test_a_file_of_answers_that_lacks_a_column_is_as_none(tmp_path):
    path = tmp_path / "answers.csv"
    assert answers_in(path) is None
    answers_of("a").drop(columns="scan").to_csv(path, index=False)
    assert answers_in(path) is None
    path.write_bytes(b"\xff\xfe\x00")
    assert answers_in(path) is None
    answers_of("a").to_csv(path, index=False)
    assert answers_in(path)["predicted"].tolist() == [0.3, 0.7]
