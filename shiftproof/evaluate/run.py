"""A model, or predictions of any origin, on a labelled cohort."""

from __future__ import annotations

import collections
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import SimpleITK as sitk

from .. import errors
from ..catalogue import choose
from ..data.cohort import Cohort, Row
from ..data.plan import Plan
from ..data.tables import as_text, read_table
from ..data.targets import Targets
from ..deploy.answer import Answer, answer_of
from ..deploy.matching import Key, check_meaning, find_predictions, key_of, names_of, require_same_target
from ..deploy.model import Model, load_model
from ..deploy.predictor import predict_scans
from ..deploy.scans import of_cohort
from ..deploy.segment import label_of as predicted_label
from ..deploy.torchscript import load_torchscript
from ..errors import CohortError, LabelError, OptionError, ShiftproofError
from ..files import replacing, write_json
from ..metrics.rules import TOLERANCE_MM, Tolerance
from ..metrics.segmentation import check_asked
from ..versions import versions
from .answers import primary_of, rows_of_answers
from .rows import Failure, Update, Values, rows_of
from .sizes import Size, words

if TYPE_CHECKING:
    import pandas as pd

Missing = Literal["report", "missed"]


@dataclass(frozen=True)
class Evaluation:
    """What was found.

    Args:
        rows: Columns `COLUMNS`; a line for each subject, annotated structure and metric.
        answers: Columns `ANSWERS`, where a scan has one label; else None.
        failures: Scans that could not be scored; no mean contains them.
        facts: What was scored and how: the content of `evaluation.json`.
        out: Folder of `rows.csv` and `evaluation.json`; None if nothing was written.
    """

    rows: pd.DataFrame
    failures: list[Failure] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    out: Path | None = None
    answers: pd.DataFrame | None = None


def evaluate(
    cohort: Cohort,
    *,
    model: Path | Model | None = None,
    predictions: Path | None = None,
    plan: Path | Plan | None = None,
    values: Values = "indices",
    missing: Missing = "report",
    out: Path | None = None,
    tolerance_mm: Tolerance = TOLERANCE_MM,
    lesions: Sequence[str] = (),
    smallest_lesion_ml: float = 0.0,
    also: Sequence[str] = (),
    device: str = "auto",
    batch: int = 4,
    workers: int = 1,
    progress: Update | None = None,
) -> Evaluation:
    """Scores a model, or predictions that any tool made, on a labelled cohort.

    Args:
        cohort: With labels.
        model: A model folder; or a TorchScript file, which is a program of the user's own and is run.
        predictions: Instead of a model: a folder of label files, named after the subjects or after the files
            of the images (an nnU-Net output folder is one). Where a scan has one label, a table: columns `subject`
            (or `scan`) and a `probability:CLASS` for each class, or `answer` with a number.
        plan: Preprocessing of a TorchScript file.
        values: See `rows_of`; for `predictions`.
        missing: "report": a scan without prediction is listed as a failure and no mean contains it; "missed":
            all its structures count as missed.
        out: Folder for `rows.csv`, `evaluation.json` and the predictions of a model; the same
            call continues after an interruption.
        tolerance_mm: Of the surface Dice; by structure where they differ.
        lesions: See `rows_of`.
        smallest_lesion_ml: See `rows_of`.
        also: See `rows_of`.
        device: "cpu", "cuda" or "auto".
        batch: Windows scored together.
        workers: Threads that measure.
        progress: Called with scans done, scans in total and the subject that is next.

    Raises:
        OptionError: If neither or both of model and predictions are given, a TorchScript file lacks its
            plan, or a structure or metric is unknown.
        ModelError: If the model cannot be loaded.
        LabelError: If its classes are not the cohort's.
        CohortError: If nothing is labelled, nothing can be scored, or predictions have names that fit no
            scan.
    """
    choose(missing, get_args(Missing), "treatment of missing predictions")
    if (model is None) == (predictions is None):
        raise OptionError("evaluate needs either a model or a folder of predictions, and not both")
    labelled = cohort.only_labelled()
    if not len(labelled):
        raise CohortError(f"{cohort.root} has no labelled scan to score against; fill the table's label column")
    facts: dict[str, Any] = {
        "name": cohort.root.name,
        "cohort": str(cohort.root),
        "domain_column": cohort.domain,
        "domains": labelled.domains,
        "classes": cohort.classes,
        "primary": "dice",
        "task": cohort.labels.as_dict() if isinstance(cohort.labels, Targets) else {"task": "segmentation"},
        "tolerance_mm": dict(tolerance_mm) if isinstance(tolerance_mm, Mapping) else tolerance_mm,
        "lesions": list(lesions),
        "smallest_lesion_ml": smallest_lesion_ml,
        "also": list(also),
        "values": values,
        "missing": missing,
        "unlabelled": len(cohort) - len(labelled),
        "versions": versions(),
    }
    if isinstance(cohort.labels, Targets):
        if lesions or also or smallest_lesion_ml:
            raise OptionError(
                f"lesions and further metrics are of a segmentation, {cohort.root} is for {cohort.task}; leave them out"
            )
        return _of_answers(labelled, cohort.labels, facts, model, predictions, missing, out, device, batch, progress)
    check_asked(cohort.classes[1:], tolerance_mm, lesions, smallest_lesion_ml, also)  # before anything is predicted
    if smallest_lesion_ml and not lesions:
        raise OptionError("a smallest lesion is for lesions that are counted; name their structures (--lesions), too")
    files: dict[Key, Path | ShiftproofError] = {}
    if predictions is not None:
        files = _of_folder(Path(predictions), labelled)
        facts["predictions"] = str(predictions)
    else:
        assert model is not None
        loaded = model if isinstance(model, Model) else load(Path(model), plan, device=device)
        values = facts["values"] = "indices"
        facts |= _about(loaded, labelled)
        if out is not None:
            # A folder for each model: results of one are never taken for another's.
            folder = Path(out) / f"predictions-{loaded.hash[:8]}"
            files = _predicted(loaded, labelled, folder, batch, progress)

    def label_of(row: Row) -> sitk.Image | Path | None:
        try:
            if not files:
                return predicted_label(loaded, row.images, batch=batch)
            found = files[key_of(row)]
            if isinstance(found, ShiftproofError):
                raise found
            return found
        except ShiftproofError:
            if missing == "missed":
                return None
            raise

    failures: list[Failure] = []
    sizes: list[Size] = []
    rows = rows_of(
        label_of,
        labelled,
        tolerance_mm=tolerance_mm,
        lesions=lesions,
        smallest_lesion_ml=smallest_lesion_ml,
        also=also,
        values=values,
        failures=failures,
        sizes=sizes,
        workers=workers,
        progress=progress,
    )
    if rows.empty:
        reason = f"the first: {failures[0].message}" if failures else "no domain annotates any structure"
        raise CohortError(f"none of {len(labelled)} scans could be scored; {reason}")
    facts["failures"] = [asdict(f) for f in failures]
    facts["notes"] = words(sizes, tolerance_mm)
    found = Evaluation(rows, failures, facts, None if out is None else Path(out))
    if found.out is not None:
        write(found, found.out, labelled, files)
    return found


