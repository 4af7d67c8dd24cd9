"""What an evaluation is asked for is either done or refused, never passed over."""

from __future__ import annotations

from pathlib import Path

import pytest

from shiftproof.data.cohort import Cohort
from shiftproof.errors import OptionError
from shiftproof.evaluate import evaluate


def cohort(folder: Path, labels: str) -> Cohort:
    (folder / "table.csv").write_text("subject,image,label,site,state\ns,i.nii.gz,l.nii.gz,A,well\n")
    (folder / "labels.toml").write_text(labels)
    return Cohort.read(folder / "table.csv")


def test_a_smallest_lesion_needs_lesions(tmp_path):
    segmentation = cohort(tmp_path, 'classes = ["background", "core"]\n[default]\ncore = 1\n')
    with pytest.raises(OptionError, match=r"name their structures \(--lesions\), too"):
        evaluate(segmentation, predictions=tmp_path, smallest_lesion_ml=0.1)


def test_a_classification_has_no_smallest_lesion(tmp_path):
    classes = cohort(tmp_path, 'task = "classification"\ncolumn = "state"\nclasses = ["well", "ill"]\n')
    with pytest.raises(OptionError, match="is for classification; leave them out"):
        evaluate(classes, predictions=tmp_path, smallest_lesion_ml=0.1)
