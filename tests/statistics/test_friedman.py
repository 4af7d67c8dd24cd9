"""Friedman's test and the pairs after it, against Demšar's worked example, scipy and enumeration."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from shiftproof.errors import OptionError
from shiftproof.statistics import friedman, holm, nemenyi, wilcoxon_holm

# J. Demšar, JMLR 7 (2006), table 6: ranks of four variants of C4.5 on 14 data sets.
DEMSAR = pd.DataFrame(
    [
        [4, 3, 2, 1], [1, 2, 3, 4], [4, 1, 2, 3], [4, 1, 3, 2], [4, 2, 3, 1], [1, 2.5, 4, 2.5], [3, 2, 4, 1],
        [2.5, 2.5, 4, 1], [4, 3, 2, 1], [2.5, 2.5, 2.5, 2.5], [4, 2.5, 1, 2.5], [3, 2, 4, 1], [4, 1, 2, 3],
        [3, 1, 4, 2],
    ],
    columns=["C4.5", "C4.5+m", "C4.5+cf", "C4.5+m+cf"],
)  # fmt: skip


def scores(n: int, k: int, *, seed: int = 0, step: float = 0.0, digits: int = 9) -> pd.DataFrame:
    """Subjects that are hard or easy for all methods; each method better than the one before by `step`."""
    random = np.random.default_rng(seed)
    values = random.normal(0.8, 0.05, (n, 1)) + random.normal(0, 0.02, (n, k)) + step * np.arange(k)
    return pd.DataFrame(values.round(digits), [f"s{i}" for i in range(n)], [f"m{i}" for i in range(k)])


def test_demsars_example_comes_out_as_printed():
    found = friedman(DEMSAR, higher_is_better=False, ties=False)
    assert [round(found.mean_ranks[m], 3) for m in DEMSAR.columns] == [3.143, 2.000, 2.893, 1.964]
    assert found.chi2 == pytest.approx(9.28, abs=0.005)
    assert found.f == pytest.approx(3.69, abs=0.005)
    assert found.f > stats.f.ppf(0.95, 3, 39)  # 2.85 in the paper: the hypothesis is rejected
    assert (found.n, found.k, found.reason) == (14, 4, "")


def test_demsars_critical_differences_come_out_as_printed():
    means = friedman(DEMSAR, higher_is_better=False).mean_ranks
    assert nemenyi(means, 14).cd == pytest.approx(1.25, abs=0.005)
    strict, loose = nemenyi(means, 14), nemenyi(means, 14, 0.10)
    assert loose.cd == pytest.approx(1.12, abs=0.005)
    # "Since even the difference between the best and the worst is already smaller than that ... at p = 0.05";
    # at 0.10 C4.5 is apart from both variants that tune m.
    assert strict.groups == [["C4.5+m+cf", "C4.5+m", "C4.5+cf", "C4.5"]]
    assert loose.groups == [["C4.5+m+cf", "C4.5+m", "C4.5+cf"], ["C4.5+cf", "C4.5"]]


@pytest.mark.parametrize(("digits", "k"), [(9, 3), (2, 5), (1, 4)])
def test_chi2_is_scipys_with_and_without_ties(digits, k):
    wide = scores(17, k, digits=digits, step=0.01)
    found, theirs = friedman(wide), stats.friedmanchisquare(*wide.to_numpy().T)
    assert (found.chi2, found.p) == pytest.approx((theirs.statistic, theirs.pvalue))


def test_f_is_the_anova_of_ranks():
    statsmodels = pytest.importorskip("statsmodels.api")
    wide = scores(12, 4, step=0.01)
    ranks = stats.rankdata(-wide.to_numpy(), axis=1)
    long = pd.DataFrame({"rank": ranks.ravel(), "m": np.tile(range(4), 12), "s": np.repeat(range(12), 4)})
    table = statsmodels.stats.anova_lm(statsmodels.formula.ols("rank ~ C(m) + C(s)", long).fit())
    found = friedman(wide)
    assert (found.f, found.f_p) == pytest.approx((table.loc["C(m)", "F"], table.loc["C(m)", "PR(>F)"]))


def test_full_agreement_has_the_p_of_its_enumeration():
    wide = pd.DataFrame([[3.0, 2.0, 1.0]] * 3, columns=list("abc"))
    orders = list(itertools.permutations([1, 2, 3]))
    agree = np.mean([a == b == c for a, b, c in itertools.product(orders, repeat=3)])
    found = friedman(wide)
    assert found.f == math.inf
    assert found.f_p == pytest.approx(agree)
    tied = friedman(pd.DataFrame([[3.0, 3.0, 1.0]] * 4, columns=list("abc")))
    assert tied.f_p == pytest.approx(3.0**-3)


def test_equal_methods_are_called_different_no_more_often_than_the_level():
    p = [friedman(scores(10, 6, seed=seed)).f_p for seed in range(250)]
    assert np.mean(np.array(p) < 0.05) <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 250)
    assert np.mean(np.array(p) < 0.5) == pytest.approx(0.5, abs=0.1)


def test_distances_rank_the_other_way_round():
    wide = scores(9, 4, step=0.05)
    up, down = friedman(wide), friedman(wide, higher_is_better=False)
    assert up.chi2 == pytest.approx(down.chi2)
    assert all(up.mean_ranks[m] + down.mean_ranks[m] == pytest.approx(5) for m in wide)
    assert next(iter(up.mean_ranks)) == "m3"


def test_subjects_without_all_scores_are_left_out_and_counted():
    wide = scores(12, 4)
    holes = wide.copy()
    holes.iloc[0, 1], holes.iloc[5, 2], holes.iloc[7, 0] = np.nan, np.inf, np.nan
    found = friedman(holes)
    assert found.chi2 == friedman(wide.drop(index=["s0", "s5", "s7"])).chi2
    assert found.note == "3 of 12 subjects lack a score and are left out"


def test_a_method_without_any_score_is_named_and_does_not_empty_the_table():
    found = friedman(scores(8, 4).assign(lost=np.nan))
    assert (found.n, found.k) == (8, 4)
    assert found.note == "no score at all: lost"


def test_a_subject_in_two_domains_is_one_subject():
    wide = scores(6, 3)
    twice = pd.concat({"A": wide + 0.01, "B": wide - 0.01}, names=["held_out", "subject"])
    assert friedman(twice).chi2 == pytest.approx(friedman(wide).chi2)
    assert friedman(twice).n == 6
    half = twice.copy()
    half.iloc[0, 0] = np.nan
    assert friedman(half).n == 5


@pytest.mark.parametrize(
    ("wide", "reason"),
    [
        (scores(8, 2), "3 or more methods, got 2"),
        (scores(1, 4), "at least 2 subjects that all methods have scored, there is 1"),
        (scores(5, 4).where(np.eye(5, 4) == 0).iloc[:4], "there are 0"),
        (pd.DataFrame(0.5, range(6), list("abc")), "score the same"),
        (pd.DataFrame(columns=list("abc"), dtype=float), "3 or more methods, got 0"),
    ],
)
def test_where_there_is_no_test_the_reason_is_given(wide, reason):
    found = friedman(wide)
    assert reason in found.reason
    assert all(math.isnan(v) for v in (found.chi2, found.p, found.f, found.f_p))


def test_text_and_double_names_are_bad_input():
    with pytest.raises(OptionError, match="'m1' are no numbers"):
        friedman(scores(3, 3).astype(object).assign(m1="high"))
    wide = scores(3, 3)
    with pytest.raises(OptionError, match="two columns are named 'm0'"):
        friedman(wide.set_axis(["m0", "m0", "m2"], axis=1))


def test_nemenyis_p_and_difference_agree():
    means = friedman(scores(15, 6, step=0.008)).mean_ranks
    found = nemenyi(means, 15)
    for a, b in itertools.combinations(means, 2):
        assert (found.p[a][b] < 0.05) == (abs(means[a] - means[b]) > found.cd)
        assert found.p[a][b] == found.p[b][a]
    assert nemenyi({"a": 1.0, "b": 1.0 + found.cd, **dict.fromkeys("cdef", 3.0)}, 15).p["a"]["b"] == pytest.approx(0.05)


def test_nemenyi_of_nothing_gives_a_reason():
    assert "got 1 and 20" in nemenyi({"a": 1.0}, 20).reason
    with pytest.raises(OptionError, match="between 0 and 1"):
        nemenyi({"a": 1.0, "b": 2.0}, 20, 5)


def test_pairs_are_scipys_wilcoxon_corrected_by_holm():
    wide = scores(14, 4, step=0.01)
    found = wilcoxon_holm(wide)
    sides = [(str(p["a"]), str(p["b"])) for p in found.pairs]
    assert {frozenset(s) for s in sides} == {frozenset(s) for s in itertools.combinations(wide, 2)}
    raw = [stats.wilcoxon(wide[a], wide[b], method="exact").pvalue for a, b in sides]
    assert [p["p"] for p in found.pairs] == pytest.approx(raw)
    assert [found.p[a][b] for a, b in sides] == pytest.approx(list(holm(raw)))
    assert [p["difference"] for p in found.pairs] == pytest.approx([(wide[a] - wide[b]).mean() for a, b in sides])


def test_groups_hold_no_separable_pair_and_miss_no_inseparable_one():
    for seed in range(20):
        found = wilcoxon_holm(scores(12, 7, step=0.006, seed=seed))
        together = {frozenset(pair) for g in found.groups for pair in itertools.combinations(g, 2)}
        alike = {frozenset((a, b)) for a, b in itertools.combinations(found.p, 2) if found.p[a][b] > 0.05}
        assert together == alike
        sets = [set(g) for g in found.groups]
        assert not any(a < b for a in sets for b in sets)


def test_methods_that_all_tie_are_one_group():
    found = wilcoxon_holm(pd.DataFrame(0.5, range(6), list("abc")))
    assert found.groups == [["a", "b", "c"]]
    assert found.p["a"]["b"] == 1


def test_pairs_of_one_subject_give_a_reason():
    found = wilcoxon_holm(scores(1, 3))
    assert "got 3 and 1" in found.reason
    assert (found.p, found.groups, found.pairs) == ({}, [], [])


def test_too_few_subjects_for_any_pair_are_said():
    best = scores(10, 12, step=1.0)
    found = wilcoxon_holm(best)
    assert found.note == "10 subjects can tell no pair of 66 apart"
    assert len(found.groups) == 1
    assert wilcoxon_holm(scores(12, 12, step=1.0)).groups == []  # 66 / 2048 < 0.05
    assert wilcoxon_holm(scores(12, 12, step=1.0)).note == ""


def test_no_pair_of_equal_methods_is_told_apart_more_often_than_the_level():
    hits = np.zeros(2)
    for seed in range(150):
        wide = scores(12, 5, seed=seed)
        found = nemenyi(friedman(wide).mean_ranks, 12), wilcoxon_holm(wide)
        hits += [min(min(line.values()) for line in f.p.values()) < 0.05 for f in found]
    assert (hits / 150 <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 150)).all()
