"""Brain-lesions: three sites, one rare structure; 1 voxel in 100 to 1 in 2000 of a scan is lesion.

Heads are those of `brain_sites.py`: MNI152 anatomy changed from person to person, the equations of the sequences,
coils, blur and noise. Lesions (`lesions.py`) are tissue with relaxation times of their own, in place before the
scanner averages over voxels, so that their borders are partial volume like all others. A label says lesion where
that is at least half of a voxel.

    site  people                       machine                        lesions
    A     neuro-oncology, 30-75 years  3 T, T2w FLAIR                 few, strong, with oedema and fluid cores
    B     stroke unit, 45-85 years     1.5 T, T2w FLAIR, thick slices mostly of the cortex; brain only
    C     MS clinic, 22-60 years       1.5 T, PD-weighted, bare coils many, beside the ventricles, faint; oblique

What a threshold takes for lesion and is none: oedema around lesions, gliosis of the old around the ventricles, the
limbic cortex (insula, hippocampus, cingulum), whose T2 is longer than other cortex's, fat and skin; in PD-weighted
scans also grey matter and fluid. What is lesion and dark in FLAIR: fluid cores.

Reproducible as `brain_sites.py` says, from `SeedSequence` of scenario, seed, site, subject and purpose. A person has
the same lesions at every size: rarity is drawn for the field of view of size "3d", and what a scan really holds
stands in its row of the table.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np

from .acquisition import Grid, Head
from .anatomy import Anatomy
from .brain_sites import Site as Protocol
from .brain_sites import acquired, placed, prescription, stored, tissue_factors
from .lesions import Lesion, Population, between, draw_lesions, host
from .mr_signal import InversionRecovery, SpinEcho, tissue
from .scenario import Scan, Scenario, read_file

Array = np.ndarray

SIZES = ("2d", "3d", "full")
PURPOSE = 0xB1E5  # keeps the random numbers apart from those of other scenarios
RARITY = (110.0, 1800.0)  # aimed at; voxels are whole, and what is cut from 1:100 and 1:2000 leaves room for that
OEDEMA = 0.4  # severity of a lesion's oedema, relative to its own
GLIOSIS, LIMBIC = 0.6, 0.9  # severity of healthy people's white matter around the ventricles, and of limbic cortex
MORE_GLIOSIS = 0.3  # than the people of brain-sites have
LIMBIC_MM = ((38.0, 2.0, 2.0, 13.0), (25.0, -22.0, -14.0, 11.0), (5.0, 8.0, 34.0, 14.0))  # R (both sides), A, S, width


@dataclass(frozen=True, kw_only=True)
class Site(Protocol):
    """A protocol, the people it is applied to, and their lesions."""

    people: str
    population: Population = field(repr=False)

    def shift(self) -> dict[str, str]:
        row, (low, high) = super().shift(), self.population.severity
        lesions = {"lesions": f"1 to {self.population.most}", "severity": f"{low:g}-{high:g}"}
        return row | {"people": f"{self.people}, {row['people']}"} | lesions


SITES = {
    "A": Site(
        name="A",
        people="neuro-oncology",
        field_t=3.0,
        sequence=InversionRecovery(tr_ms=9000, ti_ms=2500, te_ms=110),
        ages=(30, 75),
        noise=0.06,
        shade=0.25,
        centre=0.2,
        blur_mm=0.0,
        units=(200, 320),
        axes="RAS",
        tilt_deg=(0, 0, 0),
        grids={
            "2d": Grid((64, 76, 13), (2.8, 2.8, 12.0), 5.0),
            "3d": Grid((64, 76, 58), (2.8, 2.8, 2.8), 2.8, oversampling=2, slice_points=2),
            "full": Grid((112, 136, 101), (1.6, 1.6, 1.6), 1.6, oversampling=1, slice_points=1),
        },
        fat_suppression=0.1,
        population=Population(RARITY, 3, (0.4, 0.15, 0.3, 0.15), severity=(0.6, 1.7), rim=0.5, fluid=0.2),
    ),
    "B": Site(
        name="B",
        people="stroke unit",
        field_t=1.5,
        sequence=InversionRecovery(tr_ms=6500, ti_ms=1850, te_ms=120),
        ages=(45, 85),
        noise=0.085,
        shade=0.25,
        centre=0.0,
        blur_mm=1.0,
        units=(90, 160),
        axes="LPS",
        tilt_deg=(0, 0, 0),
        grids={
            "2d": Grid((64, 76, 13), (2.8, 2.8, 12.0), 6.0),
            "3d": Grid((64, 76, 44), (2.8, 2.8, 3.6), 3.6, oversampling=2, slice_points=2),
            "full": Grid((112, 136, 45), (1.6, 1.6, 3.6), 3.6, oversampling=1, slice_points=3),
        },
        brain_only=True,
        population=Population(RARITY, 4, (0.25, 0.1, 0.5, 0.15), severity=(0.6, 1.6), rim=0.3, fluid=0.1),
    ),
    "C": Site(
        name="C",
        people="MS clinic",
        field_t=1.5,
        sequence=SpinEcho(tr_ms=2600, te_ms=45, name="PDw spin echo"),
        ages=(22, 60),
        noise=0.03,
        shade=0.22,
        centre=0.1,
        blur_mm=0.6,
        units=(700, 1400),
        axes="LPS",
        tilt_deg=(10, 3, 0),
        grids={
            "2d": Grid((60, 70, 13), (3.0, 3.0, 12.0), 5.0),
            "3d": Grid((60, 70, 54), (3.0, 3.0, 3.0), 3.0, oversampling=2, slice_points=2),
            "full": Grid((112, 130, 65), (1.6, 1.6, 2.5), 2.5, oversampling=1, slice_points=2),
        },
        population=Population(RARITY, 6, (0.4, 0.4, 0.1, 0.1), severity=(0.8, 2.2), rim=0.15, fluid=0.1),
    ),
}

LABELS_TOML = """\
# What the values in the label files mean; site C paints lesions in white.
classes = ["background", "lesion"]

