from __future__ import annotations

import csv
import json
import tomllib
from collections import Counter
from difflib import SequenceMatcher
from itertools import pairwise
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.neighbors import NearestCentroid

import shiftproof.scenarios as scenarios
from shiftproof.data.cohort import Cohort
from shiftproof.data.images import array_of, is_picture, read_image
from shiftproof.errors import OptionError
from shiftproof.scenarios import digit_sites
from shiftproof.scenarios.digit_sites import FORMS, SUBJECTS, form_of, images_of, order
from shiftproof.scenarios.scenario import MARKER, Scan, read_file, write_files

SCENARIO = scenarios.get("digit-sites")
FROZEN: dict[str, dict[str, str]] = json.loads(read_file("digit_sites_digests.json"))
DIGITS = load_digits()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scenarios.make("digit-sites", tmp_path_factory.mktemp("cohort") / "made", subjects=30)


@pytest.fixture(scope="module")
def table(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "table.csv").open()))


def everyone(size: str, seed: int) -> list[tuple[str, int, int]]:
    """Site, image and digit of each subject, without making pictures."""
    found = []
    for site in SCENARIO.sites:
        seen: Counter[int] = Counter()
        for digit in order(site, size, seed):
            found.append((site, images_of(site, seed)[digit][seen[digit]], digit))
            seen[digit] += 1
    return found


# frozen


@pytest.mark.parametrize("size", SCENARIO.sizes)
def test_digit_subjects_are_the_frozen_ones(size: str) -> None:
    for site in SCENARIO.sites:
        for index in range(0, SUBJECTS[size], 29):
            scan = digit_sites.subject(site, index, size=size, seed=0)
            assert scan.digest() == FROZEN[size][scan.subject]


@pytest.mark.parametrize("size", SCENARIO.sizes)
def test_digit_content_hashes_follow_from_the_frozen_digests(size: str) -> None:
    assert len(FROZEN[size]) == 4 * SUBJECTS[size]
    assert SCENARIO.content_hash(FROZEN[size].items()) == SCENARIO.hashes[size]


@pytest.mark.slow
@pytest.mark.parametrize("size", SCENARIO.sizes)
def test_every_digit_subject_is_the_frozen_one(size: str, tmp_path: Path) -> None:
    made = scenarios.make("digit-sites", tmp_path / "all", size=size)
    marker = json.loads((made / MARKER).read_text())
    assert marker["content_hash"] == SCENARIO.hashes[size]
    assert marker["subjects"] == 4 * SUBJECTS[size]


def test_digests_see_every_pixel_and_the_class() -> None:
    scan = digit_sites.subject("B", 0, size="2d", seed=0)
    brighter = scan.image.copy()
    brighter[5, 7] += 1
    assert Scan(**{**vars(scan), "image": brighter}).digest() != scan.digest()
    other = {**scan.columns, "digit": str((int(scan.columns["digit"]) + 1) % 10)}
    assert Scan(**{**vars(scan), "columns": other}).digest() != scan.digest()


def test_the_same_seed_gives_the_same_subject_and_another_seed_another() -> None:
    first, again, other = (digit_sites.subject("C", 3, size="2d", seed=s) for s in (4, 4, 5))
    np.testing.assert_array_equal(first.image, again.image)
    assert first.columns == again.columns
    assert first.columns["original"] != other.columns["original"]


def test_an_image_is_the_same_in_both_sizes() -> None:
    large = {}
    for i in range(60):
        scan = digit_sites.subject("D", i, size="2d", seed=0)
        large[scan.columns["original"]] = scan.image
    shared = 0
    for i in range(60):
        scan = digit_sites.subject("D", i, size="imbalanced", seed=0)
        if scan.columns["original"] in large:
            shared += 1
            np.testing.assert_array_equal(scan.image, large[scan.columns["original"]])
    assert shared > 20


# who is where


def test_forms_are_copies_of_one_text() -> None:
    """Each of the inferred forms begins where the labels begin to repeat the first form's."""
    text = "".join(map(str, DIGITS.target))

    def alike(first: str, second: str) -> float:
        return SequenceMatcher(None, first, second, autojunk=False).ratio()

    assert FORMS[-1] == len(text)
    for start, end in pairwise(FORMS):
        assert alike(text[:130], text[start:end]) > 0.95  # some copies lack a few digits
        assert alike(text[:8], text[start : start + 8]) > 0.85
        assert alike(text[122:130], text[end - 8 : end]) > 0.7
    assert [form_of(i) for i in (0, 129, 130, 1796)] == [0, 0, 1, 13]


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("size", SCENARIO.sizes)
def test_every_image_is_one_subject_of_one_site(size: str, seed: int) -> None:
    subjects = everyone(size, seed)
    assert len(subjects) == 4 * SUBJECTS[size]
    assert len({image for _, image, _ in subjects}) == len(subjects)
    assert all(DIGITS.target[image] == digit for _, image, digit in subjects)
    sites_of_form: dict[int, set[str]] = {}
    for site, image, _ in subjects:
        sites_of_form.setdefault(form_of(image), set()).add(site)
    assert all(len(sites) == 1 for sites in sites_of_form.values())
    assert len(sites_of_form) == 14


