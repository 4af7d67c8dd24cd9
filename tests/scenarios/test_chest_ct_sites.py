from __future__ import annotations

import csv
import json
from functools import lru_cache
from pathlib import Path

import nibabel
import numpy as np
import pytest
from scipy import ndimage

from shiftproof.data.cohort import Cohort
from shiftproof.data.plan import make_plan
from shiftproof.errors import OptionError
from shiftproof.scenarios import chest_ct_sites
from shiftproof.scenarios.chest_ct_sites import CLASSES, SCENARIO, SITES
from shiftproof.scenarios.chest_template import installed
from shiftproof.scenarios.scenario import MARKER, Scan, read_file

try:
    installed()
except OptionError as error:
    pytest.skip(str(error), allow_module_level=True)

FROZEN: dict[str, dict[str, str]] = json.loads(read_file("chest_ct_sites_digests.json"))
AIR_HU, LUNGS, HEART, AORTA, LIVER = -1000, 1, 2, 3, 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return SCENARIO.make(tmp_path_factory.mktemp("cohort") / "made", subjects=2)


@pytest.fixture(scope="module")
def table(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "table.csv").open()))


@pytest.fixture(scope="module")
def scans(folder: Path) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """HU, class and voxel size of each subject, along R, A, S."""
    cohort, found = Cohort.read(folder / "table.csv"), {}
    for row in cohort.rows():
        image, label = (nibabel.as_closest_canonical(nibabel.load(p)) for p in (row.images["CT"], row.label))
        index = cohort.labels.encode(np.asarray(label.dataobj), row.domain)
        found[row.subject] = np.asarray(image.dataobj), index, image.header.get_zooms()
    return found


@lru_cache
def made(site: str, index: int, size: str) -> Scan:
    """A subject of the frozen cohort."""
    return chest_ct_sites.subject(site, index, size=size, seed=0)


def inside(label: np.ndarray, value: int) -> np.ndarray:
    """An organ without the rim that shares its voxels with others."""
    return ndimage.binary_erosion(label == value, np.ones((3, 3, 1)))


# frozen


@pytest.mark.parametrize(("size", "site"), [("2d", s) for s in "ABCD"] + [("3d", "A")])
def test_chest_subjects_are_the_frozen_ones(size: str, site: str) -> None:
    scan = made(site, 1, size)
    assert scan.digest() == FROZEN[size][scan.subject]


@pytest.mark.parametrize("size", SCENARIO.sizes)
def test_chest_content_hashes_follow_from_the_frozen_digests(size: str) -> None:
    assert len(FROZEN[size]) == 96
    assert SCENARIO.content_hash(FROZEN[size].items()) == SCENARIO.hashes[size]


def test_the_hash_of_a_small_set_is_that_of_its_digests(folder: Path) -> None:
    made = json.loads((folder / MARKER).read_text())["content_hash"]
    names = [f"{site}{i:03d}" for site in "ABCD" for i in (1, 2)]
    assert made == SCENARIO.content_hash((n, FROZEN["2d"][n]) for n in names)


@pytest.mark.slow
@pytest.mark.parametrize("size", SCENARIO.sizes)
def test_every_chest_subject_is_the_frozen_one(size: str, tmp_path: Path) -> None:
    made = SCENARIO.make(tmp_path / "all", size=size, workers=2)
    assert json.loads((made / MARKER).read_text())["content_hash"] == SCENARIO.hashes[size]


# files


def test_chest_files_hold_the_arrays_and_affines_that_were_made(folder: Path) -> None:
    for name, site, index in (("B002", "B", 1), ("C002", "C", 1)):
        scan = made(site, index, "2d")
        for kind, array, kept in (("images", scan.image, np.int16), ("labels", scan.label, np.uint8)):
            image = nibabel.load(folder / kind / f"{name}.nii.gz")
            assert image.get_data_dtype() == kept
            np.testing.assert_array_equal(np.asarray(image.dataobj), array)
            np.testing.assert_allclose(image.affine, scan.affine, atol=1e-3)


