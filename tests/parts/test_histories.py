"""Probabilities over a run: what is kept of them, and that it stays small."""

from __future__ import annotations

from itertools import pairwise

import torch

from shiftproof.parts.histories import POINTS, Histories


def test_what_was_noted_comes_back_by_moment_and_table():
    history = Histories([(2, 3), (2, 1)])
    tables = [torch.tensor([[0.2, 0.3, 0.5], [0.0, 0.25, 0.75]]), torch.tensor([[1.0], [0.125]])]
    history.note(0, tables)
    history.note(7, [t / 2 for t in tables])
    found = history.as_json()
    assert found["step"] == [0, 7]
    for moment, factor in zip(found["probabilities"], (1.0, 0.5), strict=True):
        for table, given in zip(moment, tables, strict=True):
            torch.testing.assert_close(torch.tensor(table), factor * given, atol=1e-6, rtol=0)


def test_a_long_run_is_thinned_evenly_from_its_first_moment_on():
    history = Histories([(1, 1)])
    for index in range(0, 4 * 1000, 4):
        history.note(index, [torch.tensor([[index / 4000]])])
        assert len(history.steps()) <= POINTS
    steps = history.steps()
    assert steps[0] == 0
    assert {b - a for a, b in pairwise(steps)} == {4 * 8}  # 1000 updates, at most 200 kept
    assert steps[-1] > 4 * 1000 - 4 * 8 - 1
    assert abs(history.as_json()["probabilities"][-1][0][0][0] - steps[-1] / 4000) < 1e-6


def test_a_history_that_is_loaded_goes_on_as_if_nothing_had_been():
    whole, first = Histories([(1, 2)]), Histories([(1, 2)])
    for index in range(500):
        table = [torch.tensor([[index / 500, 1 - index / 500]])]
        whole.note(index, table)
        first.note(index, table)
        if index % 100 == 50:
            second = Histories([(1, 2)])
            second.load_state_dict(first.state_dict())
            first = second
    assert torch.equal(whole.rows, first.rows)
