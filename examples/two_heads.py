"""Two sites from heads that this project did not make: what `shiftproof` has to cope with on a user's own disk.

Site MNI is the MNI152 T1 average that nilearn ships, site Colin the single-subject Colin-27 T1 of Debian's
`mricron-data`; thalamus and striatum come from the AAL atlas of the latter, which is drawn in the same space. Each
subject is one of the two heads under a smooth warp, and a scan of it has a grid of its own: oblique, with axes in any
order and direction, voxels of unequal sides.

    python examples/two_heads.py heads
    shiftproof cohort import heads --classes thalamus,striatum
    shiftproof cohort check heads
    shiftproof study heads --methods erm/none,erm/light --out heads-study
"""

from __future__ import annotations

import argparse
import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

COLIN = Path("/usr/share/mricron/templates")
STRUCTURES = {"thalamus": (77, 78), "striatum": (71, 72, 73, 74)}
"""Values of the AAL atlas by structure, left and right together; in the label files they are 1 and 2."""


@dataclass(frozen=True)
class Head:
    """A T1-weighted head with its labels, both on a grid of 1 mm in the space of the atlas."""

    site: str
    image: sitk.Image
    label: sitk.Image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder that gets MNI and Colin, each with images and labels")
    parser.add_argument("--subjects", type=int, default=10, help="of each site (10)")
    parser.add_argument("--voxel-mm", type=float, default=2.5, help="voxel size; sides are 0.6 to 1.6 times it (2.5)")
    parser.add_argument("--field-mm", type=float, default=140.0, help="side of the field of view (140)")
    parser.add_argument("--colin", type=Path, default=COLIN, help=f"folder with ch2.nii.gz and aal.nii.gz ({COLIN})")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    try:
        sites = heads(given.colin)
    except FileNotFoundError as error:
        parser.exit(2, f"{error}\n")
    for number, head in enumerate(sites):
        for subject in range(1, given.subjects + 1):
            name = f"{head.site.lower()}{subject:02d}.nii.gz"
            random = np.random.default_rng([given.seed, number, subject])
            image, label = scan(head, random, voxel_mm=given.voxel_mm, field_mm=given.field_mm)
            for kind, volume in (("images", image), ("labels", label)):
                path = given.out / head.site / kind / name
                path.parent.mkdir(parents=True, exist_ok=True)
                sitk.WriteImage(volume, str(path), useCompression=True)
    print(f"{len(sites) * given.subjects} scans in {given.out}\nnext: shiftproof cohort import {given.out} "
          f"--classes {','.join(STRUCTURES)}")  # fmt: skip


def heads(colin: Path = COLIN) -> list[Head]:
    """Both heads.

    Raises:
        FileNotFoundError: If a file is not installed; the message says how to get it.
    """
    t1 = _found(colin / "ch2.nii.gz", "`apt-get install mricron-data`, or name the folder with --colin")
    atlas = _found(colin / "aal.nii.gz", "`apt-get install mricron-data`, or name the folder with --colin")
    nilearn = importlib.util.find_spec("nilearn")
    # Found without an import, which would load much that is not needed here.
    folder = Path(nilearn.origin).parent if nilearn and nilearn.origin else Path("nilearn")
    name = "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
    mni = _found(folder / "datasets" / "data" / name, "`pip install nilearn`, which ships it")
    regions = sitk.ReadImage(str(atlas))
    label = sitk.Cast(regions * 0, sitk.sitkUInt8)
    for index, values in enumerate(STRUCTURES.values(), start=1):
        for value in values:
            label += sitk.Cast(regions == value, sitk.sitkUInt8) * index
    found = []
    for site, path in (("MNI", mni), ("Colin", t1)):
        image = sitk.ReadImage(str(path), sitk.sitkFloat32)
        found.append(Head(site, image, sitk.Resample(label, image, sitk.Transform(), sitk.sitkNearestNeighbor)))
    return found


