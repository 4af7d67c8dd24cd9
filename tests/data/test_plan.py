from __future__ import annotations

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk

from shiftproof.data.cohort import Cohort
from shiftproof.data.images import array_of, image_of, read_image
from shiftproof.data.labels import LabelMap
from shiftproof.data.plan import Plan, make_plan, preprocess
from shiftproof.data.planning import patch_for
from shiftproof.data.preprocess import background_of, normalised, resampled_shape
from shiftproof.errors import GeometryError, ImageError, PlanError

SOUND = Plan(3, "LPS", (1.0, 1.0, 1.0), ("image",), ("background", "x"), {"image": {"scheme": "zscore"}}, (16, 16, 16))


def test_spacing_is_the_median_of_the_training_scans(tmp_path, scans):
    cohort = scans.make_cohort(tmp_path / "a", sites="A", spacing=(1, 1, 1.2))
    thick = scans.make_cohort(tmp_path / "b", sites="B", spacing=(0.8, 0.8, 2))
    both = Cohort(
        pd.concat([c.table.assign(image=[str(c.root / p) for p in c.table["image"]]) for c in (cohort, thick)]),
        labels=cohort.labels,
    )
    plan = make_plan(both)
    assert plan.spacing_mm == (0.9, 0.9, 1.6)
    assert (plan.dimensions, plan.orientation, plan.classes) == (3, "LPS", ("background", "body", "core"))
    # What the other site looks like is not known to a plan from one site.
    assert make_plan(both.where(site="A")).spacing_mm == (1.0, 1.0, 1.2)
    assert list(make_plan(both.where(site="A")).statistics["domains"]) == ["A"]


def test_a_coarse_axis_takes_the_tenth_percentile(tmp_path, scans):
    for i, thickness in enumerate([2.0, 5.0, 6.0]):
        image, label = scans.blob((20, 20, 20), i)
        scans.write(tmp_path / f"{i}.nii", image, spacing=(1, 1, thickness))
    table = pd.DataFrame([{"subject": str(i), "image": f"{i}.nii", "site": "A"} for i in range(3)])
    plan = make_plan(Cohort(table, tmp_path), dimensions=3)
    assert plan.spacing_mm[:2] == (1.0, 1.0)
    np.testing.assert_allclose(plan.spacing_mm[2], np.percentile([2, 5, 6], 10))
    assert make_plan(Cohort(table, tmp_path)).dimensions == 2
    assert make_plan(Cohort(table, tmp_path)).spacing_mm == (1.0, 1.0, None)


@pytest.mark.parametrize(
    ("spacing", "orientation"),
    [((1, 1, 4), "LPS"), ((1, 4, 1), "LSP"), ((4, 1, 1), "PSL"), ((1, 1, 1), "LPS"), ((1.2, 1, 1), "LPS")],
)
def test_the_slice_axis_is_the_coarsest_wherever_it_lies_in_the_file(tmp_path, scans, spacing, orientation):
    image, _ = scans.blob((20, 20, 20), 0)
    volume = image_of(image)
    volume.SetSpacing(spacing)
    sitk.WriteImage(sitk.DICOMOrient(volume, "SRA"), str(tmp_path / "a.nii"))
    plan = make_plan(Cohort(pd.DataFrame({"subject": ["a"], "image": ["a.nii"], "site": ["A"]}), tmp_path))
    assert plan.orientation == orientation
    done = preprocess({"image": read_image(tmp_path / "a.nii")}, None, plan)
    assert done.geometry.turned_spacing_mm[2] == max(spacing) or max(spacing) < 1.25


def test_few_slices_are_seen_one_at_a_time(tmp_path, scans):
    cohort = scans.make_cohort(tmp_path, size=(40, 40, 12), sites="A")
    assert make_plan(cohort).dimensions == 2
    assert make_plan(cohort, dimensions=3).dimensions == 3
    with pytest.raises(PlanError, match="dimensions is 2 or 3, got 4"):
        make_plan(cohort, dimensions=4)