[default]
lesion = 1

[site.C]
lesion = 255
"""


@dataclass(frozen=True)
class LesionedHead(Head):
    """A head with lesions, and with what looks like them and is healthy; `fractions` gain a fourth row, lesion."""

    lesions: tuple[Lesion, ...]
    levels: tuple[tuple[float, float], ...]  # signal of each lesion and of its oedema

    KINDS: ClassVar[int] = 4

    @classmethod
    def of(cls, head: Head, site: Site, factors: dict[str, dict[str, float]], lesions: tuple[Lesion, ...]) -> Head:
        def signal(name: str, severity: float) -> float:
            healthy = tissue(name, site.field_t, **factors.get(name, {}))
            return float(site.sequence.signal(between(healthy, tissue("lesion", site.field_t), severity)))

        signals = {**head.signal, "lesion": signal("white", GLIOSIS), "limbic": signal("grey", LIMBIC)}
        levels = tuple(
            (signal("white", s), signal("white", OEDEMA * s)) for s in (lesion.severity for lesion in lesions)
        )
        return cls(head.anatomy, signals, lesions, levels)

    def brain(self, positions: Array, smooth: Array) -> tuple[Array, Array]:
        signal, fractions = super().brain(positions, smooth)
        limbic = fractions[1] * limbic_share(positions)
        signal = signal + limbic * (self.signal["limbic"] - self.signal["grey"])
        hosts, share = host(1 - fractions[0]), np.zeros_like(signal)
        for lesion, (level, oedema) in zip(self.lesions, self.levels, strict=True):
            near = np.flatnonzero(lesion.near(positions))
            depth, noise = lesion.depth_mm(positions[:, near])
            there, swollen = hosts[near] * lesion.share(depth), fractions[2, near] * lesion.oedema(depth)
            inside = level * (1 + 0.05 * noise)
            inside += lesion.core(depth) * (self.signal["csf"] - inside)
            around = signal[near] + swollen * np.maximum(oedema - signal[near], 0)
            signal[near] = around + there * (inside - around)
            share[near] = np.maximum(share[near], there)
        return signal, np.concatenate([fractions * (1 - share), share[None]])


def limbic_share(positions: Array) -> Array:
    """(N,) 0..1, how much of the grey matter at template positions (3, N) is limbic."""
    share = np.zeros(positions.shape[1])
    for right, anterior, superior, width in LIMBIC_MM:
        x = np.abs(positions[0]) - right
        distance = x**2 + (positions[1] - anterior) ** 2 + (positions[2] - superior) ** 2
        share = np.maximum(share, np.exp(-distance / (2 * (width / 1.5) ** 2)))
    return share


def subject(site: str, index: int, *, size: str, seed: int) -> Scan:
    """Subject number `index` of a site; the same person with the same lesions at every size."""
    protocol, grid = SITES[site], SITES[site].grids[size]
    person, illness, acquisition, noise = (
        np.random.Generator(np.random.PCG64(np.random.SeedSequence([PURPOSE, seed, ord(site), index, purpose])))
        for purpose in range(4)
    )
    age = round(float(person.uniform(*protocol.ages)), 1)
    anatomy = Anatomy.draw(person, age)
    anatomy = replace(anatomy, lesions=min(anatomy.lesions + MORE_GLIOSIS, 1.0))
    factors = tissue_factors(person, age)
    healthy = Head.at(anatomy, protocol.sequence, protocol.field_t, factors, protocol.fat_suppression)
    lesions = draw_lesions(illness, protocol.population, anatomy, field_ml(protocol.grids["3d"]))
    head = LesionedHead.of(healthy, protocol, factors, lesions)
    axes, offset_mm = prescription(acquisition, protocol, grid, anatomy)
    maps = head.on(grid, axes * np.array(grid.spacing_mm), offset_mm)

    image = acquired(acquisition, noise, protocol, grid, maps, head.signal["white"])
    label = maps.fractions[3] >= 0.5
    columns = {
        "field_strength": protocol.field_t,
        "sequence": protocol.sequence.name,
        "age": age,
        **counted(label, lesions, float(np.prod(grid.spacing_mm))),
    }
    values = label.astype(np.uint8) * np.uint8(255 if site == "C" else 1)
    image, values, affine = stored(image, values, placed(axes, grid, offset_mm), protocol.axes)
    return Scan(f"{site}{index + 1:03d}", image, values, affine, columns)


def field_ml(grid: Grid) -> float:
    return float(np.prod(grid.shape) * np.prod(grid.spacing_mm) / 1000)


def counted(label: Array, lesions: tuple[Lesion, ...], voxel_mm3: float) -> dict[str, int | float | str]:
    """What the scan holds; rarity is the number of voxels to one of lesion."""
    voxels = int(label.sum())
    return {
        "lesion_count": len(lesions),
        "lesion_voxels": voxels,
        "lesion_ml": round(voxels * voxel_mm3 / 1000, 2),
        "rarity": round(label.size / voxels, 1) if voxels else "",
        "faintest": round(min(lesion.severity for lesion in lesions), 2),
    }


# Content hash by size at the usual number of subjects and seed 0, written before any method was run on it.
HASHES = {"2d": "9b20922dd1ffedc7", "3d": "8ec2642c490520e9", "full": "cf7fda5d46c2abc0"}

SCENARIO = Scenario(
    name="brain-lesions",
    description=(
        "Three sites scan people with lesions, 1 voxel in 100 to 1 in 2000: FLAIR at 3 T (A), FLAIR in thick slices of "
        "the brain only (B), PD-weighted, shaded, with faint lesions (C)."
    ),
    sizes=SIZES,
    sites=tuple(SITES),
    shifts=tuple(site.shift() for site in SITES.values()),
    labels_toml=LABELS_TOML,
    licence=read_file("NOTICE-ICBM152.txt"),
    hashes=HASHES,
    subject=subject,
    usual_subjects={"2d": 48, "3d": 48, "full": 24},
)
