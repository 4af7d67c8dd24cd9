"""One person's head: the MNI152 tissue maps, warped, thickened, aged, and wrapped in skull and scalp.

Positions are RAS millimetres. A person is a linear frame (rotation, size, shape of the head), a smooth
invertible warp, and smooth fields that change the tissues where they are: local thickness of the cortex,
width of the sulci, thickness of skull and scalp, texture, lesions. Warp and fields live on one 6 mm lattice
that does not depend on the image, so that a person has the same anatomy at every image size.

All arithmetic is in double precision: results are rounded to integers in the end, and a difference in the
last place between two machines' `exp` then changes a voxel with a chance of about 1e-12.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

import numpy as np
from scipy import ndimage

Array = np.ndarray

LATTICE_MM = 6.0
CENTRE_MM = np.array([0.0, -18.0, 12.0])  # of the brain in MNI space; the frame turns and scales about it
SURFACE_MM, SURFACE_ZERO = 0.2, 40  # a unit of the stored distance, and the value at the brain's hull


@dataclass(frozen=True)
class Template:
    """The shipped maps; `benchmarks/make_brain_template.py` says how they were made."""

    grey: Array  # fractions 0..1
    white: Array
    surface: Array  # signed distance from the brain's hull in mm, positive outside
    ventricles: Array  # 0..1, blurred
    spacing_mm: float
    origin_mm: Array
    coarse_spacing_mm: float
    coarse_origin_mm: Array

    def fine(self, volume: Array, positions: Array) -> Array:
        return interpolate(volume, positions, self.origin_mm, self.spacing_mm)

    def coarse(self, volume: Array, positions: Array) -> Array:
        return interpolate(volume, positions, self.coarse_origin_mm, self.coarse_spacing_mm)


def interpolate(volume: Array, positions: Array, origin_mm: Array, spacing_mm: float) -> Array:
    """Linear, at positions (3, ...); beyond the edge the edge's value."""
    shape = positions.shape[1:]
    index = (positions.reshape(3, -1) - origin_mm[:, None]) / spacing_mm
    return ndimage.map_coordinates(volume, index, order=1, mode="nearest", output=np.float64).reshape(shape)


@lru_cache(maxsize=1)
def template() -> Template:
    with (
        (files("shiftproof.scenarios") / "files" / "brain_template.npz").open("rb") as file,
        np.load(file) as stored,
    ):
        return Template(
            grey=stored["grey"].astype(np.float32) / np.float32(255),
            white=stored["wm"].astype(np.float32) / np.float32(255),
            surface=(stored["surface"].astype(np.float32) - SURFACE_ZERO) * np.float32(SURFACE_MM),
            ventricles=stored["ventricles"].astype(np.float32) / np.float32(255),
            spacing_mm=float(stored["spacing_mm"]),
            origin_mm=stored["origin_mm"],
            coarse_spacing_mm=float(stored["coarse_spacing_mm"]),
            coarse_origin_mm=stored["coarse_origin_mm"],
        )


@lru_cache(maxsize=1)
def lattice() -> tuple[Array, Array, Array]:
    """Positions (3, *lattice), which of them lie in the brain, and the ventricles' unit pull."""
    maps = template()
    extent = np.array(maps.surface.shape) * maps.coarse_spacing_mm
    axes = [o + np.arange(0, e, LATTICE_MM) for o, e in zip(maps.coarse_origin_mm, extent, strict=True)]
    positions = np.stack(np.meshgrid(*axes, indexing="ij"))
    brain = maps.coarse(maps.surface, positions) < 0
    step = int(LATTICE_MM / maps.coarse_spacing_mm)
    slope = np.array(np.gradient(maps.ventricles.astype(np.float64)))[:, ::step, ::step, ::step]
    return positions, brain, slope / np.sqrt((slope**2).sum(0)).max()


@lru_cache(maxsize=8)
def spline_basis(points: int, knots_mm: float) -> Array:
    """Cubic B-spline basis (points, knots) on the lattice, with a knot every `knots_mm`."""
    at = np.arange(points) * LATTICE_MM / knots_mm
    t = np.abs(at[:, None] - np.arange(-1, int(at[-1]) + 3)[None])
    return np.where(t < 1, 2 / 3 - t**2 + t**3 / 2, np.where(t < 2, (2 - t) ** 3 / 6, 0.0))


