"""Every method on every task: it trains, predicts, is saved, and goes on where it stopped."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from shiftproof import catalogue
from shiftproof.data.samples import Samples
from shiftproof.data.sampling import Feed, Patches
from shiftproof.errors import OptionError
from shiftproof.train import Trainer

VARIANTS = [
    ("erm", {}, 0),
    ("dann", {}, 0),
    ("dann", {}, 1),
    ("dann", {"form": "alternating", "critic_steps": 2, "penalty": 1.0}, 1),
    ("dann", {"warm_up": 0.5}, 0),
    ("mldg", {}, 0),
    ("mldg", {"second_order": True}, 0),
    ("group_dro", {"adjustment": 1.0}, 0),
    ("mean_teacher", {}, 0),
    ("mean_teacher", {}, 1),
    ("adversarial", {}, 0),
    ("adversarial", {"asymmetric": False, "order": "after", "radius": 1.0}, 0),
    ("mixup", {"rare": ("ring",)}, 0),
    ("mixup", {"asymmetric": False, "alpha": 0.4}, 0),
    ("asymmetric_combination", {}, 0),
    ("asymmetric_combination", {"plain": True, "rare": ("ring",)}, 0),
    ("learned_augmentation", {"policy_update_every": 2}, 0),
    ("learned_augmentation", {"pool": "jcsa", "class_specific": True, "policy_update_every": 1, "outer": "ramp"}, 0),
    ("learned_augmentation", {"views": "deepmedic", "policy_update_every": 2}, 0),
]

everywhere = pytest.mark.parametrize(("name", "options", "targets"), VARIANTS, ids=lambda v: str(v))
both = pytest.mark.parametrize("dimensions", [2, 3])


def experiment(toys, name, options, targets, dimensions, seed=0):
    method = toys.make(name, sources=2, targets=targets, dimensions=dimensions, seed=seed, norm="batch", **options)
    source = toys.cases("d0", 2) + toys.cases("d1", 2, seed=5)
    target = toys.cases("d2", 2, seed=9, labelled=False) if targets else []
    patches = Patches((16, 16) if dimensions == 2 else (8, 8, 8))
    streams = {name: toys.cases("d0", 4, seed=13)[2:] for name in method.needs.streams}
    feed = Feed(
        source, method.setting.domains, patches, size=4, target=target, streams=streams, batches=method.needs.batches
    )
    return method, feed


def state(method) -> dict:
    return {n: t.clone() for n, t in method.state_dict().items()}


def test_every_method_has_a_variant_here():
    assert {name for name, _, _ in VARIANTS} == set(catalogue.METHODS)


@everywhere
@both
def test_it_trains_predicts_and_resumes_to_the_same_weights(toys, tmp_path, name, options, targets, dimensions):
    held_back = toys.cases("d0", 1, seed=3)
    trainer = Trainer(steps=5, batch=4, validate_every=2, average="ema", checkpoint_seconds=1e9, device="cpu")
    method, feed = experiment(toys, name, options, targets, dimensions)
    before = state(method)
    whole = trainer.fit(method, feed, held_back, tmp_path / "whole")
    after = state(method)
    assert any(not torch.equal(before[n], after[n]) for n in after)
    assert all(torch.isfinite(t.float()).all() for t in after.values())

    samples = next(feed.pass_over(feed.source[:1]))
    with torch.no_grad():
        answer = method.task.answer(method.predict(samples.without_labels().replace(domain=None)))
    assert answer.shape == samples.label.shape

    # Interrupted twice, each time after a saved state, with fresh objects as a new process has them.
    stops = Trainer(**{**vars(trainer), "checkpoint_seconds": 0.0})
    for at in (2, 4):
        other, feed = experiment(toys, name, options, targets, dimensions)
        with pytest.raises(Stop):
            stops.fit(other, feed, held_back, tmp_path / "parts", progress=stopping(at))
    other, feed = experiment(toys, name, options, targets, dimensions)
    resumed = stops.fit(other, feed, held_back, tmp_path / "parts")
    assert resumed.steps == whole.steps == 5
    assert resumed.validation == whole.validation
    for n, tensor in state(other).items():
        assert torch.equal(tensor, after[n]), n


class Stop(Exception):
    pass


def stopping(at: int):
    def progress(now) -> None:
        if now.step == at:
            raise Stop

    return progress


@everywhere
def test_prediction_changes_nothing_and_needs_no_domain(toys, name, options, targets):
    method = toys.make(name, sources=2, targets=targets, norm="batch", **options).eval()
    before = state(method)
    samples = Samples(toys.discs([0, 0], 1).image)
    with torch.no_grad():
        first, second = method.predict(samples), method.predict(samples)
    assert torch.equal(first, second)
    for n, tensor in state(method).items():
        assert torch.equal(tensor, before[n])


@everywhere
def test_the_state_of_a_trained_method_is_all_there_is(toys, name, options, targets):
    method = toys.make(name, sources=2, targets=targets, norm="batch", **options)
    toys.drive(method, 3)
    twin = toys.make(name, sources=2, targets=targets, norm="batch", seed=99, **options)
    twin.load_state_dict(method.state_dict())
    samples = Samples(toys.discs([0, 0], 1).image)
    with torch.no_grad():
        assert torch.equal(method.eval().predict(samples), twin.eval().predict(samples))


@everywhere
def test_target_labels_do_not_reach_a_method(toys, name, options, targets):
    method, feed = experiment(toys, name, options, targets, 2)
    batch = feed.batch(0)
    assert batch.target is None or (batch.target.label is None and "centre" not in batch.target.extra)
    assert batch.everyone.label is None


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(OptionError, match='did you mean "mldg"'):
        catalogue.method("mldgg")


def test_an_unknown_option_is_answered_with_the_nearest():
    with pytest.raises(OptionError, match='did you mean "weight"'):
        catalogue.check_options("dann", catalogue.method("dann"), {"wieght": 1.0})


def test_a_value_of_the_wrong_kind_is_named():
    with pytest.raises(OptionError, match="dann.hidden expects int"):
        catalogue.check_options("dann", catalogue.method("dann"), {"hidden": "wide"})
    with pytest.raises(OptionError, match="alternating"):
        catalogue.check_options("dann", catalogue.method("dann"), {"form": "alternate"})


def test_options_carry_the_words_of_the_docstring():
    for name in [*catalogue.METHODS, *catalogue.TEST_TIME]:
        target = catalogue.method(name) if name in catalogue.METHODS else catalogue.test_time(name)
        for option in catalogue.options(target):
            assert len(option.help) > 10, f"{name}.{option.name}"
        assert "Paper:" in target.__doc__


def test_batches_are_a_function_of_seed_and_step(toys):
    _, feed = experiment(toys, "dann", {}, 1, 2)
    again = experiment(toys, "dann", {}, 1, 2)[1]
    a, b = feed.batch(7), again.batch(7)
    assert torch.equal(a.source.image, b.source.image)
    assert torch.equal(a.target.image, b.target.image)
    assert not np.array_equal(feed.batch(8).source.image, a.source.image)
    assert not torch.equal(feed.batch(7, draw=1).source.image, a.source.image)
