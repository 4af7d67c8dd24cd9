"""Small scans on disk: blobs in noise, written by SimpleITK or nibabel."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk

from shiftproof.data.cohort import Cohort
from shiftproof.data.labels import LabelMap


def blob(size: tuple[int, int, int], seed: int, *, dtype=np.float32) -> tuple[np.ndarray, np.ndarray]:
    """(image, label), both (X, Y, Z): a bright ellipsoid (2) in a body (1) with an empty border."""
    random = np.random.default_rng(seed)
    axes = np.meshgrid(*[(np.arange(n) + 0.5) / n - 0.5 for n in size], indexing="ij")
    distance = np.sqrt(sum((a - o) ** 2 for a, o in zip(axes, random.uniform(-0.05, 0.05, 3), strict=True)))
    label = (distance < 0.4).astype(np.uint8) + (distance < 0.2)
    image = np.where(label > 0, 100 + 50 * (label == 2) + random.normal(0, 5, size), 0)
    return image.astype(dtype), label


def write(
    path: Path,
    array: np.ndarray,
    *,
    spacing: tuple[float, ...] = (1, 1, 1),
    origin: tuple[float, ...] = (0, 0, 0),
    direction: np.ndarray | None = None,
) -> Path:
    """An (X, Y, Z) array as a file, by SimpleITK alone."""
    image = sitk.GetImageFromArray(array.transpose(2, 1, 0))
    image.SetSpacing(tuple(map(float, spacing)))
    image.SetOrigin(tuple(map(float, origin)))
    if direction is not None:
        image.SetDirection(np.asarray(direction, float).ravel().tolist())
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))
    return path


def make_cohort(
    folder: Path,
    *,
    sites: str = "AB",
    subjects: int = 3,
    size: tuple[int, int, int] = (18, 20, 24),
    spacing: tuple[float, float, float] = (1, 1, 1),
    labels: LabelMap | None = None,
) -> Cohort:
    """A cohort of blobs; label values are 0, 1 (body) and 2 (core)."""
    rows = []
    for s, site in enumerate(sites):
        for i in range(subjects):
            image, label = blob(size, 100 * s + i)
            name = f"{site}{i}"
            write(folder / f"{name}.nii.gz", image, spacing=spacing)
            write(folder / f"{name}_seg.nii.gz", label, spacing=spacing)
            rows.append({"subject": name, "image": f"{name}.nii.gz", "label": f"{name}_seg.nii.gz", "site": site})
    pd.DataFrame(rows).to_csv(folder / "table.csv", index=False)
    (labels or LabelMap.of_values({"body": 1, "core": 2})).write(folder / "labels.toml")
    return Cohort.read(folder / "table.csv")


def rotation(degrees: tuple[float, float, float]) -> np.ndarray:
    from scipy.spatial.transform import Rotation

    return Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()


@pytest.fixture(scope="session")
def scans() -> SimpleNamespace:
    """The functions of this file, for tests that make their own scans."""
    return SimpleNamespace(blob=blob, write=write, make_cohort=make_cohort, rotation=rotation)


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    """Sites A and B with 3 subjects each."""
    return make_cohort(tmp_path)
