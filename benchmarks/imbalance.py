"""Rare structures: tables of the studies of `examples/rare_structures*.toml` and `learned_augmentation.toml`.

python benchmarks/imbalance.py divide COHORT OUT
python benchmarks/imbalance.py tables STUDY [STUDY ...] [--json] > tables.md

`divide` makes a cohort of `brain-lesions` whose domains are "pool" and "new" people of all sites, 14 of each site's
being new: what few subjects cost is then not mixed with what another site costs. Studies hold "new" out.

Each STUDY is a folder of `shiftproof study` that holds one domain out. Printed for each: Dice, sensitivity, precision
of every row with 95 % intervals over subjects (seeds averaged) and the SD of single trainings; each asymmetric row
against its symmetric one and against cross-entropy, told apart only where subjects (paired) and trainings (Welch) both
do, corrected by Holm's rule within the table; then what the published findings become here.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import SimpleITK as sitk

from shiftproof.data.labels import LabelMap
from shiftproof.statistics import holm, interval, over_trainings, paired, per_subject
from shiftproof.statistics.subjects import per_training

METRICS = {"dice": "Dice", "sensitivity": "sensitivity", "precision": "precision"}
PLAIN, COMBINATION, LEARNED = "cross-entropy", "asymmetric combination", "learned"
TECHNIQUES = ("large margin", "focal", "adversarial", "mixup", "augmentation")


@dataclass(frozen=True)
class Study:
    """The scores of one fraction."""

    name: str
    fraction: float
    rows: pd.DataFrame
    declared: dict[str, Any]
    folder: Path

    @classmethod
    def read(cls, folder: Path) -> Study:
        declared = json.loads((folder / "study.json").read_text())
        rows = pd.read_csv(folder / "rows.csv")
        return cls(folder.name, float(declared["fraction"]), rows, declared, folder)

    @property
    def names(self) -> list[str]:
        """Rows in the order of the declaration; bounds trained on the held-out domain left out."""
        seen = set(self.rows["row"])
        return [r["name"] for r in self.declared["rows"] if r["name"] in seen and r["role"] != "target-supervised"]

    def subjects(self, metric: str) -> pd.DataFrame:
        """Scores, a line a subject and a column a row."""
        return per_subject(self.rows, metric).pivot(index="subject", columns="row", values="value")

    def trainings(self, metric: str, row: str) -> np.ndarray:
        """(1, seeds) mean over subjects of each training."""
        table = per_training(self.rows, metric)
        return table[table["row"] == row].groupby("seed")["value"].mean().to_numpy()[None]


def scores(study: Study) -> list[dict[str, Any]]:
    """One entry a row: each metric's mean, interval and SD over trainings."""
    found = []
    for name in study.names:
        line: dict[str, Any] = {"row": name}
        for metric in METRICS:
            around = interval(study.subjects(metric)[name].dropna().to_numpy())
            single = study.trainings(metric, name)[0]
            line[metric] = {
                "mean": around.mean,
                "low": around.low,
                "high": around.high,
                "n": around.n,
                "sd_trainings": float(np.std(single, ddof=1)) if len(single) > 1 else None,
                "trainings": len(single),
            }
        found.append(line)
    return found


def pairs(study: Study) -> list[dict[str, Any]]:
    """Each technique's asymmetric form against its symmetric one, every row against cross-entropy, learned against all.

    Holm's correction is over all of them and all metrics, as one table shows them.
    """
    names = study.names
    members = [(f"asymmetric {t}", t) for t in TECHNIQUES if t in names and f"asymmetric {t}" in names]
    members += [(name, PLAIN) for name in names if name != PLAIN and PLAIN in names]
    members += [(LEARNED, name) for name in names if name != LEARNED and LEARNED in names]
    family: list[dict[str, Any]] = []
    for metric in METRICS:
        wide = study.subjects(metric)
        for a, b in members:
            both = wide[[a, b]].dropna()
            over_subjects = paired(both[a].to_numpy(), both[b].to_numpy())
            luck = over_trainings(study.trainings(metric, a), study.trainings(metric, b))
            p = max(over_subjects.p, luck.p) if np.isfinite(luck.p) else float("nan")
            around = (over_subjects.low, over_subjects.high)
            family.append(
                {"a": a, "b": b, "metric": metric, "difference": over_subjects.mean_difference, "low": around[0],
                 "high": around[1], "p": p}
            )  # fmt: skip
    found = []
    for line, p in zip(family, holm([f["p"] for f in family]), strict=True):
        surely = p < 0.05 and line["low"] * line["high"] > 0
        better = "better" if line["difference"] > 0 else "worse"
        found.append({**line, "p_corrected": float(p), "verdict": better if surely else "not told apart"})
    return found


