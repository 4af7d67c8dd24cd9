"""A plan of a study's size in words, tables, a figure and a page."""

from __future__ import annotations

import html
import itertools
import math
import re

import matplotlib
import matplotlib.image
import numpy as np
import pytest

from shiftproof.errors import OptionError
from shiftproof.report.numbers import NOTHING
from shiftproof.report.power import beside, power_page, power_plot, save_power
from shiftproof.report.power_tables import pairs_table, tables
from shiftproof.report.power_words import figure, told
from shiftproof.statistics import plan_from_pilot, plan_power, power, smallest_detectable

LECTURE = {"effect": 0.01, "sd": 0.10, "correlation": 0.5, "subjects": 20}
RANDOM = np.random.default_rng(0)
FIRST = RANDOM.normal(0.8, 0.05, 18)
SECOND = FIRST - RANDOM.normal(0.01, 0.02, 18)


@pytest.fixture(scope="module")
def lecture():
    return plan_power(**LECTURE)


@pytest.fixture(scope="module")
def pilot():
    return plan_from_pilot(FIRST, SECOND, names=("ours", "theirs"), effect=0.01, subjects=30, simulate="t", studies=200)


def text_of(plan, metric=""):
    return " ".join(told(plan, metric))


def test_the_lectures_case_in_words(lecture):
    text = text_of(lecture)
    assert (
        "20 subjects find a true difference of 0.01 with a power of 0.071: 93 % of such studies would miss it." in text
    )
    assert "787 for 80 % and 1053 for 90 % power; with a rank test (if normal) some 825 and 1103." in text
    assert "20 subjects show a true difference of 0.066 or more with 80 % power" in text
    assert "correlate with 0.989" in text
    assert "p < 0.05, the difference they show is 5.1 times the true one on average (type M), and 12 %" in text


def test_a_study_with_enough_power_is_not_warned_of():
    text = text_of(plan_power(effect=0.01, sd=0.10, correlation=0.5, subjects=800))
    assert "Beware" not in text
    assert "would have to correlate" not in text


def test_words_follow_the_pilot(pilot):
    text = text_of(pilot, "dice")
    mean = float(np.mean(FIRST - SECOND))
    assert f"Pilot: ours minus theirs is +{figure(mean)} [" in text
    assert "Dice in 18 subjects" in text
    assert "30 subjects find a true difference of 0.01 Dice" in text
    assert "with its upper limit (80 %, one-sided) it takes" in text
    assert "200 studies of 30 drawn from the observed differences, moved; paired t-test" in text


def test_without_an_effect_the_observed_one_is_told_as_no_plan():
    text = text_of(plan_from_pilot(FIRST, SECOND), "hd95 mm")
    assert "That is no plan" in text
    assert "mm HD95 or more with 80 % power" in text
    assert "Beware" not in text


def test_a_reason_is_all_that_is_said():
    assert told(plan_from_pilot(FIRST, FIRST, names=("x", "y"))) == [
        "No plan: x minus y is the same in all 18 subjects: a spread of 0 says nothing about others."
    ]
    assert tables(plan_from_pilot(FIRST, FIRST)) == []


def test_corrections_and_hopeless_exact_tests_are_told():
    text = text_of(plan_power(sd_difference=0.1, subjects=5, comparisons=11))
    assert "Corrected for 11 comparisons: the level of each is 0.0045 (Bonferroni)." in text
    assert "No sign-flip, signed-rank or sign test can give p < 0.0045 with 5 subjects" in text
    assert "it takes 9." in text


def test_unpaired_plans_speak_of_groups():
    text = text_of(plan_power(effect=0.01, sd=0.1, subjects=20, design="unpaired"))
    assert "Two groups of 20 subjects find" in text
    assert "Subjects in each group needed to show 0.01: 1571" in text


def test_more_subjects_than_there_are_is_said():
    assert "more than ten million subjects" in text_of(plan_power(effect=1e-7, sd=0.1, correlation=0.5))


