"""DICOM trees in, NIfTI under pseudonyms out. Files are made by pydicom, SimpleITK and highdicom."""

from __future__ import annotations

import gzip
import json
import locale
import os
import shutil
import stat
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from shiftproof.data.images import array_of, read_image
from shiftproof.data.importers import import_cohort
from shiftproof.errors import CohortError, OptionError, ShiftproofError

pydicom = pytest.importorskip("pydicom")
from pydicom.dataset import FileDataset, FileMetaDataset  # noqa: E402
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid  # noqa: E402

NAME, NUMBER, BIRTH, PRIVATE = "Zylinski^Waldemar", "PATNO-77123", "19510317", "Zylinskis private note"


def slices(
    folder: Path,
    *,
    patient: str = NUMBER,
    name: str = NAME,
    institution: str = "Hospital of Quxville",
    size: tuple[int, int] = (6, 5),
    heights: tuple[float, ...] = (0.0, 2.5, 5.0, 7.5),
    orientation: tuple[float, ...] = (1, 0, 0, 0, 1, 0),
    origin: tuple[float, ...] = (-20.0, 30.0, 40.0),
    series: str = "",
    frame: str = "",
    entries: dict[str, object] | None = None,
    each: dict[str, list[object]] | None = None,
    values: np.ndarray | None = None,
) -> list[Path]:
    """A CT series, a file a slice, written out of order; identifiers stand wherever a scanner puts them."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(len(patient) + len(heights))
    if values is None:
        values = random.integers(0, 3000, (len(heights), size[1], size[0])).astype(np.uint16)
    normal = np.cross(orientation[:3], orientation[3:])
    series, study, frame = series or generate_uid(), generate_uid(), frame or generate_uid()
    paths = []
    for i in random.permutation(len(heights)):
        meta = FileMetaDataset()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, generate_uid()
        ds = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
        ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = study, series, frame
        ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = name, patient, BIRTH, "M"
        ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = "20190523"
        ds.StudyTime = ds.ContentTime = "101112"
        ds.AccessionNumber, ds.StudyID, ds.InstitutionName = "ACC4477199", "ST90210", institution
        ds.ReferringPhysicianName, ds.StudyDescription = "Doktorova^Jana", f"CT of {name}"
        ds.SeriesDescription, ds.ProtocolName = f"{name} axial", f"{name} protocol"
        ds.Modality, ds.Manufacturer, ds.ManufacturerModelName = "CT", "ACME Scanners", "Slicer 9"
        ds.ConvolutionKernel, ds.BodyPartExamined, ds.SliceThickness = "B30f", "ABDOMEN", 2.5
        ds.ImageType, ds.InstanceNumber, ds.AcquisitionNumber = ["ORIGINAL", "PRIMARY", "AXIAL"], int(i) + 1, 1
        ds.SeriesNumber, ds.PositionReferenceIndicator, ds.LossyImageCompression = 1, "", "00"
        ds.ImageOrientationPatient, ds.PixelSpacing = list(orientation), [0.75, 0.5]  # rows, columns
        ds.ImagePositionPatient = list(np.asarray(origin) + heights[i] * normal)
        ds.Rows, ds.Columns, ds.SamplesPerPixel = size[1], size[0], 1
        ds.PhotometricInterpretation, ds.BitsAllocated, ds.BitsStored, ds.HighBit = "MONOCHROME2", 16, 16, 15
        ds.PixelRepresentation, ds.RescaleSlope, ds.RescaleIntercept = 0, 1, -1024
        ds.private_block(0x0099, "SECRET", create=True).add_new(1, "LO", PRIVATE)
        ds.PixelData = values[i].astype(np.uint16).tobytes()
        for key, value in (entries or {}).items():
            setattr(ds, key, value)
        for key, several in (each or {}).items():
            setattr(ds, key, several[i])
        paths.append(folder / f"{patient}-{len(os.listdir(folder)):03d}")
        ds.save_as(paths[-1], enforce_file_format=True)
    return paths


def contents(folder: Path) -> bytes:
    """Every byte below a folder, also of what is compressed, and every name."""
    found = []
    for path in sorted(folder.rglob("*")):
        found.append(str(path.relative_to(folder)).encode())
        if path.is_file():
            content = path.read_bytes()
            found += [content, gzip.decompress(content) if content[:2] == b"\x1f\x8b" else b""]
    return b"\n".join(found)


def test_slices_become_the_volume_that_simpleitk_reads(tmp_path):
    oblique = (0.8, 0.6, 0.0, 0.0, 0.0, -1.0)
    slices(tmp_path / "in" / "a" / "b", orientation=oblique)
    cohort = import_cohort(tmp_path / "in", tmp_path / "out")
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path / "in" / "a" / "b")))
    expected = reader.Execute()
    (row,) = cohort.rows()
    image = read_image(row.images["image"])
    if np.dot(image.GetDirection()[2::3], expected.GetDirection()[2::3]) < 0:
        expected = sitk.Flip(expected, (False, False, True))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), sitk.GetArrayFromImage(expected))
    np.testing.assert_allclose(image.GetSpacing(), (0.5, 0.75, 2.5))
    np.testing.assert_allclose(image.GetOrigin(), expected.GetOrigin(), atol=1e-4)
    np.testing.assert_allclose(image.GetDirection(), expected.GetDirection(), atol=1e-6)
    assert row.subject == "subject-001"
    assert {
        c: row.columns[c] for c in ("vendor", "model", "kernel", "slice_thickness_mm", "modality", "body_part")
    } == {
        "vendor": "ACME Scanners",
        "model": "Slicer 9",
        "kernel": "B30f",
        "slice_thickness_mm": "2.5",
        "modality": "CT",
        "body_part": "ABDOMEN",
    }


def test_nothing_that_identifies_is_written(tmp_path):
    slices(tmp_path / "in" / NAME, entries={"Manufacturer": "Scanner of Zylinski", "ManufacturerModelName": "20190523"})
    slices(tmp_path / "in" / "films", patient="PATNO-5", name="Novakova^Ida", entries={"NumberOfFrames": 3})
    slices(tmp_path / "in" / "gap", patient="PATNO-6", name="Horvat^Ivo", heights=(0, 2, 8, 10))
    paths = slices(tmp_path / "in" / "damaged", patient="PATNO-8")
    for path in paths:
        path.write_bytes(path.read_bytes()[:-10])
    uids, words = set(), {BIRTH, PRIVATE, "SECRET"}
    for path in (p for p in (tmp_path / "in").rglob("*") if p.is_file()):
        dataset = pydicom.dcmread(path, stop_before_pixels=True)
        uids |= {str(e.value) for e in dataset.iterall() if e.VR == "UI"} - {str(CTImageStorage)}
        words |= {w for e in dataset.iterall() if e.VR in ("PN", "DA", "TM") for w in str(e.value).split("^")}
        words |= {dataset.PatientID, dataset.AccessionNumber, dataset.InstitutionName, dataset.StudyID, "Quxville"}
    cohort = import_cohort(tmp_path / "in", tmp_path / "out", faulty="leave-out")
    written = contents(tmp_path / "out").lower() + (tmp_path / "out.key").read_bytes()
    assert len(uids) > 10
    for word in {w for w in uids | words if len(w) > 2}:
        assert word.lower().encode() not in written, word
    assert str(tmp_path / "in").encode() not in written
    assert set(cohort.subjects) <= {f"subject-00{i}" for i in range(1, 5)}
    assert [row.columns.get("vendor", "") for row in cohort.rows()] == [""]
    left = json.loads((tmp_path / "out" / "left-out.json").read_text())
    assert sorted(entry["why"].split()[0] for entry in left) == ["2", "cannot", *["has"] * 4]
    # Nor do headers carry anything but the grid.
    (image,) = (tmp_path / "out" / "images").iterdir()
    assert not [k for k in sitk.ReadImage(str(image)).GetMetaDataKeys() if k in ("descrip", "aux_file", "intent_name")
                and sitk.ReadImage(str(image)).GetMetaData(k)]  # fmt: skip


def test_a_patient_called_as_a_maker_is_keeps_the_maker_and_short_names_keep_words(tmp_path):
    entries = {"Manufacturer": "Philips Medical Systems", "ManufacturerModelName": "Ingenia of Ann"}
    slices(tmp_path / "in", name="Philips^Ann^Abd", entries=entries)
    (row,) = import_cohort(tmp_path / "in", tmp_path / "out").rows()
    assert row.columns["vendor"] == "Philips Medical Systems"
    assert row.columns.get("model", "") == ""
    assert row.columns["body_part"] == "ABDOMEN"


def test_pseudonyms_stay_when_patients_join_and_need_their_key(tmp_path):
    for i in range(4):
        slices(tmp_path / "in" / str(i), patient=f"ID{i}", institution=f"H{i % 2}", heights=(0, 1, 2 + i * 0))
    first = import_cohort(tmp_path / "in", tmp_path / "out")
    assert first.subjects == [f"subject-00{i}" for i in range(1, 5)]
    assert first.domains == ["site-01", "site-02"]
    before = {p.name: p.read_bytes() for p in (tmp_path / "out" / "images").iterdir()}
    for i in range(4, 9):
        slices(tmp_path / "in" / str(i), patient=f"ID{i}", institution="H9")
    slices(tmp_path / "in" / "later", patient="ID0", institution="H0", heights=(0, 3, 6))
    second = import_cohort(tmp_path / "in", tmp_path / "out")
    assert len(second.subjects) == 9
    assert len(second) == 10
    after = {p.name: p.read_bytes() for p in (tmp_path / "out" / "images").iterdir()}
    assert {name: after[name] for name in before} == before
    assert stat.S_IMODE((tmp_path / "out.key").stat().st_mode) == 0o600
    (tmp_path / "out.key").unlink()
    with pytest.raises(CohortError, match="made with another key"):
        import_cohort(tmp_path / "in", tmp_path / "out")
    # Another key gives another order, which is why the numbers tell nothing.
    orders = set()
    for k in range(3):
        made = import_cohort(tmp_path / "in", tmp_path / f"out{k}", key=tmp_path / f"key{k}")
        orders.add(tuple(row.columns["site"] for row in made.rows()))
    assert len(orders) > 1


def test_a_domain_may_be_a_column_of_the_scanner(tmp_path):
    slices(tmp_path / "in" / "a", patient="A1")
    slices(tmp_path / "in" / "b", patient="B1", entries={"Manufacturer": "Other", "MagneticFieldStrength": 1.5})
    cohort = import_cohort(tmp_path / "in", tmp_path / "out", domain="vendor")
    assert cohort.domains == ["ACME Scanners", "Other"]
    assert {row.columns["site"] for row in cohort.rows()} == {"site-01"}
    assert {row.domain: row.columns["field_strength_t"] for row in cohort.rows()}["Other"] == "1.5"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heights": (0, 2, 4, 8, 10)}, "1 slices are missing after slice 3 of 5, where others are 2 mm apart"),
        ({"heights": (0, 2, 4, 5, 7)}, "the step is 1 mm after slice 3"),
        ({"heights": (0, 2, 2, 4)}, "4 images at 3 positions repeat"),
        ({"each": {"ImagePositionPatient": [[0, 0, 0], [0, 1, 2], [0, 2, 4], [0, 3, 6]]}}, "tilted gantry"),
        ({"each": {"ImagePositionPatient": [[0, 0, 0], [0, 0, 2], [0, 0, 4], None]}}, "1 of 4 images have no position"),
        ({"entries": {"ImageOrientationPatient": [1, 0, 0, 0.5, 0.8, 0]}}, "not at right angles"),
        ({"entries": {"NumberOfFrames": 2}}, "several frames without positions"),
        ({"entries": {"SamplesPerPixel": 3}}, "in colour"),
        ({"entries": {"BurnedInAnnotation": "YES"}}, "text burned into its pixels"),
        ({"entries": {"ImageType": ["ORIGINAL", "PRIMARY", "MOSAIC"]}}, "a mosaic of slices"),
    ],
)
def test_series_that_are_no_regular_volume_are_listed(tmp_path, change, message):
    slices(tmp_path / "in" / "good", patient="GOOD1")
    slices(tmp_path / "in" / "odd", **change)
    with pytest.raises(CohortError, match=message) as caught:
        import_cohort(tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert "Zylinski" not in str(caught.value)
    cohort = import_cohort(tmp_path / "in", tmp_path / "out", faulty="leave-out")
    assert len(cohort) == 1
    assert message.split(" after")[0] in (tmp_path / "out" / "left-out.json").read_text()


def test_several_orientations_and_echoes_are_volumes_of_their_own(tmp_path):
    series, frame = generate_uid(), generate_uid()
    same = {"series": series, "frame": frame}
    slices(tmp_path / "in", **same)
    slices(tmp_path / "in", orientation=(0, 1, 0, 0, 0, -1), heights=(0, 3, 6), **same)
    echoes = {"EchoTime": [10.0, 30.0, 10.0, 30.0, 10.0, 30.0]}
    random = np.random.default_rng(0)
    values = random.integers(0, 99, (6, 5, 6)).astype(np.uint16)
    slices(tmp_path / "in", heights=(0, 0, 2, 2, 4, 4), each=echoes, values=values, series=generate_uid())
    cohort = import_cohort(tmp_path / "in", tmp_path / "out")
    assert len(cohort) == 4
    arrays = [sitk.GetArrayFromImage(read_image(row.images["image"])) for row in cohort.rows()]
    assert sorted(len(a) for a in arrays) == [3, 3, 3, 4]
    for half in (values[0::2], values[1::2]):
        assert any(np.array_equal(a, half.astype(int) - 1024) for a in arrays)


def test_the_same_content_twice_counts_once_and_localizers_do_not(tmp_path):
    paths = slices(tmp_path / "in" / "a")
    shutil.copytree(tmp_path / "in" / "a", tmp_path / "in" / "copy")
    slices(tmp_path / "in" / "scout", entries={"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]})
    (tmp_path / "in" / "readme.txt").write_text("hello")
    cohort = import_cohort(tmp_path / "in", tmp_path / "out")
    assert len(cohort) == 1
    assert read_image(next(cohort.rows()).images["image"]).GetSize() == (6, 5, len(paths))


def test_inverted_grey_values_are_turned_round(tmp_path):
    values = np.arange(4 * 30, dtype=np.uint16).reshape(4, 5, 6)
    entries = {"PhotometricInterpretation": "MONOCHROME1", "BitsStored": 12, "HighBit": 11, "RescaleIntercept": 0}
    slices(tmp_path / "in", values=values, entries=entries)
    cohort = import_cohort(tmp_path / "in", tmp_path / "out")
    found = sitk.GetArrayFromImage(read_image(next(cohort.rows()).images["image"]))
    np.testing.assert_array_equal(found, 4095 - values.astype(int))


@pytest.fixture
def same_locale():
    """SimpleITK's DICOM writer leaves the process in the C locale, in which later tests could not read their files."""
    before = locale.setlocale(locale.LC_ALL)
    yield
    locale.setlocale(locale.LC_ALL, before)


