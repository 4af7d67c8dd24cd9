"""Scripts of a page, by content hash: what the page's policy names runs, and nothing else."""

from __future__ import annotations

import base64
import gzip
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

TEMPLATES = Path(__file__).parent / "templates"
VENDOR = Path(__file__).parent / "vendor"
NIIVUE = VENDOR / "niivue-0.69.0.umd.js.gz"


@dataclass(frozen=True)
class Script:
    """A script of ours as it stands between its tags, and the hash that lets it run."""

    text: Markup
    hash: str


def script(name: str) -> Script:
    """A file of the templates folder; "tables.js" sorts tables and opens details for print."""
    text = (TEMPLATES / name).read_text(encoding="utf-8")
    return Script(Markup(text), content_hash(text.encode()))


@dataclass(frozen=True)
class Library:
    """NiiVue, packed: `text` stands in a block that is no script until a reader asks for a volume."""

    text: str  # base64 of gzip
    hash: str  # of what it unpacks to
    notice: str


def library() -> Library:
    """The volume viewer that is in the package."""
    packed = NIIVUE.read_bytes()
    notice = (VENDOR / "NOTICE-NIIVUE.txt").read_text(encoding="utf-8")
    return Library(base64.b64encode(packed).decode("ascii"), content_hash(gzip.decompress(packed)), notice)


def content_hash(content: bytes) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(content).digest()).decode('ascii')}"


def policy(hashes: Sequence[str] = ()) -> str:
    """A content security policy: no connection to anywhere, and of scripts only those with these hashes.

    Styles are the page's own and figures carry style attributes, hence 'unsafe-inline' for styles alone. Pictures
    inside figures, and the viewer's font, are data: addresses. Nothing else is loosened: the viewer's source is put in
    a script element when it is asked for, and its hash lets it run; it needs no eval, no worker and no connection.
    """
    rules = ["default-src 'none'"]
    if hashes:
        rules.append("script-src " + " ".join(f"'{h}'" for h in hashes))
    rules += ["style-src 'unsafe-inline'", "img-src data:", "base-uri 'none'", "form-action 'none'"]
    return "; ".join(rules)
