"""The worst domain: who it is, how sure that is, and an interval that holds the truth."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from shiftproof.errors import OptionError
from shiftproof.statistics import interval, worst_domain

SMALL = {"A": [0.9, 0.8, 0.85], "B": [0.7, 0.75], "C": [0.6, 0.95, 0.72, 0.9]}


def dice_like(means: list[float], n: int, random: np.random.Generator) -> dict[str, np.ndarray]:
    """Beta scores with SD 0.1: left-skewed, as Dice is."""
    sizes = [m * (1 - m) / 0.01 - 1 for m in means]
    return {f"site {i}": random.beta(m * s, (1 - m) * s, n) for i, (m, s) in enumerate(zip(means, sizes, strict=True))}


def test_the_worst_domain_has_the_smallest_mean():
    found = worst_domain(SMALL)
    assert (found.domain, found.n) == ("B", 2)
    assert found.mean == pytest.approx(0.725)
    assert found.means == pytest.approx({d: np.mean(v) for d, v in SMALL.items()})
    far = worst_domain(SMALL, higher_is_better=False)
    assert (far.domain, far.mean) == ("A", pytest.approx(0.85))


def test_shares_agree_with_all_samples():
    means = [[np.mean(s) for s in itertools.product(v, repeat=len(v))] for v in SMALL.values()]
    lowest = np.argmin(np.round(list(itertools.product(*means)), 9), axis=1)
    exact = np.bincount(lowest, minlength=3) / len(lowest)  # no two domains tie here
    found = worst_domain(SMALL, resamples=30_000)
    assert [found.share[d] for d in SMALL] == pytest.approx(exact.tolist(), abs=0.012)
    assert sum(found.share.values()) == pytest.approx(1)
    assert list(found.share) == sorted(found.share, key=lambda d: -found.share[d])


def test_domains_that_tie_share():
    found = worst_domain({"A": [0.5, 0.5], "B": [0.5, 0.5, 0.5]}, resamples=50)
    assert found.share == pytest.approx({"A": 0.5, "B": 0.5})
    assert (found.low, found.high) == (0.5, 0.5)


@pytest.mark.parametrize("means", [[0.85] * 6, [0.85] * 2, [0.8, 0.85, 0.9], [0.6, 0.9]])
def test_interval_holds_the_truth_where_a_bootstrap_of_the_minimum_does_not(means):
    random = np.random.default_rng(0)
    covered, by_bootstrap = [], []
    for _ in range(200):
        scores = dice_like(means, 20, random)
        found = worst_domain(scores, resamples=1)
        covered.append(found.low <= min(means) <= found.high)
        drawn = np.min([v[random.integers(20, size=(80, 20))].mean(1) for v in scores.values()], axis=0)
        low, high = np.quantile(drawn, [0.025, 0.975])
        by_bootstrap.append(low <= min(means) <= high)
    assert np.mean(covered) >= 0.92
    if means == [0.85] * 6:
        assert np.mean(by_bootstrap) < 0.5


def test_bounds_are_those_of_the_domains_the_near_one_corrected():
    random = np.random.default_rng(1)
    scores = dice_like([0.8, 0.82, 0.9], 12, random)
    found = worst_domain(scores)
    error = {d: v.std(ddof=1) / math.sqrt(12) for d, v in scores.items()}
    assert found.low == pytest.approx(min(v.mean() - stats.t.ppf(0.975, 11) * error[d] for d, v in scores.items()))
    near = stats.t.ppf(1 - 0.025 / 3, 11)
    assert found.high == pytest.approx(min(v.mean() + near * error[d] for d, v in scores.items()))
    turned = worst_domain({d: -v for d, v in scores.items()}, higher_is_better=False)
    assert (turned.low, turned.high) == pytest.approx((-found.high, -found.low))


def test_one_domain_has_its_own_interval():
    own = interval(SMALL["C"])
    found = worst_domain({"C": SMALL["C"]})
    assert (found.low, found.high) == pytest.approx((own.low, own.high))
    assert found.share == {"C": 1.0}


def test_bounds_end_where_a_mean_can():
    assert worst_domain({"A": [0.0, 0.1]}, within=(0, 1)).low == 0


def test_series_and_tables_give_what_scores_by_domain_give():
    expected = worst_domain(SMALL)
    keys = [(d, f"{d}{i}") for d, v in SMALL.items() for i in range(len(v))]
    series = pd.Series(list(itertools.chain(*SMALL.values())), pd.MultiIndex.from_tuples(keys))
    table = series.rename_axis(["held_out", "subject"]).unstack("held_out")
    for given in (series, table):
        found = worst_domain(given)
        assert (found.domain, found.mean, found.low, found.high) == pytest.approx(
            (expected.domain, expected.mean, expected.low, expected.high)
        )
        assert list(found.share) == list(expected.share)


def test_a_subject_of_two_domains_is_drawn_once_for_both():
    # B is always 0.1 below A for the same subject: it is the worst in every sample, which independent draws would miss.
    a = np.random.default_rng(0).uniform(0.2, 0.9, 15)
    found = worst_domain(pd.DataFrame({"A": a, "B": a - 0.1}))
    assert found.share == {"B": 1.0, "A": 0.0}
    assert worst_domain({"A": a, "B": a - 0.1}).share["A"] > 0.02


def test_a_subject_scored_twice_in_a_domain_counts_once():
    keys = pd.MultiIndex.from_tuples([("A", "x"), ("A", "x"), ("A", "y")])
    found = worst_domain(pd.Series([0.2, 0.4, 0.9], keys))
    assert (found.mean, found.n) == (pytest.approx(0.6), 2)


def test_missing_scores_and_empty_domains_are_left_out():
    found = worst_domain({"A": [0.9, np.nan, 0.8], "B": [0.7, 0.6, np.inf], "C": [np.nan]})
    assert (found.domain, found.n) == ("B", 2)
    assert found.note == "no score: C"


def test_a_domain_of_one_subject_is_said():
    other = worst_domain({"A": [0.9, 0.8], "B": [0.95]})
    assert other.note == "one subject only, not in the interval: B"
    assert other.reason == ""
    assert math.isfinite(other.low)
    itself = worst_domain({"A": [0.9, 0.8], "B": [0.5]})
    assert itself.reason == "B has one subject: its mean has no interval"
    assert (itself.mean, itself.share["B"]) == (0.5, 1.0)
    assert math.isnan(itself.low)


@pytest.mark.parametrize("empty", [{}, {"A": []}, {"A": [np.nan]}, pd.DataFrame(), pd.Series(dtype=float)])
def test_nothing_scored_gives_a_reason(empty):
    found = worst_domain(empty)
    assert found.reason == "no domain with a score"
    assert math.isnan(found.mean)


def test_text_is_bad_input():
    with pytest.raises(OptionError, match="numbers or NaN"):
        worst_domain({"A": ["good", "bad"]})
