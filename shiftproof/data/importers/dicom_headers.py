"""What a DICOM file says of its planes and its scanner, without its pixels."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import OptionError, ShiftproofError
from ..integrity import AGAIN, FileError

SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
"""SOP class of a DICOM-SEG file."""

NO_SCANS = ("PR", "SR", "KO", "REG", "RTDOSE", "RTPLAN", "RTSTRUCT", "RTIMAGE", "DOC", "ECG", "AU", "FID", "SEG")
"""Modalities of files that are no scan of a body."""

Numbers = tuple[float, ...]


@dataclass(frozen=True)
class Plane:
    """One image of a series, or one frame of a file with several.

    Args:
        path: Its file.
        frame: Its place in the file, from 0; None where the file has one image.
        size: (columns, rows).
        position: Of the first voxel, in mm (left, back, up); None where the body's axes are unknown.
        orientation: Directions of a row and of a column, 6 numbers.
        spacing: (between columns, between rows) in mm.
        thickness: Of the slice in mm, or None.
        scale: (slope, intercept) of the stored values.
        keys: What may tell repeated images of one place apart: echo, time, b-value, ...
        number: Instance number.
    """

    path: Path
    frame: int | None
    size: tuple[int, int]
    position: Numbers | None
    orientation: Numbers | None
    spacing: Numbers | None
    thickness: float | None
    scale: tuple[float, float]
    keys: tuple[tuple[str, str], ...]
    number: int


@dataclass
class Header:
    """One file.

    Args:
        path: The file.
        patient: Who; for pseudonyms only.
        institution: Where; for pseudonyms only.
        series: UID of its series.
        instance: UID of the file's content.
        frame_of_reference: UID of its coordinates.
        columns: Vendor, model and so on, free of what identifies.
        planes: Images in it.
        segmentation: UID of the series that it segments, for DICOM-SEG; else None.
        problem: Why it cannot be part of a volume; "" if it can.
        words: What identifies the patient, in lower case.
    """

    path: Path
    patient: str
    institution: str
    series: str
    instance: str
    frame_of_reference: str
    columns: dict[str, str]
    planes: list[Plane] = field(default_factory=list)
    segmentation: str | None = None
    problem: str = ""
    words: tuple[str, ...] = ()


def looks_like_dicom(path: Path) -> bool:
    """By content: the letters DICM after the preamble, or a first element of the groups 2 or 8 without one."""
    try:
        with path.open("rb") as file:
            head = file.read(132)
    except OSError:
        return False
    if head[128:] == b"DICM":
        return True
    return head[:4] in (b"\x02\x00\x00\x00", b"\x02\x00\x01\x00", b"\x02\x00\x10\x00") or (
        head[:2] in (b"\x08\x00", b"\x00\x08") and len(head) == 132 and head[2:4] in _FIRST
    )


_FIRST = tuple(bytes(pair) for n in (0x00, 0x01, 0x05, 0x06, 0x08, 0x12, 0x13, 0x16, 0x18) for pair in ((n, 0), (0, n)))


def require_pydicom() -> None:
    """Nothing, if pydicom is there.

    Raises:
        OptionError: With the name of the extra.
    """
    try:
        import pydicom  # noqa: F401
    except ImportError as error:
        raise OptionError(
            "DICOM files are read with pydicom, which is not installed; pip install 'shiftproof[dicom]'"
        ) from error


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Whatever pydicom stumbles over, as a `FileError` that quotes nothing of the file.

    Damaged files make it raise nearly any exception, with the values that it read in their words, names of
    patients among them.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except ShiftproofError:
        raise
    except Exception as error:
        what = f"{path} cannot be read as DICOM ({type(error).__name__})"
        raise FileError(what, cure=AGAIN) from None


def read_header(path: Path) -> Header | None:
    """What the file says; None if it is no image and no segmentation.

    Raises:
        FileError: If it is damaged.
    """
    import pydicom

    with reading(path):
        dataset = pydicom.dcmread(path, stop_before_pixels=True, force=True)
        kind = str(dataset.get("SOPClassUID", ""))
        modality = str(dataset.get("Modality", ""))
        if kind != SEGMENTATION and (modality in NO_SCANS or not dataset.get("Rows")):
            return None
        if "LOCALIZER" in _texts(dataset.get("ImageType")):
            return None
        words = _words(dataset)
        header = Header(
            path,
            _patient(dataset),
            " ".join(_text(dataset.get("InstitutionName")).casefold().split()),
            _text(dataset.get("SeriesInstanceUID")),
            _text(dataset.get("SOPInstanceUID")) or str(path),
            _text(dataset.get("FrameOfReferenceUID")),
            _columns(dataset, words),
            words=words,
        )
        if kind == SEGMENTATION:
            referenced = dataset.get("ReferencedSeriesSequence") or []
            header.segmentation = _text(referenced[0].get("SeriesInstanceUID")) if referenced else ""
            return header
        header.problem = _problem(dataset, header)
        if not header.problem:
            header.planes = _planes(path, dataset)
        return header


def _problem(dataset: Any, header: Header) -> str:
    if int(dataset.get("SamplesPerPixel", 1) or 1) != 1 or "PALETTE" in _text(dataset.get("PhotometricInterpretation")):
        return "is in colour, expected grey values"
    if "MOSAIC" in _texts(dataset.get("ImageType")):
        return "is a mosaic of slices, expected one slice a file or frame"
    if _text(dataset.get("BurnedInAnnotation")).upper() == "YES":
        return "has text burned into its pixels, which may name the patient"
    if not header.series:
        return "names no series"
    if int(dataset.get("NumberOfFrames", 1) or 1) > 1 and "PerFrameFunctionalGroupsSequence" not in dataset:
        return "has several frames without positions (a film), expected slices of a volume"
    return ""


def _planes(path: Path, dataset: Any) -> list[Plane]:
    frames = list(dataset.get("PerFrameFunctionalGroupsSequence") or [])
    if not frames:
        return [_plane(path, None, dataset, [dataset])]
    shared = list(dataset.get("SharedFunctionalGroupsSequence") or [])
    planes = []
    for i, frame in enumerate(frames):
        groups = [dataset]
        for group in (*shared, frame):
            # Vendors put copies with values of their own into private sequences.
            groups += [i for e in group if e.VR == "SQ" and not e.tag.is_private for i in e.value[:1]]
        planes.append(_plane(path, i, dataset, groups[::-1]))
    return planes


def _plane(path: Path, frame: int | None, dataset: Any, groups: list[Any]) -> Plane:
    def get(*names: str) -> Any:
        return next((g[n].value for n in names for g in groups if n in g and g[n].value not in (None, "")), None)

    spacing = numbers(get("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"), 2)
    thickness = numbers(get("SpacingBetweenSlices", "SliceThickness"), 1)
    slope, intercept = numbers(get("RescaleSlope"), 1), numbers(get("RescaleIntercept"), 1)
    return Plane(
        path,
        frame,
        (int(dataset.Columns), int(dataset.Rows)),
        numbers(get("ImagePositionPatient"), 3),
        numbers(get("ImageOrientationPatient"), 6),
        (spacing[1], spacing[0]) if spacing and min(spacing) > 0 else None,
        abs(thickness[0]) if thickness and thickness[0] else None,
        (slope[0] if slope and slope[0] else 1.0, intercept[0] if intercept else 0.0),
        tuple((name, " ".join(_texts(get(*tags)))) for name, tags in KEYS.items()),
        int(dataset.get("InstanceNumber", 0) or 0) if frame is None else frame,
    )


KEYS = {
    "echo time": ("EffectiveEchoTime", "EchoTime"),
    "echo": ("EchoNumbers",),
    "time": ("TemporalPositionIndex", "TemporalPositionIdentifier"),
    "trigger time": ("NominalCardiacTriggerDelayTime", "TriggerTime"),
    "b-value": ("DiffusionBValue",),
    "inversion time": ("InversionTimes", "InversionTime"),
    "flip angle": ("FlipAngle",),
    "kind": ("FrameType", "ImageType"),
    "acquisition": ("AcquisitionNumber",),
}


def numbers(value: Any, count: int) -> Numbers | None:
    """So many finite numbers, or None."""
    values = list(value) if hasattr(value, "__iter__") and not isinstance(value, str) else [value]
    try:
        found = tuple(float(v) for v in values)
    except (TypeError, ValueError):
        return None
    return found if len(found) == count and all(map(math.isfinite, found)) else None


def _columns(dataset: Any, words: tuple[str, ...]) -> dict[str, str]:
    field_strength = numbers(dataset.get("MagneticFieldStrength"), 1)
    thickness = numbers(_anywhere(dataset, "SliceThickness"), 1)
    vendor = harmless("/".join(_texts(dataset.get("Manufacturer"))), tuple(w for w in words if w not in VENDORS))
    texts = {
        "model": dataset.get("ManufacturerModelName"),
        "kernel": _anywhere(dataset, "ConvolutionKernel"),
        "modality": dataset.get("Modality"),
        "body_part": dataset.get("BodyPartExamined"),
    }
    return {"vendor": vendor, **{n: harmless("/".join(_texts(v)), words) for n, v in texts.items()}} | {
        "field_strength_t": f"{field_strength[0]:g}" if field_strength else "",
        "slice_thickness_mm": f"{thickness[0]:g}" if thickness else "",
    }


def _anywhere(dataset: Any, name: str) -> Any:
    """An entry of the file, or of the functional groups that its frames share."""
    if name in dataset:
        return dataset[name].value
    for group in dataset.get("SharedFunctionalGroupsSequence") or []:
        for element in group:
            for item in element.value[:1] if element.VR == "SQ" else ():
                if name in item:
                    return item[name].value
    return None


VENDORS = {
    "agfa", "bruker", "canon", "carestream", "electric", "elekta", "esaote", "fujifilm", "general", "healthcare",
    "healthineers", "hitachi", "hologic", "imaging", "konica", "medical", "minolta", "neusoft", "philips", "samsung",
    "shimadzu", "siemens", "systems", "toshiba", "united", "varian",
}  # fmt: skip
"""Words of makers' names, which a patient of that name does not make secret."""


