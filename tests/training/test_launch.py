"""Processes that are started for one training: they meet, they fail with words, none is left behind."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import sys

import pytest
import torch

from shiftproof.errors import ImageError, OptionError, ProcessError
from shiftproof.training.group import current
from shiftproof.training.launch import together

WORK = '''
import os, pathlib
import torch
from shiftproof.errors import ImageError
from shiftproof.training.group import gathered


def train(folder, die=None, fail=None, tell=None):
    """Adds up over processes, and leaves a note of each."""
    alone = not list(pathlib.Path(folder).iterdir())
    group = gathered()
    note = f"{os.getpid()} {alone} {tell} {torch.get_num_threads()}"
    (pathlib.Path(folder) / str(group.rank)).write_text(note)
    group.wait()
    if die == group.rank:
        os.kill(os.getpid(), 9)
    if fail == group.rank:
        raise ImageError("a scan of this process's share is broken")
    return group.sum(torch.tensor([10.0 + group.rank])).tolist(), group.size
'''


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A module that other processes can import, and a folder for its notes."""
    (tmp_path / "module").mkdir()
    (tmp_path / "module" / "work_for_two.py").write_text(WORK)
    monkeypatch.syspath_prepend(str(tmp_path / "module"))
    sys.modules.pop("work_for_two", None)
    (tmp_path / "notes").mkdir()
    return importlib.import_module("work_for_two").train, tmp_path / "notes"


def test_one_process_is_the_function_itself(work):
    function, notes = work
    assert together(function, {"folder": notes}, own={"tell": "me"}, device="cpu") == ([10.0], 1)
    assert (notes / "0").read_text().startswith(str(os.getpid()))


def test_two_meet_where_training_begins_and_leave_nothing_behind(work):
    function, notes = work
    before = {name: os.environ.get(name) for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "GLOO_SOCKET_IFNAME")}
    threads = torch.get_num_threads()
    found = together(function, {"folder": notes}, processes=2, own={"tell": "me"}, device="cpu")
    assert found == ([21.0], 2)
    first, second = [(notes / name).read_text().split() for name in ("0", "1")]
    assert int(first[0]) == os.getpid() != int(second[0])
    # Both saw the folder empty, for none went on before all had met; what is the first's alone does not travel.
    assert first[1:3] == ["True", "me"]
    assert second[2] == "None"
    assert {name: os.environ.get(name) for name in before} == before
    assert torch.get_num_threads() == threads
    assert not current().several
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("rank", [0, 1])
def test_an_error_of_any_process_is_the_error_of_all(work, rank):
    function, notes = work
    with pytest.raises(ImageError, match="this process's share"):
        together(function, {"folder": notes, "fail": rank}, processes=2, device="cpu")
    assert not multiprocessing.active_children()


def test_a_killed_process_is_named_with_its_signal(work):
    function, notes = work
    with pytest.raises(ProcessError, match=r"process 1 of 2 was lost \(killed by SIGKILL\)"):
        together(function, {"folder": notes, "die": 1}, processes=2, device="cpu")
    assert not multiprocessing.active_children()
    assert not current().several


def test_numbers_that_cannot_be_served_are_refused(work, monkeypatch):
    function, notes = work
    with pytest.raises(OptionError, match="at least 1, got 0"):
        together(function, {"folder": notes}, processes=0, device="cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(OptionError, match="3 processes take a GPU each, and there are 1"):
        together(function, {"folder": notes}, processes=3, device="auto")
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(OptionError, match="a launcher started 4"):
        together(function, {"folder": notes}, processes=2, device="cpu")
