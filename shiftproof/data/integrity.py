"""Whether a file is whole, by what its own header promises.

Readers do not tell: a NIfTI file that breaks off is filled with zeros, as are its values that are not finite,
and a TIFF stack ends at the break, all without an error. So bytes and values are counted before a reader sees
the file; for compressed files this also compares their checksum.
"""

from __future__ import annotations

import functools
import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from ..errors import ImageError

AGAIN = "copy or export it again"


class FileError(ImageError):
    """A file that cannot be used as an image, in parts that a list of problems can show apart.

    Args:
        message: What came and what was expected.
        kind: One or two words: "missing", "truncated", "unreadable", "4D", "colour", "not finite".
        cure: What would work.
    """

    def __init__(self, message: str, kind: str = "unreadable", cure: str = "") -> None:
        # All three are arguments of the exception, so that it survives the way from another process.
        super().__init__(message, kind, cure)
        self.message, self.kind, self.cure = message, kind, cure

    def __str__(self) -> str:
        return f"{self.message}; {self.cure}" if self.cure else self.message


def require_whole(path: Path) -> None:
    """Nothing, if the file is as long as its header says.

    Raises:
        FileError: If it is empty, breaks off, its compression is damaged, or a NIfTI file has values that are
            not finite.
    """
    stat = path.stat()
    if stat.st_size == 0:
        raise FileError(f"{path} is empty (0 bytes)", "truncated", AGAIN)
    _require_whole(path, stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=4096)
def _require_whole(path: Path, size: int, changed: int) -> None:
    # Size and time are arguments so that a file which changed is looked at again.
    name = path.name.lower()
    if name.endswith((".nii", ".nii.gz")):
        _scan_nifti(path, size)
    elif name.endswith(".mha"):
        with path.open("rb") as file:
            _compare(path, size, _mha_bytes(file.read(65536)))
    elif name.endswith((".tif", ".tiff")):
        _walk_tiff(path, size)


def _compare(path: Path, found: int, expected: int) -> None:
    if found < expected:
        raise FileError(
            f"{path} is truncated: its header promises {expected} bytes, it has {found}", "truncated", AGAIN
        )


def _scan_nifti(path: Path, size: int) -> None:
    with path.open("rb") as file:
        # A plain file under a compressed file's name is common, and readers take it.
        packed = file.read(2) == b"\x1f\x8b"
    try:
        with gzip.open(path) if packed else path.open("rb") as file:
            head = file.read(_NIFTI_HEADER)
            start, expected, floats = _nifti_header(path, head)
            length, bad = len(head), 0
            if packed or floats:
                length += len(file.read(start - length))
                while block := file.read(1 << 22):  # to the end, so that the checksum is compared
                    values = block[: max(expected - length, 0)]
                    length += len(block)
                    if floats:
                        values = values[: len(values) // floats.itemsize * floats.itemsize]
                        bad += int(np.count_nonzero(~np.isfinite(np.frombuffer(values, floats))))
            else:
                length = size
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        what = "is truncated" if isinstance(error, EOFError) else "is damaged"
        raise FileError(f"{path} {what}: {error}", "truncated", AGAIN) from error
    _compare(path, length, expected)
    if bad and floats:
        raise not_finite(path, bad, (expected - start) // floats.itemsize)


_NIFTI_HEADER = 348
_NIFTI_FLOATS = {16: "f4", 64: "f8"}


def _nifti_header(path: Path, head: bytes) -> tuple[int, int, np.dtype | None]:
    """(start of the values, length of the whole, type of the values if they are floats)."""
    for order in "<>":
        (size,) = struct.unpack(order + "i", head[:4].ljust(4, b"\0"))
        if size == 540:
            raise FileError(f"{path} is NIfTI-2, expected NIfTI-1", cure="save it as NIfTI-1, or as .nrrd or .mha")
        if size == _NIFTI_HEADER == len(head):
            dims = struct.unpack(order + "8h", head[40:56])
            kind, bits = struct.unpack(order + "2h", head[70:74])
            (offset,) = struct.unpack(order + "f", head[108:112])
            start = max(int(offset), _NIFTI_HEADER) if math.isfinite(offset) else _NIFTI_HEADER
            voxels = math.prod(max(n, 1) for n in dims[1 : 1 + min(dims[0], 7)])
            floats = np.dtype(order + _NIFTI_FLOATS[kind]) if kind in _NIFTI_FLOATS else None
            return start, start + voxels * bits // 8, floats
    raise FileError(f"{path} is no NIfTI file: its first bytes are no header", cure=AGAIN)


def not_finite(path: Path, bad: int, number: int) -> FileError:
    return FileError(
        f"{path} has {bad} of {number} values that are not finite (NaN or infinite)",
        "not finite",
        "replace them, most often by the background's value, and save it again",
    )


def _mha_bytes(head: bytes) -> int:
    """Length of a MetaImage file with its values inside; 0 where the header does not tell."""
    start = head.find(b"ElementDataFile")
    end = head.find(b"\n", start) + 1
    if start < 0 or end == 0:
        return 0
    lines = head[:end].decode("latin-1").splitlines()
    fields = {key.strip(): value.strip() for key, _, value in (line.partition("=") for line in lines)}
    if fields["ElementDataFile"].upper() != "LOCAL" or fields.get("BinaryData", "True").lower() == "false":
        return 0
    try:
        if fields.get("CompressedData", "False").lower() == "true":
            return end + int(fields.get("CompressedDataSize", 0))
        width = _MHA_BYTES.get(fields.get("ElementType", ""), 0) * int(fields.get("ElementNumberOfChannels", 1))
        return end + width * math.prod(int(n) for n in fields.get("DimSize", "0").split())
    except ValueError:  # a header that makes no sense: the reader will say so
        return 0


_MHA_BYTES = {
    f"MET_{sign}{name}": width
    for sign in ("", "U")
    for name, width in {"CHAR": 1, "SHORT": 2, "INT": 4, "LONG_LONG": 8, "FLOAT": 4, "DOUBLE": 8}.items()
}


def _walk_tiff(path: Path, size: int) -> None:
    """Follow the chain of pages; each page's entry stands behind its values, so the last one tells."""
    with path.open("rb") as file:
        head = file.read(16)
        order = {b"II": "<", b"MM": ">"}.get(head[:2])
        if order is None or len(head) < 8:
            raise FileError(f"{path} is no TIFF file: its first bytes are no header", cure=AGAIN)
        big = struct.unpack(order + "H", head[2:4])[0] == 43
        count, entry, link = ("Q", 20, "Q") if big else ("H", 12, "I")
        (offset,) = struct.unpack(order + link, (head[8:16] if big else head[4:8]).ljust(8 if big else 4, b"\0"))
        seen: set[int] = set()
        while offset and offset not in seen:
            seen.add(offset)
            file.seek(offset)
            raw = file.read(struct.calcsize(count))
            number = struct.unpack(order + count, raw)[0] if len(raw) == struct.calcsize(count) else 0
            after = offset + len(raw) + number * entry
            file.seek(after)
            raw = file.read(struct.calcsize(link))
            if not number or len(raw) < struct.calcsize(link):
                raise FileError(
                    f"{path} is truncated: page {len(seen)} lies beyond its {size} bytes", "truncated", AGAIN
                )
            (offset,) = struct.unpack(order + link, raw)
