"""`--plan auto`: its decisions against the published rules, worked out here by hand."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
import torch

from shiftproof import autoplan
from shiftproof.autoplan import Budget, auto_plan, completed, plan_of, resolved, spacing_of
from shiftproof.data.cohort import Cohort
from shiftproof.data.labels import LabelMap
from shiftproof.data.plan import Plan, make_plan
from shiftproof.data.planning import Frame
from shiftproof.data.splits import everything
from shiftproof.data.store import Store
from shiftproof.data.targets import Targets
from shiftproof.errors import OptionError, PlanError
from shiftproof.experiment import prepare
from shiftproof.methods.method import Setting
from shiftproof.recipe import Recipe, build
from shiftproof.soundness import require_sound
from shiftproof.train import Trainer, movers
from shiftproof.training.estimate import estimated


def cohort(folder, *, size=(24, 20, 22), spacing=(1.0, 1.0, 1.0), subjects=4, channel="image", sites="AB"):
    """A ball in noise; the image is 100 in the ball."""
    random = np.random.default_rng(0)
    axes = np.meshgrid(*[np.arange(n) - n / 2 for n in size], indexing="ij")
    label = (np.sqrt(sum(a**2 for a in axes)) < min(size) / 3).astype(np.uint8)
    rows = []
    for site in sites:
        for i in range(subjects):
            image = 100.0 * label + random.normal(0, 10, size) + 500
            for kind, array in (("image", image.astype(np.float32)), ("label", label)):
                written = sitk.GetImageFromArray(array.transpose(2, 1, 0))
                written.SetSpacing(spacing)
                sitk.WriteImage(written, str(folder / f"{site}{i}-{kind}.nii.gz"))
            column = "image" if channel == "image" else f"image:{channel}"
            row = {"subject": f"{site}{i}", "site": site, column: f"{site}{i}-image.nii.gz"}
            rows.append(row | {"label": f"{site}{i}-label.nii.gz"})
    pd.DataFrame(rows).to_csv(folder / "table.csv", index=False)
    LabelMap.of_values({"ball": 1}).write(folder / "labels.toml")
    return Cohort.read(folder / "table.csv")


def frame(spacings, sizes):
    return Frame("LPS", np.array(spacings, float), np.array(sizes))


def why(plan, what):
    (found,) = [d for d in plan.automatic["decisions"] if d["what"] == what]
    return found["why"]


def test_spacing_is_the_median_unless_the_coarse_axis_is_coarse_and_short():
    spacings = [(1, 1, 5), (1, 1, 5), (0.8, 0.8, 2), (1, 1, 6)]
    short = spacing_of(frame(spacings, [(100, 100, 20)] * 4), 3, None)
    assert short[0] == (1.0, 1.0, pytest.approx(np.percentile([5, 5, 2, 6], 10)))
    assert "10th percentile" in short[1]
    # As anisotropic, but of as many voxels as the others: the published program keeps the median.
    long = spacing_of(frame(spacings, [(100, 100, 90)] * 4), 3, None)
    assert long[0] == (1.0, 1.0, 5.0)
    assert "many voxels" in long[1]
    near = spacing_of(frame([(1, 1, 3), (1, 1, 3), (1, 1, 1)], [(100, 100, 20)] * 3), 3, None)
    assert near[0] == (1.0, 1.0, 3.0)


def test_the_tenth_percentile_is_never_finer_than_the_other_axes():
    spacings = [(2, 2, 0.5)] * 2 + [(2, 2, 9)] * 5
    assert spacing_of(frame(spacings, [(100, 100, 20)] * 7), 3, None)[0] == (2.0, 2.0, 2.0)


def test_given_spacing_stays_and_is_checked():
    whole = frame([(1, 1, 1)], [(30, 30, 30)])
    assert spacing_of(whole, 3, (2, 2, 2)) == ((2.0, 2.0, 2.0), "given")
    with pytest.raises(PlanError, match="needs 3 sizes"):
        spacing_of(whole, 3, (2, 2))


@pytest.mark.parametrize("gigabytes", [0.05, 0.2, 0.5, 2.0])
@pytest.mark.parametrize(
    ("shape", "spacing"), [((150, 150, 150), (1, 1, 1)), ((200, 100, 50), (1, 1, 1)), ((180, 180, 40), (0.7, 0.7, 3))]
)
def test_the_patch_is_the_largest_of_its_kind_that_fits(gigabytes, shape, spacing):
    budget = Budget(gigabytes * 1e9, 1, 2, 8, 2)
    found = budget.fitting(shape, spacing)
    needed = found.topology.bytes(found.patch, 2)
    assert needed <= gigabytes * 1e9
    assert found.batch == (gigabytes * 1e9 - 12 * found.topology.parameters) // found.topology.sample_bytes(found.patch)
    units = [math.prod(s[axis] for s in found.topology.strides) for axis in range(3)]
    assert all(n % unit == 0 for n, unit in zip(found.patch, units, strict=True))
    if any(n < m for n, m in zip(found.patch, shape, strict=True)):
        # A unit more along one of the axes would not fit: memory is used, not wasted.
        larger = [[n + (units[axis] if i == axis else 0) for i, n in enumerate(found.patch)] for axis in range(3)]
        assert max(budget.topology(more, spacing).bytes(more, 2) for more in larger) > gigabytes * 1e9


def test_shrinking_keeps_the_proportions_of_the_median_scan():
    found = Budget(0.3e9, 1, 2, 8, 2).fitting((160, 80, 80), (1, 1, 1))
    covered = np.array(found.patch) / (160, 80, 80)
    assert max(covered) < 1
    units = np.array([math.prod(s[axis] for s in found.topology.strides) for axis in range(3)])
    assert max(covered) - min(covered) <= max(units / (160, 80, 80))


def test_a_patch_that_covers_the_scan_is_the_scan_rounded_up_to_what_the_network_divides_by():
    found = Budget(8e9, 1, 2, 8, 2).fitting((50, 40, 36), (1, 1, 1))
    # 50, 40 and 36 voxels are halved while 4 remain: to 7, 5 and 5 in three steps, so all in multiples of 8.
    assert found.patch == (56, 40, 40)
    assert len(found.topology.widths) == 4


def test_a_side_shrinks_to_the_next_size_that_its_own_network_divides():
    whole = Budget(1e12, 1, 2, 8, 2)
    assert whole.fitting((128, 128, 128), (1, 1, 1)).topology.divisors == [32, 32, 32]
    just_less = whole.topology((128, 128, 128), (1, 1, 1)).bytes((128, 128, 128), 2) - 1
    # 128 = 4 x 32 is halved five times; 112 = 7 x 16 four times, and so larger than 96 = 3 x 32.
    assert Budget(just_less, 1, 2, 8, 2).fitting((128, 128, 128), (1, 1, 1)).patch == (112, 128, 128)


@pytest.mark.parametrize(
    ("shape", "spacing", "gigabytes", "numbers"),
    [
        ((11, 7, 60), (2.1, 1.77, 6.9), 0.012002, (3, 2, 32, 5)),
        ((5, 296, 11), (2.04, 4.13, 1.17), 0.0040254, (4, 4, 32, 2)),
    ],
)
def test_shrinking_ends_although_the_next_network_rounds_the_side_up_again(shape, spacing, gigabytes, numbers):
    tried = []

    class Counted(Budget):
        def topology(self, patch, spacing_mm):
            tried.append(tuple(patch))
            assert len(tried) < 1000  # a patch has fewer voxels on all sides together
            return super().topology(patch, spacing_mm)

    found = Counted(gigabytes * 1e9, *numbers).fitting(shape, spacing)
    assert found.topology.bytes(found.patch, numbers[-1]) <= gigabytes * 1e9


def test_channels_double_up_to_the_published_limits():
    three = Budget(64e9, 1, 2, 32, 2).fitting((128, 128, 128), (1, 1, 1)).topology
    assert list(three.widths) == [32, 64, 128, 256, 320, 320]
    two = Budget(64e9, 1, 2, 32, 2).fitting((512, 512), (1, 1)).topology
    assert list(two.widths) == [32, 64, 128, 256, 512, 512, 512, 512]


def test_thick_slices_are_not_halved_with_the_pixels():
    found = Budget(64e9, 1, 2, 32, 2).fitting((128, 128, 16), (1, 1, 4)).topology
    assert [tuple(s) for s in found.strides[:2]] == [(2, 2, 1), (2, 2, 1)]
    assert tuple(found.kernels[0]) == (3, 3, 1)


def test_too_little_memory_says_how_much_it_takes():
    with pytest.raises(PlanError, match=r"memory_gb=0.001 is too small: a batch of 2 patches of \S+ with 32 channels"):
        Budget(1e6, 1, 2, 32, 2).fitting((64, 64, 64), (1, 1, 1))
    with pytest.raises(PlanError, match="patches of 64x64x64"):
        Budget(1e7, 1, 2, 32, 2).fitting((64, 64, 64), (1, 1, 1), (64, 64, 64))


def test_the_estimated_memory_is_what_a_trial_step_measures_within_a_fifth(tmp_path):
    table = cohort(tmp_path, subjects=3)
    split = everything(table, seed=0)
    plan = auto_plan(split.train, memory_gb=0.1, base=8)
    recipe = Recipe("erm", transforms="strong")
    experiment = prepare(recipe, split, plan, Trainer(steps=2, device="cpu"), Store(tmp_path / "store"))
    found = estimated(experiment.trainer, experiment.method(), experiment.feed, experiment.transform(), timed=0)
    assert found.parameters == sum(p.numel() for p in experiment.method().network.parameters())
    assert found.total_bytes / 1.2 < plan.automatic["memory_bytes"] < 1.2 * found.total_bytes
    assert plan.automatic["memory_bytes"] <= 0.1e9


def test_a_batch_grows_to_a_twentieth_of_the_voxels_and_no_further(tmp_path):
    table = cohort(tmp_path, size=(40, 40, 40), subjects=10)
    plan = auto_plan(table, memory_gb=4, base=8, patch=(16, 16, 16))
    assert plan.automatic["training"]["batch"] == round(0.05 * 20 * 40**3 / 16**3)
    assert "5 % of the training voxels" in why(plan, "batch")
    small = auto_plan(table, memory_gb=0.02, base=8, patch=(16, 16, 16))
    assert 2 <= small.automatic["training"]["batch"] < 16
    assert small.automatic["memory_bytes"] <= 0.02e9
    few = auto_plan(table, memory_gb=4, base=8)
    assert few.automatic["training"]["batch"] == 2
    assert why(few, "batch").startswith("the fewest allowed")


def test_ct_is_clipped_at_percentiles_of_its_structures_and_others_are_z_scored(tmp_path):
    plan = auto_plan(cohort(tmp_path, channel="CT"), memory_gb=0.2, base=8)
    rule = plan.normalisation["CT"]
    # The ball is 600 +- 10; half a per cent of a normal distribution lies beyond 2.576 deviations.
    assert rule["lower"] == pytest.approx(600 - 25.8, abs=2)
    assert rule["upper"] == pytest.approx(600 + 25.8, abs=2)
    assert (rule["mean"], rule["sd"]) == (pytest.approx(600, abs=0.5), pytest.approx(10, abs=0.5))
    other = auto_plan(cohort(tmp_path), memory_gb=0.2, base=8)
    assert other.normalisation == {"image": {"scheme": "zscore"}}


def test_pictures_are_planned_in_two_dimensions(tmp_path):
    plan = auto_plan(cohort(tmp_path, size=(40, 36, 6), spacing=(1, 1, 5)), memory_gb=0.2, base=8)
    assert (plan.dimensions, plan.spacing_mm, plan.patch) == (2, (1.0, 1.0, None), (40, 40))
    assert "slices one at a time" in why(plan, "dimensions")


def test_a_median_between_two_sizes_is_covered_by_the_rounded_one(tmp_path):
    from shiftproof.autoplan import _Reasons

    found = Budget(8e9, 1, 2, 8, 2).fitting((24.5, 24, 24), (1, 1, 1))
    assert found.patch == (24, 24, 24)
    patch, *_ = _Reasons(8.0, [24.5, 24.0, 24.0], 100, None, None).of(found, 2, 2)
    assert patch["why"] == "the median scan, 24.5x24x24 voxels, in multiples of what the network divides by"


def test_everything_stands_in_the_file_and_older_files_are_read(tmp_path):
    table = cohort(tmp_path)
    plan = auto_plan(table, memory_gb=0.2, base=8)
    plan.write(tmp_path / "plan.json")
    assert Plan.read(tmp_path / "plan.json") == plan
    whats = [d["what"] for d in plan.automatic["decisions"]]
    wanted = ["dimensions", "spacing_mm", "patch", "batch", "levels", "normalisation", "optimizer"]
    assert whats == wanted
    assert all(d["why"] for d in plan.automatic["decisions"])
    usual = make_plan(table)
    assert "automatic" not in json.loads(usual.to_json())
    assert Plan.from_json(usual.to_json()).automatic == {}
    # What is preprocessed does not depend on who planned it.
    assert "automatic" not in plan.preprocessing()
    assert dataclasses.replace(plan, automatic={}).preprocessing() == plan.preprocessing()


def test_a_plan_is_the_usual_one_unless_asked_for(tmp_path):
    table = cohort(tmp_path)
    assert plan_of(table) == make_plan(table)
    with pytest.raises(OptionError, match="memory_gb is for automatic plans; use --plan auto"):
        plan_of(table, memory_gb=2)
    with pytest.raises(OptionError, match='no option of an automatic plan "memory"; did you mean "memory_gb"'):
        plan_of(table, automatic=True, memory=2)


def test_a_recipe_takes_what_it_leaves_open_from_the_plan_and_keeps_the_rest(tmp_path):
    plan = auto_plan(cohort(tmp_path), memory_gb=0.2, base=8)
    open_ = completed(Recipe("a"), plan)
    assert open_.network == plan.automatic["network"]
    assert open_.training == plan.automatic["training"]
    assert (open_.sampling, open_.loss_options) == ({"foreground": 1 / 3}, {"batch": True})
    assert completed(open_, plan) == open_
    own = Recipe(
        "b", network={"name": "unet", "widths": [4, 8]}, training={"rate": 0.5}, sampling={"foreground": 0.5}, loss="ce"
    )
    kept = completed(own, plan)
    assert kept.network == {"name": "unet", "widths": [4, 8]}
    assert kept.training == {**plan.automatic["training"], "rate": 0.5}
    assert (kept.sampling, kept.loss_options) == ({"foreground": 0.5}, {})
    widths = completed(Recipe("c", network={"widths": [4, 8]}), plan).network
    assert widths == {"widths": [4, 8], "name": "unet", "deep_supervision": True}
    usual = dataclasses.replace(plan, automatic={})
    assert completed(own, usual) is own


@pytest.mark.parametrize("method", ["erm", "dann", "mldg", "mean_teacher"])
def test_methods_train_the_planned_network(tmp_path, method, toys):
    plan = auto_plan(cohort(tmp_path), memory_gb=0.2, base=4)
    # The toys' labels have three classes.
    plan = dataclasses.replace(plan, classes=("background", "ball", "ring"))
    targets = int(method == "mean_teacher")
    recipe = Recipe(method, method=method, target=bool(targets))
    require_sound(recipe, plan)
    made = build(completed(recipe, plan), plan, Setting(["A", "B", "C"], 1, 3, 3 - targets))
    assert made.network.widths == plan.automatic["network"]["widths"]
    assert all(v.isfinite().all() for v in toys.drive(made, 1).values())


def test_the_users_own_settings_stay():
    rows = [Recipe("erm")]
    assert resolved({}, rows, Trainer(batch=3), 3) == {}
    found = resolved({"automatic": True}, rows, Trainer(batch=3, rate=0.1), 3)
    assert found == {"automatic": True, "keep": ["batch", "rate"], "steps": 2000, "batch": 3}
    # How many steps fit into a limit of time is not known.
    assert resolved({"automatic": True}, rows, Trainer(steps=9000, seconds=60.0), 3)["steps"] is None
    # Typed, although it is the default.
    assert resolved({"automatic": True, "keep": ["batch"]}, rows, Trainer(), 3)["batch"] == Trainer().batch
    compares = [*rows, Recipe("dann", method="dann")]
    assert resolved({"automatic": True}, compares, Trainer(), 3)["least_batch"] == 3
    assert resolved(found, rows, Trainer(batch=3, rate=0.1), 3) == found


def test_kept_settings_are_not_planned(tmp_path):
    table = cohort(tmp_path)
    plan = auto_plan(table, memory_gb=0.2, base=8, keep=["batch", "rate"], batch=3)
    assert {"batch", "rate"}.isdisjoint(plan.automatic["training"])
    assert why(plan, "batch") == "given"
    assert "3 patches" in autoplan.line(plan)
    assert auto_plan(table, memory_gb=0.2, base=8, least_batch=5).automatic["training"]["batch"] == 5


@pytest.mark.parametrize("steps", [None, 1, autoplan.LONG - 1, autoplan.LONG, 250_000])
def test_long_trainings_have_the_published_optimiser_and_others_the_usual_one(tmp_path, steps):
    plan = auto_plan(cohort(tmp_path), memory_gb=0.2, base=8, steps=steps)
    training = plan.automatic["training"]
    published = steps is not None and steps >= autoplan.LONG
    wanted = autoplan.TRAINING if published else autoplan.SHORT
    assert {k: v for k, v in training.items() if k != "batch"} == wanted
    reason = why(plan, "optimizer")
    assert reason.startswith("the published program") == published
    assert published or (str(steps or "unknown") in reason)
    kept = auto_plan(cohort(tmp_path), memory_gb=0.2, base=8, steps=steps, keep=["optimizer"])
    assert why(kept, "optimizer") == "given"
    assert "optimizer" not in kept.automatic["training"]


def test_short_trainings_have_the_settings_of_a_plain_one():
    assert {name: getattr(Trainer(), name) for name in autoplan.SHORT} == autoplan.SHORT


def test_the_command_lines_words():
    assert autoplan.parsed(None) == {}
    assert autoplan.parsed("auto") == {"automatic": True}
    assert autoplan.parsed("auto, memory_gb=4,base=16") == {"automatic": True, "memory_gb": 4.0, "base": 16}
    for text, words in {
        "atuo": 'no plan "atuo"; did you mean "auto"',
        "auto,memory=4": 'no option of --plan auto "memory"; did you mean "memory_gb"',
        "auto,memory_gb": "auto,OPTION=VALUE",
        "auto,memory_gb=much": "memory_gb of --plan auto is a number, got 'much'",
        "auto,base=2.5": "base of --plan auto is a whole number, got '2.5'",
        "auto,memory_gb=-1": "memory_gb is a number of GB above 0",
        "auto,base=0": "base and batch are at least 1",
    }.items():
        with pytest.raises(OptionError, match=words):
            autoplan.parsed(text)


def test_other_tasks_are_refused(tmp_path):
    table = cohort(tmp_path)
    whole = Cohort(
        table.table.assign(grade="0"), table.root, labels=Targets("classification", "grade", ("0", "1"), "multi-class")
    )
    with pytest.raises(PlanError, match="plan auto is for segmentation, the labels are for classification"):
        auto_plan(whole)


def test_the_planned_optimiser_is_nesterovs(toys):
    method = toys.make("erm")
    (mover,) = movers(method, Trainer(**{k: v for k, v in autoplan.TRAINING.items() if k != "clip"})).values()
    group = mover.optimizer.param_groups[0]
    assert (group["nesterov"], group["momentum"], group["lr"], group["weight_decay"]) == (True, 0.99, 0.01, 3e-5)
    weight = mover.parameters[0]
    value, speed = weight.detach().double().clone(), 0.0
    for gradient in (0.5, -1.0):
        weight.grad = torch.full_like(weight, gradient)
        mover.optimizer.step()
        slope = gradient + 3e-5 * value
        speed = 0.99 * speed + slope
        value = value - 0.01 * (slope + 0.99 * speed)
    torch.testing.assert_close(weight.detach().double(), value, atol=1e-6, rtol=0)
    with pytest.raises(OptionError, match="momentum is above 0"):
        Trainer(optimizer="nesterov", momentum=0.0)