def test_every_assignment_has_enough_images_of_each_digit() -> None:
    for seed in range(100):
        for size in SCENARIO.sizes:
            for site in SCENARIO.sites:
                wanted = np.bincount(order(site, size, seed), minlength=10)
                assert all(len(have) >= n for have, n in zip(images_of(site, seed), wanted, strict=True))


def test_digits_are_balanced_in_any_ten_subjects_and_mixed() -> None:
    for site in SCENARIO.sites:
        drawn = order(site, "2d", 0)
        assert all(sorted(drawn[i : i + 10]) == list(range(10)) for i in range(0, 320, 10))
        assert all(len(set(drawn[start::10])) > 5 for start in range(10))  # a place says nothing of the digit


def test_imbalanced_sites_have_different_common_digits() -> None:
    common = set()
    for site in SCENARIO.sites:
        counts = np.bincount(order(site, "imbalanced", 0), minlength=10)
        assert counts.sum() == 130
        assert 7 <= counts.max() / counts.min() <= 9
        expected = 8.0 ** (-np.arange(10) / 9)
        np.testing.assert_allclose(np.sort(counts)[::-1], 130 * expected / expected.sum(), atol=1)
        common.add(int(counts.argmax()))
    assert len(common) == 4


# files


def test_the_table_names_one_picture_a_subject(folder: Path, table: list[dict[str, str]]) -> None:
    assert list(table[0]) == ["subject", "image", "site", "digit", "form", "original"]
    assert len({row["subject"] for row in table}) == len({row["image"] for row in table}) == len(table) == 120
    assert Counter(row["site"] for row in table) == dict.fromkeys("ABCD", 30)
    for row in table:
        assert row["subject"].startswith(row["site"])
        assert int(row["digit"]) == DIGITS.target[int(row["original"])]
        assert row["form"] == f"F{form_of(int(row['original'])) + 1:02d}"
    assert not (folder / "labels").exists()


def test_labels_toml_says_where_the_class_is(folder: Path) -> None:
    assert tomllib.loads((folder / "labels.toml").read_text()) == {
        "task": "classification",
        "kind": "multi-class",
        "column": "digit",
        "classes": list("0123456789"),
    }


def test_pictures_are_read_as_they_were_made(folder: Path, table: list[dict[str, str]]) -> None:
    for row in table:
        image = read_image(folder / row["image"])
        assert is_picture(image)
        assert image.GetSpacing() == (1, 1, 1)
        assert array_of(image).dtype == (np.uint8 if row["site"] in "AC" else np.uint16)
        assert array_of(image).shape == (32, 32, 1)
    for name, site, index in (("A001", "A", 0), ("B002", "B", 1), ("D030", "D", 29)):
        scan = digit_sites.subject(site, index, size="2d", seed=0)
        np.testing.assert_array_equal(np.asarray(Image.open(folder / "images" / f"{name}.png")), scan.image)


def test_the_cohort_is_read_as_classification(folder: Path) -> None:
    cohort = Cohort.read(folder / "table.csv")
    assert cohort.task == "classification"
    assert cohort.domains == ["A", "B", "C", "D"]
    assert list(cohort.classes) == list("0123456789")
    assert cohort.labelled == 120


def test_digit_subjects_do_not_depend_on_their_number_or_on_workers(folder: Path, tmp_path: Path) -> None:
    few = scenarios.make("digit-sites", tmp_path / "few", subjects=2, sites=["D", "A"], workers=2)
    for name in ("D002", "A001"):
        assert (few / "images" / f"{name}.png").read_bytes() == (folder / "images" / f"{name}.png").read_bytes()
    assert [line[:4] for line in (few / "table.csv").read_text().splitlines()[1:]] == ["D001", "D002", "A001", "A002"]


def test_more_subjects_than_there_are_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="at most 320 subjects a site at size 2d, got 321"):
        scenarios.make("digit-sites", tmp_path / "c", subjects=321)
    with pytest.raises(OptionError, match="at most 130 subjects a site at size imbalanced"):
        scenarios.make("digit-sites", tmp_path / "c", size="imbalanced", subjects=200)
    assert not (tmp_path / "c").exists()


