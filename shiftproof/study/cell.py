"""One job of a study: train once, then score every row that shares the training."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.cohort import Cohort
from ..data.plan import Plan
from ..data.splits import Split, everything, hold_out, transfer, within
from ..errors import ShiftproofError, StorageError
from ..files import replacing, write_json
from ..metrics.rules import Tolerance
from ..recipe import Recipe
from .declare import LABELS, Declaration

if TYPE_CHECKING:
    import pandas as pd

    from .gap import GapWatch

INTERRUPTED = 130
SPLIT_SEED = 0
"""The division into subjects is the same for every row and every seed: seeds vary training, not the question."""


@dataclass(frozen=True)
class Job:
    """A training run with the rows that are scored from it.

    Args:
        key: Name of the run's folder.
        rows: Names of rows with the same training.
        held_out: Domain.
        seed: Seed of training.
        steps: Steps of training, for the progress display.
    """

    key: str
    rows: tuple[str, ...]
    held_out: str
    seed: int
    steps: int

    def cells(self, folder: Path) -> dict[str, Path]:
        return {row: folder / "cells" / slug(row) / slug(self.held_out) / str(self.seed) for row in self.rows}

    def done(self, folder: Path) -> bool:
        return all(status(cell) == "done" for cell in self.cells(folder).values())


def jobs(study: Declaration) -> list[Job]:
    """All jobs, rows with the same training together; cheap references first is not needed, order is by seed."""
    found = []
    for seed in study.seeds:
        for held_out in study.held_out:
            by_key: dict[str, list[Recipe]] = {}
            for row in study.rows:
                by_key.setdefault(row.training_key(), []).append(row)
            for key, rows in by_key.items():
                steps = int(rows[0].training.get("steps", study.budget["steps"]))
                name = f"{slug(rows[0].name)}-{key}-{slug(held_out)}-{seed}"
                found.append(Job(name, tuple(r.name for r in rows), held_out, seed, steps))
    return found


def divide(study: Declaration, cohort: Cohort, held_out: str) -> Split:
    """The sides of the jobs of one held-out domain; scored without labels, they have no test side."""
    options: dict[str, Any] = {"validation": study.validation, "fraction": study.fraction, "seed": SPLIT_SEED}
    if study.scoring != LABELS:
        known = everything(cohort.where(**{cohort.domain: study.sources}), **options)
        seen = cohort.where(**{cohort.domain: held_out})
        return dataclasses.replace(known, target=seen.without_labels())
    if study.sources:
        sources = [d for d in study.sources if d != held_out]
        return transfer(cohort, sources, held_out, **options)
    return hold_out(cohort, held_out, **options)


def side_of(row: Recipe, split: Split, study: Declaration) -> Split:
    """The reference "target-supervised" trains on the held-out domain's other half; all others on the sources."""
    if row.role != "target-supervised":
        return split
    return within(split, validation=study.validation, seed=SPLIT_SEED)


def status(cell: Path) -> str:
    """ "done", "failed" or "open"."""
    try:
        found = json.loads((cell / "cell.json").read_text(encoding="utf-8"))
        return str(found.get("status", "open"))
    except (OSError, json.JSONDecodeError, AttributeError):
        return "open"


def run_job(folder: Path, job: Job, parent: int | None = None) -> None:
    """Train and score, in a process of its own; whatever fails is written down and does not stop the others."""
    import torch

    if parent is not None:
        _leave_with(parent)
    study = Declaration.load(folder)
    torch.set_num_threads(study.threads)
    with locked(folder / "runs" / f"{job.key}.lock"):
        try:
            _train_and_score(folder, study, job)
        except KeyboardInterrupt:
            sys.exit(INTERRUPTED)  # its state is saved, and the cell stays open
        except Exception as error:
            fail(folder, job, *told(error))


def told(error: Exception) -> tuple[str, str | None, str]:
    """An error in words; where it is a defect and not bad input, with where it came from; and its type."""
    kind = type(error).__name__
    if isinstance(error, ShiftproofError):
        return str(error), None, kind
    return f"{kind}: {error}", "".join(traceback.format_exception(error)), kind


def fail(folder: Path, job: Job, words: str, details: str | None = None, kind: str = "") -> None:
    for row, cell in job.cells(folder).items():
        if status(cell) != "done":
            facts = {"status": "failed", "row": row, "held_out": job.held_out, "seed": job.seed, "error": words}
            more = {"kind": kind, "traceback": details}
            write_json(cell / "cell.json", facts | {key: value for key, value in more.items() if value})


