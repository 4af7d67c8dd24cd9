"""Whether a file is whole, by what its own header promises.

Readers do not tell: a NIfTI file that breaks off is filled with zeros and a TIFF stack ends at the break, both
without an error. So the bytes are counted before a reader sees the file; for compressed files this also
compares their checksum.
"""

from __future__ import annotations

import functools
import gzip
import math
import struct
import zlib
from pathlib import Path

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
        FileError: If it is empty, breaks off or its compression is damaged.
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
        # A plain file under a compressed file's name is common, and readers take it.
        packed = _first(path, 2) == b"\x1f\x8b"
        head, length = _read(path) if packed else (_first(path), size)
        _compare(path, length, _nifti_bytes(path, head))
    elif name.endswith(".mha"):
        _compare(path, size, _mha_bytes(_first(path, 65536)))
    elif name.endswith((".tif", ".tiff")):
        _walk_tiff(path, size)


def _compare(path: Path, found: int, expected: int) -> None:
    if found < expected:
        raise FileError(
            f"{path} is truncated: its header promises {expected} bytes, it has {found}", "truncated", AGAIN
        )


def _first(path: Path, number: int = 1024) -> bytes:
    with path.open("rb") as file:
        return file.read(number)


def _read(path: Path) -> tuple[bytes, int]:
    """The first bytes and the length of what a gzip file holds; its checksum is verified on the way."""
    try:
        with gzip.open(path) as file:
            head = file.read(1024)
            length = len(head)
            while block := file.read(1 << 20):
                length += len(block)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        what = "is truncated" if isinstance(error, EOFError) else "is damaged"
        raise FileError(f"{path} {what}: {error}", "truncated", AGAIN) from error
    return head, length


def _nifti_bytes(path: Path, head: bytes) -> int:
    for order in "<>":
        (size,) = struct.unpack(order + "i", head[:4].ljust(4, b"\0"))
        if size == 348 and len(head) >= 348:
            dims = struct.unpack(order + "8h", head[40:56])
            (bits,) = struct.unpack(order + "h", head[72:74])
            (offset,) = struct.unpack(order + "f", head[108:112])
        elif size == 540 and len(head) >= 540:
            dims = struct.unpack(order + "8q", head[16:80])
            (bits,) = struct.unpack(order + "h", head[14:16])
            (offset,) = struct.unpack(order + "q", head[168:176])
        else:
            continue
        return int(offset) + math.prod(max(n, 1) for n in dims[1 : 1 + min(dims[0], 7)]) * bits // 8
    raise FileError(f"{path} is no NIfTI file: its first bytes are no header", cure=AGAIN)


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
        width = _MHA_BYTES.get(fields.get("ElementType", ""), 0) * int(
            fields.get("ElementNumberOfChannels", 1)
        )
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
        (offset,) = struct.unpack(
            order + link, (head[8:16] if big else head[4:8]).ljust(8 if big else 4, b"\0")
        )
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