def test_a_subject_does_not_depend_on_the_others_or_on_workers(folder: Path, tmp_path: Path) -> None:
    again = SCENARIO.make(tmp_path / "again", subjects=1, sites=["D", "A"], workers=2)
    for name in ("images/A001.nii.gz", "labels/D001.nii.gz"):
        assert (again / name).read_bytes() == (folder / name).read_bytes()


def test_the_channel_is_ct_so_that_plans_clip(folder: Path, table: list[dict[str, str]]) -> None:
    assert list(table[0])[:4] == ["subject", "image:CT", "label", "site"]
    plan = make_plan(Cohort.read(folder / "table.csv"), dimensions=2)
    rule = plan.normalisation["CT"]
    assert rule["scheme"] == "clip"
    assert -1000 <= rule["lower"] < -300
    assert 100 < rule["upper"] < 900


def test_columns_say_how_each_subject_was_scanned(table: list[dict[str, str]]) -> None:
    assert len(table) == 8
    for row in table:
        site = SITES[row["site"]]
        assert row["kernel"] == site.kernel.name
        assert float(row["slice_thickness_mm"]) == site.thickness_mm
        assert 0.79 * site.mas <= float(row["dose_mas"]) <= 1.26 * site.mas
        assert row["phase"] in site.phases
        assert site.ages[0] <= float(row["age"]) <= site.ages[1]
        assert 330 <= float(row["fov_mm"]) <= 500
        assert row["arms"] in ("up", "down")
    assert {row["phase"] for row in table if row["site"] == "C"} == {"arterial"}
    assert {row["phase"] for row in table if row["site"] == "B"} == {"native"}


@pytest.mark.parametrize(("size", "site", "apart_mm"), [("2d", "B", 18.0), ("3d", "A", 5.0)])
def test_headers_hold_the_field_of_view_and_the_distance_of_slices(size: str, site: str, apart_mm: float) -> None:
    scan = made(site, 1, size)
    image = nibabel.as_closest_canonical(nibabel.Nifti1Image(scan.image, scan.affine))
    spacing = image.header.get_zooms()
    assert spacing[2] == pytest.approx(apart_mm)
    assert spacing[0] * image.shape[0] == pytest.approx(float(scan.columns["fov_mm"]), rel=1e-6)
    assert scan.columns["slice_thickness_mm"] == {"A": 5.0, "B": 2.5}[site]
    assert "".join(nibabel.aff2axcodes(scan.affine)) == SITES[site].axes


def test_site_c_numbers_organs_its_own_way_and_by_side(folder: Path) -> None:
    label = np.asarray(nibabel.as_closest_canonical(nibabel.load(folder / "labels" / "C002.nii.gz")).dataobj)
    assert set(np.unique(label)) <= {0, 1, 2, 3, 5, 7, 11, 14, 44}
    for right, left in ((14, 11), (2, 3)):
        x_right, x_left = (np.argwhere(label == v)[:, 0].mean() for v in (right, left))
        assert x_right > x_left  # in RAS order the right of the body comes last
    assert np.argwhere(label == 5)[:, 0].mean() > np.argwhere(label == 1)[:, 0].mean()  # liver right of the spleen


# anatomy


def test_all_six_organs_are_there_in_plausible_volumes(scans: dict) -> None:
    # Millilitres within the field of view; lungs, aorta and kidneys may be cut.
    ranges = {1: (1500, 6500), 2: (200, 950), 3: (60, 420), 4: (500, 2600), 5: (25, 500), 6: (5, 420)}
    for _, label, spacing in scans.values():
        assert set(np.unique(label)) == set(range(len(CLASSES)))
        for value, (low, high) in ranges.items():
            assert low < (label == value).sum() * np.prod(spacing) / 1000 < high


def test_two_persons_overlap_little_even_when_their_images_are_centred(scans: dict) -> None:
    for site in "AD":
        one, two = (scans[f"{site}00{i}"][1] for i in (1, 2))
        dice = [2 * ((one == v) & (two == v)).sum() / ((one == v).sum() + (two == v).sum()) for v in range(1, 7)]
        assert np.mean(dice) < 0.6


