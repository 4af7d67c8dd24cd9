from __future__ import annotations

import json
import math
import os

import numpy as np
import pytest
import torch

from shiftproof.data.sampling import Feed, Patches
from shiftproof.errors import DivergedError, OptionError, RunError, StorageError
from shiftproof.methods.erm import ERM
from shiftproof.methods.method import Part
from shiftproof.train import Trainer, phase_at
from shiftproof.training.loop import Loop
from shiftproof.validate import SELECTIONS, Validation


def experiment(toys, seed=0, norm="none", **options):
    method = toys.make("erm", sources=2, seed=seed, norm=norm)
    feed = Feed(toys.cases("d0", 2) + toys.cases("d1", 2, seed=5), ["d0", "d1"], Patches((16, 16)), size=4)
    return method, feed, toys.cases("d0", 1, seed=3)


def fit(toys, folder, method=None, **options):
    made, feed, held_back = experiment(toys)
    method = method or made
    run = Trainer(**{"steps": 6, "batch": 4, "validate_every": 2, "device": "cpu", **options}).fit(
        method, feed, held_back, folder
    )
    return method, run


def lines(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "record.jsonl").read_text().splitlines()]


def test_training_lowers_the_loss_and_records_it(toys, tmp_path):
    _, run = fit(toys, tmp_path, steps=60, validate_every=30, rate=1e-2)
    losses = [line["losses"]["task"] for line in lines(tmp_path) if "losses" in line]
    assert losses[-1] < 0.8 * losses[0]
    assert run.steps == run.selected == 60
    assert 0.3 < run.validation["mean"] <= 1
    assert set(run.validation["by structure"]) == {"disc", "ring"}


def test_the_first_step_is_plain_adamw(toys, tmp_path):
    method, run = fit(toys, tmp_path, steps=1, clip=None, schedule="constant")
    other, feed, _ = experiment(toys)
    loss = other.error(feed.batch(0).source).mean()
    loss.backward()
    torch.optim.AdamW(other.parameters(), lr=1e-3, weight_decay=1e-4).step()
    for a, b in zip(method.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "rmsprop", "deepmedic"])
def test_other_optimisers_train(toys, tmp_path, optimizer):
    method, _ = fit(toys, tmp_path, optimizer=optimizer)
    assert all(torch.isfinite(p).all() for p in method.parameters())


def test_the_gradient_is_clipped_to_the_norm(toys, tmp_path, monkeypatch):
    norms = []
    original = torch.optim.AdamW.step
    monkeypatch.setattr(
        torch.optim.AdamW,
        "step",
        lambda self, *a: (
            norms.append(math.sqrt(sum(float(p.grad.square().sum()) for p in self.param_groups[0]["params"]))),
            original(self, *a),
        ),
    )
    fit(toys, tmp_path, clip=0.01)
    assert norms == pytest.approx([0.01] * 6, rel=1e-3)


def test_rates_follow_the_schedule(toys, tmp_path, monkeypatch):
    rates = []
    original = torch.optim.AdamW.step
    monkeypatch.setattr(
        torch.optim.AdamW, "step", lambda self, *a: (rates.append(self.param_groups[0]["lr"]), original(self, *a))
    )
    fit(toys, tmp_path, schedule="cosine")
    assert rates == pytest.approx([1e-3 * 0.5 * (1 + math.cos(math.pi * i / 5)) for i in range(6)])


class TwoRates(ERM):
    """Two optimisers of different kind, rate and betas, and something done after a step."""

    def __init__(self, *args) -> None:
        super().__init__(*args)
        self.moves = 0

    def parts(self):
        return {
            "encoder": Part([self.network.encoder], "sgd", {"momentum": 0.5}, rate=0.1, clip=1.0),
            "decoder": Part([self.network.decoder], "adam", {"betas": (0.5, 0.9)}, rate=1e-3, after=self.count),
        }

    def count(self) -> None:
        self.moves += 1

    def update(self, batch, step):
        loss = self.error(batch.source).mean()
        first = step.gradient(loss, "encoder", keep=True)
        second = step.gradient(loss, "decoder")
        step.move(first, "encoder")
        step.move(second, "decoder")
        return {"task": loss}


