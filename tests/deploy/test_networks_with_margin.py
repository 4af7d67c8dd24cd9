"""Networks of valid convolutions from training to files: what they score is the scan, all of it and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from shiftproof import catalogue, nets
from shiftproof.data.images import array_of, image_of
from shiftproof.data.plan import preprocess
from shiftproof.data.sampling import Feed, Patches
from shiftproof.deploy.model import load_model, save_model
from shiftproof.deploy.predictor import predict
from shiftproof.deploy.segment import label_of, segment
from shiftproof.deploy.torchscript import load_torchscript
from shiftproof.errors import ModelError
from shiftproof.methods.method import Setting
from shiftproof.patching import patches_of
from shiftproof.recipe import Recipe, build
from shiftproof.testtime.tent import tent
from shiftproof.train import Trainer
from shiftproof.validate import validate

NETWORK = {"name": "deepmedic", "features": [3] * 8, "hidden": 4, "factors": [3]}


def plan(tiny: Any, dimensions: int = 3) -> Any:
    spacing = (1.0, 1.0, 1.0 if dimensions == 3 else None)
    return tiny.plan(dimensions=dimensions, spacing_mm=spacing, patch=(9,) * dimensions)


def made(plan: Any, **fields: Any) -> tuple[Any, Recipe, Setting]:
    recipe = Recipe("row", network=NETWORK, **fields)
    setting = Setting(["A", "B"], 1, plan.dimensions, 2)
    method = build(recipe, plan, setting).eval()
    # Scores of fresh weights hardly differ; answers shall.
    with torch.no_grad():
        for tensor in method.parameters():
            tensor.add_(0.1 * torch.randn(tensor.shape, generator=torch.Generator().manual_seed(tensor.numel())))
    return method, recipe, setting


def tiled(method: Any, image: np.ndarray, window: int, reach: int) -> np.ndarray:
    """Answers by loops over windows side by side, for lengths that they divide; (X, Y, Z)."""
    dimensions = method.setting.dimensions
    wide = np.pad(image, [(reach, reach)] * dimensions + [(0, 0)] * (3 - dimensions), mode="edge")
    found = np.zeros(image.shape, np.int64)
    step = (window,) * dimensions + (1,) * (3 - dimensions)
    read = (window + 2 * reach,) * dimensions + (1,) * (3 - dimensions)
    for corner in np.ndindex(*(n // s for n, s in zip(image.shape, step, strict=True))):
        start = [c * s for c, s in zip(corner, step, strict=True)]
        given = torch.from_numpy(wide[tuple(slice(a, a + n) for a, n in zip(start, read, strict=True))].copy())
        given = given[..., 0] if dimensions == 2 else given
        with torch.no_grad():
            answer = method.network(given[None, None].float())[0].argmax(0).numpy()
        found[tuple(slice(a, a + n) for a, n in zip(start, step, strict=True))] = answer.reshape(step)
    return found


@pytest.mark.parametrize("dimensions", [2, 3])
def test_a_saved_model_segments_a_scan_in_windows_side_by_side(tiny: Any, tmp_path: Path, dimensions: int) -> None:
    method, recipe, setting = made(plan(tiny, dimensions))
    save_model(tmp_path / "model", method, recipe, plan(tiny, dimensions), setting)
    array = np.random.default_rng(0).normal(size=(18, 9, 9 if dimensions == 3 else 4)).astype(np.float32)

    model = load_model(tmp_path / "model", device="cpu")
    found = array_of(label_of(model, {"image": image_of(array)}))

    assert model.margin == (24,) * dimensions
    prepared = preprocess({"image": image_of(array)}, None, model.plan)
    expected = array_of(prepared.geometry.place(tiled(method, prepared.image[0], 9, 24).astype(np.uint8)))
    assert found.shape == array.shape
    assert len(np.unique(expected)) > 1
    np.testing.assert_array_equal(found, expected)


def test_probabilities_and_files_of_any_size_come_out(tiny: Any, tmp_path: Path) -> None:
    method, recipe, setting = made(plan(tiny))
    save_model(tmp_path / "model", method, recipe, plan(tiny), setting)
    path = tiny.write_nifti(tmp_path / "scan.nii.gz", tiny.steps((14, 7, 20)), np.eye(4))

    done = predict(tmp_path / "model", path, tmp_path / "out", device="cpu", probabilities=True)
    again = predict(tmp_path / "model", path, tmp_path / "out", device="cpu", probabilities=True)

    assert done[0].error is None
    assert again[0].output == done[0].output
    found = segment(load_model(tmp_path / "model", device="cpu"), {"image": path}, probabilities=True)
    assert found.label.GetSize() == (14, 7, 20)
    assert found.probabilities is not None
    total = sum(array_of(p).astype(int) for p in found.probabilities)
    assert np.abs(total - 255).max() <= 2


def test_adaptation_while_predicting_sees_windows_with_their_margin(tiny: Any, tmp_path: Path) -> None:
    method, recipe, setting = made(plan(tiny, 2), test_time="tent", test_time_options={"steps": 2, "rate": 0.1})
    save_model(tmp_path / "model", method, recipe, plan(tiny, 2), setting)
    scan = {"image": image_of(tiny.steps((20, 13, 3)))}

    model = load_model(tmp_path / "model", device="cpu")

    assert array_of(label_of(model, scan)).shape == (20, 13, 3)
    still = tent(method, rate=0.0)
    samples = Feed([Scan()], ["A"], Patches((9, 9), source=(57, 57), beyond="border"), size=2).batch(0).source
    assert still(samples).shape == (2, 3, 9, 9)  # type: ignore[union-attr]


class Scan:
    """A scan in memory, with what sampling and validation read of a case."""

    target = None
    labelled = True
    present, annotated = np.ones(1, bool), np.ones(3, bool)
    subject, domain, key, folder = "a", "A", "k", Path("nowhere")

    def __init__(self) -> None:
        self.label = np.zeros((18, 9, 9), np.uint8)
        self.label[4:9, 2:7, :5], self.label[11:15, 3:6, 1:] = 1, 2
        noise = np.random.default_rng(3).normal(size=(1, 18, 9, 9))
        self.image = (self.label[None] + 0.2 * noise).astype(np.float32)
        self.centres = {k: np.argwhere(self.label == k).astype(np.int32) for k in (0, 1, 2)}
        self.elsewhere = self.centres[0]


def test_validation_scores_the_whole_scan(tiny: Any) -> None:
    method, *_ = made(plan(tiny, 2))
    patches = Patches((9, 9), source=(57, 57), beyond="border")

    scan = Scan()
    found = validate(method, [scan], ["A", "B"], patches, torch.device("cpu"))  # type: ignore[list-item]

    answer, label = tiled(method, scan.image[0], 9, 24), scan.label
    dice = [2 * ((answer == k) & (label == k)).sum() / ((answer == k).sum() + (label == k).sum()) for k in (1, 2)]
    assert found.mean == pytest.approx(np.mean(dice), abs=1e-6)
    assert found.mean > 0


def test_a_recipe_cuts_patches_with_the_margin_of_its_network(tiny: Any) -> None:
    for dimensions in (2, 3):
        patches = patches_of(Recipe("row", network=NETWORK, transforms="none"), plan(tiny, dimensions))
        assert patches.size == (9,) * dimensions
        assert patches.source == (9 + 48,) * dimensions
        assert patches.beyond == "border"


@pytest.mark.parametrize("dimensions", [2, 3])
def test_training_learns_a_scan_and_resumes_to_the_same_weights(tiny: Any, tmp_path: Path, dimensions: int) -> None:
    network = {**NETWORK, "features": [6] * 8, "hidden": 12, "dropout": 0.0}
    recipe = Recipe("row", network=network, transforms="none", sampling={"foreground": 0.5, "background": "background"})
    patches = patches_of(recipe, plan(tiny, dimensions))
    setting = Setting(["A", "B"], 1, dimensions, 2)

    def fit(folder: Path, **options: Any) -> Any:
        method = build(recipe, plan(tiny, dimensions), setting)
        feed = Feed([Scan()], ["A", "B"], patches, size=4)  # type: ignore[list-item]
        trainer = Trainer(
            steps=30 if dimensions == 2 else 6,
            batch=4,
            rate=1e-2,
            validate_every=100,
            checkpoint_seconds=0.0,
            device="cpu",
        )
        run = trainer.fit(method, feed, [Scan()], folder, **options)  # type: ignore[list-item]
        return method, run

    def stop(told: Any) -> None:
        if told.step == 3:
            raise KeyboardInterrupt

    method, run = fit(tmp_path / "whole")
    if dimensions == 2:
        assert run.validation["mean"] > 0.8
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "parts", progress=stop)
    resumed, _ = fit(tmp_path / "parts")
    for name, tensor in method.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


@pytest.mark.filterwarnings("ignore:.*torch.jit.*", "ignore::torch.jit.TracerWarning")
def test_an_exported_network_is_read_with_its_margin_and_refused_without(tiny: Any, tmp_path: Path) -> None:
    method, *_ = made(plan(tiny, 2))
    traced = torch.jit.trace(method.network, torch.zeros(1, 1, 57, 57))
    traced.save(str(tmp_path / "network.pt"))
    scan = {"image": image_of(np.random.default_rng(0).normal(size=(18, 9, 3)).astype(np.float32))}

    found = label_of(load_torchscript(tmp_path / "network.pt", plan(tiny, 2), device="cpu", margin=(24, 24)), scan)

    save_model(tmp_path / "model", method, Recipe("row", network=NETWORK), plan(tiny, 2), Setting(["A", "B"], 1, 2, 2))
    expected = label_of(load_model(tmp_path / "model", device="cpu"), scan)
    np.testing.assert_array_equal(array_of(found), array_of(expected))
    torch.jit.save(torch.jit.trace(torch.nn.Conv2d(1, 3, 3), torch.zeros(1, 1, 9, 9)), tmp_path / "valid.pt")
    with pytest.raises(ModelError, match=r"gives \(., 3, 7, 7\).*expected logits .*loaded with its margin"):
        label_of(load_torchscript(tmp_path / "valid.pt", plan(tiny, 2), device="cpu"), scan)
    with pytest.raises(ModelError, match=r"a margin is 2 whole numbers of at least 0, got \(1,\)"):
        load_torchscript(tmp_path / "valid.pt", plan(tiny, 2), device="cpu", margin=(1,))
    assert np.unique(array_of(label_of(
        load_torchscript(tmp_path / "valid.pt", plan(tiny, 2), device="cpu", margin=(1, 1)), scan
    ))).max() <= 2  # fmt: skip


@pytest.mark.parametrize("name", [m for m in catalogue.METHODS if "segmentation" in catalogue.method(m).needs.tasks])
def test_every_method_trains_a_network_that_scores_less_than_it_reads(toys: Any, tiny: Any, name: str) -> None:
    targets = 1 if catalogue.method(name).needs.target == "required" else 0
    domains = [f"d{i}" for i in range(3 + targets)]
    recipe = Recipe(name, method=name, network=NETWORK, target=targets > 0)
    setting = Setting(domains, 1, 2, 3, (64, 64), (1.0, 1.0))
    method = build(recipe, tiny.plan(dimensions=2, spacing_mm=(1.0, 1.0, None), patch=(16, 16)), setting)
    before = {n: p.detach().clone() for n, p in method.network.named_parameters()}

    toys.drive(method, 2, size=64)

    changed = [n for n, p in method.network.named_parameters() if not torch.equal(p, before[n])]
    assert len(changed) > 0.9 * len(before)
    assert all(torch.isfinite(p).all() for p in method.network.parameters())
    assert method.task.scores(method.eval().predict(toys.discs([0], 1, size=64))).shape == (1, 3, 16, 16)
    assert nets.margin_of(method.network) == (24, 24)
