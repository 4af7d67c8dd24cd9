"""Losses of a segmentation into rare structures that may overlap, (B,), from logits (B, K, *space).

As `imbalance`, with a sigmoid for each structure. A rare structure is rare in its own voxels; what is outside of it is
common. Means are over voxels and structures. `rare` are channels, None all. Arguments are those of `structures`.
With one structure every loss here is that of `imbalance` for two classes, of logits 0 and z.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from .margins import Demands, errors, indicator, of_sigmoid
from .overlaps import f_beta_of, focal_dice_of
from .precision import precise
from .structures import mean_error, structure_terms


def large_margin(
    logits: Tensor,
    label: Tensor,
    *,
    ignore: Tensor | None = None,
    annotated: Tensor | None = None,
    silent: Tensor | None = None,
    margin: float = 0.2,
    asymmetric: bool = True,
    rare: Sequence[int] | None = None,
    eps: float = 0.0,
) -> Tensor:
    """- mean over voxels and structures of y log q + (1 - y) log (1 - q), q = sigmoid(z - m y).

    Args:
        margin: m, as in `imbalance.large_margin`.
        asymmetric: Whether only the inside of rare structures has a margin; if not, z - m y + m (1 - y) of all.
        rare: Rare structures.
        eps: Added inside the logarithms.
    """
    return margin_focal(
        logits,
        label,
        ignore=ignore,
        annotated=annotated,
        silent=silent,
        margin=margin,
        gamma=0.0,
        asymmetric=asymmetric,
        rare=rare,
        eps=eps,
    )


def rare_focal(
    logits: Tensor,
    label: Tensor,
    *,
    ignore: Tensor | None = None,
    annotated: Tensor | None = None,
    silent: Tensor | None = None,
    gamma: float = 2.0,
    asymmetric: bool = True,
    rare: Sequence[int] | None = None,
    eps: float = 0.0,
) -> Tensor:
    """- mean over voxels and structures of f y log p + (1 - y) p^gamma log (1 - p), f = 1 if rare, else (1 - p)^gamma.

    Args:
        gamma: As in `imbalance.rare_focal`.
        asymmetric: Whether the inside of rare structures keeps f = 1; if not, this is `structures.focal`.
        rare: Structures with f = 1.
        eps: Added inside the logarithms and to the probabilities that are raised to gamma.
    """
    return margin_focal(
        logits,
        label,
        ignore=ignore,
        annotated=annotated,
        silent=silent,
        margin=0.0,
        gamma=gamma,
        asymmetric=asymmetric,
        rare=rare,
        eps=eps,
    )


def margin_focal(
    logits: Tensor,
    label: Tensor,
    *,
    ignore: Tensor | None = None,
    annotated: Tensor | None = None,
    silent: Tensor | None = None,
    margin: float = 0.2,
    gamma: float = 2.0,
    asymmetric: bool = True,
    rare: Sequence[int] | None = None,
    eps: float = 0.0,
) -> Tensor:
    """`large_margin` and `rare_focal` in one.

    Args:
        margin: As in `large_margin`.
        gamma: As in `rare_focal`.
        asymmetric: Of both.
        rare: Of both.
        eps: Of both.
    """
    terms = structure_terms(logits, label, ignore, annotated, silent)
    demands = Demands(indicator(rare, logits), margin, gamma, asymmetric, eps)
    log_q, log_rest, inside, outside = of_sigmoid(precise(logits.flatten(2)), terms.target, demands)
    return mean_error(terms, errors(log_q, inside, eps), errors(log_rest, outside, eps))


def margin_focal_and_dice(
    logits: Tensor,
    label: Tensor,
    *,
    ignore: Tensor | None = None,
    annotated: Tensor | None = None,
    silent: Tensor | None = None,
    margin: float = 0.0,
    gamma: float = 2.0,
    asymmetric: bool = True,
    rare: Sequence[int] | None = None,
    batch: bool = False,
    eps: float = 0.0,
) -> Tensor:
    """`margin_focal` + mean over structures of (FP + sum(f (1 - q) y) + s) / (2 TP + FP + FN + s), of the same q, f.

    As `imbalance.margin_focal_and_dice`; a structure that is absent adds 1 and has no gradient.

    Args:
        margin: As in `large_margin`; none by default.
        gamma: As in `rare_focal`.
        asymmetric: Of both.
        rare: Of both; f of a rare structure is 1.
        batch: Whether the overlap sums over the batch.
        eps: Of both.
    """
    terms = structure_terms(logits, label, ignore, annotated, silent)
    demands = Demands(indicator(rare, logits), margin, gamma, asymmetric, eps)
    log_q, log_rest, inside, outside = of_sigmoid(precise(logits.flatten(2)), terms.target, demands)
    error = mean_error(terms, errors(log_q, inside, eps), errors(log_rest, outside, eps))
    return error + focal_dice_of(terms, log_q.exp(), inside, True, batch)


def f_beta(
    logits: Tensor,
    label: Tensor,
    *,
    ignore: Tensor | None = None,
    annotated: Tensor | None = None,
    silent: Tensor | None = None,
    beta: float = 2.0,
    batch: bool = False,
) -> Tensor:
    """1 - mean over structures of ((1 + b^2) TP + s) / ((1 + b^2) TP + b^2 FN + FP + s), s = 1e-5.

    As `imbalance.f_beta`.

    Args:
        beta: b.
        batch: Take the sums over all samples and give each the same value.
    """
    return f_beta_of(structure_terms(logits, label, ignore, annotated, silent), beta, True, batch)
