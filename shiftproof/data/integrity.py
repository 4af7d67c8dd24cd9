"""Whether a file is whole, by what its own header promises.

Readers do not tell: a NIfTI file that breaks off is filled with zeros, as are its values that are not finite,
and a TIFF stack ends at the break, all without an error. So bytes and values are counted before a reader sees
the file; for compressed files this also compares their checksum.
"""

from __future__ import annotations

import functools
import gzip
import math
import os
import re
import struct
import zlib
from pathlib import Path

import numpy as np

from ..errors import ImageError
from .hashes import companions

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
        FileError: If it is empty, breaks off, its compression is damaged, it promises more than it can hold, or
            a NIfTI file has values or a place that are not finite.
        ImageError: If a header with its values in a second file names one outside of its folder, or none.
    """
    stat = path.stat()
    if stat.st_size == 0:
        raise FileError(f"{path} is empty (0 bytes)", "truncated", AGAIN)
    _require_whole(path, stat.st_size, stat.st_mtime_ns)


def require_plausible(path: Path, promised: int) -> None:
    """Nothing, if values of so many bytes can come out of this file and fit into this machine.

    A header of some bytes can promise gigabytes, and readers believe it before they look for them.

    Raises:
        FileError: Otherwise.
    """
    size = sum(file.stat().st_size for file in (path, *companions(path)))
    # DEFLATE makes at most 1032 bytes of one, the LZW of TIFF files some 2700.
    densest = _DENSEST_TIFF if path.suffix.lower() in (".tif", ".tiff") else _DENSEST
    if promised > densest * size + 4096:
        raise FileError(
            f"{path} is truncated or made up: its header promises {promised} bytes, more than its {size} can hold",
            "truncated",
            AGAIN,
        )
    if promised > _LARGE and promised > _USUAL * size:
        raise FileError(
            f"{path} would grow from {size} to {promised} bytes, which no scan does",
            "too large",
            "look where the file comes from; a real one is read when it is saved without compression",
        )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if promised > memory:
        raise FileError(
            f"{path} has {promised / 2**30:.1f} GiB of values, this machine {memory / 2**30:.1f} GiB of memory",
            "too large",
            "divide it, reduce it, or use a machine with more memory",
        )


_DENSEST, _DENSEST_TIFF = 1100, 3000
_USUAL = 300
_LARGE = 2**31


@functools.lru_cache(maxsize=4096)
def _require_whole(path: Path, size: int, changed: int) -> None:
    # Size and time are arguments so that a file which changed is looked at again.
    companions(path)
    name = path.name.lower()
    if name.endswith((".nii", ".nii.gz")):
        _scan_nifti(path, size)
    elif name.endswith((".mha", ".mhd")):
        with path.open("rb") as file:
            head = file.read(65536)
        _require_metaimage(path, head)
        _compare(path, size, _mha_bytes(head))
    elif name.endswith(".png"):
        _walk_png(path, size)
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
            if packed:
                require_plausible(path, expected)
            else:
                _compare(path, size, expected)
            length, bad = len(head), 0
            if packed or floats:
                while length < start and (block := file.read(min(start - length, 1 << 22))):
                    length += len(block)
                while block := file.read(1 << 22):  # to the end, so that the checksum is compared
                    values = block[: max(expected - length, 0)]
                    length += len(block)
                    if length > expected + _BEHIND:
                        raise FileError(f"{path} has {_BEHIND} bytes and more behind its values", cure=AGAIN)
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
_BEHIND = 1 << 26
"""Bytes that may follow the values; a bomb has more."""
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
            if not 1 <= dims[0] <= 7 or min(dims[1 : 1 + dims[0]]) < 1 or bits < 1:
                raise FileError(f"{path} has a header that makes no sense: dimensions {dims}, {bits} bits", cure=AGAIN)
            _require_affine(path, order, head)
            start = max(int(offset), _NIFTI_HEADER) if math.isfinite(offset) else _NIFTI_HEADER
            voxels = math.prod(dims[1 : 1 + dims[0]])
            floats = np.dtype(order + _NIFTI_FLOATS[kind]) if kind in _NIFTI_FLOATS else None
            return start, start + voxels * bits // 8, floats
    raise FileError(f"{path} is no NIfTI file: its first bytes are no header", cure=AGAIN)


def _require_affine(path: Path, order: str, head: bytes) -> None:
    """The places that its codes say count are finite; readers take others, and warn past us at most."""
    qform, sform = struct.unpack(order + "2h", head[252:256])
    numbers = list(struct.unpack(order + "3f", head[80:92]))
    if qform > 0:
        numbers += struct.unpack(order + "6f", head[256:280])
    if sform > 0:
        numbers += struct.unpack(order + "12f", head[280:328])
    if not all(map(math.isfinite, numbers)):
        raise FileError(
            f"{path} has an affine that is not finite (NaN or infinite)",
            "unreadable",
            "correct its sform and voxel sizes, or export it again",
        )


def not_finite(path: Path, bad: int, number: int) -> FileError:
    return FileError(
        f"{path} has {bad} of {number} values that are not finite (NaN or infinite)",
        "not finite",
        "replace them, most often by the background's value, and save it again",
    )


def _require_metaimage(path: Path, head: bytes) -> None:
    """The header says how many axes there are; its reader trusts that number beyond what it has room for."""
    axes = [a.strip() for a in re.findall(rb"NDims\s*[=:]([^\r\n]*)", head)]
    if not axes or not all(a in (b"1", b"2", b"3", b"4", b"5") for a in axes):
        raise FileError(f"{path} is no MetaImage file: its header does not say NDims = 1 to 5", cure=AGAIN)


def _mha_bytes(head: bytes) -> int:
    """Length of a MetaImage file with its values inside; 0 where the header does not tell."""
    start = head.find(b"ElementDataFile")
    end = head.find(b"\n", start) + 1
    if start < 0 or end == 0:
        return 0
    lines = head[:end].decode("latin-1").splitlines()
    fields = {key.strip(): value.strip() for key, _, value in (line.partition("=") for line in lines)}
    if fields.get("ElementDataFile", "").upper() != "LOCAL" or fields.get("BinaryData", "True").lower() == "false":
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


def _walk_png(path: Path, size: int) -> None:
    """Follow the chunks; a reader makes room for one before it knows whether the file is that long."""
    with path.open("rb") as file:
        if file.read(8) != b"\x89PNG\r\n\x1a\n":
            raise FileError(f"{path} is no PNG file: its first bytes are no header", cure=AGAIN)
        place, kind = 8, b""
        while kind != b"IEND":
            file.seek(place)
            head = file.read(8)
            length, kind = int.from_bytes(head[:4], "big"), head[4:]
            place += 12 + length
            if len(head) < 8 or place > size:
                raise FileError(f"{path} is truncated: a part of it ends beyond its {size} bytes", "truncated", AGAIN)


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
        pages: set[tuple[tuple[int, int], ...]] = set()
        while offset and offset not in seen:
            seen.add(offset)
            file.seek(offset)
            raw = file.read(struct.calcsize(count))
            number = struct.unpack(order + count, raw)[0] if len(raw) == struct.calcsize(count) else 0
            entries = file.read(min(number, _TIFF_ENTRIES) * entry)
            file.seek(offset + len(raw) + number * entry)
            raw = file.read(struct.calcsize(link))
            if not number or len(raw) < struct.calcsize(link):
                raise FileError(
                    f"{path} is truncated: page {len(seen)} lies beyond its {size} bytes", "truncated", AGAIN
                )
            pages.add(_tiff_page(order, entries, entry))
            (offset,) = struct.unpack(order + link, raw)
    if len(pages) > 1:
        raise FileError(
            f"{path} has pages of different sizes or kinds (a preview, a pyramid), expected slices of one volume",
            cure="save the slices alone",
        )


_TIFF_ENTRIES = 4096
_TIFF_WIDTHS = {1: 1, 3: 2, 4: 4, 16: 8}
"""Bytes of a number by type."""
_TIFF_SHARED = (254, 256, 257, 258, 259, 262, 277, 317, 338, 339)
"""Entries that the pages of a volume share: kind, size, compression, type of values."""


def _tiff_page(order: str, entries: bytes, width: int) -> tuple[tuple[int, int], ...]:
    """What a page has in common with the others of its volume, by which a reader makes room for all of them."""
    big, ends = width == 20, "little" if order == "<" else "big"
    found = []
    for start in range(0, len(entries) - width + 1, width):
        tag, kind, number = struct.unpack_from(order + ("2HQ" if big else "2HI"), entries, start)
        length = number * _TIFF_WIDTHS.get(kind, 99)
        if tag in _TIFF_SHARED and length <= (8 if big else 4):  # longer ones are elsewhere, each page's by itself
            value = entries[start + (12 if big else 8) :][:length]
            found.append((tag, int.from_bytes(value, ends)))  # type: ignore[arg-type]
    return tuple(sorted(found))
