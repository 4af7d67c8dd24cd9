"""Where a trained network puts voxels of each class: those it was trained on beside those it has never seen.

The analysis of Z. Li, K. Kamnitsas, B. Glocker, "Analyzing Overfitting under Class Imbalance in Neural Networks for
Image Segmentation", IEEE TMI 40 (2021), https://arxiv.org/abs/2102.10365: with few subjects, unseen voxels of a rare
class lie nearer to the decision boundary than those of training, and partly beyond it, while the background stays. Both
sides go the way that a prediction goes: evaluation mode, no augmentation, the same windows, logits before the softmax.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from ..data.cohort import Cohort, Row
from ..data.labels import LabelMap
from ..deploy.answer import scores_of
from ..deploy.model import Model, load_model
from ..deploy.segment import label_of
from ..errors import CohortError, LabelError, OptionError
from ..files import strict, write_json
from ..names import choose
from ..statistics.densities import counted, step_for
from ..statistics.margins import crossing_fraction, margin_shift
from .sides import SIDES, sides_of
from .voxels import CAP, CaseLogits, Truth, VoxelLogits, scan_logits, truths_of

FORMAT = 1
Pairs = Literal["strongest", "all"]
Update = Callable[[int, int, str], None]
POINTS = 200
"""Samples of a class and side up to which they are kept one by one: few scans make no density."""


@dataclass(frozen=True)
class Logits:
    """Logits of scans, with what they are of.

    Args:
        truths: The classes.
        classes: Names of the columns.
        cases: One for each scan.
        facts: What was looked at: model, cohort, cap, seed.
    """

    truths: list[Truth]
    classes: list[str]
    cases: list[CaseLogits]
    facts: dict[str, Any]

    def of(self, truth: Truth, side: str) -> np.ndarray:
        """(N, K), of all scans of a side."""
        found = [c.logits[truth.name] for c in self.cases if c.side == side and truth.name in c.logits]
        return np.concatenate(found) if found else np.zeros((0, len(self.classes)), np.float32)


def logits(
    model: Path | Model,
    cohort: Path | Cohort,
    *,
    test: Path | Cohort | str | None = None,
    train: str | None = None,
    out: Path | None = None,
    domain: str = "site",
    subjects: int = 24,
    cap: int = CAP,
    pairs: Pairs = "strongest",
    seed: int = 0,
    device: str = "auto",
    batch: int = 4,
    progress: Update | None = None,
) -> dict[str, Any]:
    """Logits of subjects that a model was trained on and of others, by true class; what moved, and by how much.

    Args:
        model: A model folder of a segmentation or classification.
        cohort: A labelled cohort.
        test: Where the unseen subjects are: another cohort, or a selection of this one such as "site=C". By default
            all that the model was not trained on and that did not select it, as its folder knows them.
        train: A selection of subjects that it was trained on, such as "site=A,B"; by default as the folder knows them.
        out: Folder for `logits.json`.
        domain: Column that names the domain.
        subjects: At most so many of each side, a fixed draw over its domains; 0 takes all.
        cap: Voxels of a scan and class at most.
        pairs: Which competitors of a class have a density: the "strongest", or "all".
        seed: Of the draw of voxels.
        device: "cpu", "cuda" or "auto".
        batch: Windows scored together.
        progress: Called with scans done, scans in total and the subject that is next.

    Returns:
        What `summary` gives.

    Raises:
        OptionError: If the model predicts a number, or a number is out of range.
        SplitError: If nobody is on a side, or somebody on both.
        LabelError: If the cohort's classes are not the model's.
    """
    choose(pairs, get_args(Pairs), "choice of competitors")
    if cap < 1 or subjects < 0:
        raise OptionError(f"it takes at least 1 voxel of a class and 0 subjects (all), got {cap} and {subjects}")
    loaded = model if isinstance(model, Model) else load_model(Path(model), device=device)
    sides = sides_of(loaded, cohort, test=test, train=train, domain=domain, subjects=subjects)
    truths = truths_of(loaded.plan.target, loaded.classes)
    for side in sides.values():
        require_classes(loaded, side)
    facts = {"model": loaded.folder.name, "hash": loaded.hash, "cap": cap, "seed": seed}
    facts["samples"] = samples_of(loaded)
    if loaded.recipe is not None:
        facts["row"] = loaded.recipe.name
    found = Logits(truths, columns_of(loaded), [], facts)
    todo = [(name, *numbered) for name, side in sides.items() for numbered in scans_of(side)]
    for done, (name, row, scan, labels) in enumerate(todo):
        if progress is not None:
            progress(done, len(todo), row.subject)
        case = CaseLogits(row.subject, row.domain, scan, name)
        case.logits = logits_of(loaded, row, labels, truths, cap=cap, seed=seed, scan=scan, batch=batch)
        found.cases.append(case)
    if progress is not None:
        progress(len(todo), len(todo), "")
    result = summary(found, pairs=pairs)
    if out is not None:
        write_json(Path(out) / "logits.json", result)
    return result


def logits_of(
    model: Model,
    row: Row,
    labels: LabelMap | None,
    truths: Sequence[Truth],
    *,
    cap: int = CAP,
    seed: int = 0,
    scan: int = 1,
    batch: int = 4,
) -> dict[str, Any]:
    """Of one scan: by true class (n, K)."""
    if labels is None:
        scores = model.task.scores(scores_of(model, row.images, batch=batch))
        return dict(scan_logits(row, scores[0].float().cpu().numpy(), truths))
    seen = VoxelLogits(row, labels, truths, cap=cap, seed=seed, scan=scan)
    label_of(model, row.images, batch=batch, see=seen.see)
    return dict(seen.logits)


def scans_of(cohort: Cohort) -> Iterable[tuple[Row, int, LabelMap | None]]:
    """Labelled scans with their number within the subject and, of a segmentation, the meaning of their labels."""
    seen: dict[str, int] = {}
    labels = cohort.labels if isinstance(cohort.labels, LabelMap) else None
    for row in cohort.rows():
        seen[row.subject] = seen.get(row.subject, 0) + 1
        if row.labelled:
            yield row, seen[row.subject], labels


def columns_of(model: Model) -> list[str]:
    """Names of the columns of the scores."""
    several = model.plan.target.get("kind") == "multi-label" and model.plan.task == "segmentation"
    return model.classes[1:] if several else model.classes


def samples_of(model: Model) -> str:
    """What is counted."""
    return "voxels" if model.plan.task == "segmentation" else "scans"


def require_classes(model: Model, cohort: Cohort) -> None:
    """Raises LabelError or CohortError where a cohort cannot say of a model's classes what is true."""
    if not cohort.labelled:
        raise CohortError(f"{cohort.root} has no labelled scan; true classes are read from labels")
    if model.classes != cohort.classes:
        raise LabelError(
            f"{model.folder} predicts {', '.join(model.classes)}, the cohort has {', '.join(cohort.classes)}; "
            "use one with the same classes in the same order"
        )


