"""Rules without labels against plain NumPy, and what they must prefer."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from shiftproof.errors import OptionError
from shiftproof.metrics.unlabelled import (
    deep_embedded_validation,
    importance,
    information_maximisation,
    information_maximisation_of_findings,
    nuclear_norm,
    soft_neighbourhood_density,
)


def drawn(points: int = 40, classes: int = 4, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.full(classes, 0.5), points)


def entropy(p: np.ndarray) -> np.ndarray:
    return -(p * np.log(p)).sum(-1)


def test_information_maximisation_is_the_entropy_of_the_mean_minus_the_mean_entropy():
    p = drawn()
    found = information_maximisation(torch.from_numpy(p), torch.from_numpy(entropy(p)))
    np.testing.assert_allclose(found.mean().item(), entropy(p.mean(0)) - entropy(p).mean(), rtol=1e-12)
    np.testing.assert_allclose(found.numpy(), (p * np.log(p / p.mean(0))).sum(1), rtol=1e-10)


def test_information_maximisation_of_voxels_is_that_of_all_scans_with_equal_weight():
    voxels = drawn(60).reshape(6, 10, 4)  # six scans of ten voxels
    found = information_maximisation(torch.from_numpy(voxels.mean(1)), torch.from_numpy(entropy(voxels).mean(1)))
    flat = voxels.reshape(-1, 4)
    np.testing.assert_allclose(found.mean().item(), entropy(flat.mean(0)) - entropy(flat).mean(), rtol=1e-12)


def test_information_maximisation_of_findings_adds_up_two_class_problems():
    p = np.random.default_rng(1).uniform(0.05, 0.95, (30, 3))
    both = np.stack([p, 1 - p], -1)  # (N, K, 2)
    found = information_maximisation_of_findings(torch.from_numpy(p), torch.from_numpy(entropy(both).sum(1)))
    expected = sum(entropy(both[:, k].mean(0)) - entropy(both[:, k]).mean() for k in range(3))
    np.testing.assert_allclose(found.mean().item(), expected, rtol=1e-10)


def test_neighbourhood_density_is_the_entropy_of_similarities_whatever_the_block():
    p = drawn(23)
    unit = p / np.linalg.norm(p, axis=1, keepdims=True)
    expected = []
    for i in range(len(unit)):
        similar = np.delete(unit @ unit[i], i) / 0.05
        q = np.exp(similar - similar.max())
        q /= q.sum()
        expected.append(-(q * np.log(q)).sum())
    for block in (5, 1000):
        np.testing.assert_allclose(soft_neighbourhood_density(torch.from_numpy(p), block=block), expected, rtol=1e-9)


def test_dense_neighbourhoods_score_higher_than_scattered_points():
    corners = torch.eye(4).repeat(10, 1)
    assert soft_neighbourhood_density(corners).mean() > soft_neighbourhood_density(torch.from_numpy(drawn(40))).mean()


@pytest.mark.parametrize(("points", "classes"), [(40, 4), (3, 5)])
def test_nuclear_norm_is_the_sum_of_singular_values(points: int, classes: int):
    p = drawn(points, classes)
    largest = np.sqrt(points * min(points, classes))
    expected = np.linalg.svd(p, compute_uv=False).sum() / largest
    np.testing.assert_allclose(nuclear_norm(torch.from_numpy(p)).mean().item(), expected, rtol=1e-9)


def test_sure_and_diverse_answers_have_the_largest_nuclear_norm():
    assert nuclear_norm(torch.eye(4).repeat(5, 1)).mean().item() == pytest.approx(1)
    one_class = torch.eye(4)[[0]].repeat(20, 1)
    assert nuclear_norm(one_class).mean().item() == pytest.approx(0.5)  # sqrt(20) / sqrt(20 * 4) ... of rank 1


def test_dev_is_the_weighted_risk_with_a_control_variate():
    random = np.random.default_rng(3)
    loss, weight = random.gamma(2, size=50), random.gamma(1, size=50)
    eta = -np.cov(weight * loss, weight)[0, 1] / np.var(weight, ddof=1)
    assert deep_embedded_validation(loss, weight) == pytest.approx((weight * loss).mean() + eta * (weight.mean() - 1))
    assert deep_embedded_validation(loss, np.ones(50)) == pytest.approx(loss.mean())
    with pytest.raises(OptionError, match="50 and 3"):
        deep_embedded_validation(loss, [1, 1, 1])


def test_dev_recovers_the_risk_under_shift_better_than_the_source_risk():
    """Features are normal, the target's moved by 0.7; the loss is a function of the feature."""
    random = np.random.default_rng(4)
    source, target = random.normal(0, 1, (4000, 1)), random.normal(0.7, 1, (4000, 1))
    ratio = importance(source, target)
    np.testing.assert_allclose(ratio.mean(), 1, atol=0.05)
    truth = (target[:, 0] ** 2).mean()
    found = deep_embedded_validation(source[:, 0] ** 2, ratio)
    assert abs(found - truth) < 0.3 * abs((source[:, 0] ** 2).mean() - truth)


def test_a_single_point_has_no_neighbourhood():
    with pytest.raises(OptionError, match="at least 2 points, got 1"):
        soft_neighbourhood_density(torch.ones(1, 2))
