"""What a training tells of itself: where it stands, and what it came to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Progress:
    """Where a run stands.

    Args:
        step: Steps taken, of `steps`.
        seconds: Time in them.
        losses: Of the last step.
        waiting: Share of the seconds in which the loop waited for a batch: near 0 where loading keeps up.
    """

    step: int
    steps: int
    seconds: float
    losses: dict[str, float]
    waiting: float = 0.0

    @property
    def remaining(self) -> float:
        """Seconds, by the mean rate so far."""
        return self.seconds / max(self.step, 1) * (self.steps - self.step)


@dataclass
class Run:
    """What training leaves: the method holds the selected weights.

    Args:
        steps: Steps taken.
        seconds: Time in training, over all resumptions, without validation.
        selected: Step whose weights were kept.
        validation: Scores of these weights on held-back subjects of the training domains.
    """

    steps: int
    seconds: float
    selected: int
    validation: dict[str, Any]
    peak_bytes: int | None = None
