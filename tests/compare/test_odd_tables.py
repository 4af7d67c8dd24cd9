"""Tables and numbers of subjects that once gave a wrong answer without a word."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from shiftproof.compare import Scores, compare, read_scores
from shiftproof.compare.pairs import kind
from shiftproof.compare.run import filled, summarise
from shiftproof.errors import RunError
from shiftproof.report.comparing import BOOTSTRAP_PAIRS, LEVEL


def written(path, columns):
    pd.DataFrame(columns).to_csv(path, index=False)
    return path


def scattered(n, *means, seed=0):
    random = np.random.default_rng(seed)
    return {f"m{i}": list((mean + random.normal(0, 0.003, n)).round(4)) for i, mean in enumerate(means)}


def subjects(n):
    return [f"s{i}" for i in range(n)]


@pytest.mark.parametrize("methods", [2, 3])
def test_a_slip_in_a_wide_table_is_named_and_costs_no_method(tmp_path, methods):
    columns = {"subject": subjects(6), **scattered(6, *[0.8] * methods)}
    columns["m1"][3] = "0,8O1"
    with pytest.raises(RunError, match='column "m1" has "0,8O1" in line 4'):
        read_scores([written(tmp_path / "x.csv", columns)])


def test_a_slip_among_scores_does_not_make_another_column_the_score(tmp_path):
    dice = ["0.8", "oops", *["0.7"] * 4]
    columns = {"subject": subjects(3) * 2, "method": ["a"] * 3 + ["b"] * 3, "dice": dice, "volume": range(6)}
    with pytest.raises(RunError, match='column "dice" has "oops" in line 2'):
        read_scores([written(tmp_path / "x.csv", columns)])


def test_a_method_without_any_score_in_a_wide_table_is_said(tmp_path):
    columns = {"subject": subjects(6), **scattered(6, 0.8, 0.7), "crashed": [""] * 6}
    assert any("no score in crashed" in note for note in read_scores([written(tmp_path / "x.csv", columns)]).notes)


def test_a_table_without_any_score_says_so(tmp_path):
    columns = {"subject": subjects(3) * 2, "method": ["a"] * 3 + ["b"] * 3, "dice": ["nan"] * 6}
    assert compare([written(tmp_path / "x.csv", columns)])["headline"].startswith("No method has a score")


def test_one_file_with_sites_and_one_without_share_their_subjects(tmp_path):
    one = {"subject": subjects(6), "site": list("xxxyyy"), "dice": scattered(6, 0.8)["m0"]}
    other = {"subject": subjects(6), "dice": scattered(6, 0.7, seed=1)["m0"]}
    found = compare([written(tmp_path / "one.csv", one), written(tmp_path / "other.csv", other)])
    assert [p["n"] for p in found["pairs"]] == [6]
    assert any("without a domain in some lines" in note for note in found["notes"])


def test_subjects_that_each_site_numbers_anew_are_said(tmp_path):
    columns = {"subject": subjects(3) * 2, "site": list("xxxyyy"), **scattered(6, 0.8, 0.7)}
    found = compare([written(tmp_path / "x.csv", columns)])
    assert found["pairs"][0]["n"] == 3
    assert any("3 subjects of more than one site" in note for note in found["notes"])


@pytest.mark.parametrize(("rule", "few"), [("holm", True), ("hommel", False), ("benjamini-hochberg", False)])
def test_too_few_is_said_by_the_rule_that_corrects(tmp_path, rule, few):
    columns = {"subject": subjects(6), **scattered(6, 0.9, 0.8, 0.7, 0.6, 0.5)}
    found = compare([written(tmp_path / "x.csv", columns)], rule=rule)
    assert ("too few" in found["headline"]) == few
    assert ({p["verdict"] for p in found["pairs"]} == {"better"}) != few


def test_a_difference_without_spread_has_no_power_statement(tmp_path):
    columns = {"subject": subjects(12), "a": [0.5] * 12, "b": [0.4] * 12}
    found = compare([written(tmp_path / "x.csv", columns)])
    assert "Power" not in [e["about"] for e in found["evidence"]]
    assert "one score for all subjects: a and b" in found["notes"]


def test_intervals_of_many_pairs_are_those_of_a_studys_report():
    assert [kind(LEVEL / many) for many in (1, BOOTSTRAP_PAIRS, BOOTSTRAP_PAIRS + 1)] == ["auto", "auto", "t"]


def test_missing_scores_are_filled_but_not_those_that_are_rightly_absent():
    lines = [(m, "x", s, seed, 0.8) for m in "ab" for s in subjects(4) for seed in ("1", "2")]
    tidy = pd.DataFrame(lines, columns=["method", "domain", "subject", "seed", "value"])
    tidy.loc[(tidy["method"] == "a") & (tidy["subject"] == "s1"), "value"] = math.nan  # nothing there, nothing found
    tidy = tidy[(tidy["method"] == "a") | (tidy["subject"] != "s2")]  # b crashed
    scores = filled(Scores(tidy, "dice", undefined=[("x", "s1")]), 0.0)
    assert scores.cells.loc[("x", "s2"), "b"] == 0
    assert math.isnan(scores.cells.loc[("x", "s1"), "a"])
    assert scores.notes == ["missing scores count as 0: b 1"]
    assert set(scores.tidy["seed"]) == {"1", "2"}


def test_what_is_rightly_absent_is_not_called_a_failure():
    from shiftproof.compare.question import asked

    values = scattered(8, 0.8, 0.7)
    values["m0"][2] = math.nan
    wide = (
        pd.DataFrame(values, index=subjects(8)).melt(ignore_index=False, var_name="method").reset_index(names="subject")
    )
    scores = Scores(wide.assign(domain="", seed=""), "dice", undefined=[("", "s2")])
    notes = summarise(scores, asked(scores)[0])[0]["notes"]
    assert any("rightly no number" in note for note in notes)
    assert not any("--missing" in note for note in notes)


def test_with_a_margin_a_difference_that_is_reliable_is_not_called_none(tmp_path):
    random = np.random.default_rng(0)
    first = random.normal(0.8, 0.05, 30)
    columns = {"subject": subjects(30), "a": first, "b": first - 0.02 + random.normal(0, 0.02, 30)}
    found = compare([written(tmp_path / "x.csv", columns)], margin=0.015)
    assert found["pairs"][0]["low_corrected"] > 0
    assert found["pairs"][0]["verdict"] == "no reliable difference"
    assert found["headline"].startswith("No reliable difference beyond the margin of 0.015 between a and b: +0.0")


def test_the_sign_of_a_difference_fits_the_sentence(tmp_path):
    columns = {"subject": subjects(12), **scattered(12, 0.8, 0.5, 0.8)}
    found = compare([written(tmp_path / "x.csv", columns)], reference="m0", margin=0.05)
    assert "m1 is worse than m0: −0.30" in found["evidence"][0]["text"]
    assert found["headline"] == "m1 is worse than m0. m2 is equivalent within 0.050 to m0."


@pytest.mark.parametrize(("n", "said"), [(4, False), (8, True)])
def test_no_power_is_promised_that_an_exact_test_cannot_have(tmp_path, n, said):
    columns = {"subject": subjects(n), **scattered(n, 0.8, 0.8)}
    found = compare([written(tmp_path / "x.csv", columns)])
    assert ("Power" in [e["about"] for e in found["evidence"]]) == said


def test_recipes_of_one_training_each_are_ahead_and_not_better(tmp_path):
    """As in the report of a study: a seed that is named makes rows recipes; without it they are predictions."""
    base = [0.70 + 0.01 * i for i in range(10)]
    lines = [("a", i, v + 0.05 + 0.001 * (i % 3)) for i, v in enumerate(base)] + [
        ("b", i, v) for i, v in enumerate(base)
    ]
    for seed, expected in ((",0", "ahead"), ("", "better")):
        path = tmp_path / f"t{expected}.csv"
        head = "method,subject,dice" + (",seed" if seed else "")
        path.write_text("\n".join([head, *(f"{m},s{i},{v}{seed}" for m, i, v in lines)]) + "\n")
        found = compare([path])
        assert found["pairs"][0]["verdict"] == expected
        assert ("one training each" in found["headline"]) == bool(seed)
