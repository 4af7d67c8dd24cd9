"""The unit is the subject."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from shiftproof.statistics import per_subject

COLUMNS = ["row", "held_out", "seed", "subject", "domain", "structure", "metric", "value"]


def rows(*lines: tuple[int, str, str, float]) -> pd.DataFrame:
    """From seed, subject, structure and value."""
    return pd.DataFrame(
        [("erm", "A", seed, who, "A", what, "dice", v) for seed, who, what, v in lines], columns=COLUMNS
    )


def test_seeds_are_averaged_after_structures():
    found = per_subject(rows((0, "s", "csf", 0.2), (0, "s", "grey", 0.4), (1, "s", "csf", 0.8)), "dice")
    assert found["value"].tolist() == pytest.approx([(0.3 + 0.8) / 2])
    assert found["seeds"].tolist() == [2]


def test_a_structure_that_was_scanned_twice_counts_once():
    found = per_subject(rows((0, "s", "csf", 0.0), (0, "s", "csf", 0.2), (0, "s", "grey", 0.5)), "dice")
    assert found["value"].tolist() == pytest.approx([0.3])


def test_both_empty_is_left_out_and_a_subject_of_nothing_else_is_kept():
    found = per_subject(
        rows((0, "s", "csf", math.nan), (0, "s", "grey", 0.6), (0, "t", "csf", math.nan), (0, "t", "grey", math.nan)),
        "dice",
    ).set_index("subject")
    assert found.loc["s", "value"] == 0.6
    assert math.isnan(found.loc["t", "value"])
    assert found.loc["t", "seeds"] == 0


def test_other_metrics_and_structures_do_not_mix_in():
    table = rows((0, "s", "csf", 0.2), (0, "s", "grey", 0.4))
    table = pd.concat([table, table.assign(metric="hd95 mm", value=30.0)])
    assert per_subject(table, "dice", structure="grey")["value"].tolist() == [0.4]
    assert per_subject(table, "hd95 mm")["value"].tolist() == [30.0]
