"""Every method on every task: three steps, a prediction, adaptation at test time; and that it learns."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from shiftproof import catalogue, nets, tasks
from shiftproof.data.samples import Batch, Samples
from shiftproof.errors import MethodError
from shiftproof.methods.method import Method, Setting
from shiftproof.testtime.tent import mean_entropy, tent
from shiftproof.train import Trainer
from shiftproof.training.steps import RunningStep, movers, phase_at

TARGETS = {
    "structures": ({"kind": "multi-label", "parts": [[0, 0], [1, 0], [1, 1]]}, ["background", "disc", "core"]),
    "multi-class": ({"task": "classification"}, ["small", "middle", "large"]),
    "ordinal": ({"task": "classification", "kind": "ordinal"}, ["small", "middle", "large"]),
    "findings": ({"task": "classification", "kind": "multi-label"}, ["large", "bright"]),
    "regression": ({"task": "regression", "column": "radius", "unit": "voxels", "mean": 4.5, "sd": 1.5}, []),
}
VARIANTS = [
    ("erm", {}, 0),
    ("dann", {}, 1),
    ("dann", {"form": "alternating", "penalty": 1.0}, 0),
    ("mldg", {"second_order": True}, 0),
    ("mldg", {}, 0),
    ("group_dro", {"adjustment": 1.0}, 0),
    ("mean_teacher", {}, 1),
    ("adversarial", {"asymmetric": False}, 0),
    ("mixup", {"asymmetric": False}, 0),
    ("asymmetric_combination", {"adversarial": "symmetric", "mixup": "symmetric"}, 0),
    ("learned_augmentation", {"policy_update_every": 2}, 0),
]

everywhere = pytest.mark.parametrize(("method", "options", "targets"), VARIANTS, ids=str)
on_every_task = pytest.mark.parametrize("name", TARGETS)


def discs(name: str, domains: list[int], seed: int, dimensions: int = 2, size: int = 16) -> Samples:
    """Discs whose size and brightness are what is asked for; domains differ in an offset."""
    random = torch.Generator().manual_seed(seed)
    axes = torch.meshgrid(*[torch.arange(size) - (size - 1) / 2] * dimensions, indexing="ij")
    distance = sum(a**2 for a in axes).sqrt()
    kind = torch.randint(0, 3, (len(domains),), generator=random)
    bright = torch.randint(0, 2, (len(domains),), generator=random)
    radius = 3 + 1.5 * kind + 0.2 * torch.randn(len(domains), generator=random)
    parts = torch.stack([(distance < r).long() + (distance < r / 2).long() for r in radius])
    image = (1 + bright).view(-1, *[1] * dimensions) * (parts > 0) + torch.tensor(domains).view(
        -1, *[1] * dimensions
    ) * 0.3
    image = image + 0.1 * torch.randn(image.shape, generator=random)
    extra = {}
    if name == "structures":
        label = parts
        extra["annotated"] = torch.ones(len(domains), 3, dtype=torch.bool)
        extra["ignore"] = torch.zeros_like(parts, dtype=torch.bool)
    elif name == "findings":
        label = torch.stack([kind == 2, bright == 1], 1).float()
        extra["annotated"] = torch.rand(len(domains), 2, generator=random) < 0.8
    else:
        label = radius if name == "regression" else kind
    return Samples(image[:, None], label, torch.tensor(domains), [f"s{i}" for i in range(len(domains))], extra)


def make(name: str, method: str, options: dict, targets: int, dimensions: int = 2, seed: int = 0) -> Method:
    target, classes = TARGETS[name]
    task = tasks.make(target, classes)
    torch.manual_seed(seed)
    whole = task.name != "segmentation"
    small = {"stem": "small", "width": 0.0625, "norm": "batch"} if whole else {"widths": [4, 8], "norm": "batch"}
    network = nets.build(nets.DEFAULTS[task.name], dimensions=dimensions, channels=1, outputs=task.outputs, **small)
    side = 16 if dimensions == 2 else 8
    setting = Setting([f"d{i}" for i in range(2 + targets)], 1, dimensions, 2, (side,) * dimensions)
    return catalogue.method(method)(network, task, setting, **options)


def drive(method: Method, name: str, steps: int, rate: float = 1e-2, per_domain: int = 4) -> list[dict]:
    trainer = Trainer(rate=rate, schedule="constant", clip=None, weight_decay=0.0)
    moved = movers(method, trainer)
    dimensions, found = method.setting.dimensions, []
    size = 16 if dimensions == 2 else 8

    def batch(index: int) -> Batch:
        source, *held_back = (
            discs(name, [0, 1] * per_domain, index + 250 * i, dimensions, size)
            for i in range(1 + len(method.needs.streams))
        )
        streams = dict(zip(method.needs.streams, held_back, strict=True))
        if len(method.setting.domains) == 2:
            return Batch(source, streams=streams)
        target = discs(name, [2] * 2 * per_domain, index + 500, dimensions, size).without_labels()
        return Batch(source, target, streams)

    for index in range(steps):
        torch.manual_seed(index)
        progress = index / max(steps - 1, 1)
        phase, within = phase_at(method.phases(), progress)
        step = RunningStep(
            index, progress, phase, within, torch.Generator().manual_seed(index), moved, lambda p: 1.0, None,
            lambda draw, index=index: batch(1000 * index + draw + 1), {},
        )  # fmt: skip
        method.train()
        found.append({n: float(v.detach()) for n, v in method.update(batch(1000 * index), step).items()})
    return found


def test_every_method_has_a_variant_here():
    assert {method for method, _, _ in VARIANTS} == set(catalogue.METHODS)


@everywhere
@on_every_task
@pytest.mark.parametrize("dimensions", [2, 3])
def test_it_trains_three_steps_and_predicts(name, method, options, targets, dimensions):
    trained = make(name, method, options, targets, dimensions)
    if trained.task.name not in trained.needs.tasks:
        pytest.skip(f"{method} trains {', '.join(trained.needs.tasks)}")
    before = {n: p.detach().clone() for n, p in trained.network.named_parameters()}

    losses = drive(trained, name, 3, per_domain=2)

    assert all(value == value for found in losses for value in found.values())
    assert any(not torch.equal(before[n], p) for n, p in trained.network.named_parameters())
    samples = discs(name, [0, 0], 77, dimensions, 16 if dimensions == 2 else 8)
    with torch.no_grad():
        prediction = trained.eval().predict(samples.without_labels().replace(domain=None))
    measured = trained.task.measure(prediction, samples)
    assert list(measured) == trained.task.structures
    assert torch.isfinite(trained.task.loss(prediction, samples)).all()


@on_every_task
def test_what_is_asked_for_is_learned(name):
    """ERM on discs: far better than any constant answer."""
    method = make(name, "erm", {}, 0)
    drive(method, name, 100, per_domain=6)
    samples = discs(name, [0, 1] * 40, 99_999)
    with torch.no_grad():
        found = method.task.measure(method.eval().predict(samples), samples)
    mean = float(torch.stack([value.nanmean() for value in found.values()]).mean())
    # A constant answer: 1/3 of classes, 2/3 and 1/2 of findings, 1 voxel off the radius, no structure.
    least = {"structures": 0.8, "multi-class": 0.9, "ordinal": 0.9, "findings": 0.9, "regression": -0.5}
    assert mean > least[name]


@pytest.mark.parametrize("name", [n for n in TARGETS if n != "regression"])
def test_tent_lowers_the_entropy_of_any_task_that_has_one(name):
    method = make(name, "erm", {}, 0)
    drive(method, name, 10)
    samples = discs(name, [1] * 6, 123).without_labels()
    method.eval()
    statistics = tent(method, rate=0.0)(samples)
    adapted = tent(method, rate=1e-2, steps=5)(samples)
    by_class = {"by_class": True}
    assert mean_entropy(method.task, adapted, **by_class) < mean_entropy(method.task, statistics, **by_class)


def test_tent_refuses_a_task_without_probabilities_before_the_first_image():
    with pytest.raises(MethodError, match='"radius" has no probabilities'):
        tent(make("regression", "erm", {}, 0))


def test_entropy_by_class_is_a_mean_over_regions_of_overlapping_structures():
    task = tasks.make(*TARGETS["structures"])
    z = torch.tensor([[[2.0, 3.0, -1.0, -4.0], [-1.0, 1.0, -2.0, -3.0]]])[..., None]
    e = task.entropy(z)[0, :, 0]
    expected = ((e[0] + e[1]) / 2 + e[1] + (e[2] + e[3]) / 2) / 3  # disc, core, neither
    torch.testing.assert_close(mean_entropy(task, z, by_class=True), expected)
    torch.testing.assert_close(mean_entropy(task, z, by_class=False), e.mean())


@pytest.mark.parametrize("name", ["multi-class", "ordinal", "findings"])
def test_entropies_of_whole_images_are_averaged_plainly(name):
    """There is no background that would decide the mean; a rare class must not weigh more."""
    task = tasks.make(*TARGETS[name])
    prediction = torch.randn(7, task.outputs, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(mean_entropy(task, prediction, by_class=True), task.entropy(prediction).mean())


def test_domain_classifiers_read_features_of_whole_image_networks():
    method = make("multi-class", "dann", {"levels": (0, -1)}, 1)
    widths = method.network.widths
    assert isinstance(method.domain_classifier[0], nn.Linear)
    assert method.domain_classifier[0].in_features == widths[0] + widths[-1]
    assert drive(method, "multi-class", 2)[0]["domain"] > 0
