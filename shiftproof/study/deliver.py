"""The model to use: the row that the training domains select, trained again on all of them."""

from __future__ import annotations

import dataclasses
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..autoplan import plan_of
from ..data.cohort import Cohort
from ..data.splits import everything
from ..data.store import Store
from ..deploy.card import write_card
from ..errors import RunError
from ..experiment import prepare
from ..train import Progress, Trainer
from .cell import SPLIT_SEED, jobs, slug, status
from .declare import Declaration


@dataclass(frozen=True)
class Choice:
    """Which row is delivered, and why.

    Args:
        row: Its name.
        rule: In words.
        scores: What the rule compared: mean validation score by row.
    """

    row: str
    rule: str
    scores: dict[str, float]


def selected(folder: Path, declared: Declaration) -> Choice:
    """The row with the best mean score on held-back subjects of the *training* domains.

    Held-out scores take no part. Left out are rows that cannot be retrained on all domains alike (they use
    unlabelled images of the held-out domain), rows that adapt while predicting (validation does not see what
    they do), rows with a failed cell, and the target-supervised reference.

    Raises:
        RunError: If no row is complete.
    """
    import json

    scores: dict[str, list[float]] = {}
    broken: set[str] = set()
    for job in jobs(declared):
        for row, cell in job.cells(folder).items():
            recipe = declared.row(row)
            if recipe.target or recipe.test_time or recipe.role == "target-supervised":
                continue
            if status(cell) != "done":
                broken.add(row)
                continue
            found = json.loads((cell / "cell.json").read_text(encoding="utf-8"))
            mean = found["validation"].get("mean")
            scores.setdefault(row, []).append(math.nan if mean is None else float(mean))
    means = {row: sum(v) / len(v) for row, v in scores.items() if row not in broken}
    means = {row: value for row, value in means.items() if not math.isnan(value)}
    if not means and len(scores.keys() - broken):
        raise RunError(
            f"{folder} held nobody back for validation, so the training domains cannot select a row; "
            f"choose one yourself with --row: {', '.join(scores.keys() - broken)}"
        )
    if not means:
        raise RunError(f"no row of {folder} is complete; run the study again to finish or retry its cells")
    return Choice(max(means, key=lambda row: means[row]), declared.selection, means)


def deliver(
    study: Path,
    out: Path | None = None,
    *,
    row: str | None = None,
    workers: int = 1,
    progress: Callable[[Progress], None] | None = None,
) -> Path:
    """Retrains the selected row on all labelled domains and writes the model folder with its card.

    Args:
        study: A complete study.
        out: The model folder; `STUDY/model` by default.
        row: Another row than the selected one, at the user's own judgement; the card says so.

    Returns:
        The model folder. An interrupted delivery goes on where it stopped.

    Raises:
        RunError: If the study is not complete, or the cohort's files changed since.
    """
    declared = Declaration.load(study)
    if row is None:
        choice = selected(study, declared)
    else:
        choice = Choice(row, "chosen by the user, not by the study's rule", {})
    name = choice.row
    recipe = declared.row(name)
    others = [r.name for r in declared.rows if not r.target and r.role != "target-supervised"]
    if name not in others:
        raise RunError(
            f'"{name}" needs the held-out domain in training and cannot be retrained on all domains; '
            f"rows that can: {', '.join(others)}"
        )
    cohort = Cohort.read(Path(declared.cohort), domain=declared.domain_column)
    if cohort.hash() != declared.cohort_hash:
        raise RunError(f"the files of {declared.cohort} changed since the study; run a new study on them first")
    split = everything(cohort, validation=declared.validation, fraction=declared.fraction, seed=SPLIT_SEED)
    folder = study / "delivery" / slug(name)
    trainer = Trainer(**{**declared.budget, "seed": declared.seeds[0]})
    plan = plan_of(split.train, **declared.plan)
    plan.write(folder / "plan.json")
    experiment = prepare(recipe, split, plan, trainer, Store(study / "store"), workers=workers)
    experiment.train(folder, progress=progress)
    target = Path(out) if out is not None else study / "model"
    if target.resolve() != (folder / "model").resolve():
        _replace(folder / "model", target)
    write_card(target, study=study, row=name, selection=dataclasses.asdict(choice))
    return target


def _replace(source: Path, target: Path) -> None:
    """Copies a folder so that `target` is the old content or the new, never a part."""
    if target.exists() and not (target / "model.json").exists():
        raise RunError(f"{target} exists and is not a model folder; choose another --out")
    temporary = target.with_name(f".{target.name}.new")
    shutil.rmtree(temporary, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(source, temporary)
    shutil.rmtree(target, ignore_errors=True)
    temporary.rename(target)
