"""RMSProp as DeepMedic uses it: with Nesterov's momentum, and penalties on squared and on absolute weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


class NesterovRMSProp(torch.optim.Optimizer):
    """Steps scaled by the running root mean square of the gradient, then Nesterov's momentum.

    With the gradient g of the loss and its penalties, s = rho s + (1 - rho) g^2, step = rate g / sqrt(s + eps),
    v = momentum v - step, and the weight moves by momentum v - step. PyTorch's RMSProp adds eps to the root, not inside
    of it, and its momentum looks at no step ahead.

    Paper: K. Kamnitsas et al., "Efficient multi-scale 3D CNN with fully connected CRF for accurate brain lesion
    segmentation", Medical Image Analysis 36 (2017), https://doi.org/10.1016/j.media.2016.10.004. Penalties are for
    kernels and matrices alone: not for biases, norms and slopes of activations. A momentum that is normalised, with
    steps of (1 - momentum) times the rate, is this one at that rate.

    Args:
        params: Weights, or groups of them.
        lr: Rate.
        momentum: Of the steps.
        weight_decay: Penalty of half of this times the sum of squared weights.
        absolute: Penalty on the sum of absolute weights, as a share of `weight_decay`. The published penalties, 1e-6
            times absolute and 1e-4 times squared weights, are the default share with a weight_decay of 2e-4.
        rho: Decay of the mean square.
        eps: Added to the mean square.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        *,
        momentum: float = 0.6,
        weight_decay: float = 0.0,
        absolute: float = 1 / 200,
        rho: float = 0.9,
        eps: float = 1e-4,
    ) -> None:
        decay = {"weight_decay": weight_decay, "absolute": absolute}
        super().__init__(params, {"lr": lr, "momentum": momentum, "rho": rho, "eps": eps, **decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._move_(weight, penalised(weight, group["weight_decay"], group["absolute"]), group)
        return loss

    def _move_(self, weight: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[weight]
        if not state:
            state["square"], state["velocity"] = torch.zeros_like(weight), torch.zeros_like(weight)
        square, velocity = state["square"], state["velocity"]
        square.mul_(group["rho"]).addcmul_(gradient, gradient, value=1 - group["rho"])
        step = gradient / (square + group["eps"]).sqrt_()
        velocity.mul_(group["momentum"]).sub_(step, alpha=group["lr"])
        weight.add_(velocity, alpha=group["momentum"]).sub_(step, alpha=group["lr"])


def penalised(weight: Tensor, weight_decay: float, absolute: float) -> Tensor:
    """The gradient of the loss and of the penalties on a weight."""
    gradient: Tensor = weight.grad  # type: ignore[assignment]
    if not weight_decay or weight.dim() < 2:
        return gradient
    return gradient.add(weight, alpha=weight_decay).add_(weight.sign(), alpha=weight_decay * absolute)
