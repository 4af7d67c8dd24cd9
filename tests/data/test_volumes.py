"""Volumes of 4D and multi-channel files, foreign byte orders and scales, and headers that promise too much."""

from __future__ import annotations

import gzip
import struct
import tracemalloc
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk

from shiftproof.data import integrity
from shiftproof.data.checks import check
from shiftproof.data.cohort import Cohort
from shiftproof.data.hashes import FileHashes
from shiftproof.data.images import array_of, file_of, read_image, stem_of, suffix_of, volume_of, volumes_in
from shiftproof.data.integrity import FileError
from shiftproof.errors import ImageError


def noise(*size: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(100, 20, size).astype(np.float32)


def test_names_of_volumes_are_divided():
    assert file_of("d/a.nii.gz#2") == Path("d/a.nii.gz")
    assert file_of("d/a.nii.gz") == Path("d/a.nii.gz")
    assert [volume_of(n) for n in ("a.nii.gz#12", "a.nii.gz", "a#2", "a#2.nii", "a.nii#x")] == [
        12,
        None,
        None,
        None,
        None,
    ]
    assert (suffix_of("a.NII.GZ#3"), stem_of("a.NII.GZ#3")) == (".nii.gz", "a")
    assert (suffix_of("a.txt#3"), stem_of("a#2.nii")) == ("", "a#2")


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("order", "<>")
def test_each_volume_of_a_4d_file_is_where_and_what_nibabel_says(tmp_path, suffix, order):
    affine = np.diag([2.0, 3, 4, 1])
    affine[:3, 3] = 5, 6, 7
    stored = np.random.default_rng(0).integers(-900, 900, (5, 6, 7, 3)).astype(np.int16)
    plain = nib.Nifti1Image(stored, affine).header
    image = nib.Nifti1Image(stored, affine, plain if plain.endianness == order else plain.as_byteswapped(order))
    image.header.set_slope_inter(0.5, 10)
    nib.save(image, tmp_path / f"a{suffix}")
    loaded = nib.load(tmp_path / f"a{suffix}")
    assert loaded.header.endianness == order
    assert volumes_in(tmp_path / f"a{suffix}") == 3
    for i in range(3):
        found = read_image(tmp_path / f"a{suffix}#{i}")
        np.testing.assert_allclose(array_of(found), loaded.get_fdata()[..., i], rtol=1e-6)
        np.testing.assert_allclose(array_of(found), stored[..., i] * 0.5 + 10, rtol=1e-6)
        assert found.GetSpacing() == (2, 3, 4)
        assert found.GetOrigin() == (-5, -6, 7)
    with pytest.raises(FileError, match=rf"a{suffix}#3 names volume 3, counted from 0, but a{suffix} has 3; .*0 to 2"):
        read_image(tmp_path / f"a{suffix}#3")
    with pytest.raises(FileError, match=rf"4D with 3 volumes.*a{suffix}#0 is the first"):
        read_image(tmp_path / f"a{suffix}")


def test_values_of_vectors_and_colours_are_volumes_too(tmp_path):
    array = noise(5, 6, 7, 3)
    vector = sitk.GetImageFromArray(array.transpose(2, 1, 0, 3), isVector=True)
    for suffix in (".nii.gz", ".nrrd", ".mha"):
        sitk.WriteImage(vector, str(tmp_path / f"a{suffix}"))
        for i in range(3):
            np.testing.assert_array_equal(array_of(read_image(tmp_path / f"a{suffix}#{i}")), array[..., i])
    colour = np.random.default_rng(0).integers(0, 255, (8, 9, 3)).astype(np.uint8)
    sitk.WriteImage(sitk.GetImageFromArray(colour, isVector=True), str(tmp_path / "c.png"))
    assert volumes_in(tmp_path / "c.png") == 3
    np.testing.assert_array_equal(array_of(read_image(tmp_path / "c.png#1"))[..., 0].T, colour[..., 1])
    with pytest.raises(FileError, match="names volume 3"):
        read_image(tmp_path / "c.png#3")


def test_five_axes_count_the_first_of_the_further_ones_fastest(tmp_path):
    array = noise(4, 5, 6, 2, 3)
    image = nib.Nifti1Image(array, np.eye(4))
    nib.save(image, tmp_path / "a.nii")
    for i in range(6):
        np.testing.assert_array_equal(array_of(read_image(tmp_path / f"a.nii#{i}")), array[..., i % 2, i // 2])
    image.header.set_intent("vector")
    nib.save(image, tmp_path / "vectors.nii")
    with pytest.raises(FileError, match="2 volumes of 3 values a voxel, expected volumes or values"):
        read_image(tmp_path / "vectors.nii#3")


def test_the_only_volume_may_be_named(tmp_path):
    nib.save(nib.Nifti1Image(noise(4, 5, 6), np.eye(4)), tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(array_of(read_image(tmp_path / "a.nii.gz#0")), noise(4, 5, 6))
    with pytest.raises(FileError, match="does not exist"):
        read_image(tmp_path / "b.nii.gz#0")


def test_hashes_tell_the_volumes_of_a_file_apart(tmp_path):
    nib.save(nib.Nifti1Image(noise(4, 5, 6, 2), np.eye(4)), tmp_path / "a.nii.gz")
    hashes = FileHashes()
    found = {hashes.of(tmp_path / name) for name in ("a.nii.gz", "a.nii.gz#0", "a.nii.gz#1")}
    assert len(found) == 3
    (tmp_path / "b.nii.gz").write_bytes((tmp_path / "a.nii.gz").read_bytes())
    assert hashes.of(tmp_path / "b.nii.gz#1") in found
    with pytest.raises(ImageError, match="cannot be read"):
        hashes.of(tmp_path / "none.nii.gz#1")


def test_a_cohort_of_volumes_is_checked_moved_and_hashed(tmp_path):
    rows = []
    for i in range(2):
        nib.save(nib.Nifti1Image(noise(6, 7, 8, 2, seed=i), np.eye(4)), tmp_path / f"{i}.nii.gz")
        label = (noise(6, 7, 8, seed=9 + i) > 100).astype(np.uint8)
        nib.save(nib.Nifti1Image(label, np.eye(4)), tmp_path / f"{i}_seg.nii.gz")
        rows.append({"subject": str(i), "site": "A", "image:T1": f"{i}.nii.gz#0", "image:T2": f"{i}.nii.gz#1"})
        rows[-1]["label"] = f"{i}_seg.nii.gz"
    pd.DataFrame(rows).to_csv(tmp_path / "table.csv", index=False)
    (tmp_path / "labels.toml").write_text('classes = ["background", "x"]\n[default]\nx = 1\n')
    cohort = Cohort.read(tmp_path)
    assert check(cohort, minimum=1) == []
    cohort.write(tmp_path / "sub" / "table.csv")
    assert Cohort.read(tmp_path / "sub").hash() == cohort.hash()
    rows[1]["image:T2"] = "1.nii.gz#2"
    pd.DataFrame(rows).to_csv(tmp_path / "table.csv", index=False)
    (problem,) = check(Cohort.read(tmp_path), minimum=1)
    assert "names volume 2" in problem.message


def header(dims: tuple[int, ...], *, kind: int = 2, bits: int = 8, order: str = "<") -> bytearray:
    """A NIfTI header by its layout alone."""
    head = bytearray(352)
    struct.pack_into(order + "i", head, 0, 348)
    struct.pack_into(order + "8h", head, 40, *(*dims, *[1] * 8)[:8])
    struct.pack_into(order + "2h", head, 70, kind, bits)
    struct.pack_into(order + "8f", head, 76, 1, 1, 1, 1, 1, 1, 1, 1)
    struct.pack_into(order + "f", head, 108, 352.0)
    head[344:348] = b"n+1\0"
    return head


def refused(path: Path, message: str) -> None:
    """Reading is a typed error with the file's name, and takes no memory to speak of."""
    tracemalloc.start()
    try:
        with pytest.raises(FileError, match=f"{path.name}.*{message}") as caught:
            read_image(path)
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("dims", [(3, 30000, 30000, 30000), (7, *[32767] * 7), (4, 2000, 2000, 2000, 9)])
def test_gigabyte_dimensions_in_a_tiny_file_are_refused_before_reading(tmp_path, dims, packed):
    content = bytes(header(dims)) + bytes(1000)
    path = tmp_path / ("a.nii.gz" if packed else "a.nii")
    path.write_bytes(gzip.compress(content) if packed else content)
    refused(path, "promises")


@pytest.mark.parametrize("dims", [(0, 5, 5, 5), (3, -5, 5, 5), (9, 5, 5, 5), (3, 0, 5, 5)])
def test_headers_that_make_no_sense_are_refused(tmp_path, dims):
    (tmp_path / "a.nii").write_bytes(bytes(header(dims)) + bytes(1000))
    refused(tmp_path / "a.nii", "makes no sense")


def test_a_bomb_behind_a_small_volume_is_refused_early(tmp_path, monkeypatch):
    monkeypatch.setattr(integrity, "_BEHIND", 1 << 20)
    packer = zlib.compressobj(9, wbits=31)
    content = packer.compress(bytes(header((3, 5, 5, 5))) + bytes(125))
    content += b"".join(packer.compress(bytes(1 << 20)) for _ in range(200)) + packer.flush()
    (tmp_path / "a.nii.gz").write_bytes(content)
    refused(tmp_path / "a.nii.gz", "behind its values")


def test_a_volume_that_grows_beyond_reason_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(integrity, "_LARGE", 1 << 20)
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(bytes(header((3, 200, 200, 200))) + bytes(200**3)))
    refused(tmp_path / "a.nii.gz", "would grow")


def test_a_volume_that_exceeds_the_machine_is_refused(tmp_path, monkeypatch):
    nib.save(nib.Nifti1Image(noise(20, 20, 20), np.eye(4)), tmp_path / "a.nii.gz")
    monkeypatch.setattr(integrity.os, "sysconf", lambda name: 100)
    refused(tmp_path / "a.nii.gz", "GiB of memory")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.mha", "ObjectType = Image\nNDims = 3\nDimSize = 9000 9000 9000\nElementType = MET_FLOAT\n"
         "CompressedData = True\nCompressedDataSize = 20\nElementDataFile = LOCAL\n"),
        ("a.nrrd", "NRRD0004\ntype: float\ndimension: 3\nsizes: 9000 9000 9000\nencoding: gzip\nendian: little\n\n"),
        ("a.mhd", "ObjectType = Image\nNDims = 3\nDimSize = 9000 9000 9000\nElementType = MET_FLOAT\n"
         "ElementDataFile = a.raw\n"),
    ],
)  # fmt: skip
def test_other_formats_may_not_promise_gigabytes_either(tmp_path, name, text):
    (tmp_path / name).write_bytes(text.encode() + gzip.compress(bytes(100)))
    (tmp_path / "a.raw").write_bytes(bytes(100))
    refused(tmp_path / name, "promises")


