from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from shiftproof.data.cohort import Cohort
from shiftproof.data.hashes import FileHashes
from shiftproof.data.labels import LabelMap
from shiftproof.errors import CohortError, ImageError, LabelError, SplitError

HEADER = "subject,image,label,site\n"


def table(tmp_path: Path, text: str, name: str = "table.csv") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


def test_names_stay_text_and_paths_count_from_the_table(tmp_path):
    path = table(tmp_path, HEADER + "007,scans/a.nii.gz,,1\nNA,/data/b.nii.gz,b-l.nii.gz,01\n")
    cohort = Cohort.read(path)
    first, second = cohort.rows()
    assert (first.subject, first.domain) == ("007", "1")
    assert (second.subject, second.domain) == ("NA", "01")
    assert first.images == {"image": tmp_path / "scans/a.nii.gz"}
    assert second.images == {"image": Path("/data/b.nii.gz")}
    assert first.label is None
    assert second.label == tmp_path / "b-l.nii.gz"
    assert first.columns == {"subject": "007", "site": "1"}
    assert cohort.labelled == 1


def test_channels_may_be_several_and_missing(tmp_path):
    text = "subject,image:T1,image:T2,site,age\na,a1.nii,,A,40\nb,b1.nii,b2.nii,B,\n"
    cohort = Cohort.read(table(tmp_path, text))
    assert cohort.channels == ["T1", "T2"]
    first, second = cohort.rows()
    assert first.images == {"T1": tmp_path / "a1.nii", "T2": None}
    assert second.images["T2"] == tmp_path / "b2.nii"
    assert (first.columns["age"], second.columns["age"]) == ("40", "")
    assert "image:T1" not in first.columns


@pytest.mark.parametrize("name", ["table.csv", "table.parquet"])
def test_what_is_written_is_read_again(tmp_path, name):
    source = Cohort.read(table(tmp_path, HEADER + '007,"a,1.nii",a-l.nii,Ä\n8,/far/b.nii,,B\n'))
    source = source.with_labels(LabelMap.of_values({"x": 1}))
    (tmp_path / "out").mkdir()
    source.write(tmp_path / "out" / name)
    again = Cohort.read(tmp_path / "out" / name)
    assert list(again.rows()) == list(source.rows())
    assert again.labels == source.labels
    assert sorted(os.listdir(tmp_path / "out")) == sorted(["labels.toml", name])


def test_a_written_cohort_can_move_with_its_files(tmp_path, cohort):
    cohort.write(tmp_path / "table.csv")
    expected = cohort.hash()
    shutil.copytree(tmp_path, tmp_path.parent / (tmp_path.name + "-moved"))
    moved = Cohort.read(tmp_path.parent / (tmp_path.name + "-moved"))
    assert moved.hash() == expected
    assert all("moved" in str(row.label) for row in moved.rows())


def test_integers_with_gaps_in_parquet_stay_integers(tmp_path):
    frame = pd.DataFrame({"subject": [1, 2], "image": ["a.nii", "b.nii"], "site": ["A", "B"], "scanner": [3, None]})
    frame.to_parquet(tmp_path / "t.parquet")
    rows = list(Cohort.read(tmp_path / "t.parquet").rows())
    assert [r.subject for r in rows] == ["1", "2"]
    frame["scanner"] = frame["scanner"].astype("Int64")
    frame.to_parquet(tmp_path / "t.parquet")
    assert [r.columns["scanner"] for r in Cohort.read(tmp_path / "t.parquet").rows()] == ["3", ""]