def summary(found: Logits, *, pairs: Pairs = "strongest") -> dict[str, Any]:
    """Densities, margins and their shifts as JSON has them: all that tables, words and figures are made of.

    Returns:
        "panels": one for each true class and competitor, with densities by side; "shifts": of each class from the
        training side to each other, over all samples, and over scans, each counting once; "cases": margins of each
        scan.
    """
    sides = [side for side in SIDES if any(c.side == side for c in found.cases)]
    result: dict[str, Any] = {
        "format": FORMAT,
        **found.facts,
        "classes": found.classes,
        "switches": any(t.switch for t in found.truths),
        "sides": {
            side: {
                "subjects": len({c.subject for c in found.cases if c.side == side}),
                "domains": sorted({c.domain for c in found.cases if c.side == side}),
            }
            for side in sides
        },
        "panels": [panel for truth in found.truths for panel in panels(found, truth, sides, pairs)],
        "shifts": [shift for truth in found.truths for shift in shifts(found, truth, sides)],
        "cases": [line for case in found.cases for line in case_lines(case, found.truths)],
    }
    return strict(result)  # type: ignore[no-any-return]


def panels(found: Logits, truth: Truth, sides: Sequence[str], pairs: Pairs) -> list[dict[str, Any]]:
    """Densities over the logits of the true class and of a competitor; of a switch, over its logit alone."""
    by_side = {side: found.of(truth, side) for side in sides}
    everything = np.concatenate(list(by_side.values()))
    if not len(everything):
        return []
    step = step_for(everything[:, [truth.column]] if truth.switch else everything)
    result = []
    for other in competitors(truth, everything, pairs):
        axes = [truth.column] if other is None else [truth.column, other]
        result.append(
            {
                "truth": truth.name,
                "column": found.classes[truth.column],
                "competitor": None if other is None else found.classes[other],
                "sides": {
                    side: {
                        "n": len(values),
                        "mean": [float(values[:, k].mean()) for k in axes],
                        "density": counted([values[:, k] for k in axes], step),
                        "points": values[:, axes].round(4).tolist() if len(values) <= POINTS else [],
                    }
                    for side, values in by_side.items()
                    if len(values)
                },
            }
        )
    return result


def competitors(truth: Truth, values: np.ndarray, pairs: Pairs) -> list[int | None]:
    """Columns that a true class is drawn against: by default the one with the highest mean logit."""
    if truth.switch:
        return [None]
    means = values.mean(0)
    others = sorted((k for k in range(values.shape[1]) if k != truth.column), key=lambda k: -means[k])
    return list(others if pairs == "all" else others[:1])


def shifts(found: Logits, truth: Truth, sides: Sequence[str]) -> list[dict[str, Any]]:
    """From the training side to each other."""
    if "train" not in sides:
        return []
    seen = truth.margins(found.of(truth, "train"))
    result = []
    for side in sides:
        if side != "train":
            pooled = dataclasses.asdict(margin_shift(seen, truth.margins(found.of(truth, side))))
            result.append({"truth": truth.name, "to": side, **pooled, "by_case": by_case(found, truth, side)})
    return result


def by_case(found: Logits, truth: Truth, side: str) -> dict[str, Any]:
    """The same with each scan counting once: means of margins, and crossing fractions, over scans."""
    lines = {
        name: [truth.margins(c.logits[truth.name]) for c in found.cases if c.side == name and truth.name in c.logits]
        for name in ("train", side)
    }
    means = {name: np.array([d.mean() for d in own]) for name, own in lines.items()}
    crossing = {name: [crossing_fraction(d) for d in own] for name, own in lines.items()}
    shift = margin_shift(means["train"], means[side])
    return {
        "n_train": shift.n_train,
        "n_test": shift.n_test,
        "shift": shift.shift,
        "crossing_train": float(np.mean(crossing["train"])) if crossing["train"] else None,
        "crossing": float(np.mean(crossing[side])) if crossing[side] else None,
    }


def case_lines(case: CaseLogits, truths: Sequence[Truth]) -> list[dict[str, Any]]:
    result = []
    for truth in truths:
        if truth.name in case.logits:
            d = truth.margins(case.logits[truth.name])
            result.append(
                {
                    "subject": case.subject, "domain": case.domain, "scan": case.scan, "side": case.side,
                    "truth": truth.name, "n": len(d), "mean": float(d.mean()), "median": float(np.median(d)),
                    "crossing": crossing_fraction(d),
                }
            )  # fmt: skip
    return result
