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

from shiftproof.errors import RunError
from shiftproof.evaluate.logits import Logits, summary
from shiftproof.evaluate.voxels import CaseLogits, Truth
from shiftproof.report import report
from shiftproof.report.generalization import generalization, plots, tables
from shiftproof.report.logits import logits_report, read_cells, read_logits, section, shifts_of, words
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
    assert "each sample" in logits_report(tmp_path).read_text()


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
