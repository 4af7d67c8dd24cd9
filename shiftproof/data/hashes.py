"""SHA-256 of files by content, remembered by path, size and time of change."""

from __future__ import annotations

import hashlib
import json
import re
import time
from pathlib import Path

from ..errors import ImageError
from ..files import write_text

_THIS_PROCESS: dict[str, tuple[list[int], str]] = {}

_SETTLED_NS = 2_000_000_000
"""A file that changed later than this may change again within one tick of a coarse clock."""


class FileHashes:
    """Hashes of files, kept in a file between runs.

    Args:
        path: Where they are kept; None for this process only.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self._known = _THIS_PROCESS if path is None else _load(path)
        self._fresh: dict[str, tuple[list[int], str]] = {}

    def of(self, path: Path) -> str:
        """Hash of the file; of header and values together where a format keeps them in two files.

        Raises:
            ImageError: If the file cannot be read.
        """
        key = str(path.absolute())
        try:
            files = [path, *companions(path)]
            stamp = [n for file in files for n in (file.stat().st_size, file.stat().st_mtime_ns)]
            known = self._known.get(key)
            if known is not None and known[0] == stamp:
                return known[1]
            digest = hashlib.sha256()
            for file in files:
                with file.open("rb") as stream:
                    digest.update(hashlib.file_digest(stream, "sha256").digest())
        except OSError as error:
            raise ImageError(f"{error.filename or path} cannot be read: {error.strerror}; correct the path") from error
        if time.time_ns() - max(stamp[1::2]) > _SETTLED_NS:
            self._known[key] = self._fresh[key] = (stamp, digest.hexdigest())
        return digest.hexdigest()

    def save(self) -> None:
        """Keep what was learned; what others wrote meanwhile is kept too."""
        if self.path is not None and self._fresh:
            known = {**_load(self.path), **self._fresh}
            write_text(self.path, json.dumps({k: [s, h] for k, (s, h) in known.items()}, indent=0))
            self._fresh = {}


def companions(path: Path) -> list[Path]:
    """The file with the values, for formats whose header is a file of its own."""
    suffix = path.suffix.lower()
    if suffix not in (".mhd", ".nhdr"):
        return []
    pattern = rb"^ElementDataFile\s*=\s*(.+?)\s*$" if suffix == ".mhd" else rb"^data ?file:\s*(.+?)\s*$"
    with path.open("rb") as file:
        found = re.search(pattern, file.read(65536), re.MULTILINE | re.IGNORECASE)
    name = found.group(1).decode() if found else ""
    if not name or name.split()[0] in ("LIST", "LOCAL") or "%" in name:
        raise ImageError(
            f"{path} names no single file with its values; save it as {'.mha' if suffix == '.mhd' else '.nrrd'}"
        )
    return [path.parent / name]


def _load(path: Path) -> dict[str, tuple[list[int], str]]:
    try:
        return {key: (stamp, digest) for key, (stamp, digest) in json.loads(path.read_text()).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}  # it only saves time: what cannot be read is computed again
