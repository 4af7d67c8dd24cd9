"""Many scans: resumed, reported, never overwritten by accident."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
import torch

from shiftproof.data.samples import Samples
from shiftproof.deploy import predictor
from shiftproof.deploy.model import save_model
from shiftproof.deploy.predictor import predict
from shiftproof.errors import OptionError, StorageError


class Counted:
    """A model that knows how many windows it was asked for."""

    def __init__(self, tiny: Any, content: str = "levels") -> None:
        plan = tiny.plan()
        plain = tiny.levels(plan).predict
        self.windows = 0

        def counted(samples: Samples) -> torch.Tensor:
            self.windows += len(samples)
            return plain(samples)

        self.model = tiny.levels(plan, counted, content)


@pytest.fixture
def scans(tmp_path: Path, tiny: Any) -> list[Path]:
    return [
        tiny.write_nifti(tmp_path / "scans" / f"s{i}.nii.gz", tiny.steps(seed=i), np.diag([1.0, -1.0, 1.0, 1.0]))
        for i in range(3)
    ]


def values(path: Path) -> np.ndarray:
    return np.asarray(nibabel.load(path).dataobj)


def manifest(out: Path) -> dict[str, Any]:
    return json.loads((out / "predictions.json").read_text(encoding="utf-8"))


def test_every_scan_gets_its_labels_and_the_record_says_how(scans: list[Path], tmp_path: Path, tiny: Any) -> None:
    model = Counted(tiny).model
    found = predict(model, scans[0].parent, tmp_path / "out")
    assert [f.output for f in found] == [tmp_path / "out" / f"s{i}.nii.gz" for i in range(3)]
    for i in range(3):
        np.testing.assert_array_equal(values(found[i].output), tiny.steps(seed=i))
    record = manifest(tmp_path / "out")
    assert record["classes"] == ["background", "disc", "ring"]
    assert record["model"]["hash"] == model.hash
    first = record["scans"][0]
    assert first["images"]["image"]["path"] == str(scans[0])
    assert first["output"] == "s0.nii.gz"
    assert first["status"] == "done"
    assert first["seconds"] > 0
    assert sorted(os.listdir(tmp_path / "out")) == ["predictions.json", "s0.nii.gz", "s1.nii.gz", "s2.nii.gz"]


def test_a_model_folder_predicts_as_the_model_does(scans: list[Path], tmp_path: Path, tiny: Any) -> None:
    plan = tiny.plan()
    method, recipe, setting = tiny.trained("erm", plan)
    save_model(tmp_path / "model", method, recipe, plan, setting)
    found = predict(tmp_path / "model", scans[:1], tmp_path / "out", device="cpu")
    assert values(found[0].output).shape == (14, 12, 10)


def test_what_is_complete_is_not_predicted_again(scans: list[Path], tmp_path: Path, tiny: Any) -> None:
    first = Counted(tiny)
    predict(first.model, scans[:2], tmp_path / "out")
    again = Counted(tiny)
    found = predict(again.model, scans, tmp_path / "out")
    assert again.windows == first.windows / 2  # one scan of three
    assert [f.error for f in found] == [None] * 3
    assert len(manifest(tmp_path / "out")["scans"]) == 3


def test_an_interrupted_run_goes_on_where_it_stopped(
    scans: list[Path], tmp_path: Path, tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a kill would leave it: the second scan is written, and nothing is told of it any more."""
    out, written = tmp_path / "out", []
    write = predictor.write_image

    def killed(image: sitk.Image, path: Path) -> None:
        write(image, path)
        written.append(path)
        if len(written) == 2:
            shutil.copy(out / "predictions.json", tmp_path / "at the kill.json")
            raise KeyboardInterrupt

    monkeypatch.setattr(predictor, "write_image", killed)
    with pytest.raises(KeyboardInterrupt):
        predict(Counted(tiny).model, scans, out)
    monkeypatch.undo()
    shutil.copy(tmp_path / "at the kill.json", out / "predictions.json")

    whole, rest = Counted(tiny), Counted(tiny)
    predict(whole.model, scans, tmp_path / "whole")
    found = predict(rest.model, scans, out)
    assert rest.windows == whole.windows / 3
    assert [f.error for f in found] == [None] * 3
    for i in range(3):
        np.testing.assert_array_equal(values(out / f"s{i}.nii.gz"), values(tmp_path / "whole" / f"s{i}.nii.gz"))


def test_results_of_another_model_stay_until_told_otherwise(scans: list[Path], tmp_path: Path, tiny: Any) -> None:
    out = tmp_path / "out"
    predict(Counted(tiny).model, scans[:1], out)
    before, record = (out / "s0.nii.gz").read_bytes(), manifest(out)["scans"]
    other = Counted(tiny, "other")
    found = predict(other.model, scans[:1], out)
    assert other.windows == 0
    assert "was not made by this model from this scan" in str(found[0].error)
    assert found[0].output is None
    assert (out / "s0.nii.gz").read_bytes() == before
    assert manifest(out)["scans"] == record
    assert predict(other.model, scans[:1], out, overwrite=True)[0].error is None
    assert other.windows > 0
    assert manifest(out)["scans"][0]["model"] == other.model.hash


