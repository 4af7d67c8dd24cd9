"""Rows of a model on scans whose labels nobody reads: what ranks adaptation without the target's labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..data.cohort import Cohort, Row
from ..data.plan import preprocess
from ..data.sampling import seeded
from ..deploy.answer import answer_of
from ..deploy.model import Model
from ..deploy.segment import images_of, scores_by
from ..errors import CohortError, OptionError
from ..metrics.unlabelled import (
    POINTWISE,
    RULES,
    TINY,
    information_maximisation,
    information_maximisation_of_findings,
)
from ..names import choose
from ..tasks.windows import scored_slabs
from .rows import COLUMNS

if TYPE_CHECKING:
    import pandas as pd

DRAWN = 256
"""Voxels of a scan that a rule on points looks at; the cost of neighbourhoods grows with the square of all of them."""


@dataclass(frozen=True)
class Seen:
    """What a model says of one scan.

    Args:
        mean: (K,) probabilities, their mean over voxels.
        entropy: In nats, the mean over voxels; of findings summed over them.
        points: (V, K) probabilities of the voxels drawn, or of the scan alone.
    """

    mean: Tensor
    entropy: float
    points: Tensor


def rows_without_labels(model: Model, cohort: Cohort, rule: str = RULES[0], *, seed: int = 0) -> pd.DataFrame:
    """A value of each scan by a label-free rule, larger is better.

    Args:
        model: A segmentation or classification model.
        cohort: Images; a label that is there is not opened.
        rule: Name in `metrics.unlabelled.RULES`.
        seed: Of the voxels that are drawn; equal for models that are to be ranked.

    Returns:
        Rows with the columns of `rows.csv`: the structure is "all", the metric the rule.

    Raises:
        OptionError: For an unknown rule, or a model without probabilities (a regression).
        CohortError: If there is no scan.
    """
    import pandas as pd

    choose(rule, RULES, "rule for selection without labels")
    if model.plan.task == "regression":
        raise OptionError("rules without labels read probabilities, which a regression has none of")
    rows = list(cohort.rows())
    if not rows:
        raise CohortError(
            "there is no scan of the target to look at; leave some of its subjects unlabelled or untested"
        )
    seen = [look(model, row, seed + i) for i, row in enumerate(rows)]
    values = by_scan(seen, rule, several=model.plan.target.get("kind") == "multi-label")
    lines = [
        {
            "subject": row.subject,
            "domain": row.domain,
            "structure": "all",
            "metric": rule,
            "value": value,
            "status": "ok",
        }
        for row, value in zip(rows, values.tolist(), strict=True)
    ]
    return pd.DataFrame(lines)[list(COLUMNS)]


def by_scan(seen: list[Seen], rule: str, *, several: bool) -> Tensor:
    """(N,) from what was seen of N scans."""
    if rule in POINTWISE:
        lengths = [len(s.points) for s in seen]
        found = POINTWISE[rule](torch.cat([s.points for s in seen]))
        return torch.stack([part.mean() for part in found.split(lengths)])
    of = information_maximisation_of_findings if several else information_maximisation
    return of(torch.stack([s.mean for s in seen]), torch.tensor([s.entropy for s in seen]))


def look(model: Model, row: Row, seed: int) -> Seen:
    if model.plan.task != "segmentation":
        shares = torch.tensor(list(answer_of(model, row.images).probabilities.values()), dtype=torch.float64)
        return Seen(shares, float(entropy_of(shares[None], model)[0]), shares[None])
    prepared = preprocess(images_of(model, row.images), None, model.plan)
    image = torch.from_numpy(prepared.image)
    extra = {"present": torch.from_numpy(prepared.present)[None]}
    slabs = scored_slabs(
        scores_by(model), image, window=model.plan.patch, extra=extra, context=model.plan.context, margin=model.margin
    )
    voxels = image[0].numel()
    chosen = np.sort(seeded(seed, 11).choice(voxels, min(DRAWN, voxels), replace=False))
    number, total, entropy = 0, torch.zeros(()), 0.0
    drawn: list[Tensor] = []
    for _, scores in slabs:  # a few slices at a time: a class of a whole volume is never held
        # Slices lie together, so that a voxel's number does not depend on how many come at once.
        points = model.task.probabilities(scores[None])[0].permute(3, 1, 2, 0).flatten(0, 2).double().cpu()  # (V, K)
        total, entropy = total + points.sum(0), entropy + float(entropy_of(points, model).sum())
        own = chosen[(chosen >= number) & (chosen < number + len(points))] - number
        drawn.append(points[torch.from_numpy(own)])
        number += len(points)
    return Seen(total / number, entropy / number, torch.cat(drawn))


def entropy_of(points: Tensor, model: Model) -> Tensor:
    """(V,), in nats; of findings that may occur together the sum of their own."""
    entropy = -(points * points.clamp_min(TINY).log()).sum(1)
    if model.plan.target.get("kind") != "multi-label":
        return entropy
    absent = 1 - points
    return entropy - (absent * absent.clamp_min(TINY).log()).sum(1)
