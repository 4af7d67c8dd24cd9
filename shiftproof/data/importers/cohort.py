"""One way in for every layout."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ...errors import CohortError
from ...names import choose
from ..cohort import Cohort
from ..filenames import SUFFIXES
from .bids import find_bids, is_bids
from .classes import COLUMN, find_classes, is_classes
from .decathlon import find_decathlon, is_decathlon
from .dicom import find_dicom, is_dicom
from .folders import find_folders, is_folders
from .found import Found, Progress, divide
from .nnunet import find_nnunet, is_nnunet
from .publish import Classes, publish

FINDERS: dict[str, tuple[Callable[[Path], bool], Callable[[Path], Found], str]] = {
    "decathlon": (is_decathlon, find_decathlon, "TASK/dataset.json with a list of training pairs"),
    "nnunet": (is_nnunet, find_nnunet, "DATASET/dataset.json and DATASET/imagesTr/a_0000.nii.gz"),
    "bids": (is_bids, find_bids, "sub-01/anat/sub-01_T1w.nii.gz"),
    "folders": (is_folders, find_folders, "SITE/images and SITE/labels, or SITE/a.nii.gz and SITE/a_seg.nii.gz"),
    "classes": (is_classes, find_classes, "SITE/CLASS/a.png"),
}
"""Layout to: whether a folder has it, what is in it, what it looks like. In the order in which they are tried."""

DICOM = "files of DICOM series, in any folders"
FORMATS = ("auto", *FINDERS, "dicom")


def import_cohort(
    folder: Path | str,
    out: Path | str | None = None,
    *,
    format: str = "auto",
    domain: str = "site",
    classes: Classes = None,
    target: str | None = None,
    pattern: str | None = None,
    key: Path | str | None = None,
    faulty: str = "refuse",
    progress: Progress | None = None,
) -> Cohort:
    """A cohort from a folder of scans in a known layout; writes `table.csv` and `labels.toml`.

    Layouts: a folder per site with images and labels; data sets of nnU-Net and of the Medical Segmentation
    Decathlon; BIDS with derivatives; a folder per class inside a site; DICOM series. Of DICOM, images are
    written as NIfTI under OUT/images, with pseudonyms; see `find_dicom` for what becomes a column. For the
    other layouts files stay where they are. Files of an earlier import that would change are kept as `NAME.old`.

    Args:
        folder: Where the scans are.
        out: Folder, or name of the table, to write to; by default `folder`. DICOM needs a folder.
        format: The layout; "auto" recognises it.
        domain: Name of the domain column. A column that the layout gives (vendor, model, ...) may be it.
        classes: Names of the structures, in the order of their values, or name to value; of classes, their
            order. By default as the data set says, or "structure 1" for value 1 and so on.
        target: Column that is the label, in place of label files: a class, a number, or findings
            "COLUMN:NAME". For a folder per class it is their column.
        pattern: Regular expression whose named groups are read from the cases' names (DICOM: from the files'
            paths): `site`, `subject`, any others as columns.
        key: File with the secret that DICOM pseudonyms are made with; by default OUT's name and ".key", beside it.
        faulty: What is done with DICOM series that are no regular volume: "refuse" all, with a list, or
            "leave-out" and list them in OUT/left-out.json.
        progress: Called with (labels or files read, all).

    Raises:
        CohortError: If nothing is found, or what is found does not fit together.
        LabelError: If labels cannot be read as such, or `classes` does not fit them.
        ImageError: If a file cannot be read.
        OptionError: If there is no such format, or DICOM is given without OUT or without its extra.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CohortError(f"{folder} is no folder; name the one that holds the scans")
    format = choose(format, FORMATS, "format")
    choose(faulty, ("refuse", "leave-out"), "way with faulty series")
    try:
        format = recognised(folder) if format == "auto" else format
        found = None if format == "dicom" else FINDERS[format][1](folder)
    except OSError as error:
        where = error.filename or folder
        raise CohortError(f"{where} cannot be read: {error.strerror or error}; check the permissions") from error
    if found is None:
        found = find_dicom(folder, out, pattern=pattern, key=key, faulty=faulty, progress=progress)
        out = Path(str(out))
        return publish(found, out, out, domain=domain, classes=classes, target=target, progress=progress)
    divide(found.scans, pattern, domain)
    target = COLUMN if format == "classes" and target is None else target
    return publish(found, folder, out, domain=domain, classes=classes, target=target, progress=progress)


def recognised(folder: Path) -> str:
    """The layout of a folder.

    Raises:
        CohortError: If it has none that is known; the message lists them.
    """
    for name, (fits, _, _) in FINDERS.items():
        if fits(folder):
            return name
    if is_dicom(folder):
        return "dicom"
    looks = [f"{name} ({look})" for name, (_, _, look) in FINDERS.items()] + [f"dicom ({DICOM})"]
    raise CohortError(
        f"{folder} has no layout known here; looked for {', '.join(looks)}; images end in {', '.join(SUFFIXES)}"
    )
