"""The table of metrics fits the code that measures, and recommendations follow Metrics Reloaded."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from shiftproof.errors import OptionError
from shiftproof.metrics import classification, lesions, regression, segmentation
from shiftproof.metrics.choice import PROPERTIES, options_of, recommend
from shiftproof.metrics.described import METRICS, TASKS, of_task
from shiftproof.metrics.rules import RULES
from shiftproof.report.numbers import SCALES, scale

DIRECTIONS = {True: {"higher"}, False: {"lower"}, None: {"near 0", "near 1"}}


def named(task: str) -> dict:
    return {m.name: m for m in of_task(task)}


@pytest.mark.parametrize(
    ("task", "given", "measured"),
    [
        ("segmentation", "every row", segmentation.LARGER_IS_BETTER),
        ("segmentation", "--also", segmentation.ALSO),
        ("segmentation", "--lesions", lesions.LARGER_IS_BETTER),
        ("grading", "report", classification.LARGER_IS_BETTER),
        ("regression", "report", regression.LARGER_IS_BETTER),
    ],
)
def test_every_metric_that_is_measured_is_described_with_its_direction(task, given, measured):
    described = {m.name: m for m in of_task(task) if m.given == given}
    # Of each subject and of a set alike: told once, as of each subject.
    by_subject = {"brier", "class error"} if task == "grading" else set()
    assert set(described) == set(measured) - by_subject
    for name, metric in described.items():
        assert metric.better in DIRECTIONS[measured[name]], name


def test_the_report_prints_every_metric_of_rows_by_its_name_and_direction():
    for metric in METRICS:
        if metric.given == "report" or metric.tasks == ("regression",):
            continue
        shown = SCALES[metric.name]
        assert shown.higher_is_better == (metric.better == "higher")
        assert shown.signed == metric.better.startswith("near")
        low = {"0 to 1": 0, "0 up": 0}.get(metric.within)
        assert low is None or shown.within[0] == low
        assert (shown.within[1] == 1) == (metric.within == "0 to 1")
        assert bool(shown.unit) == bool(metric.unit)
    assert scale("false lesions").axis == "false lesions (per scan)"


def test_the_range_and_the_empty_rule_of_every_metric_hold():
    """Drawn pairs of structures, some empty: values stay within what the table says."""
    random = np.random.default_rng(0)
    found: dict[str, list[float]] = {}
    for size in itertools.product([0, 0.02, 0.3], repeat=2):
        prediction, label = (random.random((8, 7, 6)) < s for s in size)
        rows = segmentation.measure(
            prediction.astype(np.uint8), label.astype(np.uint8), classes=["background", "a"], spacing_mm=(1, 1, 1),
            lesions=["a"], also=["masd mm", "boundary iou"],
        )  # fmt: skip
        for row in rows:
            found.setdefault(row["metric"], []).append(row["value"])
        if not any(size):
            undefined = {r["metric"] for r in rows if np.isnan(r["value"])}
            said = {m for m in found if named("segmentation")[m].empty.startswith("not defined")}
            assert undefined == said
    for name, values in found.items():
        within = named("segmentation")[name].within
        assert {"0 to 1": 0, "0 up": 0, "any": -np.inf}[within] <= np.nanmin(values)
        assert np.nanmax(values) <= {"0 to 1": 1, "0 up": np.inf, "any": np.inf}[within]


def test_every_recommendation_is_of_metrics_of_its_task_each_once():
    for task in TASKS:
        own = [p for p, (tasks, _) in PROPERTIES.items() if task in tasks]
        for properties in itertools.chain.from_iterable(itertools.combinations(own, k) for k in (0, 1, 2, len(own))):
            found = recommend(task, properties=properties)
            names = [p.metric.name for p in found.picks]
            assert len(set(names)) == len(names), (task, properties)
            assert found.primary == names[0]
            assert all(task in p.metric.tasks and p.reason and p.role for p in found.picks)
            assert found.properties == [p for p in PROPERTIES if p in properties]


def roles(task: str, *properties: str) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for pick in recommend(task, properties=properties).picks:
        found.setdefault(pick.role, set()).add(pick.metric.name)
    return found


def test_a_segmentation_has_one_overlap_and_one_boundary_metric():
    assert roles("segmentation") == {"overlap": {"dice"}, "boundary": {"surface dice"}}
    assert recommend("segmentation").primary == "dice"


def test_what_is_known_of_a_structure_changes_the_set():
    assert roles("segmentation", "unknown tolerance")["boundary"] == {"masd mm", "hd95 mm"}
    assert roles("segmentation", "unknown tolerance", "label noise")["boundary"] == {"masd mm"}
    assert roles("segmentation", "tubular")["overlap"] == {"dice", "cldice"}
    assert "boundary iou" in roles("segmentation", "boundary")["boundary"]
    assert roles("segmentation", "volume")["volume"] == {"volume error ml"}
    assert roles("segmentation", "unequal costs")["per error"] == {"sensitivity", "precision"}


def test_rows_of_a_small_structure_are_not_compared_by_dice():
    found = recommend("segmentation", properties=["small"])
    assert found.primary == "surface dice"
    assert any("unstable" in note for note in found.notes)
    assert recommend("segmentation", properties=["small", "lesions"]).primary == "lesion f1"
    assert recommend("segmentation", properties=["small", "unknown tolerance"]).primary == "masd mm"


def test_instances_and_detection_are_counted_by_lesion():
    assert recommend("instance segmentation").primary == "panoptic quality"
    assert roles("detection")["detection"] == {"lesion f1", "lesion sensitivity", "false lesions"}
    assert "FROC" in recommend("detection").notes[0]


@pytest.mark.parametrize("task", ["classification", "grading", "findings"])
def test_a_classification_has_a_metric_of_each_kind(task):
    found = roles(task, "imbalance", "prevalence", "probabilities")
    assert "balanced accuracy" in found["counting"]
    assert found["per class"] == {"sensitivity", "specificity"}
    assert found["all thresholds"] == {"auroc", "average precision"}
    assert found["calibration"] == {"brier", "calibration error"}
    assert ("quadratic kappa" in found["counting"]) == (task == "grading")
    assert any("prevalence" in n for n in recommend(task, properties=["prevalence"]).notes)


def test_the_options_ask_for_what_is_recommended():
    found = recommend("segmentation", properties=["tubular", "lesions", "unknown tolerance"], structure="my lesion")
    assert found.options == '--lesions "my lesion" --also "cldice,masd mm"'
    assert recommend("segmentation").options == ""
    assert options_of([m for m in METRICS if m.name == "cldice"], "a") == "--also cldice"


def test_unknown_tasks_and_properties_are_named():
    with pytest.raises(OptionError, match='did you mean "detection"'):
        recommend("detect")
    with pytest.raises(OptionError, match='no property "tiny"'):
        recommend("segmentation", properties=["tiny"])
    with pytest.raises(OptionError, match='"tubular" is no property of detection; it has small'):
        recommend("detection", properties=["tubular"])


def test_every_rule_is_said_in_a_sentence():
    assert {"both empty", "missed", "spurious", "small", "tolerance", "lesions", "lesion match"} <= set(RULES)
    assert all(text.endswith(".") and len(text) > 30 for text in RULES.values())


def test_the_page_of_metrics_says_what_the_code_says():
    page = " ".join((Path(__file__).parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8").split())
    for name, text in RULES.items():
        assert f"- **{name}**: {' '.join(text.split())}" in page, name
    for m in METRICS:
        cells = [m.name, m.what, m.better, m.within, m.unit, m.empty]
        assert " ".join(f"| {' | '.join(cells)} |".split()) in page, m.name
    for name, (tasks, means) in PROPERTIES.items():
        assert f"| {name} | {', '.join(tasks)} | {means} |" in page, name
