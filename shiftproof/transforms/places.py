"""Some samples of a batch: read and written without waiting for a GPU, and without a copy where none is needed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def taken(batch: Tensor, places: Sequence[int]) -> Tensor:
    """What lies at ascending places of the first axis; a view where they follow each other."""
    first, last = places[0], places[-1] + 1
    return batch[first:last] if len(places) == last - first else batch.index_select(0, _index(batch, places))


def put_(batch: Tensor, places: Sequence[int], values: Tensor) -> None:
    """Writes (len(places), ...) to places of the first axis."""
    if batch.device.type == "cpu":
        for place, value in zip(places, values, strict=True):  # slices: faster than an index
            batch[place] = value
    else:
        batch.index_copy_(0, _index(batch, places), values)


def _index(batch: Tensor, places: Sequence[int]) -> Tensor:
    return torch.tensor(places).to(batch.device, non_blocking=True)
