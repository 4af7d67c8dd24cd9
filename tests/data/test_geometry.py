from __future__ import annotations

import itertools
import json

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from shiftproof.data.geometry import ORIENTATIONS, Geometry, orientation_of, restore_labels, turned
from shiftproof.data.images import array_of, compare_geometry, image_of, read_image
from shiftproof.data.plan import Plan, preprocess
from shiftproof.errors import GeometryError


def plan(**changes) -> Plan:
    values = {
        "dimensions": 3,
        "orientation": "LPS",
        "spacing_mm": (1.0, 1.0, 1.0),
        "channels": ("image",),
        "classes": ("background", "body", "core"),
        "normalisation": {"image": {"scheme": "zscore"}},
        "patch": (16, 16, 16),
    }
    return Plan(**{**values, **changes})


def axes() -> list[np.ndarray]:
    """The 48 matrices that permute and flip three axes."""
    return [
        np.eye(3)[:, list(order)] * signs
        for order in itertools.permutations(range(3))
        for signs in itertools.product((1, -1), repeat=3)
    ]


def case(scans, direction: np.ndarray, spacing=(1.0, 1.0, 1.0), size=(13, 11, 9)) -> tuple[sitk.Image, sitk.Image]:
    image, label = scans.blob(size, 3)
    made = []
    for array in (image, label):
        one = image_of(array)
        one.SetSpacing(spacing)
        one.SetOrigin((-30.0, 12.5, 7.0))
        one.SetDirection(direction.ravel().tolist())
        made.append(one)
    return made[0], made[1]


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def test_there_are_48_orientations_and_each_direction_has_its_own():
    found = set()
    for direction in axes():
        image = sitk.Image(2, 2, 2, sitk.sitkUInt8)
        image.SetDirection(direction.ravel().tolist())
        found.add(orientation_of(image))
    assert found == ORIENTATIONS
    assert len(found) == 48


@pytest.mark.parametrize("target", ["LPS", "RAS", "PSL", "LSP", "IRA"])
def test_turning_agrees_with_simpleitk_for_every_orientation(scans, target):
    array, _ = scans.blob((4, 5, 6), 0)
    for direction in axes():
        image = image_of(array)
        image.SetDirection((scans.rotation((8, -12, 15)) @ direction).ravel().tolist())
        expected = sitk.GetArrayFromImage(sitk.DICOMOrient(image, target)).T
        np.testing.assert_array_equal(turned(array, orientation_of(image), target), expected)


@pytest.mark.parametrize("degrees", [(0, 0, 0), (11, -17, 23)])
def test_a_label_returns_exactly_from_every_orientation(scans, degrees):
    for direction in axes():
        image, label = case(scans, scans.rotation(degrees) @ direction)
        done = preprocess({"image": image}, label, plan())
        assert done.geometry.cropped == done.geometry.shape
        assert done.geometry.cropped != done.geometry.turned_size  # the border was cropped
        back = restore_labels(done.label, done.geometry)
        np.testing.assert_array_equal(array_of(back), array_of(label))
        assert back.GetSize() == image.GetSize()
        assert back.GetSpacing() == image.GetSpacing()
        assert back.GetOrigin() == image.GetOrigin()
        assert back.GetDirection() == image.GetDirection()


def test_the_same_head_in_any_orientation_is_the_same_case(scans):
    image, label = case(scans, np.eye(3))
    expected = preprocess({"image": image}, label, plan())
    for code in sorted(ORIENTATIONS):
        done = preprocess({"image": sitk.DICOMOrient(image, code)}, sitk.DICOMOrient(label, code), plan())
        np.testing.assert_array_equal(done.image, expected.image)
        np.testing.assert_array_equal(done.label, expected.label)


