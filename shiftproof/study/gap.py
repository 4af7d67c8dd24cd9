"""The generalization gap of a run: a few subjects that it was trained on, and that it was held back from, scored alike.

The final weights, the files themselves, whole volumes, no augmentation: the way of the held-out subjects. Their logits
are taken on the way, so that what moved can be seen beside what it cost.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..data.cohort import Cohort, Row
from ..data.labels import LabelMap
from ..data.splits import Split
from ..deploy.answer import Answer, answer_from, scores_of
from ..deploy.model import Model
from ..deploy.segment import label_of
from ..evaluate.answers import rows_of_answers
from ..evaluate.logits import Logits, columns_of, samples_of, summary
from ..evaluate.rows import rows_of
from ..evaluate.sides import drawn
from ..evaluate.voxels import CaseLogits, VoxelLogits, scan_logits, truths_of
from ..metrics.rules import Tolerance

if TYPE_CHECKING:
    import pandas as pd
    import SimpleITK as sitk

SUBJECTS = 6
"""Of training, of validation, and for logits of the held-out domain, unless the study says otherwise."""


@dataclass
class GapWatch:
    """Predicts as `score` does and keeps the logits of some scans on the way.

    Args:
        model: Trained.
        labels: Meaning of the label files; None where a scan has one label.
        subjects: By side, whose logits are kept.
        seconds: What the training and validation sides took.
    """

    model: Model
    labels: LabelMap | None
    subjects: dict[str, set[str]]
    seconds: float = 0.0
    cases: list[CaseLogits] = field(default_factory=list)
    scans: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, model: Model, side: Split, test: Cohort, number: int, apart: Collection[str] = ()) -> GapWatch:
        """Fixed draws of so many subjects a side; who is `apart` is of none."""
        trained = side.train.of_subjects([s for s in side.train.subjects if s not in apart])
        cohorts = {"train": trained, "validation": side.validation, "test": test}
        chosen = {name: set(drawn(cohort, number).subjects) for name, cohort in cohorts.items()}
        return cls(model, test.labels if isinstance(test.labels, LabelMap) else None, chosen)

    def label(self, row: Row, side: str = "test") -> sitk.Image:
        """The predicted label of a scan."""
        if row.label is None or self.labels is None or row.subject not in self.subjects[side]:
            return label_of(self.model, row.images)
        case = self._case(row, side)
        seen = VoxelLogits(row, self.labels, self._truths(), scan=case.scan)
        image = label_of(self.model, row.images, see=seen.see)
        case.logits = dict(seen.logits)
        return image

    def answer(self, row: Row, side: str = "test") -> Answer:
        """The answer for a scan with one label."""
        prediction = scores_of(self.model, row.images)
        if row.target is not None and row.subject in self.subjects[side] and self._truths():
            scores = self.model.task.scores(prediction)[0].float().cpu().numpy()
            self._case(row, side).logits = scan_logits(row, scores, self._truths())
        return answer_from(self.model, prediction)

    def rows(self, split: Split, tolerance_mm: Tolerance, lesions: Sequence[str]) -> pd.DataFrame:
        """Scores of the training and validation sides, as `score` has them, with a column `side`."""
        import pandas as pd

        started, found = time.monotonic(), []
        for side, cohort in (("train", split.train), ("validation", split.validation)):
            if not self.subjects[side]:
                continue
            some = cohort.of_subjects(self.subjects[side])
            if self.labels is None:
                rows, _ = rows_of_answers(functools.partial(self.answer, side=side), some)
            else:
                label = functools.partial(self.label, side=side)
                rows = rows_of(label, some, tolerance_mm=tolerance_mm, lesions=lesions)
            rows.insert(0, "side", side)
            found.append(rows)
        self.seconds = time.monotonic() - started
        return pd.concat(found, ignore_index=True)

    def summary(self) -> dict[str, Any] | None:
        """The logits as JSON has them; None of a regression."""
        truths = self._truths()
        facts = {"samples": samples_of(self.model)}
        return summary(Logits(truths, columns_of(self.model), self.cases, facts)) if truths else None

    def _truths(self) -> list[Any]:
        return [] if self.model.plan.task == "regression" else truths_of(self.model.plan.target, self.model.classes)

    def _case(self, row: Row, side: str) -> CaseLogits:
        self.scans[row.subject] = self.scans.get(row.subject, 0) + 1
        self.cases.append(CaseLogits(row.subject, row.domain, self.scans[row.subject], side))
        return self.cases[-1]
