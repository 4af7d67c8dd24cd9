"""One person's trunk: the template CT, reshaped by habitus, breath and organ size.

From the scanner to the template a position passes: turn, size and place of the person; the shape of chest and
abdomen and the bend of the spine; three random smooth warps of decreasing scale; the breath, which moves the
organs below the diaphragm along the body; and the walls of the organs, which grow or shrink. Each is
invertible, so that nothing folds. Fat beyond the lean template's own is a layer around it (`chest_tissues.py`).

All arithmetic is in double precision, for the reason that `anatomy.py` gives.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from . import anatomy as head
from .anatomy import interpolate, rotation, spline_basis
from .chest_template import AORTA, HEART, KIDNEY, LIVER, LUNG, SPLEEN, template

Array = np.ndarray

LATTICE_MM = 10.0
KNOTS_MM = (95.0, 48.0, 24.0)  # of the random warps
REACH_MM = (15.0, 7.5, 2.4)  # what 95 % of the body moves by at most, for an amplitude of 1
GROWTH_MM = {LUNG: 4.0, HEART: 7.0, AORTA: 2.6, LIVER: 8.0, SPLEEN: 6.0, KIDNEY: 3.5}  # standard deviation 0.5 of it


@lru_cache(maxsize=1)
def lattice() -> tuple[Array, Array]:
    """Positions (3, *lattice) around the template, and which of them lie in the body."""
    maps = template()
    top = np.array(maps.hu.shape) * maps.spacing_mm
    low, high = maps.origin_mm - (24, 24, 56), maps.origin_mm + top + (24, 24, 56)
    axes = [np.arange(a, b, LATTICE_MM) for a, b in zip(low, high, strict=True)]
    positions = np.stack(np.meshgrid(*axes, indexing="ij"))
    return positions, maps.from_skin(positions) < 0


def smooth_field(random: np.random.Generator, channels: int, knots_mm: float) -> Array:
    """(channels, *lattice) normal noise on the knots of a cubic B-spline; unit variance over the body."""
    positions, body = lattice()
    relative = knots_mm * head.LATTICE_MM / LATTICE_MM  # `spline_basis` counts in steps of the other lattice
    bases = [spline_basis(n, relative) for n in positions.shape[1:]]
    knots = random.standard_normal((channels, *(b.shape[1] for b in bases)))
    field = np.einsum("cijk,ai,bj,dk->cabd", knots, *bases, optimize=True)
    return field / np.sqrt((field[:, body] ** 2).mean())


@dataclass(frozen=True)
class Trunk:
    """What one person is made of; `draw` makes one from an age and a source of randomness."""

    turn: Array  # (3, 3) rotation in the scanner
    size: Array  # (3,) scale along R, A, S
    centre_mm: Array  # (3,) of the template that lies at the scanner's isocentre
    warp: Array  # (3, *lattice) from the person to the template, mm
    breath: Array  # (*lattice) how much of a further breath each place follows
    fields: Array  # (4, *lattice): fat layer, texture of tissue, density of the lung, opacities
    fat_mm: float  # beyond the template's skin

    @classmethod
    def draw(cls, random: np.random.Generator, age: float) -> Trunk:
        old = float(np.clip((age - 25) / 60, 0, 1))  # 0 at 25, 1 at 85 years
        turn = rotation(random.uniform(-1, 1, 3) * np.array([5.0, 4.0, 8.0]))
        size = random.uniform(0.94, 1.12) * (1 + random.uniform(-1, 1, 3) * np.array([0.05, 0.06, 0.05]))
        fat_mm = float(np.clip(random.gamma(2.2, 5.0), 0, 36))
        return cls(
            turn=turn,
            size=size,
            centre_mm=np.array([0.0, 0.0, 150.0]) + random.uniform(-1, 1, 3) * np.array([18.0, 18.0, 0.0]),
            warp=draw_warp(random, old, fat_mm),
            breath=template().smooth(template().breath, lattice()[0]),
            fields=np.concatenate([smooth_field(random, 1, mm) for mm in (70.0, 16.0, 45.0, 28.0)]),
            fat_mm=fat_mm,
        )

    def to_template(self) -> tuple[Array, Array]:
        """Matrix (3, 3) and offset (3,) from the scanner to the frame in which the lattice lies."""
        matrix = self.turn.T / self.size[:, None]
        return matrix, self.centre_mm

    def outline_mm(self) -> tuple[float, float, float, float]:
        """Lowest and highest R and A in the scanner, to a few mm, of the trunk within 100 mm of the isocentre."""
        matrix, shift = self.to_template()
        inside = template().from_skin(lattice()[0] + self.warp) < self.fat_mm
        position = np.linalg.solve(matrix, lattice()[0][:, inside] - shift[:, None])
        x, y = position[:2, np.abs(position[2]) < 100]
        return float(x.min()), float(x.max()), float(y.min()), float(y.max())

    def reach_mm(self) -> tuple[float, float]:
        """Half the width and half the depth of a box around the isocentre that holds the person."""
        belly = 0.007 * max(self.fat_mm - 11, 0)
        x, y = np.array([200, 135]) * self.size[:2] * (1.05, 1.1 + belly) + 1.6 * self.fat_mm + 20
        return float(x), float(y)


def draw_warp(random: np.random.Generator, old: float, fat_mm: float) -> Array:
    """Displacement (3, *lattice) from the person to the template, mm."""
    positions, body = lattice()
    origin, maps = positions[:, 0, 0, 0], template()
    at = positions.copy()

    # Chest and abdomen each have a depth and a width; belly grows with fat. A kyphotic, bent spine comes with age.
    belly = 1 / (1 + np.exp((positions[2] - 110) / 22))
    depth = 1 + belly * random.normal(0.007 * (fat_mm - 11), 0.05) + (1 - belly) * random.normal(0.05 * old, 0.05)
    width = 1 + belly * random.normal(0.003 * (fat_mm - 11), 0.03) + (1 - belly) * random.normal(0, 0.03)
    along = (positions[2] - 150) / 150
    at[0] = at[0] / width + random.normal(0, 5) * np.sin(2.2 * along + random.uniform(0, 6))
    at[1] = (at[1] + 40) / depth - 40 - (6 * old + random.normal(0, 4)) * along**2

    amplitude = random.uniform(0.75, 1.25)
    for knots_mm, reach_mm in zip(KNOTS_MM, REACH_MM, strict=True):
        field = smooth_field(random, 3, knots_mm)
        field *= amplitude * reach_mm / np.percentile(np.sqrt((field**2).sum(0))[body], 95)
        at = at + np.stack([interpolate(f, at, origin, LATTICE_MM) for f in field])

    at[2] += random.uniform(-16, 26) * maps.smooth(maps.breath, at)  # positive: the diaphragm stands lower
    pull = np.zeros_like(at)
    for material, reach_mm in GROWTH_MM.items():
        growth_mm = reach_mm * float(np.clip(random.normal(0, 0.5), -1, 1))
        if material == AORTA:
            growth_mm += 1.8 * old  # it widens with age
        pull += growth_mm * np.stack([maps.smooth(w, at) for w in maps.walls[material]])
    return at + pull - positions
