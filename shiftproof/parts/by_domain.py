"""Domains within a batch that several processes share."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from ..data.samples import Samples
from ..errors import MethodError

Mean = Callable[[Tensor], Tensor]
"""`Step.mean`: over processes, each by its share of the samples."""


def means_by_domain(values: Tensor, domain: Tensor, domains: int, mean: Mean) -> tuple[Tensor, Tensor]:
    """The domains that occur in the joint batch, (K,) ascending, and the mean of the values in each, (K,).

    A process may lack a domain that another one has: the means are of the joint batch in all of them.

    Args:
        values: (B,), of this process's samples; differentiable.
        domain: (B,), of them.
        domains: Number of domains that there are.
        mean: `Step.mean`.
    """
    member = F.one_hot(domain, domains).bool()  # (B, domains)
    # Chosen, not multiplied: a value that is not finite stays within its domain.
    sums = torch.where(member, values[:, None], 0).mean(0)
    sums, counts = mean(torch.stack([sums, member.to(values.dtype).mean(0)]))
    present = (counts > 0).nonzero().flatten()
    return present, sums[present] / counts[present]


def divided(samples: Samples, domains: int, mean: Mean) -> list[tuple[Samples, Tensor]]:
    """The own samples of each domain of the joint batch, ascending, with a factor for the mean of their losses.

    With it, the mean over processes is the joint batch's: it is above 1 where this process has more of the domain's
    samples than of all samples, and 1 where there is one process.

    Args:
        samples: This process's.
        domains: Number of domains that there are.
        mean: `Step.mean`.

    Raises:
        MethodError: If a process lacks a domain that another one has; in all processes.
    """
    assert samples.domain is not None  # training domains are known
    here = F.one_hot(samples.domain, domains).double().mean(0)  # (domains,)
    everywhere = mean(here)
    if float(mean(((here == 0) & (everywhere > 0)).any().double())) > 0:
        raise MethodError(
            "a process has no sample of a domain that another one has, and both must take part in its loss; "
            'use batches = "balanced" and a batch of at least processes x domains'
        )
    present = (everywhere > 0).nonzero().flatten().tolist()
    factors = (here / everywhere.clamp(min=1e-12)).to(samples.image.dtype)
    return [(samples[samples.domain == d], factors[d]) for d in present]
