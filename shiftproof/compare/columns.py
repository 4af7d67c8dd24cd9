"""What the columns of a table of scores mean, guessed from the names that people give them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..errors import OptionError
from ..names import choose

# In the order of preference: where a table names patients and their scans, the patient is the unit.
NAMES = {
    "subject": [
        "subject", "subject id", "subjectid", "patient", "patient id", "patientid", "participant", "participant id",
        "pid", "case", "case id", "caseid", "id", "identifier", "uid", "key", "sample", "sample id", "scan", "scan id",
        "volume", "volume id", "image", "image id", "imageid", "filename", "file name", "file", "unnamed: 0", "",
    ],
    "method": [
        "method", "row", "method name", "algorithm", "algo", "model", "model name", "team", "approach", "system",
        "network", "architecture", "classifier", "technique", "configuration", "config", "submission", "arm",
    ],
    "value": ["value", "score", "result", "metric value", "measurement"],
    "metric": ["metric", "measure", "metric name"],
    "structure": ["structure", "label", "class", "organ", "region", "roi", "tissue"],
    "domain": [
        "held out", "domain", "site", "center", "centre", "hospital", "institution", "scanner", "vendor", "dataset",
        "cohort",
    ],
    "seed": ["seed", "run", "repeat", "repetition", "replicate"],
}  # fmt: skip

# Names that are a metric: such a column holds its values, and is no method.
BETTER_HIGHER = (
    "dice", "dsc", "dice score", "dice coefficient", "f1", "f1 score", "iou", "jaccard", "jaccard index", "nsd",
    "surface dice", "normalized surface dice", "boundary iou", "cldice", "cl dice", "accuracy", "acc",
    "balanced accuracy", "correct", "auc", "auroc", "roc auc", "average precision", "ap", "auprc", "sensitivity",
    "recall", "specificity", "precision", "ppv", "npv", "kappa", "mcc", "psnr", "ssim", "ncc", "r2", "correlation",
    "panoptic quality", "pq", "lesion f1", "lesion sensitivity", "lesion precision",
)  # fmt: skip
BETTER_LOWER = (
    "hd", "hd95", "hd95 mm", "hausdorff", "hausdorff distance", "hausdorff95", "assd", "assd mm", "asd", "masd", "msd",
    "distance", "surface distance", "tre", "mae", "mse", "rmse", "absolute error", "error", "volume error",
    "volume error ml", "class error", "loss", "nll", "brier", "brier score", "ece", "lpips", "nmse", "false lesions",
)  # fmt: skip

# Numbers that describe a subject or a line, and are the score of no method.
DESCRIBES = {"age", "sex", "fold", "split", "slice", "lesion", "index", "time", "year", "weight", "height", "bmi"}


@dataclass(frozen=True)
class Columns:
    """Which column is what; "" where a table has none. `methods` are the columns of a wide table."""

    subject: str
    method: str = ""
    value: str = ""
    metric: str = ""
    structure: str = ""
    domain: str = ""
    seed: str = ""
    methods: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)  # further columns that hold a metric

    @property
    def words(self) -> str:
        """Which column was taken for what."""
        parts = {part: getattr(self, part) for part in NAMES}
        return ", ".join(f'{part} "{name}"' for part, name in parts.items() if name and part != normal(name))


def normal(name: str) -> str:
    """Lower case with single spaces for what people put between words."""
    return re.sub(r"[\s_\-.]+", " ", name).strip().lower()


def guessed(
    header: Sequence[str], numeric: Sequence[str], *, metric: str | None, given: Mapping[str, str] | None, where: str
) -> Columns:
    """Columns by their names, or by those `given`.

    Args:
        header: Of the table.
        numeric: The columns whose cells are numbers, but for slips.
        metric: The one that is asked for; a column of this name holds the values.
        given: Column by meaning, such as {"subject": "Fall"}; these are not guessed.
        where: What to call the table in messages.

    Raises:
        OptionError: For a meaning or a column that does not exist, or where no column can be the subject or the value.
    """
    given = dict(given or {})
    for part, name in given.items():
        choose(part, NAMES, "meaning of a column")
        if name not in header:
            choose(name, header, f"column in {where}")
    # A column that was given one meaning has no other.
    found = {part: given.get(part) or first(header, part, taken=set(given.values())) for part in NAMES}
    if found["subject"] is None:
        raise OptionError(
            f"{where} names no subjects: its columns are {listed(header)}; say which with --columns subject=NAME"
        )
    subject = found["subject"]
    taken = {name for part, name in found.items() if name is not None and part != "value"}
    free = [name for name in numeric if name not in taken and normal(name) not in DESCRIBES]
    metrics = [name for name in free if normal(name) in BETTER_HIGHER + BETTER_LOWER]
    value = found["value"]
    if "value" not in given and metric is not None and not found["metric"]:
        value = next((name for name in free if same(name, metric)), value)
    if not free:  # not one score may be there, and that is to be said of the right column
        metrics = [name for name in header if name not in taken and normal(name) in BETTER_HIGHER + BETTER_LOWER]
    value = value if value is not None else metrics[0] if metrics else None
    method, named, structure, domain, seed = (
        found[part] or "" for part in ("method", "metric", "structure", "domain", "seed")
    )
    if value is None and not method and len(free) > 1:
        return Columns(subject, "", "", named, structure, domain, seed, methods=free)
    if value is None and len(free) == 1:
        value = free[0]
    if value is None:
        cure = "say which with --columns value=NAME"
        raise OptionError(f"{where} has no column that is known to hold scores: {listed(header)}; {cure}")
    others = [name for name in metrics if name != value]
    return Columns(subject, method, value, named, structure, domain, seed, others=others)


def first(header: Sequence[str], part: str, taken: set[str]) -> str | None:
    """The column whose name comes first among those of a meaning."""
    by_name = {normal(name): name for name in reversed(header) if name not in taken}
    return next((by_name[name] for name in NAMES[part] if name in by_name), None)


def same(name: str, metric: str) -> bool:
    return normal(name) == normal(metric)


def listed(names: Sequence[str], most: int = 12) -> str:
    shown = ", ".join(f'"{name}"' for name in names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown
