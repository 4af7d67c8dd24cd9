"""Files as chunks of bounded size, for places that share no file system."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from ...errors import RunError
from ...files import replacing

CHUNK = 32 * 2**20
"""Bytes of an object: of the magnitude that object stores move best, small beside a node's memory."""


@dataclass(frozen=True)
class Piece:
    """A part of a file.

    Args:
        name: Path below the place it goes to, with "/".
        size: Of the whole file in bytes.
        time_ns: When the file changed.
        content: From where the last piece ended.
    """

    name: str
    size: int
    time_ns: int
    content: bytes


@dataclass(frozen=True)
class Parcel:
    """Some files and where their chunks are.

    Args:
        files: (name, bytes, time of change) of each.
        chunks: What the cluster knows them by.
    """

    files: tuple[tuple[str, int, int], ...]
    chunks: list[Any] = field(default_factory=list)

    def arrived(self, root: Path) -> bool:
        """Whether all files lie below `root`."""
        return all(_stamp(root / name) == (size, time_ns) for name, size, time_ns in self.files)


def listed(files: Mapping[str, Path]) -> tuple[tuple[str, int, int], ...]:
    return tuple((name, *_stamp(path)) for name, path in files.items())


def packed(files: Mapping[str, Path], limit: int = CHUNK) -> Iterator[list[Piece]]:
    """The files' content in chunks of at most `limit` bytes: small files share one, large ones have several."""
    chunk: list[Piece] = []
    room = limit
    for name, path in files.items():
        with open(path, "rb") as file:
            stat = os.fstat(file.fileno())
            left = stat.st_size
            while True:
                content = file.read(min(room, left))
                chunk.append(Piece(name, stat.st_size, stat.st_mtime_ns, content))
                left, room = left - len(content), room - len(content)
                if room == 0:
                    yield chunk
                    chunk, room = [], limit
                if left == 0 or not content:
                    break
    if chunk:
        yield chunk


def unpack(root: Path, chunks: Iterable[list[Piece]]) -> None:
    """Write the files below `root`, each complete or not at all; one chunk is held in memory at a time.

    Raises:
        RunError: For a file that would lie elsewhere, or did not arrive in full.
        StorageError: If the disk is full or not writable.
    """
    pieces = (piece for chunk in chunks for piece in chunk)
    for name, parts in itertools.groupby(pieces, key=lambda piece: piece.name):
        target = _below(root, name)
        with replacing(target) as temporary:
            arrived = 0
            with open(temporary, "wb") as file:
                for piece in parts:
                    arrived += file.write(piece.content)
            if arrived != piece.size:
                raise RunError(f"{name} came with {arrived} of {piece.size} bytes; run the same command again")
            os.utime(temporary, ns=(piece.time_ns, piece.time_ns))


def below(root: Path, folder: Path) -> dict[str, Path]:
    """All files of a folder by their path below `root`; hidden ones are unfinished and stay."""
    found = (p for p in sorted(folder.rglob("*")) if p.is_file())
    names = {p.relative_to(root).as_posix(): p for p in found}
    return {name: path for name, path in names.items() if not any(part.startswith(".") for part in name.split("/"))}


def _below(root: Path, name: str) -> Path:
    pure = PurePosixPath(name)
    if pure.is_absolute() or ".." in pure.parts or "\\" in name or not pure.parts:
        raise RunError(f'a file that came from the cluster is called "{name}", which would not lie in {root}')
    return root / pure


def _stamp(path: Path) -> tuple[int, int]:
    try:
        stat = path.stat()
    except OSError:
        return -1, -1
    return stat.st_size, stat.st_mtime_ns
