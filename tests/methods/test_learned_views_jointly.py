"""Test-time views that are learned together with augmentation: what moves, what is shown, and what is left behind."""

from __future__ import annotations

import json

import pytest
import torch

from shiftproof import catalogue, nets, tasks
from shiftproof.data.samples import Batch, Samples
from shiftproof.errors import OptionError
from shiftproof.methods.method import Setting
from shiftproof.testtime.learned_views import learned_views
from shiftproof.train import Trainer, movers
from shiftproof.training.steps import RunningStep
from shiftproof.transforms.policy_files import read_policy

NAME = "learned_augmentation"


def state_of(method) -> dict:
    return {n: t.clone() for n, t in method.state_dict().items()}


def only(method, view: str) -> None:
    """All views but one have probability 0."""
    with torch.no_grad():
        method.views.policy.logits[0].fill_(-1e4)
        method.views.policy.logits[0][0, method.views.views.place(view)] = 0.0


def step_of(method, index=0, rate=0.1):
    shared = torch.Generator().manual_seed(index)
    moved = movers(method, Trainer(rate=rate, schedule="constant", weight_decay=0.0))
    return RunningStep(index, 0.5, "main", 0.5, shared, moved, lambda p: 1.0, None, None, {})


@pytest.mark.parametrize("dimensions", [2, 3])
def test_each_descent_moves_its_part_and_the_view_step_nothing_else(toys, monkeypatch, dimensions):
    method = toys.make(NAME, views="nnunet", view_rate=0.1, policy_update_every=2, dimensions=dimensions, norm="batch")
    log = []
    original = RunningStep.move

    def watched(self, gradients, part="all"):
        before = state_of(method)
        original(self, gradients, part)
        log.append((self.index, part, {n.split(".")[0] for n, t in state_of(method).items() if not t.equal(before[n])}))

    monkeypatch.setattr(RunningStep, "move", watched)
    toys.drive(method, 3, total=10)
    assert log == [
        (0, "policy", {"policy"}), (0, "views", {"views"}), (0, "network", {"network"}), (1, "network", {"network"}),
        (2, "policy", {"policy"}), (2, "views", {"views"}), (2, "network", {"network"}),
    ]  # fmt: skip


def test_views_of_a_fixed_policy_leave_the_training_of_the_network_as_it_is(toys):
    """Weights, and running statistics, too."""
    plain = toys.make(NAME, learn=False, norm="batch")
    viewing = toys.make(NAME, learn=False, norm="batch", views="nnunet", view_rate=0.1, policy_update_every=1)
    toys.drive(plain, 4, total=10)
    toys.drive(viewing, 4, total=10)
    expected, found = state_of(plain), state_of(viewing)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    (logits,) = viewing.views.policy.logits
    assert not torch.equal(logits, toys.make(NAME, views="nnunet").views.policy.logits[0])
    assert viewing.training
    assert all(m.training for m in viewing.network.modules())


def test_views_that_show_the_image_itself_leave_the_policy_as_it_is(toys):
    """The outer loss is then that without views; only random numbers could differ, and they are drawn likewise."""
    plain = toys.make(NAME, policy_update_every=1)
    viewing = toys.make(NAME, policy_update_every=1, views="nnunet", view_rate=0.0)
    only(viewing, "identity")
    batch = toys.batch_of(plain, 0)
    one, other = plain.seen(batch, step_of(plain)), viewing.seen(batch, step_of(viewing))
    assert torch.equal(one.image, other.image)
    assert torch.equal(one.label, other.label)


def test_validation_patches_are_shown_as_views_with_their_labels(toys):
    method = toys.make(NAME, views="nnunet")
    batch = toys.batch_of(method, 0)
    plain = batch.streams["validation"]
    only(method, "mirror frontal")
    seen = method.seen(batch, step_of(method))
    assert torch.equal(seen.image, plain.image.flip(3))
    assert torch.equal(seen.label, plain.label.flip(2))
    only(method, "add -0.25")
    seen = method.seen(batch, step_of(method))
    torch.testing.assert_close(seen.image, plain.image - 0.25)
    assert torch.equal(seen.label, plain.label)