def test_files_of_another_origin_are_not_overwritten(scans: list[Path], tmp_path: Path, tiny: Any) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "s1.nii.gz").write_bytes(b"drawn by hand")
    found = predict(Counted(tiny).model, scans, out)
    assert [f.kind for f in found] == [None, "OptionError", None]
    assert (out / "s1.nii.gz").read_bytes() == b"drawn by hand"
    assert [s["output"] for s in manifest(out)["scans"]] == ["s0.nii.gz", "s2.nii.gz"]


def test_a_scan_that_changed_is_predicted_again_on_request(scans: list[Path], tmp_path: Path, tiny: Any) -> None:
    out = tmp_path / "out"
    predict(Counted(tiny).model, scans[:1], out)
    tiny.write_nifti(scans[0], tiny.steps(seed=9), np.eye(4))
    assert "was not made" in str(predict(Counted(tiny).model, scans[:1], out)[0].error)
    found = predict(Counted(tiny).model, scans[:1], out, overwrite=True)
    np.testing.assert_array_equal(values(found[0].output), tiny.steps(seed=9))


def test_a_bad_scan_in_the_middle_does_not_stop_the_others(scans: list[Path], tmp_path: Path, tiny: Any) -> None:
    scans[1].write_bytes(scans[1].read_bytes()[:100])
    calls = []
    found = predict(Counted(tiny).model, scans, tmp_path / "out", progress=lambda *state: calls.append(state))
    assert [f.kind for f in found] == [None, "ImageError", None]
    assert "s1.nii.gz is truncated" in str(found[1].error)
    assert sorted(os.listdir(tmp_path / "out")) == ["predictions.json", "s0.nii.gz", "s2.nii.gz"]
    record = manifest(tmp_path / "out")["scans"][1]
    assert record["status"] == "failed"
    assert record["error"] == found[1].error
    assert calls == [(0, 3, "s0"), (1, 3, "s1"), (2, 3, "s2"), (3, 3, "")]

    # Once repaired, the same call completes it.
    tiny.write_nifti(scans[1], tiny.steps(seed=1), np.eye(4))
    assert [f.error for f in predict(Counted(tiny).model, scans, tmp_path / "out")] == [None] * 3


def test_a_scan_that_does_not_fit_into_memory_is_reported(scans: list[Path], tmp_path: Path, tiny: Any) -> None:
    def hungry(samples: Samples) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    found = predict(tiny.levels(tiny.plan(), hungry), scans[:1], tmp_path / "out")
    assert found[0].kind == "MemoryError"
    assert "smaller batch" in str(found[0].error)


def test_a_full_disk_stops_everything(
    scans: list[Path], tmp_path: Path, tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise StorageError("no space left")

    monkeypatch.setattr(predictor, "write_image", full)
    with pytest.raises(StorageError):
        predict(Counted(tiny).model, scans, tmp_path / "out")


def test_scans_are_never_replaced_by_their_labels(scans: list[Path], tiny: Any) -> None:
    before = scans[0].read_bytes()
    with pytest.raises(OptionError, match="would replace the scans themselves"):
        predict(Counted(tiny).model, scans, scans[0].parent, overwrite=True)
    assert scans[0].read_bytes() == before


def test_probabilities_are_written_on_request_and_completed_later(scans: list[Path], tmp_path: Path, tiny: Any) -> None:
    out = tmp_path / "out"
    predict(Counted(tiny).model, scans[:1], out)
    found = predict(Counted(tiny).model, scans[:1], out, probabilities=True)
    assert found[0].probabilities == out / "s0_probabilities.nii.gz"
    assert nibabel.load(found[0].probabilities).shape == (14, 12, 10, 3)
    third = Counted(tiny)
    assert predict(third.model, scans[:1], out, probabilities=True)[0].error is None
    assert third.windows == 0


def test_pictures_stay_pictures_and_stacks_become_volumes(tmp_path: Path, tiny: Any) -> None:
    array = tiny.steps((9, 8)).astype(np.uint8)
    for name in ("a.png", "b.tif"):
        sitk.WriteImage(sitk.GetImageFromArray(array), str(tmp_path / name))
    plan = tiny.plan(dimensions=2, orientation="", spacing_mm=(1.0, 1.0, None), patch=(8, 8))
    found = predict(tiny.levels(plan), [tmp_path / "a.png", tmp_path / "b.tif"], tmp_path / "out")
    assert [f.output.name for f in found if f.output] == ["a.png", "b.tif"]
    for f in found:
        np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(f.output))), array)

    stack = tiny.steps((9, 8, 7)).astype(np.uint8)
    sitk.WriteImage(sitk.GetImageFromArray(stack), str(tmp_path / "stack.tif"))
    found = predict(tiny.levels(tiny.plan()), [tmp_path / "stack.tif"], tmp_path / "out")
    assert found[0].output == tmp_path / "out" / "stack.nii.gz"
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(found[0].output))), stack)


def test_a_record_that_cannot_be_read_protects_what_is_there(scans: list[Path], tmp_path: Path, tiny: Any) -> None:
    out = tmp_path / "out"
    predict(Counted(tiny).model, scans[:1], out)
    (out / "predictions.json").write_text("{")
    assert predict(Counted(tiny).model, scans[:1], out)[0].kind == "OptionError"