def test_files_that_simpleitk_writes_are_read_with_their_slope(tmp_path, same_locale):
    array = (np.random.default_rng(0).integers(0, 900, (5, 8, 7)) * 0.5).astype(np.float64)
    volume = sitk.GetImageFromArray(array)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    series = generate_uid()
    (tmp_path / "in").mkdir()
    for i in range(5):
        image = volume[:, :, i]
        tags = {
            "0008|0060": "CT", "0020|000e": series, "0010|0020": "XY-9", "0028|1053": "0.5", "0028|1052": "0",
            "0020|0032": f"0\\0\\{-3 * i}", "0020|0037": "1\\0\\0\\0\\1\\0", "0008|0018": generate_uid(),
            "0020|0013": str(i), "0028|0100": "16", "0028|0101": "16", "0028|0102": "15",
            "0028|0103": "0",
        }  # fmt: skip
        for key, value in tags.items():
            image.SetMetaData(key, value)
        writer.SetFileName(str(tmp_path / "in" / f"{i}.dcm"))
        writer.Execute(image)
    assert pydicom.dcmread(tmp_path / "in" / "0.dcm").RescaleSlope == 0.5
    (row,) = import_cohort(tmp_path / "in", tmp_path / "out").rows()
    image = read_image(row.images["image"])
    assert image.GetOrigin()[2] == -12
    assert row.columns["modality"] == "CT"
    np.testing.assert_allclose(sitk.GetArrayFromImage(image), array[::-1], atol=1e-4)


