"""The page: complete in itself, safe from its contents, the same every time, and honest about what is missing."""

from __future__ import annotations

import itertools
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from shiftproof.errors import RunError
from shiftproof.report import evaluation_report, report, summary

EVIL = (
    "</svg></style><script>alert('x')</script>\"><img src=http://evil.example/x.png onerror=alert(1)>"
    "$a_b$ & {{ 7 * 7 }}"
)
SMALL = {"rows": ["erm/none", "erm/strong"], "sites": ["A"], "seeds": [0], "n": 3}
VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Tags, attributes, ids, headings and text; and whether every tag is closed in order."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: list[str] = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.texts))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def pages(illustrated_study):
    """A full page with images, parsed once."""
    return illustrated_study, Page(report(illustrated_study))


def test_report_lies_in_the_study(pages):
    assert (pages[0] / "report.html").exists()


def test_every_tag_is_closed_in_order(pages):
    assert pages[1].open == []


def test_nothing_is_asked_of_the_network(pages):
    page = pages[1]
    policy = next(a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy
    assert not [w for w in ("unsafe-eval", "connect-src", "worker-src", "http:", "https:", "*") if w in policy]
    assert policy.count("unsafe-inline") == 1  # of styles
    assert not any("src" in a for a in page.all("script"))
    assert not page.all("link")
    for tag, attributes in page.tags:
        for name, value in attributes.items():
            if name in ("src", "href", "xlink:href", "action", "poster"):
                assert (value or "").startswith(("data:", "#")), (tag, name, (value or "")[:60])
            assert not name.startswith("on"), (tag, name)
    assert "@import" not in page.source
    assert not re.search(r"url\((?!#|\"?#)", page.source)


def test_two_equal_studies_give_the_same_page(make_study):
    first, second = (Path(report(make_study(name, images=True, **SMALL))) for name in ("a", "b"))
    # The folders' names are all that differs.
    assert first.read_text().replace(str(first.parent), "") == second.read_text().replace(str(second.parent), "")


def test_a_second_report_changes_nothing(pages):
    before = (pages[0] / "report.html").read_bytes()
    assert report(pages[0]).read_bytes() == before


def test_names_of_users_are_text_and_nothing_else(make_study):
    names = ["brain-sites", "dann/strong", "erm/strong", "A", "csf", "A-00"]
    study = make_study(sites=["A"], n=2, rename={name: EVIL + name for name in names}, facts={"command": EVIL})
    page = Page(report(study))
    assert page.open == []
    assert page.all("script") == [{}]  # ours, which sorts tables
    assert not page.all("img")
    assert "http://evil.example" not in " ".join(
        str(v) for _, a in page.tags for v in a.values() if v != a.get("aria-label")
    )
    assert EVIL + "brain-sites" in page.text
    assert "{{ 7 * 7 }}" in page.text  # no template of ours


def test_ids_are_unique_and_links_lead_somewhere(pages):
    ids = [a["id"] for _, a in pages[1].tags if a.get("id")]
    assert len(ids) == len(set(ids))
    targets = [
        v[1:] for _, a in pages[1].tags for n, v in a.items() if n in ("href", "xlink:href") and v.startswith("#")
    ]
    assert set(targets) <= set(ids)
    assert set(re.findall(r"url\(#([^)]+)\)", pages[1].source)) <= set(ids)


def test_headings_go_down_one_step_at_a_time(pages):
    levels = [int(tag[1]) for tag, _ in pages[1].tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))


def test_every_figure_says_in_words_what_it_shows(pages):
    figures = pages[1].all("svg")
    assert len(figures) > 20
    assert all(a.get("role") == "img" and len(a.get("aria-label") or "") > 30 for a in figures)


def test_page_has_its_sections_in_order(pages):
    sections = [a["id"] for a in pages[1].all("section")]
    assert sections == [
        "answer", "comparison", "certainty", "subjects", "cases", "structures", "training", "run", "limits",
    ]  # fmt: skip


def test_numbers_on_the_page_are_those_of_the_summary(pages):
    root, page = pages
    found, text = summary(root), page.text.replace("\u00a0", " ")
    for row in found["rows"]:
        assert f"{row['overall']['mean']:.3f} [{row['overall']['low']:.3f}, {row['overall']['high']:.3f}]" in text
    for sentence in found["caveats"]:
        assert sentence in text


def test_failed_cells_are_shown_with_their_error(pages):
    assert "loss dice+ce is not finite at step 12; lower the learning rate" in pages[1].text
    assert "1 of 4 cells without results" in pages[1].text
    assert "19 done, 1 failed" in pages[1].text