def test_every_sentence_is_one_whatever_is_asked():
    for effect in (None, 0.01, -3.0):
        for subjects in (None, 2, 400):
            for design in ("paired", "unpaired"):
                plan = plan_power(effect=effect, sd=0.1, subjects=subjects, design=design)
                for sentence in told(plan, "dice"):
                    assert sentence[0].isupper() or sentence[0].isdigit()
                    assert sentence.endswith(".")
                    assert not re.search(r"nan|None|inf\b", sentence), sentence


def test_tables_hold_the_plans_numbers_and_no_empty_column(lecture):
    (_, columns, lines), (_, sizes, by_size) = tables(lecture)
    own = next(line for line in lines if line[0].endswith("*"))
    assert dict(zip(columns, own, strict=True)) == {
        "agreement": "correlation 0.50 *", "SD": "0.1", "power with n = 20": "0.071", "n for 80 %": "787",
        "n for 90 %": "1053", "smallest shown with n = 20": "0.066",
    }  # fmt: skip
    assert ["20 *", "0.071", "5.1 times", "0.066", "0.0468"] in by_size
    (_, columns, lines), (_, sizes, _) = tables(plan_power(sd=0.1, correlation=0.5))
    assert columns == ["agreement", "SD"]
    assert sizes == ["n", "smallest shown with 80 % power", "95 % interval ±"]


def test_a_wanted_power_of_90_is_no_second_column():
    (_, columns, _), _ = tables(plan_power(**LECTURE, power=0.9))
    assert columns.count("n for 90 %") == 1


def test_pairs_have_a_line_each_and_dashes_where_there_is_no_plan(pilot):
    broken = plan_from_pilot([0.9], [0.8], names=("a", "b"), effect=0.01)
    _, columns, lines = pairs_table([pilot, broken], "dice")
    assert columns[-1] == "n for 80 % at 0.01"
    assert lines[0][:2] == ["ours − theirs", "18"]
    assert lines[0][-1] == str(pilot.subjects_needed)
    assert lines[1] == ["a − b", "1", *[NOTHING] * 5]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.066044, "0.066"), (0.1, "0.1"), (1234.5, "1234"), (-0.00625, "−0.00625"), (0.0, "0"), (12.34, "12.3"),
     (math.nan, NOTHING), (100.0, "100"), (3e-12, "0"), (0.099999, "0.1")],
)  # fmt: skip
def test_figures_have_three_digits_that_count(value, text):
    assert figure(value) == text


def curve(plot, panel):
    """The thick line."""
    return max(plot.figure.axes[panel].lines, key=lambda line: (line.get_linewidth(), len(line.get_xdata())))


def points(plot, panel):
    return [
        (float(i.get_xdata()[0]), float(i.get_ydata()[0]))
        for i in plot.figure.axes[panel].lines
        if i.get_marker() == "o"
    ]


def test_the_drawn_curves_are_power_and_what_shows(lecture):
    plot = power_plot(lecture)
    above, below = curve(plot, 0), curve(plot, 1)
    for i in range(0, len(above.get_xdata()), 17):
        n = int(above.get_xdata()[i])
        assert above.get_ydata()[i] == pytest.approx(power(0.1, n))
        assert below.get_ydata()[i] == pytest.approx(smallest_detectable(0.1, n))
    assert points(plot, 0) == [(20, pytest.approx(0.0709, abs=1e-4)), (787, pytest.approx(0.8, abs=1e-3))]
    assert points(plot, 1) == [(20, pytest.approx(0.0660, abs=1e-4))]
    low, high = plot.figure.axes[0].get_xlim()
    assert low < 20 < 1053 < high


