"""Figures of classification against scikit-learn, counting by hand, and sets that leave them undefined."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn import metrics as reference

from shiftproof.errors import LabelError
from shiftproof.metrics import classification as ours
from shiftproof.metrics.classification import by_class, summary

NAMES = ["normal", "mild", "severe", "fatal"]


def probabilities(seed=0, number=60, classes=4, steps=None):
    """Better than chance; with `steps` rounded, so that there are ties."""
    random = np.random.default_rng(seed)
    truth = random.integers(0, classes, number)
    logits = random.normal(size=(number, classes)) + 1.2 * np.eye(classes)[truth]
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    if steps:
        p = np.floor(p * steps) / steps
        p[:, -1] = 1 - p[:, :-1].sum(1)
    return p, truth


def findings(seed=0, number=50):
    """Three findings, some of them not annotated."""
    random = np.random.default_rng(seed)
    truth = random.integers(0, 2, (number, 3)).astype(float)
    p = np.clip(0.5 + 0.3 * (truth - 0.5) + 0.2 * random.normal(size=truth.shape), 0.01, 0.99)
    truth[random.random(truth.shape) < 0.2] = np.nan
    return p, truth


@pytest.mark.parametrize("steps", [None, 4])
@pytest.mark.parametrize("seed", range(3))
def test_a_summary_agrees_with_scikit_learn(seed, steps):
    p, truth = probabilities(seed, steps=steps)
    answer = p.argmax(1)

    found = summary(p, truth, "ordinal", NAMES)

    expected = {
        "balanced accuracy": reference.balanced_accuracy_score(truth, answer),
        "accuracy": reference.accuracy_score(truth, answer),
        "auroc": reference.roc_auc_score(truth, p, multi_class="ovr"),
        "average precision": reference.average_precision_score(np.eye(4)[truth], p, average="macro"),
        "brier": np.mean([((row - np.eye(4)[t]) ** 2).sum() for row, t in zip(p, truth, strict=True)]),
        "log loss": reference.log_loss(truth, p),
        "quadratic kappa": reference.cohen_kappa_score(truth, answer, weights="quadratic"),
        "class error": reference.mean_absolute_error(truth, answer),
    }
    assert set(found) == set(expected) | {"calibration error"}
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-9), name


def test_order_of_classes_is_asked_of_ordinal_only():
    p, truth = probabilities()
    plain = summary(p, truth, "multi-class", NAMES)
    ordinal = summary(p, truth, "ordinal", NAMES)
    assert set(ordinal) - set(plain) == {"quadratic kappa", "class error"}
    assert {n: ordinal[n] for n in plain} == plain


def test_figures_of_each_class_agree_with_scikit_learn():
    p, truth = probabilities(3, steps=5)
    found = by_class(p, truth, "multi-class", NAMES)
    answer = p.argmax(1)
    assert list(found) == NAMES
    for k, name in enumerate(NAMES):
        assert found[name]["auroc"] == pytest.approx(reference.roc_auc_score(truth == k, p[:, k]))
        precision = reference.average_precision_score(truth == k, p[:, k])
        assert found[name]["average precision"] == pytest.approx(precision)
        assert found[name]["sensitivity"] == pytest.approx(reference.recall_score(truth == k, answer == k))
        assert found[name]["specificity"] == pytest.approx(reference.recall_score(truth != k, answer != k))


def test_findings_agree_with_scikit_learn_where_they_are_annotated():
    p, truth = findings()
    found = summary(p, truth, "multi-label", NAMES[:3])

    pairs = [(truth[~np.isnan(truth[:, k]), k], p[~np.isnan(truth[:, k]), k]) for k in range(3)]
    everything = (np.concatenate([t for t, _ in pairs]), np.concatenate([q for _, q in pairs]))
    expected = {
        "balanced accuracy": np.mean([reference.balanced_accuracy_score(t, q > 0.5) for t, q in pairs]),
        "accuracy": reference.accuracy_score(everything[0], everything[1] > 0.5),
        "auroc": np.mean([reference.roc_auc_score(t, q) for t, q in pairs]),
        "average precision": np.mean([reference.average_precision_score(t, q) for t, q in pairs]),
        "brier": reference.brier_score_loss(*everything),
        "log loss": reference.log_loss(*everything),
    }
    assert set(found) == set(expected) | {"calibration error"}
    for name, value in expected.items():
        assert found[name] == pytest.approx(value), name


def test_the_confusion_table_has_the_truth_by_row():
    p, truth = probabilities(1)
    table = ours.confusion(p.argmax(1), truth, 4)
    np.testing.assert_array_equal(table, reference.confusion_matrix(truth, p.argmax(1)))
    np.testing.assert_allclose(ours.recalls(p.argmax(1), truth, 4), np.diag(table) / table.sum(1))


def test_auroc_is_the_share_of_pairs_in_order_with_ties_half():
    scores, present = np.array([0.1, 0.4, 0.4, 0.8, 0.4]), np.array([0, 0, 1, 1, 1])
    pairs = [(scores[i] > scores[j]) + 0.5 * (scores[i] == scores[j]) for i in (2, 3, 4) for j in (0, 1)]
    assert ours.auroc(scores, present) == pytest.approx(np.mean(pairs))
    assert ours.auroc(np.full(5, 0.3), present) == 0.5


def test_the_order_of_subjects_does_not_matter():
    p, truth = probabilities(2, steps=4)
    order = np.random.default_rng(9).permutation(len(p))
    assert summary(p[order], truth[order], "ordinal", NAMES) == pytest.approx(summary(p, truth, "ordinal", NAMES))


def test_a_class_that_does_not_occur_is_left_out_of_means():
    p, truth = probabilities(0)
    p, truth = p[truth != 2], truth[truth != 2]

    found = by_class(p, truth, "multi-class", NAMES)
    assert all(math.isnan(found["severe"][name]) for name in ("sensitivity", "auroc", "average precision"))
    assert not math.isnan(found["severe"]["specificity"])

    means = summary(p, truth, "multi-class", NAMES)
    occurring = [reference.roc_auc_score(truth == k, p[:, k]) for k in (0, 1, 3)]
    assert means["auroc"] == pytest.approx(np.mean(occurring))
    assert means["balanced accuracy"] == pytest.approx(reference.balanced_accuracy_score(truth, p.argmax(1)))


def test_one_class_leaves_undefined_what_compares_classes():
    p, _ = probabilities(0, number=8, classes=2)
    found = summary(p, np.ones(8, int), "ordinal", NAMES[:2])
    assert math.isnan(found["auroc"])
    assert found["average precision"] == 1.0  # every subject has it, whatever the threshold
    assert found["balanced accuracy"] == found["accuracy"]
    same = np.zeros(5, int)
    assert math.isnan(ours.quadratic_kappa(same, same, 3))
    assert ours.quadratic_kappa(np.array([0, 1, 2]), np.array([0, 1, 2]), 3) == 1


@pytest.mark.parametrize("kind", ["multi-class", "ordinal", "multi-label"])
def test_no_subject_leaves_everything_undefined(kind):
    truth = np.zeros((0, 4)) if kind == "multi-label" else np.zeros(0, int)
    assert all(math.isnan(v) for v in summary(np.zeros((0, 4)), truth, kind, NAMES).values())
    for figures in by_class(np.zeros((0, 4)), truth, kind, NAMES).values():
        assert all(math.isnan(v) for v in figures.values())


def test_a_finding_that_nobody_annotated_is_left_out_of_means():
    p, truth = findings(4)
    blind = truth.copy()
    blind[:, 1] = np.nan
    others = summary(p[:, [0, 2]], truth[:, [0, 2]], "multi-label", ["a", "c"])
    assert summary(p, blind, "multi-label", ["a", "b", "c"]) == pytest.approx(others)


def test_with_two_classes_average_precision_is_that_of_the_second():
    p, truth = probabilities(5, classes=2)
    found = summary(p, truth, "multi-class", ["benign", "malignant"])
    assert found["average precision"] == pytest.approx(reference.average_precision_score(truth, p[:, 1]))
    assert found["auroc"] == pytest.approx(reference.roc_auc_score(truth, p[:, 1]))


def test_a_sure_and_wrong_answer_costs_much_but_not_infinitely_much():
    assert ours.log_loss(np.array([[1.0, 0.0]]), np.array([1])) == pytest.approx(-math.log(2**-52))
    assert ours.brier(np.array([[1.0, 0.0]]), np.array([1])) == 2


def test_every_figure_says_which_way_is_better():
    p, truth = probabilities()
    names = set(summary(p, truth, "ordinal", NAMES)) | set(by_class(p, truth, "ordinal", NAMES)["mild"])
    assert names == set(ours.LARGER_IS_BETTER)
    # Sharper and right is better by every figure; wrong is worse.
    certain = 0.94 * np.eye(4)[truth] + 0.015
    shifted = 0.94 * np.eye(4)[(truth + 1) % 4] + 0.015
    good, bad = summary(certain, truth, "ordinal", NAMES), summary(shifted, truth, "ordinal", NAMES)
    for name in good:
        assert (good[name] > bad[name]) == ours.LARGER_IS_BETTER[name], name


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"probabilities": np.full((6, 3), 1 / 3)}, r"probabilities \(N, 4\).*got \(6, 3\)"),
        ({"truth": np.zeros((6, 4))}, r"truth \(N,\)"),
        ({"truth": np.array([0, 1, 2, 3, 4, 0])}, "from 0 to 3"),
        ({"truth": np.array([0, 1, 2, 0.5, 1, 0])}, "from 0 to 3"),
        ({"truth": np.array([0, 1, 2, np.nan, 1, 0])}, "from 0 to 3"),
        ({"probabilities": np.random.default_rng(0).normal(size=(6, 4))}, "logits"),
        ({"probabilities": np.full((6, 4), np.nan)}, "finite"),
        ({"probabilities": np.full((6, 4), 0.5)}, "add up to 1"),
        ({"kind": "binary"}, "multi-class, ordinal or multi-label"),
        ({"kind": "multi-label", "truth": np.full((6, 4), 2.0)}, "NaN"),
    ],
)
def test_what_cannot_be_scored_is_refused(change, words):
    given = {"probabilities": np.full((6, 4), 0.25), "truth": np.zeros(6, int), "kind": "multi-class", "classes": NAMES}
    with pytest.raises(LabelError, match=words):
        summary(**{**given, **change})


def test_arrays_of_different_length_are_refused():
    for figure in (ours.accuracy, ours.auroc, ours.average_precision, ours.sensitivity):
        with pytest.raises(LabelError, match=r"\(3,\) and \(2,\)"):
            figure(np.zeros(3), np.zeros(2))
        with pytest.raises(LabelError, match="without NaN"):
            figure(np.array([0.0, np.nan]), np.zeros(2))
