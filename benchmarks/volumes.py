"""A cohort of synthetic volumes on disk: smooth structures of three classes in noise."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas
import SimpleITK as sitk
from scipy import ndimage

SITES = ("A", "B")


def write_cohort(folder: Path, *, count: int, size: int, spacing_mm: float = 1.0, suffix: str = ".nii.gz") -> Path:
    """`count` scans of `size`^3 with labels, divided over two sites; the table's path."""
    rows = []
    for i in range(count):
        random = np.random.default_rng(i)
        coarse = ndimage.zoom(random.normal(size=(8, 8, 8)), size / 8, order=1)
        label = np.digitize(coarse, [0.5, 1.0, 1.5]).astype(np.uint8)
        image = (200 * label + 100 + random.normal(0, 20, label.shape)).clip(0).astype(np.int16)
        row = {"subject": f"s{i:03d}", "site": SITES[i % len(SITES)]}
        for name, array in (("image", image), ("label", label)):
            volume = sitk.GetImageFromArray(array)
            volume.SetSpacing((spacing_mm,) * 3)
            row[name] = f"{row['subject']}-{name}{suffix}"
            sitk.WriteImage(volume, str(folder / row[name]))
        rows.append(row)
    pandas.DataFrame(rows).to_csv(folder / "table.csv", index=False)
    classes = ["background", "low", "middle", "high"]
    values = "".join(f"{name} = {value}\n" for value, name in enumerate(classes))
    (folder / "labels.toml").write_text(f"classes = {json.dumps(classes)}\n[default]\n{values}")
    return folder / "table.csv"
