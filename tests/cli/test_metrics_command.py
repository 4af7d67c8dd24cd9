"""shiftproof metrics: the catalogue, the rules, recommendations, and a look at a cohort's labels."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
from typer.testing import CliRunner

from shiftproof.cli.app import app
from shiftproof.data.cohort import Cohort
from shiftproof.errors import CohortError, OptionError, ShiftproofError
from shiftproof.evaluate.look import look
from shiftproof.metrics.described import METRICS
from shiftproof.metrics.rules import RULES


def said(*arguments: object) -> str:
    """What a command that ends well prints."""
    found = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert found.exit_code == 0, found.output
    return found.stdout


def specks(*sides: int) -> np.ndarray:
    """Cubes of these sides, apart from each other, in class 1; an organ in class 2."""
    array = np.zeros((40, 12, 12), np.uint8)
    at = 1
    for side in sides:
        array[at : at + side, 1 : 1 + side, 1 : 1 + side] = 1
        at += side + 2
    array[30:38, 2:10, 2:10] = 2
    return array


SCANS = {"A1": (3, 3, 2, 3), "A2": (3, 2), "B1": (), "B2": (2, 3, 2)}


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    """Lesions of now four, now two, now no components at two sites; B does not annotate the organ."""
    lines = ["subject,image,label,site"]
    for name, sides in SCANS.items():
        array = specks(*sides)
        if name[0] == "B":
            array[array == 2] = 0
        image = sitk.GetImageFromArray(array.T.copy())
        image.SetSpacing((1.0, 1.0, 2.0))
        sitk.WriteImage(image, str(tmp_path / f"{name}.nii.gz"))
        lines.append(f"{name},{name}.nii.gz,{name}.nii.gz,{name[0]}")
    (tmp_path / "table.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "labels.toml").write_text(
        'classes = ["background", "lesion", "organ"]\n[default]\nlesion = 1\norgan = 2\n[site.B]\nlesion = 1\n'
    )
    return tmp_path


def test_a_look_counts_what_was_drawn(cohort: Path) -> None:
    seen = look(Cohort.read(cohort), tolerance_mm={"lesion": 5.0})
    lesion, organ = seen.looks
    assert (lesion.name, lesion.scans, lesion.present) == ("lesion", 4, 3)
    voxels = sorted(sum(s**3 for s in sides) for sides in SCANS.values() if sides)
    assert lesion.voxels == (voxels[0], voxels[1], voxels[2])
    assert lesion.volume_ml == pytest.approx([2 * v / 1000 for v in voxels])
    assert lesion.components == (2, 3, 4)
    assert (lesion.small, lesion.wide) == (3, 3)
    assert lesion.properties == ["small", "lesions", "empty"]

    assert (organ.scans, organ.present) == (2, 2)  # only where it is annotated
    assert organ.voxels == (512, 512, 512)
    assert (organ.components, organ.small, organ.properties) == ((1, 1, 1), 0, [])
    assert seen.failures == []


def test_a_label_that_cannot_be_read_is_said_and_the_others_are_looked_at(cohort: Path) -> None:
    (cohort / "A1.nii.gz").write_bytes(b"no image")
    seen = look(Cohort.read(cohort))
    assert len(seen.failures) == 1
    assert seen.failures[0].startswith("A1: ")
    assert seen.looks[0].scans == 3
    for name in SCANS:
        (cohort / f"{name}.nii.gz").write_bytes(b"no image")
    with pytest.raises(CohortError, match="none of 4 labels could be read; the first: A1"):
        look(Cohort.read(cohort))


@pytest.mark.slow
def test_processes_see_the_same(cohort: Path) -> None:
    assert look(Cohort.read(cohort), workers=2) == look(Cohort.read(cohort))


def test_stray_voxels_and_pairs_are_no_lesions(tmp_path: Path) -> None:
    lines = ["subject,image,label,site"]
    for number in range(4):
        array = np.zeros((40, 12, 12), np.uint8)
        array[2:10, 2:10, 2:10] = array[20:28, 2:10, 2:10] = 1  # two sides of a body
        for speck in range(number + 1):
            array[2 + 3 * speck, 11, 11] = 1
        sitk.WriteImage(sitk.GetImageFromArray(array.T.copy()), str(tmp_path / f"{number}.nii.gz"))
        lines.append(f"s{number},{number}.nii.gz,{number}.nii.gz,A")
    (tmp_path / "table.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "labels.toml").write_text('classes = ["background", "kidneys"]\n[default]\nkidneys = 1\n')
    (one,) = look(Cohort.read(tmp_path)).looks
    assert one.components == (3, 4.5, 6)
    assert one.properties == []


def test_overlapping_structures_are_looked_at_one_by_one(tmp_path: Path) -> None:
    array = np.zeros((12, 12, 12), np.uint8)
    array[2:9, 2:9, 2:9] = 1
    array[4:6, 4:6, 4:6] = 2
    sitk.WriteImage(sitk.GetImageFromArray(array), str(tmp_path / "a.nii.gz"))
    (tmp_path / "table.csv").write_text("subject,image,label,site\na,a.nii.gz,a.nii.gz,A\n")
    (tmp_path / "labels.toml").write_text(
        'classes = ["background", "whole", "core"]\nkind = "multi-label"\n[default]\nwhole = [1, 2]\ncore = 2\n'
    )
    whole, core = look(Cohort.read(tmp_path)).looks
    assert (whole.voxels[1], core.voxels[1]) == (343, 8)


def table(folder: Path, labels: str, lines: list[str]) -> Path:
    (folder / "labels.toml").write_text(labels)
    (folder / "table.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_classes_are_counted_by_domain(tmp_path: Path) -> None:
    cells = ["ill" if n < (1 if site == "A" else 3) else "well" for site in "AB" for n in range(10)]
    lines = [f"{n % 19},x.png,{'AB'[n // 10]},{cell}" for n, cell in enumerate(cells)]
    labels = 'task = "classification"\ncolumn = "state"\nclasses = ["well", "ill"]\n'
    seen = look(Cohort.read(table(tmp_path, labels, ["subject,image,site,state", *lines])))
    assert seen.task == "classification"
    well, ill = seen.looks
    assert (well.present, ill.present, ill.scans) == (16, 4, 20)
    assert ill.properties == ["imbalance", "prevalence", "clusters"]  # a tenth and three tenths; subject 0 twice
    assert well.properties == ["imbalance", "clusters"]


def test_findings_that_are_not_annotated_count_nowhere(tmp_path: Path) -> None:
    labels = 'task = "classification"\nkind = "multi-label"\ncolumn = "f"\nclasses = ["x", "y"]\n'
    lines = ["subject,image,site,f:x,f:y", "a,a.png,A,1,", "b,b.png,A,0,1", "c,c.png,B,1,0"]
    seen = look(Cohort.read(table(tmp_path, labels, lines)))
    assert seen.task == "findings"
    assert [(o.name, o.scans, o.present) for o in seen.looks] == [("x", 3, 2), ("y", 2, 1)]


def test_a_cohort_gets_a_recommendation_for_each_structure(cohort: Path) -> None:
    found = json.loads(said("metrics", "--cohort", cohort, "--json"))
    lesion, organ = found["recommended"]
    assert (lesion["of"], lesion["primary"], organ["primary"]) == ("lesion", "lesion f1", "dice")
    assert found["options"] == '--lesions "lesion"'
    text = said("metrics", "--cohort", cohort, "--structure", "tubular", "--tolerance-mm", "lesion=6")
    assert "3 of 4" in text
    assert "lesion: the tolerance reaches across it in 3 scans" in text
    assert '--lesions "lesion" --also "cldice"' in text
    assert "median (least, most)" in text


def test_without_arguments_everything_is_listed() -> None:
    text = said("metrics")
    for metric in METRICS:
        assert metric.name in text
    found = json.loads(said("metrics", "--json"))
    assert found["rules"] == RULES
    assert len(found["metrics"]) == len(METRICS)
    assert {"tasks", "properties"} <= set(found)


def test_a_task_gets_its_recommendation_and_the_rules() -> None:
    text = said("metrics", "segmentation", "--structure", "small,lesions")
    assert "compare by lesion f1" in text
    assert RULES["lesion match"] in text
    found = json.loads(said("metrics", "grading", "--json"))
    assert found["primary"] == "quadratic kappa"
    assert all(p["reason"] for p in found["picks"])


def test_a_metric_is_told_by_its_name() -> None:
    assert "panoptic quality" in said("metrics", "panoptic quality")
    both = json.loads(said("metrics", "sensitivity", "--json"))
    assert [m["tasks"][0] for m in both] == ["segmentation", "classification"]


def test_bad_input_is_told_in_one_line(cohort: Path, tmp_path: Path) -> None:
    def refused(*arguments: object) -> str:
        found = CliRunner().invoke(app, ["metrics", *map(str, arguments)])
        assert isinstance(found.exception, ShiftproofError)
        return str(found.exception)

    assert 'did you mean "detection"' in refused("detecton")
    assert "leave one of them out" in refused("segmentation", "--cohort", cohort)
    assert "lesion=1,liver=3" in refused("--cohort", cohort, "--tolerance-mm", "wide")
    assert 'no structure "liver"' in refused("--cohort", cohort, "--tolerance-mm", "liver=2")
    with pytest.raises(OptionError, match='no property "flat"'):
        CliRunner().invoke(app, ["metrics", "regression", "--structure", "flat"], catch_exceptions=False)
    with pytest.raises(CohortError, match="no labelled scan"):
        look(Cohort.read(cohort).without_labels())


def test_an_evaluation_gives_what_the_look_recommends(cohort: Path, tmp_path: Path) -> None:
    folder = tmp_path / "predicted"
    folder.mkdir()
    for name in SCANS:
        array = np.where(specks(*SCANS[name][1:]) == 1, 1, 0).astype(np.uint8)  # without the first lesion
        image = sitk.GetImageFromArray(array.T.copy())
        image.SetSpacing((1.0, 1.0, 2.0))
        sitk.WriteImage(image, str(folder / f"{name}.nii.gz"))
    found = CliRunner().invoke(
        app,
        [
            "evaluate", str(cohort), "--predictions", str(folder), "--out", str(tmp_path / "out"),
            "--lesions", "lesion", "--also", "boundary iou, masd mm",
            "--tolerance-mm", "lesion=0.5", "--smallest-lesion-ml", "0.001",
        ],
        catch_exceptions=False,
    )  # fmt: skip
    assert found.exit_code == 0, found.output
    assert "lesion: fewer than 125 voxels in 3 of 3 scans" in found.output
    rows = pd.read_csv(tmp_path / "out" / "rows.csv")
    own = rows[rows["structure"] == "lesion"].set_index(["subject", "metric"])["value"]
    assert own["B1", "false lesions"] == 0
    assert np.isnan(own["B1", "lesion f1"])
    assert {"boundary iou", "masd mm", "panoptic quality"} <= set(rows["metric"])
    facts = json.loads((tmp_path / "out" / "evaluation.json").read_text(encoding="utf-8"))
    assert (facts["tolerance_mm"], facts["smallest_lesion_ml"]) == ({"lesion": 0.5}, 0.001)
    page = next((tmp_path / "out").glob("*.html")).read_text(encoding="utf-8")
    assert "0.5 mm" in page
