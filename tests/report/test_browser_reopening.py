"""The browser tells of a closed dialog late: a case that was opened meanwhile must still be shown."""

from __future__ import annotations

import shutil

import pytest

from shiftproof.report import report

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra dev)")

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
GL = ["--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"]


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on the PATH (Debian: apt-get install chromium)")
def test_a_case_opened_right_after_closing_another_is_shown(make_study):
    path = report(make_study(images=True, sites=["A"], n=2, rows=["erm/none"], seeds=[0]))
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", *GL])
        page = browser.new_page(viewport={"width": 600, "height": 500})
        page.goto(path.as_uri())
        page.locator("button[data-volume]").first.click()
        status = sync_api.expect(page.locator("[data-part=status]"))
        status.to_contain_text("slice", timeout=60_000)
        page.evaluate(
            """() => {
                document.querySelector("[data-part=close]").click();
                document.querySelectorAll("button[data-volume]")[1].click();
            }"""
        )
        status.to_contain_text("slice", timeout=60_000)
        browser.close()
