"""Files that are complete or absent: written beside their place, then moved into it."""

from __future__ import annotations

import contextlib
import errno
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

from ..errors import StorageError

TEMPORARY = ".tmp-"
"""First letters of names that are not complete yet."""


def write_text(path: Path, text: str) -> None:
    """Replace the file at `path` in one step; a reader sees the old text or the new one.

    Raises:
        StorageError: If the disk is full, read-only or gone.
    """
    with replaced(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """A name beside `path`, with the same extension, that takes its place if the block succeeds."""
    path = Path(path)
    temporary = path.with_name(f"{TEMPORARY}{uuid.uuid4().hex[:12]}-{path.name}")
    with storage(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def storage(path: Path) -> Iterator[None]:
    """What goes wrong with the disk inside the block, as a `StorageError` that names `path`."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"cannot write {path}: {_reason(error)}") from error


def _reason(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full; free some space, or name a folder on another disk, and start again"
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return "the folder does not allow writing; name another one"
    return f"{error.strerror or error}; check that the disk is there and has space"
