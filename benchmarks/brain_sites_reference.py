"""How hard brain-sites is: a map of mean labels, the source-only reference and the target-supervised bound.

python benchmarks/brain_sites_reference.py [--size 2d] [--folder brain-sites] [--steps 300] [--seeds 1]

Two conditions were set before the scenario was frozen; it was tuned on nothing else:

1. Mean labels, the most frequent class of the training sites' subjects at each position of the scanner, score
   below 0.6 mean Dice over CSF, grey and white matter at every held-out site. For information the same is
   printed after every subject, also the held-out one, has been moved and scaled to a common box by its own
   true labels.
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

import shiftproof.scenarios
from shiftproof.data.cohort import Cohort

STEP_MM = 3.0  # of the common grid
GRID = np.stack(np.meshgrid(*[np.arange(-117, 118, STEP_MM)] * 3, indexing="ij")).reshape(3, -1)
CLASSES = (1, 2, 3)


@dataclass
class Labelled:
    """One subject: class of each voxel, and where the voxels lie."""

    label: np.ndarray  # (X, Y, Z) class
    affine: np.ndarray  # (3, 4) voxel index -> scanner's mm

    def positions(self) -> np.ndarray:
        """(3, N) mm of every voxel."""
        index = np.indices(self.label.shape).reshape(3, -1)
        return self.affine[:, :3] @ index + self.affine[:, 3:]

    def at(self, positions: np.ndarray) -> np.ndarray:
        """Class at positions (3, N) by nearest voxel; -1 outside of the image."""
        index = np.rint(np.linalg.solve(self.affine[:, :3], positions - self.affine[:, 3:])).astype(int)
        inside = ((index >= 0) & (index < np.array(self.label.shape)[:, None])).all(0)
        out = np.full(positions.shape[1], -1)
        out[inside] = self.label[tuple(index[:, inside])]
        return out

    def boxed(self, centre: np.ndarray, width: np.ndarray) -> Labelled:
        """Moved and scaled along the axes so that the brain's mean and spread are those given."""
        brain = self.positions()[:, self.label.ravel() > 0]
        scale = width / brain.std(1)
        affine = self.affine * scale[:, None]
        affine[:, 3] += centre - scale * brain.mean(1)
        return Labelled(self.label, affine)


def read(cohort: Cohort) -> Iterator[tuple[str, Labelled]]:
    for row in cohort.rows():
        image = sitk.ReadImage(str(row.label))
        label = cohort.labels.encode(sitk.GetArrayFromImage(image).transpose(2, 1, 0), row.domain)
        matrix = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
        yield row.domain, Labelled(label.astype(int), np.column_stack([matrix, image.GetOrigin()]))


def mean_label_dice(training: list[Labelled], held_out: list[Labelled]) -> np.ndarray:
    """Dice (subjects, classes) of the most frequent class among the training subjects at each position."""
    votes = np.zeros((4, GRID.shape[1]), int)
    for subject in training:
        found = subject.at(GRID)
        for c in range(4):
            votes[c] += found == c
    side = round(GRID.shape[1] ** (1 / 3))
    grid_affine = np.column_stack([np.eye(3) * STEP_MM, np.full(3, GRID.min())])
    common = Labelled(votes.argmax(0).reshape(side, side, side), grid_affine)

    scores = []
    for subject in held_out:
        guess, truth = common.at(subject.positions()), subject.label.ravel()
        sizes = [(guess == c).sum() + (truth == c).sum() for c in CLASSES]
        scores.append([2 * ((guess == c) & (truth == c)).sum() / n for c, n in zip(CLASSES, sizes, strict=True)])
    return np.array(scores)


def mean_labels(cohort: Cohort) -> None:
    subjects = list(read(cohort))
    brains = [s.positions()[:, s.label.ravel() > 0] for _, s in subjects]
    centre, width = np.mean([b.mean(1) for b in brains], 0), np.mean([b.std(1) for b in brains], 0)
    boxed = [(site, s.boxed(centre, width)) for site, s in subjects]
    for title, table in {"scanner's coordinates": subjects, "boxed by the true labels": boxed}.items():
        for held in cohort.domains:
            training, test = ([s for site, s in table if (site == held) == out] for out in (False, True))
            dice = mean_label_dice(training, test).mean(0)
            by_class = " ".join(f"{name} {d:.3f}" for name, d in zip(cohort.classes[1:], dice, strict=True))
            print(f"mean labels, {title}, held out {held}: {dice.mean():.3f} ({by_class})")


def references(cohort: Path, out: Path, *, steps: int, seeds: int, dimensions: int, workers: int | None) -> None:
    import pandas

    from shiftproof.recipe import Recipe
    from shiftproof.study.run import study
    from shiftproof.train import Trainer

    rows = [
        Recipe("source-only", transforms="none", role="source-only"),
        Recipe("target-supervised", transforms="none", role="target-supervised"),
    ]
    trainer = Trainer(steps=steps, batch=9, validate_every=steps)
    plan = {"dimensions": dimensions, "patch": [64] * dimensions}
    study(cohort, rows, out, seeds=seeds, trainer=trainer, plan=plan, workers=workers, tell=print)

    table = pandas.read_csv(out / "rows.csv")
    dice = table[table["metric"] == "dice"]
    by_structure = dice.pivot_table(values="value", index="held_out", columns=["row", "structure"])
    means = dice.pivot_table(values="value", index="held_out", columns="row")
    means["gap"] = means["target-supervised"] - means["source-only"]
    print(by_structure.round(3).to_string())
    print(means.round(3).to_string())
    print(f"gap on average over the held-out sites: {means['gap'].mean():.3f} mean Dice")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="2d", choices=shiftproof.scenarios.get("brain-sites").sizes)
    parser.add_argument("--folder", type=Path, default=Path("brain-sites"), help="for the cohort and the study")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--workers", type=int, default=None)
    parser.add_argument("--labels-only", action="store_true", help="no training: condition 1 alone")
    given = parser.parse_args()

    folder = shiftproof.scenarios.make("brain-sites", given.folder / f"cohort-{given.size}", size=given.size)
    mean_labels(Cohort.read(folder / "table.csv"))
    if not given.labels_only:
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
