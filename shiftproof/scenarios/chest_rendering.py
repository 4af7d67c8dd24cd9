"""A person on a scanner's table, as HU on the projected plane and as labels on the reconstructed voxels.

Both are means over points inside each voxel: two by two in the plane and several through the slice, so that thick
slices blur what is oblique to them before photons are counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .acquisition import hat_basis, voxel_positions
from .anatomy import interpolate
from .chest_anatomy import LATTICE_MM, Trunk, lattice
from .chest_template import KIDNEY, MIDDLE_MM, template
from .chest_tissues import Enhanced
from .ct_scanner import FIELD_PIXELS, PIXEL_MM, centres

Array = np.ndarray

OVERSAMPLING = 2  # points along each side of a pixel
NODE_MM = 8.0  # warp and fields are smooth: evaluated this far apart and interpolated between
CHUNK = 400_000  # points at a time


@dataclass(frozen=True)
class Slices:
    """Axial slices: position of each, what it averages over, and how far the organs had moved when it was taken."""

    z_mm: Array  # (S,)
    thickness_mm: float
    points: int
    breath_mm: Array  # (S,)

    def sampled(self, part: slice) -> tuple[Array, Array]:
        """z and breath of the points of some slices."""
        within = ((np.arange(self.points) + 0.5) / self.points - 0.5) * self.thickness_mm
        z = self.z_mm[part, None] + within
        return z.ravel(), np.repeat(self.breath_mm[part], self.points)

    def chunks(self, points: int) -> Iterator[slice]:
        step = max(1, CHUNK // (points * self.points))
        for start in range(0, self.z_mm.size, step):
            yield slice(start, min(start + step, self.z_mm.size))


def fine(coordinates_mm: Array) -> Array:
    """Points inside each pixel, given the pixels' centres."""
    step = coordinates_mm[1] - coordinates_mm[0]
    within = ((np.arange(OVERSAMPLING) + 0.5) / OVERSAMPLING - 0.5) * step
    return (coordinates_mm[:, None] + within).ravel()


def in_template(person: Trunk, x: Array, y: Array, z: Array, breath_mm: Array) -> tuple[Array, Array]:
    """Template positions (3, X, Y, Z) of the scanner's points, and what varies smoothly there (5, X, Y, Z)."""
    matrix, shift = person.to_template()
    step = max(1, int(NODE_MM / (x[1] - x[0])))
    bases = [hat_basis(a.size, step) for a in (x, y)]
    nodes = [a[0] + np.arange(b.shape[1]) * step * (a[1] - a[0]) for a, b in zip((x, y), bases, strict=True)]
    positions = voxel_positions(matrix, shift, *nodes, z)
    origin = lattice()[0][:, 0, 0, 0]

    def of_person(volume: Array) -> Array:
        return interpolate(volume, positions, origin, LATTICE_MM)

    displacement = np.stack([of_person(w) for w in person.warp])
    if breath_mm.any():
        displacement[2] += breath_mm * of_person(person.breath)
    skin = template().from_skin(positions + displacement)
    coarse = np.concatenate([displacement, skin[None], np.stack([of_person(f) for f in person.fields])])
    smooth = np.einsum("ai,cijk->cajk", bases[0], coarse, optimize=True)
    smooth = np.einsum("bj,cajk->cabk", bases[1], smooth, optimize=True)
    return voxel_positions(matrix, shift, x, y, z) + smooth[:3], smooth[3:]


