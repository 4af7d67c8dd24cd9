"""From rows (subject, structure, metric, seed) to one value a subject."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd


def per_subject(
    rows: pd.DataFrame, metric: str, *, structure: str | None = None, by_structure: bool = True
) -> pd.DataFrame:
    """One line a row of the study, held-out domain and subject, seeds averaged.

    A subject's value is the mean over seeds of the mean over structures of the mean over scans:
    a structure that was scanned twice counts no more than one that was scanned once. Values that
    are NaN (both empty) are left out of means; a subject without any is kept with NaN.

    Args:
        rows: Tidy results: `row`, `held_out`, `seed`, `subject`, `domain`, `structure`, `metric`,
            `value`.
        metric: The one to keep.
        structure: Only this one; None for the mean over structures.
        by_structure: Whether structures are averaged, each with equal weight; else all lines of a subject are, as
            it should be where a line stands under the class that a scan happens to have.

    Returns:
        Columns `row`, `held_out`, `domain`, `subject`, `value`, `seeds` (with a value), sorted.
    """
    by_seed = per_training(rows, metric, structure=structure, by_structure=by_structure)
    by_subject = by_seed.groupby(["row", "held_out", "domain", "subject"], sort=True)["value"]
    return by_subject.mean().to_frame("value").assign(seeds=by_subject.count()).reset_index()


def per_training(
    rows: pd.DataFrame, metric: str, *, structure: str | None = None, by_structure: bool = True
) -> pd.DataFrame:
    """As `per_subject`, by seed, too: columns `row`, `held_out`, `domain`, `subject`, `seed`, `value`."""
    kept = rows[rows["metric"] == metric]
    if structure is not None:
        kept = kept[kept["structure"] == structure]
    keys = ["row", "held_out", "domain", "subject", "seed"]
    inner = ["structure"] if by_structure else []
    grouped = kept.groupby([*keys, *inner], sort=True)["value"].mean()
    return grouped.groupby(keys, sort=True).mean().reset_index()


def subject_samples(subjects: Sequence[object], resamples: int, *, seed: int = 0) -> Iterator[np.ndarray]:
    """Bootstrap samples of subjects: each time the positions of all lines of as many subjects, drawn with replacement.

    For figures of a whole set, such as AUROC, that are no mean over subjects. Lines of a subject stay together, since
    they depend on each other.

    Args:
        subjects: Whose each line is.
        resamples: How many samples.
        seed: Equal subjects and seeds give equal samples.
    """
    places: dict[object, list[int]] = {}
    for place, subject in enumerate(subjects):
        places.setdefault(subject, []).append(place)
    groups = [np.array(own) for own in places.values()]
    random = np.random.default_rng(seed)
    for _ in range(resamples):
        yield np.concatenate([groups[i] for i in random.integers(len(groups), size=len(groups))])
