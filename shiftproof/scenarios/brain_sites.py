"""Brain-sites: four sites that scan different people with different machines; CSF, grey and white matter.

Anatomy is that of the MNI152 head, changed from person to person (`anatomy.py`); images follow from the
equations of the sites' sequences (`mr_signal.py`, `acquisition.py`). The head around the brain (skull,
marrow, fat, skin) is a set of shells at a distance from the brain, since the template is skull-stripped:
face, eyes, neck and vessels are absent.

    site  people                      machine                         what it does to an image
    A     volunteers, 20-45 years     3 T, T1w MPRAGE                 strong contrast, little noise
    B     ward, 40-75 years           1.5 T, T1w gradient echo        thick slices, coarse; brain only
    C     memory clinic, 60-88 years  3 T, T1w spin echo, bare coils  weak contrast, shading, noise; oblique
    D     neurology, 30-80 years      3 T, T2w FLAIR, no fat          grey brighter than white, bright lesions

Reproducible: every random number comes from `SeedSequence` of seed, site, subject and purpose through PCG64,
so that a subject does not depend on how many others are made, and all arithmetic before rounding is double
precision. What remains is the platform's `exp`, `pow` and `sin`, whose last bit may differ: a voxel then
rounds the other way with a chance near 1e-12, which would show as another hash. A new version of NumPy may
also change how its generators turn random bits into normal numbers (its policy, NEP 19); it has not so far.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .acquisition import Grid, Head, TissueMaps, scan, shading
from .anatomy import Anatomy, rotation, template
from .mr_signal import InversionRecovery, Mprage, Sequence, SpinEcho, SpoiledGradientEcho
from .scenario import Scan, Scenario, read_file

Array = np.ndarray

SIZES = ("2d", "3d", "full")


@dataclass(frozen=True)
class Site:
    """A protocol and the people it is applied to."""

    name: str
    field_t: float
    sequence: Sequence
    ages: tuple[float, float]
    noise: float  # standard deviation of a channel, relative to the signal of white matter
    shade: float  # standard deviation of the logarithm of the coils' sensitivity
    centre: float  # brightening of the centre of the head
    blur_mm: float  # standard deviation of the in-plane point spread beyond the voxel itself
    units: tuple[float, float]  # range of white matter's mean value, from scan to scan
    axes: str  # storage order: where the array's axes point, of R/L, A/P, S/I
    tilt_deg: tuple[float, float, float]  # of the slices against the scanner's axes
    grids: dict[str, Grid]
    fat_suppression: float = 0.0
    brain_only: bool = False  # the site shares images without the head around the brain

    def shift(self) -> dict[str, str]:
        """The site's row in the documentation."""
        return {
            "site": self.name,
            "people": f"{self.ages[0]:g}-{self.ages[1]:g} years",
            "field": f"{self.field_t:g} T",
            "sequence": self.sequence.name,
            "parameters": self.sequence.parameters(),
            "noise": f"{100 * self.noise:g} %",
            "shading": f"{100 * self.shade:g} %",
            "voxel in 3d": f"{' x '.join(f'{mm:g}' for mm in self.grids['3d'].spacing_mm)} mm",
            "stored as": self.axes,
        }