def test_parts_have_optimisers_of_their_own(toys, tmp_path):
    base, *_ = experiment(toys)
    method = TwoRates(base.network, base.task, base.setting)
    before = [p.detach().clone() for p in method.network.decoder.parameters()]
    fit(toys, tmp_path, method, steps=1, schedule="constant")
    assert method.moves == 1
    # Adam's first step has the length of the rate wherever there is a gradient.
    steps = torch.cat(
        [(a - b).abs().flatten() for a, b in zip(method.network.decoder.parameters(), before, strict=True)]
    )
    assert float(steps.max().detach()) == pytest.approx(1e-3, rel=1e-2)


@pytest.mark.parametrize("average", ["ema", "swa"])
def test_what_is_averaged_is_what_is_kept(toys, tmp_path, average):
    method, run = fit(toys, tmp_path / "a", average=average, steps=8, rate=1e-2, schedule="constant")
    plain, _ = fit(toys, tmp_path / "b", steps=8, rate=1e-2, schedule="constant")
    different = [not torch.equal(a, b) for a, b in zip(method.parameters(), plain.parameters(), strict=True)]
    assert any(different)
    assert run.selected == 8


def test_swa_is_the_mean_over_the_last_quarter(toys, tmp_path):
    iterates = []

    class Watched(ERM):
        def update(self, batch, step):
            losses = super().update(batch, step)
            iterates.append([p.detach().clone() for p in self.network.parameters()])
            return losses

    base, *_ = experiment(toys)
    method = Watched(base.network, base.task, base.setting)
    fit(toys, tmp_path, method, average="swa", steps=9, rate=1e-2, schedule="constant")
    # Progress is index / 8; the last quarter begins at index 6.
    for i, p in enumerate(method.network.parameters()):
        torch.testing.assert_close(p, torch.stack([it[i] for it in iterates[6:]]).mean(0), rtol=1e-4, atol=1e-6)


def test_swa_measures_batch_norm_anew(toys, tmp_path):
    method, feed, held_back = experiment(toys, norm="batch")
    Trainer(steps=4, batch=4, average="swa", device="cpu").fit(method, feed, held_back, tmp_path)
    seen = []
    first = next(m for m in method.modules() if isinstance(m, torch.nn.BatchNorm2d))
    hook = first.register_forward_hook(lambda m, x, y: seen.append(x[0].detach()))
    with torch.no_grad():
        for samples in feed.pass_over(feed.source):
            method.eval()(samples)
    hook.remove()
    expected = torch.stack([x.mean(dim=(0, 2, 3)) for x in seen]).mean(0)
    torch.testing.assert_close(first.running_mean, expected, rtol=1e-4, atol=1e-6)


def test_selection_rules_are_named_and_keep_the_best(toys, tmp_path, monkeypatch):
    values = iter([0.2, 0.9, 0.5])
    monkeypatch.setattr("shiftproof.training.loop.validate", lambda *a: Validation({"d0": next(values)}, {}))
    _, run = fit(toys, tmp_path, selection="validation mean")
    assert run.selected == 4
    assert run.validation["mean"] == 0.9
    assert SELECTIONS["validation worst domain"](Validation({"a": 0.3, "b": 0.7}, {}), 5) == 0.3


def test_patience_stops_early(toys, tmp_path, monkeypatch):
    values = iter([0.9, 0.5, 0.4, 0.3, 0.2])
    monkeypatch.setattr("shiftproof.training.loop.validate", lambda *a: Validation({"d0": next(values)}, {}))
    _, run = fit(toys, tmp_path, selection="validation mean", patience=2, steps=50)
    assert run.steps == 6
    assert run.selected == 2


