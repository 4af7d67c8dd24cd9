"""SHA-256 of files by content, remembered by path, size and time of change."""

from __future__ import annotations

import hashlib
import json
import re
import time
from pathlib import Path

from ..errors import ImageError
from ..files import write_text
from .filenames import file_of, volume_of

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

        A volume of several, `file.nii.gz#2`, has the file's hash and its number in its own.

        Raises:
            ImageError: If the file cannot be read.
        """
        if (number := volume_of(path)) is not None:
            return hashlib.sha256(f"{self.of(file_of(path))}#{number}".encode()).hexdigest()
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
        except (OSError, ValueError) as error:
            if isinstance(error, ImageError):
                raise
            why = getattr(error, "strerror", None) or error
            raise ImageError(f"{path} cannot be read: {why}; correct the path") from error
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
    """The file with the values, for formats whose header can be a file of its own.

    Raises:
        ImageError: If the header names none, several, or one outside of its folder.
    """
    suffix = path.suffix.lower()
    if suffix not in _NAMES_VALUES:
        return []
    with path.open("rb") as file:
        head = file.read(65536)
    if suffix == ".nrrd":
        head = head.partition(b"\n\n")[0].partition(b"\r\n\r\n")[0]  # behind an empty line stand values
    names = {n.decode("utf-8", "replace").strip() for n in re.findall(_NAMES_VALUES[suffix], head)}
    if suffix in (".mha", ".nrrd") and names <= {"LOCAL"}:
        return []
    name = next(iter(names)) if len(names) == 1 else ""
    if not name or name.split()[0] in ("LIST", "LOCAL") or "%" in name or "\0" in name:
        raise ImageError(
            f"{path} names no single file with its values; save it as {'.mha' if suffix[1] == 'm' else '.nrrd'}"
        )
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise ImageError(f"{path} names {name} for its values, expected a file in its own folder; move it there")
    return [path.parent / name]


_META, _NRRD = rb"ElementDataFile\s*[=:]([^\r\n]*)", rb"(?i:data ?file):([^\r\n]*)"
_NAMES_VALUES = {".mhd": _META, ".mha": _META, ".nhdr": _NRRD, ".nrrd": _NRRD}
"""Line of a header that names the file with the values, by format."""


def _load(path: Path) -> dict[str, tuple[list[int], str]]:
    try:
        return {key: (stamp, digest) for key, (stamp, digest) in json.loads(path.read_text()).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}  # it only saves time: what cannot be read is computed again
