"""Segmentation into structures that may overlap: for every voxel and structure, yes or no."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .. import losses
from ..data.samples import Samples
from ..errors import LabelError
from ..losses.precision import precise
from ..losses.rare import with_indices
from .entropies import of_switches
from .segmentation import finest, known, over_levels, overlap
from .task import Prediction


class MultiLabelSegmentation:
    """Segmentation of structures that may lie within each other, in 2D or 3D.

    A label is (B, *space), the index of a *part*: a combination of structures that occurs, 0 for none of them. So
    everything that moves labels about treats them as classes; the task alone knows which structures a part belongs to.
    A prediction is logits (B, K, *space), one channel a structure, background has none; with deep supervision a dict as
    of `Segmentation`. `Samples.extra["annotated"]` is by class, background first, as of any segmentation. With
    `extra["silent"]` (B, K, *space) a label of floats is by structure, (B, K, *space), since not every mixture of parts
    is one.

    Args:
        classes: Names, background first, then the K structures.
        parts: (P, K), whether the part belongs to the structure; part 0 belongs to none.
        loss: Name of a loss in `shiftproof.losses`, with a sigmoid for each structure; None takes "dice+bce".
        options: Its options; `rare` by names of structures.

    Raises:
        LabelError: If the parts do not fit the classes.
    """

    name = "segmentation"
    spatial: tuple[str, ...] = ("image", "label", "ignore")
    default_loss = "dice+bce"

    def __init__(
        self,
        classes: Sequence[str],
        parts: Sequence[Sequence[bool]],
        *,
        loss: str | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.classes = list(classes)
        self.structures = self.classes[1:]
        self.outputs = len(self.structures)
        self.parts = [[bool(inside) for inside in part] for part in parts]
        if not self.structures:
            raise LabelError(f"segmentation needs background and at least one structure, got {self.classes}")
        if any(len(part) != self.outputs for part in self.parts) or not self.parts or any(self.parts[0]):
            raise LabelError(
                f"parts of {self.outputs} structures are rows of {self.outputs} times true or false, the first of them "
                f"all false, got {self.parts[:3]}"
            )
        absent = [
            name for name, rows in zip(self.structures, zip(*self.parts, strict=True), strict=True) if not any(rows)
        ]
        if absent:
            raise LabelError(f"no part belongs to {', '.join(absent)}; every structure needs a label value")
        chosen = with_indices(options, self.classes, skipped=1)
        self.criterion = losses.get(loss or self.default_loss, "multi-label segmentation", **chosen)

    def inputs(self, samples: Samples) -> tuple[Tensor, ...]:
        return (samples.image,)

    def inside(self, label: Tensor) -> Tensor:
        """Part indices (B, *space), or shares of the parts (B, P, *space), as (B, K, *space) from 0 to 1."""
        table = torch.tensor(self.parts, device=label.device)
        # On other devices indexing itself asserts the range, and a look would stall the queue.
        if label.device.type == "cpu" and not label.is_floating_point() and label.numel():
            low, high = (int(bound) for bound in label.aminmax())
            if low < 0 or high >= len(table):
                raise LabelError(f"parts of a label are 0 to {len(table) - 1}, got {low} to {high}")
        if label.is_floating_point():
            return torch.stack([label[:, column].sum(1) for column in table.T], 1)
        return torch.stack([column[label] for column in table.T.float()], 1)

    def loss(self, prediction: Prediction, samples: Samples) -> Tensor:
        annotated = self._annotated(samples)

        def at(logits: Tensor, label: Tensor, ignore: Tensor | None, silent: Tensor | None) -> Tensor:
            inside = label if silent is not None and label.is_floating_point() else self.inside(label)
            return self.criterion(logits, inside, ignore=ignore, annotated=annotated, silent=silent)

        return over_levels(prediction, samples, at)

    def scores(self, prediction: Prediction) -> Tensor:
        return finest(prediction)

    def probabilities(self, prediction: Prediction) -> Tensor:
        return precise(self.scores(prediction)).sigmoid()

    def answer(self, prediction: Prediction) -> Tensor:
        return self.scores(prediction) > 0

    def distance(self, prediction: Prediction, other: Prediction) -> Tensor:
        """Mean squared difference of the probabilities, over structures and space."""
        difference = self.probabilities(prediction) - self.probabilities(other)
        return difference.square().flatten(1).mean(1)

    def entropy(self, prediction: Prediction) -> Tensor:
        return of_switches(self.scores(prediction))

    def measure(self, prediction: Prediction, samples: Samples) -> dict[str, Tensor]:
        """Dice of each structure, (B,); NaN where it is absent from label and answer, or not annotated."""
        answer, truth = self.answer(prediction), self.inside(known(samples)) > 0.5
        counted = torch.ones_like(truth[:, 0])
        if "ignore" in samples.extra:
            counted = ~samples.extra["ignore"]
        found = {name: overlap(answer[:, k] & counted, truth[:, k] & counted) for k, name in enumerate(self.structures)}
        annotated = self._annotated(samples)
        if annotated is not None:
            found = {n: d.masked_fill(~annotated[:, k], torch.nan) for k, (n, d) in enumerate(found.items())}
        return found

    def blank(self, space: Sequence[int]) -> tuple[Prediction, Samples]:
        image, label = torch.zeros(1, 1, *space), torch.zeros(1, *space, dtype=torch.long)
        return torch.zeros(1, self.outputs, *space), Samples(image, label)

    def _annotated(self, samples: Samples) -> Tensor | None:
        """(B, K), by structure."""
        annotated = samples.extra.get("annotated")
        return None if annotated is None else annotated[:, 1:]
