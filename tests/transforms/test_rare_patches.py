"""Asymmetric augmentation of patches as the feed draws them, from names in a recipe."""

from __future__ import annotations

import pytest
import torch

from shiftproof.data.plan import Plan
from shiftproof.data.samples import Samples
from shiftproof.data.sampling import Feed
from shiftproof.errors import OptionError
from shiftproof.patching import patches_of, transform_of
from shiftproof.recipe import Recipe
from shiftproof.soundness import require_sound

PLAN = Plan(
    2, "LPS", (1.0, 1.0, None), ("image",), ("background", "disc", "ring"), {"image": {"scheme": "zscore"}}, (8, 8)
)


def changes(toys, recipe: Recipe, index: int) -> tuple[Samples, torch.Tensor]:
    """A batch as it was cut, and which of its patches the augmentation changes."""
    cases = toys.cases("d0", 6)
    batch = Feed(cases, ["d0"], patches_of(recipe, PLAN), size=16).batch(index).source
    result = transform_of(recipe, PLAN)(batch, torch.Generator().manual_seed(index))
    edge = (batch.image.shape[-1] - 8) // 2
    central = batch.image[..., edge : edge + 8, edge : edge + 8]
    return batch, (result.image != central).flatten(1).any(1)


def test_only_patches_drawn_on_the_rare_structure_are_changed(toys):
    options = {"rare": ["ring"], "common": "none"}
    recipe = Recipe("a", transforms="heuristic", transforms_options=options, sampling={"foreground": 0.8})
    seen = set()
    for index in range(4):
        batch, changed = changes(toys, recipe, index)
        drawn = batch.extra["drawn"]
        assert torch.equal(changed, drawn == 2)
        seen |= set(drawn.tolist())
    assert seen == {0, 1, 2}


def test_without_names_all_structures_are_rare(toys):
    recipe = Recipe("a", transforms="heuristic", transforms_options={"common": "none"}, sampling={"foreground": 0.5})
    batch, changed = changes(toys, recipe, 0)
    assert torch.equal(changed, batch.extra["drawn"] > 0)


@pytest.mark.parametrize("name", ["light", "strong", "heuristic", "random", "policy"])
def test_every_preset_has_an_asymmetric_form_in_a_recipe(toys, name: str):
    recipe = Recipe("a", transforms=name, transforms_options={"rare": ["disc"], "common": 0.25})
    require_sound(recipe, PLAN)
    changes(toys, recipe, 0)
    with pytest.raises(OptionError, match='row "a": .*"dics".*disc, ring'):
        require_sound(Recipe("a", transforms=name, transforms_options={"rare": ["dics"]}), PLAN)
