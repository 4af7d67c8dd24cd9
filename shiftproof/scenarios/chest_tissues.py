"""What a person's voxels hold: HU by tissue, what contrast medium adds to them, and how they vary inside.

The template was scanned in the arterial phase. A person's HU follow from the template's by one monotone curve for each
material, through that material's own landmarks (fat, parenchyma, blood): partial volume at borders, vessels
and the texture inside organs stay where they are, while every tissue takes the person's value at the time of
the scan.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .chest_anatomy import Trunk
from .chest_template import (
    AIR,
    AORTA,
    ARTERY,
    BONE,
    HEART,
    KIDNEY,
    LIVER,
    LUNG,
    SOFT,
    SPLEEN,
    VEIN,
    template,
)

Array = np.ndarray

SKIN_MM, SKIN_HU = 2.5, 25.0
LOWEST, HIGHEST = -1024, 3071  # HU of the template

# HU without contrast medium at 120 kVp: mean and standard deviation between persons.
NATIVE = {
    "fat": (-105, 5),
    "soft": (50, 6),
    "blood": (42, 4),
    "myocardium": (44, 4),
    "liver": (58, 6),
    "spleen": (48, 4),
    "cortex": (33, 3),
    "medulla": (31, 3),
}
# What iodine adds at 120 kVp, mean and standard deviation between persons: aorta and left heart, veins, ...
# Middle of what textbooks and studies of biphasic protocols report; the late arterial phase is 30-35 s, the
# portal-venous one 70 s after the injection began. The spleen is mottled in the arterial phase.
ENHANCEMENT: dict[str, dict[str, tuple[float, float]]] = {
    "native": {},
    "arterial": {
        "soft": (8, 3),
        "blood": (275, 40),
        "vein": (45, 20),
        "myocardium": (62, 12),
        "liver": (13, 6),
        "spleen": (82, 18),
        "cortex": (140, 22),
        "medulla": (45, 15),
    },
    "portal-venous": {
        "soft": (18, 5),
        "blood": (108, 15),
        "vein": (115, 16),
        "myocardium": (62, 10),
        "liver": (50, 9),
        "spleen": (72, 10),
        "cortex": (148, 18),
        "medulla": (135, 18),
    },
}
MOTTLE = {"native": 2.0, "arterial": 16.0, "portal-venous": 3.0}  # HU of the texture in the spleen


@dataclass(frozen=True)
class Lesion:
    """A ball in template space, within one material."""

    material: int
    centre_mm: Array
    radius_mm: float
    hu: float


@dataclass(frozen=True)
class Tissues:
    """One person's tissues without contrast medium; `draw` makes them from an age and the fat under the skin."""

    native: dict[str, float]  # HU
    bone: float  # mineral, relative to the template's
    lung_hu: float
    opacity: float  # threshold above which a lung's field is ground glass or consolidation
    texture_hu: float
    lesions: tuple[Lesion, ...]

    @classmethod
    def draw(cls, random: np.random.Generator, age: float, fat_mm: float) -> Tissues:
        old = float(np.clip((age - 25) / 60, 0, 1))
        native = {name: float(random.normal(mean, sd)) for name, (mean, sd) in NATIVE.items()}
        native["soft"] -= 8 * old
        if random.uniform() < 0.2 + 0.01 * fat_mm:  # steatosis
            native["liver"] -= random.uniform(8, 35)
        return cls(
            native=native,
            bone=float(np.clip(random.normal(1.05 - 0.35 * old, 0.12), 0.45, 1.3)),
            lung_hu=float(np.clip(random.normal(-855 - 25 * old, 28), -935, -760)),
            opacity=float(random.uniform(1.9, 4.0)),
            texture_hu=float(random.uniform(3.0, 8.0)),
            lesions=(
                *draw_lesions(random, LIVER, random.poisson(1.2), (6.0, 19.0), (5.0, 40.0)),
                *draw_lesions(random, KIDNEY, random.poisson(0.6), (6.0, 14.0), (0.0, 18.0)),
            ),
        )

    def enhanced(self, phase: str, enhancement: dict[str, float], iodine: float) -> Enhanced:
        """At the time of a scan; `iodine` multiplies the enhancement: dose for the weight, and the tube's voltage."""
        native = {**self.native, "vein": self.native["blood"]}
        level = {name: hu + iodine * enhancement.get(name, 0.0) for name, hu in native.items()}
        source = np.arange(LOWEST, HIGHEST + 1, dtype=np.float64)
        curves = [np.interp(source, *np.array(points, dtype=np.float64).T) for points in self.landmarks(level)]
        mottle_hu = MOTTLE[phase] * (iodine if enhancement else 1.0)
        return Enhanced(self, np.stack(curves), level, mottle_hu)

    def landmarks(self, level: dict[str, float]) -> list[list[tuple[float, float]]]:
        """By material: pairs of template HU and the person's HU, linear between; the first and last value go on.

        Below the organ's own HU all share air and fat, so that a voxel on a border keeps its share of both.
        """
        fat, soft, blood, liver = (level[n] for n in ("fat", "soft", "blood", "liver"))
        low = [(-1000.0, -1000.0), (-105.0, fat)]
        vessel = [*low, (45.0, soft), (360.0, blood), (900.0, blood + 20)]
        found: dict[int, list[tuple[float, float]]] = {
            AIR: [(-1000, -1000), (3000, -1000)],
            LUNG: [(-1000, -1000), (-880, self.lung_hu), (-105, -105), (40, 40), (340, blood), (900, blood + 20)],
            HEART: [*low, (100, level["myocardium"]), (350, blood), (900, blood + 20)],
            AORTA: vessel,
            LIVER: [*low, (40, liver - 14), (72, liver), (105, liver + 14), (200, liver + 30)],
            SPLEEN: [*low, (110, level["spleen"] - 8), (174, level["spleen"]), (240, level["spleen"] + 8)],
            KIDNEY: [*low, (95, level["medulla"]), (225, level["cortex"]), (330, level["cortex"] + 15)],
            SOFT: [*low, (50, soft), (330, max(level["vein"], soft)), (900, max(level["vein"], blood, soft))],
            BONE: [*low, (30, 30), (1330, 30 + 1300 * self.bone), (3000, 30 + 1300 * self.bone)],
            ARTERY: vessel,
            VEIN: [*low, (55, level["vein"]), (3000, level["vein"] + 10)],
        }
        return [found[m] for m in range(len(found))]


