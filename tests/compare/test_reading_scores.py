"""Scores from tables and folders of every kind, and one line for what is none."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from shiftproof.compare import read_scores
from shiftproof.errors import OptionError, RunError, ShiftproofError

A = [0.91, 0.88, 0.93, 0.90]
B = [0.90, 0.86, 0.94, 0.85]


@pytest.fixture
def file(tmp_path):
    def write(text: str | bytes, name: str = "scores.csv") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def long(rows: list[tuple], header: str = "subject,method,value") -> str:
    return "\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n"


def both(a=A, b=B) -> list[tuple]:
    return [(f"s{i}", m, v) for m, values in (("A", a), ("B", b)) for i, v in enumerate(values)]


def test_a_long_a_wide_and_two_single_tables_hold_the_same_scores(file):
    expected = pd.DataFrame({"A": A, "B": B}, index=[f"s{i}" for i in range(4)])
    wide = "case,A,B\n" + "".join(f"s{i},{a},{b}\n" for i, (a, b) in enumerate(zip(A, B, strict=True)))
    one, two = (file(f"id,dice\n{''.join(f's{i},{v}' + chr(10) for i, v in enumerate(vs))}", f"{n}.csv")
                for n, vs in (("A", A), ("B", B)))  # fmt: skip
    for paths in ([file(long(both()), "long.csv")], [file(wide, "wide.csv")], [one, two]):
        found = read_scores(paths).wide
        pd.testing.assert_frame_equal(found[["A", "B"]], expected, check_names=False)


@pytest.mark.parametrize("header", [
    "Patient ID,Algorithm,Dice Score", "case_id,model,DSC", "participant,team,dice-coefficient",
    "filename,network,score",
])  # fmt: skip
def test_columns_go_by_the_names_that_people_use(file, header):
    scores = read_scores([file(long(both(), header))])
    assert scores.methods == ["A", "B"]
    assert list(scores.wide["B"]) == B


def test_columns_can_be_named(file):
    path = file(long(both(), "Fall,Verfahren,Wert"))
    scores = read_scores([path], columns={"subject": "Fall", "method": "Verfahren", "value": "Wert"})
    assert list(scores.wide["A"]) == A
    with pytest.raises(OptionError, match='no column in scores.csv "Fal"; did you mean "Fall"'):
        read_scores([path], columns={"subject": "Fal"})
    with pytest.raises(OptionError, match='no meaning of a column "who"'):
        read_scores([path], columns={"who": "Fall"})


def test_a_text_column_that_parts_a_subjects_lines_is_the_method_whatever_its_name(file):
    scores = read_scores([file(long(both(), "subject,Verfahren,dice"))])
    assert scores.methods == ["A", "B"]
    assert any('method "Verfahren"' in note for note in scores.notes)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_encodings_and_delimiters_of_spreadsheets_are_read(file, encoding, delimiter):
    text = long([("Müller", "A", 0.5), ("Müller", "B", 0.25)]).replace(",", delimiter)
    scores = read_scores([file(text.encode(encoding))])
    assert list(scores.wide.loc["Müller"]) == [0.5, 0.25]
    assert any("Windows-1252" in note for note in scores.notes) == (encoding == "cp1252")


def test_decimal_commas_are_read_beside_semicolons(file):
    scores = read_scores([file("subject;method;value\ns1;A;0,5\ns1;B;-1,25\n")])
    assert list(scores.wide.loc["s1"]) == [0.5, -1.25]


@pytest.mark.parametrize("cell", ["", "NaN", "n/a", "NA", "-", "missing", "FAILED", "null", " "])
def test_usual_words_for_no_score_are_no_score(file, cell):
    scores = read_scores([file(long([*both(), ("s9", "A", cell), ("s9", "B", 0.5)]))])
    assert np.isnan(scores.wide.loc["s9", "A"])
    assert scores.wide.loc["s9", "B"] == 0.5


def test_an_infinite_score_is_missing_and_said(file):
    scores = read_scores([file(long([*both(), ("s9", "A", "inf"), ("s9", "B", 3)], "subject,method,hd95"))])
    assert np.isnan(scores.wide.loc["s9", "A"])
    assert any("1 infinite value" in note for note in scores.notes)


def test_names_stay_text(file):
    scores = read_scores([file(long([("007", "1", 0.5), ("7", "1", 0.6), ("NA", "1", 0.7)]))])
    assert list(scores.wide.index) == ["007", "7", "NA"]
    assert scores.methods == ["1"]


def test_several_values_of_a_patient_are_one_value_and_said(file):
    rows = [("p1", 1, "A", 0.2), ("p1", 2, "A", 0.6), ("p2", 1, "A", 0.5)]
    scores = read_scores([file(long(rows, "patient,lesion,method,dice"))])
    assert dict(scores.wide["A"]) == pytest.approx({"p1": 0.4, "p2": 0.5})
    assert any("1 subject with several values" in note for note in scores.notes)


def test_seeds_are_averaged_and_kept_apart_in_the_tidy_table(file):
    rows = [("p1", s, "A", v) for s, v in ((0, 0.2), (1, 0.4))] + [("p1", 0, "B", 0.9)]
    scores = read_scores([file(long(rows, "patient,seed,method,dice"))])
    assert scores.wide.loc["p1", "A"] == pytest.approx(0.3)
    assert len(scores.tidy) == 3


def test_structures_count_alike_however_often_each_was_scanned(file):
    rows = [("p1", "liver", 0.2), ("p1", "liver", 0.4), ("p1", "spleen", 0.9)]
    scores = read_scores([file(long(rows, "patient,organ,dice"), "net.csv")])
    assert scores.wide.loc["p1", "net"] == pytest.approx((0.3 + 0.9) / 2)


def test_a_subject_of_two_domains_counts_once_and_only_where_all_its_domains_are_scored(file):
    rows = [
        ("p1", "X", "A", 0.2),
        ("p1", "Y", "A", 0.6),
        ("p1", "X", "B", 0.5),
        ("p2", "X", "A", 0.1),
        ("p2", "X", "B", 0.3),
    ]
    scores = read_scores([file(long(rows, "patient,site,method,dice"))])
    assert scores.wide.loc["p1", "A"] == pytest.approx(0.4)
    assert np.isnan(scores.wide.loc["p1", "B"])
    assert scores.domains == ["X", "Y"]
    assert scores.domain_word == "site"


def test_the_same_method_of_two_files_on_the_same_subjects_is_two_methods(file):
    first, second = file(long(both()), "one.csv"), file(long(both(B, A)), "two.csv")
    scores = read_scores([first, second])
    assert scores.methods == ["one: A", "one: B", "two: A", "two: B"]
    assert list(scores.wide["two: A"]) == B


def test_a_method_in_two_files_of_different_subjects_is_put_together(file):
    first, second = file(long([("a1", "A", 1)]), "x.csv"), file(long([("b1", "A", 2)]), "y.csv")
    scores = read_scores([first, second])
    assert dict(scores.wide["A"]) == {"a1": 1, "b1": 2}
    assert any("put together" in note for note in scores.notes)


def test_files_of_one_name_are_told_apart_by_their_folder(file):
    first, second = file("id,dice\np,1\n", "unet/scores.csv"), file("id,dice\np,0\n", "vnet/scores.csv")
    assert read_scores([first, second]).methods == ["unet/scores", "vnet/scores"]
    with pytest.raises(OptionError, match="given twice"):
        read_scores([first, first])


def test_the_metric_is_chosen_by_name(file):
    rows = [("p1", "A", "dice", 0.5), ("p1", "A", "hd95 mm", 7)]
    path = file(long(rows, "subject,method,metric,value"))
    assert read_scores([path]).wide.loc["p1", "A"] == 0.5
    assert read_scores([path], metric="hd95 mm").wide.loc["p1", "A"] == 7
    with pytest.raises(OptionError, match="no metric"):
        read_scores([path], metric="iou")
    columns = file("subject,method,dice,hd95\np1,A,0.5,7\n", "columns.csv")
    assert read_scores([columns]).metric == "dice"
    assert read_scores([columns], metric="hd95").wide.loc["p1", "A"] == 7


def test_different_metrics_are_not_compared(file):
    with pytest.raises(OptionError, match="different metrics: dice and accuracy"):
        read_scores([file("id,dice\np,1\n", "a.csv"), file("id,accuracy\np,1\n", "b.csv")])


def test_an_index_without_a_name_is_the_subject(file):
    scores = read_scores([file(",unet,vnet\np,0.5,0.6\nq,0.7,0.8\n")])
    assert list(scores.wide["vnet"]) == [0.6, 0.8]
    assert list(read_scores([file(",dice\np,0.5\np,0.7\n", "net.csv")]).wide["net"]) == [0.6]


def test_columns_that_describe_a_subject_are_no_methods(file):
    scores = read_scores([file("case,age,fold,unet,vnet\np,60,1,0.5,0.6\n")])
    assert scores.methods == ["unet", "vnet"]


@pytest.mark.parametrize(("content", "expected"), [
    ("", "is empty"),
    ("subject,method,value\n", "no line below it"),
    ("Nothing to see here.\nNot here either.\n", "is no table"),
    ("subject,method,value,value\np,A,1,1\n", 'column "value" occurs 2 times'),
    ("subject,method,value\np,A,good\n", '"good" in line 1 below the header'),
    ("subject,method,value\np,A,1\np,B,0.8.5\n", '"0.8.5" in line 2'),
    ("subject,method,value\np,A,1,2\n", "more cells than the header"),
    ("colour,method,value\nred,A,1\n", "names no subjects"),
    ("subject,method,remark\np,A,fine\n", "hold scores"),
    ("subject,method,value\n,A,1\n", "is empty, expected the subject"),
    (b"PK\x03\x04rest", "spreadsheet"),
    (bytes(range(256)), "is no text"),
    ("subject,method,metric,value\np,A,x,1\np,A,y,1\n", "choose one with --metric"),
])  # fmt: skip
def test_what_is_no_table_of_scores_is_answered_in_one_line(file, content, expected):
    with pytest.raises(ShiftproofError, match=expected) as caught:
        read_scores([file(content)])
    assert "\n" not in str(caught.value)


def test_a_file_that_is_missing_or_too_large_is_named(tmp_path, file, monkeypatch):
    with pytest.raises(RunError, match=r"none\.csv does not exist"):
        read_scores([tmp_path / "none.csv"])
    monkeypatch.setattr("shiftproof.compare.texts.LARGEST", 10)
    with pytest.raises(RunError, match="expected scores of at most"):
        read_scores([file(long(both()))])
    with pytest.raises(OptionError, match="no table was given"):
        read_scores([])


def study(root: Path, values: dict[tuple[str, str, str, int], float]) -> Path:
    """A study folder; values by row, held-out domain, subject and seed."""
    names = list(dict.fromkeys(row for row, *_ in values))
    rows = [{"name": n, "role": "target-supervised" if n.startswith("target") else "row"} for n in names]
    sites = sorted({site for _, site, *_ in values})
    seeds = sorted({seed for *_, seed in values})
    facts = {
        "rows": rows,
        "held_out": sites,
        "domains": sites,
        "seeds": seeds,
        "primary": "dice",
        "domain_column": "site",
    }
    root.mkdir()
    (root / "study.json").write_text(json.dumps(facts))
    every = []
    for name in names:
        for site in sites:
            for seed in seeds:
                own = [
                    {"row": name, "held_out": site, "seed": seed, "subject": s, "domain": site, "structure": k,
                     "metric": m, "value": v + shift, "status": "ok"}
                    for (r, d, s, e), v in values.items() if (r, d, e) == (name, site, seed)
                    for m, shift in (("dice", 0.0), ("hd95 mm", 5.0)) for k in ("csf", "grey")
                ]  # fmt: skip
                folder = root / "cells" / name.replace("/", "_") / site / str(seed)
                folder.mkdir(parents=True)
                done = {"row": name, "held_out": site, "seed": seed, "status": "done"}
                (folder / "cell.json").write_text(json.dumps(done))
                pd.DataFrame(own).to_csv(folder / "rows.csv", index=False)
                every += own
    pd.DataFrame(every).to_csv(root / "rows.csv", index=False)
    return root


def drawn(rows: list[str]) -> dict[tuple[str, str, str, int], float]:
    random = np.random.default_rng(3)
    return {
        (row, site, f"{site}{i}", seed): float(random.uniform(0.5, 0.9))
        for row in rows for site in "BC" for i in range(3) for seed in (0, 1)
    }  # fmt: skip


def test_a_study_its_rows_and_a_renamed_copy_of_them_hold_the_same_scores(tmp_path):
    values = drawn(["erm/strong", "dann/strong", "target-supervised/strong"])
    root = study(tmp_path / "study", values)
    expected = {
        (row, s): np.mean([values[row, site, s, e] for e in (0, 1)])
        for row, site, s, _ in values
        if not row.startswith("target")
    }
    copied = tmp_path / "copied.csv"
    copied.write_bytes((root / "rows.csv").read_bytes())
    for path in (root, root / "rows.csv", copied):
        scores = read_scores([path])
        assert scores.metric == "dice"
        found = {(m, s): scores.wide.loc[s, m] for m, s in expected}
        assert found == pytest.approx(expected)
    assert read_scores([root]).methods == ["erm/strong", "dann/strong"]
    assert any("labels of the held-out site" in note for note in read_scores([root]).notes)
    assert read_scores([root], metric="hd95 mm").wide.to_numpy() == pytest.approx(
        read_scores([root]).wide.to_numpy() + 5
    )


def test_a_structure_that_is_rightly_absent_is_no_failure(tmp_path):
    values = drawn(["a", "b"])
    for seed in (0, 1):
        values["a", "B", "B0", seed] = float("nan")
    scores = read_scores([study(tmp_path / "study", values)])
    assert scores.undefined == [("B", "B0")]


def test_a_folder_that_is_no_study_is_named(tmp_path):
    with pytest.raises(RunError, match=r"holds no study\.json"):
        read_scores([tmp_path])
