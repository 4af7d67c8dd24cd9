"""Moves that need no interpolation: quarter turns and mirroring."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from ..data.samples import Samples
from .spatial import field_of
from .transform import Description, Parameters, Transform

PLANES = {2: ((0, 1),), 3: ((1, 2), (2, 0), (0, 1))}
"""Axes of the plane in which each rotation turns, from the first towards the second, as in `affine.rotation`."""


class Turns(Transform):
    """Exact turns by right angles, then mirroring. It draws nothing: whoever uses it gives the parameters.

    Parameters are "turns" (B, 1) in 2D or (B, 3), quarter turns about each axis, the third first, and "mirror" (B, D)
    bool. A quarter turn in a plane whose sides have other numbers of voxels would change the shape: it is left out.

    Args:
        dimensions: 2 or 3.
        fields: What moves together, as for `Spatial`; "ignore" goes with "label".
    """

    def __init__(self, dimensions: int, fields: Sequence[str] = ("image", "label", "ignore")) -> None:
        self.dimensions = dimensions
        self.fields = tuple(dict.fromkeys([*fields, "ignore"] if "label" in fields else fields))

    def draw(self, samples: Samples, generator: Generator) -> Parameters:
        """No turn and no mirroring."""
        count, d = len(samples), self.dimensions
        none = torch.zeros(count, len(PLANES[d]), dtype=torch.int64)
        return {"turns": none, "mirror": torch.zeros(count, d, dtype=torch.bool)}

    def apply(self, samples: Samples, parameters: Parameters) -> Samples:
        return self._changed(samples, parameters, inverse=False)

    def inverse(self, samples: Samples, parameters: Parameters) -> Samples:
        return self._changed(samples, parameters, inverse=True)

    def moved(self, field: Tensor, parameters: Parameters, *, inverse: bool = False) -> Tensor:
        """One field (B, ..., *space), a prediction for example. Differentiable by it."""
        change = self._back if inverse else self._there
        rows = list(zip(parameters["turns"].tolist(), parameters["mirror"].tolist(), strict=True))
        places = [place for place, (turns, mirror) in enumerate(rows) if any(turns) or any(mirror)]
        if not places:
            return field
        result = field.clone()
        for place in places:
            result[place] = change(field[place], *rows[place])
        return result

    def describe(self) -> list[Description]:
        return []

    def _changed(self, samples: Samples, parameters: Parameters, *, inverse: bool) -> Samples:
        named = {name: value for name in self.fields if (value := field_of(samples, name)) is not None}
        changed = {name: self.moved(value, parameters, inverse=inverse) for name, value in named.items()}
        own = {name: changed.pop(name) for name in ("image", "label") if name in changed}
        return samples.replace(**own, extra={**samples.extra, **changed})

    def _there(self, field: Tensor, turns: list[int], mirror: list[bool]) -> Tensor:
        for axis in reversed(range(len(turns))):
            field = self._turned(field, axis, turns[axis])
        return self._mirrored(field, mirror)

    def _back(self, field: Tensor, turns: list[int], mirror: list[bool]) -> Tensor:
        field = self._mirrored(field, mirror)
        for axis, count in enumerate(turns):
            field = self._turned(field, axis, -count)
        return field

    def _turned(self, field: Tensor, axis: int, count: int) -> Tensor:
        first, second = (a - self.dimensions for a in PLANES[self.dimensions][axis])
        if count % 2 and field.shape[first] != field.shape[second]:
            return field
        return field.rot90(count % 4, (first, second))

    def _mirrored(self, field: Tensor, mirror: list[bool]) -> Tensor:
        return field.flip([axis - self.dimensions for axis, reverse in enumerate(mirror) if reverse])
