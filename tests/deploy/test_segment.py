"""One scan: labels in its exact geometry, equal to what whole volumes would give, in little memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from torch.nn import functional as F

from shiftproof.data.images import array_of, image_of, read_image, write_image
from shiftproof.data.plan import preprocess
from shiftproof.data.samples import Samples
from shiftproof.deploy.model import load_model, save_model
from shiftproof.deploy.segment import label_of, segment, write_probabilities
from shiftproof.errors import ImageError, ModelError
from shiftproof.tasks.windows import volume_scores


def turned(x: float, y: float, z: float) -> np.ndarray:
    """Rotation about the three axes, radians."""
    c, s = np.cos([x, y, z]), np.sin([x, y, z])
    about_x = np.array([[1, 0, 0], [0, c[0], -s[0]], [0, s[0], c[0]]])
    about_y = np.array([[c[1], 0, s[1]], [0, 1, 0], [-s[1], 0, c[1]]])
    about_z = np.array([[c[2], -s[2], 0], [s[2], c[2], 0], [0, 0, 1]])
    return about_x @ about_y @ about_z


def affine(direction: np.ndarray, spacing: tuple[float, ...]) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = direction * np.array(spacing)
    matrix[:3, 3] = (-71.3, 12.25, 40.5)
    return matrix


AFFINES = {
    "straight": affine(np.eye(3), (1.0, 1.0, 1.0)),
    "flipped": affine(np.diag([-1.0, 1.0, -1.0]), (1.0, 1.0, 1.0)),
    "left-handed": affine(np.diag([1.0, -1.0, 1.0]), (1.0, 1.0, 1.0)),
    "permuted": affine(np.eye(3)[:, [2, 0, 1]], (1.0, 1.0, 1.0)),
    "oblique": affine(turned(0.2, -0.3, 0.4), (1.0, 1.0, 1.0)),
    "oblique, permuted, flipped": affine((turned(0.1, 0.3, -0.2) * [1, -1, 1])[:, [1, 2, 0]], (1.0, 1.0, 1.0)),
    "anisotropic": affine(np.eye(3), (0.7, 0.9, 3.3)),
    "oblique, anisotropic": affine(turned(-0.25, 0.1, 0.3)[:, [2, 1, 0]], (2.6, 0.8, 1.1)),
}


@pytest.mark.parametrize("name", list(AFFINES))
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_the_output_lies_in_the_input_s_geometry(name: str, suffix: str, tmp_path: Path, tiny: Any) -> None:
    array = tiny.steps((17, 15, 13))
    path = tiny.write_nifti(tmp_path / f"scan{suffix}", array, AFFINES[name])
    found = label_of(tiny.levels(tiny.plan()), {"image": path})

    given = sitk.ReadImage(str(path))
    assert found.GetSize() == given.GetSize()
    assert found.GetSpacing() == given.GetSpacing()
    assert found.GetOrigin() == given.GetOrigin()
    assert found.GetDirection() == given.GetDirection()
    assert found.GetPixelID() == sitk.sitkUInt8
    # As written, seen by the library that made the scan.
    write_image(found, tmp_path / "out.nii.gz")
    theirs = nibabel.load(tmp_path / "out.nii.gz")
    np.testing.assert_allclose(theirs.affine, nibabel.load(path).affine, atol=1e-5)
    assert theirs.shape == array.shape
    if "anisotropic" not in name:
        # Nothing is resampled: a model that reads levels gives them back, voxel by voxel.
        np.testing.assert_array_equal(np.asarray(theirs.dataobj), array)


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_other_formats_keep_their_geometry(suffix: str, tmp_path: Path, tiny: Any) -> None:
    image = image_of(tiny.steps((9, 8, 7)).astype(np.int16))
    image.SetSpacing((0.5, 0.75, 1.25))
    image.SetOrigin((3.0, -4.0, 5.0))
    image.SetDirection(turned(0.3, 0.1, -0.2).ravel().tolist())
    sitk.WriteImage(image, str(tmp_path / f"scan{suffix}"))
    found = label_of(tiny.levels(tiny.plan(spacing_mm=(0.5, 0.75, 1.25))), {"image": tmp_path / f"scan{suffix}"})
    given = sitk.ReadImage(str(tmp_path / f"scan{suffix}"))
    for what in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
        assert getattr(found, what)() == getattr(given, what)()
    np.testing.assert_array_equal(array_of(found), tiny.steps((9, 8, 7)))


def test_a_picture_gives_a_picture(tmp_path: Path, tiny: Any) -> None:
    array = tiny.steps((21, 13))
    sitk.WriteImage(sitk.GetImageFromArray(array.T.astype(np.uint8)), str(tmp_path / "scan.png"))
    plan = tiny.plan(dimensions=2, orientation="", spacing_mm=(1.0, 1.0, None), patch=(8, 8))
    found = label_of(tiny.levels(plan), {"image": tmp_path / "scan.png"})
    write_image(found, tmp_path / "out.png")
    written = sitk.ReadImage(str(tmp_path / "out.png"))
    assert written.GetSize() == (21, 13)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(written).T, array)


@pytest.mark.parametrize(
    ("dimensions", "spacing", "patch"),
    [
        (3, (1.0, 1.0, 1.0), (8, 8, 8)),
        (3, (0.6, 1.7, 0.9), (16, 8, 8)),
        (2, (1.3, 0.7, None), (8, 16)),
        (2, (1.0, 1.0, None), (64, 64)),
    ],
)
def test_streaming_gives_what_whole_volumes_give(
    dimensions: int, spacing: tuple, patch: tuple[int, ...], tmp_path: Path, tiny: Any
) -> None:
    """A network, windows, a resampled grid and an oblique file, against the same with whole volumes in memory."""
    plan = tiny.plan(dimensions=dimensions, spacing_mm=spacing, patch=patch)
    method, recipe, setting = tiny.trained("erm", plan)
    save_model(tmp_path / "model", method, recipe, plan, setting)
    model = load_model(tmp_path / "model", device="cpu")
    random = np.random.default_rng(0)
    array = np.pad(random.normal(1, 1, (19, 17, 12)), 2).astype(np.float32)
    path = tiny.write_nifti(tmp_path / "scan.nii.gz", array, AFFINES["oblique, anisotropic"])
    found = segment(model, {"image": path}, probabilities=True)

    prepared = preprocess({"image": read_image(path)}, None, plan)
    with torch.no_grad():
        scores = volume_scores(lambda s: method.eval()(s), torch.from_numpy(prepared.image), window=patch)
        whole = F.interpolate(scores[None], size=prepared.geometry.cropped, mode="trilinear", align_corners=False)[
            0
        ].double()
    best = whole.topk(2, dim=0).values
    clear = (best[0] - best[1] > 1e-4).numpy()
    assert clear.mean() > 0.99
    assert len(whole.argmax(0).unique()) > 1
    inside = prepared.geometry.forward(array_of(found.label))
    np.testing.assert_array_equal(inside[clear], whole.argmax(0).numpy()[clear])
    assert found.probabilities is not None
    for k, probability in enumerate(found.probabilities):
        mine = prepared.geometry.forward(array_of(probability)) / 255
        np.testing.assert_allclose(mine, whole.softmax(0)[k].numpy(), atol=0.5 / 255 + 1e-4)


def test_outside_of_the_crop_is_background_for_certain(tmp_path: Path, tiny: Any) -> None:
    array = tiny.steps((14, 12, 10), margin=3)
    path = tiny.write_nifti(tmp_path / "scan.nii.gz", array, AFFINES["oblique"])
    found = segment(tiny.levels(tiny.plan()), {"image": path}, probabilities=True)
    assert found.probabilities is not None
    write_probabilities(found.probabilities, tmp_path / "p.nii.gz")
    theirs = nibabel.load(tmp_path / "p.nii.gz")
    assert theirs.shape == (14, 12, 10, 3)
    np.testing.assert_allclose(theirs.affine, nibabel.load(path).affine, atol=1e-5)
    values = theirs.get_fdata()
    np.testing.assert_allclose(values[0, 0, 0], [1, 0, 0])
    np.testing.assert_allclose(values.sum(-1), 1, atol=2 / 255)
    np.testing.assert_array_equal(values.argmax(-1), array)
    # ITK scales, too.
    assert sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "p.nii.gz"))).max() == pytest.approx(1)


def test_probabilities_of_a_picture_are_a_volume_a_class(tmp_path: Path, tiny: Any) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(tiny.steps((21, 13)).T.astype(np.uint8)), str(tmp_path / "scan.png"))
    plan = tiny.plan(dimensions=2, orientation="", spacing_mm=(1.0, 1.0, None), patch=(32, 32))
    found = segment(tiny.levels(plan), {"image": tmp_path / "scan.png"}, probabilities=True)
    assert found.probabilities is not None
    write_probabilities(found.probabilities, tmp_path / "p.nii.gz")
    assert nibabel.load(tmp_path / "p.nii.gz").shape == (21, 13, 3)


def test_a_channel_that_is_missing_is_told_to_the_method(tmp_path: Path, tiny: Any) -> None:
    plan = tiny.plan(channels=("t1", "t2"))
    seen = []

    def predict(samples: Samples) -> torch.Tensor:
        seen.append(samples)
        return samples.image[:, :1].repeat(1, 3, 1, 1, 1)

    path = tiny.write_nifti(tmp_path / "scan.nii.gz", tiny.steps(), np.eye(4))
    label_of(tiny.levels(plan, predict), {"t1": path, "t2": None})
    assert all(samples.extra["present"].tolist() == [[True, False]] * len(samples) for samples in seen)
    assert all(not samples.image[:, 1].any() for samples in seen)
    assert all(samples.domain is None and samples.label is None for samples in seen)


@pytest.mark.parametrize("images", [{}, {"t2": None}, {"image": None, "more": None}])
def test_channels_that_are_not_the_model_s_are_refused(images: dict, tiny: Any) -> None:
    with pytest.raises(ModelError, match="reads the channels image, got"):
        label_of(tiny.levels(tiny.plan()), images)


def test_a_scan_without_any_channel_is_refused(tiny: Any) -> None:
    with pytest.raises(ImageError, match="none of the channels"):
        label_of(tiny.levels(tiny.plan()), {"image": None})


def test_scores_that_are_not_finite_are_refused(tmp_path: Path, tiny: Any) -> None:
    def predict(samples: Samples) -> torch.Tensor:
        return samples.image.repeat(1, 3, 1, 1, 1).log()

    path = tiny.write_nifti(tmp_path / "scan.nii.gz", tiny.steps(), np.eye(4))
    with pytest.raises(ModelError, match="scores that are not finite"):
        label_of(tiny.levels(tiny.plan(), predict), {"image": path})


def test_images_in_memory_do_as_well_as_files(tmp_path: Path, tiny: Any) -> None:
    path = tiny.write_nifti(tmp_path / "scan.nii.gz", tiny.steps(), AFFINES["oblique"])
    model = tiny.levels(tiny.plan())
    first, second = label_of(model, {"image": path}), label_of(model, {"image": read_image(path)})
    np.testing.assert_array_equal(array_of(first), array_of(second))


MEMORY = """
import re
import numpy as np, torch
from dataclasses import replace
from pathlib import Path
from shiftproof.data.geometry import Geometry
from shiftproof.data.images import image_of
from shiftproof.data.plan import Plan, Preprocessed
from shiftproof.deploy import segment
from shiftproof.deploy.model import Model
from shiftproof.tasks.segmentation import Segmentation