def test_semicolons_tabs_and_marks_of_spreadsheets_are_understood(tmp_path):
    for delimiter in ";\t":
        text = "\ufeff" + (HEADER + "a, a.nii ,,A\n\n").replace(",", delimiter)
        rows = list(Cohort.read(table(tmp_path, text)).rows())
        assert [(r.subject, r.images["image"].name) for r in rows] == [("a", "a.nii")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("subjet,image,site\na,b.nii,A\n", 'no column "subject" .who was scanned.; did you mean "subjet"'),
        ("subject,image,sites\na,b.nii,A\n", 'no column "site" .*did you mean "sites".*--domain'),
        ("subject,images,site\na,b.nii,A\n", 'no column "image"; did you mean "images"'),
        ("subject,image,image:T1,site\na,b.nii,c.nii,A\n", 'columns "image" and "image:T1" together'),
        ("subject,image:,site\na,b.nii,A\n", "names no channel"),
        ("subject,image,image,site\na,b.nii,c.nii,A\n", 'column "image" occurs 2 times'),
        (HEADER, "no rows below its header"),
        ("", "is empty"),
        (HEADER + "a,b.nii,A\n", "row 1 has 3 cells, the header 4"),
        (HEADER + "a,b.nii,,A\n,c.nii,,A\n", 'column "subject" is empty in row 2'),
        (HEADER + "a,b.nii,,A\nb,c.nii,,\n", 'column "site" is empty in row 2'),
        (HEADER + "a,,l.nii,A\n", "row 1 has no image"),
        ("subject,image,site,split\na,b.nii,A,val\n", 'split" has "val"; expected train, validation, test'),
    ],
)
def test_a_table_that_cannot_serve_is_answered_with_the_cure(tmp_path, text, message):
    with pytest.raises(CohortError, match=message) as caught:
        Cohort.read(table(tmp_path, text))
    assert "table.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_are_no_table_are_typed_errors(tmp_path):
    table(tmp_path, HEADER + "a,b.nii,,A\n", "tables.csv")
    with pytest.raises(CohortError, match='does not exist; did you mean "tables.csv"'):
        Cohort.read(tmp_path / "table.csv")
    (tmp_path / "t.parquet").write_text("hello")
    with pytest.raises(CohortError, match="no readable Parquet"):
        Cohort.read(tmp_path / "t.parquet")
    (tmp_path / "t.csv").write_bytes(HEADER.encode() + b"\xe4,a.nii,,A\n")
    with pytest.raises(CohortError, match="not in UTF-8"):
        Cohort.read(tmp_path / "t.csv")
    with pytest.raises(CohortError, match=r"no table known here; expected .csv"):
        Cohort.read(table(tmp_path, "x", "t.xlsx"))


def test_choosing_rows(tmp_path):
    text = HEADER.strip() + ",split\na,a.nii,l.nii,A,train\na,a2.nii,,A,train\nb,b.nii,l2.nii,B,test\nc,c.nii,,C,\n"
    cohort = Cohort.read(table(tmp_path, text))
    assert cohort.domains == ["A", "B", "C"]
    assert cohort.subjects == ["a", "b", "c"]
    assert len(cohort) == 4
    assert len(cohort.where(site="A")) == 2
    assert cohort.where(site=["A", "C"], split="train").subjects == ["a"]
    assert len(cohort.where(site="Z")) == 0
    assert cohort.of_subjects(["c", "a"]).subjects == ["a", "c"]
    assert len(cohort.of_subjects([])) == 0
    with pytest.raises(CohortError, match='no column "sit"; did you mean "site"'):
        cohort.where(sit="A")
    with pytest.raises(CohortError, match='no subject "d"'):
        cohort.of_subjects(["a", "d"])


def test_without_labels_no_label_can_be_found(tmp_path, cohort):
    bare = cohort.without_labels()
    assert bare.labelled == 0
    assert all(row.label is None for row in bare.rows())
    assert "seg" not in bare.table.to_csv()
    assert cohort.labelled == len(cohort)


def test_leaving_one_domain_out_never_splits_a_subject(tmp_path):
    cohort = Cohort.read(
        table(tmp_path, HEADER + "".join(f"{s},{s}{d}.nii,,{d}\n" for s, d in ["aA", "bA", "bB", "cB", "dC"]))
    )
    folds = {held.domains[0]: (rest, held) for rest, held in cohort.leave_one_out()}
    assert list(folds) == ["A", "B", "C"]
    for rest, held in folds.values():
        assert not set(rest.subjects) & set(held.subjects)
    assert folds["A"][0].subjects == ["c", "d"]  # b travelled: its scan at B leaves with it
    assert folds["C"][0].subjects == ["a", "b", "c"]
    with pytest.raises(SplitError, match="needs at least 2, got 1"):
        next(cohort.where(site="A").leave_one_out())
    with pytest.raises(SplitError, match="no other subject"):
        list(cohort.of_subjects(["b"]).leave_one_out())


def test_classes_need_labels_toml_only_where_something_is_labelled(tmp_path):
    cohort = Cohort.read(table(tmp_path, HEADER + "a,a.nii,l.nii,A\n"))
    with pytest.raises(LabelError, match="no labels.toml .*cohort import"):
        _ = cohort.classes
    assert cohort.without_labels().classes == []