def changed(a: Study, b: Study, row: str, metric: str) -> dict[str, float]:
    """What a row scores in one study less what it scores in the other, on the subjects that both have."""
    both = pd.concat([a.subjects(metric)[row], b.subjects(metric)[row]], axis=1).dropna()
    over_subjects = paired(both.iloc[:, 0].to_numpy(), both.iloc[:, 1].to_numpy())
    luck = over_trainings(a.trainings(metric, row), b.trainings(metric, row))
    p = max(over_subjects.p, luck.p)
    return {"difference": over_subjects.mean_difference, "low": over_subjects.low, "high": over_subjects.high, "p": p}


YES, MEAN, NO = "yes", "in the mean, not reliably", "**no**"


def findings(studies: list[Study]) -> list[tuple[str, str, str]]:
    """The published findings, whether each is reproduced (reliably, in the mean, or not), and the numbers."""
    ordered = sorted((s for s in studies if COMBINATION in s.names), key=lambda s: s.fraction)
    if len(ordered) < 2:
        return []
    found = []

    steps = [*pairwise(ordered), *([(ordered[0], ordered[-1])] if len(ordered) > 2 else [])]
    for few, many in steps:
        lost = {m: changed(few, many, PLAIN, m) for m in METRICS}
        numbers = ", ".join(
            f"{METRICS[m]} {d['difference']:+.3f} ({d['low']:+.3f} to {d['high']:+.3f}; p {d['p']:.3f})"
            for m, d in lost.items()
        )
        missed, stays = lost["sensitivity"], abs(lost["precision"]["difference"])
        right = missed["difference"] < 0 and -missed["difference"] > 2 * stays
        words = f"cross-entropy from {many.fraction:.0%} to {few.fraction:.0%} of the subjects: {numbers}"
        answer = NO if not right else YES if missed["p"] < 0.05 else MEAN
        found.append(("Sensitivity falls first as subjects get fewer, precision stays", answer, words))

    for study in ordered:
        told = {(p["a"], p["b"], p["metric"]): p for p in pairs(study)}
        here = [t for t in TECHNIQUES if (f"asymmetric {t}", t, "sensitivity") in told]
        ahead = [t for t in here if told[f"asymmetric {t}", t, "sensitivity"]["difference"] > 0]
        sure = [t for t in ahead if told[f"asymmetric {t}", t, "sensitivity"]["verdict"] == "better"]
        words = (
            f"{study.fraction:.0%}: ahead in {len(ahead)} of {len(here)} pairs ({', '.join(ahead) or 'none'}), "
            f"reliably in {len(sure)} ({', '.join(sure) or 'none'})"
        )
        answer = YES if len(sure) > len(here) / 2 else MEAN if len(ahead) > len(here) / 2 else NO
        found.append(("The asymmetric form is more sensitive than the symmetric one", answer, words))

    for study in ordered:
        means = {n: float(study.subjects("dice")[n].mean()) for n in study.names}
        order = sorted(means, key=means.__getitem__, reverse=True)
        told = {(p["a"], p["b"], p["metric"]): p for p in pairs(study)}[COMBINATION, PLAIN, "dice"]
        words = (
            f"{study.fraction:.0%}: place {1 + order.index(COMBINATION)} of {len(order)} by Dice "
            f"({means[COMBINATION]:.3f}; best {order[0]}, {means[order[0]]:.3f}); against cross-entropy "
            f"{told['difference']:+.3f} ({told['low']:+.3f} to {told['high']:+.3f}; p {told['p']:.3f}, corrected "
            f"{told['p_corrected']:.3f})"
        )
        first = order[0] == COMBINATION
        answer = NO if not first else YES if told["verdict"] == "better" else MEAN
        found.append(("The asymmetric combination is the best row", answer, words))
    return found


