"""Which files make a scan."""

from __future__ import annotations

from pathlib import Path

import pytest

from shiftproof.data.cohort import Cohort
from shiftproof.deploy.matching import find_predictions, key_of
from shiftproof.deploy.scans import find_scans
from shiftproof.errors import CohortError, ImageError


def touch(folder: Path, *names: str) -> list[Path]:
    paths = [folder / name for name in names]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return paths


def named(found: list, root: Path) -> dict[str, list[str]]:
    return {s.name: [str(p.relative_to(root)) if p else "" for p in s.images.values()] for s in found}


def test_files_are_scans_of_one_channel(tmp_path: Path) -> None:
    paths = touch(tmp_path, "a.nii.gz", "b.nrrd", "c.v1.mha")
    assert named(find_scans(paths, ["image"]), tmp_path) == {
        "a": ["a.nii.gz"],
        "b": ["b.nrrd"],
        "c.v1": ["c.v1.mha"],
    }


def test_a_folder_gives_its_images_and_nothing_else(tmp_path: Path) -> None:
    touch(tmp_path, "b.nii", "a.nii.gz", "notes.txt", ".hidden.nii", "more/c.nii")
    assert list(named(find_scans(tmp_path, ["image"]), tmp_path)) == ["a", "b"]


def test_nnunet_names_lose_the_channel_s_number(tmp_path: Path) -> None:
    touch(tmp_path, "case_1_0000.nii.gz", "case_2_0000.nii.gz")
    assert list(named(find_scans(tmp_path, ["image"]), tmp_path)) == ["case_1", "case_2"]


def test_a_number_that_not_every_file_has_is_part_of_the_name(tmp_path: Path) -> None:
    touch(tmp_path, "case_0000.nii.gz", "case_0001.nii.gz")
    assert list(named(find_scans(tmp_path, ["image"]), tmp_path)) == ["case_0000", "case_0001"]


@pytest.mark.parametrize(
    "names",
    [
        ("x_0000.nii.gz", "x_0001.nii.gz", "y_0000.nii.gz", "y_0001.nii.gz"),
        ("x_T1.nii.gz", "x_T2.nii.gz", "y-t1.nii.gz", "y.T2.nii.gz"),
        ("x/T1.nii.gz", "x/T2.nii.gz", "y/t1.nii.gz", "y/t2.nii.gz"),
        ("x/x_T1.nii.gz", "x/x_T2.nii.gz", "y/scan_0000.nii", "y/scan_0001.nii"),
    ],
)
def test_channels_are_found_by_name_or_number(names: tuple[str, ...], tmp_path: Path) -> None:
    touch(tmp_path, *names)
    found = named(find_scans(tmp_path, ["T1", "T2"]), tmp_path)
    assert found == {"x": list(names[:2]), "y": list(names[2:])}


def test_the_longest_channel_name_wins(tmp_path: Path) -> None:
    touch(tmp_path, "x_T1.nii", "x_T1_contrast.nii")
    assert find_scans(tmp_path, ["T1", "T1_contrast"])[0].images == {
        "T1": tmp_path / "x_T1.nii",
        "T1_contrast": tmp_path / "x_T1_contrast.nii",
    }


def test_a_folder_for_each_scan_of_one_channel(tmp_path: Path) -> None:
    touch(tmp_path, "p1/scan.nii.gz", "p2/scan.nii.gz")
    assert named(find_scans(tmp_path, ["image"]), tmp_path) == {"p1": ["p1/scan.nii.gz"], "p2": ["p2/scan.nii.gz"]}


