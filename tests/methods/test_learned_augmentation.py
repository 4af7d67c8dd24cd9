"""Learned augmentation: its limits, what it moves, its gradient against unrolling, and that it learns."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from shiftproof import catalogue, nets, tasks
from shiftproof.data.plan import Plan
from shiftproof.data.samples import Batch, Samples
from shiftproof.deploy.model import load_model, save_model
from shiftproof.errors import MethodError, OptionError
from shiftproof.methods.method import Setting
from shiftproof.parts.lookahead import exact_weight_gradient
from shiftproof.recipe import Recipe
from shiftproof.soundness import require_sound
from shiftproof.train import Trainer, movers
from shiftproof.training.averages import Average
from shiftproof.training.steps import RunningStep
from shiftproof.transforms.policy_files import read_policy

NAME = "learned_augmentation"


def same(a, b) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.network.parameters(), b.network.parameters(), strict=True))


def state_of(method, but=()) -> dict:
    return {n: t.clone() for n, t in method.state_dict().items() if not n.startswith(but)}


def idle(method):
    """A policy that never acts."""
    with torch.no_grad():
        for logits in method.policy.logits:
            logits.fill_(-1e4)
            logits[:, 0] = 0
    return method


def step_of(method, index=0, seed=0, progress=0.5):
    shared = torch.Generator().manual_seed(seed)
    moved = movers(method, Trainer(rate=0.1, schedule="constant", weight_decay=0.0))
    return RunningStep(index, progress, "main", progress, shared, moved, lambda p: 1.0, None, None, {})


def whole_image(kind: str, classes, **options):
    task = tasks.make({"task": "classification", "kind": kind}, classes)
    network = nets.build("resnet", dimensions=2, channels=1, outputs=task.outputs, stem="small", width=0.0625)
    return catalogue.method(NAME)(network, task, Setting(["a", "b"], 1, 2, 2, (16, 16)), **options)


# Limits ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pool", ["talk", "jcsa"])
@pytest.mark.parametrize("dimensions", [2, 3])
def test_a_fixed_policy_that_never_acts_is_erm(toys, pool, dimensions):
    erm = toys.make("erm", dimensions=dimensions)
    learned = idle(toys.make(NAME, dimensions=dimensions, pool=pool, learn=False))
    assert same(erm, learned)
    toys.drive(erm, 3)
    toys.drive(learned, 3)
    assert same(erm, learned)


def test_a_policy_that_acts_is_not_erm(toys):
    erm, learned = toys.make("erm"), toys.make(NAME, learn=False)
    toys.drive(erm, 3)
    toys.drive(learned, 3)
    assert not same(erm, learned)


def test_a_policy_that_is_looked_at_but_not_moved_leaves_no_trace(toys):
    """Weights, running statistics and random numbers of the network's training are those of a fixed policy."""
    fixed = toys.make(NAME, learn=False, norm="batch")
    looked = toys.make(NAME, policy_rate=0.0, policy_update_every=1, norm="batch")
    # The redrawn noise is taken from the shared numbers after all that training draws in a step.
    toys.drive(fixed, 4)
    toys.drive(looked, 4)
    remembered = ("history", "usual")
    expected = state_of(fixed, but=remembered)
    assert len(looked.history.steps()) == 4
    for name, tensor in state_of(looked, but=remembered).items():
        assert torch.equal(tensor, expected[name]), name


def test_a_fixed_policy_acts_as_often_as_it_says(toys):
    method = toys.make(NAME, learn=False)
    with torch.no_grad():
        method.policy.logits[0].fill_(-1e4)
        method.policy.logits[0][:, 0] = 0.0
        place = method.pool.groups[0].names.index("brightness 0.25")
        method.policy.logits[0][:, place] = torch.log(torch.tensor(3.0))  # three times as probable as nothing
    source = toys.discs([0] * 400, 0)
    choices = method.policy.sample(torch.zeros(400, dtype=torch.long), torch.Generator().manual_seed(0))
    step = step_of(method)
    step.batch = 400
    changed = method.augmented(source, choices, step).image - source.image
    shifts = changed.flatten(1)
    assert torch.allclose(shifts, shifts[:, :1].expand_as(shifts), atol=1e-6)
    share = float((shifts[:, 0].abs() > 0.2).float().mean())
    assert abs(share - 0.75) < 0.07
    assert abs(float((shifts[:, 0] > 0.2).float().mean()) - 0.375) < 0.08


