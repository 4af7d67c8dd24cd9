"""From a person to a scan: tissue fractions inside each voxel, signal, coil shading, blur, noise, units.

A voxel is the mean over `Grid.oversampling` points in the plane and `slice_points` across the slice, so that
partial volume arises where it does in a scanner: in the signal, before noise and magnitude.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy import ndimage

from .anatomy import LATTICE_MM, Anatomy, interpolate, lattice, template
from .mr_signal import Sequence, tissue

Array = np.ndarray

LAYER_EDGE_MM = 1.5  # blur between skull and scalp layers
COMPACT_BONE_MM, SKIN_MM = 1.6, 2.2
BRAIN_REACH_MM = 4.0  # outside its hull, where the warped tissue maps still matter
AIR_MM = 24.0  # from the brain; skull and scalp end before


@dataclass(frozen=True)
class Grid:
    """Voxels of a scan along R, A, S before storage turns them; the last axis is the slice axis."""

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    thickness_mm: float
    oversampling: int = 2
    slice_points: int = 3


@dataclass(frozen=True)
class TissueMaps:
    """Mean over each voxel: signal before coil and noise, and fractions of CSF, grey, white matter and more."""

    signal: Array  # (X, Y, Z)
    fractions: Array  # (kinds, X, Y, Z)


def voxel_positions(matrix: Array, offset: Array, *indices: Array) -> Array:
    """(3, I, J, K) positions of the voxel indices along each axis."""
    i, j, k = (np.asarray(x, dtype=np.float64) for x in indices)
    return (
        matrix[:, 0, None, None, None] * i[None, :, None, None]
        + matrix[:, 1, None, None, None] * j[None, None, :, None]
        + matrix[:, 2, None, None, None] * k[None, None, None, :]
        + offset[:, None, None, None]
    )


def hat_basis(points: int, step: int) -> Array:
    """(points, nodes) linear interpolation from a node at every `step` points."""
    nodes = -(-(points - 1) // step) + 1
    return np.clip(1 - np.abs(np.arange(points)[:, None] / step - np.arange(nodes)[None]), 0, None)


def tissue_fractions(person: Anatomy, positions: Array, cortex: Array, sulci: Array) -> Array:
    """(3, N) shares of CSF, grey and white matter at template positions (3, N), given the person's fields there."""
    grey, white = (template().fine(m, positions) for m in (template().grey, template().white))
    fluid = np.clip(1 - grey - white, 0, 1)
    fluid = fluid**person.contrast * np.exp(person.sulci + 0.6 * sulci)
    grey = grey**person.contrast * np.exp(person.cortex + 0.5 * cortex)
    white = white**person.contrast
    return np.stack([fluid, grey, white]) / (fluid + grey + white)


def step_down(distance_mm: Array) -> Array:
    """1 well below 0, 0 well above, linear over the width of a layer's edge."""
    return np.clip(0.5 - distance_mm / LAYER_EDGE_MM, 0, 1)


