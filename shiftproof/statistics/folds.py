"""Differences over the folds of a cross-validation, which share their training subjects."""

from __future__ import annotations

import math
from dataclasses import dataclass

from numpy.typing import ArrayLike
from scipy import stats

from ..errors import OptionError
from .intervals import check_level, constant, finite


@dataclass(frozen=True)
class FoldTest:
    """Corrected resampled t-test of a mean difference over `k` folds; NaN with a `reason` where there is none."""

    t: float
    p: float
    low: float
    high: float
    df: int
    reason: str = ""
    mean_difference: float = math.nan
    k: int = 0


def corrected_resampled_t(differences: ArrayLike, *, train: int, test: int, level: float = 0.95) -> FoldTest:
    """Test of the difference between two methods over the folds of a (repeated) cross-validation.

    Folds share most of their training subjects, so their differences hang together and the plain standard
    error s / sqrt(k) is too small, the more so the more often folds are drawn anew. Here the variance is
    (1 / k + test / train) s^2, with k - 1 degrees of freedom. For r repetitions of k folds give all k r
    differences (R. R. Bouckaert and E. Frank, PAKDD 2004). The correction is a rule of thumb: it is about
    right for the false claims and gives power away.

    Where the scores of single subjects are at hand, test those instead (`paired`): each was predicted once,
    and the subject is the unit.

    C. Nadeau and Y. Bengio, "Inference for the Generalization Error", Machine Learning 52 (2003).

    Args:
        differences: (k,) difference of the two methods' scores in each fold; NaN is left out.
        train: Subjects that a fold trains on.
        test: Subjects that it is scored on.
        level: Coverage of `low` to `high`.

    Raises:
        OptionError: For sizes below 1, or a level outside 0 to 1.
    """
    check_level(level)
    if train < 1 or test < 1:
        raise OptionError(f"a fold trains and is scored on at least 1 subject, got train {train} and test {test}")
    values = finite(differences)
    k, mean = len(values), float(values.mean()) if len(values) else math.nan
    nothing = (math.nan, math.nan, math.nan, math.nan, max(0, k - 1))
    if k < 2:
        return FoldTest(*nothing, f"it takes at least 2 folds, got {k}", mean, k)
    if constant(values):
        return FoldTest(*nothing, f"all {k} differences are {mean:+.4g}: there is no spread to test against", mean, k)
    error = math.sqrt(1 / k + test / train) * float(values.std(ddof=1))
    t, half = mean / error, float(stats.t.ppf((1 + level) / 2, k - 1)) * error
    return FoldTest(t, float(2 * stats.t.sf(abs(t), k - 1)), mean - half, mean + half, k - 1, "", mean, k)