def test_what_was_run_is_there_to_run_again(pages):
    text = pages[1].text
    for part in (
        "shiftproof study table.csv --methods erm/none,erm/strong,dann/strong,mldg/strong --seeds 2",
        "4f1c9a7be2d04c55",
        "torch 2.13.0",
        "steps 400",
        "dann(weight=1.0, hidden=256)",
        "widths=[16, 32, 64]",
        "mean validation score of held-back subjects of the training domains",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (SMALL, "No case can be shown: erm/strong kept no prediction of A-"),
        (SMALL | {"records": False}, "No run left a record of its training."),
        (SMALL | {"rows": ["erm/strong", "dann/strong"]}, "the study has no target-supervised reference"),
        (SMALL, "1 site held out"),
        ({"n": 1, "sites": ["A", "B"], "seeds": [0]}, "2 subjects are too few"),
        (SMALL | {"failed": [("erm/none", "A", 0), ("erm/strong", "A", 0)]}, "There are no scores to draw."),
    ],
)  # fmt: skip
def test_what_is_missing_is_said_in_words(make_study, options, expected):
    page = Page(report(make_study(**options)))
    assert expected in page.text
    assert page.open == []


def test_a_cell_cut_short_is_a_failed_cell(make_study):
    study = make_study(**SMALL)
    cell = study / "cells" / "erm_strong" / "A" / "0"
    (cell / "rows.csv").write_text("row,held_out,seed,subj")
    found = summary(study)
    assert found["cells"]["failed"] == 1
    assert "results cannot be read" in Page(report(study)).text


def test_a_study_that_is_still_running_has_a_page(make_study):
    import shutil

    study = make_study(sites=["A", "B"], n=2, seeds=[0])
    shutil.rmtree(study / "cells" / "mldg_strong")
    shutil.rmtree(study / "cells" / "dann_strong" / "B")
    found = summary(study)
    assert found["cells"] == {"done": 7, "failed": 0, "not run": 3}
    assert "3 not run" in Page(report(study)).text


def test_subjects_named_by_numbers_keep_their_zeros(make_study):
    study = make_study(sites=["A"], n=3, rename={f"A-0{i}": f"00{i}" for i in range(3)} | {"A": "NA"})
    found = summary(study)
    assert found["subjects"]["by domain"] == {"NA": 3}
    assert found["rows"][0]["overall"]["n"] == 3


# A user's own predictions ----------------------------------------------------------------------------------


@pytest.fixture
def evaluated(tmp_path, make_rows):
    rows = make_rows(["erm/none"], ["A", "B"], [0], 5).drop(columns=["row", "held_out", "seed"])
    rows.to_csv(tmp_path / "rows.csv", index=False)
    facts = {
        "name": "my hospital", "cohort": str(tmp_path), "domain_column": "scanner", "domains": ["A", "B"],
        "classes": ["background", "csf", "grey", "white"], "primary": "dice", "tolerance_mm": 1.0, "values": "indices",
        "missing": "missed", "unlabelled": 2, "predictions": "/somewhere/nnunet_out", "seen_domains": ["A"],
        "failures": [{"subject": "B-07", "path": "", "kind": "ImageError", "message": "B-07.nii.gz is cut short"}],
    }  # fmt: skip
    (tmp_path / "evaluation.json").write_text(json.dumps(facts))
    return tmp_path


def test_an_evaluation_has_the_same_page(evaluated):
    page = Page(evaluation_report(evaluated))
    sections = [a["id"] for a in page.all("section")]
    assert sections == ["answer", "comparison", "certainty", "subjects", "cases", "structures", "run", "limits"]
    assert "over 10 subjects of 2 scanners, lowest at B" in page.text.replace("\u00a0", " ")
    for part in ("nnunet_out", "B-07.nii.gz is cut short", "1 scan could not be scored", "tolerance of 1 mm",
                 "A took part in training", "all structures of the scan count as missed"):  # fmt: skip
        assert part in page.text
    assert "seed" not in page.text.lower()


def test_an_evaluations_means_are_those_of_its_rows(evaluated):
    rows = pd.read_csv(evaluated / "rows.csv")
    dice = rows[rows["metric"] == "dice"].groupby("subject")["value"].mean()
    overall = summary(evaluated)["rows"][0]["overall"]
    assert overall["mean"] == pytest.approx(dice.mean())
    assert overall["n"] == 10


def test_evaluations_of_two_models_are_compared(evaluated, make_rows):
    rows = make_rows(["erm/none", "erm/strong"], ["A", "B"], [0], 8).drop(columns=["held_out", "seed"])
    rows.to_csv(evaluated / "rows.csv", index=False)
    found = summary(evaluated)
    assert [(c["a"], c["b"], c["family"]) for c in found["comparisons"]] == [("erm/none", "erm/strong", "primary")]
    assert found["winner"] == "erm/strong"


def test_rows_without_a_needed_column_are_named(evaluated):
    (evaluated / "rows.csv").write_text("subject,domain,metric,value\ns,A,dice,0.5\n")
    with pytest.raises(RunError, match=r"without structure, expected the columns row, held_out"):
        evaluation_report(evaluated)
