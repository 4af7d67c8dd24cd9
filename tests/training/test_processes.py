"""Two real processes over gloo end with the weights of one process that trains on the joint batch."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import signal
from functools import partial
from itertools import product

import numpy as np
import pytest
import torch

from shiftproof import catalogue, nets, tasks
from shiftproof.data.samples import Batch, Samples
from shiftproof.data.sampling import Feed, Patches
from shiftproof.errors import DivergedError, MethodError, OptionError, ProcessError
from shiftproof.methods.erm import ERM
from shiftproof.methods.method import Setting
from shiftproof.parts.by_domain import divided
from shiftproof.train import Trainer
from shiftproof.training.group import Group, current, joined
from shiftproof.training.shares import require_shares
from shiftproof.training.steps import RunningStep, movers
from shiftproof.training.synchronised import joint_moments, synchronised
from shiftproof.transforms.presets import preset

VARIANTS = {
    "erm, plain": ("erm", {}, {"transforms": "none"}),
    "erm, a batch that does not divide": ("erm", {}, {"size": 5}),
    "erm, balanced": ("erm", {}, {"batches": "balanced", "size": 7}),
    "erm, one domain a batch": ("erm", {}, {"batches": "one domain"}),
    "erm, batch norm": ("erm", {}, {"norm": "batch", "size": 5}),
    "erm, clipped": ("erm", {}, {"clip": 0.01}),
    "erm, ema": ("erm", {}, {"average": "ema", "average_decay": 0.5}),
    "erm, swa": ("erm", {}, {"average": "swa", "norm": "batch"}),
    "erm, in three dimensions": ("erm", {}, {"dimensions": 3}),
    "dann, sources only": ("dann", {}, {"size": 7}),
    "dann, mixed batches": ("dann", {}, {"batches": "mixed", "size": 5, "targets": 1}),
    "dann, one domain a batch": ("dann", {}, {"batches": "one domain", "targets": 1}),
    "dann, with a critic": ("dann", {"form": "alternating", "critic_steps": 2, "penalty": 1.0}, {"targets": 1}),
    "dann, with a warm-up and batch norm": ("dann", {"warm_up": 0.5}, {"targets": 1, "norm": "batch"}),
    "mldg, exact": ("mldg", {"second_order": True, "inner_rate": 0.1}, {"size": 7}),
    "mldg, exact, batch norm": ("mldg", {"second_order": True, "inner_rate": 0.1}, {"norm": "batch"}),
    "mldg, first order": ("mldg", {"inner_rate": 0.1}, {"size": 7}),
    "group_dro, fast": ("group_dro", {"rate": 1.0, "adjustment": 1.0}, {"size": 7}),
    "group_dro, mixed batches": ("group_dro", {"rate": 1.0}, {"batches": "mixed", "size": 3}),
    "learned_augmentation, one policy": (
        "learned_augmentation",
        {"policy_update_every": 1, "policy_rate": 0.5},
        {"size": 5},
    ),
    "learned_augmentation, with views": (
        "learned_augmentation",
        {"policy_update_every": 1, "views": "nnunet", "view_rate": 0.1},
        {"size": 5, "norm": "batch"},
    ),
    "learned_augmentation, by class": (
        "learned_augmentation",
        {"policy_update_every": 1, "class_specific": True, "pool": "jcsa"},
        {"norm": "batch"},
    ),
    "adversarial, batch norm": ("adversarial", {"rare": ("ring",)}, {"size": 5, "norm": "batch"}),
    "adversarial, symmetric": ("adversarial", {"asymmetric": False, "radius": 2.0, "order": "after"}, {"size": 7}),
    "mixup, an odd batch": ("mixup", {"rare": ("ring",)}, {"size": 5}),
    "mixup, symmetric": ("mixup", {"asymmetric": False, "alpha": 0.4}, {"norm": "batch"}),
    "asymmetric_combination, on plain patches": ("asymmetric_combination", {"plain": True}, {"size": 5}),
    "asymmetric_combination, in three dimensions": ("asymmetric_combination", {}, {"dimensions": 3, "size": 4}),
    "mean_teacher, with target": ("mean_teacher", {"weight": 5.0}, {"targets": 1, "size": 5, "norm": "batch"}),
}
# Whatever the catalogue holds, now and later, by its defaults.
VARIANTS |= {name: (name, {}, {}) for name in catalogue.METHODS}
VARIANTS |= {
    f"{name}+target": (name, {}, {"targets": 1, "size": 7})
    for name in catalogue.METHODS
    if catalogue.method(name).needs.target != "unused"
}


class DoubleFeed(Feed):
    """In float64, so that what is left of a difference is a difference in kind."""

    def batch(self, *given):
        batch = super().batch(*given)
        for samples in (batch.source, *([batch.target] if batch.target else []), *batch.streams.values()):
            samples.image = samples.image.double()
        return batch

    def pass_over(self, cases):
        for samples in super().pass_over(cases):
            yield samples.replace(image=samples.image.double())


def trained(toys, variant: str, folder) -> dict[str, np.ndarray]:
    name, options, how = VARIANTS[variant]
    how = {"transforms": "light", "size": 6, "targets": 0, "norm": "none", "dimensions": 2, **how}
    dimensions, targets = how.pop("dimensions"), how.pop("targets")
    targets = targets or int(catalogue.method(name).needs.target == "required")
    method = toys.make(name, sources=3, targets=targets, norm=how.pop("norm"), dimensions=dimensions, **options)
    source = [case for d in range(3) for case in toys.cases(f"d{d}", 2, seed=5 * d, gain=1 + d)]
    target = toys.cases("d3", 2, seed=40, labelled=False) if targets else []
    patch = (16, 16) if dimensions == 2 else (8, 8, 8)
    light = preset(
        how.pop("transforms"), dimensions=dimensions, patch=patch, spatial=("image", "label", "ignore"),
        anisotropic=False, spacing_mm=[1.0] * dimensions,
    )  # fmt: skip
    batches = how.pop("batches", method.needs.batches)
    patches, size = Patches(patch), how.pop("size")
    streams = {name: toys.cases("d0", 5, seed=60)[2:] for name in method.needs.streams}
    feed = DoubleFeed(
        source, method.setting.domains, patches, size=size, target=target, streams=streams, batches=batches
    )
    trainer = Trainer(steps=3, batch=feed.size, rate=1e-2, schedule="constant", device="cpu", **how)
    trainer.fit(method.double(), feed, [], folder, transform=light)
    found = {n: t.numpy().copy() for n, t in method.state_dict().items() if isinstance(t, torch.Tensor)}
    record = [json.loads(line) for line in (folder / "record.jsonl").read_text().splitlines()]
    for name, value in next({**line["losses"], **line.get("log", {})} for line in record if "losses" in line).items():
        found[f"recorded {name}"] = np.array(value)
    return found


def in_two(work, folder, *given) -> list:
    """What `work` returns or raises in each of two processes that have met."""
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    processes = [context.Process(target=_member, args=(rank, work, folder, results, *given)) for rank in range(2)]
    for process in processes:
        process.start()
    found = dict(results.get() for _ in processes)
    for process in processes:
        process.join(60)
        assert not process.is_alive()
    return [found[rank] for rank in range(2)]


def _member(rank, work, folder, results, *given) -> None:
    numbers = {"RANK": rank, "WORLD_SIZE": 2, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": 2, "OMP_NUM_THREADS": 1}
    os.environ.update({k: str(v) for k, v in numbers.items()} | {"MASTER_ADDR": "127.0.0.1"})
    try:
        with joined(cpu=True, init_method=f"file://{folder}/meeting"):
            found = work(*given)
    except BaseException as error:
        found = error
    results.put((rank, found))


def all_of_them(toys, folder) -> dict:
    return {variant: trained(toys, variant, folder / variant) for variant in VARIANTS}


@pytest.fixture(scope="module")
def both(tmp_path_factory, request):
    toys = request.getfixturevalue("shared_toys")
    together = in_two(all_of_them, tmp_path_factory.mktemp("two"), toys, tmp_path_factory.mktemp("together"))
    return together, all_of_them(toys, tmp_path_factory.mktemp("alone"))


@pytest.fixture(scope="module")
def shared_toys(request):
    from importlib import import_module

    return import_module("tests.conftest").Toys


@pytest.mark.parametrize("variant", VARIANTS)
def test_two_processes_give_the_weights_of_one(both, variant):
    together, alone = both
    for found in together:
        if isinstance(found, BaseException):
            raise found
        assert found[variant].keys() == alone[variant].keys()
        for name, expected in alone[variant].items():
            np.testing.assert_allclose(found[variant][name], expected, rtol=0, atol=1e-8, err_msg=name)


@pytest.fixture
def two(tmp_path):
    def run(work, *given):
        found = in_two(work, tmp_path, *given)
        for one in found:
            if isinstance(one, AssertionError):
                raise one
        return found

    return run


def moments(shares: list[np.ndarray]):
    group = current()
    own = torch.from_numpy(shares[group.rank]).requires_grad_()
    count, mean, variance = joint_moments(own, group)
    (gradient,) = torch.autograd.grad((group.share(7) * variance).sum(), own)
    return int(count), mean.detach().numpy(), variance.detach().numpy(), gradient.numpy()


def test_joint_moments_are_those_of_all_samples(two):
    """Of shares of 4 and 3 samples, far from 0; the gradient of the variance is 2 (x - mean) / n."""
    whole = 1e3 + np.random.default_rng(0).normal(size=(7, 2, 5))
    found = two(moments, [whole[0::2], whole[1::2]])
    for rank, (count, mean, variance, gradient) in enumerate(found):
        assert count == 35
        np.testing.assert_allclose(mean, whole.mean((0, 2)), rtol=1e-12)
        np.testing.assert_allclose(variance, whole.var((0, 2)), rtol=1e-9)
        expected = 2 * (whole - whole.mean((0, 2), keepdims=True)) / 35
        np.testing.assert_allclose(gradient, expected[rank::2], atol=1e-12)


def gathered_rows():
    group = current()
    own = (torch.arange(6.0) + 10 * group.rank).reshape(3, 2)[: 3 - group.rank].requires_grad_()
    every = group.gather(own)
    # A gradient with strides, as a transposed product gives it.
    weights = torch.arange(10.0).reshape(2, 5).t()
    (gradient,) = torch.autograd.grad((0.5 * every * weights).sum(), own)
    return every.detach().numpy(), gradient.numpy()


def test_rows_are_gathered_in_order_with_their_gradients(two):
    weights = np.arange(10.0).reshape(2, 5).T
    for rank, (every, gradient) in enumerate(two(gathered_rows)):
        np.testing.assert_array_equal(every, [[0, 1], [2, 3], [4, 5], [10, 11], [12, 13]])
        np.testing.assert_array_equal(gradient, weights[:3] if rank == 0 else weights[3:])


def opposite_ends(number: int):
    group = current()
    step = RunningStep(0, 0.0, "main", 0.0, torch.Generator(), {}, None, None, None, {}, group=group, batch=number)
    rows = torch.arange(number * 2.0).reshape(number, 2)
    return [step.mirrored(x[group.rank :: group.size]).numpy() for x in (rows, rows.long(), rows[:, 0] > 4)]


@pytest.mark.parametrize("number", [4, 5])
def test_each_sample_is_opposite_to_one_of_the_joint_batch(two, number):
    rows = np.arange(number * 2, dtype=np.float32).reshape(number, 2)
    for rank, found in enumerate(two(opposite_ends, number)):
        for x, expected in zip(found, (rows, rows.astype(int), rows[:, 0] > 4), strict=True):
            np.testing.assert_array_equal(x, expected[::-1][rank::2])
            assert x.dtype == expected.dtype


def lonely_domain(toys):
    group = current()
    samples = toys.discs([0, 1] if group.first else [0, 0], 0)
    step = RunningStep(0, 0.0, "main", 0.0, torch.Generator(), {}, None, None, None, {}, group=group, batch=4)
    divided(samples, 2, step.mean)


def test_a_domain_that_one_process_lacks_is_an_error_in_both(two, toys):
    for error in two(lonely_domain, toys):
        assert isinstance(error, MethodError)
        assert "balanced" in str(error)


def feed_of(toys, **options) -> Feed:
    source = toys.cases("d0", 2) + toys.cases("d1", 2, seed=5)
    return Feed(source, ["d0", "d1"], Patches((16, 16)), **{"size": 4, **options})


def fit(toys, folder, *, transform=None, method=None, **options):
    method = method or toys.make("erm", sources=2)
    trainer = Trainer(**{"steps": 6, "batch": 4, "validate_every": 2, "device": "cpu", **options})
    run = trainer.fit(method, feed_of(toys), toys.cases("d0", 1, seed=3), folder, transform=transform)
    return run, {n: t.numpy().copy() for n, t in method.state_dict().items()}


def struck(toys, folder, rank: int, step: int):
    """A signal reaches one process in the middle of a step."""
    seen = []

    def transform(samples, random):
        seen.append(1)
        if current().rank == rank and len(seen) == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return samples

    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    return fit(toys, folder, transform=transform)


@pytest.mark.parametrize("rank", [0, 1])
def test_an_interruption_of_one_stops_both_and_any_number_goes_on(two, toys, tmp_path, rank):
    folder = tmp_path / "run"
    assert [type(e) for e in two(struck, toys, folder, rank, 4)] == [KeyboardInterrupt] * 2
    assert torch.load(folder / "state.pt", weights_only=True)["state"]["index"] == 4
    resumed = fit(toys, folder)
    whole = fit(toys, tmp_path / "whole")
    assert resumed[0].steps == 6
    for name, expected in whole[1].items():
        np.testing.assert_allclose(resumed[1][name], expected, atol=1e-5, err_msg=name)


def test_two_go_on_where_one_stopped(two, toys, tmp_path):
    folder = tmp_path / "run"

    class Stop(Exception):
        pass

    def stop(samples, random, seen=[]):  # noqa: B006
        seen.append(1)
        if len(seen) == 4:
            raise Stop
        return samples

    with pytest.raises(Stop):
        fit(toys, folder, transform=stop, checkpoint_seconds=0.0)
    found = two(fit, toys, folder)
    whole = fit(toys, tmp_path / "whole")
    for run, weights in found:
        assert run.steps == 6
        for name, expected in whole[1].items():
            np.testing.assert_allclose(weights[name], expected, atol=1e-5, err_msg=name)
    assert json.loads((folder / "run.json").read_text())["processes"] == 2
    assert not list(folder.glob("best-*.pt"))


def test_a_time_budget_ends_both_at_the_same_step(two, toys, tmp_path):
    one, other = two(lambda: fit(toys, tmp_path / "run", steps=100_000, seconds=0.5, validate_every=1000)[0])
    assert one == other
    assert 0 < one.steps < 100_000


class Wild(ERM):
    """Not finite in one process only."""

    def losses(self, batch, step):
        bad = step.index == 3 and not current().first
        return {"task": self.error(batch.source).mean() * (math.inf if bad else 1)}


def diverge(toys, folder):
    base = toys.make("erm", sources=2)
    return fit(toys, folder, method=Wild(base.network, base.task, base.setting))


def test_what_is_not_finite_in_one_stops_both(two, toys, tmp_path):
    for error in two(diverge, toys, tmp_path / "run"):
        assert isinstance(error, DivergedError)
        assert "step 3" in str(error)


def wrong_folder(toys, folder):
    return fit(toys, folder, rate=2e-3)


def test_what_the_first_one_finds_wrong_is_said_by_both(two, toys, tmp_path):
    fit(toys, tmp_path / "run")
    assert {str(error).split(" holds")[1][:33] for error in two(wrong_folder, toys, tmp_path / "run")} == {
        " a run with other settings (rate:"
    }


def abandoned(toys, folder, results):
    def transform(samples, random):
        if not current().first and (folder / "record.jsonl").exists():
            os._exit(3)
        return samples

    try:
        fit(toys, folder, transform=transform, steps=1000)
    except ProcessError as error:
        results.put(str(error))


def test_a_lost_process_ends_the_other_with_words(toys, tmp_path):
    context = multiprocessing.get_context("fork")
    results, ignored = context.SimpleQueue(), context.SimpleQueue()
    given = (abandoned, tmp_path, ignored, toys, tmp_path / "run", results)
    processes = [context.Process(target=_member, args=(rank, *given)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [p.exitcode for p in processes] == [0, 3]
    assert "goes on from the last saved state" in results.get()


@pytest.mark.parametrize(
    ("size", "batches", "number"), [(2, "mixed", 3), (4, "balanced", 3), (5, "balanced", 3), (1, "one domain", 2)]
)
def test_a_batch_that_cannot_be_shared_is_refused_with_the_least_that_can(toys, size, batches, number):
    method = toys.make("erm", sources=2)
    with pytest.raises(OptionError, match=f"at least {number * (2 if batches == 'balanced' else 1)}"):
        require_shares(method, feed_of(toys, size=size, batches=batches), Group(0, number))
    require_shares(method, feed_of(toys, size=6, batches=batches), Group(0, number))


def test_a_loss_over_the_batch_is_refused(toys):
    method = toys.make("erm", sources=2)
    method.task.criterion = partial(method.task.criterion, batch=True)
    with pytest.raises(OptionError, match="one process"):
        require_shares(method, feed_of(toys), Group(0, 2))
    require_shares(method, feed_of(toys), Group())


def test_shares_make_up_the_batch(toys):
    feed = feed_of(toys, size=5, target=toys.cases("d1", 2, seed=9, labelled=False))
    whole = feed.batch(3, 1)
    for rank in range(3):
        share = feed.batch(3, 1, rank, 3)
        for part, joint in ((share.source, whole.source), (share.target, whole.target)):
            assert torch.equal(part.image, joint.image[rank::3])
            assert part.subject == joint.subject[rank::3]


ANSWERS = {
    "classes": ({"task": "classification"}, ["small", "middle", "large"]),
    "classes in order": ({"task": "classification", "kind": "ordinal"}, ["small", "middle", "large"]),
    "findings": ({"task": "classification", "kind": "multi-label"}, ["large", "bright"]),
    "a number": ({"task": "regression", "column": "age", "unit": "years", "mean": 1.0, "sd": 0.5}, []),
}


def trained_on(answer: str, name: str) -> dict[str, np.ndarray]:
    """Three steps on whole images with one label each, of which this process sees its share."""
    target, classes = ANSWERS[answer]
    torch.manual_seed(0)
    task = tasks.make(target, classes)
    network = nets.build(
        "resnet", dimensions=2, channels=1, outputs=task.outputs, stem="small", width=0.0625, norm="batch"
    )
    method = catalogue.method(name)(network, task, Setting(["d0", "d1"], 1, 2, 2)).double()
    moved, group = movers(method, Trainer(rate=1e-2)), current()
    for index in range(3):
        random = torch.Generator().manual_seed(index)
        image = torch.randn(7, 1, 12, 12, generator=random, dtype=torch.float64)
        label = torch.randint(0, 3, (7,), generator=random)
        extra = {"annotated": torch.rand(7, 2, generator=random) < 0.7} if answer == "findings" else {}
        if answer == "findings":
            label = torch.stack([label == 2, label > 0], 1).double()
        label = label.double() if answer == "a number" else label
        joint = Samples(image, label, torch.arange(7) // 4, [""] * 7, extra)
        shared = torch.Generator().manual_seed(index)
        step = RunningStep(
            index, 0.5, "main", 0.5, shared, moved, lambda progress: 1.0, 12.0, None, {}, group=group, batch=7,
            joint=torch.Generator().manual_seed(index),
        )  # fmt: skip
        torch.manual_seed(index)
        method.train()
        with synchronised(method, group):
            method.update(Batch(joint[group.rank :: group.size]), step)
    return {n: t.numpy().copy() for n, t in method.state_dict().items()}


def on_every_answer() -> dict:
    return {pair: trained_on(*pair) for pair in product(ANSWERS, ("erm", "mldg"))}


def test_other_tasks_are_shared_as_well(two):
    alone = on_every_answer()
    for found in two(on_every_answer):
        if isinstance(found, BaseException):
            raise found
        for pair, expected in alone.items():
            for name, tensor in expected.items():
                np.testing.assert_allclose(found[pair][name], tensor, atol=1e-8, err_msg=f"{pair} {name}")
