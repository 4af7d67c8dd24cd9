"""The generalization gap and the logits of a study on its page."""

from __future__ import annotations

import html
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from shiftproof.errors import RunError
from shiftproof.evaluate.logits import Logits, summary
from shiftproof.evaluate.voxels import CaseLogits, Truth
from shiftproof.report import report
from shiftproof.report.generalization import errors_plot, generalization, plots, tables
from shiftproof.report.logits import logits_report, read_cells, read_logits, row_words, section, shifts_of, where, words
from shiftproof.report.logits import plots as logit_plots
from shiftproof.report.reading import read_results

ROWS = ["erm/none", "erm/strong"]


def some_logits(shift: float, seed: int = 0, switch: bool = False) -> dict:
    """Two classes; unseen voxels of the second lie nearer to the boundary by a known shift."""
    random = np.random.default_rng(seed)
    truths = [Truth("background", 0), Truth("lesion", 1)]
    names = ["background", "lesion"]
    if switch:
        truths, names = [Truth("not lesion", 0, False, True), Truth("lesion", 0, True, True)], ["lesion"]
    cases = []
    for side, moved in (("train", 0.0), ("validation", shift / 2), ("test", shift)):
        for i in range(2):
            own = {}
            for t in truths:
                z = random.normal(0, 1, (300, len(names)))
                if switch:
                    z[:, 0] += 3.0 - moved if t.present else -3.0
                else:
                    z[:, t.column] += 3.0 - (moved if t.name == "lesion" else 0.0)
                own[t.name] = z.astype(np.float32)
            cases.append(CaseLogits(f"{side}{i}", "A", 1, side, own))
    return summary(Logits(truths, names, cases, {"row": "a row", "cap": 300}))


def looked_at(root: Path, *, shift: float = 1.5) -> Path:
    """Adds what a cell leaves: scores of training and held-back subjects, better by a known amount, and logits."""
    for cell in sorted(root.glob("cells/*/*/*")):
        rows = pd.read_csv(cell / "rows.csv")
        parts = []
        for side, better in (("train", 0.08), ("validation", 0.03)):
            for k in range(3):
                own = rows[rows["subject"] == rows["subject"].iloc[0]].copy()
                own["value"] = own["value"] + better
                parts.append(own.assign(subject=f"{side}{k}", domain="Z", side=side))
        pd.concat(parts).to_csv(cell / "gap.csv", index=False)
        (cell / "logits.json").write_text(json.dumps(some_logits(shift if "none" in str(cell) else 0.0)))
    return root


@pytest.fixture(scope="module")
def studied(make_study_at, tmp_path_factory) -> Path:
    """For reading."""
    root = tmp_path_factory.mktemp("generalization") / "study"
    return looked_at(make_study_at(root, rows=ROWS, sites=["A", "B"], seeds=[0, 1], n=4, records=False))


@pytest.fixture
def own_study(studied, tmp_path) -> Path:
    """A copy to change."""
    return Path(shutil.copytree(studied, tmp_path / "study"))


def test_gaps_are_differences_of_mean_errors_of_subjects(studied):
    results = read_results(studied)
    part = next(p for p in generalization(results) if (p["structure"], p["metric"]) == ("grey", "sensitivity"))
    line = next(x for x in part["lines"] if x["row"] == "erm/none")
    expected = []
    for site in "AB":
        rows = pd.concat(pd.read_csv(studied / f"cells/erm_none/{site}/{s}/rows.csv") for s in (0, 1))
        own = rows[(rows["structure"] == "grey") & (rows["metric"] == "sensitivity")]
        first = own[own["subject"] == own["subject"].iloc[0]]["value"].mean()
        expected.append((1 - own.groupby("subject")["value"].mean().mean()) - (1 - (first + 0.08)))
    assert line["gaps"]["all"]["value"] == pytest.approx(np.mean(expected))
    assert line["domains"]["A"]["all"]["value"] == pytest.approx(expected[0])
    assert line["worst"] == "AB"[int(np.argmax(expected))]
    assert line["gaps"]["sample"]["value"] == pytest.approx(0.05)
    both = line["gaps"]["sample"]["value"] + line["gaps"]["domain"]["value"]
    assert both == pytest.approx(line["gaps"]["all"]["value"])
    assert line["seeds"]["n"] == 2


