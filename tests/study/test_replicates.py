"""The same recipe several times: what tells replicates apart, and what they share."""

from __future__ import annotations

import dataclasses

import pytest

from shiftproof.errors import OptionError
from shiftproof.recipe import Recipe, replicated
from shiftproof.study.declare import with_references


def test_replicates_are_trainings_of_their_own_and_the_first_is_the_recipe_itself():
    row = Recipe.parsed("erm/light")
    rows = replicated([row], 12)
    assert [r.name for r in rows][:2] == ["erm/light #1", "erm/light #2"]
    assert len({r.training_key() for r in rows}) == 12
    assert rows[0].training_key() == row.training_key()
    seeds = {r.seed(s) for r in rows for s in range(10)}
    assert len(seeds) == 120
    assert rows[0].seed(7) == 7


def test_replicates_share_their_references():
    rows, references = with_references(replicated([Recipe.parsed("dann/light")], 3))
    assert len(rows) == 3 + 3
    assert set(references["pooled"].values()) == {"pooled/light"}
    # What plain training already is among the rows, is not trained once more.
    rows, references = with_references(replicated([Recipe.parsed("erm/light")], 3))
    assert references["pooled"] == dict.fromkeys([f"erm/light #{i}" for i in (1, 2, 3)], "erm/light #1")


def test_a_recipe_without_replicate_is_written_as_before_and_read_again():
    row = Recipe.parsed("erm/light")
    assert "replicate" not in row.as_dict()
    other = dataclasses.replace(row, replicate=3)
    assert Recipe.from_dict(other.as_dict()) == other


@pytest.mark.parametrize("number", [-1, 1000])
def test_a_replicate_beyond_its_seeds_is_refused(number: int):
    with pytest.raises(OptionError, match=f"got {number}"):
        Recipe("erm", replicate=number)
    with pytest.raises(OptionError, match="at least 1, got 0"):
        replicated([Recipe("erm")], 0)
