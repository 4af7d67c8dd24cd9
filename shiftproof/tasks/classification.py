"""Classification: a class for a whole image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from .. import losses
from ..data.samples import Samples
from ..errors import LabelError
from ..losses.ordinal import log_probabilities
from ..losses.precision import precise
from ..losses.rare import with_indices
from ..names import choose
from .entropies import of_classes, of_switches
from .segmentation import known
from .task import Prediction

Kind = Literal["multi-class", "ordinal", "multi-label"]

SERVES: dict[str, tuple[str, str]] = {
    "multi-class": ("classification", "ce"),
    "ordinal": ("ordinal classification", "corn"),
    "multi-label": ("multi-label classification", "bce"),
}
"""Kind -> losses that serve it, and the one that is taken where none is chosen."""


class Classification:
    """Classification of images in 2D or 3D.

    - "multi-class": one of K classes; a label is (B,) indices or (B, K) probabilities, a prediction (B, K) logits.
    - "ordinal": one of K classes in order; labels are the same, a prediction is the K - 1 conditional logits of
      `shiftproof.losses.ordinal` (CORN), scores are the K log-probabilities that follow from them.
    - "multi-label": any of K findings; a label is (B, K) of 0 and 1, a prediction (B, K) logits. Of a finding with
      `Samples.extra["annotated"]` (B, K) false nothing is learned and nothing measured.

    Of samples, or findings, with `extra["silent"]` (B,) or (B, K) true nothing is learned, but they count in means.

    Args:
        classes: Names; of "ordinal" in their order.
        kind: As above.
        loss: Name of a loss in `shiftproof.losses`; None takes "ce", "corn" or "bce".
        options: Its options; `rare` by names of classes.

    Raises:
        LabelError: For fewer classes than the kind needs.
    """

    name = "classification"
    spatial: tuple[str, ...] = ("image",)

    def __init__(
        self,
        classes: Sequence[str],
        *,
        kind: Kind = "multi-class",
        loss: str | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        serves, self.default_loss = SERVES[choose(kind, SERVES, "kind of classification")]
        least = 1 if kind == "multi-label" else 2
        if len(classes) < least:
            raise LabelError(f"{kind} classification needs at least {least} classes, got {list(classes)}")
        self.kind = kind
        self.classes = list(classes)
        self.structures = self.classes
        self.outputs = len(self.classes) - (kind == "ordinal")
        chosen = with_indices(options, self.classes, background=False)
        self.criterion = losses.get(loss or self.default_loss, serves, **chosen)

    def inputs(self, samples: Samples) -> tuple[Tensor, ...]:
        return (samples.image,)

    def loss(self, prediction: Prediction, samples: Samples) -> Tensor:
        logits, label = single(prediction, self.outputs), known(samples)
        if self.kind == "multi-label":
            annotated, silent = samples.extra.get("annotated"), samples.extra.get("silent")
            return self.criterion(logits, label, annotated=annotated, silent=silent)
        value = self.criterion(logits, label)
        return value.masked_fill(samples.extra["silent"], 0) if "silent" in samples.extra else value

    def scores(self, prediction: Prediction) -> Tensor:
        if self.kind != "ordinal":
            return single(prediction, self.outputs)
        # Scores have a column more than a prediction, so that there is no doubt which of the two came.
        given = single(prediction, self.outputs, len(self.classes))
        return log_probabilities(given) if given.shape[1] == self.outputs else given

    def probabilities(self, prediction: Prediction) -> Tensor:
        scores = precise(self.scores(prediction))
        return scores.sigmoid() if self.kind == "multi-label" else scores.softmax(1)

    def answer(self, prediction: Prediction) -> Tensor:
        scores = self.scores(prediction)
        return scores > 0 if self.kind == "multi-label" else scores.argmax(1)

    def distance(self, prediction: Prediction, other: Prediction) -> Tensor:
        """Mean squared difference of the probabilities, over classes."""
        return (self.probabilities(prediction) - self.probabilities(other)).square().mean(1)

    def entropy(self, prediction: Prediction) -> Tensor:
        scores = self.scores(prediction)
        return of_switches(scores) if self.kind == "multi-label" else of_classes(scores)

    def measure(self, prediction: Prediction, samples: Samples) -> dict[str, Tensor]:
        """Whether the answer is right, 1 or 0, (B,).

        Multi-class and ordinal under the name of the true class, NaN under the others: the mean under a name is the
        recall of that class, their mean the balanced accuracy. Multi-label under each finding, NaN where it is not
        annotated.
        """
        answer, label = self.answer(prediction), known(samples)
        if self.kind == "multi-label":
            right = (answer == (label > 0.5)).float()
            annotated = samples.extra.get("annotated")
            right = right if annotated is None else right.masked_fill(~annotated, torch.nan)
            return dict(zip(self.classes, right.unbind(1), strict=True))
        truth = label.argmax(1) if label.is_floating_point() else label
        right = (answer == truth).float()
        return {name: right.masked_fill(truth != k, torch.nan) for k, name in enumerate(self.classes)}

    def blank(self, space: Sequence[int]) -> tuple[Prediction, Samples]:
        label = torch.zeros(1, self.outputs) if self.kind == "multi-label" else torch.zeros(1, dtype=torch.long)
        return torch.zeros(1, self.outputs), Samples(torch.zeros(1, 1, *space), label)


def single(prediction: Prediction, *columns: int) -> Tensor:
    """The one tensor (B, columns) of a prediction for whole images.

    Raises:
        LabelError: If it is something else, as from a network for segmentation.
    """
    if isinstance(prediction, dict) or prediction.dim() != 2 or prediction.shape[1] not in columns:
        came = list(prediction) if isinstance(prediction, dict) else tuple(prediction.shape)
        raise LabelError(
            f"a prediction for a whole image is (B, {columns[0]}), got {came}; use a network for classification, "
            "such as resnet"
        )
    return prediction