def _train_and_score(folder: Path, study: Declaration, job: Job) -> None:
    from ..data.store import Store
    from ..deploy.model import load_model
    from ..experiment import prepare
    from ..train import Trainer

    cohort = Cohort.read(Path(study.cohort), domain=study.domain_column)
    split = divide(study, cohort, job.held_out)
    plan = Plan.read(folder / "plans" / f"{slug(job.held_out)}.json")
    run_folder = folder / "runs" / job.key
    # What only prediction does is each row's own: the run is trained and kept without it.
    first = dataclasses.replace(study.row(job.rows[0]), test_time=None, test_time_options={})
    trainer = Trainer(**{**study.budget, "seed": job.seed})
    experiment = prepare(first, side_of(first, split, study), plan, trainer, Store(folder / "store"))
    run = experiment.train(run_folder)
    model = load_model(run_folder / "model", device=trainer.device)
    parameters = sum(p.numel() for p in experiment.method().network.parameters())
    apart = {case.subject for cases in experiment.feed.streams.values() for case in cases}

    for row, cell in job.cells(folder).items():
        if status(cell) == "done":
            continue
        started = time.monotonic()
        try:
            own = model.with_recipe(study.row(row))
            side = side_of(study.row(row), split, study)
            watch = watch_of(own, side, split, study, apart)
            found = scored(own, split, cell / "predictions", study, watch)
            gap = None if watch is None else watch.rows(side, study.tolerance_mm, study.lesions)
        except StorageError:
            raise
        except Exception as error:
            fail(folder, dataclasses.replace(job, rows=(row,)), *told(error))
            continue
        if watch is not None and (logits := watch.summary()) is not None:
            write_json(cell / "logits.json", logits)
        for name, table in {"gap.csv": gap, **found.tables()}.items():
            if table is not None:
                table.insert(0, "row", row)
                table.insert(1, "held_out", job.held_out)
                table.insert(2, "seed", job.seed)
                with replacing(cell / name) as path:
                    table.to_csv(path, index=False)
        # Written last: a cell is done when this says so.
        write_json(
            cell / "cell.json",
            {
                "status": "done",
                "row": row,
                "held_out": job.held_out,
                "seed": job.seed,
                "seconds": round(run.seconds, 3),
                "scoring_seconds": round(time.monotonic() - started, 3),
                **({} if watch is None else {"gap_seconds": round(watch.seconds, 3)}),
                "steps": run.steps,
                "selected_step": run.selected,
                "validation": run.validation,
                "parameters": parameters,
                "run": f"runs/{job.key}",
                "notes": found.notes,
            },
        )


@dataclass(frozen=True)
class Scored:
    """Rows, answers where a scan has one label, and what is to be said of the labels."""

    rows: pd.DataFrame
    answers: pd.DataFrame | None = None
    notes: list[str] = field(default_factory=list)

    def tables(self) -> dict[str, pd.DataFrame | None]:
        """By the name of their file, the rows last."""
        return {"answers.csv": self.answers, "rows.csv": self.rows}


def watch_of(model: Any, side: Split, split: Split, study: Declaration, apart: Collection[str] = ()) -> GapWatch | None:
    """What looks at the run's own subjects, too; None where the study asks for nothing, or scores without labels.

    `apart`: training subjects that the method validated on: no weights were fitted to them, and none was held back.
    """
    if not study.gap_subjects or study.scoring != LABELS:
        return None
    from .gap import GapWatch

    return GapWatch.of(model, side, split.test, study.gap_subjects, apart)


def scored(model: Any, split: Split, predictions: Path, study: Declaration, watch: GapWatch | None = None) -> Scored:
    """By the labels of the test side, or by the study's rule that reads none."""
    if study.scoring == LABELS:
        return score(model, split.test, predictions, study.tolerance_mm, study.lesions, watch)
    from ..evaluate.unlabelled import rows_without_labels

    assert split.target is not None
    return Scored(rows_without_labels(model, split.target, study.scoring))


def score(
    model: Any,
    test: Cohort,
    predictions: Path,
    tolerance_mm: Tolerance,
    lesions: Sequence[str] = (),
    watch: GapWatch | None = None,
) -> Scored:
    """What a model scores on the held-out subjects; predicted label files are kept for the report.

    `watch` predicts in place of the model and keeps logits.
    """
    import SimpleITK as sitk

    from ..data.cohort import Row
    from ..data.images import write_image
    from ..deploy.answer import answer_of
    from ..deploy.segment import label_of
    from ..evaluate import rows_of, rows_of_answers
    from ..evaluate.sizes import Size, words

    if test.task != "segmentation":
        answer = watch.answer if watch is not None else lambda row: answer_of(model, row.images)
        return Scored(*rows_of_answers(answer, test))
    names = iter(prediction_names(test))

    def predicted(row: Row) -> sitk.Image:
        image = label_of(model, row.images) if watch is None else watch.label(row)
        write_image(image, predictions / next(names))
        return image

    sizes: list[Size] = []
    rows = rows_of(predicted, test, tolerance_mm=tolerance_mm, lesions=lesions, sizes=sizes)
    return Scored(rows, notes=words(sizes, tolerance_mm))


def prediction_names(test: Cohort) -> list[str]:
    """A file name for each scan, in the order of the rows; scans of one subject are counted."""
    seen: dict[str, int] = {}
    names = []
    for row in test.rows():
        number = seen[row.subject] = seen.get(row.subject, 0) + 1
        names.append(f"{slug(row.subject)}{f'--{number}' if number > 1 else ''}.nii.gz")
    return names


def slug(text: str) -> str:
    """A name that is safe as a file's; different names stay different."""
    import hashlib
    import re

    clean = re.sub(r"[^A-Za-z0-9._=-]+", "_", text).strip(".")
    return clean if clean == text else f"{clean}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """One process at a time; the lock falls with the process that holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as handle:
        try:
            import fcntl
        except ImportError:  # not on this system: two studies in one folder are then the user's own care
            yield
            return
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _leave_with(parent: int) -> None:
    """Ends this process soon after the study's own: an orphan would write beside a resumed study."""

    def watch() -> None:
        while True:
            try:
                os.kill(parent, 0)
            except ProcessLookupError:
                os._exit(1)
            except PermissionError:
                return
            time.sleep(0.5)

    threading.Thread(target=watch, daemon=True).start()
