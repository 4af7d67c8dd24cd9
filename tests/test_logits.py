"""Logits of training and unseen subjects: what is collected, from whom, and what is made of it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from shiftproof.data.cohort import Cohort, Row
from shiftproof.data.labels import LabelMap
from shiftproof.data.plan import Plan
from shiftproof.data.samples import Samples
from shiftproof.deploy.model import Model, digest
from shiftproof.errors import CohortError, LabelError, OptionError, SplitError
from shiftproof.evaluate.logits import Logits, logits, panels, summary
from shiftproof.evaluate.sides import drawn, recorded, sides_of
from shiftproof.evaluate.voxels import CaseLogits, Reservoir, Truth, VoxelLogits, truths_of
from shiftproof.tasks.classification import Classification
from shiftproof.tasks.multi_label import MultiLabelSegmentation
from shiftproof.tasks.segmentation import Segmentation

AS_STORED = {"scheme": "clip", "lower": -1e6, "upper": 1e6, "mean": 0.0, "sd": 1.0}
CLASSES = ("background", "ring", "disc")


def plan(**changes) -> Plan:
    given = {
        "dimensions": 3, "orientation": "RAS", "spacing_mm": (1.0, 1.0, 1.0), "channels": ("image",),
        "classes": CLASSES, "normalisation": {"image": AS_STORED}, "patch": (8, 8, 8), "crop": "none",
    }  # fmt: skip
    return Plan(**{**given, **changes})


def known(samples: Samples) -> torch.Tensor:
    """Logits that are functions of the voxel alone: windows and their blending change nothing."""
    x = samples.image[:, :1]
    return torch.cat([0 * x, x, 2 * x - 3], 1)


def model(**changes) -> Model:
    own = changes.pop("plan", plan())
    given = {"predict": known, "task": Segmentation(CLASSES), "information": {}, **changes}
    return Model(plan=own, device=torch.device("cpu"), content="known", folder=Path("known"), **given)


def scan(root: Path, name: str, seed: int, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """An image and a label of (Z, Y, X) voxels, RAS at 1 mm."""
    random = np.random.default_rng(seed)
    image, label = random.normal(1, 2, (9, 11, 12)).astype(np.float32), random.integers(0, classes, (9, 11, 12))
    for kind, array in {"image": image, "label": label.astype(np.uint8)}.items():
        volume = sitk.GetImageFromArray(array)
        volume.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))  # RAS: no turn
        sitk.WriteImage(volume, str(root / f"{name}-{kind}.nii.gz"))
    return image, label


@pytest.fixture
def cohort(tmp_path) -> Cohort:
    lines = ["subject,image,label,site"]
    for k, name in enumerate(["a1", "a2", "b1", "b2", "c1", "c2"]):
        scan(tmp_path, name, k)
        lines.append(f"{name},{name}-image.nii.gz,{name}-label.nii.gz,{name[0].upper()}")
    (tmp_path / "table.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "labels.toml").write_text('classes = ["background", "ring", "disc"]\n[default]\nring = 1\ndisc = 2\n')
    return Cohort.read(tmp_path)


def knowing(train: list[str], validation: list[str] = []) -> Model:  # noqa: B006
    return model(information={"subjects": {"train": [*map(digest, train)], "validation": [*map(digest, validation)]}})


def test_voxels_of_a_class_are_those_of_the_label_with_the_scores_of_their_voxel(cohort, tmp_path):
    found = logits(knowing(["a1"]), cohort)
    image, label = scan(tmp_path, "again", 0)  # a1
    case = next(c for c in found["cases"] if c["subject"] == "a1" and c["truth"] == "disc")
    x = image[label == 2].astype(float)
    margins = (2 * x - 3) - np.maximum(0, x)
    assert case["n"] == (label == 2).sum()
    assert case["mean"] == pytest.approx(margins.mean(), abs=1e-4)
    assert case["median"] == pytest.approx(np.median(margins), abs=1e-4)
    assert case["crossing"] == pytest.approx((margins <= 0).mean())


def test_the_crossing_fraction_is_one_less_the_sensitivity_of_the_predicted_label(cohort):
    """Of all voxels, against the label that the model writes and the metric of `measure`."""
    from shiftproof.deploy.segment import label_of
    from shiftproof.metrics.segmentation import sensitivity

    found = logits(knowing(["a1"]), cohort)
    row = next(cohort.rows())
    predicted = sitk.GetArrayFromImage(label_of(model(), row.images))
    label = sitk.GetArrayFromImage(sitk.ReadImage(str(row.label)))
    for index, name in enumerate(CLASSES):
        case = next(c for c in found["cases"] if c["subject"] == "a1" and c["truth"] == name)
        own = sensitivity(torch.tensor(predicted == index)[None], torch.tensor(label == index)[None])
        assert 1 - case["crossing"] == pytest.approx(float(own[0]))


def test_the_sides_are_read_from_the_model_folder(cohort):
    found = logits(knowing(["a1", "b1"], ["a2"]), cohort, subjects=0)
    sides = {c["subject"]: c["side"] for c in found["cases"]}
    assert sides == {"a1": "train", "b1": "train", "a2": "validation", "b2": "test", "c1": "test", "c2": "test"}
    assert found["sides"]["test"] == {"subjects": 3, "domains": ["B", "C"]}


def test_selections_name_the_sides_where_the_folder_does_not(cohort):
    found = logits(model(), cohort, train="site=A,B", test="site=C")
    assert {c["subject"][0] for c in found["cases"] if c["side"] == "train"} == {"a", "b"}
    assert {c["subject"][0] for c in found["cases"] if c["side"] == "test"} == {"c"}
    rest = sides_of(model(), cohort, test=None, train="site=A")
    assert rest["test"].domains == ["B", "C"]


def test_whoever_a_model_has_seen_in_any_way_is_not_unseen_whatever_a_selection_leaves_out(cohort):
    own = {"train": ["a1", "b1"], "validation": ["a2"], "target": ["c1"]}  # c1 without its label
    seen = model(information={"subjects": {side: [*map(digest, names)] for side, names in own.items()}})
    assert sides_of(seen, cohort, test=None, train=None)["test"].subjects == ["b2", "c2"]
    assert sides_of(seen, cohort, test=None, train="site=A")["test"].subjects == ["b2", "c2"]
    with pytest.raises(SplitError, match="both sides of training and test: b1;"):
        sides_of(seen, cohort, test="site=B", train="site=A")
    named = sides_of(seen, cohort, test=cohort.of_subjects(["a2", "b2"]), train=None)
    assert named["test"].subjects == ["a2", "b2"]
    assert "validation" not in named  # a2 counts once


def test_another_cohort_is_the_unseen_side(cohort, tmp_path):
    other = cohort.where(site="C")
    found = sides_of(knowing(["a1", "a2", "b1"]), cohort.where(site=["A", "B"]), test=other, train=None)
    assert found["train"].subjects == ["a1", "a2", "b1"]
    assert found["test"].subjects == ["c1", "c2"]
    unknown = sides_of(model(), cohort.where(site=["A", "B"]), test=other, train=None)
    assert unknown["train"].subjects == ["a1", "a2", "b1", "b2"]


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({}, SplitError, "does not say which of these subjects it was trained on"),
        ({"train": "site=A", "test": "site=A,C"}, SplitError, "both sides of training and test: a1, a2"),
        ({"train": "sit=A"}, CohortError, "COLUMN=VALUE"),
        ({"train": "site=Z", "test": "site=C"}, CohortError, "no labelled scan has site=Z; there are A, B, C"),
        ({"train": "site=A", "test": "site=B,Z"}, CohortError, "no labelled scan has site=Z; there are A, B, C"),
        ({"train": "site=A,B,C"}, SplitError, "on the test side"),
        ({"train": "site=A", "cap": 0}, OptionError, "at least 1 voxel"),
        ({"train": "site=A", "pairs": "some"}, OptionError, "strongest"),
    ],
)
def test_what_cannot_be_compared_is_said_in_one_line(cohort, given, error, words):
    with pytest.raises(error, match=words) as raised:
        logits(model(), cohort, **given)
    assert "\n" not in str(raised.value)


def test_other_classes_and_numbers_are_refused(cohort):
    other = dataclasses.replace(model(), plan=plan(classes=("background", "x", "disc")))
    with pytest.raises(LabelError, match="predicts background, x, disc"):
        logits(other, cohort, train="site=A")
    with pytest.raises(OptionError, match="predicts a number"):
        truths_of({"task": "regression"}, [])


def test_subjects_of_a_run_are_known_from_its_run_file(tmp_path):
    (tmp_path / "run.toml").write_text('[subjects]\ntrain = ["a1"]\nvalidation = ["a2"]\n')
    found = recorded(dataclasses.replace(model(), folder=tmp_path / "model"))
    assert found == {"train": {digest("a1")}, "validation": {digest("a2")}, "target": set()}
    assert recorded(model()) == {}
    lists = (
        'train = ["a1"]\nvalidation = ["a2"]\n"validation, in training" = ["b1"]\n"target, without labels" = ["c1"]\n'
    )
    (tmp_path / "run.toml").write_text(f"[subjects]\n{lists}")
    found = recorded(dataclasses.replace(model(), folder=tmp_path / "model"))
    assert found == {"train": {digest("a1")}, "validation": {digest("a2"), digest("b1")}, "target": {digest("c1")}}


def test_a_reservoir_is_an_even_sample_of_its_cap():
    """Each of 40 lines in pieces of 7 is kept as often as any other: 10 of 40, over 800 draws."""
    counts = np.zeros(40)
    for seed in range(800):
        reservoir = Reservoir(10, np.random.default_rng(seed))
        for piece in np.array_split(np.arange(40, dtype=np.float32)[:, None], 6):
            reservoir.add(piece)
        assert len(reservoir.lines) == 10
        counts[reservoir.lines[:, 0].astype(int)] += 1
    spread = np.sqrt(800 * 0.25 * 0.75)
    assert np.abs(counts - 200).max() < 4.5 * spread


def test_few_lines_are_all_kept():
    reservoir = Reservoir(10, np.random.default_rng(0))
    for piece in np.array_split(np.arange(9, dtype=np.float32)[:, None], 3):
        reservoir.add(piece)
    assert sorted(reservoir.lines[:, 0]) == list(range(9))


def test_the_cap_equalises_scans_and_equal_seeds_give_equal_draws(cohort):
    one = logits(knowing(["a1"]), cohort, cap=50)
    assert {c["n"] for c in one["cases"]} == {50}
    assert logits(knowing(["a1"]), cohort, cap=50) == one
    assert logits(knowing(["a1"]), cohort, cap=50, seed=1)["cases"] != one["cases"]


def test_a_structure_that_a_domain_does_not_annotate_has_no_voxels_nor_has_the_background(tmp_path):
    scan(tmp_path, "a", 0)
    labels = LabelMap.from_dict(
        {
            "classes": list(CLASSES),
            "site": {"A": {"background": 0, "ring": 1}, "B": {"background": 0, "ring": 1, "disc": 2}},
        }
    )
    rows = {d: Row("a", d, {"image": tmp_path / "a-image.nii.gz"}, tmp_path / "a-label.nii.gz", {}) for d in "AB"}
    truths = truths_of(plan().target, CLASSES)
    assert [t.name for t in VoxelLogits(rows["B"], labels, truths).truths] == list(CLASSES)
    with pytest.raises(LabelError):  # the value 2 has no meaning there
        VoxelLogits(rows["A"], labels, truths)
    scan(tmp_path, "a", 0, classes=2)
    assert [t.name for t in VoxelLogits(rows["A"], labels, truths).truths] == ["ring"]


def test_overlapping_structures_have_a_margin_each_way(tmp_path):
    """Values 1: whole, 2: whole and core. The logit counts where the structure is, its negative where it is not."""
    image, label = scan(tmp_path, "a", 3)
    scan(tmp_path, "b", 4)
    (tmp_path / "labels.toml").write_text(
        'classes = ["background", "whole", "core"]\nkind = "multi-label"\n[default]\nwhole = [1, 2]\ncore = 2\n'
    )
    lines = [f"{n},{n}-image.nii.gz,{n}-label.nii.gz,{n.upper()}" for n in "ab"]
    (tmp_path / "table.csv").write_text("\n".join(["subject,image,label,site", *lines]) + "\n")
    table = Cohort.read(tmp_path)
    parts = table.labels.parts
    names = ("background", "whole", "core")
    target = {"task": "segmentation", "kind": "multi-label", "parts": [list(p) for p in parts]}
    several = model(
        predict=lambda samples: torch.cat([samples.image, samples.image - 1], 1),
        task=MultiLabelSegmentation(names, parts),
        plan=plan(classes=names, target=target),
    )
    found = logits(several, table, train="site=A")
    cases = {c["truth"]: c for c in found["cases"] if c["subject"] == "a"}
    assert set(cases) == {"whole", "not whole", "core", "not core"}
    x = image.astype(float)
    assert cases["whole"]["mean"] == pytest.approx(x[label > 0].mean(), abs=1e-4)
    assert cases["not core"]["mean"] == pytest.approx(-(x[label != 2] - 1).mean(), abs=1e-4)
    assert cases["core"]["n"] == (label == 2).sum()
    assert {p["competitor"] for p in found["panels"]} == {None}
    assert found["switches"]


@pytest.mark.parametrize("kind", ["multi-class", "multi-label"])
def test_scans_with_one_label_are_samples_themselves(tmp_path, kind):
    values = {}
    for k, name in enumerate("abcd"):
        image, _ = scan(tmp_path, name, k)
        values[name] = float(image.mean())
    names = ["low", "high"]
    if kind == "multi-class":
        toml = 'task = "classification"\nkind = "multi-class"\ncolumn = "grade"\nclasses = ["low", "high"]\n'
        head, cells = "grade", {n: "low" if n in "ab" else "high" for n in "abcd"}
    else:
        toml = 'task = "classification"\nkind = "multi-label"\ncolumn = "has"\nclasses = ["low", "high"]\n'
        head, cells = "has:low,has:high", {"a": "1,0", "b": "0,1", "c": "1,", "d": "1,0"}
    (tmp_path / "labels.toml").write_text(toml)
    lines = [f"{n},{n}-image.nii.gz,{'B' if n in 'bd' else 'A'},{cells[n]}" for n in "abcd"]
    (tmp_path / "table.csv").write_text("\n".join([f"subject,image,site,{head}", *lines]) + "\n")

    def scores(samples: Samples) -> torch.Tensor:
        mean = samples.image.flatten(1).mean(1)
        return torch.stack([-mean, mean], 1)

    own = plan(classes=tuple(names), target={"task": "classification", "kind": kind}, patch=(12, 11, 9))
    found = logits(
        model(predict=scores, task=Classification(names, kind=kind), plan=own), Cohort.read(tmp_path), train="site=A"
    )
    cases = {(c["subject"], c["truth"]): c["mean"] for c in found["cases"]}
    if kind == "multi-class":
        assert set(cases) == {("a", "low"), ("b", "low"), ("c", "high"), ("d", "high")}
        assert cases["a", "low"] == pytest.approx(-2 * values["a"], abs=1e-4)
        assert cases["d", "high"] == pytest.approx(2 * values["d"], abs=1e-4)
    else:
        assert ("c", "high") not in cases  # not annotated
        assert ("c", "not high") not in cases
        assert cases["a", "not high"] == pytest.approx(-values["a"], abs=1e-4)
    assert all(side["points"] for p in found["panels"] for side in p["sides"].values())


def test_a_class_is_drawn_against_the_competitor_with_the_highest_mean_logit():
    truth = Truth("a", 0)
    values = np.array([[3, 1, 2], [4, 0, 2.5]], np.float32)
    some = Logits([truth], ["a", "b", "c"], [CaseLogits("s", "A", 1, "train", {"a": values})], {})
    assert [p["competitor"] for p in panels(some, truth, ["train"], "strongest")] == ["c"]
    assert [p["competitor"] for p in panels(some, truth, ["train"], "all")] == ["c", "b"]
    assert summary(some)["shifts"] == []


def test_what_is_written_is_what_is_given(cohort, tmp_path):
    found = logits(knowing(["a1"]), cohort, out=tmp_path / "out")
    assert json.loads((tmp_path / "out" / "logits.json").read_text()) == found


def test_a_draw_of_subjects_is_even_over_domains_and_stays(cohort):
    some = drawn(cohort, 3)
    assert sorted(s[0] for s in some.subjects) == ["a", "b", "c"]
    assert drawn(cohort.of_subjects([*some.subjects]), 3).subjects == some.subjects
    assert len(drawn(cohort, 0).subjects) == len(drawn(cohort, 99).subjects) == 6
