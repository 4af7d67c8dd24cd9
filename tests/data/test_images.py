from __future__ import annotations

import pickle
import resource
import signal

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from shiftproof.data.images import (
    array_of,
    compare_geometry,
    image_of,
    is_picture,
    mark_picture,
    read_image,
    stem_of,
    suffix_of,
    write_image,
)
from shiftproof.data.integrity import FileError
from shiftproof.errors import ImageError, StorageError

VOLUMES = [".nii", ".nii.gz", ".nrrd", ".mha", ".tif"]


def noise(size=(12, 10, 8), seed=0):
    return np.random.default_rng(seed).normal(100, 20, size).astype(np.float32)


@pytest.mark.parametrize("suffix", VOLUMES)
def test_written_volumes_read_back_equal(tmp_path, suffix):
    array = noise()
    write_image(image_of(array), tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(array_of(read_image(tmp_path / f"a{suffix}")), array)
    assert [p.name for p in tmp_path.iterdir()] == [f"a{suffix}"]


@pytest.mark.parametrize("share", [0.05, 0.6, 0.99])
@pytest.mark.parametrize("suffix", [*VOLUMES, ".png"])
@pytest.mark.parametrize("compressed", [False, True])
def test_a_file_that_breaks_off_is_an_error_and_says_nothing_else(tmp_path, suffix, compressed, share, capfd):
    array = noise((60, 50)) if suffix == ".png" else noise((30, 20, 25))
    image = sitk.GetImageFromArray(array.T.astype(np.uint8) if suffix == ".png" else array.T)
    path = tmp_path / f"a{suffix}"
    sitk.WriteImage(image, str(path), compressed)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(FileError, match=f"a{suffix}.*(truncated|cannot be read)"):
        read_image(path)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("order", ["<", ">"])
def test_bytes_are_counted_in_both_byte_orders(tmp_path, order):
    plain = nib.Nifti1Image(noise((5, 6, 7)), np.eye(4)).header
    header = plain if plain.endianness == order else plain.as_byteswapped(order)
    nib.save(nib.Nifti1Image(noise((5, 6, 7)), np.eye(4), header), tmp_path / "a.nii")
    assert nib.load(tmp_path / "a.nii").header.endianness == order
    np.testing.assert_array_equal(array_of(read_image(tmp_path / "a.nii")), noise((5, 6, 7)))
    content = (tmp_path / "a.nii").read_bytes()
    (tmp_path / "b.nii").write_bytes(content[:-1])
    with pytest.raises(FileError, match=f"promises {len(content)} bytes, it has {len(content) - 1}"):
        read_image(tmp_path / "b.nii")


def test_a_plain_file_under_a_compressed_name_is_read(tmp_path):
    write_image(image_of(noise()), tmp_path / "a.nii")
    (tmp_path / "b.nii.gz").write_bytes((tmp_path / "a.nii").read_bytes())
    np.testing.assert_array_equal(array_of(read_image(tmp_path / "b.nii.gz")), noise())


def test_nifti_2_is_refused_with_a_cure(tmp_path):
    nib.save(nib.Nifti2Image(noise(), np.eye(4)), tmp_path / "a.nii.gz")
    with pytest.raises(FileError, match="NIfTI-2, expected NIfTI-1; save it as NIfTI-1"):
        read_image(tmp_path / "a.nii.gz")


def test_damage_inside_a_compressed_file_is_an_error(tmp_path):
    write_image(image_of(noise((20, 20, 20))), tmp_path / "a.nii.gz")
    content = bytearray((tmp_path / "a.nii.gz").read_bytes())
    content[len(content) // 2] ^= 0xFF
    (tmp_path / "a.nii.gz").write_bytes(content)
    with pytest.raises(FileError, match=r"a\.nii\.gz is (damaged|truncated)"):
        read_image(tmp_path / "a.nii.gz")


def test_a_file_that_was_repaired_is_read_again(tmp_path):
    write_image(image_of(noise()), tmp_path / "good.nii")
    (tmp_path / "a.nii").write_bytes((tmp_path / "good.nii").read_bytes()[:-8])
    with pytest.raises(FileError):
        read_image(tmp_path / "a.nii")
    (tmp_path / "a.nii").write_bytes((tmp_path / "good.nii").read_bytes())
    np.testing.assert_array_equal(array_of(read_image(tmp_path / "a.nii")), noise())


def test_errors_tell_what_came_and_what_would_work(tmp_path):
    (tmp_path / "empty.nii.gz").touch()
    (tmp_path / "text.nii.gz").write_text("hello")
    (tmp_path / "text.mha").write_text("hello")
    (tmp_path / "text.tif").write_text("hello")
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "folder.nii").mkdir()
    expected = {
        "none.nii.gz": ("missing", "does not exist; correct the path"),
        "empty.nii.gz": ("truncated", r"is empty \(0 bytes\)"),
        "text.nii.gz": ("unreadable", "no NIfTI file"),
        "text.mha": ("unreadable", "no MetaImage file"),
        "text.tif": ("unreadable", "no TIFF file"),
        "notes.txt": ("unreadable", "no image format known here; name a file that ends in .nii.gz"),
        "folder.nii": ("unreadable", "is a folder"),
    }
    for name, (kind, message) in expected.items():
        with pytest.raises(FileError, match=f"{name}.*{message}") as caught:
            read_image(tmp_path / name)
        assert caught.value.kind == kind
        assert "\n" not in str(caught.value)


def test_a_file_error_survives_the_way_from_another_process():
    error = pickle.loads(pickle.dumps(FileError("a is empty", "truncated", "copy it")))
    assert (str(error), error.kind, error.cure) == ("a is empty; copy it", "truncated", "copy it")


def test_several_volumes_are_refused_with_their_number(tmp_path):
    nib.save(nib.Nifti1Image(noise((5, 6, 7, 3)), np.eye(4)), tmp_path / "a.nii.gz")
    with pytest.raises(FileError, match=r"4D with 3 volumes of 5 x 6 x 7 voxels.*image:NAME"):
        read_image(tmp_path / "a.nii.gz")
    nib.save(nib.Nifti1Image(noise((5, 6, 7, 1)), np.eye(4)), tmp_path / "b.nii.gz")
    assert read_image(tmp_path / "b.nii.gz").GetSize() == (5, 6, 7)


def test_colour_and_complex_values_are_refused(tmp_path):
    colour = sitk.GetImageFromArray(np.zeros((8, 9, 3), np.uint8), isVector=True)
    sitk.WriteImage(colour, str(tmp_path / "a.png"))
    with pytest.raises(FileError, match="3 values a voxel.*convert it to grey"):
        read_image(tmp_path / "a.png")
    nib.save(nib.Nifti1Image(noise().astype(np.complex64), np.eye(4)), tmp_path / "b.nii")
    with pytest.raises(FileError, match=r"complex|values a voxel"):
        read_image(tmp_path / "b.nii")


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300])
def test_values_that_are_not_finite_are_counted(tmp_path, suffix, bad):
    array = noise().astype(np.float64)
    array[2:4, 5, 6] = bad
    write_image(image_of(array), tmp_path / f"a{suffix}")
    with pytest.raises(FileError, match=f"2 of {array.size} values that are not finite") as caught:
        read_image(tmp_path / f"a{suffix}")
    assert caught.value.kind == "not finite"


