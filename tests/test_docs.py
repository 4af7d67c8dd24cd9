"""Pages that are made from the code are those of the code, and links lead somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_method_pages_are_up_to_date():
    found = subprocess.run([sys.executable, ROOT / "docs" / "make.py", "--check"], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_to_files(page):
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_rows_of_the_readme_are_rows():
    from shiftproof.study.declare import parse_rows

    text = (ROOT / "README.md").read_text() + (ROOT / "docs" / "tutorial.md").read_text()
    found = re.findall(r"--methods (\S+)", text)
    assert len(found) >= 2
    for methods in found:
        assert parse_rows(methods, None)
