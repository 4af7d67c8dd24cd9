"""Which metrics to read, by what is predicted and what is known of it.

Paper: L. Maier-Hein, A. Reinke et al., "Metrics reloaded: recommendations for image analysis validation", Nature
Methods 21 (2024), https://arxiv.org/abs/2206.01653. Its fingerprints and decision trees are long; this is their core
for what shiftproof predicts, and it says what it leaves out.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from ..errors import OptionError
from ..names import choose
from .described import CLASSES, LESIONS, TASKS, Metric, of_task
from .rules import SMALL_SIDE

PROPERTIES: dict[str, tuple[tuple[str, ...], str]] = {
    "small": (LESIONS, f"fewer than {SMALL_SIDE**2} voxels in a slice, {SMALL_SIDE**3} in a volume"),
    "tubular": (("segmentation",), "vessels, airways, nerves: it matters that they hold together"),
    "lesions": (LESIONS, "several components, to be found one by one"),
    "boundary": (("segmentation",), "small errors of the border matter, as for planning"),
    "volume": (("segmentation",), "its volume is what is used"),
    "empty": (LESIONS, "some scans do not have it"),
    "unknown tolerance": (("segmentation",), "nobody knows how far two raters lie apart"),
    "label noise": (tuple(TASKS), "labels are wrong in places, or raters differ"),
    "unequal costs": ((*LESIONS, *CLASSES), "a miss and a false alarm do not cost the same"),
    "imbalance": (CLASSES, "some classes are rare"),
    "prevalence": (CLASSES, "classes will be more or less common where it is used"),
    "probabilities": (CLASSES, "the probabilities themselves are used"),
    "clusters": (tuple(TASKS), "several scans, slices or lesions of a subject"),
}
"""What may be known: by name, the tasks that it is of, and what it means."""


@dataclass(frozen=True)
class Pick:
    """A recommended metric.

    Args:
        metric: It.
        role: What it is for, such as "overlap" or "boundary".
        reason: Why it.
    """

    metric: Metric
    role: str
    reason: str


@dataclass(frozen=True)
class Recommendation:
    """What to read.

    Args:
        task: What is predicted.
        properties: What is known of it.
        primary: Name of the metric that rows should be compared by.
        picks: The set, the primary one first.
        notes: What to look out for, and what is recommended and not measured here.
        options: What to add to `shiftproof evaluate` or `study` for a structure NAME.
    """

    task: str
    properties: list[str]
    primary: str
    picks: list[Pick]
    notes: list[str] = field(default_factory=list)
    options: str = ""


def recommend(task: str, *, properties: Collection[str] = (), structure: str = "NAME") -> Recommendation:
    """The metrics to read for a task.

    Args:
        task: In `TASKS`.
        properties: In `PROPERTIES`.
        structure: Its name, for the options.

    Raises:
        OptionError: If the task or a property is unknown, or the property is not one of that task.
    """
    choose(task, TASKS, "task")
    for name in properties:
        choose(name, PROPERTIES, "property")
        if task not in PROPERTIES[name][0]:
            own = [p for p, (tasks, _) in PROPERTIES.items() if task in tasks]
            raise OptionError(f'"{name}" is no property of {task}; it has {", ".join(own)}')
    known = [name for name in PROPERTIES if name in properties]
    rules = {"segmentation": _segmentation, "detection": _detection, "instance segmentation": _instances}
    reasons, notes = rules.get(task, _regression if task == "regression" else _classes)(task, set(known))
    metrics = {m.name: m for m in of_task(task)}
    picks = [Pick(metrics[name], role, reason) for name, role, reason in reasons]
    return Recommendation(
        task,
        known,
        picks[0].metric.name,
        picks,
        notes + _always(set(known)),
        options_of([p.metric for p in picks], structure),
    )


def options_of(metrics: Collection[Metric], structure: str) -> str:
    """What the command line must be asked for, so that these are measured."""
    also = [m.name for m in metrics if m.given == "--also"]
    parts = [f"--lesions {_quoted(structure)}"] if any(m.given == "--lesions" for m in metrics) else []
    return " ".join([*parts, *([f"--also {_quoted(','.join(also))}"] if also else [])])


def _quoted(text: str) -> str:
    return f'"{text}"' if " " in text else text


Reasons = list[tuple[str, str, str]]


def _segmentation(task: str, known: set[str]) -> tuple[Reasons, list[str]]:
    overlap = ("dice", "overlap", "one metric of overlap, the field's common one")
    boundary = ("surface dice", "boundary", "the share of the border that is right, at a tolerance that raters have")
    if "unknown tolerance" in known:
        boundary = ("masd mm", "boundary", "a mean distance needs no tolerance, and both sides weigh alike")
    found: Reasons = [overlap, boundary]
    notes = []
    if "unknown tolerance" in known and "label noise" not in known:
        found.append(("hd95 mm", "boundary", "the worst of the border, without its last 5 %"))
    if "tubular" in known:
        found.insert(0, ("cldice", "overlap", "sees gaps in what must hold together, where Dice sees width"))
    if "boundary" in known:
        found.append(
            ("boundary iou", "boundary", "errors of a thin border do not drown in the inside of the structure")
        )
    if "small" in known:
        notes.append(
            "Dice of a small structure is unstable: one voxel moves it by much. It is given, and should decide nothing."
        )
        found.remove(overlap)
        found.remove(boundary)
        found[:0] = [boundary]
        found.append(("dice", "overlap", "for comparison with the literature only"))
    if "lesions" in known or ("small" in known and "empty" in known):
        first = [("lesion f1", "detection", "whether each lesion is found, whatever its size")]
        found[:0] = first
        found += [
            ("lesion sensitivity", "detection", "what is missed"),
            ("false lesions", "detection", "what is there too much, in scans without lesions too"),
        ]
        if "lesions" in known:
            found.append(("panoptic quality", "instances", "finding and outlining lesions in one number"))
    if "unequal costs" in known:
        found += [
            ("sensitivity", "per error", "what is missed"),
            ("precision", "per error", "what is too much"),
        ]
        notes.append("F-beta, which weighs the two, is not measured; its two parts are.")
    if "volume" in known:
        found.append(("volume error ml", "volume", "what is used; overlap does not show its direction"))
    if "empty" in known:
        notes.append(
            "Scans without the structure have no Dice: read the counts of missed and spurious beside the mean."
        )
    return found, notes


def _detection(task: str, known: set[str]) -> tuple[Reasons, list[str]]:
    found: Reasons = [
        ("lesion f1", "detection", "one number for lesions found and false"),
        ("lesion sensitivity", "detection", "what is missed"),
        ("false lesions", "detection", "the alarms that a reader has to look at in each scan"),
    ]
    if "unequal costs" in known:
        found.append(("lesion precision", "detection", "what an alarm is worth"))
    return found, [
        "Average precision and FROC need a score for each lesion, which a label file lacks; they are not measured."
    ]


def _instances(task: str, known: set[str]) -> tuple[Reasons, list[str]]:
    detection, _ = _detection(task, known)
    return [("panoptic quality", "instances", "finding and outlining lesions in one number"), *detection], [
        "Panoptic quality hides which of the two fails; the detection metrics tell."
    ]


def _classes(task: str, known: set[str]) -> tuple[Reasons, list[str]]:
    counting = ("balanced accuracy", "counting", "rare classes count as much as common ones, whatever their share")
    notes = []
    found: Reasons = [counting]
    if task == "grading":
        found = [
            ("quadratic kappa", "counting", "classes have an order: a near miss is less than a far one"),
            ("class error", "counting", "the same in classes, by subject, so that it can be tested in pairs"),
            counting,
        ]
    found += [
        ("sensitivity", "per class", "which class is missed"),
        ("specificity", "per class", "which class is claimed too often"),
        ("auroc", "all thresholds", "the order of subjects, whatever the threshold and the prevalence"),
    ]
    if known & {"imbalance", "prevalence"}:
        found.append(
            ("average precision", "all thresholds", "with a rare class AUROC looks good while alarms are false")
        )
    found += [("brier", "calibration", "whether probabilities can be taken at their word; by subject")]
    if "probabilities" in known:
        found.append(("calibration error", "calibration", "stated against observed frequency"))
    if "prevalence" in known:
        notes.append(
            "Accuracy, average precision and predictive values move with prevalence: state it, and do not compare them "
            "between sites that differ in it. Balanced accuracy, AUROC, sensitivity and specificity do not."
        )
    if "unequal costs" in known:
        notes.append(
            "Expected cost and net benefit need the costs, and are not measured; choose the threshold by yours, and "
            "read sensitivity and specificity."
        )
    if "imbalance" in known:
        notes.append("Accuracy of a rare class is high for who never names it; do not compare by it.")
    notes.append(
        "A study compares its rows by accuracy, which each subject has; figures of a set have bootstrap intervals."
    )
    return found, notes


def _regression(task: str, known: set[str]) -> tuple[Reasons, list[str]]:
    return [
        ("absolute error", "error", "in the unit, by subject, so that it can be tested in pairs"),
        ("bias", "error", "what is wrong in one direction, often a shift between sites"),
        ("rmse", "error", "few large errors, which the mean hides"),
        ("calibration slope", "calibration", "whether predictions are drawn to the mean or spread too far"),
    ], ["R2 and correlation move with the spread of the truth: do not compare them between sites."]


def _always(known: set[str]) -> list[str]:
    notes = []
    if "label noise" in known:
        notes.append(
            "A metric cannot be better than two raters agree: score a second rater, and read scores against that."
        )
    if "clusters" in known:
        notes.append("The subject is the unit: scans are averaged first, and intervals are over subjects.")
    return notes
