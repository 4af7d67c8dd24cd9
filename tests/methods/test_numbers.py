"""Losses and updates against the equations, by other means."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from shiftproof.methods.group_dro import GroupDRO
from shiftproof.parts.averaging import average_, warmed_decay
from shiftproof.parts.gradient_reversal import reverse_gradient
from shiftproof.parts.inner import stepped
from shiftproof.training.steps import RunningStep


class Quiet(RunningStep):
    """A step of one process that moves nothing."""

    def __init__(self, seed: int = 0, progress: float = 1.0, phase: str = "adversarial") -> None:
        random = torch.Generator().manual_seed(seed)
        super().__init__(0, progress, phase, progress, random, {}, lambda p: 1.0, None, None, {})  # type: ignore[arg-type]


class Scalar(nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.tensor(value, dtype=torch.float64))


@pytest.mark.parametrize(("second_order", "slope"), [(True, -1.52), (False, -2.40)])
def test_mldg_on_two_parabolas(second_order, slope):
    """F = t^2, G = (t-3)^2, t = 1, alpha = 0.1, beta = 1: objective 5.84, gradient -1.52 exact, -2.40 first order."""
    network = Scalar(1.0)
    loss = network.theta**2
    virtual = stepped(network, loss, 0.1, Quiet().derivative, second_order=second_order)
    objective = loss + (virtual["theta"] - 3) ** 2
    assert float(objective.detach()) == pytest.approx(5.84)
    (gradient,) = torch.autograd.grad(objective, network.theta)
    assert float(gradient) == pytest.approx(slope)


def test_a_parameter_that_the_loss_does_not_reach_keeps_its_value():
    network = nn.ModuleDict({"a": nn.Linear(1, 1), "b": nn.Linear(1, 1)})
    loss = network["a"](torch.ones(1, 1)).sum()
    virtual = stepped(network, loss, 0.1, Quiet().derivative, second_order=True)
    assert torch.equal(virtual["b.weight"], network["b"].weight)
    assert float(virtual["a.bias"].detach()) == pytest.approx(float(network["a"].bias) - 0.1)


def test_exact_mldg_gradient_agrees_with_finite_differences(toys):
    method = toys.make("mldg", second_order=True, inner_rate=0.05).double()
    batch = toys.batch_of(method, 3)
    batch.source.image = batch.source.image.double()

    def objective() -> torch.Tensor:
        return torch.stack(list(method.losses(batch, Quiet(seed=5)).values())).sum()

    weight = next(p for n, p in method.network.named_parameters() if p.dim() == 4 and "decoder" in n)
    (gradient,) = torch.autograd.grad(objective(), weight)
    for place in [(0, 0, 0, 0), (1, 1, 2, 1)]:
        before, h = float(weight.detach()[place]), 1e-5
        with torch.no_grad():
            weight[place] = before + h
        up = float(objective().detach())
        with torch.no_grad():
            weight[place] = before - h
        down = float(objective().detach())
        with torch.no_grad():
            weight[place] = before
        assert float(gradient[place]) == pytest.approx((up - down) / (2 * h), rel=1e-4, abs=1e-8)


def test_first_order_is_the_sum_of_the_gradients_here_and_there(toys):
    method = toys.make("mldg", second_order=False, inner_rate=0.05).double()
    batch = toys.batch_of(method, 3)
    batch.source.image = batch.source.image.double()

    order = torch.randperm(3, generator=torch.Generator().manual_seed(5)).tolist()
    domains = batch.source.by_domain()
    weights = list(method.network.parameters())
    train = sum(method.error(domains[d]).mean() for d in order[1:])
    here = torch.autograd.grad(train, weights)
    there_net = {
        n: (w - 0.05 * g).detach().requires_grad_()
        for (n, w), g in zip(method.network.named_parameters(), here, strict=True)
    }
    there = torch.autograd.grad(method.error(domains[order[0]], there_net).mean(), list(there_net.values()))
    ours = torch.autograd.grad(torch.stack(list(method.losses(batch, Quiet(seed=5)).values())).sum(), weights)
    for o, a, b in zip(ours, here, there, strict=True):
        torch.testing.assert_close(o, a + b, rtol=1e-9, atol=1e-12)


def test_reversal_is_the_identity_forwards_and_scaled_negative_backwards():
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    y = reverse_gradient(x, 0.3)
    assert torch.equal(x, y)
    (g,) = torch.autograd.grad((y**3).sum(), x)
    torch.testing.assert_close(g, -0.3 * 3 * x.detach() ** 2)


def test_reversal_rises_as_the_schedule_says(toys):
    method = toys.make("dann")

    class At:
        phase = "adversarial"

        def __init__(self, p):
            self.phase_progress = p

    # 2 / (1 + exp(-10 p)) - 1
    for p, value in [(0.0, 0.0), (0.25, 0.848), (0.5, 0.987), (1.0, 0.9999)]:
        assert method.strength(At(p)) == pytest.approx(value, abs=5e-4)


def test_domain_loss_adds_the_means_of_the_domains(toys):
    method = toys.make("dann", targets=1)
    everyone = toys.batch_of(method, 0).everyone
    everyone = everyone[[0, 1, 2, 5, 6]]  # unequal numbers

    read = torch.randn(5, 8)
    loss = method.domain_loss(read, everyone, Quiet())
    logits = method.domain_classifier(read).detach().numpy().astype(float)
    logs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    errors, domain = -logs[np.arange(5), everyone.domain.numpy()], everyone.domain.numpy()
    assert float(loss) == pytest.approx(sum(errors[domain == d].mean() for d in np.unique(domain)), rel=1e-5)


def test_critic_penalty_is_the_squared_gradient_of_the_summed_loss(toys):
    method = toys.make("dann", form="alternating", penalty=0.7).double()
    seen = {}

    class Catch(Quiet):
        def descend(self, loss, part):
            seen[part] = float(loss)

    everyone = toys.batch_of(method, 0, per_domain=2).everyone
    everyone.image = everyone.image.double()
    method.teach_critic(everyone, Catch())
    with torch.no_grad():
        read = method.pooled(method.encode(everyone))

    def loss_at(features):
        return float(method.domain_loss(features, everyone, Catch()).detach())

    slope, h = np.zeros(read.shape), 1e-6
    for i in range(read.shape[0]):
        for j in range(read.shape[1]):
            up, down = read.clone(), read.clone()
            up[i, j] += h
            down[i, j] -= h
            slope[i, j] = (loss_at(up) - loss_at(down)) / (2 * h)
    penalty = ((slope * len(everyone)) ** 2).sum(1).mean()
    assert seen["critic"] == pytest.approx(loss_at(read) + 0.7 * penalty, rel=1e-5)


def test_group_weights_follow_the_exponentiated_losses(toys):
    method: GroupDRO = toys.make("group_dro", rate=0.5, adjustment=2.0)  # type: ignore[assignment]
    method.sizes.copy_(torch.tensor([4.0, 16.0, 1.0]))
    batch = toys.batch_of(method, 0)

    loss = float(method.losses(batch, Quiet())["task"])
    error = method.error(batch.source).detach().numpy().astype(float)
    risks = error.reshape(3, 2).mean(1)
    q = np.exp(0.5 * (risks + 2 / np.sqrt([4, 16, 1]))) / 3
    q /= q.sum()
    np.testing.assert_allclose(method.weights.numpy(), q, rtol=1e-5)
    assert loss == pytest.approx(float(q @ risks), rel=1e-5)


def test_a_domain_that_is_absent_keeps_its_weight(toys):
    method = toys.make("group_dro", rate=1.0)
    method.weights.copy_(torch.tensor([0.2, 0.3, 0.5]))
    batch = toys.batch_of(method, 0)
    batch.source = batch.source[batch.source.domain < 2]

    method.losses(batch, Quiet())
    assert float(method.weights[2]) == pytest.approx(0.5)
    assert float(method.weights.sum()) == pytest.approx(1.0)


def test_consistency_is_ramped_and_weighs_the_squared_difference(toys):
    method = toys.make("mean_teacher", weight=0.2, noise=0.0)
    losses = toys.drive(method, 1, total=3)
    assert float(losses["consistency"]) == 0.0  # teacher and student are still the same, without noise

    with torch.no_grad():
        for p in method.teacher.parameters():
            p.mul_(1.5)
    batch = toys.batch_of(method, 0)
    student = method(batch.everyone).softmax(1).detach().numpy()
    teacher = method.teacher(batch.everyone.image).softmax(1).detach().numpy()

    class Half(Quiet):
        def descend(self, *_): ...

    expected = 0.2 * math.exp(-5 * 0.25) * ((student - teacher) ** 2).mean()
    assert float(method.update(batch, Half(progress=0.5))["consistency"]) == pytest.approx(expected, rel=1e-5)


def test_running_averages_take_float_buffers_along():
    a, b = nn.BatchNorm2d(2), nn.BatchNorm2d(2)
    b.running_mean.fill_(1.0)
    b.num_batches_tracked.fill_(7)
    with torch.no_grad():
        b.weight.fill_(3.0)
    average_(a, b, 0.75)
    torch.testing.assert_close(a.running_mean, torch.full((2,), 0.25))
    torch.testing.assert_close(a.weight.detach(), torch.full((2,), 1.5))
    assert int(a.num_batches_tracked) == 7
    assert [warmed_decay(t, 0.9) for t in (0, 1, 99)] == [0.0, 0.5, 0.9]
