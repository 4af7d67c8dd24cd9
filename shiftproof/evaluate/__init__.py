"""Scores of models and of predictions of any origin, as rows."""

from __future__ import annotations

from .answers import ANSWERS, rows_of_answers
from .rows import COLUMNS, Failure, Scoring, rows_of, scores
from .run import Evaluation, evaluate
from .sizes import Size

__all__ = [
    "ANSWERS",
    "COLUMNS",
    "Evaluation",
    "Failure",
    "Scoring",
    "Size",
    "evaluate",
    "rows_of",
    "rows_of_answers",
    "scores",
]