def test_a_png_may_not_promise_gigabytes(tmp_path):
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = chunk(b"IHDR", struct.pack(">2I5B", 100000, 100000, 8, 0, 0, 0, 0))
    (tmp_path / "a.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"0")) + chunk(b"IEND", b"")
    )
    refused(tmp_path / "a.png", "(promises|cannot be read)")


@pytest.mark.parametrize("outside", ["../secret.raw", "/etc/hostname", "sub/../../secret.raw"])
def test_headers_may_not_name_values_outside_of_their_folder(tmp_path, outside):
    (tmp_path / "secret.raw").write_bytes(bytes(125))
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.mhd").write_text(
        f"ObjectType = Image\nNDims = 3\nDimSize = 5 5 5\nElementType = MET_UCHAR\nElementDataFile = {outside}\n"
    )
    (folder / "a.nhdr").write_text(
        f"NRRD0004\ntype: uchar\ndimension: 3\nsizes: 5 5 5\nencoding: raw\ndata file: {outside}\n"
    )
    for name in ("a.mhd", "a.nhdr"):
        with pytest.raises(ImageError, match=f"{name} names .* expected a file in its own folder"):
            read_image(folder / name)


@pytest.mark.parametrize(("place", "code"), [(256, 252), (280, 254), (300, 254), (80, 254)])
def test_an_affine_that_is_not_finite_is_refused(tmp_path, place, code, capfd):
    content = header((3, 5, 5, 5))
    struct.pack_into("<h", content, code, 1)
    struct.pack_into("<f", content, place, float("nan"))
    (tmp_path / "a.nii").write_bytes(bytes(content) + bytes(125))
    refused(tmp_path / "a.nii", "affine that is not finite")
    assert capfd.readouterr() == ("", "")


