"""Focal lesions of a brain: where they lie, how large, how ragged, what they are made of.

A lesion is a ragged ellipsoid in template space, which the person's warp bends with the anatomy. Its size is set by
volume: of the ellipsoid's level sets, distorted by smooth noise, that one is taken which holds the wanted volume of
brain tissue in the scanner. So a cohort's rarity is a declared distribution and not an accident of shapes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from scipy import ndimage

from .acquisition import tissue_fractions
from .anatomy import LATTICE_MM, Anatomy, interpolate, lattice, rotation, template
from .mr_signal import Tissue

Array = np.ndarray

PLACES = ("white matter", "beside the ventricles", "cortex", "deep grey matter")
WAVES, FREQUENCY = 20, 2.6  # of the noise on a lesion's surface: cosines, and radians per radius
REACH = 2.4  # radii of the ellipsoid beyond which nothing of a lesion lies, when its volume is measured
CELLS = 36  # along each side of the box in which its volume is measured
LOWEST_MM = -52.0  # template height below which none begins: slices may end there
APART = 1.1  # distance of two lesions' centres, relative to the sum of their radii
FLUID_CORE_MM = 4.5  # wall of a lesion whose core is fluid


@dataclass(frozen=True)
class Lesion:
    """One lesion, in template space."""

    place: str
    centre_mm: Array  # (3,)
    shape: Array  # (3, 3) from mm about the centre to radii of the ellipsoid
    waves: Array  # (W, 3) radians per radius
    phases: Array  # (W,)
    roughness: float  # standard deviation of the surface, in radii
    radius_mm: float  # of the ball of the wanted volume
    level: float  # of the distorted ellipsoid; its surface
    edge_mm: float  # over which it fades into the tissue around it
    rim_mm: float  # width of the oedema around it, which is no lesion; 0 where there is none
    fluid: bool  # whether the core is fluid
    severity: float  # contrast: 0 is white matter, 1 the published mean of lesions

    def noise(self, scaled: Array) -> Array:
        """Smooth, unit variance, at (3, N) radii from the centre."""
        return np.sqrt(2 / WAVES) * np.cos(self.waves @ scaled + self.phases[:, None]).sum(0)

    def rho(self, positions: Array) -> tuple[Array, Array]:
        """(N,) distorted distance from the centre in radii at positions (3, N), and the noise there."""
        scaled = self.shape @ (positions - self.centre_mm[:, None])
        noise = self.noise(scaled)
        return np.sqrt((scaled**2).sum(0)) - self.roughness * noise, noise

    def near(self, positions: Array) -> Array:
        """(N,) bool: a ball that holds the lesion with its edge and rim."""
        longest = 1 / np.linalg.svd(self.shape, compute_uv=False)[-1]
        reach = longest * (self.level + 3.5 * self.roughness) + self.edge_mm + self.rim_mm
        return ((positions - self.centre_mm[:, None]) ** 2).sum(0) < reach**2

    def depth_mm(self, positions: Array) -> tuple[Array, Array]:
        """(N,) depth below the surface in mm, negative outside; and the noise."""
        rho, noise = self.rho(positions)
        return (self.level - rho) * self.radius_mm, noise

    def share(self, depth_mm: Array) -> Array:
        return np.clip(0.5 + depth_mm / self.edge_mm, 0, 1)

    def oedema(self, depth_mm: Array) -> Array:
        """What of a point is oedema: all at the surface, none at the rim's width outside."""
        return np.clip(1 + depth_mm / self.rim_mm, 0, 1) if self.rim_mm else np.zeros_like(depth_mm)

    def core(self, depth_mm: Array) -> Array:
        return np.clip(depth_mm - FLUID_CORE_MM, 0, 1) if self.fluid else np.zeros_like(depth_mm)