def test_a_missing_folder_for_the_volumes_is_an_error(tmp_path):
    slices(tmp_path / "in")
    for out in (None, tmp_path / "table.csv"):
        with pytest.raises(OptionError, match="needs a folder"):
            import_cohort(tmp_path / "in", out)


def test_a_missing_pydicom_names_the_extra(tmp_path, monkeypatch):
    import sys

    slices(tmp_path / "in")
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(OptionError, match=r"shiftproof\[dicom\]"):
        import_cohort(tmp_path / "in", tmp_path / "out")


def test_patterns_read_sites_but_no_patients_from_paths(tmp_path):
    slices(tmp_path / "in" / "north" / "x", patient="A1", name="Kovac^Ana")
    slices(tmp_path / "in" / "south" / "y", patient="B1", name="Molnar^Eva")
    cohort = import_cohort(tmp_path / "in", tmp_path / "out", pattern=r"^(?P<site>\w+)/")
    assert cohort.domains == ["north", "south"]
    for pattern in (r"(?P<site>PATNO\d)", r"^(?P<subject>\w+)", r"^(?P<site>\w+)/(?P<folder>\w+)/(?P<name>\w+)"):
        folder = tmp_path / "in2" / "north" / "x"
        if not folder.exists():
            slices(folder, patient="PATNO1", name="Kovac^Ana")
        with pytest.raises(CohortError, match="identifies a patient"):
            import_cohort(tmp_path / "in2", tmp_path / "out2", pattern=pattern)