torch.set_num_threads(1)
n, m = 160, 144
image = image_of(np.zeros((n, n, n), np.uint8))
# Preprocessing has a peak of its own, in which that of the scores would be hidden.
geometry = replace(Geometry.of(image, "RAS"), shape=(m, m, m))
array = np.random.default_rng(0).random((1, m, m, m), np.float32)
segment.preprocess = lambda *_: Preprocessed(array, None, geometry, np.ones(1, bool), {})
peaks = []
for number in (2, 2, 8):
    classes = tuple(f"c{k}" for k in range(number))
    plan = Plan(3, "RAS", (1.0, 1.0, 1.0), ("image",), classes, {"image": {"scheme": "zscore"}}, (32, 32, 32))
    predict = lambda s: s.image.expand(-1, number, -1, -1, -1)
    model = Model(predict, Segmentation(classes), plan, torch.device("cpu"), "m", Path("m"))
    segment.label_of(model, {"image": image})
    # Not getrusage: its peak is inherited from the process that started this one.
    peaks.append(int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024)
print(peaks[2] - peaks[1])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
def test_memory_does_not_grow_by_a_volume_for_each_class() -> None:
    """A 160^3 scan with windows of 32^3: six further classes are 20 MB in the ring, 98 MB as volumes."""
    run = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    assert 0 < int(run.stdout) < 6 * 160**3 * 4 / 2
