from __future__ import annotations

import numpy as np
import pytest

from shiftproof.data.labels import IGNORE, LabelMap
from shiftproof.errors import LabelError

TEXT = """
classes = ["background", "csf", "grey", "white"]
[default]
csf = 1
grey = 2
white = 3
[site.C]
csf = [4, 24]
white = -3
ignore = [255, 7]
"""


@pytest.fixture
def labels(tmp_path) -> LabelMap:
    (tmp_path / "labels.toml").write_text(TEXT)
    return LabelMap.read(tmp_path / "labels.toml")


def test_values_become_classes_by_domain(labels):
    array = np.array([[0, 4, 24], [-3, 255, 7]])
    np.testing.assert_array_equal(labels.encode(array, "C"), [[0, 1, 1], [3, IGNORE, IGNORE]])
    encoded = labels.encode(np.array([0, 1, 2, 3], np.uint8), "anywhere else")
    np.testing.assert_array_equal(encoded, [0, 1, 2, 3])
    assert encoded.dtype == np.uint8


def test_a_structure_that_is_not_named_is_not_annotated(labels):
    assert labels.annotated("A") == (True, True, True, True)
    assert labels.annotated("C") == (True, True, False, True)


def test_encoding_is_the_plain_loop(labels):
    """Against the meaning of the file, voxel by voxel."""
    meaning = {0: 0, 4: 1, 24: 1, -3: 3, 255: 255, 7: 255}
    for kind in (np.int16, np.int64, np.float32):
        array = np.random.default_rng(0).choice(list(meaning), (6, 5, 4)).astype(kind)
        expected = np.vectorize(meaning.get)(array.astype(int))
        np.testing.assert_array_equal(labels.encode(array, "C"), expected)
    assert labels.encode(np.zeros((0, 2), int), "C").shape == (0, 2)


def test_unknown_values_are_listed_with_their_voxels(labels):
    array = np.array([0, 1, 9, 9, 9, 40000])
    assert labels.unknown(array, "A") == {9: 3, 40000: 1}
    with pytest.raises(LabelError, match=r"case7 has values .* at site=A: 9 \(3 voxels\), 40000 \(1 voxels\)"):
        labels.encode(array, "A", name="case7")
    with pytest.raises(LabelError, match=r"known are background = 0, csf = \[4, 24\], white = -3, ignore"):
        labels.encode(np.array([2]), "C")


def test_an_intensity_is_no_label(labels):
    with pytest.raises(LabelError, match="2 values that are no whole numbers, such as 0.5"):
        labels.encode(np.array([0, 0.5, 1.25, 2]), "A")
    with pytest.raises(LabelError, match="check that it is not the image"):
        labels.encode(np.array([0, 10**9]), "A")
    # What a scale factor in a header leaves behind is rounding, not meaning.
    np.testing.assert_array_equal(labels.encode(np.array([0.99999, 2.00001]), "A"), [1, 2])
    with pytest.raises(LabelError, match="no whole numbers"):
        labels.encode(np.array([np.nan]), "A")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("classes = 3", '"classes" must be a list of names'),
        ('classes = ["a", 1]\n[default]\na = 1', '"classes" must be a list of names'),
        ('classes = ["a"]\n[default]\na = 1', "2 to 250 different names"),
        ('classes = ["a", "a"]\n[default]\na = 1', "2 to 250 different names"),
        ('classes = ["b", "csf"]\n', r"add a section \[default\]"),
        ('classes = ["b", "csf"]\ncsf = 1', r"csf = 1 stands outside of a section"),
        ('classes = ["b", "csf"]\n[default]\ncsg = 1', '"csg" is none of the classes; did you mean "csf"'),
        ('classes = ["b", "csf"]\n[default]\ncsf = "1"', "csf = '1', expected a whole number or a list"),
        ('classes = ["b", "csf"]\n[default]\ncsf = true', "csf = True, expected a whole number"),
        ('classes = ["b", "csf"]\n[default]\ncsf = 1.5', "csf = 1.5, expected a whole number"),
        ('classes = ["b", "csf"]\n[default]\ncsf = []', "csf has no value; leave the line out"),
        ('classes = ["b", "csf"]\n[default]\ncsf = 0', "value 0 means both b and csf"),
        ('classes = ["b", "csf"]\n[default]\ncsf = 1\nignore = 1', "value 1 means both csf and ignore"),
        ('classes = ["b", "csf"]\n[site]\nA = 1', r"expected a section \[site.NAME\]"),
        ('classes = ["b", "csf"]\n[site.A]\ncsf = 1\n[scanner.B]\ncsf = 1', "2 columns .site, scanner."),
        ("classes = [", "no valid TOML"),
    ],
)
def test_a_wrong_file_is_answered_with_what_would_be_right(tmp_path, text, message):
    (tmp_path / "labels.toml").write_text(text)
    with pytest.raises(LabelError, match=message) as caught:
        LabelMap.read(tmp_path / "labels.toml")
    assert "\n" not in str(caught.value).split("no valid TOML")[0]


def test_a_missing_file_tells_how_to_make_one(tmp_path):
    with pytest.raises(LabelError, match="cohort import"):
        LabelMap.read(tmp_path / "labels.toml")


def test_writing_and_reading_gives_the_same_map(labels, tmp_path):
    labels.write(tmp_path / "b.toml", notes={"C": ["grey occurs nowhere"]})
    assert LabelMap.read(tmp_path / "b.toml") == labels
    assert "[site.C]\n# grey occurs nowhere\n" in (tmp_path / "b.toml").read_text()
    odd = LabelMap.from_dict({"classes": ["background", "white matter"], "the site": {"Köln. 2": {"white matter": 3}}})
    odd.write(tmp_path / "c.toml")
    assert LabelMap.read(tmp_path / "c.toml") == odd
    assert odd.annotated("Köln. 2") == (True, True)


def test_a_domain_without_a_section_or_default_has_no_meaning():
    labels = LabelMap.from_dict({"classes": ["background", "x"], "site": {"A": {"x": 1}}})
    with pytest.raises(LabelError, match=r"no section \[site.B\] and no \[default\]; it has A"):
        labels.annotated("B")


def test_equal_maps_are_equal_whatever_the_order_of_lines():
    one = LabelMap.from_dict({"classes": ["b", "x", "y"], "default": {"x": 1, "y": 2}})
    other = LabelMap.from_dict({"classes": ["b", "x", "y"], "default": {"y": 2, "b": 0, "x": [1]}})
    assert one == other
    assert hash(one) == hash(other)
    assert one != LabelMap.from_dict({"classes": ["b", "x", "y"], "default": {"x": 2, "y": 1}})
