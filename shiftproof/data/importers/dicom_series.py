"""A DICOM series on its way to volumes, and what cannot go there."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from .dicom_headers import Header, Plane
from .found import Scan


@dataclass
class Series:
    """Files of one series, and the volumes that they make.

    Args:
        headers: Its files, each content once.
        volumes: Planes in order.
        subject: Pseudonym.
        site: Pseudonym of the institution.
        number: Of the series, among its subject's.
        scans: Volumes that were written, with their rows.
    """

    headers: list[Header]
    volumes: list[list[Plane]]
    subject: str = ""
    site: str = ""
    number: int = 0
    scans: list[tuple[list[Plane], Scan]] = field(default_factory=list)


@dataclass
class Faulty:
    """What cannot be used.

    Args:
        where: The file or folder, for the screen only.
        why: In words that tell nothing of the patient.
        files: How many.
        patient: Whose; in what is kept, the pseudonym.
    """

    where: Path
    why: str
    files: int = 1
    patient: str = ""

    @classmethod
    def of(cls, error: Exception, header: Header, paths: list[Path]) -> Faulty:
        """Of an error whose message may name one of these files."""
        why = str(error)
        for path in paths:
            why = why.replace(str(path), "a file")
        return cls(paths[0], why.removeprefix("a file "), len(paths), header.patient)
