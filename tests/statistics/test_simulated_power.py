"""Power by drawing: equal to the exact one where normality holds, honest where it does not."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from shiftproof.errors import OptionError
from shiftproof.statistics import paired, power, simulated_power, simulated_power_unpaired
from shiftproof.statistics.simulated import FINDERS, tilted

TESTS = ["t", "permutation", "wilcoxon", "sign"]
NORMAL = stats.norm.ppf((np.arange(400) + 0.5) / 400)  # a pilot that is as normal as 400 subjects can be
SPREAD = float(NORMAL.std())


@pytest.mark.parametrize(("n", "shift"), [(12, 0.8), (30, 0.5), (60, 0.2)])
def test_the_t_test_of_normal_differences_has_its_exact_power(n, shift):
    found = simulated_power(NORMAL, n, shift=shift, resamples=4000)
    assert found.power == pytest.approx(power(shift / SPREAD, n), abs=0.03)
    assert found.low < found.power < found.high


@pytest.mark.parametrize("test", TESTS)
def test_without_a_difference_a_symmetric_test_finds_no_more_than_its_level(test):
    found = simulated_power(NORMAL, 20, shift=0.0, test=test, resamples=3000)
    assert found.low < 0.05
    assert found.power > 0.02


def test_a_rank_test_loses_little_under_normality_and_wins_with_heavy_tails():
    heavy = stats.t.ppf((np.arange(400) + 0.5) / 400, 2)
    normal = {t: simulated_power(NORMAL, 30, shift=0.5, test=t).power for t in ("t", "wilcoxon")}
    tailed = {t: simulated_power(heavy, 30, shift=0.8, test=t).power for t in ("t", "wilcoxon")}
    assert normal["t"] - 0.08 < normal["wilcoxon"] < normal["t"] + 0.02
    assert tailed["wilcoxon"] > tailed["t"] + 0.1


@pytest.mark.parametrize("test", TESTS)
@pytest.mark.parametrize("n", [7, 16])
def test_each_drawn_study_is_judged_as_the_test_itself_judges_it(test, n):
    random = np.random.default_rng(3)
    studies = np.round(random.normal(0.4, 1, size=(60, n)), 1)  # with ties, and zeros
    drawn = FINDERS[test](n, 0.05, np.random.default_rng(0))(studies)
    exact = np.array([paired(d, np.zeros(n), test=test).p for d in studies])
    clear = np.abs(exact - 0.05) > (0.02 if test == "permutation" and n > 10 else 0)  # flips are drawn there
    assert clear.sum() > 40
    np.testing.assert_array_equal(drawn[clear], exact[clear] <= 0.05)


def test_ranks_of_large_studies_are_those_of_scipy():
    random = np.random.default_rng(4)
    studies = np.round(random.normal(0.2, 1, size=(50, 80)), 1)
    found = FINDERS["wilcoxon"](80, 0.05, random)(studies)
    exact = stats.wilcoxon(studies, zero_method="wilcox", correction=False, method="approx", axis=1).pvalue
    np.testing.assert_array_equal(found, exact <= 0.05)


def test_with_fewer_subjects_than_a_test_can_use_nothing_is_found():
    assert simulated_power(NORMAL, 5, shift=10, test="wilcoxon", resamples=200).power == 0
    assert simulated_power(NORMAL, 5, shift=10, test="permutation", resamples=200).power == 0
    assert simulated_power(NORMAL, 6, shift=10, test="sign", resamples=200).power == 1


def test_ties_stay_ties():
    """Of 40 differences 30 are 0: moved, all 30 would be wins of a sign test."""
    differences = np.array([0.0] * 30 + [1.0] * 6 + [-1.0] * 4)
    found = simulated_power(differences, 20, shift=0.1, test="sign", resamples=1000)
    assert "unequal chances" in found.how
    assert found.power < 0.3
    chances = tilted(differences, 0.1)
    assert chances @ differences == pytest.approx(0.1)
    assert chances.sum() == pytest.approx(1)
    assert (chances > 0).all()


def test_what_ties_cannot_reach_is_said():
    found = simulated_power([0.0, 0.0, 1.0, -1.0], 20, shift=2.0)
    assert math.isnan(found.power)
    assert "cannot have the mean 2" in found.reason


def test_by_default_the_observed_difference_is_the_one_to_find():
    found = simulated_power(NORMAL + 0.5, 20)
    assert found.difference == pytest.approx(0.5)
    assert found.how == "observed differences"


def test_equal_seeds_give_equal_power_and_others_another():
    first, again, other = (simulated_power(NORMAL, 20, shift=0.5, seed=s) for s in (0, 0, 1))
    assert first == again
    assert first.power != other.power


@pytest.mark.parametrize(
    ("differences", "n", "words"),
    [([0.1], 20, "at least 2 observed"), ([], 20, "at least 2 observed"), ([0.1, 0.1, 0.1], 20, "equal"),
     ([math.nan, 0.2], 20, "at least 2 observed"), ([0.1, 0.2], 1, "at least 2 subjects")],
)  # fmt: skip
def test_what_cannot_be_drawn_from_is_said(differences, n, words):
    found = simulated_power(differences, n, shift=0.1)
    assert math.isnan(found.power)
    assert words in found.reason


def test_an_unknown_test_is_named():
    with pytest.raises(OptionError, match="unknown test 'z'"):
        simulated_power(NORMAL, 20, test="z")


def test_unpaired_normal_scores_have_their_exact_power():
    found = simulated_power_unpaired(NORMAL + 3, NORMAL, 25, shift=0.7, resamples=3000)
    assert found.power == pytest.approx(power(0.7 / SPREAD, 25, design="unpaired"), abs=0.03)
    assert "other" not in found.reason
    assert simulated_power_unpaired([1.0], NORMAL, 25).reason
