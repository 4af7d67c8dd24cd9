"""Adversarial training, mixup and their combination: what each step sees, what it becomes in a limit, what it does."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from shiftproof import catalogue, nets, tasks
from shiftproof.data.samples import Batch, Samples
from shiftproof.errors import MethodError, OptionError
from shiftproof.methods.asymmetric_combination import recommended_loss
from shiftproof.methods.method import Setting
from shiftproof.parts.adversarial import Attack
from shiftproof.train import Trainer
from shiftproof.training.steps import RunningStep, movers

CPU = Trainer(rate=1e-2, schedule="constant", clip=None, weight_decay=0.0)


def same(a, b) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.network.parameters(), b.network.parameters(), strict=True))


def snapshot(method) -> list[torch.Tensor]:
    return [p.detach().clone() for p in method.network.parameters()]


def watched(method, monkeypatch) -> list[tuple[str, Samples, list[torch.Tensor]]]:
    """What happens, in order: ("direction" or "loss", the samples, the weights at the time) and "move"."""
    log = []
    find, error, move = Attack.on, method.error, RunningStep.move

    def found(self, samples, *given):
        log.append(("direction", samples, snapshot(method)))
        return find(self, samples, *given)

    def lost(samples, weights=None):
        log.append(("loss", samples, snapshot(method)))
        return error(samples, weights)

    def moved(self, gradients, part="all"):
        move(self, gradients, part)
        log.append((f"move {part}", None, snapshot(method)))

    monkeypatch.setattr(Attack, "on", found)
    monkeypatch.setattr(method, "error", lost)
    monkeypatch.setattr(RunningStep, "move", moved)
    return log


def plain_step(method, index: int = 0, moved=None) -> RunningStep:
    """One step in the middle of a run."""
    shared = torch.Generator().manual_seed(index)
    moved = movers(method, CPU) if moved is None else moved
    return RunningStep(index, 0.5, "main", 0.5, shared, moved, lambda p: 1.0, None, None, {})  # type: ignore[arg-type]


def names(log) -> list[str]:
    return [name for name, _, _ in log]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("adversarial", {"radius": 0.0, "ordinary": False}),
        ("adversarial", {"radius": 0.0, "ordinary": False, "asymmetric": False, "order": "after"}),
        ("mixup", {"asymmetric": False, "alpha": 0.0, "ordinary": False}),
        ("asymmetric_combination", {"adversarial": "off", "mixup": "off"}),
    ],
)
@pytest.mark.parametrize("dimensions", [2, 3])
def test_with_nothing_added_it_is_erm(toys, name, options, dimensions):
    erm, other = toys.make("erm", dimensions=dimensions), toys.make(name, dimensions=dimensions, **options)
    assert same(erm, other)
    toys.drive(erm, 4)
    toys.drive(other, 4)
    assert same(erm, other)


@pytest.mark.parametrize("name", ["adversarial", "mixup", "asymmetric_combination"])
def test_as_it_comes_it_is_not_erm(toys, name):
    erm, other = toys.make("erm"), toys.make(name)
    toys.drive(erm, 2)
    toys.drive(other, 2)
    assert not same(erm, other)


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({"adversarial": "off", "mixup": "symmetric", "alpha": 0.0}, 2),
        ({"radius": 0.0, "mixup": "off"}, 2),
        ({"radius": 0.0, "mixup": "symmetric", "alpha": 0.0}, 3),
    ],
)
def test_without_radius_and_alpha_each_batch_is_learned_again(toys, options, steps):
    """Two or three plain steps of one optimiser on the same batch."""
    method, erm = toys.make("asymmetric_combination", **options), toys.make("erm")
    toys.drive(method, 2)
    optimizer = torch.optim.AdamW(erm.parameters(), lr=1e-2, weight_decay=0.0)
    for index in range(2):
        batch = toys.batch_of(erm, index)
        for _ in range(steps):
            optimizer.zero_grad()
            erm.error(batch.source).mean().backward()
            optimizer.step()
    assert same(method, erm)


@pytest.mark.parametrize(
    ("combined", "name", "alone"),
    [
        ({"mixup": "off"}, "adversarial", {}),
        ({"mixup": "off", "adversarial": "symmetric"}, "adversarial", {"asymmetric": False}),
        ({"mixup": "off", "order": "after"}, "adversarial", {"order": "after"}),
        ({"adversarial": "off"}, "mixup", {}),
        ({"adversarial": "off", "mixup": "symmetric", "alpha": 0.2}, "mixup", {"asymmetric": False, "alpha": 0.2}),
    ],
)  # fmt: skip
def test_the_combination_with_one_of_them_is_that_one(toys, combined, name, alone):
    rare = {"rare": ("ring",)}
    both, one = toys.make("asymmetric_combination", **rare, **combined), toys.make(name, **rare, **alone)
    toys.drive(both, 3)
    toys.drive(one, 3)
    assert same(both, one)


def test_asymmetric_with_all_classes_rare_is_not_the_symmetric_form_of_mixup(toys):
    one, other = toys.make("mixup", asymmetric=False), toys.make("mixup")
    toys.drive(one, 2)
    toys.drive(other, 2)
    assert not same(one, other)


def test_the_direction_of_all_classes_is_the_symmetric_one():
    """Of a classification, where no class is a background."""
    task = tasks.make({"task": "classification"}, ["small", "large"])
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    samples = Samples(torch.randn(4, 1, 4, 4), torch.tensor([0, 1, 1, 0]))

    class Still(RunningStep):
        def __init__(self) -> None:
            torch.manual_seed(1)
            super().__init__(0, 0.0, "main", 0.0, torch.Generator(), {}, lambda p: 1.0, None, None, {})  # type: ignore[arg-type]

    found = [
        Attack(task, rare, 1.0, 0.0, 1e-5).on(samples, network, lambda s, w: network(s.image), Still()).image
        for rare in ((0, 1), None, (1,))
    ]
    torch.testing.assert_close(found[0], found[1])
    assert torch.equal(found[2][0], samples.image[0])


@pytest.mark.parametrize("order", ["before", "after"])
def test_the_order_of_a_step_is_as_published(toys, monkeypatch, order):
    """The direction with the weights of before the ordinary step, or after it; three moves of one optimiser."""
    method = toys.make("asymmetric_combination", order=order)
    start = snapshot(method)
    log = watched(method, monkeypatch)
    toys.drive(method, 1)
    first = ["direction", "loss", "move all"] if order == "before" else ["loss", "move all", "direction"]
    assert names(log) == [*first, "loss", "move all", "loss", "move all"]
    seen = next(weights for name, _, weights in log if name == "direction")
    stepped = next(weights for name, _, weights in log if name.startswith("move"))
    expected = start if order == "before" else stepped
    assert all(torch.equal(a, b) for a, b in zip(seen, expected, strict=True))
    # Each loss is taken where the last move ended.
    at = start
    for name, _, weights in log:
        if name == "loss":
            assert all(torch.equal(a, b) for a, b in zip(weights, at, strict=True))
        at = weights if name.startswith("move") else at


def test_the_three_losses_see_the_batch_moved_and_mixed(toys, monkeypatch):
    method = toys.make("asymmetric_combination", radius=0.3, rare=("ring",))
    log = watched(method, monkeypatch)
    toys.drive(method, 1)
    source = toys.batch_of(method, 0).source
    plain, moved, mixtures = (samples for name, samples, _ in log if name == "loss")
    assert torch.equal(plain.image, source.image)
    lengths = (moved.image - source.image).flatten(1).norm(dim=1)
    torch.testing.assert_close(lengths, torch.full((6,), 0.3), rtol=1e-4, atol=1e-4)
    assert torch.equal(moved.label, source.label)
    # One share for all, and each sample's partner is the one at the other end.
    away = source.image.flip(0) - source.image
    shares = 1 - ((mixtures.image - source.image) * away).flatten(1).sum(1) / away.square().flatten(1).sum(1)
    torch.testing.assert_close(shares, shares[:1].expand(6), rtol=1e-4, atol=1e-5)
    assert 0 <= float(shares[0]) <= 0.8
    assert torch.equal(mixtures.domain, source.domain)
    different = source.label != source.label.flip(0)
    rare = (source.label == 2) ^ (source.label.flip(0) == 2)
    assert not bool(mixtures.extra["silent"][~different].any())
    assert bool(mixtures.extra["silent"][different & ~rare].all())


@pytest.mark.parametrize("name", ["adversarial", "mixup", "asymmetric_combination"])
def test_plain_patches_are_used_where_they_are_asked_for(toys, monkeypatch, name):
    method = toys.make(name, plain=True)
    assert method.needs.plain
    assert not type(method).needs.plain
    assert not toys.make(name).needs.plain
    assert copy.deepcopy(method).needs.plain
    log = watched(method, monkeypatch)
    batch = toys.batch_of(method, 0)
    batch.plain = batch.source.replace(image=batch.source.image + 5)
    method.update(batch, plain_step(method))
    first, *further = [samples for name, samples, _ in log if name == "loss"]
    assert torch.equal(first.image, batch.source.image)
    assert all(float(samples.image.mean()) > 4 for samples in further)


@pytest.mark.parametrize("name", ["adversarial", "mixup", "asymmetric_combination"])
def test_plain_patches_that_are_missing_are_asked_for(toys, name):
    method = toys.make(name, plain=True)
    with pytest.raises(MethodError, match="before augmentation"):
        method.update(Batch(toys.discs([0, 1], 0)), plain_step(method))


@pytest.mark.parametrize("name", ["adversarial", "mixup", "asymmetric_combination"])
def test_a_rare_class_that_does_not_exist_is_answered_with_those_that_do(toys, name):
    with pytest.raises(OptionError, match="disc, ring"):
        toys.make(name, rare=("tumour",))
    with pytest.raises(OptionError, match="never rare"):
        toys.make(name, rare=("background",))


def test_options_out_of_range_are_refused_before_training(toys):
    for options in ({"radius": -1.0}, {"rms_radius": -1.0}, {"start": 0.0}):
        with pytest.raises(OptionError):
            toys.make("adversarial", **options)
    for options in ({"alpha": -1.0}, {"margin": 1.0}):
        with pytest.raises(OptionError):
            toys.make("mixup", **options)


def test_a_single_sample_has_none_to_be_mixed_with(toys):
    method = toys.make("mixup", sources=1)
    with pytest.raises(MethodError, match="batch of 2 or more"):
        method.update(Batch(toys.discs([0], 0)), plain_step(method))


def test_batch_norm_remembers_the_passes_that_are_learned_from(toys):
    """Three of them, the direction's is none."""
    method = toys.make("asymmetric_combination", norm="batch")
    toys.drive(method, 2)
    counts = [int(b) for n, b in method.network.named_buffers() if n.endswith("num_batches_tracked")]
    assert counts
    assert set(counts) == {6}


