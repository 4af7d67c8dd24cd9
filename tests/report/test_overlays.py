"""Cases and slices: the right subjects, the right way up, with the right letters and lengths."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk

from shiftproof.errors import ShiftproofError
from shiftproof.report.cases import overlay, picked
from shiftproof.report.meaning import meaning_of
from shiftproof.report.reading import read_results
from shiftproof.report.scans import Case, located
from shiftproof.report.slices import MARGIN, PANEL, Slice, best_slice, cropped, draw, letters, on_grid, window
from shiftproof.statistics import per_subject


def image_of(array: np.ndarray, spacing=(1.0, 1.0, 1.0), direction=None) -> sitk.Image:
    """From (X, Y, Z)."""
    found = sitk.GetImageFromArray(np.ascontiguousarray(array.transpose(2, 1, 0)))
    found.SetSpacing(spacing)
    if direction is not None:
        found.SetDirection(np.asarray(direction, float).ravel().tolist())
    return found


def blank(shape=(12, 14, 10)) -> np.ndarray:
    return np.zeros(shape, np.uint8)


def marked(x: slice, y: slice, z: slice) -> np.ndarray:
    array = blank()
    array[x, y, z] = 1
    return array


def test_worst_median_and_best_are_by_rank():
    values = pd.DataFrame(
        {
            "row": "erm",
            "held_out": "A",
            "domain": "A",
            "subject": list("abcdefg"),
            "value": [0.5, 0.9, 0.1, 0.7, 0.6, 0.8, np.nan],
        }
    )
    found = [(c.rank, c.subject, c.value, c.n) for c in picked(values, "erm", "A")]
    assert found == [("worst", "c", 0.1, 6), ("median", "e", 0.6, 6), ("best", "b", 0.9, 6)]
    assert picked(values, "erm", "A", higher_is_better=False)[0].subject == "b"


@pytest.mark.parametrize(
    ("n", "ranks"), [(0, []), (1, ["only"]), (2, ["worst", "best"]), (3, ["worst", "median", "best"])]
)
def test_few_subjects_are_not_shown_twice(n, ranks):
    values = pd.DataFrame(
        {"row": "erm", "held_out": "A", "domain": "A", "subject": list("abc")[:n], "value": [0.1, 0.2, 0.3][:n]}
    )
    assert [c.rank for c in picked(values, "erm", "A")] == ranks


def test_axial_slice_is_seen_from_below_with_anterior_up():
    """Image axes run to the left, posterior and superior: columns to the right show the patient's left."""
    label = marked(slice(8, 11), slice(2, 4), slice(6, 7))  # left, anterior, high
    shown = best_slice(image_of(label.astype(float)), image_of(label), image_of(label))
    assert (shown.plane, shown.index, shown.count) == ("axial", 6, 10)
    rows, columns = np.nonzero(shown.label)
    assert rows.max() < 7  # anterior is up
    assert columns.min() > 6  # left is on the right
    assert shown.letters == {"right": "L", "left": "R", "top": "A", "bottom": "P"}


def test_flipped_axes_show_the_same_picture():
    label = marked(slice(8, 11), slice(2, 4), slice(6, 7))
    straight = best_slice(image_of(label.astype(float)), image_of(label), image_of(label))
    turned = label[::-1, ::-1].copy()
    flipped = [image_of(a, direction=np.diag([-1, -1, 1])) for a in (turned.astype(float), turned, turned)]
    for image in flipped:
        image.SetOrigin((11, 13, 0))
    found = best_slice(*flipped)
    assert np.array_equal(found.label, straight.label)
    assert found.letters == straight.letters


@pytest.mark.parametrize(
    ("spacing", "plane", "sides", "size"),
    [
        ((1, 1, 5), "axial", "RLAP", (14, 12)),
        ((1, 5, 1), "coronal", "RLSI", (10, 12)),
        ((5, 1, 1), "sagittal", "APSI", (10, 14)),
    ],
)
def test_plane_is_the_one_with_the_finest_voxels(spacing, plane, sides, size):
    label = marked(slice(5, 8), slice(5, 8), slice(7, 9))  # high: superior must be up
    shown = best_slice(*(image_of(a, spacing) for a in (label.astype(float), label, label)))
    assert shown.plane == plane
    assert "".join(shown.letters[s] for s in ("left", "right", "top", "bottom")) == sides
    assert shown.label.shape == size
    assert shown.spacing_mm == (1, 1)
    if "S" in sides:
        assert np.nonzero(shown.label)[0].max() < 5


