"""The meta-gradient of sample weights by hand, by unrolling and by forward differentiation; and it leaves no trace."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from shiftproof.parts.lookahead import REACH, exact_weight_gradient, lookahead_weight_gradient, stepped_copy


def derivative(loss, by, **_):
    """That of a step of one process."""
    return list(torch.autograd.grad(loss, by, allow_unused=True))


class Problem:
    """A network that reads small images, training samples and validation samples."""

    def __init__(self, kind: str, dtype=torch.float64, dropout: float = 0.0, seed: int = 0) -> None:
        random = torch.Generator().manual_seed(seed)
        torch.manual_seed(seed)
        norm = {"instance": nn.InstanceNorm2d(4, affine=True), "batch": nn.BatchNorm2d(4), "none": nn.Identity()}[kind]
        self.network = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), norm, nn.Softplus(), nn.Dropout(dropout), nn.Conv2d(4, 3, 3, padding=1)
        ).to(dtype)
        self.image, self.seen = (torch.randn(5, 1, 6, 6, generator=random).to(dtype) for _ in range(2))
        self.label, self.truth = (torch.randint(0, 3, (5, 6, 6), generator=random) for _ in range(2))
        self.weights = dict(self.network.named_parameters())

    def predict(self, image, weights):
        buffers = {n: b.clone() for n, b in self.network.named_buffers()}
        return torch.func.functional_call(self.network, {**buffers, **weights}, (image,))

    def errors(self, weights):
        return F.cross_entropy(self.predict(self.image, weights), self.label, reduction="none").flatten(1).mean(1)

    def outer(self, weights):
        return F.cross_entropy(self.predict(self.seen, weights), self.truth)

    def gradients(self):
        return list(torch.autograd.grad(self.errors(self.weights).mean(), list(self.weights.values())))

    def difference(self, rate=0.1, **options):
        return lookahead_weight_gradient(
            self.errors, self.outer, self.weights, self.gradients(), rate, derivative, **options
        )


def relative(found, expected) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("kind", ["none", "instance", "batch"])
@pytest.mark.parametrize("rate", [0.01, 0.5])
def test_the_difference_agrees_with_unrolling_the_step(kind, rate):
    problem = Problem(kind)
    exact = exact_weight_gradient(problem.errors, problem.outer, problem.weights, rate)
    assert float(exact.norm()) > 0
    assert relative(problem.difference(rate), exact) < 1e-4


@pytest.mark.parametrize("kind", ["none", "instance", "batch"])
def test_in_single_precision_too(kind):
    problem = Problem(kind, torch.float32)
    exact = exact_weight_gradient(problem.errors, problem.outer, problem.weights, 0.1)
    # What is lost to rounding, of losses of about 1, shrinks with the length of the move.
    assert relative(problem.difference(0.1), exact) < 1e-4


@pytest.mark.parametrize("dimensions", [2, 3])
def test_on_the_network_and_loss_of_a_recipe(toys, dimensions):
    """A U-Net with leaky rectifiers, whose kinks the usual move crosses and a short one does not."""
    method = toys.make("erm", dimensions=dimensions).double()
    source, seen = (toys.batch_of(method, i).source for i in (0, 1))
    source.image, seen.image = source.image.double(), seen.image.double()
    weights = dict(method.network.named_parameters())
    given = (lambda w: method.error(source, w)), (lambda w: method.error(seen, w).mean())
    gradients = derivative(method.error(source).mean(), list(weights.values()))
    exact = exact_weight_gradient(*given, weights, 0.1)
    for reach, close in ((1e-5, 1e-4), (REACH, 1e-2)):
        found = lookahead_weight_gradient(*given, weights, gradients, 0.1, derivative, reach=reach)
        assert relative(found, exact) < close


def test_unrolling_agrees_with_changing_a_weight_by_hand():
    problem, rate, step = Problem("instance"), 0.3, 1e-5

    def after(shares) -> float:
        loss = (shares * problem.errors(problem.weights)).mean()
        gradients = torch.autograd.grad(loss, list(problem.weights.values()))
        stepped = {n: w - rate * g for (n, w), g in zip(problem.weights.items(), gradients, strict=True)}
        return float(problem.outer(stepped).detach())

    exact = exact_weight_gradient(problem.errors, problem.outer, problem.weights, rate)
    for b in range(5):
        up, down = torch.ones(5, dtype=torch.float64), torch.ones(5, dtype=torch.float64)
        up[b] += step
        down[b] -= step
        assert float(exact[b]) == pytest.approx((after(up) - after(down)) / (2 * step), rel=1e-5, abs=1e-10)


def test_the_difference_agrees_with_forward_differentiation():
    """-(rate / B) v . grad l_b, the product formed by pushing v through the losses."""
    problem, rate = Problem("none"), 0.2
    after = stepped_copy(problem.weights, problem.gradients(), rate)
    slopes = derivative(problem.outer(after), list(after.values()))
    held = {n: w.detach() for n, w in problem.weights.items()}
    _, products = torch.func.jvp(problem.errors, (held,), (dict(zip(held, slopes, strict=True)),))
    assert relative(problem.difference(rate), -rate / 5 * products) < 1e-4


def test_a_parabola_by_hand():
    """l_b = a_b t^2 / 2, L = (t - c)^2 / 2: dL/dw_b = -(rate / B) (t' - c) a_b t, t' = t - rate mean(a) t."""
    a, t, c, rate = np.array([1.0, 2.0, 6.0]), 1.5, 4.0, 0.1
    weight = torch.tensor(t, dtype=torch.float64, requires_grad=True)
    curvature = torch.from_numpy(a)
    given = (lambda w: curvature * w["t"] ** 2 / 2), (lambda w: (w["t"] - c) ** 2 / 2)
    slope = torch.tensor(a.mean() * t, dtype=torch.float64)
    found = lookahead_weight_gradient(*given, {"t": weight}, [slope], rate, derivative, reach=3.0)
    stepped = t - rate * a.mean() * t
    np.testing.assert_allclose(found.numpy(), -rate / 3 * (stepped - c) * a * t, rtol=1e-12)
    # Of half of a joint batch of six.
    half = lookahead_weight_gradient(*given, {"t": weight}, [slope], rate, derivative, number=6)
    np.testing.assert_allclose(half.numpy(), found.numpy() / 2, rtol=1e-9)


def test_samples_that_point_the_way_of_the_validation_loss_are_worth_more():
    """Of two samples one is labelled as validation is, the other the other way round."""
    weight = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    said = torch.tensor([1.0, -1.0], dtype=torch.float64)
    given = (lambda w: F.softplus(-said * w["w"])), (lambda w: F.softplus(-w["w"]).sum())
    found = lookahead_weight_gradient(*given, {"w": weight}, [torch.zeros(1)], 1.0, derivative)
    assert found[0] < 0 < found[1]


def test_a_weight_that_nothing_reaches_stays_out_of_it():
    problem = Problem("none")
    lonely = {**problem.weights, "lonely": nn.Parameter(torch.ones(3, dtype=torch.float64))}
    gradients = [*problem.gradients(), None]

    def without(function):
        return lambda w: function({n: t for n, t in w.items() if n != "lonely"})

    found = lookahead_weight_gradient(
        without(problem.errors), without(problem.outer), lonely, gradients, 0.1, derivative
    )
    assert torch.equal(found, problem.difference())
    exact = exact_weight_gradient(without(problem.errors), without(problem.outer), lonely, 0.1)
    assert torch.equal(exact, exact_weight_gradient(problem.errors, problem.outer, problem.weights, 0.1))


def test_a_flat_outer_loss_gives_no_preference():
    problem = Problem("none")
    found = lookahead_weight_gradient(
        problem.errors, lambda w: 0 * problem.outer(w), problem.weights, problem.gradients(), 0.1, derivative
    )
    assert torch.equal(found, torch.zeros(5, dtype=torch.float64))


def test_neither_weights_nor_running_statistics_nor_random_numbers_are_touched():
    problem = Problem("batch", dropout=0.5)
    problem.network.train()
    before = {n: t.clone() for n, t in problem.network.state_dict().items()}
    gradients = problem.gradients()
    torch.manual_seed(3)
    lookahead_weight_gradient(problem.errors, problem.outer, problem.weights, gradients, 0.1, derivative)
    drawn = torch.rand(4)
    for name, tensor in problem.network.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert all(p.grad is None for p in problem.network.parameters())
    torch.manual_seed(3)
    assert torch.equal(drawn, torch.rand(4))


def test_dropout_is_the_same_in_both_passes():
    """Else what differs would be the noise, divided by the tiny length of the move."""
    problem = Problem("none", dropout=0.5)
    problem.network.train()
    gradients = problem.gradients()
    found = []
    for _ in range(2):
        torch.manual_seed(5)
        found.append(
            lookahead_weight_gradient(problem.errors, problem.outer, problem.weights, gradients, 0.1, derivative)
        )
    assert torch.equal(*found)
    torch.manual_seed(5)
    after = stepped_copy(problem.weights, gradients, 0.1)
    slopes = derivative(problem.outer(after), list(after.values()))
    torch.manual_seed(5)
    slope = torch.autograd.grad(problem.errors(problem.weights)[2], list(problem.weights.values()))
    expected = -0.1 / 5 * sum(float((s * g).sum()) for s, g in zip(slopes, slope, strict=True))
    assert float(found[0][2]) == pytest.approx(expected, rel=1e-3)


def test_low_precision_does_not_swallow_the_difference():
    problem = Problem("instance", torch.float32)
    expected = problem.difference()
    with torch.autocast("cpu", torch.bfloat16):
        found = problem.difference()
    # The direction v is of low precision, the difference along it is not.
    assert relative(found, expected) < 0.1
