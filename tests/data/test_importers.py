from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from shiftproof.data.cohort import Cohort
from shiftproof.data.importers import import_folders
from shiftproof.data.labels import LabelMap
from shiftproof.errors import CohortError, LabelError


@pytest.fixture
def put(tmp_path, scans):
    """Write a small image or, for given values, a label."""

    def put(name: str, values: tuple[int, ...] | None = None) -> Path:
        random = np.random.default_rng(len(name))
        if values is None:
            array = random.normal(100, 10, (6, 5, 4)).astype(np.float32)
        else:
            array = random.permutation(np.resize(values, 120)).reshape(6, 5, 4).astype(np.uint8)
        return scans.write(tmp_path / "in" / name, array)

    return put


def pairs(cohort: Cohort) -> dict[str, tuple[str, str | None]]:
    return {row.subject: (row.images[cohort.channels[0]].name, row.label and row.label.name) for row in cohort.rows()}


def test_folders_of_images_and_labels(tmp_path, put):
    for site in "AB":
        for i in range(2):
            put(f"{site}/images/{site}{i}.nii.gz")
            put(f"{site}/labels/{site}{i}.nii.gz", (0, 1, 2))
    put("B/images/extra.nii.gz")
    (tmp_path / "in/A/readme.txt").write_text("not an image")
    cohort = import_folders(tmp_path / "in")
    assert pairs(cohort) == {
        **{f"{s}{i}": (f"{s}{i}.nii.gz", f"{s}{i}.nii.gz") for s in "AB" for i in range(2)},
        "extra": ("extra.nii.gz", None),
    }
    assert cohort.domains == ["A", "B"]
    assert cohort.classes == ["background", "structure 1", "structure 2"]
    assert all(path.exists() for row in cohort.rows() for path in (row.images["image"], row.label) if path)
    assert list(Cohort.read(tmp_path / "in" / "table.csv").rows()) == list(cohort.rows())
    assert "A/images/A0.nii.gz" in (tmp_path / "in" / "table.csv").read_text()


def test_pairs_by_an_ending_in_one_folder(tmp_path, put):
    for name in ("a", "b_image", "c", "d_seg_x"):
        put(f"A/{name}.nii.gz")
    put("A/a_seg.nii.gz", (0, 1))
    put("A/b-label.nrrd", (0, 1))
    put("A/c_Mask.mha", (0, 1))
    cohort = import_folders(tmp_path / "in", tmp_path / "out")
    assert pairs(cohort) == {
        "a": ("a.nii.gz", "a_seg.nii.gz"),
        "b": ("b_image.nii.gz", "b-label.nrrd"),
        "c": ("c.nii.gz", "c_Mask.mha"),
        "d_seg_x": ("d_seg_x.nii.gz", None),
    }
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["labels.toml", "table.csv"]
    assert cohort.classes == ["background", "structure 1"]


def test_nnunet_folders_give_channels_and_their_names(tmp_path, put):
    for site in "AB":
        for case in ("x_1", "x_2"):
            for channel in ("0000", "0001"):
                put(f"{site}/imagesTr/{site}{case}_{channel}.nii.gz")
            put(f"{site}/labelsTr/{site}{case}.nii.gz", (0, 1, 2))
        put(f"{site}/imagesTs/{site}y_0000.nii.gz")
        dataset = {"channel_names": {"0": "T1", "1": "T2"}, "labels": {"background": 0, "edema": 1, "core": 2}}
        (tmp_path / "in" / site / "dataset.json").write_text(json.dumps(dataset))
    cohort = import_folders(tmp_path / "in", tmp_path / "c.csv")
    assert cohort.channels == ["T1", "T2"]
    assert cohort.classes == ["background", "edema", "core"]
    rows = {row.subject: row for row in cohort.rows()}
    assert rows["Ax_1"].images["T2"].name == "Ax_1_0001.nii.gz"
    assert rows["Ay"].images["T2"] is None
    assert (rows["Ax_1"].columns["split"], rows["Ay"].columns["split"]) == ("train", "test")


