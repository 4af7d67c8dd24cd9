"""How often equal recipes are told apart: by subjects alone, by trainings alone, and by both tests.

python benchmarks/trainings.py [--repetitions 3000] [--json]

Scores of two recipes of equal worth: subjects are as hard for both and differ in how well either does on them, each
training has luck of its own at each held-out domain, and the rest is noise; SDs in Dice, level 5 %.
"""

from __future__ import annotations

import argparse
import json

import numpy as np
from scipy import stats

from shiftproof.statistics import over_trainings

CASES = [  # domains, subjects a domain, trainings a row, SD of subjects, of trainings, of the rest
    (1, 12, 3, 0.01, 0.01, 0.01), (1, 24, 3, 0.01, 0.005, 0.01), (1, 50, 3, 0.02, 0.01, 0.02),
    (1, 200, 3, 0.03, 0.005, 0.03), (1, 12, 5, 0.01, 0.01, 0.01), (2, 12, 3, 0.01, 0.01, 0.01),
    (1, 24, 2, 0.01, 0.01, 0.01), (4, 12, 2, 0.01, 0.01, 0.01), (1, 12, 3, 0.01, 0.0, 0.01),
]  # fmt: skip


def scores(case: tuple[float, ...], random: np.random.Generator) -> np.ndarray:
    """(2, domains, subjects, trainings)."""
    domains, subjects, trainings, of_subjects, of_trainings, rest = case
    shape = (2, int(domains), int(subjects), int(trainings))
    own = random.normal(0, of_subjects / np.sqrt(2), (*shape[:3], 1))
    luck = random.normal(0, of_trainings, (*shape[:2], 1, shape[3]))
    return own + luck + random.normal(0, rest / np.sqrt(2), shape)


def claims(case: tuple[float, ...], repetitions: int, seed: int) -> dict[str, float]:
    random, counts = np.random.default_rng(seed), np.zeros(3)
    for _ in range(repetitions):
        a, b = scores(case, random)
        subjects = stats.ttest_1samp((a - b).mean(2).ravel(), 0).pvalue
        trainings = over_trainings(a.mean(1), b.mean(1)).p
        counts += np.array([subjects, trainings, max(subjects, trainings)]) < 0.05
    return dict(zip(("subjects alone", "trainings alone", "both"), (counts / repetitions).tolist(), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = [{"case": case, **claims(case, options.repetitions, options.seed)} for case in CASES]
    if options.json:
        print(json.dumps(found, indent=1))
        return
    print("| domains | subjects | trainings | SD of trainings | subjects alone | trainings alone | both |")
    print("|---|---|---|---|---|---|---|")
    for line in found:
        domains, subjects, trainings, _, luck, _ = line["case"]
        rates = " | ".join(f"{100 * line[k]:.1f} %" for k in ("subjects alone", "trainings alone", "both"))
        print(f"| {domains} | {subjects} | {trainings} | {luck} | {rates} |")


if __name__ == "__main__":
    main()