SITES = {
    "A": Site(
        name="A",
        field_t=3.0,
        sequence=Mprage(tr_ms=2300, ti_ms=900, te_ms=3.0, flip_deg=9),
        ages=(20, 45),
        noise=0.025,
        shade=0.08,
        centre=0.15,
        blur_mm=0.0,
        units=(350, 500),
        axes="RAS",
        tilt_deg=(0, 0, 0),
        grids={
            "2d": Grid((64, 64, 10), (3.2, 3.2, 6.0), 6.0),
            "3d": Grid((64, 80, 64), (2.75, 2.75, 2.75), 2.75, oversampling=2, slice_points=2),
            "full": Grid((112, 136, 112), (1.6, 1.6, 1.6), 1.6, oversampling=1, slice_points=1),
        },
    ),
    "B": Site(
        name="B",
        field_t=1.5,
        sequence=SpoiledGradientEcho(tr_ms=24, te_ms=6, flip_deg=30),
        ages=(40, 75),
        noise=0.05,
        shade=0.12,
        centre=0.0,
        blur_mm=1.2,
        units=(90, 160),
        axes="LPS",
        tilt_deg=(0, 0, 0),
        grids={
            "2d": Grid((64, 64, 9), (3.4, 3.4, 7.0), 5.0),
            "3d": Grid((72, 80, 32), (2.5, 2.7, 5.0), 5.0, oversampling=2, slice_points=3),
            "full": Grid((128, 144, 46), (1.5, 1.5, 4.0), 4.0, oversampling=1, slice_points=3),
        },
        brain_only=True,
    ),
    "C": Site(
        name="C",
        field_t=3.0,
        sequence=SpinEcho(tr_ms=600, te_ms=12),
        ages=(60, 88),
        noise=0.06,
        shade=0.35,
        centre=0.25,
        blur_mm=0.8,
        units=(700, 1400),
        axes="LPS",
        tilt_deg=(14, 4, 0),
        grids={
            "2d": Grid((64, 64, 10), (3.3, 3.3, 6.5), 5.0),
            "3d": Grid((64, 80, 40), (2.75, 2.75, 4.0), 3.6, oversampling=2, slice_points=3),
            "full": Grid((112, 136, 52), (1.6, 1.6, 3.3), 3.0, oversampling=1, slice_points=3),
        },
    ),
    "D": Site(
        name="D",
        field_t=3.0,
        sequence=InversionRecovery(tr_ms=9000, ti_ms=2500, te_ms=110),
        ages=(30, 80),
        noise=0.045,
        shade=0.15,
        centre=0.2,
        blur_mm=0.6,
        units=(200, 320),
        axes="PIR",
        tilt_deg=(4, 0, 3),
        grids={
            "2d": Grid((64, 64, 10), (3.3, 3.3, 6.0), 6.0),
            "3d": Grid((64, 80, 56), (2.75, 2.75, 3.0), 3.0, oversampling=2, slice_points=2),
            "full": Grid((112, 136, 88), (1.6, 1.6, 2.0), 2.0, oversampling=1, slice_points=2),
        },
        fat_suppression=0.85,
    ),
}

# Label values on disk: C follows FreeSurfer's numbers: ventricles apart from other CSF, hemispheres apart.
LEFT, RIGHT, FLUID = {"csf": 4, "grey": 3, "white": 2}, {"csf": 43, "grey": 42, "white": 41}, 24
LABELS_TOML = f"""\
# What the values in the label files mean; site C annotates with FreeSurfer's numbers.
classes = ["background", "csf", "grey", "white"]

[default]
csf = 1
grey = 2
white = 3

[site.C]
csf = [{LEFT["csf"]}, {RIGHT["csf"]}, {FLUID}]
grey = [{LEFT["grey"]}, {RIGHT["grey"]}]
white = [{LEFT["white"]}, {RIGHT["white"]}]
"""


def subject(site: str, index: int, *, size: str, seed: int) -> Scan:
    """Subject number `index` of a site; the same person at every size."""
    protocol, grid = SITES[site], SITES[site].grids[size]
    person, acquisition, noise = (
        np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, ord(site), index, purpose])))
        for purpose in range(3)
    )
    age = round(float(person.uniform(*protocol.ages)), 1)
    anatomy = Anatomy.draw(person, age)
    head = Head.at(anatomy, protocol.sequence, protocol.field_t, tissue_factors(person, age), protocol.fat_suppression)
    axes, offset_mm = prescription(acquisition, protocol, grid, anatomy)
    maps = head.on(grid, axes * np.array(grid.spacing_mm), offset_mm)

    image = acquired(acquisition, noise, protocol, grid, maps, head.signal["white"])
    affine = placed(axes, grid, offset_mm)
    label = classes(maps.fractions)
    if site == "C":
        label = freesurfer_values(label, anatomy, affine)
    image, label, affine = stored(image, label.astype(np.uint8), affine, protocol.axes)
    columns = {"field_strength": protocol.field_t, "sequence": protocol.sequence.name, "age": age}
    return Scan(f"{site}{index + 1:03d}", image, label, affine, columns)


def acquired(
    acquisition: np.random.Generator, noise: np.random.Generator, site: Site, grid: Grid, maps: TissueMaps, white: float
) -> Array:
    """The image (X, Y, Z) of a prescribed head in the site's integers: coils, point spread, noise, brain extraction.

    Args:
        acquisition: Where the scan's own numbers come from, after those of its prescription.
        noise: Of the channels.
        maps: The head on the grid.
        white: Signal of white matter, which units and noise are relative to.
    """
    shade = shading(acquisition, grid, site.shade, site.centre)
    units = acquisition.uniform(*site.units)
    level = site.noise * acquisition.uniform(0.8, 1.2)
    blur = (site.blur_mm / grid.spacing_mm[0], site.blur_mm / grid.spacing_mm[1], 0.0)
    image = scan(noise, maps.signal / white, shade, blur=blur, noise=level)
    if site.brain_only:  # as a brain extraction does: from too generous to too tight
        image = np.where(maps.fractions.sum(0) > acquisition.uniform(0.15, 0.6), image, 0.0)
    return np.clip(np.rint(image * units), 0, 32767).astype("<i2")


