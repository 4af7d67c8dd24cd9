"""Volumes in the page: the same anatomy in the same place, small, and within the page's limit."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk

from shiftproof.report import cases, gallery, report, scripts, viewer
from shiftproof.report.meaning import meaning_of
from shiftproof.report.reading import read_results
from shiftproof.report.scans import Case, bare, opened
from shiftproof.statistics import per_subject

SMALL = {"sites": ["A", "B"], "n": 3, "rows": ["erm/none", "erm/strong"], "seeds": [0]}
EVIL = "</script><script>globalThis.evil = 1</script><!-- & \u2028 "


@pytest.fixture
def results(make_study):
    return read_results(make_study(images=True, **SMALL))


def case_of(subject="B-01", **options):
    return Case("worst", subject, subject[0], subject[0], 0.5, 3, **options)


def read_back(text: str) -> nibabel.Nifti1Image:
    return nibabel.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(text)))


def held(results, subject="B-01", rows=("erm/strong",)):
    meaning = meaning_of(results)
    scan = opened(case_of(subject), results, list(rows), meaning)
    return json.loads(viewer.volumes(scan, "1-1", meaning.classes, dict.fromkeys(rows, "Dice 0.5")).block)


def at_same_place(small: nibabel.Nifti1Image, original: sitk.Image) -> tuple[np.ndarray, np.ndarray]:
    """Values of a volume of the page and of a file at the same points of the body, by the affine alone."""
    values = np.asarray(small.dataobj)
    index = np.argwhere(np.ones(values.shape, bool))
    points = nibabel.affines.apply_affine(small.affine, index) * [-1, -1, 1]  # to the left, posterior, superior
    direction = np.array(original.GetDirection()).reshape(3, 3)
    place = (points - original.GetOrigin()) @ direction / np.array(original.GetSpacing())
    nearest = np.rint(place).astype(int)
    array = sitk.GetArrayFromImage(original).transpose(2, 1, 0)
    return values.ravel(), array[tuple(nearest.T)]


def test_volumes_have_the_files_values_where_the_files_have_them(results):
    """Site B's files are oblique and run from left to right the other way."""
    about, root = held(results), results.root
    label, truth = at_same_place(read_back(about["label"]), sitk.ReadImage(str(root / "labels/B-01.nii.gz")))
    assert np.array_equal(label, truth)
    assert set(truth) == {0, 1, 2, 3}
    prediction = sitk.ReadImage(str(root / "cells/erm_strong/B/0/predictions/B-01.nii.gz"))
    shown, truth = at_same_place(read_back(about["predictions"][0]["volume"]), prediction)
    assert np.array_equal(shown, truth)


def test_greys_are_the_files_to_half_a_step(results):
    about = held(results)
    image = read_back(about["image"])
    assert image.get_data_dtype() == np.uint8
    shown, truth = at_same_place(image, sitk.ReadImage(str(results.root / "images/B-01.nii.gz")))
    low, high = np.percentile(truth, [0.5, 99.5])
    inside = (truth > low) & (truth < high)
    step = image.dataobj.slope
    assert np.abs(shown - truth)[inside].max() <= 0.51 * step
    assert step < 0.02 * (high - low)


def test_no_structure_is_cut_off_and_nothing_else_is_kept_but_room_around(results, monkeypatch):
    monkeypatch.setattr(viewer, "ROOM_MM", 0)
    about = held(results)
    label, prediction = (
        np.asarray(read_back(text).dataobj) for text in (about["label"], about["predictions"][0]["volume"])
    )
    full = sitk.GetArrayFromImage(sitk.ReadImage(str(results.root / "labels/B-01.nii.gz")))
    assert (label > 0).sum() == (full > 0).sum()
    marked = (label > 0) | (prediction > 0)
    for axis in range(3):
        assert marked.take(0, axis=axis).any()
        assert marked.take(-1, axis=axis).any()
    monkeypatch.setattr(viewer, "ROOM_MM", 6)
    roomy = read_back(held(results)["label"])
    assert roomy.shape[0] == min(label.shape[0] + 2 * 2, 40)  # two voxels of 3.6 mm