def test_old_dataset_files_and_a_single_channel(tmp_path, put):
    put("imagesTr/a_0000.nii.gz")
    put("labelsTr/a.nii.gz", (0, 1))
    cohort = import_folders(tmp_path / "in")
    assert (cohort.channels, cohort.domains, cohort.subjects) == (["image"], ["in"], ["a"])
    dataset = {"modality": {"0": "CT"}, "labels": {"0": "background", "1": "liver"}}
    (tmp_path / "in/dataset.json").write_text(json.dumps(dataset))
    cohort = import_folders(tmp_path / "in", tmp_path / "out")
    assert (cohort.channels, cohort.classes) == (["CT"], ["background", "liver"])
    (tmp_path / "in/dataset.json").write_text("[]")
    with pytest.raises(CohortError, match=r"dataset\.json is no dataset\.json of nnU-Net"):
        import_folders(tmp_path / "in")


def test_numbers_at_the_end_of_names_are_no_channels_by_themselves(tmp_path, put):
    for case in ("case_0001", "case_0002"):
        put(f"A/images/{case}.nii.gz")
        put(f"A/labels/{case}.nii.gz", (0, 1))
    cohort = import_folders(tmp_path / "in")
    assert (cohort.channels, cohort.subjects) == (["image"], ["case_0001", "case_0002"])


def test_names_that_collide_over_sites_take_the_sites_name(tmp_path, put):
    for site, names in {"A": "ab", "B": "ac"}.items():
        for name in names:
            put(f"{site}/images/{name}.nii.gz")
    assert import_folders(tmp_path / "in").subjects == ["A-a", "A-b", "B-a", "B-c"]


def test_sessions_of_a_bids_subject_are_one_subject(tmp_path, put):
    for name in ("sub-01_ses-1_T1w", "sub-01_ses-2_T1w", "sub-02_T1w", "subject3"):
        put(f"A/images/{name}.nii.gz")
    cohort = import_folders(tmp_path / "in")
    assert cohort.subjects == ["sub-01", "sub-02", "subject3"]
    assert len(cohort) == 4
    assert cohort.labels is None
    assert not (tmp_path / "in" / "labels.toml").exists()


def test_pictures_are_paired_too(tmp_path):
    for site in "AB":
        for name, top in {"images": 200, "labels": 2}.items():
            (tmp_path / "in" / site / name).mkdir(parents=True)
            array = np.random.default_rng(0).integers(0, top, (20, 20)).astype(np.uint8)
            sitk.WriteImage(sitk.GetImageFromArray(array), str(tmp_path / "in" / site / name / f"{site}.png"))
    assert import_folders(tmp_path / "in").labelled == 2


def test_a_site_with_other_values_has_a_section_of_its_own(tmp_path, put):
    for site, values in {"A": (0, 1, 2, 3), "B": (0, 1, 2, 3), "C": (0, 1, 3)}.items():
        put(f"{site}/images/{site}.nii.gz")
        put(f"{site}/labels/{site}.nii.gz", values)
    cohort = import_folders(tmp_path / "in", classes=["csf", "grey", "white"])
    assert cohort.classes == ["background", "csf", "grey", "white"]
    assert cohort.labels.annotated("B") == (True, True, True, True)
    assert cohort.labels.annotated("C") == (True, True, False, True)
    assert cohort.labels.encode(np.array([0, 1, 3]), "C").tolist() == [0, 1, 3]
    text = (tmp_path / "in" / "labels.toml").read_text()
    assert "[site.C]\n# grey occurs in no label here and is taken as not annotated" in text
    assert "[site.A]" not in text
    assert LabelMap.read(tmp_path / "in" / "labels.toml") == cohort.labels


def test_of_two_sites_the_one_with_more_structures_is_the_default(tmp_path, put):
    for site, values in {"A": (0, 1), "B": (0, 1, 2)}.items():
        put(f"{site}/images/{site}.nii.gz")
        put(f"{site}/labels/{site}.nii.gz", values)
    labels = import_folders(tmp_path / "in").labels
    assert list(labels.domains) == ["A"]
    assert labels.annotated("a site to come") == (True, True, True)


def test_names_follow_the_order_of_values_of_each_site(tmp_path, put):
    for site, values in {"A": (0, 1, 2), "B": (0, 10, 200)}.items():
        put(f"{site}/images/{site}.nii.gz")
        put(f"{site}/labels/{site}.nii.gz", values)
    for classes in (["lv", "rv"], ["background", "lv", "rv"]):
        cohort = import_folders(tmp_path / "in", classes=classes)
        assert cohort.labels.encode(np.array([200, 10, 0]), "B").tolist() == [2, 1, 0]
    named = import_folders(tmp_path / "in", classes={"rv": [2, 10], "lv": [1, 200]})
    assert named.labels.encode(np.array([200, 10, 0]), "B").tolist() == [
        named.classes.index("lv"), named.classes.index("rv"), 0,
    ]  # fmt: skip
    with pytest.raises(LabelError, match=r"3 class names \(a, b, c\) for 4 values .*A: \[1, 2\]"):
        import_folders(tmp_path / "in", classes=["a", "b", "c"])
    with pytest.raises(LabelError, match=r"labels of B have the values \[10, 200\], which no class names"):
        import_folders(tmp_path / "in", classes={"lv": 1, "rv": 2})


