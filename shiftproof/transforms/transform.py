"""Samples to samples: random parameters are drawn, then applied, so that a transform can be replayed and undone.

The rule of randomness, for every transform here:

- `draw` takes all parameters from one generator, on the CPU, whatever device the samples are on. How many
  numbers it takes depends on the samples' shape only, never on what was drawn.
- Parameters have the samples along their first axis and stay on the CPU, so that deciding who is transformed
  never waits for a GPU. A permuted batch with permuted parameters gives the permuted result.
- Noise for every voxel is not drawn in advance: a parameter holds its seed, one for each sample and channel, and
  the field is a function of (seed, shape, kind of device). On one device, equal parameters give equal bits.
- Samples and channels that are not chosen keep their values, bit for bit, and cost nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Generator, Tensor

from ..data.samples import Samples
from ..errors import OptionError
from .places import put_, taken
from .spans import Seed, Span

Parameters = dict[str, Tensor]
"""What was drawn, by name, samples along the first axis."""

Description = tuple[str, float, str]
"""Name, probability per sample and range of one random change, for reports."""


class Transform:
    """Samples to samples. A subclass gives `draw` and `apply`, and `inverse` if it moves voxels."""

    def draw(self, samples: Samples, generator: Generator) -> Parameters:
        """Random parameters for these samples; only their shape is looked at."""
        raise NotImplementedError

    def apply(self, samples: Samples, parameters: Parameters) -> Samples:
        """The samples transformed; a pure function of both arguments, which are not changed."""
        raise NotImplementedError

    def apply_(self, samples: Samples, parameters: Parameters) -> Samples:
        """As `apply`, of samples whose image nobody else holds: it may be written over."""
        return self.apply(samples, parameters)

    def inverse(self, samples: Samples, parameters: Parameters) -> Samples:
        """Voxels moved back to where `apply` took them from. Intensities are not restored."""
        return samples

    def source_patch(self, patch: Sequence[int]) -> tuple[int, ...]:
        """How large a source has to be cut, so that no voxel of `patch` comes from beyond its border."""
        return tuple(patch)

    def describe(self) -> list[Description]:
        """One line for each random change, in the order in which they act."""
        raise NotImplementedError

    def __call__(self, samples: Samples, generator: Generator) -> Samples:
        return self.apply(samples, self.draw(samples, generator))

    def __repr__(self) -> str:
        lines = [f"{name}: probability {p:g}{span and ', ' + span}" for name, p, span in self.describe()]
        return f"{type(self).__name__}({'; '.join(lines)})"


class Compose(Transform):
    """Transforms one after the other; of none at all, the identity.

    Parameters of the transform at position `i` are named `i.name`.
    """

    def __init__(self, transforms: Sequence[Transform]) -> None:
        self.transforms = list(transforms)

    def draw(self, samples: Samples, generator: Generator) -> Parameters:
        return {
            f"{position}.{name}": value
            for position, transform in enumerate(self.transforms)
            for name, value in transform.draw(samples, generator).items()
        }

    def apply(self, samples: Samples, parameters: Parameters) -> Samples:
        given, drawn = _memory(samples), self._divided(parameters)
        for transform, its_own in zip(self.transforms, drawn, strict=True):
            fresh = samples.image.untyped_storage().data_ptr() not in given
            samples = (transform.apply_ if fresh else transform.apply)(samples, its_own)
        return samples

    def inverse(self, samples: Samples, parameters: Parameters) -> Samples:
        for transform, drawn in reversed(list(zip(self.transforms, self._divided(parameters), strict=True))):
            samples = transform.inverse(samples, drawn)
        return samples

    def source_patch(self, patch: Sequence[int]) -> tuple[int, ...]:
        for transform in reversed(self.transforms):
            patch = transform.source_patch(patch)
        return tuple(patch)

    def describe(self) -> list[Description]:
        return [line for transform in self.transforms for line in transform.describe()]

    def _divided(self, parameters: Parameters) -> list[Parameters]:
        """What each transform drew, by the transform's own names."""
        drawn: list[Parameters] = [{} for _ in self.transforms]
        for name, value in parameters.items():
            position, _, own = name.partition(".")
            drawn[int(position)][own] = value
        return drawn


def _memory(samples: Samples) -> set[int]:
    """Where the samples' tensors lie."""
    tensors = [samples.image, *samples.extra.values()]
    tensors += [t for t in (samples.label, samples.domain) if t is not None]
    return {t.untyped_storage().data_ptr() for t in tensors}


