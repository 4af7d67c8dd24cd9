"""Ctrl-C and SIGTERM, at the worst moment: in the middle of an optimiser's step."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading

import pytest
import torch

from shiftproof.data.sampling import Feed, Patches
from shiftproof.methods.erm import ERM
from shiftproof.train import Trainer

TRAINER = Trainer(steps=6, batch=4, validate_every=2, device="cpu")


def fit(toys, folder):
    method = toys.make("erm", sources=2)
    feed = Feed(toys.cases("d0", 2) + toys.cases("d1", 2, seed=5), ["d0", "d1"], Patches((16, 16)), size=4)
    run = TRAINER.fit(method, feed, toys.cases("d0", 1, seed=3), folder)
    return method, run


@pytest.fixture(autouse=True)
def heeded():
    """A shell has jobs in the background ignore Ctrl-C, and training keeps to that; these tests must hear it."""
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def struck(monkeypatch):
    """Sends a signal to this process after the first weight of a step has changed, before the second has."""

    def at(step: int, number: signal.Signals) -> None:
        original, calls = torch.optim.AdamW.step, []

        def halfway(self, *given):
            calls.append(1)
            if len(calls) != step:
                return original(self, *given)
            parameters = self.param_groups[0]["params"]
            grads = [p.grad for p in parameters]
            for p in parameters[1:]:
                p.grad = None
            original(self, *given)
            parameters[0].grad = None
            for p, grad in list(zip(parameters, grads, strict=True))[1:]:
                p.grad = grad
            os.kill(os.getpid(), number)
            return original(self, *given)

        monkeypatch.setattr(torch.optim.AdamW, "step", halfway)

    return at


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_waits_for_the_end_of_the_step(toys, tmp_path, struck, number):
    expected, _ = fit(toys, tmp_path / "whole")
    struck(4, number)
    with pytest.raises(KeyboardInterrupt):
        fit(toys, tmp_path / "cut")
    state = torch.load(tmp_path / "cut" / "state.pt", weights_only=True)["state"]
    assert state["index"] == 4
    found, run = fit(toys, tmp_path / "cut")
    assert run.steps == 6
    for name, tensor in expected.state_dict().items():
        assert torch.equal(found.state_dict()[name], tensor), name


def test_a_second_ctrl_c_does_not_wait(toys, tmp_path, monkeypatch):
    def update(self, batch, step):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("the second one was not heard")

    monkeypatch.setattr(ERM, "update", update)
    with pytest.raises(KeyboardInterrupt):
        fit(toys, tmp_path)
    assert not (tmp_path / "state.pt").exists()


def test_what_signals_did_before_is_restored(toys, tmp_path):
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    fit(toys, tmp_path)
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before


def test_what_a_kill_left_of_a_save_is_swept_away(toys, tmp_path):
    """A process that kills itself when half of the state is written, then the same run to its end."""
    process = multiprocessing.get_context("fork").Process(target=_killed_while_saving, args=(toys, tmp_path))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert [path.suffix for path in tmp_path.glob(".*")] == [".pt"]
    _, run = fit(toys, tmp_path)
    assert run.steps == 6
    assert list(tmp_path.glob(".*")) == []


def _killed_while_saving(toys, folder):
    def half(content, path):
        path.write_bytes(b"half of it")
        os.kill(os.getpid(), signal.SIGKILL)

    torch.save = half
    fit(toys, folder)


def test_training_works_in_a_thread_where_no_signal_is_heard(toys, tmp_path):
    found = []
    thread = threading.Thread(target=lambda: found.append(fit(toys, tmp_path)[1].steps))
    thread.start()
    thread.join()
    assert found == [6]