def harmless(text: str, words: tuple[str, ...]) -> str:
    """A short text, or nothing if it holds a word that identifies, or a number as long as a date or a UID."""
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())[:64]
    low = text.casefold()
    # Short words occur inside of others: "abd" in "abdomen".
    named = any(word in low if len(word) > 4 else re.search(rf"\b{re.escape(word)}\b", low) for word in words)
    if named or re.search(r"\d{6}|\d+(\.\d+){3}", text):
        return ""
    return text


def _patient(dataset: Any) -> str:
    """Who, as well as the file tells; for the keyed hash only."""
    number = _text(dataset.get("PatientID"))
    if number:
        return f"id {number} of {_text(dataset.get('IssuerOfPatientID'))}"
    name = _text(dataset.get("PatientName"))
    if name:
        return f"name {name} {_text(dataset.get('PatientBirthDate'))}"
    return f"study {_text(dataset.get('StudyInstanceUID'))}"


IDENTIFYING = (
    "PatientName", "PatientID", "OtherPatientIDs", "OtherPatientNames", "PatientBirthDate", "PatientAddress",
    "PatientMotherBirthName", "PatientTelephoneNumbers", "AccessionNumber", "InstitutionName", "StationName",
    "ReferringPhysicianName", "PerformingPhysicianName", "OperatorsName", "StudyID", "DeviceSerialNumber",
)  # fmt: skip


def _words(dataset: Any) -> tuple[str, ...]:
    """Words of the entries that identify, at least three letters long, in lower case."""
    texts = " ".join(" ".join(_texts(dataset.get(name))) for name in IDENTIFYING).casefold()
    return tuple(sorted({word for word in re.split(r"[\s^=,;/\\]+", texts) if len(word) >= 3}))


def _texts(value: Any) -> list[str]:
    """An entry's values as text, whether it has one or several."""
    if value is None:
        return []
    several = hasattr(value, "__iter__") and not isinstance(value, str | bytes) and not hasattr(value, "components")
    return [str(v).strip() for v in value] if several else [str(value).strip()]


def _text(value: Any) -> str:
    return " ".join(_texts(value))
