"""Augmentation whose probabilities and ranges were chosen once: light, nnU-Net's, DeepMedic's."""

from __future__ import annotations

from collections.abc import Sequence

from .acquisition import blur, gaussian_noise, low_resolution
from .groups import ORIENTATION, axis_between
from .intensity import brightness, contrast, gamma, inverted_gamma, shift
from .spans import Chance, Normal, Seed, Uniform
from .spatial import Spatial
from .transform import Compose, Transform, Varied


def light(
    dimensions: int,
    patch: Sequence[int],
    *,
    spatial: Sequence[str] = ("image", "label", "ignore"),
    anisotropic: bool = False,
    mirror_axes: Sequence[int] | None = None,
    spacing_mm: Sequence[float] | None = None,
) -> Transform:
    """What hardly any scan would contradict: small changes of pose and of intensity. Our choice, from no paper.

    Each sample: rotation within 10 degrees about each axis and scaling .9 to 1.1, probability .2 each;
    Gaussian noise of variance 0 to .01 (.1), brightness (.15) and contrast (.15) .9 to 1.1. No mirroring
    unless axes are named.
    """
    return Compose(
        [
            _pose(dimensions, patch, spatial, anisotropic, mirror_axes or (), spacing_mm, degrees=10, zoom=(0.9, 1.1)),
            Varied(gaussian_noise, 0.1, variance=Uniform(0, 0.01, shared=True), seed=Seed()),
            Varied(brightness, 0.15, factor=Uniform(0.9, 1.1)),
            Varied(contrast, 0.15, factor=Uniform(0.9, 1.1)),
        ]
    )


def strong(
    dimensions: int,
    patch: Sequence[int],
    *,
    spatial: Sequence[str] = ("image", "label", "ignore"),
    anisotropic: bool = False,
    mirror_axes: Sequence[int] | None = None,
    spacing_mm: Sequence[float] | None = None,
) -> Transform:
    """nnU-Net's default augmentation, with its probabilities and ranges.

    Each sample, in this order: rotation within 30 degrees about each axis (180 in 2D and within thick slices,
    15 for 2D patches more than 1.5 times as long as wide), .2; scaling .7 to 1.4, .2; Gaussian noise of
    variance 0 to .1, .1; blur of sigma .5 to 1 voxel, drawn for each axis, .2 and then half of the channels;
    brightness and contrast .75 to 1.25, .15 each; low resolution .5 to 1, .25 and then half of the channels;
    gamma .7 to 1.5 of the negative, .1, and of the image, .3; mirroring of each axis, .5.

    Source: F. Isensee et al., "nnU-Net: a self-configuring method for deep learning-based biomedical image
    segmentation", Nature Methods 18 (2021), https://doi.org/10.1038/s41592-020-01008-z, in the numbers of its
    version 2. Deviations: mirroring is done with the other moves, before intensities change; the scaling
    factor magnifies, where nnU-Net's is its reciprocal, of a range that is nearly its own; the number drawn
    for noise is its variance, as published, while the released code takes it for the standard deviation.
    """
    elongated = dimensions == 2 and max(patch) > 1.5 * min(patch)
    degrees = 15 if elongated else 180 if dimensions == 2 or anisotropic else 30
    axes = tuple(range(dimensions)) if mirror_axes is None else mirror_axes
    in_plane = (0, 1) if anisotropic and dimensions == 3 else None
    either = Uniform(0.7, 1.5, around=1)
    return Compose(
        [
            _pose(dimensions, patch, spatial, anisotropic, axes, spacing_mm, degrees=degrees, zoom=(0.7, 1.4)),
            Varied(gaussian_noise, 0.1, variance=Uniform(0, 0.1, shared=True), seed=Seed()),
            Varied(blur, 0.2, channel_probability=0.5, sigma=Uniform(0.5, 1, size=dimensions)),
            Varied(brightness, 0.15, factor=Uniform(0.75, 1.25)),
            Varied(contrast, 0.15, factor=Uniform(0.75, 1.25)),
            Varied(low_resolution, 0.25, channel_probability=0.5, zoom=Uniform(0.5, 1), options={"axes": in_plane}),
            Varied(inverted_gamma, 0.1, exponent=either),
            Varied(gamma, 0.3, exponent=either),
        ]
    )


def heuristic(
    dimensions: int,
    patch: Sequence[int],
    *,
    spatial: Sequence[str] = ("image", "label", "ignore"),
    anisotropic: bool = False,
    mirror_axes: Sequence[int] | None = None,
    spacing_mm: Sequence[float] | None = None,
    orientation: str = ORIENTATION,
    affine: bool = False,
) -> Transform:
    """The fixed augmentation of DeepMedic.

    Mirroring from right to left with probability .5; each channel plus a number of N(0, .05), then times one of
    N(1, .01). With `affine`, rotation within 45 degrees about each axis and scaling .9 to 1.1 before, probability .5
    each: such a part is in later versions of the code, its numbers are our reading.

    Source: K. Kamnitsas et al., "Efficient multi-scale 3D CNN with fully connected CRF for accurate brain lesion
    segmentation", Medical Image Analysis 36 (2017), https://doi.org/10.1016/j.media.2016.10.004. Slices that do not
    show both sides are not mirrored.
    """
    sides = axis_between("LR", orientation)
    between = (sides,) if sides < dimensions else ()
    pose = _pose(
        dimensions,
        patch,
        spatial,
        anisotropic,
        between if mirror_axes is None else mirror_axes,
        spacing_mm,
        degrees=45 if affine else 0,
        zoom=(0.9, 1.1) if affine else (1.0, 1.0),
        probability=0.5 if affine else 0.0,
    )
    return Compose(
        [
            pose,
            Varied(shift, 1.0, amount=Normal(0.05)),
            Varied(brightness, 1.0, factor=Normal(0.01, mean=1.0)),
        ]
    )


def _pose(
    dimensions: int,
    patch: Sequence[int],
    fields: Sequence[str],
    anisotropic: bool,
    mirror_axes: Sequence[int],
    spacing_mm: Sequence[float] | None,
    *,
    degrees: float,
    zoom: tuple[float, float],
    probability: float = 0.2,
) -> Spatial:
    within_slices = anisotropic and dimensions == 3
    moves = probability > 0
    return Spatial(
        dimensions,
        patch=patch,
        fields=fields,
        rotation=Chance(probability, Uniform(-degrees, degrees, size=1 if dimensions == 2 else 3)) if moves else None,
        rotation_axes=(2,) if within_slices else None,
        scale=Chance(probability, Uniform(*zoom)) if moves else None,
        scale_axes=(0, 1) if within_slices else None,
        mirror_axes=mirror_axes,
        spacing_mm=spacing_mm,
    )
