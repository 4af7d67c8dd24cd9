"""A cohort: a table whose columns have a meaning. It holds names of files and loads none."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CohortError, LabelError, SplitError
from ..files import replacing
from .labels import HOW_TO_MAKE, nearest
from .tables import as_text, file_columns, read_table, relative_to, require_columns
from .targets import Labels, Targets, read_labels

if TYPE_CHECKING:
    import numpy as np
    import pandas

    from .hashes import FileHashes


@dataclass(frozen=True)
class Row:
    """One scan.

    Args:
        subject: Who; several scans may share a subject.
        domain: Value of the cohort's domain column.
        images: File by channel; None where this scan lacks the channel.
        label: File, or None where unlabelled or where labels are cells of the table.
        columns: Every other column, as text; "" where empty.
        target: Label of a task whose labels are cells, see `Targets.of`; None where unlabelled.
        annotated: (K,) bool, of which classes `target` says something.
    """

    subject: str
    domain: str
    images: dict[str, Path | None]
    label: Path | None
    columns: dict[str, str]
    target: np.ndarray | None = None
    annotated: np.ndarray | None = None

    @property
    def labelled(self) -> bool:
        return self.label is not None or self.target is not None


class Cohort:
    """Scans of subjects from several domains, as a table.

    Columns: `subject`; `image`, or `image:NAME` for each of several channels (an empty cell: this scan lacks
    the channel); `label` (empty: unlabelled); the domain column; optionally `split` (train, validation,
    test); any others are kept. All values are text, so that subject 007 stays 007. Relative paths count from
    `root`.

    Args:
        table: The rows.
        root: Folder that relative paths count from.
        domain: The column that tells the domain.
        labels: Meaning of the labels: values of files, or cells of the table; None where nothing is labelled.

    Raises:
        CohortError: If a column is missing or a row cannot be used.
    """

    def __init__(
        self,
        table: pandas.DataFrame,
        root: Path | str = ".",
        *,
        domain: str = "site",
        labels: Labels | None = None,
    ) -> None:
        self.table = as_text(table)
        self.root = Path(root).absolute()
        self.domain = domain
        self.labels = labels
        require_columns(self.table, domain)

    @classmethod
    def read(cls, path: Path | str, *, domain: str = "site") -> Cohort:
        """Read a CSV or Parquet table, and `labels.toml` beside it if there is one.

        Raises:
            CohortError: If the file or a column is missing, or a row cannot be used.
            LabelError: If `labels.toml` is wrong.
        """
        path = Path(path)
        if path.is_dir():
            path = next((p for p in (path / "table.csv", path / "table.parquet") if p.exists()), path / "table.csv")
        table = read_table(path)
        if table.empty:
            raise CohortError(f"{path} has no rows below its header; a cohort needs at least one scan")
        try:
            cohort = cls(table, path.parent, domain=domain)
        except CohortError as error:
            raise CohortError(f"{path}: {error}") from error
        beside = path.parent / "labels.toml"
        return cohort.with_labels(read_labels(beside)) if beside.exists() else cohort

    def write(self, path: Path | str) -> Path:
        """Write the table (CSV or Parquet, by extension), and `labels.toml` beside it; each complete or not
        at all.

        Files below the table's folder are named relative to it, so that both can move together.
        """
        path = Path(path)
        if path.suffix not in (".csv", ".parquet"):
            raise CohortError(f"a cohort is written as .csv or .parquet, got {path.name}")
        folder = path.parent.absolute()
        table = self.table.copy()
        for column in self._file_columns():
            table[column] = [relative_to(self.root / v, folder) if v else "" for v in table[column]]
        with replacing(path) as temporary:
            if path.suffix == ".csv":
                table.to_csv(temporary, index=False)
            else:
                table.to_parquet(temporary, index=False)
        if self.labels is not None:
            self.labels.write(folder / "labels.toml")
        return path

    def with_labels(self, labels: Labels | None) -> Cohort:
        """The same scans with another meaning of the labels.

        Raises:
            LabelError: If it names a column that this table lacks, or one that does not fit the domains.
        """
        if isinstance(labels, Targets):
            missing = [c for c in labels.columns if c not in self.table]
            if missing:
                raise LabelError(
                    f'labels.toml reads {labels.task} from the column "{missing[0]}", which is not there; '
                    f"{nearest(missing[0], self.columns)}"
                )
            if self.domain in labels.columns:
                raise LabelError(
                    f'the column "{self.domain}" is both the domain and the label; name another domain column, '
                    "or another label in labels.toml"
                )
        elif labels is not None and labels.domains and labels.column != self.domain:
            if labels.column not in self.table:
                raise LabelError(
                    f"labels.toml has sections by {labels.column}, which is no column; "
                    f"{nearest(labels.column, self.columns)}"
                )
            members: dict[str, set[str]] = {}
            for d, value in zip(self.table[self.domain], self.table[labels.column], strict=True):
                members.setdefault(d, set()).add(value)
            labels = labels.by_domains(members, self.domain)
        return Cohort(self.table, self.root, domain=self.domain, labels=labels)

    def __len__(self) -> int:
        return len(self.table)

    def __repr__(self) -> str:
        return (
            f"Cohort({len(self)} scans of {len(self.subjects)} subjects, "
            f"{self.domain} {', '.join(self.domains)}, {self.root})"
        )

    @property
    def columns(self) -> list[str]:
        return [str(name) for name in self.table.columns]

    @property
    def domains(self) -> list[str]:
        return sorted(set(self.table[self.domain]))

    @property
    def subjects(self) -> list[str]:
        """Names in the order of the table, each once."""
        return list(dict.fromkeys(self.table["subject"]))

    @property
    def channels(self) -> list[str]:
        columns = [c for c in self.columns if c.startswith("image:")]
        return [c.removeprefix("image:") for c in columns] or ["image"]

    @property
    def classes(self) -> list[str]:
        """Names, background first; empty if nothing is labelled.

        Raises:
            LabelError: If there are labels and nobody says what their values mean.
        """
        if self.labels is not None:
            return list(self.labels.classes)
        if self.labelled:
            raise LabelError(
                f"{self.root} has labels but no labels.toml that says what their values mean; {HOW_TO_MAKE}"
            )
        return []

    @property
    def labelled(self) -> int:
        """How many scans have a label."""
        return sum(self._has_label())

    @property
    def task(self) -> str:
        """What the labels are for."""
        return "segmentation" if self.labels is None else self.labels.task

    @property
    def label_columns(self) -> list[str]:
        """The columns that tell of a label: of a file, or the cells themselves."""
        if isinstance(self.labels, Targets):
            return self.labels.columns
        return ["label"] if "label" in self.table else []

    def only_labelled(self) -> Cohort:
        """The scans that have a label."""
        return self._of(self.table.loc[self._has_label()])

    def _has_label(self) -> list[bool]:
        columns = self.label_columns
        return [any(cells) for cells in zip(*(self.table[c] for c in columns), strict=True)] or [False] * len(self)

    def _file_columns(self) -> list[str]:
        cells = self.label_columns if isinstance(self.labels, Targets) else []
        return [c for c in file_columns(self.table) if c not in cells]

    def rows(self) -> Iterator[Row]:
        """One `Row` a scan, in the order of the table."""
        names = self.columns
        targets = self.labels if isinstance(self.labels, Targets) else None
        # What tells of a label must not reach a method among the other columns.
        files = {*self._file_columns(), *self.label_columns}
        single = "image" in names
        for values in self.table.itertuples(index=False, name=None):
            cells = dict(zip(names, values, strict=True))
            images = {c: cells["image" if single else f"image:{c}"] for c in self.channels}
            target = None if targets is None else targets.of(cells, f"subject {cells['subject']}")
            yield Row(
                cells["subject"],
                cells[self.domain],
                {c: self.root / name if name else None for c, name in images.items()},
                self.root / cells["label"] if targets is None and cells.get("label") else None,
                {name: cells[name] for name in names if name not in files},
                target,
                None if targets is None or target is None else targets.annotated(target),
            )

    def where(self, **columns: object) -> Cohort:
        """The scans whose columns have the given value, or one of several; for other names use
        `where(**{...})`.

        Raises:
            CohortError: If there is no such column.
        """
        keep = [True] * len(self)
        for name, wanted in columns.items():
            if name not in self.table:
                raise CohortError(f'there is no column "{name}"; {nearest(name, self.columns)}')
            several = isinstance(wanted, Iterable) and not isinstance(wanted, str)
            values = set(map(str, wanted if several else [wanted]))  # type: ignore[call-overload]
            keep = [k and v in values for k, v in zip(keep, self.table[name], strict=True)]
        return self._of(self.table[keep])

    def of_subjects(self, names: Iterable[str]) -> Cohort:
        """All scans of the named subjects, in the order of the table.

        Raises:
            CohortError: If a name is unknown.
        """
        names = set(names)
        unknown = sorted(names - set(self.subjects))
        if unknown:
            raise CohortError(f'there is no subject "{unknown[0]}"; {nearest(unknown[0], self.subjects[:2000])}')
        return self._of(self.table[[s in names for s in self.table["subject"]]])

    def without_labels(self) -> Cohort:
        """The same scans without their labels, or the names of the files that hold them."""
        return self._of(self.table.assign(**dict.fromkeys(self.label_columns, "")))

    def leave_one_out(self) -> Iterator[tuple[Cohort, Cohort]]:
        """(others, held out) for each domain; other scans of a held-out subject are on neither side.

        Raises:
            SplitError: If there are fewer than 2 domains, or nothing would be left to train on.
        """
        if len(self.domains) < 2:
            raise SplitError(
                f"leaving out one {self.domain} needs at least 2, got {len(self.domains)} "
                f"({', '.join(self.domains)}); "
                "name another domain column"
            )
        for domain in self.domains:
            held = self.where(**{self.domain: domain})
            away = set(held.subjects)
            rest = self._of(self.table[[s not in away for s in self.table["subject"]]])
            if not len(rest):
                raise SplitError(
                    f"every subject was scanned at {self.domain}={domain}: holding it out leaves no other subject"
                )
            yield rest, held

    def hash(self, hashes: FileHashes | None = None) -> str:
        """SHA-256 of the content: the table, the meaning of the labels and every file.

        Where files lie does not matter, nor does the order of the rows.

        Args:
            hashes: Known hashes of files, to save reading them again; by default those of this process.
        """
        from .hashes import FileHashes

        hashes = hashes or FileHashes()
        rows = []
        for row in self.rows():
            files = {c: p and hashes.of(p) for c, p in row.images.items()}
            label: Any = row.label and hashes.of(row.label)
            if row.target is not None:
                label = row.target.tolist()
            rows.append(json.dumps([row.columns, files, label], sort_keys=True))
        labels = None if self.labels is None else self.labels.as_dict()
        whole = json.dumps([self.domain, labels, sorted(rows)], sort_keys=True)
        return hashlib.sha256(whole.encode()).hexdigest()

    def _of(self, table: pandas.DataFrame) -> Cohort:
        return Cohort(table, self.root, domain=self.domain, labels=self.labels)
