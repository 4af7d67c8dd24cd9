"""Probabilities over a run, thinned so that a long one takes no more room than a short one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

POINTS = 200
"""Most moments that are kept; a multiple of 2."""

UNIT = 1_000_000
"""Probabilities are kept in millionths: whole numbers are copied, not averaged, where weights are averaged."""


class Histories(nn.Module):
    """What several tables of probabilities were, at up to `POINTS` moments that lie equally far apart.

    Once it is full every second moment is forgotten, and from then on the distance is twice as large. A buffer, so that
    a run that was interrupted goes on with it.

    Args:
        shapes: Of the tables.
    """

    rows: Tensor

    def __init__(self, shapes: Sequence[tuple[int, ...]]) -> None:
        super().__init__()
        self.shapes = list(shapes)
        self.sizes = [torch.Size(shape).numel() for shape in shapes]
        # Step, then the tables one after the other; -1 where nothing was noted yet.
        self.register_buffer("rows", torch.full((POINTS, 1 + sum(self.sizes)), -1, dtype=torch.int32))

    def note(self, step: int, tables: Sequence[Tensor]) -> None:
        """What they are at a step, unless that lies too close to the last one noted."""
        steps = self.steps()
        if len(steps) >= 2 and step - steps[-1] < steps[1] - steps[0]:
            return
        if len(steps) == POINTS:
            kept = self.rows[::2].clone()
            self.rows.fill_(-1)
            self.rows[: len(kept)] = kept
            self.note(step, tables)
            return
        flat = torch.cat([table.detach().flatten() for table in tables])
        self.rows[len(steps), 0] = step
        self.rows[len(steps), 1:] = (UNIT * flat.double()).round().to(self.rows)

    def steps(self) -> list[int]:
        return [step for step in self.rows[:, 0].tolist() if step >= 0]

    def as_json(self) -> dict[str, Any]:
        """ "step", and "probabilities": at each moment a list of the tables."""
        count = len(self.steps())
        parts = (self.rows[:count, 1:].cpu().double() / UNIT).split(self.sizes, dim=1)
        tables = [part.reshape(count, *shape) for part, shape in zip(parts, self.shapes, strict=True)]
        return {"step": self.steps(), "probabilities": [[t[i].tolist() for t in tables] for i in range(count)]}
