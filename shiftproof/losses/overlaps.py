"""How far a prediction and a label overlap, from terms that a softmax or a sigmoid gave: sums over voxels, (B,).

Classes and voxels that do not count and voxels of which the label is silent are in no sum. With `batch` the sums go
over all samples, and each is given the same value; without `background` class 0 is left out of the mean over classes.
"""

from __future__ import annotations

import math
from typing import Literal

from torch import Tensor

from ..errors import OptionError
from .targets import Terms

AbsentClass = Literal["skip", "constant", "smooth"]
Denominator = Literal["squared", "linear"]

EPSILON = 1e-7
"""In the denominator of overlaps, nowhere else: a class that is absent has overlap 0 and no gradient."""

SMOOTHING = 1.0
"""Voxels added above and below by `absent_class="smooth"`."""

LITTLE = 1e-5
"""Voxels added above and below by `f_beta_of` and `focal_dice_of`, as in the papers' code."""


def dice_of(terms: Terms, denominator: str, absent_class: str, background: bool, batch: bool) -> Tensor:
    """Dice of terms that stand, as `dice` has it."""
    p, y = terms.p, terms.target
    if denominator == "squared":
        size = p.square().sum(2) + y.square().sum(2)
    elif denominator == "linear":
        size = p.sum(2) + y.sum(2)
    else:
        raise OptionError(f"denominator of Dice is squared or linear, got {denominator!r}")
    return one_minus_overlap(terms, 2 * (p * y).sum(2), size, absent_class, background, batch)


def one_minus_overlap(
    terms: Terms, overlap: Tensor, size: Tensor, absent_class: str, background: bool, batch: bool
) -> Tensor:
    """1 - overlap / size, averaged over the classes that have a term; (B, K) to (B,)."""
    labelled = terms.target.sum(2) > 0  # (B, K)
    counts = terms.compared
    if batch:
        overlap, size = overlap.sum(0, keepdim=True), size.sum(0, keepdim=True)
        labelled, counts = labelled.any(0, keepdim=True), counts.any(0, keepdim=True)
    if absent_class == "skip":
        counts = counts & labelled
    elif absent_class == "smooth":
        overlap, size = overlap + SMOOTHING, size + SMOOTHING
    elif absent_class != "constant":
        raise OptionError(f"absent_class is skip, constant or smooth, got {absent_class!r}")
    return _class_mean(1 - overlap / (size + EPSILON), counts, background, len(terms.target))


def f_beta_of(terms: Terms, beta: float, background: bool, batch: bool) -> Tensor:
    """1 - mean over classes of F-beta, of p and y.

    Raises:
        OptionError: If beta is not above 0.
    """
    if not 0 < beta < math.inf:
        raise OptionError(f"beta of F-beta is above 0 (1 is Dice, above it less is missed), got {beta}")
    p, y = terms.p, terms.target
    true, false, missed = (p * y).sum(2), (p * (1 - y)).sum(2), ((1 - p) * y).sum(2)
    counts = terms.compared
    if batch:
        true, false, missed = (part.sum(0, keepdim=True) for part in (true, false, missed))
        counts = counts.any(0, keepdim=True)
    hit = (1 + beta**2) * true + LITTLE
    return _class_mean(1 - hit / (hit + beta**2 * missed + false), counts, background, len(y))


def focal_dice_of(terms: Terms, q: Tensor, factor: Tensor | None, background: bool, batch: bool) -> Tensor:
    """Mean over classes of (FP + sum(f (1 - q) y) + s) / (2 TP + FP + FN + s), s = 1e-5.

    Without a factor it is 1 - Dice, linear, but for s above: a class that is absent adds 1 and no gradient.

    Args:
        q: (B, K, V) probabilities.
        factor: (B, K, V), f: what a missed share of a voxel weighs; None is 1.
    """
    q, y = terms.within(q), terms.target
    miss = (1 - q) * y
    true, false, missed = (q * y).sum(2), (q * (1 - y)).sum(2), miss.sum(2)
    heavy = missed if factor is None else (factor * miss).sum(2)
    counts = terms.compared
    if batch:
        true, false, missed, heavy = (part.sum(0, keepdim=True) for part in (true, false, missed, heavy))
        counts = counts.any(0, keepdim=True)
    error = (false + heavy + LITTLE) / (2 * true + false + missed + LITTLE)
    return _class_mean(error, counts, background, len(y))


def _class_mean(error: Tensor, counts: Tensor, background: bool, samples: int) -> Tensor:
    """(B, K), or (1, K) of a whole batch, to (B,): the mean over the classes that count, 0 where none does."""
    error = error * counts
    if not background:
        error, counts = error[:, 1:], counts[:, 1:]
    return (error.sum(1) / counts.sum(1).clamp(min=1)).expand(samples)
