"""How good a model may be where nothing is labelled: rules that select by its probabilities alone.

Each value is one a sample, so that it has a spread over subjects; the mean over samples is the published figure. All
of them are larger for the model that is to be preferred, and none of them is an estimate of the score: a model that
is confidently wrong satisfies them, too. They may rank models; they must not be reported as performance.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ..errors import OptionError

TINY = 1e-12
"""Keeps logarithms and divisions of probabilities finite."""


def information_maximisation(mean: Tensor, entropy: Tensor) -> Tensor:
    """(N,), share of each sample in H(mean p) - mean H(p): every class is used, each decision is sure.

    The mean over samples is that difference exactly, since H(p̄) - mean H(p) = mean KL(p || p̄).

    Paper: A. Krause et al., "Discriminative Clustering by Regularized Information Maximization", NIPS 2010.

    Args:
        mean: (N, K) probabilities of each sample; of a segmentation their mean over its voxels.
        entropy: (N,) entropy of each sample in nats; of a segmentation the mean over its voxels.
    """
    overall = mean.double().mean(0).clamp_min(TINY)
    return -(mean.double() * overall.log()).sum(1) - entropy.double()


def information_maximisation_of_findings(mean: Tensor, entropy: Tensor) -> Tensor:
    """As `information_maximisation` where classes may occur together: each is a yes or no of its own.

    Args:
        mean: (N, K) probability of each finding.
        entropy: (N,) sum over findings of their entropies in nats.
    """
    overall = mean.double().mean(0).clamp(TINY, 1 - TINY)
    mean = mean.double()
    return -(mean * overall.log() + (1 - mean) * (1 - overall).log()).sum(1) - entropy.double()


def soft_neighbourhood_density(probabilities: Tensor, *, temperature: float = 0.05, block: int = 1024) -> Tensor:
    """(M,), entropy of each point's similarities to all others: large where points lie in dense groups.

    Similarity is the cosine of probabilities, softmax over all other points at a temperature.

    Paper: K. Saito et al., "Tune it the Right Way: Unsupervised Validation of Domain Adaptation via Soft
    Neighborhood Density", ICCV 2021.

    Args:
        probabilities: (M, K), of samples or of voxels drawn from them.
        temperature: 0.05 in the paper.
        block: Points compared with all others at a time; bounds memory.

    Raises:
        OptionError: For fewer than 2 points: there is no neighbour.
    """
    if len(probabilities) < 2:
        raise OptionError(f"a neighbourhood needs at least 2 points, got {len(probabilities)}")
    directions = torch.nn.functional.normalize(probabilities.double(), dim=1)
    found = []
    for first in range(0, len(directions), block):
        similar = directions[first : first + block] @ directions.T / temperature
        own = torch.arange(len(similar))
        similar[own, own + first] = -math.inf
        logs = similar.log_softmax(1)
        found.append(-torch.where(logs.isinf(), 0.0, logs.exp() * logs).sum(1))
    return torch.cat(found)


def nuclear_norm(probabilities: Tensor) -> Tensor:
    """(M,), share of each point in the nuclear norm of the matrix of probabilities: sure and diverse at once.

    Divided by its largest possible value, sqrt(M min(M, K)), and times M: the mean over points lies in 0 to 1.

    Paper: S. Cui et al., "Towards Discriminability and Diversity: Batch Nuclear-norm Maximization under Label
    Insufficient Situations", CVPR 2020.

    Args:
        probabilities: (M, K).
    """
    points = probabilities.double()
    number, classes = points.shape
    # The norm is the trace of (P^T P)^(1/2) = sum over points of p^T (P^T P)^(-1/2) p.
    values, vectors = torch.linalg.eigh(points.T @ points)
    there = values > values.max() * 1e-12
    inverse_root = vectors[:, there] / values[there].sqrt() @ vectors[:, there].T
    shares = ((points @ inverse_root) * points).sum(1)
    return shares * number / math.sqrt(number * min(number, classes))


def deep_embedded_validation(losses: ArrayLike, weights: ArrayLike) -> float:
    """Risk on the target from labelled *source* validation samples, smaller is better.

    mean(w l) + eta mean(w) - eta with eta = -Cov(w l, w) / Var(w): importance weighting with a control variate, since
    E[w] = 1 is known.

    Paper: K. You et al., "Towards Accurate Model Selection in Deep Unsupervised Domain Adaptation", ICML 2019.

    Args:
        losses: (N,) loss of each source validation sample.
        weights: (N,) density ratio target / source of each, see `importance`.

    Raises:
        OptionError: For arrays of different length or fewer than 2 samples.
    """
    loss, weight = np.asarray(losses, dtype=float).ravel(), np.asarray(weights, dtype=float).ravel()
    if len(loss) != len(weight) or len(loss) < 2:
        raise OptionError(f"DEV needs a weight for each of at least 2 losses, got {len(loss)} and {len(weight)}")
    weighted = weight * loss
    variance = weight.var(ddof=1)
    control = -np.cov(weighted, weight, ddof=1)[0, 1] / variance if variance > 0 else 0.0
    return float(weighted.mean() + control * weight.mean() - control)


def importance(source: ArrayLike, target: ArrayLike, *, of: ArrayLike | None = None, seed: int = 0) -> np.ndarray:
    """(N,), density ratio target / source by a logistic classifier that tells the two apart.

    w = (n_s / n_t) p(target | f) / p(source | f).

    Args:
        source: (n_s, D) features of source samples.
        target: (n_t, D) features of target samples.
        of: (N, D) where the ratio is wanted; `source` if not given.
        seed: Of the classifier.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    here, there = np.asarray(source, dtype=float), np.asarray(target, dtype=float)
    side = np.r_[np.zeros(len(here)), np.ones(len(there))]
    told = make_pipeline(StandardScaler(), LogisticRegression(random_state=seed, max_iter=1000))
    told.fit(np.concatenate([here, there]), side)
    shares = told.predict_proba(here if of is None else np.asarray(of, dtype=float))
    return np.asarray(len(here) / len(there) * shares[:, 1] / np.maximum(shares[:, 0], TINY))


POINTWISE: dict[str, Callable[[Tensor], Tensor]] = {
    "soft neighbourhood density": soft_neighbourhood_density,
    "nuclear norm": nuclear_norm,
}
"""Rules that look at single points (M, K): samples, or voxels drawn from them."""

RULES = ("information maximisation", *POINTWISE)
"""Names of the rules that need nothing but images of the target."""

FEWEST = {"information maximisation": 2, "soft neighbourhood density": 3, "nuclear norm": 1}
"""Points from which on a rule tells models apart: a single answer uses one class, a single neighbour is always near."""
