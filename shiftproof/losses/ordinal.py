"""Losses of one of K classes in order, (B,), from K - 1 conditional logits.

Logit k is of the probability that the sample lies beyond class k, given that it does not lie below it:
P(y > k) = product over j <= k of sigmoid(z_j). Hence P(y > k) never rises with k, whatever the logits are, the
probabilities of the classes are non-negative and add up to 1, and their logarithms are sums of log-sigmoids.

Paper: X. Shi, W. Cao, S. Raschka, "Deep Neural Networks for Rank-Consistent Ordinal Regression Based On Conditional
Probabilities" (CORN), Pattern Analysis and Applications 26 (2023), https://arxiv.org/abs/2111.08851.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from .classification import as_probabilities, expected
from .precision import precise


def log_probabilities(logits: Tensor) -> Tensor:
    """log P(y = k), from (B, K - 1) logits to (B, K)."""
    z = precise(logits)
    reached = F.pad(F.logsigmoid(z).cumsum(1), (1, 0))  # log P(y >= k)
    stays = F.pad(F.logsigmoid(-z), (0, 1))  # log P(y = k | y >= k); beyond the last class is nothing
    return reached + stays


def corn(logits: Tensor, label: Tensor, *, class_weights: Sequence[float] | None = None) -> Tensor:
    """- log P(y): the sum of the binary cross-entropies of the thresholds that the sample reaches.

    Deviation from the paper: there the sum over batch and thresholds is divided by the number of pairs that take part.
    Here every sample counts once, so that the value is its own, the negative log-likelihood.

    Args:
        class_weights: One number a class; they scale a sample's loss.
    """
    log_p = log_probabilities(logits)
    return expected(-log_p, as_probabilities(label, log_p), class_weights)


def earth_mover(logits: Tensor, label: Tensor) -> Tensor:
    """Mean over the K - 1 thresholds of (P(y > k) - [label > k])^2: a miss by two classes costs more than by one.

    Also known as the ranked probability score.

    Paper: L. Hou, C.-P. Yu, D. Samaras, "Squared Earth Mover's Distance-based Loss for Training Deep Neural Networks",
    2016, https://arxiv.org/abs/1611.05916. Deviation: the mean over the thresholds, not the sum.
    """
    beyond = F.logsigmoid(precise(logits)).cumsum(1).exp()  # P(y > k)
    like = beyond.new_zeros(len(beyond), beyond.shape[1] + 1)
    target = as_probabilities(label, like)
    truly = target.flip(1).cumsum(1).flip(1)[:, 1:]
    return torch.square(beyond - truly).mean(1)