def test_a_time_budget_ends_the_run(toys, tmp_path):
    _, run = fit(toys, tmp_path, steps=100_000, seconds=0.5, validate_every=1000)
    assert 0 < run.steps < 100_000
    assert run.validation


def test_low_precision_trains(toys, tmp_path):
    method, _ = fit(toys, tmp_path, precision="bf16", steps=20, rate=1e-2, validate_every=20)
    assert all(p.dtype == torch.float32 and torch.isfinite(p).all() for p in method.parameters())
    losses = [line["losses"]["task"] for line in lines(tmp_path) if "losses" in line]
    assert losses[-1] < losses[0]


def test_a_folder_belongs_to_one_run(toys, tmp_path):
    fit(toys, tmp_path)
    with pytest.raises(RunError, match=r"rate: 0.001 there, 0.002 here"):
        fit(toys, tmp_path, rate=2e-3)


def test_a_complete_run_is_not_run_again(toys, tmp_path):
    first, run = fit(toys, tmp_path)
    again, feed, held_back = experiment(toys, seed=9)

    class Broken:
        patches, domains, source, target = feed.patches, feed.domains, feed.source, feed.target

        def batch(self, *_):
            raise AssertionError("nothing is left to train")

    second = Trainer(steps=6, batch=4, validate_every=2, device="cpu").fit(again, Broken(), held_back, tmp_path)
    assert second == run
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))


def test_what_is_not_finite_stops_the_run_with_a_cure(toys, tmp_path):
    class Wild(ERM):
        def losses(self, batch, step):
            loss = super().losses(batch, step)["task"]
            return {"task": loss * (math.inf if step.index == 3 else 1)}

    base, *_ = experiment(toys)
    method = Wild(base.network, base.task, base.setting)
    with pytest.raises(DivergedError, match="step 3.*lower the learning rate"):
        fit(toys, tmp_path, method)
    assert all(torch.isfinite(p).all() for p in method.parameters())


def test_a_killed_record_is_cut_back_to_the_saved_state(toys, tmp_path):
    class Stop(Exception):
        pass

    def stop(now):
        if now.step == 5:
            raise Stop

    method, feed, held_back = experiment(toys)
    trainer = Trainer(steps=6, batch=4, validate_every=2, device="cpu", checkpoint_seconds=0.0)
    with pytest.raises(Stop):
        trainer.fit(method, feed, held_back, tmp_path, progress=stop)
    with open(tmp_path / "record.jsonl", "a") as record:
        record.write('{"step": 5, "los')
    method, feed, held_back = experiment(toys)
    trainer.fit(method, feed, held_back, tmp_path)
    assert [line["step"] for line in lines(tmp_path) if "validation" in line] == [2, 4, 6]


def test_a_full_disk_keeps_the_last_state(toys, tmp_path, monkeypatch):
    method, feed, held_back = experiment(toys)
    trainer = Trainer(steps=6, batch=4, validate_every=100, device="cpu", checkpoint_seconds=0.0)
    real, count = os.replace, []

    def full(a, b):
        count.append(b)
        if len(count) > 2:
            raise OSError(28, "No space left on device")
        return real(a, b)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(StorageError, match="free some"):
        trainer.fit(method, feed, held_back, tmp_path)
    monkeypatch.setattr(os, "replace", real)
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]
    resumed, feed, held_back = experiment(toys)
    trainer.fit(resumed, feed, held_back, tmp_path)
    whole, feed, held_back = experiment(toys)
    trainer.fit(whole, feed, held_back, tmp_path / "whole")
    assert all(torch.equal(a, b) for a, b in zip(resumed.parameters(), whole.parameters(), strict=True))


def test_phases_share_the_run():
    phases = {"a": 0.25, "b": 0.75}
    assert phase_at(phases, 0.0) == ("a", 0.0)
    assert phase_at(phases, 0.125) == ("a", 0.5)
    assert phase_at(phases, 0.25) == ("b", 0.0)
    assert phase_at(phases, 1.0) == ("b", 1.0)