# What moves --------------------------------------------------------------------------------------------------


def test_each_descent_moves_its_part_and_the_policy_every_so_many_steps(toys, monkeypatch):
    method = toys.make(NAME, policy_update_every=3)
    log = []
    original = RunningStep.move

    def watched(self, gradients, part="all"):
        before = state_of(method)
        original(self, gradients, part)
        moved = {n.split(".")[0] for n, t in state_of(method).items() if not torch.equal(t, before[n])}
        log.append((self.index, part, moved))

    monkeypatch.setattr(RunningStep, "move", watched)
    toys.drive(method, 7, total=10)
    network = [(i, "network", {"network"}) for i in range(7)]
    policy = [(i, "policy", {"policy"}) for i in (0, 3, 6)]
    assert sorted(log) == sorted(network + policy)


def test_the_rate_of_an_update_makes_up_for_the_steps_without_one(toys):
    for every in (1, 5):
        part = toys.make(NAME, policy_rate=0.01, policy_update_every=every).parts()["policy"]
        assert part.rate == pytest.approx(0.01 * every)
        assert part.schedule(0.0) == 1
        assert part.schedule(0.5) == pytest.approx(0.5**0.9)
        assert part.schedule(1.0) == 0


def test_validation_labels_move_the_policy_alone(toys):
    """Other validation patches change the next policy, not the network of this step."""
    methods = [toys.make(NAME, policy_update_every=1) for _ in range(2)]
    for place, method in enumerate(methods):
        batch = toys.batch_of(method, 0)
        if place:
            held = batch.streams["validation"]
            batch.streams["validation"] = held.replace(label=2 - held.label)
        method.update(batch, step_of(method))
    assert same(*methods)
    assert not torch.equal(methods[0].policy.logits[0], methods[1].policy.logits[0])


def test_validation_patches_are_cut_but_not_augmented(toys):
    method = toys.make(NAME)
    large = toys.discs([0, 1], 0, size=24)
    seen = method.seen(Batch(large, streams={"validation": large}), step_of(method))
    assert torch.equal(seen.image, large.image[:, :, 4:20, 4:20])
    assert torch.equal(seen.label, large.label[:, 4:20, 4:20])


def test_a_larger_source_gives_patches_of_the_networks_size(toys):
    method = toys.make(NAME, pool="jcsa")
    size = max(method.source_patch(method.setting, pool="jcsa"))
    assert size > 16
    source = toys.discs([0, 1, 2] * 2, 0, size=size)
    choices = method.policy.sample(torch.zeros(6, dtype=torch.long), torch.Generator().manual_seed(0))
    samples = method.augmented(source, choices, step_of(method))
    assert samples.image.shape == (6, 1, 16, 16)
    assert samples.label.shape == samples.extra["ignore"].shape == (6, 16, 16)


def test_a_source_is_cut_for_turns_of_millimetres_not_of_voxels(toys):
    method = toys.make(NAME)
    coarse = dataclasses.replace(method.setting, spacing_mm=(1.0, 2.0))
    size = method.source_patch(coarse, pool="jcsa")
    assert size[0] > method.source_patch(method.setting, pool="jcsa")[0]  # what is turned in is long along the first
    assert size[0] > size[1]


def test_without_validation_patches_it_says_what_is_missing(toys):
    method = toys.make(NAME)
    with pytest.raises(MethodError, match='stream "validation"'):
        method.update(Batch(toys.discs([0, 1, 2], 0)), step_of(method))


# The gradient ------------------------------------------------------------------------------------------------


def caught(method, batch, monkeypatch):
    """The augmented samples of one update and the slopes that it found."""
    seen = {}
    augmented, slopes = method.augmented, method.slopes
    monkeypatch.setattr(method, "augmented", lambda *a: seen.setdefault("samples", augmented(*a)))
    monkeypatch.setattr(method, "slopes", lambda *a: seen.setdefault("slopes", slopes(*a)))
    method.update(batch, step_of(method))
    return seen["samples"], seen["slopes"]