def test_lines_beside_the_plans_can_be_told_apart(lecture, pilot):
    assert [c for c, _ in beside(lecture)] == [0.0, 0.8, 0.9, 0.95, 0.99]
    for plan in (lecture, pilot):
        spreads = sorted([plan.spread, *(s for _, s in beside(plan))])
        assert min(b / a for a, b in itertools.pairwise(spreads)) > 1.3
    assert beside(plan_power(effect=0.01, sd_difference=0.1)) == []
    assert beside(plan_power(effect=0.01, sd=0.1, design="unpaired")) == []


def test_a_pilots_band_holds_its_curve(pilot):
    plot = power_plot(pilot, "dice")
    (band,) = plot.figure.axes[1].collections
    inside = band.get_paths()[0]
    n, shown = curve(plot, 1).get_data()
    middle = len(n) // 2
    assert inside.contains_point((n[middle], shown[middle]))
    assert "Band: what the pilot leaves open" in plot.caption
    assert "Dice" in plot.caption


def test_a_figure_without_an_effect_has_one_panel():
    assert len(power_plot(plan_power(sd=0.1, correlation=0.5)).figure.axes) == 1


@pytest.mark.parametrize(
    "given", [{"effect": 50.0, "sd": 10.0, "subjects": 2}, {"effect": 1e-4, "sd": 0.1, "subjects": 9}]
)
def test_nothing_that_is_written_lies_outside_of_the_figure(given):
    plot = power_plot(plan_power(**given), "hd95 mm")
    plot.figure.canvas.draw()
    whole = plot.figure.bbox
    for axes in plot.figure.axes:
        for text in [*axes.texts, axes.title, axes._left_title, *axes.get_xticklabels(), axes.xaxis.label]:
            if not text.get_text() or not text.get_visible():
                continue
            box = text.get_window_extent()
            if axes.bbox.x0 - 40 < (box.x0 + box.x1) / 2 < axes.bbox.x1 + 1:  # ticks beyond the limits are not drawn
                assert box.x0 >= whole.x0 - 1, text.get_text()
                assert box.x1 <= whole.x1 + 8, text.get_text()
                assert box.y1 <= whole.y1 + 1, text.get_text()


def test_there_is_no_figure_without_numbers():
    with pytest.raises(OptionError, match="nothing to draw: A minus B is the same"):
        power_plot(plan_from_pilot(FIRST, FIRST))


def test_drawing_leaves_matplotlibs_settings_alone(lecture):
    before = dict(matplotlib.rcParams)
    power_plot(lecture)
    assert dict(matplotlib.rcParams) == before


def test_the_page_needs_nothing_else_and_says_all(pilot):
    page = power_page(pilot, "dice", notes=["2 <subjects> left out"])
    assert "http:" not in re.sub(r"http://www\.w3\.org/[\w/.]+", "", page)
    assert "https:" not in page
    assert "<script" not in page
    plain = html.unescape(page).replace("\u00a0", " ")
    for sentence in told(pilot, "dice"):
        assert sentence in plain
    assert "2 &lt;subjects&gt; left out" in page
    assert page.count("<svg") == 1
    assert page.count("<table>") == 2


def test_the_page_of_a_plan_without_numbers_gives_the_reason():
    page = power_page(plan_from_pilot(FIRST, FIRST, names=("<x>", "y")))
    assert "No plan: &lt;x&gt; minus y is the same" in page
    assert "<svg" not in page
    assert "<table>" not in page


@pytest.mark.parametrize("suffix", [".svg", ".png", ".pdf", ".html", ".PNG"])
def test_plots_are_written_and_equal_plans_give_equal_files(lecture, tmp_path, suffix):
    first, second = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    save_power(first, lecture)
    save_power(second, lecture)
    assert first.read_bytes() == second.read_bytes()
    assert first.stat().st_size > 5000
    if suffix == ".png":
        assert matplotlib.image.imread(first).shape[0] > 700


def test_an_unknown_suffix_is_refused_before_anything_is_drawn(lecture, tmp_path):
    with pytest.raises(OptionError, match=r"got plot\.bmp"):
        save_power(tmp_path / "plot.bmp", lecture)
    assert list(tmp_path.iterdir()) == []