def test_the_spread_over_seeds_is_that_of_their_gaps(studied):
    results = read_results(studied)
    part = next(p for p in generalization(results) if (p["structure"], p["metric"]) == ("white", "dice"))
    line = next(x for x in part["lines"] if x["row"] == "erm/strong")
    gaps = []
    for s in (0, 1):
        of = []
        for site in "AB":
            own = pd.read_csv(studied / f"cells/erm_strong/{site}/{s}/rows.csv")
            own = own[(own["structure"] == "white") & (own["metric"] == "dice")]
            first = own[own["subject"] == own["subject"].iloc[0]]["value"].mean()
            of.append(first + 0.08 - own["value"].mean())
        gaps.append(np.mean(of))
    assert line["seeds"]["mean"] == pytest.approx(np.mean(gaps))
    assert line["seeds"]["sd"] == pytest.approx(np.std(gaps, ddof=1))


def test_errors_of_distances_are_the_distances(own_study):
    facts = json.loads((own_study / "study.json").read_text()) | {"primary": "hd95 mm"}
    (own_study / "study.json").write_text(json.dumps(facts))
    part = next(p for p in generalization(read_results(own_study)) if p["metric"] == "hd95 mm")
    assert part["lines"][0]["errors"]["test"] > 1
    assert {p["metric"] for p in generalization(read_results(own_study))} == {
        "sensitivity",
        "precision",
        "dice",
        "hd95 mm",
    }


def test_a_row_that_predicts_a_structure_nowhere_has_no_precision_and_no_marks(own_study):
    for path in own_study.glob("cells/erm_strong/*/*/*.csv"):
        table = pd.read_csv(path)
        if "metric" in table:
            empty = (table["metric"] == "precision") & (table["structure"] == "grey") & (table["row"] == "erm/strong")
            table.loc[empty, "value"] = np.nan
            table.to_csv(path, index=False)
    results = read_results(own_study)
    part = next(p for p in generalization(results) if (p["structure"], p["metric"]) == ("grey", "precision"))
    assert [bool(np.isfinite(line["errors"]["test"])) for line in part["lines"]] == [True, False]
    axes = errors_plot(part, "site").figure.axes[0]
    assert len(axes.collections) == 3  # the three sides of the other row
    assert 'id="generalization"' in report(own_study, viewer=False).read_text()


@pytest.mark.parametrize("most", [0.0148, 0.0152, 0.149, 0.0951, 0.97, 1.0])
def test_no_number_of_an_axis_is_cut_off(studied, most):
    part = generalization(read_results(studied))[0]
    for line in part["lines"]:
        line["errors"] = {"train": 0.0, "validation": most / 2, "test": most}
    figure = errors_plot(part, "site").figure
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    ticks = figure.axes[0].get_xticklabels()
    assert len(ticks) >= 2
    for box in (t.get_window_extent() for t in ticks):
        assert box.x0 >= 0
        assert box.x1 <= figure.bbox.width


def test_the_page_has_both_sections(own_study):
    text = report(own_study, viewer=False).read_text()
    assert 'id="generalization"' in text
    assert 'id="logits"' in text
    assert 'href="#generalization"' in text
    part = text[text.index('<section id="generalization"') : text.index('<section id="logits"')]
    assert part.count("<svg") == 6  # of 9, the others are in tables
    assert part.count("<details>") == 9
    assert "grey: 1 − sensitivity" in part
    assert "largest gap: site" in part


def test_an_older_study_has_neither(make_study):
    study = make_study(rows=ROWS, sites=["A"], seeds=[0], n=3)
    text = report(study, viewer=False).read_text()
    assert "generalization" not in text.replace("--generalization", "")
    assert 'id="logits"' not in text
    assert generalization(read_results(study)) == []


def test_cells_that_were_asked_stand_beside_cells_that_were_not(own_study):
    for name in ("gap.csv", "logits.json"):
        for cell in own_study.glob("cells/erm_strong/*/*"):
            (cell / name).unlink()
    (own_study / "cells/erm_none/A/1/logits.json").write_text("{broken")
    found = generalization(read_results(own_study))
    assert {line["row"] for part in found for line in part["lines"]} == {"erm/none"}
    assert len(read_cells(read_results(own_study))["erm/none"]) == 3
    assert report(own_study, viewer=False).exists()


def test_shifts_are_means_over_trainings(studied):
    results = read_results(studied)
    cells = read_cells(results)
    own = [
        next(s for s in f["shifts"] if (s["truth"], s["to"]) == ("lesion", "test")) for f in cells["erm/none"].values()
    ]
    moved = shifts_of(cells)
    assert moved["erm/none", "lesion"]["shift"] == pytest.approx(np.mean([s["shift"] for s in own]))
    assert moved["erm/none", "lesion"]["shift"] == pytest.approx(1.5, abs=0.25)
    assert abs(moved["erm/strong", "lesion"]["normalised"]) < 0.3