def test_sample_files_of_pydicom_are_converted_or_refused_by_type(tmp_path):
    source = Path(pydicom.__file__).parent / "data" / "test_files"
    (tmp_path / "in").mkdir()
    for path in source.glob("*.dcm"):
        shutil.copy(path, tmp_path / "in")
    with pytest.raises(CohortError, match="no regular volumes"):
        import_cohort(tmp_path / "in", tmp_path / "out")
    cohort = import_cohort(tmp_path / "in", tmp_path / "out", faulty="leave-out")
    read = [sitk.GetArrayFromImage(read_image(row.images["image"])) for row in cohort.rows()]
    for name in ("CT_small.dcm", "MR_small.dcm", "image_dfl.dcm"):
        expected = sitk.GetArrayFromImage(sitk.ReadImage(str(source / name), imageIO="GDCMImageIO"))
        assert any(a.shape == expected.shape and np.array_equal(a, expected) for a in read), name


@pytest.mark.parametrize(
    "name",
    ["MR_small_RLE", "MR_small_bigendian", "MR_small_implicit", "MR_small_jp2klossless", "MR_small_jpeg_ls_lossless"],
)
def test_every_transfer_syntax_gives_the_same_values(tmp_path, name):
    source = Path(pydicom.__file__).parent / "data" / "test_files"
    arrays = []
    for i, file in enumerate((name, "MR_small")):
        (tmp_path / f"in{i}").mkdir()
        shutil.copy(source / f"{file}.dcm", tmp_path / f"in{i}")
        cohort = import_cohort(tmp_path / f"in{i}", tmp_path / f"out{i}")
        arrays.append(sitk.GetArrayFromImage(read_image(next(cohort.rows()).images["image"])))
    np.testing.assert_array_equal(*arrays)