def test_sheared_axes_are_refused(tmp_path):
    affine = np.eye(4)
    affine[0, 1] = 0.3
    image = nib.Nifti1Image(noise(), affine)
    nib.save(image, tmp_path / "a.nii.gz")
    with pytest.raises(FileError, match="not at right angles"):
        read_image(tmp_path / "a.nii.gz")


@pytest.mark.parametrize("suffix", [".png", ".tif", ".nii.gz", ".nrrd", ".mha"])
def test_pictures_become_volumes_of_one_slice_and_pictures_again(tmp_path, suffix):
    array = np.arange(56, dtype=np.uint8).reshape(8, 7)
    image = sitk.GetImageFromArray(array.T)
    image.SetSpacing((0.5, 0.25))
    sitk.WriteImage(image, str(tmp_path / f"a{suffix}"))
    volume = read_image(tmp_path / f"a{suffix}")
    assert volume.GetSize() == (8, 7, 1)
    assert is_picture(volume)
    np.testing.assert_array_equal(array_of(volume)[..., 0], array)
    # Dots per inch are no millimetres of a body.
    assert volume.GetSpacing()[:2] == ((1.0, 1.0) if suffix in (".png", ".tif") else (0.5, 0.25))
    write_image(volume, tmp_path / f"b{suffix}")
    again = sitk.ReadImage(str(tmp_path / f"b{suffix}"))
    assert again.GetSize() == (8, 7)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(again).T, array)


