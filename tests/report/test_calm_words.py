"""The words stay few and say no more than the numbers: many rows, harm, rows without scores, one subject."""

from __future__ import annotations

import re

import pytest

from shiftproof.report import report, reported, summary
from shiftproof.report.evidence import mixed_table
from shiftproof.report.words import SENTENCES

ROWS = ["erm/none", "erm/strong", "dann/strong", "target-supervised/strong"]


def text(found: dict, about: str) -> str:
    return next((e["text"] for e in found["evidence"] if e["about"] == about), "")


def test_a_row_that_does_harm_is_in_the_headline(make_study):
    found = summary(make_study(seeds=[0, 1, 2], rows=ROWS, levels={"erm/strong": 0.69, "dann/strong": 0.5}))
    assert "No row is reliably better than its reference; dann/strong is reliably worse." in found["headline"]
    assert text(found, "What helps") == ""  # the headline says it once


def test_harm_is_told_beside_help(make_study):
    found = summary(make_study(seeds=[0, 1, 2], rows=ROWS, levels={"dann/strong": 0.6}))
    assert "erm/strong does better than source-only (erm/none)" in found["headline"]
    assert found["headline"].endswith("dann/strong is reliably worse than its reference.")


def test_a_row_without_scores_is_not_taken_for_one_that_does_not_help(make_study):
    failed = [("dann/strong", site, 0) for site in "ABC"]
    found = summary(make_study(seeds=[0], rows=ROWS, failed=failed))
    assert found["headline"].endswith("dann/strong has no scores.")


def test_many_rows_share_a_sentence(make_study):
    """Twenty rows that do nothing are not twenty sentences with their intervals; one that does harm has its own."""
    many = [f"m{i:02d}/strong" for i in range(20)]
    levels = dict.fromkeys(many, 0.765) | {"m07/strong": 0.6}
    found = summary(make_study(seeds=[0, 1, 2], rows=[*ROWS[:2], *many, ROWS[-1]], levels=levels))
    told = text(found, "What does not")
    assert re.search(r"m07/strong does not beat ERM .* reliably worse, −0\.1\d\d \[", told)
    assert re.search(r"No reliable difference: 1\d rows \(m00/strong, .* …\)\.", told)
    assert told.count("[") <= SENTENCES
    assert len(told) < 700


def test_no_share_of_the_gap_where_the_test_found_no_gain_on_source_only(make_study):
    """A ratio's bootstrap can leave 0 out where the corrected test does not: the two would contradict each other."""
    found = summary(make_study(seeds=[0], sites=["A"], levels={"erm/strong": 0.712}))
    c = next(c for c in found["comparisons"] if c["a"] == "erm/strong" and c["family"] == "primary")
    gap = next(r["gap_closed"] for r in found["rows"] if r["row"] == "erm/strong")
    assert (c["b"], c["verdict"]) == ("erm/none", "no reliable difference")
    assert gap["low"] > 0
    told = text(found, "What does not")
    assert "erm/strong does not beat source-only (erm/none): no reliable difference" in told
    assert "of the gap" not in told.split("dann/strong")[0]


def test_one_subject_has_no_p(make_study):
    study = make_study(seeds=[0], sites=["A"], n=1)
    found = summary(study)
    assert all("p =" not in line and "p <" not in line for line in found["answer"])
    assert text(found, "Tests") == ""
    assert text(found, "Winner").endswith("too few subjects to test.")
    main = report(study).read_text().split('<table class="main">')[1].split("</table>")[0]
    assert "1.000" not in main


def test_too_few_for_so_many_comparisons_is_said_so(make_study):
    """Seven subjects can show one difference, and not the smallest of four."""
    found = summary(make_study(seeds=[0], sites=["A"], n=7))
    assert found["headline"].startswith("7 subjects are too few, for 4 comparisons, to tell what an unseen site costs.")


def test_what_would_mostly_be_missed_is_much_smaller(usual):
    """At 80 % power for a difference, one of 0.7 of it is still found every other time."""
    assert "much smaller ones would mostly be missed" in text(usual, "Power")


def test_shares_of_draws_are_not_rounded_to_all_or_none(usual):
    from shiftproof.report.certainty import ranking_text

    found = {**usual, "winner": None, "ranking": {**usual["ranking"], "first": {"a": 0.998, "b": 0.002}}}
    told = ranking_text(found)
    assert told.startswith(
        "a comes first in more than 99 % of 1000 draws of other subjects of these sites. To be first"
    )
    assert "0 %" not in told.removeprefix("a comes first in more than 99 % of 1000")


def test_the_drop_names_transforms_that_differ(usual):
    assert "Their transforms differ, too (none, strong)." in text(usual, "The drop")


def test_an_interval_that_is_the_whole_scale_is_none(make_study):
    """Two sites that differ say nothing of a third: a t interval of one degree of freedom reaches beyond 0 and 1."""
    found = summary(make_study(seeds=[0], rows=ROWS, sites=["A", "B"]))
    for m in found["mixed"]["means"].values():
        m |= {"low": 0.0, "high": 1.0}
    of = mixed_table(found)
    assert {line["cells"][1] for line in of["table"]["lines"]} == {"–"}
    assert "f 2 sites an interval would be the whole scale" in of["said"]
    found["mixed"]["means"]["erm/none"] |= {"low": 0.1, "high": 0.9}
    assert mixed_table(found)["table"]["lines"][0]["cells"][1] == "[0.100, 0.900]"


def test_each_region_has_a_name_of_its_own(usual_study):
    regions = re.findall(r'role="region" aria-label="([^"]*)"', report(usual_study).read_text())
    assert len(regions) == len(set(regions)) > 5


def test_the_page_and_its_numbers_are_computed_once(usual_study, usual, monkeypatch):
    from shiftproof.report import page

    calls = []
    summarise = page.summarise
    monkeypatch.setattr(page, "summarise", lambda results: calls.append(results) or summarise(results))
    path, found = reported(usual_study)
    assert path == usual_study / "report.html"
    assert len(calls) == 1
    assert found["answer"] == usual["answer"]


def test_the_command_computes_them_once(usual_study, monkeypatch, capsys):
    import shiftproof.report as package
    from shiftproof.cli.report import report as command

    monkeypatch.setattr(package, "summary", lambda folder: pytest.fail("computed again"))
    command(usual_study, viewer=False, json=False)
    assert "Unseen sites cost" in capsys.readouterr().out


def test_a_negative_validation_score_is_explained(usual):
    from shiftproof.report.words import selected_text

    rows = [r | ({"validation": -3.912} if r["row"] == usual["selected"] else {}) for r in usual["rows"]]
    assert "with −3.912 there (of errors the negative: larger is better)." in selected_text({**usual, "rows": rows})
    assert "larger is better" not in text(usual, "Selected")


def test_one_site_has_no_worst(make_study):
    page = report(make_study(seeds=[0], sites=["A"], n=4)).read_text()
    assert "<summary>Seen and unseen site</summary>" in page
    assert "Worst in draws" not in page