def test_a_person_is_the_same_at_every_size() -> None:
    small, large = (made("A", 1, size) for size in ("2d", "3d"))
    assert small.columns == large.columns
    index = np.argwhere(large.label > 0)[::17]
    position = index @ large.affine[:3, :3].T + large.affine[:3, 3]
    there = (position - small.affine[:3, 3]) @ np.linalg.inv(small.affine[:3, :3]).T
    near = np.abs(there[:, 2] - np.rint(there[:, 2])) < 0.1  # where "2d" has a slice
    there = np.rint(there).astype(int)
    inside = near & ((there >= 0) & (there < small.label.shape)).all(1)
    same = small.label[tuple(there[inside].T)] == large.label[tuple(index[inside].T)]
    assert inside.sum() > 300
    assert same.mean() > 0.85


def test_another_seed_is_another_person() -> None:
    one, two = made("A", 1, "2d"), chest_ct_sites.subject("A", 1, size="2d", seed=1)
    assert one.digest() != two.digest()
    overlap = 2 * ((one.label == LIVER) & (two.label == LIVER)).sum()
    assert overlap / ((one.label == LIVER).sum() + (two.label == LIVER).sum()) < 0.85


# images


def test_organs_have_the_hu_of_the_sites_phase(scans: dict, table: list[dict[str, str]]) -> None:
    """Median HU away from the rim, by phase: ranges of the literature, widened by calibration and voltage."""
    ranges = {
        "native": {"aorta": (10, 75), "heart": (10, 75), "liver": (-5, 85)},
        "arterial": {"aorta": (220, 620), "heart": (180, 600), "liver": (10, 120)},
        "portal-venous": {"aorta": (80, 230), "heart": (70, 210), "liver": (40, 160)},
    }
    values = {"aorta": AORTA, "heart": HEART, "liver": LIVER}
    for row in table:
        hu, label, _ = scans[row["subject"]]
        dark = 120 if row["site"] == "D" else 0  # scatter takes HU away, the more the thicker the person
        for organ, (low, high) in ranges[row["phase"]].items():
            assert low - dark < np.median(hu[inside(label, values[organ])]) < high, (row["subject"], organ)
        assert -930 < np.median(hu[inside(label, LUNGS)]) < -680
        assert np.median(hu[inside(label, LUNGS)]) > AIR_HU


def high_pass(hu: np.ndarray, where: np.ndarray) -> float:
    """Noise in HU: difference of neighbours along A, over sqrt 2."""
    pairs = where[:, 1:] & where[:, :-1]
    return float((hu[:, 1:] - hu[:, :-1]).astype(float)[pairs].std() / np.sqrt(2))


def test_the_low_dose_site_is_the_noisiest(scans: dict) -> None:
    noise = {
        s: np.mean([high_pass(scans[f"{s}00{i}"][0], inside(scans[f"{s}00{i}"][1], LIVER)) for i in (1, 2)])
        for s in "ABCD"
    }
    assert noise["B"] > 2.5 * noise["A"]
    assert 2 < noise["A"] < 20
    assert 30 < noise["B"] < 110


