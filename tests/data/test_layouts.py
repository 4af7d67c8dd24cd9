"""Layouts of other tools, with files made by nibabel."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from shiftproof.data.cohort import Cohort
from shiftproof.data.images import array_of, read_image
from shiftproof.data.importers import import_cohort
from shiftproof.data.integrity import FileError
from shiftproof.errors import CohortError, LabelError, OptionError

SIZE = (6, 5, 4)


@pytest.fixture
def put(tmp_path):
    """Write a NIfTI file by nibabel: noise, of several volumes if asked for, or a label of given values."""

    def put(name: str, values: tuple[int, ...] | None = None, *, volumes: int = 0) -> Path:
        random = np.random.default_rng(len(name))
        if values is None:
            array = random.normal(100, 10, SIZE + ((volumes,) if volumes else ())).astype(np.float32)
        else:
            array = random.permutation(np.resize(values, np.prod(SIZE))).reshape(SIZE).astype(np.uint8)
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(array, np.diag([1, 1, 2, 1])), path)
        return path

    return put


@pytest.fixture
def write(tmp_path):
    def write(name: str, content: object) -> Path:
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return write


def nnunet(put, write, folder: str, cases: tuple[str, ...], labels: dict[str, object], values: tuple[int, ...], **more):
    for case in cases:
        for channel in range(2):
            put(f"{folder}/imagesTr/{case}_{channel:04d}.nii.gz")
        put(f"{folder}/labelsTr/{case}.nii.gz", values)
    content = {"channel_names": {"0": "T1", "1": "FLAIR"}, "labels": labels, "file_ending": ".nii.gz"}
    write(f"{folder}/dataset.json", {**content, "numTraining": len(cases), **more})


def test_several_nnunet_data_sets_are_sites(tmp_path, put, write):
    plain = {"background": 0, "core": 1, "edema": 2}
    nnunet(put, write, "Dataset001_North", ("n1", "n2"), plain, (0, 1, 2))
    nnunet(put, write, "Dataset002_South", ("s1",), plain, (0, 1, 2))
    for channel in ("0000", "0001"):
        put(f"Dataset002_South/imagesTs/s9_{channel}.nii.gz")
    cohort = import_cohort(tmp_path / "in")
    assert cohort.domains == ["North", "South"]
    assert cohort.channels == ["T1", "FLAIR"]
    assert cohort.classes == ["background", "core", "edema"]
    rows = {row.subject: row for row in cohort.rows()}
    assert rows["s9"].label is None
    assert rows["s9"].columns["split"] == "test"
    assert rows["n1"].images["FLAIR"].name == "n1_0001.nii.gz"


def test_sites_within_a_data_set_come_from_the_names_of_cases(tmp_path, put, write):
    nnunet(put, write, "Dataset001_Brain", ("Oslo_01", "Oslo_02", "Rome_01"), {"background": 0, "a": 1}, (0, 1))
    pattern = r"^(?P<site>[A-Za-z]+)_(?P<subject>\d+)"
    cohort = import_cohort(tmp_path / "in", pattern=r"^(?P<site>[A-Za-z]+)_", format="nnunet")
    assert cohort.domains == ["Oslo", "Rome"]
    cohort = import_cohort(tmp_path / "in", pattern=pattern, domain="hospital")
    assert cohort.domains == ["Oslo", "Rome"]
    assert cohort.subjects == ["01", "02"]
    for wrong, error, message in [
        ("(?P<site>[A-Z", OptionError, "no regular expression"),
        ("[A-Za-z]+", OptionError, "names no group"),
        (r"(?P<site>Oslo)", CohortError, "is not found in Rome_01"),
    ]:
        with pytest.raises(error, match=message):
            import_cohort(tmp_path / "in", pattern=wrong)


def test_overlapping_regions_make_a_multi_label_cohort(tmp_path, put, write):
    regions = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3, "ignore": 9}
    nnunet(put, write, "Dataset001_A", ("a1", "a2"), regions, (0, 1, 2, 3, 9), regions_class_order=[1, 2, 3])
    cohort = import_cohort(tmp_path / "in")
    assert cohort.labels.kind == "multi-label"
    assert cohort.classes == ["background", "whole", "core", "enhancing"]
    assert dict(cohort.labels.default.values) == {
        "background": (0,),
        "whole": (1, 2, 3),
        "core": (2, 3),
        "enhancing": (3,),
    }
    assert cohort.labels.default.ignore == (9,)
    assert Cohort.read(tmp_path / "in").labels == cohort.labels
    put("Dataset001_A/labelsTr/a2.nii.gz", (0, 7))
    with pytest.raises(LabelError, match=r"values \[7\], which no structure"):
        import_cohort(tmp_path / "in")


def test_regions_that_do_not_overlap_are_classes_of_several_values(tmp_path, put, write):
    nnunet(put, write, "Dataset001_A", ("a1",), {"background": 0, "lesion": [1, 2], "vessel": 3}, (0, 1, 2, 3))
    cohort = import_cohort(tmp_path / "in")
    assert cohort.labels.encode(np.array([0, 1, 2, 3]), "A").tolist() == [0, 1, 1, 2]


def test_an_incomplete_nnunet_data_set_says_what_is_missing(tmp_path, put, write):
    plain = {"background": 0, "core": 1}
    nnunet(put, write, "D", ("a", "b"), plain, (0, 1), numTraining=3)
    with pytest.raises(CohortError, match="says 3 training cases, found 2"):
        import_cohort(tmp_path / "in")
    nnunet(put, write, "D", ("a", "b"), plain, (0, 1), file_ending=".nrrd")
    with pytest.raises(CohortError, match=r'file_ending ".nrrd", but there is'):
        import_cohort(tmp_path / "in")
    nnunet(put, write, "D", ("a", "b"), plain, (0, 1))
    (tmp_path / "in/D/imagesTr/a_0001.nii.gz").unlink()
    with pytest.raises(CohortError, match="case a has the channels T1, dataset.json names FLAIR, T1"):
        import_cohort(tmp_path / "in")
    put("D/imagesTr/a_0001.nii.gz")
    (tmp_path / "in/D/labelsTr/b.nii.gz").unlink()
    with pytest.raises(CohortError, match="training case b has no file in labelsTr"):
        import_cohort(tmp_path / "in")


def test_a_decathlon_task_has_a_column_for_each_modality_of_a_4d_file(tmp_path, put, write):
    for case in "ab":
        put(f"Task01_Tumour/imagesTr/{case}.nii.gz", volumes=2)
        put(f"Task01_Tumour/labelsTr/{case}.nii.gz", (0, 1, 2))
    put("Task01_Tumour/imagesTs/t.nii.gz", volumes=2)
    dataset = {
        "modality": {"0": "FLAIR", "1": "T1w"},
        "labels": {"0": "background", "1": "edema", "2": "core"},
        "training": [{"image": f"./imagesTr/{c}.nii.gz", "label": f"./labelsTr/{c}.nii.gz"} for c in "ab"],
        "test": ["./imagesTs/t.nii.gz"],
    }
    write("Task01_Tumour/dataset.json", dataset)
    cohort = import_cohort(tmp_path / "in")
    assert cohort.channels == ["FLAIR", "T1w"]
    assert cohort.classes == ["background", "edema", "core"]
    assert [(r.subject, r.columns["split"], r.label is not None) for r in cohort.rows()] == [
        ("a", "train", True), ("b", "train", True), ("t", "test", False),
    ]  # fmt: skip
    row = next(cohort.rows())
    assert row.images["T1w"].name == "a.nii.gz#1"
    volume = nib.load(tmp_path / "in/Task01_Tumour/imagesTr/a.nii.gz").get_fdata()
    for i, channel in enumerate(cohort.channels):
        np.testing.assert_allclose(array_of(read_image(row.images[channel])), volume[..., i])
    dataset["modality"]["2"] = "T2w"
    write("Task01_Tumour/dataset.json", dataset)
    with pytest.raises(CohortError, match="has 2 volumes, .* names 3 modalities"):
        import_cohort(tmp_path / "in")


@pytest.mark.parametrize("name", ["../../secret.nii.gz", "/etc/passwd", "imagesTr/none.nii.gz", 7, "", "a\0b"])
def test_files_outside_of_a_decathlon_task_or_missing_are_refused(tmp_path, put, write, name):
    put("../secret.nii.gz")
    put("imagesTr/a.nii.gz")
    good = {"image": "imagesTr/a.nii.gz"}
    write("dataset.json", {"modality": {"0": "CT"}, "labels": {}, "training": [good, {"image": name}]})
    with pytest.raises(CohortError, match=r"dataset\.json names .*(outside|exist|expected)"):
        import_cohort(tmp_path / "in")


def bids(put, write) -> None:
    people = "participant_id\tage\tsex\tsite\nsub-01\t34\tM\tA\nsub-02\t41.5\tF\tB\nsub-03\tn/a\tM\tB\n"
    write("participants.tsv", people)
    write("dataset_description.json", {"Name": "x", "BIDSVersion": "1.9.0"})
    write("T1w.json", {"Manufacturer": "ACME", "MagneticFieldStrength": 3})
    for name in ("01", "02", "03"):
        put(f"sub-{name}/anat/sub-{name}_T1w.nii.gz")
        put(f"sub-{name}/anat/sub-{name}_T2w.nii.gz")
    write("sub-02/anat/sub-02_T1w.json", {"ManufacturersModelName": "Verio", "MagneticFieldStrength": 1.5})
    for name in ("01", "02"):
        put(f"derivatives/manual/sub-{name}/anat/sub-{name}_desc-expert_dseg.nii.gz", (0, 1, 2))
    write("derivatives/manual/dseg.tsv", "index\tname\n0\tBackground\n1\tGM\n2\tWM\n")


def test_bids_gives_channels_labels_people_and_scanners(tmp_path, put, write):
    bids(put, write)
    cohort = import_cohort(tmp_path / "in")
    assert cohort.channels == ["T1w", "T2w"]
    assert cohort.domains == ["A", "B"]
    assert cohort.classes == ["background", "GM", "WM"]
    rows = {row.subject: row for row in cohort.rows()}
    assert list(rows) == ["sub-01", "sub-02", "sub-03"]
    assert {n: r.label and r.label.name for n, r in rows.items()} == {
        "sub-01": "sub-01_desc-expert_dseg.nii.gz",
        "sub-02": "sub-02_desc-expert_dseg.nii.gz",
        "sub-03": None,
    }
    columns = ("age", "sex", "vendor", "model", "field_strength_t")
    assert [[rows[n].columns[c] for c in columns] for n in rows] == [
        ["34", "M", "ACME", "", "3"],
        ["41.5", "F", "ACME", "Verio", "1.5"],
        ["", "M", "ACME", "", "3"],
    ]


def test_names_that_occur_in_no_label_are_no_structures_of_a_bids_table(tmp_path, put, write):
    bids(put, write)
    lookup = "".join(f"{i}\tregion {i}\n" for i in range(2, 1000))
    write("derivatives/manual/dseg.tsv", "index\tname\n" + lookup)
    assert import_cohort(tmp_path / "in").classes == ["background", "structure 1", "region 2"]


def test_folders_that_may_not_be_read_are_a_typed_error(tmp_path, put, monkeypatch):
    put("A/images/a.nii.gz")

    def refuse(folder):
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(CohortError, match="cannot be read: Permission denied; check the permissions"):
        import_cohort(tmp_path / "in")


def test_a_bids_column_may_be_the_target(tmp_path, put, write):
    bids(put, write)
    write("participants.tsv", "participant_id\tage\tsex\nsub-01\t34\tM\nsub-02\t41\tF\nsub-03\t50\tM\n")
    age = import_cohort(tmp_path / "in", tmp_path / "age", target="age")
    assert (age.labels.task, age.labels.column, age.labels.unit) == ("regression", "age", "years")
    assert [float(row.target) for row in age.rows()] == [34, 41, 50]
    sex = import_cohort(tmp_path / "in", tmp_path / "sex", target="sex")
    assert (sex.labels.task, sex.labels.classes) == ("classification", ("F", "M"))
    assert [int(row.target) for row in sex.rows()] == [1, 0, 1]
    ordered = import_cohort(tmp_path / "in", tmp_path / "sex", target="sex", classes=["M", "F"])
    assert [int(row.target) for row in ordered.rows()] == [0, 1, 0]
    with pytest.raises(CohortError, match='no column "agee" for --target; did you mean "age"'):
        import_cohort(tmp_path / "in", tmp_path / "x", target="agee")
    findings = "participant_id\tfinding:cyst\tfinding:mass\nsub-01\t1\t0\nsub-02\tn/a\t1\nsub-03\t0\t0\n"
    write("participants.tsv", findings)
    several = import_cohort(tmp_path / "in", tmp_path / "several", target="finding")
    assert (several.labels.kind, several.labels.classes) == ("multi-label", ("cyst", "mass"))


def test_bids_sessions_and_runs_are_rows_of_one_subject(tmp_path, put):
    put("sub-1/ses-a/anat/sub-1_ses-a_T1w.nii.gz")
    put("sub-1/ses-a/anat/sub-1_ses-a_acq-fast_FLAIR.nii.gz")
    put("sub-1/ses-b/anat/sub-1_ses-b_run-1_T1w.nii.gz")
    put("sub-1/ses-b/anat/sub-1_ses-b_run-2_T1w.nii.gz")
    put("sub-2/anat/sub-2_T1w.nii")
    put("derivatives/x/sub-1/ses-b/anat/sub-1_ses-b_run-2_label-lesion_mask.nii.gz", (0, 1))
    put("derivatives/x/sub-1/ses-b/anat/sub-1_ses-b_run-2_desc-brain_mask.nii.gz", (0, 1))
    put("derivatives/x/sub-1/ses-a/anat/sub-1_ses-a_space-MNI152_dseg.nii.gz", (0, 1))
    cohort = import_cohort(tmp_path / "in", tmp_path / "out")
    assert cohort.subjects == ["sub-1", "sub-2"]
    rows = list(cohort.rows())
    assert [(r.columns["session"], [c for c, p in r.images.items() if p], r.label is not None) for r in rows] == [
        ("a", ["T1w", "FLAIR"], False), ("b", ["T1w"], False), ("b", ["T1w"], True), ("", ["T1w"], False),
    ]  # fmt: skip
    assert cohort.classes == ["background", "lesion"]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["derivatives/x/sub-1/anat/sub-1_space-MNI_dseg.nii.gz"], "only in the space MNI"),
        (
            ["derivatives/x/sub-1/anat/sub-1_dseg.nii.gz", "derivatives/y/sub-1/anat/sub-1_dseg.nii.gz"],
            "are both labels",
        ),
        (["derivatives/x/sub-2/anat/sub-2_dseg.nii.gz"], "fits 0 scans"),
        (["sub-1/anat/sub-1_run-1_T1w.nii.gz", "derivatives/x/sub-1/anat/sub-1_dseg.nii.gz"], "fits 2 scans"),
        (["sub-1/anat/sub-2_T1w.nii.gz"], "is in the folder of sub-1"),
        (["sub-1/anat/sub-1_T1w.nii"], "are both T1w"),
    ],
)
def test_bids_files_that_do_not_fit_are_named(tmp_path, put, files, message):
    put("sub-1/anat/sub-1_T1w.nii.gz")
    for name in files:
        put(name, (0, 1) if "derivatives" in name else None)
    with pytest.raises(CohortError, match=message):
        import_cohort(tmp_path / "in")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("participants.tsv", "who\tage\nsub-1\t3\n", "expected participant_id"),
        ("participants.tsv", "participant_id\tage\nsub-1\n", "row 1 has 1 cells, the header 2"),
        ("participants.tsv", "participant_id\nsub-1\n1\n", "has sub-1 twice"),
        ("T1w.json", "[" * 100000, "is no sidecar file"),
        ("T1w.json", "[1]", "holds a list, no table"),
        ("derivatives/x/dseg.tsv", "index\tname\n1.5\tGM\n", "index '1.5'"),
        ("derivatives/x/dseg.tsv", "index\tname\n1\tGM\n1\tWM\n", "calls 1 WM, and also GM"),
    ],
)
def test_bids_tables_that_are_none_are_typed_errors(tmp_path, put, write, name, content, message):
    put("sub-1/anat/sub-1_T1w.nii.gz")
    put("derivatives/x/sub-1/anat/sub-1_dseg.nii.gz", (0, 1))
    write(name, content)
    with pytest.raises(CohortError, match=message):
        import_cohort(tmp_path / "in")


def test_a_folder_per_class_inside_a_site_is_a_classification(tmp_path, put):
    for site in "AB":
        for name in ("benign", "malignant"):
            for i in range(2):
                put(f"{site}/{name}/{name[0]}{i}.nii.gz")
    cohort = import_cohort(tmp_path / "in")
    assert (cohort.labels.task, cohort.labels.column) == ("classification", "class")
    assert cohort.labels.classes == ("benign", "malignant")
    assert cohort.domains == ["A", "B"]
    assert [int(row.target) for row in cohort.rows()] == [0, 0, 1, 1] * 2
    assert len(cohort.subjects) == 8
    ordered = import_cohort(tmp_path / "in", classes=["malignant", "benign"])
    assert [int(row.target) for row in ordered.rows()] == [1, 1, 0, 0] * 2


def test_pictures_in_folders_of_classes_and_equal_names(tmp_path):
    for name in ("cat", "dog"):
        for stem in ("1", "2"):
            (tmp_path / "in" / "S" / name).mkdir(parents=True, exist_ok=True)
            array = np.random.default_rng(0).integers(0, 200, (9, 8)).astype(np.uint8)
            sitk.WriteImage(sitk.GetImageFromArray(array), str(tmp_path / "in" / "S" / name / f"{stem}.png"))
    assert import_cohort(tmp_path / "in").subjects == ["cat-1", "cat-2", "dog-1", "dog-2"]
    one = import_cohort(tmp_path / "in" / "S", tmp_path / "out", format="classes")
    assert one.domains == ["S"]
    assert len(one) == 4


def test_unknown_layouts_and_formats_name_what_is_known(tmp_path, put):
    put("a/b/c/d.nii.gz")
    with pytest.raises(CohortError, match=r"looked for decathlon .*nnunet .*bids .*folders .*classes .*dicom"):
        import_cohort(tmp_path / "in")
    with pytest.raises(OptionError, match='no format "nnunte"; did you mean "nnunet"'):
        import_cohort(tmp_path / "in", format="nnunte")
    with pytest.raises(CohortError, match="is no folder"):
        import_cohort(tmp_path / "nowhere")


def test_folders_of_scans_are_recognised_too(tmp_path, put):
    for site in "AB":
        put(f"{site}/images/{site}.nii.gz")
        put(f"{site}/labels/{site}.nii.gz", (0, 1))
    assert import_cohort(tmp_path / "in").classes == ["background", "structure 1"]


def test_sample_files_of_nibabel_have_its_values_or_are_refused_for_a_reason(tmp_path):
    source = Path(nib.__file__).parent / "tests" / "data"
    read = []
    for path in sorted(p for p in source.iterdir() if p.name.endswith((".nii", ".nii.gz"))):
        shutil.copy(path, tmp_path)
        loaded = nib.load(path)
        expected = np.asarray(loaded.dataobj)
        if isinstance(loaded, nib.Nifti2Image | nib.Cifti2Image) or not np.isfinite(expected).all():
            with pytest.raises(FileError, match=f"{path.name}.* (is NIfTI-2|not finite)"):
                read_image(tmp_path / path.name)
            continue
        expected = expected.reshape(*expected.shape[:3], -1, order="F")
        cells = [f"{path.name}#{i}" for i in range(expected.shape[3])] if expected.shape[3] > 1 else [path.name]
        read.append(path.name)
        for i, cell in enumerate(cells):
            array = array_of(read_image(tmp_path / cell))
            np.testing.assert_allclose(array, expected[..., i].reshape(array.shape), rtol=1e-5)
    assert len(read) >= 5
