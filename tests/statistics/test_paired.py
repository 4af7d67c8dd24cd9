"""Paired comparisons against the documentation's reference data, enumeration and SciPy."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from shiftproof.errors import OptionError
from shiftproof.statistics import paired, sign_flip_p, sign_p, signed_rank_p
from shiftproof.statistics.paired import hodges_lehmann, hodges_lehmann_of_many

A = np.array([912, 887, 934, 905, 861, 923, 848, 897, 915, 882, 930, 876, 902, 893, 918, 869, 926, 881, 909, 899.0])
B = np.array([905, 889, 921, 897, 866, 915, 829, 893, 912, 871, 929, 868, 905, 880, 911, 853, 921, 884, 898, 895.0])


def test_reference_data_gives_the_printed_numbers():
    found = paired(A, B)
    assert found.n == 20
    assert found.mean_difference == 6.25
    assert round(found.sd, 2) == 6.57
    assert round(found.d_z, 3) == 0.952
    assert round(found.correlation, 3) == 0.966
    assert [round(found.low, 2), round(found.high, 2)] == [3.18, 9.32]
    assert round(found.rank_biserial, 3) == 0.824
    assert found.hodges_lehmann == 6.0
    assert (found.wins, found.ties, found.losses) == (16, 0, 4)


@pytest.mark.parametrize(
    ("test", "p", "digits"),
    [
        ("auto", 0.000620, 6),
        ("permutation", 0.000620, 6),
        ("wilcoxon", 0.000488, 6),
        ("t", 0.000428, 6),
        ("sign", 0.0118, 4),
    ],
)
def test_reference_data_gives_the_printed_p(test, p, digits):
    assert round(paired(A, B, test=test).p, digits) == p


def test_reference_data_means_nothing_to_an_unpaired_test():
    """Why scores are paired: the same numbers without their pairs show nothing."""
    assert round(stats.ttest_ind(A, B).pvalue, 3) == 0.425


def test_small_sample_factor_shrinks_the_effect():
    assert paired(A, B).small_sample_d_z == pytest.approx(0.95152 * (1 - 3 / 75), abs=1e-4)


def test_tests_are_symmetric_in_their_sides():
    for test in ("permutation", "wilcoxon", "t", "sign"):
        forth, back = paired(A, B, test=test), paired(B, A, test=test)
        assert forth.p == back.p
        assert forth.mean_difference == -back.mean_difference
        assert (forth.low, forth.high) == (-back.high, -back.low)
        assert forth.rank_biserial == -back.rank_biserial


def test_sign_flips_equal_enumeration():
    d = np.random.default_rng(0).normal(0.4, 1, size=9)
    means = [abs(np.mean(d * s)) for s in itertools.product([1, -1], repeat=9)]
    assert sign_flip_p(d) == np.mean(np.array(means) >= abs(d.mean()) - 1e-12)


def test_sign_flips_equal_scipy():
    d = np.random.default_rng(1).normal(0.3, 1, size=12)
    expected = stats.permutation_test(
        (d,), lambda x, axis: x.mean(axis), permutation_type="samples", n_resamples=np.inf, vectorized=True
    ).pvalue
    assert sign_flip_p(d) == pytest.approx(expected)


def test_smallest_p_of_sign_flips_is_two_in_two_to_the_n():
    assert sign_flip_p([1, 2, 3, 4, 5]) == 2 / 2**5


def test_sums_that_differ_by_rounding_only_are_ties():
    """0.1 + 0.2 is not 0.3 to a computer; a test that counts equal sums must not see it."""
    assert sign_flip_p([0.1, 0.2, 0.3]) == sign_flip_p([1, 2, 3]) == 0.25


def test_drawn_sign_flips_agree_with_the_t_test_and_are_never_zero():
    random = np.random.default_rng(2)
    d = random.normal(0.25, 1, size=60)
    assert sign_flip_p(d) == pytest.approx(stats.ttest_1samp(d, 0).pvalue, abs=0.01)
    assert sign_flip_p(np.abs(d) + 1) == 1 / 10_000


def test_enumerated_and_drawn_sign_flips_agree():
    d = np.random.default_rng(3).normal(0.5, 1, size=20)
    with_one_more = np.append(d, 1e-9)  # 21 differences are drawn, but the last one decides nothing
    assert sign_flip_p(with_one_more) == pytest.approx(sign_flip_p(d), abs=0.01)


def test_signed_ranks_equal_scipy_without_ties():
    d = np.random.default_rng(4).normal(0.3, 1, size=17)
    assert signed_rank_p(d) == pytest.approx(stats.wilcoxon(d, method="exact").pvalue)


def test_signed_ranks_with_ties_equal_enumeration():
    d = np.array([1, 1, -1, 2, 2, 3, -3, 4, 0, 5.0])
    moved = d[d != 0]
    ranks = stats.rankdata(np.abs(moved))
    sums = np.array([(ranks * np.array(s)).sum() for s in itertools.product([0, 1], repeat=len(moved))])
    observed = ranks[moved > 0].sum()
    expected = min(1, 2 * min((sums <= observed).mean(), (sums >= observed).mean()))
    assert signed_rank_p(d) == pytest.approx(expected)


def test_signed_ranks_of_many_agree_with_scipys_approximation():
    d = np.round(np.random.default_rng(5).normal(0.08, 1, size=700), 2)
    expected = stats.wilcoxon(d, method="asymptotic", correction=False).pvalue
    assert signed_rank_p(d) == pytest.approx(expected, rel=1e-6)


def test_normal_approximation_of_the_reference_data_is_off():
    """Why ties are enumerated."""
    ranks = stats.wilcoxon(A - B, method="asymptotic").pvalue
    assert round(ranks, 5) == 0.00123


def test_five_subjects_can_never_be_significant_by_ranks():
    assert signed_rank_p([1, 2, 3, 4, 5]) == 0.0625


def test_sign_test_equals_the_binomial():
    assert sign_p([1, 1, 1, -1, 0]) == pytest.approx(stats.binomtest(3, 4).pvalue)


@pytest.mark.parametrize("test", ["permutation", "wilcoxon", "sign"])
def test_equal_scores_are_no_evidence(test):
    found = paired(A, A, test=test)
    assert found.p == 1
    assert (found.wins, found.ties, found.losses) == (0, 20, 0)
    assert (found.low, found.high) == (0, 0)
    assert not found.excludes_zero
    assert math.isnan(found.d_z)


def test_rounding_of_a_subtraction_is_no_difference():
    """0.3 - 0.1 - 0.2 is not 0 to a computer."""
    assert paired([0.3 - 0.1], [0.2]).ties == 1


def test_a_subject_without_one_of_its_scores_is_left_out():
    holes = A.copy()
    holes[3] = np.nan
    found = paired(holes, B)
    assert found.n == 19
    assert found.mean_difference == pytest.approx(np.delete(A - B, 3).mean())


def test_a_single_subject_has_a_difference_and_no_interval():
    found = paired([0.8], [0.7])
    assert found.mean_difference == pytest.approx(0.1)
    assert math.isnan(found.low)
    assert math.isnan(found.sd)
    assert not found.excludes_zero


def test_no_subjects_give_no_numbers():
    found = paired([], [])
    assert found.n == 0
    assert math.isnan(found.p)


def test_false_claims_are_as_rare_as_the_level():
    random = np.random.default_rng(6)
    p = [paired(random.normal(size=10), random.normal(size=10)).p for _ in range(400)]
    assert np.mean(np.array(p) < 0.05) == pytest.approx(0.05, abs=0.03)


def test_wrong_input_is_named():
    with pytest.raises(OptionError, match="got 20 and 19"):
        paired(A, B[:-1])
    with pytest.raises(OptionError, match=r"'anova', expected one of auto, permutation"):
        paired(A, B, test="anova")


def test_reference_data_gives_the_printed_statistics():
    """T+ = 191.5 and T- = 18.5, by their definition and in the rank-biserial correlation; t = 4.2553."""
    ranks = stats.rankdata(np.abs(A - B))
    positive, negative = ranks[A > B].sum(), ranks[A < B].sum()
    assert (positive, negative) == (191.5, 18.5)
    found = paired(A, B, test="t")
    assert found.rank_biserial == pytest.approx((positive - negative) / (positive + negative))
    assert round(found.d_z * math.sqrt(20), 4) == 4.2553
    assert found.median_difference == np.median(A - B)


def with_zeros(seed: int, n: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(-3, 6, size=n) * 1.0


@pytest.mark.parametrize("seed", range(4))
def test_pratts_ranks_equal_enumeration(seed):
    d = with_zeros(seed, 11)
    ranks = stats.rankdata(np.abs(d))[d != 0]
    sums = np.array([(ranks * np.array(s)).sum() for s in itertools.product([0, 1], repeat=len(ranks))])
    observed = ranks[d[d != 0] > 0].sum()
    expected = min(1, 2 * min((sums <= observed).mean(), (sums >= observed).mean()))
    assert signed_rank_p(d, zeros="pratt") == pytest.approx(expected)


def test_pratts_ranks_of_many_agree_with_scipys_approximation():
    d = np.round(np.random.default_rng(5).normal(0.08, 1, size=900), 1)
    assert (d == 0).sum() > 20
    expected = stats.wilcoxon(d, zero_method="pratt", method="asymptotic", correction=False).pvalue
    assert signed_rank_p(d, zeros="pratt") == pytest.approx(expected, rel=1e-6)


def test_zeros_matter_to_pratt_only_where_there_are_some():
    d = np.random.default_rng(6).normal(0.3, 1, size=15)
    assert signed_rank_p(d, zeros="pratt") == signed_rank_p(d)
    a, b = with_zeros(1, 15), np.zeros(15)
    found = [paired(a, b, test="wilcoxon", zeros=z).p for z in ("drop", "pratt")]
    assert found == [signed_rank_p(a), signed_rank_p(a, zeros="pratt")]
    assert found[0] != found[1]


def test_a_subjects_lesions_change_sign_together():
    """Nine lesions of three subjects: 2^3 sign flips of the subjects' means, not 2^9."""
    d, whose = np.array([3, 1, 2, 5, 4, 1.5, 0.5, 1, 7]), np.array([0, 0, 1, 1, 1, 2, 2, 2, 2])
    means = np.array([d[whose == s].mean() for s in range(3)])
    flipped = [abs(np.mean(means * s)) for s in itertools.product([1, -1], repeat=3)]
    found = paired(d, np.zeros(9), subjects=whose)
    assert found.n == 3
    assert found.mean_difference == pytest.approx(means.mean())
    assert found.p == np.mean(np.array(flipped) >= means.mean() - 1e-12) == 0.25


