"""The mixed model against the analysis of variance of balanced designs, and what it does where it cannot be fitted."""

from __future__ import annotations

import math
import sys

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from shiftproof.errors import OptionError
from shiftproof.statistics import mixed


def study(
    rows: int = 2, sites: int = 4, n: int = 8, seeds: int = 3, *, sd=(0.05, 0.04, 0.02, 0.03), seed: int = 0
) -> pd.DataFrame:
    """Scores with known spread of sites, subjects, trainings and the rest; row i is better by 0.1 i."""
    random = np.random.default_rng(seed)
    site, subject = random.normal(0, sd[0], sites), random.normal(0, sd[1], (sites, n))
    training = random.normal(0, sd[2], (rows, sites, seeds))
    return pd.DataFrame(
        [
            (f"row {r}", f"site {s}", f"{s}-{i}", k,
             0.5 + 0.1 * r + site[s] + subject[s, i] + training[r, s, k] + random.normal(0, sd[3]))
            for r in range(rows) for s in range(sites) for i in range(n) for k in range(seeds)
        ],
        columns=["row", "held_out", "subject", "seed", "value"],
    )  # fmt: skip


def anova(table: pd.DataFrame, sites: int, n: int, seeds: int) -> tuple[dict[str, float], float]:
    """Components of one row from mean squares of the balanced design, and the mean's standard error."""
    y = table["value"].to_numpy().reshape(sites, n, seeds)
    site = y.mean((1, 2))
    subject, seed = y.mean(2) - site[:, None], y.mean(1) - site[:, None]
    rest = y - site[:, None, None] - subject[:, :, None] - seed[:, None, :]
    squares = {
        "site": n * seeds * site.var(ddof=1),
        "subject": seeds * (subject**2).sum() / (sites * (n - 1)),
        "seed": n * (seed**2).sum() / (sites * (seeds - 1)),
        "residual": (rest**2).sum() / (sites * (n - 1) * (seeds - 1)),
    }
    return {
        "site": (squares["site"] - squares["subject"] - squares["seed"] + squares["residual"]) / (n * seeds),
        "subject": (squares["subject"] - squares["residual"]) / seeds,
        "seed": (squares["seed"] - squares["residual"]) / n,
        "residual": squares["residual"],
    }, math.sqrt(squares["site"] / (sites * n * seeds))


@pytest.mark.parametrize("seed", [1, 6, 7])
def test_components_and_interval_are_those_of_the_balanced_anova(seed):
    table = study(1, 5, 8, 3, seed=seed)
    expected, error = anova(table, 5, 8, 3)
    assert min(expected.values()) > 0  # else restricted likelihood and mean squares part
    found = mixed(table)
    assert found.converged
    assert found.variance == pytest.approx(expected, rel=2e-3)
    assert found.sd == pytest.approx({k: math.sqrt(v) for k, v in found.variance.items()})
    own = found.means["row 0"]
    assert own.mean == pytest.approx(table["value"].mean())
    assert own.high - own.low == pytest.approx(2 * stats.t.ppf(0.975, 4) * error, rel=2e-3)
    assert (found.freedom, own.n, own.method) == (4, 40, "mixed model, t with 4 df")


def test_means_of_a_balanced_study_are_its_means():
    table = study(3)
    found = mixed(table)
    assert {r: i.mean for r, i in found.means.items()} == pytest.approx(table.groupby("row")["value"].mean().to_dict())
    assert found.n == len(table)


def test_missing_scores_of_hard_subjects_do_not_flatter_a_row():
    table = study(2, 3, 12, 2, sd=(0.0, 0.1, 0.0, 0.01))
    difficulty = table.groupby("subject")["value"].mean()
    hard = difficulty.index[difficulty < difficulty.quantile(0.4)]
    holes = table.assign(value=table["value"].mask(table["subject"].isin(hard) & (table["row"] == "row 0")))
    plain = holes.groupby("row")["value"].mean()
    found = mixed(holes)
    gain = found.means["row 1"].mean - found.means["row 0"].mean
    assert gain == pytest.approx(0.1, abs=0.012)
    assert plain["row 1"] - plain["row 0"] < 0.07
    assert found.means["row 0"].n == 36 - len(hard)


def test_true_components_are_found_in_a_large_study():
    found = mixed(study(4, 30, 6, 2, sd=(0.06, 0.05, 0.03, 0.04)))
    assert found.sd == pytest.approx({"site": 0.06, "subject": 0.05, "seed": 0.03, "residual": 0.04}, rel=0.2)


def test_intervals_over_few_sites_hold_the_truth():
    covered = []
    for seed in range(40):
        own = mixed(study(1, 4, 5, 1, sd=(0.05, 0.03, 0.0, 0.02), seed=seed).assign(again=0)).means.get("row 0")
        covered.append(own is not None and own.low <= 0.5 <= own.high)
    assert np.mean(covered) >= 0.85  # 0.95 less three standard errors of 40 draws


def test_a_component_that_is_zero_is_said_and_is_no_failure():
    table = study(2, 3, 10, 2)
    flat = table["value"] - table.groupby("held_out")["value"].transform("mean")
    found = mixed(table.assign(value=0.5 + flat))
    assert (found.reason, found.converged) == ("", True)
    assert found.variance["site"] == 0
    assert "no spread between sites" in found.note
    assert all(i.known for i in found.means.values())


