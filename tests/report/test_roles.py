"""Which row is measured against which."""

from __future__ import annotations

from shiftproof.recipe import Recipe
from shiftproof.report.roles import reference_of
from shiftproof.study.declare import with_references


def test_an_upper_bound_is_read_against_the_source_only_run_of_its_own_loss():
    """Also where the first row, whose source-only run gives the study's, has another loss."""
    rows, references = with_references([Recipe("a", transforms="strong", loss="focal"), Recipe("b"), Recipe("c")])
    by_name = {r.name: r for r in rows}
    for name, bound in references["target-supervised"].items():
        plain = by_name[references["plain"][name]]
        assert reference_of(by_name[bound].as_dict(), references) == plain.name
        assert plain.loss == by_name[bound].loss == by_name[name].loss
    assert len({references["plain"][name] for name in "abc"}) == 2


def test_without_the_bound_rows_keep_their_other_references():
    rows, references = with_references([Recipe("a", transforms="strong", loss="focal"), Recipe("b")], bound=False)
    assert not [r.name for r in rows if r.role == "target-supervised"]
    assert references["target-supervised"] == {}
    asked, with_bound = with_references([Recipe("a", transforms="strong", loss="focal"), Recipe("b")])
    assert [r for r in asked if r.role != "target-supervised"] == rows
    assert references["pooled"] == with_bound["pooled"]
    assert references["plain"] == with_bound["plain"]
