"""Augmentation by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from ..errors import OptionError
from ..names import choose
from .drawn import FromPolicy
from .groups import DEFAULT_POOL, ORIENTATION, POOLS
from .policies import POLICIES, Policy
from .policy_files import fitted, read_policy
from .pool import Pool
from .rare import ForRare
from .spatial import Spatial
from .transform import Compose, Transform
from .usual import heuristic, light, strong

PRESETS = ("none", "light", "strong", "heuristic", "random", "policy")

OPTIONS = {
    "none": (),
    "light": ("mirror_axes", "rare", "common"),
    "strong": ("mirror_axes", "rare", "common"),
    "heuristic": ("mirror_axes", "affine", "rare", "common"),
    "random": ("mirror_axes", "pool", "destroying", "rare", "common"),
    "policy": ("mirror_axes", "pool", "preset", "file", "rare", "common"),
}
"""What a recipe's `transforms_options` may say, by preset."""


def preset(
    name: str,
    *,
    dimensions: int,
    patch: Sequence[int],
    spatial: Sequence[str] = ("image", "label", "ignore"),
    anisotropic: bool = False,
    mirror_axes: Sequence[int] | None = None,
    spacing_mm: Sequence[float] | None = None,
    orientation: str = ORIENTATION,
    affine: bool = False,
    pool: str | None = None,
    destroying: bool = False,
    preset: str | None = None,
    file: str | None = None,
    rare: Sequence[int] | None = None,
    common: str | float | None = None,
) -> Transform:
    """A named augmentation.

    Args:
        name: "none", "light", "strong", "heuristic", "random" or "policy".
        dimensions: 2 or 3.
        patch: Size of the patches that come out; larger ones that go in are cut, see `Spatial`.
        spatial: Fields of the samples that move together.
        anisotropic: 3D patches of thick slices, the last axis across them: rotation, scaling and loss of
            resolution stay within the slices.
        mirror_axes: Axes to mirror; None is the preset's choice. A trap: where the label tells sides apart
            (left and right kidney), the axis between them must be left out.
        spacing_mm: Of the voxels, to rotate in mm; None rotates voxels, as nnU-Net does.
        orientation: Where the axes of a patch point to, as the plan has it; "" for pictures.
        affine: Of "heuristic": rotation and scaling too.
        pool: Of "random" and "policy": "talk" or "jcsa"; None is "talk" for random, "jcsa" for a policy by name and the
            file's own for a saved one.
        destroying: Of "random": with the operations that destroy images.
        preset: Of "policy": "nnunet" (also where nothing is named), "deepmedic", "weak", "weaker" or "uniform".
        file: Of "policy": a saved policy, or the folder of a model that learned one.
        rare: Indices of rare classes. Samples of these get the full augmentation, others what `common` says; of a
            policy for two kinds of patches, samples of these take the second.
        common: "none", "light" or the probability with which samples of other classes get the full augmentation;
            None is 0.5 where `rare` is given. Where this alone is given, all classes but 0 are rare.

    Raises:
        OptionError: If there is no preset of this name, or an option does not belong to it.
    """
    choose(name, PRESETS, "preset of transforms")
    given: dict[str, Any] = {
        "mirror_axes": mirror_axes,
        "affine": affine or None,
        "pool": pool,
        "destroying": destroying or None,
    }
    given |= {"preset": preset, "file": file, "rare": rare, "common": common}
    for option, value in given.items():
        # Where no image is changed, asking for axes has always been allowed.
        if value is not None and option not in (*OPTIONS[name], "mirror_axes"):
            raise OptionError(_not_of(name, option))
    if name == "none":
        return Compose([])
    full: Transform
    frame = _Frame(dimensions, tuple(patch), tuple(spatial), anisotropic, mirror_axes, spacing_mm)
    oriented = orientation or ORIENTATION
    if name == "policy":
        learned = full = frame.policy(oriented, pool, preset, file, rare)
        if learned.policy.sets > 1:
            if common is not None:
                raise OptionError(
                    "a policy for two kinds of patches says itself what common ones get; leave out common"
                )
            return full
    elif name == "random":
        chosen = frame.pool(pool or DEFAULT_POOL, oriented, destroying)
        full = FromPolicy(chosen, Policy(chosen.groups))
    elif name == "heuristic":
        full = heuristic(**frame.named(), orientation=oriented, affine=affine)
    else:
        full = (light if name == "light" else strong)(**frame.named())
    return full if rare is None and common is None else frame.for_rare(full, rare, common)


def _not_of(name: str, option: str) -> str:
    if name == "none" and option in ("rare", "common"):
        return f'transforms = "none" changes no sample, so "{option}" has no effect; choose another, such as "light"'
    fitting = [f'"{preset}"' for preset, options in OPTIONS.items() if option in options]
    return f'{option} is no option of transforms = "{name}"; it belongs to {", ".join(fitting)}'


@dataclass(frozen=True)
class _Frame:
    """What all presets are told of the patches."""

    dimensions: int
    patch: tuple[int, ...]
    spatial: tuple[str, ...]
    anisotropic: bool
    mirror_axes: Sequence[int] | None
    spacing_mm: Sequence[float] | None

    def named(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def pool(self, name: str, orientation: str, destroying: bool = False) -> Pool:
        table = {**self.named(), "orientation": orientation, "destroying": destroying}
        moving = table.pop("spatial")
        return Pool(choose(name, POOLS[:2], "pool of operations"), fields=moving, **table)

    def policy(
        self, orientation: str, pool: str | None, preset: str | None, file: str | None, rare: Sequence[int] | None
    ) -> FromPolicy:
        if file is None:
            chosen = self.pool(pool or "jcsa", orientation)
            named = choose(preset or "nnunet", POLICIES, "preset of a policy")
            return FromPolicy(chosen, Policy(chosen.groups, preset=named))
        if preset is not None:
            raise OptionError("a policy comes from a preset or from a file; leave one of them out")
        content = read_policy(file)
        chosen = self.pool(pool or content["pool"], orientation, bool(content.get("destroying")))
        return FromPolicy(chosen, fitted(content, chosen), rare=rare)

    def for_rare(self, full: Transform, rare: Sequence[int] | None, common: str | float | None) -> Transform:
        """The full augmentation itself, where everybody gets it."""
        still = Spatial(self.dimensions, patch=self.patch, fields=self.spatial)
        if isinstance(common, str):
            choose(common, ("none", "light"), "augmentation of common classes (a probability is a number)")
            return ForRare(full, still if common == "none" else light(**self.named()), rare=rare, probability=0.0)
        if isinstance(common, bool) or not isinstance(common, int | float | None):
            raise OptionError(f'common is "none", "light" or a probability, got {common!r}')
        probability = 0.5 if common is None else float(common)
        weaker = ForRare(full, still, rare=rare, probability=probability)
        return full if probability == 1 else weaker
