"""What could mix two declarations, drop a row for nothing, or be found out only days later."""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
from pathlib import Path

import pandas as pd
import pytest

from shiftproof.cli.study import study as command
from shiftproof.data.cohort import Cohort
from shiftproof.data.splits import hold_out, transfer
from shiftproof.data.targets import Targets
from shiftproof.errors import OptionError, RunError, SplitError
from shiftproof.recipe import Recipe
from shiftproof.study import halving as module
from shiftproof.study.cell import SPLIT_SEED, fail, jobs
from shiftproof.study.halving import Rung, halve
from shiftproof.study.rules import Candidate, Halving, anchors_of, candidates_of, confirmed
from shiftproof.study.run import study
from shiftproof.study.rungs import cohort_of, summary
from shiftproof.train import Trainer

ROWS = [dataclasses.replace(Recipe.parsed(text), network={"widths": [4, 8]}) for text in ("erm/none", "erm/light")]


class Stop(Exception):
    """Ends a study where its first rung would begin."""


def stop(line: str) -> None:
    if line.startswith("rung 1"):
        raise Stop


def run(table: Path, out: Path, rows: list[Recipe] = ROWS, **options) -> None:
    given = {
        "held_out": ["C"],
        "rungs": [Rung(steps=2), Rung(steps=3)],
        "trainer": Trainer(steps=3, batch=4, validate_every=3, device="cpu"),
        "workers": 1,
        "estimate": False,
        "tell": stop,
        **options,
    }
    halve(table, rows, out, **given)


def declared(rows: list[Recipe], **fields) -> Halving:
    given = {
        "name": "s",
        "cohort": "table.csv",
        "cohort_hash": "",
        "domain_column": "site",
        "domains": list("ABCD"),
        "held_out": ["D"],
        "development": list("AB"),
        "candidates": [Candidate(r, r.method) for r in rows],
        "rungs": [Rung(steps=10, held_out=list("AB"))],
        "keep": 1 / 3,
        "finalists": 6,
        "scoring": "information maximisation",
        "seeds": [1],
        "anchors": anchors_of(rows),
        "budget": {"steps": 100, "seconds": None},
        **fields,
    }
    return Halving(**given)


def test_rungs_without_their_declaration_are_not_taken_for_those_of_another(three_sites, tmp_path):
    with pytest.raises(Stop):
        run(three_sites, tmp_path / "s")
    (tmp_path / "s" / "halving.json").unlink()
    (tmp_path / "s" / "rungs.json").write_text(json.dumps({"rungs": [], "finalists": ["erm/none"], "out": []}))
    with pytest.raises(RunError, match=r"not its declaration \(halving.json\); restore it"):
        run(three_sites, tmp_path / "s", rungs=[Rung(steps=5)])
    assert not (tmp_path / "s" / "halving.json").exists()


def test_a_later_rung_that_cannot_be_divided_is_said_before_the_first_one(three_sites, tmp_path):
    """Domain E has one subject: it trains, and cannot be held out."""
    table = pd.read_csv(three_sites)
    for name in ("image", "label"):
        table[name] = [str(three_sites.parent / path) for path in table[name]]
    table.loc[table["subject"] == "A0", "site"] = "E"
    path = tmp_path / "cohort" / "table.csv"
    path.parent.mkdir()
    table.to_csv(path, index=False)
    (path.parent / "labels.toml").write_text((three_sites.parent / "labels.toml").read_text())
    rungs = [Rung(steps=2, held_out=["A", "B"]), Rung(steps=3, held_out=["E"])]
    with pytest.raises(SplitError, match="held-out domain E has 1 labelled subjects"):
        run(path, tmp_path / "s", rungs=rungs)
    assert not (tmp_path / "s").exists()
    with pytest.raises(Stop):
        run(path, tmp_path / "s", rungs=rungs[:1])


def test_what_is_named_twice_would_count_twice(three_sites, tmp_path):
    with pytest.raises(OptionError, match="a domain is held out once; C came twice"):
        run(three_sites, tmp_path / "s", held_out=["C", "C"])
    with pytest.raises(OptionError, match="a seed counts once; 4 came twice"):
        run(three_sites, tmp_path / "s", seeds=[4, 4])
    with pytest.raises(OptionError, match="a seed counts once in a rung; 1 came twice"):
        Rung(steps=2, seeds=[1, 1])
    with pytest.raises(OptionError, match="a domain is held out once in a rung; A came twice"):
        Rung(steps=2, held_out=["A", "A"])
    with pytest.raises(OptionError, match="a seed counts once; 0 came twice"):
        study(three_sites, ROWS, tmp_path / "s", seeds=[0, 0])
    with pytest.raises(OptionError, match="a domain is held out once; A came twice"):
        study(three_sites, ROWS, tmp_path / "s", held_out=["A", "B", "A"])
    assert not (tmp_path / "s").exists()


def test_a_family_of_no_row_is_refused():
    with pytest.raises(OptionError, match='no row that a family is given for "erm/lihgt"; did you mean "erm/light"'):
        candidates_of(ROWS, {"erm/lihgt": "x"})


def test_replicates_keep_the_family_of_their_row(three_sites, tmp_path, monkeypatch):
    recipes = tmp_path / "rows.toml"
    recipes.write_text('[[row]]\nname = "mine"\nmethod = "erm"\nfamily = "x"\n')
    given = {}

    def seen(table, rows, folder, **options):
        given.update(options, rows=rows)
        raise Stop

    monkeypatch.setattr(module, "halve", seen)
    usual = {name: p.default for name, p in inspect.signature(command).parameters.items() if name != "typed"}
    defaults = {name: getattr(value, "default", value) for name, value in usual.items()} | {"typed": None}
    with pytest.raises(Stop):
        command(**defaults | {
            "cohort": three_sites, "methods": "erm/none", "recipes": recipes, "halving": True, "replicates": 2,
            "hold_out": "C", "out": tmp_path / "s",
        })  # fmt: skip
    found = {c.recipe.name: c.family for c in candidates_of(given["rows"], given["families"])}
    assert found == {"mine #1": "x", "mine #2": "x", "erm/none #1": "erm", "erm/none #2": "erm"}


