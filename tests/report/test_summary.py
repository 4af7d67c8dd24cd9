"""The numbers of a study: against NumPy and the statistics on scores that are put together here by hand."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from shiftproof.errors import RunError
from shiftproof.report import summary, table
from shiftproof.statistics import gap_closed, holm, interval, paired


@pytest.fixture
def found(usual):
    return usual


def subject_scores(rows: pd.DataFrame, row: str) -> pd.Series:
    """Mean over seeds of the mean over structures, the slow way."""
    own = rows[(rows["row"] == row) & (rows["metric"] == "dice")]
    found = {}
    for subject in sorted(own["subject"].unique()):
        mine = own[own["subject"] == subject]
        found[subject] = np.mean([np.nanmean(mine[mine["seed"] == s]["value"]) for s in sorted(mine["seed"].unique())])
    return pd.Series(found)


def of(found: dict, row: str) -> dict:
    return next(r for r in found["rows"] if r["row"] == row)


@pytest.fixture
def rows(make_rows):
    """The scores that the study of `found` was written from."""
    names = ["erm/none", "erm/strong", "dann/strong", "mldg/strong", "target-supervised/strong"]
    return make_rows(names, ["A", "B", "C"], [0, 1], 10)


def test_means_are_over_subjects(found, rows):
    expected = interval(subject_scores(rows, "erm/strong"))
    overall = of(found, "erm/strong")["overall"]
    assert (overall["mean"], overall["low"], overall["high"]) == pytest.approx(
        (expected.mean, expected.low, expected.high)
    )
    assert overall["n"] == 30
    here = subject_scores(rows[rows["held_out"] == "B"], "erm/strong")
    assert of(found, "erm/strong")["domains"]["B"]["mean"] == pytest.approx(here.mean())


def test_worst_domain_is_the_lowest_mean(found):
    row = of(found, "dann/strong")
    assert row["worst"]["domain"] == "C"
    assert row["worst"]["mean"] == pytest.approx(min(d["mean"] for d in row["domains"].values()))


def test_rows_are_compared_with_erm_of_the_same_transforms_and_erm_with_source_only(found):
    primary = {c["a"]: c["b"] for c in found["comparisons"] if c["family"] == "primary"}
    assert primary == {
        "erm/strong": "erm/none",
        "dann/strong": "erm/strong",
        "mldg/strong": "erm/strong",
        "target-supervised/strong": "erm/none",
    }


def p_over_trainings(rows: pd.DataFrame, a: str, b: str) -> float:
    """Welch's test of the mean over sites, each with trainings of its own, written out."""
    own = rows[rows["metric"] == "dice"].groupby(["row", "held_out", "seed", "subject"])["value"].mean()
    means = own.groupby(["row", "held_out", "seed"]).mean()
    difference, parts = 0.0, []
    for site in ("A", "B", "C"):  # as many subjects each
        first, second = means[a, site].to_numpy(), means[b, site].to_numpy()
        difference += (first.mean() - second.mean()) / 3
        parts += [first.var(ddof=1) / 2 / 9, second.var(ddof=1) / 2 / 9]
    freedom = sum(parts) ** 2 / sum(part**2 for part in parts)
    return float(2 * stats.t.sf(abs(difference) / np.sqrt(sum(parts)), freedom))


def test_differences_are_paired_and_corrected_within_their_family(found, rows):
    primary = [c for c in found["comparisons"] if c["family"] == "primary"]
    expected = [paired(subject_scores(rows, c["a"]), subject_scores(rows, c["b"])) for c in primary]
    assert [c["mean_difference"] for c in primary] == pytest.approx([e.mean_difference for e in expected])
    assert [c["p"] for c in primary] == [e.p for e in expected]
    over = [p_over_trainings(rows, c["a"], c["b"]) for c in primary]
    assert [c["trainings"]["p"] for c in primary] == pytest.approx(over)
    larger = [max(e.p, p) for e, p in zip(expected, over, strict=True)]
    assert [c["p_corrected"] for c in primary] == pytest.approx(holm(larger))
    between = [c for c in found["comparisons"] if c["family"] == "between rows"]
    assert len(between) == 6  # all pairs of four rows, the upper bound left out
    assert {c["family_size"] for c in between} == {6}


def test_gap_closed_is_against_source_only_and_the_bound(found, rows):
    expected = gap_closed(*(subject_scores(rows, r) for r in ("dann/strong", "erm/none", "target-supervised/strong")))
    gap = of(found, "dann/strong")["gap_closed"]
    assert (gap["value"], gap["low"], gap["high"]) == pytest.approx((expected.value, expected.low, expected.high))
    assert of(found, "erm/none")["gap_closed"] is None
    assert of(found, "target-supervised/strong")["gap_closed"] is None