def test_noise_is_coloured_and_depends_on_dose(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two scans of the same person that differ by their photons only; the difference has back-projection's spectrum."""
    from dataclasses import replace

    def scanned(mas: float) -> np.ndarray:
        monkeypatch.setitem(chest_ct_sites.SITES, "A", replace(SITES["A"], mas=mas))
        return chest_ct_sites.subject("A", 0, size="2d", seed=0).image.astype(float)

    clean = scanned(1e7)
    low, high = (scanned(mas) - clean for mas in (20.0, 180.0))
    body = clean > -200
    assert 2.3 < low[body].std() / high[body].std() < 4.5  # square root of nine, more where rays starve

    spectrum = (np.abs(np.fft.fft2(high[20:60, 20:60], axes=(0, 1))) ** 2).mean(-1)
    frequency = np.hypot(*np.meshgrid(*[np.fft.fftfreq(40)] * 2, indexing="ij"))
    lowest, middle = (spectrum[(frequency > a) & (frequency <= b)].mean() for a, b in ((0, 0.05), (0.15, 0.25)))
    assert middle > 1.5 * lowest  # rises with frequency from the ramp ...
    assert spectrum[frequency > 0.45].mean() < 0.5 * middle  # ... and falls where the soft kernel ends


def test_sites_differ_in_sharpness(scans: dict) -> None:
    """Steepest step between lung and what is around it, per mm: sharp kernel against thick and soft."""
    slope = {}
    for site in "BD":
        hu, label, spacing = scans[f"{site}001"]
        border = ndimage.binary_dilation(label == LUNGS, np.ones((3, 3, 1))) & (label != LUNGS)
        slope[site] = np.percentile(np.abs(np.gradient(hu.astype(float), spacing[0], axis=0))[border], 90)
    assert slope["B"] > 1.4 * slope["D"]


def test_thick_slices_mix_what_thin_ones_keep_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Within the lung of the thin slice, the thick one reaches the diaphragm below it."""
    from dataclasses import replace

    def scanned(thickness_mm: float) -> Scan:
        monkeypatch.setitem(chest_ct_sites.SITES, "D", replace(SITES["D"], thickness_mm=thickness_mm, mas=1e7))
        return chest_ct_sites.subject("D", 0, size="2d", seed=0)

    thin, thick = scanned(2.5), scanned(17.5)
    assert thick.columns["slice_thickness_mm"] == 17.5
    np.testing.assert_array_equal(thin.affine, thick.affine)
    lung = inside(thin.label, LUNGS)
    mixed = [(scan.image[lung] > -600).mean() for scan in (thin, thick)]
    assert mixed[1] > 1.5 * mixed[0]


def test_the_zoomed_site_cuts_the_skin_and_the_wide_one_shows_the_table(scans: dict) -> None:
    def touched(site: str) -> float:
        """Share of the image's border along R and A that is not air, the table's rows left out."""
        hu = scans[f"{site}001"][0]
        return float((hu[[0, -1], 20:] > -300).mean())

    assert touched("B") > touched("D") + 0.05
    hu, label, _ = scans["D001"]
    lowest = np.argwhere(label > 0)[:, 1].min()
    assert ((hu[:, : lowest - 8] > -900).any(1)).mean() > 0.2


# what it says of itself


def test_what_shifts_and_the_licence_are_told(folder: Path) -> None:
    assert [row["site"] for row in SCENARIO.shifts] == list("ABCD")
    assert len({row["kernel"] for row in SCENARIO.shifts}) == 4
    assert SCENARIO.shifts[2]["tube"] == "100 kVp, 110 mAs"
    assert SCENARIO.shifts[1]["HU of water"] == "-6"
    assert SCENARIO.shifts[3]["scatter"] == "4 % of the mean ray"
    assert "MIT License" in SCENARIO.licence
    assert "Copyright (c) 2022 Vivek Gopalakrishnan" in (folder / "NOTICE.txt").read_text()


def test_mean_hu_alone_does_not_tell_the_organs(scans: dict) -> None:
    """The class nearest in HU, from the other sites' medians, inside of the body: what a table of mean HU can do."""
    for held in "ABCD":
        medians = [
            np.median(np.concatenate([hu[label == c] for name, (hu, label, _) in scans.items() if name[0] != held]))
            for c in range(len(CLASSES))
        ]
        for name in (f"{held}001", f"{held}002"):
            hu, label, _ = scans[name]
            guess = np.abs(hu[..., None] - np.array(medians)).argmin(-1)
            dice = [
                2 * ((guess == c) & (label == c)).sum() / ((guess == c).sum() + (label == c).sum()) for c in range(1, 7)
            ]
            assert np.mean(dice) < 0.45