def test_a_single_structure_is_the_same_one_whatever_its_value(tmp_path, put):
    for site, values in {"A": (0, 1), "B": (0, 255)}.items():
        put(f"{site}/images/{site}.nii.gz")
        put(f"{site}/labels/{site}.nii.gz", values)
    cohort = import_folders(tmp_path / "in")
    assert cohort.classes == ["background", "structure 1"]
    assert cohort.labels.encode(np.array([0, 255]), "B").tolist() == [0, 1]


def test_what_cannot_be_paired_without_guessing_is_listed(tmp_path, put):
    put("A/images/a.nii.gz")
    put("A/images/a.nrrd")
    put("A/images/b.nii.gz")
    put("A/labels/b.nii.gz", (0, 1))
    put("A/labels/b_seg.nii.gz", (0, 1))
    put("A/labels/z.nii.gz", (0, 1))
    with pytest.raises(CohortError) as caught:
        import_folders(tmp_path / "in")
    message = str(caught.value)
    assert "a.nii.gz and a.nrrd are both images of a" in message
    assert "b.nii.gz and b_seg.nii.gz are both labels of b" in message
    assert "label z.nii.gz has no image" in message
    assert not (tmp_path / "in" / "table.csv").exists()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "no images .*found in .*expected SITE/images"),
        (["A/deep/er/a.nii.gz"], "no images .*found"),
        (["A/images/a.nii.gz", "A/stray.nii.gz"], "images beside its folder images: stray.nii.gz"),
        (["A/images/a.nii.gz", "A/scans/a.nii.gz"], "2 folders that could hold images: images, scans"),
        (["A/images/a.nii.gz", "A/labels/a.nii.gz", "A/masks/a.nii.gz"], "2 folders that could hold labels"),
        (
            ["A/images/a.nii.gz", "B/imagesTr/b_0000.nii.gz", "B/imagesTr/b_0001.nii.gz"],
            "A has one channel without a name",
        ),
    ],
)
def test_layouts_that_are_not_understood_say_what_would_be(tmp_path, put, names, message):
    (tmp_path / "in").mkdir()
    for name in names:
        put(name)
    with pytest.raises(CohortError, match=message):
        import_folders(tmp_path / "in")


def test_a_missing_folder_and_images_as_labels_are_typed_errors(tmp_path, put):
    with pytest.raises(CohortError, match="is no folder"):
        import_folders(tmp_path / "nowhere")
    put("A/images/a.nii.gz")
    put("A/labels/a.nii.gz")
    with pytest.raises(LabelError, match=r"labels/a.nii.gz has 120 values that are no whole numbers"):
        import_folders(tmp_path / "in")
    put("A/labels/a.nii.gz", (0,))
    with pytest.raises(LabelError, match="no label has a value other than 0"):
        import_folders(tmp_path / "in")


def test_progress_counts_the_labels(tmp_path, put):
    for i in range(3):
        put(f"A/images/{i}.nii.gz")
        put(f"A/labels/{i}.nii.gz", (0, 1))
    told = []
    import_folders(tmp_path / "in", domain="scanner", progress=lambda *n: told.append(n))
    assert told == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert Cohort.read(tmp_path / "in", domain="scanner").domains == ["A"]


def test_corrections_by_hand_are_not_lost_to_another_import(tmp_path, put):
    put("A/images/a.nii.gz")
    put("A/labels/a.nii.gz", (0, 1))
    import_folders(tmp_path / "in", tmp_path / "out")
    import_folders(tmp_path / "in", tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["labels.toml", "table.csv"]
    corrected = "# mine\n" + (tmp_path / "out/labels.toml").read_text()
    (tmp_path / "out/labels.toml").write_text(corrected)
    import_folders(tmp_path / "in", tmp_path / "out")
    assert (tmp_path / "out/labels.toml.old").read_text() == corrected
    assert not (tmp_path / "out/table.csv.old").exists()
