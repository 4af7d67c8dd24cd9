"""Figures of whole sets in bootstrap samples: many at once are each by itself."""

from __future__ import annotations

import numpy as np
import pytest

from shiftproof.metrics import classification
from shiftproof.report import draws


def drawn(n: int, classes: int, kind: str, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities with ties, truth with a rare class or findings that are not annotated, samples."""
    random = np.random.default_rng(seed)
    if kind == "multi-label":
        predicted = random.integers(0, 8, (n, classes)) / 7
        truth = (random.random((n, classes)) < predicted).astype(float)
        truth[random.random((n, classes)) < 0.2] = np.nan
        truth[:, 0] = 1.0  # never absent
    else:
        weights = random.integers(1, 5, (n, classes)).astype(float)
        predicted = weights / weights.sum(1, keepdims=True)
        true = random.integers(0, classes, n)
        true[true == classes - 1] = 0
        true[0] = classes - 1  # missing in a third of the samples
        truth = np.eye(classes)[true]
    return predicted, truth, random.integers(0, n, (40, n))


@pytest.mark.parametrize(
    ("kind", "classes"), [("multi-class", 2), ("multi-class", 5), ("ordinal", 4), ("multi-label", 3)]
)
@pytest.mark.parametrize("n", [1, 12, 90])
def test_all_samples_at_once_are_each_by_itself(kind, classes, n):
    predicted, truth, samples = drawn(n, classes, kind, seed=n)
    counts = np.array([np.bincount(own, minlength=n) for own in samples], float)
    found = draws.figures(predicted, truth, kind, counts)
    names = [f"c{k}" for k in range(classes)]
    for i, own in enumerate(samples):
        expected = truth[own] if kind == "multi-label" else truth[own].argmax(1)
        alone = classification.summary(predicted[own], expected, kind, names)
        assert {name: values[i] for name, values in found.items()} == pytest.approx(
            {name: alone[name] for name in found}, abs=1e-12, nan_ok=True
        )


def test_a_sample_of_nothing_has_no_figure():
    predicted, truth, _ = drawn(5, 3, "ordinal", seed=0)
    assert all(np.isnan(v).all() for v in draws.figures(predicted, truth, "ordinal", np.zeros((2, 5))).values())
