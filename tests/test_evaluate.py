"""Rows of predictions whose scores are known, and of models and files of any origin."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
import torch

from shiftproof.data.cohort import Cohort, Row
from shiftproof.data.images import image_of
from shiftproof.data.plan import Plan
from shiftproof.data.samples import Samples
from shiftproof.deploy.model import Model, save_model
from shiftproof.errors import CohortError, GeometryError, LabelError, ModelError, OptionError
from shiftproof.evaluate import COLUMNS, Failure, Size, evaluate, rows_of
from shiftproof.methods.method import Setting
from shiftproof.recipe import Recipe, build
from shiftproof.report import evaluation_report
from shiftproof.tasks.segmentation import Segmentation

SHAPE = (12, 11, 10)
SPACING = (1.0, 2.0, 3.0)
RULE = {"scheme": "clip", "lower": -1e6, "upper": 1e6, "mean": 0.0, "sd": 1.0}

LABELS = """
classes = ["background", "core", "rim"]
[default]
core = 1
rim = 2
[site.B]
core = 5
rim = [7, 8]
ignore = [9]
[site.C]
core = 1
"""


def box(*sides: tuple[int, int], value: int = 1) -> np.ndarray:
    array = np.zeros(SHAPE, np.uint8)
    array[tuple(slice(*s) for s in sides)] = value
    return array


def image(array: np.ndarray, *, origin: tuple[float, ...] = (3.0, 4.0, 5.0)) -> sitk.Image:
    found = image_of(array)
    found.SetSpacing(SPACING)
    found.SetOrigin(origin)
    return found


def write(path: Path, array: np.ndarray, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image(array, **options), str(path))
    return path


CORE, RIM = box((2, 6), (2, 6), (2, 6)), box((7, 10), (2, 8), (2, 6), value=2)
TRUE = CORE + RIM


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    """The same anatomy at three sites that write it in their own values; C does not annotate the rim."""
    own = {
        "A": TRUE,
        "B": np.select([TRUE == 1, TRUE == 2], [5, 7]).astype(np.uint8),
        "C": CORE,
    }
    own["B"][8, 2:8, 2:6] = 8  # two values, one structure
    lines = ["subject,image,label,site"]
    for site, values in own.items():
        write(tmp_path / "images" / f"{site}1_0000.nii.gz", TRUE.astype(np.float32))
        write(tmp_path / "labels" / f"{site}1.nii.gz", values)
        lines.append(f"{site}-1,images/{site}1_0000.nii.gz,labels/{site}1.nii.gz,{site}")
    (tmp_path / "table.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "labels.toml").write_text(LABELS)
    return Cohort.read(tmp_path / "table.csv")


def value(rows: pd.DataFrame, subject: str, structure: str, metric: str = "dice") -> float:
    some = rows[(rows["subject"] == subject) & (rows["structure"] == structure) & (rows["metric"] == metric)]
    assert len(some) == 1
    return float(some["value"].iloc[0])


def test_a_perfect_prediction_scores_1_at_every_site(cohort: Cohort) -> None:
    rows = rows_of(lambda row: image(TRUE), cohort)
    assert tuple(rows.columns) == COLUMNS
    assert (rows[rows["metric"] == "dice"]["value"] == 1).all()
    assert (rows[rows["metric"] == "hd95 mm"]["value"] == 0).all()
    assert list(rows["subject"].unique()) == ["A-1", "B-1", "C-1"]
    # C says nothing of the rim, so nothing is said of it there.
    assert set(rows[rows["domain"] == "C"]["structure"]) == {"core"}


def test_known_overlaps_give_known_scores(cohort: Cohort) -> None:
    moved = box((3, 7), (2, 6), (2, 6)) + RIM
    rows = rows_of(lambda row: image(moved), cohort)
    # 4 x 4 x 4 voxels moved by one: 48 of 64 remain.
    assert value(rows, "A-1", "core") == pytest.approx(0.75)
    assert value(rows, "A-1", "core", "sensitivity") == pytest.approx(0.75)
    assert value(rows, "A-1", "core", "hd95 mm") == pytest.approx(SPACING[0])
    assert value(rows, "A-1", "core", "volume error ml") == 0
    assert value(rows, "A-1", "rim") == 1


def test_a_missed_and_a_spurious_structure_follow_the_declared_rule(cohort: Cohort) -> None:
    rows = rows_of(lambda row: image(RIM if row.domain == "A" else TRUE), cohort)
    core = rows[(rows["subject"] == "A-1") & (rows["structure"] == "core")]
    assert set(core["status"]) == {"missed"}
    assert value(rows, "A-1", "core") == 0
    diagonal = math.hypot(*(n * s for n, s in zip(SHAPE, SPACING, strict=True)))
    assert value(rows, "A-1", "core", "assd mm") == pytest.approx(diagonal)
    assert value(rows, "A-1", "core", "volume error ml") == pytest.approx(-64 * 6 / 1000)


def test_no_prediction_counts_as_missed(cohort: Cohort) -> None:
    rows = rows_of(lambda row: None, cohort)
    assert set(rows["status"]) == {"missed"}
    assert (rows[rows["metric"] == "dice"]["value"] == 0).all()


def test_ignored_voxels_count_for_nothing(cohort: Cohort, tmp_path: Path) -> None:
    values = np.select([TRUE == 1, TRUE == 2], [5, 7]).astype(np.uint8)
    values[3:7, 2:6, 2:6] = 9  # all but one slice of the core
    write(tmp_path / "labels" / "B1.nii.gz", values)
    rows = rows_of(lambda row: image(box((2, 9), (2, 6), (2, 6))), cohort)
    # Known of the core: slice 2, found; beyond the ignored voxels 2 slices too many, which the rim has or nothing.
    assert value(rows, "B-1", "core") == pytest.approx(2 * 16 / (16 + 16 + 2 * 16))


@pytest.mark.parametrize("kind", ["image", "file"])
def test_a_prediction_on_another_grid_is_refused_by_how_much(kind: str, cohort: Cohort, tmp_path: Path) -> None:
    path = write(tmp_path / "off.nii.gz", TRUE, origin=(3.0, 4.0, 7.5))
    with pytest.raises(GeometryError, match="2.5 mm") as caught:
        rows_of(lambda row: path if kind == "file" else sitk.ReadImage(str(path)), cohort)
    assert "A1.nii.gz" in str(caught.value)


def test_values_that_are_no_class_are_refused_with_the_cure(cohort: Cohort) -> None:
    with pytest.raises(LabelError, match="has the values 5, 7, expected class indices .*--values cohort"):
        rows_of(lambda row: image(np.select([TRUE == 1, TRUE == 2], [5, 7]).astype(np.uint8)), cohort)


def test_fractions_are_no_label(cohort: Cohort) -> None:
    with pytest.raises(LabelError, match="whole numbers"):
        rows_of(lambda row: image(TRUE * np.float32(0.5)), cohort)


def test_whole_numbers_stored_as_floats_are_a_label(cohort: Cohort) -> None:
    rows = rows_of(lambda row: image(TRUE.astype(np.float32)), cohort)
    assert value(rows, "A-1", "rim") == 1


def test_predictions_may_hold_the_cohort_s_own_values(cohort: Cohort) -> None:
    def as_drawn(row: Row) -> Path:
        assert row.label is not None
        return row.label

    rows = rows_of(as_drawn, cohort, values="cohort")
    assert (rows[rows["metric"] == "dice"]["value"] == 1).all()
    with pytest.raises(LabelError):
        rows_of(as_drawn, cohort)


def test_what_cannot_be_scored_is_listed_and_the_others_are_scored(cohort: Cohort) -> None:
    failures: list[Failure] = []
    rows = rows_of(lambda row: image(TRUE if row.domain != "B" else TRUE + 40), cohort, failures=failures)
    assert list(rows["subject"].unique()) == ["A-1", "C-1"]
    assert [(f.subject, f.kind) for f in failures] == [("B-1", "LabelError")]
    assert failures[0].path.endswith("B1_0000.nii.gz")


@pytest.mark.parametrize("workers", [1, 3])
def test_threads_change_neither_values_nor_order(workers: int, cohort: Cohort) -> None:
    def label_of(row: Row) -> sitk.Image:
        return image(np.roll(TRUE, ord(row.domain) - ord("A"), axis=0))

    calls: list[tuple] = []
    rows = rows_of(label_of, cohort, workers=workers, progress=lambda *state: calls.append(state))
    pd.testing.assert_frame_equal(rows, rows_of(label_of, cohort))
    assert calls == [(0, 3, "A-1"), (1, 3, "B-1"), (2, 3, "C-1"), (3, 3, "")]


def test_the_tolerance_is_that_of_the_surface_dice(cohort: Cohort) -> None:
    moved = np.roll(TRUE, 1, axis=0)
    tight, wide = (rows_of(lambda row: image(moved), cohort, tolerance_mm=t) for t in (0.5, 1.0))
    assert value(tight, "A-1", "core", "surface dice") < 1
    assert value(wide, "A-1", "core", "surface dice") == 1


def test_tolerances_differ_by_structure(cohort: Cohort) -> None:
    moved = np.roll(TRUE, 1, axis=0)
    rows = rows_of(lambda row: image(moved), cohort, tolerance_mm={"core": 0.5})
    assert value(rows, "A-1", "core", "surface dice") < 1
    assert value(rows, "A-1", "rim", "surface dice") == 1  # at the default


def two_cores() -> np.ndarray:
    """A second component of the core, which `TRUE` lacks."""
    more = TRUE.copy()
    more[2:4, 8:10, 8:10] = 1
    return more


def test_lesions_are_counted_in_the_structures_that_are_named(cohort: Cohort) -> None:
    rows = rows_of(lambda row: image(two_cores()), cohort, lesions=["core"])
    for subject in ("A-1", "B-1", "C-1"):
        assert value(rows, subject, "core", "lesion precision") == 0.5
        assert value(rows, subject, "core", "false lesions") == 1
        assert value(rows, subject, "core", "lesion sensitivity") == 1
        assert value(rows, subject, "core", "panoptic quality") == pytest.approx(1 / 1.5)
    assert set(rows[rows["metric"].str.contains("lesion")]["structure"]) == {"core"}
    large = rows_of(lambda row: image(two_cores()), cohort, lesions=["core"], smallest_lesion_ml=0.1)
    assert value(large, "A-1", "core", "false lesions") == 0  # 8 voxels of 6 mm^3


def test_what_is_not_asked_for_does_not_change(cohort: Cohort) -> None:
    plain = rows_of(lambda row: image(two_cores()), cohort)
    more = rows_of(lambda row: image(two_cores()), cohort, lesions=["core"], also=["boundary iou", "masd mm"])
    kept = more[more["metric"].isin(plain["metric"].unique())].reset_index(drop=True)
    pd.testing.assert_frame_equal(kept, plain)


def test_lesions_of_overlapping_structures_are_their_own(tmp_path: Path) -> None:
    whole, core = box((1, 11), (1, 10), (1, 9)), box((2, 4), (2, 4), (2, 4)) + box((7, 9), (2, 4), (2, 4))
    write(tmp_path / "l.nii.gz", np.where(core > 0, 2, whole).astype(np.uint8))
    (tmp_path / "table.csv").write_text("subject,image,label,site\na,l.nii.gz,l.nii.gz,A\n")
    (tmp_path / "labels.toml").write_text(
        'classes = ["background", "whole", "core"]\nkind = "multi-label"\n[default]\nwhole = [1, 2]\ncore = 2\n'
    )
    found = whole + 2 * box((2, 4), (2, 4), (2, 4))  # a bit for each structure
    sizes: list[Size] = []
    rows = rows_of(lambda row: image(found), Cohort.read(tmp_path), lesions=["core"], sizes=sizes)
    assert value(rows, "a", "core", "lesion sensitivity") == 0.5
    assert value(rows, "a", "whole") == 1
    assert "lesion f1" not in set(rows[rows["structure"] == "whole"]["metric"])
    assert [(s.structure, s.voxels, s.small) for s in sizes] == [("whole", 720, False), ("core", 16, True)]


def test_sizes_are_those_of_the_labels_and_come_in_order(cohort: Cohort) -> None:
    sizes: list[Size] = []
    rows_of(lambda row: None, cohort, sizes=sizes, workers=3, tolerance_mm={"core": 9.0})
    assert [(s.subject, s.structure, s.voxels) for s in sizes] == [
        ("A-1", "core", 64), ("A-1", "rim", 72), ("B-1", "core", 64), ("B-1", "rim", 72), ("C-1", "core", 64),
    ]  # fmt: skip
    assert all(s.small and s.below == 125 for s in sizes)
    # 64 voxels of 6 mm^3 are a ball of radius 4.5 mm; the rim has the default tolerance.
    assert [s.wide for s in sizes] == [s.structure == "core" for s in sizes]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lesions": ["tumour"]}, 'no structure "tumour"'),
        ({"also": ["dice2"]}, 'no further metric "dice2"'),
        ({"tolerance_mm": {"liver": 1.0}}, 'no structure "liver"'),
        ({"tolerance_mm": -1.0}, "0 or more"),
        ({"smallest_lesion_ml": math.nan}, "volume in ml"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_is_predicted(
    options: dict[str, Any], words: str, cohort: Cohort, tmp_path: Path
) -> None:
    def label_of(row: Row) -> None:
        raise AssertionError("predicted in vain")

    with pytest.raises(OptionError, match=words):
        rows_of(label_of, cohort, **options)
    with pytest.raises(OptionError, match=words):
        evaluate(cohort, predictions=tmp_path / "none", **options)


def test_nothing_labelled_is_an_error(cohort: Cohort) -> None:
    with pytest.raises(CohortError, match="no labelled scan"):
        rows_of(lambda row: image(TRUE), cohort.without_labels())
    with pytest.raises(CohortError, match="no labelled scan"):
        evaluate(cohort.without_labels(), predictions=Path("anywhere"))


# Whole evaluations -----------------------------------------------------------------------------------------


def predictions(folder: Path, **arrays: np.ndarray) -> Path:
    for name, array in arrays.items():
        write(folder / f"{name}.nii.gz", array)
    return folder


def test_a_folder_of_predictions_is_scored_and_reported(cohort: Cohort, tmp_path: Path) -> None:
    """As nnU-Net leaves it: named after the files, with files of its own beside."""
    folder = predictions(tmp_path / "nnunet", A1=TRUE, B1=np.roll(TRUE, 1, axis=0), C1=CORE)
    (folder / "plans.json").write_text("{}")
    found = evaluate(cohort, predictions=folder, out=tmp_path / "out")
    assert value(found.rows, "A-1", "core") == 1
    assert value(found.rows, "B-1", "core") == pytest.approx(0.75)
    assert found.failures == []

    written = pd.read_csv(tmp_path / "out" / "rows.csv")
    pd.testing.assert_frame_equal(written, found.rows, check_dtype=False)
    facts = json.loads((tmp_path / "out" / "evaluation.json").read_text(encoding="utf-8"))
    assert facts["predictions"] == str(folder)
    assert facts["domains"] == ["A", "B", "C"]
    assert facts["tolerance_mm"] == 2.0
    subjects = pd.read_csv(tmp_path / "out" / "subjects.csv")
    assert list(subjects["prediction"]) == [str(folder / f"{s}1.nii.gz") for s in "ABC"]
    assert Cohort.read(Path(facts["cohort"])).labels == cohort.labels
    page = evaluation_report(tmp_path / "out").read_text(encoding="utf-8")
    assert "0.75" in page
    assert "<html" in page


def test_lesions_tolerances_and_small_structures_are_told_with_the_scores(cohort: Cohort, tmp_path: Path) -> None:
    folder = predictions(tmp_path / "p", A1=two_cores(), B1=TRUE, C1=CORE)
    found = evaluate(
        cohort, predictions=folder, out=tmp_path / "out", lesions=["core"], also=["boundary iou"],
        tolerance_mm={"core": 9.0},
    )  # fmt: skip
    facts = json.loads((tmp_path / "out" / "evaluation.json").read_text(encoding="utf-8"))
    assert facts["tolerance_mm"] == {"core": 9.0}
    assert (facts["lesions"], facts["also"], facts["smallest_lesion_ml"]) == (["core"], ["boundary iou"], 0)
    assert facts["notes"] == found.facts["notes"]
    assert [n.split(";")[0] for n in facts["notes"]] == [
        "core: fewer than 125 voxels in 3 of 3 scans that have it",
        "core: the tolerance of 9 mm reaches across it in 3 of 3 scans that have it",
        "rim: fewer than 125 voxels in 2 of 2 scans that have it",
    ]
    page = evaluation_report(tmp_path / "out").read_text(encoding="utf-8")
    assert "lesion F1" in page
    assert "false lesions (per scan)" in page


def test_a_missing_prediction_is_reported_or_counts_as_missed(cohort: Cohort, tmp_path: Path) -> None:
    folder = predictions(tmp_path / "p", A1=TRUE, C1=CORE)
    found = evaluate(cohort, predictions=folder)
    assert [(f.subject, f.kind) for f in found.failures] == [("B-1", "CohortError")]
    assert "has no prediction for B-1" in found.failures[0].message
    assert set(found.rows["subject"]) == {"A-1", "C-1"}

    counted = evaluate(cohort, predictions=folder, missing="missed")
    assert counted.failures == []
    assert value(counted.rows, "B-1", "core") == 0
    assert value(counted.rows, "A-1", "core") == 1


def test_an_evaluation_in_which_nothing_could_be_scored_is_an_error(cohort: Cohort, tmp_path: Path) -> None:
    folder = predictions(tmp_path / "p", A1=TRUE + 40, B1=TRUE + 40, C1=TRUE + 40)
    with pytest.raises(CohortError, match="none of 3 scans could be scored; the first: .*A1.nii.gz has the values"):
        evaluate(cohort, predictions=folder)


def test_predictions_of_other_classes_are_refused(cohort: Cohort, tmp_path: Path) -> None:
    folder = predictions(tmp_path / "p", A1=TRUE, B1=TRUE, C1=TRUE)
    (folder / "predictions.json").write_text('{"classes": ["background", "rim", "core"]}')
    with pytest.raises(LabelError, match="names the classes background, rim, core, the cohort has background, core"):
        evaluate(cohort, predictions=folder)


def plan(classes: tuple[str, ...] = ("background", "core", "rim")) -> Plan:
    return Plan(3, "LPS", SPACING, ("image",), classes, {"image": RULE}, (16, 16, 16))


def reading(plan: Plan) -> Model:
    """Class k where the intensity is k: perfect on this cohort."""

    def predict(samples: Samples) -> torch.Tensor:
        return -(samples.image - torch.arange(3.0).view(1, 3, 1, 1, 1)).square()

    return Model(predict, Segmentation(plan.classes), plan, torch.device("cpu"), "reading", Path("reading"))


@pytest.mark.parametrize("written", [False, True])
def test_a_model_is_scored_on_raw_scans(written: bool, cohort: Cohort, tmp_path: Path) -> None:
    found = evaluate(cohort, model=reading(plan()), out=tmp_path / "out" if written else None)
    dice = found.rows[found.rows["metric"] == "dice"]
    assert (dice["value"] == 1).all()
    assert len(dice) == 5
    assert (tmp_path / "out" / "rows.csv").exists() == written


def test_a_scan_that_a_model_cannot_read_is_reported(cohort: Cohort, tmp_path: Path) -> None:
    (tmp_path / "images" / "B1_0000.nii.gz").write_bytes(b"")
    for out in (None, tmp_path / "out"):
        found = evaluate(cohort, model=reading(plan()), out=out)
        assert [(f.subject, f.kind) for f in found.failures] == [("B-1", "ImageError")]
        assert set(found.rows["domain"]) == {"A", "C"}
    again = evaluate(cohort, model=reading(plan()), out=tmp_path / "out", missing="missed")
    assert value(again.rows, "B-1", "core") == 0


def test_a_model_folder_is_scored_and_its_training_domains_are_named(cohort: Cohort, tmp_path: Path) -> None:
    recipe, setting = Recipe("erm", network={"widths": [4, 8]}), Setting(["A", "Z"], 1, 3, 2)
    save_model(tmp_path / "model", build(recipe, plan(), setting), recipe, plan(), setting)
    found = evaluate(cohort, model=tmp_path / "model", device="cpu")
    assert len(found.rows) == 5 * 7
    assert found.facts["seen_domains"] == ["A"]
    assert found.facts["model"]["folder"] == str(tmp_path / "model")


def test_a_model_of_other_classes_is_refused(cohort: Cohort) -> None:
    with pytest.raises(LabelError, match="predicts background, rim, core, the cohort has background, core, rim"):
        evaluate(cohort, model=reading(plan(("background", "rim", "core"))))


class Reading(torch.nn.Module):
    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.register_buffer("levels", torch.arange(float(classes)).view(1, classes, 1, 1, 1))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return -(image - self.levels).square()


def script(path: Path, network: torch.nn.Module) -> Path:
    torch.jit.trace(network, torch.zeros(1, 1, 16, 16, 16)).save(str(path))
    return path


@pytest.mark.filterwarnings("ignore:.*torch.jit.*")
def test_a_torchscript_file_is_scored_with_its_plan(cohort: Cohort, tmp_path: Path) -> None:
    plan().write(tmp_path / "plan.json")
    path = script(tmp_path / "network.pt", Reading())
    found = evaluate(cohort, model=path, plan=tmp_path / "plan.json", device="cpu")
    assert (found.rows[found.rows["metric"] == "dice"]["value"] == 1).all()
    with pytest.raises(OptionError, match="needs a plan"):
        evaluate(cohort, model=path)
    with pytest.raises(CohortError, match=r"none of 3 scans .* expected logits \(1, 3, 16, 16, 16\)"):
        evaluate(cohort, model=script(tmp_path / "two.pt", Reading(2)), plan=plan(), device="cpu")
    torch.save({"weight": torch.zeros(1)}, tmp_path / "weights.pt")
    with pytest.raises(ModelError, match="is no TorchScript file"):
        evaluate(cohort, model=tmp_path / "weights.pt", plan=plan(), device="cpu")


def test_a_model_or_predictions_and_not_both(cohort: Cohort, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="not both"):
        evaluate(cohort)
    with pytest.raises(OptionError, match="not both"):
        evaluate(cohort, model=reading(plan()), predictions=tmp_path)


def test_unlabelled_scans_are_passed_over_and_counted(cohort: Cohort, tmp_path: Path) -> None:
    table = cohort.table.assign(label=[v if i else "" for i, v in enumerate(cohort.table["label"])])
    some = Cohort(table, cohort.root, labels=cohort.labels)
    found = evaluate(some, predictions=predictions(tmp_path / "p", B1=TRUE, C1=CORE))
    assert found.facts["unlabelled"] == 1
    assert set(found.rows["domain"]) == {"B", "C"}