def test_tiff_pages_of_different_kinds_are_refused(tmp_path):
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((3, 9, 8), np.uint8)), str(tmp_path / "a.tif"))
    assert read_image(tmp_path / "a.tif").GetSize() == (8, 9, 3)
    content = bytearray((tmp_path / "a.tif").read_bytes())
    (first,) = struct.unpack_from("<I", content, 4)
    assert struct.unpack_from("<HHII", content, first + 2) == (254, 4, 1, 2)
    struct.pack_into("<I", content, first + 2 + 8, 0)  # the first page is no "page of several" any more
    (tmp_path / "a.tif").write_bytes(content)
    refused(tmp_path / "a.tif", "pages of different sizes or kinds")


def test_several_colour_pages_are_one_volume(tmp_path):
    array = np.random.default_rng(0).integers(0, 255, (3, 9, 8, 3)).astype(np.uint8)
    sitk.WriteImage(sitk.GetImageFromArray(array, isVector=True), str(tmp_path / "a.tif"))
    np.testing.assert_array_equal(array_of(read_image(tmp_path / "a.tif#1")).transpose(2, 1, 0), array[..., 1])


@pytest.mark.parametrize("count", [b"9" * 30, b"0", b"-1", b"x", b"6"])
def test_metaimage_headers_with_absurd_axes_do_not_reach_the_reader(tmp_path, count):
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((3, 9, 8), np.uint8)), str(tmp_path / "a.mha"))
    content = (tmp_path / "a.mha").read_bytes()
    (tmp_path / "a.mha").write_bytes(content.replace(b"NDims = 3", b"NDims = " + count))
    refused(tmp_path / "a.mha", "NDims = 1 to 5")