NICOM = "nibabel.nicom.dicomwrappers"


def test_sample_files_of_nibabel_are_converted_but_no_mosaics(tmp_path):
    nicom = pytest.importorskip(NICOM)
    source = Path(nicom.__file__).parent / "tests" / "data"
    (tmp_path / "in").mkdir()
    for name in ("0.dcm", "csa_slice_norm.dcm", "slicethickness_empty_string.dcm"):
        shutil.copy(source / name, tmp_path / "in")
    (row,) = import_cohort(tmp_path / "in", tmp_path / "out", faulty="leave-out").rows()
    assert (tmp_path / "out" / "left-out.json").read_text().count("a mosaic of slices") == 2
    wrapped = nicom.wrapper_from_file(source / "slicethickness_empty_string.dcm")
    array = sitk.GetArrayFromImage(read_image(row.images["image"]))
    np.testing.assert_allclose(array[0], wrapped.get_data())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_philips_file_of_many_frames_has_the_values_that_nibabel_reads(tmp_path):
    nicom = pytest.importorskip(NICOM)
    source = Path(nicom.__file__).parent / "tests" / "data" / "philips_mprage.dcm.gz"
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "mprage").write_bytes(gzip.decompress(source.read_bytes()))
    (row,) = import_cohort(tmp_path / "in", tmp_path / "out").rows()
    image = read_image(row.images["image"])
    frames = nicom.wrapper_from_data(pydicom.dcmread(tmp_path / "in" / "mprage"))
    array = sitk.GetArrayFromImage(image).transpose(1, 2, 0)  # rows, columns, slices as nibabel has them
    expected = frames.get_data()
    first = np.allclose(image.GetOrigin(), frames.affine[:3, 3], atol=1e-2)
    np.testing.assert_allclose(array, expected if first else expected[..., ::-1], rtol=1e-5)
    assert row.columns["vendor"].startswith("Philips")
    assert row.columns["field_strength_t"] == "3"


