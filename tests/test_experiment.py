from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path

import pytest
import torch

from shiftproof.data.plan import Plan
from shiftproof.data.sampling import Feed, Patches
from shiftproof.data.splits import set_apart
from shiftproof.deploy.model import digest
from shiftproof.errors import OptionError, SplitError
from shiftproof.experiment import Experiment
from shiftproof.methods.method import Setting
from shiftproof.patching import patches_of, rare_drawn, source_of, transform_of
from shiftproof.recipe import Recipe
from shiftproof.soundness import require_batch, require_sound
from shiftproof.train import Trainer
from shiftproof.transforms.policies import Policy
from shiftproof.transforms.policy_files import to_json
from shiftproof.transforms.pool import Pool

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


def test_a_share_of_each_domains_subjects_is_set_apart_whatever_the_seed(toys):
    cases = [c for d in range(2) for c in toys.cases(f"d{d}", 9, seed=d)]
    train, kept = set_apart(cases, "a method")
    assert len(kept) == 4  # 2 of 9 in each domain
    assert {c.domain for c in kept} == {"d0", "d1"}
    assert not {c.subject for c in train} & {c.subject for c in kept}
    assert {c.subject for c in [*train, *kept]} == {c.subject for c in cases}
    assert [c.subject for c in set_apart(cases, "a method")[1]] == [c.subject for c in kept]


def test_nobody_whose_label_or_image_was_used_is_unknown_to_the_model_folder(toys):
    """Those who steer a method while it trains have selected; the held-back ones keep their place in the run's file."""
    cases = [c for d in range(3) for c in toys.cases(f"d{d}", 4, seed=d, labelled=d < 2)]
    for case in cases:
        case.key = case.subject
    feed = Feed(
        cases[:4], ["d0", "d1", "d2"], Patches((8, 8)), size=2, target=cases[8:], streams={"validation": cases[4:6]}
    )
    row, setting = Recipe("a", transforms="none"), Setting(["d0", "d1", "d2"], 1, 2, 2)
    experiment = Experiment(row, PLAN, Trainer(), setting, feed, cases[6:8])
    names = [c.subject for c in cases]
    assert experiment.subjects() == {
        side: sorted(map(digest, some))
        for side, some in {"train": names[:4], "validation": names[4:8], "target": names[8:]}.items()
    }
    assert experiment.declared()["subjects"] == {
        "train": names[:4], "validation": names[6:8], "validation, in training": names[4:6],
        "target, without labels": names[8:],
    }  # fmt: skip


def test_of_few_subjects_one_is_set_apart_and_a_single_one_is_refused(toys):
    pair = toys.cases("d0", 2)
    assert [len(side) for side in set_apart(pair, "a method")] == [1, 1]
    with pytest.raises(SplitError, match="a method validates on training subjects .* needs at least 2 of them, got 1"):
        set_apart(pair[:1], "a method")


def test_shares_of_structures_are_given_by_name():
    row = Recipe("a", sampling={"foreground": {"ring": 0.5, "disc": 0.25}, "background": "background"})
    patches = patches_of(row, PLAN)
    assert patches.foreground == {2: 0.5, 1: 0.25}
    assert patches.background == "background"
    with pytest.raises(OptionError, match='row "a": .*disk.*disc, ring'):
        require_sound(Recipe("a", sampling={"foreground": {"disk": 0.5}}), PLAN)
    with pytest.raises(OptionError, match='row "a": .*"inside".*anywhere, background'):
        require_sound(Recipe("a", sampling={"background": "inside"}), PLAN)
    whole = dataclasses.replace(PLAN, classes=("a", "b"), target={"task": "classification", "kind": "multi-class"})
    for sampling in ({"foreground": {"b": 0.5}}, {"background": "background"}):
        with pytest.raises(OptionError, match="in classification a scan is shown whole"):
            require_sound(Recipe("a", sampling=sampling), whole)