def draw_lesions(
    random: np.random.Generator, material: int, count: int, radii_mm: tuple[float, float], hu: tuple[float, float]
) -> list[Lesion]:
    places = organ_voxels(material)
    found = []
    for _ in range(count):
        centre = template().origin_mm + places[int(random.integers(len(places)))] * template().spacing_mm
        found.append(Lesion(material, centre, float(random.uniform(*radii_mm)), float(random.uniform(*hu))))
    return found


@lru_cache(maxsize=4)
def organ_voxels(material: int) -> Array:
    return np.argwhere(template().material == material)


def draw_enhancement(random: np.random.Generator, phase: str) -> dict[str, float]:
    return {name: max(0.0, float(random.normal(mean, sd))) for name, (mean, sd) in ENHANCEMENT[phase].items()}


@dataclass(frozen=True)
class Enhanced:
    """A person's tissues during a scan: the curve of each material, and what varies within."""

    tissues: Tissues
    curves: Array  # (materials, 4096) HU for the template's -1024..3071
    levels: dict[str, float]  # HU of the tissues that have a name
    mottle_hu: float  # of the spleen

    def hu(self, person: Trunk, positions: Array, smooth: Array) -> Array:
        """HU (N,) at template positions (3, N); `smooth` (5, N) is the distance from the skin and the fields."""
        skin, layer, texture, density, opacity = smooth
        material = template().nearest(positions)
        source = np.clip(np.rint(template().density(positions)), LOWEST, HIGHEST).astype(np.intp)
        hu = self.curves[material, source - LOWEST]
        lung = material == LUNG
        hu[lung] += self.aerated(hu[lung], density[lung], opacity[lung])
        spread = self.spread()
        hu += spread[material] * texture
        for lesion in self.tissues.lesions:
            distance = np.sqrt(((positions - lesion.centre_mm[:, None]) ** 2).sum(0))
            inside = (material == lesion.material) & (distance < lesion.radius_mm)
            hu[inside] = lesion.hu + 0.5 * spread[lesion.material] * texture[inside]

        # The layer of fat that the template's lean person does not have, and the skin on top of it.
        thickness = person.fat_mm * np.exp(0.35 * layer)
        depth = skin - thickness
        wrapped = np.select([depth > 0, depth > -SKIN_MM], [-1000.0, SKIN_HU], self.levels["fat"] + 4 * texture)
        return np.where((skin > -SKIN_MM) & (thickness > SKIN_MM), wrapped, hu)

    def aerated(self, hu: Array, density: Array, opacity: Array) -> Array:
        """What the lung's fields add where there is air: uneven density, ground glass, consolidation."""
        solid = np.clip(3 * (opacity - self.tissues.opacity), 0, 1)
        return np.clip(-hu / 1000, 0, 1) * (35 * density + solid * (620 + 150 * density))

    def spread(self) -> Array:
        """HU of the texture in each material."""
        spread = np.zeros(len(self.curves))
        spread[[SOFT, LIVER, HEART, KIDNEY]] = self.tissues.texture_hu * np.array([1.0, 0.8, 0.7, 1.0])
        spread[SPLEEN] = self.mottle_hu
        return spread