def test_rows_are_drawn_from_the_same_training_at_the_same_scale(studied):
    found = section(read_results(studied), {"selected": "erm/strong", "leader": None, "source_only": "erm/none"})
    assert found["training"] == "held-out site A, seed 0"
    assert len(found["plots"]) == 4  # two rows, two classes
    lesion = [p for p in found["plots"] if "truly lesion" in p.caption]
    assert len({p.figure.axes[0].get_xlim() for p in lesion}) == 1
    assert len({p.caption for p in found["plots"]}) == 4
    assert found["words"][0].startswith("erm/none: Unseen samples of lesion lie nearer to the boundary")


def test_stars_stand_at_the_means_and_contours_around_them(studied):
    found = read_logits(studied / "cells/erm_none/A/0/logits.json")
    figure = next(p for p in section(read_results(studied), {})["plots"] if "truly lesion" in p.caption).figure
    axes = figure.axes[0]
    stars = [line for line in axes.lines if line.get_marker() == "*"]
    panel = next(p for p in found["panels"] if p["truth"] == "lesion")
    drawn = sorted((s.get_xdata()[0], s.get_ydata()[0]) for s in stars)
    assert np.array(drawn) == pytest.approx(np.array(sorted(s["mean"] for s in panel["sides"].values())))
    assert len(axes.collections) == 3


def test_words_tell_what_moved_and_what_did_not():
    said = words(some_logits(2.0))
    assert "lesion lie nearer to the boundary" in said[0]
    assert "background lie where those of training lie" in said[1]
    assert said[2].startswith("The class that moves most is lesion")
    assert len(words(some_logits(0.0))) == 2
    assert "nothing to compare" in words({"shifts": []})[0]


@pytest.mark.parametrize(
    ("seen", "unseen", "expected"),
    [
        (3.0, 2.0, "nearer to the boundary than those of training"),
        (3.0, -1.0, "on the wrong side of the boundary on average"),
        (-1.0, -2.0, "farther beyond the boundary than those of training"),
        (-2.0, -1.0, "beyond the boundary, less far than those of training"),
        (-1.0, 1.0, "on the right side of the boundary on average, where those of training are not"),
        (2.0, 3.0, "farther from the boundary than those of training"),
        (2.0, 1.95, "where those of training lie"),
    ],
)
def test_words_know_on_which_side_of_the_boundary_both_lie(seen, unseen, expected):
    assert where(seen - unseen, seen, unseen) == expected


def test_without_a_spread_in_training_the_direction_is_told():
    assert where(None, 1.0, -1.0) == "on the wrong side of the boundary on average"
    assert where(float("nan"), 1.0, 2.0) == "farther from the boundary than those of training"
    assert where(None, 1.0, 1.0) == "where those of training lie"


def test_of_many_classes_the_page_says_that_some_are_not_drawn(tmp_path):
    names = [f"c{k}" for k in range(6)]
    cases = [
        CaseLogits(side, "A", 1, side, {n: np.random.default_rng(k).normal(0, 1, (40, 6)) for k, n in enumerate(names)})
        for side in ("train", "test")
    ]
    found = summary(Logits([Truth(n, k) for k, n in enumerate(names)], names, cases, {}))
    (tmp_path / "logits.json").write_text(json.dumps(found))
    text = logits_report(tmp_path).read_text()
    assert text.count("<svg") == 4
    assert "Drawn are 4 of 6 classes" in text
    (tmp_path / "logits.json").write_text(json.dumps(some_logits(1.0)))
    assert "Drawn are" not in logits_report(tmp_path).read_text()


def test_shifts_of_a_handful_of_samples_are_said_to_say_little():
    cases = [
        CaseLogits(f"{side}{i}", "A", 1, side, {"mild": np.array([[1.0 + i, 0.0]], np.float32)})
        for side in ("train", "test")
        for i in range(9)
    ]
    said = words(summary(Logits([Truth("mild", 0)], ["mild", "severe"], cases, {})))
    assert said[-1] == "Fewer than 10 samples on a side: mild. Shifts in SD of so few say little."


