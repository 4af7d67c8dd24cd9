"""The page and the command of a comparison: self-contained, safe, quiet in a real browser, one line for bad input."""

from __future__ import annotations

import html
import json
import re
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from shiftproof.cli import main
from shiftproof.compare import compare

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def scores(path: Path, *, k: int = 4, n: int = 14, names: list[str] | None = None) -> Path:
    random = np.random.default_rng(5)
    subject = random.beta(12, 3, size=n)
    rows = [
        (f"s{i}", "XY"[i % 2], m, subject[i] + 0.02 * j + random.normal(0, 0.01))
        for j, m in enumerate(names or [f"m{j}" for j in range(k)])
        for i in range(n)
    ]
    pd.DataFrame(rows, columns=["subject", "site", "method", "value"]).to_csv(path, index=False)
    return path


def test_a_page_needs_nothing_from_anywhere(tmp_path):
    compare([scores(tmp_path / "x.csv")], out=tmp_path / "out", margin=0.01)
    text = (tmp_path / "out" / "compare.html").read_text()
    assert "default-src 'none'" in html.unescape(text)
    outside = re.findall(r'(?:src|href)="(?!#|data:)[^"]*"|url\((?!#|&quot;#|"#)[^)]*\)|@import', text)
    assert outside == []


def test_names_are_text_and_no_markup(tmp_path):
    evil = '<script>alert(1)</script>&"'
    compare([scores(tmp_path / "x.csv", names=[evil, "$b_1$", "c"])], out=tmp_path / "out")
    text = (tmp_path / "out" / "compare.html").read_text()
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text


def test_the_page_says_what_the_result_says(tmp_path):
    found = compare([scores(tmp_path / "x.csv")], out=tmp_path / "out")
    text = (tmp_path / "out" / "compare.html").read_text()
    text = html.unescape(text).replace("\u00a0", " ")
    assert found["headline"] in text
    assert all(e["text"] in text for e in found["evidence"])
    assert all(note in text for note in found["notes"])
    for p in found["pairs"]:
        assert f"{p['a']} − {p['b']}" in text


@pytest.mark.parametrize("dark", [False, True])
def test_the_page_in_a_browser_is_quiet_sortable_and_as_wide_as_the_screen(tmp_path, dark):
    sync = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("no Chromium on PATH")
    compare([scores(tmp_path / "x.csv", names=["a rather long name of a method", "b", "c", "d"])], out=tmp_path / "out")
    said, asked = [], []
    with sync.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 340, "height": 800}, color_scheme="dark" if dark else "light")
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto((tmp_path / "out" / "compare.html").as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= 340
        first = "#methods tbody tr:first-child th"
        before = page.locator(first).first.inner_text()
        button = page.locator("#methods thead button").nth(1)  # by mean
        button.press("Enter")
        button.press("Enter")
        after = page.locator(first).first.inner_text()
        browser.close()
    assert said == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert (before, after) == ("a rather long name of a method", "d")


@pytest.fixture
def run(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(signal, "signal", lambda *given: None)

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["shiftproof", "compare", *map(str, arguments)])
        capsys.readouterr()
        try:
            main()
            code = 0
        except SystemExit as ended:
            code = int(ended.code or 0)
        return code, *capsys.readouterr()

    return run


def test_the_command_prints_tables_words_and_notes(tmp_path, run):
    code, out, err = run(scores(tmp_path / "x.csv"), "--out", tmp_path / "out")
    assert code == 0
    assert "mean difference" in out
    assert "m3 is better than each of the 3 other methods." in out
    assert str(tmp_path / "out" / "compare.html") in out
    assert 'note: x.csv: columns taken as domain "site"' in err


def test_json_is_what_the_function_returns(tmp_path, run):
    path = scores(tmp_path / "x.csv")
    code, out, _ = run(path, "--json", "--margin", "0.01", "--reference", "m0")

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    assert code == 0
    assert json.loads(out, parse_constant=refuse) == json.loads(
        json.dumps(compare([path], margin=0.01, reference="m0"))
    )


def test_options_reach_the_comparison(tmp_path, run):
    pd.DataFrame({"Fall": ["a", "b", "c"] * 2, "Wer": ["x"] * 3 + ["y"] * 3, "Wert": [1, 2, 3, 2, 3, 5]}).to_csv(
        tmp_path / "x.csv", index=False
    )
    columns = "subject=Fall,method=Wer,value=Wert"
    code, out, _ = run(tmp_path / "x.csv", "--columns", columns, "--lower-is-better", "--methods", "x,y", "--json")
    found = json.loads(out)
    assert code == 0
    assert found["metric"]["higher_is_better"] is False
    assert (found["pairs"][0]["a"], found["pairs"][0]["mean_difference"]) == ("x", pytest.approx(-4 / 3))


@pytest.mark.parametrize("given", [["none.csv"], ["--columns", "subject"], ["--reference", "nobody"]])
def test_bad_input_ends_with_one_line(tmp_path, run, given):
    path = scores(tmp_path / "x.csv")
    code, _, err = run(*([tmp_path / given[0]] if given[0].endswith("csv") else [path, *given]))
    assert code == 2
    assert "Traceback" not in err
    assert err.splitlines()[-1].startswith("shiftproof: ")


def test_of_very_many_subjects_an_even_choice_is_drawn_and_said(tmp_path, monkeypatch):
    monkeypatch.setattr("shiftproof.compare.figures.MOST_DOTS", 20)
    compare([scores(tmp_path / "x.csv", k=2, n=41)], out=tmp_path / "out")
    text = (tmp_path / "out" / "compare.html").read_text()
    assert "20 of 41 shown, evenly by value" in text
    assert text.count("fill-opacity: 0.8") == 60  # two methods and their difference, 20 dots each
