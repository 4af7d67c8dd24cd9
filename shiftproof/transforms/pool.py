"""A pool of operations that acts by choice: each sample is changed by the options that were chosen for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Generator, Tensor

from ..data.samples import Samples
from ..errors import OptionError
from .acquisition import blur, gaussian_noise, low_resolution, sharpen
from .amounts import Drawn, by_operation, least_factor
from .destroying import constant, ramp, scramble, static
from .groups import DEFAULT_POOL, ORIENTATION, Group, Option, groups
from .intensity import brightness, contrast, gamma, inverted_gamma, shift
from .spans import Chance, Seed, Uniform
from .spatial import Spatial
from .transform import Compose, Parameters, Transform, Varied
from .turns import PLANES, Turns

STAGES: dict[str, tuple[Callable[..., Tensor], str]] = {
    "noise": (gaussian_noise, "variance"),
    "blur": (blur, "sigma"),
    "sharpen": (sharpen, "sigma"),
    "add": (shift, "amount"),
    "multiply": (brightness, "factor"),
    "contrast": (contrast, "factor"),
    "low resolution": (low_resolution, "zoom"),
    "inverted gamma": (inverted_gamma, "exponent"),
    "gamma": (gamma, "exponent"),
    "constant": (constant, "value"),
    "static": (static, ""),
    "scramble": (scramble, ""),
    "ramp": (ramp, "axis"),
}
"""Changes of intensity in the order in which they act, and what their amount is called."""

SEEDED = ("noise", "static", "scramble")
DESTROYING = ("constant", "static", "scramble", "ramp")


class Pool:
    """Operations of a published pool on patches of one size, drawn and applied by chosen option.

    In this order: scaling and rotation in one interpolation, quarter turns, mirroring, noise, blur, sharpening,
    brightness, contrast, loss of resolution, gamma of the negative, gamma. Rotations of several groups make one
    matrix. Channels of a sample change alike; noise is each channel's own.

    What patches cannot take is left out of the groups: quarter turns in a plane of unequal sides or spacing; with
    thick slices all rotations out of the slices, and scaling and loss of resolution act within them; mirroring of
    axes that are not named.

    Source: "talk": Z. Li, "Improving the generalization capability for medical image segmentation" (talk, 2020).
    "jcsa" and "views": Z. Li et al., "Joint optimization of class-specific training- and test-time data augmentation in
    segmentation", IEEE Transactions on Medical Imaging 42 (2023). Deviations: class indices take the nearest voxel
    instead of being resampled by class; beyond the border the edge continues and the label is ignored; mirroring is
    done with the other moves, before intensities change; statistics of contrast and gamma are those of the patch
    instead of the whole scan; rotations follow each other about the third, second and first axis; sharpening, see
    `acquisition.sharpen`.

    Args:
        name: "talk" (one group of 44 options in 3D), "jcsa" (15 groups, of which all act) or "views" (84 views
            without chance, for predictions).
        dimensions: 2 or 3.
        patch: Size of the patches that come out; of larger ones that go in the central part is cut.
        fields: What moves together: "image", "label", names of extras.
        spacing_mm: Of the voxels, to rotate in mm.
        anisotropic: 3D patches of thick slices, the last axis across them.
        mirror_axes: Axes that may be mirrored, all by default. Where the label tells sides apart, leave out the axis
            between them.
        destroying: With 15 operations that destroy the image, for proofs of concept.
        orientation: Where the axes point to, as the plan has it; "" for pictures. It decides which axis is meant by a
            name of anatomy.

    Raises:
        OptionError: If there is no such pool, or an option does not fit the number of dimensions.
    """

    def __init__(
        self,
        name: str = DEFAULT_POOL,
        *,
        dimensions: int,
        patch: Sequence[int],
        fields: Sequence[str] = ("image", "label", "ignore"),
        spacing_mm: Sequence[float] | None = None,
        anisotropic: bool = False,
        mirror_axes: Sequence[int] | None = None,
        destroying: bool = False,
        orientation: str = ORIENTATION,
    ) -> None:
        within = anisotropic and dimensions == 3
        if mirror_axes is not None and any(not 0 <= axis < dimensions for axis in mirror_axes):
            raise OptionError(f"mirror_axes are among {tuple(range(dimensions))} in {dimensions}D, got {mirror_axes}")
        self.name, self.dimensions, self.patch, self.destroying = name, dimensions, tuple(patch), destroying
        self.scale_axes = (0, 1) if within else tuple(range(dimensions))
        mirrored = range(dimensions) if mirror_axes is None else mirror_axes
        spacing = [1.0] * dimensions if spacing_mm is None else spacing_mm

        def fits(option: Option) -> bool:
            if option.operation == "mirror":
                return set(option.axes) <= set(mirrored)
            if option.operation == "rotate":
                return not within or option.axes == (2,)
            if option.operation != "turn" or option.magnitude % 2 == 0:
                return True
            a, b = PLANES[dimensions][option.axes[0]]
            return self.patch[a] == self.patch[b] and abs(spacing[a] / spacing[b] - 1) < 0.01

        self.groups: list[Group] = []
        for group in groups(name, dimensions, destroying=destroying, orientation=orientation):
            options = tuple(option for option in group.options if fits(option))
            if len(options) > 1:
                self.groups.append(replace(group, options=options))
        self.affine = Spatial(dimensions, patch=patch, fields=fields, spacing_mm=spacing_mm, **self._ranges())
        self.turns = Turns(dimensions, fields)
        used = {option.operation for group in self.groups for option in group.options}
        self._changes = [operation for operation in STAGES if operation in used]
        self._stages = Compose([self.affine, self.turns, *(self._stage(o, within) for o in self._changes)])

    def draw(self, samples: Samples, choices: Tensor, generator: Generator) -> Parameters:
        """Random amounts for what was chosen; only the samples' shape is looked at.

        Args:
            samples: B of them.
            choices: (B, groups) option of each group.
            generator: On the CPU. How many numbers are taken does not depend on the choices.
        """
        count, channels = samples.image.shape[:2]
        width = len(self.groups)
        share = 2 * torch.rand(count, width, generator=generator) - 1
        side = 1 - 2 * torch.randint(2, (count, width), generator=generator)
        seeds = Seed().draw((count, channels), generator)
        moves = self._moves(count)
        amounts: dict[str, tuple[Tensor, Tensor]] = {}
        for group, index, part, sign in zip(self.groups, choices.T, share.T, side.T, strict=True):
            for operation, options in by_operation(group).items():
                chosen = torch.isin(index, torch.tensor(options))
                drawn = Drawn(group.options, index, chosen, part, sign)
                if operation in STAGES:
                    before = amounts.get(operation, (torch.zeros_like(chosen), torch.zeros(count)))
                    amounts[operation] = (before[0] | chosen, torch.where(chosen, drawn.of(operation), before[1]))
                else:
                    self._move_(moves, operation, drawn)
        return self._named(moves, amounts, seeds)

    def apply(self, samples: Samples, parameters: Parameters) -> Samples:
        """The samples changed, cut to the patch."""
        return self._stages.apply(samples, parameters)

    def inverse(self, samples: Samples, parameters: Parameters) -> Samples:
        """Voxels moved back to where `apply` took them from; what the patch does not hold is ignored.

        Intensities are not restored.
        """
        return self._stages.inverse(samples, parameters)

    def moved(self, field: Tensor, parameters: Parameters, *, inverse: bool = False) -> Tensor:
        """One field (B, ..., *space), a prediction for example, moved as the samples are, or back.

        Differentiable by a floating field.
        """
        first, second = ({n[2:]: v for n, v in parameters.items() if n.startswith(f"{i}.")} for i in (0, 1))
        if inverse:
            return self.affine.moved(self.turns.moved(field, second, inverse=True), first, inverse=True)
        return self.turns.moved(self.affine.moved(field, first), second)

    def source_patch(self, patch: Sequence[int]) -> tuple[int, ...]:
        """How large a source has to be cut, so that no voxel of `patch` comes from beyond its border."""
        if len(self.groups) > 1:
            return self.affine.source_patch(patch)
        sizes = [tuple(patch)]
        for option in self.groups[0].options:
            if option.operation in ("rotate", "scale"):
                alone = Spatial(self.dimensions, spacing_mm=self.affine.spacing_mm, **self._ranges([option]))
                sizes.append(alone.source_patch(patch))
        return tuple(max(size) for size in zip(*sizes, strict=True))

    def require_invertible(self, task: str) -> None:
        """A prediction of every voxel must be moved back, and an image must be left to predict from.

        Raises:
            OptionError: If an operation of the pool does not allow it.
        """
        lost = sorted({o.name for g in self.groups for o in g.options if o.operation in DESTROYING})
        if lost:
            raise OptionError(
                f"operations that {task} cannot invert: {', '.join(lost)}; of views that predict, leave out the "
                "destroying operations"
            )

    def _ranges(self, options: Sequence[Option] | None = None) -> dict[str, Any]:
        """Arguments of the affine part, of ranges as wide as the options have them."""
        every = [o for group in self.groups for o in group.options] if options is None else options
        degrees = {o.axes[0]: 0.0 for o in every if o.operation == "rotate"}
        for o in every:
            if o.operation == "rotate":
                degrees[o.axes[0]] = max(degrees[o.axes[0]], o.magnitude + o.spread)
        low = min([least_factor(o) for o in every if o.operation == "scale"], default=1.0)
        most = max(degrees.values(), default=0.0)
        return {
            "rotation": Chance(1.0, Uniform(-most, most)) if degrees else None,
            "rotation_axes": tuple(sorted(degrees)) if degrees else None,
            "scale": Chance(1.0, Uniform(low, 2.0)) if low < 1 else None,
            "scale_axes": self.scale_axes,
        }

    def _stage(self, operation: str, within: bool) -> Transform:
        change, name = STAGES[operation]
        options: dict[str, Any] = {}
        if operation == "low resolution":
            options = {"down": "linear", "up": "nearest", "axes": (0, 1) if within else None}
        if operation == "gamma" and any(o.whole_range for g in self.groups for o in g.options):
            options = {"keep": "range"}
        spans: dict[str, Any] = {name: Uniform(0, 0)} if name else {}
        if operation in SEEDED:
            spans["seed"] = Seed()
        return Varied(change, 1.0, options=options, **spans)

    def _moves(self, count: int) -> Parameters:
        """What leaves everything in place."""
        d = self.dimensions
        angles = torch.zeros(count, len(PLANES[d]))
        return {
            "angles": angles,
            "scale": torch.ones(count, d),
            "translation": torch.zeros(count, d),
            "turns": angles.long(),
            "mirror": torch.zeros(count, d, dtype=torch.bool),
        }

    def _move_(self, moves: Parameters, operation: str, drawn: Drawn) -> None:
        if operation == "scale":
            factor = torch.where(drawn.chosen, drawn.factor, 1.0)
            moves["scale"][:, list(self.scale_axes)] *= factor[:, None]
        for axis in range(self.dimensions):
            here = drawn.chosen & drawn.along(axis)
            if operation == "mirror":
                moves["mirror"][:, axis] ^= here
            elif operation == "rotate" and axis < moves["angles"].shape[1]:
                moves["angles"][:, axis] += torch.where(here, drawn.signed, 0.0)
            elif operation == "turn" and axis < moves["turns"].shape[1]:
                moves["turns"][:, axis] += torch.where(here, drawn.signed, 0.0).round().long()

    def _named(self, moves: Parameters, amounts: dict[str, tuple[Tensor, Tensor]], seeds: Tensor) -> Parameters:
        """As the stages name them."""
        count, channels = seeds.shape
        none = torch.zeros(count, self.dimensions, dtype=torch.bool)
        found = {f"0.{name}": moves[name] for name in ("angles", "scale", "translation")}
        found |= {"0.mirror": none, "1.turns": moves["turns"] % 4, "1.mirror": moves["mirror"]}
        for position, operation in enumerate(self._changes, start=2):
            chosen, amount = amounts[operation]
            found[f"{position}.chosen"] = chosen[:, None].expand(count, channels)
            if STAGES[operation][1]:
                found[f"{position}.{STAGES[operation][1]}"] = amount[:, None].expand(count, channels)
            if operation in SEEDED:
                found[f"{position}.seed"] = seeds
        return found
