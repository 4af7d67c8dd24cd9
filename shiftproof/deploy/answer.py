"""One scan: from raw images to the answer for the whole of it, a class, findings or a number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import SimpleITK as sitk
import torch

from ..data.plan import preprocess
from ..data.samples import Samples
from ..data.sampling import views
from ..errors import ModelError
from ..tasks.task import Prediction
from ..validate import merged
from .model import Model
from .segment import images_of


@dataclass(frozen=True)
class Answer:
    """What a model says of one scan.

    Args:
        answer: The class, the findings that are present, or the number.
        probabilities: By class; empty for a number.
        unit: Of the number.
    """

    answer: str | list[str] | float
    probabilities: dict[str, float]
    unit: str = ""

    def as_dict(self) -> dict[str, Any]:
        found: dict[str, Any] = {"answer": self.answer}
        if self.unit:
            found["unit"] = self.unit
        return found | ({"probabilities": self.probabilities} if self.probabilities else {})

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> Answer:
        """From what `as_dict` gives."""
        return cls(table["answer"], dict(table.get("probabilities", {})), table.get("unit", ""))


def answer_of(model: Model, images: Mapping[str, Path | sitk.Image | None], *, batch: int = 4) -> Answer:
    """The answer for one scan.

    In 2D each slice of a volume is a view, and what the network gives for the views is averaged.

    Args:
        model: From `load_model`, for classification or regression.
        images: A file or an image for each channel of the model; None where the scan lacks it.
        batch: Slices that are looked at together.

    Raises:
        ModelError: If the channels are not the model's, or what it gives is not finite.
        ImageError: If an image cannot be used.
    """
    return answer_from(model, scores_of(model, images, batch=batch))


def answer_from(model: Model, prediction: Prediction) -> Answer:
    """From what `scores_of` gives."""
    task, target = model.task, model.plan.target
    if target["task"] == "regression":
        return Answer(float(task.answer(prediction)[0]), {}, target["unit"])
    certain = dict(zip(task.classes, task.probabilities(prediction)[0].tolist(), strict=True))
    chosen = task.answer(prediction)[0]
    if target["kind"] == "multi-label":
        return Answer([name for name, there in zip(task.classes, chosen.tolist(), strict=True) if there], certain)
    return Answer(task.classes[int(chosen)], certain)


@torch.no_grad()
def scores_of(model: Model, images: Mapping[str, Path | sitk.Image | None], *, batch: int = 4) -> Prediction:
    """What the answer is read from, (1, K): logits, of classes in order log-probabilities, of a regression a number.

    Args and errors are those of `answer_of`.
    """
    prepared = preprocess(images_of(model, images), None, model.plan)
    shown = torch.from_numpy(views(prepared.image, model.plan.patch, model.plan.context))
    present = torch.from_numpy(prepared.present)[None].expand(len(shown), -1)
    samples = Samples(shown, subject=[""] * len(shown), extra={"present": present})
    task = model.task
    some = [samples[i : i + batch] for i in range(0, len(shown), batch)]
    prediction = merged(torch.cat([task.scores(model.predict(s.to(model.device))) for s in some]))
    if not bool(torch.isfinite(task.scores(prediction)).all()):
        raise ModelError(
            f"{model.folder} gives scores that are not finite; look at the scan's intensities, or train the model anew"
        )
    return prediction
