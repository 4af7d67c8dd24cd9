"""The page in a real browser: quiet, offline, usable by keyboard, readable in light, dark, narrow and on paper."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import SimpleITK as sitk

from shiftproof.report import report
from shiftproof.report.scripts import script

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra dev)")
axe = pytest.importorskip("axe_core_python.sync_playwright", reason="axe-core-python is not installed (extra dev)")

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium on the PATH (Debian: apt-get install chromium)")

# WebGL by software, so that a machine without a screen or a GPU shows volumes.
GL = ["--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"]
WIDE, NARROW = {"width": 1280, "height": 800}, {"width": 320, "height": 640}
USUAL = {"width": 800, "height": 600}  # software draws volumes by the pixel
WAIT = 60_000  # ms, for machines that are busy


@pytest.fixture(scope="module")
def browser() -> Iterator:
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", *GL])
        yield found
        found.close()


@pytest.fixture(scope="module")
def study(tmp_path_factory, make_study_at) -> Path:
    """As small as a study can be that has everything: three rows, a reference, volumes at two sites."""
    rows = ["erm/none", "erm/strong", "dann/strong", "target-supervised/strong"]
    return make_study_at(tmp_path_factory.mktemp("browsed"), rows=rows, sites=["A", "B"], seeds=[0], n=3, images=True)


@pytest.fixture(scope="module")
def study_page(study) -> Path:
    return report(study)


class Visit:
    """An open page, what it said, and what it asked for."""

    def __init__(self, page) -> None:
        self.page = page
        self.said: list[str] = []
        self.asked: list[str] = []
        page.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.on("request", lambda request: self.asked.append(request.url))

    def open_volume(self, place: int = 0) -> str:
        """By keyboard; what the viewer says of where it is."""
        button = self.page.locator("button[data-volume]").nth(place)
        button.focus()
        self.page.keyboard.press("Enter")
        sync_api.expect(self.status).to_contain_text("slice", timeout=WAIT)
        return self.status.inner_text()

    @property
    def status(self):
        return self.page.locator("[data-part=status]")

    def colours(self) -> dict[str, int]:
        """How many points of the volume's picture have a hue, as a structure's tint has, and how many are lit."""
        canvas = self.page.locator("#viewer canvas")
        pixels = matplotlib.image.imread(BytesIO(canvas.screenshot()), format="png")[..., :3]
        hue = np.ptp(pixels, axis=-1)
        return {"tinted": int((hue > 0.1).sum()), "lit": int((pixels.max(-1) > 0.1).sum())}


@pytest.fixture
def visit(browser, study_page):
    contexts = []

    def made(path: Path = study_page, *, before: str = "", **options) -> Visit:
        context = browser.new_context(**{"viewport": USUAL} | options)
        contexts.append(context)
        found = Visit(context.new_page())
        if before:
            found.page.add_init_script(before)
        found.page.goto(path.as_uri())
        return found

    yield made
    for context in contexts:
        context.close()


def column(page, table: str, number: int) -> list[str]:
    cells = page.locator(f"{table} tbody tr:not(.group) > *:nth-child({number})")
    return [re.split(r"\n", text)[0].strip() for text in cells.all_inner_texts()]


# Quiet and offline ---------------------------------------------------------------------------------------------


def test_nothing_is_said_and_nothing_is_asked_even_by_the_viewer(visit, study_page):
    seen = visit()
    seen.open_volume()
    for key in ("ArrowUp", "e", "1", "5", "ArrowLeft", "4", "v", "c", "Escape"):
        seen.page.keyboard.press(key)
    assert seen.said == []
    assert seen.asked == [study_page.as_uri()]


def test_a_script_that_is_not_the_pages_does_not_run(visit):
    seen = visit()
    seen.page.evaluate(
        """() => {
            const element = document.createElement("script");
            element.textContent = "globalThis.foreign = true";
            document.body.append(element);
        }"""
    )
    assert seen.page.evaluate("globalThis.foreign") is None
    assert any("Content Security Policy" in text for text in seen.said)


def test_names_of_users_do_not_become_scripts(visit, make_study):
    evil = "</script><script>globalThis.foreign=1</script><img src=x onerror='globalThis.foreign=1'>"
    study = make_study(
        images=True, sites=["A"], n=3, rows=["erm/none"], seeds=[0], facts={"classes": ["background", evil, "g", "w"]}
    )
    seen = visit(report(study))
    seen.open_volume()
    assert seen.page.evaluate("globalThis.foreign") is None
    assert evil in seen.page.locator("#viewer [data-part=structures]").inner_text()
    assert seen.said == []


# Tables --------------------------------------------------------------------------------------------------------


def test_a_table_is_sorted_by_keyboard_and_comes_back(visit):
    page = visit().page
    before = column(page, "table.main", 2)
    head = page.locator("table.main thead th").nth(1)
    states = []
    head.locator("button").focus()
    for _ in range(3):
        page.keyboard.press("Enter")
        states.append((head.get_attribute("aria-sort"), column(page, "table.main", 2)))
    # Rows and references are two groups; each is sorted in itself.
    rows, references = before[:3], before[3:]
    assert [s for s, _ in states] == ["ascending", "descending", "none"]
    assert states[0][1] == sorted(rows, key=float) + sorted(references, key=float)
    assert states[1][1] == sorted(rows, key=float, reverse=True) + sorted(references, key=float, reverse=True)
    assert states[2][1] == before
    assert rows != sorted(rows, key=float) or rows != sorted(rows, key=float, reverse=True)


def test_one_column_at_a_time_says_that_it_is_sorted(visit):
    page = visit().page
    for number in (0, 1, 2):
        page.locator("table.main thead button.sort").nth(number).click()
    sorts = page.locator("table.main thead th").evaluate_all("all => all.map(th => th.getAttribute('aria-sort'))")
    assert sorts.count("ascending") == 1
    assert sorts[2] == "ascending"
    assert set(sorts) == {"ascending", "none"}


ODD = """
<table id="odd"><thead><tr><th>what</th><th>how much</th></tr></thead><tbody>
<tr class="group"><th colspan="2">group</th></tr>
<tr><td>a</td><td>−0.5</td></tr><tr><td>b</td><td>–</td></tr><tr><td>c</td><td>1.5 h</td></tr>
<tr><td>d</td><td>3.2 min</td></tr><tr><td>e</td><td>&lt; 0.001</td></tr><tr><td>f</td><td>0.001</td></tr>
<tr><td>g</td><td>[0.2, 0.3]</td></tr><tr><td>h</td><td><span class="v">12 %</span><span class="s">99</span></td></tr>
<tr><td>i</td><td data-sort="1e6">many</td></tr><tr><td>j10</td><td>100 s</td></tr><tr><td>j9</td><td>0.2e-5</td></tr>
</tbody></table>
"""


def test_signs_units_and_missing_values_have_their_order(visit):
    """The script alone, in a page whose every cell is a case of its own."""
    seen = visit(bypass_csp=True)
    seen.page.set_content(f"<main>{ODD}</main><script>{script('tables.js').text}</script>")
    names, values = seen.page.locator("#odd button").all()
    values.click()
    first = seen.page.locator("#odd tbody tr td:first-child").all_inner_texts()
    assert first == ["a", "j9", "e", "f", "h", "j10", "d", "c", "i", "g", "b"]  # words after numbers, nothing last
    values.click()
    assert seen.page.locator("#odd tbody tr td:first-child").all_inner_texts()[-1] == "b"  # nothing stays last
    assert seen.page.locator("#odd tbody tr").first.inner_text() == "group"
    names.click()
    assert seen.page.locator("#odd tbody tr td:first-child").all_inner_texts() == [*"abcdefghi", "j9", "j10"]


def test_without_scripts_the_page_is_complete_and_has_no_dead_buttons(visit):
    page = visit(java_script_enabled=False).page
    assert page.locator("button:visible").count() == 0
    assert page.locator("#viewer-lead").is_hidden()
    assert page.locator("table.main tbody tr").count() == 4
    assert page.locator(".card svg").count() > 5


# The viewer ----------------------------------------------------------------------------------------------------


def test_the_viewer_opens_where_the_picture_is_and_gives_the_focus_back(visit, study):
    seen = visit()
    page = seen.page
    said = seen.open_volume()
    caption = page.locator(".card").first.locator("figcaption").first.text_content()
    of_picture = int(re.search(r"Axial (\d+) of 28", caption)[1])
    title = page.locator("#viewer-title").inner_text()
    subject = re.search(r"([AB]-\d+)", title)[1]
    # The picture counts slices of the file; the volume is cropped to the structures with 15 mm around.
    label = sitk.GetArrayFromImage(sitk.ReadImage(str(study / "labels" / f"{subject}.nii.gz")))
    assert int(label.astype(bool).sum(axis=(1, 2)).argmax()) == of_picture - 1
    assert re.match(r"axial slice \d+ of \d+ · grey value -?\d+ · label \w+ · prediction \w+$", said)
    assert page.evaluate("document.activeElement.tagName") == "CANVAS"
    page.keyboard.press("Escape")
    assert page.locator("#viewer").is_hidden()
    assert page.evaluate("document.activeElement.dataset.volume") == "1-1"


def test_keys_move_through_slices_and_stop_at_the_ends(visit):
    seen = visit()
    place = lambda: int(re.search(r"(\w+) slice (\d+) of", seen.status.inner_text())[2])  # noqa: E731
    first, count = (int(n) for n in re.search(r"slice (\d+) of (\d+)", seen.open_volume()).groups())
    places = []
    for key in ("ArrowUp", "ArrowRight", "ArrowDown", "ArrowLeft", "End", "ArrowUp", "PageDown", "Home", "ArrowDown"):
        seen.page.keyboard.press(key)
        places.append(place())
    assert places == [first + 1, first + 2, first + 1, first, count, count, count - 10, 1, 1]
    assert seen.page.locator("[data-part=slice]").input_value() == "1"
    seen.page.locator("[data-part=slice]").fill("7")
    assert place() == 7
    seen.page.locator("#viewer canvas").focus()
    seen.page.keyboard.press("2")
    assert seen.status.inner_text().startswith("coronal slice")


def test_overlays_are_switched_and_seen(visit):
    seen = visit()
    seen.open_volume()
    page = seen.page
    page.keyboard.press("1")
    both = seen.colours()
    assert both["lit"] > 10_000
    assert both["tinted"] > 3_000
    page.keyboard.press("l")
    line = seen.colours()["tinted"]
    page.keyboard.press("p")
    nothing = seen.colours()
    assert nothing["tinted"] < 0.2 * line < 0.5 * both["tinted"]
    assert nothing["lit"] > 10_000
    page.keyboard.press("e")
    assert seen.colours()["tinted"] > 5 * (nothing["tinted"] + 1)
    assert page.locator("[data-part=kinds]").is_visible()
    checked = {n: page.locator(f"[data-part={n}]").is_checked() for n in ("label", "prediction", "errors")}
    assert checked == {"label": False, "prediction": False, "errors": True}


def test_another_row_and_another_case_can_be_chosen(visit):
    seen = visit()
    seen.open_volume()
    row = seen.page.locator("[data-part=row]")
    options = row.locator("option").all_inner_texts()
    assert len(options) == 2
    assert all(re.search(r": Dice 0\.\d{3}$", text) for text in options)
    seen.page.keyboard.press("1")
    seen.page.keyboard.press("l")
    first = seen.page.locator("#viewer canvas").screenshot()
    row.select_option("1")
    assert seen.page.locator("#viewer canvas").screenshot() != first
    seen.page.locator("[data-part=close]").click()
    seen.open_volume(3)
    assert re.search(r"worst of 3: B-\d\d, B", seen.page.locator("#viewer-title").inner_text())
    assert seen.said == []


def test_without_webgl_the_pictures_remain_and_one_line_says_so(visit):
    before = """
        const given = HTMLCanvasElement.prototype.getContext;
        HTMLCanvasElement.prototype.getContext = function (kind, ...rest) {
            return kind === "webgl2" ? null : given.call(this, kind, ...rest);
        };
    """
    seen = visit(before=before)
    line = seen.page.locator("#no-viewer")
    assert "no WebGL2" in line.inner_text()
    assert seen.page.locator("button[data-volume]:visible").count() == 0
    assert seen.page.locator(".card svg:visible").count() > 5
    assert seen.said == []


def test_a_volume_that_is_broken_is_said_and_the_next_one_opens(visit, study_page, tmp_path):
    text = study_page.read_text()
    broken = re.sub(r'("image":")[^"]{60}', r"\1" + "A" * 60, text, count=1)
    path = tmp_path / "report.html"
    path.write_text(broken)
    seen = visit(path)
    seen.page.locator("button[data-volume]").first.click()
    sync_api.expect(seen.status).to_contain_text("cannot be shown", timeout=WAIT)
    seen.page.locator("[data-part=close]").click()
    assert "slice" in seen.open_volume(1)


# For everyone, everywhere --------------------------------------------------------------------------------------


def violations(page) -> list[str]:
    # Inside figures, which are one image each for a screen reader, there are thousands of elements and no rule.
    found = axe.Axe().run(page, context={"exclude": [["svg > *"]]}, options={"resultTypes": ["violations"]})
    grave = [v for v in found["violations"] if v["impact"] in ("serious", "critical")]
    return [f"{v['id']}: {v['help']} ({n['html'][:120]})" for v in grave for n in v["nodes"][:3]]


@pytest.mark.parametrize(
    ("scheme", "viewport"),
    [("light", WIDE), ("dark", WIDE), pytest.param("dark", NARROW, marks=pytest.mark.slow)],
    ids=["light", "dark", "narrow"],
)
def test_axe_finds_nothing_serious(visit, scheme, viewport):
    page = visit(color_scheme=scheme, viewport=viewport).page
    for details in page.locator("details").all():
        details.evaluate("part => part.open = true")
    assert violations(page) == []


def test_axe_finds_nothing_serious_in_the_viewer(visit):
    seen = visit()
    seen.open_volume()
    seen.page.keyboard.press("e")
    assert violations(seen.page) == []


def test_a_narrow_page_never_scrolls_sideways(visit):
    seen = visit(viewport=NARROW)
    for details in seen.page.locator("details").all():
        details.evaluate("part => part.open = true")
    assert seen.page.evaluate("document.documentElement.scrollWidth") == 320
    seen.open_volume()
    assert seen.page.evaluate("document.querySelector('#viewer .viewer').scrollWidth") <= 320
    assert seen.page.locator("[data-part=plane]").input_value() == "axial"  # one plane, where three would be tiny


def test_the_focus_is_seen_wherever_the_tab_key_leads(visit):
    page = visit().page
    seen = set()
    for _ in range(200):
        page.keyboard.press("Tab")
        found = page.evaluate(
            """() => {
                const on = document.activeElement, style = getComputedStyle(on);
                const seen = style.outlineStyle !== "none" && style.outlineWidth !== "0px";
                return [on.tagName, on === document.body || seen];
            }"""
        )
        seen.add(tuple(found))
        if found[0] == "BODY":
            break
    assert {visible for _, visible in seen} == {True}
    assert {"A", "BUTTON", "SUMMARY", "DIV"} <= {tag for tag, _ in seen}


def test_on_paper_all_is_open_and_nothing_is_to_click(visit, tmp_path):
    page = visit().page
    closed = page.locator("details:not([open]):not(.notice)")
    assert closed.count() > 2
    page.emulate_media(media="print")
    assert page.locator("button[data-volume]:visible").count() == 0
    assert page.locator("#viewer-lead").is_hidden()
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    heights = page.locator("details:not(.notice) table").evaluate_all("all => all.map(t => t.offsetHeight)")
    assert len(heights) > 2
    assert min(heights) > 0
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert closed.count() > 2
    path = tmp_path / "report.pdf"
    page.pdf(path=path, format="A4")
    content = path.read_bytes()
    assert content.startswith(b"%PDF")
    assert len(re.findall(rb"/Type\s*/Page\b", content)) >= 4