def test_failures_are_counted_once_a_structure(found):
    failures = of(found, "erm/none")["failures"]
    # 3 sites x 10 subjects x 3 structures x 2 seeds; in both seeds a structure is missed and one is empty.
    assert failures == {"scored": 180, "missed": 2, "spurious": 0, "both empty": 2}


def test_selected_is_the_best_on_training_domains_not_on_held_out_ones(make_study):
    """dann has the best validation; here erm is made better where it was held out."""
    found = summary(make_study(levels={"erm/strong": 0.8}))
    assert found["leader"] == "erm/strong"
    assert found["selected"] == "dann/strong"
    assert of(found, "dann/strong")["validation"] == pytest.approx(0.885)  # 0.89 and 0.88


def test_a_row_with_a_failed_cell_is_not_selected(make_study):
    found = summary(make_study(failed=[("dann/strong", "B", 1)]))
    assert found["selected"] == "erm/strong"
    assert of(found, "dann/strong")["cells"] == {"done": 5, "failed": 1, "not run": 0}


def test_a_row_that_adapts_is_not_selected(make_study):
    study = make_study()
    facts = json.loads((study / "study.json").read_text())
    facts["rows"][2]["target"] = True
    (study / "study.json").write_text(json.dumps(facts))
    found = summary(study)
    assert found["selected"] == "erm/strong"
    assert of(found, "dann/strong")["setting"] == "adaptation: unlabelled target images"


def test_a_failed_domain_is_left_out_of_that_rows_pairs_only(make_study):
    found = summary(make_study(failed=[("mldg/strong", "C", 0), ("mldg/strong", "C", 1)]))
    assert of(found, "mldg/strong")["covers"] == ["A", "B"]
    assert of(found, "mldg/strong")["difference"]["n"] == 20
    assert of(found, "dann/strong")["difference"]["n"] == 30
    assert found["leader"] != "mldg/strong"


def test_the_leader_of_few_domains_is_no_leader(make_study):
    """A row that was only scored where it is easy has the best mean, and is not called so."""
    failed = [("mldg/strong", site, seed) for site in "BC" for seed in (0, 1)]
    found = summary(make_study(failed=failed, levels={"mldg/strong": 0.78}))
    best = max(found["rows"][:4], key=lambda r: r["overall"]["mean"])["row"]
    assert best == "mldg/strong"
    assert found["leader"] == "dann/strong"


def test_a_failed_seed_is_not_taken_for_variation_between_seeds(make_study):
    whole, broken = summary(make_study("a")), summary(make_study("b", failed=[("mldg/strong", "C", 1)]))
    spread = of(broken, "mldg/strong")["seed_sd"]
    assert spread == pytest.approx(of(whole, "mldg/strong")["seed_sd"], abs=0.01)


def test_seeds_do_not_multiply_subjects(make_study):
    assert of(summary(make_study(seeds=[0, 1, 2])), "erm/none")["overall"]["n"] == 30


def test_distances_are_better_when_smaller(make_study):
    found = summary(make_study(facts={"primary": "hd95 mm"}))
    assert of(found, "erm/strong")["difference"]["mean_difference"] < 0
    assert of(found, "erm/strong")["difference"]["verdict"] == "better"
    worst = of(found, "erm/strong")["worst"]
    assert worst["mean"] == max(d["mean"] for d in of(found, "erm/strong")["domains"].values())


def test_signed_errors_do_not_cancel(make_study):
    """Volume errors are drawn around 0; their sizes are not around 0."""
    found = summary(make_study(facts={"primary": "volume error ml"}))
    assert of(found, "erm/none")["overall"]["mean"] > 4


def test_intervals_stay_where_scores_can_be(make_study):
    found = summary(make_study(sites=["A"], n=2))
    overall = of(found, "erm/none")["overall"]
    assert overall["low"] >= 0
    assert overall["high"] <= 1


def test_summary_is_strict_json(found):
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_terminal_table_has_a_cell_for_each_column(found):
    title, columns, lines = table(found)
    assert "Dice" in title
    assert len({len(columns), *(len(line) for line in lines)}) == 1
    line = next(line for line in lines if line[0] == "dann/strong *")
    overall = of(found, "dann/strong")["overall"]
    assert line[columns.index("all (n = 30)")] == f"{overall['mean']:.3f} [{overall['low']:.3f}, {overall['high']:.3f}]"
    assert line[columns.index("gap closed")].startswith(
        f"{100 * of(found, 'dann/strong')['gap_closed']['value']:.0f} %"
    )


def test_a_folder_of_something_else_is_named(tmp_path):
    with pytest.raises(RunError, match=r"no study.json and no evaluation.json, expected"):
        summary(tmp_path)


def test_a_broken_description_is_named(tmp_path):
    (tmp_path / "study.json").write_text('{"name": ')
    with pytest.raises(RunError, match=r"study.json cannot be read"):
        summary(tmp_path)
