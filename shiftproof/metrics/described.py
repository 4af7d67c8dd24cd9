"""The metrics by name: what each says, its range, and what it is where nothing is there to be measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Better = Literal["higher", "lower", "near 0", "near 1"]
Given = Literal["every row", "--also", "--lesions", "report"]
"""How one gets it: with every score, where it is asked for, or of a set of subjects in the report."""

TASKS: dict[str, str] = {
    "segmentation": "which voxels belong to a structure",
    "instance segmentation": "which voxels belong to each of several lesions",
    "detection": "which lesions there are",
    "classification": "one of several classes for a scan",
    "grading": "one of several classes in order",
    "findings": "several findings for a scan, each present or absent",
    "regression": "a number for a scan",
}

SEGMENTATION = ("segmentation",)
LESIONS = ("segmentation", "instance segmentation", "detection")
CLASSES = ("classification", "grading", "findings")
REGRESSION = ("regression",)

METRICS_RELOADED = "L. Maier-Hein et al., Nature Methods 2024, https://arxiv.org/abs/2206.01653"
_NONE = "not defined where nothing is on either side"
_FAR = f"{_NONE}; the image's diagonal where one side is empty"
_ZERO = f"{_NONE}; 0 where one side is empty"
_SET = "not defined of no subjects"
_BY_CLASS = "not defined for a class that does not occur; a mean over classes leaves it out"


@dataclass(frozen=True)
class Metric:
    """One metric.

    Args:
        name: As in the rows.
        what: In words.
        tasks: Names in `TASKS`.
        better: Which way.
        within: Its range.
        given: How one gets it.
        empty: Its value where nothing is there to be measured.
        unit: Of the value; "" of a share.
        paper: Where it is defined, "" for what every textbook has.
    """

    name: str
    what: str
    tasks: tuple[str, ...]
    better: Better
    within: str
    given: Given
    empty: str
    unit: str = ""
    paper: str = ""


METRICS: tuple[Metric, ...] = (
    Metric(
        "dice", "overlap: twice what both have, as a share of what each has", SEGMENTATION, "higher", "0 to 1",
        "every row", _ZERO, "", "L. R. Dice, Ecology 1945, https://doi.org/10.2307/1932409",
    ),
    Metric(
        "surface dice", "share of both borders within the tolerance of the other", SEGMENTATION, "higher", "0 to 1",
        "every row", _ZERO, "", "S. Nikolov et al., 2018, https://arxiv.org/abs/1809.04430",
    ),
    Metric(
        "hd95 mm", "the larger of the two 95th percentiles of distances between the borders", SEGMENTATION, "lower",
        "0 up", "every row", _FAR, "mm", METRICS_RELOADED,
    ),
    Metric(
        "assd mm", "mean distance of all border voxels to the other border", SEGMENTATION, "lower", "0 up",
        "every row", _FAR, "mm", METRICS_RELOADED,
    ),
    Metric(
        "sensitivity", "share of the labelled voxels that are predicted", SEGMENTATION, "higher", "0 to 1",
        "every row", "not defined without label; 0 where missed",
    ),
    Metric(
        "precision", "share of the predicted voxels that are labelled", SEGMENTATION, "higher", "0 to 1",
        "every row", "not defined without prediction; 0 where spurious",
    ),
    Metric(
        "volume error ml", "predicted less labelled volume; compared by its size", SEGMENTATION, "near 0", "any",
        "every row", _NONE, "ml",
    ),
    Metric(
        "masd mm", "mean of the two directed mean distances, each side with equal weight", SEGMENTATION, "lower",
        "0 up", "--also", _FAR, "mm", METRICS_RELOADED,
    ),
    Metric(
        "boundary iou", "overlap of the two bands within the tolerance of their own borders", SEGMENTATION, "higher",
        "0 to 1", "--also", _ZERO, "", "B. Cheng et al., CVPR 2021, https://arxiv.org/abs/2103.16562",
    ),
    Metric(
        "cldice", "share of each centreline inside the other structure: sees gaps, forgives width", SEGMENTATION,
        "higher", "0 to 1", "--also", _ZERO, "", "S. Shit et al., CVPR 2021, https://arxiv.org/abs/2003.07311",
    ),
    Metric(
        "lesion f1", "harmonic mean of lesion sensitivity and precision", LESIONS, "higher", "0 to 1", "--lesions",
        "not defined in a scan without lesions on either side; 0 where one side has none", "", METRICS_RELOADED,
    ),
    Metric(
        "lesion sensitivity", "share of the labelled lesions that are found", LESIONS, "higher", "0 to 1", "--lesions",
        "not defined in a scan without labelled lesions", "", METRICS_RELOADED,
    ),
    Metric(
        "lesion precision", "share of the predicted lesions that are there", LESIONS, "higher", "0 to 1", "--lesions",
        "not defined in a scan without predicted lesions", "", METRICS_RELOADED,
    ),
    Metric(
        "false lesions", "predicted lesions that are not there, in a scan", LESIONS, "lower", "0 up", "--lesions",
        "0 in a scan without lesions on either side", "per scan", METRICS_RELOADED,
    ),
    Metric(
        "panoptic quality", "sum of the IoU of lesions found, over found and half of missed and false",
        ("instance segmentation", "segmentation"), "higher", "0 to 1", "--lesions",
        "not defined in a scan without lesions on either side; 0 where one side has none", "",
        "A. Kirillov et al., CVPR 2019, https://arxiv.org/abs/1801.00868",
    ),
    Metric(
        "correct", "1 where the answer is right, 0 where not; its mean is the accuracy", CLASSES, "higher", "0 to 1",
        "every row", "not defined where not annotated",
    ),
    Metric(
        "brier", "squared distance of the probabilities from the truth", CLASSES, "lower",
        "0 to 2, of findings 0 to 1", "every row", "not defined where not annotated", "",
        "G. W. Brier, Monthly Weather Review 1950",
    ),
    Metric(
        "class error", "distance of the answer from the truth in classes", ("grading",), "lower", "0 up", "every row",
        "not defined where not annotated", "classes",
    ),
    Metric("accuracy", "share of right answers", CLASSES, "higher", "0 to 1", "report", _SET),
    Metric(
        "balanced accuracy", "mean recall of the classes: a rare class counts as much as a common one", CLASSES,
        "higher", "0 to 1", "report", _BY_CLASS, "", METRICS_RELOADED,
    ),
    Metric(
        "quadratic kappa", "agreement beyond chance, a miss weighing by the square of its distance", ("grading",),
        "higher", "-1 to 1", "report", "not defined where answers and truth are one class only", "",
        "J. Cohen, Psychological Bulletin 1968, https://doi.org/10.1037/h0026256",
    ),
    Metric(
        "sensitivity", "share of the subjects with a class that are answered so", CLASSES, "higher", "0 to 1",
        "report", _BY_CLASS,
    ),
    Metric(
        "specificity", "share of the subjects without a class that are answered so", CLASSES, "higher", "0 to 1",
        "report", "not defined for a class that all have",
    ),
    Metric(
        "auroc", "chance that a subject with the class scores higher than one without", CLASSES, "higher", "0 to 1",
        "report", "not defined for a class that nobody or everybody has",
    ),
    Metric(
        "average precision", "precision over all thresholds, weighted by the gain in recall; moves with prevalence",
        CLASSES, "higher", "0 to 1", "report", "not defined for a class that nobody has",
    ),
    Metric("log loss", "minus the logarithm of the true class's probability", CLASSES, "lower", "0 up", "report", _SET),
    Metric(
        "calibration error", "mean distance between stated and observed frequency, in 10 bins", CLASSES, "lower",
        "0 to 1", "report", _SET, "", "C. Guo et al., ICML 2017, https://arxiv.org/abs/1706.04599",
    ),
    Metric("absolute error", "distance of the prediction from the truth", REGRESSION, "lower", "0 up", "every row",
           "not defined where not annotated", "the number's"),
    Metric("error", "prediction less truth; compared by its size", REGRESSION, "near 0", "any", "every row",
           "not defined where not annotated", "the number's"),
    Metric("mae", "mean absolute error", REGRESSION, "lower", "0 up", "report", _SET, "the number's"),
    Metric("rmse", "root of the mean squared error: few large errors weigh more", REGRESSION, "lower", "0 up",
           "report", _SET, "the number's"),
    Metric("bias", "mean of prediction less truth", REGRESSION, "near 0", "any", "report", _SET, "the number's"),
    Metric("r2", "share of the truth's spread that is explained; moves with that spread", REGRESSION, "higher",
           "up to 1", "report", "not defined where the truth does not vary"),
    Metric("pearson", "linear correlation; blind to bias and scale", REGRESSION, "higher", "-1 to 1", "report",
           "not defined where one of both does not vary"),
    Metric("calibration slope", "of the truth by the prediction: below 1, predictions are spread too far", REGRESSION,
           "near 1", "any", "report", "not defined where predictions do not vary"),
    Metric("calibration intercept", "of the same line", REGRESSION, "near 0", "any", "report",
           "not defined where predictions do not vary", "the number's"),
)  # fmt: skip
"""All of them, in the order in which they are listed."""


def of_task(task: str) -> list[Metric]:
    """Those that a task has, in order."""
    return [m for m in METRICS if task in m.tasks]
