"""Rows in, pages out: nothing here calls a network."""

from __future__ import annotations

from .findings import summary
from .page import evaluation_report, report, reported
from .tables import table

__all__ = ["evaluation_report", "report", "reported", "summary", "table"]
