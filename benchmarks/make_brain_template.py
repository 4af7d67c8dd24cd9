"""Make `shiftproof/scenarios/files/brain_template.npz` from the ICBM152 maps that nilearn installs.

python benchmarks/make_brain_template.py [--out FILE]

The file holds what the scenario brain-sites needs of the MNI152 head and nothing else (licence: NOTICE):

    grey, wm       tissue fractions, uint8 0..255, at `spacing_mm`; what is left inside the brain is CSF
    surface        signed distance from the brain's hull, 0.2 mm a unit, 40 at the hull, more outside
    ventricles     the lateral ventricles, blurred; its gradient is the direction in which they grow
    origin_mm      MNI (RAS) position of the centre of voxel 0 of grey and wm; `coarse_*` of the others

The template is skull-stripped, so that the distance is all that the scenario knows of the head around it.
"""

from __future__ import annotations

import argparse
from importlib.resources import files
from pathlib import Path

import nibabel
import numpy as np
from scipy import ndimage

FINE_MM, COARSE_MM = 1.5, 3.0
PAD_MM, MARGIN_MM = 36, 27
OUT = Path(__file__).parents[1] / "shiftproof" / "scenarios" / "files" / "brain_template.npz"


def read(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Values 0..1 and the RAS position of voxel 0; nilearn stores the maps at 1 mm without rotation."""
    path = files("nilearn.datasets") / "data" / f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz"
    image = nibabel.load(str(path))
    if not np.allclose(image.affine[:3, :3], np.eye(3)):
        raise SystemExit(f"{path}: expected 1 mm voxels along R, A, S; got affine {image.affine.tolist()}")
    return np.asanyarray(image.dataobj) / 255.0, image.affine[:3, 3]


def resampled(volume: np.ndarray, spacing_mm: float) -> np.ndarray:
    """On a coarser grid with the same voxel 0; blurred first by about the new voxel's width."""
    blurred = ndimage.gaussian_filter(volume, 0.35 * spacing_mm)
    axes = [np.arange(int((n - 1) // spacing_mm) + 1) * spacing_mm for n in volume.shape]
    return ndimage.map_coordinates(blurred, np.meshgrid(*axes, indexing="ij"), order=1, mode="nearest")


def hull_distance(brain: np.ndarray) -> np.ndarray:
    """Signed distance in mm from the brain with its fissures closed, on a 1 mm grid."""
    closed = ndimage.distance_transform_edt(~brain) < 8
    closed = ndimage.distance_transform_edt(closed) > 8  # closing by a ball of 8 mm
    closed = ndimage.binary_fill_holes(closed | brain)
    distance = ndimage.distance_transform_edt(~closed) - ndimage.distance_transform_edt(closed)
    return ndimage.gaussian_filter(distance, 2.0)


def lateral_ventricles(brain: np.ndarray, fluid: np.ndarray) -> np.ndarray:
    """The largest pool of CSF deeper than 15 mm below the brain's surface."""
    pools, count = ndimage.label(ndimage.binary_opening((fluid > 0.5) & (ndimage.distance_transform_edt(brain) > 15)))
    sizes = ndimage.sum_labels(np.ones_like(pools), pools, np.arange(1, count + 1))
    return pools == 1 + int(np.argmax(sizes))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=OUT)
    out = parser.parse_args().out

    t1, origin = read("t1")
    grey, wm = read("gm")[0], read("wm")[0]
    brain = t1 > 0
    grey, wm = grey * brain, wm * brain
    fluid = np.clip(1 - grey - wm, 0, 1) * brain

    # The coarse maps have room for skull and scalp around the brain.
    padded = np.pad(brain, PAD_MM)
    box = ndimage.find_objects(padded.astype(np.uint8))[0]
    box = tuple(slice(b.start - MARGIN_MM, b.stop + MARGIN_MM, int(COARSE_MM)) for b in box)
    surface = hull_distance(padded)[box]
    ventricles = ndimage.gaussian_filter(np.pad(lateral_ventricles(brain, fluid), PAD_MM) * 1.0, 6.0)[box]
    coarse_origin = origin + [b.start - PAD_MM for b in box]

    arrays = {
        "grey": np.rint(resampled(grey, FINE_MM) * 255).astype(np.uint8),
        "wm": np.rint(resampled(wm, FINE_MM) * 255).astype(np.uint8),
        "surface": np.clip(np.rint(surface * 5) + 40, 0, 255).astype(np.uint8),
        "ventricles": np.rint(ventricles / ventricles.max() * 255).astype(np.uint8),
        "spacing_mm": np.array(FINE_MM),
        "origin_mm": origin.astype(np.float64),
        "coarse_spacing_mm": np.array(COARSE_MM),
        "coarse_origin_mm": coarse_origin,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(out, **arrays)
    print(f"{out}: {out.stat().st_size / 1e6:.2f} MB;", {k: v.shape for k, v in arrays.items() if v.ndim})


if __name__ == "__main__":
    main()