@pytest.mark.parametrize("test", ["permutation", "wilcoxon", "t", "sign"])
def test_lines_of_subjects_are_compared_as_their_means(test):
    random = np.random.default_rng(7)
    whose = np.repeat(np.arange(12), 3)
    a, b = random.normal(0.4, 1, size=36), random.normal(size=36)
    b[4] = math.nan
    there = np.isfinite(b)
    means = [np.array([s[there & (whose == i)].mean() for i in range(12)]) for s in (a, b)]
    found, known = paired(a, b, test=test, subjects=whose), paired(*means, test=test)
    assert found.n == 12
    assert found.p == pytest.approx(known.p)
    assert found.low == pytest.approx(known.low)


def test_lesions_taken_for_subjects_claim_too_much():
    random, claims = np.random.default_rng(8), []
    for _ in range(150):
        whose = np.repeat(np.arange(8), 5)
        d = random.normal(size=8)[whose] + 0.3 * random.normal(size=40)
        claims.append([paired(d, np.zeros(40), test="t", **o).p < 0.05 for o in ({}, {"subjects": whose})])
    naive, held = np.mean(claims, axis=0)
    assert naive > 0.3
    assert held < 0.1


@pytest.mark.parametrize(
    ("a", "b", "test", "words"),
    [
        ([], [], "auto", "there are no subjects"),
        ([0.8, math.nan], [math.nan, 0.7], "auto", "none of 2 subjects has both scores"),
        ([0.8, math.nan], [0.7, 0.7], "auto", "one subject has both scores"),
        ([0.8, 0.7, 0.9], [0.8, 0.7, 0.9], "auto", "the scores of all 3 subjects tie"),
        ([0.8, 0.7, 0.9], [0.7, 0.6, 0.8], "t", "all 3 differences are +0.1: without spread a t-test has no p"),
        ([0.8, 0.7, 0.9], [0.7, 0.6, 0.8], "auto", "the interval has no width"),
    ],
)
def test_what_cannot_be_told_is_said(a, b, test, words):
    assert words in paired(a, b, test=test).reason


