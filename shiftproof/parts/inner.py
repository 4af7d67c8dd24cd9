"""A gradient step that can be differentiated: the inner loop of meta-learning."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

Derivative = Callable[..., list[Tensor | None]]
"""`Step.derivative`: of the joint loss of all processes, by any tensors."""


def stepped(
    network: nn.Module, loss: Tensor, rate: float, derivative: Derivative, *, second_order: bool
) -> dict[str, Tensor]:
    """The network's weights after one plain gradient step on `loss`, by name; the network is unchanged.

    Args:
        network: Its parameters that need a gradient are stepped; one that the loss does not reach keeps its
            value.
        loss: Scalar, computed with the network's present weights. Its graph is kept.
        rate: Length of the step (alpha).
        derivative: The step's: every process takes the virtual step of the joint batch.
        second_order: Whether the result depends on the weights through the gradient too. Without, the
            gradient counts as a constant, and the derivative of a stepped weight by the weight is 1.
    """
    named = {name: p for name, p in network.named_parameters() if p.requires_grad}
    gradients = derivative(loss, list(named.values()), keep=True, differentiable=second_order)
    return {
        name: weight if gradient is None else weight - rate * gradient
        for (name, weight), gradient in zip(named.items(), gradients, strict=True)
    }
