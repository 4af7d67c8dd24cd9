"""Figures: every subject a dot, colours that stay, nothing of matplotlib's state touched."""

from __future__ import annotations

import re

import matplotlib
import numpy as np
import pytest
from matplotlib.collections import PathCollection

from shiftproof.report.curves import curves, thinned
from shiftproof.report.figures import differences, dots, swarm
from shiftproof.report.findings import summarise
from shiftproof.report.reading import read_record, read_results
from shiftproof.report.svg import PALETTE, colours, inline
from shiftproof.statistics import per_subject


@pytest.fixture(scope="module")
def results(usual_study):
    return read_results(usual_study)


@pytest.fixture(scope="module")
def values(results):
    return per_subject(results.rows, "dice")


@pytest.fixture(scope="module")
def found(results):
    return summarise(results)


def drawn(plot) -> list[tuple[float, str]]:
    """Position and colour of all dots."""
    parts = [c for axes in plot.figure.axes for c in axes.collections if isinstance(c, PathCollection)]
    return [(float(x), matplotlib.colors.to_hex(c.get_facecolor()[0])) for c in parts for x in c.get_offsets()[:, 0]]


def test_every_subject_is_a_dot_at_its_score(values, found):
    here = values[values["held_out"] == "B"]
    assert sorted(x for x, _ in drawn(dots(values, found, "B"))) == pytest.approx(sorted(here["value"]))
    assert len(drawn(dots(values, found))) == len(values)


def test_a_domain_has_one_colour_in_every_figure(values, found):
    blue = {c for _, c in drawn(dots(values, found, "A"))}
    assert blue == {colours(found["domains"])["A"][0]}
    assert blue < {c for _, c in drawn(dots(values, found))}
    assert blue < {c for _, c in drawn(differences(values, found))}


def test_differences_are_row_minus_reference(values, found):
    wide = values.pivot_table(index=["held_out", "subject"], columns="row", values="value")
    pairs = [("erm/strong", "erm/none"), ("dann/strong", "erm/strong"), ("mldg/strong", "erm/strong")]
    expected = [v for a, b in pairs for v in wide[a] - wide[b]]
    plot = differences(values, found)
    assert sorted(x for x, _ in drawn(plot)) == pytest.approx(sorted(expected))
    assert "corrected for 4 comparisons" in plot.caption  # the upper bound is tested, and not drawn


def test_no_dot_or_interval_is_cut_off(values, found):
    for domain in ("A", "B", "C", None):
        axes = dots(values, found, domain).figure.axes[0]
        low, high = axes.get_xlim()
        ends = [x for line in axes.lines for x in line.get_xdata()]
        assert low < min(ends)
        assert max(ends) < high


def test_captions_state_n_units_and_what_bars_are(values, found):
    plot = dots(values, found, "C")
    assert "(n = 10)" in plot.caption
    assert "95 % interval" in plot.caption
    assert "averaged over 2 seeds" in plot.caption
    assert plot.figure.axes[0].get_xlabel() == "Dice"
    assert all(r["row"] in plot.alt for r in found["rows"])


def test_more_domains_than_colours_have_other_markers():
    paint = colours([f"site {i}" for i in range(len(PALETTE) + 2)])
    assert len(set(paint.values())) == len(paint)


def test_dots_of_equal_scores_do_not_hide_each_other():
    offsets = swarm(np.array([0.5, 0.5, 0.5, 0.9]), 0.01)
    assert len(set(offsets[:3])) == 3
    assert offsets[3] == 0
    assert np.abs(swarm(np.full(500, 0.5), 0.01)).max() <= 0.2


def test_a_study_without_references_has_no_differences(make_study):
    results = read_results(make_study("alone", rows=["erm/none"]))
    assert differences(per_subject(results.rows, "dice"), summarise(results)) is None


def test_a_record_cut_short_is_read_to_where_it_ends(results):
    record = read_record(results.cells[0].run)
    assert record[-1]["step"] == 400
    assert sum("validation" in line for line in record) == 8


def test_curves_have_a_line_for_each_domain_and_seed(results):
    above, below = curves(results, "dann/strong").figure.axes
    assert len(above.lines) == len(below.lines) == 6
    assert above.lines[0].get_xdata().tolist() == [50, 100, 150, 200, 250, 300, 350, 400]


def test_curves_of_a_row_without_records_are_not_drawn(make_study):
    assert curves(read_results(make_study("q", records=False)), "erm/none") is None


def test_long_curves_are_averaged_not_sampled():
    steps, values = list(range(1000)), list(np.random.default_rng(0).normal(size=1000))
    at, of = thinned(steps, values)
    assert len(at) == 150
    assert np.average(of, weights=np.diff(np.append(np.searchsorted(steps, at), 1000))) == pytest.approx(
        np.mean(values), abs=0.05
    )


def test_figures_leave_matplotlib_as_it_was(values, found):
    before = dict(matplotlib.rcParams)
    inline(dots(values, found, "A"), "one")
    assert dict(matplotlib.rcParams) == before


def test_inlined_figures_follow_the_theme_and_keep_their_text(values, found):
    text = inline(dots(values, found, "A"), "one")
    assert "currentColor" in text
    assert "var(--rule)" in text
    assert ">erm/none</text>" in text
    assert "DejaVu" not in text
    assert not re.search(r"\d{4}-\d\d-\d\dT", text)


def test_ids_of_two_figures_do_not_meet(values, found):
    plot = dots(values, found, "A")
    first, second = (set(re.findall(r'id="([^"]+)"', inline(plot, name))) for name in ("one", "two"))
    assert first
    assert not first & second