def placed(axes: Array, grid: Grid, offset_mm: Array) -> Array:
    """(4, 4) from voxel index to RAS mm."""
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = axes * np.array(grid.spacing_mm), offset_mm
    return affine


def tissue_factors(random: np.random.Generator, age: float) -> dict[str, dict[str, float]]:
    """A person's deviations from the published means: common to all tissues, of each, and of age."""
    common = random.normal(0, 0.03, 3)
    factors = {}
    for name in ("csf", "grey", "white", "fat", "skin"):
        t1, t2, density = 1 + common + random.normal(0, (0.03, 0.04, 0.02))
        if name == "white":  # loses myelin beyond 40 years
            t1 *= 1 + 0.0015 * max(age - 40, 0)
        factors[name] = {"t1": float(t1), "t2": float(t2), "density": float(density)}
    return factors


def prescription(random: np.random.Generator, site: Site, grid: Grid, anatomy: Anatomy) -> tuple[Array, Array]:
    """Where the operator put the slices: axes (3, 3) as columns, and the position of voxel (0, 0, 0)."""
    axes = rotation(np.array(site.tilt_deg) + random.uniform(-2, 2, 3))
    above = np.array([0.0, 0.0, 12.0 if grid.shape[2] * grid.spacing_mm[2] < 100 else -6.0])
    centre = anatomy.position_mm + axes @ (above + random.uniform(-3, 3, 3))
    half = (np.array(grid.shape) - 1) / 2 * np.array(grid.spacing_mm)
    return axes, centre - axes @ half


def classes(fractions: Array) -> Array:
    """1 CSF, 2 grey, 3 white where that has the largest share of the voxel, 0 where none of them has."""
    other = 1 - fractions.sum(0)
    return np.where(fractions.max(0) > other, 1 + fractions.argmax(0), 0)


def freesurfer_values(label: Array, anatomy: Anatomy, affine: Array) -> Array:
    """The classes as FreeSurfer numbers them: by hemisphere, and ventricles apart from other CSF."""
    index = np.stack(np.nonzero(label)).astype(np.float64)
    to_head, shift = anatomy.to_template()
    position = to_head @ (affine[:3, :3] @ index + affine[:3, 3:]) + shift[:, None]
    maps = template()
    ventricle = maps.coarse(maps.ventricles, position) > 0.35
    left, kind = position[0] < 0, label[label > 0]
    values = np.select(
        [(kind == 1) & ~ventricle, left],
        [FLUID, np.array([0, *LEFT.values()])[kind]],
        np.array([0, *RIGHT.values()])[kind],
    )
    out = np.zeros_like(label)
    out[label > 0] = values
    return out


def stored(image: Array, label: Array, affine: Array, axes: str) -> tuple[Array, Array, Array]:
    """Permuted and flipped so that the array's axes point as `axes` says; the world does not move."""
    order = ["RLAPSI".index(letter) // 2 for letter in axes]
    turned = affine.copy()
    for new, (old, letter) in enumerate(zip(order, axes, strict=True)):
        column, origin = affine[:3, old], turned[:3, 3]
        flip = letter in "LPI"
        turned[:3, new] = -column if flip else column
        if flip:
            turned[:3, 3] = origin + column * (image.shape[old] - 1)
    flips = tuple(new for new, letter in enumerate(axes) if letter in "LPI")
    return (
        np.ascontiguousarray(np.flip(image.transpose(order), flips)),
        np.ascontiguousarray(np.flip(label.transpose(order), flips)),
        turned,
    )


# Content hash by size at 24 subjects a site and seed 0, written before any method was compared on it.
HASHES = {"2d": "971f7456fdd18b41", "3d": "adc0b1efae440b8d", "full": "d997872fb0d3870e"}

SCENARIO = Scenario(
    name="brain-sites",
    description=(
        "Four sites scan different people with different machines: strong T1 contrast (A); coarse T1 of the "
        "brain only (B); weak T1 contrast, shading and noise in the old (C); FLAIR, grey above white (D)."
    ),
    sizes=SIZES,
    sites=tuple(SITES),
    shifts=tuple(site.shift() for site in SITES.values()),
    labels_toml=LABELS_TOML,
    licence=read_file("NOTICE-ICBM152.txt"),
    hashes=HASHES,
    subject=subject,
)
