from __future__ import annotations

import pandas as pd
import pytest

from shiftproof.data.cohort import Cohort
from shiftproof.data.splits import everything, hold_out, k_fold, transfer, within
from shiftproof.errors import SplitError


def cohort(sizes: dict[str, int], **columns) -> Cohort:
    rows = [
        {"subject": f"{site}{i}", "image": f"{site}{i}.nii.gz", "label": f"{site}{i}-l.nii.gz", "site": site}
        for site, n in sizes.items()
        for i in range(n)
    ]
    table = pd.DataFrame(rows)
    for name, values in columns.items():
        table[name] = values
    return Cohort(table)


SITES = {"A": 10, "B": 6, "C": 8}


def test_sides_share_no_subject_and_the_held_out_domain_is_halved():
    split = hold_out(cohort(SITES), "C")
    assert split.train.domains == split.validation.domains == ["A", "B"]
    assert split.test.domains == ["C"]
    assert len(split.test.subjects) == len(split.target.subjects) == 4
    sides = [set(s.subjects) for s in (split.train, split.validation, split.test, split.target)]
    assert sum(map(len, sides)) == len(set.union(*sides)) == 24
    assert len(split.validation.subjects) == 2 + 1


def test_target_images_come_without_labels():
    split = hold_out(cohort(SITES), "C")
    assert all(row.label is None for row in split.target.rows())
    assert split.upper.subjects == split.target.subjects


def test_the_division_depends_on_the_seed_only():
    a, b = hold_out(cohort(SITES), "C", seed=3), hold_out(cohort(dict(reversed(SITES.items()))), "C", seed=3)
    assert set(a.test.subjects) == set(b.test.subjects)
    assert set(a.train.subjects) == set(b.train.subjects)
    assert set(hold_out(cohort(SITES), "C", seed=4).test.subjects) != set(a.test.subjects)


def test_several_scans_of_a_subject_stay_together():
    table = pd.concat([cohort(SITES).table] * 2, ignore_index=True)
    table["image"] = [f"{i}.nii.gz" for i in range(len(table))]
    split = hold_out(Cohort(table), "C")
    assert len(split.train) == 2 * len(split.train.subjects)
    assert not set(split.train.subjects) & set(split.validation.subjects)


def test_whoever_was_scanned_at_the_held_out_domain_trains_nowhere():
    base = cohort(SITES)
    table = pd.concat([base.table, base.table.iloc[[0]].assign(site="C", image="again.nii.gz")], ignore_index=True)
    split = hold_out(Cohort(table), "C")
    assert "A0" not in split.train.subjects + split.validation.subjects


def test_a_split_column_is_respected():
    marks = ["test", "validation"] + [""] * 8 + ["test"] + [""] * 5 + ["test"] * 3 + ["train"] * 5
    split = hold_out(cohort(SITES, split=marks), "C")
    assert set(split.test.subjects) == {"C0", "C1", "C2"}
    assert len(split.target.subjects) == 5
    assert "A0" not in split.train.subjects + split.validation.subjects
    assert "A1" in split.validation.subjects
    assert "B0" not in split.train.subjects + split.validation.subjects


def test_a_smaller_fraction_is_part_of_a_larger_one():
    small, large = (set(hold_out(cohort(SITES), "C", fraction=f).train.subjects) for f in (0.3, 0.7))
    assert small < large


def test_scans_without_a_label_are_left_out_of_every_labelled_side():
    base = cohort(SITES)
    base.table.loc[base.table["subject"].isin(["A0", "C1"]), "label"] = ""
    split = hold_out(Cohort(base.table), "C")
    for side in (split.train, split.validation, split.test):
        assert not {"A0", "C1"} & set(side.subjects)


def test_a_delivered_model_is_trained_on_all_and_adapts_to_the_unlabelled():
    base = cohort(SITES)
    base.table.loc[base.table["site"] == "C", "label"] = ""
    split = everything(Cohort(base.table))
    assert split.train.domains == ["A", "B"]
    assert split.target.domains == ["C"]


def test_the_upper_bound_trains_on_the_other_half():
    split = hold_out(cohort(SITES), "C")
    upper = within(split)
    assert set(upper.train.subjects) | set(upper.validation.subjects) == set(split.upper.subjects)
    assert upper.test.subjects == split.test.subjects


def test_from_one_source_to_one_target():
    split = transfer(cohort(SITES), ["A"], "B")
    assert split.train.domains == ["A"]
    assert split.test.domains == ["B"]


def test_folds_cover_every_subject_once():
    folds = list(k_fold(cohort(SITES), 3))
    tested = [s for f in folds for s in f.test.subjects]
    assert sorted(tested) == sorted(cohort(SITES).subjects)
    assert all(f.test.domains == ["A", "B", "C"] for f in folds)


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (lambda: hold_out(cohort(SITES), "D"), 'no domain "D".*A, B, C'),
        (lambda: hold_out(cohort({"A": 5}), "A"), "leaves no labelled subject"),
        (lambda: hold_out(cohort({"A": 5, "B": 1}), "B"), "at least 2"),
        (lambda: hold_out(cohort({"A": 2, "B": 4}, split=["test"] * 2 + [""] * 4), "B"), "leaves none"),
        (lambda: hold_out(cohort(SITES), "C", fraction=0), "fraction"),
        (lambda: list(k_fold(cohort(SITES), 7)), "smallest has 6"),
        (lambda: transfer(cohort(SITES), ["A", "X"], "B"), "there is no X"),
    ],
)
def test_divisions_that_leave_a_side_empty_are_refused(action, words):
    with pytest.raises(SplitError, match=words):
        action()


def test_a_single_subject_trains_and_nobody_is_held_back_there():
    split = hold_out(cohort({"A": 1, "B": 5, "C": 2}), "C")
    assert "A0" in split.train.subjects
    assert within(split).train.subjects == split.upper.subjects