def smooth_field(random: np.random.Generator, channels: int, knots_mm: float) -> Array:
    """(channels, *lattice) normal noise on the knots of a cubic B-spline; unit variance over the brain."""
    positions, brain, _ = lattice()
    bases = [spline_basis(n, knots_mm) for n in positions.shape[1:]]
    knots = random.standard_normal((channels, *(b.shape[1] for b in bases)))
    field = np.einsum("cijk,ai,bj,dk->cabd", knots, *bases, optimize=True)
    return field / np.sqrt((field[:, brain] ** 2).mean())


def rotation(angles_deg: Array) -> Array:
    """About R, then A, then S."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(np.deg2rad(angles_deg)), np.sin(np.deg2rad(angles_deg))
    about_r = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_a = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_s = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return about_s @ about_a @ about_r


@dataclass(frozen=True)
class Anatomy:
    """What one person looks like; `draw` makes one from an age and a source of randomness."""

    turn: Array  # (3, 3) rotation of the head in the scanner
    size: Array  # (3,) scale along R, A, S
    position_mm: Array  # (3,) of the brain's centre in the scanner
    warp: Array  # (3, *lattice) from the head to the template, mm
    fields: Array  # (5, *lattice): cortex, sulci, shell, texture, lesion
    contrast: float  # exponent on the averaged fractions: how crisp one person's borders are
    cortex: float  # log weight of grey matter: thickness
    sulci: float  # log weight of CSF: width of the sulci
    subarachnoid_mm: float
    skull_mm: float
    scalp_mm: float
    lesions: float  # 0..1, load of white-matter lesions

    @classmethod
    def draw(cls, random: np.random.Generator, age: float) -> Anatomy:
        old = np.clip((age - 25) / 60, 0, 1)  # 0 at 25, 1 at 85 years
        turn = rotation(random.uniform(-1, 1, 3) * np.array([9.0, 5.0, 7.0]))
        size = random.uniform(0.95, 1.06) * (1 + random.uniform(-1, 1, 3) * 0.035)
        position_mm = random.uniform(-1, 1, 3) * 8.0
        amplitude_mm = random.uniform(4.5, 8.0)
        growth_mm = -0.8 + 3.6 * old**1.5 + random.normal(0, 0.7)  # how far the ventricles' wall has moved
        return cls(
            turn=turn,
            size=size,
            position_mm=position_mm,
            warp=draw_warp(random, amplitude_mm, float(np.clip(growth_mm, -1.5, 4.5))),
            fields=np.concatenate([smooth_field(random, 1, mm) for mm in (22.0, 22.0, 30.0, 14.0, 9.0)]),
            contrast=random.uniform(1.5, 2.2),
            cortex=random.normal(0.1 - 0.3 * old, 0.15),
            sulci=random.normal(0.6 + 0.7 * old, 0.2),
            subarachnoid_mm=float(np.clip(random.normal(1.2 + 1.3 * old, 0.35), 0.6, 4.0)),
            skull_mm=random.uniform(5.5, 8.0),
            scalp_mm=random.uniform(3.5, 7.0),
            lesions=float(np.clip(random.normal(old - 0.35, 0.25), 0, 1)),
        )

    def to_template(self) -> tuple[Array, Array]:
        """Matrix (3, 3) and offset (3,) from scanner to head, the frame in which the lattice lies."""
        matrix = self.turn.T / self.size[:, None]  # inverse of turn @ diag(size)
        return matrix, CENTRE_MM - matrix @ self.position_mm


def draw_warp(random: np.random.Generator, amplitude_mm: float, growth_mm: float) -> Array:
    """Displacement (3, *lattice) from the person's head to the template.

    Three invertible warps after one another: the shape of the brain (B-spline knots every 26 mm), the course
    of gyri and sulci (14 mm), and the ventricles, whose wall moves by `growth_mm`. 95 % of the brain moves by
    less than about `amplitude_mm`, without the ventricles' share.
    """
    positions, brain, pull = lattice()
    origin = positions[:, 0, 0, 0]

    def scaled(field: Array, high_mm: float) -> Array:
        return field * (high_mm / np.percentile(np.sqrt((field**2).sum(0))[brain], 95))

    shape = scaled(smooth_field(random, 3, 26.0), 0.75 * amplitude_mm)
    gyri = scaled(smooth_field(random, 3, 14.0), 0.7 * amplitude_mm)
    depth = template().coarse(template().surface, positions)
    gyri = gyri * np.clip(1 - depth / 12, 0, 1)  # the scalp does not follow gyri
    at = positions + shape
    for displacement in (gyri, pull * growth_mm):
        at = at + np.stack([interpolate(d, at, origin, LATTICE_MM) for d in displacement])
    return at - positions
