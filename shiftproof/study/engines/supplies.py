"""What a job needs where the study's folder is not visible: put into the cluster once, fetched by each node once."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ...data.cohort import Cohort, Row
from ...data.filenames import file_of
from ...data.hashes import companions
from ...data.plan import Plan
from ...data.splits import Split
from ...data.store import Store
from ..cell import Job, divide, side_of, slug, status
from ..declare import Declaration
from ..grid import last_step
from .parcels import Parcel, below, listed, packed
from .worker import Order

TABLE = "cohort/table.csv"


class Supplies:
    """The parcels of a study.

    Args:
        folder: The study's.
        study: Its declaration.
        put: Gives a chunk to the cluster and returns what it knows it by.
    """

    def __init__(self, folder: Path, study: Declaration, put: Callable[[Any], Any]) -> None:
        self.folder, self.study, self.put = folder, study, put
        self.cohort = Cohort.read(Path(study.cohort), domain=study.domain_column)
        self._texts = _texts(self.cohort, folder)
        self._sent: dict[str, Parcel] = {}
        self._splits: dict[str, Split] = {}

    def filled(self, order: Order) -> Order:
        """The order with everything that the job needs."""
        job, plan = order.job, f"plans/{slug(order.job.held_out)}.json"
        texts = self._texts | {plan: (self.folder / plan).read_text(encoding="utf-8")}
        for cell in job.cells(self.folder).values():
            # A cell that is done says so there, too; its rows stay at home.
            if status(cell) == "done":
                name = (cell / "cell.json").relative_to(self.folder).as_posix()
                texts[name] = (cell / "cell.json").read_text(encoding="utf-8")
        left = _files_of(self.folder, self.folder / "runs" / job.key)
        run = self._parcel(left) if left else None
        step = last_step(self.folder, job)
        return dataclasses.replace(order, texts=texts, parcels=self._parcels(job), run=run, step=step)

    def _parcels(self, job: Job) -> list[Parcel]:
        """Preprocessed cases of the training side, and the scans that are read as files."""
        if job.held_out not in self._splits:
            self._splits[job.held_out] = divide(self.study, self.cohort, job.held_out)
        split = self._splits[job.held_out]
        row = self.study.row(job.rows[0])
        plan, store = Plan.read(self.folder / "plans" / f"{slug(job.held_out)}.json"), Store(self.folder / "store")
        side = side_of(row, split, self.study)
        sides = [side.train, side.validation, *([split.target] if row.target and split.target is not None else [])]
        parcels = []
        for cohort in sides:
            for case in store.prepare(cohort, plan):
                parcels.append(self._once(_files_of(self.folder, case.folder)))
        for cohort in [*sides, split.test]:
            for scan in cohort.rows():
                parcels.append(self._once(scan_files(scan)))
        return parcels

    def _once(self, files: Mapping[str, Path]) -> Parcel:
        key = json.dumps(sorted(files))
        if key not in self._sent:
            self._sent[key] = self._parcel(files)
        return self._sent[key]

    def _parcel(self, files: Mapping[str, Path]) -> Parcel:
        return Parcel(listed(files), [self.put(chunk) for chunk in packed(files)])


def scan_files(row: Row) -> dict[str, Path]:
    """The scan's files by where they lie among copies, files that a header names included."""
    found: dict[str, Path] = {}
    for path in [*row.images.values(), row.label]:
        if path is None:
            continue
        file = file_of(path)
        several = [p for p in sorted(file.rglob("*")) if p.is_file()] if file.is_dir() else [file, *companions(file)]
        found |= {f"cohort/{_copied(p)}": p for p in several}
    return found


def _texts(cohort: Cohort, folder: Path) -> dict[str, str]:
    """The study and the cohort's table, with every path below the folder of copies."""
    table = cohort.table.copy()
    columns = [str(c) for c in table.columns if c == "image" or str(c).startswith("image:")]
    # Labels that are cells of the table are no files.
    if any(row.label is not None for row in cohort.rows()):
        columns.append("label")
    for column in columns:
        table[column] = [_copied(cohort.root / cell) if cell else "" for cell in table[column]]
    study = json.loads((folder / "study.json").read_text(encoding="utf-8"))
    texts = {"study.json": json.dumps(study | {"cohort": TABLE}), TABLE: table.to_csv(index=False)}
    labels = Path(study["cohort"]).parent / "labels.toml"
    if labels.exists():
        texts["cohort/labels.toml"] = labels.read_text(encoding="utf-8")
    return texts


def _copied(path: Path) -> str:
    """A path below "files" for any path: two files never share one."""
    whole = Path(os.path.abspath(path))
    return (Path("files") / whole.relative_to(whole.anchor)).as_posix()


def _files_of(root: Path, folder: Path) -> dict[str, Path]:
    return below(root, folder) if folder.is_dir() else {}
