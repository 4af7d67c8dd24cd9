"""A wide table of scores (a line a subject, a column a method) as rankings need it: complete, one line a subject."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

from ..errors import OptionError


def scores_of(wide: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """The table as finite floats or NaN, without lines and columns that hold no score, and a note on what went.

    Raises:
        OptionError: For a column that is no number, or two columns of the same name.
    """
    names = [str(c) for c in wide.columns]
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise OptionError(f"two columns are named {twice[0]!r}, expected one column a method: rename one of them")
    found = wide.set_axis(names, axis=1)
    for name in names:
        try:
            found[name] = found[name].astype(float)
        except (TypeError, ValueError):
            raise OptionError(f"the scores of {name!r} are no numbers, expected one number or NaN a subject") from None
    found = found.where(np.isfinite(found))
    empty = [n for n in names if found[n].isna().all()]
    found = found.drop(columns=empty).dropna(how="all")
    return found, f"no score at all: {', '.join(empty)}" if empty else ""


def by_subject(scores: pd.DataFrame) -> pd.DataFrame:
    """One line a subject: the mean over its lines, where it stands in several domains.

    The subject is the last level of the index. A mean with a NaN in it is NaN: half a subject
    would be compared with a whole one.
    """
    subjects = scores.index.get_level_values(-1)
    if subjects.is_unique:
        return scores.set_axis(subjects)
    lines = scores.groupby(subjects, sort=False)
    return lines.mean().where(lines.count().eq(lines.size(), axis=0))


def complete_cases(wide: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """The subjects that every method has scored, one line each, and a note on the others."""
    scores, note = scores_of(wide)
    all_of_them = by_subject(scores)
    kept = all_of_them.dropna()
    gone = len(all_of_them) - len(kept)
    return kept, "; ".join(n for n in (note, left_out(gone, len(all_of_them))) if n)


def left_out(gone: int, of: int) -> str:
    if not gone:
        return ""
    lack, be = ("lacks", "is") if gone == 1 else ("lack", "are")
    return f"{gone} of {of} subjects {lack} a score and {be} left out"


def ranked(scores: np.ndarray, higher_is_better: bool) -> np.ndarray:
    """Ranks along the last axis, 1 is best, equal scores share the mean of their ranks."""
    return stats.rankdata(towards_less(scores, higher_is_better), axis=-1)


def towards_less(scores: np.ndarray, higher_is_better: bool) -> np.ndarray:
    """Turned so that less is better, and without the rounding that would part equal scores."""
    known = np.abs(scores[np.isfinite(scores)])
    size = float(known.max()) if known.size and known.max() > 0 else 1.0
    return np.round((-scores if higher_is_better else scores) / size, 12)