def test_the_direction_takes_part_in_dice_where_the_loss_does(toys, monkeypatch):
    """By default as the loss, or as it is said."""
    found = {}
    for overlap in (None, True, False):
        method = toys.make("adversarial", overlap=overlap)  # the loss is dice+ce
        log = watched(method, monkeypatch)
        torch.manual_seed(0)
        toys.drive(method, 1)
        found[overlap] = [samples.image for name, samples, _ in log if name == "loss"][1]
        monkeypatch.undo()
    assert torch.equal(found[None], found[True])
    assert not torch.equal(found[None], found[False])


@pytest.mark.parametrize("dimensions", [2, 3])
def test_in_half_precision_it_is_found_and_learned_from(toys, monkeypatch, dimensions):
    method = toys.make("asymmetric_combination", dimensions=dimensions, norm="batch", radius=0.5)
    log = watched(method, monkeypatch)
    with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
        losses = toys.drive(method, 1)
    assert all(bool(torch.isfinite(value)) for value in losses.values())
    assert all(bool(torch.isfinite(p).all()) for p in method.network.parameters())
    plain, moved, _ = (samples for name, samples, _ in log if name == "loss")
    assert moved.image.dtype == torch.float32
    lengths = (moved.image - plain.image).flatten(1).norm(dim=1)
    torch.testing.assert_close(lengths, torch.full((6,), 0.5), rtol=1e-3, atol=1e-3)