@dataclass(frozen=True)
class Population:
    """What lesions the people of a site have."""

    rarity: tuple[float, float]  # voxels of the scan to one of lesion; log-uniform between the two
    most: int  # 1 to `most` lesions, fewer more often
    places: tuple[float, float, float, float]  # shares of `PLACES`
    severity: tuple[float, float]
    rim: float  # share of the lesions with oedema around them
    fluid: float  # share of those large enough whose core is fluid


def draw_lesions(
    random: np.random.Generator, population: Population, person: Anatomy, field_ml: float
) -> tuple[Lesion, ...]:
    """A person's lesions; `field_ml` is the volume of the scan that their rarity is relative to."""
    low, high = np.log(population.rarity)
    volume_mm3 = 1000 * field_ml / np.exp(random.uniform(low, high))
    # Three drawn and the smallest taken: one lesion is the most frequent number.
    count = int(random.integers(1, population.most + 1, 3).min()) if population.most > 1 else 1
    parts = 0.12 + random.dirichlet(np.full(count, 1.2))
    parts = np.sort(parts / parts.sum())[::-1]  # the largest finds its place first
    found: list[Lesion] = []
    for part in parts:
        found.append(draw_lesion(random, population, person, float(part * volume_mm3), found))
    return tuple(found)


def draw_lesion(
    random: np.random.Generator, population: Population, person: Anatomy, volume_mm3: float, others: list[Lesion]
) -> Lesion:
    radius = (3 * volume_mm3 / (4 * np.pi * person.size.prod())) ** (1 / 3)  # in the head's frame, mm
    place, centre = draw_place(random, population, radius, others)
    lesion = Lesion(
        place=place,
        centre_mm=centre,
        **draw_shape(random, radius),
        edge_mm=float(random.uniform(1.5, 5.0)),
        rim_mm=float(random.uniform(3, 9)) if random.uniform() < population.rim else 0.0,
        fluid=bool(random.uniform() < population.fluid and radius > 8),
        severity=float(random.uniform(*population.severity)),
    )
    level = level_of_volume(lesion, person, volume_mm3)
    return Lesion(**{**vars(lesion), "level": level})


def draw_shape(random: np.random.Generator, radius_mm: float) -> dict[str, Any]:
    """Fields of a ragged ellipsoid with the volume of a ball of that radius; its level is still to be found."""
    ratios = np.exp(random.normal(0, 0.28, 3))
    ratios /= ratios.prod() ** (1 / 3)
    turn = rotation(random.uniform(-90, 90, 3))
    return {
        "shape": (turn / (ratios * radius_mm)).T,
        "waves": FREQUENCY * random.standard_normal((WAVES, 3)),
        "phases": random.uniform(0, 2 * np.pi, WAVES),
        "roughness": float(random.uniform(0.1, 0.32)),
        "radius_mm": float(radius_mm),
        "level": 1.0,
    }


def draw_place(
    random: np.random.Generator, population: Population, radius_mm: float, others: list[Lesion]
) -> tuple[str, Array]:
    """A tissue and a voxel of it, away from other lesions where that is possible."""
    maps = template()
    kind = int(random.choice(len(PLACES), p=np.array(population.places) / sum(population.places)))
    voxels = places()[kind]
    for _ in range(30):
        voxel = voxels[int(random.integers(len(voxels)))]
        centre = maps.origin_mm + (voxel + random.uniform(-0.5, 0.5, 3)) * maps.spacing_mm
        gaps = [np.linalg.norm(centre - o.centre_mm) - APART * (radius_mm + o.radius_mm) for o in others]
        if all(gap > 0 for gap in gaps):
            break
    return PLACES[kind], centre


