"""Figures of rankings: what is drawn is what was found, at any number and length of names."""

from __future__ import annotations

import re

import matplotlib
import numpy as np
import pandas as pd
import pytest

from shiftproof.report.ranks import BARS, critical_difference, rank_shares, side_by_side, spaced
from shiftproof.report.svg import INK, PALETTE, inline
from shiftproof.statistics import friedman, nemenyi, stability, wilcoxon_holm


def scores(n: int, names: list[str], step: float = 0.01, seed: int = 0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    k = len(names)
    values = random.normal(0.8, 0.05, (n, 1)) + random.normal(0, 0.02, (n, k)) + step * np.arange(k)
    return pd.DataFrame(values, [f"s{i}" for i in range(n)], names)


SIX = scores(20, ["erm/none", "erm/light", "erm/strong", "dann/strong", "mldg/strong", "masf/strong"])
TWENTY = scores(30, [f"a-method-with-a-very-long-name-{i}/strong-augmentation" for i in range(20)], 0.004)


def diagram(wide: pd.DataFrame, post_hoc: str = "nemenyi"):
    found = friedman(wide)
    cd = nemenyi(found.mean_ranks, found.n) if post_hoc == "nemenyi" else wilcoxon_holm(wide)
    return critical_difference(found, cd), found, cd


def bars(plot) -> list[tuple[float, float]]:
    """Ends of the bars that join groups."""
    lines = plot.figure.axes[0].lines
    return [tuple(line.get_ydata()) for line in lines if line.get_color() == PALETTE[0]]


def texts(plot) -> dict[str, float]:
    return {t.get_text(): t.get_position()[1] for t in plot.figure.axes[0].texts}


@pytest.mark.parametrize("post_hoc", ["nemenyi", "wilcoxon"])
def test_each_group_is_a_bar_from_its_best_to_its_worst(post_hoc):
    plot, found, cd = diagram(SIX, post_hoc)
    expected = [(min(r), max(r)) for r in ([found.mean_ranks[m] for m in g] for g in cd.groups)]
    assert expected
    assert np.array(sorted(bars(plot))) == pytest.approx(np.array(sorted(expected)))
    dots = [len(c.get_offsets()) for c in plot.figure.axes[0].collections]
    assert sorted(dots) == sorted(len(g) for g in cd.groups)


def test_the_critical_difference_is_drawn_to_scale():
    plot, _, cd = diagram(SIX)
    ink = [line.get_ydata() for line in plot.figure.axes[0].lines if line.get_color() == INK]
    assert ink[0] == pytest.approx([1, 1 + cd.cd])
    without, *_ = diagram(SIX, "wilcoxon")
    assert not [line for line in without.figure.axes[0].lines if line.get_color() == INK]
    assert "CD" in texts(plot)
    assert "CD" not in texts(without)


def test_names_stand_in_the_order_of_ranks_beside_their_numbers():
    plot, found, _ = diagram(SIX)
    shown = texts(plot)
    places = [shown[name] for name in found.mean_ranks]
    assert places == sorted(places)
    for name, rank in found.mean_ranks.items():
        assert shown[f"{rank:.2f}"] == pytest.approx(shown[name])


@pytest.mark.parametrize("wide", [SIX.iloc[:, :2], SIX.iloc[:, :3], SIX, TWENTY, scores(20, list("abcdefghijkl"), 0.0)])
def test_no_text_leaves_the_figure_or_covers_another(wide):
    for plot in (diagram(wide)[0], diagram(wide, "wilcoxon")[0], rank_shares(stability(wide, resamples=50))):
        plot.figure.draw_without_rendering()
        canvas = plot.figure.bbox
        boxes = [t.get_window_extent() for axes in plot.figure.axes for t in axes.texts if t.get_text() != "CD"]
        for box in boxes:
            assert canvas.x0 - 1 <= box.x0
            assert box.x1 <= canvas.x1 + 1
            assert canvas.y0 <= box.y0
            assert box.y1 <= canvas.y1
        for i, a in enumerate(boxes):
            assert not any(a.padded(-1.5).overlaps(b.padded(-1.5)) for b in boxes[i + 1 :])


def test_crowded_names_keep_their_distance_and_stay_on_the_scale():
    ranks = np.sort(np.random.default_rng(0).uniform(8, 12, 20))
    places = spaced(ranks, 1.0, 20)
    assert np.diff(places).min() >= 1 - 1e-9
    assert (places[0], places[-1]) == pytest.approx((1, 20))
    low = spaced(np.array([18.0, 19.5, 20.0, 20.0]), 0.5, 20)
    assert low == pytest.approx([18.0, 19.0, 19.5, 20.0])
    free = np.array([1.0, 3.0, 6.0])
    assert spaced(free, 0.5, 6) == pytest.approx(free)


def test_bars_that_would_touch_stand_side_by_side():
    means = {"a": 1.0, "b": 2.0, "c": 3.0, "d": 4.0, "e": 5.0}
    placed = side_by_side([["a", "b"], ["b", "c"], ["d", "e"]], means, 0.2)
    assert placed == [(0, [1.0, 2.0]), (1, [2.0, 3.0]), (0, [4.0, 5.0])]
    assert [place for place, _ in side_by_side([["a", "b"], ["d", "e"]], means, 2.5)] == [0, 1]


def test_more_groups_than_have_room_are_counted_not_hidden():
    found = friedman(TWENTY)
    cd = nemenyi(found.mean_ranks, found.n)
    names = list(found.mean_ranks)
    many = [[names[0], *names[i : i + 1 + i % 3]] for i in range(1, BARS + 4)]
    plot = critical_difference(found, type(cd)(cd.cd, cd.p, many, cd.mean_ranks, cd.n, cd.level, cd.test))
    assert len(bars(plot)) == BARS
    assert "3 smaller groups not drawn" in plot.caption


def test_captions_and_words_say_what_was_found():
    plot, found, cd = diagram(SIX)
    assert f"critical difference {cd.cd:.2f}, at 0.05" in plot.caption
    assert "20 subjects" in plot.caption
    assert "Friedman's test: p < 0.001." in plot.caption
    assert all(name in plot.alt for name in SIX)
    two, *_ = diagram(SIX.iloc[:, :2])
    assert two.caption.endswith("Friedman's test compares 3 or more methods, got 2.")
    assert "A bar joins rows" in critical_difference(found, cd, word="row").caption


def test_alt_text_names_the_ends_of_a_group_without_gaps():
    means = {name: float(i) for i, name in enumerate("abcdef", 1)}
    cd = nemenyi(means, 20)
    found = friedman(SIX)
    with_gap = type(cd)(cd.cd, cd.p, [list("abcd"), list("bcdf")], means, 20, 0.05, cd.test)
    assert critical_difference(found, with_gap).alt.endswith("Cannot be told apart: a to d; b, c, d and f.")


def test_blobs_have_the_area_of_their_share():
    drawn = stability(SIX, resamples=200)
    plot = rank_shares(drawn)
    blobs = {
        (round(x), round(y - 0.15)): size
        for c in plot.figure.axes[0].collections
        for (x, y), size in zip(c.get_offsets(), c.get_sizes(), strict=True)
    }
    expected = {
        (rank, line): share
        for line, own in enumerate(drawn.ranks.to_numpy())
        for rank, share in enumerate(own, 1)
        if share
    }
    assert blobs.keys() == expected.keys()
    ratio = [blobs[at] / expected[at] for at in expected]
    assert ratio == pytest.approx([ratio[0]] * len(ratio))


def test_shares_stand_beside_names_and_in_the_words():
    drawn = stability(SIX, resamples=200)
    plot = rank_shares(drawn)
    best, share = next(iter(drawn.first.items()))
    assert f"first in {100 * share:.0f} %" in texts(plot)
    assert f"{best} first in {100 * share:.0f} %" in plot.alt
    assert f"median {drawn.tau_median:.2f}" in plot.caption
    assert "each row takes" in rank_shares(drawn, word="row").caption


def test_what_could_not_be_ranked_is_not_drawn():
    one = SIX.iloc[:1]
    assert critical_difference(friedman(one), nemenyi(friedman(one).mean_ranks, 1)) is None
    assert rank_shares(stability(one)) is None


def test_methods_that_all_tie_are_drawn_as_one_group():
    same = pd.DataFrame(0.5, range(5), list("abc"))
    found = friedman(same)
    plot = critical_difference(found, wilcoxon_holm(same))
    assert "All methods score the same for each subject." in plot.caption
    assert rank_shares(stability(same, resamples=20)).caption.endswith("All of them tie.")


def test_rank_figures_follow_the_theme_and_leave_matplotlib_as_it_was():
    before = dict(matplotlib.rcParams)
    for plot in (diagram(SIX)[0], rank_shares(stability(SIX, resamples=20))):
        text = inline(plot, "one")
        assert "currentColor" in text
        assert "var(--faint)" in text
        assert ">masf/strong</text>" in text
        assert not re.search("#16181d|#5f6672", text)
    assert dict(matplotlib.rcParams) == before