def test_an_anchor_never_has_the_name_of_a_row_that_was_dropped():
    other = Recipe("erm/none", transforms="strong")
    anchors = anchors_of([other, Recipe("dann")])
    assert [a.name for a in anchors] == ["erm/none (anchor)", "erm/light", "erm/strong"]
    assert [r.name for r in confirmed([Recipe("dann")], anchors)][1] == "erm/none (anchor)"


def test_a_row_that_would_clash_in_the_confirmation_is_said_before_the_first_run(three_sites, tmp_path):
    rows = [dataclasses.replace(ROWS[1], name=name) for name in ("erm/none", "erm/none (anchor)")]
    with pytest.raises(OptionError, match=r"erm/none \(anchor\) came twice"):
        run(three_sites, tmp_path / "s", rows)


def test_where_nothing_could_be_trained_a_row_without_rivals_does_not_hide_it(three_sites, tmp_path, monkeypatch):
    """Here: a disk that is away. The rows that failed are not dropped for it."""

    def away(study, cohort, folder, **options):
        study.save(folder)
        for job in jobs(study):
            fail(folder, job, "the disk is away")

    monkeypatch.setattr(module, "carry_out", away)
    alone = dataclasses.replace(Recipe.parsed("dann+target"), network={"widths": [4, 8]})
    with pytest.raises(RunError, match="every row failed in rung 1; the first one, erm/none, failed: the disk is away"):
        run(three_sites, tmp_path / "s", [*ROWS, alone], tell=lambda line: None)
    assert json.loads((tmp_path / "s" / "rungs.json").read_text())["rungs"] == []


def table_of(*domains: str, number: int = 4, **columns) -> pd.DataFrame:
    lines = [[f"{d}{i}", f"{d}{i}.nii", f"{d}{i}-label.nii", d] for d in domains for i in range(number)]
    return pd.DataFrame(lines, columns=["subject", "image", "label", "site"]).assign(**columns)


def test_a_domain_that_nothing_trains_on_need_not_be_divisible():
    """C is all "test" and no source: the confirmation passes it over, and so do rungs."""
    table = table_of(*"ABCD", split="")
    table.loc[table["site"] == "C", "split"] = "test"
    cohort = Cohort(table)
    row = Recipe("t", method="dann", target=True)
    found = cohort_of(cohort, declared([row], sources=["A", "B"]), "adaptation")
    expected = transfer(cohort, ["A", "B"], "D", seed=SPLIT_SEED).target
    assert found.where(site="D").subjects == expected.subjects
    with pytest.raises(SplitError):
        hold_out(cohort, "D")


def test_one_answer_is_too_few_to_rank_adaptation_by():
    """Information maximisation would be 0 for every row, and the row that is named first would win."""
    table = pd.concat([table_of("A", "B"), table_of("D", number=2)]).assign(state="well")
    targets = Targets(task="classification", column="state", classes=("well", "ill"))
    cohort = Cohort(table, labels=targets)
    row = Recipe("t", method="dann", target=True)
    with pytest.raises(RunError, match="information maximisation .* from 2 scans on, and the half of D .* has 1;"):
        cohort_of(cohort, declared([row]), "adaptation")
    assert len(cohort_of(cohort, declared([row], scoring="nuclear norm"), "adaptation")) == 9
    assert len(cohort_of(cohort, declared([row]), "generalisation")) == 8


def values(**domains: list[float]) -> pd.DataFrame:
    return pd.DataFrame([{"held_out": d, "value": v} for d, some in domains.items() for v in some])


def test_one_subject_a_domain_has_no_interval_rather_than_one_of_no_width():
    value, low, high, number = summary(values(A=[0.2], B=[0.8]), (0, 1))
    assert (value, number) == (0.5, 2)
    assert math.isnan(low)
    assert math.isnan(high)


def test_the_interval_of_a_rung_covers_what_it_says():
    """Three domains of two subjects, whose means differ: 95 % by simulation, where subjects moved onto one mean
    without paying for it would give 85 %."""
    import numpy as np

    random = np.random.default_rng(0)
    inside = 0
    for _ in range(2000):
        drawn = random.normal([[0.5], [0.7], [0.9]], 0.05, (3, 2))
        _, low, high, _ = summary(values(**dict(zip("ABC", drawn.tolist(), strict=True))), (0, math.inf))
        inside += low <= 0.7 <= high
    assert inside / 2000 == pytest.approx(0.95, abs=0.015)


def test_a_number_may_be_written_with_or_without_its_point():
    """`Rung(seconds=15)` in Python and `--rung-seconds 15` on the command line declare the same."""
    one = declared(ROWS, rungs=[Rung(seconds=15, held_out=["A", "B"])], margin=0)
    other = declared(ROWS, rungs=[Rung(seconds=15.0, held_out=["A", "B"])], margin=0.0)
    one.compare(other)
    with pytest.raises(RunError, match="with other rungs"):
        one.compare(declared(ROWS, rungs=[Rung(seconds=15.5, held_out=["A", "B"])]))
    with pytest.raises(RunError, match="with other tolerance_mm"):
        one.compare(dataclasses.replace(other, tolerance_mm={"disc": 2.0}))
