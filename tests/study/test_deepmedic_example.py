"""The example recipes of DeepMedic are rows that a study takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from shiftproof.data.plan import Plan
from shiftproof.patching import patches_of
from shiftproof.soundness import require_sound
from shiftproof.study.declare import parse_rows


@pytest.mark.parametrize("dimensions", [2, 3])
def test_deepmedic_rows_are_sound_and_read_what_the_authors_do(dimensions: int) -> None:
    rows = parse_rows(None, Path(__file__).parents[2] / "examples" / "deepmedic.toml")
    spacing = (1.0, 1.0, 1.0 if dimensions == 3 else None)
    plan = Plan(
        dimensions, "LPS", spacing, ("image",), ("background", "lesion"), {"image": {"scheme": "zscore"}},
        (21,) * dimensions,
    )  # fmt: skip

    assert [row.name for row in rows] == ["deepmedic", "deepmedic, basic", "deepmedic, reduced"]
    for row in rows:
        require_sound(row, plan)
        patches = patches_of(row, plan)
        assert patches.size == (21,) * dimensions
        assert (patches.foreground, patches.background) == (0.5, "background")
        if row.transforms == "none":
            assert patches.source == (37 + 2 * (40 - 8),) * dimensions
