from __future__ import annotations

import dataclasses
import errno
import json
import multiprocessing
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from shiftproof.data.building import build, centres_of, is_complete
from shiftproof.data.cohort import Cohort
from shiftproof.data.images import array_of, read_image
from shiftproof.data.labels import LabelMap
from shiftproof.data.plan import make_plan
from shiftproof.data.store import IGNORE, Store
from shiftproof.errors import GeometryError, LabelError, PlanError, ShiftproofError, StorageError


def leftovers(store: Store) -> list[str]:
    return [str(p) for p in store.root.rglob("*") if p.name.startswith(".")]


def test_cases_are_the_scans_in_the_order_of_the_table(tmp_path, cohort):
    cases = Store(tmp_path / "store").prepare(cohort, make_plan(cohort))
    assert [c.subject for c in cases] == cohort.subjects
    for case, row in zip(cases, cohort.rows(), strict=True):
        assert (case.domain, case.columns, case.paths) == (row.domain, row.columns, row.images)
        label = array_of(read_image(row.label))
        np.testing.assert_array_equal(case.label, case.geometry.forward(label))
        assert case.image.shape == (1, *case.label.shape)
        assert case.image.dtype == np.float32
        assert case.present.tolist() == [True]
        assert case.annotated.tolist() == [True, True, True]
        assert isinstance(case.image, np.memmap)
        with pytest.raises(ValueError, match="read-only"):
            case.image[0] = 1


def test_a_second_run_builds_nothing(tmp_path, cohort):
    store, plan = Store(tmp_path / "store"), make_plan(cohort)
    told = []
    first = store.prepare(cohort, plan, progress=lambda *n: told.append(n))
    assert told[-1] == (6, 6)
    times = {p: p.stat().st_mtime_ns for p in store.root.rglob("*.npy")}
    told.clear()
    second = Store(tmp_path / "store").prepare(cohort, plan, progress=lambda *n: told.append(n))
    assert told == [(0, 0)]
    assert [c.folder for c in first] == [c.folder for c in second]
    assert times == {p: p.stat().st_mtime_ns for p in store.root.rglob("*.npy")}


def test_what_decides_the_arrays_decides_the_place(tmp_path, cohort, scans):
    store, plan = Store(tmp_path / "store"), make_plan(cohort)

    def keys(cohort=cohort, plan=plan):
        return [c.key for c in store.prepare(cohort, plan)]

    first = keys()
    assert len(set(first)) == 6
    # Neither the patch nor what the plan was made from changes a case.
    assert keys(plan=dataclasses.replace(plan, patch=(8, 8, 8), statistics={})) == first
    assert keys(plan=dataclasses.replace(plan, spacing_mm=(2.0, 2.0, 2.0))) != first
    assert not set(keys(cohort.without_labels())) & set(first)
    assert not set(keys(cohort.with_labels(LabelMap.of_values({"body": [1, 5], "core": 2})))) & set(first)
    image, _ = scans.blob((18, 20, 24), 77)
    scans.write(cohort.root / "A0.nii.gz", image)
    assert keys()[0] != first[0]
    assert keys()[1:] == first[1:]


def test_without_labels_nothing_of_them_can_be_reached(tmp_path, cohort):
    store, plan = Store(tmp_path / "store"), make_plan(cohort)
    labelled = store.prepare(cohort, plan)
    for case, other in zip(store.prepare(cohort.without_labels(), plan), labelled, strict=True):
        assert case.label is None
        assert case.centres == {}
        assert case.annotated.size == 0
        assert sorted(p.name for p in case.folder.iterdir()) == ["case.json", "image.npy"]
        assert "seg" not in (case.folder / "case.json").read_text()
        assert b"seg" not in pickle.dumps(case)
        np.testing.assert_array_equal(case.image, other.image)


def test_worker_processes_build_the_same_files(tmp_path, cohort):
    plan = make_plan(cohort, spacing_mm=(1.3, 1.3, 0.9))
    alone = Store(tmp_path / "alone").prepare(cohort, plan)
    several = Store(tmp_path / "several").prepare(cohort, plan, workers=2)
    for one, other in zip(alone, several, strict=True):
        for name in ("image.npy", "label.npy"):
            assert (one.folder / name).read_bytes() == (other.folder / name).read_bytes()
        for index, places in one.centres.items():
            np.testing.assert_array_equal(places, other.centres[index])


