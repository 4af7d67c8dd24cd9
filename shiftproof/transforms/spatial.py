"""What moves voxels: rotation, scaling, translation, elastic deformation, mirroring."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from ..data.samples import Samples
from ..errors import OptionError
from .affine import inverted, placement
from .fields import splines
from .places import put_, taken
from .resample import Padding, grid, read_
from .spans import Chance
from .transform import Description, Parameters, Transform, check_probability


class Spatial(Transform):
    """Rotation, scaling, translation and elastic deformation in one interpolation, and exact mirroring.

    Images and floating labels (soft labels, regression targets) are interpolated linearly, class indices and
    facts such as "ignore" take the nearest voxel. Content is scaled along the axes of the source, rotated
    about the centre of the patch, translated, mirrored and deformed, in this order.

    An image larger than `patch` is cut to its central part: of a larger source (`source_patch`), rotation and
    scaling bring in what lies around instead of what `padding` invents. Voxels that come from outside of the
    source are marked in `extra["ignore"]`, so that nobody learns that unknown is background.

    Args:
        dimensions: 2 or 3.
        patch: Size of the result; None keeps the size. Axes on which the image is smaller keep theirs.
        fields: What moves together: "image", "label", names of extras. "ignore" always goes with "label".
        rotation: Degrees about `rotation_axes`; in 3D a span of size 3 draws an angle for each axis.
        rotation_axes: 3D: axes to turn about, all by default; (2,) turns within slices.
        scale: Magnification: above 1, structures get larger (nnU-Net's factor is the reciprocal).
        scale_axes: Axes that are scaled, all by default, by one factor or, with a span of size `dimensions`,
            each by its own.
        translation: Voxels; a span of size `dimensions` draws one for each axis.
        elastic: Standard deviation of the displacement of control points, in voxels. It is cut at 0.4 of the
            distance of control points: a cubic B-spline deformation cannot fold below 0.40 in 3D and 0.48 in
            2D (Choi and Lee, "Injectivity Conditions of 2D and 3D Uniform Cubic B-Spline Functions", Graphical
            Models 62 (2000)).
        elastic_points: Control points an axis, at least 4; the outermost lie beyond the border.
        mirror_axes: Axes that are mirrored, each with probability `mirror_probability`. Leave out left-right
            where the label tells sides apart.
        spacing_mm: Of the voxels, so that rotation turns mm. None turns voxels, as nnU-Net does.
        padding: What the image holds beyond its border: "border", the edge's values, or "zeros" (background,
            as a label).
        mark_outside: Whether voxels from beyond the border are ignored, where there is a label.

    Raises:
        OptionError: If an option does not fit the number of dimensions, or a probability is none.
    """

    def __init__(
        self,
        dimensions: int,
        *,
        patch: Sequence[int] | None = None,
        fields: Sequence[str] = ("image", "label", "ignore"),
        rotation: Chance | None = None,
        rotation_axes: Sequence[int] | None = None,
        scale: Chance | None = None,
        scale_axes: Sequence[int] | None = None,
        translation: Chance | None = None,
        elastic: Chance | None = None,
        elastic_points: int = 8,
        mirror_axes: Sequence[int] = (),
        mirror_probability: float = 0.5,
        spacing_mm: Sequence[float] | None = None,
        padding: Padding = "border",
        mark_outside: bool = True,
    ) -> None:
        axes = tuple(range(dimensions))
        self.dimensions = dimensions
        self.patch = None if patch is None else tuple(patch)
        self.fields = tuple(fields)
        self.rotation, self.scale, self.translation, self.elastic = rotation, scale, translation, elastic
        self.rotation_axes = ((0,) if dimensions == 2 else axes) if rotation_axes is None else tuple(rotation_axes)
        self.scale_axes = axes if scale_axes is None else tuple(scale_axes)
        self.elastic_points = elastic_points
        self.mirror_axes = tuple(mirror_axes)
        self.mirror_probability = mirror_probability
        self.spacing_mm = None if spacing_mm is None else tuple(spacing_mm)
        self.padding: Padding = padding
        self.mark_outside = mark_outside
        self._check()

    def _check(self) -> None:
        d = self.dimensions
        if d not in (2, 3):
            raise OptionError(f"spatial transforms have 2 or 3 dimensions, got {d}")
        turns = 1 if d == 2 else 3
        for name, axes, count in (
            ("rotation_axes", self.rotation_axes, turns),
            ("scale_axes", self.scale_axes, d),
            ("mirror_axes", self.mirror_axes, d),
        ):
            if any(not 0 <= axis < count for axis in axes):
                raise OptionError(f"{name} are among {tuple(range(count))} in {d}D, got {axes}")
        for name, values in (("patch", self.patch), ("spacing_mm", self.spacing_mm)):
            if values is not None and len(values) != d:
                raise OptionError(f"{name} has one number an axis, {d} in all, got {values}")
        if self.padding not in ("border", "zeros"):
            raise OptionError(f'padding is "border" or "zeros", got {self.padding!r}')
        if self.elastic_points < 4:
            raise OptionError(f"a cubic spline needs at least 4 control points an axis, got {self.elastic_points}")
        for name in ("rotation", "scale", "translation", "elastic"):
            chance, width = getattr(self, name), turns if name == "rotation" else d
            if chance is not None:
                check_probability(name, chance.probability)
                if chance.span.size not in (None, 1, width):
                    raise OptionError(f"{name} draws 1 or {width} numbers in {d}D, got size {chance.span.size}")
        check_probability("mirroring", self.mirror_probability)

    def draw(self, samples: Samples, generator: Generator) -> Parameters:
        """angles (B, 1 or 3) degrees; scale, translation (B, D); mirror (B, D) bool; elastic (B, D, *points) voxels."""
        count, d = len(samples), self.dimensions
        parameters = {
            "angles": _drawn(self.rotation, count, 1 if d == 2 else 3, self.rotation_axes, 0.0, generator),
            "scale": _drawn(self.scale, count, d, self.scale_axes, 1.0, generator),
            "translation": _drawn(self.translation, count, d, range(d), 0.0, generator),
            "mirror": torch.zeros(count, d, dtype=torch.bool),
        }
        if self.mirror_axes:
            chosen = torch.rand(count, len(self.mirror_axes), generator=generator) < self.mirror_probability
            parameters["mirror"][:, list(self.mirror_axes)] = chosen
        if self.elastic is not None:
            std = _drawn(self.elastic, count, d, range(d), 0.0, generator)
            points = torch.randn(count, d, *[self.elastic_points] * d, generator=generator)
            apart = torch.tensor(self._shape(samples.image.shape[2:])) / (self.elastic_points - 3)
            limit = _grown(0.4 * apart.expand(count, d), d)
            parameters["elastic"] = (points * _grown(std, d)).clamp(-limit, limit)
        return parameters

    def apply(self, samples: Samples, parameters: Parameters) -> Samples:
        return self._replaced(samples, lambda fields: self._applied(fields, parameters))

    def inverse(self, samples: Samples, parameters: Parameters) -> Samples:
        """Everything back where `apply` took it from, within the patch; what the patch does not hold is ignored.

        Raises:
            OptionError: If a sample was deformed elastically: there is no inverse in closed form.
        """
        return self._replaced(samples, lambda fields: self._inverted(fields, parameters))

    def moved(self, field: Tensor, parameters: Parameters, *, inverse: bool = False) -> Tensor:
        """One field (B, ..., *space), a prediction for example, moved as `apply` or `inverse` moves the samples.

        Differentiable by a floating field.
        """
        (result,), _ = (self._inverted if inverse else self._applied)([field], parameters)
        return result

    def source_patch(self, patch: Sequence[int]) -> tuple[int, ...]:
        """As everywhere; elastic deformation is not accounted for."""
        turn = torch.zeros(1) if self.rotation is None else torch.linspace(*self.rotation.range, 25)
        count = 1 if self.dimensions == 2 else 3
        choices = [turn if axis in self.rotation_axes else torch.zeros(1) for axis in range(count)]
        angles = torch.cartesian_prod(*choices).view(-1, count)
        scale = torch.ones(len(angles), self.dimensions)
        if self.scale is not None:
            scale[:, list(self.scale_axes)] = self.scale.range[0]
        shift = 0.0 if self.translation is None else max(abs(end) for end in self.translation.range)
        still = torch.zeros_like(scale)
        matrix = inverted(placement(angles, scale, still, still, self.spacing_mm))[..., :-1]
        extent = matrix.abs() @ (torch.tensor(patch) / 2 + shift)  # (N, D): half of the box that holds the turned box
        return tuple(math.ceil(2 * e - 1e-3) for e in extent.amax(0).tolist())

    def describe(self) -> list[Description]:
        turns = 1 if self.dimensions == 2 else 3
        about = "" if turns == 1 else f" about axes {_listed(self.rotation_axes)}"
        along = "" if len(self.scale_axes) == self.dimensions else f" along axes {_listed(self.scale_axes)}"
        lines = [
            (name, chance.probability, f"{chance.span}{unit}")
            for name, chance, unit in (
                ("rotation", self.rotation, f" degrees{about}"),
                ("scaling", self.scale, along),
                ("translation", self.translation, " voxels"),
                ("elastic deformation", self.elastic, f" voxels, {self.elastic_points} control points an axis"),
            )
            if chance is not None
        ]
        if self.mirror_axes:
            lines.append(("mirroring", self.mirror_probability, f"each of axes {_listed(self.mirror_axes)}"))
        return lines

    def _shape(self, source: Sequence[int]) -> tuple[int, ...]:
        return tuple(source) if self.patch is None else tuple(map(min, self.patch, source))

    def _replaced(self, samples: Samples, change: Change) -> Samples:
        """The samples with their fields changed together, and what comes from outside marked."""
        named = {name: value for name in self.fields if (value := field_of(samples, name)) is not None}
        labelled = "label" in named
        if labelled and "ignore" in samples.extra:
            named["ignore"] = samples.extra["ignore"]
        self._check_fields(named)

        results, outside = change(list(named.values()))
        changed = dict(zip(named, results, strict=True))
        if labelled and self.mark_outside:
            changed["ignore"] = changed["ignore"] | outside if "ignore" in changed else outside
        own = {name: changed.pop(name) for name in ("image", "label") if name in changed}
        return samples.replace(**own, extra={**samples.extra, **changed})

    def _check_fields(self, named: dict[str, Tensor]) -> None:
        d = self.dimensions
        if "image" in named and named["image"].ndim != d + 2:
            raise OptionError(
                f"a {d}D transform takes images (B, C, {'X, Y, Z'[: 3 * d - 2]}), got {tuple(named['image'].shape)}"
            )
        space = next(iter(named.values())).shape[-d:]
        for name, value in named.items():
            if value.ndim <= d or value.shape[-d:] != space:
                raise OptionError(
                    f"{name} of shape {tuple(value.shape)} cannot move together with {next(iter(named))} of space "
                    f"{tuple(space)}; leave it out of the fields that move"
                )

    def _applied(self, fields: list[Tensor], parameters: Parameters) -> tuple[list[Tensor], Tensor]:
        """The fields on the patch, and which voxels (B, *patch) come from outside of the source."""
        source = fields[0].shape[-self.dimensions :]
        shape = self._shape(source)
        start = [(have - want) // 2 for have, want in zip(source, shape, strict=True)]
        return self._resampled(fields, start, shape, parameters, inverse=False)

    def _inverted(self, fields: list[Tensor], parameters: Parameters) -> tuple[list[Tensor], Tensor]:
        if "elastic" in parameters and parameters["elastic"].any():
            raise OptionError("elastic deformation has no inverse; draw from a transform without it, or set it to 0")
        shape = fields[0].shape[-self.dimensions :]
        return self._resampled(fields, [0] * self.dimensions, shape, parameters, inverse=True)

    def _maps(self, parameters: Parameters, places: Sequence[int], inverse: bool) -> tuple[Tensor, Tensor | None]:
        """Of the samples at `places`: from the result to the source (N, D, D + 1), and displacements in the source."""
        angles, scale, translation = (parameters[n].double() for n in ("angles", "scale", "translation"))
        matrix = placement(angles, scale, translation, parameters["mirror"], self.spacing_mm)
        matrix = taken(matrix if inverse else inverted(matrix), places)
        if inverse or "elastic" not in parameters:
            return matrix, None
        # Acts last, so that what was moved without folding stays so.
        elastic = taken(parameters["elastic"], places).double()
        return matrix, torch.einsum("bij,bj...->bi...", matrix[..., :-1], elastic)

    def _resampled(
        self, fields: list[Tensor], start: Sequence[int], shape: Sequence[int], parameters: Parameters, *, inverse: bool
    ) -> tuple[list[Tensor], Tensor]:
        """The window of all fields: read through the map where that interpolates, only mirrored elsewhere."""
        first, device, d = fields[0], fields[0].device, self.dimensions
        moving = _moving(parameters)
        window: tuple[Any, ...] = (..., *[slice(a, a + n) for a, n in zip(start, shape, strict=True)])
        results = [_mirrored(f[window], parameters["mirror"], moving) for f in fields]
        outside = torch.zeros(len(first), *shape, dtype=torch.bool, device=device)
        places = [place for place, moves in enumerate(moving) if moves]
        if places:
            kind = torch.float64 if first.dtype == torch.float64 else torch.float32
            centre = [a + n / 2 for a, n in zip(start, shape, strict=True)]
            matrix, elastic = self._maps(parameters, places, inverse)
            bent = None if elastic is None else splines(elastic.to(device, kind, non_blocking=True), tuple(shape))
            at = grid(matrix.to(kind), shape, centre, bent).to(device)
            # Whatever stands between batch and space, classes or nothing, is taken for channels.
            sources, views = ([f.reshape(len(f), -1, *f.shape[-d:]) for f in some] for some in (fields, results))
            put_(outside, places, read_(views, places, sources, at, self.padding))
        return results, outside


Change = Callable[[list[Tensor]], tuple[list[Tensor], Tensor]]
"""Fields to the fields moved, and which voxels come from outside."""


def _drawn(
    chance: Chance | None, count: int, width: int, axes: Sequence[int], rest: float, generator: Generator
) -> Tensor:
    """(B, width): what was drawn on `axes` of the samples chosen, `rest` elsewhere."""
    result = torch.full((count, width), rest)
    if chance is not None:
        chosen = torch.rand(count, 1, generator=generator) < chance.probability
        value = chance.span.draw((count, chance.span.size or 1), generator).expand(count, width)
        value = torch.where(chosen, value, rest)
        if len(axes) == width:
            return value
        result[:, list(axes)] = value[:, list(axes)]
    return result


def _mirrored(field: Tensor, mirror: Tensor, moving: Sequence[bool]) -> Tensor:
    """A copy with axes reversed exactly; samples that are `moving` are left to be written."""
    result = field.new_empty(field.shape)
    # NumPy reverses while it copies, PyTorch in a copy of its own.
    once = field.device.type == "cpu" and field.dtype != torch.bfloat16 and not field.requires_grad
    # A loop over samples, since each has its own axes, and so that whatever happens is written once.
    for sample, (moves, reverse) in enumerate(zip(moving, mirror.tolist(), strict=True)):
        axes = [axis - len(reverse) for axis, r in enumerate(reverse) if r]
        if moves:
            continue
        if axes and once:
            result[sample].numpy()[...] = np.flip(field[sample].numpy(), tuple(axes))
        else:
            result[sample] = field[sample].flip(axes) if axes else field[sample]
    return result


def _moving(parameters: Parameters) -> list[bool]:
    """Which samples have to be interpolated."""
    drawn = [
        parameters[name].flatten(1).tolist() for name in ("angles", "translation", "elastic") if name in parameters
    ]
    moved = [any(map(any, rows)) for rows in zip(*drawn, strict=True)]
    return [moves or set(scale) != {1} for moves, scale in zip(moved, parameters["scale"].tolist(), strict=True)]


def field_of(samples: Samples, name: str) -> Tensor | None:
    """The image, the label or an extra by name; None where there is none."""
    return getattr(samples, name) if name in ("image", "label") else samples.extra.get(name)


def _grown(values: Tensor, dimensions: int) -> Tensor:
    """(B, D) as (B, D, 1...), to meet fields."""
    return values.view(*values.shape, *[1] * dimensions)


def _listed(axes: Sequence[int]) -> str:
    return ", ".join(map(str, axes))