def test_viewing_begins_where_the_picture_is(results):
    meaning = meaning_of(results)
    scan = opened(case_of(), results, ["erm/strong"], meaning)
    about = held(results)
    label = read_back(about["label"])
    place = np.rint(nibabel.affines.apply_affine(np.linalg.inv(label.affine), about["start"])).astype(int)
    assert about["plane"] == "axial"
    # The axial axis of the cropped volume, from the bottom up, holds the picture's slice with the same labelled area.
    area = (np.asarray(label.dataobj)[:, :, place[2]] > 0).sum()
    shown = scan.first.arrays[1][:, :, scan.first.index]
    assert area == (shown > 0).sum()


def test_a_large_scan_is_reduced_and_says_so(results, monkeypatch):
    monkeypatch.setattr(viewer, "VOXELS", 4000)
    about = held(results)
    image, label = read_back(about["image"]), read_back(about["label"])
    assert 0.5 * 4000 < np.prod(image.shape) <= 4000
    assert image.shape == label.shape
    assert np.allclose(image.affine, label.affine)
    assert re.fullmatch(r"resampled to [\d.]+ × [\d.]+ × [\d.]+ mm \(the file has 3.6 × 4 × 5.5 mm\), in 256 greys",
                        about["note"])  # fmt: skip
    shown, truth = at_same_place(label, sitk.ReadImage(str(results.root / "labels/B-01.nii.gz")))
    assert (shown == truth).mean() > 0.97  # both by nearest neighbours, of voxels that do not coincide


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.5, 0.5, 5.0), (3.0, 1.0, 0.2)])
def test_coarser_spacing_uses_the_room_and_never_refines(spacing, monkeypatch):
    monkeypatch.setattr(viewer, "VOXELS", 1000)
    spacing, extent = np.array(spacing), np.array([60.0, 50.0, 40.0])
    found = viewer.coarser(spacing, extent)
    assert np.all(found >= spacing)
    assert 900 < np.prod(extent / found) <= 1000.001
    changed = found[found > spacing]
    assert np.allclose(changed, changed[0])  # towards cubes


def test_unknown_voxels_are_no_structure(results):
    path = results.root / "labels/B-01.nii.gz"
    label = sitk.ReadImage(str(path))
    array = sitk.GetArrayFromImage(label)
    array[:3] = 255
    changed = sitk.GetImageFromArray(array)
    changed.CopyInformation(label)
    sitk.WriteImage(changed, str(path))
    about = held(results)
    shown = np.asarray(read_back(about["label"]).dataobj)
    assert (about["unknown"], about["classes"][4]) == (4, "not annotated")
    assert set(np.unique(shown)) == {0, 1, 2, 3, 4}
    assert (shown == 4).sum() == (at_same_place(read_back(about["label"]), changed)[1] == 255).sum()
    assert np.asarray(read_back(about["predictions"][0]["volume"]).dataobj).max() <= 3
    assert held(results, "B-02")["unknown"] is None


def test_names_cannot_end_the_block_that_they_stand_in(results):
    meaning = meaning_of(results)
    scan = opened(case_of(), results, ["erm/strong"], meaning)
    block = viewer.volumes(scan, "1-1", [EVIL, *meaning.classes[1:]], {"erm/strong": EVIL}).block
    assert not set("<>&\u2028") & set(block)
    assert json.loads(block)["classes"][0] == EVIL
    assert json.loads(block)["predictions"][0]["score"] == EVIL


def test_a_scan_without_labels_is_its_image_alone(results):
    scan = bare(case_of(), results)
    about = json.loads(viewer.volumes(scan, "1-1", [], {}).block)
    assert (about["label"], about["predictions"]) == (None, [])
    assert read_back(about["image"]).shape == scan.first.arrays[0].shape


# The page ------------------------------------------------------------------------------------------------------


def blocks(path: Path) -> dict[str, dict]:
    found = re.findall(r'<script type="application/json" id="volume-([\d-]+)">(.*?)</script>', path.read_text())
    return {key: json.loads(text) for key, text in found}


@pytest.fixture(scope="module")
def illustrated(illustrated_study):
    return report(illustrated_study)


def test_the_page_holds_a_volume_for_each_button_and_the_viewer(illustrated):
    path, text = illustrated, illustrated.read_text()
    assert set(blocks(path)) == set(re.findall(r'data-volume="([\d-]+)"', text))
    assert len(blocks(path)) == 6  # worst, median and best of two sites
    packed = re.search(r'id="packed-viewer">([^<]+)<', text)[1]
    source = gzip.decompress(base64.b64decode(packed))
    assert hashlib.sha256(source).hexdigest() == re.search(
        r"([0-9a-f]{64})", (scripts.VENDOR / "NOTICE-NIIVUE.txt").read_text()
    )[1]  # fmt: skip
    assert "BSD 2-Clause License" in text


