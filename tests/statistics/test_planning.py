"""Plans: the lecture's case, pilots, pairs, and what cannot be planned."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest

from shiftproof.errors import OptionError
from shiftproof.statistics import paired, plan_from_pilot, plan_pairs, plan_power, power, subjects_needed, unpaired
from shiftproof.statistics.piloting import middling

A = [912, 887, 934, 905, 861, 923, 848, 897, 915, 882, 930, 876, 902, 893, 918, 869, 926, 881, 909, 899]
B = [905, 889, 921, 897, 866, 915, 829, 893, 912, 871, 929, 868, 905, 880, 911, 853, 921, 884, 898, 895]


def line(plan, what):
    return next(found for found in plan.alternatives if found["what"].startswith(what))


def test_the_lectures_case():
    plan = plan_power(effect=0.01, sd=0.10, correlation=0.5, subjects=20)
    assert round(plan.power, 3) == 0.071
    assert plan.subjects_needed == 787
    assert [(n["power"], n["n"]) for n in plan.needed] == [(0.8, 787), (0.9, 1053)]
    assert plan.needed[0]["wilcoxon"] == 825
    assert round(plan.correlation_needed, 2) == 0.99
    assert round(plan.exaggeration.type_m, 1) == 5.1
    assert plan.reason == ""


@pytest.mark.parametrize(
    ("what", "spread", "at_20", "for_80", "for_90"),
    [("correlation 0.50", 0.100, 0.071, 787, 1053), ("correlation 0.80", 0.063, 0.103, 316, 423),
     ("correlation 0.90", 0.045, 0.158, 159, 213), ("correlation 0.95", 0.032, 0.269, 81, 108),
     ("correlation 0.99", 0.014, 0.851, 18, 24), ("correlation 0.00", 0.141, 0.060, 1572, 2104),
     ("other subjects", 0.100, 0.061, 1571, 2103)],
)  # fmt: skip
def test_the_plans_table_is_the_documented_one(what, spread, at_20, for_80, for_90):
    found = line(plan_power(effect=0.01, sd=0.10, correlation=0.5, subjects=20), what)
    assert (round(found["spread"], 3), round(found["power"], 3)) == (spread, at_20)
    assert (found["n"], found["n_90"]) == (for_80, for_90)
    assert found["own"] == (what == "correlation 0.50")


def test_the_sizes_hold_the_plans_own():
    plan = plan_power(effect=0.01, sd=0.10, correlation=0.5, subjects=37)
    own = next(s for s in plan.sizes if s["n"] == 37)
    assert (own["power"], own["detectable"], own["half_width"]) == (plan.power, plan.detectable, plan.half_width)
    assert own["type_m"] == plan.exaggeration.type_m


def test_the_correlation_that_would_do_gives_the_power():
    plan = plan_power(effect=0.01, sd=0.10, correlation=0.5, subjects=40, power=0.9)
    again = plan_power(effect=0.01, sd=0.10, correlation=plan.correlation_needed, subjects=40)
    assert again.power == pytest.approx(0.9)


def test_an_sd_of_differences_and_a_correlation_say_the_same():
    by_difference = plan_power(effect=0.01, sd=0.10, sd_difference=0.063, subjects=20)
    by_correlation = plan_power(effect=0.01, sd=0.10, correlation=by_difference.correlation, subjects=20)
    assert by_correlation.spread == pytest.approx(0.063)
    assert by_correlation.power == pytest.approx(by_difference.power)
    alone = plan_power(effect=0.01, sd_difference=0.063, subjects=20)
    assert alone.power == by_difference.power
    assert math.isnan(alone.correlation)
    assert [a["own"] for a in alone.alternatives] == [True]


def test_without_a_correlation_a_half_is_assumed_and_said():
    plan = plan_power(effect=0.01, sd=0.10)
    assert plan.correlation == 0.5
    assert "0.5 is assumed" in plan.notes[0]
    assert plan.subjects_needed == 787
    assert math.isnan(plan.power)
    assert plan.exaggeration is None


def test_without_an_effect_the_plan_tells_what_shows():
    plan = plan_power(sd=0.10, correlation=0.5, subjects=20)
    assert plan.detectable == pytest.approx(0.0660, abs=1e-4)
    assert plan.needed == []
    assert plan.subjects_needed is None


def test_comparisons_divide_the_level():
    plan = plan_power(effect=0.01, sd=0.10, correlation=0.5, subjects=20, comparisons=11)
    assert plan.level == pytest.approx(0.05 / 11)
    assert plan.power == pytest.approx(power(0.1, 20, level=0.05 / 11))
    assert plan.subjects_needed == subjects_needed(0.01, 0.10, level=0.05 / 11)
    assert plan.fewest_for_exact_tests == 9


def test_a_wanted_power_has_its_own_line():
    plan = plan_power(effect=0.01, sd=0.10, correlation=0.5, power=0.95)
    assert [n["power"] for n in plan.needed] == [0.8, 0.9, 0.95]
    assert plan.subjects_needed == subjects_needed(0.01, 0.10, power=0.95)


def test_rank_tests_need_what_their_smallest_p_needs():
    plan = plan_power(effect=1.0, sd_difference=0.2)
    assert plan.subjects_needed == 3
    assert plan.needed[0]["wilcoxon"] == 6


def test_unpaired_plans_use_the_sd_of_scores():
    plan = plan_power(effect=0.01, sd=0.10, subjects=20, design="unpaired", correlation=0.9)
    assert plan.subjects_needed == 1571
    assert round(plan.power, 3) == 0.061
    assert math.isnan(plan.correlation_needed)
    assert "no correlation" in plan.notes[0]
    assert line(plan, "other subjects")["own"]


@pytest.mark.parametrize(
    ("given", "words"),
    [({}, "needs a spread.*got none of them"), ({"correlation": 0.5}, "got correlation 0.5"),
     ({"sd": 0.0}, "above 0, got 0.0"), ({"sd": math.nan}, "above 0, got nan"), ({"sd": -1}, "above 0, got -1"),
     ({"sd": 0.1, "correlation": 1.0}, "correlation of 1"), ({"sd": 0.1, "correlation": 1.5}, "between -1 and 1"),
     ({"sd": 0.1, "sd_difference": 0.3}, "at most twice"),
     ({"sd": 0.1, "sd_difference": 0.1, "correlation": 0.5}, "give one of them"),
     ({"sd_difference": 0.1, "design": "unpaired"}, "needs the SD of scores"),
     ({"sd": 0.1, "subjects": 1}, "at least 2 subjects, got 1"), ({"sd": 0.1, "effect": 0.0}, "other than 0"),
     ({"sd": 0.1, "effect": math.inf}, "other than 0, got inf"), ({"sd": 0.1, "level": 0.0}, "level 0.0"),
     ({"sd": 0.1, "power": 0.04}, "power 0.04"), ({"sd": 0.1, "power": 1.0}, "power 1.0"),
     ({"sd": 0.1, "comparisons": 0}, "got 0 comparisons"), ({"sd": 0.1, "design": "both"}, "paired, unpaired")],
)  # fmt: skip
def test_numbers_out_of_range_are_refused_in_words(given, words):
    with pytest.raises(OptionError, match=words):
        plan_power(**given)


def test_a_pilot_gives_its_own_spread_and_what_is_known_of_it():
    plan = plan_from_pilot(A, B, effect=4.0)
    found = paired(A, B)
    assert plan.spread == found.sd
    assert plan.correlation == found.correlation
    assert (plan.pilot.mean_difference, plan.pilot.low, plan.pilot.high) == (
        found.mean_difference,
        found.low,
        found.high,
    )
    assert plan.subjects == plan.pilot.n == 20
    assert plan.power == power(4.0 / found.sd, 20)
    assert plan.pilot.sd_low < plan.pilot.sd < plan.pilot.sd_safe < plan.pilot.sd_high
    assert plan.needed[0]["safe"] == subjects_needed(4.0, plan.pilot.sd_safe) > plan.needed[0]["n"]
    assert plan.needed_as_observed == subjects_needed(6.25, found.sd)


def test_a_pilots_alternatives_are_those_of_its_two_spreads():
    random = np.random.default_rng(0)
    a = random.normal(0, 1, 30)
    b = 3 * (0.9 * a + 0.5 * random.normal(0, 1, 30))
    plan = plan_from_pilot(a, b, effect=1.0)
    own = next(x for x in plan.alternatives if x["own"])
    assert own["spread"] == pytest.approx(float(np.std(a - b, ddof=1)))
    spreads = [x["spread"] for x in plan.alternatives if x["design"] == "paired"]
    assert spreads == sorted(spreads, reverse=True)  # with the correlation, as far as unequal spreads allow
    assert spreads[-1] > abs(a.std(ddof=1) - b.std(ddof=1))
    needed = 0.5 * (a.var(ddof=1) + b.var(ddof=1) - plan.spread**2) / (a.std(ddof=1) * b.std(ddof=1))
    assert plan.correlation == pytest.approx(needed)


def test_an_unpaired_pilot_is_pooled_as_the_t_test_pools():
    plan = plan_from_pilot(A, B[:12], effect=10.0, design="unpaired")
    assert plan.spread == pytest.approx(math.sqrt((19 * np.var(A, ddof=1) + 11 * np.var(B[:12], ddof=1)) / 30))
    assert plan.subjects == 12
    assert plan.pilot.mean_difference == pytest.approx(np.mean(A) - np.mean(B[:12]))
    assert line(plan, "other subjects")["own"]
    whole = plan_from_pilot(A, B, design="unpaired")
    assert whole.pilot.low < 0 < whole.pilot.high  # though paired, these differences are clear
    assert unpaired(A, B).p > 0.4


def test_missing_scores_are_left_out_and_counted():
    a, b = np.array(A, dtype=float), np.array(B, dtype=float)
    a[3], b[7] = math.nan, math.nan
    plan = plan_from_pilot(a, b)
    assert (plan.pilot.n, plan.pilot.left_out) == (18, 2)
    both = np.isfinite(a) & np.isfinite(b)
    assert plan.spread == pytest.approx(float(np.std((a - b)[both], ddof=1)))


@pytest.mark.parametrize(
    ("a", "b", "design", "words"),
    [([0.9], [0.8], "paired", "share 1 subject with"), ([], [], "paired", "share no subjects"),
     ([0.9, math.nan], [math.nan, 0.8], "paired", "unpaired design needs none in common"),
     (A, A, "paired", "A minus B is the same in all 20 subjects"), (A, np.add(A, 3), "paired", "spread of 0"),
     ([0.9, 0.8], [0.7], "unpaired", "smaller group of A and B has 1 subject"),
     ([0.9, 0.9], [0.7, 0.7], "unpaired", "spread of 0")],
)  # fmt: skip
def test_a_pilot_that_knows_no_spread_gives_a_reason(a, b, design, words):
    plan = plan_from_pilot(a, b, effect=0.1, design=design)
    assert words in plan.reason
    assert math.isnan(plan.power)
    assert plan.needed == plan.sizes == plan.alternatives == []


def test_two_subjects_are_a_plan_however_poor():
    plan = plan_from_pilot([0.9, 0.8], [0.85, 0.7], effect=0.05)
    assert plan.reason == ""
    assert plan.pilot.sd_high > 20 * plan.pilot.sd
    assert any(x["own"] for x in plan.alternatives)


def test_a_method_whose_scores_are_constant_leaves_the_spread_of_differences():
    plan = plan_from_pilot(A, [900] * 20, effect=4.0)
    assert plan.spread == pytest.approx(float(np.std(A, ddof=1)))
    assert [x["what"] for x in plan.alternatives] == ["these differences"]


def test_paired_scores_of_different_length_are_refused():
    with pytest.raises(OptionError, match="got 20 and 3"):
        plan_from_pilot(A, [1, 2, 3])


def test_a_simulation_is_of_the_same_subjects_and_effect():
    plan = plan_from_pilot(A, B, effect=4.0, subjects=25, simulate="t", studies=1500)
    assert (plan.simulated.n, plan.simulated.difference, plan.simulated.studies) == (25, 4.0, 1500)
    assert plan.simulated.power == pytest.approx(plan.power, abs=0.07)
    turned = plan_from_pilot(B, A, effect=4.0, subjects=25, simulate="t", studies=200)
    assert turned.simulated.difference == -4.0  # on the side on which the pilot's differences lie
    groups = plan_from_pilot(A, B, effect=20.0, design="unpaired", simulate="t", studies=1500)
    assert groups.simulated.test == "Welch's t"
    assert groups.simulated.power == pytest.approx(groups.power, abs=0.07)


def test_all_pairs_are_planned_and_the_middling_one_is_found():
    random = np.random.default_rng(0)
    base = random.normal(0.8, 0.1, 15)
    wide = pd.DataFrame({name: base + random.normal(0, s, 15) for name, s in [("x", 0.001), ("y", 0.01), ("z", 0.1)]})
    plans = plan_pairs(wide, effect=0.01)
    assert [(p.pilot.a, p.pilot.b) for p in plans] == [("x", "y"), ("x", "z"), ("y", "z")]
    spreads = sorted(p.spread for p in plans)
    assert middling(plans).spread == spreads[1]
    assert middling(plans[:2]).spread == min(p.spread for p in plans[:2])
    wide["same"] = wide["x"]
    assert sum(bool(p.reason) for p in plan_pairs(wide)) == 1
    assert middling([p for p in plan_pairs(wide) if p.reason]) is None
    with pytest.raises(OptionError, match="two methods, got 1: x"):
        plan_pairs(wide[["x"]])


def test_plans_do_not_depend_on_the_metrics_unit():
    small, large = (
        plan_from_pilot(A, B, effect=4.0),
        plan_from_pilot(np.multiply(A, 1e-3), np.multiply(B, 1e-3), effect=4e-3),
    )
    assert small.subjects_needed == large.subjects_needed
    assert small.power == pytest.approx(large.power)
    assert small.detectable == pytest.approx(1e3 * large.detectable)


def test_an_agreement_near_one_is_not_called_one():
    plan = plan_power(effect=0.01, sd=0.1, correlation=0.9982)
    assert next(x["what"] for x in plan.alternatives if x["own"]) == "correlation 0.998"


def test_plans_are_plain_data():
    assert dataclasses.asdict(plan_from_pilot(A, B, effect=4.0))["pilot"]["n"] == 20
