"""P-values corrected for how many were looked at."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from ..errors import OptionError


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


def hommel(p: ArrayLike) -> np.ndarray:
    """Hommel's closed test of Simes' inequality: as `holm`, a little more powerful, but not under every dependence.

    Any dependence that keeps Simes' inequality will do, as tests against one common row have it. NaN as in `holm`.

    G. Hommel, "A Stagewise Rejective Multiple Test Procedure Based on a Modified Bonferroni Test", Biometrika
    75 (1988).
    """
    return adjusted(p, "hommel")


def benjamini_yekutieli(p: ArrayLike) -> np.ndarray:
    """Benjamini and Yekutieli's step-up: `benjamini_hochberg` under any dependence, and dearer. NaN as in `holm`."""
    return adjusted(p, "fdr_by")


def bonferroni(p: ArrayLike) -> np.ndarray:
    """Each times their number: what an interval at level 1 - 0.05 / number belongs to. NaN as in `holm`."""
    return adjusted(p, "bonferroni")


CORRECTIONS: dict[str, Callable[[ArrayLike], np.ndarray]] = {
    "holm": holm,
    "hommel": hommel,
    "bonferroni": bonferroni,
    "benjamini-hochberg": benjamini_hochberg,
    "benjamini-yekutieli": benjamini_yekutieli,
}


def correct(p: ArrayLike, rule: str = "holm") -> np.ndarray:
    """P-values corrected by a named rule; NaN as in `holm`.

    Args:
        p: (N,) of one family: every test that was looked at.
        rule: A key of `CORRECTIONS`. The first three keep the chance of any false claim, the other two the
            expected share of false claims.

    Raises:
        OptionError: For an unknown rule.
    """
    if rule not in CORRECTIONS:
        raise OptionError(f"unknown correction {rule!r}, expected one of {', '.join(CORRECTIONS)}")
    return CORRECTIONS[rule](p)


def adjusted(p: ArrayLike, method: str) -> np.ndarray:
    """By statsmodels, of those that are there."""
    from statsmodels.stats.multitest import multipletests

    p = np.asarray(p, dtype=float)
    corrected, there = np.full_like(p, np.nan), np.isfinite(p)
    if there.any():
        corrected[there] = multipletests(p[there], method=method)[1]
    return corrected