@lru_cache(maxsize=1)
def places() -> tuple[Array, ...]:
    """Voxels (N, 3) of the template where the centre of a lesion may lie, for each of `PLACES`."""
    maps = template()
    index = np.stack(np.meshgrid(*(np.arange(n) for n in maps.grey.shape), indexing="ij"))
    position = maps.origin_mm[:, None, None, None] + index * maps.spacing_mm
    # Below the brain's hull, mm; the shipped distance ends a few mm inside.
    inside = ndimage.distance_transform_edt(maps.surface < 0, sampling=maps.coarse_spacing_mm)
    depth = maps.coarse(inside, position)
    ventricles = maps.coarse(maps.ventricles, position)
    grey, white, high = maps.grey, maps.white, position[2] > LOWEST_MM
    midline = np.abs(position[0])
    kinds = (
        (white > 0.85) & (ventricles < 0.05) & (depth > 8),
        (white > 0.5) & (ventricles > 0.08) & (ventricles < 0.4),
        (grey > 0.5) & (depth > 2) & (depth < 16) & (position[2] > -35),
        (grey > 0.5) & (depth > 30) & (midline > 6) & (midline < 36) & (position[2] > -12) & (position[2] < 24),
    )
    return tuple(np.argwhere(kind & high) for kind in kinds)


def level_of_volume(lesion: Lesion, person: Anatomy, volume_mm3: float) -> float:
    """Level whose inside holds the wanted volume of brain tissue in the scanner.

    Measured on points of the head's frame, where the scanner's volume is that of the points times the person's
    scale: at each stands the level at which it becomes part of the lesion, and their sorted values are the volumes.
    """
    points, cell_mm3 = box(lesion.radius_mm)
    head = in_head(person, lesion.centre_mm)[:, None] + points
    positions = head + of_person(person, person.warp, head)
    fields = of_person(person, person.fields[:2], head)
    hosts = host(1 - tissue_fractions(person, positions, *fields)[0])
    joins = hosts >= 0.5
    rho = lesion.rho(positions[:, joins])[0]
    # `hosts * share` is what counts, and that reaches a half the deeper, the less of a point can be lesion.
    rho += lesion.edge_mm / lesion.radius_mm * (0.5 / hosts[joins] - 0.5)
    return level_of(rho, volume_mm3 / (cell_mm3 * float(person.size.prod())))


def box(radius_mm: float) -> tuple[Array, float]:
    """Points (3, N) about a centre in which a lesion's volume is measured, and the volume of each in mm3."""
    reach = REACH * radius_mm
    axis = (np.arange(CELLS) + 0.5) / CELLS * 2 * reach - reach
    points = np.stack(np.meshgrid(axis, axis, axis, indexing="ij")).reshape(3, -1)
    return points, (2 * reach / CELLS) ** 3


def level_of(rho: Array, cells: float) -> float:
    """The level below which so many of the cells lie; all of them where there are not so many."""
    return float(np.sort(rho)[min(int(cells), rho.size - 1)])


def host(tissue: Array) -> Array:
    """What of a point can be lesion, by its share of grey and white matter; sulci close inside of it."""
    return np.clip(1.6 * tissue - 0.1, 0, 1)


def of_person(person: Anatomy, volumes: Array, head: Array) -> Array:
    """(channels, N) of maps on the person's lattice, at positions (3, N) of the head."""
    origin = lattice()[0][:, 0, 0, 0]
    return np.stack([interpolate(v, head, origin, LATTICE_MM) for v in volumes])


def in_head(person: Anatomy, template_mm: Array) -> Array:
    """(3,) the head's position that the warp takes to this one of the template."""
    position = template_mm.copy()
    for _ in range(12):  # converges: the warp is smooth and invertible
        position = template_mm - of_person(person, person.warp, position[:, None])[:, 0]
    return position


def between(healthy: Tissue, diseased: Tissue, severity: float) -> Tissue:
    """Relaxation times and density on the geometric line through both; 0 is healthy, beyond 1 is worse."""

    def mixed(one: float | Array, other: float | Array) -> float:
        return float(one * (other / one) ** severity)

    return Tissue(
        mixed(healthy.t1_ms, diseased.t1_ms),
        mixed(healthy.t2_ms, diseased.t2_ms),
        min(mixed(healthy.density, diseased.density), 1.0),
        healthy.static_rate,
    )