class Varied(Transform):
    """An operation on images, with parameters drawn for each sample and channel.

    Channels that a subject lacks (`extra["present"]` False) are zeros that mean nothing and stay zeros.

    Args:
        operation: `operation(image, **parameters, **options, out=None)` of `intensity.py` or `acquisition.py`:
            acts on every channel on its own, parameters (B, C) or (B, C, size).
        probability: Of a sample to be changed.
        channel_probability: Of each channel of such a sample.
        options: Arguments of the operation that are the same for all.
        spans: What each parameter is drawn from, by the operation's name for it.

    Raises:
        OptionError: If a probability is not one.
    """

    def __init__(
        self,
        operation: Callable[..., Tensor],
        probability: float,
        *,
        channel_probability: float = 1.0,
        options: Mapping[str, Any] | None = None,
        **spans: Span,
    ) -> None:
        for value in (probability, channel_probability):
            check_probability(operation.__name__, value)
        self.operation = operation
        self.probability = probability
        self.channel_probability = channel_probability
        self.options = dict(options or {})
        self.spans = spans

    def draw(self, samples: Samples, generator: Generator) -> Parameters:
        count, channels = samples.image.shape[:2]
        # Neighbouring slices that are shown as channels are of one scan: they change alike, but for noise.
        slices = channels // samples.extra["present"].shape[1] if "present" in samples.extra else 1
        channels //= slices
        chosen = (torch.rand(count, 1, generator=generator) < self.probability).expand(count, channels)
        if self.channel_probability < 1:
            chosen = chosen & (torch.rand(count, channels, generator=generator) < self.channel_probability)
        parameters = {"chosen": chosen.repeat(1, slices)}
        for name, span in self.spans.items():
            size = () if span.size is None else (span.size,)
            own = channels * slices if isinstance(span, Seed) else 1 if span.shared else channels
            value = span.draw((count, own, *size), generator)
            times = channels * slices // own
            parameters[name] = value.repeat(1, times, *[1] * len(size)) if times > 1 else value
        return parameters

    def apply(self, samples: Samples, parameters: Parameters) -> Samples:
        return self._applied(samples, parameters, own=False)

    def apply_(self, samples: Samples, parameters: Parameters) -> Samples:
        return self._applied(samples, parameters, own=True)

    def _applied(self, samples: Samples, parameters: Parameters, *, own: bool) -> Samples:
        chosen, image, lacking = parameters["chosen"], samples.image, None
        if "present" in samples.extra:
            present = samples.extra["present"]
            # Neighbouring slices that are shown beside each other have the same channels.
            present = present.repeat(1, image.shape[1] // present.shape[1])
            if present.device.type == "cpu":
                chosen = chosen & present
            else:  # to look at it would wait for the GPU
                lacking = ~present.flatten()
        places = [i for i, is_chosen in enumerate(chosen.flatten().tolist()) if is_chosen]
        if not places:
            return samples
        every = image.flatten(0, 1).unsqueeze(1)  # (B C, 1, *space)
        drawn = {n: taken(parameters[n].flatten(0, 1), places).unsqueeze(1) for n in self.spans}
        some = taken(every, places)
        lacking = None if lacking is None else taken(lacking, places).view(-1, *[1] * (some.ndim - 1))
        learned = torch.is_grad_enabled() and any(t.requires_grad for t in (image, *drawn.values()))
        if own and not learned and image.is_contiguous():
            changed = self._changed(some, drawn, lacking, out=some)
            if some.data_ptr() != every[places[0]].data_ptr():  # a copy
                put_(every, places, changed)
            return samples
        changed = self._changed(some, drawn, lacking)
        if len(places) < len(every):
            every = every.clone()
            put_(every, places, changed)
            changed = every
        return samples.replace(image=changed.view_as(image))

    def _changed(self, some: Tensor, drawn: Parameters, lacking: Tensor | None, out: Tensor | None = None) -> Tensor:
        changed = self.operation(some, **drawn, **self.options, out=out)
        if lacking is None:
            return changed
        return changed.masked_fill(lacking, 0) if out is None else changed.masked_fill_(lacking, 0)

    def describe(self) -> list[Description]:
        ranges = [f"{n} {span}" for n, span in self.spans.items() if not isinstance(span, Seed)]
        if self.channel_probability < 1:
            ranges.append(f"each channel with probability {self.channel_probability:g}")
        return [(self.operation.__name__.replace("_", " "), self.probability, ", ".join(ranges))]


def check_probability(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise OptionError(f"the probability of {name.replace('_', ' ')} is between 0 and 1, got {value}")