@dataclass(frozen=True)
class Head:
    """A person at a field strength, ready to be sampled: the signal of each tissue is already known.

    A kind of head with more than the three tissues says so in `KINDS`, and `brain` gives as many fractions.
    """

    anatomy: Anatomy
    signal: dict[str, float]  # by tissue

    KINDS: ClassVar[int] = 3

    @classmethod
    def at(
        cls,
        anatomy: Anatomy,
        sequence: Sequence,
        field_t: float,
        factors: dict[str, dict[str, float]],
        fat_suppression: float,
    ) -> Head:
        """`factors` are the person's deviations from the published T1, T2 and density, by tissue."""
        names = ("csf", "grey", "white", "lesion", "bone", "marrow", "fat", "skin")
        signal = {n: float(sequence.signal(tissue(n, field_t, **factors.get(n, {})))) for n in names}
        for name in ("fat", "marrow"):
            signal[name] *= 1 - fat_suppression
        return cls(anatomy, signal)

    def points(self, positions: Array, smooth: Array) -> tuple[Array, Array]:
        """Signal (N,) and fractions (kinds, N) at template positions (3, N).

        `smooth` (7, N) holds what varies slowly: the distance from the brain, the nearness of the ventricles,
        and the person's fields.
        """
        signal, fractions = np.zeros(positions.shape[1]), np.zeros((self.KINDS, positions.shape[1]))
        near = smooth[0] < BRAIN_REACH_MM
        signal[near], fractions[:, near] = self.brain(positions[:, near], smooth[:, near])
        edge = smooth[0] > -LAYER_EDGE_MM
        signal[edge], inside = self.wrapped(signal[edge], smooth[:, edge])
        fractions[:, edge] *= inside
        return signal, fractions

    def brain(self, positions: Array, smooth: Array) -> tuple[Array, Array]:
        person, s = self.anatomy, self.signal
        _, ventricles, cortex, sulci, _, texture, lesion = smooth
        fractions = tissue_fractions(person, positions, cortex, sulci)

        # Within a tissue T1 and density vary smoothly by a few per cent; the signal follows. Lesions lie in
        # white matter, first around the ventricles.
        load = np.clip(3 * (0.9 * ventricles + 0.35 * lesion + person.lesions - 1.35), 0, 1)
        signal = s["csf"] * fractions[0] + (1 + 0.03 * texture) * (s["grey"] * fractions[1] + s["white"] * fractions[2])
        return signal + fractions[2] * load * (s["lesion"] - s["white"]), fractions

    def wrapped(self, brain: Array, smooth: Array) -> tuple[Array, Array]:
        """The signal with skull and scalp around the brain, and the share of each point inside the skull."""
        person, depth, shell = self.anatomy, smooth[0], smooth[4]
        fluid = person.subarachnoid_mm * np.exp(0.3 * shell)
        skull = fluid + person.skull_mm * (1 + 0.15 * shell)
        scalp = skull + person.scalp_mm * np.exp(0.2 * shell)
        borders = (  # where each layer ends, and what it is made of
            (fluid + COMPACT_BONE_MM, "bone"),
            (skull - COMPACT_BONE_MM, "marrow"),
            (skull, "bone"),
            (scalp, "fat"),
            (scalp + SKIN_MM, "skin"),
        )
        inside = reached = step_down(depth - fluid)
        signal = brain * inside
        for end_mm, name in borders:
            upto = np.maximum(step_down(depth - end_mm), reached)
            signal = signal + self.signal[name] * (upto - reached)
            reached = upto
        return signal, inside

    def on(self, grid: Grid, matrix: Array, offset_mm: Array) -> TissueMaps:
        """Averages over the voxels of `grid`, whose index (i, j, k) lies at `matrix @ index + offset_mm`."""
        signal = np.empty(grid.shape)
        fractions = np.empty((self.KINDS, *grid.shape))
        for slices in slabs(grid):
            signal[:, :, slices], fractions[:, :, :, slices] = self.slab(grid, matrix, offset_mm, slices)
        return TissueMaps(signal, fractions)

    def slab(self, grid: Grid, matrix: Array, offset_mm: Array, slices: slice) -> tuple[Array, Array]:
        n, m = grid.oversampling, grid.slice_points
        to_head, shift = self.anatomy.to_template()
        matrix, offset = to_head @ matrix, to_head @ offset_mm + shift
        i, j = ((np.arange(size * n) + 0.5) / n - 0.5 for size in grid.shape[:2])
        within = ((np.arange(m) + 0.5) / m - 0.5) * grid.thickness_mm / grid.spacing_mm[2]
        k = (np.arange(slices.start, slices.stop)[:, None] + within).ravel()

        # Warp and fields are smooth: evaluate them every 6 mm in the plane and interpolate between.
        step = max(1, round(6.0 * n / grid.spacing_mm[0]))
        bases = [hat_basis(x.size, step) for x in (i, j)]
        nodes = [(np.arange(b.shape[1]) * step + 0.5) / n - 0.5 for b in bases]
        coarse = self.on_nodes(voxel_positions(matrix, offset, *nodes, k))
        smooth = np.einsum("ai,cijk->cajk", bases[0], coarse, optimize=True)
        smooth = np.einsum("bj,cajk->cabk", bases[1], smooth, optimize=True)

        head = smooth[3] < AIR_MM
        signal, fractions = np.zeros(head.shape), np.zeros((self.KINDS, *head.shape))
        positions = (voxel_positions(matrix, offset, i, j, k) + smooth[:3])[:, head]
        signal[head], fractions[:, head] = self.points(positions, smooth[3:, head])
        shape = (grid.shape[0], n, grid.shape[1], n, slices.stop - slices.start, m)
        return signal.reshape(shape).mean((1, 3, 5)), fractions.reshape(self.KINDS, *shape).mean((2, 4, 6))

    def on_nodes(self, positions: Array) -> Array:
        """(10, ...): displacement, distance from the brain, ventricles and fields at coarse positions."""
        lattice_origin = lattice()[0][:, 0, 0, 0]

        def person(volume: Array) -> Array:
            return interpolate(volume, positions, lattice_origin, LATTICE_MM)

        displacement = np.stack([person(v) for v in self.anatomy.warp])
        there, maps = positions + displacement, template()
        slow = [maps.coarse(maps.surface, there), maps.coarse(maps.ventricles, there)]
        return np.concatenate([displacement, np.stack([*slow, *(person(v) for v in self.anatomy.fields)])])


def slabs(grid: Grid, points: int = 60_000) -> Iterator[slice]:
    """A few slices at a time: bounded memory at any image size."""
    one = grid.shape[0] * grid.shape[1] * grid.oversampling**2 * grid.slice_points
    count = max(1, points // one)
    for start in range(0, grid.shape[2], count):
        yield slice(start, min(start + count, grid.shape[2]))


def shading(random: np.random.Generator, grid: Grid, strength: float, centre: float) -> Array:
    """Receive field of the coils, about 1: its logarithm is a random smooth surface with a bright `centre`.

    The surface is a polynomial of third order; `strength` is its standard deviation over the grid. The centre
    stands for the standing wave of the transmit field at 3 T.
    """
    x, y, z = (np.linspace(-1, 1, n) for n in grid.shape)
    log = np.zeros(grid.shape)
    for a in range(4):
        for b in range(4 - a):
            for c in range(4 - a - b):
                if a + b + c:
                    weight = random.standard_normal() / (a + b + c)
                    log += weight * (x**a)[:, None, None] * (y**b)[None, :, None] * (z**c)[None, None, :]
    log = (log - log.mean()) * (strength / log.std())
    radius = x[:, None, None] ** 2 + y[None, :, None] ** 2
    return np.exp(log + centre * (0.4 - radius))


def scan(
    random: np.random.Generator, clean: Array, shade: Array, *, blur: tuple[float, float, float], noise: float
) -> Array:
    """Magnitude: shaded, blurred (standard deviation in voxels), with Rician noise of `noise` a channel."""
    image = clean * shade
    for axis, width in enumerate(blur):
        if width:
            image = ndimage.gaussian_filter1d(image, width, axis=axis, mode="nearest")
    real, imaginary = random.standard_normal((2, *image.shape)) * noise
    return np.sqrt((image + real) ** 2 + imaginary**2)