def test_the_policy_names_the_scripts_that_are_there_and_no_other(illustrated):
    text = illustrated.read_text()
    inline = re.findall(r"<script>(.*?)</script>", text, flags=re.S)
    packed = gzip.decompress(base64.b64decode(re.search(r'id="packed-viewer">([^<]+)<', text)[1]))
    expected = {base64.b64encode(hashlib.sha256(s).digest()).decode() for s in [*(s.encode() for s in inline), packed]}
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text)[1].replace("&#39;", "'")
    assert set(re.findall(r"'sha256-([^']+)'", policy)) == expected
    assert len(expected) == 3


def test_a_page_without_the_viewer_holds_no_volume(make_study):
    study = make_study(images=True, **SMALL | {"sites": ["A"]})
    with_viewer = report(study).read_text()
    without = report(study, viewer=False).read_text()
    assert len(with_viewer) > 1_000_000 > len(without)
    for trace in ("niivue", "data-volume", "<dialog", "application/json"):
        assert trace in with_viewer
        assert trace not in without


def test_the_command_writes_either_page(make_study, capsys):
    from shiftproof.cli.report import report as command

    study = make_study(images=True, **SMALL | {"sites": ["A"], "n": 2})
    for viewer_wanted in (True, False):
        command(study, viewer=viewer_wanted, json=False)
        assert ("niivue" in (study / "report.html").read_text()) is viewer_wanted
    assert "report.html" in capsys.readouterr().out


def test_the_limit_of_the_page_keeps_the_worst_cases(make_study, monkeypatch):
    study = make_study(images=True, **SMALL)
    results = read_results(study)
    sizes = [len(json.dumps(held(results, f"{d}-0{i}", ("erm/strong", "erm/none")))) / 1e6 for d in "AB" for i in "012"]
    monkeypatch.setattr(viewer, "LIMIT_MB", 2.5 * max(sizes))
    path = report(study)
    left = blocks(path)
    assert sum(len(json.dumps(b)) for b in left.values()) / 1e6 <= viewer.LIMIT_MB
    assert sorted(b["title"].split()[0] for b in left.values()) == ["worst", "worst"]
    assert "4 cases have no volume here" in path.read_text()


def test_pictures_get_no_viewer(tmp_path, make_study):
    results = read_results(make_study(sites=["A"], n=1, rows=["erm/none"], seeds=[0]))
    label = np.zeros((20, 30), np.uint8)
    label[5:12, 8:20] = 1
    for folder in ("images", "labels", results.cells[0].folder.relative_to(results.root) / "predictions"):
        (results.root / folder).mkdir()
        sitk.WriteImage(sitk.GetImageFromArray(label), str(results.root / folder / "A-00.png"))
    for column, value in {"image": "images/A-00.png", "label": "labels/A-00.png", "prediction": "A-00.png"}.items():
        results.subjects[column] = value
    results.subjects.to_csv(results.root / "subjects.csv", index=False)
    text = report(results.root).read_text()
    assert 'class="card"' in text
    assert "niivue" not in text


# Cases ---------------------------------------------------------------------------------------------------------


def failing_rows(results, failures: dict[tuple[str, str], str]) -> None:
    """Mark structures of erm/strong as missed or spurious in the rows that are read."""
    rows = results.rows
    for (subject, structure), status in failures.items():
        where = (rows["row"] == "erm/strong") & (rows["subject"] == subject) & (rows["structure"] == structure)
        rows.loc[where, "status"] = status


@pytest.fixture
def eight(make_study):
    return read_results(make_study(images=True, sites=["A"], n=8, rows=["erm/none", "erm/strong"], seeds=[0, 1]))


def chosen(results):
    values = per_subject(results.rows, "dice")
    return cases.gallery(values, results, "erm/strong", "A")


def test_the_gallery_begins_with_the_two_worst(eight):
    values = per_subject(eight.rows, "dice")
    own = values[values["row"] == "erm/strong"].sort_values("value")["subject"].tolist()
    found = [(c.rank, c.subject) for c in chosen(eight)]
    assert found == [("worst", own[0]), ("second worst", own[1]), ("median", own[3]), ("best", own[7])]


