"""The study's folder as nodes of a cluster find it or do not; nothing heavy is imported to look for it."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import socket
import stat
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ...errors import RunError, StorageError
from ...files import storing
from ...versions import versions

DECIDING = ("shiftproof", "torch", "numpy")
"""Packages that a node must have in the same version, so that it gives the same numbers."""


@dataclass(frozen=True)
class Home:
    """The study's folder, as the machine knows it that started the study.

    Args:
        folder: Where it is there.
        mark: A hidden file in it.
        word: What the mark says, so that another folder of this name does not pass for it.
        files: Some of the cohort's files; a node that sees the folder must see them, too.
        shared: "yes", "no", or "auto": as each node finds it.
        name: Of the folder of copies on a node that does not see it.
        versions: Of the packages in `DECIDING`.
    """

    folder: str
    mark: str
    word: str
    files: tuple[str, ...]
    shared: str
    name: str
    versions: dict[str, str]


def home_of(folder: Path, files: Iterable[str], *, shared: str, word: str, name: str) -> Home:
    """A home whose mark is not written yet."""
    return Home(str(folder.resolve()), f".ray-{word}", word, tuple(files), shared, name, deciding())


@dataclass(frozen=True)
class Look:
    """What a node is.

    Args:
        host: Its name.
        sees: Whether the study's folder is there.
        wrote: Name of a file that it wrote there; None where it could not.
        why: The system's word on why it could not.
    """

    host: str
    sees: bool
    wrote: str | None = None
    why: str = ""


def look(home: Home, node: str) -> Look:
    """Checks the node, and writes a file into the study's folder where it is seen."""
    require_same(home)
    host = socket.gethostname()
    if not sees(home):
        return Look(host, sees=False)
    mine = Path(home.folder) / f"{home.mark}-{node}"
    try:
        mine.write_text(home.word, encoding="utf-8")
    except OSError as error:
        return Look(host, sees=True, why=error.strerror or str(error))
    return Look(host, sees=True, wrote=mine.name)


def sees(home: Home) -> bool:
    """Whether the study's folder is visible here, and the cohort with it.

    Raises:
        RunError: If it was said to be shared and is not.
    """
    if home.shared == "no":
        return False
    try:
        found = (Path(home.folder) / home.mark).read_text(encoding="utf-8") == home.word
    except OSError:
        found = False
    missing = None if not found else next((name for name in home.files if not os.path.exists(name)), None)
    if found and missing is None:
        return True
    if home.shared == "yes":
        raise RunError(
            f"node {socket.gethostname()} does not see {missing or home.folder}; mount it there under the same path, "
            "or let files travel: --shared no"
        )
    return False


def require_same(home: Home) -> None:
    here = deciding()
    for name, version in home.versions.items():
        if here[name] != version:
            raise RunError(
                f"node {socket.gethostname()} has {name} {here[name]}, the study was started with {version}; "
                "install the same versions everywhere, or numbers would depend on the node"
            )


def deciding() -> dict[str, str]:
    """Versions without what follows a "+": builds for a CPU and for a GPU may work together."""
    found = versions()
    return {name: found[name].split("+")[0] for name in DECIDING}


def copies(home: Home) -> Path:
    """The folder of copies on this node, which only this user can read.

    Raises:
        StorageError: If somebody else has put a folder there.
    """
    base = Path(tempfile.gettempdir()) / f"shiftproof-{getpass.getuser()}"
    with storing(base):
        base.mkdir(mode=0o700, exist_ok=True)
    found = base.lstat()
    # Images of patients: a folder that another user prepared under this name must not be used.
    if not stat.S_ISDIR(found.st_mode) or (hasattr(os, "getuid") and found.st_uid != os.getuid()):
        raise StorageError(f"{base} on {socket.gethostname()} belongs to another user; set TMPDIR for `ray start`")
    return base / home.name


def clear(home: Home) -> None:
    """Removes this node's copies."""
    with contextlib.suppress(StorageError, OSError):
        folder = copies(home)
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.rmdir()  # stays where another study has copies


class Board:
    """Where jobs that run elsewhere write how far they are, and read whether to stop; lives on the cluster's head."""

    def __init__(self) -> None:
        self._steps: dict[str, int] = {}
        self._stopped = False

    def tell(self, key: str, step: int) -> bool:
        """Notes the last step; returns whether the job should save its state and end."""
        self._steps[key] = step
        return self._stopped

    def steps(self) -> dict[str, int]:
        return dict(self._steps)

    def stop(self) -> None:
        self._stopped = True