def test_case_axes_point_where_nibabel_says(tmp_path, scans):
    """A voxel of a case, found by its value, lies in nibabel's world where the case's orientation puts it."""
    affine = np.eye(4)
    direction = scans.rotation((10, 5, -20))[:, [2, 0, 1]] * (-1, 1, -1)
    affine[:3, :3] = direction * (2.0, 1.0, 3.0)
    array = np.arange(1, 4 * 5 * 6 + 1, dtype=np.float32).reshape(4, 5, 6)
    nib.save(nib.Nifti1Image(array, affine), tmp_path / "a.nii.gz")
    image = read_image(tmp_path / "a.nii.gz")
    for target in ("LPS", "RAS", "SAR"):
        moved = turned(array_of(image), orientation_of(image), target)
        first = [np.argwhere(array == moved[corner])[0] for corner in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]]
        world = [(affine @ [*index, 1])[:3] for index in first]
        code = "".join(
            nib.aff2axcodes(np.vstack([np.column_stack([*(w - world[0] for w in world[1:]), world[0]]), [0, 0, 0, 1]]))
        )
        assert code == target


@settings(max_examples=25, deadline=None)
@given(
    size=st.tuples(*[st.integers(3, 12)] * 3),
    spacing=st.tuples(*[st.floats(0.3, 6)] * 3),
    angles=st.tuples(*[st.floats(-180, 180)] * 3),
    flips=st.tuples(*[st.sampled_from([1.0, -1.0])] * 3),
    target=st.sampled_from(sorted(ORIENTATIONS)),
    data=st.data(),
)
def test_what_is_placed_lies_where_it_was_taken(scans, size, spacing, angles, flips, target, data):
    label = image_of(np.random.default_rng(0).integers(0, 4, size).astype(np.uint8))
    label.SetSpacing(spacing)
    label.SetDirection((scans.rotation(angles) * flips).ravel().tolist())
    geometry = Geometry.of(label, target)
    start = tuple(data.draw(st.integers(0, n - 1)) for n in geometry.turned_size)
    cropped = tuple(data.draw(st.integers(1, n - s)) for n, s in zip(geometry.turned_size, start, strict=True))
    geometry = Geometry.from_dict(json.loads(json.dumps(geometry.as_dict() | {"start": start, "cropped": cropped})))
    inside = geometry.forward(array_of(label))
    assert inside.shape == cropped
    back = geometry.place(inside)
    assert compare_geometry(back, label, tolerance=1e-9) is None
    np.testing.assert_array_equal(geometry.forward(array_of(back)), inside)
    assert np.count_nonzero(array_of(back)) == np.count_nonzero(inside)
    changed = array_of(back) != array_of(label)
    assert not geometry.forward(changed).any()


@pytest.mark.parametrize(
    ("spacing", "target"),
    [((1, 1, 1), (1.5, 1.5, 1.5)), ((1, 1, 1), (0.7, 0.7, 0.7)), ((0.9, 0.9, 3.5), (1, 1, 1)), ((1, 1, 1), (1, 1, 2))],
)
def test_a_smooth_label_survives_resampling(scans, spacing, target):
    image, label = case(scans, scans.rotation((5, 10, 15)), spacing, (40, 36, 30))
    done = preprocess({"image": image}, label, plan(spacing_mm=tuple(map(float, target))))
    assert done.geometry.shape != done.geometry.cropped
    back = array_of(restore_labels(done.label, done.geometry))
    for index in (1, 2):
        assert dice(back == index, array_of(label) == index) > 0.93, index


def test_pictures_come_back_as_pictures(tmp_path, scans):
    image, label = scans.blob((20, 22, 1), 0)
    paths = [scans.write(tmp_path / f"{name}.nii.gz", array) for name, array in {"a": image, "l": label}.items()]
    flat = [sitk.ReadImage(str(p))[:, :, 0] for p in paths]
    for one, path in zip(flat, paths, strict=True):
        sitk.WriteImage(one, str(path))
    done = preprocess(
        {"image": read_image(paths[0])},
        read_image(paths[1]),
        plan(dimensions=2, orientation="", spacing_mm=(1.0, 1.0, None), patch=(16, 16)),
    )
    back = restore_labels(done.label, done.geometry)
    assert done.geometry.picture
    np.testing.assert_array_equal(array_of(back)[..., 0], label[..., 0])


def test_an_array_of_the_wrong_shape_is_not_placed(scans):
    image, _ = case(scans, np.eye(3))
    with pytest.raises(GeometryError, match=r"cropped grid \(13, 11, 9\), got \(13, 11, 8\)"):
        Geometry.of(image, "LPS").place(np.zeros((13, 11, 8), np.uint8))
