"""A look at labels, and the command, where something is odd: pictures, stray voxels, names that do not exist."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from shiftproof.cli.metrics import metrics
from shiftproof.data.cohort import Cohort
from shiftproof.errors import OptionError
from shiftproof.evaluate.look import look

LABELS = 'classes = ["background", "vertebra"]\n[default]\nvertebra = 1\n'


def cohort(folder: Path, arrays: list[np.ndarray], suffix: str) -> Path:
    lines = ["subject,image,label,site"]
    for number, array in enumerate(arrays):
        sitk.WriteImage(sitk.GetImageFromArray(array.T.copy()), str(folder / f"{number}{suffix}"))
        lines.append(f"s{number},{number}{suffix},{number}{suffix},A")
    (folder / "table.csv").write_text("\n".join(lines) + "\n")
    (folder / "labels.toml").write_text(LABELS)
    return folder


def show(**given: object) -> None:
    defaults = {"task": None, "structure": None, "cohort": None, "domain": "site", "tolerance_mm": "2", "workers": 1}
    metrics(**{**defaults, "json": False, **given})  # type: ignore[arg-type]


def test_a_picture_has_no_volume(tmp_path, capsys):
    array = np.zeros((20, 20), np.uint8)
    array[2:12, 2:12] = 1
    (one,) = look(Cohort.read(cohort(tmp_path, [array, array], ".png"))).looks
    assert one.voxels == (100, 100, 100)
    assert np.isnan(one.volume_ml).all()
    show(cohort=tmp_path)
    assert "100 (100, 100)   -" in capsys.readouterr().out


def test_stray_voxels_do_not_turn_five_vertebrae_into_lesions(tmp_path):
    arrays = []
    for strays in range(4):
        array = np.zeros((60, 14, 14), np.uint8)
        for k in range(5):
            array[12 * k : 12 * k + 8, 2:10, 2:10] = 1
        for k in range(strays):
            array[12 * k, 13, 13] = 1
        arrays.append(array)
    (one,) = look(Cohort.read(cohort(tmp_path, arrays, ".nii.gz"))).looks
    assert one.components == (5, 6.5, 8)
    assert one.properties == []


def test_a_metric_that_does_not_exist_is_told_from_a_task():
    with pytest.raises(OptionError, match='no task or metric "lesion f2"; did you mean "lesion f1"'):
        show(task="lesion f2")


def test_what_is_known_of_a_structure_goes_with_a_task():
    with pytest.raises(OptionError, match='--structure goes with a task .*"dice" is a metric'):
        show(task="dice", structure="small")