def test_a_rare_class_that_does_not_exist_is_named_with_those_that_do():
    assert rare_drawn(None, PLAN) == (1, 2)
    assert rare_drawn(["ring"], PLAN) == (2,)
    with pytest.raises(OptionError, match='row "a": .*lesion.*disc, ring'):
        require_sound(Recipe("a", transforms="strong", transforms_options={"rare": ["lesion"]}), PLAN)


def test_where_structures_overlap_a_combination_with_a_rare_one_is_rare():
    target = {"task": "segmentation", "kind": "multi-label", "parts": [[0, 0], [1, 0], [0, 1], [1, 1]]}
    assert rare_drawn(["ring"], dataclasses.replace(PLAN, target=target)) == (2, 3)


def test_a_policy_for_two_kinds_of_patches_takes_for_rare_what_was_rare_when_it_was_learned(tmp_path):
    pool, path = Pool("talk", dimensions=2, patch=(8, 8)), tmp_path / "policy.json"

    def rare(said, **given):
        path.write_text(to_json(Policy(pool.groups, sets=2), pool, provenance=said), encoding="utf-8")
        return transform_of(
            Recipe("a", transforms="policy", transforms_options={"file": str(path), **given}), PLAN
        ).rare

    classes = ["background", "disc", "ring"]
    assert rare({"classes": classes, "rare": ["ring"]}) == (2,)
    assert rare({"classes": classes, "rare": ["ring"]}, rare=["disc"]) == (1,)
    # All structures were rare, whatever they were called, or the file does not say it.
    assert rare({"classes": ["background", "lesion"], "rare": ["lesion"]}) is None
    assert rare({}) is None
    with pytest.raises(OptionError, match="no rare class .*lesion.*disc, ring"):
        rare({"classes": ["background", "organ", "lesion"], "rare": ["lesion"]})


def test_how_many_domains_a_method_holds_out_is_not_judged_before_they_are_known():
    require_sound(Recipe("a", method="mldg", options={"held_out": 2}), PLAN)
    with pytest.raises(OptionError, match='row "a": .*at least 1 held out'):
        require_sound(Recipe("a", method="mldg", options={"held_out": 0}), PLAN)


def test_too_few_training_domains_are_told_with_the_rows_name():
    require_sound(Recipe("a", method="mldg", options={"held_out": 2}), PLAN, ["A", "B", "C"])
    with pytest.raises(OptionError, match='row "a": MLDG holds 2 of 2 source domains out'):
        require_sound(Recipe("a", method="mldg", options={"held_out": 2}), PLAN, ["A", "B"])
    with pytest.raises(OptionError, match='row "b": mldg needs at least 2 labelled training domains, got 1 .A.'):
        require_sound(Recipe("b", method="mldg"), PLAN, ["A"])
    require_sound(Recipe("c"), PLAN, ["A"])


def test_a_method_that_augments_by_itself_takes_no_transforms():
    assert Recipe("a", method="learned_augmentation").transforms == "none"
    with pytest.raises(OptionError, match="learned_augmentation augments by itself"):
        Recipe("a", method="learned_augmentation", transforms="strong")


@pytest.mark.parametrize(
    ("method", "options", "words"),
    [
        ("adversarial", {"rare": ["lesion"]}, "lesion.*disc, ring"),
        ("mixup", {"rare": ["background"]}, "never rare.*disc, ring"),
        ("asymmetric_combination", {"rare": ["lesion"]}, "lesion.*disc, ring"),
        ("learned_augmentation", {"class_specific": True, "rare": ["lesion"]}, "lesion.*disc, ring"),
        ("mixup", {"margin": 1.5}, "margin.*1.5"),
        ("adversarial", {"radius": -1.0}, "radius.*-1"),
    ],
)
def test_what_a_method_refuses_is_said_before_any_training(method, options, words):
    with pytest.raises(OptionError, match=f'row "a": .*{words}'):
        require_sound(Recipe("a", method=method, options=options), PLAN)