@pytest.mark.parametrize("seed", range(3))
def test_damaged_headers_are_typed_errors(tmp_path, seed):
    paths = slices(tmp_path / "in")
    random = np.random.default_rng(seed)
    for path in paths:
        content = bytearray(path.read_bytes())
        for place in random.integers(132, len(content) - 60, 12):
            content[place] = random.integers(256)
        path.write_bytes(content)
    # Refused in one line, or read: then what was written can be read again and lost no scan.
    try:
        cohort = import_cohort(tmp_path / "in", tmp_path / "out", format="dicom")
    except ShiftproofError:
        assert not (tmp_path / "out" / "table.csv").exists()
        return
    assert len(cohort) >= 1
    for row in cohort.rows():
        assert all(np.isfinite(array_of(read_image(path))).all() for path in row.images.values())


def segmentation(path: Path, paths: list[Path], label: np.ndarray, names: list[str], **changes: str) -> None:
    """A DICOM-SEG file by highdicom; `label` is (slices, rows, columns[, segments]) in the order of `paths`."""
    highdicom = pytest.importorskip("highdicom")
    from pydicom.sr.codedict import codes

    described = [
        highdicom.seg.SegmentDescription(
            segment_number=i,
            segment_label=name,
            segmented_property_category=codes.cid7150.Tissue,
            segmented_property_type=codes.cid7166.ConnectiveTissue,
            algorithm_type="MANUAL",
        )
        for i, name in enumerate(names, start=1)
    ]
    seg = highdicom.seg.Segmentation(
        [pydicom.dcmread(p) for p in paths],
        label,
        changes.get("kind", "BINARY"),
        described,
        generate_uid(),
        9,
        generate_uid(),
        1,
        "Maker",
        "Model",
        "1",
        "2",
        content_creator_name=NAME,
    )
    for key, value in changes.items():
        if key != "kind":
            setattr(seg, key, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    seg.save_as(path)


def in_order(paths: list[Path]) -> list[Path]:
    return sorted(paths, key=lambda p: pydicom.dcmread(p).ImagePositionPatient[2])


def test_segmentations_are_labels_of_the_series_that_they_name(tmp_path):
    a = in_order(slices(tmp_path / "in" / "a", patient="A1"))
    b = in_order(slices(tmp_path / "in" / "b", patient="B1", institution="Other"))
    slices(tmp_path / "in" / "c", patient="C1")
    label = np.random.default_rng(0).integers(0, 3, (4, 5, 6)).astype(np.uint8)
    label[1] = 0  # frames without a structure are not in the file
    segmentation(tmp_path / "in" / "seg.dcm", a, label, ["spleen", "liver"])
    segmentation(tmp_path / "in" / "other.dcm", b, (label == 2).astype(np.uint8), ["spleen"])
    cohort = import_cohort(tmp_path / "in", tmp_path / "out")
    assert cohort.classes == ["background", "liver", "spleen"]
    by = {row.subject: row for row in cohort.rows()}
    assert cohort.labelled == 2
    found = [read_image(row.label) for row in by.values() if row.label]
    arrays = [sitk.GetArrayFromImage(image) for image in found]
    expected = [np.array([0, 2, 1])[label], np.array([0, 2])[(label == 2).astype(int)]]
    assert all(any(np.array_equal(e, f) for f in arrays) for e in expected)
    small = next(row for row in by.values() if row.label and 1 not in sitk.GetArrayFromImage(read_image(row.label)))
    assert cohort.labels.annotated(small.domain) == (True, False, True)
    for row in by.values():
        if row.label:
            assert read_image(row.label).GetOrigin() == read_image(row.images["image"]).GetOrigin()
    assert b"zylinski" not in contents(tmp_path / "out").lower()


def test_segmentations_that_fit_nothing_overlap_or_are_fractions_are_listed(tmp_path):
    paths = in_order(slices(tmp_path / "in" / "a"))
    label = np.zeros((4, 5, 6, 2), np.uint8)
    label[1, 2:4, 2:4] = 1
    segmentation(tmp_path / "in" / "overlap.dcm", paths, label, ["x", "y"])
    with pytest.raises(CohortError, match="its segments overlap"):
        import_cohort(tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "out" / "table.csv").exists()
    segmentation(tmp_path / "in" / "overlap.dcm", paths, label[..., 0] * 0.5, ["x"], kind="FRACTIONAL")
    with pytest.raises(CohortError, match="fractions"):
        import_cohort(tmp_path / "in", tmp_path / "out")
    segmentation(tmp_path / "in" / "overlap.dcm", paths, label[..., 0], ["x"], FrameOfReferenceUID=generate_uid())
    with pytest.raises(CohortError, match="segments no series"):
        import_cohort(tmp_path / "in", tmp_path / "out")


def test_a_segment_named_after_the_patient_takes_the_name_of_its_type(tmp_path):
    paths = in_order(slices(tmp_path / "in" / "a"))
    segmentation(tmp_path / "in" / "s.dcm", paths, np.ones((4, 5, 6), np.uint8), ["Zylinski tumour"])
    assert import_cohort(tmp_path / "in", tmp_path / "out").classes == ["background", "Connective tissue"]


def test_enhanced_files_with_many_frames_are_one_volume(tmp_path):
    highdicom = pytest.importorskip("highdicom")
    paths = in_order(slices(tmp_path / "slices"))
    enhanced = highdicom.legacy.LegacyConvertedEnhancedCTImage(
        [pydicom.dcmread(p) for p in paths], generate_uid(), 2, generate_uid(), 1
    )
    (tmp_path / "in").mkdir()
    enhanced.save_as(tmp_path / "in" / "x")
    (row,) = import_cohort(tmp_path / "in", tmp_path / "out").rows()
    (plain,) = import_cohort(tmp_path / "slices", tmp_path / "plain").rows()
    first, second = read_image(row.images["image"]), read_image(plain.images["image"])
    np.testing.assert_array_equal(sitk.GetArrayFromImage(first), sitk.GetArrayFromImage(second))
    assert first.GetSpacing() == second.GetSpacing()
    assert first.GetOrigin() == second.GetOrigin()
    assert row.columns["slice_thickness_mm"] == "2.5"


def test_a_missing_highdicom_names_the_extra_only_where_it_is_needed(tmp_path, monkeypatch):
    import sys

    paths = in_order(slices(tmp_path / "in" / "a"))
    segmentation(tmp_path / "seg" / "s.dcm", paths, np.ones((4, 5, 6), np.uint8), ["liver"])
    monkeypatch.setitem(sys.modules, "highdicom", None)
    assert len(import_cohort(tmp_path / "in", tmp_path / "out")) == 1
    shutil.copy(tmp_path / "seg" / "s.dcm", tmp_path / "in")
    with pytest.raises(OptionError, match=r"highdicom.*shiftproof\[dicom\]"):
        import_cohort(tmp_path / "in", tmp_path / "out")