@pytest.mark.parametrize(
    ("options", "dimensions"),
    [({}, 2), ({}, 3), ({"outer": "dice"}, 2), ({"outer": "task"}, 2), ({"outer": "ramp"}, 2), ({"norm": "batch"}, 2)],
    ids=str,
)
def test_the_slopes_of_a_step_agree_with_unrolling_it(toys, monkeypatch, options, dimensions):
    method = toys.make(NAME, dimensions=dimensions, policy_update_every=1, reach=1e-5, **options).double().train()
    batch = toys.batch_of(method, 0)
    held = batch.streams["validation"]
    batch.source.image, held.image = batch.source.image.double(), held.image.double()
    weights = {n: p.detach().clone() for n, p in method.network.named_parameters()}
    samples, slopes = caught(method, batch, monkeypatch)
    step = step_of(method)
    exact = exact_weight_gradient(
        lambda w: method.error(samples, w), lambda w: method.outer(method(held, w), held, step, 0.5, 6), weights, 0.1
    )
    assert float(exact.abs().max()) > 1e-6
    assert float((slopes - exact).norm() / exact.norm()) < 1e-4


def test_samples_of_a_loss_over_the_batch_are_weighed_by_their_own(toys, monkeypatch):
    """Such a loss has one value for all samples, which tells none from another."""
    method = toys.make(NAME, policy_update_every=1, reach=1e-5).double()
    options = {"batch": True, "denominator": "linear"}
    method.task = tasks.make({"task": "segmentation"}, method.task.classes, loss="dice", options=options)
    coupled = catalogue.method(NAME)(method.network, method.task, method.setting, policy_update_every=1, reach=1e-5)
    assert coupled.coupled
    assert not method.coupled
    batch = toys.batch_of(method, 0)
    for samples in (batch.source, batch.streams["validation"]):
        samples.image = samples.image.double()
    weights = {n: p.detach().clone() for n, p in coupled.network.named_parameters()}
    samples, slopes = caught(coupled.double(), batch, monkeypatch)
    assert float(slopes.std()) > 0
    alone = torch.cat([coupled.error(samples[b : b + 1], weights) for b in range(6)])
    torch.testing.assert_close(coupled.own_errors(samples, weights), alone)


def test_what_was_drawn_for_helpful_samples_becomes_more_probable(toys, monkeypatch):
    method = toys.make(NAME, policy_update_every=1, policy_rate=0.1)
    before = method.policy.probabilities()[0][0]
    drawn = {}
    sample = method.policy.sample
    monkeypatch.setattr(method.policy, "sample", lambda *a: drawn.setdefault("choices", sample(*a)))
    # Of six samples the first had better weigh more: the loss falls with its weight.
    monkeypatch.setattr(method, "slopes", lambda *a: torch.tensor([-1.0, 0.2, 0.2, 0.2, 0.2, 0.2]))
    batch = toys.batch_of(method, 0)
    batch.source.extra["drawn"] = torch.ones(6, dtype=torch.long)
    method.update(batch, step_of(method))
    after = method.policy.probabilities()[0][0]
    chosen = drawn["choices"].index[:, 0]
    assert len(set(chosen.tolist())) == 6
    assert after[chosen[0]] > before[chosen[0]]
    assert (after[chosen[1:]] < before[chosen[1:]]).all()


def test_with_a_policy_for_each_kind_only_the_kind_that_was_drawn_moves(toys):
    method = toys.make(NAME, class_specific=True, policy_update_every=1)
    batch = toys.batch_of(method, 0)
    batch.source.extra["drawn"] = torch.tensor([0, 0, 1, 2, 1, 2])
    assert method.kinds(batch.source).tolist() == [0, 0, 1, 1, 1, 1]
    batch.source.extra["drawn"].fill_(2)
    before = method.policy.logits[0].detach().clone()
    method.update(batch, step_of(method))
    assert torch.equal(before[0], method.policy.logits[0][0])
    assert not torch.equal(before[1], method.policy.logits[0][1])


def test_a_batch_with_one_patch_of_each_kind_moves_both_policies(toys):
    """Two patches, as of large volumes: neither has another one to be compared with."""
    method = toys.make(NAME, sources=1, class_specific=True, policy_update_every=1)
    toys.drive(method, 3, total=10)
    start = 1 / len(method.pool.groups[0].options)
    for probabilities in method.policy.probabilities()[0]:
        assert float((probabilities - start).abs().max()) > 1e-3 * start


# Kinds of samples --------------------------------------------------------------------------------------------


def test_rare_structures_are_those_that_are_named(toys):
    method = toys.make(NAME, class_specific=True, rare=("ring",))
    samples = toys.discs([0] * 3, 0)
    samples.extra["drawn"] = torch.tensor([0, 1, 2])
    assert method.kinds(samples).tolist() == [0, 0, 1]


