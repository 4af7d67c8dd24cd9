"""Names that tell nothing: numbers in the order of a keyed hash."""

from __future__ import annotations

import hmac
import os
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ...errors import CohortError
from ...files import storing, write_json
from .found import read_json


class Pseudonyms:
    """Numbers for identities, the same ones in every later import with the same key.

    What is kept are HMAC-SHA-256 digests: without the key nobody can test whether a person is among them. So the
    key lies outside of what is handed on.

    Args:
        path: File of digests and numbers.
        key: File with the secret; made where there is none.

    Raises:
        CohortError: If the numbers were given with another key, or a file is damaged.
    """

    def __init__(self, path: Path, key: Path) -> None:
        self.path = path
        self._key = _key(key)
        check = self._digest("check", "")
        table: dict[str, Any] = read_json(path, "file of pseudonyms") if path.exists() else {"check": check}
        if table.pop("check", None) != check:
            raise CohortError(
                f"{path} was made with another key than {key}; name the file of that key, or choose a new folder"
            )
        if not all(isinstance(t, dict) and all(isinstance(n, int) for n in t.values()) for t in table.values()):
            raise CohortError(f"{path} is no file of pseudonyms; restore it, or choose a new folder")
        self._numbers: dict[str, dict[str, int]] = table

    def number(self, kind: str, identities: Iterable[str]) -> dict[str, int]:
        """A number from 1 for each identity; new ones follow those of earlier imports."""
        known = self._numbers.setdefault(kind, {})
        digests = {identity: self._digest(kind, identity) for identity in identities}
        for digest in sorted(set(digests.values()) - set(known)):
            known[digest] = max(known.values(), default=0) + 1
        return {identity: known[digest] for identity, digest in digests.items()}

    def save(self) -> None:
        write_json(self.path, {"check": self._digest("check", ""), **self._numbers})

    def _digest(self, kind: str, identity: str) -> str:
        return hmac.new(self._key, f"{kind}\0{identity}".encode(), "sha256").hexdigest()


def _key(path: Path) -> bytes:
    if not path.exists():
        with storing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            # Nobody else may read it, from its first moment on.
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(secrets.token_hex(32) + "\n")
    try:
        key = bytes.fromhex(path.read_text(encoding="ascii").strip())
    except (OSError, ValueError) as error:
        raise CohortError(
            f"{path} is no key of pseudonyms ({type(error).__name__}); restore it, or name another"
        ) from error
    if len(key) < 16:
        raise CohortError(f"{path} is too short for a key of pseudonyms, expected at least 32 hexadecimal digits")
    return key