def test_each_kind_of_failure_is_shown_once_with_its_structure(eight):
    shown = {c.subject for c in chosen(eight)}
    others = [f"A-{i:02d}" for i in range(8) if f"A-{i:02d}" not in shown]
    failing_rows(eight, {(others[0], "csf"): "missed", (others[1], "white"): "spurious", (others[2], "grey"): "missed"})
    found = {c.rank: (c.subject, c.structure) for c in chosen(eight)}
    assert found["missed"] == (others[0], "csf")
    assert found["spurious"] == (others[1], "white")
    assert [c.rank for c in chosen(eight)] == ["worst", "second worst", "missed", "spurious", "median", "best"]


def test_a_failure_that_a_bad_case_shows_is_not_shown_again(eight):
    worst = chosen(eight)[0].subject
    failing_rows(eight, {(worst, "csf"): "missed", ("A-02", "csf"): "missed"})
    assert [c.rank for c in chosen(eight)] == ["worst", "second worst", "median", "best"]
    plot = cases.overlay(chosen(eight)[0], eight, "erm/strong", meaning_of(eight))
    assert "Missed: csf." in plot.caption


def test_a_failure_of_a_seed_without_predictions_is_not_pinned_on_another(eight):
    """Only seed 0 kept its predictions; that seed 1 missed a structure cannot be shown."""
    rows = eight.rows
    other = next(f"A-{i:02d}" for i in range(8) if f"A-{i:02d}" not in {c.subject for c in chosen(eight)})
    rows.loc[(rows["subject"] == other) & (rows["seed"] == 1) & (rows["structure"] == "csf"), "status"] = "missed"
    assert "missed" not in {c.rank for c in chosen(eight)}
    rows.loc[(rows["subject"] == other) & (rows["seed"] == 0) & (rows["structure"] == "csf"), "status"] = "missed"
    assert "missed" in {c.rank for c in chosen(eight)}


def test_a_missed_structure_decides_the_slice(results):
    label = sitk.ReadImage(str(results.root / "labels/B-01.nii.gz"))
    array = sitk.GetArrayFromImage(label)  # (Z, Y, X)
    expected = int((array == 1).sum(axis=(1, 2)).argmax())
    case = Case("missed", "B-01", "B", "B", 0.5, 3, structure="csf")
    scan = opened(case, results, ["erm/strong"], meaning_of(results))
    assert scan.first.index == expected
    assert case.title == "csf missed: B-01"
    assert "csf missed of B, B-01" in cases.overlay(case, results, "erm/strong", meaning_of(results)).alt


def test_another_rows_prediction_is_on_the_same_voxels(results):
    meaning = meaning_of(results)
    both = opened(case_of(), results, ["erm/none", "erm/strong"], meaning).places["erm/strong"]
    alone = opened(case_of(), results, ["erm/strong"], meaning).first
    assert np.array_equal(both.arrays[2], alone.arrays[2])
    assert np.unique(alone.arrays[2]).size == 4


def test_every_row_is_drawn_in_the_same_slice(results):
    scan = opened(case_of(), results, ["erm/strong", "erm/none", "nobody"], meaning_of(results))
    assert {place.index for place in scan.places.values()} == {scan.first.index}
    assert scan.reasons == ["nobody kept no prediction of B-01"]


def test_the_worst_of_every_domain_come_before_the_best_of_any():
    room = gallery.Room(3.0)
    cards = []
    for domain in "AB":
        for rank in ("worst", "median", "best"):
            card = gallery.Card(Case(rank, f"{domain}-{rank}", domain, domain, 0.5, 3), [])
            cards.append(card)
            room.offer(card, viewer.Volumes(card.case.subject, "x" * 1_000_000))
    room.fill()
    assert [c.volume for c in cards] == ["A-worst", "A-median", "", "B-worst", "", ""]
    assert room.left_out == 3


def test_a_case_whose_score_is_unknown_is_no_failure_case(eight):
    rows: pd.DataFrame = eight.rows
    rows.loc[rows["subject"] == "A-03", ["value", "status"]] = [np.nan, "missed"]
    assert "A-03" not in {c.subject for c in chosen(eight)}