def test_where_structures_overlap_a_patch_drawn_on_a_part_of_a_rare_one_is_rare():
    task = tasks.make(
        {"task": "segmentation", "kind": "multi-label", "parts": [[0, 0], [1, 0], [0, 1], [1, 1]]},
        ["background", "disc", "ring"],
    )
    network = nets.build("unet", dimensions=2, channels=1, outputs=2, widths=(4, 8))
    method = catalogue.method(NAME)(network, task, Setting(["a"], 1, 2, 1, (16, 16)), rare=("ring",))
    samples = Samples(torch.zeros(4, 1, 16, 16), torch.zeros(4, 16, 16))
    samples.extra["drawn"] = torch.arange(4)
    assert method.kinds(samples).tolist() == [0, 0, 1, 1]  # the parts that lie in the ring


def test_images_are_rare_by_their_class():
    several = whole_image("multi-class", ["small", "middle", "large"], rare=("large", "small"))
    samples = Samples(torch.zeros(3, 1, 16, 16), torch.tensor([0, 1, 2]))
    assert several.kinds(samples).tolist() == [1, 0, 1]
    findings = whole_image("multi-label", ["mass", "nodule"], rare=("mass",), class_specific=True)
    samples.label = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    assert findings.kinds(samples).tolist() == [1, 0, 0]
    assert whole_image("multi-class", ["a", "b"]).kinds(samples).tolist() == [0, 0, 0]


def test_what_cannot_be_told_apart_is_refused(toys):
    with pytest.raises(OptionError, match=r"name them: rare = \[...\], of a, b"):
        whole_image("multi-class", ["a", "b"], class_specific=True)
    with pytest.raises(OptionError, match='no rare class "tumour".*disc, ring'):
        toys.make(NAME, rare=("tumour",))
    number = tasks.make({"task": "regression", "column": "age", "unit": "years", "mean": 1.0, "sd": 0.5}, [])
    with pytest.raises(OptionError, match="classes, which regression has not"):
        catalogue.method(NAME)(torch.nn.Linear(1, 1), number, Setting(["a"], 1, 2, 1, (8, 8)), rare=("old",))
    with pytest.raises(MethodError, match="size of a patch in 2D, got none"):
        catalogue.method(NAME)(torch.nn.Linear(1, 1), number, Setting(["a"], 1, 2, 1))
    method = toys.make(NAME, class_specific=True)
    with pytest.raises(MethodError, match="where patches were drawn"):
        method.kinds(toys.discs([0], 0))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"policy_update_every": 0}, "from 1 on, got 0"),
        ({"policy_rate": -1.0}, "policy_rate is a number above 0"),
        ({"reach": 0.0}, "reach is a number above 0"),
        ({"preset": "nnunett"}, 'did you mean "nnunet"'),
        ({"mirror_axes": (2,)}, "mirror_axes are among"),
    ],
)
def test_odd_options_are_answered_in_a_line(toys, options, words):
    with pytest.raises(OptionError, match=words) as caught:
        toys.make(NAME, **options)
    assert "\n" not in str(caught.value)


# Files and state ---------------------------------------------------------------------------------------------


def test_a_saved_policy_is_the_start_of_another_run(toys, tmp_path):
    learned = toys.make(NAME, policy_update_every=1, policy_rate=0.3)
    toys.drive(learned, 4)
    path = tmp_path / "policy.json"
    path.write_text(learned.files()["policy.json"], encoding="utf-8")
    again = toys.make(NAME, policy_file=str(path), learn=False)
    assert not torch.allclose(again.policy.probabilities()[0], learned.policy.probabilities()[0], atol=1e-4)
    again.begin("main", None)
    torch.testing.assert_close(again.policy.probabilities()[0], learned.policy.probabilities()[0])
    with pytest.raises(OptionError, match="class_specific = false"):
        toys.make(NAME, policy_file=str(path), class_specific=True).begin("main", None)
    with pytest.raises(OptionError, match="jcsa"):
        toys.make(NAME, policy_file=str(path), pool="jcsa").begin("main", None)
    with pytest.raises(OptionError, match="there is no policy"):
        toys.make(NAME, policy_file=str(tmp_path / "none.json")).begin("main", None)


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "there is no policy"), ({"dimensions": 3}, 'pool "talk" in 3D does not fit the pool "talk" in 2D')],
)
def test_a_row_whose_policy_does_not_fit_is_refused_before_any_run(toys, tmp_path, content, words):
    path = tmp_path / "policy.json"
    if content is not None:
        saved = json.loads(toys.make(NAME).files()["policy.json"])
        path.write_text(json.dumps(saved | content), encoding="utf-8")
    plan = Plan(
        2, "LPS", (1.0, 1.0, None), ("image",), ("background", "disc"), {"image": {"scheme": "zscore"}}, (16, 16)
    )
    row = Recipe("late", method=NAME, options={"policy_file": str(path)}, transforms="none")
    with pytest.raises(OptionError, match=f'row "late": .*{words}'):
        require_sound(row, plan)


