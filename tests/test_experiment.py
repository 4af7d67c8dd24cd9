from __future__ import annotations

import dataclasses

import pytest
import torch

from shiftproof.data.plan import Plan
from shiftproof.data.sampling import Feed, Patches
from shiftproof.errors import OptionError
from shiftproof.experiment import require_batch, source_of, transform_of
from shiftproof.recipe import Recipe
from shiftproof.train import Trainer

PLAN = Plan(
    2, "LPS", (1.0, 1.0, None), ("image",), ("background", "disc", "ring"), {"image": {"scheme": "zscore"}}, (8, 8)
)


def test_what_is_cut_is_as_large_as_augmentation_needs_within_reason():
    assert source_of(Recipe("a", transforms="none"), PLAN) is None
    assert source_of(Recipe("a", transforms="strong"), PLAN) == (12, 12)
    three = dataclasses.replace(PLAN, dimensions=3, spacing_mm=(1.0, 1.0, 1.0), patch=(16, 16, 16))
    assert source_of(Recipe("a", transforms="strong"), three) == (20, 20, 20)
    whole = dataclasses.replace(PLAN, classes=("a", "b"), target={"task": "classification", "kind": "multi-class"})
    assert source_of(Recipe("a", transforms="strong"), whole) is None


def test_patches_come_out_in_the_plans_size_and_with_less_unknown(toys):
    cases = [c for d in range(2) for c in toys.cases(f"d{d}", 4, seed=d)]
    recipe, shares = Recipe("a", transforms="strong"), []
    for source in (None, source_of(recipe, PLAN)):
        feed = Feed(cases, ["d0", "d1"], Patches((8, 8), source=source), size=8)
        transform, unknown = transform_of(recipe, PLAN), []
        for index in range(40):
            batch = transform(feed.batch(index).source, torch.Generator().manual_seed(index))
            assert batch.image.shape[2:] == (8, 8)
            unknown.append(batch.extra["ignore"].float().mean())
        shares.append(float(torch.stack(unknown).mean()))
    assert shares[1] < shares[0]


def test_a_batch_that_cannot_hold_every_domain_is_refused_before_any_run():
    require_batch(Recipe("erm"), Trainer(batch=1), ["A", "B", "C"])
    require_batch(Recipe("dann", method="dann"), Trainer(batch=3), ["A", "B", "C"])
    with pytest.raises(OptionError, match='row "dann": a batch of 2 cannot hold each of the 3 training domains'):
        require_batch(Recipe("dann", method="dann"), Trainer(batch=2), ["A", "B", "C"])
    small = Recipe("dann", method="dann", training={"batch": 2})
    with pytest.raises(OptionError, match="at least 3"):
        require_batch(small, Trainer(batch=8), ["A", "B", "C"])