def test_oblique_directions_have_two_letters():
    assert letters(np.array([1.0, 0, 0])) == "L"
    assert letters(np.array([0, np.cos(0.3), np.sin(0.3)])) == "P"  # 17 degrees
    assert letters(np.array([0, np.cos(0.5), -np.sin(0.5)])) == "PI"  # 29 degrees
    assert letters(np.array([-0.6, -0.8, 0])) == "AR"


def test_slice_has_the_largest_labelled_area_and_ignores_unknown_voxels():
    label = marked(slice(2, 4), slice(2, 4), slice(3, 4))
    label[:, :, 8] = 255
    assert best_slice(image_of(label.astype(float)), image_of(label), image_of(blank())).index == 3


def test_a_missed_structure_is_shown_where_the_prediction_is_and_nothing_in_the_middle():
    image, predicted = image_of(blank().astype(float)), marked(slice(2, 4), slice(2, 4), slice(1, 2))
    assert best_slice(image, image_of(blank()), image_of(predicted)).index == 1
    assert best_slice(image, image_of(blank()), image_of(blank())).index == 5


def test_a_label_on_another_grid_is_brought_to_the_images():
    label = image_of(marked(slice(4, 8), slice(4, 8), slice(4, 8)))
    coarse = sitk.Resample(
        label, [6, 7, 5], sitk.Transform(), sitk.sitkNearestNeighbor, (0.5,) * 3, (2.0,) * 3, np.eye(3).ravel().tolist()
    )
    found = sitk.GetArrayFromImage(on_grid(coarse, label))
    assert np.array_equal(found, sitk.GetArrayFromImage(label))


def test_scale_bar_has_its_length():
    """Measured on the drawing: the share of the picture times the millimetres that it shows."""
    label = marked(slice(0, 12), slice(0, 14), slice(4, 5))
    shown = best_slice(*(image_of(a, (10, 10, 30)) for a in (label.astype(float), label, label)))
    figure = draw(shown, 0, 1, 2)
    bar = next(line for line in figure.findobj(lambda a: hasattr(a, "get_xdata")) if line.get_color() == "white")
    share = np.ptp(bar.get_xdata()) / (1 - 2 * MARGIN / PANEL)
    words = next(t.get_text() for t in figure.texts if "mm" in t.get_text())
    assert share * 140 == pytest.approx(float(words.split()[0]))  # 14 voxels of 10 mm fill the height
    assert {t.get_text() for t in figure.texts} == {"A", "P", "L", "R", words}


def test_a_small_structure_is_shown_near_and_never_beyond_the_picture():
    label = np.zeros((100, 100, 3), np.uint8)
    label[3:6, 50:53, 1] = 1
    shown = best_slice(*(image_of(a) for a in (label.astype(float), label, label)))
    top, bottom, left, right = cropped(shown)
    assert (left, top) == (0, 50 - 29)
    assert bottom - top <= 62
    assert right <= 36


def slice_of(image: np.ndarray, label: np.ndarray) -> Slice:
    return Slice(image, label, np.zeros_like(label), (1.0, 1.0), {}, "axial", 0, 1)


def test_grey_window_is_of_what_is_shown():
    image = np.arange(1001.0).reshape(1, -1)
    assert window(slice_of(image, np.zeros((1, 1001), np.uint8))) == (5, 995)
    assert window(slice_of(np.full((4, 4), 7.0), np.zeros((4, 4), np.uint8))) == (7, 8)


def test_bright_surroundings_do_not_darken_large_structures():
    label = np.zeros((70, 70), np.uint8)
    label[10:60, 10:60] = 1
    image = np.where(label == 1, 100.0, 5000.0) + np.random.default_rng(0).uniform(-50, 50, label.shape)
    low, high = window(slice_of(image, label))
    assert low == pytest.approx(50, abs=5)
    assert high == pytest.approx(160, abs=5)  # 150 and a tenth of 100
    small = np.zeros_like(label)
    small[30:34, 30:34] = 1
    assert window(slice_of(image, small))[1] > 140  # a small structure is seen in its surroundings


# Files ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def results(make_study):
    return read_results(make_study(images=True, sites=["A", "B"], n=3, rows=["erm/none", "erm/strong"]))