def margins(study: Study) -> list[dict[str, Any]]:
    """Where each row puts lesion voxels, training and new people, means over trainings; see `shiftproof logits`."""
    found = []
    for name in study.names:
        seen = []
        for cell in sorted(study.folder.glob("cells/*/*/*/cell.json")):
            path = cell.parent / "logits.json"
            if json.loads(cell.read_text())["row"] == name and path.exists():
                shifts = json.loads(path.read_text())["shifts"]
                seen += [s for s in shifts if s["truth"] == "lesion" and s["to"] == "test"]
        if seen:
            keys = ("mean_train", "mean_test", "shift", "normalised", "crossing_train", "crossing")
            found.append({"row": name, **{key: float(np.mean([s[key] for s in seen])) for key in keys}})
    return found


def printed(studies: list[Study]) -> str:
    lines = []
    for study in studies:
        budget = study.declared["budget"]
        lines += [
            f"### {study.name}: {study.fraction:.0%} of the training subjects",
            "",
            f"Held out {', '.join(study.declared['held_out'])}; {len(study.declared['seeds'])} trainings a row of "
            f"{budget['steps']} steps, batches of {budget['batch']}.",
            "",
            "| row | " + " | ".join(METRICS.values()) + " | SD of single trainings (Dice, sensitivity, precision) |",
            "|---|" + "---|" * (len(METRICS) + 1),
        ]
        for line in scores(study):
            cells = [f"{line[m]['mean']:.3f} ({line[m]['low']:.3f} to {line[m]['high']:.3f})" for m in METRICS]
            spread = ", ".join(
                "-" if line[m]["sd_trainings"] is None else f"{line[m]['sd_trainings']:.3f}" for m in METRICS
            )
            lines.append(f"| {line['row']} | " + " | ".join(cells) + f" | {spread} |")
        lines += ["", "<details><summary>Differences, row by row</summary>", ""]
        lines += ["| a | b | metric | a - b | p | corrected | verdict |", "|---|---|---|---|---|---|---|"]
        for p in pairs(study):
            lines.append(
                f"| {p['a']} | {p['b']} | {METRICS[p['metric']]} | {p['difference']:+.3f} ({p['low']:+.3f} to "
                f"{p['high']:+.3f}) | {p['p']:.3f} | {p['p_corrected']:.3f} | {p['verdict']} |"
            )
        lines += [
            "",
            "</details>",
            "",
            "| voxels of lesion | mean margin: training, new | shift | shift / SD | beyond the boundary: both |",
            "|---|---|---|---|---|",
        ]
        lines += [
            f"| {m['row']} | {m['mean_train']:+.2f}, {m['mean_test']:+.2f} | {m['shift']:+.2f} | "
            f"{m['normalised']:+.2f} | {m['crossing_train']:.0%}, {m['crossing']:.0%} |"
            for m in margins(study)
        ]
        lines.append("")
    told = findings(studies)
    if told:
        lines += [
            "### The findings",
            "",
            "| finding | reproduced | numbers |",
            "|---|---|---|",
        ]
        lines += [f"| {what} | {answer} | {words} |" for what, answer, words in told]
    return "\n".join(lines)


NEW = 14
"""Of each site's people, the last ones in the order of their names."""


def divide(cohort: Path, out: Path) -> None:
    """Links to the images, labels with 1 for a lesion at every site, and a table with the column `part`."""
    table = pd.read_csv(cohort / "table.csv")
    place = table.groupby("site").cumcount(ascending=False)
    table["part"] = np.where(place < NEW, "new", "pool")
    for folder in ("images", "labels"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    for image, label in zip(table["image"], table["label"], strict=True):
        if not (out / image).exists():
            (out / image).symlink_to((cohort / image).resolve())
        values = sitk.ReadImage(cohort / label)
        sitk.WriteImage(sitk.Cast(values > 0, sitk.sitkUInt8), out / label)
    LabelMap.of_values({"lesion": 1}).write(out / "labels.toml")
    table.to_csv(out / "table.csv", index=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    division = commands.add_parser("divide")
    division.add_argument("cohort", type=Path)
    division.add_argument("out", type=Path)
    tables = commands.add_parser("tables")
    tables.add_argument("studies", nargs="+", type=Path)
    tables.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.command == "divide":
        divide(options.cohort, options.out)
        return
    studies = [Study.read(folder) for folder in options.studies]
    if options.json:
        found = [
            {"study": s.name, "fraction": s.fraction, "scores": scores(s), "pairs": pairs(s), "margins": margins(s)}
            for s in studies
        ]
        print(json.dumps({"studies": found, "findings": findings(studies)}, indent=1))
        return
    print(printed(studies))


if __name__ == "__main__":
    main()
