"""Values of scans that nobody labelled: which voxels they read, and that no label can change them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from shiftproof.data.cohort import Cohort
from shiftproof.data.plan import Plan
from shiftproof.data.samples import Samples
from shiftproof.deploy.model import Model
from shiftproof.errors import CohortError, OptionError
from shiftproof.evaluate.rows import COLUMNS
from shiftproof.evaluate.unlabelled import rows_without_labels
from shiftproof.metrics.unlabelled import RULES
from shiftproof.tasks.segmentation import Segmentation

AS_STORED = {"scheme": "clip", "lower": -1e6, "upper": 1e6, "mean": 0.0, "sd": 1.0}
SHAPE = (9, 8, 7)


def made(folder: Path, label: bool) -> Cohort:
    """Three scans of random intensities, none of them 0 (nothing is cropped)."""
    folder.mkdir()
    lines = ["subject,image,label,site"]
    for i in range(3):
        values = np.random.default_rng(i).uniform(0.5, 2.5, SHAPE[::-1]).astype(np.float32)
        sitk.WriteImage(sitk.GetImageFromArray(values), str(folder / f"{i}.nii.gz"))
        if label:
            (folder / f"{i}-label.nii.gz").write_bytes(b"no image: whoever opens it fails")
        lines.append(f"s{i},{i}.nii.gz,{f'{i}-label.nii.gz' if label else ''},A")
    (folder / "table.csv").write_text("\n".join(lines) + "\n")
    (folder / "labels.toml").write_text('classes = ["background", "core", "rim"]\n[default]\ncore = 1\nrim = 2\n')
    return Cohort.read(folder / "table.csv")


def reading(sharpness: float = 1.0) -> Model:
    """Class k where the intensity is near k, the surer the sharper."""
    plan = Plan(
        3, "LPS", (1.0, 1.0, 1.0), ("image",), ("background", "core", "rim"), {"image": AS_STORED}, (16, 16, 16)
    )

    def predict(samples: Samples) -> torch.Tensor:
        return -sharpness * (samples.image - torch.arange(3.0).view(1, 3, 1, 1, 1)).square()

    return Model(predict, Segmentation(plan.classes), plan, torch.device("cpu"), "reading", Path("reading"))


def shares(i: int, sharpness: float = 1.0) -> np.ndarray:
    """(V, 3) probabilities of a scan's voxels, worked out from its intensities."""
    values = np.random.default_rng(i).uniform(0.5, 2.5, SHAPE[::-1]).astype(np.float32).astype(float)
    scores = -sharpness * (values.reshape(-1, 1) - np.arange(3)) ** 2
    shifted = np.exp(scores - scores.max(1, keepdims=True))
    return shifted / shifted.sum(1, keepdims=True)


def entropy(p: np.ndarray) -> np.ndarray:
    return -(p * np.log(p)).sum(-1)


def test_information_maximisation_is_that_of_all_voxels(tmp_path: Path) -> None:
    rows = rows_without_labels(reading(), made(tmp_path / "c", label=False))
    voxels = [shares(i) for i in range(3)]
    overall = np.concatenate(voxels).mean(0)
    expected = [(p * np.log(p / overall)).sum(1).mean() for p in voxels]
    np.testing.assert_allclose(rows["value"], expected, rtol=1e-4)
    assert tuple(rows.columns) == COLUMNS
    assert rows["subject"].tolist() == ["s0", "s1", "s2"]


@pytest.mark.parametrize("rule", RULES)
def test_a_surer_model_of_the_same_balance_is_preferred_and_repeats(rule: str, tmp_path: Path) -> None:
    cohort = made(tmp_path / "c", label=False)
    vague, sure = (rows_without_labels(reading(s), cohort, rule) for s in (0.2, 8.0))
    if rule != "soft neighbourhood density":  # which asks for dense groups, not for sure answers
        assert (sure["value"] > vague["value"]).all()
    assert rows_without_labels(reading(8.0), cohort, rule).equals(sure)
    assert not np.allclose(sure["value"], vague["value"])


@pytest.mark.parametrize("rule", RULES)
def test_labels_are_not_opened(rule: str, tmp_path: Path) -> None:
    with_labels, without = made(tmp_path / "a", label=True), made(tmp_path / "b", label=False)
    assert rows_without_labels(reading(), with_labels, rule).equals(rows_without_labels(reading(), without, rule))


def test_an_unknown_rule_and_an_empty_target_are_refused(tmp_path: Path) -> None:
    cohort = made(tmp_path / "c", label=False)
    with pytest.raises(OptionError, match="nuclear norm"):
        rows_without_labels(reading(), cohort, "nuclear nrom")
    with pytest.raises(CohortError, match="no scan of the target"):
        rows_without_labels(reading(), cohort.of_subjects([]))