def test_a_volume_may_have_no_label_and_a_picture_may_have_one(tmp_path: Path) -> None:
    volume = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    assert write_files(tmp_path, Scan("V1", volume, None, np.eye(4), {})) == {"image": "images/V1.nii.gz"}
    np.testing.assert_array_equal(np.asarray(nibabel.load(tmp_path / "images" / "V1.nii.gz").dataobj), volume)
    ct = Scan("V2", volume, volume.astype(np.uint8), np.eye(4), {}, channel="CT")
    assert write_files(tmp_path, ct) == {"image:CT": "images/V2.nii.gz", "label": "labels/V2.nii.gz"}
    label = np.arange(6, dtype=np.uint8).reshape(2, 3)
    names = write_files(tmp_path, Scan("P1", label.astype(np.uint16) * 300, label, None, {}))
    assert names == {"image": "images/P1.png", "label": "labels/P1.png"}
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "labels" / "P1.png")), label)


# what shifts


def pictures(table: list[dict[str, str]], folder: Path, site: str) -> np.ndarray:
    names = [row["image"] for row in table if row["site"] == site]
    return np.stack([np.asarray(Image.open(folder / name)) for name in names]).astype(float)


def test_sites_see_the_handwriting_with_the_sign_of_their_physics(folder: Path, table: list[dict[str, str]]) -> None:
    """Against the originals' own pixels, enlarged without our code; turned and smaller at D, hence less alike."""
    means = {}
    for site in SCENARIO.sites:
        alike = []
        for row, image in zip(
            [r for r in table if r["site"] == site], pictures(table, folder, site)[:, 4:28, 4:28], strict=True
        ):
            original = np.kron(DIGITS.images[int(row["original"])], np.ones((3, 3)))
            alike.append(np.corrcoef(original.ravel(), image.ravel())[0, 1])
        means[site] = np.mean(alike)
    assert means["A"] > 0.7
    assert means["B"] < -0.5
    assert means["C"] < -0.4
    assert means["D"] > 0.4


def test_sites_differ_in_noise_range_and_field(folder: Path, table: list[dict[str, str]]) -> None:
    stacks = {site: pictures(table, folder, site) for site in SCENARIO.sites}

    def grain(images: np.ndarray) -> float:
        """Differences of neighbours that no smooth image has, relative to the contrast."""
        mixed = images[:, 1:, 1:] - images[:, :-1, 1:] - images[:, 1:, :-1] + images[:, :-1, :-1]
        return float(np.median(np.median(np.abs(mixed), axis=(1, 2)) / images.std((1, 2))))

    noise = {site: grain(images) for site, images in stacks.items()}
    assert noise["A"] < 0.5 * min(noise[s] for s in "BCD")
    assert noise["C"] == max(noise.values())
    assert stacks["A"].max() <= 255
    assert stacks["C"].max() <= 255
    assert stacks["B"].max() > 1000
    assert stacks["D"].max() > 1000
    corners = {site: images[:, :3, :3].mean() / images[:, 12:20, 12:20].mean() for site, images in stacks.items()}
    assert corners["B"] < 0.15  # outside of the intensifier's round field
    assert corners["D"] < 0.25  # air
    assert corners["C"] > 0.9


def test_class_means_of_raw_intensities_alone_do_not_solve_it(folder: Path, table: list[dict[str, str]]) -> None:
    """As benchmarks/digit_sites_reference.py, which does it in full, with the few subjects at hand."""
    digit, site = (np.array([row[column] for row in table]) for column in ("digit", "site"))
    pixels = np.concatenate([pictures(table, folder, s) for s in SCENARIO.sites]).reshape(len(table), -1)
    for target in SCENARIO.sites:
        there = site == target
        across = NearestCentroid().fit(pixels[~there], digit[~there]).predict(pixels[there])
        assert (across == digit[there]).mean() < 0.35


@pytest.mark.parametrize("name", scenarios.names())
def test_every_scenario_has_its_own_name_and_rows_of_its_sites(name: str) -> None:
    scenario = scenarios.get(name)
    assert scenario.name == name
    assert [row["site"] for row in scenario.shifts] == list(scenario.sites)


def test_what_digit_sites_shifts_and_its_licence_are_told(folder: Path) -> None:
    assert [row["site"] for row in SCENARIO.shifts] == list("ABCD")
    assert len({row["machine"] for row in SCENARIO.shifts}) == 4
    assert "10.24432/C50P49" in SCENARIO.licence
    assert (folder / "NOTICE.txt").read_text() == SCENARIO.licence