def test_sections_by_another_column_are_followed(tmp_path):
    (tmp_path / "labels.toml").write_text('classes = ["b", "x", "y"]\n[default]\nx = 1\ny = 2\n[site.C]\nx = 5\n')
    path = table(tmp_path, "subject,image,label,site,scanner\na,a.nii,l,A,one\nb,b.nii,l,B,one\nc,c.nii,l,C,two\n")
    cohort = Cohort.read(path, domain="scanner")
    assert cohort.labels.annotated("one") == (True, True, True)
    assert cohort.labels.annotated("two") == (True, True, False)
    table(tmp_path, "subject,image,label,site,scanner\na,a.nii,l,A,one\nc,c.nii,l,C,one\n")
    with pytest.raises(LabelError, match="scanner=one joins site=A and site=C"):
        Cohort.read(path, domain="scanner")
    table(tmp_path, "subject,image,label,scanner\na,a.nii,l,one\n")
    with pytest.raises(LabelError, match="sections by site, which is no column"):
        Cohort.read(path, domain="scanner")


def test_the_hash_follows_content_and_nothing_else(tmp_path, cohort, scans):
    before = cohort.hash()
    assert Cohort(cohort.table.iloc[::-1], cohort.root, labels=cohort.labels).hash() == before
    assert cohort.without_labels().hash() != before
    assert cohort.with_labels(LabelMap.of_values({"body": 1, "core": [2, 3]})).hash() != before
    assert cohort.where(site="A").hash() != before
    os.rename(tmp_path / "A0.nii.gz", tmp_path / "renamed.nii.gz")
    moved = cohort.table.assign(image=[n.replace("A0", "renamed") for n in cohort.table["image"]])
    assert Cohort(moved, cohort.root, labels=cohort.labels).hash() == before
    scans.write(tmp_path / "renamed.nii.gz", scans.blob((5, 5, 5), 9)[0])
    assert Cohort(moved, cohort.root, labels=cohort.labels).hash() != before


def test_known_hashes_are_used_and_kept(tmp_path, cohort, monkeypatch):
    for path in tmp_path.glob("*.nii.gz"):
        os.utime(path, (1e9, 1e9))  # a file that just changed is not remembered
    hashes = FileHashes(tmp_path / "store" / "hashes.json")
    before = cohort.hash(hashes)
    hashes.save()
    again = FileHashes(tmp_path / "store" / "hashes.json")
    monkeypatch.setattr(Path, "open", lambda *_: pytest.fail("a known file was read again"))
    assert cohort.hash(again) == before


def test_a_damaged_list_of_hashes_is_no_obstacle(tmp_path, cohort):
    for text in ("", "{", "[]", '{"a": 3}', json.dumps({"a": [[1], "x"]})):
        (tmp_path / "hashes.json").write_text(text)
        hashes = FileHashes(tmp_path / "hashes.json")
        assert len(hashes.of(tmp_path / "A0.nii.gz")) == 64
        hashes.save()


def test_a_changed_file_has_another_hash_even_under_the_same_name(tmp_path):
    path = tmp_path / "a.nii"
    path.write_bytes(b"one")
    hashes = FileHashes()
    first = hashes.of(path)
    path.write_bytes(b"two")
    assert hashes.of(path) != first
    os.utime(path, (1e9, 1e9))
    second = hashes.of(path)
    path.write_bytes(b"six")
    os.utime(path, (1e9 + 1, 1e9 + 1))
    assert hashes.of(path) not in (first, second)
    with pytest.raises(ImageError, match="none.nii cannot be read"):
        hashes.of(tmp_path / "none.nii")


def test_values_in_a_second_file_count(tmp_path):
    import numpy as np
    import SimpleITK as sitk

    for name in ("a.mhd", "b.nhdr"):
        sitk.WriteImage(sitk.GetImageFromArray(np.zeros((4, 4, 4), np.float32)), str(tmp_path / name))
        first = FileHashes().of(tmp_path / name)
        second = next(p for p in tmp_path.iterdir() if p.stem == name[0] and p.suffix in (".raw", ".zraw"))
        second.write_bytes(b"\x01" + second.read_bytes()[1:])
        assert FileHashes().of(tmp_path / name) != first


def test_importing_the_table_loads_no_heavy_library():
    code = "import sys, shiftproof.data.cohort; print({'torch', 'pandas', 'SimpleITK', 'scipy'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
