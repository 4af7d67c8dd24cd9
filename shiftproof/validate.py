"""Scores on held-back subjects of the training domains, and the named rules that select by them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from . import nets
from .data.samples import Samples
from .data.sampling import Patches, case_samples, whole
from .data.store import Case
from .methods.method import Method
from .tasks.task import Predict, Prediction, Task
from .tasks.windows import volume_scores


@dataclass(frozen=True)
class Validation:
    """Mean scores; a subject counts once, a domain once in the mean over domains.

    Args:
        by_domain: Mean score of each domain.
        by_structure: Mean score of each structure.
    """

    by_domain: dict[str, float]
    by_structure: dict[str, float]

    @property
    def mean(self) -> float:
        return _mean(list(self.by_domain.values()))

    @property
    def worst(self) -> float:
        return min((v for v in self.by_domain.values() if not math.isnan(v)), default=math.nan)

    def as_json(self) -> dict[str, Any]:
        return {
            "mean": self.mean,
            "worst domain": self.worst,
            "by domain": self.by_domain,
            "by structure": self.by_structure,
        }


SELECTIONS: dict[str, Callable[[Validation, int], float]] = {
    # The last weights: with a decaying rate nothing is gained by choosing, and nothing can leak.
    "last": lambda found, step: float(step),
    "validation mean": lambda found, step: found.mean,
    "validation worst domain": lambda found, step: found.worst,
}
"""Rules by name: the value that is maximised over validations. All use held-back subjects of training domains."""


@torch.no_grad()
def validate(
    method: Method, cases: Sequence[Case], domains: Sequence[str], patches: Patches, device: torch.device
) -> Validation:
    """Scores of a method on labelled cases, on the grid that it was trained on.

    Not in inference mode: methods may need gradients inside (adjoints of physical operators).
    """
    scores: dict[str, list[dict[str, float]]] = {}
    for case in cases:
        found = measured(method.predict, method.task, case, domains, patches, device, nets.margin_of(method.network))
        scores.setdefault(case.domain, []).append(found)
    by_domain = {d: _mean([_mean(list(f.values())) for f in found]) for d, found in scores.items()}
    names = method.task.structures
    by_structure = {n: _mean([f[n] for found in scores.values() for f in found if n in f]) for n in names}
    return Validation(by_domain, by_structure)


def measured(
    predict: Predict,
    task: Task,
    case: Case,
    domains: Sequence[str],
    patches: Patches,
    device: torch.device,
    margin: Sequence[int] = (),
) -> dict[str, float]:
    """Quick scores of one case by structure; `margin` is what windows show around what is scored."""
    if not case.labelled:
        return {}
    if patches.whole:
        samples = case_samples(case, patches, domains).to(device)
        return {name: float(v) for name, v in task.measure(merged(predict(samples)), samples[:1]).items()}
    samples = whole(case, len(patches.size), domains).to(device)

    def score(windows: Samples) -> torch.Tensor:
        domain = None if samples.domain is None else samples.domain[:1].expand(len(windows))
        return task.scores(predict(windows.replace(domain=domain)))

    volume = torch.from_numpy(np.array(case.image)).to(device)
    scores = volume_scores(score, volume, window=patches.size, context=patches.context, margin=margin)[None]
    label = torch.from_numpy(np.array(case.label)).to(device)[None]
    facts = {"ignore": label == 255, "annotated": torch.from_numpy(case.annotated).to(device)[None]}
    truth = Samples(volume[None], torch.where(label == 255, 0, label).long(), extra=facts)
    return {name: float(value) for name, value in task.measure(scores, truth).items()}


def merged(prediction: Prediction) -> Prediction:
    """One prediction of a scan from those of its views, (n, ...) to (1, ...): the mean of what the network gives."""
    if isinstance(prediction, dict):
        return {name: value.mean(0, keepdim=True) for name, value in prediction.items()}
    return prediction.mean(0, keepdim=True)


def _mean(values: Sequence[float]) -> float:
    known = [v for v in values if not math.isnan(v)]
    return sum(known) / len(known) if known else math.nan