def _of_answers(
    cohort: Cohort,
    targets: Targets,
    facts: dict[str, Any],
    model: Path | Model | None,
    predictions: Path | None,
    missing: Missing,
    out: Path | None,
    device: str,
    batch: int,
    progress: Update | None,
) -> Evaluation:
    """As `evaluate`, where a scan has one label."""
    if missing == "missed":
        raise OptionError("a scan without a prediction can count as missed in segmentation only; use missing=report")
    facts["primary"] = primary_of(targets.as_dict() | {"unit": targets.unit})
    if predictions is not None:
        facts["predictions"] = str(predictions)
        answers = matched(read_answers(Path(predictions), targets), cohort, Path(predictions))

        def answer(row: Row) -> Answer | None:
            return answers.get(key_of(row))
    else:
        assert model is not None
        loaded = model if isinstance(model, Model) else load_model(Path(model), device=device)
        facts |= _about(loaded, cohort)

        def answer(row: Row) -> Answer | None:
            return answer_of(loaded, row.images, batch=batch)

    failures: list[Failure] = []
    rows, found = rows_of_answers(answer, cohort, failures=failures, progress=progress)
    if rows.empty:
        raise CohortError(f"none of {len(cohort)} scans could be scored; the first: {failures[0].message}")
    facts["failures"] = [asdict(f) for f in failures]
    result = Evaluation(rows, failures, facts, None if out is None else Path(out), found)
    if result.out is not None:
        with replacing(result.out / "answers.csv") as temporary:
            found.to_csv(temporary, index=False)
        write(result, result.out, cohort, {})
    return result


def matched(answers: Mapping[str, Answer], cohort: Cohort, path: Path) -> dict[Key, Answer]:
    """For each scan the answer that has its name: the subject's, where it has one scan, or its image's.

    Raises:
        CohortError: If some lines fit no scan while some scans have no line.
    """
    check_meaning(path if path.is_dir() else path.parent, cohort)
    number = collections.Counter(row.subject for row in cohort.rows())
    found: dict[Key, Answer] = {}
    used = set()
    for row in cohort.rows():
        names = [n for n in names_of(row, number[row.subject] == 1, cohort.channels) if n in answers]
        if names:
            found[key_of(row)] = answers[names[0]]
            used.add(names[0])
    unused = [name for name in answers if name not in used]
    missing = [row.subject for row in cohort.rows() if key_of(row) not in found]
    shared = {name for name in number if number[name] > 1}
    if (missing and unused) or not used or shared & set(unused):
        raise CohortError(
            f"{path} has no prediction for {', '.join(missing[:8])}; lines that fit no scan: {', '.join(unused[:8])}; "
            "name them after the subject, or the image file where a subject has several scans"
        )
    return found