def test_options_of_a_recipe_are_read():
    """A list of names, a length, and nothing at all."""
    given = {"rare": ["ring"], "radius": 10, "overlap": False}
    found = catalogue.check_options("adversarial", catalogue.method("adversarial"), given)
    assert (found["rare"], found["radius"], found["overlap"], found["order"]) == (("ring",), 10.0, False, "before")


KINDS = {
    "structures": ({"kind": "multi-label", "parts": [[0, 0], [1, 0], [1, 1]]}, ["background", "disc", "core"], "core"),
    "multi-class": ({"task": "classification"}, ["small", "middle", "large"], "large"),
    "ordinal": ({"task": "classification", "kind": "ordinal"}, ["small", "middle", "large"], "large"),
    "findings": ({"task": "classification", "kind": "multi-label"}, ["large", "bright"], "bright"),
}


def of_kind(kind: str, name: str, dimensions: int = 2, **options):
    target, classes, _ = KINDS[kind]
    task = tasks.make(target, classes)
    torch.manual_seed(0)
    whole = task.name != "segmentation"
    small = {"stem": "small", "width": 0.0625, "norm": "batch"} if whole else {"widths": [4, 8], "norm": "batch"}
    network = nets.build(nets.DEFAULTS[task.name], dimensions=dimensions, channels=1, outputs=task.outputs, **small)
    return catalogue.method(name)(network, task, Setting(["a", "b"], 1, dimensions, 2), **options)