def test_pictures_have_no_orientation_and_are_not_resampled(tmp_path, scans):
    for i in range(2):
        image, label = scans.blob((40, 36, 1), i, dtype=np.uint8)
        sitk.WriteImage(sitk.GetImageFromArray(image[..., 0].T), str(tmp_path / f"{i}.png"))
        sitk.WriteImage(sitk.GetImageFromArray(label[..., 0].T), str(tmp_path / f"{i}-l.png"))
    table = pd.DataFrame(
        {"subject": ["0", "1"], "image": ["0.png", "1.png"], "label": ["0-l.png", "1-l.png"], "site": "A"}
    )
    cohort = Cohort(table, tmp_path, labels=LabelMap.of_values({"body": 1, "core": 2}))
    plan = make_plan(cohort)
    assert (plan.dimensions, plan.orientation, plan.spacing_mm) == (2, "", (1.0, 1.0, None))
    with pytest.raises(PlanError, match="single slice"):
        make_plan(cohort, dimensions=3)
    done = preprocess({"image": read_image(tmp_path / "0.png")}, None, plan)
    assert done.image.shape[-1] == 1
    with pytest.raises(PlanError, match="for 2D pictures, the scan has 5 slices"):
        preprocess({"image": image_of(np.random.default_rng(0).random((9, 9, 5)))}, None, plan)
    with pytest.raises(PlanError, match="scan is a 2D picture"):
        preprocess({"image": read_image(tmp_path / "0.png")}, None, SOUND)
    scans.write(tmp_path / "2.nii", scans.blob((9, 9, 9), 0)[0])
    mixed = Cohort(pd.concat([table, pd.DataFrame([{"subject": "2", "image": "2.nii", "site": "A"}])]), tmp_path)
    with pytest.raises(PlanError, match="2 of 3 scans are 2D pictures"):
        make_plan(mixed.without_labels())


def test_ct_is_clipped_by_the_labelled_structures_of_the_training_scans(tmp_path, scans):
    values = []
    for i in range(3):
        image, label = scans.blob((20, 20, 20), i)
        image = np.where(label > 0, image, -1000).astype(np.float32)
        values.append(image[label > 0])
        scans.write(tmp_path / f"{i}.nii", image)
        scans.write(tmp_path / f"{i}-l.nii", label)
    table = pd.DataFrame(
        {
            "subject": list("012"),
            "image:CT": [f"{i}.nii" for i in range(3)],
            "label": [f"{i}-l.nii" for i in range(3)],
            "site": "A",
        }
    )
    cohort = Cohort(table, tmp_path, labels=LabelMap.of_values({"body": 1, "core": 2}))
    rule = make_plan(cohort).normalisation["CT"]
    pooled = np.concatenate(values)
    np.testing.assert_allclose([rule["lower"], rule["upper"]], np.percentile(pooled, [0.5, 99.5]), atol=0.5)
    np.testing.assert_allclose([rule["mean"], rule["sd"]], [pooled.mean(), pooled.std()], rtol=0.01)
    done = preprocess({"CT": read_image(tmp_path / "0.nii")}, None, make_plan(cohort))
    assert done.image.max() <= (rule["upper"] - rule["mean"]) / rule["sd"] + 1e-5
    assert make_plan(cohort, normalisation="zscore").normalisation["CT"] == {"scheme": "zscore"}
    assert make_plan(cohort.without_labels()).normalisation["CT"]["scheme"] == "clip"
    with pytest.raises(PlanError, match='"zscore" or "clip", got "minmax" for CT'):
        make_plan(cohort, normalisation="minmax")
    with pytest.raises(PlanError, match='names the channel "MR"; there are CT'):
        make_plan(cohort, normalisation={"MR": "clip"})