def case_of(results, subject="B-01"):
    return Case("worst", subject, subject[0], subject[0], 0.5, 3)


def test_overlay_names_the_case_its_score_and_its_window(results):
    plot = overlay(case_of(results), results, "erm/strong", meaning_of(results))
    rows = results.rows
    own = rows[
        (rows["subject"] == "B-01") & (rows["row"] == "erm/strong") & (rows["metric"] == "dice") & (rows["seed"] == 0)
    ]
    assert plot.title == "worst of 3: B-01"
    assert f"erm/strong: Dice {own['value'].mean():.3f} (seed 0)" in plot.caption
    assert "Axial" in plot.caption
    assert "grey window" in plot.caption
    assert "B-01" in plot.alt


@pytest.mark.parametrize(
    ("broken", "words"), [("images", "truncated|cannot be read"), ("labels", "truncated|cannot be read")]
)
def test_a_broken_file_is_named(results, broken, words):
    path = results.root / broken / "B-01.nii.gz"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ShiftproofError, match="B-01"):
        overlay(case_of(results), results, "erm/strong", meaning_of(results))


def test_missing_files_and_predictions_are_named(results):
    with pytest.raises(ShiftproofError, match="dann kept no prediction of B-01"):
        overlay(case_of(results), results, "dann", meaning_of(results))
    (results.root / "images" / "B-01.nii.gz").unlink()
    with pytest.raises(ShiftproofError, match=r"images/B-01.nii.gz is no longer there"):
        overlay(case_of(results), results, "erm/strong", meaning_of(results))
    with pytest.raises(ShiftproofError, match="does not name Z-09"):
        overlay(case_of(results, "Z-09"), results, "erm/strong", meaning_of(results))


def test_label_values_are_read_as_the_cohort_says(results):
    """Site B writes 10, 20, 30; predictions hold class indices."""
    root = results.root
    (root / "table.csv").write_text("subject,site,image,label\nB-01,B,images/B-01.nii.gz,labels/B-01.nii.gz\n")
    (root / "labels.toml").write_text(
        'classes = ["background", "csf", "grey", "white"]\n[default]\ncsf = 1\ngrey = 2\nwhite = 3\n'
        "[site.B]\nbackground = 0\ncsf = 10\ngrey = 20\nwhite = 30\n"
    )
    meaning = meaning_of(results)
    assert meaning.label(np.array([0, 10, 20, 30]), "B").tolist() == [0, 1, 2, 3]
    assert meaning.label(np.array([0, 1, 2, 3]), "A").tolist() == [0, 1, 2, 3]
    assert meaning.prediction(np.array([0, 1, 2, 3]), "B").tolist() == [0, 1, 2, 3]
    assert meaning.classes == ["background", "csf", "grey", "white"]


def test_pictures_without_a_scale_have_no_letters_and_no_millimetres(tmp_path, make_study):
    results = read_results(make_study(sites=["A"], n=1, rows=["erm/none"], seeds=[0]))
    label = np.zeros((20, 30), np.uint8)
    label[5:12, 8:20] = 1
    for folder, array in {"images": label * 200, "labels": label}.items():
        (results.root / folder).mkdir()
        sitk.WriteImage(sitk.GetImageFromArray(array), str(results.root / folder / "A-00.png"))
    folder = results.cells[0].folder / "predictions"
    folder.mkdir()
    sitk.WriteImage(sitk.GetImageFromArray(label), str(folder / "A-00.png"))
    for column, value in {"image": "images/A-00.png", "label": "labels/A-00.png", "prediction": "A-00.png"}.items():
        results.subjects[column] = value
    plot = overlay(Case("only", "A-00", "A", "A", 0.5, 1), results, "erm/none", meaning_of(results))
    words = [t.get_text() for t in plot.figure.texts]
    assert len(words) == 1
    assert words[0].endswith(" px")
    assert "Picture, grey window" in plot.caption


def test_paths_are_looked_for_beside_the_cohort_and_in_the_study(results):
    assert located("images/A-00.nii.gz", results) == results.root / "images/A-00.nii.gz"
    assert located(results.root / "images/A-00.nii.gz", results).is_absolute()


def test_scores_of_the_overlay_are_of_the_seed_that_is_shown(results):
    assert per_subject(results.rows, "dice")["seeds"].unique().tolist() == [2]
