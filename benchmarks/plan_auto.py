"""`--plan auto` against the fixed plan on three cohorts of different size and spacing, with one budget of seconds.

python benchmarks/plan_auto.py FOLDER [--seconds 600] [--memory-gb 2] [--base 32] [--seeds 1] [--held-out 1]
    [--fixed-patch 32,32,32 --fixed-batch 2] [--json]

For each cohort, held-out site and seed, `erm` is trained so many seconds: with the fixed plan and its usual light
augmentation; with the fixed plan, the automatic plan's strong augmentation and its share of patches on structures, so
that the plan alone differs from the next; and with the automatic plan. All three are scored on the same held-out
subjects. Printed are the mean Dice over subjects and structures, and the paired difference of each row to the first
with its 95 % interval over subjects (`statistics.interval`). The plans are made from the training sites alone.

The fixed plan knows no memory: of a 3D cohort it takes 8 patches of up to 96 voxels a side. `--fixed-patch` and
`--fixed-batch` are what somebody with little memory or time would type instead.

Budgets are seconds of one process on this machine, so results depend on it. The same command goes on where an
interrupted one stopped; what is complete is not run again. Nothing in the planner was tuned on what it prints.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pandas as pd
import torch

import shiftproof.scenarios
from shiftproof.data.cohort import Cohort
from shiftproof.recipe import Recipe
from shiftproof.statistics.intervals import interval
from shiftproof.study.single import train
from shiftproof.train import Trainer
from shiftproof.versions import versions

COHORTS = ("brain-sites:3d", "chest-ct-sites:3d", "brain-sites:2d")
SUBJECTS = 12  # a site
ENDLESS = 10**6  # steps; seconds end a run


def rows(options: argparse.Namespace) -> dict[str, tuple[Recipe, dict[str, Any]]]:
    """By name: recipe and options of the plan."""
    automatic = {"automatic": True, "memory_gb": options.memory_gb, "base": options.base, "keep": []}
    alike = {"transforms": "strong", "sampling": {"foreground": 1 / 3}}
    fixed = {} if options.fixed_patch is None else {"patch": options.fixed_patch}
    batch = {} if options.fixed_batch is None else {"training": {"batch": options.fixed_batch}}
    return {
        "fixed": (Recipe("fixed", **batch), fixed),
        "fixed, strong": (Recipe("fixed, strong", **alike, **batch), fixed),
        "auto": (Recipe("auto", transforms="strong"), automatic),
    }


def cohort_of(name: str, folder: Path, subjects: int) -> Path:
    scenario, _, size = name.partition(":")
    made = shiftproof.scenarios.make(scenario, folder / "cohorts" / f"{scenario}-{size}", size=size, subjects=subjects)
    return made / "table.csv"


def trained(
    table: Path, row: str, held_out: str, seed: int, folder: Path, options: argparse.Namespace
) -> dict[str, Any]:
    """One training: what it was, and Dice by subject, mean over structures."""
    path = folder / "result.json"
    if path.exists():
        return dict(json.loads(path.read_text(encoding="utf-8")))
    recipe, plan = rows(options)[row]
    trainer = Trainer(steps=ENDLESS, seconds=options.seconds, seed=seed, device=options.device, validate_every=ENDLESS)
    run = train(table, recipe, folder, hold_out=held_out, trainer=trainer, plan=plan, tolerance_mm=2.0)
    chosen = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    scored = pd.read_csv(folder / "rows.csv")
    dice = scored[scored["metric"] == "dice"].groupby("subject")["value"].mean()
    training = recipe.training or chosen.get("automatic", {}).get("training", {})
    found = {
        "steps": run["steps"],
        "seconds": run["seconds"],
        "patch": chosen["patch"],
        "spacing_mm": chosen["spacing_mm"],
        "batch": training.get("batch", trainer.batch),
        "levels": len(chosen.get("automatic", {}).get("network", {}).get("widths", [0] * 4)),
        "dice": {str(subject): float(value) for subject, value in dice.items()},
    }
    path.write_text(json.dumps(found, indent=2), encoding="utf-8")
    return found


def compared(name: str, folder: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """The rows on one cohort, each pooled over held-out sites, and over seeds by subject."""
    table = cohort_of(name, folder, options.subjects)
    domains = Cohort.read(table).domains[: options.held_out]
    found, first = [], pd.Series(dtype=float)
    for row in rows(options):
        runs = []
        for held_out in domains:
            for seed in range(options.seeds):
                place = folder / name.replace(":", "-") / row.replace(", ", "-") / held_out / str(seed)
                runs.append(trained(table, row, held_out, seed, place, options))
                print(f"{name}, {row}, held out {held_out}, seed {seed}: {runs[-1]['steps']} steps", flush=True)
        dice = pd.DataFrame([run["dice"] for run in runs]).mean()
        first = dice if first.empty else first
        difference = interval((dice - first).to_numpy()) if row != "fixed" else None
        found.append(
            {
                "cohort": name,
                "row": row,
                "subjects": len(dice),
                "dice": float(dice.mean()),
                "difference": None if difference is None else float((dice - first).mean()),
                "low": None if difference is None else difference.low,
                "high": None if difference is None else difference.high,
                **{key: runs[0][key] for key in ("patch", "spacing_mm", "batch", "levels", "steps")},
            }
        )
    return found


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=600.0, help="of each training")
    parser.add_argument("--memory-gb", type=float, default=2.0)
    parser.add_argument("--base", type=int, default=32)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--held-out", type=int, default=1, help="sites of each cohort that are held out in turn")
    parser.add_argument("--subjects", type=int, default=SUBJECTS, help="a site")
    parser.add_argument("--cohorts", nargs="+", default=COHORTS, help="SCENARIO:SIZE")
    parser.add_argument("--fixed-patch", type=numbers, help="of the fixed plan, voxels; as it is by default")
    parser.add_argument("--fixed-batch", type=int, help="of the fixed plan; as it is by default")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    # Trainings of another budget are another benchmark.
    told = f"{options.seconds:g}s-{options.memory_gb:g}GB-{options.base}-{options.subjects}"
    if options.fixed_patch or options.fixed_batch:
        told += f"-{'x'.join(map(str, options.fixed_patch or ['usual']))}-{options.fixed_batch}"
    found = [line for name in options.cohorts for line in compared(name, options.folder / told, options)]
    if options.json:
        print(json.dumps({"versions": versions(), "options": vars(options), "rows": found}, default=str))
        return
    print(f"{versions()}, {options.threads} threads, {options.seconds:g} s each, {options.seeds} seed(s)")
    names = ("cohort", "row", "Dice", "difference to fixed", "patch", "batch", "levels", "steps")
    print("{:18}{:15}{:>6}  {:24}{:14}{:>6}{:>7}{:>7}".format(*names))
    for line in found:
        change = "" if line["low"] is None else f"{line['difference']:+.3f} [{line['low']:+.3f}, {line['high']:+.3f}]"
        patch = "x".join(map(str, line["patch"]))
        print(
            f"{line['cohort']:18}{line['row']:15}{line['dice']:6.3f}  {change:24}{patch:14}"
            f"{line['batch']:6}{line['levels']:7}{line['steps']:7}"
        )


if __name__ == "__main__":
    main()