def scan(head: Head, random: np.random.Generator, *, voxel_mm: float, field_mm: float) -> tuple[sitk.Image, sitk.Image]:
    """Image (int16) and label (uint8) of one subject made from `head`, on a random oblique grid."""
    warp = anatomy(head, random)
    grid = oblique_grid(head, random, voxel_mm=voxel_mm, field_mm=field_mm)
    # A voxel is the mean over its volume: sampled twice as finely along each axis, then averaged.
    fine = sitk.Image([2 * n for n in grid.GetSize()], sitk.sitkUInt8)
    fine.SetSpacing([s / 2 for s in grid.GetSpacing()])
    fine.SetDirection(grid.GetDirection())
    fine.SetOrigin(grid.TransformContinuousIndexToPhysicalPoint([-0.25] * 3))
    image = sitk.BinShrink(sitk.Resample(head.image, fine, warp, sitk.sitkLinear), [2, 2, 2])
    values = acquired(sitk.GetArrayFromImage(image), random)
    image = sitk.GetImageFromArray(values)
    image.CopyInformation(grid)
    return image, sitk.Resample(head.label, grid, warp, sitk.sitkNearestNeighbor)


def anatomy(head: Head, random: np.random.Generator) -> sitk.Transform:
    """A smooth warp of some mm and a small affine, from the subject's points to the head's."""
    affine = sitk.AffineTransform(3)
    affine.SetCenter(_centre(head.image))
    for axis in range(3):
        affine.Rotate(axis, (axis + 1) % 3, random.uniform(-0.08, 0.08))
    affine.Scale(random.uniform(0.93, 1.07, 3).tolist())
    affine.Translate(random.uniform(-4, 4, 3).tolist())
    # Control points 40 mm apart that move by at most 8 mm cannot fold space.
    extent = [n * s for n, s in zip(head.image.GetSize(), head.image.GetSpacing(), strict=True)]
    bend = sitk.BSplineTransformInitializer(head.image, [max(1, round(e / 40)) for e in extent])
    bend.SetParameters(random.uniform(-8, 8, len(bend.GetParameters())).tolist())
    return sitk.CompositeTransform([affine, bend])


def oblique_grid(head: Head, random: np.random.Generator, *, voxel_mm: float, field_mm: float) -> sitk.Image:
    """An empty image around the structures: turned by up to 20 degrees, axes permuted and flipped, one side thick."""
    spacing = np.append(random.uniform(0.6, 1.0, 2), random.uniform(1.0, 1.6)) * voxel_mm
    spacing = random.permutation(spacing)
    axis = random.normal(size=3)
    turn = sitk.VersorTransform((axis / np.linalg.norm(axis)).tolist(), float(np.radians(random.uniform(5, 20))))
    signed = np.eye(3)[random.permutation(3)] * random.choice([-1.0, 1.0], 3)
    direction = np.reshape(turn.GetMatrix(), (3, 3)) @ signed
    size = np.round(field_mm / spacing).astype(int)
    centre = np.array(_centroid(head.label)) + random.uniform(-6, 6, 3)
    grid = sitk.Image(size.tolist(), sitk.sitkUInt8)
    grid.SetSpacing(spacing.tolist())
    grid.SetDirection(direction.ravel().tolist())
    grid.SetOrigin((centre - direction @ (spacing * (size - 1) / 2)).tolist())
    return grid


def acquired(values: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """The signal with a gain, a smooth bias and Rician noise of its own, in whole numbers."""
    axes = np.meshgrid(*[np.linspace(-1, 1, n) for n in values.shape], indexing="ij")
    bias = np.exp(sum(a * random.uniform(-0.15, 0.15) + a * a * random.uniform(-0.1, 0.1) for a in axes))
    signal = values * bias * random.uniform(0.8, 1.25)
    sd = random.uniform(0.01, 0.04) * np.percentile(signal, 99)
    noisy = np.hypot(signal + random.normal(0, sd, signal.shape), random.normal(0, sd, signal.shape))
    return np.round(noisy).astype(np.int16)


def _centre(image: sitk.Image) -> tuple[float, ...]:
    return image.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in image.GetSize()])


def _centroid(label: sitk.Image) -> tuple[float, ...]:
    """Of all structures together."""
    shape = sitk.LabelShapeStatisticsImageFilter()
    shape.Execute(label > 0)
    return tuple(shape.GetCentroid(1))


def _found(path: Path, how: str) -> Path:
    if not path.exists():
        raise FileNotFoundError(f"there is no {path}: {how}")
    return path


if __name__ == "__main__":
    main()