def test_the_outer_loss_is_of_what_is_shown(toys):
    """Two policies of views, two judgements of the same step."""
    found = []
    for view in ("identity", "noise 0.125"):
        method = toys.make(NAME, views="nnunet", policy_update_every=1)
        only(method, view)
        batch, step = toys.batch_of(method, 0), step_of(method)
        method.update(batch, step)
        found.append(float(step.logged["validation loss"][0]))
    assert found[0] != found[1]


def test_the_file_holds_augmentation_and_views_and_is_used_as_what_was_learned(toys, tmp_path):
    method = toys.make(NAME, views="deepmedic", view_rate=0.1, policy_update_every=1)
    toys.drive(method, 4, total=10)
    method.eval()
    (tmp_path / "policy.json").write_text(method.files()["policy.json"])
    content = json.loads(method.files()["policy.json"])
    assert content["pool"] == "talk"
    assert content["views"]["pool"] == "views"
    assert content["views"]["history"]["step"] == [0, 1, 2, 3]
    assert content["views"]["provenance"]["method"] == NAME
    samples = toys.discs([0, 0], 5)
    learned = learned_views(method, keep=6)(samples)
    torch.testing.assert_close(learned_views(method, policy_file=str(tmp_path), keep=6)(samples), learned)
    assert not torch.equal(learned_views(method, preset="nnunet")(samples), learned)

    again = toys.make(NAME, views="nnunet", policy_file=str(tmp_path))
    again.begin("main", None)
    assert again.views.probabilities() == pytest.approx(method.views.probabilities(), abs=1e-6)
    assert "views" not in json.loads(toys.make(NAME).files()["policy.json"])


def test_damaged_views_make_a_file_no_policy(toys, tmp_path):
    text = toys.make(NAME, views="nnunet").files()["policy.json"]
    content = json.loads(text)
    content["views"]["groups"][0]["probabilities"][0][0] = 0.9
    (tmp_path / "policy.json").write_text(json.dumps(content))
    with pytest.raises(OptionError, match="is no policy: group views needs a probability for each option"):
        read_policy(tmp_path)


def test_whole_images_have_views_too():
    task = tasks.make({"task": "classification", "kind": "multi-class"}, ["a", "b"])
    network = nets.build("resnet", dimensions=2, channels=1, outputs=2, stem="small", width=0.0625)
    setting = Setting(["a", "b"], 1, 2, 2, (16, 16))
    method = catalogue.method(NAME)(network, task, setting, views="nnunet", view_rate=0.1, policy_update_every=1)
    source = Samples(torch.randn(6, 1, 16, 16), torch.tensor([0, 1] * 3), torch.tensor([0, 1] * 3), ["s"] * 6)
    before = method.views.probabilities()
    method.train()
    method.update(Batch(source, None, {"validation": source}), step_of(method))
    assert method.views.probabilities() != before


class Sided(torch.nn.Module):
    """Sees what is in one half of the image only: it answers well after mirroring."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = torch.nn.Parameter(torch.zeros(1))

    def forward(self, image):
        half = image.shape[2] // 2
        seen = torch.cat([torch.zeros_like(image[:, :, :half]), image[:, :, half:]], 2)
        return torch.cat([-seen, seen - 0.5 + 0 * self.bias], 1) * 8


def test_views_that_help_become_more_probable():
    task = tasks.make({"task": "segmentation"}, ["background", "square"])
    method = catalogue.method(NAME)(
        Sided(), task, Setting(["a"], 1, 2, 1, (16, 16)),
        learn=False, views="deepmedic", view_rate=0.05, policy_update_every=1,
    )  # fmt: skip
    before, step = method.views.probabilities(), step_of(method)
    for index in range(60):
        random = torch.Generator().manual_seed(index)
        image, label = 0.2 * torch.randn(8, 1, 16, 16, generator=random), torch.zeros(8, 16, 16, dtype=torch.long)
        label[:, 2:7, 3:11] = 1
        samples = Samples(image + label[:, None], label, torch.zeros(8, dtype=torch.long), ["s"] * 8)
        samples.extra["drawn"] = torch.ones(8, dtype=torch.long)
        step.shared = random
        step.index = index
        method.update(Batch(samples, None, {"validation": samples}), step)
    found = method.views.probabilities()
    assert found["mirror sagittal"] > 1.5 * before["mirror sagittal"]
    assert found["identity"] < before["identity"]
    assert found["mirror frontal"] < before["mirror frontal"]
