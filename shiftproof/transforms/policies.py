"""How probable each option of a pool is: a policy, drawn from by Gumbel noise and learned by it.

Source: Z. Li, "Improving the generalization capability for medical image segmentation" (talk, 2020), and Z. Li et al.,
"Joint optimization of class-specific training- and test-time data augmentation in segmentation", IEEE Transactions on
Medical Imaging 42 (2023); the relaxation: E. Jang, S. Gu, B. Poole, "Categorical Reparameterization with
Gumbel-Softmax", ICLR 2017.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from ..errors import OptionError
from ..names import choose
from .groups import Group, Option

POLICIES = ("uniform", "nnunet", "deepmedic", "weak", "weaker")

_ACTING = {
    #           scale rotate sagittal, frontal, axial   gamma  inverted add  multiply contrast blur noise low resolution
    "nnunet":    (0.2, 0.1, 0.5, 0.5, 0.5, 0.3, 0.1, 0.05, 0.15, 0.15, 0.2, 0.1, 0.1),
    "deepmedic": (0.2, 0.2, 0.5, 0.05, 0.05, 0.05, 0.05, 0.15, 0.05, 0.05, 0.05, 0.05, 0.05),
    "weak":      (0.1,) * 13,
    "weaker":    (0.05,) * 13,
}  # fmt: skip
_KINDS = (
    "scale", "rotate", "mirror sagittal", "mirror frontal", "mirror axial", "gamma", "inverted gamma", "add",
    "multiply", "contrast", "blur", "noise", "low resolution",
)  # fmt: skip


@dataclass(frozen=True)
class Choices:
    """Which option of each group acts on each sample.

    Args:
        index: (B, groups) int64, on the CPU.
    """

    index: Tensor

    def __len__(self) -> int:
        return len(self.index)


class Policy(nn.Module):
    """Probabilities of all options, the softmax of logits, for one or several kinds of patches.

    Args:
        groups: Of the pool, in its order.
        sets: Kinds of patches, each with logits of its own: 1, or 2 for patches that were drawn elsewhere (0) and on
            a structure (1).
        preset: What it begins with: "uniform", or the published "nnunet", "deepmedic", "weak", "weaker".
        temperature: Of the relaxation that gradients go through.

    Raises:
        OptionError: If there is no such preset, no kind of patch, or no positive temperature.
    """

    def __init__(
        self, groups: Sequence[Group], *, sets: int = 1, preset: str = "uniform", temperature: float = 1.0
    ) -> None:
        super().__init__()
        choose(preset, POLICIES, "preset of a policy")
        if sets < 1:
            raise OptionError(f"a policy is for at least 1 kind of patches, got {sets}")
        if not temperature > 0:
            raise OptionError(f"the temperature of a policy must be above 0, got {temperature}")
        self.groups, self.sets, self.temperature = list(groups), sets, temperature
        self.logits = nn.ParameterList(
            nn.Parameter(_initial(group, preset, len(groups)).repeat(sets, 1)) for group in groups
        )

    def probabilities(self) -> list[Tensor]:
        """Of each group (sets, options), without a gradient."""
        return [logits.detach().softmax(-1) for logits in self.logits]

    def entropies(self) -> Tensor:
        """In nats, (sets, groups); log of the number of options where all are equally probable."""
        return torch.stack([-(p * p.clamp_min(1e-30).log()).sum(-1) for p in self.probabilities()], -1)

    def sample(self, sets: Tensor, generator: Generator) -> Choices:
        """One option of each group for each sample.

        Args:
            sets: (B,) the kind of each patch, from 0.
            generator: On the CPU; as many numbers are taken as the shape needs.
        """
        chosen = [self._of(k, sets) for k in range(len(self.groups))]  # (B, options) each
        return Choices(torch.stack([(a + _gumbel(a.shape, generator)).argmax(-1) for a in chosen], -1))

    def weight_gradient(
        self,
        choices: Choices,
        slopes: Tensor,
        sets: Tensor,
        generator: Generator,
        *,
        centred: Tensor | None = None,
        usual: Tensor | None = None,
    ) -> list[Tensor]:
        """Gradient of an outer loss by the logits, through the weights of the samples that were chosen.

        Args:
            choices: What was drawn for B samples; of all processes together, where there are several.
            slopes: (B,) derivative of the outer loss by each sample's weight.
            sets: (B,) the kind of each patch.
            generator: For Gumbel noise, redrawn under the condition that it gives these choices.
            centred: (B,) groups of samples within which the mean of `slopes` is subtracted; None takes `sets`.
            usual: (B,) what is subtracted instead.

        Returns:
            As `logits`, (sets, options) of each group, where they are.
        """
        sets, slopes = sets.cpu(), slopes.detach().double().cpu()
        if usual is not None:
            slopes = slopes - usual.detach().double().cpu()
        else:
            slopes = _centred(slopes, sets if centred is None else centred.cpu())
        found = []
        for k, logits in enumerate(self.logits):
            index = choices.index[:, k].cpu()
            a = self._of(k, sets)
            relaxed = (conditioned(a, index, generator) / self.temperature).softmax(-1)  # (B, options): y
            won = torch.nn.functional.one_hot(index, a.shape[-1]).double()
            slope = relaxed.gather(-1, index[:, None]) * (won - relaxed) / self.temperature
            # How often the option was chosen for this kind of patches: what is frequent must not count more.
            often = torch.zeros_like(logits, dtype=torch.float64, device="cpu").index_put_(
                (sets, index), torch.ones_like(slopes), accumulate=True
            )
            total = torch.zeros_like(often).index_add_(0, sets, slope * (slopes / often[sets, index])[:, None])
            found.append(total.to(logits))
        return found

    def _of(self, group: int, sets: Tensor) -> Tensor:
        """Logits of one group for each sample, (B, options), on the CPU in double precision."""
        return self.logits[group].detach().double().cpu()[sets.cpu()]


def _gumbel(shape: Sequence[int], generator: Generator) -> Tensor:
    uniform = torch.rand(tuple(shape), generator=generator, dtype=torch.float64)
    return -(-uniform.clamp_min(1e-300).log()).log()


def conditioned(logits: Tensor, winner: Tensor, generator: Generator) -> Tensor:
    """Logits (B, options) with Gumbel noise, given which of them is the largest.

    The largest of all is the log of the sum plus Gumbel noise, whoever wins; the others are cut off there.
    """
    top = logits.logsumexp(-1, keepdim=True) + _gumbel((len(logits), 1), generator)
    rest = -torch.logaddexp(-top, -(logits + _gumbel(logits.shape, generator)))
    return rest.scatter(-1, winner[:, None], top)


def _centred(values: Tensor, groups: Tensor) -> Tensor:
    """(B,) less the mean of each group of samples."""
    _, place = groups.unique(return_inverse=True)
    count = torch.bincount(place)
    return values - (torch.bincount(place, values) / count)[place]


def acting(group: Group, probability: float) -> Tensor:
    """Logits (options,) with which a group acts with this probability, all its options alike."""
    others = len(group.options) - 1
    logits = torch.ones(others + 1)
    logits[1:] = math.log(probability * math.e / (others * (1 - probability)))
    return logits


def _initial(group: Group, preset: str, groups: int) -> Tensor:
    if preset == "uniform":
        return torch.zeros(len(group.options))
    shares = dict(zip(_KINDS, _ACTING[preset], strict=True))
    kinds = [_kind(option) for option in group.options[1:]]
    if groups > 1:
        return acting(group, shares[kinds[0]] if kinds[0] in shares else shares["noise"])
    # One group for all operations: identity as often as none of them would act, the rest in their proportion. What the
    # published policies say of rotation, they say of each axis.
    own = [
        (kind, option.axes if kind == "rotate" else ()) for kind, option in zip(kinds, group.options[1:], strict=True)
    ]
    known = {key: shares.get(key[0], 0.0) for key in own}
    idle = math.prod(1 - share for share in known.values())
    each = torch.tensor([known[key] / own.count(key) for key in own])
    return torch.cat([torch.tensor([idle]), (1 - idle) * each / each.sum()]).clamp_min(1e-4).log()


def _kind(option: Option) -> str:
    """Name of the published probability that an option belongs to."""
    if option.operation in ("rotate", "turn"):
        return "rotate"
    if option.operation == "mirror":
        return option.name
    return "blur" if option.operation == "sharpen" else option.operation
