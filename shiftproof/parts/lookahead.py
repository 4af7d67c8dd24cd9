"""What the weight of each sample in one training step does to a loss after that step."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from .inner import Derivative

Weights = Mapping[str, Tensor]

REACH = 0.003
"""Length of the two moves of the difference, over all weights of the network together; 0.01 in the papers.

With a third of that the difference agrees with unrolling to 1e-4 for smooth networks, in single precision too. Kinks of
rectifiers cost more than either."""


def lookahead_weight_gradient(
    errors: Callable[[Weights], Tensor],
    outer: Callable[[Weights], Tensor],
    weights: Weights,
    gradients: Sequence[Tensor | None],
    rate: float,
    derivative: Derivative,
    *,
    number: int | None = None,
    reach: float = REACH,
) -> Tensor:
    """d L / d w of each sample, (B,), at w = 1, by a central difference: two forward passes, no second derivative.

    L is `outer` at the weights after one plain step, theta' = theta - rate * grad of (1/B) sum of w_b l_b. With
    v = dL/d theta', dL/dw_b = -(rate / B) v . grad l_b, and that product is the difference of l_b at theta + R v and at
    theta - R v over 2 R, R = reach / |v|: exact where l_b is a parabola along v, else to the second order of `reach`
    (to the first where rectifiers have kinks).

    The network itself is not touched: it is called with copies of its weights, and whoever calls it keeps batch norm's
    buffers aside. Both passes of the difference meet the same random numbers (dropout), and none of them is missing
    afterwards. The difference is taken in full precision, since lower ones cannot tell weights so close together.

    Source: Z. Li, "Improving the generalization capability for medical image segmentation", 2020, where the difference
    of H. Liu et al., "DARTS: Differentiable Architecture Search", ICLR 2019, https://arxiv.org/abs/1806.09055, is
    applied to weights of samples.

    Args:
        errors: The samples' losses (B,) at given weights of the network.
        outer: The loss L at given weights, a scalar.
        weights: The network's own, by name.
        gradients: Of the mean of the samples' losses by them, None where it does not reach.
        rate: Length of the plain step (alpha).
        derivative: The step's: of the joint loss of all processes.
        number: Samples in the joint batch (B); None where there is one process.
        reach: |R v|.
    """
    after = stepped_copy(weights, gradients, rate)
    with _unnoticed(weights):
        slopes = derivative(outer(after), list(after.values()))
    given = [slope for slope in slopes if slope is not None]
    length = torch.nn.utils.get_total_norm(given)
    # A flat outer loss has no direction; where there is one this does not change it.
    scale = reach / length.clamp(min=torch.finfo(length.dtype).tiny)
    found = []
    for sign in (1, -1):
        moved = {
            name: weight.detach() if slope is None else torch.add(weight.detach(), slope * (sign * scale))
            for (name, weight), slope in zip(weights.items(), slopes, strict=True)
        }
        with torch.no_grad(), _unnoticed(weights), torch.autocast(_device(weights).type, enabled=False):
            found.append(errors(moved))
    up, down = found
    return -rate / (number or len(up)) * length * (up - down) / (2 * reach)


def exact_weight_gradient(
    errors: Callable[[Weights], Tensor], outer: Callable[[Weights], Tensor], weights: Weights, rate: float
) -> Tensor:
    """d L / d w of each sample, (B,), at w = 1, through the step itself: what the difference is checked against.

    Costs a second derivative, and the memory of one. For one process.

    Args:
        errors, outer, weights, rate: As of `lookahead_weight_gradient`.
    """
    names, leaves = list(weights), [weight.detach().clone().requires_grad_() for weight in weights.values()]
    with _unnoticed(weights):
        found = errors(dict(zip(names, leaves, strict=True)))
        shares = torch.ones_like(found, requires_grad=True)
        slopes = torch.autograd.grad((shares * found).mean(), leaves, create_graph=True, allow_unused=True)
        after = {
            name: leaf if slope is None else leaf - rate * slope
            for name, leaf, slope in zip(names, leaves, slopes, strict=True)
        }
        (result,) = torch.autograd.grad(outer(after), shares)
    return result


def stepped_copy(weights: Weights, gradients: Sequence[Tensor | None], rate: float) -> dict[str, Tensor]:
    """The weights after one plain step along gradients that are known already, as leaves to differentiate by."""
    pairs = zip(weights.items(), gradients, strict=True)
    after = {n: w.detach().clone() if g is None else torch.add(w.detach(), g, alpha=-rate) for (n, w), g in pairs}
    return {name: weight.requires_grad_() for name, weight in after.items()}


@contextlib.contextmanager
def _unnoticed(weights: Weights) -> Iterator[None]:
    """Random numbers that are drawn within it are drawn again after it."""
    device = _device(weights)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield


def _device(weights: Weights) -> torch.device:
    return next(iter(weights.values())).device