def test_an_error_names_the_subject_even_from_a_worker(tmp_path, cohort, scans):
    plan = make_plan(cohort)
    scans.write(cohort.root / "B1_seg.nii.gz", np.zeros((18, 20, 24), np.uint8), origin=(0, 0, 4))
    for workers in (1, 2):
        with pytest.raises(GeometryError, match=r"subject B1 \(B\): .*B1.nii.gz and .*B1_seg.nii.gz .*by 4 mm"):
            Store(tmp_path / f"{workers}").prepare(cohort, plan, workers=workers)
        assert not leftovers(Store(tmp_path / f"{workers}"))
    scans.write(cohort.root / "B1_seg.nii.gz", np.full((18, 20, 24), 9, np.uint8))
    with pytest.raises(LabelError, match=r"subject B1 \(B\): .*B1_seg.nii.gz has values without a meaning.* 9 "):
        Store(tmp_path / "1").prepare(cohort, plan)
    # What was complete before the error is not built again.
    assert len(list((tmp_path / "1").rglob("case.json"))) == 4


def test_ignored_voxels_and_missing_structures_are_kept_apart(tmp_path, scans):
    meaning = LabelMap.from_dict(
        {
            "classes": ["background", "body", "core"],
            "default": {"body": 1, "core": 2},
            "site": {"B": {"body": 1, "ignore": 2}},
        }
    )
    cohort = scans.make_cohort(tmp_path, labels=meaning)
    a, b = (Store(tmp_path / "store").prepare(cohort, make_plan(cohort))[i] for i in (0, 3))
    assert a.annotated.tolist() == [True, True, True]
    assert b.annotated.tolist() == [True, True, False]
    assert set(np.unique(a.label)) == {0, 1, 2}
    assert set(np.unique(b.label)) == {0, 1, IGNORE}
    assert sorted(b.centres) == [0, 1]


def test_centres_lie_in_their_class_and_are_drawn_evenly():
    label = np.zeros((30, 30, 10), np.uint8)
    label[:, 15:] = 1
    label[3, 4, 5] = 7
    label[0] = IGNORE
    centres = centres_of(label, seed=1, number=2000)
    assert {k: len(v) for k, v in centres.items()} == {0: 2000, 1: 2000, 7: 1}
    for index, places in centres.items():
        assert (label[tuple(places.T)] == index).all()
        assert len(np.unique(places, axis=0)) == len(places)
    assert abs(centres[1][:, 1].mean() - 22) < 0.5
    np.testing.assert_array_equal(centres[1], centres_of(label, seed=1)[1])
    assert (centres[1] != centres_of(label, seed=2)[1]).any()


@pytest.mark.parametrize("damage", ["short", "no case", "bad case", "gone", "old temporary"])
def test_a_damaged_entry_is_built_again(tmp_path, cohort, damage):
    store, plan = Store(tmp_path / "store"), make_plan(cohort)
    case = store.prepare(cohort, plan)[0]
    expected = np.array(case.image)
    if damage == "short":
        path = case.folder / "image.npy"
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "no case":
        (case.folder / "case.json").unlink()
    elif damage == "bad case":
        (case.folder / "case.json").write_text("{")
    elif damage == "gone":
        (case.folder / "label.npy").unlink()
    else:
        shutil.rmtree(case.folder)
        abandoned = case.folder.parent / ".tmp-0123"
        abandoned.mkdir()
        os.utime(abandoned, (0, 0))
    assert not is_complete(case.folder)
    again = store.prepare(cohort, plan)[0]
    np.testing.assert_array_equal(again.image, expected)
    assert is_complete(case.folder)
    assert not leftovers(store)


def test_a_killed_builder_leaves_nothing_that_counts(tmp_path, cohort):
    """Kill a builder between its files; the next one starts as if it had never been."""
    plan = make_plan(cohort)
    expected = [np.array(c.image) for c in Store(tmp_path / "whole").prepare(cohort, plan)]
    plan.write(tmp_path / "plan.json")
    code = f"""
import os, signal, sys
import numpy as np
from shiftproof.data.cohort import Cohort
from shiftproof.data.plan import Plan
from shiftproof.data.store import Store
save, left = np.save, [int(sys.argv[1])]
def dying(*arguments):
    left[0] -= 1
    if left[0] < 0:
        with open(arguments[0], "wb") as file:
            file.write(b"half")
        os.kill(os.getpid(), signal.SIGKILL)
    save(*arguments)
np.save = dying
cohort = Cohort.read({str(cohort.root / "table.csv")!r})
Store({str(tmp_path / "store")!r}).prepare(cohort, Plan.read({str(tmp_path / "plan.json")!r}))
"""
    for files in (0, 3, 4):
        done = subprocess.run([sys.executable, "-c", code, str(files)], capture_output=True)
        assert done.returncode == -signal.SIGKILL
        complete = [p for p in (tmp_path / "store").glob("??/*") if is_complete(p)]
        assert len(complete) < 6
        assert leftovers(Store(tmp_path / "store"))
    cases = Store(tmp_path / "store").prepare(cohort, plan)
    for case, image in zip(cases, expected, strict=True):
        np.testing.assert_array_equal(case.image, image)