@pytest.mark.parametrize(
    ("transforms", "options", "words"),
    [
        ("strong", {"mirror_axes": 1}, "mirror_axes.*1"),
        ("heuristic", {"affine": "false"}, "affine.*bool.*false"),
        ("random", {"destroying": "no"}, "destroying.*bool.*no"),
    ],
)
def test_an_option_of_transforms_that_is_of_another_kind_is_refused(transforms, options, words):
    with pytest.raises(OptionError, match=f'row "a": .*{words}'):
        require_sound(Recipe("a", transforms=transforms, transforms_options=options), PLAN)


def test_augmentation_by_class_asks_for_the_rare_ones_where_no_class_is_a_background():
    whole = {kind: {"task": "classification", "kind": kind} for kind in ("multi-class", "ordinal", "multi-label")}
    plans = {kind: dataclasses.replace(PLAN, classes=("a", "b"), target=target) for kind, target in whole.items()}
    for kind in ("multi-class", "ordinal"):  # all would be rare, and nothing would differ
        with pytest.raises(OptionError, match="which of the classes a, b are rare"):
            require_sound(Recipe("a", transforms_options={"common": 0.5}), plans[kind])
        assert rare_drawn(["b"], plans[kind]) == (1,)
    assert rare_drawn(None, plans["multi-label"]) == (0, 1)  # a scan may have none of them
    target = {"task": "regression", "column": "age", "unit": "years", "mean": 50.0, "sd": 10.0}
    ages = dataclasses.replace(PLAN, classes=("age",), target=target)
    with pytest.raises(OptionError, match="regression has none"):
        require_sound(Recipe("a", transforms_options={"rare": ["age"]}), ages)
    with pytest.raises(OptionError, match="mixup trains segmentation, classification, not regression"):
        require_sound(Recipe("a", method="mixup"), ages)


def test_a_policy_that_a_method_starts_from_is_known_by_its_content(tmp_path):
    saved = Policy(Pool("talk", dimensions=2, patch=(8, 8)).groups)
    one, other, changed = tmp_path / "one.json", tmp_path / "other.json", tmp_path / "changed.json"
    for path in (one, other):
        path.write_text(to_json(saved, Pool("talk", dimensions=2, patch=(8, 8))))
    with torch.no_grad():
        saved.logits[0][0, 0] += 1
    changed.write_text(to_json(saved, Pool("talk", dimensions=2, patch=(8, 8))))
    recipes = [
        Recipe("a", method="learned_augmentation", options={"policy_file": str(path)}).pinned()
        for path in (one, other, changed)
    ]
    keys = [recipe.training_key() for recipe in recipes]
    assert keys[0] == keys[1] != keys[2]
    one.write_text(changed.read_text())
    with pytest.raises(OptionError, match="has changed since it was chosen"):
        recipes[0].pinned()


@pytest.mark.parametrize("name", ["rare_structures", "rare_structures_losses"])
def test_the_examples_of_rare_structures_are_sound(name):
    plan = dataclasses.replace(
        PLAN, dimensions=3, spacing_mm=(1.0, 1.0, 1.0), classes=("background", "lesion"), patch=(32, 32, 32)
    )
    rows = tomllib.loads((Path(__file__).parents[1] / "examples" / f"{name}.toml").read_text())["row"]
    recipes = [Recipe.from_dict(row) for row in rows]
    for recipe in recipes:
        require_sound(recipe, plan)
    assert len({recipe.training_key() for recipe in recipes}) == len(rows)  # each is another training


def test_a_method_that_mixes_samples_needs_two_of_them():
    def told(method, **options):
        require_batch(Recipe("a", method=method, options=options), Trainer(batch=1), ["A"])

    for method in ("mixup", "asymmetric_combination"):
        with pytest.raises(OptionError, match=f'row "a": {method} mixes samples .* needs 2 of them, got 1'):
            told(method)
        require_batch(Recipe("a", method=method, training={"batch": 2}), Trainer(batch=1), ["A"])
    told("asymmetric_combination", mixup="off")
    told("adversarial")