def test_a_class_without_a_normalised_shift_comes_last_and_moves_least_of_none():
    found = some_logits(2.0)
    background = next(s for s in found["shifts"] if (s["truth"], s["to"]) == ("background", "test"))
    for nothing in (None, float("nan")):  # of one training, and as a mean over trainings
        odd = {**background, "truth": "odd", "normalised": nothing}
        said = words({"shifts": [background, odd, *(s for s in found["shifts"] if s["truth"] == "lesion")]})
        assert [text.split(" lie")[0] for text in said] == [
            f"Unseen samples of {c}" for c in ("lesion", "background", "odd")
        ]


def test_all_rows_are_told_of_one_class():
    """Of the one that moves most in the first row, though another one does in the second."""
    second = some_logits(0.0)
    for s in second["shifts"]:
        s["normalised"] = 9.0 if s["truth"] == "background" else s["normalised"]
    said = row_words({"first": some_logits(2.0), "second": second}, ["first", "second"])
    assert said[0].startswith("first: Unseen samples of lesion lie nearer to")
    assert said[1].startswith("second: Unseen samples of lesion lie where those")


def test_names_and_numbers_of_axes_lie_within_the_figure():
    for found in (some_logits(2.0), {**some_logits(2.0), "panels": wide(some_logits(2.0)["panels"])}):
        for one in logit_plots([found], ["a row"]):
            axes, canvas = one.figure.axes[0], FigureCanvasAgg(one.figure)
            box = axes.get_tightbbox(canvas.get_renderer())
            assert box.x0 >= 0
            assert box.y0 >= 0
            numbers = max(t.get_window_extent().x1 - t.get_window_extent().x0 for t in axes.get_yticklabels())
            assert axes.yaxis.label.get_window_extent().x1 <= axes.bbox.x0 - numbers


def wide(panels: list) -> list:
    """Logits of up to some thousands."""
    for panel in panels:
        for side in panel["sides"].values():
            side["density"]["step"] *= 512
    return panels


@pytest.mark.parametrize("switch", [False, True])
def test_a_page_of_its_own_needs_nothing_else(tmp_path, switch):
    (tmp_path / "logits.json").write_text(json.dumps(some_logits(1.0, switch=switch)))
    text = logits_report(tmp_path).read_text()
    assert text.count("<svg") == 2
    assert not re.search(r'(?:src|href)="(?:https?:)?//', text)
    assert "<script" not in text
    assert "default-src 'none'" in html.unescape(text)
    assert ("truly not lesion" if switch else "truly background") in text
    assert 'aria-label="Density of logits' in text


def test_a_page_of_few_scans_shows_each(tmp_path):
    truth = [Truth("mild", 0), Truth("severe", 1)]
    cases = [
        CaseLogits(f"s{i}", "A", 1, "train" if i % 2 else "test", {"mild": np.array([[1.0 + i, 0.2 * i]], np.float32)})
        for i in range(6)
    ]
    (tmp_path / "logits.json").write_text(json.dumps(summary(Logits(truth, ["mild", "severe"], cases, {}))))
    text = logits_report(tmp_path).read_text()
    assert "truly mild: each sample, stars" in text


def test_a_caption_says_of_which_sides_each_sample_is_drawn(tmp_path):
    random = np.random.default_rng(0)
    cases = [
        CaseLogits(side, "A", 1, side, {"background": random.normal(0, 1, (n, 2)).astype(np.float32)})
        for side, n in (("train", 300), ("validation", 20), ("test", 300))
    ]
    found = summary(Logits([Truth("background", 0)], ["background", "lesion"], cases, {}))
    assert (
        "lines around 50 and 90\xa0% of the samples, each sample of few (held back), stars"
        in logit_plots([found], [""])[0].caption
    )


def test_where_scans_are_the_samples_no_voxels_are_spoken_of(tmp_path):
    (tmp_path / "logits.json").write_text(json.dumps(some_logits(1.0) | {"samples": "scans"}))
    assert "voxels" not in logits_report(tmp_path).read_text()


@pytest.mark.parametrize("content", [None, "{", "[]", '{"panels": []}'])
def test_what_is_no_logits_is_said(tmp_path, content):
    if content is not None:
        (tmp_path / "logits.json").write_text(content)
    with pytest.raises(RunError, match="logits.json"):
        logits_report(tmp_path)


def test_figures_and_tables_name_the_rows(studied):
    results = read_results(studied)
    found = generalization(results)
    shown = tables(found, shifts_of(read_cells(results)))
    assert [line["row"] for line in shown[0]["lines"]] == ROWS
    first = plots(found, "site")[0]
    assert "1 − sensitivity" in first.caption
    assert all(row in first.alt for row in ROWS)
