"""Losses of a segmentation with rare structures, (B,), from logits (B, K, *space); `margins` says what they do.

Arguments are those of `segmentation`: p is the softmax, q the softmax after the margin, y the label, N the number of
voxels of the sample that count. Everything is divided by N, never by the voxels of the rare classes. `rare` are
indices of classes, None all but the background; a task takes their names.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from .margins import Demands, errors, indicator, of_softmax
from .overlaps import f_beta_of, focal_dice_of
from .segmentation import mean_error
from .targets import compare


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
    """(1/N) sum over voxels and classes of -y_c log q_c, q = softmax(z - m a y), a = r, or 1 if symmetric.

    Args:
        margin: m; 0.2 in the papers' setting for brain tumours, 1 in that for kidneys, 0.2 to 2 is sensible.
        asymmetric: Whether only rare classes have a margin.
        rare: Classes with r = 1.
        eps: Added inside the logarithm.
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
    """(1/N) sum over voxels and classes of -f_c y_c log p_c, f = (1 - p)^gamma, but 1 for rare classes.

    Not the loss of a similar name in MONAI (from the unified focal loss), which has class weights and two classes.

    Args:
        gamma: 2 to 6 is sensible; 4 in the papers' setting for 10 % of the subjects, 2 in their combination.
        asymmetric: Whether rare classes keep f = 1; if not, this is `segmentation.focal`.
        rare: Classes with f = 1.
        eps: Added inside the logarithm and to 1 - p.
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
    """(1/N) sum over voxels and classes of -f_c y_c log q_c: `large_margin` and `rare_focal` in one.

    Args:
        margin: As in `large_margin`.
        gamma: As in `rare_focal`.
        asymmetric: Of both.
        rare: Of both.
        eps: Of both.
    """
    terms = compare(logits, label, ignore, annotated, silent)
    demands = Demands(indicator(rare, logits, first=1), margin, gamma, asymmetric, eps)
    log_q, factor = of_softmax(terms.log_p, terms.target, demands, terms.classes)
    return mean_error(terms, errors(log_q, factor, eps))


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

    TP, FP and FN are sums over q and y, s = 1e-5. The discount is on what is missed, not on what is too much. A
    structure that is absent adds 1 and has no gradient, however well it is left out: the papers' form.

    Args:
        margin: As in `large_margin`; none by default, as in the papers' combination of techniques.
        gamma: As in `rare_focal`.
        asymmetric: Of both.
        rare: Of both.
        batch: Whether the overlap sums over the batch, as nnU-Net's "batch Dice".
        eps: Of both.
    """
    terms = compare(logits, label, ignore, annotated, silent)
    demands = Demands(indicator(rare, logits, first=1), margin, gamma, asymmetric, eps)
    log_q, factor = of_softmax(terms.log_p, terms.target, demands, terms.classes)
    overlap = focal_dice_of(terms, log_q.exp(), factor, False, batch)
    return mean_error(terms, errors(log_q, factor, eps)) + overlap


def f_beta(
    logits: Tensor,
    label: Tensor,
    *,
    ignore: Tensor | None = None,
    annotated: Tensor | None = None,
    silent: Tensor | None = None,
    beta: float = 2.0,
    background: bool = False,
    batch: bool = False,
) -> Tensor:
    """1 - mean over classes of ((1 + b^2) TP + s) / ((1 + b^2) TP + b^2 FN + FP + s), s = 1e-5.

    With beta 1 it is `dice`, linear and smoothed; else `tversky` with 1 / (1 + b^2) and b^2 / (1 + b^2). A class that
    is absent and not predicted is right; one that is predicted nevertheless has almost no gradient of its own sample,
    so that `batch` is better where many patches hold no structure.

    Paper: S. R. Hashemi et al., "Asymmetric Loss Functions and Deep Densely-Connected Networks for Highly-Imbalanced
    Medical Image Segmentation", IEEE Access 7 (2019), https://arxiv.org/abs/1803.11078. Deviation: by default sums are
    over a sample; DeepMedic's Dice has `batch` and `background` on.

    Args:
        beta: b: to miss a voxel costs b^2 times as much as to add one. 1, 2, 4 and 8 are usual.
        background: Whether the background, class 0, is one of the classes of the mean.
        batch: Take the sums over all samples and give each the same value.
    """
    return f_beta_of(compare(logits, label, ignore, annotated, silent), beta, background, batch)
