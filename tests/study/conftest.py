from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk


def write_site(root: Path, site: str, number: int, *, gain: float, seed: int, flip: bool = False) -> list[str]:
    """Discs in 16 x 16 x 4 volumes of 2 x 2 x 6 mm; returns lines of a table."""
    lines = []
    for i in range(number):
        random = np.random.default_rng([seed, i])
        x, y = np.meshgrid(np.arange(16), np.arange(16), indexing="ij")
        label = np.zeros((4, 16, 16), np.uint8)
        for z in range(4):
            cx, cy = random.uniform(6, 10, 2)
            r = np.hypot(x - cx, y - cy)
            label[z] = (r < 5).astype(np.uint8) + (r < 3)
        image = gain * (label + random.normal(0, 0.2, label.shape)) * 100
        for kind, array in {"images": image.astype(np.float32), "labels": label}.items():
            volume = sitk.GetImageFromArray(array)
            volume.SetSpacing((2.0, 2.0, 6.0))
            if flip:
                volume.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))
            path = root / site / kind / f"{site}{i}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            sitk.WriteImage(volume, str(path))
        lines.append(f"{site}{i},{site}/images/{site}{i}.nii.gz,{site}/labels/{site}{i}.nii.gz,{site}")
    return lines


@pytest.fixture(scope="session")
def three_sites(tmp_path_factory) -> Path:
    """Table of three sites with 4 subjects each."""
    root = tmp_path_factory.mktemp("three")
    lines = ["subject,image,label,site"]
    for k, site in enumerate("ABC"):
        lines += write_site(root, site, 4, gain=1.0 + k, seed=k, flip=site == "B")
    (root / "table.csv").write_text("\n".join(lines) + "\n")
    (root / "labels.toml").write_text('classes = ["background", "ring", "disc"]\n[default]\nring = 1\ndisc = 2\n')
    return root / "table.csv"
