"""Pages are made of templates: one place says how these write numbers, names and figures."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from . import numbers
from .scripts import TEMPLATES
from .svg import inline
from .tables import p_text


def template(name: str, *folders: Path) -> Template:
    """A template by name; its `style` is set.

    Args:
        name: Of the file.
        folders: Where to look before the report's own templates.
    """
    environment = Environment(
        loader=FileSystemLoader([*folders, TEMPLATES]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": numbers.number,
        "grouped": numbers.grouped,
        "between": lambda part, digits, signed=False: numbers.span(part["low"], part["high"], digits, signed=signed),
        "percent": numbers.percent,
        "percent_span": numbers.percent_span,
        "plural": numbers.plural,
        "tied": numbers.tied,
        "p": p_text,
        "inline": inline,
    }
    environment.globals["style"] = Markup((TEMPLATES / "style.css").read_text(encoding="utf-8"))
    return environment.get_template(name)
