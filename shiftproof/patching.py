"""What a recipe reads of a cohort: how patches are cut from its scans, and how they are augmented."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from . import catalogue, nets
from .data.plan import Plan
from .data.sampling import Patches
from .errors import OptionError
from .losses.rare import parts_with, rare_indices
from .methods.method import Setting
from .names import choose, converted
from .recipe import Recipe, network_options
from .transforms.policy_files import rare_when_learned
from .transforms.presets import preset
from .transforms.transform import Transform


def setting_of(recipe: Recipe, plan: Plan, domains: list[str], sources: int) -> Setting:
    """What the recipe's method may know, of `sources` labelled domains and maybe further ones without labels."""
    spacing = tuple(s for s in plan.spacing_mm[: plan.dimensions] if s is not None)
    return Setting(domains, plan.inputs, plan.dimensions, sources, read_of(recipe, plan), spacing, plan.orientation)


def patches_of(recipe: Recipe, plan: Plan) -> Patches:
    """How a recipe has patches cut.

    Raises:
        OptionError: For shares of structures that the cohort does not have, or that are none.
    """
    given = recipe.sampling.get("foreground", Patches.foreground)
    foreground: float | dict[int, float]
    if plan.task != "segmentation" and (isinstance(given, Mapping) or "background" in recipe.sampling):
        raise OptionError(f"sampling places patches around structures; in {plan.task} a scan is shown whole")
    if isinstance(given, Mapping):
        if plan.target.get("kind") == "multi-label":
            raise OptionError("sampling.foreground is one share where structures overlap, got one of each structure")
        structures = list(plan.classes[1:])
        foreground = {
            1 + structures.index(choose(name, structures, "structure of sampling.foreground")): converted(
                f"sampling.foreground.{name}", share, float
            )
            for name, share in given.items()
        }
    else:
        foreground = converted("sampling.foreground", given, float)
    return Patches(
        tuple(plan.patch),
        foreground,
        plan.context,
        plan.task != "segmentation",
        source_of(recipe, plan),
        recipe.sampling.get("background", Patches.background),
        "border" if any(margin_of(recipe, plan)) else "zeros",
    )


def shares_by_name(shares: float | Mapping[int, float], classes: Sequence[str]) -> float | dict[str, float]:
    return shares if not isinstance(shares, Mapping) else {classes[k]: share for k, share in shares.items()}


REACH = {2: 1.5, 3: 1.25}
"""Largest side of what is cut for augmentation, in patches: beyond, hardly a voxel is gained, but much is read."""


def source_of(recipe: Recipe, plan: Plan) -> tuple[int, ...] | None:
    """Size that is cut for augmentation to turn and shrink, so that few voxels come from beyond its border.

    Where a network reads more than it scores, that comes on top. None where a patch is enough: without spatial
    changes, and where a scan has one label and is shown whole.
    """
    if plan.task != "segmentation":
        return None
    reach, read = REACH[plan.dimensions], read_of(recipe, plan)
    method = catalogue.method(recipe.method)
    if method.needs.own_transforms:
        setting = setting_of(recipe, plan, [], 0)  # no size depends on the domains
        wanted = method.source_patch(setting, **catalogue.check_options(recipe.method, method, dict(recipe.options)))
    else:
        wanted = transform_of(recipe, plan).source_patch(read)
    source = tuple(min(n, math.ceil(reach * w)) for n, w in zip(wanted, read, strict=True))
    return source if source != tuple(plan.patch) else None


def margin_of(recipe: Recipe, plan: Plan) -> tuple[int, ...]:
    """Voxels on each side of its scores that the recipe's network must be shown; see `nets.margin`."""
    options = network_options(recipe, plan.task, weights=False)
    return nets.margin(options.pop("name"), dimensions=plan.dimensions, **options)


def read_of(recipe: Recipe, plan: Plan) -> tuple[int, ...]:
    """Voxels of a training patch, as the recipe's network reads it."""
    return tuple(n + 2 * m for n, m in zip(plan.patch, margin_of(recipe, plan), strict=True))


KINDS: dict[str, Any] = {
    "mirror_axes": tuple[int, ...], "affine": bool, "destroying": bool, "pool": str, "preset": str, "file": str
}  # fmt: skip
"""What some options of transforms are; the others are checked for what they mean."""


def transform_of(recipe: Recipe, plan: Plan) -> Transform:
    spacing = [s for s in plan.spacing_mm[: plan.dimensions] if s is not None]
    options = dict(recipe.transforms_options)
    for name in [name for name in KINDS if options.get(name) is not None]:
        options[name] = converted(f"transforms_options.{name}", options[name], KINDS[name])
    if options.pop("file_hash", None) is not None:
        recipe.pinned()  # refuses a file that has changed
    if options.get("file") is not None and "rare" not in options and (kinds := rare_when_learned(options["file"])):
        options["rare"] = list(kinds)
    if "rare" in options or "common" in options:
        options["rare"] = rare_drawn(options.get("rare"), plan)
    return preset(
        recipe.transforms,
        dimensions=plan.dimensions,
        patch=read_of(recipe, plan),
        # Where a scan has one label, that does not move.
        spatial=("image", "label", "ignore") if plan.task == "segmentation" else ("image",),
        # nnU-Net's limit for treating a volume as a stack of slices.
        anisotropic=max(spacing) > 3 * min(spacing),
        spacing_mm=spacing,
        orientation=plan.orientation,
        **options,
    )


def rare_drawn(rare: Sequence[str] | None, plan: Plan) -> tuple[int, ...]:
    """Values of `extra["drawn"]`, or of the label of a whole scan, that belong to a rare class.

    Raises:
        OptionError: For a name that is no class, none where a scan has one class (no class is a background then), or a
            task without classes.
    """
    if plan.task not in ("segmentation", "classification"):
        raise OptionError(f"rare and common of transforms are for classes, and {plan.task} has none; leave them out")
    if rare is None and plan.task == "classification" and plan.target.get("kind") != "multi-label":
        raise OptionError(
            f"augmentation by class asks which of the classes {', '.join(plan.classes)} are rare; add "
            f'rare = ["{plan.classes[-1]}"] to transforms_options, or leave out common'
        )
    indices = rare_indices(rare, plan.classes, background=plan.task == "segmentation")
    if plan.target.get("kind") == "multi-label" and plan.task == "segmentation":
        return parts_with(indices, plan.target["parts"])
    return indices
