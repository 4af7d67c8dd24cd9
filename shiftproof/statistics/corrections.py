"""P-values corrected for how many were looked at."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def holm(p: ArrayLike) -> np.ndarray:
    """Holm's step-down: keeps the chance of any false claim in the family at the level.

    NaN (a test that could not be made) stays NaN and is not counted in the family.
    """
    p = np.asarray(p, dtype=float)
    corrected, there = np.full_like(p, np.nan), np.flatnonzero(np.isfinite(p))
    order = there[np.argsort(p[there], kind="stable")]
    steps = p[order] * np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return corrected


def benjamini_hochberg(p: ArrayLike) -> np.ndarray:
    """Benjamini and Hochberg's step-up: keeps the expected share of false claims at the level.

    NaN as in `holm`.
    """
    p = np.asarray(p, dtype=float)
    corrected, there = np.full_like(p, np.nan), np.flatnonzero(np.isfinite(p))
    order = there[np.argsort(p[there], kind="stable")[::-1]]  # largest first
    steps = p[order] * len(order) / np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.minimum.accumulate(steps), 1)
    return corrected
