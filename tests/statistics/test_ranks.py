"""Rankings by four schemes and what a bootstrap leaves of them, against brute force and scipy."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from shiftproof.errors import OptionError
from shiftproof.statistics import SCHEMES, rankings, stability
from shiftproof.statistics.ranks import kendall, rank_shares

# One bad subject of `a`: each way of ranking can come to another winner.
SMALL = pd.DataFrame(
    {"a": [0.95, 0.94, 0.93, 0.92, 0.10], "b": [0.90, 0.89, 0.88, 0.87, 0.86], "c": [0.80, 0.81, 0.82, 0.83, 0.84]},
    index=[f"s{i}" for i in range(5)],
)


def scores(n: int, k: int, *, seed: int = 0, step: float = 0.0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    values = random.normal(0.8, 0.05, (n, 1)) + random.normal(0, 0.02, (n, k)) + step * np.arange(k)
    return pd.DataFrame(values, [f"s{i}" for i in range(n)], [f"m{i}" for i in range(k)])


def test_schemes_rank_as_by_hand():
    found = rankings(SMALL)
    assert found["mean then rank"].to_dict() == {"b": 1, "c": 2, "a": 3}
    assert found["median then rank"].to_dict() == {"a": 1, "b": 2, "c": 3}
    assert found["rank then mean"].to_dict() == {"a": 1, "b": 2, "c": 3}  # mean ranks 1.4, 1.8, 2.8
    assert found["test then rank"].to_dict() == {"a": 2, "b": 2, "c": 2}  # five subjects separate nothing
    assert list(found.columns) == list(SCHEMES)
    assert list(found.index) == ["b", "c", "a"]


def test_wins_are_one_sided_wilcoxon_tests_with_holm_over_all_ordered_pairs():
    statsmodels = pytest.importorskip("statsmodels.stats.multitest")
    for seed in range(6):
        wide = scores(14, 4, step=0.012, seed=seed)
        sides = list(itertools.permutations(wide, 2))
        p = [stats.wilcoxon(wide[a], wide[b], alternative="greater", method="exact").pvalue for a, b in sides]
        won = statsmodels.multipletests(p, 0.05, "holm")[0]
        winners = [a for (a, _), w in zip(sides, won, strict=True) if w]
        wins = pd.Series({m: winners.count(m) for m in wide})
        expected = wins.rank(ascending=False)
        assert rankings(wide)["test then rank"].to_dict() == expected.to_dict()


def test_distances_turn_the_ranking_round():
    wide = scores(12, 5, step=0.01)
    up, down = (rankings(wide, higher_is_better=h).drop(columns="test then rank") for h in (True, False))
    assert (up + down.loc[up.index] == 6).all(axis=None)
    pd.testing.assert_frame_equal(rankings(-wide, higher_is_better=False), rankings(wide))


def test_missing_scores_count_as_the_worst_and_are_said():
    holes = SMALL.copy()
    holes.loc["s0", "a"] = np.nan
    found = rankings(holes)
    # 0.10 is the worst there is.
    pd.testing.assert_frame_equal(found, rankings(SMALL.assign(a=[0.10, 0.94, 0.93, 0.92, 0.10])), check_flags=False)
    assert found.attrs["note"] == "scores that are missing count as the worst, 0.1: a 1"
    declared = rankings(holes, worst=0.0)
    assert "0: a 1" in declared.attrs["note"]


def test_missing_distances_count_as_the_largest():
    distance = pd.DataFrame({"a": [1.0, 2.0, np.nan], "b": [3.0, 9.0, 4.0]})
    found = rankings(distance, higher_is_better=False)
    assert "worst, 9: a 1" in found.attrs["note"]
    assert found.loc["a", "rank then mean"] == 1
    assert found.loc["a", "mean then rank"] == 1  # 4.0 and 5.33


def test_missing_scores_can_leave_the_subject_out():
    holes = SMALL.copy()
    holes.loc["s4", "b"] = np.nan
    found = rankings(holes, missing="leave out")
    pd.testing.assert_frame_equal(found, rankings(SMALL.drop(index="s4")), check_flags=False)
    assert found.attrs["note"] == "1 of 5 subjects lacks a score and is left out"
    with pytest.raises(OptionError, match="unknown rule for missing scores 'zero'"):
        rankings(holes, missing="zero")


def test_first_places_agree_with_all_samples_of_three_subjects():
    wide = SMALL.iloc[[0, 1, 4]]
    means = np.array([wide.to_numpy()[list(places)].mean(0) for places in itertools.product(range(3), repeat=3)])
    exact = pd.Series(np.bincount(means.argmax(1), minlength=3) / 27, wide.columns)
    found = stability(wide, resamples=20_000)
    assert [found.first[m] for m in wide] == pytest.approx(exact.tolist(), abs=0.015)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_shares_are_those_of_a_plain_loop(scheme):
    wide = scores(8, 4, step=0.008)
    found = stability(wide, resamples=60, seed=3, scheme=scheme)
    random = np.random.default_rng(3)
    drawn = [rankings(wide.iloc[places].reset_index(drop=True))[scheme] for places in random.integers(8, size=(60, 8))]
    first = {m: np.mean([(r[m] == r.min()) / (r == r.min()).sum() for r in drawn]) for m in wide}
    assert found.first == pytest.approx(first)
    full = rankings(wide)[scheme]
    taus = [stats.kendalltau(full, r.loc[full.index]).statistic for r in drawn]
    expected = np.nanquantile(taus, [0.25, 0.5, 0.75]) if np.isfinite(taus).any() else [math.nan] * 3
    assert [found.tau_low, found.tau_median, found.tau_high] == pytest.approx(list(expected), nan_ok=True)


def test_shares_of_ranks_add_up_both_ways():
    found = stability(scores(9, 6).round(1), resamples=200)
    assert found.ranks.sum(axis=0).tolist() == pytest.approx([1] * 6)
    assert found.ranks.sum(axis=1).tolist() == pytest.approx([1] * 6)
    assert found.ranks[1].to_dict() == pytest.approx(found.first)
    assert list(found.first.values()) == sorted(found.first.values(), reverse=True)


def test_ties_share_their_ranks():
    shares = rank_shares(np.array([[1.5, 1.5, 3.0], [2.0, 2.0, 2.0]]))
    tied, last = [5 / 12, 5 / 12, 1 / 6], [1 / 6, 1 / 6, 2 / 3]
    assert shares == pytest.approx(np.array([tied, tied, last]))
    same = scores(10, 1).iloc[:, [0, 0, 0]].set_axis(list("abc"), axis=1)
    found = stability(same, resamples=100)
    assert found.first == pytest.approx(dict.fromkeys("abc", 1 / 3))
    assert math.isnan(found.tau_median)


def test_kendall_is_scipys_tau_b():
    random = np.random.default_rng(0)
    full, drawn = random.integers(1, 5, 8).astype(float), random.integers(1, 6, (20, 8)).astype(float)
    assert kendall(full, drawn) == pytest.approx([stats.kendalltau(full, d).statistic for d in drawn])


def test_a_clear_winner_is_first_in_all_samples_and_equal_methods_in_a_share():
    clear = stability(scores(20, 3, step=0.1))
    assert clear.first["m2"] == 1
    assert (clear.tau_low, clear.tau_median, clear.tau_high) == (1, 1, 1)
    leading = [max(stability(scores(20, 12, seed=s), resamples=200).first.values()) for s in range(20)]
    assert np.median(leading) < 0.6


def test_draws_within_sites_keep_each_sites_number():
    # m0 is better at A, m1 at B, by amounts that make the balance of sites decide.
    wide = pd.DataFrame({"m0": [0.9] * 4 + [0.5] * 4, "m1": [0.8] * 4 + [0.61] * 4}, [f"s{i}" for i in range(8)])
    within = stability(wide, groups=["A"] * 4 + ["B"] * 4, resamples=300)
    assert within.first == {"m1": 1.0, "m0": 0.0}
    free = stability(wide, resamples=300)
    assert free.first["m0"] == pytest.approx(stats.binom.sf(4, 8, 0.5), abs=0.08)


def test_a_site_of_one_subject_is_said():
    found = stability(scores(5, 3), groups=["A"] * 4 + ["B"], resamples=10)
    assert found.note == "one subject only, always drawn: B"
    with pytest.raises(OptionError, match="2 sites for 5 lines"):
        stability(scores(5, 3), groups=["A", "B"])


def test_equal_seeds_give_equal_shares_and_block_size_does_not_matter(monkeypatch):
    wide = scores(10, 4)
    found = stability(wide, resamples=50, seed=1)
    assert stability(wide, resamples=50, seed=1).first == found.first
    assert stability(wide, resamples=50, seed=2).first != found.first
    monkeypatch.setattr("shiftproof.statistics.ranks.BLOCK", 4 * 10 * 7)
    assert stability(wide, resamples=50, seed=1).first == found.first


def test_agreement_is_tau_between_schemes():
    found = stability(SMALL, resamples=10)
    ranks = found.rankings
    expected = stats.kendalltau(ranks["mean then rank"], ranks["median then rank"]).statistic
    assert found.agreement.loc["mean then rank", "median then rank"] == pytest.approx(expected)
    assert found.agreement.loc["rank then mean", "rank then mean"] == pytest.approx(1)
    assert math.isnan(found.agreement.loc["test then rank", "mean then rank"])  # all tie


@pytest.mark.parametrize(("wide", "got"), [(scores(1, 3), "got 3 and 1"), (scores(5, 1), "got 1 and 5")])
def test_nothing_to_rank_gives_a_reason(wide, got):
    found = stability(wide)
    assert got in found.reason
    assert found.resamples == 0
    assert all(math.isnan(v) for v in found.first.values())


def test_an_empty_table_gives_an_empty_ranking():
    assert rankings(pd.DataFrame(columns=["a", "b"], dtype=float)).empty
    assert "got 0 and 0" in stability(pd.DataFrame(columns=["a", "b"], dtype=float)).reason


def test_unknown_schemes_are_named():
    with pytest.raises(OptionError, match="unknown way of ranking 'luck', expected one of mean then rank"):
        stability(SMALL, scheme="luck")
