"""Batch norm whose statistics are those of the joint batch of all processes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from .group import Group, current

KINDS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@contextlib.contextmanager
def synchronised(module: nn.Module, group: Group) -> Iterator[None]:
    """Within it, training-mode batch norm of `module` counts the samples of every process.

    Torch's own synchronised form needs a GPU and layers that are replaced; here the layers stay what they are, with
    their names, parameters and buffers, and change their class for the time of training.
    """
    norms = [m for m in module.modules() if type(m) in KINDS] if group.several else []
    before = [type(norm) for norm in norms]
    for norm, kind in zip(norms, before, strict=True):
        norm.__class__ = _SYNCHRONISED[kind]
    try:
        yield
    finally:
        for norm, kind in zip(norms, before, strict=True):
            norm.__class__ = kind


class _Joint:
    """The forward pass of batch norm over all processes."""

    def forward(self: Any, features: Tensor) -> Tensor:
        group = current()
        if not self.training or not group.several:
            return super().forward(features)  # type: ignore[misc, no-any-return]
        self._check_input_dim(features)
        wide = features.float() if features.dtype in (torch.bfloat16, torch.float16) else features
        count, mean, variance = joint_moments(wide, group)
        shape = (1, -1, *[1] * (wide.dim() - 2))
        normal = (wide - mean.view(shape)) * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            normal = normal * self.weight.view(shape) + self.bias.view(shape)
        if self.track_running_stats and self.running_mean is not None:
            self._remember(count, mean.detach(), variance.detach())
        return normal.to(features.dtype)

    @torch.no_grad()
    def _remember(self: Any, count: Tensor, mean: Tensor, variance: Tensor) -> None:
        """As torch does: the variance without bias; without a momentum, a plain mean over the batches."""
        self.num_batches_tracked.add_(1)
        momentum = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean), momentum)
        self.running_var.lerp_((variance * count / (count - 1)).to(self.running_var), momentum)


class _BatchNorm1d(_Joint, nn.BatchNorm1d):  # type: ignore[misc]
    """Of (B, C) or (B, C, X)."""


class _BatchNorm2d(_Joint, nn.BatchNorm2d):  # type: ignore[misc]
    """Of (B, C, X, Y)."""


class _BatchNorm3d(_Joint, nn.BatchNorm3d):  # type: ignore[misc]
    """Of (B, C, X, Y, Z)."""


_SYNCHRONISED: dict[type, type] = dict(zip(KINDS, (_BatchNorm1d, _BatchNorm2d, _BatchNorm3d), strict=True))


def joint_moments(features: Tensor, group: Group) -> tuple[Tensor, Tensor, Tensor]:
    """Number of values a channel (scalar), their mean and variance (C,) over all processes; differentiable.

    Each process's own mean and variance are put together, T. F. Chan et al., "Updating Formulae and a Pairwise
    Algorithm for Computing Sample Variances", COMPSTAT 1982: a difference of sums of squares would lose digits.
    """
    axes = [0, *range(2, features.dim())]
    mean = features.mean(axes)
    variance = features.var(axes, correction=0)
    number = features.numel() // features.shape[1]
    own = torch.cat([mean, variance, mean.new_full((1,), number)])
    every = group.stack(own)  # (processes, 2 C + 1)
    counts = every[:, -1:].detach()
    share = counts / counts.sum()
    means, variances = every[:, :-1].chunk(2, dim=1)
    joint = (share * means).sum(0)
    return counts.sum(), joint, (share * (variances + (means - joint).square())).sum(0)
