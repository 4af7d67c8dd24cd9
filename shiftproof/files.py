"""Writing that cannot leave half a file behind."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import StorageError

if TYPE_CHECKING:
    import pandas


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, which takes its place when the block ends well.

    A reader sees the old content or the new, never a part; a killed process leaves at most a hidden temporary file.

    Raises:
        StorageError: If the disk is full or not writable; the old content is kept.
    """
    path = Path(path)
    with storing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".", suffix="".join(path.suffixes[-2:]), dir=path.parent)
        os.close(handle)
        os.chmod(name, 0o644)
        try:
            yield Path(name)
            os.replace(name, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(name)
            raise


@contextlib.contextmanager
def storing(path: Path) -> Iterator[None]:
    """Turns the system's word on disks into one that names the cure."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageError(
                f"no space left while writing {path}; free some and run the same command again"
            ) from error
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise StorageError(
                f"cannot write {path}: {error.strerror}; choose a folder that you may write to"
            ) from error
        raise


def write_text(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def strict(value: Any) -> Any:
    """A value as standard JSON has it: what is not a finite number becomes null, what has no form there its words."""
    if isinstance(value, dict):
        return {str(k): strict(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [strict(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, str | int | float | bool):
        return value
    return str(value)


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(strict(value), indent=1, ensure_ascii=False, allow_nan=False) + "\n")


NAMES = ("row", "held_out", "subject", "domain", "structure", "metric", "status")
"""Columns of result rows that are text, whatever they look like."""


def read_rows(path: Path) -> pandas.DataFrame:
    """Result rows. Names stay text: a subject "007" is not 7, and a site "NA" is not a missing one."""
    import pandas

    unknown = {name: ["", "nan", "NaN"] for name in ("value", "predicted", "truth")}
    return pandas.read_csv(path, dtype=dict.fromkeys(NAMES, str), keep_default_na=False, na_values=unknown)
