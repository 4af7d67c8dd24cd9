"""Slice by slice against the whole volume at once."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from shiftproof.deploy import streaming
from shiftproof.deploy.streaming import neighbours, upsampled


def slabs(scores: torch.Tensor, number: int) -> Iterator[tuple[int, torch.Tensor]]:
    for first in range(0, scores.shape[-1], number):
        yield first, scores[..., first : first + number]


@pytest.mark.parametrize(
    ("size", "number"),
    itertools.product([(7, 5, 6), (14, 11, 13), (3, 9, 2), (7, 5, 1), (8, 5, 60), (7, 5, 9)], [1, 4, 6]),
)
def test_slices_together_are_the_trilinear_interpolation(size: tuple[int, ...], number: int) -> None:
    scores = torch.randn(3, 7, 5, 6)
    found = list(upsampled(slabs(scores, number), size, 6))
    assert [z for z, _ in found] == list(range(size[2]))
    whole = F.interpolate(scores[None], size=size, mode="trilinear", align_corners=False)[0]
    torch.testing.assert_close(torch.stack([plane for _, plane in found], -1), whole, atol=1e-5, rtol=1e-5)


def test_an_equal_grid_changes_nothing() -> None:
    scores = torch.randn(2, 4, 5, 9)
    found = torch.stack([plane for _, plane in upsampled(slabs(scores, 4), (4, 5, 9), 9)], -1)
    assert torch.equal(found, scores)


@pytest.mark.parametrize("target", [5, 30, 90])
def test_no_more_than_the_neighbouring_slices_are_held(target: int, monkeypatch: pytest.MonkeyPatch) -> None:
    planes: list[weakref.ref] = []
    resized = streaming._resized

    def recorded(*arguments: Any) -> torch.Tensor:
        plane = resized(*arguments)
        planes.append(weakref.ref(plane))
        return plane

    monkeypatch.setattr(streaming, "_resized", recorded)
    most = max(
        sum(plane() is not None for plane in planes)
        for _ in upsampled(slabs(torch.zeros(2, 3, 3, 30), 1), (4, 5, target), 30)
    )
    assert len(planes) == (10 if target == 5 else 30)
    assert most <= 2


def test_neighbours_weigh_by_distance_and_stop_at_the_ends() -> None:
    # 2 slices to 4: centres 0.25, 0.75, 1.25, 1.75 of the old voxels, whose own centres are 0.5 and 1.5.
    below, above, weights = neighbours(2, 4)
    assert below == [0, 0, 0, 1]
    assert above == [0, 1, 1, 1]
    assert weights == [0, 0.25, 0.75, 0]