def read_answers(path: Path, targets: Targets) -> dict[str, Answer]:
    """A table of predictions by subject or scan, as `shiftproof predict` or any other tool writes it.

    Raises:
        CohortError: If a column is missing or a subject occurs twice.
        LabelError: If a cell is no number, or probabilities do not lie between 0 and 1.
    """
    table = as_text(read_table(path / "predictions.csv" if path.is_dir() else path))
    who = next((c for c in ("subject", "scan") if c in table), None)
    needed = [f"probability:{name}" for name in targets.classes] or ["answer"]
    lacking = [c for c in needed if c not in table] + ([] if who else ["subject"])
    if lacking or who is None:
        raise CohortError(f'{path} has no column "{lacking[0]}"; it needs subject and {", ".join(needed)}')
    found: dict[str, Answer] = {}
    for line in table.to_dict("records"):
        name = line[who]
        if name in found:
            raise CohortError(f"{path} has several predictions of {name}; keep one line a subject")
        try:
            numbers = [float(line[c]) for c in needed]
        except ValueError as error:
            raise LabelError(f"{path}: the prediction of {name} is no number ({error})") from error
        if not all(map(math.isfinite, numbers)):
            raise LabelError(f"{path}: the prediction of {name} is {numbers}, expected finite numbers")
        if targets.task == "regression":
            found[name] = Answer(numbers[0], {}, targets.unit)
            continue
        off = targets.kind != "multi-label" and abs(sum(numbers) - 1) > 1e-3
        if not all(0 <= p <= 1 for p in numbers) or off:
            raise LabelError(
                f"{path}: probabilities of {name} are {numbers}, expected numbers between 0 and 1"
                + (" that add up to 1" if off else "")
            )
        certain = dict(zip(targets.classes, numbers, strict=True))
        several = [c for c, p in certain.items() if p > 0.5]
        best = max(certain, key=lambda c: certain[c])
        found[name] = Answer(several if targets.kind == "multi-label" else best, certain)
    return found


def load(model: Path, plan: Path | Plan | None, *, device: str) -> Model:
    """A model folder, or a TorchScript file with its plan."""
    if not model.is_file():
        return load_model(model, device=device)
    if plan is None:
        raise OptionError(
            f"{model} is a file; a TorchScript network needs a plan of its preprocessing (--plan plan.json), "
            "a shiftproof model is a folder"
        )
    return load_torchscript(model, plan if isinstance(plan, Plan) else Plan.read(plan), device=device)


def write(found: Evaluation, out: Path, cohort: Cohort, files: Mapping[Key, Path | ShiftproofError]) -> None:
    """Rows, which scan has which prediction, the cohort with the meaning of its labels, and facts."""
    import pandas as pd

    subjects = [
        {
            "subject": row.subject,
            "domain": row.domain,
            **{c if c == "image" else f"image:{c}": str(p or "") for c, p in row.images.items()},
            "label": str(row.label or ""),
            "prediction": str(path) if isinstance(path := files.get(key_of(row)), Path) else "",
        }
        for row in cohort.rows()
    ]
    for name, rows in {"rows.csv": found.rows, "subjects.csv": pd.DataFrame(subjects)}.items():
        with replacing(out / name) as temporary:
            rows.to_csv(temporary, index=False)
    table = cohort.write(out / "cohort" / "table.csv")
    write_json(out / "evaluation.json", {**found.facts, "cohort": str(table.absolute())})


def _of_folder(folder: Path, cohort: Cohort) -> dict[Key, Path | ShiftproofError]:
    found: dict[Key, Path | ShiftproofError] = {}
    for key, path in find_predictions(folder, cohort).items():
        found[key] = path or CohortError(
            f"{folder} has no prediction for {key[0]}; add it, or count it as missed (missing=missed)"
        )
    return found


def _predicted(
    model: Model, cohort: Cohort, folder: Path, batch: int, progress: Update | None
) -> dict[Key, Path | ShiftproofError]:
    made = predict_scans(model, of_cohort(cohort), folder, batch=batch, progress=progress, overwrite=True)
    found: dict[Key, Path | ShiftproofError] = {}
    for row, one in zip(cohort.rows(), made, strict=True):
        kind = getattr(errors, one.kind or "", ShiftproofError)
        found[key_of(row)] = kind(one.error) if one.output is None else one.output
    return found


def _about(model: Model, cohort: Cohort) -> dict[str, Any]:
    """What is scored.

    Raises:
        LabelError: If its classes are not the cohort's.
    """
    require_same_target(model.plan.target, cohort, f"{model.folder} is for")
    if model.classes != cohort.classes:
        raise LabelError(
            f"{model.folder} predicts {', '.join(model.classes)}, "
            f"the cohort has {', '.join(cohort.classes)}; use one with the same classes in the same order"
        )
    trained = model.setting.domains[: model.setting.sources] if model.setting else []
    return {
        "model": {
            "folder": str(model.folder),
            "hash": model.hash,
            "recipe": model.recipe and model.recipe.as_dict(),
        },
        # Scores on domains that it was trained on say nothing of a new one.
        "seen_domains": [d for d in cohort.domains if d in trained],
    }
