from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest

import shiftproof.scenarios as scenarios
from shiftproof.data.cohort import Cohort
from shiftproof.errors import OptionError
from shiftproof.scenarios import liver_tumours
from shiftproof.scenarios.chest_anatomy import Trunk
from shiftproof.scenarios.chest_rendering import Slices
from shiftproof.scenarios.chest_template import LIVER, installed, template
from shiftproof.scenarios.liver_tumours import SCENARIO, SITES
from shiftproof.scenarios.scenario import MARKER, Scan, read_file

try:
    installed()
except OptionError as error:
    pytest.skip(str(error), allow_module_level=True)

FROZEN: dict[str, dict[str, str]] = json.loads(read_file("liver_tumours_digests.json"))


SHOWN = {"A": "2d", "B": "3d", "C": "2d"}


@pytest.fixture(scope="module")
def scans() -> dict[str, Scan]:
    """A frozen one of each site, most of them in the quick size."""
    return {site: liver_tumours.subject(site, 2, size=size, seed=0) for site, size in SHOWN.items()}


def touches_a_face(liver: np.ndarray) -> bool:
    return any(np.moveaxis(liver, axis, 0)[[0, -1]].any() for axis in range(3))


def classes(scan: Scan) -> np.ndarray:
    values = liver_tumours.VALUES[scan.subject[0]]
    return np.where(scan.label == values[2], 2, np.where(scan.label == values[1], 1, 0))


@pytest.mark.parametrize("site", list(SHOWN))
def test_a_subject_is_the_frozen_one(scans: dict[str, Scan], site: str) -> None:
    assert scans[site].digest() == FROZEN[SHOWN[site]][f"{site}003"]


@pytest.mark.parametrize("size", SCENARIO.sizes)
def test_content_hashes_follow_from_the_frozen_digests(size: str) -> None:
    assert len(FROZEN[size]) == 72
    assert SCENARIO.content_hash(FROZEN[size].items()) == SCENARIO.hashes[size]


@pytest.mark.slow
def test_every_subject_is_the_frozen_one(tmp_path: Path) -> None:
    made = scenarios.make("liver-tumours", tmp_path / "all", size="3d", workers=2)
    assert json.loads((made / MARKER).read_text())["content_hash"] == SCENARIO.hashes["3d"]
    for row in Cohort.read(made / "table.csv").rows():
        assert 287 <= float(row.columns["rarity"]) <= 2710
        assert row.label is not None
        assert not touches_a_face(np.asarray(nibabel.load(row.label).dataobj) > 0)


def test_the_whole_liver_is_in_every_volume(scans: dict[str, Scan]) -> None:
    for scan in scans.values():
        liver = classes(scan) > 0
        assert not touches_a_face(liver)
        assert 500 < liver.sum() * abs(np.linalg.det(scan.affine[:3, :3])) / 1000 < 2600  # ml


def test_organ_and_tumour_are_as_rare_as_the_table_says(scans: dict[str, Scan]) -> None:
    for scan in scans.values():
        found = classes(scan)
        assert scan.columns["tumour_voxels"] == (found == 2).sum()
        assert scan.columns["rarity"] == pytest.approx(found.size / (found == 2).sum(), abs=0.05)
        assert scan.columns["rarity_liver"] == pytest.approx(found.size / (found > 0).sum(), abs=0.05)
    volume = scans["B"].columns
    assert 287 <= volume["rarity"] <= 2710
    assert 20 <= volume["rarity_liver"] <= 82


def test_tumours_have_the_volume_that_was_drawn_and_lie_in_the_liver() -> None:
    """Counted on voxels of 3 mm, of one tumour alone: within 8 %."""
    person = Trunk.draw(np.random.default_rng(3), 60)
    tumour = liver_tumours.draw_tumour(np.random.default_rng(1), "A", "portal-venous", person, 40_000.0)
    centre = np.linalg.solve(*_frame(person, tumour.centre_mm))
    reach = 75.0
    axis = np.arange(-reach, reach, 3.0)
    slices = Slices(centre[2] + axis, 3.0, 1, np.zeros(axis.size))
    found = liver_tumours.labels(person, (tumour,), centre[0] + axis, centre[1] + axis, slices)
    assert (found == 2).sum() * 27.0 == pytest.approx(40_000.0, rel=0.08)
    assert (found == 1).any()


def _frame(person: Trunk, template_mm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What `solve` needs to take a template position to the scanner; the warp moves it by some mm more."""
    matrix, shift = person.to_template()
    return matrix, template_mm - shift


def test_tumours_are_darker_or_brighter_than_the_liver_by_what_was_drawn() -> None:
    for severity in (-40.0, 50.0):
        person = Trunk.draw(np.random.default_rng(3), 60)
        tissues = liver_tumours.Tissues.draw(np.random.default_rng(4), 60, person.fat_mm)
        plain = tissues.enhanced("native", {}, 1.0)
        tumour = liver_tumours.draw_tumour(np.random.default_rng(1), "A", "portal-venous", person, 40_000.0)
        tumour = liver_tumours.replace(tumour, severity=severity, fluid=False)
        tumoured = liver_tumours.Tumoured(**vars(plain), tumours=(tumour,))
        random = np.random.default_rng(0)
        positions = tumour.centre_mm[:, None] + random.uniform(-8, 8, (3, 4000))
        smooth = np.concatenate([np.full((1, 4000), -60.0), np.zeros((4, 4000))])
        deep = (template().nearest(positions) == LIVER) & (tumour.depth_mm(positions)[0] > tumour.edge_mm)
        assert deep.sum() > 500
        found = tumoured.hu(person, positions, smooth)[deep]
        assert np.median(found) == pytest.approx(plain.levels["liver"] + severity, abs=0.2 * abs(severity))
        outside = (tumour.depth_mm(positions)[0] < -tumour.edge_mm) | (template().nearest(positions) != LIVER)
        np.testing.assert_array_equal(
            tumoured.hu(person, positions, smooth)[outside], plain.hu(person, positions, smooth)[outside]
        )


def test_the_cohort_is_read_with_organ_and_tumour(tmp_path: Path) -> None:
    folder = scenarios.make("liver-tumours", tmp_path / "made", size="2d", subjects=1, seed=7, sites=["B"])
    cohort = Cohort.read(folder / "table.csv")
    assert list(cohort.classes) == ["background", "liver", "tumour"]
    for row in cohort.rows():
        assert row.label is not None
        found = cohort.labels.encode(np.asarray(nibabel.load(row.label).dataobj), row.domain)
        assert set(np.unique(found)) == {0, 1, 2}
        assert int(row.columns["tumour_voxels"]) == (found == 2).sum()


def test_what_shifts_is_told_for_every_site() -> None:
    assert [row["site"] for row in SCENARIO.shifts] == list(SITES) == list("ABC")
    assert SCENARIO.shifts[1]["contrast phase"] == "arterial"
