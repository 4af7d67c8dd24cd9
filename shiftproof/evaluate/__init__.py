"""Scores of models and of predictions of any origin, as rows."""

from __future__ import annotations

from .rows import COLUMNS, Failure, rows_of, scores
from .run import Evaluation, evaluate

__all__ = ["COLUMNS", "Evaluation", "Failure", "evaluate", "rows_of", "scores"]