def test_a_table_is_read_without_a_domain_and_may_lack_channels(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("subject,image:T1,image:T2\np 1,a.nii,b.nii\np2,c.nii,\n")
    found = find_scans(tmp_path / "table.csv", ["T1", "T2"])
    assert [s.name for s in found] == ["p_1", "p2"]
    assert found[1].images == {"T1": tmp_path / "c.nii", "T2": None}


def test_the_folder_of_a_cohort_stands_for_its_table(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.nii", "labels/a.nii")
    (tmp_path / "table.csv").write_text("subject,image,label,site\np1,images/a.nii,labels/a.nii,A\n")
    assert named(find_scans(tmp_path, ["image"]), tmp_path) == {"p1": ["images/a.nii"]}


def test_several_scans_of_a_subject_are_told_apart_by_their_files(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("subject,image\np1,before.nii\np1,after.nii\np2,x.nii\n")
    assert [s.name for s in find_scans(tmp_path / "table.csv", ["image"])] == ["p1_before", "p1_after", "p2"]


@pytest.mark.parametrize(
    ("names", "channels", "words"),
    [
        (("a.nii", "a.nii.gz"), ["image"], "same file: a;"),
        (("x_T1.nii", "x_T9.nii"), ["T1", "T2"], r"do not tell theirs: x_T9.nii; name them like case_T1.nii.gz"),
        (("x_T1.nii", "x_T1.nii.gz"), ["T1", "T2"], "do not tell theirs: x_T1.nii.gz"),
        (("x_T1.nii", "x_T2.nii", "y_T1.nii", "z_0001.nii"), ["T1", "T2"], "y has no T2; z has no T1"),
    ],
)
def test_ambiguous_files_are_listed(names: tuple[str, ...], channels: list[str], words: str, tmp_path: Path) -> None:
    touch(tmp_path, *names)
    with pytest.raises(CohortError, match=words):
        find_scans(tmp_path, channels)


def test_nothing_to_predict_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="holds no image files"):
        find_scans(tmp_path, ["image"])
    with pytest.raises(ImageError, match="nowhere does not exist"):
        find_scans([tmp_path / "nowhere"], ["image"])
    with pytest.raises(ImageError, match="no scan was given"):
        find_scans([], ["image"])


# Predictions of any origin ---------------------------------------------------------------------------------


def cohort(root: Path, text: str) -> Cohort:
    (root / "table.csv").write_text(text)
    (root / "labels.toml").write_text('classes = ["background", "disc"]\n[default]\ndisc = 1\n')
    return Cohort.read(root / "table.csv")


TABLE = "subject,image,label,site\np1,img/c1_0000.nii.gz,l/c1.nii.gz,A\np 2,img/c2_0000.nii.gz,l/c2.nii.gz,B\n"


@pytest.mark.parametrize(
    "names",
    [
        ("p1.nii.gz", "p 2.nii.gz"),
        ("p1.nii.gz", "p_2.nii.gz"),
        ("c1_0000.mha", "c2_0000.mha"),
        ("c1.nii.gz", "c2.nii.gz", "plans.json", "c1_probabilities.nii.gz"),
    ],
)
def test_predictions_are_found_by_subject_or_file(names: tuple[str, ...], tmp_path: Path) -> None:
    table = cohort(tmp_path, TABLE)
    touch(tmp_path / "out", *names)
    found = find_predictions(tmp_path / "out", table)
    assert [found[key_of(row)] for row in table.rows()] == [tmp_path / "out" / name for name in names[:2]]


def test_further_predictions_do_no_harm_while_none_is_missing(tmp_path: Path) -> None:
    touch(tmp_path / "out", "p1.nii.gz", "p 2.nii.gz", "p3.nii.gz")
    assert len(find_predictions(tmp_path / "out", cohort(tmp_path, TABLE))) == 2


def test_a_missing_prediction_is_none_where_no_name_is_left_over(tmp_path: Path) -> None:
    touch(tmp_path / "out", "p1.nii.gz")
    assert list(find_predictions(tmp_path / "out", cohort(tmp_path, TABLE)).values()) == [
        tmp_path / "out" / "p1.nii.gz",
        None,
    ]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("p1.nii.gz", "q.nii.gz", "r.nii.gz"), "no prediction for p 2; files that fit no scan: q.nii.gz, r.nii.gz"),
        ((), "no prediction for p1, p 2; files that fit no scan: none"),
        (("p1.nii.gz", "p1.nrrd"), "several files of one name: p1.nii.gz, p1.nrrd"),
    ],
)
def test_names_that_fit_nothing_are_listed_in_one_error(names: tuple[str, ...], words: str, tmp_path: Path) -> None:
    touch(tmp_path / "out", *names)
    (tmp_path / "out").mkdir(exist_ok=True)
    with pytest.raises(CohortError, match=words):
        find_predictions(tmp_path / "out", cohort(tmp_path, TABLE))


def test_a_prediction_that_fits_two_scans_is_refused(tmp_path: Path) -> None:
    table = cohort(tmp_path, "subject,image,label,site\np1,a/x.nii,l/1.nii,A\np2,b/x.nii,l/2.nii,B\n")
    touch(tmp_path / "out", "x.nii")
    with pytest.raises(CohortError, match=r"x.nii \(p1, p2\)"):
        find_predictions(tmp_path / "out", table)


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CohortError, match="is no folder"):
        find_predictions(tmp_path / "nowhere", cohort(tmp_path, TABLE))
