from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest

import shiftproof.scenarios as scenarios
from shiftproof.data.cohort import Cohort
from shiftproof.errors import OptionError, StorageError
from shiftproof.scenarios import brain_sites
from shiftproof.scenarios.scenario import MARKER, RECORDS, SETTINGS, Scan, read_file

SCENARIO = scenarios.get("brain-sites")
FROZEN: dict[str, dict[str, str]] = json.loads(read_file("brain_sites_digests.json"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scenarios.make("brain-sites", tmp_path_factory.mktemp("cohort") / "made", subjects=2)


def canonical(path: Path) -> np.ndarray:
    return np.asarray(nibabel.as_closest_canonical(nibabel.load(path)).dataobj)


# frozen


@pytest.mark.parametrize(("size", "site"), [("2d", s) for s in "ABCD"] + [("3d", "D"), ("full", "C")])
def test_subjects_are_the_frozen_ones(size: str, site: str) -> None:
    scan = brain_sites.subject(site, 3, size=size, seed=0)
    assert scan.digest() == FROZEN[size][scan.subject]


def test_a_frozen_subject_lies_where_it_lay() -> None:
    """Digests are of the arrays; this holds the oblique affine of one of them."""
    expected = [
        [-2.7462, -0.0052, 0.2087, 79.358],
        [-0.0317, -2.6582, -1.0236, 130.84],
        [0.1400, -0.7044, 3.8612, -50.911],
        [0, 0, 0, 1],
    ]
    np.testing.assert_allclose(brain_sites.subject("C", 3, size="3d", seed=0).affine, expected, atol=6e-3)


@pytest.mark.parametrize("size", SCENARIO.sizes)
def test_content_hashes_follow_from_the_frozen_digests(size: str) -> None:
    assert len(FROZEN[size]) == 96
    assert SCENARIO.content_hash(FROZEN[size].items()) == SCENARIO.hashes[size]


@pytest.mark.slow
@pytest.mark.parametrize("size", SCENARIO.sizes)
def test_every_subject_is_the_frozen_one(size: str, tmp_path: Path) -> None:
    made = scenarios.make("brain-sites", tmp_path / "all", size=size, workers=2)
    assert json.loads((made / MARKER).read_text())["content_hash"] == SCENARIO.hashes[size]


def test_digests_see_every_voxel_of_image_and_label() -> None:
    scan = brain_sites.subject("B", 0, size="2d", seed=0)
    for name in ("image", "label"):
        changed = {**vars(scan), name: getattr(scan, name).copy()}
        changed[name][(0,) * changed[name].ndim] += 1
        assert Scan(**changed).digest() != scan.digest()


# people


def test_a_person_has_the_same_age_and_anatomy_at_every_size() -> None:
    small, large = (brain_sites.subject("A", 1, size=size, seed=0) for size in ("2d", "3d"))
    assert small.columns == large.columns

    # Both images cover the brain's middle: compare the classes at the same positions of the scanner.
    index = np.argwhere(large.label > 0)[::37]
    position = index @ large.affine[:3, :3].T + large.affine[:3, 3]
    there = np.rint((position - small.affine[:3, 3]) @ np.linalg.inv(small.affine[:3, :3]).T).astype(int)
    inside = ((there >= 0) & (there < small.label.shape)).all(1)
    same = small.label[tuple(there[inside].T)] == large.label[tuple(index[inside].T)]
    assert inside.sum() > 300
    assert same.mean() > 0.75  # partial volume differs, gyri do not


def test_another_seed_or_index_is_another_person() -> None:
    labels = [brain_sites.subject("A", i, size="2d", seed=s).label for i, s in ((0, 0), (1, 0), (0, 1))]
    for one, two in ((0, 1), (0, 2)):
        overlap = 2 * ((labels[one] == 2) & (labels[two] == 2)).sum()
        assert overlap / ((labels[one] == 2).sum() + (labels[two] == 2).sum()) < 0.75


def test_storage_order_does_not_move_the_world() -> None:
    random = np.random.default_rng(0)
    image, label = random.integers(0, 99, (4, 5, 6)), random.integers(0, 4, (4, 5, 6))
    affine = np.array([[2, 0.3, 0, -7], [-0.3, 2.5, 0.1, 4], [0, -0.1, 3, 9], [0, 0, 0, 1.0]])
    for axes in ("RAS", "LPS", "PIR", "SAL"):
        turned, _, new = brain_sites.stored(image, label, affine, axes)
        assert "".join(nibabel.aff2axcodes(new)) == axes
        back = nibabel.as_closest_canonical(nibabel.Nifti1Image(turned.astype(np.int16), new))
        np.testing.assert_array_equal(np.asarray(back.dataobj), image)
        np.testing.assert_allclose(back.affine, affine, atol=1e-6)


# files


def test_files_hold_the_arrays_and_affines_that_were_made(folder: Path) -> None:
    for name, site, index in (("A001", "A", 0), ("C002", "C", 1), ("D001", "D", 0)):
        scan = brain_sites.subject(site, index, size="2d", seed=0)
        for kind, array in (("images", scan.image), ("labels", scan.label)):
            image = nibabel.load(folder / kind / f"{name}.nii.gz")
            assert image.get_data_dtype() == array.dtype
            np.testing.assert_array_equal(np.asarray(image.dataobj), array)
            np.testing.assert_allclose(image.affine, scan.affine, atol=1e-3)


def test_the_cohort_is_read_with_its_sites_and_classes(folder: Path) -> None:
    cohort = Cohort.read(folder / "table.csv")
    assert len(cohort) == 8
    assert cohort.domains == ["A", "B", "C", "D"]
    assert list(cohort.classes) == ["background", "csf", "grey", "white"]
    for row in cohort.rows():
        assert row.label is not None
        image = row.images["image"]
        assert image is not None
        assert image.is_file()
        found = cohort.labels.encode(canonical(row.label), row.domain)
        assert set(np.unique(found)) == {0, 1, 2, 3}
        assert 20 <= float(row.columns["age"]) <= 88
        assert float(row.columns["field_strength"]) == (1.5 if row.domain == "B" else 3.0)


def test_site_c_numbers_hemispheres_and_ventricles_as_freesurfer_does(folder: Path) -> None:
    label = canonical(folder / "labels" / "C001.nii.gz")
    assert set(np.unique(label)) == {0, 2, 3, 4, 24, 41, 42, 43}
    for left, right in ((2, 41), (3, 42), (4, 43)):
        x_left, x_right = (np.argwhere(label == v)[:, 0].mean() for v in (left, right))
        assert x_left < x_right  # in RAS order the left of the body comes first
    centre = np.argwhere(label > 0).mean(0)
    assert np.linalg.norm(np.argwhere((label == 4) | (label == 43)) - centre, axis=1).mean() < 14
    plain = canonical(folder / "labels" / "A001.nii.gz")
    assert set(np.unique(plain)) == {0, 1, 2, 3}


def test_contrast_is_that_of_the_sites_sequence(folder: Path) -> None:
    cohort = Cohort.read(folder / "table.csv")
    for row in cohort.rows():
        image = canonical(row.images["image"])
        label = cohort.labels.encode(canonical(row.label), row.domain)
        csf, grey, white = (np.median(image[label == c]) for c in (1, 2, 3))
        assert csf < 0.9 * grey
        # Fluid inside the thick voxels darkens grey matter; in FLAIR it is still as bright as white.
        assert grey > 0.95 * white if row.domain == "D" else grey < 0.92 * white
        assert (image == 0).mean() > 0.2 if row.domain == "B" else (image == 0).mean() < 0.1


def test_subjects_do_not_depend_on_their_number_on_the_order_or_on_workers(folder: Path, tmp_path: Path) -> None:
    one = scenarios.make("brain-sites", tmp_path / "one", subjects=1, sites=["D", "B"], workers=2)
    for name in ("images/B001.nii.gz", "labels/D001.nii.gz"):
        assert (one / name).read_bytes() == (folder / name).read_bytes()
    assert [line[:4] for line in (one / "table.csv").read_text().splitlines()[1:]] == ["D001", "B001"]


class Stop(Exception):
    pass


def test_an_interrupted_build_continues_to_the_same_files(folder: Path, tmp_path: Path) -> None:
    def stop_at_three(done: int, total: int) -> None:
        if done == 3:
            raise Stop

    path = tmp_path / "cohort"
    with pytest.raises(Stop):
        scenarios.make("brain-sites", path, subjects=2, progress=stop_at_three)
    assert not (path / MARKER).exists()
    assert not (path / "table.csv").exists()
    (path / "images" / "B002.nii.gz").write_bytes(b"left from before the kill, without a record")

    seen: list[int] = []
    scenarios.make("brain-sites", path, subjects=2, progress=lambda done, total: seen.append(done))
    assert seen == [3, 4, 5, 6, 7, 8]
    for name in ("table.csv", "labels.toml", MARKER, "images/B002.nii.gz", "labels/D002.nii.gz"):
        assert (path / name).read_bytes() == (folder / name).read_bytes()
    assert sorted(p.name for p in path.rglob(".*")) == []


def test_a_complete_folder_is_kept_and_a_damaged_file_is_made_again(folder: Path, tmp_path: Path) -> None:
    path = shutil.copytree(folder, tmp_path / "copy")
    untouched = (path / "images" / "A001.nii.gz").stat().st_mtime_ns
    (path / "images" / "B001.nii.gz").write_bytes(b"damaged")
    (path / "labels" / "C002.nii.gz").unlink()
    (path / RECORDS / "D0.json").write_text("{")
    seen: list[int] = []
    scenarios.make("brain-sites", path, subjects=2, progress=lambda done, total: seen.append(done))
    assert seen == [5, 6, 7, 8]
    assert (path / "images" / "A001.nii.gz").stat().st_mtime_ns == untouched
    for name in ("images/B001.nii.gz", "labels/C002.nii.gz"):
        assert (path / name).read_bytes() == (folder / name).read_bytes()


def test_a_folder_made_by_another_version_is_made_anew(folder: Path, tmp_path: Path) -> None:
    path = shutil.copytree(folder, tmp_path / "copy")
    (path / SETTINGS).write_text((path / SETTINGS).read_text().replace(SCENARIO.hashes["2d"], "old"))
    seen: list[int] = []
    scenarios.make("brain-sites", path, subjects=1, sites=["A"], progress=lambda done, total: seen.append(done))
    assert seen == [0, 1]


def test_a_folder_with_something_else_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(StorageError, match="is not empty and was not made by a scenario"):
        scenarios.make("brain-sites", tmp_path, subjects=1)
    with pytest.raises(StorageError, match=r"seed=0, and .* seed=5 is asked for"):
        scenarios.make("brain-sites", folder, subjects=1, seed=5)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_a_file_that_cannot_be_written_leaves_no_part_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import SimpleITK as sitk

    def full(*args: object, **options: object) -> None:
        Path(str(args[1])).write_bytes(b"part")
        raise RuntimeError("sitk::ERROR: zlib")

    monkeypatch.setattr(sitk, "WriteImage", full)
    with pytest.raises(StorageError, match="has space and run the same command again"):
        scenarios.make("brain-sites", tmp_path / "c", subjects=1, sites=["B"])
    assert list((tmp_path / "c" / "images").iterdir()) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size": "4d"}, "it has 2d, 3d, full"),
        ({"sites": ["A", "E"]}, r"has the sites A, B, C, D; got 'E'"),
        ({"sites": []}, "got none"),
        ({"subjects": 0}, "subjects and workers of at least 1"),
    ],
)
def test_options_out_of_range_are_told(options: dict, words: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=words):
        scenarios.make("brain-sites", tmp_path / "c", **options)
    assert not (tmp_path / "c").exists()


