"""Which row is measured against which."""

from __future__ import annotations

import pandas as pd

from shiftproof.recipe import Recipe
from shiftproof.report.roles import bound_of, measured_on, reference_of, upper_bound
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


def test_the_drop_is_read_from_a_row_that_has_a_bound_where_the_selected_one_has_none():
    rows, references = with_references(
        [Recipe("own", transforms="none", loss="focal"), Recipe("b", transforms="strong")]
    )
    wide = pd.DataFrame({r.name: [0.5, 0.6] for r in rows})
    assert bound_of("own", references) is None
    assert measured_on(references, "own", wide) == "b"
    assert upper_bound(references, "own", wide) == "target-supervised/strong"
    assert measured_on(references, "b", wide) == "b"
    _, none = with_references([Recipe("b", transforms="strong")], bound=False)
    assert measured_on(none, "b", wide) == "b"
    assert upper_bound(none, "b", wide) is None
