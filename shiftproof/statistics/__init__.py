"""Intervals, paired tests, corrections, power: pure functions on arrays.

The unit is the subject. Whoever has several seeds, scans or structures a subject averages
them first (`per_subject`), so that no test counts a subject twice.
"""

from __future__ import annotations

from .corrections import benjamini_hochberg, holm
from .gap import GapClosed, gap_closed
from .intervals import Interval, interval
from .paired import Comparison, paired, sign_flip_p, sign_p, signed_rank_p
from .power import power, smallest_detectable, subjects_needed
from .subjects import per_subject, subject_samples

__all__ = [
    "Comparison",
    "GapClosed",
    "Interval",
    "benjamini_hochberg",
    "gap_closed",
    "holm",
    "interval",
    "paired",
    "per_subject",
    "power",
    "sign_flip_p",
    "sign_p",
    "signed_rank_p",
    "smallest_detectable",
    "subject_samples",
    "subjects_needed",
]
