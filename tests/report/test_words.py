"""The answer in words claims what the tests carry, and no more."""

from __future__ import annotations

import copy
import json
import math
import re

import pytest

from shiftproof.report import summary
from shiftproof.report.limits import caveats
from shiftproof.report.numbers import listed, number, p_value, plural, scale, tied


def text(found: dict, about: str) -> str:
    return next((e["text"] for e in found["evidence"] if e["about"] == about), "")


def test_the_drop_is_named_in_dice_with_its_evidence(usual):
    found = usual
    drop = next(c for c in found["comparisons"] if c["a"].startswith("target"))
    assert found["headline"].startswith(
        f"Unseen sites cost {drop['mean_difference']:.3f} Dice [{drop['low']:.3f}, {drop['high']:.3f}]."
    )
    told = text(found, "The drop")
    assert f"+{drop['mean_difference']:.3f} [+{drop['low']:.3f}, +{drop['high']:.3f}] Dice, corrected p < 0.001" in told
    assert "n = 30 subjects" in told
    assert all(f"{site} +0." in told for site in "ABC")


def test_what_helps_and_what_does_not_are_told_apart(usual):
    found = usual
    assert "erm/strong is better than source-only (erm/none)" in text(found, "What helps")
    assert "mldg/strong does not beat ERM with the same transforms (erm/strong): reliably worse" in text(
        found, "What does not"
    )
    assert "mldg" not in text(found, "What helps")


def test_without_a_reliable_difference_nothing_is_better(make_study):
    """The same level for all rows: whatever differs is chance."""
    same = dict.fromkeys(["erm/none", "erm/strong", "dann/strong", "mldg/strong"], 0.7)
    found = summary(make_study(levels=same))
    assert "No row is reliably better than its reference" in found["headline"]
    assert text(found, "Winner").startswith("None.")
    assert found["winner"] is None
    assert "no reliable difference" in text(found, "What does not")
    said = " ".join(found["answer"][:-1])  # the last one explains the word
    assert not re.search(r"\b(is|does|do) (reliably )?better", said.replace("is not reliably better", "").replace(
        "No row is reliably better", ""))  # fmt: skip


def test_a_small_p_with_an_interval_over_zero_is_no_claim(make_study):
    """One outlier makes the interval wide, while the signs all agree."""
    found = summary(make_study(sites=["A"], seeds=[0]))
    c = next(c for c in found["comparisons"] if c["a"] == "mldg/strong" and c["family"] == "primary")
    assert c["p_corrected"] < 0.05
    assert c["low"] < 0 < c["high"]
    assert c["verdict"] == "no reliable difference"
    assert "(p is small, but the corrected interval contains 0)" in text(found, "What does not")


def test_the_winner_must_beat_each_other_row(make_study):
    assert summary(make_study("far", levels={"dann/strong": 0.83}))["winner"] == "dann/strong"
    close = summary(make_study("close", levels={"mldg/strong": 0.772}))
    assert close["winner"] is None
    assert "is not reliably better than" in text(close, "Winner")
    assert "picked after looking" in text(close, "Winner")


def test_selection_names_its_rule_and_its_score(usual):
    told = text(usual, "Selected")
    assert told.startswith("dann/strong, by training domains alone (rule: mean validation score of held-back subjects")
    assert "with 0.885 there" in told


def test_a_study_without_references_says_so(make_study):
    found = summary(make_study(rows=["erm/strong", "dann/strong"]))
    assert "cannot be said: the study has no target-supervised reference" in found["headline"]
    assert "erm/strong: not compared" in text(found, "What does not")


def test_rows_that_are_plain_training_with_a_loss_of_their_own_are_compared_with_each_other(make_study):
    folder = make_study(rows=["erm/none", "erm/strong", "dann/strong"])
    study = json.loads((folder / "study.json").read_text(encoding="utf-8"))
    study["references"] |= {"plain": {row: row for row in ("erm/none", "erm/strong")}, "pooled": {}}
    (folder / "study.json").write_text(json.dumps(study), encoding="utf-8")
    told = text(summary(folder), "What does not")
    assert "erm/strong: plain training, with nothing to compare it with but each other" in told
    assert "for want of scores" not in told


def test_a_study_without_any_result_says_so(make_study):
    failed = [(row, "A", 0) for row in ("erm/none", "erm/strong")]
    found = summary(make_study(rows=["erm/none", "erm/strong"], sites=["A"], seeds=[0], failed=failed))
    assert found["answer"] == ["There is no answer yet: nothing has been scored."]
    assert found["caveats"] == []


def test_three_subjects_tell_nothing_and_the_page_says_so(make_study):
    found = summary(make_study(n=1))
    assert found["headline"].startswith("3 subjects are too few to tell what an unseen site costs.")
    assert any("smallest corrected p that the test can give is 1.000" in c for c in found["caveats"])
    assert not any("80 % power" in c for c in found["caveats"])


def test_limits_state_subjects_power_domains_and_seeds(make_study):
    found = summary(make_study(seeds=[0]))
    told = " ".join(found["caveats"])
    assert "30 subjects in all (site: A 10, B 10, C 10)" in told
    assert "3 sites were held out" in told
    assert "One seed" in told
    assert "transforms none" in told


def test_small_but_significant_differences_are_called_overestimates(usual):
    found = copy.deepcopy(usual)
    assert not any("overestimated" in c for c in found["caveats"])
    for c in found["comparisons"]:
        if (c["a"], c["family"]) == ("dann/strong", "primary"):
            c["detectable"] = c["mean_difference"] + 0.001
            c["exaggeration"] = {"power": 0.4, "type_m": 1.62, "type_s": 0.0}
    told = [c for c in caveats(found) if c.startswith("dann/strong against erm/strong: smaller than")]
    assert told[0].endswith("overestimated, on average up to 1.6-fold.")


def test_numbers_are_printed_by_one_rule():
    assert number(-0.0314, 2, signed=True) == "−0.03"
    assert number(-0.0001) == number(0.0001, signed=True) == "0.000"
    assert number(math.nan) == number(None) == "–"
    assert p_value(0.0496) == "= 0.0496"  # not "0.050" beside the word "better"
    assert p_value(0.0504) == "= 0.050"
    assert p_value(0.0004) == "< 0.001"
    assert listed(["a", "b", "c"]) == "a, b and c"
    assert [plural(w) for w in ("site", "modality", "series", "day")] == ["sites", "modalities", "series", "days"]


def test_lines_do_not_break_within_an_interval():
    assert tied("0.5 [0.4, 0.6], p < 0.001, 5 %") == "0.5 [0.4,\u00a00.6], p\u00a0<\u00a00.001, 5\u00a0%"


@pytest.mark.parametrize(
    ("metric", "unit", "higher"), [("dice", "", True), ("gap mm", "mm", False), ("auroc", "", True)]
)
def test_unknown_metrics_are_read_from_their_names(metric, unit, higher):
    assert (scale(metric).unit, scale(metric).higher_is_better) == (unit, higher)


def test_many_pairs_without_a_difference_are_counted_as_pairs(make_study):
    rows = ["erm/none", "erm/strong", "dann/strong", "mldg/strong", "mldg/none"]
    folder = make_study(rows=rows, levels=dict.fromkeys(rows, 0.7))
    study = json.loads((folder / "study.json").read_text(encoding="utf-8"))
    study["references"] = {}
    (folder / "study.json").write_text(json.dumps(study), encoding="utf-8")
    told = text(summary(folder), "What does not")
    assert re.search(r"\d pairs \(erm/none against erm/strong, ", told)
    assert " rows (" not in told
    assert "not compared" not in told  # all are, with each other
