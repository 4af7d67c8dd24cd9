"""What stands behind the words: power, ranking, equivalence, domains, notes; against the statistics by hand."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from shiftproof.report import summary, table
from shiftproof.report.comparing import compared, verdict
from shiftproof.report.evidence import domain_table, equivalence_table, power_table, ranking_table
from shiftproof.report.findings import summarise
from shiftproof.report.numbers import scale
from shiftproof.report.results import Cell, Results
from shiftproof.statistics import interval, paired

COLUMNS = ["row", "held_out", "seed", "subject", "domain", "structure", "metric", "value", "status"]


def study(scores: pd.DataFrame, *, cells: list[Cell] | None = None, **facts: object) -> Results:
    """Results of a study with one structure, without references: all pairs of rows are what it asks.

    Args:
        scores: Index site and subject, a column a row; a row has no line where it is None, and a NaN is one. Both
            trainings of a row gave these, so that only subjects leave room for doubt.
    """
    rows = [
        (name, site, seed, subject, site, "organ", "dice", value, "ok")
        for name in scores
        for seed in (0, 1)
        for (site, subject), value in scores[name].items()
        if value is not None
    ]
    recipes = [{"name": name, "method": "erm", "role": "row"} for name in scores]
    sites = list(dict.fromkeys(scores.index.get_level_values(0)))
    declared = {"rows": recipes, "held_out": sites, "seeds": [0, 1], "references": {}, "primary": "dice"}
    return Results("study", declared | facts, pd.DataFrame(rows, columns=COLUMNS), cells=cells or [])


def drawn(shifts: dict[str, float], *, n: int = 12, sites: str = "AB", noise: float = 0.01, seed: int = 0):
    """Scores whose subjects are as hard for one row as for another."""
    random = np.random.default_rng(seed)
    index = pd.MultiIndex.from_tuples([(s, f"{s}-{i}") for s in sites for i in range(n)])
    hard = random.normal(0.8, 0.05, len(index))
    return pd.DataFrame({name: hard + shift + random.normal(0, noise, len(index)) for name, shift in shifts.items()},
                        index=index)  # fmt: skip


def of(found: dict, a: str, b: str) -> dict:
    return next(c for c in found["comparisons"] if (c["a"], c["b"]) == (a, b))


# Verdict ---------------------------------------------------------------------------------------------------


def test_the_corrected_interval_is_of_the_level_that_bonferroni_gives():
    scores = drawn({"a": 0, "b": 0.01, "c": 0.02})
    c = of(summarise(study(scores)), "a", "b")
    difference = scores["a"] - scores["b"]
    half = stats.t.ppf(1 - 0.05 / 3 / 2, len(difference) - 1) * difference.std(ddof=1) / math.sqrt(len(difference))
    assert c["family_size"] == 3
    assert c["low_corrected"] == pytest.approx(difference.mean() - half)
    assert c["high_corrected"] == pytest.approx(difference.mean() + half)
    assert c["low_corrected"] < c["low"] < c["high"] < c["high_corrected"]


def judged(mean: float, half: float, p: float, **options) -> str:
    """Verdict of a difference with that corrected interval."""
    c = paired(np.array([mean - 0.001, mean + 0.001, mean]), np.zeros(3))
    around = interval([mean - half, mean + half])
    around = type(around)(mean, mean - half, mean + half, 3, "t")
    return verdict(c, p, around, True, **options)


@pytest.mark.parametrize(
    ("mean", "half", "p", "margin", "expected"),
    [
        (0.03, 0.01, 0.01, 0.0, "better"),
        (-0.03, 0.01, 0.01, 0.0, "worse"),
        (0.03, 0.04, 0.01, 0.0, "no reliable difference"),  # p alone does not do
        (0.03, 0.01, 0.06, 0.0, "no reliable difference"),  # nor does the interval
        (0.03, 0.01, 0.01, 0.015, "better"),
        (0.03, 0.01, 0.01, 0.025, "no reliable difference"),  # may be less than what matters
        (0.03, 0.01, math.nan, 0.0, "not tested"),
    ],
)
def test_better_needs_p_and_all_of_the_corrected_interval_beyond_the_margin(mean, half, p, margin, expected):
    assert judged(mean, half, p, margin=margin) == expected


def test_equivalent_is_said_by_two_one_sided_tests_only():
    assert judged(0.001, 0.01, 0.5, margin=0.02, equal={"p_corrected": 0.01}) == "equivalent"
    assert judged(0.001, 0.01, 0.5, margin=0.02, equal={"p_corrected": 0.2}) == "no reliable difference"
    assert judged(0.001, 0.01, 0.5) == "no reliable difference"


def test_equivalence_is_corrected_for_the_family_and_needs_a_declared_margin():
    scores = drawn({"a": 0, "b": 0, "c": 0.05})
    found = summarise(study(scores, margin=0.02))
    c = of(found, "a", "b")
    tests = [stats.ttest_1samp(scores[a] - scores[b], bound, alternative=side).pvalue
             for a, b in (("a", "b"), ("a", "c"), ("b", "c"))
             for bound, side in ((-0.02, "greater"), (0.02, "less"))]  # fmt: skip
    larger = [max(pair) for pair in zip(tests[::2], tests[1::2], strict=True)]
    assert c["equivalence"]["p"] == pytest.approx(larger[0])
    assert c["equivalence"]["p_corrected"] == pytest.approx(min(1, 3 * min(larger)))
    assert c["verdict"] == "equivalent"
    assert of(found, "a", "c")["verdict"] == "worse"
    assert "equivalent within 0.020 Dice" in " ".join(found["answer"])
    assert "“Equivalent” needs two one-sided tests within ±0.020" in found["answer"][-1]
    assert equivalence_table(found)["lines"][0]["cells"][-1] == "equivalent"
    bare = summarise(study(scores))
    assert of(bare, "a", "b")["verdict"] == "no reliable difference"
    assert of(bare, "a", "b")["equivalence"] is None
    assert equivalence_table(bare) is None


@pytest.mark.parametrize("margin", [0, -1, None, "wide", math.nan, True, math.inf])
def test_a_margin_that_is_none_is_no_margin(margin):
    assert summarise(study(drawn({"a": 0, "b": 0}, n=3), margin=margin))["margin"] == 0.0


def test_a_difference_that_may_be_below_the_margin_is_said_to_be_so():
    found = summarise(study(drawn({"a": 0, "b": 0.02}), margin=0.018))
    assert of(found, "a", "b")["p_corrected"] < 0.001
    assert of(found, "a", "b")["verdict"] == "no reliable difference"
    assert found["winner"] is None


# Power -----------------------------------------------------------------------------------------------------


def test_the_power_statement_has_the_smallest_difference_that_so_many_subjects_show():
    scores = drawn({"a": 0, "b": 0.001}, noise=0.03)
    found = summarise(study(scores))
    sd = (scores["a"] - scores["b"]).std(ddof=1)
    low, high = found["power"]["detectable"]
    assert low == high
    nc, critical = low / sd * math.sqrt(24), stats.t.ppf(0.975, 23)
    assert stats.nct.sf(critical, 23, nc) + stats.nct.cdf(-critical, 23, nc) == pytest.approx(0.8, abs=1e-6)
    told = next(e["text"] for e in found["evidence"] if e["about"] == "Power")
    assert f"24 subjects show a true difference of {low:.3f} Dice in 8 of 10 such studies" in told
    assert f"would take {found['power']['undecided']['needed']} subjects" in told


def test_correction_makes_the_smallest_visible_difference_larger():
    found = summarise(study(drawn({"a": 0, "b": 0.001, "c": 0.002})))
    assert found["power"]["detectable_corrected"][0] > found["power"]["detectable"][0]
    assert "when corrected for 3 comparisons" in " ".join(found["answer"])


def test_the_pair_that_is_still_open_is_the_one_that_is_nearest_to_a_claim():
    noise, steady = drawn({"c": 0.0}, noise=0.05, seed=1)["c"], drawn({"a": 0.0, "b": 0.001}, noise=0.002)
    found = summarise(study(steady.assign(c=noise)))
    pairs = [c for c in found["comparisons"] if c["verdict"] == "no reliable difference"]
    assert len(pairs) == 3
    nearest = max(pairs, key=lambda c: abs(c["mean_difference"]) / c["sd"])
    assert found["power"]["undecided"]["b"] == nearest["b"]
    assert nearest["sd"] == min(c["sd"] for c in pairs)


def test_with_three_subjects_there_is_no_power_to_state():
    found = summarise(study(drawn({"a": 0, "b": 0.1}, n=3, sites="A")))
    assert found["power"] is None
    assert "Power" not in [e["about"] for e in found["evidence"]]


def test_a_find_of_a_small_study_comes_with_its_exaggeration():
    """Eight subjects, a difference of one SD: found now, and missed by half of such studies."""
    index = pd.MultiIndex.from_tuples([("A", f"s{i}") for i in range(8)])
    spread = np.array([-1.4, -0.9, -0.4, -0.1, 0.1, 0.4, 0.9, 1.4])
    step = 0.01 * (1 + spread / spread.std(ddof=1))
    scores = pd.DataFrame({"a": 0.8 + step, "b": np.full(8, 0.8)}, index=index)
    found = summarise(study(scores))
    c = of(found, "a", "b")
    assert c["verdict"] == "better"
    assert c["mean_difference"] < c["detectable"]
    random = np.random.default_rng(3)
    draws = random.normal(c["mean_difference"], c["sd"], (200_000, 8))
    t = draws.mean(1) / (draws.std(1, ddof=1) / math.sqrt(8))
    seen = np.abs(t) > stats.t.ppf(0.975, 7)
    assert c["exaggeration"]["type_m"] == pytest.approx(
        np.abs(draws.mean(1)[seen]).mean() / c["mean_difference"], rel=0.01
    )
    assert c["exaggeration"]["power"] == pytest.approx(seen.mean(), abs=0.005)


# Ranking ---------------------------------------------------------------------------------------------------


def test_shares_of_first_places_are_those_of_a_bootstrap_within_sites():
    scores = drawn({"a": 0.002, "b": 0.0, "c": -0.05})
    found = summarise(study(scores))
    random = np.random.default_rng(5)
    places = np.concatenate([o + random.integers(0, 12, (4000, 12)) for o in (0, 12)], axis=1)
    first = scores.to_numpy()[places].mean(1).argmax(1)
    assert found["ranking"]["first"]["a"] == pytest.approx((first == 0).mean(), abs=0.05)
    assert found["ranking"]["first"]["c"] == 0
    assert sum(found["ranking"]["first"].values()) == pytest.approx(1)


def test_draws_keep_as_many_subjects_of_each_site():
    """One row is better by much at A and worse by nearly as much at B: who draws from all has sites to blame."""
    scores = drawn({"a": 0.0, "b": 0.0}, noise=0.002)
    scores.loc["A", "a"] = (scores.loc["A", "a"] + 0.11).to_numpy()
    scores.loc["B", "a"] = (scores.loc["B", "a"] - 0.1).to_numpy()
    assert summarise(study(scores))["ranking"]["first"]["a"] > 0.99


def test_a_close_race_is_not_called_settled():
    found = summarise(study(drawn({"a": 0.0, "b": 0.0}, seed=2)))
    told = next(e["text"] for e in found["evidence"] if e["about"] == "Ranking")
    assert re.search(r"comes first in \d\d % of 1000 draws of other subjects of these domains, ", told)
    assert told.endswith("who is first is not settled.")


def test_friedmans_test_is_of_the_rows_without_upper_bounds(usual):
    order = usual["ranking"]
    assert order["friedman"]["k"] == 4
    assert not any(name.startswith("target") for name in order["first"])
    assert order["friedman"]["p"] < 0.001
    cd = stats.studentized_range.ppf(0.95, 4, np.inf) / math.sqrt(2) * math.sqrt(4 * 5 / (6 * order["friedman"]["n"]))
    assert order["nemenyi"]["cd"] == pytest.approx(cd, rel=1e-4)


def test_a_score_that_is_not_there_counts_as_the_worst_and_one_that_cannot_be_does_not():
    """Of "a" a site failed; of "b" a subject has no structure, and leaves for all rows."""
    scores = drawn({"a": 0.1, "b": 0.0, "c": -0.1}).astype(object)
    scores.loc[[("B", f"B-{i}") for i in range(12)], "a"] = None
    scores.loc[("A", "A-0"), "b"] = math.nan
    found = summarise(study(scores))
    assert found["ranking"]["n"] == 23
    assert found["ranking"]["rankings"]["b"]["mean then rank"] == 1
    assert "scores that are missing count as the worst, 0: a 12" in found["ranking"]["note"]
    assert "1 subject without a number in some row left out for all" in found["ranking"]["note"]


def test_one_row_is_not_ranked():
    found = summarise(study(drawn({"a": 0})))
    assert found["ranking"] is None
    assert found["mixed"] is None
    assert ranking_table(found) is None


# Domains ---------------------------------------------------------------------------------------------------


def test_loss_from_seen_to_unseen_sites_is_over_sites():
    scores = drawn({"a": 0, "b": 0}, sites="ABC")
    seen = {"A": 0.9, "B": 0.88, "C": 0.95}
    cells = [
        Cell("a", s, seed, "done", validation={"mean": v + seed * 0.01}) for s, v in seen.items() for seed in (0, 1)
    ]
    found = summarise(study(scores, cells=cells))
    row = found["rows"][0]
    lost = [v + 0.005 - scores["a"].loc[s].mean() for s, v in seen.items()]
    half = stats.t.ppf(0.975, 2) * np.std(lost, ddof=1) / math.sqrt(3)
    assert row["unseen"]["mean"] == pytest.approx(np.mean(lost))
    assert row["unseen"]["low"] == pytest.approx(np.mean(lost) - half)
    assert found["rows"][1]["unseen"] is None  # nothing is known of its validation
    assert domain_table(found)["lines"][1]["cells"][:3] == ["–", "–", "–"]


def test_two_sites_give_no_interval_over_sites():
    cells = [Cell("a", s, 0, "done", validation={"mean": 0.9}) for s in "AB"]
    lost = summarise(study(drawn({"a": 0, "b": 0}), cells=cells))["rows"][0]["unseen"]
    assert math.isfinite(lost["mean"])
    assert math.isnan(lost["low"])


def test_validation_is_not_set_against_a_metric_that_it_does_not_measure(make_study, usual):
    assert usual["rows"][0]["unseen"]["n"] == 3
    assert next(r for r in usual["rows"] if r["role"] == "target-supervised")["unseen"] is None
    assert summary(make_study(facts={"primary": "hd95 mm"}))["rows"][0]["unseen"] is None


def test_the_worst_site_comes_with_its_interval_and_how_often_it_is_the_worst():
    scores = drawn({"a": 0, "b": 0}, noise=0.0)
    scores.loc["B"] = (scores.loc["B"] - 0.2).to_numpy()
    row = summarise(study(scores))["rows"][0]
    assert row["worst"]["domain"] == "B"
    assert row["worst"]["share"]["B"] == 1.0
    assert row["worst"]["low"] < row["worst"]["mean"] < row["worst"]["high"]


def test_spread_is_of_subjects_and_its_tail_lies_where_it_is_bad(usual, make_study):
    scores = drawn({"a": 0, "b": 0})
    got, values = summarise(study(scores))["rows"][0]["spread"], scores["a"]
    assert got["sd"] == pytest.approx(values.std(ddof=1))
    assert [got[k] for k in ("lower", "median", "upper", "tail")] == pytest.approx(
        list(values.quantile([0.25, 0.5, 0.75, 0.05]))
    )
    assert got["worst"] == values.min()
    far = summary(make_study(facts={"primary": "hd95 mm"}))["rows"][0]["spread"]
    assert far["tail"] > far["upper"]
    assert far["worst"] >= far["tail"]


def test_the_mixed_model_has_a_mean_a_row_and_says_where_the_spread_lies(usual):
    means = {r["row"]: r["overall"]["mean"] for r in usual["rows"] if r["role"] == "row"}
    assert {row: m["mean"] for row, m in usual["mixed"]["means"].items()} == pytest.approx(means, abs=0.005)
    assert usual["mixed"]["sd"]["subject"] == pytest.approx(0.03, abs=0.012)  # as drawn
    assert all(0 <= m["low"] <= m["high"] <= 1 for m in usual["mixed"]["means"].values())


# Bad input: said in one line, the rest still done ------------------------------------------------------------


def test_subjects_that_rows_do_not_share_are_counted():
    scores = drawn({"a": 0, "b": 0.05, "c": 0}).astype(object)
    scores.loc[("A", "A-0"), "b"] = None
    scores.loc[("A", "A-1"), "b"] = None
    found = summarise(study(scores))
    assert "b: no score of 2 of the 24 subjects that other rows have." in found["notes"][0]
    assert of(found, "a", "b")["n"] == 22
    assert of(found, "a", "c")["n"] == 24
    assert of(found, "a", "b")["verdict"] == "worse"


@pytest.mark.parametrize(
    ("value", "expected"), [(math.nan, "b: 1 subject without a number"), (math.inf, "2 scores of infinite size")]
)
def test_scores_that_are_no_numbers_are_left_out_and_said(value, expected):
    scores = drawn({"a": 0, "b": 0})
    scores.loc[("A", "A-0"), "b"] = value
    found = summarise(study(scores))
    assert any(expected in note for note in found["notes"])
    assert of(found, "a", "b")["n"] == 23
    assert math.isfinite(found["rows"][1]["overall"]["mean"])


def test_ties_only_are_said_and_tested_no_further():
    scores = drawn({"a": 0, "b": 0, "c": 0.05})
    scores["b"] = scores["a"]
    found = summarise(study(scores, margin=0.01))
    assert "a and b: equal scores in every subject, so there is nothing to test." in found["notes"]
    assert of(found, "a", "b")["verdict"] == "no reliable difference"
    assert of(found, "a", "c")["verdict"] == "worse"
    assert found["winner"] == "c"


def test_one_subject_has_a_mean_and_nothing_else():
    found = summarise(study(drawn({"a": 0, "b": 0.1}, n=1, sites="A")))
    assert found["notes"] == ["One subject: there is no spread to see, so no interval, no test and no ranking."]
    assert math.isfinite(found["rows"][0]["overall"]["mean"])
    assert found["comparisons"][0]["verdict"] == "not tested"
    assert found["ranking"]["reason"]
    assert power_table(found) is None


def test_rows_without_a_common_subject_are_not_compared():
    scores = drawn({"a": 0, "b": 0}).astype(object)
    scores.loc[[("A", f"A-{i}") for i in range(12)], "a"] = None
    scores.loc[[("B", f"B-{i}") for i in range(12)], "b"] = None
    found = summarise(study(scores))
    assert of(found, "a", "b")["n"] == 0
    assert of(found, "a", "b")["verdict"] == "not tested"
    assert len(found["notes"]) == 1  # both rows lack 12


def test_scores_that_are_all_the_same_do_no_harm():
    index = pd.MultiIndex.from_tuples([(s, f"{s}{i}") for s in "AB" for i in range(4)])
    found = summarise(study(pd.DataFrame({"a": 0.5, "b": 0.5, "c": 0.5}, index=index), margin=0.1))
    assert found["winner"] is None
    assert found["mixed"]["reason"]
    assert "3 rows" not in found["notes"][0]
    assert "equal scores in every subject" in found["notes"][0]


def test_all_of_it_is_strict_json_and_short_in_the_terminal(usual):
    assert json.loads(json.dumps(usual, allow_nan=False)) == usual
    about = [e["about"] for e in usual["evidence"]]
    assert about[-4:] == ["Winner", "Ranking", "Power", "Tests"]
    assert len(table(usual)[1]) == len(table(usual)[2][0])


# A null study ------------------------------------------------------------------------------------------------

TWELVE = [{"name": f"erm #{k}", "role": "row"} for k in range(12)]


def claims_of(draws: int, *, shift: float = 0.0, first: int = 0) -> tuple[int, int]:
    """In how many null studies any of all 66 pairs is called different, and in how many one row beats all."""
    claimed = won = 0
    for seed in range(first, first + draws):
        random = np.random.default_rng(seed)
        names = [r["name"] for r in TWELVE]
        index = pd.MultiIndex.from_tuples([("A", f"s{i}") for i in range(12)], names=["held_out", "subject"])
        hard = random.beta(12, 3, (12, 1))  # left-skewed, as Dice is
        scores = hard + 0.02 * random.standard_t(4, (12, 12)) * (1.2 - hard)
        wide = pd.DataFrame(scores, index=index, columns=names)
        wide[names[0]] += shift
        verdicts = [c["verdict"] for c in compared(wide, TWELVE, {}, scale("dice"))]
        claimed += any(v in ("better", "worse") for v in verdicts)
        won += all(v == "better" for v in verdicts[:11])
    return claimed, won


def test_the_same_method_under_twelve_names_has_no_winner():
    claimed, won = claims_of(8)
    assert won == 0
    assert claimed <= stats.binom.ppf(0.999, 8, 0.05)


def test_a_row_that_is_better_by_much_is_found_among_twelve():
    assert claims_of(2, shift=0.3) == (2, 2)


@pytest.mark.slow
def test_false_claims_of_null_studies_stay_below_their_level():
    claimed, won = claims_of(300, first=1000)
    assert won == 0
    assert claimed <= stats.binom.ppf(0.99, 300, 0.05)


def test_the_page_of_a_null_study_marks_no_winner():
    from shiftproof.report.page import page

    results = study(drawn({r["name"]: 0.0 for r in TWELVE}, n=8, seed=11))
    found = summarise(results)
    assert found["winner"] is None
    assert "better than each other row" not in page(results)
    assert next(e["text"] for e in found["evidence"] if e["about"] == "Winner").startswith("None.")
