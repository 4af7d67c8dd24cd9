"""How hard chest-ct-sites is: maps of labels and of HU, the source-only reference and the target-supervised bound.

python benchmarks/chest_ct_sites_reference.py [--size 2d] [--folder chest-ct-sites] [--steps 300] [--seeds 1]

Two conditions were set before the scenario was frozen; it was tuned on nothing else:

1. What needs no network does not solve it: at every held-out site, mean Dice over the six organs is below 0.6 for
   "place", the most frequent class of the training sites' subjects at each position relative to the image's middle,
   below 0.6 for "HU", their most frequent class at each HU, and below 0.7 for both together (naive Bayes). For
   information "place" is also printed after every subject, also the held-out one, has been moved and scaled to a
   common box by its own true labels.
2. Source-only (`erm`, no augmentation, on the three other sites) is at least 0.10 mean Dice below the same
   network trained on half of the held-out site's subjects, on average over the sites; both are scored on the
   other half.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from brain_sites_reference import Labelled, references

import shiftproof.scenarios
from shiftproof.data.cohort import Cohort

STEP_MM, HU_STEP = 8.0, 20
AXIS = np.arange(-256, 257, STEP_MM)
HU_BINS = (3071 + 1024) // HU_STEP + 1


@dataclass
class Scanned(Labelled):
    """One subject: class and HU of each voxel; the affine's origin is moved to the image's middle."""

    hu: np.ndarray

    def cells(self) -> np.ndarray:
        """(N,) cell of the common grid for each voxel, and of HU."""
        index = np.clip(np.rint((self.positions() - AXIS[0]) / STEP_MM), 0, AXIS.size - 1).astype(int)
        return np.ravel_multi_index(index, (AXIS.size,) * 3)

    def bins(self) -> np.ndarray:
        return (self.hu.ravel().astype(int) + 1024) // HU_STEP


def read(cohort: Cohort) -> Iterator[tuple[str, Scanned]]:
    for row in cohort.rows():
        arrays = [sitk.ReadImage(str(path)) for path in (row.label, row.images["CT"])]
        label, hu = (sitk.GetArrayFromImage(a).transpose(2, 1, 0) for a in arrays)
        matrix = np.array(arrays[0].GetDirection()).reshape(3, 3) * np.array(arrays[0].GetSpacing())
        middle = matrix @ ((np.array(label.shape) - 1) / 2)
        encoded = cohort.labels.encode(label, row.domain).astype(int)
        yield row.domain, Scanned(encoded, np.column_stack([matrix, -middle]), hu)


def boxed(subject: Scanned, centre: np.ndarray, width: np.ndarray) -> Scanned:
    moved = subject.boxed(centre, width)
    return Scanned(moved.label, moved.affine, subject.hu)


def counts(training: list[Scanned], classes: int) -> tuple[np.ndarray, np.ndarray]:
    """How often each class was met (classes, cells) and (classes, HU bins)."""
    place, density = np.zeros((classes, AXIS.size**3)), np.zeros((classes, HU_BINS))
    for subject in training:
        label = subject.label.ravel()
        np.add.at(place, (label, subject.cells()), 1)
        np.add.at(density, (label, subject.bins()), 1)
    return place, density


def dice(guess: np.ndarray, truth: np.ndarray, classes: int) -> list[float]:
    """Of each class but the background; NaN where the subject has none of it."""
    sizes = [((guess == c).sum() + (truth == c).sum(), (truth == c).any()) for c in range(1, classes)]
    both = [((guess == c) & (truth == c)).sum() for c in range(1, classes)]
    return [2 * b / n if there else np.nan for b, (n, there) in zip(both, sizes, strict=True)]


def without_network(cohort: Cohort) -> None:
    classes = len(cohort.classes)
    subjects = list(read(cohort))
    organs = [s.positions()[:, s.label.ravel() > 0] for _, s in subjects]
    centre, width = np.mean([o.mean(1) for o in organs], 0), np.mean([o.std(1) for o in organs], 0)
    for held in cohort.domains:
        training, test = ([s for site, s in subjects if (site == held) == out] for out in (False, True))
        place, density = counts(training, classes)
        prior = place + 0.01 * place.sum(1, keepdims=True) / place.sum()
        likelihood = (density + 0.1) / (density + 0.1).sum(1, keepdims=True)
        in_box = counts([boxed(s, centre, width) for s in training], classes)[0]
        scores: dict[str, list[list[float]]] = {"place": [], "HU": [], "both": [], "place, boxed": []}
        for subject in test:
            cells, bins, truth = subject.cells(), subject.bins(), subject.label.ravel()
            guesses = {
                "place": place[:, cells].argmax(0),
                "HU": density[:, bins].argmax(0),
                "both": (prior[:, cells] * likelihood[:, bins]).argmax(0),
                "place, boxed": in_box[:, boxed(subject, centre, width).cells()].argmax(0),
            }
            for name, guess in guesses.items():
                scores[name].append(dice(guess, truth, classes))
        for name, found in scores.items():
            mean = np.nanmean(found, 0)
            by_class = " ".join(f"{c} {d:.3f}" for c, d in zip(cohort.classes[1:], mean, strict=True))
            print(f"held out {held}, {name}: {mean.mean():.3f} ({by_class})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="2d", choices=shiftproof.scenarios.get("chest-ct-sites").sizes)
    parser.add_argument("--folder", type=Path, default=Path("chest-ct-sites"), help="for the cohort and the study")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--workers", type=int, default=None)
    parser.add_argument("--maps-only", action="store_true", help="no training: condition 1 alone")
    given = parser.parse_args()

    folder = shiftproof.scenarios.make(
        "chest-ct-sites", given.folder / f"cohort-{given.size}", size=given.size, workers=given.workers or 1
    )
    without_network(Cohort.read(folder / "table.csv"))
    if not given.maps_only:
        references(
            folder / "table.csv",
            given.folder / f"study-{given.size}",
            steps=given.steps,
            seeds=given.seeds,
            dimensions=2 if given.size == "2d" else 3,
            workers=given.workers,
        )


if __name__ == "__main__":
    main()