def test_a_phase_begins_once_with_passes_over_the_data(toys, tmp_path):
    begun = []

    class Staged(ERM):
        def phases(self):
            return {"first": 0.5, "second": 0.5}

        def begin(self, phase, reader):
            begun.append((phase, sum(len(s) for s in reader.source()), len(list(reader.target()))))

    base, *_ = experiment(toys)
    fit(toys, tmp_path, Staged(base.network, base.task, base.setting), steps=6)
    assert begun == [("first", 32, 0), ("second", 32, 0)]


def test_unknown_settings_are_refused():
    with pytest.raises(OptionError, match='did you mean "cosine"'):
        Trainer(schedule="cosin")
    with pytest.raises(OptionError, match="steps must be at least 1"):
        Trainer(steps=0)


def test_validation_counts_each_subject_once_and_leaves_out_what_is_absent(toys):
    from shiftproof.validate import validate

    method, _, _ = experiment(toys)
    cases = toys.cases("d0", 2)
    cases[1].label[:] = 0
    found = validate(method.eval(), cases, ["d0"], Patches((16, 16)), torch.device("cpu"))
    with torch.no_grad():
        scores = method(__import__("shiftproof.data.sampling", fromlist=["whole"]).whole(cases[0], 2))
    answer = scores.argmax(1).permute(1, 2, 0).numpy()
    dice = []
    for k in (1, 2):
        a, b = answer == k, cases[0].label == k
        dice.append(2 * (a & b).sum() / (a.sum() + b.sum()))
    assert not math.isnan(found.mean)
    other = validate(method, cases[:1], ["d0"], Patches((16, 16)), torch.device("cpu"))
    assert other.mean == pytest.approx(np.mean(dice), abs=1e-6)


class Queueing(ERM):
    """Remembers something that is no parameter, and lets it matter."""

    def __init__(self, *args) -> None:
        super().__init__(*args)
        self.queue: list[float] = []

    def losses(self, batch, step):
        loss = super().losses(batch, step)["task"]
        self.queue.append(float(loss.detach()))
        return {"task": loss * (1 + sum(self.queue[-3:]))}

    def get_extra_state(self):
        return {"queue": self.queue}

    def set_extra_state(self, state):
        self.queue = list(state["queue"])


def test_state_that_is_no_parameter_survives_an_interruption(toys, tmp_path):
    def made():
        base, *_ = experiment(toys)
        return Queueing(base.network, base.task, base.setting)

    whole = made()
    fit(toys, tmp_path / "whole", whole)

    class Stop(Exception):
        pass

    def stop(now):
        if now.step == 4:
            raise Stop

    trainer = Trainer(steps=6, batch=4, validate_every=2, device="cpu", checkpoint_seconds=0.0)
    _, feed, held_back = experiment(toys)
    with pytest.raises(Stop):
        trainer.fit(made(), feed, held_back, tmp_path / "parts", progress=stop)
    resumed = made()
    trainer.fit(resumed, feed, held_back, tmp_path / "parts")
    assert resumed.queue == whole.queue
    assert len(resumed.queue) == 6
    assert all(torch.equal(a, b) for a, b in zip(resumed.parameters(), whole.parameters(), strict=True))


def test_losses_can_go_to_tensorboard(toys, tmp_path):
    pytest.importorskip("tensorboard")
    method, feed, held_back = experiment(toys)
    Trainer(steps=2, batch=4, device="cpu").fit(method, feed, held_back, tmp_path, tensorboard=True)
    assert list((tmp_path / "tensorboard").glob("events.out.*"))


def test_swa_measures_the_network_that_predicts(toys, tmp_path):
    method = toys.make("mean_teacher", sources=2, norm="batch")
    _, feed, held_back = experiment(toys)
    Trainer(steps=4, batch=4, average="swa", device="cpu").fit(method, feed, held_back, tmp_path)
    norm = next(m for m in method.teacher.modules() if isinstance(m, torch.nn.BatchNorm2d))
    assert float(norm.running_mean.abs().sum()) > 0
    assert int(norm.num_batches_tracked) > 0


