"""From a figure to SVG inside a page: small, with text that is text, light and dark, always the same."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib
from markupsafe import Markup, escape
from matplotlib.figure import Figure

# Stand for colours of the page's theme; a figure that is saved elsewhere is near-black on white.
INK, FAINT, RULE = "#16181d", "#5f6672", "#d4d7dc"
THEMED = {INK: "currentColor", FAINT: "var(--faint)", RULE: "var(--rule)"}

# Okabe and Ito's palette without its yellow, which is lost on white, and its black: safe for
# colour-blind readers. Beyond seven domains colours come again, with another marker.
PALETTE = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#8c6d46")
GLYPHS = {"o": "●", "s": "■", "^": "▲", "D": "◆", "v": "▼"}  # of markers, for legends

STYLE: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 8.5,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": FAINT,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "text.color": INK,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "auto",
    "text.parse_math": False,  # names are the user's; a dollar in one is a dollar
    "svg.fonttype": "none",
    "svg.hashsalt": "shiftproof",
    "axes.unicode_minus": True,
}


@dataclass(frozen=True)
class Plot:
    """A figure that can stand alone: with its caption, and in words for who cannot see it."""

    figure: Figure
    caption: str
    alt: str
    title: str = ""


@contextmanager
def style() -> Iterator[None]:
    """Around the drawing of one figure; what matplotlib was set to before holds again after."""
    with matplotlib.rc_context(STYLE):
        yield


def colours(domains: list[str]) -> dict[str, tuple[str, str]]:
    """Colour and marker of each domain: the same in every figure of a study."""
    markers = list(GLYPHS)
    return {
        domain: (PALETTE[i % len(PALETTE)], markers[i // len(PALETTE) % len(markers)])
        for i, domain in enumerate(domains)
    }


def inline(plot: Plot, name: str) -> Markup:
    """The figure as an SVG element; `name` keeps its ids apart from those of other figures on the page."""
    buffer = io.StringIO()
    with style():
        plot.figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.S)
    used = set(re.findall(r'(?:url\(#|href="#)([\w.-]+)', text))
    text = re.sub(r' id="([\w.-]+)"', lambda m: f' id="{name}-{m[1]}"' if m[1] in used else "", text)
    text = re.sub(r'(url\(#|href="#)([\w.-]+)', rf"\g<1>{name}-\g<2>", text)
    text = re.sub(r"(font(?:-family)?: [^;\"]*?)'?DejaVu Sans'?[^;\"]*", r"\1inherit", text)
    for colour, themed in THEMED.items():
        text = text.replace(colour, themed)
    width, height = (round(96 * inches) for inches in plot.figure.get_size_inches())
    box = re.search(r'viewBox="[^"]*"', text)
    head = (
        f'<svg role="img" aria-label="{escape(plot.alt)}" {box[0] if box else ""} '
        f'style="max-width: {width}px; aspect-ratio: {width} / {height}" '
        'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">'
    )
    text = head + text[text.index(">") + 1 :]
    return Markup(re.sub(r"\n\s*", "\n", text))