# what it says of itself


def test_unknown_names_are_answered_with_the_nearest() -> None:
    assert {"brain-sites", "digit-sites"} <= set(scenarios.names())
    with pytest.raises(OptionError, match="did you mean 'brain-sites'"):
        scenarios.get("brain-site")
    with pytest.raises(OptionError, match="there are brain-lesions, brain-sites, "):
        scenarios.get("knee")


def test_the_licence_notice_travels_with_every_copy(folder: Path) -> None:
    words = "Copyright (C) 1993-2004 Louis Collins, McConnell Brain Imaging Centre"
    assert words in SCENARIO.licence
    assert (folder / "NOTICE.txt").read_text() == SCENARIO.licence
    assert SCENARIO.licence in (Path(__file__).parents[2] / "NOTICE").read_text()


def test_what_shifts_is_told_for_every_site() -> None:
    assert [row["site"] for row in SCENARIO.shifts] == list("ABCD")
    assert len({row["sequence"] for row in SCENARIO.shifts}) == 4
    assert SCENARIO.shifts[0]["parameters"] == "TR 2300 TI 900 TE 3 ms, 9 deg"


def test_mean_labels_alone_do_not_solve_it(folder: Path) -> None:
    """As benchmarks/brain_sites_reference.py, which does it in full, with the few subjects at hand."""
    cohort = Cohort.read(folder / "table.csv")
    grid = np.stack(np.meshgrid(*[np.arange(-100, 101, 4.0)] * 3, indexing="ij")).reshape(3, -1)

    def classes_at(row, positions: np.ndarray) -> np.ndarray:
        image = nibabel.load(row.label)
        index = np.rint(np.linalg.inv(image.affine)[:3] @ np.vstack([positions, np.ones(positions.shape[1])])).astype(
            int
        )
        inside = ((index >= 0) & (index < np.array(image.shape)[:, None])).all(0)
        out = np.zeros(positions.shape[1], int)
        out[inside] = cohort.labels.encode(np.asarray(image.dataobj), row.domain)[tuple(index[:, inside])]
        return out

    rows = list(cohort.rows())
    found = np.stack([classes_at(row, grid) for row in rows])
    for held in cohort.domains:
        training = found[[r.domain != held for r in rows]]
        common = np.stack([(training == c).sum(0) for c in range(4)]).argmax(0)
        for test in found[[r.domain == held for r in rows]]:
            dice = [
                2 * ((common == c) & (test == c)).sum() / ((common == c).sum() + (test == c).sum()) for c in (1, 2, 3)
            ]
            assert np.mean(dice) < 0.6