def test_where_all_is_well_nothing_is_said():
    assert paired(A, B).reason == ""


@pytest.mark.parametrize("test", ["auto", "permutation", "wilcoxon", "t", "sign"])
@pytest.mark.parametrize("scores", [[], [0.5], [0.5] * 3, [math.nan] * 3, [0.5, math.inf, 0.7]])
def test_no_scores_however_poor_raise(test, scores):
    for other in (scores, [0.1] * len(scores)):
        assert not 0 <= paired(scores, other, test=test).p < 0.1


@pytest.mark.parametrize("n", [1, 2, 3, 50, 301])
@pytest.mark.parametrize("digits", [1, 12])
def test_counting_pairs_gives_the_shift_of_holding_them(n, digits):
    d = np.round(np.random.default_rng(n).normal(0.2, 1, size=n), digits)
    assert hodges_lehmann_of_many(d) == pytest.approx(hodges_lehmann(d), abs=1e-9)


def test_a_cohort_of_many_thousands_is_compared_in_little_memory():
    d = np.random.default_rng(9).normal(0.5, 1, size=60_000)  # its pairs alone would take 14 GB
    found = paired(d, np.zeros(60_000), resamples=20)
    assert found.hodges_lehmann == pytest.approx(d.mean(), abs=0.01)


def test_wrong_subjects_and_zeros_are_named():
    with pytest.raises(OptionError, match="20 pairs and 3 subjects"):
        paired(A, B, subjects=[1, 2, 3])
    with pytest.raises(OptionError, match="'zsplit', expected one of drop, pratt"):
        paired(A, B, zeros="zsplit")
