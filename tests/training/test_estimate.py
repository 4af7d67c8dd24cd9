"""What training takes, told before it begins, against what it took; and what is said when that was too much."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from shiftproof.data.sampling import Feed, Patches
from shiftproof.errors import OutOfMemory
from shiftproof.methods.erm import ERM
from shiftproof.methods.method import Method
from shiftproof.train import Trainer
from shiftproof.training import machine
from shiftproof.training.estimate import Estimate, Trial, duration_of, estimated, size_of, smallest, watched

CPU = torch.device("cpu")


def experiment(toys, name="erm", *, dimensions=2, widths=(8, 16), size=8, **options):
    method = toys.make(name, sources=2, dimensions=dimensions, norm="instance", **options)
    network = type(method.network)
    method = type(method)(network(dimensions=dimensions, channels=1, outputs=3, widths=list(widths)), method.task,
                          method.setting, **options)  # fmt: skip
    source = toys.cases("d0", 2, depth=16) + toys.cases("d1", 2, seed=5, depth=16)
    patches = Patches((48, 48) if dimensions == 2 else (16, 16, 16))
    return method, Feed(source, ["d0", "d1"], patches, size=size, batches=method.needs.batches)


def peak_of_a_step(trial: Trial) -> int:
    """Largest sum of all that torch allocated and had not yet freed, as its profiler saw it."""
    trial.step(0)  # moments of the optimiser are there from now on
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        trial.step(1)
    now = most = 0
    for event in seen.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    return most


@pytest.mark.parametrize(
    ("name", "options", "dimensions", "precision"),
    [
        ("erm", {}, 2, "float32"),
        ("erm", {}, 3, "float32"),
        ("erm", {}, 2, "bf16"),
        ("mldg", {"second_order": True}, 2, "float32"),
        ("dann", {"form": "alternating", "penalty": 1.0}, 2, "float32"),
        ("mean_teacher", {}, 2, "float32"),
    ],
    ids=str,
)
def test_memory_of_a_step_is_told_within_a_factor_of_one_and_a_half(toys, name, options, dimensions, precision):
    method, feed = experiment(toys, name, dimensions=dimensions, **options)
    trainer = Trainer(batch=8, device="cpu", precision=precision)
    found = estimated(trainer, method, feed, timed=0)
    measured = peak_of_a_step(Trial(trainer, method, feed, None, CPU))
    told = found.activation_bytes + found.gradient_bytes + found.data_bytes
    assert measured / 1.5 < told < 1.5 * measured


def test_state_gradients_and_moments_are_counted_exactly(toys):
    method, feed = experiment(toys, "mean_teacher")
    numbers = sum(p.numel() for p in method.network.parameters())
    found = estimated(Trainer(batch=8, device="cpu", average="ema"), method, feed, timed=0)
    assert found.parameters == numbers
    assert found.state_bytes == 2 * 2 * 4 * numbers  # network and teacher, and the average of both
    assert found.gradient_bytes == 4 * numbers
    counters = 4 * len(list(method.network.parameters()))  # Adam counts steps for each tensor
    assert found.optimizer_bytes == 2 * 4 * numbers + counters
    plain = estimated(Trainer(batch=8, device="cpu", optimizer="sgd", momentum=0.0), method, feed, timed=0)
    assert plain.optimizer_bytes == 0


def test_saved_tensors_are_counted_once_and_only_while_they_live(toys):
    """Of exp(x) autograd keeps the result, of a product both factors; x is the weight and counts elsewhere."""

    class Bare(Method):
        def __init__(self) -> None:
            nn.Module.__init__(self)
            self.weight = nn.Parameter(torch.ones(1000))

    method = Bare()
    with watched(method) as saved:
        first = method.weight.exp()  # 4000 bytes, kept by exp and by both products
        loss = (first * method.weight).sum() + (first * first).sum()
        assert saved.now == saved.most == saved.largest == 4000
        loss.backward()
        del loss
        assert saved.now == 0
    assert saved.most == 4000


def test_memory_grows_with_the_batch_and_shrinks_with_processes(toys):
    method, feed = experiment(toys, size=8)
    one, two = (estimated(Trainer(device="cpu"), method, feed, timed=0, processes=n) for n in (1, 2))
    assert one.activation_bytes == 2 * two.activation_bytes
    assert one.data_bytes == 2 * two.data_bytes
    assert one.state_bytes == two.state_bytes


def test_an_estimate_leaves_no_trace(toys):
    method, feed = experiment(toys, "group_dro")
    before = {n: t.clone() for n, t in method.state_dict().items()}
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    found = estimated(Trainer(steps=50, device="cpu"), method, feed, timed=1)
    assert torch.equal(torch.rand(2), expected)
    assert all(torch.equal(t, before[n]) for n, t in method.state_dict().items())
    assert found.seconds == pytest.approx(50 * found.seconds_per_step)
    assert found.seconds_per_step > 0
    assert estimated(Trainer(seconds=1e-6, device="cpu"), method, feed, timed=1).seconds == 1e-6


def test_the_smallest_batch_has_what_the_method_needs(toys):
    method, feed = experiment(toys, "mldg")
    assert smallest(method, feed) == 2
    assert smallest(method, Feed(feed.source, feed.domains, feed.patches, size=8, batches="mixed")) == 8


def test_one_line_says_what_and_whether_it_fits():
    fits = Estimate(2_000_000, 8_000_000, 8_000_000, 16_000_000, 1_500_000_000, 10_000_000, 4_000_000_000, 0.5, 1000.0)
    words = "2.00 million parameters; memory about 1.54 GB (activations 1.5 GB) of 4 GB available"
    assert fits.line() == f"{words}; 0.5 s a step, about 17 min without validation"
    tight = Estimate(2_000_000, 8_000_000, 8_000_000, 16_000_000, 1_500_000_000, 10_000_000, 1_000_000_000)
    assert not tight.fits
    assert "may not fit: use a smaller --batch" in tight.line()
    assert Estimate(1, 1, 1, 1, 1, 1, None).fits
    assert fits.as_dict()["total_bytes"] == 1_542_000_000
    assert [size_of(n) for n in (12, 3500, 2.5e12)] == ["12 B", "3.5 kB", "2.5e+03 GB"]
    assert [duration_of(s) for s in (5, 600, 7200)] == ["5 s", "10 min", "2.0 h"]


def test_available_memory_respects_a_container(tmp_path, monkeypatch):
    limit, use = tmp_path / "max", tmp_path / "current"
    monkeypatch.setattr(machine, "CONTROL_GROUPS", ((str(limit), str(use)),))
    free = machine.available_bytes(CPU)
    assert free is not None
    assert free > 1e6
    limit.write_text("1000000\n")
    use.write_text("400000\n")
    assert machine.available_bytes(CPU) == 600_000
    limit.write_text("max\n")
    assert machine.available_bytes(CPU) > 1e6


class Greedy(ERM):
    """Asks for more than any machine has."""

    error_of = staticmethod(lambda: torch.empty(2**62, dtype=torch.uint8))

    def losses(self, batch, step):
        self.error_of()
        return super().losses(batch, step)


def test_out_of_memory_tells_what_the_step_would_take(toys, tmp_path, monkeypatch):
    base, feed = experiment(toys)
    method = Greedy(base.network, base.task, base.setting)
    calls = []

    def second(*given):
        calls.append(1)
        if len(calls) == 2:
            raise MemoryError

    monkeypatch.setattr(Greedy, "error_of", staticmethod(second))
    found = estimated(Trainer(device="cpu"), base, feed, timed=0)
    words = rf"takes about {size_of(found.total_bytes)} \({size_of(found.activation_bytes)} activations\)"
    with pytest.raises(OutOfMemory, match=words):
        Trainer(steps=3, device="cpu").fit(method, feed, [], tmp_path)


@pytest.mark.parametrize(
    "fault",
    [
        lambda: torch.empty(2**62, dtype=torch.uint8),  # what torch itself says on a CPU
        lambda: (_ for _ in ()).throw(MemoryError()),
        lambda: (_ for _ in ()).throw(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")),
    ],
)
def test_out_of_memory_names_what_to_change(toys, tmp_path, fault, monkeypatch):
    base, feed = experiment(toys)
    method = Greedy(base.network, base.task, base.setting)
    monkeypatch.setattr(Greedy, "error_of", staticmethod(fault))
    with pytest.raises(OutOfMemory, match=r"8 patches of 48 x 48 in float32.*--batch.*--patch.*widths.*bf16") as raised:
        Trainer(steps=2, device="cpu").fit(method, feed, [], tmp_path)
    assert "\n" not in str(raised.value)


def test_other_errors_keep_their_type(toys, tmp_path, monkeypatch):
    base, feed = experiment(toys)
    method = Greedy(base.network, base.task, base.setting)
    monkeypatch.setattr(Greedy, "error_of", staticmethod(lambda: torch.ones(2) @ torch.ones(3)))
    with pytest.raises(RuntimeError, match="size"):
        Trainer(steps=2, device="cpu").fit(method, feed, [], tmp_path)


def test_the_share_of_waiting_for_data_is_told_and_recorded(toys, tmp_path):
    method, feed = experiment(toys, size=2)
    told = []

    class Slow(Feed):
        def batch(self, *given):
            import time

            time.sleep(0.2)
            return super().batch(*given)

    slow = Slow(feed.source, feed.domains, feed.patches, size=2)
    Trainer(steps=4, batch=2, device="cpu").fit(method, slow, [], tmp_path, progress=told.append)
    assert told[-1].waiting > 0.5
    facts = json.loads((tmp_path / "run.json").read_text())
    assert facts["loading"]["seconds"] / facts["seconds"] == pytest.approx(told[-1].waiting, abs=0.02)
    assert 0 <= told[-1].waiting <= 1
    assert math.isfinite(told[-1].remaining)
