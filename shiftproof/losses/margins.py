"""Cross-entropy that asks for more than being right, and discounts what is easy: of all classes, or of some only.

Large margin: the true class's logit is lowered by m before the softmax or sigmoid, q, so that being right by less than
about m still costs. Focal: the error of a class is discounted by f = (1 - q)^gamma. Symmetric, both act on all
classes. Asymmetric, the margin acts on rare classes only, and the discount on common ones only: what is learned of rare
classes goes on being pushed away from the boundary, where unseen examples of them would fall over it.

They are made for training: losses are asked for nowhere else, so that no margin acts on what a network answers.

Papers: Z. Li, K. Kamnitsas, B. Glocker, "Overfitting of neural nets under class imbalance: Analysis and improvements
for segmentation", MICCAI 2019, https://arxiv.org/abs/1907.10982; the same, "Analyzing Overfitting Under Class Imbalance
in Neural Networks for Image Segmentation", IEEE TMI 40 (2021), https://arxiv.org/abs/2102.10365. Deviations:
log-softmax instead of log(q + 1e-6), which `eps` brings back; the sigmoid forms are ours, equal to a softmax of two
classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import OptionError


@dataclass(frozen=True)
class Demands:
    """What is asked of which class.

    Args:
        rare: (K,) bool, the indicator r.
        margin: m, from 0 on; 0 asks for none.
        gamma: From 0 on; 0 discounts nothing.
        asymmetric: As above.
        eps: Added inside logarithms and to 1 - q; 1e-6 in the papers' code.

    Raises:
        OptionError: For a number below 0, or one that is not finite.
    """

    rare: Tensor
    margin: float
    gamma: float
    asymmetric: bool
    eps: float

    def __post_init__(self) -> None:
        for name in ("margin", "gamma", "eps"):
            if not 0 <= getattr(self, name) < math.inf:
                raise OptionError(f"{name} is a number from 0 on (0 turns it off), got {getattr(self, name)}")

    @property
    def pushed(self) -> Tensor:
        """(K, 1), 1 where a margin acts on the class's own voxels."""
        return (self.rare[:, None] | (not self.asymmetric)).float()

    @property
    def damped(self) -> Tensor:
        """(K, 1) bool, whether the class's own voxels are discounted."""
        return ~self.rare[:, None] | (not self.asymmetric)


def indicator(rare: Sequence[int] | None, like: Tensor, first: int = 0) -> Tensor:
    """r, (K,) bool: which of the K channels on axis 1 of `like` are rare.

    Args:
        rare: Channels; None takes all from `first` on.
        first: 1 where channel 0 is a background.

    Raises:
        OptionError: For something else than channels.
    """
    channels = like.shape[1]
    chosen = range(first, channels) if rare is None else rare
    if isinstance(chosen, str) or not all(isinstance(c, int) and 0 <= c < channels for c in chosen):
        raise OptionError(f"rare channels are whole numbers from 0 to {channels - 1}, got {rare!r}")
    r = torch.zeros(channels, dtype=torch.bool)
    r[list(chosen)] = True
    return r.to(like.device)


def of_softmax(
    log_p: Tensor, target: Tensor, demands: Demands, classes: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """log q and f, both (B, K, V); f is None where nothing is discounted.

    Args:
        log_p: (B, K, V) log-probabilities.
        target: (B, K, V); of a soft label the margin is the part that the label has.
        classes: (B, K), 0 where a class has no term and is not in the softmax.
    """
    log_q = log_p
    if demands.margin:
        shifted = log_p - demands.margin * demands.pushed * target
        if classes is None:
            log_q = shifted.log_softmax(1)
        else:
            out = (classes == 0)[:, :, None]
            log_q = shifted.masked_fill(out, -torch.inf).log_softmax(1).masked_fill(out, 0)
    return log_q, _discount(log_q, demands, demands.damped)


def of_sigmoid(z: Tensor, target: Tensor, demands: Demands) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """log q, log(1 - q), f of what is inside and f of what is outside, all (B, K, V).

    A rare structure is rare in its voxels; what lies outside of it is always common.

    Args:
        z: (B, K, V) logits.
        target: (B, K, V).
    """
    if demands.margin:
        z = z - demands.margin * demands.pushed * target
        if not demands.asymmetric:
            z = z + demands.margin * (1 - target)
    log_q, log_rest = F.logsigmoid(z), F.logsigmoid(-z)
    inside = _discount(log_q, demands, demands.damped)
    return log_q, log_rest, inside, _discount(log_rest, demands, torch.ones_like(demands.damped))


def errors(log_q: Tensor, factor: Tensor | None, eps: float) -> Tensor:
    """f log q, or f log (q + eps)."""
    value = (log_q.exp() + eps).log() if eps else log_q
    return value if factor is None else factor * value


def _discount(log_q: Tensor, demands: Demands, damped: Tensor) -> Tensor | None:
    """(1 - q)^gamma where `damped`, else 1; it takes part in the gradient."""
    if demands.gamma == 0:
        return None
    # 1 - q without cancellation; off zero, where a power below 1 has no derivative.
    rest = (-torch.expm1(log_q)).clamp(min=1e-8) + demands.eps
    return torch.where(damped, rest**demands.gamma, 1.0)