def test_a_validation_without_a_score_is_beaten_by_any(toys, tmp_path, monkeypatch):
    values = iter([math.nan, 0.5, 0.3])
    monkeypatch.setattr("shiftproof.training.loop.validate", lambda *a: Validation({"d0": next(values)}, {}))
    _, run = fit(toys, tmp_path, selection="validation mean")
    assert run.selected == 4


def test_patience_counts_scores_where_the_last_weights_are_kept(toys, tmp_path, monkeypatch):
    values = iter([0.9, 0.5, 0.4, 0.3])
    monkeypatch.setattr("shiftproof.training.loop.validate", lambda *a: Validation({"d0": next(values)}, {}))
    _, run = fit(toys, tmp_path, patience=2, steps=50)
    assert run.steps == run.selected == 6


def test_weights_of_a_killed_run_are_not_taken_for_those_of_the_saved_state(toys, tmp_path, monkeypatch):
    """Killed after a better validation at step 4 that the saved state, of step 3, knows nothing of."""

    class Killed(Exception):
        pass

    def validated(values):
        monkeypatch.setattr("shiftproof.training.loop.validate", lambda *a: Validation({"d0": next(values)}, {}))

    def stop(now):
        if now.step == 5:
            raise Killed

    save, saves = Loop.save, []

    def lost_later(loop):
        saves.append(1)
        if len(saves) <= 3:
            save(loop)

    monkeypatch.setattr(Loop, "save", lost_later)
    validated(iter([0.5, 0.9]))
    method, feed, held_back = experiment(toys)
    settings = {"steps": 6, "batch": 4, "validate_every": 2, "device": "cpu", "selection": "validation mean"}
    trainer = Trainer(**settings, checkpoint_seconds=0.0)
    with pytest.raises(Killed):
        trainer.fit(method, feed, held_back, tmp_path, progress=stop)
    # The machine finds other values the second time: what was selected at step 2 stays the best.
    validated(iter([0.1, 0.1]))
    resumed, feed, held_back = experiment(toys)
    assert trainer.fit(resumed, feed, held_back, tmp_path).selected == 2
    two, feed, held_back = experiment(toys)
    validated(iter([0.5, 0.1, 0.1]))
    trainer.fit(two, feed, held_back, tmp_path / "undisturbed")
    assert all(torch.equal(a, b) for a, b in zip(resumed.parameters(), two.parameters(), strict=True))
    assert [path.name for path in tmp_path.glob("best*.pt")] == ["best.pt"]


def test_exchanged_weights_are_found_out(toys, tmp_path):
    fit(toys, tmp_path / "a", steps=2)
    fit(toys, tmp_path / "b", steps=4)
    os.replace(tmp_path / "b" / "best.pt", tmp_path / "a" / "best.pt")
    with pytest.raises(RunError, match="weights of step 4.*selected those of step 2"):
        fit(toys, tmp_path / "a", steps=2)
    (tmp_path / "b" / "best.pt").unlink(missing_ok=True)
    with pytest.raises(RunError, match=r"without best\.pt"):
        fit(toys, tmp_path / "b", steps=4)


def test_what_is_no_number_is_null_in_files_and_nan_in_the_run(toys, tmp_path, monkeypatch):
    monkeypatch.setattr("shiftproof.training.loop.validate", lambda *a: Validation({"d0": math.nan}, {"disc": 0.5}))
    _, run = fit(toys, tmp_path)

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    for line in (tmp_path / "record.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=refuse)
    facts = json.loads((tmp_path / "run.json").read_text(), parse_constant=refuse)
    assert facts["validation"]["mean"] is None
    assert math.isnan(run.validation["mean"])
    assert math.isnan(run.validation["by domain"]["d0"])
    assert run.validation["by structure"]["disc"] == 0.5