@pytest.mark.parametrize("name", ["a.mha", "a.nrrd"])
def test_formats_of_one_file_may_not_borrow_another_files_values(tmp_path, name):
    (tmp_path / "secret.raw").write_bytes(bytes(125))
    folder = tmp_path / "in"
    folder.mkdir()
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((5, 5, 5), np.uint8)), str(folder / name))
    content = (folder / name).read_bytes()
    content = content.replace(b"ElementDataFile = LOCAL", b"ElementDataFile = ../secret.raw")
    content = content.replace(b"encoding: raw\n", b"encoding: raw\ndata file: ../secret.raw\n")
    (folder / name).write_bytes(content)
    assert b"secret" in content
    with pytest.raises(ImageError, match=f"{name} names .*secret.raw.* in its own folder"):
        read_image(folder / name)


def test_a_header_with_bytes_that_are_no_text_is_read(tmp_path):
    array = noise(5, 6, 7)
    sitk.WriteImage(sitk.GetImageFromArray(array.transpose(2, 1, 0)), str(tmp_path / "a.mha"))
    content = (tmp_path / "a.mha").read_bytes()
    (tmp_path / "a.mha").write_bytes(content.replace(b"ElementSpacing", b"Not\xff\xfe = 1\nElementSpacing", 1))
    np.testing.assert_array_equal(array_of(read_image(tmp_path / "a.mha")), array)