def test_zscore_is_over_what_is_not_background(scans):
    image, label = scans.blob((20, 20, 20), 0)
    done = preprocess({"image": image_of(image)}, None, SOUND)
    inside = image[label > 0]
    body = done.geometry.forward(label) > 0
    np.testing.assert_allclose(done.image[0][body], (inside - inside.mean()) / inside.std(), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(done.image[0][~body], -inside.mean() / inside.std(), rtol=1e-4)
    assert done.intensity["image"]["mean"] == pytest.approx(inside.mean(), rel=1e-6)


def test_intensity_scale_and_offset_do_not_matter(scans):
    image, _ = scans.blob((20, 20, 20), 0)
    one = preprocess({"image": image_of(image)}, None, SOUND).image
    other = preprocess({"image": image_of((image * 7 + 300).astype(np.float32))}, None, SOUND).image
    np.testing.assert_allclose(one, other, atol=1e-3)


def test_background_is_what_fills_the_border():
    noise = np.random.default_rng(0).normal(size=(10, 10, 10))
    assert background_of(noise) is None
    padded = np.pad(noise, 3, constant_values=-1000)
    assert background_of(padded) == -1000
    # A slice: its own faces are no border.
    flat = np.pad(noise[:, :, :1], [(3, 3), (3, 3), (0, 0)])
    assert background_of(flat) == 0
    assert background_of(np.zeros((1, 1, 1))) is None


def test_channels_are_ordered_and_missing_ones_are_zero(scans):
    plan = dataclasses.replace(
        SOUND, channels=("T1", "T2"), normalisation={"T1": {"scheme": "zscore"}, "T2": {"scheme": "zscore"}}
    )
    image, label = scans.blob((20, 20, 20), 0)
    both = preprocess({"T2": image_of(image), "T1": image_of(2 * image + (label == 2) * 30)}, None, plan)
    only = preprocess({"T2": image_of(image), "T1": None}, image_of(label), plan)
    assert both.present.tolist() == [True, True]
    assert only.present.tolist() == [False, True]
    np.testing.assert_array_equal(only.image[1], both.image[1])
    assert not only.image[0].any()
    np.testing.assert_array_equal(only.label, only.geometry.forward(label))
    with pytest.raises(ImageError, match="none of the channels T1, T2"):
        preprocess({"T1": None}, None, plan)
    with pytest.raises(PlanError, match='no channel "T3"; its channels are T1, T2'):
        preprocess({"T3": image_of(image)}, None, plan)
    moved = image_of(image)
    moved.SetOrigin((0, 0, 2.5))
    with pytest.raises(GeometryError, match=r"channels T1 and T2 do not share a grid: origin .*by 2.5 mm"):
        preprocess({"T1": image_of(image), "T2": moved}, None, plan)
    with pytest.raises(GeometryError, match="image and label do not share a grid: size 20 x 20 x 20 against 5"):
        preprocess({"T1": image_of(image)}, image_of(label[:5]), plan)


def test_a_constant_image_is_refused():
    with pytest.raises(ImageError, match="channel image has the value 3 everywhere"):
        preprocess({"image": image_of(np.full((5, 5, 5), 3.0))}, None, SOUND)
    # A silhouette has a spread, if not outside of its background.
    square = np.zeros((6, 6, 6), np.float32)
    square[2:4, 2:4, 2:4] = 1
    plan = dataclasses.replace(SOUND, crop="none")
    assert np.isfinite(preprocess({"image": image_of(square)}, None, plan).image).all()


def test_resampling_keeps_the_edges_and_says_where_it_went(scans):
    image, _ = scans.blob((30, 30, 30), 0)
    plan = dataclasses.replace(SOUND, spacing_mm=(2.0, 1.0, 1.0004))
    geometry = preprocess({"image": image_of(image)}, None, plan).geometry
    x, y, z = geometry.cropped
    assert geometry.shape == (round(x / 2), y, z)  # within a thousandth counts as equal
    assert geometry.case_spacing_mm[0] == x / geometry.shape[0]
    assert resampled_shape((4000, 4000, 3), (1, 1, 5), (1.0009, 1.0011, None)) == (4000, 3996, 3)


def test_clip_rule_is_the_formula():
    rule = {"scheme": "clip", "lower": -100.0, "upper": 200.0, "mean": 50.0, "sd": 25.0}
    array = np.array([-1000, -100, 0, 75, 3000], np.float32)
    np.testing.assert_allclose(normalised(array, {}, rule), [-6, -6, -2, 1, 6])


@pytest.mark.parametrize(
    ("shape", "dimensions", "patch"),
    [
        ((200, 180, 150), 3, (96, 96, 96)),
        ((70, 30, 9), 3, (80, 32, 16)),
        ((500, 500, 3), 2, (128, 128)),
        ((60, 40, 7), 2, (64, 48)),
    ],
)
def test_patches_cover_the_median_scan_up_to_a_limit(shape, dimensions, patch):
    assert patch_for(np.array(shape), dimensions) == patch


def test_options_are_taken_and_checked(cohort):
    plan = make_plan(cohort, spacing_mm=(2, 2, 2), patch=(8, 8, 8))
    assert (plan.spacing_mm, plan.patch) == ((2.0, 2.0, 2.0), (8, 8, 8))
    assert make_plan(cohort, dimensions=2, spacing_mm=(2, 3)).spacing_mm == (2.0, 3.0, None)
    for options, message in [
        ({"spacing_mm": (2, 2)}, "spacing_mm needs 3 sizes, got"),
        ({"spacing_mm": (2, 2, 2), "dimensions": 2}, "slices are never resampled in 2D"),
        ({"spacing_mm": (2, 2, -1)}, "three sizes above 0 mm"),
        ({"patch": (8, 8)}, "patch must be 3 whole numbers above 0"),
        ({"patch": (8, 8, 0)}, "patch must be 3 whole numbers above 0"),
    ]:
        with pytest.raises(PlanError, match=message):
            make_plan(cohort, **options)
    with pytest.raises(PlanError, match="at least one training scan"):
        make_plan(cohort.of_subjects([]))


def test_statistics_tell_of_each_domain(cohort):
    found = make_plan(cohort).statistics
    assert (found["scans"], found["subjects"]) == (6, 6)
    domain = found["domains"]["A"]
    assert (domain["scans"], domain["spacing_mm"]) == (3, [1.0, 1.0, 1.0])
    images = [array_of(read_image(r.images["image"])) for r in cohort.where(site="A").rows()]
    inside = np.concatenate([i[i != 0] for i in images])
    assert domain["intensity"]["image"]["mean"] == pytest.approx(inside.mean(), rel=0.01)
    assert domain["intensity"]["image"]["p50"] == pytest.approx(np.median(inside), rel=0.02)


def test_an_unreadable_scan_is_named_with_its_subject(cohort):
    (cohort.root / "B1.nii.gz").write_bytes(b"")
    with pytest.raises(ImageError, match=r"subject B1: .*B1.nii.gz is empty"):
        make_plan(cohort)


def test_workers_and_one_process_make_the_same_plan(cohort):
    told = []
    assert make_plan(cohort, workers=2, progress=lambda *n: told.append(n)) == make_plan(cohort)
    assert told == [(i, 6) for i in range(7)]


def test_a_written_plan_is_read_again(tmp_path, cohort):
    plan = make_plan(cohort)
    plan.write(tmp_path / "plan.json")
    assert Plan.read(tmp_path / "plan.json") == plan
    assert Plan.from_json(plan.to_json()) == plan


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 99}, "format 99, this version reads 1"),
        ({"dimension": 3}, 'unknown entry "dimension"; did you mean "dimensions"'),
        ({"patch": ...}, 'lacks "patch"'),
        ({"dimensions": "3"}, "dimensions must be 2 or 3, got '3'"),
        ({"orientation": "LPX"}, "orientation must be three letters"),
        ({"orientation": "LRS"}, "orientation must be three letters"),
        ({"orientation": 7}, "orientation must be three letters"),
        ({"spacing_mm": 1}, "spacing_mm must be a list"),
        ({"spacing_mm": [1, 1, None]}, "spacing_mm must be three sizes"),
        ({"spacing_mm": [1, 1, "1"]}, "spacing_mm must be three sizes"),
        ({"spacing_mm": [1, 0, 1]}, "spacing_mm must be three sizes"),
        ({"channels": []}, "channels must be at least one name"),
        ({"channels": ["a", "a"]}, "channels must be different names"),
        ({"normalisation": {}}, "normalisation must be an object with the channels image"),
        ({"normalisation": {"image": {"scheme": "x"}}}, "normalisation must be by channel"),
        ({"normalisation": {"image": {"scheme": "clip", "lower": 1}}}, "normalisation must be by channel"),
        ({"normalisation": {"image": "zscore"}}, "normalisation must be by channel"),
        ({"patch": [16, 16]}, "patch must be 3 whole numbers"),
        ({"patch": [16, 16, 1.5]}, "patch must be 3 whole numbers"),
        ({"crop": "box"}, "crop must be"),
        ({"statistics": []}, "statistics must be an object"),
    ],
)
def test_a_plan_that_was_edited_wrongly_is_refused(changes, message):
    values = {k: v for k, v in {**json.loads(SOUND.to_json()), **changes}.items() if v is not ...}
    with pytest.raises(PlanError, match=message):
        Plan.from_json(json.dumps(values))


def test_what_is_no_plan_is_a_typed_error(tmp_path):
    for text in ("", "[]", "{"):
        with pytest.raises(PlanError):
            Plan.from_json(text)
    with pytest.raises(PlanError, match="plan.json cannot be read: No such file"):
        Plan.read(tmp_path / "plan.json")