def test_a_trained_model_needs_its_policy_file_no_more(toys, tmp_path):
    """Its policy is among the weights."""
    method = toys.make(NAME, policy_file=str(tmp_path / "gone.json"))
    assert method.eval().predict(toys.discs([0], 0)).shape == (1, 3, 16, 16)


def test_the_file_holds_the_probabilities_over_time(toys):
    method = toys.make(NAME, policy_update_every=2, policy_rate=0.3, class_specific=True)
    first = [p.clone() for p in method.policy.probabilities()]
    toys.drive(method, 6)
    found = json.loads(method.files()["policy.json"])
    assert found["history"]["step"] == [0, 2, 4]
    moments = found["history"]["probabilities"]
    torch.testing.assert_close(torch.tensor(moments[0][0]), first[0], atol=1e-6, rtol=0)
    for group, last in zip(found["groups"], method.policy.probabilities(), strict=True):
        torch.testing.assert_close(torch.tensor(group["probabilities"]), last, atol=1e-5, rtol=0)
    assert moments[0] != moments[2]
    assert found["provenance"]["classes"] == ["background", "disc", "ring"]
    assert found["provenance"]["rare"] == ["disc", "ring"]


def test_a_model_folder_holds_the_policy_beside_the_weights(toys, tmp_path):
    method = toys.make(NAME, policy_update_every=1, policy_rate=0.3)
    toys.drive(method, 2)
    recipe = Recipe("a", method=NAME, network={"widths": [4, 8], "norm": "none"})
    facts = {"normalisation": {"image": {"scheme": "zscore"}}, "channels": ("image",), "orientation": "RAS"}
    plan = Plan(2, spacing_mm=(1.0, 1.0, None), classes=("background", "disc", "ring"), patch=(16, 16), **facts)
    save_model(tmp_path / "model", method, recipe, plan, method.setting)
    assert read_policy(tmp_path / "model")["history"]["step"] == [0, 1]
    loaded = load_model(tmp_path / "model", device="cpu").method
    torch.testing.assert_close(loaded.policy.probabilities(), method.policy.probabilities())
    assert torch.equal(loaded.history.rows, method.history.rows)


def test_an_average_of_the_weights_keeps_the_history_as_it_was(toys):
    method = toys.make(NAME, policy_update_every=1)
    average = Average("ema", method, 0.9)
    toys.drive(method, 3, after=lambda: average.take(method, 0.0))
    assert torch.equal(average.method.history.rows, method.history.rows)


# Learning ----------------------------------------------------------------------------------------------------


def test_operations_that_destroy_the_image_lose_probability(toys):
    """Five weak operations and fifteen after which nothing is left of the image; from equal shares."""
    method = toys.make(NAME, destroying=True, policy_update_every=1, policy_rate=0.1)
    names = method.pool.groups[0].names
    kept = [n for n in names if n in {"identity", "noise 0.05", "mirror sagittal", "contrast 0.01", "brightness 0.05"}]
    bad = [i for i, n in enumerate(names) if i >= len(names) - 15]
    good = [names.index(n) for n in kept]
    with torch.no_grad():
        method.policy.logits[0].fill_(-30.0)
        method.policy.logits[0][:, good + bad] = 0.0
    trainer = Trainer(rate=1e-2, schedule="constant", clip=None, weight_decay=0.0)
    toys.drive(method, 120, total=120, trainer=trainer)
    after = method.policy.probabilities()[0][0]
    assert after[bad].sum() < 0.5 * 15 / 20
    assert (after[bad] < 1 / 20).sum() >= 12
