"""Rows in, pages out: nothing here calls a network."""

from __future__ import annotations

from .findings import summary
from .page import evaluation_report, evaluation_summary, report
from .tables import table

__all__ = ["evaluation_report", "evaluation_summary", "report", "summary", "table"]