def averaged(values: Array, slices: int) -> Array:
    """(X * n, Y * n, S * m) points -> (X, Y, S) means."""
    n = OVERSAMPLING
    shape = (values.shape[0] // n, n, values.shape[1] // n, n, slices, -1)
    return values.reshape(shape).mean((1, 3, 5))


def body_hu(person: Trunk, tissues: Enhanced, slices: Slices) -> Array:
    """HU (pixels, pixels, S) of the person alone on the scanner's plane."""
    plane = centres(FIELD_PIXELS, PIXEL_MM)
    parts = [np.flatnonzero(np.abs(plane) < reach) for reach in person.reach_mm()]
    x, y = (fine(plane[p]) for p in parts)
    hu = np.full((FIELD_PIXELS, FIELD_PIXELS, slices.z_mm.size), -1000.0)
    for part in slices.chunks(x.size * y.size):
        positions, smooth = in_template(person, x, y, *slices.sampled(part))
        values = np.full(positions.shape[1:], -1000.0)
        near = smooth[0] < 3 * person.fat_mm + 5
        values[near] = tissues.hu(person, positions[:, near], smooth[:, near])
        hu[parts[0][0] : parts[0][-1] + 1, parts[1][0] : parts[1][-1] + 1, part] = averaged(
            values, part.stop - part.start
        )
    return hu


def labels(person: Trunk, x_mm: Array, y_mm: Array, slices: Slices) -> tuple[Array, Array]:
    """The class (X, Y, S) that has the largest share of each voxel, 0 where none of them has; and what is right.

    uint8, and whether the voxel lies in the right half of the body.
    """
    out = np.zeros((x_mm.size, y_mm.size, slices.z_mm.size), np.uint8)
    right = np.zeros(out.shape, bool)
    x, y = fine(x_mm), fine(y_mm)
    for part in slices.chunks(x.size * y.size):
        positions, smooth = in_template(person, x, y, *slices.sampled(part))
        material = np.zeros(positions.shape[1:], np.uint8)
        inside = smooth[0] < 0
        material[inside] = template().nearest(positions[:, inside])
        count = part.stop - part.start
        shares = np.stack([averaged(material == c, count) for c in range(1, KIDNEY + 1)])
        out[:, :, part] = np.where(shares.max(0) > 1 - shares.sum(0), 1 + shares.argmax(0), 0)
        right[:, :, part] = averaged(positions[0], count) > MIDDLE_MM
    return out, right


@dataclass(frozen=True)
class Table:
    """A shell of carbon around foam, curved to hold the patient."""

    radius_mm: float
    width_mm: float
    core_mm: float
    shell_mm: float

    def hu(self, x: Array, y: Array, top_mm: float) -> Array:
        """HU at scanner points, the lowest point of the upper surface at `top_mm`."""
        half = np.minimum(np.abs(x), self.width_mm / 2)
        depth = top_mm + self.radius_mm - np.sqrt(self.radius_mm**2 - half**2) - y
        inside = (depth > 0) & (depth < self.core_mm + 2 * self.shell_mm) & (np.abs(x) < self.width_mm / 2)
        core = (depth > self.shell_mm) & (depth < self.core_mm + self.shell_mm)
        return np.where(inside, np.where(core, -920.0, 60.0), -1000.0)


@dataclass(frozen=True)
class Arm:
    """One arm beside the body: skin, fat, muscle and a long bone, along z with a slope."""

    x_mm: float
    y_mm: float
    slope: float  # how far it moves sideways by mm along z
    radii_mm: tuple[float, float]
    fat_mm: float
    bone_mm: float
    muscle_hu: float

    def hu(self, x: Array, y: Array, z: Array) -> Array:
        dx, dy = x - self.x_mm - self.slope * z, y - self.y_mm
        # Distance from the skin, to first order: exact on the axes of the ellipse.
        radius = np.sqrt((dx / self.radii_mm[0]) ** 2 + (dy / self.radii_mm[1]) ** 2)
        depth = (1 - radius) * min(self.radii_mm)
        bone = np.sqrt((dx + 4) ** 2 + (dy - 3) ** 2)
        layers = [
            depth < 0,
            depth < 2,
            depth < self.fat_mm,
            bone < 0.55 * self.bone_mm,
            bone < self.bone_mm,
        ]
        return np.select(layers, [-1000.0, 20.0, -105.0, 60.0, 1100.0], self.muscle_hu)


def furnished(hu: Array, table: Table, arms: tuple[Arm, ...], z_mm: Array, top_mm: float) -> Array:
    """The person's HU with table and arms around it."""
    points = fine(centres(FIELD_PIXELS, PIXEL_MM))
    x, y = np.meshgrid(points, points, indexing="ij")
    out = np.maximum(hu, averaged(table.hu(x, y, top_mm)[:, :, None], 1))
    for arm in arms:
        reach = np.abs(points - arm.x_mm) < max(arm.radii_mm) + np.abs(arm.slope * z_mm).max()
        first, last = np.flatnonzero(reach.reshape(-1, OVERSAMPLING).any(1))[[0, -1]]
        window = slice(first * OVERSAMPLING, (last + 1) * OVERSAMPLING)
        for k, z in enumerate(z_mm):
            mean = averaged(arm.hu(x[window], y[window], z)[:, :, None], 1)[:, :, 0]
            out[first : last + 1, :, k] = np.maximum(out[first : last + 1, :, k], mean)
    return out


def lowest_mm(hu: Array) -> float:
    """A position of the lowest matter: where the table has to be."""
    matter = (hu > -300).any((0, 2))
    return float(centres(FIELD_PIXELS, PIXEL_MM)[matter][0]) - PIXEL_MM / 2
