"""A fixed policy as augmentation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator

from ..data.samples import Samples
from ..errors import OptionError
from .policies import Policy
from .pool import Pool
from .rare import is_rare
from .transform import Description, Parameters, Transform


class FromPolicy(Transform):
    """Options of a pool, drawn with a policy's probabilities.

    With a policy for two kinds of patches, each sample takes what was drawn for its own; one without a label takes the
    second.

    Args:
        pool: What is chosen from.
        policy: Probabilities; they are not learned here.
        rare: Classes around which patches of the second kind were drawn; None for all but 0.

    Raises:
        OptionError: If the policy is for more than two kinds of patches.
    """

    def __init__(self, pool: Pool, policy: Policy, *, rare: Sequence[int] | None = None) -> None:
        if policy.sets > 2:
            raise OptionError(f"patches are of 2 kinds, common and rare; this policy has {policy.sets}")
        self.pool, self.policy = pool, policy
        self.rare = None if rare is None else tuple(rare)

    def draw(self, samples: Samples, generator: Generator) -> Parameters:
        """The pool's parameters; of several kinds of patches, drawn for each, named by its number."""
        every = []
        for number in range(self.policy.sets):
            sets = torch.full((len(samples),), number)
            choices = self.policy.sample(sets, generator)
            every.append(self.pool.draw(samples, choices.index, generator))
        if len(every) == 1:
            return every[0]
        return {f"{number}/{name}": value for number, drawn in enumerate(every) for name, value in drawn.items()}

    def apply(self, samples: Samples, parameters: Parameters) -> Samples:
        return self.pool.apply(samples, self._own(samples, parameters))

    def inverse(self, samples: Samples, parameters: Parameters) -> Samples:
        return self.pool.inverse(samples, self._own(samples, parameters))

    def source_patch(self, patch: Sequence[int]) -> tuple[int, ...]:
        return self.pool.source_patch(patch)

    def describe(self) -> list[Description]:
        """Each group, how probably it acts, and its options."""
        lines = []
        for group, p in zip(self.pool.groups, self.policy.probabilities(), strict=True):
            for number, row in enumerate(p.tolist()):
                kind = "" if self.policy.sets == 1 else (" (common)", " (rare)")[number]
                listed = ", ".join(f"{name} {share:.2g}" for name, share in zip(group.names[1:], row[1:], strict=True))
                lines.append((f"{group.name}{kind}", 1 - row[0], listed))
        return lines

    def _own(self, samples: Samples, parameters: Parameters) -> Parameters:
        """Of each sample what was drawn for patches of its kind."""
        if self.policy.sets == 1:
            return parameters
        rare = is_rare(samples, self.rare).cpu()
        common = {name.removeprefix("0/"): value for name, value in parameters.items() if name.startswith("0/")}
        return {
            name: torch.where(rare.view(-1, *[1] * (value.ndim - 1)), parameters[f"1/{name}"], value)
            for name, value in common.items()
        }
