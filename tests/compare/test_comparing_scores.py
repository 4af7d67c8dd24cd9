"""Numbers and verdicts of a comparison, against scipy, statsmodels and a published reference; and what it refuses."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import ttost_paired

from shiftproof.compare import Scores, compare
from shiftproof.compare.pairs import compared
from shiftproof.compare.question import MOST_METHODS, asked, digits_for
from shiftproof.errors import OptionError

# Dice x 1000 of 20 cases, from the project's catalogue: t = 4.2553, p = 0.000428; exact sign-flip p = 0.000620.
FIRST = [912, 887, 934, 905, 861, 923, 848, 897, 915, 882, 930, 876, 902, 893, 918, 869, 926, 881, 909, 899]
SECOND = [905, 889, 921, 897, 866, 915, 829, 893, 912, 871, 929, 868, 905, 880, 911, 853, 921, 884, 898, 895]


def table(path: Path, scores: dict[str, list[float]], subjects: list[str] | None = None) -> Path:
    """A wide CSV."""
    n = len(next(iter(scores.values())))
    pd.DataFrame({"subject": subjects or [f"s{i}" for i in range(n)], **scores}).to_csv(path, index=False)
    return path


def drawn(n: int, k: int, *, seed: int, gains: list[float] | None = None) -> dict[str, list[float]]:
    random = np.random.default_rng(seed)
    subject = random.beta(12, 3, size=n)
    shift = gains or [0.0] * k
    return {f"m{i}": list(np.round(subject + shift[i] + random.normal(0, 0.02, n), 6)) for i in range(k)}


def scores_of(values: dict[str, list[float]]) -> Scores:
    tidy = [(m, f"s{i}", "", "", v) for m, own in values.items() for i, v in enumerate(own)]
    return Scores(pd.DataFrame(tidy, columns=["method", "subject", "domain", "seed", "value"]), "dice")


def verdicts(values: dict[str, list[float]], **options) -> list[str]:
    question, _ = asked(scores_of(values), **options)
    means = {m: float(np.nanmean(v)) for m, v in values.items()}
    return [p["verdict"] for p in compared(scores_of(values), question, means)]


def test_the_reference_data_give_the_published_numbers(tmp_path):
    found = compare([table(tmp_path / "x.csv", {"B": SECOND, "A": FIRST})])
    (p,) = found["pairs"]
    assert (p["a"], p["b"], p["n"]) == ("A", "B", 20)
    assert p["mean_difference"] == pytest.approx(6.25)
    assert p["sd"] == pytest.approx(6.57, abs=0.005)
    assert p["d_z"] == pytest.approx(0.952, abs=0.0005)
    assert p["correlation"] == pytest.approx(0.966, abs=0.0005)
    assert (p["low"], p["high"]) == pytest.approx((3.18, 9.32), abs=0.005)
    assert p["p"] == pytest.approx(0.000620, abs=5e-7)
    assert p["rank_biserial"] == pytest.approx(0.824, abs=0.0005)
    assert p["hodges_lehmann"] == 6.0
    assert p["verdict"] == "better"
    assert found["headline"].startswith("A is better than B: +6.")


def test_p_is_corrected_for_all_pairs_and_intervals_for_their_number(tmp_path):
    values = drawn(16, 4, seed=1, gains=[0, 0.01, 0.02, 0.03])
    found = compare([table(tmp_path / "x.csv", values)])
    pairs = found["pairs"]
    assert len(pairs) == 6
    expected = multipletests([p["p"] for p in pairs], method="holm")[1]
    assert [p["p_corrected"] for p in pairs] == pytest.approx(list(expected))
    for p in pairs:
        difference = np.subtract(values[p["a"]], values[p["b"]])
        around = stats.ttest_1samp(difference, 0).confidence_interval(1 - 0.05 / 6)
        assert (p["low_corrected"], p["high_corrected"]) == pytest.approx(tuple(around))


@pytest.mark.parametrize(("rule", "theirs"), [("hommel", "hommel"), ("benjamini-hochberg", "fdr_bh")])
def test_another_correction_can_be_chosen(tmp_path, rule, theirs):
    found = compare([table(tmp_path / "x.csv", drawn(12, 3, seed=2))], rule=rule)
    expected = multipletests([p["p"] for p in found["pairs"]], method=theirs)[1]
    assert [p["p_corrected"] for p in found["pairs"]] == pytest.approx(list(expected))


def test_with_a_reference_each_other_method_is_compared_with_it_only(tmp_path):
    found = compare([table(tmp_path / "x.csv", drawn(12, 4, seed=2))], reference="m2")
    assert [(p["a"], p["b"]) for p in found["pairs"]] == [("m0", "m2"), ("m1", "m2"), ("m3", "m2")]
    assert {p["family_size"] for p in found["pairs"]} == {3}


def test_equivalence_is_the_larger_of_two_one_sided_tests(tmp_path):
    values = drawn(30, 2, seed=4)
    found = compare([table(tmp_path / "x.csv", values)], margin=0.02)
    (p,) = found["pairs"]
    theirs, *_ = ttost_paired(np.array(values[p["a"]]), np.array(values[p["b"]]), -0.02, 0.02)
    assert p["equivalence"]["p"] == pytest.approx(theirs)
    assert p["verdict"] == "equivalent"
    assert "equivalent within 0.02" in found["headline"]


@pytest.mark.parametrize("higher", [True, False])
def test_a_method_that_may_be_better_but_is_not_worse_by_the_margin_is_said_to_be_so(tmp_path, higher):
    difference = np.array([0.05, -0.01, 0.06, 0.0, 0.03, -0.02, 0.05, 0.01])  # in favour of the new one
    new = 0.8 + difference if higher else 0.8 - difference
    path = table(tmp_path / "x.csv", {"new": list(np.round(new, 6)), "old": [0.8] * 8})
    found = compare([path], margin=0.02, reference="old", higher_is_better=higher)
    (p,) = found["pairs"]
    theirs = stats.ttest_1samp(difference, -0.02, alternative="greater").pvalue
    assert p["p_no_worse"] == pytest.approx(theirs)
    assert p["verdict"] == "no reliable difference"
    assert "Not worse than old by 0.02" in " ".join(found["answer"])


def test_a_difference_that_is_reliable_and_too_small_to_matter_is_no_gain():
    values = {"m0": [x / 1000 for x in FIRST], "m1": [x / 1000 for x in SECOND]}  # interval 0.0032 to 0.0093
    assert verdicts(values) == ["better"]
    assert verdicts(values, margin=0.002) == ["better"]
    assert verdicts(values, margin=0.005) == ["no reliable difference"]
    assert verdicts(values, margin=0.02) == ["equivalent"]


def test_which_way_is_better_goes_by_the_metric_or_by_what_is_said(tmp_path):
    path = tmp_path / "x.csv"
    rows = [(f"s{i}", m, v) for m, values in (("A", FIRST), ("B", SECOND)) for i, v in enumerate(values)]
    pd.DataFrame(rows, columns=["subject", "method", "hd95"]).to_csv(path, index=False)
    assert compare([path])["headline"].startswith("B is better than A: −6.")
    assert compare([path], higher_is_better=True)["headline"].startswith("A is better than B: +6.")
    unknown = compare([table(tmp_path / "y.csv", {"A": FIRST, "B": SECOND})])
    assert any("assumed that a higher score is better" in note for note in unknown["notes"])


def test_pairs_use_the_subjects_that_both_have_and_the_rest_is_said(tmp_path):
    values = {m: list(v) for m, v in drawn(12, 3, seed=5).items()}
    values["m0"][3] = values["m1"][7] = math.nan
    found = compare([table(tmp_path / "x.csv", values)])
    n = {frozenset((p["a"], p["b"])): p["n"] for p in found["pairs"]}
    assert n == {frozenset(("m0", "m1")): 10, frozenset(("m0", "m2")): 11, frozenset(("m1", "m2")): 11}
    assert any("m0 has no score of 1 of 12 subjects (s3)" in note for note in found["notes"])
    assert found["subjects"] == {"all": 12, "scored by all": 10}


def test_a_missing_score_can_count_as_a_failure(tmp_path):
    values = {"A": [0.9] * 5 + [math.nan], "B": [0.8, 0.7, 0.8, 0.9, 0.6, 0.7]}
    found = compare([table(tmp_path / "x.csv", values)], missing=0)
    assert found["methods"][0]["mean"] == pytest.approx(0.75)
    assert found["pairs"][0]["n"] == 6
    assert any("missing scores count as 0: A 1" in note for note in found["notes"])


def test_a_method_without_any_score_is_said_and_the_rest_compared(tmp_path):
    values = {**drawn(8, 3, seed=14), "void": [math.nan] * 8}
    found = compare([table(tmp_path / "x.csv", values)], methods=["m0", "m1", "m2"])
    path = tmp_path / "y.csv"
    pd.DataFrame(values).rename_axis("subject").reset_index().melt("subject", var_name="method").to_csv(
        path, index=False
    )
    with_void = compare([path], out=tmp_path / "out")
    tested = [p for p in with_void["pairs"] if "void" not in (p["a"], p["b"])]
    assert [p["p_corrected"] for p in tested] == [p["p_corrected"] for p in found["pairs"]]
    assert {p["verdict"] for p in with_void["pairs"] if p not in tested} == {"not tested"}
    assert with_void["ranking"]["first"] == found["ranking"]["first"]
    assert any("void has no score" in note for note in with_void["notes"])


def test_methods_without_a_common_subject_get_numbers_and_no_verdict(tmp_path):
    a, b = FIRST[:10], SECOND[10:]
    rows = [(f"a{i}", "A", v) for i, v in enumerate(a)] + [(f"b{i}", "B", v) for i, v in enumerate(b)]
    pd.DataFrame(rows, columns=["subject", "method", "value"]).to_csv(tmp_path / "x.csv", index=False)
    found = compare([tmp_path / "x.csv"])
    (p,) = found["pairs"]
    assert p["n"] == 0
    assert p["verdict"] == "not tested"
    sides = (a, b) if p["a"] == "A" else (b, a)
    assert p["unpaired"]["p"] == pytest.approx(stats.ttest_ind(*sides, equal_var=False).pvalue)
    assert "share no subject" in found["headline"]


def test_one_method_on_other_subjects_ends_the_ranking_and_nothing_else(tmp_path):
    rows = [
        (f"{'t' if m == 'C' else 's'}{i}", m, v) for m in "ABC" for i, v in enumerate(FIRST if m == "A" else SECOND)
    ]
    pd.DataFrame(rows, columns=["subject", "method", "value"]).to_csv(tmp_path / "x.csv", index=False)
    found = compare([tmp_path / "x.csv"])
    assert found["ranking"] is None
    assert found["unranked"] == "A and C share no subject"
    assert [p["verdict"] for p in found["pairs"]].count("not tested") == 2
    assert [p["n"] for p in found["pairs"]].count(20) == 1


@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("kind", ["spread", "tied", "constant"])
def test_tables_that_are_too_small_or_all_ties_are_described_without_a_claim(tmp_path, k, n, kind):
    spread = {"spread": drawn(n, k, seed=6), "tied": {f"m{i}": FIRST[:n] for i in range(k)},
              "constant": {f"m{i}": [1.0] * n for i in range(k)}}  # fmt: skip
    found = compare([table(tmp_path / "x.csv", spread[kind])], margin=0.01, out=tmp_path / "out")
    assert not [p for p in found["pairs"] if p["verdict"] in ("better", "worse")]
    assert found["headline"]
    json.dumps(found, allow_nan=False)
    assert (tmp_path / "out" / "compare.html").stat().st_size > 10_000


def test_friedman_and_ranks_come_with_three_methods(tmp_path):
    values = drawn(20, 3, seed=7, gains=[0, 0.05, 0.2])
    ranking = compare([table(tmp_path / "x.csv", values)])["ranking"]
    theirs = stats.friedmanchisquare(*values.values())
    assert ranking["friedman"]["chi2"] == pytest.approx(theirs.statistic)
    assert ranking["friedman"]["p"] == pytest.approx(theirs.pvalue)
    assert ranking["first"]["m2"] == 1.0
    assert compare([table(tmp_path / "y.csv", drawn(20, 2, seed=7))])["ranking"] is None


def test_a_structure_that_is_rightly_absent_costs_no_rank():
    values = drawn(20, 3, seed=8, gains=[0.1, 0, 0])
    values["m0"][4] = math.nan
    from shiftproof.compare.many import ranked

    scores = scores_of(values)
    failed = ranked(scores, asked(scores)[0]).stability
    absent = Scores(scores.tidy, "dice", undefined=[("", "s4")])
    assert failed.n == 20
    assert ranked(absent, asked(absent)[0]).stability.n == 19


def test_equal_methods_are_called_different_no_more_often_than_allowed():
    """20 draws of 4 equal methods: a claim in 1 of them is expected, in more than 5 of them in 1 of 3000 such tests."""
    draws = [verdicts(drawn(9, 4, seed=100 + draw)) for draw in range(20)]
    assert sum("better" in v or "worse" in v for v in draws) <= 5


def test_a_large_gain_is_found():
    assert "better" in verdicts(drawn(20, 2, seed=9, gains=[0, 0.05]))


def test_equal_scores_give_equal_results_byte_for_byte(tmp_path):
    path = table(tmp_path / "x.csv", drawn(55, 3, seed=10))
    for out in ("one", "two"):
        compare([path], out=tmp_path / out)
    for name in ("compare.html", "compare.json", "scores.csv"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_what_was_compared_can_be_read_and_compared_again(tmp_path):
    first = compare([table(tmp_path / "x.csv", drawn(12, 3, seed=11))], out=tmp_path / "out")
    again = compare([tmp_path / "out" / "scores.csv"])
    assert again["pairs"] == first["pairs"]
    written = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert written == json.loads(json.dumps(first))


@pytest.mark.parametrize(("options", "expected"), [
    ({"reference": "m7"}, 'no method "m7"'),
    ({"methods": ["m0", "x"]}, 'no method "x"'),
    ({"rule": "tukey"}, 'no correction "tukey"'),
    ({"margin": -1.0}, "0 or more"),
    ({"level": 1.0}, "between 0 and 0.5"),
    ({"metric": "hd95"}, None),
])  # fmt: skip
def test_settings_that_do_not_fit_are_answered(tmp_path, options, expected):
    path = table(tmp_path / "x.csv", drawn(5, 3, seed=12))
    if expected is None:  # a table that names no metric takes the name that it is given
        assert compare([path], **options)["metric"]["higher_is_better"] is False
        return
    with pytest.raises(OptionError, match=expected):
        compare([path], **options)


def test_too_many_methods_for_all_pairs_need_a_reference_or_a_choice(tmp_path):
    path = table(tmp_path / "x.csv", drawn(4, MOST_METHODS + 1, seed=13))
    with pytest.raises(OptionError, match="--reference"):
        compare([path])
    assert len(compare([path], reference="m0")["pairs"]) == MOST_METHODS
    assert len(compare([path], methods=["m3", "m1", "m2"])["pairs"]) == 3


def test_domains_give_a_worst_one_and_a_mixed_model(tmp_path):
    rows = [(f"{site}{i}", site, m, 0.8 - 0.1 * (site == "Y") + 0.01 * i + 0.003 * (m == "A") * i)
            for site in "XY" for i in range(6) for m in "AB"]  # fmt: skip
    pd.DataFrame(rows, columns=["subject", "site", "method", "dice"]).to_csv(tmp_path / "x.csv", index=False)
    found = compare([tmp_path / "x.csv"])
    worst = found["methods"][0]["worst"]
    assert (worst["domain"], worst["n"]) == ("Y", 6)
    own = [v for s, d, m, v in rows if (d, m) == ("Y", found["methods"][0]["method"])]
    assert worst["mean"] == pytest.approx(np.mean(own))
    assert found["mixed"]["sd"]["site"] > 0.03
    assert any(e["about"] == "By site" for e in found["evidence"])


@pytest.mark.parametrize(("spread", "digits"), [(0.1, 3), (0.02, 4), (25.0, 1), (5.0, 1), (1000.0, 0), (0.0, 3)])
def test_digits_follow_the_spread(spread, digits):
    assert digits_for(np.array([-spread, spread])) == digits


def test_percent_are_not_cut_off_at_one(tmp_path):
    path = tmp_path / "x.csv"
    pd.DataFrame({"subject": ["a", "b", "c"], "method": "A", "dice": [85.0, 90.0, 80.0]}).to_csv(path, index=False)
    (method,) = compare([path])["methods"]
    assert method["low"] < method["mean"] < method["high"]
