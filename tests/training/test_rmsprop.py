"""DeepMedic's optimiser and the halving of its rate against plain NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from shiftproof.training.rmsprop import NesterovRMSProp
from shiftproof.training.steps import SCHEDULES

RATES = (0.01, 0.01, 0.005, 0.02, 0.001)


def expected(weights, gradients, *, decay=0.0, share=0.0, rho=0.9, eps=1e-4, momentum=0.6):
    """As the published program has it: a velocity, and Nesterov's momentum by looking one velocity ahead."""
    square, velocity = np.zeros_like(weights), np.zeros_like(weights)
    for rate, slope in zip(RATES, gradients, strict=True):
        slope = slope + decay * weights + share * np.sign(weights)
        square = rho * square + (1 - rho) * slope**2
        scaled = rate * slope / np.sqrt(square + eps)
        velocity = momentum * velocity - scaled
        weights = weights + momentum * velocity - scaled
    return weights


def moved(weights, gradients, **options):
    parameter = nn.Parameter(torch.tensor(weights))
    optimizer = NesterovRMSProp([parameter], **options)
    for rate, slope in zip(RATES, gradients, strict=True):
        optimizer.param_groups[0]["lr"] = rate
        parameter.grad = torch.tensor(slope)
        optimizer.step()
    return parameter.detach().numpy()


@pytest.fixture
def drawn():
    rng = np.random.default_rng(3)
    return rng.normal(size=(4, 3)), rng.normal(size=(5, 4, 3)) * 10.0 ** rng.integers(-4, 1, (5, 4, 3))


def test_five_steps_are_those_of_the_published_rule(drawn):
    weights, gradients = drawn
    np.testing.assert_allclose(moved(weights, gradients), expected(weights, gradients), rtol=1e-12)


def test_the_penalties_are_the_gradients_of_squares_and_absolute_values_as_published(drawn):
    weights, gradients = drawn
    found = moved(weights, gradients, weight_decay=2e-4)
    # 1e-4 |w|^2 + 1e-6 |w|
    np.testing.assert_allclose(found, expected(weights, gradients, decay=2e-4, share=1e-6), rtol=1e-12)
    assert np.abs(found - moved(weights, gradients, weight_decay=2e-4, absolute=0.0)).max() > 0


def test_biases_and_norms_are_not_penalised(drawn):
    weights, gradients = drawn[0][0], drawn[1][:, 0]
    np.testing.assert_array_equal(moved(weights, gradients, weight_decay=0.5), moved(weights, gradients))


def test_a_saved_state_goes_on_as_if_it_had_not_stopped(drawn):
    weights, gradients = drawn
    parameter = nn.Parameter(torch.tensor(weights))
    optimizer = NesterovRMSProp([parameter])
    for step, (rate, slope) in enumerate(zip(RATES, gradients, strict=True)):
        if step == 2:
            saved = optimizer.state_dict()
            optimizer = NesterovRMSProp([parameter])
            optimizer.load_state_dict(saved)
        optimizer.param_groups[0]["lr"] = rate
        parameter.grad = torch.tensor(slope)
        optimizer.step()
    np.testing.assert_array_equal(parameter.detach().numpy(), moved(weights, gradients))


def test_the_rate_is_halved_at_17_22_27_30_and_33_of_35_epochs():
    factors = [SCHEDULES["halving"](epoch / 35) for epoch in (0, 16, 17, 21, 22, 27, 30, 32, 33, 34)]
    assert factors == [1, 1, 1 / 2, 1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 16, 1 / 32, 1 / 32]