@pytest.mark.parametrize("name", ["adversarial", "mixup", "asymmetric_combination"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dimensions", [2, 3])
def test_the_asymmetric_form_trains_every_kind_of_task(name, kind, dimensions):
    method = of_kind(kind, name, dimensions, rare=(KINDS[kind][2],)).train()
    moved, random = movers(method, CPU), torch.Generator().manual_seed(0)
    space = (8,) * dimensions
    for index in range(2):
        label = torch.randint(0, 3, (4, *space) if kind == "structures" else (4,), generator=random)
        label = torch.stack([label == 2, label > 0], 1).float() if kind == "findings" else label
        samples = Samples(
            torch.randn((4, 1, *space), generator=random), label, torch.tensor([0, 0, 1, 1]), list("wxyz")
        )
        before = snapshot(method)
        losses = method.update(Batch(samples), plain_step(method, index, moved))
        assert all(bool(torch.isfinite(value)) for value in losses.values())
        assert any(not torch.equal(a, b) for a, b in zip(before, method.network.parameters(), strict=True))


@pytest.mark.parametrize("name", ["adversarial", "mixup", "asymmetric_combination"])
def test_a_classification_is_asked_for_its_rare_classes(name):
    with pytest.raises(OptionError, match='rare = \\["large"\\]'):
        of_kind("multi-class", name)


@pytest.mark.parametrize("kind", ["structures", *KINDS])
@pytest.mark.parametrize("dice", [False, True])
def test_the_recommended_loss_is_one_of_the_task(kind, dice):
    target, classes, rare = KINDS[kind]
    if kind == "ordinal" or (dice and kind != "structures"):
        with pytest.raises(MethodError, match="no focal loss"):
            recommended_loss("classification", kind=target.get("kind", "multi-class"), dice=dice)
        return
    found = recommended_loss(target.get("task", "segmentation"), kind=target.get("kind", "multi-class"), dice=dice)
    task = tasks.make(target, classes, loss=found["loss"], options={**found["loss_options"], "rare": [rare]})
    prediction, samples = task.blank((4, 4))
    assert torch.isfinite(task.loss(prediction, samples)).all()


def blobs(number: int, seed: int, space: tuple[int, ...] = (24, 24)) -> Samples:
    """Small bright blobs of varying contrast in smooth noise, and larger darker ones that are nothing."""
    random = np.random.default_rng(seed)
    places = np.meshgrid(*[np.arange(n) for n in space], indexing="ij")
    images, labels = [], []
    for _ in range(number):
        noise = random.normal(size=space)
        noise = sum(np.roll(noise, shift, axis) for axis in range(len(space)) for shift in (-1, 0, 1)) / 3
        centre = random.uniform(4, np.array(space) - 4)
        lesion = sum((a - c) ** 2 for a, c in zip(places, centre, strict=True)) < random.uniform(1.5, 2.5) ** 2
        images.append(noise + random.uniform(1.0, 3.0) * lesion)
        labels.append(lesion)
    image = torch.tensor(np.stack(images), dtype=torch.float32)[:, None]
    return Samples(image, torch.tensor(np.stack(labels)).long(), torch.zeros(number, dtype=torch.long), [""] * number)


def sensitivity(method, samples: Samples) -> tuple[float, float]:
    """Of the rare class: sensitivity and precision over all voxels."""
    with torch.no_grad():
        answer = method.eval().task.answer(method.predict(samples)).bool()
    truth = samples.label.bool()
    hit = float((answer & truth).sum())
    return hit / float(truth.sum()), hit / max(float(answer.sum()), 1)


def trained_on_few(name: str, loss: str, steps: int, **options):
    task = tasks.make({}, ["background", "lesion"], loss=loss, options=options.pop("loss_options", None))
    torch.manual_seed(0)
    network = nets.build("unet", dimensions=2, channels=1, outputs=2, widths=[8, 16], norm="instance")
    method = catalogue.method(name)(network, task, Setting(["a"], 1, 2, 1), **options)
    moved, few = movers(method, Trainer(rate=3e-3, schedule="constant", clip=None, weight_decay=0.0)), blobs(8, 0)
    for index in range(steps):
        torch.manual_seed(index)
        chosen = torch.randperm(8, generator=torch.Generator().manual_seed(index))[:4]
        method.train()
        method.update(Batch(few[chosen]), plain_step(method, index, moved))
    return method


@pytest.fixture(scope="module")
def erm_on_few():
    return trained_on_few("erm", "ce", 150)


def test_the_combination_finds_more_of_what_is_rare_in_unseen_images(erm_on_few):
    """Trained on eight images, of which both find all: the sensitivity on sixty others."""
    unseen, focal = blobs(60, 999), {"gamma": 2.0, "asymmetric": True, "rare": ["lesion"]}
    combination = trained_on_few("asymmetric_combination", "rare_focal", 150, loss_options=focal)
    for method in (erm_on_few, combination):
        assert sensitivity(method, blobs(8, 0))[0] > 0.99
    plain = sensitivity(erm_on_few, unseen)[0]
    assert plain < 0.6
    assert sensitivity(combination, unseen)[0] > plain + 0.1


@pytest.mark.slow
def test_asymmetric_mixup_finds_more_and_symmetric_mixup_less(erm_on_few):
    unseen = blobs(60, 999)
    found = [sensitivity(trained_on_few("mixup", "ce", 150, asymmetric=form), unseen)[0] for form in (True, False)]
    plain = sensitivity(erm_on_few, unseen)[0]
    assert found[0] > plain + 0.05
    assert found[1] < plain - 0.05


def test_what_is_rare_withstands_moves_best_with_the_asymmetric_form(erm_on_few):
    """The error of the rare voxels of the training images, each moved in the network's own worst direction."""
    seen = blobs(8, 0)

    def error(method) -> float:
        attack = Attack(method.task, (1,), None, 0.1, 1e-5, overlap=False)
        moved = attack.on(seen, method.network, method.eval(), plain_step(method))
        with torch.no_grad():
            errors = nn.functional.cross_entropy(method(moved), seen.label, reduction="none")
        return float(errors[seen.label.bool()].mean())

    plain = error(erm_on_few)
    one, other = (
        error(trained_on_few("adversarial", "ce", 100, rms_radius=0.1, asymmetric=form)) for form in (True, False)
    )
    assert one < 0.7 * other < 0.7 * plain
    assert one < 0.3 * plain


class Valid(nn.Module):
    """Scores of the middle only, as of valid convolutions."""

    def __init__(self, dimensions: int) -> None:
        super().__init__()
        layer = nn.Conv2d if dimensions == 2 else nn.Conv3d
        self.layers = nn.Sequential(layer(1, 4, 3), nn.ReLU(), layer(4, 2, 3))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.layers(image)


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("valid", [False, True])
def test_networks_with_several_levels_or_a_margin_are_trained_too(dimensions, valid):
    """A rare voxel that the scores do not reach moves nothing."""
    task = tasks.make({}, ["background", "lesion"], loss="margin_focal+dice")
    torch.manual_seed(0)
    deep = {"filters": [4, 8, 8, 8], "deep_supervision": True, "supervised": 2}
    network = (
        Valid(dimensions) if valid else nets.build("dynunet", dimensions=dimensions, channels=1, outputs=2, **deep)
    )
    method = catalogue.method("asymmetric_combination")(network, task, Setting(["a"], 1, dimensions, 1)).train()
    label = torch.zeros((2, *(16,) * dimensions), dtype=torch.long)
    label[(0, *(slice(6, 9),) * dimensions)] = 1
    label[1, 0] = 1
    samples = Samples(torch.randn(2, 1, *label.shape[1:]), label, torch.zeros(2, dtype=torch.long), ["", ""])
    moved = method.attack.on(samples, network, method, plain_step(method))
    lengths = (moved.image - samples.image).flatten(1).norm(dim=1)
    assert lengths[0] > 0
    assert (lengths[1] == 0) == valid
    losses = method.update(Batch(samples), plain_step(method))
    assert all(bool(torch.isfinite(value)) for value in losses.values())