def test_abandoned_work_is_swept_and_fresh_work_is_not(tmp_path, cohort):
    store = Store(tmp_path / "store")
    for name, age in {".tmp-old": 2 * 86400, ".tmp-fresh": 60}.items():
        (store.root / "ab" / name).mkdir(parents=True)
        os.utime(store.root / "ab" / name, (time.time() - age,) * 2)
    store.prepare(cohort, make_plan(cohort))
    assert [p.rsplit("/", 1)[1] for p in leftovers(store)] == [".tmp-fresh"]


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), OSError("5 requested and 3 written")]
)
def test_a_full_disk_is_a_storage_error_and_leaves_no_entry(tmp_path, cohort, monkeypatch, error):
    store, plan = Store(tmp_path / "store"), make_plan(cohort)
    kept = store.prepare(cohort.of_subjects(["A0"]), plan)[0].folder
    save = np.save

    def filling(path, array):
        if "label" in str(path):
            raise error
        save(path, array)

    monkeypatch.setattr(np, "save", filling)
    with pytest.raises(StorageError, match="space"):
        store.prepare(cohort, plan)
    assert [p for p in store.root.glob("??/*") if p.is_dir()] == [kept]
    assert not leftovers(store)
    monkeypatch.undo()
    assert len(store.prepare(cohort, plan)) == 6


def test_a_folder_that_cannot_be_made_is_a_storage_error(tmp_path, cohort):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write"):
        Store(tmp_path / "file" / "store").prepare(cohort, make_plan(cohort))


def _prepare(root, table, plan):
    Store(root).prepare(Cohort.read(table), plan)


def test_several_builders_at_once_agree(tmp_path, cohort):
    plan = make_plan(cohort)
    context = multiprocessing.get_context("fork")
    arguments = (tmp_path / "store", cohort.root / "table.csv", plan)
    builders = [context.Process(target=_prepare, args=arguments) for _ in range(3)]
    for builder in builders:
        builder.start()
    for builder in builders:
        builder.join(60)
    assert [b.exitcode for b in builders] == [0, 0, 0]
    store = Store(tmp_path / "store")
    assert not leftovers(store)
    assert len([p for p in store.root.glob("??/*") if is_complete(p)]) == 6


def test_a_builder_that_comes_second_keeps_the_first_ones_work(tmp_path, cohort):
    """The race itself: the entry appears between the look and the move."""
    store, plan = Store(tmp_path / "store"), make_plan(cohort)
    row = next(cohort.rows())
    case = store.prepare(cohort.of_subjects([row.subject]), plan)[0]
    inode = (case.folder / "image.npy").stat().st_ino
    build(row, cohort.labels, plan, case.folder, case.key)
    assert (case.folder / "image.npy").stat().st_ino == inode
    assert not leftovers(store)


def test_a_case_travels_between_processes_as_names(tmp_path, cohort):
    case = Store(tmp_path / "store").prepare(cohort, make_plan(cohort))[0]
    content = pickle.dumps(case)
    assert len(content) < 3000
    np.testing.assert_array_equal(pickle.loads(content).image, case.image)


def test_thousands_of_cases_do_not_exhaust_open_files(tmp_path, cohort):
    cases = Store(tmp_path / "store").prepare(cohort, make_plan(cohort))
    folders = []
    for i in range(300):
        folder = tmp_path / "many" / str(i)
        shutil.copytree(cases[0].folder, folder)
        folders.append(folder)
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    for folder in folders:
        _ = dataclasses.replace(cases[0], folder=folder).image[0, 0, 0, 0]
    after = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    assert after - before <= 256


def test_classes_of_plan_and_cohort_must_agree(tmp_path, cohort):
    plan = make_plan(cohort)
    other = cohort.with_labels(LabelMap.of_values({"core": 2, "body": 1}))
    with pytest.raises(PlanError, match="background, body, core, the cohort has background, core, body"):
        Store(tmp_path / "store").prepare(other, plan)
    bare = Cohort(cohort.table, cohort.root)
    with pytest.raises(LabelError, match=r"no labels\.toml"):
        Store(tmp_path / "store").prepare(bare, plan)
    assert len(Store(tmp_path / "store").prepare(bare.without_labels(), plan)) == 6


def test_a_worker_that_is_killed_is_said_to_lack_memory(tmp_path, cohort):
    from shiftproof.data.parallel import run

    with pytest.raises(ShiftproofError, match="use fewer workers"):
        run(os._exit, [(1,), (1,)], workers=2)


def test_the_record_of_a_case_is_plain_json(tmp_path, cohort):
    case = Store(tmp_path / "store").prepare(cohort, make_plan(cohort))[0]
    facts = json.loads((case.folder / "case.json").read_text())
    assert facts["key"] == case.key == case.folder.name
    assert set(facts["bytes"]) == {"image.npy", "label.npy", "centres.npz"}
    assert facts["intensity"]["image"]["mean"] == pytest.approx(case.intensity["image"]["mean"])