def test_the_unit_of_scores_changes_nothing_but_the_unit():
    table = study(2)
    small, large = mixed(table), mixed(table.assign(value=1000 * table["value"] + 7))
    assert large.sd == pytest.approx({k: 1000 * v for k, v in small.sd.items()}, rel=1e-3)
    assert large.means["row 1"].mean == pytest.approx(1000 * small.means["row 1"].mean + 7)


def test_components_that_the_design_cannot_part_are_named():
    one_seed = mixed(study(2, 3, 8, 1))
    assert "seed" not in one_seed.variance
    assert one_seed.note == "one seed: no component of seeds"
    one_site = mixed(study(2, 1, 8, 2))
    assert set(one_site.variance) == {"subject", "seed", "residual"}
    assert "one site: no component of sites" in one_site.note
    assert one_site.freedom == 7
    once = mixed(study(1, 3, 8, 1))
    assert "one score a subject" in once.note
    assert set(once.variance) == {"site", "residual"}


def test_subjects_seen_at_several_sites_are_crossed_with_them():
    table = study(1, 5, 10, 1)
    travelling = table.assign(subject=table["subject"].str.split("-").str[1])
    travelling["value"] += 0.1 * travelling["subject"].astype(int).map(lambda i: np.sin(5 * i))
    y = travelling["value"].to_numpy().reshape(5, 10)
    site, subject = y.mean(1), y.mean(0)
    rest = ((y - site[:, None] - subject + y.mean()) ** 2).sum() / (4 * 9)
    expected = {"site": site.var(ddof=1) - rest / 10, "subject": subject.var(ddof=1) - rest / 5, "residual": rest}
    assert min(expected.values()) > 0
    found = mixed(travelling)
    assert found.variance == pytest.approx(expected, rel=2e-3)
    assert found.means["row 0"].n == 10


def test_seeds_of_two_sites_are_other_trainings_whatever_their_number():
    table = study(2, 3, 6, 2)
    travelling = table.assign(subject=table["subject"].str.split("-").str[1])
    renamed = travelling.assign(seed=travelling["held_out"] + travelling["seed"].astype(str))
    assert mixed(renamed).variance == pytest.approx(mixed(travelling).variance)


def test_lines_of_one_subject_and_seed_are_averaged():
    table = study(2, 3, 6, 2)
    scans = pd.concat([table.assign(value=table["value"] + d) for d in (-0.01, 0.01)])
    assert mixed(scans).variance == pytest.approx(mixed(table).variance)


def test_intervals_end_where_a_mean_can():
    table = study(1, 2, 5, 2, sd=(0.1, 0.02, 0.02, 0.02), seed=3)
    free, bound = (mixed(table, **options).means["row 0"] for options in ({}, {"within": (0, 1)}))
    assert free.low < 0  # two sites know very little
    assert free.high > 1
    assert (bound.low, bound.high) == (0, 1)


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        (study(2, 1, 1, 3), "at least 2 subjects with scores, got 1"),
        (study().assign(value=np.nan), "at least 2 subjects with scores, got 0"),
        (study().assign(value=0.5), "all scores are equal"),
        (study(1, 1, 8, 1), "nothing to part from the residual"),
    ],
)
def test_where_there_is_no_fit_the_reason_is_given(table, reason):
    found = mixed(table)
    assert reason in found.reason
    assert (found.means, found.variance, found.converged) == ({}, {}, False)


def test_large_studies_are_averaged_over_seeds_and_larger_ones_refused(monkeypatch):
    module = sys.modules["shiftproof.statistics.mixed"]  # the attribute of that name is the function
    table = study(2, 4, 8, 3)
    averaged = table.groupby(["row", "held_out", "subject"])["value"].mean().reset_index()
    expected = mixed(averaged)
    # 4 sites of 48 lines, with 1 site, 8 subjects and 6 trainings each; then of 16 lines without the trainings.
    monkeypatch.setattr(module, "LARGEST", 4 * 48 * 15**2 - 1)
    found = mixed(table)
    assert "192 scores: seeds averaged" in found.note
    assert found.variance == expected.variance
    monkeypatch.setattr(module, "LARGEST", 4 * 16 * 9**2 - 1)
    assert mixed(table).reason == "32 subjects of 4 sites are too many for a mixed model"


def test_a_failing_optimiser_is_a_reason(monkeypatch):
    module = pytest.importorskip("statsmodels.regression.mixed_linear_model")

    def fails(*args: object, **kwargs: object) -> None:
        raise np.linalg.LinAlgError("Singular matrix")

    monkeypatch.setattr(module.MixedLM, "fit", fails)
    found = mixed(study())
    assert found.reason == "the model did not converge (Singular matrix)"
    assert not found.converged


def test_warnings_stay_inside(recwarn):
    mixed(study(2, 2, 4, 2, sd=(0, 0, 0, 0.03)))
    assert not recwarn.list


def test_a_missing_column_and_text_are_named():
    with pytest.raises(OptionError, match="numbers or NaN"):
        mixed(study().astype({"value": object}).assign(value="good"))
    with pytest.raises(OptionError, match="without subject"):
        mixed(study().drop(columns="subject"))
    with pytest.raises(OptionError, match="without scanner"):
        mixed(study(), site="scanner")