def test_a_volume_with_one_slice_is_no_picture(tmp_path):
    nib.save(nib.Nifti1Image(noise((5, 6, 1)), np.eye(4)), tmp_path / "a.nii.gz")
    image = read_image(tmp_path / "a.nii.gz")
    assert not is_picture(image)
    write_image(image, tmp_path / "b.nii.gz")
    assert sitk.ReadImage(str(tmp_path / "b.nii.gz")).GetSize() == (5, 6, 1)


def test_voxels_lie_where_nibabel_says(tmp_path, scans):
    affine = np.eye(4)
    affine[:3, :3] = scans.rotation((20, -35, 60)) @ np.diag([0.8, 1.5, 3.0])
    affine[:3, 3] = 10, -20, 30
    nib.save(nib.Nifti1Image(noise((7, 8, 9)), affine), tmp_path / "a.nii.gz")
    image = read_image(tmp_path / "a.nii.gz")
    for index in [(0, 0, 0), (6, 0, 0), (2, 7, 8)]:
        # SimpleITK's world points to the left and back, nibabel's to the right and front.
        x, y, z = image.TransformIndexToPhysicalPoint(index)
        np.testing.assert_allclose((-x, -y, z), (affine @ [*index, 1])[:3], atol=1e-4)
    written = tmp_path / "b.nii.gz"
    write_image(image, written)
    np.testing.assert_allclose(nib.load(written).affine, affine, atol=1e-4)
    np.testing.assert_array_equal(np.asarray(nib.load(written).dataobj), noise((7, 8, 9)))


def test_differences_in_geometry_are_told_by_how_much(scans):
    base = image_of(noise((20, 20, 20)))

    def changed(**how):
        image = sitk.Image(base)
        for name, value in how.items():
            getattr(image, name)(value)
        return image

    assert compare_geometry(base, changed()) is None
    assert compare_geometry(base, changed(SetOrigin=(5e-4, 0, 0), SetSpacing=(1.0005, 1, 1))) is None
    assert "size 20 x 20 x 20 against 12 x 10 x 8 voxels" in compare_geometry(base, image_of(noise()))
    assert "(1, 1, 1) against (1, 1, 1.5) mm (by up to 0.5 mm)" in compare_geometry(
        base, changed(SetSpacing=(1, 1, 1.5))
    )
    assert "by 5 mm" in compare_geometry(base, changed(SetOrigin=(3, 4, 0)))
    turned = changed(SetDirection=scans.rotation((0, 0, 7)).ravel().tolist())
    assert compare_geometry(base, turned) == "direction by 7 degrees"
    flipped = changed(SetDirection=np.diag([-1.0, 1, 1]).ravel().tolist())
    assert compare_geometry(base, flipped) == "direction by 180 degrees"
    # The tolerance is relative: a hundredth of a millimetre counts where voxels are small.
    fine = changed(SetSpacing=(0.05, 0.05, 0.05))
    moved = changed(SetSpacing=(0.05, 0.05, 0.05), SetOrigin=(0.01, 0, 0))
    assert "origin" in compare_geometry(fine, moved)


def test_writing_refuses_what_a_format_cannot_hold(tmp_path):
    for name, message in {"a.jpg": "format is unknown", "a.mhd": "second file", "a.png": "one slice"}.items():
        with pytest.raises(ImageError, match=message):
            write_image(image_of(noise()), tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".nrrd", ".mha", ".tif", ".png"])
def test_a_disk_that_fills_up_leaves_the_old_file(tmp_path, suffix, capfd):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"old")
    image = image_of(np.random.default_rng(0).integers(0, 255, (300, 300, 1)).astype(np.uint8))
    mark_picture(image)
    # A limit on the size of files fails writes as a full disk does.
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, old[1][1]))
    try:
        with pytest.raises(StorageError, match=r"cannot write .*a\."):
            write_image(image, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old[1])
        signal.signal(signal.SIGXFSZ, old[0])
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_array_outlives_its_image():
    arrays = [array_of(image_of(noise((40, 40, 40), seed))) for seed in range(8)]
    for seed, array in enumerate(arrays):
        np.testing.assert_array_equal(array, noise((40, 40, 40), seed))
        assert not array.flags.writeable


def test_stems_and_suffixes_of_names():
    assert suffix_of("sub-1.5.NII.GZ") == ".nii.gz"
    assert stem_of("sub-1.5.NII.GZ") == "sub-1.5"
    assert suffix_of("notes.txt") == ""
    assert stem_of("a.tiff") == "a"
