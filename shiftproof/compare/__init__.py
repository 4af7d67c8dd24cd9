"""Two or more tables of scores against each other: tests, ranks, words, a page."""

from __future__ import annotations

from .reading import Scores, read_scores
from .run import compare

__all__ = ["Scores", "compare", "read_scores"]
