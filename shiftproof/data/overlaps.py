"""Structures that may share voxels, in one file: a bit for each."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import LabelError


def coded(answer: np.ndarray) -> np.ndarray:
    """An answer as one file holds it: class indices (X, Y) as they are, bool (K, X, Y) as a bit for each structure.

    Structure k, from 0, adds `2**k` where it is: what overlaps stays apart.
    """
    if answer.dtype != bool:
        return answer
    weights = (2 ** np.arange(len(answer), dtype=np.uint64)).astype(code_type(len(answer)))
    return (answer * weights[:, None, None]).sum(0, dtype=weights.dtype)  # type: ignore[no-any-return]


def decoded(array: np.ndarray, structures: int) -> np.ndarray:
    """Back from `coded`: bool (K, *space)."""
    return np.stack([(array >> k) & 1 for k in range(structures)]).astype(bool)


def code_type(structures: int) -> type[np.unsignedinteger[Any]]:
    """Of files with a bit for each structure."""
    if structures > 32:
        raise LabelError(f"{structures} structures that may overlap do not fit into one label file, which holds 32")
    return np.uint8 if structures <= 8 else np.uint16 if structures <= 16 else np.uint32
