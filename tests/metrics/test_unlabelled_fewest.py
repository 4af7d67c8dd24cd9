"""From how many points on a rule without labels tells models apart."""

from __future__ import annotations

import pytest
import torch

from shiftproof.metrics.unlabelled import FEWEST, POINTWISE, RULES, information_maximisation


def value(rule: str, points: torch.Tensor) -> float:
    if rule in POINTWISE:
        return float(POINTWISE[rule](points).mean())
    return float(information_maximisation(points, -(points * points.log()).sum(1)).mean())


def values(rule: str, number: int) -> torch.Tensor:
    """Of ten models that answer at random."""
    drawn = [torch.rand(number, 3, generator=torch.Generator().manual_seed(i)).double().softmax(1) for i in range(10)]
    return torch.tensor([value(rule, points) for points in drawn])


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_tells_models_apart_from_its_fewest_points_on_and_not_below(rule):
    assert values(rule, FEWEST[rule]).std() > 1e-6
    below = FEWEST[rule] - 1
    if rule == "soft neighbourhood density" or below:
        assert values(rule, below).abs().max() < 1e-12
